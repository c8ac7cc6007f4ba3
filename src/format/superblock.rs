//! The superblock: geometry, identity, and the slabs that the journal owns.
//!
//! ```text
//! 0        8     12    16        24        40      48        56      60      64      68      72      76      80
//! | magic  | ver | 0   | features| uuid    | epoch | durable | chunk | seg   | slabs | floor | cap   | n     | slab u32 x n ... | 0
//!
//! 16080         16088   16096 16100  16104                              16380
//! | last frame  | bytes | crc | n    | n x { block u32, blocks u32 } | 0 | crc u32 |      the snapshot, if there is one: n is not 0
//! ```
//! There are two copies; the valid one with the higher epoch counts. They are rewritten only when the set of slabs changes, at close, at an
//! opening after a close, at one that finds a torn end that alone said how far the log was durable, and when the file grows: A, sync, B,
//! sync. An opening or a scrub that finds a bad copy also rewrites that one.

use super::crc;
use super::frame::MAX_LSN;
use super::piece::Extent;
use super::{BLOCK_BYTES, FORMAT_VERSION, POOL_OFFSET, Reader, Seed};

/// Size of one copy.
pub const SUPERBLOCK_BYTES: usize = 16 * 1024;
/// Where the two copies lie.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, SUPERBLOCK_BYTES as u64];
/// The most slabs that a journal may own: as many as fit the superblock beside its other fields.
pub const MAX_JOURNAL_SLABS: usize = 4000;
/// The smallest segment, and so the smallest slab.
pub const MIN_SEGMENT_BYTES: u32 = 64 << 10;

/// No file is rewritten this often: a higher epoch is not believed, so that counting up cannot overflow.
const MAX_EPOCH: u64 = 3 << 60;
/// From this epoch on the log is no longer opened: it could not be rewritten often enough.
pub const LAST_EPOCH: u64 = MAX_EPOCH - (1 << 56);
/// The first bytes of a copy.
pub const MAGIC: [u8; 8] = *b"strandl\x01";
const FIXED_BYTES: usize = 80;
const CRC_AT: usize = SUPERBLOCK_BYTES - 4;
/// The most runs of chunks that a snapshot is scattered over.
pub const MAX_SNAPSHOT_EXTENTS: usize = 16;
/// Where the snapshot is described: behind the longest list of slabs.
const SNAPSHOT_AT: usize = FIXED_BYTES + 4 * MAX_JOURNAL_SLABS;
const _: () = assert!(SNAPSHOT_AT + 24 + 8 * MAX_SNAPSHOT_EXTENTS <= CRC_AT);
const _: () = assert!(SUPERBLOCK_BYTES as u64 * 2 <= POOL_OFFSET);

/// Feature bits this library understands. None is defined yet: compression and encryption will be the first.
pub const KNOWN_FEATURES: u64 = 0;

/// The decoded superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of this file; part of every checksum.
    pub uuid: [u8; 16],
    /// Grows by one with each rewrite.
    pub epoch: u64,
    /// Everything below this LSN was durable when this was written: what is missing there is lost, not a torn tail.
    pub durable: u64,
    /// Bytes in a chunk.
    pub chunk_bytes: u32,
    /// Bytes in a slab (and so in a journal segment).
    pub segment_bytes: u32,
    /// Slabs in the file.
    pub slab_count: u32,
    /// The journal never owns fewer slabs.
    pub journal_floor: u32,
    /// The journal never owns more slabs.
    pub journal_cap: u32,
    /// The slabs that the journal owns.
    pub journal_slabs: Vec<u32>,
    /// The index as the last close left it; named only until the next opening.
    pub snapshot: Option<Snapshot>,
}

/// Where a snapshot of the index lies, and which frame it reflects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// LSN of the last frame whose records are in it.
    pub lsn: u64,
    /// Its length.
    pub bytes: u64,
    /// [`Snapshot::checksum`] of its bytes.
    pub crc: u32,
    /// The chunks that hold it, ascending.
    pub extents: Vec<Extent>,
}

