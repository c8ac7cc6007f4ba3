//! Recent frames: written ones are kept in memory for readers until the budget is spent, then their buffers are used again.

use std::collections::VecDeque;

use crate::disk::{AlignedBuf, BLOCK};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, RwLock};

/// A sealed frame in memory.
#[derive(Debug)]
pub(crate) struct FrameMem {
    pub lsn: u64,
    pub buf: AlignedBuf,
}

impl FrameMem {
    pub fn end(&self) -> u64 {
        self.lsn + self.buf.len() as u64
    }

    /// The bytes at `lsn`, if the frame holds all of them.
    pub fn slice(&self, lsn: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(lsn.checked_sub(self.lsn)?).ok()?;
        self.buf.as_slice().get(start..start.checked_add(len)?)
    }
}

/// Frames in LSN order, newest last, and buffers to use again.
#[derive(Debug)]
pub(crate) struct Recent {
    frames: RwLock<VecDeque<Arc<FrameMem>>>,
    bytes: AtomicU64,
    budget: u64,
    spare: Mutex<Spare>,
}

/// Empty buffers by size: the class of a buffer is the power of two of blocks that it holds.
#[derive(Debug, Default)]
struct Spare([Vec<AlignedBuf>; CLASSES]);

/// Up to more than the largest segment.
const CLASSES: usize = 24;
/// A frame may be given a buffer this many classes larger than asked for: it is cheaper than a new one.
const LARGER: usize = 3;
/// Bytes of spare buffers kept of each class. More than a few are never open at once.
const SPARE_BYTES: usize = 1 << 20;

/// The class whose buffers all hold so many bytes.
fn class_for(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK).next_power_of_two().trailing_zeros() as usize
}

impl Spare {
    /// A buffer for so many bytes at least.
    fn take(&mut self, bytes: usize) -> AlignedBuf {
        let class = class_for(bytes.max(1));
        let fitting = self.0.iter_mut().skip(class).take(LARGER + 1).find_map(Vec::pop);
        fitting.unwrap_or_else(|| AlignedBuf::with_capacity(BLOCK << class))
    }

    fn give_back(&mut self, mut buf: AlignedBuf) {
        // Rounded down: what it is taken for, it holds.
        let Some(class) = (buf.capacity() / BLOCK).checked_ilog2() else { return };
        buf.clear();
        if let Some(spare) = self.0.get_mut(class as usize)
            && spare.len() <= SPARE_BYTES / (BLOCK << class)
        {
            spare.push(buf);
        }
    }
}

impl Recent {
    pub fn new(budget: u64) -> Self {
        let spare = Mutex::new(Spare::default());
        Self { frames: RwLock::new(VecDeque::new()), bytes: AtomicU64::new(0), budget, spare }
    }

    /// A buffer for a frame of about `hint` bytes: one of a frame that was evicted, if its size is near.
    pub fn buffer(&self, hint: usize) -> AlignedBuf {
        self.spare.lock().take(hint)
    }

    pub fn push(&self, frame: Arc<FrameMem>) {
        self.bytes.fetch_add(frame.buf.capacity() as u64, Ordering::Relaxed);
        self.frames.write().push_back(frame);
    }

    /// Bytes of memory held, padding included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Drops the oldest frames while the budget is exceeded; what is not durable stays, for it is nowhere else.
    pub fn evict(&self, durable: u64) {
        while self.bytes() > self.budget {
            let frame = {
                let mut frames = self.frames.write();
                if frames.front().is_none_or(|f| f.end() > durable) {
                    return;
                }
                frames.pop_front()
            };
            let Some(frame) = frame else { return };
            self.bytes.fetch_sub(frame.buf.capacity() as u64, Ordering::Relaxed);
            if let Ok(frame) = Arc::try_unwrap(frame) {
                self.spare.lock().give_back(frame.buf);
            }
        }
    }

    /// Where the oldest of them begins: from there on every frame that was sealed is here.
    pub fn since(&self) -> u64 {
        self.frames.read().front().map_or(u64::MAX, |f| f.lsn)
    }

    /// The frame that holds `lsn`.
    pub fn find(&self, lsn: u64) -> Option<Arc<FrameMem>> {
        let frames = self.frames.read();
        let i = frames.partition_point(|f| f.lsn <= lsn).checked_sub(1)?;
        frames.get(i).filter(|f| lsn < f.end()).cloned()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_taken_holds_what_it_was_asked_for_and_is_used_again() {
        let mut spare = Spare::default();
        for bytes in [0, 1, BLOCK, BLOCK + 1, 16 << 10, 3 << 20] {
            let buf = spare.take(bytes);
            assert!(buf.capacity() >= bytes && buf.is_empty(), "{bytes}");
            let at = buf.as_slice().as_ptr();
            spare.give_back(buf);
            assert_eq!(spare.take(bytes).as_slice().as_ptr(), at, "{bytes}");
        }
    }

    #[test]
    fn neither_a_giant_nor_a_dwarf_is_given_and_few_are_kept() {
        let mut spare = Spare::default();
        spare.give_back(AlignedBuf::with_capacity(BLOCK << 6));
        assert!(spare.take(4 * BLOCK).capacity() < BLOCK << 6, "four classes larger");
        assert!(spare.take(8 * BLOCK).capacity() >= BLOCK << 6, "three");
        for _ in 0..10 {
            spare.give_back(AlignedBuf::with_capacity(1 << 20));
        }
        assert!(spare.0[8].len() <= 2);
        // Grown by a caller to something in between: it is never taken for more than it holds.
        spare.give_back(AlignedBuf::with_capacity(700 << 10));
        assert!(spare.take(700 << 10).capacity() >= 700 << 10);
    }
}
