//! Reading: ask the index under the replica's lock, then touch bytes under none.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::ahead::Ahead;
use crate::batch::Entry;
use crate::chain::PieceRef;
use crate::disk::{BLOCK, View};
use crate::error::{Damage, Error, Lost, Result};
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::TermRuns;
use crate::format::{EntryId, POOL_OFFSET, crc};
use crate::index::{Cell, ChainPiece, Loc, Place, ReplicaState, Value};
use crate::sync::{Arc, Ordering};

/// Where a read begins, taken out of the index.
enum Source {
    Journal(Loc),
    Chain(PieceRef),
}

/// Entries of the journal looked up under one lock.
const LOOKUPS: usize = 256;
/// A slice of a frame is handed out only if it is at least this part of it: small slices must not keep big buffers alive.
const SHARE_PART: usize = 4;
/// How often a read is tried anew, as what is read moves under it or comes back stale, before a mismatch is called damage.
pub(super) const ATTEMPTS: usize = 8;

fn damaged(replica: u64, first: u64, last: u64) -> Error {
    Error::Damaged(Damage { replica, lost: Lost::Entries { first, last } })
}

impl Engine {
    pub(crate) fn piece(&self, replica: u64, piece: &ChainPiece) -> PieceRef {
        PieceRef::new(replica, &piece.desc, piece.mem.as_ref(), &self.pins, self.geo.blocks_per_chunk)
    }

    /// Checks that `index` is held and undamaged; answers its term and place.
    fn find(id: u64, state: &ReplicaState, index: u64) -> Result<(u64, Place<'_>)> {
        if !state.exists {
            return Err(Error::UnknownReplica { replica: id });
        }
        if index < state.first {
            return Err(Error::Compacted { replica: id, index, first_index: state.first });
        }
        if index > state.last || state.is_empty() {
            return Err(Error::OutOfRange { replica: id, index, last_index: state.last });
        }
        if let Some((first, last)) = state.damage_at(index) {
            return Err(damaged(id, first, last));
        }
        let place = state.places.get(index).ok_or_else(|| damaged(id, index, index))?;
        Ok((state.terms.get(index).unwrap_or(0), place))
    }

    /// As [`Engine::find`]; what the answer needs to be read stays there until it is dropped.
    fn look(&self, id: u64, state: &ReplicaState, index: u64) -> Result<(u64, Source)> {
        let (term, place) = Self::find(id, state, index)?;
        let source = match place {
            Place::Journal(loc) => Source::Journal(loc),
            Place::Chain(piece) => Source::Chain(self.piece(id, piece)),
        };
        Ok((term, source))
    }

    pub(crate) fn read_term(&self, cell: &Cell, index: u64) -> Result<u64> {
        let state = cell.lock();
        if index == state.first - 1 && (state.exists || index == 0) {
            // Before the first entry of a log that was never truncated there is no term.
            return match state.damage_at(index).filter(|_| index > 0) {
                Some((first, last)) => Err(damaged(cell.id, first, last)),
                None => Ok(if index == 0 { 0 } else { state.prev_term }),
            };
        }
        Self::find(cell.id, &state, index).map(|(term, _)| term)
    }

    pub(crate) fn read_entry(&self, cell: &Cell, index: u64) -> Result<Entry> {
        for _ in 0..ATTEMPTS {
            let (term, source) = self.look(cell.id, &cell.lock(), index)?;
            if let Some(data) = self.read_source(cell.id, index, term, source)? {
                return Ok(Entry { index, term, data });
            }
        }
        Err(damaged(cell.id, index, index))
    }

