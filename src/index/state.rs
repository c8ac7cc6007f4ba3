//! The state of one replica.

use std::ops::Range;

use super::keys::Keys;
use super::places::Places;
use super::ranges::Ranges;
use super::terms::Terms;
use crate::error::{Damage, Lost};
use crate::format::record::{CORE_BYTES, Core, DAMAGE_RANGE_BYTES, MAX_DAMAGE_RANGES};
use crate::space::{Charge, Pledge};

/// Everything the log knows of a replica. There may be millions: what only few have lies elsewhere, behind eight or sixteen bytes.
#[derive(Debug)]
pub(crate) struct ReplicaState {
    pub exists: bool,
    pub incarnation: u64,
    /// First index held.
    pub first: u64,
    /// Last index held; `first - 1` when there is none.
    pub last: u64,
    /// Term of `first - 1`, unless that is damaged: see [`ReplicaState::forget_prev_term`].
    pub prev_term: u64,
    pub terms: Terms,
    pub places: Places,
    pub keys: Keys,
    /// The `seq` of the next record.
    pub seq: u16,
    /// How often entries went whose places others may have taken: a reader that looks twice sees by it whether both looks are of one log.
    /// Outlives the replica.
    pub cuts: u32,
    /// The newest CORE lies in this segment or a later one, or must be written anew when this one is cleaned.
    pub core_seq: u64,
    /// LSN of the newest frame whose participants name this replica, as do those of its segment.
    pub listed_frame: u64,
    /// What it holds of the space accounts.
    pub charge: Charge,
    /// Set while some of its entries are being settled. Like the charge, it outlives the replica.
    pub pledge: Option<Box<Pledge>>,
    pub state_suspect: bool,
    /// Damaged ranges of indexes, sorted.
    pub damaged: Ranges,
}

impl Default for ReplicaState {
    fn default() -> Self {
        Self {
            exists: false,
            incarnation: 0,
            first: 1,
            last: 0,
            prev_term: 0,
            terms: Terms::default(),
            places: Places::default(),
            keys: Keys::default(),
            seq: 0,
            cuts: 0,
            core_seq: 0,
            listed_frame: 0,
            charge: Charge::default(),
            pledge: None,
            state_suspect: false,
            damaged: Ranges::default(),
        }
    }
}

/// One life of a replica: from the write that begins it to its removal, or to the snapshot that heals it where its state was lost. See
/// [`Replica::life`](crate::Replica::life).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life(u64);

impl ReplicaState {
    /// Which life it is, while there is one.
    pub fn life(&self) -> Option<Life> {
        self.exists.then_some(Life(self.incarnation))
    }

    pub fn is_in(&self, life: Life) -> bool {
        self.life() == Some(life)
    }

    /// Term of `index`, which is `first - 1` or held. `None`: unknown. Runs of terms go on over a hole, so what is damaged has none.
    pub fn term(&self, index: u64) -> Option<u64> {
        if self.damage_at(index).is_some() {
            return None;
        }
        if index == self.first - 1 {
            return Some(self.prev_term);
        }
        (index >= self.first && index <= self.last).then(|| self.terms.get(index)).flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// The CORE record that says where the replica stands now.
    pub fn core(&self) -> Core {
        Core {
            incarnation: self.incarnation,
            first: self.first,
            prev_term: self.prev_term,
            last: self.last,
            fresh: false,
            state_suspect: self.state_suspect,
            damaged: self.damaged.to_vec(),
        }
    }

    /// Notes that `lo..=hi` is damaged. Beyond the bound neighbouring ranges merge: too much is called damaged, never too little.
    pub fn add_damage(&mut self, lo: u64, hi: u64) {
        let mut all = std::mem::take(&mut self.damaged).into_vec();
        all.push((lo, hi));
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (lo, hi) in all {
            match merged.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => merged.push((lo, hi)),
            }
        }
        while merged.len() > MAX_DAMAGE_RANGES {
            let (_, hi) = merged.remove(1);
            merged[0].1 = hi;
        }
        self.damaged = merged.into();
    }

    /// Forgets damage outside of what is held, which went with its entries; that of the one before stays, for its term.
    pub fn clip_damage(&mut self) {
        self.clip_damage_to(self.first_asked_for(), self.last);
    }

    /// The lowest index that anybody may ask about: raft asks for the term of the one before the first, where there is one.
    pub fn first_asked_for(&self) -> u64 {
        self.first.saturating_sub(1).max(1)
    }

    /// Nobody knows the term of `first - 1`: it counts as damaged, until the next truncation or a snapshot puts another there.
    pub fn forget_prev_term(&mut self) {
        self.prev_term = 0;
        // Index 0 has no term that could be known.
        if self.first > 1 {
            self.add_damage(self.first - 1, self.first - 1);
        }
    }

