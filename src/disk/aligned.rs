//! A byte buffer that direct I/O accepts: it starts on a block boundary, whatever it grows to.

use super::BLOCK;
use super::map::Piece;
use super::spare::{self, Use};
use std::{fmt, ops};

/// A growable byte buffer whose first byte is always aligned to [`BLOCK`].
///
/// Its memory is initialised once and reused, also by other buffers: it is kept when a buffer is dropped. Bytes of an earlier use never
/// show unless they are asked for: growing in length fills with zeros.
#[derive(Default)]
pub struct AlignedBuf {
    memory: Option<Piece>,
    usage: Use,
    /// How many bytes are in use.
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer; it allocates when it first grows.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that holds `capacity` bytes before it allocates again.
    pub fn with_capacity(capacity: usize) -> Self {
        if capacity == 0 {
            return Self::default();
        }
        Self::of(capacity, Use::Whole)
    }

    /// A buffer of `len` bytes that is read into here and there: its content is unspecified until then, and what is never read into takes
    /// no memory.
    pub(crate) fn sparse(len: usize) -> Self {
        let mut this = Self::of(len, Use::Sparse);
        this.set_len_to_fill(len);
        this
    }

    /// Gives the memory of dropped buffers back to the system: an opening needs more than what follows it.
    pub(crate) fn release_spare() {
        spare::release();
    }

    fn of(capacity: usize, usage: Use) -> Self {
        Self { memory: spare::take(capacity, usage), usage, len: 0 }
    }

    /// Sets the length; the content is unspecified until it is read into.
    #[inline]
    pub(crate) fn set_len_to_fill(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len));
        self.len = len;
    }

    /// The bytes in use.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.memory.as_deref().map_or(&[], |memory| &memory[..self.len])
    }

    /// The bytes in use, to change.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().map_or(&mut [], |memory| &mut memory[..self.len])
    }

    /// How many bytes are in use.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes are in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes fit before the buffer allocates again.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.memory.as_deref().map_or(0, <[u8]>::len)
    }

    /// Forgets the bytes and keeps the allocation.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `more` bytes beyond those in use; a buffer that must grow at least doubles.
    #[inline]
    pub fn reserve(&mut self, more: usize) {
        let needed = self.len.saturating_add(more);
        if needed > self.capacity() {
            self.grow(needed);
        }
    }

    fn grow(&mut self, needed: usize) {
        let mut grown = Self::with_capacity(needed.max(self.capacity().saturating_mul(2)));
        grown.len = self.len;
        grown.as_mut_slice().copy_from_slice(self.as_slice());
        *self = grown;
    }

    /// Sets the length to `len`; what is new is zero.
    pub fn resize(&mut self, len: usize) {
        let before = self.len;
        self.set_len_to_fill(len);
        if len > before {
            self.as_mut_slice()[before..].fill(0);
        }
    }

    /// Pads with zeros to a whole number of blocks.
    pub fn pad_to_block(&mut self) {
        self.resize(self.len.next_multiple_of(BLOCK));
    }

    /// Appends `bytes`.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let before = self.len;
        self.set_len_to_fill(before + bytes.len());
        self.as_mut_slice()[before..].copy_from_slice(bytes);
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            spare::give_back(memory, self.usage);
        }
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        let mut copy = Self::with_capacity(self.len);
        copy.extend_from_slice(self.as_slice());
        copy
    }
}

impl ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<&[u8]> for AlignedBuf {
    fn from(bytes: &[u8]) -> Self {
        let mut buf = Self::with_capacity(bytes.len());
        buf.extend_from_slice(bytes);
        buf
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(buf: &AlignedBuf) -> bool {
        buf.as_slice().as_ptr().addr().is_multiple_of(BLOCK)
    }

    #[test]
    fn every_size_starts_on_a_block_boundary() {
        for capacity in [1, 511, 4095, 4096, 4097, 100_000, 5 << 20] {
            let mut buf = AlignedBuf::with_capacity(capacity);
            assert!(buf.capacity() >= capacity);
            buf.resize(1);
            assert!(aligned(&buf), "capacity {capacity}");
        }
    }

    #[test]
    fn growing_keeps_bytes_and_alignment() {
        let mut buf = AlignedBuf::new();
        let mut expected = Vec::new();
        for i in 0..300u32 {
            let bytes = vec![i as u8; (i * 7) as usize];
            buf.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            assert!(buf.is_empty() || aligned(&buf));
        }
        assert_eq!(buf.as_slice(), expected);
    }

    #[test]
    fn bytes_of_an_earlier_use_do_not_come_back() {
        let mut buf = AlignedBuf::from(&[0xaa; 5000][..]);
        buf.clear();
        buf.extend_from_slice(b"x");
        buf.pad_to_block();
        assert_eq!(buf.len(), BLOCK);
        assert_eq!(buf[0], b'x');
        assert!(buf[1..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn clearing_keeps_the_allocation_and_padding_a_full_block_adds_none() {
        let mut buf = AlignedBuf::with_capacity(3 * BLOCK);
        let capacity = buf.capacity();
        for _ in 0..10 {
            buf.resize(3 * BLOCK);
            buf.pad_to_block();
            assert_eq!((buf.len(), buf.capacity()), (3 * BLOCK, capacity));
            buf.clear();
        }
    }

    #[test]
    fn a_clone_is_aligned_by_itself() {
        let buf = AlignedBuf::from(&b"strand"[..]);
        let copies: Vec<_> = (0..20).map(|_| buf.clone()).collect();
        assert!(copies.iter().all(|copy| aligned(copy) && copy.as_slice() == b"strand"));
    }
}
