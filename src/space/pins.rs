//! Pins: a reader's hold on a chunk, so that its bytes are not reused under a slice.
//!
//! A pin is taken while the reader holds the replica's cell and the piece is still linked there; a piece is unlinked under
//! the same cell before its chunks are queued for freeing. So once a chunk is queued, its count can only fall, and zero is final.

use crate::sync::{AtomicU32, Ordering};

/// One counter per chunk.
#[derive(Debug)]
pub(crate) struct Pins {
    counts: Box<[AtomicU32]>,
}

impl Pins {
    pub fn new(chunks: u32) -> Self {
        Self { counts: (0..chunks).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Holds the chunk. The caller holds the cell whose index names it.
    pub fn pin(&self, chunk: u32) {
        if let Some(count) = self.counts.get(chunk as usize) {
            // Relaxed suffices: the cell's lock orders this before the unlinking, and so before any `is_pinned`.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the chunk go.
    pub fn unpin(&self, chunk: u32) {
        if let Some(count) = self.counts.get(chunk as usize) {
            // Release: the reader's loads happen before the chunk is overwritten by a thread that sees zero.
            count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether anybody holds the chunk.
    pub fn is_pinned(&self, chunk: u32) -> bool {
        self.counts.get(chunk as usize).is_some_and(|c| c.load(Ordering::Acquire) > 0)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_pinned_until_the_last_reader_lets_go() {
        let pins = Pins::new(2);
        pins.pin(1);
        pins.pin(1);
        pins.unpin(1);
        assert!(pins.is_pinned(1) && !pins.is_pinned(0));
        pins.unpin(1);
        assert!(!pins.is_pinned(1));
        pins.pin(99);
        assert!(!pins.is_pinned(99), "a chunk that does not exist is nobody's");
    }
}
