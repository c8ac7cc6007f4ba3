//! Gathering: what is alive in the segment, and its bytes.

use std::ops::Range;

use bytes::Bytes;

use crate::disk::{AlignedBuf, Disk};
use crate::engine::{Engine, Geometry};
use crate::error::Result;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::{EntryId, POOL_OFFSET, Seed};
use crate::index::{Cell, Loc, weight};
use crate::journal::LiveSegment;
use crate::sync::Arc;

/// Payload gathered before it is written: bounds the cleaner's memory.
const SETTLE_BYTES: u64 = 4 << 20;
/// A segment is read in windows of this size, and only those in which something is alive: of a segment that is nearly dead that is a
/// small part.
const WINDOW: usize = 16 << 10;
/// Where the one before was read as well, so many windows are read at once, and no more: the cleaner is in no hurry, and commits should
/// not find megabytes of reads in front of them at the device.
const RUN: usize = 4;
const _: () = assert!(WINDOW.is_multiple_of(crate::disk::BLOCK));
/// Beyond this part of a group, replicas that hold a reservation are settled rather than carried.
const CARRY_SHARE: u64 = 4;

/// An entry as it was seen: it counts only if it still stands so when it is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub index: u64,
    pub term: u64,
    pub loc: Loc,
}

/// Entries of one replica about to be moved.
#[derive(Debug)]
pub(super) struct Moving {
    pub cell: Arc<Cell>,
    pub incarnation: u64,
    pub entries: Vec<Seen>,
}

/// A segment being cleaned, and those of its bytes that were needed so far.
struct Source {
    seq: u64,
    offset: u64,
    bytes: AlignedBuf,
    /// The windows that were read.
    read: Vec<bool>,
}

impl Source {
    /// The bytes in `range`, read if they were not yet. Nothing where it reaches beyond the segment.
    fn get(&mut self, disk: &dyn Disk, range: Range<usize>, segment_bytes: usize) -> std::io::Result<Option<&[u8]>> {
        if self.read.is_empty() {
            self.bytes = AlignedBuf::to_fill(segment_bytes);
            self.read = vec![false; segment_bytes.div_ceil(WINDOW)];
        }
        if range.end > segment_bytes || range.is_empty() {
            return Ok(None);
        }
        let (mut window, last) = (range.start / WINDOW, (range.end - 1) / WINDOW);
        while window <= last {
            if self.read.get(window).copied().unwrap_or(true) {
                window += 1;
                continue;
            }
            let follows = window.checked_sub(1).is_some_and(|before| self.read.get(before) == Some(&true));
            let most = if follows { RUN } else { 1 }.max(last + 1 - window);
            let n = self.read.iter().skip(window).take(most).take_while(|read| !**read).count();
            let bytes = window * WINDOW..segment_bytes.min((window + n) * WINDOW);
            let Some(part) = self.bytes.as_mut_slice().get_mut(bytes) else { return Ok(None) };
            disk.read_at(self.offset + (window * WINDOW) as u64, part)?;
            self.read.iter_mut().skip(window).take(n).for_each(|read| *read = true);
            window += n;
        }
        Ok(self.bytes.as_slice().get(range))
    }
}

/// Neighbouring segments cleaned together.
pub(super) struct Group {
    sources: Vec<Source>,
    pub participants: Vec<u64>,
    segment_bytes: u64,
    /// The LSNs from the first segment's beginning to the last one's end.
    lsns: Range<u64>,
}

