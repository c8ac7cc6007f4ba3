//! The piece: a run of one replica's entries as it lies in chunks.
//!
//! ```text
//! 0      4       8          16        24      32      36  40          44       60    64
//! | magic| count | piece id | replica | first | bytes | 0 | table crc | 0 ...  | crc |
//! | count x { end u32, crc u32 } | payloads, back to back | (zeros to the block) |
//! ```
//! `end` is where the entry's payload ends, counted from the first payload. The piece's *descriptor* lives in the journal; the header is
//! for cross-checks, `verify` and salvage.
//!
//! A *bare* piece is one entry and nothing else: for entries that fill chunks by themselves, so that 64 KiB take 64 KiB. What its header
//! would say is in the descriptor.

use smallvec::SmallVec;

use super::{BLOCK_BYTES, POOL_OFFSET, Reader, Seed, varint};

/// Size of a piece's header.
pub const PIECE_HEADER_BYTES: usize = 64;
/// Size of one slot of the table that follows it.
pub const PIECE_SLOT_BYTES: usize = 8;
/// The most runs of equal terms in a piece, so that its descriptor stays small whatever the log holds.
pub const MAX_TERM_RUNS: usize = 32;
/// The most extents that a piece may be scattered over: a 64 MiB entry in 4 KiB chunks, with its header.
pub const MAX_EXTENTS: usize = 1 << 15;

/// The largest piece: an entry of 64 MiB, header and slot. No more is read at a time, whatever a descriptor says.
pub const MAX_PIECE_BYTES: u32 = (64 << 20) + (PIECE_HEADER_BYTES + PIECE_SLOT_BYTES) as u32;

const MAGIC: u32 = 0x4345_4950; // "PIEC"
const CRC_AT: usize = PIECE_HEADER_BYTES - 4;

/// Whether an entry lies bare: it would not fit a chunk together with header and table.
pub fn is_bare(bytes: usize, chunk_bytes: u32) -> bool {
    bytes.saturating_add(PIECE_HEADER_BYTES + PIECE_SLOT_BYTES) > chunk_bytes as usize
}

/// A run of adjacent blocks of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First block, counted from the pool's start.
    pub block: u32,
    /// How many.
    pub blocks: u32,
}

impl Extent {
    /// Where the extent begins in the file.
    pub fn offset(self) -> u64 {
        POOL_OFFSET + u64::from(self.block) * BLOCK_BYTES
    }
    /// Its length in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES
    }
    /// The chunks it touches, given the blocks a chunk holds.
    pub fn chunks(self, blocks_per_chunk: u32) -> std::ops::RangeInclusive<u32> {
        let last = self.block.saturating_add(self.blocks.max(1) - 1);
        self.block / blocks_per_chunk..=last / blocks_per_chunk
    }
}

/// Where a piece lies: nearly always one extent. With a million pieces, none should cost an allocation.
pub type Extents = SmallVec<[Extent; 1]>;
/// Runs of equal terms: (entries, term). Nearly always one.
pub type TermRuns = SmallVec<[(u32, u64); 1]>;

/// What the journal records of a piece: all that is needed to find, read and check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceDesc {
    /// Unique forever; part of every checksum in the piece.
    pub id: u64,
    /// Index of the first entry in it, dead or alive.
    pub first: u64,
    /// How many entries from `first` on were not yet overwritten when this was written.
    pub count: u32,
    /// How many entries it physically holds.
    pub slots: u32,
    /// Whether it is one entry without header and table.
    pub bare: bool,
    /// Header, table and payloads in bytes, without padding.
    pub bytes: u32,
    /// Checksum of its header and table; for a bare piece that of its entry, computed as if the entry's term were 0.
    pub crc: u32,
    /// Runs of equal terms over the first `count` entries: (entries, term).
    pub terms: TermRuns,
    /// Where it lies.
    pub extents: Extents,
}

impl PieceDesc {
    /// Payload in bytes, of all entries that it physically holds.
    pub fn payload_bytes(&self) -> usize {
        u64::from(self.bytes).saturating_sub(self.payload_start()) as usize
    }