    /// `None`: the bytes do not match, because they moved or because they rotted; look again.
    fn read_source(&self, replica: u64, index: u64, term: u64, source: Source) -> Result<Option<Bytes>> {
        let read = match source {
            Source::Journal(loc) => {
                let id = EntryId { replica, index, term, len: loc.len() };
                self.read_journal(id, loc, self.view().as_deref())
            }
            Source::Chain(piece) => piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term),
        };
        read.map_err(|e| Error::io(format!("reading replica {replica} entry {index}"), e))
    }

    /// Reads entries of `lo..hi` until `max_bytes` are exceeded; at least one. They stood in the log together: it is looked at in steps, and
    /// what was cut off between two of them ends the reading.
    pub(crate) fn read_entries(&self, cell: &Cell, lo: u64, hi: u64, max_bytes: usize) -> Result<Vec<Entry>> {
        let ahead = Ahead::default();
        let mut reading = Reading { next: lo, hi, cuts: None, left: Some(max_bytes), out: Vec::new(), ahead };
        while reading.next < hi {
            let before = reading.next;
            match self.read_some(cell, &mut reading) {
                Ok(true) => {}
                Ok(false) => break,
                // What was read before the log changed under us is whole; the caller asks again for the rest.
                Err(_) if !reading.out.is_empty() => break,
                Err(error) => return Err(error),
            }
            if reading.next == before {
                // The entry moved while it was read, or is damaged: the single read tells which.
                let entry = match self.read_entry(cell, before) {
                    Ok(entry) => entry,
                    Err(_) if !reading.out.is_empty() => break,
                    Err(error) => return Err(error),
                };
                // By itself it is whole in any case.
                let goes_on = reading.goes_on_in(&cell.lock()) || reading.out.is_empty();
                if !goes_on || !reading.push(entry.term, entry.data) {
                    break;
                }
            }
        }
        Ok(reading.out)
    }

    /// Whether what such a reading would answer is in memory. Looks at each entry that it may have to read, and no further.
    pub(crate) fn is_in_memory(&self, cell: &Cell, range: Range<u64>, max_bytes: usize) -> bool {
        let state = cell.lock();
        // Behind the lock: locations that it shows lie below this head.
        let (head, recent) = (self.head(), self.recent.since().min(self.durable()));
        let mut bytes = 0;
        let (mut next, end) = (range.start.max(state.first), range.end.min(state.last.saturating_add(1)));
        while next < end && bytes <= max_bytes {
            let index = next;
            // What is lost is told without reading; it may be all the numbers there are.
            if let Some((_, last)) = state.damage_at(index) {
                next = last.saturating_add(1);
                continue;
            }
            next += 1;
            let (here, len) = match state.places.get(index) {
                None => (true, 0),
                Some(Place::Journal(loc)) => (loc.lsn(head) >= recent, loc.len() as usize),
                // Its entries' lengths are in the piece: each is taken for the mean of them.
                Some(Place::Chain(piece)) => {
                    (piece.mem.is_some(), piece.desc.bytes as usize / piece.desc.slots.max(1) as usize)
                }
            };
            if !here {
                return false;
            }
            bytes = bytes.saturating_add(len);
        }
        true
    }

    /// Reads on within one piece, or a run of the journal. `false`: the byte limit is met, or the log is another by now.
    fn read_some(&self, cell: &Cell, reading: &mut Reading) -> Result<bool> {
        let (next, hi) = (reading.next, reading.hi);
        let mut locs: Vec<(Loc, u64)> = Vec::new();
        let mut terms = TermRuns::new();
        let piece = {
            let state = cell.lock();
            if !reading.goes_on_in(&state) {
                return Ok(false);
            }
            match self.look(cell.id, &state, next)? {
                (_, Source::Chain(piece)) => {
                    let last = (hi - 1).min(state.last).min(piece.first.saturating_add(u64::from(piece.slots) - 1));
                    // Behind the piece's live part another place begins: ask the index where.
                    let live = state.places.get(next).map_or(next, |p| match p {
                        Place::Chain(p) => p.desc.last(),
                        Place::Journal(_) => next,
                    });
                    // What is damaged may lie in a piece, too: it is told, and never shown.
                    let damaged = state.damaged.iter().map(|&(first, _)| first).filter(|&first| first > next).min();
                    let n = last.min(live).min(damaged.map_or(u64::MAX, |first| first - 1)) - next + 1;
                    terms = state.terms.runs(next, u32::try_from(n).unwrap_or(u32::MAX));
                    Some(piece)
                }
                (term, Source::Journal(loc)) => {
                    locs.push((loc, term));
                    let mut bytes = loc.len() as usize;
                    for index in next + 1..hi.min(state.last.saturating_add(1)) {
                        let Some(loc) = state.places.loc(index).filter(|_| locs.len() < LOOKUPS) else { break };
                        if state.damage_at(index).is_some() {
                            break;
                        }
                        bytes += loc.len() as usize;
                        locs.push((loc, state.terms.get(index).unwrap_or(0)));
                        if reading.left.is_none_or(|left| bytes > left) {
                            break;
                        }
                    }
                    None
                }
            }
        };
        let failed = |next: u64, e| Error::io(format!("reading replica {} from entry {next}", cell.id), e);
        if let Some(piece) = piece {
            let bytes = piece.load(&*self.disk, self.map.as_ref()).map_err(|e| failed(next, e))?;
            for (n, term) in terms {
                for _ in 0..n {
                    let Some(data) = bytes.entry(self.geo.seed, reading.next, term) else { return Ok(true) };
                    if !reading.push(term, data) {
                        return Ok(false);
                    }
                }
            }
            return Ok(true);
        }
        self.read_ahead(cell, &mut reading.ahead, next, hi);
        let view = self.view();
        for (loc, term) in locs {
            let index = reading.next;
            let id = EntryId { replica: cell.id, index, term, len: loc.len() };
            let read =
                reading.ahead.watch(|| self.read_journal(id, loc, view.as_deref())).map_err(|e| failed(index, e))?;
            self.read_ahead(cell, &mut reading.ahead, index, hi);
            let Some(data) = read else { return Ok(true) };
            if !reading.push(term, data) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a journal-resident entry: from memory while its frame is recent, else from its segment.
    ///
    /// `None` when the bytes are not this entry's: its segment was reused, or they rotted.
    pub(crate) fn read_journal(&self, id: EntryId, loc: Loc, view: Option<&View>) -> io::Result<Option<Bytes>> {
        let lsn = loc.lsn(self.head());
        let data = lsn + ENTRY_CRC_BYTES as u64;
        let len = loc.len() as usize;
        // Twice: a frame may be sealed between the first look and the second.
        for _ in 0..2 {
            if let Some(frame) = self.recent.find(lsn) {
                let Some(bytes) = frame.slice(data, len) else { return Ok(None) };
                return Ok(Some(if len * SHARE_PART > frame.buf.len() {
                    let start = (data - frame.lsn) as usize;
                    Bytes::from_owner(SharedFrame(frame)).slice(start..start + len)
                } else {
                    Bytes::copy_from_slice(bytes)
                }));
            }
            if lsn < self.durable() {
                break;
            }
            let unsealed = self.seq.lock().read_unsealed(data, len, Bytes::copy_from_slice);
            if unsealed.is_some() {
                return Ok(unsealed);
            }
        }
        self.read_segment(id, lsn, view)
    }

    /// What is mapped, to be held for a few reads. Nothing is where reads are copies, or the file was given up.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.map.as_ref()?.hold()
    }

    /// Copies an entry out of its segment. The segment stays pinned meanwhile, for microseconds: it is not written anew.
    fn read_segment(&self, id: EntryId, lsn: u64, view: Option<&View>) -> io::Result<Option<Bytes>> {
        let (seq, within) = (lsn / self.geo.segment_bytes, lsn % self.geo.segment_bytes);
        let Some(pinned) = self.pin_segment(seq) else { return Ok(None) };
        let offset = POOL_OFFSET + u64::from(pinned.slab) * self.geo.segment_bytes + within;
        let len = ENTRY_CRC_BYTES + id.len as usize;
        if let Some(bytes) = view.and_then(|view| view.slice(offset, len)) {
            if len > BLOCK {
                self.ask_if_cold(offset, bytes);
            }
            // What is checked are copies: of what they were made of nobody says that it stays.
            let Some((&crc, payload)) = bytes.split_first_chunk() else { return Ok(None) };
            let payload = Bytes::copy_from_slice(payload);
            return Ok(self.is_whole(id, lsn, crc, &payload).then_some(payload));
        }
        self.read_copied(id, lsn, offset)
    }

    /// An entry of the journal from the device, whatever is mapped: where it cannot be read, that is an error and no signal.
    pub(crate) fn read_unmapped(&self, id: EntryId, loc: Loc) -> io::Result<Option<Bytes>> {
        let lsn = loc.lsn(self.head());
        let (seq, within) = (lsn / self.geo.segment_bytes, lsn % self.geo.segment_bytes);
        let Some(pinned) = self.pin_segment(seq) else { return Ok(None) };
        self.read_copied(id, lsn, POOL_OFFSET + u64::from(pinned.slab) * self.geo.segment_bytes + within)
    }

    fn read_copied(&self, id: EntryId, lsn: u64, offset: u64) -> io::Result<Option<Bytes>> {
        let mut buf = vec![0; ENTRY_CRC_BYTES + id.len as usize];
        self.disk.read_at(offset, &mut buf)?;
        Ok(self.checked(id, lsn, &buf).is_some().then(|| Bytes::from(buf).slice(ENTRY_CRC_BYTES..)))
    }

    /// The payload behind its checksum, if that holds.
    fn checked<'a>(&self, id: EntryId, lsn: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&crc, payload) = bytes.split_first_chunk()?;
        self.is_whole(id, lsn, crc, payload).then_some(payload)
    }

    fn is_whole(&self, id: EntryId, lsn: u64, crc: [u8; ENTRY_CRC_BYTES], payload: &[u8]) -> bool {
        crc == self.geo.seed.entry_crc(crc::of(payload), lsn, id).to_le_bytes()
    }

    /// Holds a live segment. First the pin, then the question whether it is live: whoever frees it asks in the other order.
    pub(super) fn pin_segment(&self, seq: u64) -> Option<PinnedSegment<'_>> {
        let slab = self.segment_map.read().slab(seq)?;
        let chunk = slab * (self.geo.segment_bytes / u64::from(self.geo.chunk_bytes)) as u32;
        self.pins.pin(chunk);
        let pinned = PinnedSegment { pins: &self.pins, chunk, slab };
        (self.segment_map.read().slab(seq) == Some(slab)).then_some(pinned)
    }

    /// Reads the entry from the disk, past every memory, and answers its length. `None`: gone, or damaged.
    pub(crate) fn check_entry(&self, cell: &Cell, index: u64) -> Result<Option<u64>> {
        for _ in 0..ATTEMPTS {
            let Ok((term, source)) = self.look(cell.id, &cell.lock(), index) else { return Ok(None) };
            let io = |e| Error::io(format!("reading replica {} entry {index}", cell.id), e);
            let data = match source {
                Source::Journal(loc) => {
                    let id = EntryId { replica: cell.id, index, term, len: loc.len() };
                    let lsn = loc.lsn(self.head());
                    let (on_disk, view) = (lsn < self.durable(), self.view());
                    let view = view.as_deref();
                    if on_disk { self.read_segment(id, lsn, view) } else { self.read_journal(id, loc, view) }
                        .map_err(io)?
                }
                Source::Chain(piece) => piece
                    .without_memory()
                    .load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term)
                    .map_err(io)?,
            };
            if let Some(data) = data {
                return Ok(Some(data.len() as u64));
            }
            // Written but a moment ago, or moved: what is not durable yet becomes so before it is called damaged.
            if !self.read_only && self.seq.lock().stopped.is_none() {
                self.sync()?;
            }
        }
        if self.seq.lock().stopped.is_some()
            && let Ok((term, Source::Chain(piece))) = self.look(cell.id, &cell.lock(), index)
            && piece.in_memory()
        {
            // Never written, perhaps, and never acknowledged.
            let io = |e| Error::io(format!("replica {} entry {index}", cell.id), e);
            let data = piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term).map_err(io)?;
            return Ok(data.map(|data| data.len() as u64));
        }
        Ok(None)
    }

    /// Reads the value from the disk, past every memory, if it lies in a piece.
    ///
    /// It may be put anew again and again while it is looked at: only a piece that reads wrong again once all is durable is rotten.
    pub(crate) fn check_value(&self, cell: &Cell, key: &[u8]) -> Result<Checked> {
        let mut wrong = None;
        for _ in 0..ATTEMPTS {
            let piece = {
                let state = cell.lock();
                match state.keys.get(key) {
                    Some(Value::Out(piece)) if !state.state_suspect => self.piece(cell.id, piece),
                    _ => return Ok(Checked::Gone),
                }
            };
            let (id, bytes, in_memory) = (piece.id, u64::from(piece.bytes), piece.in_memory());
            let read = piece.without_memory().load_one(&*self.disk, self.map.as_ref(), self.geo.seed, 0, 0);
            let io = |e| Error::io(format!("reading replica {} keyed state", cell.id), e);
            if read.map_err(io)?.is_some() {
                return Ok(Checked::Whole { bytes });
            }
            if wrong == Some(id) {
                return Ok(Checked::Rotten { id, bytes });
            }
            wrong = Some(id);
            if !self.read_only {
                if self.seq.lock().stopped.is_none() {
                    // Submitted but a moment ago: on its way to the disk.
                    self.sync()?;
                } else if in_memory {
                    // Never written, perhaps, and never acknowledged.
                    return Ok(Checked::Gone);
                }
            }
        }
        Ok(Checked::Gone)
    }

    /// An LSN at or above every location in the index.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    pub(crate) fn read_key(&self, cell: &Cell, key: &[u8]) -> Result<Option<Bytes>> {
        let replica = cell.id;
        let lost = || Error::Damaged(Damage { replica, lost: Lost::State });
        for _ in 0..ATTEMPTS {
            let piece = {
                let state = cell.lock();
                if state.state_suspect {
                    return Err(lost());
                }
                match state.keys.get(key) {
                    None => return Ok(None),
                    Some(Value::Inline(value)) => return Ok(Some(Bytes::copy_from_slice(value))),
                    Some(Value::Out(piece)) => self.piece(replica, piece),
                }
            };
            let read = piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, 0, 0);
            if let Some(value) = read.map_err(|e| Error::io(format!("reading replica {replica} keyed state"), e))? {
                return Ok(Some(value));
            }
        }
        Err(lost())
    }
}

