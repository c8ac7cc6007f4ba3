//! Replay: records in log order become the state of every replica.
//!
//! It begins in the middle of history. What a record needs to know of earlier ones it may only learn later, from the CORE
//! that the cleaner carried; so ranges are taken as they come, and what is missing is found at the end.

use std::collections::{HashMap, HashSet};

use rustc_hash::{FxHashMap, FxHashSet};

use super::scan::Scan;
use super::walk::{Accepted, Before, Walk};
use crate::engine::Geometry;
use crate::error::{Error, Result};
use crate::format::Reader;
use crate::format::frame::{ENTRY_CRC_BYTES, FRAME_HEADER_BYTES, Participants};
use crate::format::piece::{Extent, PieceDesc};
use crate::format::record::{Body, Core, Lens, Record, RecordError, Records};
use crate::index::{Cell, ChainPiece, Loc, MAX_INLINE_ENTRY, Registry, ReplicaState};
use crate::options::RecoveryMode;
use crate::sync::{Arc, MutexGuard};

/// A replica while one of its records is replayed.
struct Replaying<'a> {
    state: MutexGuard<'a, ReplicaState>,
    /// A CORE or a removal was seen: what is held is all there is.
    based: bool,
    /// Some record was seen.
    seen: bool,
    /// A record is missing; entries up to here may be older than what was acknowledged.
    suspect_to: Option<u64>,
}

/// What is said of replicas only while they are replayed. There may be millions of them: of most there is nothing to be said.
#[derive(Debug, Default)]
struct Marks {
    /// Neither a CORE nor a removal of them was seen.
    unbased: FxHashSet<u64>,
    /// No record of them was seen.
    unseen: FxHashSet<u64>,
    /// See [`Replaying::suspect_to`].
    suspect: FxHashMap<u64, u64>,
    /// A record of them was seen behind the last hole of unknown content.
    cleared: FxHashSet<u64>,
}

