//! Recent frames: written ones are kept in memory for readers until the budget is spent, then their buffers are used again.

use std::collections::VecDeque;

use crate::disk::AlignedBuf;
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
    spare: Mutex<Vec<AlignedBuf>>,
}

/// Buffers kept for reuse at most; more than a few are never open at once.
const SPARE_BUFFERS: usize = 64;

impl Recent {
    pub fn new(budget: u64) -> Self {
        Self { frames: RwLock::new(VecDeque::new()), bytes: AtomicU64::new(0), budget, spare: Mutex::new(Vec::new()) }
    }

    /// A buffer for a frame of about `hint` bytes: one of a frame that was evicted, if its size is near.
    pub fn buffer(&self, hint: usize) -> AlignedBuf {
        let hint = hint.next_power_of_two().max(2 * crate::disk::BLOCK);
        let mut spare = self.spare.lock();
        match spare.iter().position(|b| b.capacity() >= hint && b.capacity() <= 8 * hint) {
            Some(i) => spare.swap_remove(i),
            None => AlignedBuf::with_capacity(hint),
        }
    }

    pub fn give_back(&self, mut buf: AlignedBuf) {
        let mut spare = self.spare.lock();
        if spare.len() >= SPARE_BUFFERS {
            spare.swap_remove(0);
        }
        buf.clear();
        spare.push(buf);
    }

    pub fn push(&self, frame: Arc<FrameMem>) {
        self.bytes.fetch_add(frame.buf.len() as u64, Ordering::Relaxed);
        self.frames.write().push_back(frame);
    }

    /// Bytes held.
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
            self.bytes.fetch_sub(frame.buf.len() as u64, Ordering::Relaxed);
            if let Ok(frame) = Arc::try_unwrap(frame) {
                self.give_back(frame.buf);
            }
        }
    }

    /// The frame that holds `lsn`.
    pub fn find(&self, lsn: u64) -> Option<Arc<FrameMem>> {
        let frames = self.frames.read();
        let i = frames.partition_point(|f| f.lsn <= lsn).checked_sub(1)?;
        frames.get(i).filter(|f| lsn < f.end()).cloned()
    }
}
