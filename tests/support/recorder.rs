//! A disk that takes a picture before each event: one run yields the disk as a cut at every write and every sync leaves it.

use std::io;
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::{Fault, SimDisk};

use crate::support;

/// One event that is about to happen.
pub struct Moment {
    /// Its number.
    pub event: u64,
    /// The disk as it was before: where a process is killed.
    pub before: SimDisk,
    /// The disk with the power cut during the event: what was in flight is in doubt.
    pub cut: SimDisk,
}

type Watch = Box<dyn FnMut(Moment) + Send>;

pub struct Recorder {
    pub disk: Arc<SimDisk>,
    watch: Mutex<Watch>,
    /// One event in this many is watched.
    stride: u64,
}

impl Recorder {
    /// `watch` is given every `stride`th event before it happens.
    pub fn new(disk: Arc<SimDisk>, stride: u64, watch: impl FnMut(Moment) + Send + 'static) -> Self {
        Self { disk, watch: Mutex::new(Box::new(watch)), stride }
    }

    fn event(&self, run: impl Fn(&SimDisk) -> io::Result<()>) -> io::Result<()> {
        let number = self.disk.events();
        if number.is_multiple_of(self.stride) {
            let (before, cut) = ((*self.disk).clone(), (*self.disk).clone());
            cut.fail_at(number, Fault::Cut);
            run(&cut).expect_err("the power is cut");
            (self.watch.lock().expect("no other panic"))(Moment { event: number, before, cut });
        }
        run(&self.disk)
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Recorder {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.event(|d| d.write_at(offset, buf))
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.event(|d| d.write_durable_at(offset, buf))
    }
    fn flush(&self) -> io::Result<()> {
        self.event(|d| d.flush())
    }
}
