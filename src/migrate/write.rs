//! Writing both logs: the old one first, then strandlog, with what each of them needs to hear.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, DualWrite, MIRRORED, MigrateError, OldLog, Stage};
use crate::applied::MOVING_KEY;
use crate::batch::{Batch, What};

impl<O: OldLog> DualWrite<O> {
    /// Writes the batch to the old log for replicas that are not switched, then to strandlog for all; durable in both on return. The
    /// batch is then empty again.
    ///
    /// # Errors
    /// [`MigrateError`]; the batch is as it was. It may be durable in the old log alone, or in part, as after any failed commit.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), MigrateError> {
        batch.check()?;
        let touched: BTreeSet<u64> = batch.ops.iter().map(|op| op.replica).collect();
        for &id in &touched {
            match self.stage(id) {
                Stage::Old => self.begin(id)?,
                Stage::Mirrored if self.doubtful.contains(&id) => self.make_agree(id)?,
                Stage::Mirrored => {}
                Stage::Switched => self.clear_leftover(id)?,
            }
        }
        let mirrored: BTreeSet<u64> = touched.iter().copied().filter(|&id| self.stage(id) == Stage::Mirrored).collect();
        // It asks the old log for terms that the batch may truncate there.
        let (mut copy, anew) = self.for_new(batch, &mirrored)?;
        // Until both have it, nobody knows what strandlog lacks.
        self.doubtful.extend(&mirrored);
        self.end_lives(&anew)?;
        self.write_old(batch, &mirrored)?;
        self.new.commit(&mut copy)?;
        self.doubtful.retain(|id| !mirrored.contains(id));
        // All of this before a switch, which may fail: who is gone must not seem to be mirrored still, or the next life has no mark.
        for op in &batch.ops {
            // Begun anew in the same batch, it stays where it is.
            if matches!(op.what, What::Remove) && !self.new.replica(op.replica).exists() {
                self.stages.remove(&op.replica);
            }
        }
        for op in &batch.ops {
            let moves = matches!(op.what, What::Truncate { .. } | What::Reset { .. });
            if moves && self.stage(op.replica) == Stage::Mirrored {
                self.try_switch(op.replica)?;
            }
        }
        batch.clear();
        Ok(())
    }

    /// Before the old log begins lives anew in the batch that ends the ones before: the two may look the same, so after a crash between the
    /// logs the copy would be taken for one of the new life, and what its state machine was reported to hold with it.
    fn end_lives(&mut self, anew: &BTreeSet<u64>) -> Result<(), MigrateError> {
        for &id in anew {
            if !self.reports(id) {
                continue;
            }
            let new = self.new.replica(id);
            let before = new.first_index().saturating_sub(1);
            // Unknown only where it is damaged; if the life goes on after all, the term is compared.
            let term = new.term(before).unwrap_or(0);
            self.begin_behind(id, before, term)?;
            self.new.sync()?;
        }
        Ok(())
    }

    fn write_old(&mut self, batch: &Batch, mirrored: &BTreeSet<u64>) -> Result<(), MigrateError> {
        let runs: Vec<Vec<(u64, u64, &[u8])>> = batch.ops.iter().map(|op| entries_of(batch, op.what)).collect();
        let mut changes = Vec::new();
        for (op, entries) in batch.ops.iter().zip(&runs).filter(|(op, _)| mirrored.contains(&op.replica)) {
            let replica = op.replica;
            changes.push(match op.what {
                What::Append { .. } => Change::Append { replica, entries },
                What::Put { key, value } => {
                    Change::Put { replica, key: batch.bytes_of(key), value: batch.bytes_of(value) }
                }
                What::Delete { key } => Change::Delete { replica, key: batch.bytes_of(key) },
                What::Truncate { first } => Change::TruncatePrefix { replica, first_kept: first },
                What::Cut { from } => Change::TruncateSuffix { replica, from },
                What::Reset { index, term } => Change::InstallSnapshot { replica, index, term },
                What::Remove => Change::Remove { replica },
                // Strandlog's own affair.
                What::Applied { .. } => continue,
            });
        }
        if changes.is_empty() { Ok(()) } else { self.old.write(&changes).map_err(MigrateError::Old) }
    }

    /// The batch as strandlog takes it. A mirror may begin in the middle of a log: an overwrite from before moves its beginning.
    /// With it, the mirrored replicas that are removed and begun anew.
    fn for_new(&self, batch: &Batch, mirrored: &BTreeSet<u64>) -> Result<(Batch, BTreeSet<u64>), MigrateError> {
        let mut copy = Batch::new();
        let mut firsts: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut removed, mut anew) = (BTreeSet::new(), BTreeSet::new());
        for op in &batch.ops {
            let id = op.replica;
            let first_held = firsts.entry(id).or_insert_with(|| self.new.replica(id).first_index());
            if removed.contains(&id) && matches!(op.what, What::Append { .. } | What::Put { .. } | What::Reset { .. }) {
                anew.insert(id);
            }
            match op.what {
                What::Append { first: from, .. } | What::Cut { from }
                    if mirrored.contains(&id) && from < *first_held =>
                {
                    let before = from.saturating_sub(1);
                    let term = self.old.term(id, before).map_err(MigrateError::Old)?;
                    copy.install_snapshot(id, before, term);
                    *first_held = from;
                    copy.append(id, &entries_of(batch, op.what));
                }
                What::Append { .. } => drop(copy.append(id, &entries_of(batch, op.what))),
                What::Cut { from } => drop(copy.truncate_suffix(id, from)),
                What::Put { key, value } => drop(copy.put(id, batch.bytes_of(key), batch.bytes_of(value))),
                What::Delete { key } => drop(copy.delete(id, batch.bytes_of(key))),
                What::Truncate { first } => {
                    copy.truncate_prefix(id, first);
                    *first_held = first.max(*first_held);
                }
                What::Reset { index, term } => {
                    copy.install_snapshot(id, index, term);
                    *first_held = index.saturating_add(1);
                }
                What::Remove => {
                    copy.remove(id);
                    *first_held = 1;
                    removed.insert(id);
                    anew.remove(&id);
                }
                What::Applied { index } => drop(copy.durable_applied(id, index)),
            }
        }
        anew.retain(|id| mirrored.contains(id));
        // The mark has gone with the life before.
        for id in &anew {
            copy.put_own(*id, MOVING_KEY, MIRRORED);
        }
        Ok((copy, anew))
    }
}

fn entries_of(batch: &Batch, what: What) -> Vec<(u64, u64, &[u8])> {
    let What::Append { first, from, to } = what else { return Vec::new() };
    let metas = batch.metas.get(from..to).unwrap_or(&[]);
    metas.iter().zip(first..).map(|(m, index)| (index, m.term, batch.payload(m))).collect()
}