impl Snapshot {
    /// The checksum of a snapshot named by a superblock of this epoch: under any other epoch it does not match.
    pub fn checksum(seed: Seed, epoch: u64, bytes: &[u8]) -> u32 {
        seed.crc(epoch, bytes)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&(self.extents.len() as u32).to_le_bytes());
        for extent in &self.extents {
            out.extend_from_slice(&extent.block.to_le_bytes());
            out.extend_from_slice(&extent.blocks.to_le_bytes());
        }
    }

    /// Decodes a description; `None` if there is none or it makes no sense: a log opens without a snapshot, too.
    fn decode(r: &mut Reader<'_>, pool_blocks: u64) -> Option<Self> {
        let (lsn, bytes, crc, n) = (r.u64()?, r.u64()?, r.u32()?, r.u32()?);
        if n == 0 || n as usize > MAX_SNAPSHOT_EXTENTS {
            return None;
        }
        let mut extents = Vec::with_capacity(n as usize);
        let (mut end, mut room) = (0, 0);
        for _ in 0..n {
            let extent = Extent { block: r.u32()?, blocks: r.u32()? };
            if extent.blocks == 0 || u64::from(extent.block) < end {
                return None;
            }
            end = u64::from(extent.block) + u64::from(extent.blocks);
            room += u64::from(extent.blocks) * BLOCK_BYTES;
            extents.push(extent);
        }
        (end <= pool_blocks && bytes > 0 && bytes <= room && lsn <= MAX_LSN).then_some(Self {
            lsn,
            bytes,
            crc,
            extents,
        })
    }
}

/// Why a superblock copy was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// All zero: this disk was never formatted.
    Blank,
    /// It does not begin as a superblock does.
    Foreign,
    /// Its checksum or one of its fields is wrong.
    Invalid(&'static str),
    /// The file is shorter than this copy says.
    Cut {
        /// Where the last slab ends.
        log_bytes: u64,
    },
    /// A newer format.
    Version(u32),
    /// Feature bits that this library does not know.
    Features(u64),
}

/// The smallest unit that an interrupted write leaves whole.
const SECTOR_BYTES: usize = 512;

