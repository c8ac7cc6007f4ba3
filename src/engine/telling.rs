//! Telling waiters that a log has ended: in the order of the log, by one thread at a time, and when that holds none of the log's locks.

use std::cell::Cell as ThreadCell;
use std::sync::atomic::Ordering as StdOrdering;

use super::Engine;
use super::holding::{Holding, is_holding};
use super::submit::{TELLING, Telling, Told};
use crate::error::Error;
use crate::journal::wake_all;

/// While this lives, the thread tells nobody anything of the log. Made before the locks are taken, so that it goes after them.
pub(crate) struct Hold<'a> {
    engine: &'a Engine,
    holding: Option<Holding>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.holding = None;
        self.engine.tell();
    }
}

impl Engine {
    /// What happens or ends under locks taken from here on is told when the guard goes, behind them.
    pub(crate) fn hold(&self) -> Hold<'_> {
        Hold { engine: self, holding: Some(Holding::begin(self.events.log())) }
    }

    /// Tells what there is to tell, unless this thread holds locks: then its [`Hold`] does.
    pub(super) fn tell(&self) {
        if is_holding(self.events.log()) {
            return;
        }
        // Not in another log's callback: the thread that tells of this log may be in a callback that waits to tell of the other. This log's
        // ending does it.
        let elsewhere = TELLING.with(ThreadCell::get) == Telling::Callbacks;
        // Set under the sequencer lock: a thread that ends a flight after that finds it set.
        if self.ended.load(StdOrdering::Relaxed) && !elsewhere {
            self.tell_ended();
        }
        self.events.flush();
    }

    /// Tells the waiters of frames that will not be durable, but for those behind one that is being written: the thread that ends that one
    /// does it.
    pub(super) fn tell_ended(&self) {
        let _told = Told::begin(Telling::Callbacks);
        // If one of them stops the log once more, it tells nothing: events wait until the lock is free.
        let _once = Holding::begin(self.events.log());
        // Waiters are told under the same lock that they are durable: one thread at a time, one frame after the other.
        let _in_order = self.completion.lock();
        let (why, ended, wakers) = {
            let mut s = self.seq.lock();
            let why = s.stopped.clone().unwrap_or(Error::Closed);
            (why, s.in_flight.ended(), s.room_tasks.take())
        };
        for frame in ended {
            frame.ticket.complete(Err(why.clone()));
            frame.notices.tell(&Err(why.clone()));
        }
        wake_all(wakers);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;
    use crate::{Batch, Error, Wal};

    /// Neither the thread that ends the log tells, nor a guard inside another, which goes while there are locks.
    #[test]
    fn whoever_waits_is_told_of_the_end_when_the_last_lock_is_free() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let (tell, told) = std::sync::mpsc::channel();
        wal.submit_with(Batch::new().put(1, b"k", b"v"), move |o| tell.send(o).expect("heard")).expect("submitted");
        {
            let _tell_after_the_locks = wal.engine.hold();
            let _one = wal.engine.cleaning.lock();
            {
                let _tell_after_the_lock = wal.engine.hold();
                let _superblock = wal.engine.superblock.lock();
                let failed = wal.engine.failed("a test", &std::io::ErrorKind::Other.into());
                assert!(matches!(failed, Error::Poisoned { .. }));
                assert!(told.try_recv().is_err(), "under both");
            }
            assert!(told.try_recv().is_err(), "under one of them");
        }
        assert!(matches!(told.try_recv(), Ok(Err(Error::Poisoned { .. }))));
    }

    /// Another thread ends the log: this one would wait for itself.
    #[test]
    fn the_last_log_may_go_in_a_callback_that_hears_of_the_end() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let (engine, last) = (Arc::clone(&wal.engine), Arc::new(wal));
        let (tell, told) = std::sync::mpsc::channel();
        let goes = Arc::clone(&last);
        last.submit_with(Batch::new().put(1, b"k", b"v"), move |_| drop(goes)).expect("submitted");
        last.submit_with(Batch::new().put(1, b"l", b"v"), move |_| tell.send(()).expect("heard")).expect("submitted");
        drop(last);
        std::thread::spawn(move || engine.stop(&Error::Closed, None));
        told.recv_timeout(std::time::Duration::from_secs(30)).expect("it does not wait for itself");
    }
}
