//! What the bytes mean: pure encoding and decoding, no I/O.
//!
//! Every decoder takes bytes that may be hostile and returns a typed value or `None`/an error; none panics, allocates what a length field
//! asks for, or believes a field before its checksum.

pub mod crc;
pub mod frame;
pub mod piece;
pub mod record;
pub mod superblock;
pub mod varint;

use zerocopy::IntoBytes as _;

use crate::disk::BLOCK;

/// Version of the on-disk format that this library writes.
pub const FORMAT_VERSION: u32 = 1;

/// Size of the block that every structure is padded to. An acknowledged block is never refilled.
pub const BLOCK_BYTES: u64 = BLOCK as u64;

/// Where the slabs begin: two superblocks of 16 KiB and 32 KiB of scratch for the sync probe come first.
pub const POOL_OFFSET: u64 = 64 * 1024;

/// 2^64 divided by the golden ratio: multiplied by it, consecutive numbers land far apart in the upper bits (Knuth, TAOCP 3, 6.4). It is
/// part of the on-disk format, through [`Seed::mark`] and the records' sequence numbers: it must never change.
pub(crate) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const _: () = assert!(SPREAD % 2 == 1, "no two numbers have one product");

/// The file's identity, mixed into every checksum so that another file's bytes are never taken for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// Derives the seed from the file's uuid.
    pub fn new(uuid: &[u8; 16]) -> Self {
        Self(crc::of(uuid))
    }

    /// CRC-32C of `bytes`, bound to this file and to `position`.
    pub fn crc(self, position: u64, bytes: &[u8]) -> u32 {
        let mut salt = [0_u8; 12];
        salt[..4].copy_from_slice(&self.0.to_le_bytes());
        salt[4..].copy_from_slice(&position.to_le_bytes());
        crc::append(crc::of(&salt), bytes)
    }

    /// A value that is specific to this file and this position. Not a checksum: it costs next to nothing.
    pub fn mark(self, position: u64) -> u64 {
        let file = u64::from(self.0);
        (position ^ (file << 32 | file)).wrapping_mul(SPREAD)
    }

    /// The checksum of an entry at `place` (its LSN in the journal, its piece's id in a chain).
    ///
    /// `payload_crc` is the plain CRC-32C of the payload, computed by the caller before any lock is taken; the identity is appended to it,
    /// so that a torn write cannot pair this header with another body, nor a body with another place.
    pub fn entry_crc(self, payload_crc: u32, place: u64, id: EntryId) -> u32 {
        // The fields one after the other, the seed and the length in four bytes, the others in eight. Made as words: stored in pieces they
        // would be waited for when they are read as words, and where they are not aligned they are summed byte by byte. To append them to
        // a sum is to sum them alone, with that sum XORed into their first four bytes: a CRC is linear.
        let words = [
            u64::from(self.0 ^ payload_crc) | place << 32,
            place >> 32 | id.replica << 32,
            id.replica >> 32 | id.index << 32,
            id.index >> 32 | id.term << 32,
            id.term >> 32 | u64::from(id.len) << 32,
        ];
        crc::of(words.map(u64::to_le).as_bytes())
    }
}

/// What an entry's checksum is bound to, besides its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The replica that owns the entry.
    pub replica: u64,
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// The payload's length in bytes.
    pub len: u32,
}

/// Rounds up to whole blocks; saturates (a caller's bound check then refuses the result).
pub fn round_up_block(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX - (BLOCK_BYTES - 1))
}

/// Reads little-endian fields off the front of a slice; `None` once it is exhausted.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|b| b[0])
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// A LEB128 integer.
    pub fn varint(&mut self) -> Option<u64> {
        let (value, used) = varint::decode(self.0)?;
        self.0 = self.0.get(used..)?;
        Some(value)
    }
    /// Skips `n` LEB128 integers.
    pub fn varints(&mut self, n: u64) -> Option<()> {
        (0..n).try_for_each(|_| self.varint().map(drop))
    }
    /// A LEB128 integer that must fit 32 bits.
    pub fn varint32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_rounded_up() {
        let (block, rounded) = (BLOCK_BYTES, [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1].map(round_up_block));
        assert_eq!(rounded, [0, block, block, block, 2 * block]);
    }

    #[test]
    fn a_structures_checksum_binds_its_place_and_its_file() {
        let bytes = [7; 100];
        let (ours, theirs) = (Seed::new(&[1; 16]), Seed::new(&[2; 16]));
        assert_ne!(ours.crc(4096, &bytes), ours.crc(8192, &bytes));
        assert_ne!(ours.crc(4096, &bytes), theirs.crc(4096, &bytes));
    }

    #[test]
    fn entry_crc_binds_every_part_of_the_identity() {
        let seed = Seed::new(&[7; 16]);
        let id = EntryId { replica: 1, index: 2, term: 3, len: 4 };
        let base = seed.entry_crc(9, 100, id);
        assert_ne!(base, seed.entry_crc(9, 101, id));
        assert_ne!(base, seed.entry_crc(8, 100, id));
        assert_ne!(base, seed.entry_crc(9, 100, EntryId { replica: 2, ..id }));
        assert_ne!(base, seed.entry_crc(9, 100, EntryId { index: 3, ..id }));
        assert_ne!(base, seed.entry_crc(9, 100, EntryId { term: 4, ..id }));
        assert_ne!(base, seed.entry_crc(9, 100, EntryId { len: 5, ..id }));
        assert_ne!(base, Seed::new(&[8; 16]).entry_crc(9, 100, id));
    }

    /// The sum is part of the format: of the payload's bytes, followed by those of the fields.
    #[test]
    fn entry_crc_is_the_sum_of_the_fields_bytes() {
        let (uuid, payload) = ([9; 16], b"payload");
        let id = EntryId { replica: 0x0102_0304_0506_0708, index: 0x1112_1314_1516_1718, term: u64::MAX - 5, len: 7 };
        let place = 0x2122_2324_2526_2728_u64;
        let mut bytes = payload.to_vec();
        bytes.extend(crc32c::crc32c(&uuid).to_le_bytes());
        bytes.extend([place, id.replica, id.index, id.term].iter().flat_map(|field| field.to_le_bytes()));
        bytes.extend(id.len.to_le_bytes());
        let sum = Seed::new(&uuid).entry_crc(crc::of(payload), place, id);
        assert_eq!(sum, crc32c::crc32c(&bytes));
    }

    #[test]
    fn reader_never_runs_past_the_end() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.u16(), Some(0x0201));
        assert_eq!(r.u32(), None);
        assert_eq!(r.u8(), Some(3));
        assert_eq!(r.u8(), None);
    }
}
