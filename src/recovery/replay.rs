//! Replay: records in log order become the state of every replica.
//!
//! This file takes frames apart, counts what is lost between them, and keeps the books of segments and frames; what a record means to its
//! replica is in `replaying.rs`.

use std::collections::{HashMap, HashSet};

use super::parts::parts;
use super::replaying::{Marks, pass};
use super::scan::Scan;
use super::walk::{Accepted, Before, Walk};
use crate::engine::Geometry;
use crate::error::{Error, Result, salvage_it};
use crate::format::frame::{FRAME_HEADER_BYTES, Participants, participant_bytes};
use crate::format::piece::Extents;
use crate::format::record::{Body, Core, LEAST_RECORD_BYTES, Record, RecordError, Records, Step};
use crate::format::{BLOCK_BYTES, Reader};
use crate::index::{Cell, Loc, Registry};
use crate::options::RecoveryMode;
use crate::sync::Arc;

/// All replicas after replay.
#[derive(Debug)]
pub(super) struct Replayed {
    pub registry: Registry,
    /// All cells of the registry, in the order in which they were met, so neighbours in memory.
    pub cells: Vec<Arc<Cell>>,
    /// By segment: the replicas with a record in it.
    pub participants: HashMap<u64, Vec<u64>>,
    pub last_participants: Vec<u64>,
    /// Replicas whose damage no CORE records yet.
    pub newly_hurt: HashSet<u64>,
    /// Frames are lost whose participants nobody lists: a replica known only there is gone without a trace.
    pub unnamed: bool,
    /// Pieces that a frame above the watermark brings: linked or not, their bytes must stay until a later frame is durable.
    pub unsettled: Vec<(u64, Extents)>,
}

struct Replay<'a> {
    geo: &'a Geometry,
    /// Whose records are replayed here.
    part: Part,
    registry: Registry,
    cells: Vec<Arc<Cell>>,
    marks: Marks,
    /// Locations of the run being replayed: one buffer for all runs.
    locs: Vec<Loc>,
    participants: Vec<(u64, Vec<u64>)>,
    last_participants: Vec<u64>,
    unnamed: bool,
    unsettled: Vec<(u64, Extents)>,
    /// Holes of unknown content so far.
    holes: u64,
    /// A salvage goes on behind a malformed record, so every part must stop at it, whichever replica it is of.
    salvages: bool,
}

/// Replays every accepted frame.
pub(super) fn replay(geo: &Geometry, scan: &Scan, walk: &Walk<'_>, mode: RecoveryMode) -> Result<Replayed> {
    replay_in(geo, scan, walk, mode, parts(geo, walk))
}

