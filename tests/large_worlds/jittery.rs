//! A disk on which writes overtake one another.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;

use super::support;
use super::support::schedule::thread;

/// A disk that has some writes wait a little, so that those of two threads land in any order.
#[derive(Debug)]
pub struct Jittery {
    pub disk: Arc<SimDisk>,
    /// What the waits are drawn from; if 0, nobody waits.
    pub drawn: AtomicU64,
}

impl Jittery {
    fn wait(&self) {
        let x = self.drawn.load(Relaxed);
        if x == 0 {
            return;
        }
        let next = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.drawn.store(next | 1, Relaxed);
        match next >> 61 {
            0 => thread::sleep(Duration::from_micros(next >> 40 & 127)),
            1..=3 => thread::yield_now(),
            _ => {}
        }
    }
}

impl Disk for Jittery {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.wait();
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.wait();
        self.disk.write_durable_at(offset, buf)?;
        // The write is on the disk before its caller knows.
        self.wait();
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}
