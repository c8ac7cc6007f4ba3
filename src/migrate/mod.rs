//! Migration from another log while the store runs: both are written, what they say is compared, and each replica moves over by itself.
//!
//! A replica begins in the old log. With its first write it is *mirrored*: strandlog takes its keyed state and every entry from there on.
//! Reads come from the old log. At a truncation that leaves nothing in the old log that is not in strandlog, the two are
//! compared, and where they agree the replica is *switched*: it is removed from the old log, and strandlog alone has it.
//!
//! The old log is written first, and it is the truth until the switch: after a crash between the two writes, or a failure of either,
//! strandlog's copy is made anew from it. So a migration can be given up, for each replica that is not switched yet, by
//! opening the old log alone. A batch is atomic over replicas of one kind only: those switched, and those not.
//!
//! What state machines report ([`Batch::durable_applied`]) is in strandlog alone. A copy that is made anew keeps no more of it than that there
//! was a report, 0: truncations wait for the next. After a migration was given up, begin it again with a new file: a replica that was removed
//! and came back meanwhile with the same entries would be taken for the one before, and its report, too. Until the switch, apply again from
//! behind the report, or from the first index of [`DualWrite::bounds`]: the copy may begin later, and
//! [`Replica::reapply_from`](crate::Replica::reapply_from) knows of no more than that.

mod compare;
mod old;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::applied::MOVING_KEY;
use crate::batch::{Batch, Entry, What};
use crate::error::Error;
use crate::replica::Replica;
use crate::wal::Wal;

pub use old::{Change, Difference, Differs, OldError, OldLog};

/// Value of the mark of a mirrored replica.
const MIRRORED: &[u8] = b"m";
/// Value of the mark of a switched one.
const SWITCHED: &[u8] = b"s";
/// Differences that are kept until somebody asks for them.
const KEPT_DIFFERENCES: usize = 1024;
/// Payload copied into one batch.
const COPY_BYTES: usize = 1 << 20;

/// What went wrong, and on which side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The old log failed. What was to be written may be in it; strandlog is made to agree before it is written again.
    #[error("the old log: {0}")]
    Old(#[source] OldError),
    /// Strandlog failed. Replicas that are not switched have it durably in the old log.
    #[error("strandlog: {0}")]
    New(#[from] Error),
    /// Strandlog holds a replica of this id that does not come from this migration, and the old log holds one, too.
    #[error("replica {replica} is in both logs, and this migration did not put it there; is this the right file?")]
    Collision {
        /// The replica.
        replica: u64,
    },
}

/// How far a replica has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the old log alone: not written since the migration began.
    Old,
    /// In both; read from the old one.
    Mirrored,
    /// In strandlog alone.
    Switched,
}

impl Replica {
    /// How far a [migration](self) had come with the replica when it was last written down, in a log that one wrote: mirrored or switched, and
    /// switched for as long as it lives. `None` of one that no migration put there.
    ///
    /// # Errors
    /// [`Error::Damaged`] where keyed state may miss an update.
    pub fn migration(&self) -> Result<Option<Stage>, Error> {
        let mark = self.get(MOVING_KEY)?;
        Ok(mark.map(|mark| if *mark == *SWITCHED { Stage::Switched } else { Stage::Mirrored }))
    }
}

/// Both logs, behind one face: see the [module](self).
///
/// One thread at a time: put it behind a lock. It commits, and waits, as the old log does.
#[derive(Debug)]
pub struct DualWrite<O> {
    old: O,
    new: Wal,
    /// Replicas that are mirrored or switched.
    stages: BTreeMap<u64, Stage>,
    /// Mirrored replicas whose copy may not be what the old log has.
    doubtful: BTreeSet<u64>,
    /// Switched replicas that the old log may still hold.
    leftover: BTreeSet<u64>,
    differences: Vec<Difference>,
}