/// As [`replay`], with the replicas divided among this many threads.
#[cfg(not(any(loom, shuttle)))]
pub(super) fn replay_in(
    geo: &Geometry,
    scan: &Scan,
    walk: &Walk<'_>,
    mode: RecoveryMode,
    parts: usize,
) -> Result<Replayed> {
    use std::thread::ScopedJoinHandle;

    use crate::sync::helper;

    std::thread::scope(|scope| {
        let replay = move |n| replay_part(geo, scan, walk, mode, Part { n, of: parts });
        let others: Vec<_> = (1..parts).map(|n| (n, helper(scope, "strandlog-replay", move || replay(n)))).collect();
        let mut all = replay(0)?;
        for (n, other) in others {
            // Where there is no thread for a part, it is done here.
            let other = other.map_or_else(|| Ok(replay(n)), ScopedJoinHandle::join);
            all.join(other.map_err(|_| Error::io("replaying", std::io::Error::other("a thread panicked")))??);
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

/// Whether a frame of this many blocks has room for a record of each listed replica: each costs memory, whether it ever existed or not.
fn may_have_been_in(listed: &Participants, blocks: u32) -> bool {
    let room = (u64::from(blocks) * BLOCK_BYTES).saturating_sub(FRAME_HEADER_BYTES as u64);
    match listed {
        Participants::These(ids) => ids.len() as u64 <= room / LEAST_RECORD_BYTES,
        Participants::Many => true,
    }
}

/// The replicas whose shard of the registry is `n`, modulo `of`.
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
        unnamed: walk.lost_at_end,
        unsettled: Vec::new(),
        holes: 0,
        salvages: mode == RecoveryMode::Salvage,
    };
    for frame in &walk.accepted {
        match replay.frame(scan, frame) {
            Err(Error::Corrupt { .. } | Error::Unsupported { .. }) if mode == RecoveryMode::Salvage => {
                // What came before the malformed record stands; what came behind it is as if the frame were lost.
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
            hint: concat!(
                "its checksum holds, so a newer or broken writer made it: open it with the version that wrote it, or ",
                salvage_it!()
            ),
        };
        let mut reader = Reader::new(frame.table);
        let listed = Participants::decode(&mut reader, participant_bytes(self.geo.segment_bytes))
            .ok_or_else(|| corrupt("a list of participants"))?;
        let sound = header.prev_end() <= header.lsn && may_have_been_in(&listed, header.prev_blocks);
        if frame.before != Before::Whole && !sound {
            return Err(corrupt("a list of participants"));
        }
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
        let mut records = Records::new(reader, self.geo.pool_blocks);
        let (part, all) = (self.part, self.salvages || frame.unsettled);
        while let Some(step) = records.next_of(|id| all || part.holds(id)) {
            let step = step.map_err(|e| match e {
                RecordError::Codec(id) => Error::Unsupported { feature: format!("payload codec {id}") },
                RecordError::Malformed => corrupt("a record"),
            })?;
            let fits = match step {
                Step::Passed(lens) => lens.map_or(Some(()), |lens| pass(lens, &mut lsn)),
                Step::Record(record) => {
                    self.note_unsettled(frame, &record);
                    self.record(record, header.lsn, &mut lsn)
                }
            };
            fits.filter(|()| lsn <= payload_end).ok_or_else(|| corrupt("a record that does not fit its frame"))?;
        }
        Ok(())
    }

    /// Notes the pieces that a frame above the watermark brings. One part does so for all replicas.
    fn note_unsettled(&mut self, frame: &Accepted<'_>, record: &Record<'_>) {
        if self.part.n > 0 || !frame.unsettled {
            return;
        }
        match &record.body {
            Body::Placed(pieces) => self.unsettled.extend(pieces.iter().map(|p| (p.id, p.extents.clone()))),
            Body::PutOut { piece, .. } => self.unsettled.push((piece.id, piece.extents.clone())),
            _ => {}
        }
    }

    /// Replays one record; `None` where it contradicts its frame.
    fn record(&mut self, record: Record<'_>, frame_lsn: u64, lsn: &mut u64) -> Option<()> {
        let id = record.replica;
        if !self.part.holds(id) {
            return match record.body {
                Body::Append { lens, .. } | Body::Carried { lens, .. } => pass(lens, lsn),
                _ => Some(()),
            };
        }
        let (cell, new) = self.registry.find_or_create(id);
        if new {
            self.cells.push(Arc::clone(cell));
        }
        let mut r = self.marks.look(cell, new);
        let before = (r.based || new, r.seen || new, r.suspect_to);
        // The books: in which segments and frames the replica is, and whether one of its records is missing.
        let fresh = matches!(record.body, Body::Core(Core { fresh: true, .. }));
        let missing = if r.seen { r.state.seq != record.seq } else { self.holes > 0 };
        if missing && !fresh {
            r.suspect();
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

    /// A frame is missing before this one. Its participants are hurt; if `more` may be missing, so are all that cannot show that they were
    /// not in those.
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
                    // A replica that was removed before can only have begun anew in the lost frame.
                    r.based &= r.state.exists;
                    self.marks.keep(id, before, &r);
                }
                if more {
                    self.hole();
                }
            }
            Participants::Many => self.hole(),
        }
    }

    /// Behind this, no replica is cleared before its next record.
    fn hole(&mut self) {
        self.holes += 1;
        self.marks.cleared.clear();
    }

    fn finish(mut self) -> Replayed {
        let (mut gone, mut hurt) = (Vec::new(), HashSet::new());
        for cell in &self.cells {
            let mut r = self.marks.look(cell, false);
            if self.holes > 0 && !self.marks.cleared.contains(&cell.id) {
                // It has no record behind a hole of unknown content, so it cannot be cleared.
                r.suspect();
            }
            if r.finish(self.geo) {
                hurt.insert(cell.id);
            }
            if !r.state.exists {
                gone.push(cell.id);
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
            newly_hurt: hurt,
            unnamed: self.unnamed,
            unsettled: self.unsettled,
        }
    }
}
