//! Who waits, and for whom, while frames are written and others are told of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};
use std::sync::{OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::commit::Carrying;
use crate::disk::sim::{EIO, EventKind, Fault, SimDisk};
use crate::journal::Class;
use crate::sync::Arc;
use crate::{Batch, Error, Event, Listener, Options, Placement, Wal};

/// For what would never happen at all.
const LIMIT: Duration = Duration::from_secs(30);
/// For what must not happen: a test that waits in vain for less sees less, and fails no sooner.
const A_MOMENT: Duration = Duration::from_millis(300);

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

/// A listener may wait for the cleaner on a caller's thread, and the cleaner for a frame that nobody but that caller would have had
/// written.
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
    // A thread that still waits would keep it for ever.
    std::mem::forget(wal);
    assert!(told.iter().all(|t| matches!(t, Ok((_, true)))), "{told:?}");
}

/// Waiters hear what callbacks hear, even if the log ends between the watermark and the telling.
#[test]
fn what_is_durable_is_not_told_as_lost_where_the_log_ends_meanwhile() {
    let wal = Arc::new(options().background(false).open_disk(disk()).expect("formatted"));
    let (tell, told) = mpsc::channel();
    let first = wal.submit(put(b"k")).expect("room");
    wal.submit_with(put(b"l"), move |o| tell.send(o).expect("heard")).expect("room");
    // As if the thread that completes the frame lost the processor right after it moved the watermark.
    let pool = wal.engine.pool.lock();
    let log = Arc::clone(&wal);
    let leads = thread::spawn(move || log.sync());
    until("durable", || wal.durable_lsn() >= first.lsn() && wal.engine.seq.lock().in_flight.is_empty());
    let log = Arc::clone(&wal);
    let ends = thread::spawn(move || log.engine.poison("another frame failed".into(), None));
    until("stopped", || wal.check().is_err());
    let (answer, answers) = mpsc::channel();
    let waits = thread::spawn(move || answer.send(first.wait()));
    let early = answers.recv_timeout(A_MOMENT).ok();
    drop(pool);
    let answer = early.unwrap_or_else(|| answers.recv_timeout(LIMIT).expect("answered"));
    waits.join().expect("no panic").expect("heard");
    leads.join().expect("no panic").expect("durable");
    ends.join().expect("no panic");
    assert!(told.recv().expect("told").is_ok());
    answer.expect("it is durable");
}

/// It may still be written well, and then callbacks are told so.
#[test]
fn what_is_being_written_when_the_log_ends_is_waited_for() {
    let disk = disk();
    let wal = Arc::new(options().background(false).open_disk(disk.clone()).expect("formatted"));
    let go = hold(&disk);
    let lsn = wal.submit(put(b"k")).expect("room").lsn();
    let log = Arc::clone(&wal);
    let leads = thread::spawn(move || log.sync());
    until("in flight", || wal.engine.seq.lock().frames_taken == 1);
    let behind = wal.submit(put(b"l")).expect("room").lsn();
    wal.engine.stop(&Error::Closed, None);
    let ticket = wal.engine.ticket_of(lsn);
    assert!(matches!(wal.engine.ticket_of(behind), Err(Error::Closed)), "nobody writes it any more");
    drop(go);
    leads.join().expect("no panic").expect("durable");
    let ticket = ticket.expect("it may still succeed").expect("it is not durable yet");
    wal.engine.drive(&ticket).expect("durable");
}

/// A disk is other people's code: a frame whose writer is gone would be waited for for ever.
#[test]
fn a_disk_that_panics_poisons_the_log() {
    // Also one whose frames have payloads beside them.
    for len in [1, 20_000] {
        let disk = disk();
        let wal = Arc::new(options().open_disk(disk.clone()).expect("formatted"));
        wal.commit(put(b"k")).expect("room");
        disk.on_event(|_| panic!("as planned: a bug of the disk's"));
        let (tell, told) = mpsc::channel();
        let log = Arc::clone(&wal);
        thread::spawn(move || {
            let first = log.commit(Batch::new().append(2, &[(1, 1, vec![7; len])]));
            let _ = tell.send((first.map(drop), log.commit(put(b"m")).map(drop), log.close()));
        });
        let told = told.recv_timeout(LIMIT);
        std::mem::forget(wal);
        let poisoned = |outcome: &crate::Result<()>| matches!(outcome, Err(Error::Poisoned { .. }));
        let well = matches!(&told, Ok((first, next, _)) if poisoned(first) && poisoned(next));
        assert!(well, "{len} bytes: {told:?}");
    }
}

/// Nobody else frees segments: a caller that waits for one is told.
#[test]
fn a_disk_that_panics_where_the_cleaner_reads_leaves_nobody_waiting() {
    let disk = disk();
    let wal = options().placement(Placement::Journal).recent_bytes(1 << 20).open_disk(disk.clone()).expect("formatted");
    let wal = Arc::new(wal);
    disk.on_read(|_, _| panic!("as planned: a bug of the disk's"));
    let (tell, told) = mpsc::channel();
    let log = Arc::clone(&wal);
    thread::spawn(move || {
        let append = |i: u64| log.commit(Batch::new().append(i % 40 + 1, &[(i / 40 + 1, 1, vec![7; 2000])]));
        let _ = tell.send((0..).find_map(|i| append(i).err()));
    });
    let told = told.recv_timeout(LIMIT);
    std::mem::forget(wal);
    assert!(matches!(told, Ok(Some(Error::Poisoned { .. }))), "{told:?}");
}

