//! Writing the replicas of a snapshot.

use super::codec::{EACH, INLINE, KIND_BITS, ONE, OUT, SAME};
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::varint;
use crate::index::{ReplicaState, Value};

/// Appends one replica after the other, ascending.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// An LSN behind all locations, which unpacks them.
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

    /// `None`: that segment is not live.
    fn segment(&mut self, seq: u64) -> Option<()> {
        let (oldest, newest) = self.segments;
        (seq <= newest).then_some(())?;
        self.int(seq.checked_sub(oldest)?);
        Some(())
    }

    /// `None`: the state holds something that the journal does not tell; what was written so far is not to be used then.
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
        for span in state.places.spans().iter() {
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

    /// Writes a run that begins `gap` behind the end of the last one; `len` is the last length given.
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
