//! The frame: one group commit, one contiguous write.
//!
//! ```text
//! +----------------+--------------------------------+------------------------+---------+
//! | header (128 B) | payload: [crc u32 | bytes] ... | table: participants,   | padding |
//! |                |                                |        records         | to 4096 |
//! +----------------+--------------------------------+------------------------+---------+
//! ```
//! The payload precedes the table so that an entry's LSN is known when it is submitted, before the frame is sealed; the
//! table is contiguous, so that recovery reads a small part of a large frame.

use super::crc;
use super::{BLOCK_BYTES, Reader, Seed, varint};

/// Size of the header.
pub const FRAME_HEADER_BYTES: usize = 128;
/// Each entry's payload follows its checksum.
pub const ENTRY_CRC_BYTES: usize = 4;
/// The bytes that a frame's list of its predecessor's participants may take in any log: thousands of consecutive ids.
pub const LEAST_PARTICIPANT_BYTES: u64 = 10 << 10;

/// The bytes that a frame's list of its predecessor's participants may take. A longer list becomes "many": if that predecessor rots, nobody
/// can say which replicas were in it.
pub fn participant_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes / 16).max(LEAST_PARTICIPANT_BYTES)
}

const MAGIC: u32 = 0x4d52_4653; // "SFRM"
const CRC_AT: usize = FRAME_HEADER_BYTES - 4;
const LSN_AT: usize = 8;
const PREV_LSN_AT: usize = 32;

/// How many frames may be in flight at once, so how many may lie above the watermark. Two keep a device busy while acknowledgements travel
/// back; more would only widen what a torn end can hide.
pub const MAX_IN_FLIGHT: u32 = 2;

/// No log ever reaches this LSN: a header that claims a higher one is not believed, so arithmetic on LSNs cannot overflow.
pub const MAX_LSN: u64 = 3 << 60;
/// As [`MAX_LSN`], for sessions.
pub const MAX_SESSION: u64 = 3 << 62;
/// No frame is written beyond this LSN: the next one could not be read back.
pub const LAST_LSN: u64 = MAX_LSN - (1 << 56);
/// As [`LAST_LSN`], for sessions: three thousand million openings for writing.
pub const LAST_SESSION: u64 = MAX_SESSION - (1 << 56);
/// Beyond this LSN no batch is accepted: it takes a gigabyte a second a hundred years to get there. The rest is for the cleaner and for a
/// scrub.
pub const USED_UP_LSN: u64 = LAST_LSN - (1 << 52);

/// The header's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// Where the frame begins; must equal the place it is found at.
    pub lsn: u64,
    /// One opening of the log: a growing number in the high half, a random one in the low.
    pub session: u64,
    /// Where this session decided that the log before it ends: frames of earlier sessions at or above it do not exist.
    pub cut: u64,
    /// Length of the whole frame in blocks.
    pub blocks: u32,
    /// Length of the predecessor in blocks; 0 when there is none.
    pub prev_blocks: u32,
    /// Where the predecessor begins; 0 when there is none.
    pub prev_lsn: u64,
    /// [`FrameHeader::hash`] of the predecessor; 0 when there is none.
    pub prev_hash: u64,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Bytes of table, participants included.
    pub table_bytes: u32,
    /// Checksum of the table.
    pub table_crc: u32,
    /// Checksum over the entries' checksums: an older body at this very place does not pass for this one.
    pub payload_digest: u32,
    /// Every frame that ends at or below this LSN was durable when this one was sealed.
    pub watermark: u64,
    /// Sequence number of the oldest live segment.
    pub tail_seq: u64,
    /// The slab in which the next segment will lie, counted from 1; 0 where that was not known. An opening need not look for the segment
    /// elsewhere.
    pub next: u32,
    /// As [`FrameHeader::next`], for the segment after that one: if one segment is lost, those before it still name the one that follows.
    pub after: u32,
    /// The predecessor's [`FrameHeader::prev_hash`]; 0 when there is none. If the predecessor rots, this says which frame it followed, and
    /// so that no other frame is missing.
    pub prev_prev_hash: u64,
}