    /// How many blocks it takes.
    pub fn blocks(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.blocks)).sum()
    }

    /// Index of the last entry that was not overwritten; `first - 1` when none is left.
    pub fn last(&self) -> u64 {
        (self.first.wrapping_sub(1)).wrapping_add(u64::from(self.count))
    }

    /// Where the payloads begin within the piece.
    pub fn payload_start(&self) -> u64 {
        if self.bare { 0 } else { PIECE_HEADER_BYTES as u64 + u64::from(self.slots) * PIECE_SLOT_BYTES as u64 }
    }

    /// Appends the descriptor to a table.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        // A bare piece is encoded as having no slots.
        let slots = if self.bare { 0 } else { u64::from(self.slots) };
        for value in [self.first, self.count.into(), slots, self.bytes.into(), self.terms.len() as u64] {
            varint::encode(value, out);
        }
        for &(n, term) in &self.terms {
            varint::encode(n.into(), out);
            varint::encode(term, out);
        }
        varint::encode(self.extents.len() as u64, out);
        for e in &self.extents {
            varint::encode(e.block.into(), out);
            varint::encode(e.blocks.into(), out);
        }
    }

    /// Decodes a descriptor; `None` unless its fields agree with each other and every extent lies within `pool_blocks`.
    pub fn decode(r: &mut Reader<'_>, pool_blocks: u32) -> Option<Self> {
        let this = Self::decode_without_terms(r, pool_blocks)?;
        let covered: u64 = this.terms.iter().map(|&(n, _)| u64::from(n)).sum();
        (covered == u64::from(this.count)).then_some(this)
    }

    /// Skips a descriptor without checking its content.
    pub fn pass(r: &mut Reader<'_>) -> Option<()> {
        // Id and checksum; then first, count, slots, bytes.
        r.take(size_of::<u64>() + size_of::<u32>())?;
        r.varints(4)?;
        for _ in 0..2 {
            let pairs = r.varint32()?;
            r.varints(2 * u64::from(pairs))?;
        }
        Some(())
    }

    /// As [`PieceDesc::decode`], for a descriptor whose terms are kept elsewhere: its runs need not cover its entries.
    pub fn decode_without_terms(r: &mut Reader<'_>, pool_blocks: u32) -> Option<Self> {
        let (id, crc) = (r.u64()?, r.u32()?);
        let first = r.varint()?;
        let (count, slots, bytes) = (r.varint32()?, r.varint32()?, r.varint32()?);
        let bare = slots == 0;
        let slots = if bare { 1 } else { slots };
        let runs = r.varint()? as usize;
        if runs > MAX_TERM_RUNS {
            return None;
        }
        let mut terms = TermRuns::with_capacity(runs);
        for _ in 0..runs {
            let (n, term) = (r.varint32()?, r.varint()?);
            (n > 0).then_some(())?;
            terms.push((n, term));
        }
        let n = r.varint()? as usize;
        if n == 0 || n > MAX_EXTENTS {
            return None;
        }
        let mut extents = Extents::with_capacity(n.min(r.rest().len()));
        let mut room = 0_u64;
        for _ in 0..n {
            let e = Extent { block: r.varint32()?, blocks: r.varint32()? };
            if e.blocks == 0 || e.block.checked_add(e.blocks)? > pool_blocks {
                return None;
            }
            room += e.bytes();
            extents.push(e);
        }
        let this = Self { id, first, count, slots, bare, bytes, crc, terms, extents };
        let sound = count <= slots
            && (!bare || count == 1)
            && this.payload_start() <= u64::from(bytes)
            // No piece takes a block more than it fills: otherwise a few bytes of journal could name all the space there is.
            && room.checked_sub(bytes.into()).is_some_and(|spare| spare < BLOCK_BYTES)
            && bytes <= MAX_PIECE_BYTES
            && first.checked_add(u64::from(slots) - 1).is_some();
        sound.then_some(this)
    }

    /// The most bytes that an extent takes in a descriptor.
    pub const EXTENT_BYTES: u64 = 2 * varint::MAX_BYTES_32 as u64;
    /// An upper bound on the length of [`PieceDesc::encode`] for the common piece: one extent, few terms.
    pub const TYPICAL_BYTES: u64 = 64;
}

/// What a piece's header says: the piece's owner, and its place in the owner's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHeader {
    /// The piece's id.
    pub id: u64,
    /// Its owner.
    pub replica: u64,
    /// Index of its first entry.
    pub first: u64,
    /// Entries in it.
    pub slots: u32,
    /// Header, table and payloads in bytes.
    pub bytes: u32,
}