impl Superblock {
    /// Encodes one copy.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&KNOWN_FEATURES.to_le_bytes());
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
        for field in [
            self.chunk_bytes,
            self.segment_bytes,
            self.slab_count,
            self.journal_floor,
            self.journal_cap,
            self.journal_slabs.len() as u32,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        debug_assert_eq!(out.len(), FIXED_BYTES);
        for slab in &self.journal_slabs {
            out.extend_from_slice(&slab.to_le_bytes());
        }
        if let Some(snapshot) = &self.snapshot {
            out.resize(SNAPSHOT_AT, 0);
            snapshot.encode(&mut out);
        }
        out.resize(CRC_AT, 0);
        let crc = crc::of(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Whether this is what a power cut leaves of the very first write of a copy, over zeros: a sector that the write fills is still all
    /// zeros. Every later write finds something in all of these sectors and leaves something there, whatever part of it is lost; except in
    /// sectors that it adds to the list of slabs.
    pub fn is_begun(bytes: &[u8]) -> bool {
        let nothing = |part: &[u8]| part.iter().all(|&b| b == 0);
        let listed = bytes.get(FIXED_BYTES - 4..).and_then(|count| Reader::new(count).u32()).unwrap_or(0) as usize;
        let filled = FIXED_BYTES + 4 * listed.min(MAX_JOURNAL_SLABS);
        let end = bytes.len().checked_sub(SECTOR_BYTES).and_then(|at| bytes.get(at..));
        bytes.get(..filled).is_some_and(|part| part.chunks(SECTOR_BYTES).any(nothing)) || end.is_some_and(nothing)
    }

    /// Decodes one copy and checks every field against the others and against the length of the file.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, SuperblockError> {
        use SuperblockError::{Blank, Foreign, Invalid};
        if bytes.len() != SUPERBLOCK_BYTES {
            return Err(Invalid("cut short"));
        }
        if bytes.iter().all(|&b| b == 0) {
            return Err(Blank);
        }
        let (body, crc) = bytes.split_at(CRC_AT);
        if body.get(..8) != Some(&MAGIC[..]) {
            return Err(Foreign);
        }
        if Some(crc::of(body)) != Reader::new(crc).u32() {
            return Err(Invalid("checksum"));
        }
        let this = Self::fields(body)?;
        this.check(file_bytes)?;
        Ok(this)
    }

    fn fields(body: &[u8]) -> Result<Self, SuperblockError> {
        use SuperblockError::{Features, Invalid, Version};
        let short = Invalid("cut short");
        let mut r = Reader::new(body);
        r.take(8).ok_or(short.clone())?;
        let version = r.u32().ok_or(short.clone())?;
        if version != FORMAT_VERSION {
            return Err(Version(version));
        }
        r.u32().ok_or(short.clone())?;
        let features = r.u64().ok_or(short.clone())?;
        if features & !KNOWN_FEATURES != 0 {
            return Err(Features(features & !KNOWN_FEATURES));
        }
        let uuid = r.take(16).and_then(|b| b.try_into().ok()).ok_or(short.clone())?;
        let (epoch, durable) = (r.u64().ok_or(short.clone())?, r.u64().ok_or(short.clone())?);
        let mut field = || r.u32().ok_or(short.clone());
        let (chunk_bytes, segment_bytes, slab_count) = (field()?, field()?, field()?);
        let (journal_floor, journal_cap, n) = (field()?, field()?, field()?);
        if n as usize > MAX_JOURNAL_SLABS {
            return Err(Invalid("more journal slabs than fit"));
        }
        let journal_slabs = (0..n).map(|_| field()).collect::<Result<_, _>>()?;
        let pool_blocks = u64::from(slab_count) * u64::from(segment_bytes) / BLOCK_BYTES;
        let snapshot = body.get(SNAPSHOT_AT..).and_then(|b| Snapshot::decode(&mut Reader::new(b), pool_blocks));
        Ok(Self {
            uuid,
            epoch,
            durable,
            chunk_bytes,
            segment_bytes,
            slab_count,
            journal_floor,
            journal_cap,
            journal_slabs,
            snapshot,
        })
    }

    fn check(&self, file_bytes: u64) -> Result<(), SuperblockError> {
        use SuperblockError::Invalid;
        if self.epoch > MAX_EPOCH {
            return Err(Invalid("epoch"));
        }
        if self.durable > MAX_LSN {
            return Err(Invalid("durable LSN"));
        }
        if !self.chunk_bytes.is_power_of_two() || !(4096..=4 << 20).contains(&self.chunk_bytes) {
            return Err(Invalid("chunk size"));
        }
        if !self.segment_bytes.is_power_of_two()
            || self.segment_bytes > 64 << 20
            || self.segment_bytes < self.chunk_bytes
            || self.segment_bytes < MIN_SEGMENT_BYTES
        {
            return Err(Invalid("segment size"));
        }
        let end = u64::from(self.slab_count) * u64::from(self.segment_bytes) + POOL_OFFSET;
        if end > file_bytes {
            return Err(SuperblockError::Cut { log_bytes: end });
        }
        // Blocks, and so chunks, are counted in 32 bits.
        if u64::from(self.slab_count) * u64::from(self.segment_bytes) / BLOCK_BYTES > u64::from(u32::MAX) {
            return Err(Invalid("more blocks than can be counted"));
        }
        let n = self.journal_slabs.len() as u32;
        if self.journal_floor < 4
            || n < self.journal_floor
            || n > self.journal_cap
            || self.journal_cap > self.slab_count
        {
            return Err(Invalid("journal size"));
        }
        let mut seen = roaring::RoaringBitmap::new();
        if self.journal_slabs.iter().any(|&s| s >= self.slab_count || !seen.insert(s)) {
            return Err(Invalid("journal slab list"));
        }
        Ok(())
    }

    /// The seed of every checksum in this file.
    pub fn seed(&self) -> Seed {
        Seed::new(&self.uuid)
    }

    /// Chunks in a slab.
    pub fn chunks_per_slab(&self) -> u32 {
        self.segment_bytes / self.chunk_bytes
    }

    /// Chunks in the file, the journal's among them.
    pub fn chunk_count(&self) -> u32 {
        self.slab_count.saturating_mul(self.chunks_per_slab())
    }

    /// File offset of a slab.
    pub fn slab_offset(&self, slab: u32) -> u64 {
        POOL_OFFSET + u64::from(slab) * u64::from(self.segment_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            durable: 77,
            uuid: [3; 16],
            epoch: 9,
            chunk_bytes: 65536,
            segment_bytes: 1 << 20,
            slab_count: 100,
            journal_floor: 4,
            journal_cap: 20,
            journal_slabs: vec![0, 1, 2, 7, 99],
            snapshot: Some(snapshot()),
        }
    }

    fn snapshot() -> Snapshot {
        let extents = vec![Extent { block: 3 * 256, blocks: 16 }, Extent { block: 5 * 256, blocks: 32 }];
        Snapshot { lsn: 70 << 20, bytes: 100_000, crc: 0x1234_5678, extents }
    }
    const LEN: u64 = (100 << 20) + POOL_OFFSET;

    #[test]
    fn round_trips() {
        assert_eq!(Superblock::decode(&sample().encode(), LEN), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in (0..600 * 8).chain(SNAPSHOT_AT * 8..SUPERBLOCK_BYTES * 8) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad, LEN).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_short_file_and_bad_geometry_are_refused_by_name() {
        assert_eq!(Superblock::decode(&sample().encode(), LEN - 1), Err(SuperblockError::Cut { log_bytes: LEN }));
        let twice = Superblock { journal_slabs: vec![1, 2, 3, 3], ..sample() };
        assert_eq!(Superblock::decode(&twice.encode(), LEN), Err(SuperblockError::Invalid("journal slab list")));
        assert_eq!(Superblock::decode(&vec![0; SUPERBLOCK_BYTES], LEN), Err(SuperblockError::Blank));
    }

    #[test]
    fn an_unknown_feature_is_refused_with_its_bit() {
        let mut bytes = sample().encode();
        bytes[16] = 4;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes, LEN), Err(SuperblockError::Features(4)));
    }