impl Group {
    pub fn new<'a>(segments: impl Iterator<Item = &'a LiveSegment>, geo: &Geometry) -> Self {
        let segment_bytes = geo.segment_bytes;
        let mut this = Self { sources: Vec::new(), participants: Vec::new(), segment_bytes, lsns: 0..0 };
        for segment in segments {
            let first = if this.sources.is_empty() { segment.seq * segment_bytes } else { this.lsns.start };
            this.lsns = first..(segment.seq + 1) * segment_bytes;
            let offset = POOL_OFFSET + u64::from(segment.slab) * geo.segment_bytes;
            this.sources.push(Source { seq: segment.seq, offset, bytes: AlignedBuf::new(), read: Vec::new() });
            this.participants.extend_from_slice(&segment.participants);
        }
        this.participants.sort_unstable();
        this.participants.dedup();
        this
    }

    /// How many segments.
    pub fn len(&self) -> u64 {
        self.sources.len() as u64
    }

    /// Whether segment `seq` is one of them: they are neighbours.
    pub fn holds(&self, seq: u64) -> bool {
        let (first, last) = (self.sources.first().map(|s| s.seq), self.sources.last().map(|s| s.seq));
        first.is_some_and(|first| first <= seq) && last.is_some_and(|last| seq <= last)
    }

    /// Whether the byte at `lsn` lies in one of them.
    pub fn holds_lsn(&self, lsn: u64) -> bool {
        self.lsns.contains(&lsn)
    }

    /// The checked payload at `lsn`, if one of the segments holds it.
    fn get(&mut self, disk: &dyn Disk, seed: Seed, id: EntryId, lsn: u64) -> std::io::Result<Option<&[u8]>> {
        let (seq, at) = (lsn / self.segment_bytes, (lsn % self.segment_bytes) as usize);
        let Some(source) = self.sources.iter_mut().find(|s| s.seq == seq) else { return Ok(None) };
        let stored = source.get(disk, at..at + ENTRY_CRC_BYTES + id.len as usize, self.segment_bytes as usize)?;
        let Some((stored, payload)) = stored.and_then(|bytes| bytes.split_at_checked(ENTRY_CRC_BYTES)) else {
            return Ok(None);
        };
        let crc = seed.entry_crc(crc32c::crc32c(payload), lsn, id);
        Ok((stored == crc.to_le_bytes()).then_some(payload))
    }
}

/// What becomes of a replica's entries.
enum Fate {
    /// Those in the group go to the chain.
    Settle,
    /// All that are journal-resident go to the chain: that is what the reservation is for.
    SettleAll,
    /// Those in the group go to the journal's head.
    Carry,
}

impl Engine {
    /// Settles or carries every entry alive in the group. `false`: no room.
    pub(super) fn move_entries(&self, group: &mut Group) -> Result<bool> {
        let mut settle: Vec<Moving> = Vec::new();
        let (mut bytes, mut carried) = (0, 0);
        // Spent as replicas are settled in part: what they take beyond their reservation must not be others'.
        let mut slack = self.slack_chunks();
        for id in group.participants.clone() {
            let Some(cell) = self.registry.get(id) else { continue };
            let Some((moving, fate)) = self.alive_in(group, cell, carried, &mut slack) else { continue };
            let size = moving.entries.iter().map(|e| u64::from(e.loc.len()) + 8).sum::<u64>();
            if matches!(fate, Fate::Carry) {
                carried += size;
                if !self.carry(&moving, group)? {
                    return Ok(false);
                }
                continue;
            }
            bytes += size;
            settle.push(moving);
            if bytes >= SETTLE_BYTES {
                if !self.settle(std::mem::take(&mut settle), group)? {
                    return Ok(false);
                }
                bytes = 0;
            }
        }
        if settle.is_empty() { Ok(true) } else { self.settle(settle, group) }
    }

