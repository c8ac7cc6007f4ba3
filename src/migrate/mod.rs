//! Migration from another log while the store runs: both logs are written, their answers are compared, and each replica moves over on its own.
//!
//! A replica begins in the old log. With its first write it is *mirrored*: strandlog receives its keyed state and every entry from there on;
//! reads still come from the old log. When a truncation leaves nothing in the old log that is not in strandlog, the two are
//! compared. If they agree, the replica is *switched*: it is removed from the old log, and only strandlog has it.
//!
//! The old log is written first, and it is the source of truth until the switch: after a crash between the two writes, or a failure of either,
//! strandlog's copy is rebuilt from it. So a migration can be abandoned, for every replica that is not switched yet, by
//! opening the old log alone. A batch is atomic only across replicas of one kind: those switched, or those not.
//!
//! Strandlog may have no place for a replica: it is full, the old log holds a value beyond its limits, or a key that begins with
//! `\0sl.` as strandlog's own keys do. Such a replica stays in doubt: nothing can be appended to it, and it is not switched. Operations that only drop entries and keys of it go to the old log
//! alone, and so may resolve that; a removal does not have to wait for it.
//!
//! Reports of state machines ([`Batch::durable_applied`]) are kept in strandlog alone. A copy that is rebuilt keeps only the fact that there
//! was a report, as 0, so truncations wait for the next report. The old log is truncated no further than the reports go, either. After a crash, apply again from
//! [`DualWrite::reapply_from`]: until the switch the copy may begin later than the old log, and
//! [`Replica::reapply_from`](crate::Replica::reapply_from) knows only the copy.
//!
//! If a migration was abandoned, begin the next one with a new file. Otherwise a replica that was removed
//! and came back meanwhile with the same entries would be taken for the previous one, and so would its report.

mod again;
mod ask;
mod compare;
mod old;
mod reports;
mod sense;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use again::Unfinished;

use crate::batch::{Batch, Entry};
use crate::error::Error;
use crate::index::MOVING_KEY;
use crate::replica::Replica;
use crate::wal::Wal;

pub use old::{Change, Difference, Differs, OldError, OldLog};

/// Value of the mark of a mirrored replica.
const MIRRORED: &[u8] = b"m";
/// Value of the mark of a switched one.
const SWITCHED: &[u8] = b"s";
/// The most differences that are kept for [`DualWrite::take_differences`].
const KEPT_DIFFERENCES: usize = 1024;
/// Payload copied into one batch.
const COPY_BYTES: usize = 1 << 20;

/// What went wrong, and on which side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The old log failed, or gave an answer that [`OldLog`] does not allow. It may contain the write or not; strandlog is brought into agreement before it is
    /// written again.
    #[error("the old log: {0}")]
    Old(#[source] OldError),
    /// Strandlog failed, or has no room, or would refuse this even with room (a gap, an entry or a value beyond its limits). This attempt wrote
    /// nothing of the batch to the old log.
    #[error("strandlog: {0}")]
    New(#[from] Error),
    /// Strandlog failed, or has no room, after the old log had written its part of the batch: that is durable there. The batch can be committed again, with the
    /// same result.
    #[error("strandlog: {0}; but the old log, which is written first, has its part of the batch")]
    OldAlone(#[source] Error),
    /// Both logs hold a replica with this id, and strandlog's does not come from this migration. Or the replica had been switched, and the old log
    /// was then used alone and has it again. Nothing was changed.
    #[error(
        "replica {replica} is in both logs, and this migration did not put it there; is this the right file? If the old log was used alone since the \
         replica had moved over, begin with a new file"
    )]
    Collision {
        /// The replica.
        replica: u64,
    },
}

/// Whether strandlog only has no place for what it was given: nothing failed.
fn refused(error: &MigrateError) -> bool {
    let MigrateError::New(error) = error else { return false };
    matches!(
        error,
        Error::Full(_)
            | Error::EntryTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::BatchTooLarge { .. }
            // A key with the prefix of strandlog's own.
            | Error::Contradiction { .. }
    )
}

/// How far a replica has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Only in the old log: not written since the migration began.
    Old,
    /// In both logs; reads come from the old one.
    Mirrored,
    /// Only in strandlog.
    Switched,
}