    #[test]
    fn an_epoch_that_no_file_reaches_is_not_counted_on_from() {
        let mad = Superblock { epoch: u64::MAX, ..sample() };
        assert_eq!(Superblock::decode(&mad.encode(), LEN), Err(SuperblockError::Invalid("epoch")));
    }

    /// Each field at its bounds, and one beyond.
    #[test]
    fn every_bound_holds_from_both_sides() {
        let slab = 1_u64 << 20;
        let good = [
            ("the last epoch", Superblock { epoch: MAX_EPOCH, ..sample() }),
            ("the last LSN", Superblock { durable: MAX_LSN, ..sample() }),
            ("the smallest chunk", Superblock { chunk_bytes: 4096, ..sample() }),
            ("a chunk that is a segment", Superblock { chunk_bytes: 1 << 20, ..sample() }),
            ("the smallest journal", Superblock { journal_slabs: vec![0, 1, 2, 3], ..sample() }),
            ("all that it may have", Superblock { journal_cap: 5, ..sample() }),
            ("all that there is", Superblock { journal_cap: 100, ..sample() }),
            ("as many as its floor", Superblock { journal_floor: 5, ..sample() }),
            ("the smallest segment", Superblock { segment_bytes: 64 << 10, chunk_bytes: 64 << 10, ..sample() }),
        ];
        for (what, sb) in good {
            assert_eq!(Superblock::decode(&sb.encode(), LEN), Ok(sb.clone()), "{what}");
        }
        let large = Superblock {
            segment_bytes: 64 << 20,
            chunk_bytes: 4 << 20,
            slab_count: 6,
            journal_cap: 6,
            snapshot: None,
            ..sample()
        };
        let large = Superblock { journal_slabs: vec![0, 1, 2, 5], ..large };
        assert_eq!(Superblock::decode(&large.encode(), 6 * 64 * slab + POOL_OFFSET), Ok(large.clone()), "the largest");
        let bad = [
            ("epoch", Superblock { epoch: MAX_EPOCH + 1, ..sample() }),
            ("durable LSN", Superblock { durable: MAX_LSN + 1, ..sample() }),
            ("chunk size", Superblock { chunk_bytes: 2048, ..sample() }),
            ("chunk size", Superblock { chunk_bytes: 8 << 20, segment_bytes: 64 << 20, slab_count: 1, ..sample() }),
            ("chunk size", Superblock { chunk_bytes: 65_537, ..sample() }),
            ("segment size", Superblock { segment_bytes: 32 << 10, chunk_bytes: 4096, ..sample() }),
            ("segment size", Superblock { segment_bytes: 128 << 20, slab_count: 0, ..sample() }),
            ("segment size", Superblock { segment_bytes: 3 << 19, slab_count: 60, ..sample() }),
            ("segment size", Superblock { chunk_bytes: 2 << 20, ..sample() }),
            ("journal size", Superblock { journal_floor: 3, ..sample() }),
            ("journal size", Superblock { journal_floor: 6, ..sample() }),
            ("journal size", Superblock { journal_cap: 4, ..sample() }),
            ("journal size", Superblock { journal_cap: 101, ..sample() }),
            ("journal slab list", Superblock { journal_slabs: vec![0, 1, 2, 7, 100], ..sample() }),
        ];
        for (what, sb) in bad {
            assert_eq!(Superblock::decode(&sb.encode(), LEN), Err(SuperblockError::Invalid(what)), "{sb:?}");
        }
        let most = Superblock { slab_count: u32::MAX / 256, snapshot: None, ..sample() };
        assert_eq!(Superblock::decode(&most.encode(), u64::MAX), Ok(most.clone()), "the most blocks");
        let beyond = Superblock { slab_count: most.slab_count + 1, ..most };
        let uncounted = SuperblockError::Invalid("more blocks than can be counted");
        assert_eq!(Superblock::decode(&beyond.encode(), u64::MAX), Err(uncounted));
        let places = (sample().chunks_per_slab(), sample().chunk_count(), sample().slab_offset(3));
        assert_eq!(places, (16, 1600, POOL_OFFSET + 3 * slab));
    }

