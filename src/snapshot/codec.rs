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

use crate::engine::Geometry;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LAST_LSN, LAST_SESSION, Participants, participant_bytes};
use crate::format::superblock::Superblock;
use crate::format::{Reader, Seed, varint};
use crate::index::MAX_JOURNAL_LEAP;

const MAGIC: u32 = 0x5041_4e53; // "SNAP"
/// How the lengths of a run are given, in the low bits of its count: all as the last one before it, all as one that follows, or each.
pub(super) const SAME: u64 = 0;
pub(super) const ONE: u64 = 1;
pub(super) const EACH: u64 = 2;
pub(super) const KIND_BITS: u32 = 2;
/// Where a keyed value is: here, or in a piece.
pub(super) const INLINE: u8 = 0;
pub(super) const OUT: u8 = 1;

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
    pub fn decode(r: &mut Reader<'_>, geo: &Geometry, sb: &Superblock, lsn: u64) -> Option<(Self, u64)> {
        if r.u32()? != MAGIC {
            return None;
        }
        let last =
            FrameHeader::decode(geo.seed, lsn % geo.segment_bytes, geo.segment_bytes, r.take(FRAME_HEADER_BYTES)?)?;
        let Participants::These(participants) = Participants::decode(r, participant_bytes(geo.segment_bytes))? else {
            return None;
        };
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
            && next_seq.checked_mul(geo.segment_bytes)? <= LAST_LSN
            && next_seq.saturating_sub(last.tail_seq).checked_mul(geo.segment_bytes)? <= MAX_JOURNAL_LEAP;
        // A log that was durable beyond its last frame has lost some: going on from here would hide that until the next crash.
        let sound = last.lsn == lsn && numbers && ends && sb.durable <= last.end();
        let replicas = r.varint()?;
        sound.then_some((Self { last, participants, session, next_seq, segments }, replicas))
    }
}
