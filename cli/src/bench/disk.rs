//! A disk that records the sizes of the commits, and how long the device takes for them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use strandlog::disk::{Disk, DiskInfo, FileDisk, Map, Writer};

use crate::measure::Latencies;

/// The magic with which every frame begins.
const FRAME: &[u8] = b"SFRM";
/// Frames are whole blocks, at most a segment long. The size classes are powers of two, from one block (4 KiB) on.
const LEAST_BITS: u32 = 12;
/// Number of size classes, up to the largest segment.
pub const SIZES: usize = 15;

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Notes {
    /// Latencies of the durable writes of frames.
    pub writes: Latencies,
    /// Frames by size: up to 4 KiB, up to 8 KiB, and so on.
    pub sizes: [u64; SIZES],
    /// Bytes of all frames.
    pub bytes: u64,
}

impl Notes {
    /// Number of frames.
    pub fn frames(&self) -> u64 {
        self.sizes.iter().sum()
    }
}

/// The largest frame of a size class, in bytes.
pub fn class_bytes(class: usize) -> u64 {
    1 << (LEAST_BITS as usize + class.min(SIZES))
}

#[derive(Debug)]
pub struct NotedDisk {
    inner: FileDisk,
    notes: Mutex<Notes>,
}

impl NotedDisk {
    pub fn new(inner: FileDisk) -> Self {
        Self { inner, notes: Mutex::new(Notes { writes: Latencies::new(), sizes: [0; SIZES], bytes: 0 }) }
    }

    /// What was recorded so far.
    pub fn notes(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, buf: &[u8], since: Option<Instant>) {
        if !buf.starts_with(FRAME) {
            return;
        }
        let bits = (buf.len() as u64).next_power_of_two().trailing_zeros();
        let class = (bits.saturating_sub(LEAST_BITS) as usize).min(SIZES - 1);
        let mut notes = self.lock();
        notes.sizes[class] += 1;
        notes.bytes += buf.len() as u64;
        if let Some(since) = since {
            notes.writes.record(since);
        }
    }
}

impl Disk for NotedDisk {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn at_once(&self) -> usize {
        self.inner.at_once()
    }

    fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.inner.read_many(reads)
    }

    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        self.inner.write_many(writes)?;
        writes.iter().for_each(|(_, buf)| self.note(buf, None));
        Ok(())
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.inner.prefetch(offset, len);
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, buf)?;
        // Not timed: the frame is written beside placed payloads, and one flush for all of them follows.
        self.note(buf, None);
        Ok(())
    }

    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let start = Instant::now();
        self.inner.write_durable_at(offset, buf)?;
        self.note(buf, Some(start));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn flush_of(&self, writer: Writer) -> io::Result<()> {
        self.inner.flush_of(writer)
    }

    fn write_durable_of(&self, writer: Writer, offset: u64, buf: &[u8]) -> io::Result<()> {
        let start = Instant::now();
        self.inner.write_durable_of(writer, offset, buf)?;
        self.note(buf, Some(start));
        Ok(())
    }

    fn check_size(&self) -> io::Result<()> {
        self.inner.check_size()
    }

    fn check_name(&self) -> io::Result<()> {
        self.inner.check_name()
    }

    fn map(&self) -> Option<Arc<Map>> {
        self.inner.map()
    }

    fn info(&self) -> DiskInfo {
        self.inner.info()
    }

    fn release(&self) {
        self.inner.release();
    }
}
