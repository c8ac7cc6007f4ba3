//! Who waits, and for whom, while frames are written and others are told of them.

use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};
use std::sync::{OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::sim::SimDisk;
use crate::journal::Class;
use crate::sync::Arc;
use crate::{Batch, Event, Listener, Options, Wal};

/// For what would never happen at all.
const LIMIT: Duration = Duration::from_secs(30);

fn options() -> Options {
    Wal::options().segment_size(64 << 10).chunk_size(4096)
}

fn disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::new(4 << 20))
}

fn put(key: &'static [u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(1, key, b"v");
    batch
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every write waits until what is answered goes.
fn hold(disk: &SimDisk) -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    disk.on_event(move |_| {
        let _ = held.lock().expect("no panic").recv();
        None
    });
    hold
}

/// Cleans the log when it first hears of a commit.
#[derive(Default)]
struct Cleans {
    wal: OnceLock<Weak<Wal>>,
    did: AtomicBool,
}

impl Listener for Cleans {
    fn event(&self, event: &Event) {
        let first = matches!(event, Event::Committed(_)) && !self.did.swap(true, StdOrdering::Relaxed);
        if first && let Some(wal) = self.wal.get().and_then(Weak::upgrade) {
            let _ = wal.checkpoint();
        }
    }
}

/// It may wait for the cleaner on a caller's thread. The cleaner may wait for a frame that nobody but that caller would have had written.
#[test]
fn a_listener_that_waits_for_the_cleaner_does_not_keep_the_writer_asleep() {
    let (disk, listener) = (disk(), Arc::new(Cleans::default()));
    let wal = options().listener(Arc::clone(&listener) as Arc<dyn Listener>).open_disk(disk.clone());
    let wal = Arc::new(wal.expect("formatted"));
    listener.wal.set(Arc::downgrade(&wal)).expect("once");
    until("the writer rests", || wal.engine.seq.lock().writer_idle);
    let go = hold(&disk);
    let (tell, told) = mpsc::channel();
    // The first frame of an opening is in flight alone.
    let (log, tells) = (Arc::clone(&wal), tell.clone());
    thread::spawn(move || tells.send(("the commit", log.commit(put(b"k")).is_ok())));
    until("in flight", || wal.engine.seq.lock().frames_taken == 1);
    // As the last step of a cleaning.
    let log = Arc::clone(&wal);
    thread::spawn(move || {
        let sealed = {
            let _tell_after_the_lock = log.engine.hold();
            let _one = log.engine.cleaning.lock();
            log.engine.seal(Class::Clean).is_ok()
        };
        tell.send(("the seal", sealed))
    });
    until("wanted", || wal.engine.seq.lock().open.wanted);
    drop(go);
    let told = [(); 2].map(|()| told.recv_timeout(LIMIT));
    // Whoever waits still would keep it for ever.
    std::mem::forget(wal);
    assert!(told.iter().all(|t| matches!(t, Ok((_, true)))), "{told:?}");
}