impl PieceHeader {
    /// Seals the table that is already in `out`, writes the header in front of it, and returns the checksum for the descriptor.
    pub fn seal(&self, seed: Seed, out: &mut [u8]) -> u32 {
        let table_end = PIECE_HEADER_BYTES + self.slots as usize * PIECE_SLOT_BYTES;
        let table_crc = seed.crc(self.id, &out[PIECE_HEADER_BYTES..table_end]);
        let mut b = Vec::with_capacity(PIECE_HEADER_BYTES);
        b.extend_from_slice(&MAGIC.to_le_bytes());
        b.extend_from_slice(&self.slots.to_le_bytes());
        for field in [self.id, self.replica, self.first] {
            b.extend_from_slice(&field.to_le_bytes());
        }
        b.extend_from_slice(&self.bytes.to_le_bytes());
        b.extend_from_slice(&0_u32.to_le_bytes());
        b.extend_from_slice(&table_crc.to_le_bytes());
        b.resize(CRC_AT, 0);
        let crc = seed.crc(self.id, &b);
        b.extend_from_slice(&crc.to_le_bytes());
        out[..PIECE_HEADER_BYTES].copy_from_slice(&b);
        crc
    }

    /// Decodes a header and checks it and the table behind it; `None` unless both are intact.
    pub fn decode(seed: Seed, bytes: &[u8]) -> Option<(Self, u32)> {
        let body = bytes.get(..CRC_AT)?;
        let crc = Reader::new(bytes.get(CRC_AT..)?).u32()?;
        let mut r = Reader::new(body);
        if r.u32()? != MAGIC {
            return None;
        }
        let slots = r.u32()?;
        let this = Self { slots, id: r.u64()?, replica: r.u64()?, first: r.u64()?, bytes: r.u32()? };
        r.u32()?;
        let table_crc = r.u32()?;
        if seed.crc(this.id, body) != crc {
            return None;
        }
        let table = bytes.get(PIECE_HEADER_BYTES..)?.get(..(slots as usize).checked_mul(PIECE_SLOT_BYTES)?)?;
        (seed.crc(this.id, table) == table_crc).then_some((this, crc))
    }
}