/// Wherever it was: nobody does what it left undone.
#[test]
fn a_thread_of_the_log_that_panics_poisons_it() {
    let wal = options().background(false).open_disk(disk()).expect("formatted");
    wal.start("strandlog-test", |_| panic!("as planned: a bug of ours")).expect("started");
    until("poisoned", || wal.check().is_err());
    assert!(matches!(wal.check(), Err(Error::Poisoned { ref cause }) if cause.contains("panicked")));
    assert!(matches!(wal.commit(put(b"k")), Err(Error::Poisoned { .. })));
}

/// The first close finds out; the second is told the same, though it came while the log seemed to be closed.
#[test]
fn whoever_closes_beside_a_close_that_fails_is_told_so() {
    let disk = disk();
    let wal = options().background(false).open_disk(disk.clone()).expect("formatted");
    wal.commit(put(b"k")).expect("room");
    let ((tell, told), (go, held)) = (mpsc::channel(), mpsc::channel::<()>());
    let held = std::sync::Mutex::new((tell, held));
    disk.on_event(move |event| {
        // The superblock that says that it was closed.
        let superblock = event.offset < (32 << 10) && event.kind != EventKind::Flush;
        superblock.then(|| {
            let held = held.lock().expect("no panic");
            let _ = (held.0.send(()), held.1.recv());
            Fault::Error(EIO)
        })
    });
    let outcomes = thread::scope(|scope| {
        let first = scope.spawn(|| wal.close());
        told.recv_timeout(LIMIT).expect("the superblock is written");
        assert!(matches!(wal.engine.seq.lock().stopped, Some(Error::Closed)), "frozen");
        let second = scope.spawn(|| wal.close());
        thread::sleep(A_MOMENT);
        drop(go);
        [first, second].map(|closer| closer.join().expect("no panic"))
    });
    for outcome in outcomes.into_iter().chain([wal.close()]) {
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }
}

/// As a subscriber that writes to something closed does.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        panic!("as planned");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn whoever_waits_is_told_that_the_log_failed_though_saying_so_panics() {
    let disk = disk();
    // A thread that still waits would keep it for ever.
    let wal = std::mem::ManuallyDrop::new(options().background(false).open_disk(disk.clone()).expect("formatted"));
    wal.commit(put(b"k")).expect("room");
    disk.fail_at(disk.events(), Fault::Error(EIO));
    let (tell, told) = mpsc::channel();
    wal.submit_with(put(b"l"), move |_| panic!("as planned")).expect("room");
    wal.submit_with(put(b"m"), move |outcome| tell.send(outcome).expect("heard")).expect("room");
    let commit = AssertUnwindSafe(|| tracing::subscriber::with_default(Panics, || wal.commit(put(b"n"))));
    let committed = catch_unwind(commit);
    let heard = told.try_recv();
    assert!(matches!(heard, Ok(Err(Error::Poisoned { .. }))), "{heard:?}");
    assert!(matches!(committed, Ok(Err(Error::Poisoned { .. }))));
    assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
    drop(std::mem::ManuallyDrop::into_inner(wal));
}

/// Whatever it was that panicked: waiters for the frame, its callbacks, and a thread that ends the log do not wait for ever.
#[test]
fn a_frame_whose_writer_panicked_is_given_up() {
    let wal = std::mem::ManuallyDrop::new(options().background(false).open_disk(disk()).expect("formatted"));
    let engine = &wal.engine;
    let pending = wal.submit(put(b"k")).expect("room");
    let (tell, told) = mpsc::channel();
    let hears = |n| {
        let tell = tell.clone();
        move |outcome: crate::Result<_>| tell.send((n, outcome.is_ok())).expect("heard")
    };
    wal.submit_with(put(b"j"), hears(1)).expect("room");
    let frame = {
        let mut s = engine.seq.lock();
        s.open.wanted = true;
        s.take(engine.durable(), &engine.recent).expect("a frame")
    };
    let behind = wal.submit(put(b"l")).expect("room");
    wal.submit_with(put(b"m"), hears(2)).expect("room");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _tell_after_the_locks = engine.hold();
        let _carrying = Carrying { engine, frame: Some(frame) };
        panic!("as planned");
    }));
    assert!(unwound.is_err() && engine.seq.lock().in_flight.is_empty());
    for pending in [pending, behind] {
        assert!(pending.is_done() && matches!(pending.wait(), Err(Error::Poisoned { .. })));
    }
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(1, false), (2, false)], "in the order of the log");
    assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
    drop(std::mem::ManuallyDrop::into_inner(wal));
}