impl Marks {
    fn look<'a>(&self, cell: &'a Cell, new: bool) -> Replaying<'a> {
        let id = cell.id;
        Replaying {
            state: cell.lock(),
            based: !new && !self.unbased.contains(&id),
            seen: !new && !self.unseen.contains(&id),
            suspect_to: self.suspect.get(&id).copied(),
        }
    }

    /// Notes what became of a replica that looked like `before`.
    fn keep(&mut self, id: u64, before: (bool, bool, Option<u64>), r: &Replaying<'_>) {
        let flag = |set: &mut FxHashSet<u64>, was: bool, is: bool| match (was, is) {
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

/// All replicas after replay.
#[derive(Debug)]
pub(super) struct Replayed {
    pub registry: Registry,
    /// All that are in it, in the order in which they were met: they lie beside each other in memory.
    pub cells: Vec<Arc<Cell>>,
    /// By segment: the replicas with a record in it.
    pub participants: HashMap<u64, Vec<u64>>,
    pub last_participants: Vec<u64>,
    /// Replicas whose damage no CORE tells of yet.
    pub newly_hurt: HashSet<u64>,
    /// Replicas whose keyed state may miss an update, whoever tells of it.
    pub suspect: Vec<u64>,
    /// Frames are lost of which nobody can say who was in them: a replica known only there is gone without a trace.
    pub unnamed: bool,
    /// Pieces that a frame above the watermark brings: linked or not, their bytes must stay until a later frame is durable.
    pub unsettled: Vec<(u64, Vec<Extent>)>,
}

struct Replay<'a> {
    geo: &'a Geometry,
    /// Whose records are replayed here.
    part: Part,
    registry: Registry,
    cells: Vec<Arc<Cell>>,
    marks: Marks,
    /// Locations of the run being replayed; kept, so that there is one of it for all runs.
    locs: Vec<Loc>,
    participants: Vec<(u64, Vec<u64>)>,
    last_participants: Vec<u64>,
    hurt: HashSet<u64>,
    unnamed: bool,
    unsettled: Vec<(u64, Vec<Extent>)>,
    /// Holes of unknown content so far.
    holes: u64,
}

/// So many bytes of records are worth a thread more: those of several hundred thousand replicas. Fewer are read by one as fast.
const WORTH_A_THREAD: usize = 8 << 20;
/// Each part reads all records, and replays its share: more would gain little.
const MOST_PARTS: usize = 4;

/// Replays every accepted frame.
pub(super) fn replay(geo: &Geometry, scan: &Scan, walk: &Walk<'_>, mode: RecoveryMode) -> Result<Replayed> {
    let bytes: usize = walk.accepted.iter().map(|frame| frame.table.len()).sum();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    replay_in(geo, scan, walk, mode, processors.min(MOST_PARTS).min(1 + bytes / WORTH_A_THREAD))
}

/// As [`replay`], the replicas divided among so many threads.
#[cfg(not(any(loom, shuttle)))]
pub(super) fn replay_in(
    geo: &Geometry,
    scan: &Scan,
    walk: &Walk<'_>,
    mode: RecoveryMode,
    parts: usize,
) -> Result<Replayed> {
    std::thread::scope(|scope| {
        let mut others = Vec::with_capacity(parts);
        for n in 1..parts {
            let replay = move || replay_part(geo, scan, walk, mode, Part { n, of: parts });
            let other = std::thread::Builder::new().name("strandlog-replay".to_owned()).spawn_scoped(scope, replay);
            others.push(other.map_err(|e| Error::io("starting a thread", e))?);
        }
        let mut all = replay_part(geo, scan, walk, mode, Part { n: 0, of: parts })?;
        for other in others {
            let other = other.join().map_err(|_| Error::io("replaying", std::io::Error::other("a thread panicked")))?;
            all.join(other?);
        }
        Ok(all)
    })
}

/// In a model every thread would be one more to interleave, and they share nothing.
#[cfg(any(loom, shuttle))]
pub(super) fn replay_in(
    geo: &Geometry,
    scan: &Scan,
    walk: &Walk<'_>,
    mode: RecoveryMode,
    _parts: usize,
) -> Result<Replayed> {
    replay_part(geo, scan, walk, mode, Part { n: 0, of: 1 })
}

/// The replicas whose shard of the registry has this number, counted round.
#[derive(Clone, Copy, Debug)]
struct Part {
    n: usize,
    of: usize,
}

impl Part {
    fn holds(self, id: u64) -> bool {
        self.of == 1 || Registry::shard_of(id) % self.of == self.n
    }
}

#[cfg(not(any(loom, shuttle)))]
impl Replayed {
    /// Adds another part of the same log.
    fn join(&mut self, other: Self) {
        self.registry.take(other.registry);
        self.cells.extend(other.cells);
        for (segment, ids) in other.participants {
            self.participants.entry(segment).or_default().extend(ids);
        }
        self.last_participants.extend(other.last_participants);
        self.newly_hurt.extend(other.newly_hurt);
        self.suspect.extend(other.suspect);
    }
}

fn replay_part(geo: &Geometry, scan: &Scan, walk: &Walk<'_>, mode: RecoveryMode, part: Part) -> Result<Replayed> {
    let mut replay = Replay {
        geo,
        part,
        registry: Registry::new(),
        cells: Vec::new(),
        marks: Marks::default(),
        locs: Vec::new(),
        participants: Vec::new(),
        last_participants: Vec::new(),
        hurt: HashSet::new(),
        unnamed: walk.lost_at_end,
        unsettled: Vec::new(),
        holes: 0,
    };
    for frame in &walk.accepted {
        match replay.frame(scan, frame) {
            Err(Error::Corrupt { .. } | Error::Unsupported { .. }) if mode == RecoveryMode::Salvage => {
                // What came before the record that makes no sense stands; what came behind it is as if the frame were lost.
                replay.hole();
                replay.unnamed = true;
            }
            outcome => outcome?,
        }
    }
    if walk.lost_at_end {
        replay.hole();
    }
    Ok(replay.finish())
}

impl Replay<'_> {
    fn frame(&mut self, scan: &Scan, frame: &Accepted<'_>) -> Result<()> {
        let header = &frame.header;
        let corrupt = |what| Error::Corrupt {
            what,
            offset: scan.offset_of(header.lsn),
            hint: "its checksum holds, so a newer or broken writer made it: open it with the version that wrote it, or salvage",
        };
        let mut reader = Reader::new(frame.table);
        let listed = Participants::decode(&mut reader).ok_or_else(|| corrupt("a list of participants"))?;
        match frame.before {
            Before::Whole => {}
            Before::LostOne => self.lost(listed, false),
            Before::LostSome => self.lost(listed, true),
        }
        self.last_participants.clear();
        let segment = header.lsn / self.geo.segment_bytes;
        if self.participants.last().is_none_or(|(seq, _)| *seq != segment) {
            self.participants.push((segment, Vec::new()));
        }
        let mut lsn = header.lsn + FRAME_HEADER_BYTES as u64;
        let payload_end = lsn + u64::from(header.payload_bytes);
        for record in Records::new(reader, self.geo.pool_blocks) {
            let record = record.map_err(|e| match e {
                RecordError::Codec(id) => Error::Unsupported { feature: format!("payload codec {id}") },
                RecordError::Malformed => corrupt("a record"),
            })?;
            match &record.body {
                // Nobody's in particular: once is enough.
                _ if self.part.n > 0 => {}
                Body::Placed(pieces) if frame.unsettled => {
                    self.unsettled.extend(pieces.iter().map(|p| (p.id, p.extents.clone())));
                }
                Body::PutOut { piece, .. } if frame.unsettled => {
                    self.unsettled.push((piece.id, piece.extents.clone()));
                }
                _ => {}
            }
            self.record(record, header.lsn, &mut lsn)
                .filter(|()| lsn <= payload_end)
                .ok_or_else(|| corrupt("a record that does not fit its frame"))?;
        }
        Ok(())
    }

    /// Replays one record; `None` where it contradicts its frame.
    fn record(&mut self, record: Record<'_>, frame_lsn: u64, lsn: &mut u64) -> Option<()> {
        let id = record.replica;
        if !self.part.holds(id) {
            if let Body::Append { lens, .. } | Body::Carried { lens, .. } = record.body {
                return lens.iter().try_for_each(|len| location(len, lsn).map(drop));
            }
            return Some(());
        }
        let (cell, new) = self.registry.find_or_create(id);
        if new {
            self.cells.push(Arc::clone(cell));
        }
        let mut r = self.marks.look(cell, new);
        let before = (r.based || new, r.seen || new, r.suspect_to);
        // The books: who is in which segment and frame, and whether a record of theirs is missing.
        let fresh = matches!(record.body, Body::Core(Core { fresh: true, .. }));
        let missing = if r.seen { r.state.seq != record.seq } else { self.holes > 0 };
        if missing && !fresh {
            r.suspect();
            self.hurt.insert(id);
        }
        r.seen = true;
        r.state.seq = record.seq.wrapping_add(1);
        let segment = frame_lsn / self.geo.segment_bytes;
        if r.state.listed_frame != frame_lsn {
            if r.state.listed_frame / self.geo.segment_bytes != segment
                && let Some((_, listed)) = self.participants.last_mut()
            {
                listed.push(id);
            }
            r.state.listed_frame = frame_lsn;
            self.last_participants.push(id);
        }
        let applied = r.apply(self.geo, record.body, segment, lsn, &mut self.locs);
        self.marks.keep(id, before, &r);
        if self.holes > 0 {
            self.marks.cleared.insert(id);
        }
        applied
    }

    /// A frame is missing before this one. Its participants are hurt; if more may be missing, so is whoever cannot show that
    /// nothing of theirs was in it.
    fn lost(&mut self, listed: Participants, more: bool) {
        self.unnamed |= more || listed == Participants::Many;
        match listed {
            Participants::These(ids) => {
                for id in ids.into_iter().filter(|&id| self.part.holds(id)) {
                    let (cell, new) = self.registry.find_or_create(id);
                    if new {
                        self.cells.push(Arc::clone(cell));
                    }
                    let mut r = self.marks.look(cell, new);
                    let before = (r.based || new, r.seen || new, r.suspect_to);
                    r.suspect();
                    self.marks.keep(id, before, &r);
                    self.hurt.insert(id);
                }
                if more {
                    self.hole();
                }
            }
            Participants::Many => self.hole(),
        }
    }

    /// Behind this nobody is cleared who has not spoken again.
    fn hole(&mut self) {
        self.holes += 1;
        self.marks.cleared.clear();
    }

    fn finish(mut self) -> Replayed {
        let (mut gone, mut suspect) = (Vec::new(), Vec::new());
        for cell in &self.cells {
            let mut r = self.marks.look(cell, false);
            if self.holes > 0 && !self.marks.cleared.contains(&cell.id) {
                // Behind a hole of unknown content it never spoke again: it cannot be cleared.
                r.suspect();
                self.hurt.insert(cell.id);
            }
            if r.finish(self.geo) {
                self.hurt.insert(cell.id);
            }
            if !r.state.exists {
                gone.push(cell.id);
            } else if r.state.state_suspect {
                suspect.push(cell.id);
            }
        }
        if !gone.is_empty() {
            gone.iter().for_each(|&id| self.registry.forget(id));
            self.cells.retain(|cell| cell.lock().exists);
        }
        let mut participants: HashMap<u64, Vec<u64>> = HashMap::with_capacity(self.participants.len());
        for (segment, mut ids) in self.participants {
            ids.shrink_to_fit();
            participants.insert(segment, ids);
        }
        Replayed {
            registry: self.registry,
            cells: self.cells,
            participants,
            last_participants: self.last_participants,
            newly_hurt: self.hurt,
            suspect,
            unnamed: self.unnamed,
            unsettled: self.unsettled,
        }
    }
}

