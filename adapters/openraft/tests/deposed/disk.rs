//! A disk on which a chosen read is held up.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use strandlog::disk::sim::SimDisk;
use strandlog::disk::{Disk, DiskInfo, Map};
use tokio::sync::oneshot;

thread_local! {
    static NEXT_READ_WAITS: Cell<bool> = const { Cell::new(false) };
}

/// The next read on this thread, of any disk, is held up once it has begun.
pub fn hold_next_read() {
    NEXT_READ_WAITS.set(true);
}

#[derive(Debug)]
pub struct Interrupted {
    disk: SimDisk,
    begins: Mutex<Option<oneshot::Sender<()>>>,
    begun: Mutex<Option<oneshot::Receiver<()>>>,
    goes_on: Mutex<mpsc::Receiver<()>>,
    go_on: mpsc::Sender<()>,
}

impl Interrupted {
    pub fn new(bytes: u64) -> Arc<Self> {
        let (begins, begun) = oneshot::channel();
        let (go_on, goes_on) = mpsc::channel();
        let (begins, begun, goes_on) = (Mutex::new(Some(begins)), Mutex::new(Some(begun)), Mutex::new(goes_on));
        Arc::new(Self { disk: SimDisk::new(bytes), begins, begun, goes_on, go_on })
    }

    /// Waits until that read has begun.
    pub async fn reading(&self) {
        let begun = self.begun.lock().unwrap().take();
        begun.expect("once").await.expect("somebody reads");
    }

    pub fn go_on(&self) {
        self.go_on.send(()).expect("somebody reads");
    }
}

/// It cannot be mapped, so every read goes through it.
impl Disk for Interrupted {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn map(&self) -> Option<Arc<Map>> {
        None
    }

    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn release(&self) {
        self.disk.release();
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if NEXT_READ_WAITS.replace(false) {
            let begins = self.begins.lock().unwrap().take();
            begins.expect("once").send(()).expect("the test waits");
            tokio::task::block_in_place(|| self.goes_on.lock().unwrap().recv().expect("the test goes on"));
        }
        self.disk.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }

    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_durable_at(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}
