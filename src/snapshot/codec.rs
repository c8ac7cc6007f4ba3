//! The bytes of a snapshot.
//!
//! ```text
//! | magic u32 | header of the last frame | its participants | session u64 | next segment | n segments: gap, slab |
//! | n replicas: |
//! | id gap | incarnation u64 | first | entries | term(first - 1) | seq u16 | core segment | suspect u8 |
//! | n damaged: low, high | n terms: gap, term | n pieces: segment, descriptor | n spans: gap, entries, runs | n keys: segment, key, kind, value |
//! ```
//! Integers without a size are varints; segments are counted from the oldest live one. A *run* is a number of entries whose payloads lie
//! side by side in the journal. Nothing begins a block that could be taken for a frame, should the journal own that block one day.

use std::ops::Range;

use super::longest;
use crate::engine::Geometry;
use crate::format::frame::{ENTRY_CRC_BYTES, FRAME_HEADER_BYTES, FrameHeader, LAST_LSN, LAST_SESSION, Participants};
use crate::format::piece::PieceDesc;
use crate::format::record::MAX_DAMAGE_RANGES;
use crate::format::superblock::Superblock;
use crate::format::{Reader, Seed, varint};
use crate::index::{ChainPiece, Loc, MAX_INLINE_ENTRY, ReplicaState, Value};

const MAGIC: u32 = 0x5041_4e53; // "SNAP"
/// How the lengths of a run are said, in the low bits of its count: all as the last one before it, all as one that follows, or each.
const SAME: u64 = 0;
const ONE: u64 = 1;
const EACH: u64 = 2;
const KIND_BITS: u32 = 2;
/// A segment, an id, a checksum, five numbers, one extent.
const LEAST_PIECE_BYTES: usize = 1 + 8 + 4 + 5 + 3;
const INLINE: u8 = 0;
const OUT: u8 = 1;

/// What a snapshot says of the log as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The last frame whose records are in it.
    pub last: FrameHeader,
    /// That frame's participants.
    pub participants: Vec<u64>,
    /// The session that wrote it.
    pub session: u64,
    /// Above every segment number in any header.
    pub next_seq: u64,
    /// The live segments and their slabs, ascending.
    pub segments: Vec<(u64, u32)>,
}

impl Head {
    pub fn encode(&mut self, seed: Seed, replicas: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_le_bytes());
        let mut header = [0; FRAME_HEADER_BYTES];
        self.last.encode(seed, &mut header);
        out.extend_from_slice(&header);
        Participants::encode(&mut self.participants, u64::MAX, out);
        out.extend_from_slice(&self.session.to_le_bytes());
        varint::encode(self.next_seq, out);
        varint::encode(self.segments.len() as u64, out);
        let mut before = 0;
        for &(seq, slab) in &self.segments {
            varint::encode(seq - before, out);
            varint::encode(slab.into(), out);
            before = seq;
        }
        varint::encode(replicas as u64, out);
    }

    /// Reads a head, and the number of replicas that follow.
    fn decode(r: &mut Reader<'_>, geo: &Geometry, sb: &Superblock, lsn: u64) -> Option<(Self, u64)> {
        if r.u32()? != MAGIC {
            return None;
        }
        let last =
            FrameHeader::decode(geo.seed, lsn % geo.segment_bytes, geo.segment_bytes, r.take(FRAME_HEADER_BYTES)?)?;
        let Participants::These(participants) = Participants::decode(r)? else { return None };
        let session = r.u64()?;
        let next_seq = r.varint()?;
        let n = r.varint()?;
        let mut segments: Vec<(u64, u32)> = Vec::new();
        for _ in 0..n {
            let gap = r.varint()?;
            let slab = r.varint32()?;
            let seq = segments.last().map_or(0, |&(seq, _)| seq).checked_add(gap)?;
            if gap == 0 || !sb.journal_slabs.contains(&slab) || segments.iter().any(|&(_, s)| s == slab) {
                return None;
            }
            segments.push((seq, slab));
        }
        let ends = segments.last()?.0 == last.lsn / geo.segment_bytes && segments.first()?.0 == last.tail_seq;
        let numbers = (last.session..=LAST_SESSION).contains(&session)
            && next_seq > last.lsn / geo.segment_bytes
            && next_seq.checked_mul(geo.segment_bytes)? <= LAST_LSN;
        let sound = last.lsn == lsn && numbers && ends;
        let replicas = r.varint()?;
        sound.then_some((Self { last, participants, session, next_seq, segments }, replicas))
    }
}

/// Appends one replica after the other, ascending.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// An LSN that unpacks locations.
    head: u64,
    segment_bytes: u64,
    /// The oldest live segment, and the newest.
    segments: (u64, u64),
    before: u64,
}

