//! Writes both logs: the old one first, then strandlog, each with the operations that concern it.

use std::collections::{BTreeMap, BTreeSet};

use super::reports::Reported;
use super::{Change, DualWrite, MIRRORED, MigrateError, OldLog, Stage, refused};
use crate::batch::Batch;
use crate::index::MOVING_KEY;
use crate::operation::{Op, What};

impl<O: OldLog> DualWrite<O> {
    /// Writes the batch to the old log for replicas that are not switched, then to strandlog for all. Durable in both on return, and the
    /// batch is empty again. Operations that only drop entries and keys of a replica that strandlog has no place for go to the old log alone.
    ///
    /// # Errors
    /// [`MigrateError`]; the batch is left as it was. It may be durable in the old log alone, or in part, as after any failed commit.
    ///
    /// Commit it again before any other batch for the same replicas, and the result is as if it had not failed: the migration finds out what is already there.
    /// Only a truncation in it that had to wait for a report may have to be asked for again. After a reopening the failed batch is no longer known: read
    /// [`bounds`](DualWrite::bounds), and build a batch from what is there. Do the same to commit a different batch: one that appends after what the failed batch
    /// cut, or below what it truncated, is refused ([`Error::Gap`](crate::Error::Gap), [`Error::Compacted`](crate::Error::Compacted)).
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), MigrateError> {
        batch.check()?;
        let rest = self.rest_of(batch)?;
        let mut in_old = None;
        let written = self.write(rest.as_ref().unwrap_or(batch), &mut in_old);
        if written.is_ok() {
            batch.ops.iter().for_each(|op| _ = self.unfinished.remove(&op.replica));
            batch.clear();
        } else if let Some(unborn) = in_old {
            self.is_unfinished(batch, &unborn);
        }
        written
    }

    /// Sets `in_old` once the old log may have been written: to the replicas of the batch that neither log had before.
    fn write(&mut self, batch: &Batch, in_old: &mut Option<BTreeSet<u64>>) -> Result<(), MigrateError> {
        let bounds = self.check_sense(batch)?;
        self.compare_ends(&bounds);
        let asked = Asked::of(batch);
        let mut left_out = BTreeSet::new();
        for (&id, asked) in &asked {
            match self.prepare(id, asked, bounds.get(&id).copied().flatten()) {
                // The old log can drop entries and keys without strandlog; the copy stays in doubt.
                Err(error) if asked.lets_go && refused(&error) => drop(left_out.insert(id)),
                prepared => prepared?,
            }
        }
        let unswitched: BTreeSet<u64> = asked.into_keys().filter(|&id| self.stage(id) != Stage::Switched).collect();
        // Before the old log is written: this asks it for terms that the batch may truncate there.
        let (mut copy, begun) = self.for_new(batch, &unswitched, &left_out)?;
        // A batch that strandlog would refuse however much room there is must not get into the old log: strandlog could never follow.
        self.new.engine.check(&mut copy)?;
        // Until both have the batch, it is unknown what strandlog lacks.
        self.doubtful.extend(&unswitched);
        self.stages.extend(begun.iter().map(|&id| (id, Stage::Mirrored)));
        self.end_lives(&begun)?;
        *in_old = Some(bounds.into_iter().filter(|(_, held)| held.is_none()).map(|(id, _)| id).collect());
        let (waiting, has_written) = self.write_old(batch, &unswitched)?;
        let behind_old = |error: MigrateError| if has_written { error.behind_old() } else { error };
        self.new.commit(&mut copy).map_err(|error| behind_old(error.into()))?;
        self.doubtful.retain(|id| !unswitched.contains(id) || left_out.contains(id));
        // All of this before a switch, which may fail: a removed replica must not still count as mirrored, or its next life gets no mark.
        for op in batch.ops.iter().filter(|op| matches!(op.what, What::Remove | What::Reset { .. })) {
            // The waiting truncation was for entries that are gone.
            self.waiting.remove(&op.replica);
            // A replica that was begun anew in the same batch keeps its stage.
            if !self.new.replica(op.replica).exists() {
                self.stages.remove(&op.replica);
            }
        }
        for (id, first) in waiting {
            let wanted = self.waiting.entry(id).or_insert(first);
            *wanted = first.max(*wanted);
        }
        let moves = |op: &&Op| match op.what {
            What::Truncate { .. } | What::Reset { .. } => true,
            What::Applied { .. } => self.waiting.contains_key(&op.replica),
            _ => false,
        };
        let moving: BTreeSet<u64> = batch.ops.iter().filter(moves).map(|op| op.replica).collect();
        for id in moving {
            if self.stage(id) == Stage::Mirrored && !self.doubtful.contains(&id) {
                self.move_on(id, has_written).map_err(behind_old)?;
            }
        }
        Ok(())
    }

    /// Prepares the copy that the batch needs: begins it, or makes it agree. A replica that the old log does not have gets none: if the batch
    /// begins its life, it does so in both logs, and reports before that count as 0 at most, because they concern a life that is gone.
    fn prepare(&mut self, id: u64, asked: &Asked, held: Option<(u64, u64)>) -> Result<(), MigrateError> {
        let stage = self.stage(id);
        if stage == Stage::Switched {
            return self.clear_leftover(id);
        }
        if stage == Stage::Mirrored && !self.doubtful.contains(&id) {
            return Ok(());
        }
        let Some(held) = held else { return self.forget(id) };
        // A copy that the batch removes need not agree.
        if asked.removed {
            return Ok(());
        }
        if stage == Stage::Old { self.begin(id, held.1) } else { self.make_agree(id, held) }
    }

    /// After both logs were written: carries out a waiting truncation, and switches the replica if possible.
    fn move_on(&mut self, id: u64, has_written: bool) -> Result<(), MigrateError> {
        let Some(held) = self.old_bounds(id)? else { return Ok(()) };
        let now = self.let_go(id, held)?;
        self.try_switch(id, now, has_written || now != held)
    }

    /// For replicas that the batch removes and begins anew: before the old log is written, replaces their copies and reports. The two lives may
    /// look the same, so after a crash between the logs the old copy, and its report with it, would be taken for those of the new life.
    fn end_lives(&mut self, begun: &BTreeSet<u64>) -> Result<(), MigrateError> {
        for &id in begun {
            if !self.reports(id) {
                continue;
            }
            let new = self.new.replica(id);
            let before = new.first_index().saturating_sub(1);
            // Unknown only if it is damaged; if the old life goes on after all, the term is compared.
            let term = new.term(before).unwrap_or(0);
            self.begin_behind(id, before, term)?;
            self.new.sync()?;
        }
        Ok(())
    }

    /// Returns which truncations wait for a report, with the first index to keep, and whether there was anything to write.
    fn write_old(
        &mut self,
        batch: &Batch,
        unswitched: &BTreeSet<u64>,
    ) -> Result<(BTreeMap<u64, u64>, bool), MigrateError> {
        let mut reported: BTreeMap<u64, Reported> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, u64> = BTreeMap::new();
        let runs: Vec<Vec<(u64, u64, &[u8])>> = batch.ops.iter().map(|op| entries_of(batch, op.what)).collect();
        let mut changes = Vec::new();
        for (op, entries) in batch.ops.iter().zip(&runs).filter(|(op, _)| unswitched.contains(&op.replica)) {
            let replica = op.replica;
            let reported = reported.entry(replica).or_insert_with(|| Reported::to(&self.new.replica(replica)));
            reported.see(op.what);
            changes.push(match op.what {
                What::Append { .. } => Change::Append { replica, entries },
                What::Put { key, value } => {
                    Change::Put { replica, key: batch.bytes_of(key), value: batch.bytes_of(value) }
                }
                What::Delete { key } => Change::Delete { replica, key: batch.bytes_of(key) },
                What::Truncate { first } => {
                    let bound = reported.bound();
                    if first > bound {
                        waiting.insert(replica, first.max(waiting.get(&replica).copied().unwrap_or(0)));
                    }
                    Change::TruncatePrefix { replica, first_kept: first.min(bound) }
                }
                What::Cut { from } => Change::TruncateSuffix { replica, from },
                What::Reset { index, term } => {
                    waiting.remove(&replica);
                    // No log has an entry at index 0, and strandlog has no term for it.
                    Change::InstallSnapshot { replica, index, term: if index == 0 { 0 } else { term } }
                }
                What::Remove => Change::Remove { replica },
                // Only strandlog keeps reports.
                What::Applied { .. } => continue,
            });
        }
        let writes = !changes.is_empty();
        if writes {
            self.old.write(&changes).map_err(MigrateError::Old)?;
        }
        Ok((waiting, writes))
    }

    /// The batch for strandlog. A copy may begin in the middle of the log: an overwrite from below moves its beginning.
    /// Also returns the unswitched replicas whose lives the batch begins, anew or for the first time.
    fn for_new(
        &self,
        batch: &Batch,
        unswitched: &BTreeSet<u64>,
        left_out: &BTreeSet<u64>,
    ) -> Result<(Batch, BTreeSet<u64>), MigrateError> {
        let mut copy = Batch::new();
        let mut firsts: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut nowhere, mut begun) = (BTreeSet::new(), BTreeSet::new());
        for op in batch.ops.iter().filter(|op| !left_out.contains(&op.replica)) {
            let id = op.replica;
            let first_held = firsts.entry(id).or_insert_with(|| {
                let new = self.new.replica(id);
                if !new.exists() {
                    nowhere.insert(id);
                }
                new.first_index()
            });
            if nowhere.contains(&id) && matches!(op.what, What::Append { .. } | What::Put { .. } | What::Reset { .. }) {
                begun.insert(id);
            }
            match op.what {
                What::Append { first: from, .. } | What::Cut { from }
                    if unswitched.contains(&id) && from < *first_held =>
                {
                    let before = from.saturating_sub(1);
                    let term = self.old.term(id, before).map_err(MigrateError::Old)?;
                    copy.install_snapshot(id, before, term);
                    *first_held = from;
                    // Of a cut this is empty: nothing is left after it.
                    copy.append(id, &entries_of(batch, op.what));
                    continue;
                }
                What::Truncate { first } => *first_held = first.max(*first_held),
                What::Reset { index, .. } => *first_held = index.saturating_add(1),
                What::Remove => {
                    *first_held = 1;
                    nowhere.insert(id);
                    begun.remove(&id);
                }
                _ => {}
            }
            add_again(&mut copy, batch, op);
        }
        begun.retain(|id| unswitched.contains(id));
        // The mark is gone with the previous life, if there was one.
        for id in &begun {
            copy.put_own(*id, MOVING_KEY, MIRRORED);
        }
        Ok((copy, begun))
    }
}

