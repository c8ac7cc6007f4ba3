//! The cleaner thread: frees segments when asked, seals the log when nothing happens, and notices a file cut or removed behind our back.

use std::time::Duration;

use super::Engine;
use super::submit::{Telling, Told};
use crate::journal::wake_all;

/// How long nothing must happen before the log is sealed. Not on the way to any acknowledgement.
const IDLE: Duration = Duration::from_millis(100);

impl Engine {
    /// Runs until the log is stopped.
    pub(crate) fn run_cleaner(&self) {
        let mut seen = 0;
        loop {
            let (wanted, relief) = {
                let mut cleaner = self.cleaner.lock();
                if !cleaner.wanted && cleaner.relief.is_served() && !cleaner.stop {
                    cleaner = self.clean.wait_for(cleaner, IDLE);
                }
                if cleaner.stop {
                    return;
                }
                let relief = cleaner.relief.take();
                (std::mem::take(&mut cleaner.wanted), relief)
            };
            // If writing went on, a file that was cut would have holes, and its mapping would kill the process that reads it; a removed one
            // is gone when the process ends, and the next opening begins an empty log in its place.
            if let Err(why) = self.find_file() {
                self.fail(&why, None);
                return;
            }
            if wanted || relief.is_some() {
                if wanted && let Err(error) = self.clean_some() {
                    tracing::warn!(target: "strandlog", %error, "cleaning the journal");
                    let failed = &mut self.cleaner.lock().failed;
                    *failed = (failed.0 + 1, Some(error));
                }
                if let Some((request, lacks)) = relief {
                    self.serve_relief(request, &lacks);
                }
                // Waiters look again, even if nothing could be freed.
                let wakers = self.seq.lock().room_tasks.take();
                self.room.notify_all();
                // A task may run at once: it must not wait for room that this thread is to make.
                let _told = Told::begin(Telling::Listeners);
                wake_all(wakers);
                continue;
            }
            self.forget_those_gone();
            let (taken, rests) = {
                let s = self.seq.lock();
                let quiet = s.in_flight.is_empty() && s.closed.is_empty() && !s.open.wanted;
                (s.frames_taken, quiet && !s.is_sealed)
            };
            // A seal moves the watermark past the last frame: what rots in it is then damage, not a torn tail. If another frame came beside
            // it, or there was no room for it, sealing is tried again.
            if rests && taken == seen {
                let _ = self.seal_everything();
            }
            seen = taken;
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::mpsc::{self, Sender};
    use std::sync::{Arc, Mutex, Weak};
    use std::task::{Wake, Waker};
    use std::time::{Duration, Instant};

    use crate::disk::sim::SimDisk;
    use crate::engine::commit::Carrying;
    use crate::journal::{Flights, Seat};
    use crate::{Batch, Error, Result, Wal};

    /// A task that runs where it is woken, and waits there.
    struct Inline(Weak<Wal>, Mutex<Sender<Result<()>>>);

    impl Wake for Inline {
        fn wake(self: Arc<Self>) {
            let Some(wal) = self.0.upgrade() else { return };
            self.1.lock().expect("no panic").send(wal.checkpoint()).expect("heard");
        }
    }

    #[test]
    fn whom_the_cleaner_wakes_does_not_wait_for_it() {
        let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(SimDisk::new(4 << 20)));
        let wal = Arc::new(wal.expect("formatted"));
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Inline(Arc::downgrade(&wal), Mutex::new(tell))));
        assert!(wal.engine.seq.lock().room_tasks.wait(&mut Seat::default(), waker.clone()).is_none());
        drop(waker);
        wal.engine.want_segments();
        let refused = told.recv_timeout(Duration::from_secs(20)).expect("woken");
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed().as_secs() < 20, "never: {what}");
            std::thread::yield_now();
        }
    }

    /// The newest frame is not the seal then.
    #[test]
    fn what_is_committed_while_a_seal_is_written_is_sealed_in_its_turn() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(disk.clone()).expect("formatted");
        let (tell, sealing) = mpsc::channel();
        let (go, held) = mpsc::channel::<()>();
        let (held, caller) = (Mutex::new(Some((tell, held))), std::thread::current().id());
        // The first write by another thread is the seal.
        disk.on_event(move |_| {
            let first = (std::thread::current().id() != caller).then(|| held.lock().expect("no panic").take());
            if let Some((tell, held)) = first.flatten() {
                tell.send(()).expect("heard");
                let _ = held.recv();
            }
            None
        });
        wal.commit(Batch::new().put(1, b"large", &[7; 9000])).expect("room");
        sealing.recv_timeout(Duration::from_secs(20)).expect("nothing happens");
        let taken = || wal.engine.seq.lock().frames_taken;
        let before = taken();
        let removed = wal.submit(Batch::new().remove(1)).expect("room");
        until("it is being written, too", || taken() > before);
        drop(go);
        removed.wait().expect("durable");
        until("its space is free, as it is sealed", || wal.stats().used_chunks == 0);
    }

    /// Nor does a frame seal what is being written beside it.
    #[test]
    fn a_frame_that_says_nothing_seals_only_what_was_durable_when_it_was_taken() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        wal.commit(Batch::new().put(1, b"k", b"v")).expect("room");
        let engine = &wal.engine;
        let take = || {
            let mut s = engine.seq.lock();
            s.open.wanted = true;
            let frame = s.take(engine.durable(), &engine.recent).expect("two may be in flight");
            (s.is_sealed, Carrying { engine, frame: Some(frame) })
        };
        let (sealed, seal) = take();
        assert!(sealed);
        drop(wal.submit(Batch::new().put(1, b"k", b"w")).expect("room"));
        let (sealed, batch) = take();
        assert!(!sealed, "it says something");
        engine.seq.lock().in_flight = Flights::new(2);
        let (sealed, beside) = take();
        assert!(!sealed, "the one before it may be lost");
        drop((seal, batch, beside));
    }
}
