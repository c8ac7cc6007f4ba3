//! One replica while it is replayed: what each record means to it.
//!
//! What a record needs to know of earlier ones may be learnt only later, from the CORE that the cleaner carried; so ranges are taken as
//! they come, and what is missing is found at the end.

use crate::engine::Geometry;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::PieceDesc;
use crate::format::record::{Body, Core, Lens};
use crate::index::{Cell, ChainPiece, IdMap, IdSet, Loc, MAX_INLINE_ENTRY, Ranges, ReplicaState};
use crate::sync::MutexGuard;

/// A replica while one of its records is replayed.
pub(super) struct Replaying<'a> {
    pub state: MutexGuard<'a, ReplicaState>,
    /// A CORE or a removal was seen: what is held is all there is.
    pub based: bool,
    /// A record was seen.
    pub seen: bool,
    /// A record is missing; entries up to here may be older than what was acknowledged.
    pub suspect_to: Option<u64>,
}

/// Marks that replicas have only during the replay. There may be millions of replicas, and most have none.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Neither a CORE nor a removal of them was seen.
    unbased: IdSet,
    /// No record of them was seen.
    unseen: IdSet,
    /// See [`Replaying::suspect_to`].
    suspect: IdMap<u64>,
    /// A record of them was seen behind the last hole of unknown content.
    pub cleared: IdSet,
}

impl Marks {
    pub fn look<'a>(&self, cell: &'a Cell, new: bool) -> Replaying<'a> {
        let id = cell.id;
        Replaying {
            state: cell.lock(),
            based: !new && !self.unbased.contains(&id),
            seen: !new && !self.unseen.contains(&id),
            suspect_to: self.suspect.get(&id).copied(),
        }
    }

    /// Notes what changed of a replica whose marks were `before`.
    pub fn keep(&mut self, id: u64, before: (bool, bool, Option<u64>), r: &Replaying<'_>) {
        let flag = |set: &mut IdSet, was: bool, is: bool| match (was, is) {
            (false, true) => drop(set.insert(id)),
            (true, false) => drop(set.remove(&id)),
            _ => {}
        };
        let (based, seen, suspect_to) = before;
        flag(&mut self.unbased, !based, !r.based);
        flag(&mut self.unseen, !seen, !r.seen);
        match r.suspect_to {
            now if now == suspect_to => {}
            Some(to) => drop(self.suspect.insert(id, to)),
            None => drop(self.suspect.remove(&id)),
        }
    }
}

