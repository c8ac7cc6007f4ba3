//! Recent frames: written ones are kept in memory for readers until the budget is spent.

use std::collections::VecDeque;

use crate::disk::AlignedBuf;
use crate::sync::{Arc, AtomicU64, Ordering, RwLock};

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

/// Frames in LSN order, newest last.
#[derive(Debug)]
pub(crate) struct Recent {
    frames: RwLock<VecDeque<Arc<FrameMem>>>,
    bytes: AtomicU64,
    budget: u64,
}

impl Recent {
    pub fn new(budget: u64) -> Self {
        Self { frames: RwLock::new(VecDeque::new()), bytes: AtomicU64::new(0), budget }
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
        }
    }

    /// The LSN at which the oldest begins: from there on every sealed frame is here.
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