impl FrameHeader {
    /// Encodes the header into the front of the frame.
    pub fn encode(&self, seed: Seed, out: &mut [u8]) {
        let mut b = [0; FRAME_HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            b[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&MAX_IN_FLIGHT.to_le_bytes());
        for field in [self.lsn, self.session, self.cut, self.prev_lsn, self.prev_hash, self.watermark, self.tail_seq] {
            put(&field.to_le_bytes());
        }
        for field in [
            self.blocks,
            self.prev_blocks,
            self.payload_bytes,
            self.table_bytes,
            self.table_crc,
            self.payload_digest,
            self.next,
            self.after,
        ] {
            put(&field.to_le_bytes());
        }
        put(&self.prev_prev_hash.to_le_bytes());
        let crc = seed.crc(self.lsn, &b[..CRC_AT]);
        b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out[..FRAME_HEADER_BYTES].copy_from_slice(&b);
    }

    /// Repeats the frame's place at the end of its padding, if the frame is one block long and its padding has room. Otherwise a frame that
    /// loses the sector of its header would look as if nothing had been written.
    pub fn encode_echo(&self, seed: Seed, frame: &mut [u8]) {
        let padding = if self.blocks == 1 { frame.get_mut(self.table_range().end..) } else { None };
        if let Some(echo) = padding.and_then(<[u8]>::last_chunk_mut) {
            *echo = seed.mark(self.lsn).to_le_bytes();
        }
    }

    /// Whether the block belongs to a frame at this place, whatever became of its header.
    pub fn is_echoed(seed: Seed, lsn: u64, block: &[u8]) -> bool {
        block.last_chunk() == Some(&seed.mark(lsn).to_le_bytes())
    }

    /// Decodes a header found `offset` bytes into a segment of `segment_bytes`; `None`: no frame begins here.
    ///
    /// The frame states its own LSN, and thereby which segment this is; its checksum and the offset confirm it. A frame of the slab's
    /// earlier life decodes, too: its segment number is lower.
    pub fn decode(seed: Seed, offset: u64, segment_bytes: u64, bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..CRC_AT)?;
        let crc = Reader::new(bytes.get(CRC_AT..)?).u32()?;
        let mut r = Reader::new(body);
        if r.u32()? != MAGIC || r.u32()? > MAX_IN_FLIGHT {
            return None;
        }
        let this = Self {
            lsn: r.u64()?,
            session: r.u64()?,
            cut: r.u64()?,
            prev_lsn: r.u64()?,
            prev_hash: r.u64()?,
            watermark: r.u64()?,
            tail_seq: r.u64()?,
            blocks: r.u32()?,
            prev_blocks: r.u32()?,
            payload_bytes: r.u32()?,
            table_bytes: r.u32()?,
            table_crc: r.u32()?,
            payload_digest: r.u32()?,
            next: r.u32()?,
            after: r.u32()?,
            prev_prev_hash: r.u64()?,
        };
        let needed = FRAME_HEADER_BYTES as u64 + u64::from(this.payload_bytes) + u64::from(this.table_bytes);
        let sound = seed.crc(this.lsn, body) == crc
            && this.lsn.checked_rem(segment_bytes) == Some(offset)
            && this.lsn >= segment_bytes
            && this.lsn <= MAX_LSN
            && this.session <= MAX_SESSION
            && needed <= this.bytes()
            && this.bytes() <= segment_bytes - offset
            && this.watermark <= this.lsn
            && this.cut <= this.lsn
            && this.tail_seq <= this.lsn / segment_bytes;
        sound.then_some(this)
    }