impl<O: OldLog> DualWrite<O> {
    /// Begins a migration, or goes on with one: what a crash left between the two logs is put right.
    ///
    /// # Errors
    /// [`MigrateError::Collision`] where strandlog holds replicas of its own; what either log says.
    pub fn open(old: O, new: Wal) -> Result<Self, MigrateError> {
        let (stages, doubtful, leftover) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut this = Self { old, new, stages, doubtful, leftover, differences: Vec::new() };
        for id in this.new.replicas() {
            let in_old = this.old.bounds(id).map_err(MigrateError::Old)?.is_some();
            match this.new.replica(id).migration() {
                Ok(Some(Stage::Switched)) => {
                    this.stages.insert(id, Stage::Switched);
                    if in_old {
                        this.leftover.insert(id);
                        this.clear_leftover(id)?;
                    }
                }
                Ok(None) if in_old => return Err(MigrateError::Collision { replica: id }),
                Ok(None) => drop(this.stages.insert(id, Stage::Switched)),
                // Also where the mark cannot be read, and the old log has the replica: it was not switched, or that log would not.
                Ok(Some(_)) | Err(_) if in_old => {
                    this.stages.insert(id, Stage::Mirrored);
                    this.make_agree(id)?;
                }
                Ok(Some(_)) => drop(this.new.commit(Batch::new().remove(id))?),
                // Damaged, and strandlog's alone: its raft hears of it when it reads.
                Err(_) => drop(this.stages.insert(id, Stage::Switched)),
            }
        }
        Ok(this)
    }

    /// Where a replica is.
    pub fn stage(&self, replica: u64) -> Stage {
        self.stages.get(&replica).copied().unwrap_or(Stage::Old)
    }

    /// Whether the old log holds nothing any more.
    ///
    /// # Errors
    /// What the old log says.
    pub fn is_done(&self) -> Result<bool, MigrateError> {
        self.old.replicas().map(|ids| ids.is_empty()).map_err(MigrateError::Old)
    }

    /// Both logs, each by itself again.
    pub fn into_parts(self) -> (O, Wal) {
        (self.old, self.new)
    }

    /// Strandlog, for figures.
    pub fn new_log(&self) -> &Wal {
        &self.new
    }

    /// Where the logs did not agree since somebody last asked; the newest 1024. What differed was copied anew from the old log.
    pub fn take_differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

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

    /// Begins to mirror a replica, at the end of what the old log holds.
    fn begin(&mut self, id: u64) -> Result<(), MigrateError> {
        match self.old.bounds(id).map_err(MigrateError::Old)? {
            Some((_, last)) => {
                let term = self.old.term(id, last).map_err(MigrateError::Old)?;
                self.begin_behind(id, last, term)?;
                self.copy_state(id)?;
            }
            None => self.begin_behind(id, 0, 0)?,
        }
        self.doubtful.remove(&id);
        Ok(())
    }

    /// A copy without entries or keyed state, in the place of any that there is: in doubt until it has them. It rides with what is
    /// committed next; a crash before finds what was there before.
    fn begin_behind(&mut self, id: u64, before: u64, term: u64) -> Result<(), MigrateError> {
        let reports = self.reports(id);
        let mut batch = Batch::new();
        if self.new.replica(id).exists() {
            batch.remove(id);
        }
        batch.install_snapshot(id, before, term).put_own(id, MOVING_KEY, MIRRORED);
        // What was reported may be of a life before, or lie below all that the copy will hold: that there was a report is what counts.
        // Nothing is truncated ahead of the next one, and what is applied again is applied once too often at worst.
        if reports {
            batch.durable_applied(id, 0);
        }
        self.doubtful.insert(id);
        drop(self.new.submit(batch.lazy())?);
        self.stages.insert(id, Stage::Mirrored);
        Ok(())
    }

    /// Whether the state machine of the copy has reported, or may have.
    fn reports(&self, id: u64) -> bool {
        !matches!(self.new.replica(id).durable_applied(), Ok(None))
    }