    /// Forgets damage at or above `index`: those entries are being written anew.
    pub fn cut_damage(&mut self, index: u64) {
        self.clip_damage_to(0, index.saturating_sub(1));
    }

    #[inline]
    fn clip_damage_to(&mut self, first: u64, last: u64) {
        if !self.damaged.is_empty() {
            self.clip_ranges(first, last);
        }
    }

    #[cold]
    fn clip_ranges(&mut self, first: u64, last: u64) {
        let mut ranges = std::mem::take(&mut self.damaged).into_vec();
        ranges.retain_mut(|range| {
            *range = (range.0.max(first), range.1.min(last));
            range.0 <= range.1
        });
        self.damaged = ranges.into();
    }

    /// The damaged range around `index`.
    pub fn damage_at(&self, index: u64) -> Option<(u64, u64)> {
        self.damaged.iter().copied().find(|&(lo, hi)| (lo..=hi).contains(&index))
    }

    pub fn damage(&self, replica: u64) -> Vec<Damage> {
        let entries = self.damaged.iter().map(|&(first, last)| Damage { replica, lost: Lost::Entries { first, last } });
        let state = self.state_suspect.then_some(Damage { replica, lost: Lost::State });
        entries.chain(state).collect()
    }

    /// Whether the known damage covers all that a loss can have touched which left entries up to `upto` in doubt: these, and keyed state.
    pub fn tells_of(&self, upto: u64) -> bool {
        let (first, upto) = (self.first, upto.min(self.last));
        self.state_suspect && (upto < first || self.damage_at(first).is_some_and(|(_, end)| upto <= end))
    }

    /// Whether the newest record of its CORE, of a key or of a piece lies in one of these segments.
    pub fn has_metadata_in(&self, holds: impl Fn(u64) -> bool) -> bool {
        self.exists
            && (holds(self.core_seq)
                || self.keys.iter().any(|e| holds(e.seq))
                || self.places.chain().iter().any(|p| holds(p.meta_seq)))
    }

    /// Whether one of its entries lies at these LSNs in the journal.
    pub fn has_entry_in(&self, lsns: &Range<u64>) -> bool {
        self.places.spans().iter().flat_map(|s| s.up_to(lsns)).any(|loc| loc.is_in(lsns))
    }

    /// The oldest segment in which one of its entries lies, or the newest record of its CORE, of a key or of a piece.
    pub fn oldest_segment(&self, head: u64, segment_bytes: u64) -> Option<u64> {
        let entries = self.places.spans().iter().filter_map(|s| s.oldest(head)).min();
        let entries = entries.map(|lsn| lsn / segment_bytes).into_iter();
        let metadata = [self.core_seq].into_iter().chain(self.keys.iter().map(|e| e.seq));
        let metadata = metadata.chain(self.places.chain().iter().map(|p| p.meta_seq));
        entries.chain(metadata.filter(|_| self.exists)).min()
    }

    /// What its core, keys and descriptors take in the journal when they are carried.
    pub fn meta_bytes(&self) -> u64 {
        if !self.exists {
            return 0;
        }
        CORE_BYTES + self.keys.bytes() + self.meta_bytes_of_entries()
    }

    /// Whether it is charged for being carried, with everything that it has, and for no more: see `Accounts::price_carried`.
    pub fn is_charged_as_carried(&self) -> bool {
        let carried = self.meta_bytes() + self.places.journal_bytes();
        self.pledge.is_none() && self.charge == Charge { chunks: 0, carried }
    }

    /// The part of [`Self::meta_bytes`] that goes with the entries: descriptors, changes of term, what is known to be lost of them.
    pub fn meta_bytes_of_entries(&self) -> u64 {
        const PIECE: u64 = crate::format::piece::PieceDesc::TYPICAL_BYTES;
        let damage = self.damaged.len() as u64 * DAMAGE_RANGE_BYTES;
        damage + self.places.chain().len() as u64 * PIECE + self.terms.len() as u64 * 12
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record;

    /// Or a cleaning could write more than is paid for.
    #[test]
    fn whoever_exists_is_charged_the_core_that_it_may_need() {
        let (first, last, prev_term) = (u64::MAX - 50, u64::MAX, u64::MAX);
        let mut state = ReplicaState { exists: true, first, last, prev_term, ..ReplicaState::default() };
        for ranges in 0..=MAX_DAMAGE_RANGES as u64 {
            let mut carried = Vec::new();
            record::encode_core(&mut carried, u64::MAX, u16::MAX, &state.core());
            assert_eq!(state.damaged.len() as u64, ranges);
            assert!(state.meta_bytes() >= carried.len() as u64, "{} bytes, {}", carried.len(), state.meta_bytes());
            state.add_damage(first + 3 * ranges, first + 3 * ranges);
        }
    }
}