    /// Whether these bytes may begin a frame of any file: no more can be told without that file's seed.
    pub fn looks_like_one(bytes: &[u8]) -> bool {
        let mut r = Reader::new(bytes);
        r.u32() == Some(MAGIC) && r.u32().is_some_and(|flying| flying <= MAX_IN_FLIGHT)
    }

    /// Where a header says that its frame and the one before it lie, whether or not the header is intact.
    pub fn places_said(bytes: &[u8]) -> (Option<u64>, Option<u64>) {
        let at = |at: usize| bytes.get(at..).and_then(|rest| Reader::new(rest).u64());
        (at(LSN_AT), at(PREV_LSN_AT))
    }

    /// Length of the whole frame in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES
    }

    /// The LSN just past the frame.
    pub fn end(&self) -> u64 {
        self.lsn.saturating_add(self.bytes())
    }

    /// Where the table lies within the frame.
    pub fn table_range(&self) -> std::ops::Range<usize> {
        let start = FRAME_HEADER_BYTES.saturating_add(self.payload_bytes as usize);
        start..start.saturating_add(self.table_bytes as usize)
    }

    /// By what a successor identifies this frame: session, place, table and order all go into it.
    pub fn hash(&self, seed: Seed) -> u64 {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.encode(seed, &mut bytes);
        // The header's own checksum is left out: the CRC of bytes followed by their CRC is the same for all bytes.
        let high = crc::of(&bytes[..CRC_AT]);
        u64::from(high) << 32 | u64::from(self.table_crc ^ self.session as u32)
    }

    /// Where the predecessor ends.
    pub fn prev_end(&self) -> u64 {
        self.prev_lsn.saturating_add(u64::from(self.prev_blocks) * BLOCK_BYTES)
    }

    /// Whether this frame may follow `prev`: it names `prev`'s place and hash.
    pub fn follows(&self, prev: &FrameHeader, seed: Seed) -> bool {
        self.prev_lsn == prev.lsn && self.prev_hash == prev.hash(seed)
    }

    /// Whether exactly one frame lay between `before` and this one.
    pub fn follows_but_one(&self, before: &FrameHeader, seed: Seed) -> bool {
        self.prev_lsn > before.lsn && self.prev_lsn < self.lsn && self.prev_prev_hash == before.hash(seed)
    }
}

/// The previous frame's replicas, as a frame lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Participants {
    /// Exactly these, ascending.
    These(Vec<u64>),
    /// Too many to list.
    Many,
}

impl Participants {
    /// Appends the list if it takes no more than `limit` bytes, else "many". Sorts and deduplicates `ids`.
    pub fn encode(ids: &mut Vec<u64>, limit: u64, out: &mut Vec<u8>) {
        ids.sort_unstable();
        ids.dedup();
        let start = out.len();
        // The count plus one: zero says "many".
        varint::encode(ids.len() as u64 + 1, out);
        let mut last = 0;
        for &id in ids.iter() {
            varint::encode(id - last, out);
            last = id;
        }
        if (out.len() - start) as u64 > limit {
            out.truncate(start);
            varint::encode(0, out);
        }
    }

    /// Reads the list off the front of the table; `None` if it is malformed or takes more than `limit` bytes, which no writer's does.
    pub fn decode(r: &mut Reader<'_>, limit: u64) -> Option<Self> {
        let (all, limit) = (r.rest(), usize::try_from(limit).unwrap_or(usize::MAX));
        let mut list = Reader::new(all.get(..limit).unwrap_or(all));
        let these = Self::decode_all(&mut list)?;
        r.take(all.len().min(limit) - list.rest().len())?;
        Some(these)
    }