/// What the disk has of a value.
pub(crate) enum Checked {
    Whole {
        bytes: u64,
    },
    /// It lies in no piece any more, or is not asked for.
    Gone,
    Rotten {
        /// Its piece: a value that is put again is another.
        id: u64,
        bytes: u64,
    },
}

/// A segment that is not written anew while this lives.
pub(super) struct PinnedSegment<'a> {
    pins: &'a crate::space::Pins,
    chunk: u32,
    pub(super) slab: u32,
}

impl Drop for PinnedSegment<'_> {
    fn drop(&mut self) {
        self.pins.unpin(self.chunk);
    }
}

/// A recent frame as an owner of `Bytes`.
struct SharedFrame(crate::sync::Arc<crate::journal::FrameMem>);

impl AsRef<[u8]> for SharedFrame {
    fn as_ref(&self) -> &[u8] {
        self.0.buf.as_slice()
    }
}

/// A reading of several entries, on its way.
struct Reading {
    next: u64,
    hi: u64,
    /// How often the log had been cut when it was first looked at.
    cuts: Option<u32>,
    /// Bytes of payload that may be added. None where the first entry took more: then one that has none would not fit, either.
    left: Option<usize>,
    out: Vec<Entry>,
    ahead: Ahead,
}

impl Reading {
    /// Whether nothing was cut off since the first look, so that what is found now stands behind what was read.
    fn goes_on_in(&mut self, state: &ReplicaState) -> bool {
        *self.cuts.get_or_insert(state.cuts) == state.cuts
    }

    /// Adds the next entry unless it exceeds the limit; the first always fits.
    fn push(&mut self, term: u64, data: Bytes) -> bool {
        let left = self.left.and_then(|left| left.checked_sub(data.len()));
        if left.is_none() && !self.out.is_empty() {
            return false;
        }
        self.left = left;
        self.out.push(Entry { index: self.next, term, data });
        self.next += 1;
        true
    }
}
