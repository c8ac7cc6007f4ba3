//! Journal segments: which slab holds which, which are live, which are free.

use std::collections::VecDeque;

/// For readers: where a live segment lies. A segment leaves the map before its slab is written anew, so a reader that has pinned the slab,
/// asks again and still finds it here knows that what it copies is the segment's.
#[derive(Debug, Default)]
pub(crate) struct SegmentMap {
    /// (sequence, slab), ascending.
    live: VecDeque<(u64, u32)>,
}

impl SegmentMap {
    pub fn slab(&self, seq: u64) -> Option<u32> {
        let i = self.live.binary_search_by_key(&seq, |&(s, _)| s).ok()?;
        self.live.get(i).map(|&(_, slab)| slab)
    }

    pub fn push(&mut self, seq: u64, slab: u32) {
        self.live.push_back((seq, slab));
    }

    pub fn pop_front(&mut self) {
        self.live.pop_front();
    }
}

/// A segment that holds something, or is being written.
#[derive(Debug)]
pub(crate) struct LiveSegment {
    pub seq: u64,
    pub slab: u32,
    /// Replicas with a record in it, or whose CORE must be written anew before it is free.
    pub participants: Vec<u64>,
}

/// The writer's view, under the sequencer lock.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub live: VecDeque<LiveSegment>,
    /// The segment before all of `live`, if the oldest was lost whole: frames name it as the tail until the oldest that is left is cleaned.
    /// A frame that named the oldest that is left would say that nothing is missing.
    pub lost_tail: Option<u64>,
    pub free: VecDeque<u32>,
    /// The next segment's number: above every number ever seen, so that no stale frame has a place in it.
    pub next_seq: u64,
    /// Superseded segments, (sequence, slab): free once a durable frame names a tail beyond them.
    pub leaving: VecDeque<(u64, u32)>,
    /// Slabs of segments that are free, except that a reader may still be copying.
    pub freeing: Vec<u32>,
}

impl Segments {
    /// Opens the next segment if `leaves` segments stay free.
    pub fn open_next(&mut self, leaves: usize) -> Option<(u64, u32)> {
        if self.free.len() <= leaves {
            return None;
        }
        let slab = self.free.pop_front()?;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.live.push_back(LiveSegment { seq, slab, participants: Vec::new() });
        Some((seq, slab))
    }

    /// Where the next segment would end.
    pub fn reach(&self, segment_bytes: u64) -> u64 {
        self.next_seq.saturating_add(1).saturating_mul(segment_bytes)
    }

    /// The slabs of the two segments behind this one, where these lie or will lie. The first two free slabs leave the queue in no other way
    /// than to become the next segments: a journal gives slabs back from the end of the queue, and never the last two.
    pub fn following(&self, seq: u64) -> [Option<u32>; 2] {
        let later = self.live.partition_point(|s| s.seq <= seq);
        let mut slabs = self.live.range(later..).map(|s| s.slab).chain(self.free.iter().copied());
        [slabs.next(), slabs.next()]
    }

    /// Has the next segment opened in this slab, if that is free.
    pub fn open_in(&mut self, slab: u32) {
        if let Some(at) = self.free.iter().position(|&free| free == slab) {
            self.free.remove(at);
            self.free.push_front(slab);
        }
    }

    /// Sequence number of the segment that is being written.
    pub fn current(&self) -> u64 {
        self.live.back().map_or(0, |s| s.seq)
    }

    /// Sequence number of the oldest live segment.
    pub fn tail(&self) -> u64 {
        self.live.front().map_or(self.next_seq, |s| s.seq)
    }

    /// The tail that frames name.
    pub fn named_tail(&self) -> u64 {
        self.lost_tail.unwrap_or_else(|| self.tail())
    }

    /// Takes the oldest segment, which is superseded, off the live ones. `false`: it is the one being written, and stays.
    pub fn leave_oldest(&mut self) -> bool {
        let Some(oldest) = (self.live.len() > 1).then(|| self.live.pop_front()).flatten() else { return false };
        self.leaving.push_back((oldest.seq, oldest.slab));
        self.lost_tail = None;
        true
    }

    /// Has the CORE of `replica` written anew when the oldest segment is cleaned. Returns the segment in which it counts as lying.
    pub fn carry_with_oldest(&mut self, replica: u64) -> u64 {
        if let Some(oldest) = self.live.front_mut() {
            oldest.participants.push(replica);
        }
        self.tail()
    }

    /// Notes that `replica` has a record in the segment being written.
    pub fn list(&mut self, replica: u64) {
        if let Some(segment) = self.live.back_mut() {
            segment.participants.push(replica);
        }
    }
}
