//! Making durable what was written: one door for all of a log's syncs.
//!
//! A flush that failed is final: what was written before it may be gone, and yet a later one says that all is well. Only the thread that
//! flushed hears of the failure. So flushes go one after the other, as they do at the device, and none comes behind one that failed.

use std::io;
// Not from `crate::sync`: no model waits for it.
use std::sync::OnceLock;

use super::Engine;
use crate::caught::by_disk;
use crate::disk::Writer;
use crate::sync::Mutex;

/// How the syncs of a log went so far.
#[derive(Debug)]
pub(crate) struct Syncs {
    /// **Held while the device works, and for nothing else**: the next sync must know how this one ended.
    turn: Mutex<()>,
    /// Why there are no more syncs.
    failed: OnceLock<String>,
    /// A durable write covers its own range and nothing else: it need not wait for others.
    apart: bool,
}

impl Syncs {
    /// `apart`: a durable write covers its own range and nothing else, whatever becomes of it.
    pub fn new(apart: bool) -> Self {
        Self { turn: Mutex::new(()), failed: OnceLock::new(), apart }
    }

    /// Runs a sync behind all others, and not at all behind one that failed.
    fn in_turn(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // A thread that sleeps here leaves the device idle until it is awake.
        let _turn = self.turn.lock_awake();
        self.unless_one_failed(sync)
    }

    /// Runs a sync, but not behind one that failed; its success counts only if no other failed meanwhile. Two frames are written beside
    /// each other, and one that failed need not have taken more along than itself. But on a device without forced unit access a durable
    /// write is a write and a flush, and a flush that failed in between, on anybody's behalf, took what was written along.
    fn unless_one_failed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let failed = |when: &str| match self.failed.get() {
            Some(why) => Err(io::Error::other(format!("{when} failed: {why}"))),
            None => Ok(()),
        };
        failed("an earlier sync")?;
        by_disk(sync).inspect_err(|error| {
            self.failed.get_or_init(|| error.to_string());
        })?;
        failed("a sync beside this one")
    }
}

impl Engine {
    /// Makes everything durable that was written before: frames and what is placed beside them, or what another `writer` wrote.
    pub(crate) fn flush(&self, writer: Option<Writer>) -> io::Result<()> {
        self.syncs.in_turn(|| match writer {
            Some(writer) => self.disk.flush_of(writer),
            None => self.disk.flush(),
        })
    }

    /// Writes these bytes, durable: a frame's, or another `writer`'s.
    pub(crate) fn write_durable(&self, writer: Option<Writer>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = || match writer {
            Some(writer) => self.disk.write_durable_of(writer, offset, bytes),
            None => self.disk.write_durable_at(offset, bytes),
        };
        if self.syncs.apart { self.syncs.unless_one_failed(write) } else { self.syncs.in_turn(write) }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::disk::sim::{EIO, Fault, SimDisk};
    use crate::disk::{AlignedBuf, BLOCK, Disk, DiskInfo, Map, SyncMethod};
    use crate::error::{Error, Result};
    use crate::lsn::Lsn;
    use crate::sync::Arc;
    use crate::{Batch, Placement, Wal};

    /// Where the next thread that comes is held.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum At {
        /// Behind several writes, before their flush.
        Written,
        /// In a durable write, before the flush that it is without forced unit access.
        HalfDurable,
        /// In a flush.
        Flush,
    }

    /// Says that somebody is there, and waits until it may go on.
    type Hold = (At, Sender<()>, Receiver<()>);

    #[derive(Debug)]
    struct Held {
        disk: SimDisk,
        method: SyncMethod,
        hold: Mutex<Option<Hold>>,
    }

    impl Held {
        fn new(method: SyncMethod) -> Arc<Self> {
            Arc::new(Self { disk: SimDisk::new(8 << 20), method, hold: Mutex::new(None) })
        }

        fn hold_next(&self, at: At) -> (Receiver<()>, Sender<()>) {
            let ((come, came), (go, gone)) = (channel(), channel());
            *self.hold.lock() = Some((at, come, gone));
            (came, go)
        }

        fn pass(&self, at: At) {
            let held = self.hold.lock().take_if(|(held, ..)| *held == at);
            if let Some((_, come, gone)) = held {
                come.send(()).expect("the test waits");
                gone.recv().expect("the test lets it go");
            }
        }
    }