impl Replaying<'_> {
    /// Notes that a record is missing: whatever stands now may be stale.
    pub fn suspect(&mut self) {
        self.suspect_to = Some(self.suspect_to.unwrap_or(0).max(self.state.last));
    }

    /// Applies a record; `None` where it contradicts its frame.
    #[inline]
    pub fn apply(
        &mut self,
        geo: &Geometry,
        body: Body<'_>,
        segment: u64,
        lsn: &mut u64,
        locs: &mut Vec<Loc>,
    ) -> Option<()> {
        let chunk = geo.chunk_bytes;
        // Not used: space is accounted at the end, for what is left.
        let mut gone = Vec::new();
        match body {
            Body::Core(core) => self.core(core, segment, chunk),
            Body::Append { first, term, lens } => {
                let last = first + (u64::from(lens.count()) - 1);
                self.cut(first, chunk);
                locations(lens, lsn, locs)?;
                self.state.places.push(first, locs.iter().copied(), chunk);
                self.state.terms.push(first, term);
                self.state.last = last;
                self.state.exists = true;
            }
            Body::Carried { first, term, lens } => {
                let last = first + (u64::from(lens.count()) - 1);
                locations(lens, lsn, locs)?;
                self.state.places.forget_chain(first, last);
                self.state.terms.set(first, last, term);
                self.state.places.replay_journal(first, locs.iter().copied(), chunk);
                self.seen_to(last);
            }
            Body::Placed(pieces) => {
                if let Some(first) = pieces.first().map(|p| p.first) {
                    self.cut(first, chunk);
                }
                for piece in pieces {
                    let last = piece.last();
                    self.link(piece, segment, chunk);
                    self.state.last = last;
                }
                self.state.exists = true;
            }
            Body::Settled(pieces) => {
                for piece in pieces {
                    self.seen_to(piece.last());
                    self.link(piece, segment, chunk);
                }
            }
            Body::Put { key, value } => self.state.keys.put(key, value, segment, &mut gone),
            Body::PutOut { key, piece } | Body::KeptOut { key, piece } => {
                let piece = ChainPiece { desc: piece, meta_seq: segment, mem: None };
                self.state.keys.put_out(key, piece, segment, &mut gone);
            }
            Body::Delete { key } => self.state.keys.delete(key, &mut gone),
            Body::Truncate { first, prev_term } => {
                self.state.places.drop_below(first, chunk, &mut gone);
                self.state.terms.drop_below(first);
                self.state.first = first;
                match prev_term {
                    Some(term) => self.state.prev_term = term,
                    None => self.state.forget_prev_term(),
                }
                // What is truncated was held, even if the record that brought it is lost.
                self.state.exists = true;
                self.state.last = self.state.last.max(first - 1);
                if self.based {
                    self.state.clip_damage();
                }
            }
            Body::Cut { first } => {
                self.cut(first, chunk);
                // What is cut was held, even if the record that brought it is lost.
                self.state.exists = true;
                self.state.last = first - 1;
            }
            Body::Reset { first, prev_term } => {
                self.state.places.clear(&mut gone);
                self.state.terms.clear();
                self.state.damaged = Ranges::default();
                (self.state.first, self.state.last, self.state.prev_term) = (first, first - 1, prev_term);
                // Its entries are gone, but its keyed state may have missed an update.
                self.suspect_to = self.suspect_to.map(|_| 0);
            }
            Body::Remove => self.wipe(),
        }
        Some(())
    }

    fn wipe(&mut self) {
        let (seq, listed_frame) = (self.state.seq, self.state.listed_frame);
        *self.state = ReplicaState { seq, listed_frame, ..ReplicaState::default() };
        self.based = true;
        self.suspect_to = None;
    }

    fn core(&mut self, core: Core, segment: u64, chunk: u32) {
        if core.fresh {
            // Even if only keys of the life before were seen: nothing else says that there was one.
            self.wipe();
        }
        let mut gone = Vec::new();
        if self.based && self.state.exists && self.state.last != core.last {
            self.suspect();
        }
        let state = &mut *self.state;
        state.exists = true;
        state.incarnation = core.incarnation;
        (state.first, state.last, state.prev_term) = (core.first, core.last, core.prev_term);
        state.places.drop_below(core.first, chunk, &mut gone);
        if let Some(next) = core.last.checked_add(1) {
            state.places.cut_from(next, chunk, &mut gone);
            state.terms.cut_from(next);
        }
        state.state_suspect = core.state_suspect;
        state.damaged = core.damaged.into();
        state.core_seq = segment;
        self.based = true;
        if self.suspect_to.is_some_and(|upto| state.tells_of(upto)) {
            // All that could be stale is damaged: an opening's CORE for such a loss. What was appended anew behind it is sound.
            self.suspect_to = None;
        }
    }

    fn cut(&mut self, first: u64, chunk: u32) {
        let mut gone = Vec::new();
        if self.state.exists && first < self.state.first {
            // Nothing is appended below `first`: the end of that life, and the beginning of this one, are missing.
            self.suspect();
            self.state.first = first;
            self.state.forget_prev_term();
        }
        self.state.places.cut_from(first, chunk, &mut gone);
        self.state.terms.cut_from(first);
        self.state.cut_damage(first);
    }

    /// Moved entries were live here: the replica's log reached at least this far.
    fn seen_to(&mut self, last: u64) {
        self.state.exists = true;
        if self.state.last < last {
            if self.based {
                // The record that brought them is missing.
                self.suspect();
            }
            self.state.last = last;
        }
    }

    fn link(&mut self, mut piece: PieceDesc, segment: u64, chunk: u32) {
        let terms = std::mem::take(&mut piece.terms);
        let (first, last) = (piece.first, piece.last());
        if !self.state.places.replay_chain(ChainPiece { desc: piece, meta_seq: segment, mem: None }, chunk) {
            // Two pieces over one range: a record between them is missing.
            self.state.add_damage(first, last);
            return;
        }
        let mut index = first;
        for (n, term) in terms {
            self.state.terms.set(index, index + (u64::from(n) - 1), term);
            index = index.wrapping_add(n.into());
        }
    }

    /// Concludes the replay. `true`: damage was found that no CORE records.
    pub fn finish(&mut self, geo: &Geometry) -> bool {
        self.state.places.settle();
        self.state.terms.settle();
        let mut gone = Vec::new();
        let mut hurt = false;
        if self.suspect_to.is_some() && !self.state.exists && !self.based {
            // Known only as a participant of a frame that is lost.
            self.state.exists = true;
        }
        if !self.state.exists {
            return false;
        }
        if self.state.last < self.state.first - 1 {
            // Records that would make sense of these bounds are missing.
            self.suspect();
            self.state.last = self.state.first - 1;
        }
        let state = &mut *self.state;
        if !self.based {
            // No CORE in the whole journal: it was lost with its frame.
            state.state_suspect = true;
            let held = state.places.spans().first().map(|s| s.first()).into_iter();
            let held = held.chain(state.places.chain().front().map(|p| p.desc.first)).min();
            let (first, last) = (state.first.max(held.unwrap_or(1).min(state.last.saturating_add(1))), state.last);
            if first != state.first {
                state.first = first;
                state.forget_prev_term();
            }
            if first <= last {
                state.add_damage(first, last);
            }
            hurt = true;
        }
        state.places.drop_below(state.first, geo.chunk_bytes, &mut gone);
        state.terms.drop_below(state.first);
        if let Some(next) = state.last.checked_add(1) {
            state.places.cut_from(next, geo.chunk_bytes, &mut gone);
            state.terms.cut_from(next);
        }
        if let Some(upto) = self.suspect_to {
            state.state_suspect = true;
            let upto = upto.min(state.last);
            if state.first <= upto {
                state.add_damage(state.first, upto);
            }
            hurt = true;
        }
        if !state.is_empty() {
            for (lo, hi) in state.places.holes(state.first, state.last) {
                let known = state.damaged.iter().any(|&(a, b)| a <= lo && hi <= b);
                if !known {
                    state.add_damage(lo, hi);
                    hurt = true;
                }
            }
        }
        state.clip_damage();
        hurt
    }
}
/// Collects the locations of a run whose payload begins at `lsn`, and moves `lsn` behind it. `None`: a length that no inline entry has.
fn locations(lens: Lens<'_>, lsn: &mut u64, locs: &mut Vec<Loc>) -> Option<()> {
    locs.clear();
    for len in lens.iter() {
        locs.push(location(len, lsn)?);
    }
    Some(())
}

/// Moves `lsn` behind a run of another part's replica.
pub(super) fn pass(lens: Lens<'_>, lsn: &mut u64) -> Option<()> {
    lens.iter().try_for_each(|len| location(len, lsn).map(drop))
}

fn location(len: u32, lsn: &mut u64) -> Option<Loc> {
    if len > MAX_INLINE_ENTRY {
        return None;
    }
    let loc = Loc::new(*lsn, len);
    *lsn = lsn.checked_add(ENTRY_CRC_BYTES as u64 + u64::from(len))?;
    Some(loc)
}