    /// What of the replica is to be moved, and where to. `None`: nothing of it is alive in the group.
    fn alive_in(&self, group: &Group, cell: Arc<Cell>, carried: u64, slack: &mut u64) -> Option<(Moving, Fate)> {
        let (head, durable) = (self.head(), self.durable());
        let state = cell.lock();
        let chunk = self.geo.chunk_bytes;
        let in_group = |loc: Loc| group.holds_lsn(loc.lsn(head));
        let locs = || state.places.spans().iter().flat_map(|s| s.locs()).copied();
        let here: u64 = locs().filter(|&l| in_group(l)).map(|l| weight(l.len(), chunk)).sum();
        if !state.exists || here == 0 {
            return None;
        }
        let reserved = state.charge.chunks > 0;
        let worth_chunks = here >= self.small_weight();
        let chunks = here.div_ceil(chunk.into()) + 1;
        let fate = if worth_chunks && chunks <= *slack {
            *slack -= chunks;
            Fate::Settle
        } else if reserved && (worth_chunks || carried > group.len() * self.geo.segment_bytes / CARRY_SHARE) {
            // And a cleaner that carries nearly everything gains nothing.
            // Pieces made bit by bit may waste more than the reservation has; made at once they do not.
            Fate::SettleAll
        } else {
            Fate::Carry
        };
        let all = matches!(fate, Fate::SettleAll);
        let mut entries = Vec::new();
        for span in state.places.spans() {
            for (i, &loc) in span.locs().iter().enumerate() {
                let index = span.first() + i as u64;
                if (all && loc.lsn(head) < durable) || in_group(loc) {
                    entries.push(Seen { index, term: state.terms.get(index).unwrap_or(0), loc });
                }
            }
        }
        let incarnation = state.incarnation;
        drop(state);
        Some((Moving { cell, incarnation, entries }, fate))
    }

    /// Free chunks that nobody has reserved.
    fn slack_chunks(&self) -> u64 {
        let reserved = { self.seq.lock().accounts.reserved() };
        self.pool.lock().free().saturating_sub(reserved + self.value_reserve)
    }

    /// The checked payload of an entry. `None`: it is gone from the index by now, or it is damaged, which is then recorded.
    pub(super) fn payload(&self, moving: &Moving, seen: Seen, group: &mut Group) -> Result<Option<Bytes>> {
        let id = EntryId { replica: moving.cell.id, index: seen.index, term: seen.term, len: seen.loc.len() };
        let lsn = seen.loc.lsn(self.head());
        let io = |e| crate::error::Error::io("reading the journal to clean it", e);
        if let Some(payload) = group.get(&*self.disk, self.geo.seed, id, lsn).map_err(io)? {
            return Ok(Some(Bytes::copy_from_slice(payload)));
        }
        // Again from where readers read: a mismatch is called damage only when it stands.
        if let Some(payload) = self.read_journal(id, seen.loc).map_err(io)? {
            return Ok(Some(payload));
        }
        self.mark_damaged(moving, seen);
        Ok(None)
    }