    /// Each bound of a snapshot's description, from both sides. A description that makes no sense counts as none, and costs only time.
    #[test]
    fn a_snapshot_that_cannot_be_is_none() {
        let most = 100 * 256;
        let lie = |change: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = snapshot();
            change(&mut snapshot);
            let sb = Superblock { snapshot: Some(snapshot.clone()), ..sample() };
            let read = Superblock::decode(&sb.encode(), LEN).expect("a superblock");
            assert_eq!(Superblock { snapshot: None, ..read.clone() }, Superblock { snapshot: None, ..sample() });
            assert!(read.snapshot.is_none() || read.snapshot == Some(snapshot));
            read.snapshot.is_some()
        };
        let one = |block, blocks| vec![Extent { block, blocks }];
        let many = |n: u32| (0..n).map(|i| Extent { block: 20 * i, blocks: 16 }).collect::<Vec<_>>();
        assert!(lie(&|_| ()));
        assert!(lie(&|s| s.lsn = MAX_LSN) && !lie(&|s| s.lsn = MAX_LSN + 1));
        assert!(lie(&|s| s.bytes = 48 * 4096) && !lie(&|s| s.bytes = 48 * 4096 + 1), "more than its chunks hold");
        assert!(lie(&|s| s.bytes = 1) && !lie(&|s| s.bytes = 0));
        assert!(
            lie(&|s| s.extents = one(most - 40, 40)) && !lie(&|s| s.extents = one(most - 39, 40)),
            "beyond the pool"
        );
        assert!(!lie(&|s| s.extents = one(u32::MAX, u32::MAX)));
        assert!(lie(&|s| s.extents = many(16)) && !lie(&|s| s.extents = Vec::new()));
        assert!(!lie(&|s| s.extents[1].blocks = 0), "an extent of nothing");
        assert!(lie(&|s| s.extents[1].block = s.extents[0].block + 16), "neighbours");
        assert!(!lie(&|s| s.extents[1].block = s.extents[0].block + 15), "one block twice");
        let mut bytes = sample().encode();
        bytes[SNAPSHOT_AT + 20] = 17;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes, LEN).expect("a superblock").snapshot, None, "more extents than fit");
    }

    #[test]
    fn a_snapshots_checksum_is_good_for_one_file_and_one_epoch() {
        let (ours, theirs) = (Seed::new(&[1; 16]), Seed::new(&[2; 16]));
        let crc = Snapshot::checksum(ours, 5, b"index");
        assert_ne!(crc, Snapshot::checksum(ours, 6, b"index"));
        assert_ne!(crc, Snapshot::checksum(theirs, 5, b"index"));
        assert_ne!(crc, Snapshot::checksum(ours, 5, b"Index"));
    }
}
