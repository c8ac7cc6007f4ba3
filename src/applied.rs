//! What state machines have made durable: no truncation overtakes it, and recovery tells from where to apply again.
//!
//! The report is a small keyed value of the replica, written lazily: a crash may lose the newest reports, and what is found then
//! lies at or below what was reported. So applying again from there repeats, and never skips. A truncation that is held back
//! is remembered in memory only: after a crash the embedder truncates anew, as it did before.

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::{Damage, Error, Lost, Result};
use crate::format::piece::Extent;
use crate::format::record;
use crate::index::{Cell, IdMap, ReplicaState, Value};
use crate::journal::Sequencer;
use crate::replica::Replica;
use crate::sync::Mutex;
use crate::wal::Wal;

/// Keys that begin so are the log's own: callers can neither set nor delete them.
pub(crate) const OWN_KEYS: &[u8] = b"\0sl.";
/// The replica's last index that its state machine has made durable: eight bytes, so that a newer report never needs more room.
pub(crate) const APPLIED_KEY: &[u8] = b"\0sl.a";
/// How far a migration has come with the replica: see [`crate::migrate`].
pub(crate) const MOVING_KEY: &[u8] = b"\0sl.m";
/// Length of the reported index.
pub(crate) const APPLIED_BYTES: usize = size_of::<u64>();

/// Whether the key is one of the log's own.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key.starts_with(OWN_KEYS)
}

/// What was reported last, if anything was in this life of the replica.
fn reported(state: &ReplicaState) -> Option<u64> {
    match state.keys.get(APPLIED_KEY)? {
        Value::Inline(value) => Some(u64::from_le_bytes(value.as_slice().try_into().ok()?)),
        Value::Out(_) => None,
    }
}

/// From where on a state machine that holds so much must apply what the log holds, from its first index to its last.
pub(crate) fn reapply_from((first, last): (u64, u64), applied: Option<u64>) -> u64 {
    let behind = applied.map_or(first, |applied| applied.min(last).saturating_add(1));
    behind.max(first)
}

/// How far a truncation to `first` goes at least, in a batch that reports `report` before or behind it.
pub(crate) fn reaches(state: &ReplicaState, first: u64, report: Option<u64>) -> u64 {
    let Some(applied) = reported(state).max(report) else { return first };
    first.min(if state.state_suspect { state.first } else { applied.saturating_add(1) })
}

/// Truncations that wait for the state machine: replica, and which life of it, and the index that was to be the first.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<IdMap<(u64, u64)>>);

impl Held {
    /// Replicas of which a truncation waits.
    pub fn len(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn hold(&self, replica: u64, incarnation: u64, first: u64) {
        let mut held = self.0.lock();
        let entry = held.entry(replica).or_insert((incarnation, first));
        *entry = (incarnation, if entry.0 == incarnation { entry.1.max(first) } else { first });
    }

    /// The truncation that waits, if it was asked for in this life of the replica.
    fn of(&self, replica: u64, incarnation: u64) -> Option<u64> {
        self.0.lock().get(&replica).filter(|(life, _)| *life == incarnation).map(|&(_, first)| first)
    }

    /// Nothing waits any more.
    pub fn forget(&self, replica: u64) {
        self.0.lock().remove(&replica);
    }
}

impl Engine {
    /// How far a truncation to `first` may go now; the rest of it waits.
    pub(crate) fn hold_back(&self, id: u64, state: &ReplicaState, first: u64) -> u64 {
        let Some(applied) = reported(state) else { return first };
        // A report that may be of another life is none to rely upon: then nothing goes before the replica is healed.
        let allowed = if state.state_suspect { state.first } else { applied.saturating_add(1) };
        // What is reached already waits for nothing, whatever was reported: behind a snapshot, say.
        if first > allowed.max(state.first) {
            self.held.hold(id, state.incarnation, first);
        }
        first.min(allowed)
    }

    /// The first index that a report leaves, if it counts and a truncation waits for it.
    pub(crate) fn first_behind_report(&self, id: u64, state: &ReplicaState, index: u64) -> Option<u64> {
        let counts = state.exists && !state.state_suspect && reported(state).is_none_or(|known| known < index);
        let first = self.held.of(id, state.incarnation).filter(|_| counts)?;
        Some(first.min(index.saturating_add(1)))
    }

    /// Records a report; what waited for it is truncated in the same breath. One that says less than an earlier one changes nothing.
    pub(crate) fn apply_report(
        &self,
        s: &mut Sequencer,
        cell: &Cell,
        state: &mut ReplicaState,
        index: u64,
        freed: &mut Vec<Extent>,
    ) {
        if !state.exists || state.state_suspect || reported(state).is_some_and(|known| known >= index) {
            return;
        }
        Self::record_report(s, cell.id, state, index, freed);
        let Some(first) = self.held.of(cell.id, state.incarnation) else { return };
        let allowed = index.saturating_add(1);
        if first <= allowed {
            self.held.forget(cell.id);
        }
        // The suffix may have been cut since it was asked for.
        let first = first.min(allowed).min(state.last.saturating_add(1));
        self.truncate(s, cell.id, state, first, freed);
    }