impl Replaying<'_> {
    /// A record is missing. Whatever stands now may be stale.
    fn suspect(&mut self) {
        self.suspect_to = Some(self.suspect_to.unwrap_or(0).max(self.state.last));
    }

    /// Applies a record; `None` where it contradicts its frame.
    fn apply(
        &mut self,
        geo: &Geometry,
        body: Body<'_>,
        segment: u64,
        lsn: &mut u64,
        locs: &mut Vec<Loc>,
    ) -> Option<()> {
        let chunk = geo.chunk_bytes;
        // Whose space it was is settled at the end, from what is left.
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
                locations(lens, lsn, locs)?;
                self.state.terms.set(first, first + (u64::from(lens.count()) - 1), term);
                self.state.places.set_journal(first, locs.iter().copied(), chunk);
                self.seen_to(first + (u64::from(lens.count()) - 1));
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
            Body::PutOut { key, piece } => {
                let piece = ChainPiece { desc: piece, meta_seq: segment, mem: None };
                self.state.keys.put_out(key, piece, segment, &mut gone);
            }
            Body::Delete { key } => self.state.keys.delete(key, &mut gone),
            Body::Truncate { first, prev_term } => {
                self.state.places.drop_below(first, chunk, &mut gone);
                self.state.terms.drop_below(first);
                (self.state.first, self.state.prev_term) = (first, prev_term);
                // What is truncated was held, also where the record that brought it is lost.
                self.state.exists = true;
                self.state.last = self.state.last.max(first - 1);
                if self.based {
                    self.state.clip_damage();
                }
            }
            Body::Cut { first } => {
                self.cut(first, chunk);
                // What is cut was held, also where the record that brought it is lost.
                self.state.exists = true;
                self.state.last = first - 1;
            }
            Body::Reset { first, prev_term } => {
                self.state.places.clear(&mut gone);
                self.state.terms.clear();
                self.state.damaged = Box::default();
                (self.state.first, self.state.last, self.state.prev_term) = (first, first - 1, prev_term);
                // Its entries are past; what keyed state may have missed is not.
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
        if core.fresh && (self.based || self.state.exists || self.suspect_to.is_some()) {
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
    }

    fn cut(&mut self, first: u64, chunk: u32) {
        let mut gone = Vec::new();
        if self.state.exists && first < self.state.first {
            // Nothing is appended below the first: the end of that life, and the beginning of this one, are missing.
            self.suspect();
            self.state.first = first;
        }
        self.state.places.cut_from(first, chunk, &mut gone);
        self.state.terms.cut_from(first);
        self.state.cut_damage(first);
    }

    /// Moved entries were alive here: they say how far the log reached at least.
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
        if !self.state.places.set_chain(ChainPiece { desc: piece, meta_seq: segment, mem: None }, chunk) {
            // Two pieces over one range: something between them is missing.
            self.state.add_damage(first, last);
            return;
        }
        let mut index = first;
        for (n, term) in terms {
            self.state.terms.set(index, index + (u64::from(n) - 1), term);
            index = index.wrapping_add(n.into());
        }
    }

    /// Brings what was learnt together. `true`: damage was found that no CORE tells of.
    fn finish(&mut self, geo: &Geometry) -> bool {
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
            state.first = state.first.max(held.unwrap_or(1).min(state.last.saturating_add(1)));
            let (first, last) = (state.first, state.last);
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

/// The locations of a run whose payload begins at `lsn`, which moves on behind it. `None`: a length that no inline entry has.
fn locations(lens: Lens<'_>, lsn: &mut u64, locs: &mut Vec<Loc>) -> Option<()> {
    locs.clear();
    for len in lens.iter() {
        locs.push(location(len, lsn)?);
    }
    Some(())
}

fn location(len: u32, lsn: &mut u64) -> Option<Loc> {
    if len > MAX_INLINE_ENTRY {
        return None;
    }
    let loc = Loc::new(*lsn, len);
    *lsn = lsn.checked_add(ENTRY_CRC_BYTES as u64 + u64::from(len))?;
    Some(loc)
}
