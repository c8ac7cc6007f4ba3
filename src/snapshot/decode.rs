//! Reading a snapshot: what it says is compared with its superblock, and with itself.

use std::ops::Range;

use super::codec::{EACH, Head, INLINE, KIND_BITS, ONE, OUT, SAME};
use super::longest;
use crate::engine::Geometry;
use crate::format::Reader;
use crate::format::frame::{ENTRY_CRC_BYTES, FRAME_HEADER_BYTES};
use crate::format::piece::PieceDesc;
use crate::format::record::MAX_DAMAGE_RANGES;
use crate::format::superblock::Superblock;
use crate::index::{ChainPiece, Loc, MAX_INLINE_ENTRY, ReplicaState};

/// A segment, an id, a checksum, five numbers, one extent.
const LEAST_PIECE_BYTES: usize = 1 + 8 + 4 + 5 + 3;

/// Reads a snapshot. Nothing in it is believed before it is compared with everything else in it: **its checksum only says who wrote it.**
pub(super) struct Decoder<'a> {
    r: Reader<'a>,
    geo: Geometry,
    pub head: Head,
    /// Replicas that are still to come.
    pub left: u64,
    before: Option<u64>,
    /// Bytes of journal that no entry claims yet: what an entry costs here in memory, it costs there, too.
    journal: u64,
    /// By segment: the replicas with something alive in it.
    pub participants: Vec<Vec<u64>>,
    /// The LSNs of the segment in which this replica's last run lies: mostly the next one lies there, too.
    here: Range<u64>,
    /// One buffer for all spans.
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

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.r.rest().is_empty()
    }

    /// Bytes that were not read yet.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub fn rest(&self) -> usize {
        self.r.rest().len()
    }

    /// At most this many replicas follow.
    pub fn most(&self) -> usize {
        // The fixed parts of a replica alone take this much.
        const LEAST_BYTES: usize = 20;
        self.borne_out(self.left, LEAST_BYTES)
    }

    /// How many of `n` things that take `least` bytes each can follow: no count reserves more memory than the bytes bear out.
    fn borne_out(&self, n: u64, least: usize) -> usize {
        usize::try_from(n).unwrap_or(usize::MAX).min(self.r.rest().len() / least)
    }

    /// Reads the number of a live segment in which the replica has something.
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

    /// The next replica; `None` if there is none, or if what is said of it cannot be.
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
            (ordered && state.first_asked_for() <= low && high <= state.last).then_some(())?;
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
        // No frame still to come begins there.
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
        state.places.reserve_pieces(self.borne_out(n, LEAST_PIECE_BYTES));
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

    /// Reads a run of at most `most` entries: `end` is where the last one ended, `len` the last length given.
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
                // Before `locs` grows by that many.
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

/// Whether every entry has one place, or is known to be damaged.
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
