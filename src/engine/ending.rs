//! The end of a log that nobody holds any more, or that is closed: threads that still write finish first, and then the file is given up.

use std::cell::Cell as ThreadCell;
use std::io;

use super::Engine;
use super::submit::{TELLING, Telling};
use crate::caught::said;
use crate::error::Result;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex, thread_local};

/// What is left to do when a log was stopped.
#[derive(Debug)]
pub(crate) struct Ending {
    pub engine: Arc<Engine>,
    pub threads: Vec<JoinHandle<()>>,
}

thread_local! {
    /// Endings that came up while this thread told somebody something, and for which no other thread could be started.
    // Not `const`: loom's macro does not know that.
    #[allow(clippy::missing_const_for_thread_local)]
    static LEFT: ThreadCell<Vec<Ending>> = ThreadCell::new(Vec::new());
}

impl Engine {
    /// Whether this thread may wait for a log's end. Not while it tells anybody anything, and not if it is a log's own: the end waits for it.
    pub(crate) fn may_end(&self) -> Result<()> {
        if TELLING.with(ThreadCell::get) == Telling::Nobody { Ok(()) } else { Err(self.busy()) }
    }
}

impl Ending {
    /// Finishes here, if this thread may wait for it; else another thread does.
    pub fn finish_or_leave(self) {
        if self.engine.may_end().is_ok() {
            self.finish();
        } else {
            self.leave(|finish| thread::spawn("strandlog-ending", finish).map(drop));
        }
    }

    /// Waits until nobody writes any more, and gives the file up.
    pub fn finish(self) {
        let Self { engine, threads } = self;
        // What a caller's thread is writing lands first, and then the waiters behind it are told: one of the log's threads may be among
        // them.
        engine.land_all();
        engine.tell_ended();
        for thread in threads {
            // The ending may have been left with one of them: that one ends after this.
            if !thread::is_this(&thread) {
                let _ = thread.join();
            }
        }
        // Behind this the thread that told the last waiters is done with that.
        drop(engine.completion.lock());
        drop(engine.cleaning.lock());
        // A scrub writes a bad superblock copy anew under this lock alone.
        drop(engine.superblock.lock());
        engine.disk.release();
    }

    /// Has another thread finish it; if none can be started, this one does when it tells nobody anything any more.
    fn leave(self, start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>) {
        let left = Arc::new(Mutex::new(Some(self)));
        let taken = Arc::clone(&left);
        let started = start(Box::new(move || {
            let ending = taken.lock().take();
            ending.into_iter().for_each(Self::finish);
        }));
        if let Err(error) = started {
            said(|| tracing::warn!(target: "strandlog", %error, "starting a thread to end the log"));
            // A thread that is ending itself may have no such list any more: then the file is given up with the last reader.
            let _ = LEFT.try_with(|l| {
                let mut endings = l.take();
                endings.extend(left.lock().take());
                l.set(endings);
            });
        }
    }

    /// Finishes what was left with this thread.
    pub fn finish_those_left() {
        let left = LEFT.try_with(ThreadCell::take).unwrap_or_default();
        left.into_iter().for_each(Self::finish);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::Wal;
    use crate::engine::telling;
    use crate::error::Error;

    #[test]
    fn what_unwinds_leaves_nobody_told() {
        let unwound = catch_unwind(AssertUnwindSafe(|| telling(Telling::Callbacks, || panic!("as planned"))));
        assert!(unwound.is_err());
        assert_eq!(TELLING.with(ThreadCell::get), Telling::Nobody);
    }

    fn no_thread(_: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::Error::other("there is none to be had"))
    }

    #[test]
    fn where_no_thread_can_be_started_who_was_telling_ends_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let open = || Wal::options().capacity(16 << 20).open(&path);
        let wal = open().expect("created");
        telling(Telling::Callbacks, || {
            wal.stop().leave(no_thread);
            assert!(matches!(open(), Err(Error::Locked { .. })), "whoever tells may hold the log's locks");
        });
        drop(open().expect("the file was given up"));
    }

    /// A scrub that writes a bad copy anew holds nothing else.
    #[test]
    fn the_file_is_given_up_when_nobody_writes_a_superblock_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let open = || Wal::options().capacity(16 << 20).open(&path);
        let wal = open().expect("created");
        wal.engine.poison("as planned".into(), None);
        let writes = wal.engine.superblock.lock();
        std::thread::scope(|scope| {
            let closes = scope.spawn(|| wal.close());
            // Time enough to give it up.
            let early = (0..50).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                !matches!(open(), Err(Error::Locked { .. }))
            });
            drop(writes);
            let outcome = closes.join().expect("no panic");
            assert!(!early, "while it is written to");
            assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
        });
        drop(open().expect("the file was given up"));
    }

    /// It is among those that the ending waits for.
    #[test]
    fn a_thread_of_the_log_that_an_ending_is_left_with_ends_it_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let wal = Wal::options().capacity(16 << 20).open(&path).expect("created");
        let (give, given) = std::sync::mpsc::channel::<Ending>();
        let own = thread::spawn("own", move || {
            telling(Telling::Own, || {
                let ending = given.recv().expect("given");
                telling(Telling::Callbacks, || ending.leave(no_thread));
            });
        });
        let mut ending = wal.stop();
        ending.threads.push(own.expect("started"));
        give.send(ending).expect("it waits");
        let begun = std::time::Instant::now();
        while let Err(error) = Wal::options().open(&path) {
            assert!(matches!(error, Error::Locked { .. }) && begun.elapsed().as_secs() < 30, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