    impl Disk for Held {
        fn len(&self) -> u64 {
            Disk::len(&self.disk)
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.disk.read_at(offset, buf)
        }
        fn at_once(&self) -> usize {
            self.disk.at_once()
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.disk.write_at(offset, buf)
        }
        fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
            self.disk.write_many(writes)?;
            self.pass(At::Written);
            Ok(())
        }
        /// As a device does without forced unit access.
        fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.disk.write_at(offset, buf)?;
            self.pass(At::HalfDurable);
            self.disk.flush()
        }
        fn flush(&self) -> io::Result<()> {
            self.pass(At::Flush);
            self.disk.flush()
        }
        fn map(&self) -> Option<Arc<Map>> {
            None
        }
        fn info(&self) -> DiskInfo {
            DiskInfo { method: self.method, ..self.disk.info() }
        }
        fn release(&self) {
            self.disk.release();
        }
    }

    /// Everything is placed beside its frame. The first frame of an opening, which is in flight alone, is written.
    fn log(method: SyncMethod) -> (Arc<Held>, Arc<Wal>) {
        let disk = Held::new(method);
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
        let wal = options.background(false).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        commit(&wal, 9).expect("committed");
        (disk, Arc::new(wal))
    }

    fn commit(wal: &Wal, replica: u64) -> Result<Lsn> {
        wal.commit(Batch::new().append(replica, &[(1, 1, [replica as u8; 9000])]))
    }

    /// Nothing but a frame.
    fn commit_state(wal: &Wal, replica: u64) -> Result<Lsn> {
        wal.commit(Batch::new().put(replica, b"vote", b"7"))
    }

    /// What there is of the replica if the power fails now.
    fn left(disk: &Held, replica: u64) -> u64 {
        let wal = Wal::options().background(false).open_disk(Arc::new(disk.disk.crash_lost_all())).expect("opened");
        wal.replica(replica).last_index()
    }

    /// A frame and its payload are written; `fail` makes a sync fail; then comes that frame's flush.
    fn flushed_behind_a_failure(fail: impl FnOnce(&Held, &Wal)) {
        let (disk, wal) = log(SyncMethod::DirectDsync);
        let (came, go) = disk.hold_next(At::Written);
        let log = Arc::clone(&wal);
        let first = thread::spawn(move || commit(&log, 1));
        came.recv().expect("it is written");
        disk.disk.fail_sync_at(disk.disk.syncs(), Fault::Error(EIO));
        fail(&disk, &wal);
        go.send(()).expect("it waits");
        let outcome = first.join().expect("no panic");
        assert_eq!((outcome.is_ok(), left(&disk, 1)), (false, 0), "acknowledged, and what is left: {outcome:?}");
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }

    /// The flush that failed had to cover both of them.
    #[test]
    fn no_frame_is_acknowledged_by_a_flush_behind_one_that_failed() {
        flushed_behind_a_failure(|disk, wal| {
            let second = commit(wal, 2);
            assert!(matches!(second, Err(Error::Poisoned { .. })), "{second:?}");
            assert_eq!(left(disk, 2), 0);
        });
    }

    #[test]
    fn no_frame_is_acknowledged_by_a_flush_behind_one_of_the_cleaner_that_failed() {
        flushed_behind_a_failure(|_, wal| {
            wal.engine.flush(Some(Writer::Pieces)).expect_err("it fails");
        });
    }

    /// Two small frames beside each other: the flush of the later one fails, whatever kind it is, and with it goes what the earlier one
    /// has in the device's cache. Its own flush says that all is well.
    #[test]
    fn no_small_frame_is_acknowledged_behind_a_sync_that_failed_beside_it() {
        for later in [commit, commit_state] {
            let (disk, wal) = log(SyncMethod::DirectDsync);
            let (came, go) = disk.hold_next(At::HalfDurable);
            let log = Arc::clone(&wal);
            let first = thread::spawn(move || commit_state(&log, 1));
            came.recv().expect("it is written");
            disk.disk.fail_sync_at(disk.disk.syncs(), Fault::Error(EIO));
            let second = later(&wal, 2);
            assert!(matches!(second, Err(Error::Poisoned { .. })), "{second:?}");
            go.send(()).expect("it waits");
            let outcome = first.join().expect("no panic");
            assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
            let crashed = Arc::new(disk.disk.crash_lost_all());
            let left = Wal::options().background(false).open_disk(crashed).expect("opened");
            let vote = left.replica(1).get(b"vote").expect("readable");
            assert_eq!(vote, None, "what the device had in its cache is gone");
        }
    }

    fn block() -> AlignedBuf {
        AlignedBuf::from([7; BLOCK].as_slice())
    }

    /// On a device without forced unit access it was a flush.
    #[test]
    fn nothing_is_flushed_behind_a_durable_write_that_failed() {
        let (disk, wal) = log(SyncMethod::DirectDsync);
        disk.disk.fail_sync_at(disk.disk.syncs(), Fault::Error(EIO));
        wal.engine.write_durable(None, 0, block().as_slice()).expect_err("it fails");
        let syncs = disk.disk.syncs();
        for writer in [None, Some(Writer::Pieces), Some(Writer::Superblocks)] {
            let flushed = wal.engine.flush(writer);
            assert!(flushed.is_err_and(|e| e.to_string().contains("earlier")), "{writer:?}");
        }
        assert_eq!(disk.disk.syncs(), syncs, "the device was asked");
    }

    /// Where it covers what others wrote it comes in turn: it would be told that all is well while another hears that it is not.
    #[test]
    fn a_durable_write_waits_for_a_flush_only_where_it_is_one() {
        for method in [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync] {
            let (disk, wal) = log(method);
            let (came, go) = disk.hold_next(At::Flush);
            let log = Arc::clone(&wal);
            let flush = thread::spawn(move || log.engine.flush(Some(Writer::Pieces)));
            came.recv().expect("it flushes");
            let ((tell, told), log) = (channel(), Arc::clone(&wal));
            let write = thread::spawn(move || tell.send(log.engine.write_durable(None, 0, block().as_slice()).is_ok()));
            if method == SyncMethod::DirectDsync {
                assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(true));
            } else {
                assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "{method:?}: beside the flush");
            }
            disk.disk.fail_sync_at(disk.disk.syncs(), Fault::Error(EIO));
            go.send(()).expect("it waits");
            flush.join().expect("no panic").expect_err("it fails");
            if method != SyncMethod::DirectDsync {
                assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(false), "{method:?}: behind one that failed");
            }
            write.join().expect("no panic").expect("heard");
        }
    }
}
