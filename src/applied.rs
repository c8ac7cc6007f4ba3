//! What state machines have made durable, as embedders report it: no truncation overtakes it, and it tells recovery from where to apply
//! again.

use crate::batch::Batch;
use crate::error::{Damage, Error, Lost, Result};
use crate::index::Life;
use crate::replica::Replica;
use crate::wal::Wal;

/// The index from which a state machine that holds everything up to `applied` must apply what the log holds, `first` to `last`.
pub(crate) fn reapply_from((first, last): (u64, u64), applied: Option<u64>) -> u64 {
    let behind = applied.map_or(first, |applied| applied.min(last).saturating_add(1));
    behind.max(first)
}

impl Batch {
    /// Reports that the state machine has made everything up to `index` durable: see [`Wal::durable_applied`].
    ///
    /// A report lower than an earlier one is ignored. So is one for a replica that does not exist (it may have been removed meanwhile), unless a later operation of
    /// the batch creates the replica: then it counts as a report of 0, as it may be a late one from the previous life. [`Batch::install_snapshot`]
    /// lowers what was reported beyond its index, even earlier in the same batch.
    pub fn durable_applied(&mut self, replica: u64, index: u64) -> &mut Self {
        self.report(replica, None, index)
    }
}

impl Wal {
    /// Reports that the replica's state machine has made everything up to `index` durable (0: nothing yet).
    ///
    /// From the first report on, no entry above the report is truncated: a [`Batch::truncate_prefix`] that asks for more waits
    /// until a report covers it. So the log can be the state machine's only write-ahead log: after a crash, apply again
    /// from [`Replica::reapply_from`] on. A replica that never reported is truncated as asked.
    ///
    /// A report may be lower than an earlier one only after [`Batch::install_snapshot`], which lowers what was reported beyond its index: that
    /// is how a state machine is rebuilt from a peer's snapshot, or from an older state of its own. An index beyond the log's last is
    /// accepted, for a snapshot that is about to be installed. Report only what is committed: cutting or overwriting a suffix does not lower the
    /// report, so what takes its place would not be applied.
    ///
    /// Causes no sync: the report, and the truncations that it allows, are written with the next commit. A crash may lose reports, so that
    /// entries are applied twice, and waiting truncations, which must then be asked for again. Report
    ///
    /// - once after each opening, before the first truncation. Sync the state machine's files before that, as what a killed process
    ///   left may be only in the kernel's cache;
    /// - in the batch that creates a replica ([`Batch::durable_applied`]; before the operation that creates it, it counts as 0). A report for
    ///   a replica that does not exist is ignored, and so is one that names a life that is over ([`Wal::durable_applied_in`]);
    /// - again after [`Batch::install_snapshot`] has healed a damaged replica.
    ///
    /// Heal a replica whose state is [lost](Lost::State) before you truncate it: if damage took all its reports, nobody knows that there
    /// were any, and it is truncated as asked.
    ///
    /// # Errors
    /// As [`Wal::submit`]; [`Error::Full`] only for a replica's first report, which takes some bytes of metadata.
    pub fn durable_applied(&self, replica: u64, index: u64) -> Result<()> {
        self.durable_applied_many(&[(replica, index)])
    }

    /// Like [`Wal::durable_applied`], for this [life](Replica::life) of the replica only: once that is over, the report is ignored, even if
    /// the replica has begun anew. For a store that may still report when the replica is removed, from a flush in progress for instance.
    ///
    /// # Errors
    /// As [`Wal::durable_applied`].
    pub fn durable_applied_in(&self, replica: u64, life: Life, index: u64) -> Result<()> {
        drop(self.submit(Batch::new().report(replica, Some(life), index).lazy())?);
        Ok(())
    }

    /// Like [`Wal::durable_applied`], for many replicas at once: for a store that flushes its state machines together.
    ///
    /// # Errors
    /// As [`Wal::durable_applied`]. If the reports do not fit one batch, they are split, and some may have been accepted when another is refused.
    pub fn durable_applied_many(&self, reports: &[(u64, u64)]) -> Result<()> {
        // A frame holds that many even with the smallest segments.
        const TOGETHER: usize = 256;
        let mut batch = Batch::new();
        for reports in reports.chunks(TOGETHER) {
            for &(replica, index) in reports {
                batch.durable_applied(replica, index);
            }
            drop(self.submit(batch.lazy())?);
        }
        Ok(())
    }
}

impl Replica {
    /// What the state machine was last reported to hold durably; `None` if nothing was reported in this life of the replica. After a crash
    /// it may be lower than the last report, never higher.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the keyed state may miss an update.
    pub fn durable_applied(&self) -> Result<Option<u64>> {
        let Some(cell) = self.cell() else { return Ok(None) };
        let state = cell.lock();
        if state.state_suspect {
            return Err(Error::Damaged(Damage { replica: self.id, lost: Lost::State }));
        }
        Ok(state.reported())
    }

    /// The index from which the state machine must apply again after an opening: right after what it was reported to hold durably, or the
    /// first entry that is kept. If there is nothing to apply, one beyond the last index, even if the report is higher (it was made before
    /// its snapshot was installed, or covers a suffix that was cut). Only [`Batch::install_snapshot`] lowers a report.
    ///
    /// # Errors
    /// As [`Replica::durable_applied`].
    pub fn reapply_from(&self) -> Result<u64> {
        let applied = self.durable_applied()?;
        Ok(reapply_from(self.bounds(), applied))
    }
}