/// A summary of what a batch does to a replica.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Its first operation is a removal.
    removed: bool,
    /// All its operations only drop entries and keys.
    lets_go: bool,
}

impl Asked {
    /// For each replica that the batch names.
    fn of(batch: &Batch) -> BTreeMap<u64, Self> {
        let mut all: BTreeMap<u64, Self> = BTreeMap::new();
        for op in &batch.ops {
            let lets_go = matches!(op.what, What::Delete { .. } | What::Truncate { .. } | What::Cut { .. });
            let first = Self { removed: matches!(op.what, What::Remove), lets_go };
            all.entry(op.replica).or_insert(first).lets_go &= lets_go;
        }
        all
    }
}

/// Adds an operation of another batch.
pub(super) fn add_again(to: &mut Batch, batch: &Batch, op: &Op) {
    let id = op.replica;
    match op.what {
        What::Append { .. } => to.append(id, &entries_of(batch, op.what)),
        What::Cut { from } => to.truncate_suffix(id, from),
        What::Put { key, value } => to.put(id, batch.bytes_of(key), batch.bytes_of(value)),
        What::Delete { key } => to.delete(id, batch.bytes_of(key)),
        What::Truncate { first } => to.truncate_prefix(id, first),
        What::Reset { index, term } => to.install_snapshot(id, index, term),
        What::Remove => to.remove(id),
        What::Applied { index, life } => to.report(id, life, index),
    };
}

pub(super) fn entries_of(batch: &Batch, what: What) -> Vec<(u64, u64, &[u8])> {
    let What::Append { first, from, to } = what else { return Vec::new() };
    let metas = batch.metas.get(from..to).unwrap_or(&[]);
    metas.iter().zip(first..).map(|(m, index)| (index, m.term, batch.payload(m))).collect()
}
