//! Reports of state machines, and truncations that wait for them: none overtakes what is durable there.
//!
//! A report is a small keyed value of the replica, written lazily: a crash may lose the newest reports, and what is found then
//! lies at or below what was reported. So applying again from there repeats, and never skips. A truncation that is held back
//! is remembered in memory only: after a crash the embedder truncates anew, as it did before.

use super::Engine;
use crate::format::piece::Extent;
use crate::format::record;
use crate::index::{APPLIED_KEY, Cell, IdMap, ReplicaState};
use crate::journal::Sequencer;
use crate::sync::Mutex;

/// Truncations that wait for the state machine: by replica, its incarnation, and the index that was to be its first.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<IdMap<(u64, u64)>>);

impl Held {
    /// How many replicas have a truncation that waits.
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

    /// Nothing of the replica waits any more.
    pub fn forget(&self, replica: u64) {
        self.0.lock().remove(&replica);
    }
}

impl Engine {
    /// How far a truncation to `first` may go now; the rest of it waits.
    pub(crate) fn hold_back(&self, id: u64, state: &ReplicaState, first: u64) -> u64 {
        let Some(applied) = state.reported() else { return first };
        // A report that may be of another life is not relied upon: then nothing is truncated before the replica is healed.
        let allowed = if state.state_suspect { state.first } else { applied.saturating_add(1) };
        // A truncation that is reached already, by a snapshot for instance, waits for nothing, whatever was reported.
        if first > allowed.max(state.first) {
            self.held.hold(id, state.incarnation, first);
        }
        first.min(allowed)
    }

    /// How far a waiting truncation may go with this report (its first index), if the report counts and one waits.
    pub(crate) fn first_behind_report(&self, id: u64, state: &ReplicaState, index: u64) -> Option<u64> {
        let counts = state.exists && !state.state_suspect && state.reported().is_none_or(|known| known < index);
        let first = self.held.of(id, state.incarnation).filter(|_| counts)?;
        Some(first.min(index.saturating_add(1)))
    }

    /// Records a report, and truncates what waited for it in the same step. A report that says no more than an earlier one changes nothing.
    pub(crate) fn apply_report(
        &self,
        s: &mut Sequencer,
        cell: &Cell,
        state: &mut ReplicaState,
        index: u64,
        freed: &mut Vec<Extent>,
    ) {
        if !state.exists || state.state_suspect || state.reported().is_some_and(|known| known >= index) {
            return;
        }
        Self::record_report(s, cell.id, state, index, freed);
        let Some(first) = self.held.of(cell.id, state.incarnation) else { return };
        let allowed = index.saturating_add(1);
        if first <= allowed {
            self.held.forget(cell.id);
        }
        // The suffix may have been cut since the truncation was asked for.
        let first = first.min(allowed).min(state.last.saturating_add(1));
        self.truncate(s, cell.id, state, first, freed);
    }

    /// A snapshot at `index` was installed: the state machine holds that, and perhaps no more. Truncations that wait concern entries that
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
        if state.reported().is_some_and(|known| known > index) {
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