    /// A snapshot at `index` was installed: the state machine holds that, and may hold no more. What waits for it was asked of entries that
    /// are gone.
    pub(crate) fn take_back_report(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        index: u64,
        freed: &mut Vec<Extent>,
    ) {
        self.held.forget(id);
        if reported(state).is_some_and(|known| known > index) {
            Self::record_report(s, id, state, index, freed);
        }
    }

    fn record_report(s: &mut Sequencer, id: u64, state: &mut ReplicaState, index: u64, freed: &mut Vec<Extent>) {
        let seq = Self::next_seq(s, id, state);
        let value = index.to_le_bytes();
        record::encode_put(&mut s.open.table, id, seq, APPLIED_KEY, &value);
        state.keys.put(APPLIED_KEY, &value, s.segments.current(), freed);
    }
}

impl Batch {
    /// The state machine has made everything up to `index` durable: see [`Wal::durable_applied`]. Of a replica that does not
    /// exist it is ignored (it was removed meanwhile), unless a later operation of the batch creates it: then it counts as a report of 0, as it may be
    /// a late one of the life before. One that says less than an earlier one is ignored, too. [`Batch::install_snapshot`] takes back what was
    /// reported beyond it, also before it in the same batch.
    pub fn durable_applied(&mut self, replica: u64, index: u64) -> &mut Self {
        self.report(replica, index)
    }
}

impl Wal {
    /// The replica's state machine has made everything up to `index` durable.
    ///
    /// From the first report on (0: nothing yet) no entry above it is truncated: what [`Batch::truncate_prefix`] asks for beyond waits
    /// until a report reaches it. So the log can be the state machine's only write-ahead log: after a crash apply again
    /// from [`Replica::reapply_from`] on. A replica that never reported is truncated as asked.
    ///
    /// A report says less than an earlier one only behind [`Batch::install_snapshot`], which takes back what was reported beyond its index: that
    /// is how a state machine is made anew from a peer's snapshot, or from an older state of its own. An index beyond the log's last is
    /// taken, for a snapshot that is about to be installed. Report nothing that is not committed: a suffix that is cut or overwritten takes no
    /// report back, and what comes in its place would not be applied.
    ///
    /// Causes no sync: the report, and the truncations that it allows, ride with the next commit. A crash may lose reports, so that
    /// entries are applied twice, and truncations that wait, which are then to be asked for again. Report
    ///
    /// - once after each opening, before the first truncation; and sync the state machine's files before that: what a killed process
    ///   left may be in the kernel's cache alone;
    /// - in the batch that creates a replica ([`Batch::durable_applied`]; before what creates it it counts as 0): a report of one that does not exist is
    ///   ignored;
    /// - again after a damaged replica was healed by [`Batch::install_snapshot`].
    ///
    /// Heal a replica whose state is [lost](Lost::State) before you truncate it: if damage took all its reports, nobody knows that there
    /// were any, and it is truncated as asked.
    ///
    /// # Errors
    /// As [`Wal::submit`]; [`Error::Full`] only for a replica's first report, which takes some bytes of metadata.
    pub fn durable_applied(&self, replica: u64, index: u64) -> Result<()> {
        self.durable_applied_many(&[(replica, index)])
    }

    /// As [`Wal::durable_applied`], for many replicas at once: for a store whose state machines are flushed together.
    ///
    /// # Errors
    /// As [`Wal::durable_applied`]. Reports that one batch does not hold are split: some may have been taken when one is refused.
    pub fn durable_applied_many(&self, reports: &[(u64, u64)]) -> Result<()> {
        // A frame holds that many even where segments are smallest.
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
    /// What the state machine was last reported to hold durably; `None` if nothing was in this life of the replica. After a crash
    /// it may be older than the last report, never newer.
    ///
    /// # Errors
    /// [`Error::Damaged`] where keyed state may miss an update.
    pub fn durable_applied(&self) -> Result<Option<u64>> {
        let Some(cell) = self.cell() else { return Ok(None) };
        let state = cell.lock();
        if state.state_suspect {
            return Err(Error::Damaged(Damage { replica: self.id, lost: Lost::State }));
        }
        Ok(reported(&state))
    }

    /// From where on the state machine must apply again after an opening: behind what it was reported to hold durably, or from the
    /// first entry that is kept. One beyond the last index when there is nothing to apply, also where the report lies further: made before
    /// its snapshot was installed, or of a suffix that was cut. A report is taken back by [`Batch::install_snapshot`] alone.
    ///
    /// # Errors
    /// As [`Replica::durable_applied`].
    pub fn reapply_from(&self) -> Result<u64> {
        let applied = self.durable_applied()?;
        Ok(reapply_from(self.bounds(), applied))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_of_one_life_and_only_grows() {
        let held = Held::default();
        held.hold(1, 7, 10);
        held.hold(1, 7, 4);
        assert_eq!((held.of(1, 7), held.of(1, 8), held.of(2, 7)), (Some(10), None, None));
        held.hold(1, 8, 3);
        assert_eq!((held.of(1, 8), held.len()), (Some(3), 1), "a new life asks anew");
        held.forget(1);
        assert_eq!(held.len(), 0);
    }
}
