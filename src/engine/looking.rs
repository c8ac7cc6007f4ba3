//! Looking after the file: it may be cut, removed or replaced behind our back, and what is written to it then is acknowledged in vain. The
//! cleaner's thread looks while it rests; while it cleans, which may take seconds, the writer of a frame does.

use std::io;
use std::sync::atomic::{AtomicU64 as StdAtomicU64, Ordering as StdOrdering};
use std::time::{Duration, Instant};

use super::Engine;
use crate::caught::by_disk;
use crate::disk::Disk;
use crate::error::{Error, Result};

/// No frame is acknowledged if the last look is longer ago than this.
const EVERY: Duration = Duration::from_millis(100);

/// When the last look began that found the file. A plain atomic of the standard library in every build: two threads that look at once do no
/// harm.
#[derive(Debug)]
pub(crate) struct Looked {
    since: Instant,
    /// Milliseconds from `since` to the last look.
    at: StdAtomicU64,
}

impl Default for Looked {
    fn default() -> Self {
        Self { since: Instant::now(), at: StdAtomicU64::new(0) }
    }
}

impl Looked {
    fn millis(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    fn is_long_ago(&self) -> bool {
        self.millis().wrapping_sub(self.at.load(StdOrdering::Relaxed)) >= EVERY.as_millis() as u64
    }
}

impl Engine {
    /// Whether the file is as long as it was, and to be found under its name.
    pub(super) fn find_file(&self) -> Result<()> {
        let began = self.looked.millis();
        self.ask_disk(|disk| disk.check_size().and_then(|()| disk.check_name()))?;
        // Not before: it would vouch for frames that others acknowledge until this thread has ended the log, or while the system does not answer.
        self.looked.at.store(began, StdOrdering::Relaxed);
        Ok(())
    }

    /// As [`Engine::find_file`], if the last look is long ago. Without background threads nobody looks.
    pub(super) fn find_file_again(&self) -> Result<()> {
        if self.run.background && self.looked.is_long_ago() { self.find_file() } else { Ok(()) }
    }

    /// Asks the disk about its file, and ends the log if that was cut or removed behind its back, or cannot be asked about.
    pub(super) fn look_after_file(&self, look: impl FnOnce(&dyn Disk) -> io::Result<()>) -> Result<()> {
        self.ask_disk(look).inspect_err(|why| self.fail(why, None))
    }

    /// Asks the disk about its file. If it was cut or removed, the error says so: the log must not be opened anew then.
    fn ask_disk(&self, look: impl FnOnce(&dyn Disk) -> io::Result<()>) -> Result<()> {
        let Err(error) = by_disk(|| look(&*self.disk)) else { return Ok(()) };
        let cause = format!("looking after the file: {error}").into();
        Err(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Error::FileLost { cause },
            _ => Error::Poisoned { cause },
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::{DiskInfo, Map};
    use crate::sync::Arc;
    use crate::{Batch, Wal};

    /// A disk on which the cleaner's thread does not come to look: it is at work.
    #[derive(Debug)]
    struct Removed {
        disk: SimDisk,
        is_gone: AtomicBool,
        cleaner: Mutex<Receiver<()>>,
    }

    impl Disk for Removed {
        fn len(&self) -> u64 {
            self.disk.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
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
        fn check_name(&self) -> io::Result<()> {
            if thread::current().name() == Some("strandlog-cleaner") {
                // Returns when the test drops the other end.
                let _ = self.cleaner.lock().expect("no panic").recv();
            }
            if self.is_gone.load(StdOrdering::Relaxed) { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
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
    }

    #[test]
    fn no_frame_of_a_file_that_was_removed_is_acknowledged_for_long_though_the_cleaner_is_at_work() {
        let (busy, cleaner) = channel();
        let (is_gone, cleaner) = (AtomicBool::new(false), Mutex::new(cleaner));
        let disk = Arc::new(Removed { disk: SimDisk::new(4 << 20), is_gone, cleaner });
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096);
        let wal = options.open_disk(disk.clone()).expect("formatted");
        let commit = || wal.commit(Batch::new().put(1, b"key", b"value"));
        // Somebody looked a moment ago, or a moment before that.
        let looked_before = |ago: u64| {
            let at = wal.engine.looked.millis().wrapping_sub(ago);
            wal.engine.looked.at.store(at, StdOrdering::Relaxed);
        };
        looked_before(1000);
        commit().expect("it is there");
        disk.is_gone.store(true, StdOrdering::Relaxed);
        looked_before(1000);
        let refused = commit().map(drop);
        drop(busy);
        assert!(matches!(refused, Err(Error::FileLost { .. })), "{refused:?}");
        assert!(matches!(commit(), Err(Error::FileLost { .. })), "it has ended");
    }

    /// Another thread comes with its frame before the log has ended.
    #[test]
    fn a_look_that_did_not_find_the_file_vouches_for_no_frame() {
        let (busy, cleaner) = channel();
        let (is_gone, cleaner) = (AtomicBool::new(false), Mutex::new(cleaner));
        let disk = Arc::new(Removed { disk: SimDisk::new(4 << 20), is_gone, cleaner });
        let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(disk.clone()).expect("formatted");
        disk.is_gone.store(true, StdOrdering::Relaxed);
        let engine = &wal.engine;
        engine.looked.at.store(engine.looked.millis().wrapping_sub(1000), StdOrdering::Relaxed);
        let looked = engine.find_file();
        let refused = wal.commit(Batch::new().put(1, b"key", b"value")).map(drop);
        drop(busy);
        assert!(
            matches!((&looked, &refused), (Err(Error::FileLost { .. }), Err(Error::FileLost { .. }))),
            "{refused:?}"
        );
    }
}
