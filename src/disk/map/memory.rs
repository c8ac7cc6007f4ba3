//! Memory for buffers, in pieces of one mapping.
//!
//! Mapped and not allocated, because only memory that begins at a 2 MiB boundary lies in huge pages. A device is then given one range
//! instead of hundreds of pages, each to be found, pinned and listed: a durable write of a megabyte takes a quarter less time.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::{fmt, ops, slice};

use memmap2::{Advice, MmapMut};

use crate::disk::BLOCK;

/// The size of a huge page: what a page table of the lowest level spans with pages of 4 KiB.
pub const HUGE: usize = 2 << 20;

/// Bytes that nobody else has, initially zeros. They begin on a block boundary.
pub struct Piece {
    at: NonNull<u8>,
    len: usize,
    /// Keeps the mapping alive, of which this is a part.
    _mapping: Arc<MmapMut>,
}

// SAFETY: a piece owns its bytes as a `Box<[u8]>` does: no two pieces share any, and the mapping is held only to keep it alive.
unsafe impl Send for Piece {}
// SAFETY: as above; `&Piece` gives only `&[u8]`.
unsafe impl Sync for Piece {}

/// Maps memory for `count` adjacent pieces of `each` bytes, a multiple of [`BLOCK`] and not 0; if `huge`, in huge pages, where it fills
/// some and the system has any. A huge page takes all of its memory at its first byte.
///
/// Ends the process where there is no memory, as every allocation does.
pub fn pieces(count: usize, each: usize, huge: bool) -> impl Iterator<Item = Piece> {
    assert!(each > 0 && each.is_multiple_of(BLOCK), "{each} is not a whole number of blocks");
    let bytes = count.saturating_mul(each);
    // Not every system begins a mapping at such a boundary. What lies before it is never touched, and so takes no memory.
    let spare = if huge && bytes >= HUGE { HUGE } else { 0 };
    let Ok(mut mapping) = MmapMut::map_anon(bytes.saturating_add(spare)) else {
        handle_alloc_error(Layout::from_size_align(bytes, BLOCK).unwrap_or(Layout::new::<u8>()))
    };
    let start = if spare > 0 { mapping.as_ptr().addr().wrapping_neg() % HUGE } else { 0 };
    if spare > 0 {
        // A system without huge pages refuses: then the pages are small.
        let _ = mapping.advise_range(Advice::HugePage, start, bytes);
    }
    let first = mapping.as_mut_ptr();
    let mapping = Arc::new(mapping);
    (0..count).map(move |i| {
        // SAFETY: the mapping has `bytes + spare` bytes, `start` is less than `spare` or both are 0, and the last piece ends at
        // `start + bytes`.
        let at = unsafe { first.add(start + i * each) };
        // SAFETY: no mapping lies at address 0, and `at` lies in one.
        let at = unsafe { NonNull::new_unchecked(at) };
        Piece { at, len: each, _mapping: Arc::clone(&mapping) }
    })
}

impl ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping, which lives as long as the piece and is initialised (with zeros) by the system; only this
        // piece gives access to it, and changes it through `&mut self` alone.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl ops::DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` excludes every other reference.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        for (count, each) in
            [(1, BLOCK), (5, 3 * BLOCK), (1, HUGE), (8, HUGE / 4), (3, HUGE - BLOCK), (2, HUGE + BLOCK)]
        {
            for huge in [false, true] {
                let mut all: Vec<Piece> = pieces(count, each, huge).collect();
                assert_eq!(all.len(), count);
                for (i, piece) in all.iter_mut().enumerate() {
                    assert!(piece.len() == each && piece.as_ptr().addr().is_multiple_of(BLOCK));
                    assert!(piece.iter().all(|&b| b == 0), "piece {i} of {count}");
                    piece.fill(i as u8 + 1);
                }
                assert!(all.iter().enumerate().all(|(i, piece)| piece.iter().all(|&b| b == i as u8 + 1)));
                assert!(!huge || count * each < HUGE || all[0].as_ptr().addr().is_multiple_of(HUGE));
            }
        }
    }

    #[test]
    fn a_piece_keeps_what_it_lies_in_and_goes_to_another_thread() {
        let mut last = pieces(4, BLOCK, false).last().expect("four");
        last.fill(9);
        let sum = std::thread::spawn(move || last.iter().map(|&b| u64::from(b)).sum::<u64>()).join().expect("summed");
        assert_eq!(sum, 9 * BLOCK as u64);
    }

    #[test]
    #[should_panic(expected = "not a whole number of blocks")]
    fn a_piece_of_half_a_block_is_a_mistake() {
        drop(pieces(1, BLOCK / 2, true));
    }
}