impl Replica {
    /// How far a [migration](self) has moved the replica, as last recorded in this log: mirrored or switched. A switched replica
    /// stays marked as long as it lives. `None` if no migration put it there.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the keyed state may miss an update.
    pub fn migration(&self) -> Result<Option<Stage>, Error> {
        let mark = self.get(MOVING_KEY)?;
        Ok(mark.map(|mark| if *mark == *SWITCHED { Stage::Switched } else { Stage::Mirrored }))
    }
}

/// Both logs behind one interface: see the [module](self).
///
/// For one thread at a time: put it behind a lock. It commits and waits, as the old log does.
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
    /// Truncations of mirrored replicas that wait for a report: the first index that they were to keep.
    waiting: BTreeMap<u64, u64>,
    /// Replicas of batches that failed after the old log might have applied them.
    unfinished: BTreeMap<u64, Unfinished>,
    differences: Vec<Difference>,
}

impl MigrateError {
    /// The same error, after the old log was written.
    fn behind_old(self) -> Self {
        match self {
            Self::New(error) => Self::OldAlone(error),
            other => other,
        }
    }
}

impl<O: OldLog> DualWrite<O> {
    /// Begins or resumes a migration. Differences that a crash left between the two logs are repaired.
    ///
    /// # Errors
    /// [`MigrateError::Collision`] if strandlog holds replicas of its own; [`Error::ReadOnly`] if it was opened read-only; errors of either log.
    pub fn open(old: O, new: Wal) -> Result<Self, MigrateError> {
        // Refused before the old log is told to drop anything: a salvaged view of the new log may lack what the file has.
        if new.engine.read_only {
            return Err(Error::ReadOnly.into());
        }
        let (stages, doubtful, leftover) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (waiting, unfinished, differences) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut this = Self { old, new, stages, doubtful, leftover, waiting, unfinished, differences };
        for id in this.new.replicas() {
            let (new, held) = (this.new.replica(id), this.old_bounds(id)?);
            match (new.migration(), held) {
                (Ok(None), Some(_)) => return Err(MigrateError::Collision { replica: id }),
                (Ok(Some(Stage::Switched)), Some(held)) if this.is_left_over(id, held)? => {
                    this.stages.insert(id, Stage::Switched);
                    this.leftover.insert(id);
                    this.clear_leftover(id)?;
                }
                // Also if the mark cannot be read, and for a switched replica that was damaged: it is not changed before the old log has
                // dropped it, so the old log still has all of it.
                (Ok(Some(_)) | Err(_), Some(held)) => {
                    this.stages.insert(id, Stage::Mirrored);
                    match this.make_agree(id, held) {
                        // A replica that cannot be copied now must not keep all others from being opened.
                        Err(error) if refused(&error) => {}
                        agrees => agrees?,
                    }
                }
                (Ok(Some(Stage::Mirrored | Stage::Old)), None) => drop(this.new.commit(Batch::new().remove(id))?),
                // If it is damaged, its raft group gets the error when it reads.
                (Ok(Some(Stage::Switched) | None) | Err(_), None) => drop(this.stages.insert(id, Stage::Switched)),
            }
        }
        Ok(this)
    }

    /// Which log holds a replica.
    pub fn stage(&self, replica: u64) -> Stage {
        self.stages.get(&replica).copied().unwrap_or(Stage::Old)
    }

    /// Whether the old log is empty: the migration is complete.
    ///
    /// # Errors
    /// Errors of the old log.
    pub fn is_done(&self) -> Result<bool, MigrateError> {
        self.old.replicas().map(|ids| ids.is_empty()).map_err(MigrateError::Old)
    }

    /// Returns both logs, separately.
    pub fn into_parts(self) -> (O, Wal) {
        (self.old, self.new)
    }

    /// The new log, for its figures.
    pub fn new_log(&self) -> &Wal {
        &self.new
    }

    /// The differences found since the last call; the newest 1024. What differed was copied again from the old log.
    pub fn take_differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    /// Begins to mirror a replica, at the end of what the old log holds.
    fn begin(&mut self, id: u64, last: u64) -> Result<(), MigrateError> {
        let term = self.old.term(id, last).map_err(MigrateError::Old)?;
        self.begin_behind(id, last, term)?;
        self.copy_state(id)?;
        self.doubtful.remove(&id);
        Ok(())
    }