    fn decode_all(r: &mut Reader<'_>) -> Option<Self> {
        let Some(n) = r.varint()?.checked_sub(1) else { return Some(Self::Many) };
        let mut last = 0_u64;
        let mut ids = Vec::new();
        for _ in 0..n {
            last = last.checked_add(r.varint()?)?;
            ids.push(last);
        }
        Some(Self::These(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            lsn: (1 << 20) + 8192,
            session: 77,
            cut: 4096,
            payload_digest: 3,
            blocks: 3,
            prev_blocks: 2,
            prev_lsn: 8192,
            prev_hash: 5,
            payload_bytes: 5000,
            table_bytes: 600,
            table_crc: 42,
            watermark: 8192,
            tail_seq: 1,
            next: 9,
            after: 4,
            prev_prev_hash: 6,
        }
    }

    #[test]
    fn round_trips_only_at_its_own_offset_and_within_bounds() {
        let seed = Seed::new(&[1; 16]);
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        sample().encode(seed, &mut bytes);
        assert_eq!(FrameHeader::decode(seed, 8192, 1 << 20, &bytes), Some(sample()));
        assert_eq!(FrameHeader::decode(seed, 4096, 1 << 20, &bytes), None);
        assert_eq!(FrameHeader::decode(seed, 8192, 16384, &bytes), None, "longer than the segment's rest");
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(seed, 8192, 1 << 20, &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn what_no_writer_says_is_no_frame_though_its_checksum_holds() {
        let seed = Seed::new(&[1; 16]);
        let decode = |header: FrameHeader| {
            let mut bytes = vec![0; FRAME_HEADER_BYTES];
            header.encode(seed, &mut bytes);
            FrameHeader::decode(seed, 8192, 1 << 20, &bytes)
        };
        let (good, room) = (sample(), sample().bytes() as u32 - FRAME_HEADER_BYTES as u32);
        let to_the_brim = FrameHeader { payload_bytes: room - 600, ..good };
        assert_eq!(decode(to_the_brim), Some(to_the_brim));
        let newest = FrameHeader { watermark: good.lsn, cut: good.lsn, tail_seq: good.lsn >> 20, ..good };
        assert_eq!(decode(newest), Some(newest));
        let nonsense = [
            ("payload and table beyond the frame", FrameHeader { payload_bytes: room - 599, ..good }),
            ("a table beyond any frame", FrameHeader { table_bytes: u32::MAX, ..good }),
            ("no blocks", FrameHeader { blocks: 0, ..good }),
            ("a watermark ahead", FrameHeader { watermark: good.lsn + 1, ..good }),
            ("a cut ahead", FrameHeader { cut: good.lsn + 1, ..good }),
            ("a tail ahead", FrameHeader { tail_seq: (good.lsn >> 20) + 1, ..good }),
            ("a session beyond all", FrameHeader { session: MAX_SESSION + 1, ..good }),
            ("segment 0", FrameHeader { lsn: 8192, watermark: 0, cut: 0, tail_seq: 0, ..good }),
        ];
        for (what, header) in nonsense {
            assert_eq!(decode(header), None, "{what}");
        }
    }

    #[test]
    fn a_frame_with_more_beside_it_than_we_know_of_is_not_believed() {
        let seed = Seed::new(&[1; 16]);
        for (in_flight, known) in
            [(0, true), (1, true), (MAX_IN_FLIGHT, true), (MAX_IN_FLIGHT + 1, false), (u32::MAX, false)]
        {
            let mut bytes = vec![0; FRAME_HEADER_BYTES];
            sample().encode(seed, &mut bytes);
            bytes[4..8].copy_from_slice(&in_flight.to_le_bytes());
            let crc = seed.crc(sample().lsn, &bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(FrameHeader::decode(seed, 8192, 1 << 20, &bytes).is_some(), known, "{in_flight}");
            assert_eq!(FrameHeader::looks_like_one(&bytes), known, "{in_flight}");
        }
    }

    #[test]
    fn a_hash_tells_headers_tables_and_sessions_apart() {
        let (seed, frame) = (Seed::new(&[1; 16]), sample());
        let parts = |f: FrameHeader| (f.hash(seed) >> 32, f.hash(seed) as u32);
        assert_eq!(parts(frame).1, frame.table_crc ^ frame.session as u32);
        let other = [FrameHeader { watermark: 4096, ..frame }, FrameHeader { prev_hash: 6, ..frame }];
        for other in other {
            assert!(parts(other).0 != parts(frame).0 && parts(other).1 == parts(frame).1, "{other:?}");
        }
    }

    #[test]
    fn the_parts_of_a_frame() {
        let frame = sample();
        assert_eq!((frame.bytes(), frame.end(), frame.prev_end()), (12_288, (1 << 20) + 8192 + 12_288, 8192 + 8192));
        assert_eq!(frame.table_range(), FRAME_HEADER_BYTES + 5000..FRAME_HEADER_BYTES + 5600);
        assert_eq!(participant_bytes(16 * LEAST_PARTICIPANT_BYTES + 160), LEAST_PARTICIPANT_BYTES + 10);
        assert_eq!(participant_bytes(4096), LEAST_PARTICIPANT_BYTES);
    }

    #[test]
    fn a_frame_of_a_dropped_tail_does_not_follow_its_replacement() {
        let seed = Seed::new(&[1; 16]);
        let dropped = sample();
        let replacement = FrameHeader { session: 78, ..dropped };
        let next = FrameHeader { lsn: dropped.end(), prev_lsn: dropped.lsn, prev_hash: dropped.hash(seed), ..dropped };
        assert!(next.follows(&dropped, seed));
        assert!(!next.follows(&replacement, seed));
        let third = FrameHeader {
            lsn: next.end(),
            prev_lsn: next.lsn,
            prev_hash: next.hash(seed),
            prev_prev_hash: next.prev_hash,
            ..next
        };
        assert!(third.follows_but_one(&dropped, seed) && !third.follows_but_one(&replacement, seed));
        assert!(!third.follows_but_one(&next, seed) && !next.follows_but_one(&dropped, seed));
        // The frame that it says lies in between must lie there.
        for prev_lsn in [dropped.lsn, third.lsn] {
            assert!(!FrameHeader { prev_lsn, ..third }.follows_but_one(&dropped, seed));
        }
    }

    #[test]
    fn participants_round_trip_sorted_and_bounded() {
        let mut out = Vec::new();
        Participants::encode(&mut vec![9, 3, 9, u64::MAX, 0], 100, &mut out);
        assert_eq!(
            Participants::decode(&mut Reader::new(&out), 100),
            Some(Participants::These(vec![0, 3, 9, u64::MAX]))
        );
        let mut many = Vec::new();
        Participants::encode(&mut (0..5000).collect(), 4999, &mut many);
        assert_eq!(Participants::decode(&mut Reader::new(&many), 1), Some(Participants::Many));
        assert!(many.len() < 4);
        // Two bytes say how many, and each id takes one more: exactly the limit, behind what is there already.
        many.clear();
        many.push(9);
        Participants::encode(&mut (0..5000).collect(), 5002, &mut many);
        assert_eq!(many.len(), 5003);
        many.truncate(1);
        Participants::encode(&mut (0..5000).collect(), 5001, &mut many);
        assert_eq!(many, [9, 0]);
        many.clear();
        Participants::encode(&mut (0..5000).collect(), LEAST_PARTICIPANT_BYTES, &mut many);
        let all = Participants::decode(&mut Reader::new(&many), LEAST_PARTICIPANT_BYTES);
        assert_eq!(all, Some(Participants::These((0..5000).collect())));
        // A table cannot claim more ids than it holds.
        assert_eq!(Participants::decode(&mut Reader::new(&many[..many.len() - 1]), LEAST_PARTICIPANT_BYTES), None);
        // What follows the list is left unread, and a list longer than any writer's is refused.
        many.extend([7; 3]);
        let mut reader = Reader::new(&many);
        assert_eq!((Participants::decode(&mut reader, 5002), reader.rest()), (all, &[7; 3][..]));
        assert_eq!(Participants::decode(&mut Reader::new(&many), 5001), None);
    }
}