/// One slot of the table: where the payload ends, and its checksum.
pub fn slot(table: &[u8], i: usize) -> Option<(u32, u32)> {
    let mut r = Reader::new(table.get(i.checked_mul(PIECE_SLOT_BYTES)?..)?);
    Some((r.u32()?, r.u32()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn descriptor_round_trips_and_refuses_what_does_not_add_up() {
        let desc = PieceDesc {
            id: 99,
            first: 1 << 40,
            count: 5,
            slots: 7,
            bare: false,
            bytes: 5000,
            crc: 1,
            terms: smallvec![(2, 3), (3, 4)],
            extents: smallvec![Extent { block: 10, blocks: 2 }],
        };
        let encode = |d: &PieceDesc| {
            let mut out = Vec::new();
            d.encode(&mut out);
            out
        };
        assert_eq!(PieceDesc::decode(&mut Reader::new(&encode(&desc)), 100), Some(desc.clone()));
        assert_eq!(desc.last(), (1 << 40) + 4);
        for bad in [
            PieceDesc { terms: smallvec![(2, 3)], ..desc.clone() },
            PieceDesc { slots: 4, ..desc.clone() },
            PieceDesc { bytes: 9000, ..desc.clone() },
            PieceDesc { bytes: 4096, ..desc.clone() },
            PieceDesc { extents: smallvec![Extent { block: 0, blocks: 100 }], ..desc.clone() },
            PieceDesc { bytes: 100, ..desc.clone() },
            PieceDesc { first: u64::MAX, ..desc.clone() },
            PieceDesc { extents: smallvec![], ..desc.clone() },
            PieceDesc { extents: smallvec![Extent { block: 99, blocks: 2 }], ..desc.clone() },
        ] {
            assert_eq!(PieceDesc::decode(&mut Reader::new(&encode(&bad)), 100), None, "{bad:?}");
        }
    }

    #[test]
    fn header_seals_header_and_table() {
        let seed = Seed::new(&[1; 16]);
        let header = PieceHeader { id: 5, replica: 6, first: 8, slots: 2, bytes: 100 };
        let mut piece = vec![0; 100];
        piece[64..80].copy_from_slice(&[1; 16]);
        let crc = header.seal(seed, &mut piece);
        assert_eq!(PieceHeader::decode(seed, &piece), Some((header, crc)));
        for bit in 0..80 * 8 {
            let mut bad = piece.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(PieceHeader::decode(seed, &bad), None, "bit {bit}");
        }
    }

    /// Each field at its bounds, and one beyond.
    #[test]
    fn every_bound_of_a_descriptor_holds_from_both_sides() {
        let sample = || PieceDesc {
            id: 1,
            first: 1,
            count: 1,
            slots: 1,
            bare: false,
            bytes: 4096,
            crc: 1,
            terms: smallvec![(1, 9)],
            extents: smallvec![Extent { block: 10, blocks: 1 }],
        };
        let decode = |d: &PieceDesc| {
            let mut out = Vec::new();
            d.encode(&mut out);
            PieceDesc::decode(&mut Reader::new(&out), 100)
        };
        let runs = |n: usize| (0..n).map(|i| (1, i as u64)).collect::<Vec<_>>();
        let many = |n: u32| (0..n).map(|block| Extent { block, blocks: 1 }).collect::<Vec<_>>();
        let n = MAX_TERM_RUNS as u32;
        let good = [
            ("all of its room", sample()),
            ("header and table only", PieceDesc { bytes: 72, ..sample() }),
            (
                "the last blocks of the pool",
                PieceDesc { extents: smallvec![Extent { block: 99, blocks: 1 }], ..sample() },
            ),
            ("the last index", PieceDesc { first: u64::MAX, ..sample() }),
            ("as many terms as may be", PieceDesc { terms: runs(n as usize).into(), count: n, slots: n, ..sample() }),
            ("bare, and all of its room", PieceDesc { bare: true, ..sample() }),
            ("bare, and of a byte", PieceDesc { bare: true, bytes: 1, ..sample() }),
            ("dead slots behind the living", PieceDesc { slots: 3, first: u64::MAX - 2, ..sample() }),
        ];
        for (what, desc) in good {
            assert_eq!(decode(&desc), Some(desc.clone()), "{what}");
        }
        let bad = [
            ("more than its room", PieceDesc { bytes: 4097, ..sample() }),
            ("bare, and of nothing", PieceDesc { bare: true, bytes: 0, ..sample() }),
            (
                "a block more than it fills",
                PieceDesc { extents: smallvec![Extent { block: 10, blocks: 2 }], ..sample() },
            ),
            (
                "more than the largest entry, over one place again and again",
                PieceDesc {
                    bytes: MAX_PIECE_BYTES + 1,
                    extents: smallvec![Extent { block: 1, blocks: 99 }; 170],
                    ..sample()
                },
            ),
            ("less than its table", PieceDesc { bytes: 71, ..sample() }),
            ("beyond the pool", PieceDesc { extents: smallvec![Extent { block: 100, blocks: 1 }], ..sample() }),
            ("an extent of nothing", PieceDesc { extents: smallvec![Extent { block: 5, blocks: 0 }; 2], ..sample() }),
            (
                "an extent beyond all numbers",
                PieceDesc { extents: smallvec![Extent { block: u32::MAX, blocks: 2 }], ..sample() },
            ),
            ("beyond the last index", PieceDesc { slots: 3, first: u64::MAX - 1, ..sample() }),
            (
                "more terms than may be",
                PieceDesc { terms: runs(n as usize + 1).into(), count: n + 1, slots: n + 1, ..sample() },
            ),
            ("bare, and more than its room", PieceDesc { bare: true, bytes: 4097, ..sample() }),
            ("bare, and of more than one", PieceDesc { bare: true, count: 2, terms: smallvec![(2, 9)], ..sample() }),
            ("a term of nothing", PieceDesc { terms: smallvec![(0, 3), (1, 4)], ..sample() }),
            ("no slots", PieceDesc { slots: 0, count: 0, terms: smallvec![], ..sample() }),
            (
                "more extents than may be",
                PieceDesc { extents: smallvec![Extent { block: 1, blocks: 1 }; MAX_EXTENTS + 1], ..sample() },
            ),
        ];
        for (what, desc) in bad {
            assert_eq!(decode(&desc), None, "{what}");
        }
        let scattered = PieceDesc { bytes: 50 * 4096 - 1, extents: many(50).into(), ..sample() };
        assert_eq!(decode(&scattered), Some(scattered.clone()));
    }

    #[test]
    fn places_and_slots() {
        let extent = Extent { block: 3, blocks: 2 };
        assert_eq!((extent.offset(), extent.bytes()), (POOL_OFFSET + 3 * 4096, 8192));
        assert_eq!([extent.chunks(1), extent.chunks(4), extent.chunks(2)], [3..=4, 0..=1, 1..=2]);
        let table: Vec<u8> = [10_u32, 11, 20, 21].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!([0, 1, 2].map(|i| slot(&table, i)), [Some((10, 11)), Some((20, 21)), None]);
        assert_eq!(slot(&table, usize::MAX), None);
    }
}
