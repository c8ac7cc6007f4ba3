//! Reports of state machines for replicas that both logs hold: the old log drops nothing that a state machine may have to apply again.
//! Strandlog alone would keep too little, because its copy may begin later.

use super::{Change, DualWrite, MigrateError, OldLog, Stage};
use crate::applied;
use crate::operation::What;
use crate::replica::Replica;

/// Whether a replica exists, and what its state machine was reported to hold, in the middle of a batch.
#[derive(Debug)]
pub(super) struct Reported {
    exists: bool,
    applied: Option<u64>,
}

impl Reported {
    /// As strandlog has it; a report that cannot be read counts as 0, so that nothing is dropped.
    pub fn to(new: &Replica) -> Self {
        Self { exists: new.exists(), applied: new.durable_applied().unwrap_or(Some(0)) }
    }

    /// Takes account of the next operation on the replica. As in strandlog, a report counts only if the replica exists.
    pub fn see(&mut self, what: What) {
        match what {
            What::Remove => *self = Self { exists: false, applied: None },
            What::Append { .. } | What::Put { .. } => self.exists = true,
            What::Reset { index, .. } => {
                *self = Self { exists: true, applied: self.applied.map(|applied| applied.min(index)) }
            }
            What::Applied { index, .. } if self.exists => self.applied = self.applied.max(Some(index)),
            What::Applied { .. } | What::Delete { .. } | What::Truncate { .. } | What::Cut { .. } => {}
        }
    }

    /// Where a truncation must end: anywhere, if the replica never reported.
    pub fn bound(&self) -> u64 {
        self.applied.map_or(u64::MAX, |applied| applied.saturating_add(1))
    }
}

impl<O: OldLog> DualWrite<O> {
    /// The index from which the state machine must apply again after an opening: right after what it was reported to hold durably
    /// ([`Batch::durable_applied`](crate::Batch::durable_applied)), or the first entry that is kept (in the old log until the switch).
    /// One beyond the last index if there is nothing to apply.
    ///
    /// # Errors
    /// As [`DualWrite::bounds`] and [`Replica::durable_applied`].
    pub fn reapply_from(&self, replica: u64) -> Result<u64, MigrateError> {
        let new = self.new.replica(replica);
        if self.stage(replica) == Stage::Switched {
            return Ok(new.reapply_from()?);
        }
        let bounds = self.bounds(replica)?.unwrap_or((1, 0));
        Ok(applied::reapply_from(bounds, new.durable_applied()?))
    }

    /// Carries out the waiting truncation in the old log, as far as the report allows now. Strandlog has already done so with its copy. Takes and
    /// returns the bounds of the old log.
    pub(super) fn let_go(&mut self, id: u64, (first, last): (u64, u64)) -> Result<(u64, u64), MigrateError> {
        let Some(&wanted) = self.waiting.get(&id) else { return Ok((first, last)) };
        let bound = Reported::to(&self.new.replica(id)).bound();
        // The suffix may have been cut since it was asked for.
        let first_kept = wanted.min(bound).min(last.saturating_add(1)).max(first);
        if first_kept > first {
            let change = Change::TruncatePrefix { replica: id, first_kept };
            self.old.write(&[change]).map_err(MigrateError::Old)?;
        }
        if wanted <= bound {
            self.waiting.remove(&id);
        }
        Ok((first_kept, last))
    }
}