    /// The old log no longer has the replica, or never had it: removes any copy, so that it is not taken for a copy of the next life.
    fn forget(&mut self, id: u64) -> Result<(), MigrateError> {
        if self.new.replica(id).exists() {
            self.new.commit(Batch::new().remove(id))?;
        }
        self.stages.remove(&id);
        self.doubtful.remove(&id);
        self.waiting.remove(&id);
        Ok(())
    }

    /// Begins a copy without entries or keyed state, in place of any that there is; it is in doubt until it has them. Written with
    /// the next commit; after a crash before that, the previous copy is there.
    fn begin_behind(&mut self, id: u64, before: u64, term: u64) -> Result<(), MigrateError> {
        let reports = self.reports(id);
        let mut batch = Batch::new();
        if self.new.replica(id).exists() {
            batch.remove(id);
        }
        batch.install_snapshot(id, before, term).put_own(id, MOVING_KEY, MIRRORED);
        // The report may concern a previous life, or lie below all that the copy will hold: only the fact that there was one counts.
        // Nothing is truncated before the next report; at worst some entries are applied once more.
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

    /// If strandlog holds everything that the old log does, and the same, the replica moves over. `settled`: the old log was successfully written
    /// after any failure.
    fn try_switch(&mut self, id: u64, held: (u64, u64), settled: bool) -> Result<(), MigrateError> {
        if self.new.replica(id).first_index() > held.0 {
            return Ok(());
        }
        let found = self.compare(id, held)?;
        if !found.is_empty() {
            self.report(found);
            return self.make_agree(id, held);
        }
        if !settled {
            // The compared content may come from a write that failed, and may yet be lost.
            let change = Change::TruncatePrefix { replica: id, first_kept: held.0 };
            self.old.write(&[change]).map_err(MigrateError::Old)?;
        }
        let mut mark = Batch::new();
        mark.put_own(id, MOVING_KEY, SWITCHED);
        // **Durable before the old log forgets it**: until then that is the truth.
        self.new.commit(&mut mark)?;
        self.stages.insert(id, Stage::Switched);
        // Strandlog defers the truncation, too. Not if the copy was begun anew since: then it must be requested again, as after a crash.
        self.waiting.remove(&id);
        self.leftover.insert(id);
        self.clear_leftover(id)
    }

    /// Whether what the old log has of a switched replica is only what it was about to drop: the two were compared, and neither has changed since.
    /// Not if strandlog's was damaged since: one cannot go on from it. If they differ, the old log was used alone and has the replica anew, and
    /// dropping that would lose it.
    fn is_left_over(&self, id: u64, held: (u64, u64)) -> Result<bool, MigrateError> {
        let new = self.new.replica(id);
        if !new.damage().is_empty() {
            return Ok(false);
        }
        let found = self.compare(id, held)?;
        if found.iter().any(|found| matches!(found.what, Differs::Unreadable { .. })) {
            return Ok(false);
        }
        if !found.is_empty() || new.first_index() > held.0 {
            return Err(MigrateError::Collision { replica: id });
        }
        Ok(true)
    }

    /// A switched replica must be gone from the old log before it is changed; otherwise a crash after its removal would bring it back.
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

    /// First and last index; `None` if the replica does not exist.
    ///
    /// # Errors
    /// Errors of the log that holds it.
    pub fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, MigrateError> {
        if self.stage(replica) != Stage::Switched {
            return self.old_bounds(replica);
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

    /// Entries in the inclusive range `first..=last`, at least one. Entries from the old log are compared with strandlog's copy, if
    /// it has one. A difference is reported, and the replica is copied again with the next write.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`].
    pub fn entries(&mut self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, MigrateError> {
        match self.stage(replica) {
            Stage::Switched => Ok(self.new.replica(replica).entries_through(first, last, usize::MAX)?),
            stage => {
                let read = self.old_entries(replica, first, last)?;
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

    /// A keyed value: [`OldLog::value`] of the old log, until the switch.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`].
    pub fn get(&self, replica: u64, key: &[u8]) -> Result<Option<Bytes>, MigrateError> {
        if self.stage(replica) == Stage::Switched {
            return Ok(self.new.replica(replica).get(key)?);
        }
        self.old.value(replica, key).map_err(MigrateError::Old)
    }
}