impl<'a> Encoder<'a> {
    pub fn new(out: &'a mut Vec<u8>, head: u64, segment_bytes: u64, segments: (u64, u64)) -> Self {
        Self { out, head, segment_bytes, segments, before: 0 }
    }

    pub fn bytes(&self) -> u64 {
        self.out.len() as u64
    }

    fn int(&mut self, value: u64) {
        varint::encode(value, self.out);
    }

    /// `None`: no live segment holds that.
    fn segment(&mut self, seq: u64) -> Option<()> {
        let (oldest, newest) = self.segments;
        (seq <= newest).then_some(())?;
        self.int(seq.checked_sub(oldest)?);
        Some(())
    }

    /// `None`: the state has something that the journal does not tell; nothing of it is to be used then.
    pub fn replica(&mut self, id: u64, state: &ReplicaState) -> Option<()> {
        self.int(id.checked_sub(self.before)?);
        self.before = id;
        self.out.extend_from_slice(&state.incarnation.to_le_bytes());
        self.int(state.first);
        self.int(state.last.checked_sub(state.first.checked_sub(1)?)?);
        self.int(state.prev_term);
        self.out.extend_from_slice(&state.seq.to_le_bytes());
        self.segment(state.core_seq)?;
        self.out.push(u8::from(state.state_suspect));
        self.int(state.damaged.len() as u64);
        for &(low, high) in state.damaged.iter() {
            self.int(low);
            self.int(high);
        }
        self.int(state.terms.len() as u64);
        let mut before = 0;
        for (start, term) in state.terms.iter() {
            self.int(start.checked_sub(before)?);
            self.int(term);
            before = start;
        }
        self.int(state.places.chain().len() as u64);
        for piece in state.places.chain() {
            self.segment(piece.meta_seq)?;
            piece.desc.encode(self.out);
        }
        self.spans(state)?;
        self.int(state.keys.len() as u64);
        for entry in state.keys.iter() {
            self.segment(entry.seq)?;
            self.blob(&entry.key);
            match &entry.value {
                Value::Inline(value) => {
                    self.out.push(INLINE);
                    self.blob(value);
                }
                Value::Out(piece) => {
                    self.out.push(OUT);
                    piece.desc.encode(self.out);
                }
            }
        }
        Some(())
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.int(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn spans(&mut self, state: &ReplicaState) -> Option<()> {
        self.int(state.places.spans().len() as u64);
        let (mut next, mut end, mut len) = (state.first, self.segments.0 * self.segment_bytes, 0);
        let mut run: Vec<u32> = Vec::new();
        for span in state.places.spans() {
            self.int(span.first().checked_sub(next)?);
            self.int(span.locs().len() as u64);
            next = span.first().wrapping_add(span.locs().len() as u64);
            let mut locs = span.locs().iter().peekable();
            while let Some(loc) = locs.next() {
                let start = loc.lsn(self.head);
                run.clear();
                run.push(loc.len());
                let mut here = start + ENTRY_CRC_BYTES as u64 + u64::from(loc.len());
                while let Some(loc) = locs.next_if(|loc| loc.lsn(self.head) == here) {
                    run.push(loc.len());
                    here += ENTRY_CRC_BYTES as u64 + u64::from(loc.len());
                }
                self.run(start.wrapping_sub(end), &run, &mut len);
                end = here;
            }
        }
        Some(())
    }

    /// A run that begins so far behind the end of the last one; `len` is the last length said.
    fn run(&mut self, gap: u64, lens: &[u32], len: &mut u32) {
        let (n, first) = (lens.len() as u64, lens.first().copied().unwrap_or(0));
        let kind = match lens.iter().all(|&l| l == first) {
            true if first == *len => SAME,
            true => ONE,
            false => EACH,
        };
        self.int(n << KIND_BITS | kind);
        // What was moved lies behind what was not: a gap may well be negative.
        self.int(gap << 1 ^ (gap as i64 >> 63) as u64);
        match kind {
            SAME => {}
            ONE => self.int(first.into()),
            _ => lens.iter().for_each(|&l| self.int(l.into())),
        }
        *len = lens.last().copied().unwrap_or(*len);
    }
}

/// Reads a snapshot. Nothing in it is believed before it is compared with everything else in it: **its checksum only says who wrote it.**
pub(super) struct Decoder<'a> {
    r: Reader<'a>,
    geo: Geometry,
    pub head: Head,
    /// Replicas that are still to come.
    pub left: u64,
    before: Option<u64>,
    /// Bytes of journal that no entry was said to lie in: what an entry costs here in memory, it costs there, too.
    journal: u64,
    /// By segment: the replicas with something alive in it.
    pub participants: Vec<Vec<u64>>,
    /// The LSNs of the segment that the last run lay in, while that was this replica's: mostly the next one lies there, too.
    here: Range<u64>,
    /// Kept, so that there is one of it for all spans.
    locs: Vec<Loc>,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8], geo: &Geometry, sb: &Superblock, lsn: u64) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let (head, left) = Head::decode(&mut r, geo, sb, lsn)?;
        let journal = longest(geo, sb);
        let participants = vec![Vec::new(); head.segments.len()];
        let (here, locs) = (0..0, Vec::new());
        Some(Self { r, geo: *geo, head, left, before: None, journal, participants, here, locs })
    }

    /// Nothing is left.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.r.rest().is_empty()
    }

    /// Bytes that were not read yet.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub fn rest(&self) -> usize {
        self.r.rest().len()
    }

    /// At most so many replicas follow.
    pub fn most(&self) -> usize {
        // The fixed parts of a replica alone take so much.
        const LEAST_BYTES: usize = 20;
        usize::try_from(self.left).unwrap_or(usize::MAX).min(self.r.rest().len() / LEAST_BYTES)
    }

    /// A live segment in which the replica has something.
    fn segment(&mut self, id: u64) -> Option<u64> {
        let seq = self.head.segments.first()?.0.checked_add(self.r.varint()?)?;
        self.list(seq, id)?;
        Some(seq)
    }

    /// Notes that something of the replica is alive in a segment; `None`: that is not live.
    fn list(&mut self, seq: u64, id: u64) -> Option<()> {
        let i = self.head.segments.binary_search_by_key(&seq, |&(seq, _)| seq).ok()?;
        let ids = self.participants.get_mut(i)?;
        if ids.last() != Some(&id) {
            ids.push(id);
        }
        Some(())
    }

    /// The next replica; `None` where there is none, or where what is said of it cannot be.
    pub fn replica(&mut self) -> Option<(u64, ReplicaState)> {
        self.left = self.left.checked_sub(1)?;
        let gap = self.r.varint()?;
        let id = match self.before {
            Some(before) => before.checked_add(gap).filter(|_| gap > 0)?,
            None => gap,
        };
        self.before = Some(id);
        let mut state =
            ReplicaState { exists: true, incarnation: self.r.u64()?, first: self.r.varint()?, ..Default::default() };
        state.last = state.first.checked_sub(1)?.checked_add(self.r.varint()?)?;
        (state.prev_term, state.seq) = (self.r.varint()?, self.r.u16()?);
        state.core_seq = self.segment(id)?;
        state.state_suspect = match self.r.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let n = self.r.varint()?;
        if n > MAX_DAMAGE_RANGES as u64 {
            return None;
        }
        let mut damaged: Vec<(u64, u64)> = Vec::new();
        for _ in 0..n {
            let (low, high) = (self.r.varint()?, self.r.varint()?);
            let ordered = damaged.last().is_none_or(|&(_, before)| before < low) && low <= high;
            (ordered && state.first <= low && high <= state.last).then_some(())?;
            damaged.push((low, high));
        }
        state.damaged = damaged.into();
        self.terms(&mut state)?;
        self.chain(id, &mut state)?;
        self.spans(id, &mut state)?;
        self.keys(id, &mut state)?;
        if !is_whole(&state) {
            return None;
        }
        let newest = self.head.segments.last()?.0;
        let listed = self.participants.last().is_some_and(|ids| ids.last() == Some(&id));
        // Of frames still to come none begins there.
        state.listed_frame = if listed { newest.checked_mul(self.geo.segment_bytes)? } else { 0 };
        Some((id, state))
    }

    fn terms(&mut self, state: &mut ReplicaState) -> Option<()> {
        let mut start = 0_u64;
        for i in 0..self.r.varint()? {
            let gap = self.r.varint()?;
            (i == 0 || gap > 0).then_some(())?;
            start = start.checked_add(gap)?;
            state.terms.push(start, self.r.varint()?);
        }
        // As a replay leaves them.
        state.terms.drop_below(state.first);
        if let Some(next) = state.last.checked_add(1) {
            state.terms.cut_from(next);
        }
        Some(())
    }

    fn chain(&mut self, id: u64, state: &mut ReplicaState) -> Option<()> {
        let n = self.r.varint()?;
        // A descriptor takes so many bytes at least: no count reserves more than there can be.
        state
            .places
            .reserve_pieces(usize::try_from(n).unwrap_or(usize::MAX).min(self.r.rest().len() / LEAST_PIECE_BYTES));
        for _ in 0..n {
            let meta_seq = self.segment(id)?;
            let desc = PieceDesc::decode_without_terms(&mut self.r, self.geo.pool_blocks)?;
            let before = state.places.chain().back().map_or(0, |p| p.desc.last());
            let sound = desc.terms.is_empty() && desc.count > 0 && desc.first > before;
            (sound && desc.last() >= state.first && desc.last() <= state.last).then_some(())?;
            let piece = ChainPiece { desc, meta_seq, mem: None };
            state.places.set_chain(piece, self.geo.chunk_bytes).then_some(())?;
        }
        Some(())
    }

    fn spans(&mut self, id: u64, state: &mut ReplicaState) -> Option<()> {
        let (mut next, mut len) = (Some(state.first), 0);
        let mut end = self.head.segments.first()?.0.checked_mul(self.geo.segment_bytes)?;
        self.here = 0..0;
        for _ in 0..self.r.varint()? {
            let first = next?.checked_add(self.r.varint()?)?;
            let count = self.r.varint()?;
            let last = first.checked_add(count.checked_sub(1)?)?;
            (last <= state.last).then_some(())?;
            self.locs.clear();
            while (self.locs.len() as u64) < count {
                self.run(id, &mut end, &mut len, count - self.locs.len() as u64)?;
            }
            state.places.push(first, self.locs.iter().copied(), self.geo.chunk_bytes);
            next = last.checked_add(1);
        }
        Some(())
    }

    /// Reads a run of at most `most` entries: `end` is where the last one ended, `len` the last length said.
    fn run(&mut self, id: u64, end: &mut u64, len: &mut u32, most: u64) -> Option<()> {
        let head = self.r.varint()?;
        let (n, kind) = (head >> KIND_BITS, head & ((1 << KIND_BITS) - 1));
        let gap = self.r.varint()?;
        let start = end.wrapping_add(gap >> 1 ^ (gap & 1).wrapping_neg());
        (n > 0 && n <= most).then_some(())?;
        if !self.here.contains(&start) {
            let seq = start / self.geo.segment_bytes;
            self.list(seq, id)?;
            let first = seq * self.geo.segment_bytes;
            self.here = first..first.checked_add(self.geo.segment_bytes)?;
        }
        // A run lies in one frame, a frame in one segment.
        let mut room = self.here.end - start;
        let mut take = |bytes: u64| {
            room = room.checked_sub(bytes)?;
            self.journal = self.journal.checked_sub(bytes)?;
            Some(())
        };
        let each = |len: u32| (len <= MAX_INLINE_ENTRY).then_some(ENTRY_CRC_BYTES as u64 + u64::from(len));
        *end = start;
        match kind {
            EACH => {
                for _ in 0..n {
                    *len = self.r.varint32()?;
                    let bytes = each(*len)?;
                    take(bytes)?;
                    self.locs.push(Loc::new(*end, *len));
                    *end += bytes;
                }
            }
            SAME | ONE => {
                if kind == ONE {
                    *len = self.r.varint32()?;
                }
                let bytes = each(*len)?;
                // Before anything grows by so many.
                take(n.checked_mul(bytes)?)?;
                self.locs.extend((0..n).map(|i| Loc::new(start + i * bytes, *len)));
                *end += n * bytes;
            }
            _ => return None,
        }
        (start - self.here.start >= FRAME_HEADER_BYTES as u64 && *end <= self.head.last.end()).then_some(())
    }

    fn keys(&mut self, id: u64, state: &mut ReplicaState) -> Option<()> {
        let mut gone = Vec::new();
        for _ in 0..self.r.varint()? {
            let seq = self.segment(id)?;
            let key = self.blob()?;
            if state.keys.get(key).is_some() {
                return None;
            }
            match self.r.u8()? {
                INLINE => {
                    let value = self.blob()?;
                    state.keys.put(key, value, seq, &mut gone);
                }
                OUT => {
                    let desc = PieceDesc::decode(&mut self.r, self.geo.pool_blocks)?;
                    state.keys.put_out(key, ChainPiece { desc, meta_seq: seq, mem: None }, seq, &mut gone);
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.r.varint()?).ok()?;
        self.r.take(n)
    }
}

/// Every entry has one place, or is known to be damaged.
fn is_whole(state: &ReplicaState) -> bool {
    let mut spans = state.places.spans().iter().map(|s| (s.first(), s.last())).peekable();
    let mut pieces = state.places.chain().iter().map(|p| (p.desc.first, p.desc.last())).peekable();
    // What a piece holds below the first entry is truncated.
    let mut next = Some(state.first);
    let damaged = |low, high| state.damaged.iter().any(|&(a, b)| a <= low && high <= b);
    loop {
        let span = spans.peek().copied();
        let piece = pieces.peek().map(|&(low, high)| (low.max(state.first), high));
        let (low, high) = match (span, piece) {
            (Some(span), Some(piece)) if span.0 < piece.0 => (spans.next(), span).1,
            (_, Some(piece)) => (pieces.next(), piece).1,
            (Some(span), None) => (spans.next(), span).1,
            (None, None) => break,
        };
        match next {
            Some(next) if low == next || (low > next && damaged(next, low - 1)) => {}
            _ => return false,
        }
        next = high.checked_add(1);
    }
    next.is_none_or(|next| next > state.last || damaged(next, state.last))
}