    /// The entry cannot be read: it is recorded as damage, so that the cleaner goes on and nobody is given wrong bytes.
    fn mark_damaged(&self, moving: &Moving, seen: Seen) {
        let mut s = self.seq.lock();
        let mut state = moving.cell.lock();
        if state.incarnation != moving.incarnation || state.places.loc(seen.index) != Some(seen.loc) {
            return;
        }
        self.forget_damaged(&mut s, moving.cell.id, &mut state, seen.index);
        // Carried with its metadata: the CORE counts as lying in this segment.
        state.core_seq = s.segments.tail();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::sync::Mutex;
    use crate::{Batch, Placement, Wal};

    #[test]
    fn a_segment_is_read_in_windows_each_once_and_only_where_something_is_asked_for() {
        const SEGMENT: usize = 16 * WINDOW;
        let offset = POOL_OFFSET + SEGMENT as u64;
        let disk = SimDisk::new(offset + SEGMENT as u64);
        let bytes: Vec<u8> = (0..SEGMENT).map(|i| (i / 7 % 251) as u8).collect();
        disk.poke(offset, &bytes);
        let log: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let readings = Arc::clone(&log);
        disk.on_read(move |at, buf| {
            let at = (at - offset) as usize;
            assert!(at.is_multiple_of(WINDOW) && buf.len().is_multiple_of(WINDOW), "{at} {}", buf.len());
            readings.lock().push((at / WINDOW, buf.len() / WINDOW));
            Ok(())
        });
        let mut source = Source { seq: 1, offset, bytes: AlignedBuf::new(), read: Vec::new() };
        // From one window and byte to another: what was read for it.
        let mut read = |from: (usize, usize), to: (usize, usize)| {
            let range = from.0 * WINDOW + from.1..to.0 * WINDOW + to.1;
            let got = source.get(&disk, range.clone(), SEGMENT).expect("readable").map(<[u8]>::to_vec);
            assert_eq!(got.as_deref(), bytes.get(range).filter(|bytes| !bytes.is_empty()), "{from:?} {to:?}");
            std::mem::take(&mut *log.lock())
        };
        assert_eq!(read((5, 10), (5, 20)), [(5, 1)]);
        assert_eq!(read((5, 0), (6, 0)), [], "to its end it is there");
        assert_eq!(read((6, 0), (6, 1)), [(6, RUN)], "it follows one that was read");
        assert_eq!(read((6, 0), (10, 0)), []);
        assert_eq!(read((0, WINDOW - 1), (1, 1)), [(0, 2)], "in two windows");
        assert_eq!(read((3, 0), (3, 1)), [(3, 1)]);
        assert_eq!(read((1, 7), (6, 7)), [(2, 1), (4, 1)], "only what was not read");
        assert_eq!(read((10, 0), (15, 0)), [(10, 5)], "a run, or all that is wanted");
        assert_eq!(read((15, WINDOW - 1), (16, 0)), [(15, 1)]);
        assert_eq!(read((0, 0), (16, 0)), []);
        assert_eq!([read((15, 0), (16, 1)), read((3, 3), (3, 3))].concat(), [], "beyond the segment, or nothing");
    }

    #[test]
    fn a_group_gives_what_lies_in_its_segments_if_it_is_whose_it_should_be() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
        let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
        for i in 1..=60 {
            wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("committed");
        }
        let engine = &wal.engine;
        let mut group = Group::new(engine.seq.lock().segments.live.iter().take(2), &engine.geo);
        let (seed, segment) = (engine.geo.seed, engine.geo.segment_bytes);
        let (cell, head) = (engine.registry.get(1).expect("there"), engine.head());
        let mut held = 0;
        for index in 1..=60 {
            let loc = cell.lock().places.loc(index).expect("in the journal");
            let (lsn, seq) = (loc.lsn(head), loc.lsn(head) / segment);
            let holds = group.sources.iter().any(|source| source.seq == seq);
            assert_eq!((group.holds(seq), group.holds_lsn(lsn)), (holds, holds), "{index}");
            let mut get = |replica, term| {
                let id = EntryId { replica, index, term, len: loc.len() };
                group.get(&*disk, seed, id, lsn).expect("readable").map(<[u8]>::to_vec)
            };
            assert_eq!(get(1, 1), holds.then(|| vec![index as u8; 3000]), "{index}");
            assert_eq!([get(2, 1), get(1, 2)], [None, None], "another's, or an older one");
            held += u64::from(holds);
        }
        assert!(group.len() == 2 && held > 30 && held < 60, "{held}");
    }

    /// Settled in part, a replica may take more chunks than it has reserved: only out of what nobody has.
    #[test]
    fn a_part_is_settled_out_of_what_nobody_reserved_or_not_at_all() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        for i in 1..=60 {
            wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])]).append(2, &[(i, 1, [2; 10])])).expect("committed");
        }
        let engine = &wal.engine;
        let group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
        let alive = |id: u64, slack: &mut u64| {
            let (moving, fate) =
                engine.alive_in(&group, engine.registry.get(id).expect("there"), 0, slack).expect("alive");
            (moving.entries.len(), fate)
        };
        let (mut none, mut plenty) = (0, 1000);
        let (part, fate) = alive(1, &mut plenty);
        assert!(matches!(fate, Fate::Settle) && part < 60 && plenty < 1000 - 10, "{part} entries, {plenty} left");
        let mut short = 1000 - plenty - 1;
        for slack in [&mut none, &mut short] {
            let before = *slack;
            let (all, fate) = alive(1, slack);
            assert!(matches!(fate, Fate::SettleAll) && all == 60, "all of it fits what it has reserved: {all}");
            assert_eq!(*slack, before);
        }
        assert!(matches!(alive(2, &mut plenty).1, Fate::Carry), "not worth a chunk");
    }
}