    /// Everything that the old log holds is in strandlog, and the same: the replica moves over.
    fn try_switch(&mut self, id: u64) -> Result<(), MigrateError> {
        let Some((first, _)) = self.old.bounds(id).map_err(MigrateError::Old)? else { return Ok(()) };
        if self.new.replica(id).first_index() > first {
            return Ok(());
        }
        let found = self.differences_of(id)?;
        if !found.is_empty() {
            self.report(found);
            return self.make_agree(id);
        }
        let mut mark = Batch::new();
        mark.put_own(id, MOVING_KEY, SWITCHED);
        // **Durable before the old log forgets it**: until then that is the truth.
        self.new.commit(&mut mark)?;
        self.stages.insert(id, Stage::Switched);
        self.leftover.insert(id);
        self.clear_leftover(id)
    }

    /// A switched replica must be gone from the old log before it is changed: or a crash after its removal would bring it back.
    fn clear_leftover(&mut self, id: u64) -> Result<(), MigrateError> {
        if self.leftover.contains(&id) {
            self.old.write(&[Change::Remove { replica: id }]).map_err(MigrateError::Old)?;
            self.leftover.remove(&id);
        }
        Ok(())
    }

    fn report(&mut self, found: Vec<Difference>) {
        for difference in &found {
            tracing::warn!(target: "strandlog", %difference, "the logs differ");
        }
        self.differences.extend(found);
        let many = self.differences.len().saturating_sub(KEPT_DIFFERENCES);
        self.differences.drain(..many);
    }

    /// First and last index; `None` where the replica does not exist.
    ///
    /// # Errors
    /// What the log says that holds it.
    pub fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, MigrateError> {
        if self.stage(replica) != Stage::Switched {
            return self.old.bounds(replica).map_err(MigrateError::Old);
        }
        let r = self.new.replica(replica);
        Ok(r.exists().then(|| r.bounds()))
    }

    /// The term of an entry, or of the one before the first.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`].
    pub fn term(&self, replica: u64, index: u64) -> Result<u64, MigrateError> {
        if self.stage(replica) != Stage::Switched {
            return self.old.term(replica, index).map_err(MigrateError::Old);
        }
        Ok(self.new.replica(replica).term(index)?)
    }

    /// Entries from `first` to `last`, both among them: at least one. What comes from the old log is compared with strandlog's copy, where
    /// it has one; a difference is reported, and copied anew with the next write.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`].
    pub fn entries(&mut self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, MigrateError> {
        match self.stage(replica) {
            Stage::Switched => {
                let end = last.saturating_add(1);
                Ok(self.new.replica(replica).entries(first..end, usize::MAX)?)
            }
            stage => {
                let read = self.old.entries(replica, first, last).map_err(MigrateError::Old)?;
                if stage == Stage::Mirrored && !self.doubtful.contains(&replica) {
                    let found = self.compare_entries(replica, &read);
                    if !found.is_empty() {
                        self.doubtful.insert(replica);
                        self.report(found);
                    }
                }
                Ok(read)
            }
        }
    }

    /// A keyed value.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`].
    pub fn get(&self, replica: u64, key: &[u8]) -> Result<Option<Bytes>, MigrateError> {
        if self.stage(replica) == Stage::Switched {
            return Ok(self.new.replica(replica).get(key)?);
        }
        let state = self.old.state(replica).map_err(MigrateError::Old)?;
        Ok(state.into_iter().find(|(k, _)| k == key).map(|(_, value)| value))
    }
}

fn entries_of(batch: &Batch, what: What) -> Vec<(u64, u64, &[u8])> {
    let What::Append { first, from, to } = what else { return Vec::new() };
    let metas = batch.metas.get(from..to).unwrap_or(&[]);
    metas.iter().zip(first..).map(|(m, index)| (index, m.term, batch.payload(m))).collect()
}
