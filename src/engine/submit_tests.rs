//! The ways in: callers that wait for room, those that may not, and which of them is let in first.

use super::Arc;
use crate::disk::sim::SimDisk;
use crate::{Batch, Error, Wal};

/// The very first batch: nothing before it has asked for growth, nor does anything else while it is tried again.
#[test]
fn who_does_not_wait_has_the_journal_grown_for_the_next_attempt() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096);
    let wal = options.open_disk(Arc::new(SimDisk::new(6 << 20))).expect("formatted");
    let before = wal.stats();
    // Small replicas, together more than three quarters of what so small a journal carries.
    let mut batch = Batch::new();
    for replica in 1..=97 {
        batch.append(replica, &[(1, 1, [7; 400])]);
    }
    let mut attempts = 0;
    while let Err(error) = wal.try_submit(&mut batch) {
        assert!(matches!(error, Error::Busy { .. }) && attempts < 10_000, "{attempts}: {error}");
        attempts += 1;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let stats = wal.stats();
    assert!(attempts > 0 && stats.journal_segments > before.journal_segments, "{attempts}: {stats:#?}");
    assert_eq!(
        stats.reserved_chunks, stats.reserved_for_values,
        "no small replica takes a chunk while the journal can grow"
    );
}

#[test]
fn a_lazy_batch_asks_for_no_write_until_half_the_queue_is_lazy() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).queue_bytes(64 << 10).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    let wanted = || wal.engine.seq.lock().open.wanted;
    let mut lazy = 0;
    while !wanted() {
        lazy += 1;
        drop(wal.submit(Batch::new().put(lazy, b"commit", &[1; 3000]).lazy()).expect("submitted"));
        assert!(lazy < 20, "the queue fills with what nobody writes");
    }
    assert!(lazy > 10, "{lazy} of 3 kB were enough of 32");
    wal.sync().expect("written");
    drop(wal.submit(Batch::new().put(1, b"commit", b"v").lazy()).expect("submitted"));
    assert!(!wanted());
    drop(wal.submit(Batch::new().put(1, b"vote", b"v")).expect("submitted"));
    assert!(wanted());
}

/// Not for ever: a sector under what is alive went bad, and the cleaner cannot go on.
#[test]
fn who_waits_for_a_cleaner_that_cannot_read_is_told() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
    let wal = Arc::new(options.recent_bytes(1 << 20).open_disk(disk.clone()).expect("formatted"));
    disk.fail_reads(0..4 << 20, crate::disk::sim::EIO);
    let (told, outcome) = std::sync::mpsc::channel();
    let log = Arc::clone(&wal);
    let appends = std::thread::spawn(move || {
        for i in 1..=100_000 {
            // All of the first replica stays alive.
            let (replica, first) = if i % 4 == 0 { (1, 1) } else { (2, i) };
            let index = if replica == 1 { i / 4 } else { i };
            let mut batch = Batch::new();
            if replica == 2 {
                batch.install_snapshot(2, index - 1, 1).append(2, &[(index, 1, [7; 3000])]).truncate_prefix(2, first);
            } else {
                batch.append(1, &[(index, 1, [9; 3000])]);
            }
            if let Err(error) = log.commit(&mut batch) {
                let _ = told.send((i, error));
                return;
            }
        }
    });
    let (i, error) = outcome.recv_timeout(std::time::Duration::from_secs(60)).expect("told, and not left waiting");
    assert!(matches!(&error, Error::Io { .. }), "append {i}: {error}");
    appends.join().expect("ended");
    disk.heal_reads();
    let mut batch = Batch::new();
    batch.append(3, &[(1, 1, [1; 3000])]);
    wal.commit(&mut batch).expect("nothing was lost, and there is room again");
    assert_eq!(wal.replica(1).entry(1).expect("kept").data, [9; 3000][..]);
}

/// A poller is told so, too.
#[test]
fn who_polls_beside_a_cleaner_that_cannot_read_is_told() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
    let wal = options.recent_bytes(1 << 20).open_disk(disk.clone()).expect("formatted");
    wal.commit(Batch::new().append(1, &[(1, 1, [9; 3000])])).expect("committed");
    disk.fail_reads(0..4 << 20, crate::disk::sim::EIO);
    let failures = || wal.engine.cleaner.lock().failed.0;
    let mut index = 0;
    let mut next_error = |most: u64| loop {
        index += 1;
        let mut batch = Batch::new();
        batch.install_snapshot(2, index - 1, 1).append(2, &[(index, 1, [7; 3000])]).truncate_prefix(2, index);
        loop {
            match wal.try_submit(&mut batch) {
                Ok(_) => break,
                Err(Error::Busy { .. }) => assert!(failures() < most, "{most} failures, and nobody is told"),
                Err(error) => return error,
            }
            std::thread::yield_now();
        }
    };
    for _ in 0..2 {
        let before = failures();
        let error = next_error(before + 1000);
        assert!(matches!(&error, Error::Io { .. }), "{error}");
        assert!(failures() > before, "each after an attempt of its own");
    }
}

/// A task is told, and does not spin: each failure wakes it, and it would ask the cleaner again.
#[test]
fn a_task_that_waits_for_a_cleaner_that_cannot_read_is_told() {
    for with_callback in [false, true] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
        let wal = Arc::new(options.recent_bytes(1 << 20).open_disk(disk.clone()).expect("formatted"));
        let mut first = Batch::new();
        first.append(1, &[(1, 1, [9; 3000])]);
        wal.commit(first).expect("committed");
        disk.fail_reads(0..4 << 20, crate::disk::sim::EIO);
        let (told, outcome) = std::sync::mpsc::channel();
        let log = Arc::clone(&wal);
        let appends = std::thread::spawn(move || {
            for i in 1..=100_000 {
                let mut batch = Batch::new();
                batch.install_snapshot(2, i - 1, 1).append(2, &[(i, 1, [7; 3000])]).truncate_prefix(2, i);
                let submitted = block_on(async {
                    if with_callback {
                        log.submit_with_async(batch, drop).await.map(drop)
                    } else {
                        log.submit_async(batch).await?.await.map(drop)
                    }
                });
                if let Err(error) = submitted {
                    let _ = told.send((i, error));
                    return;
                }
            }
        });
        let told = outcome.recv_timeout(std::time::Duration::from_secs(20));
        let failed = wal.engine.cleaner.lock().failed.0;
        let (i, error) = told.unwrap_or_else(|e| panic!("{e}: asked again and again, {failed} times"));
        assert!(matches!(&error, Error::Io { .. }), "append {i}: {error}");
        // Each segment that is begun asks once, and the task a few times at the end.
        assert!(failed <= 2 * wal.stats().journal_segments, "append {i}: {failed} cleanings failed");
        appends.join().expect("ended");
        disk.heal_reads();
        let mut batch = Batch::new();
        batch.append(3, &[(1, 1, [1; 3000])]);
        block_on(async { wal.submit_async(batch).await?.await }).expect("nothing was lost, and there is room again");
        assert_eq!(wal.replica(1).entry(1).expect("kept").data, [9; 3000][..]);
    }
}

pub(in crate::engine) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(outcome) => return outcome,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// The cleaner waits for the frame that is being completed, and its completion would wait for the cleaner.
#[test]
fn a_callback_is_refused_a_checkpoint() {
    let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(SimDisk::new(4 << 20)));
    let wal = Arc::new(wal.expect("formatted"));
    let (told, outcome) = std::sync::mpsc::channel();
    let log = Arc::clone(&wal);
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, b"entry")]);
    wal.submit_with(&mut batch, move |_| told.send(log.checkpoint()).expect("heard")).expect("submitted");
    wal.sync().expect("written");
    let refused = outcome.recv().expect("told");
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    wal.checkpoint().expect("behind it");
}

/// It asks for the cleaner's lock, too, and reads all there is; nor does a scrub belong there.
#[test]
fn a_callback_is_refused_a_verification() {
    let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(SimDisk::new(4 << 20)));
    let wal = Arc::new(wal.expect("formatted"));
    let (told, outcome) = std::sync::mpsc::channel();
    let log = Arc::clone(&wal);
    let done = move |_| {
        let scrubbed = log.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(()));
        told.send([log.verify(|_| ()).map(drop), scrubbed.map(drop)]).expect("heard");
    };
    wal.submit_with(Batch::new().put(1, b"k", b"v"), done).expect("submitted");
    wal.sync().expect("written");
    let refused = outcome.recv().expect("told");
    assert!(refused.iter().all(|r| matches!(r, Err(Error::Busy { .. }))), "{refused:?}");
    assert!(wal.verify(|_| ()).expect("behind it").is_clean());
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// All are let in once a frame is written: without an order, smaller ones that find room at once would keep it out for ever.
#[test]
fn a_batch_larger_than_the_queue_is_overtaken_by_none_that_comes_later() {
    let disk = Arc::new(SimDisk::new(32 << 20));
    let options = Wal::options().segment_size(256 << 10).chunk_size(4096).queue_bytes(64 << 10);
    let wal = Arc::new(options.placement(crate::Placement::Journal).open_disk(disk.clone()).expect("formatted"));
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    disk.on_event(move |_| {
        let _ = held.lock().expect("no panic").recv();
        None
    });
    let batch = |replica: u64, len: usize| {
        let mut batch = Batch::new();
        batch.append(replica, &[(1, 1, vec![replica as u8; len])]);
        batch
    };
    let first = wal.submit(batch(1, 30_000)).expect("it is empty");
    let spawn = |replica: u64, len: usize, stalls: u64| {
        let log = Arc::clone(&wal);
        let batch = batch(replica, len);
        let thread = std::thread::spawn(move || log.submit(batch).expect("room"));
        // The disk answers nothing meanwhile, so its figures are not asked for.
        until("it waits for room", || wal.engine.counters.stalls.get() == stalls);
        thread
    };
    let large = spawn(2, 100_000, 1);
    // There is room for these.
    assert!(matches!(wal.try_submit(batch(3, 1000)), Err(Error::Busy { .. })));
    let small = spawn(4, 1000, 2);
    drop(hold);
    let [large, small] = [large, small].map(|thread| thread.join().expect("no panic").wait().expect("durable"));
    assert!(first.wait().expect("durable") < large && large < small, "{large} {small}");
    drop(wal.try_submit(batch(3, 1000)).expect("nobody waits any more"));
}

struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

/// Nothing is written that would wake it otherwise.
#[test]
fn a_task_that_was_refused_for_the_line_is_woken_when_the_last_goes_with_a_refusal() {
    let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(SimDisk::new(4 << 20)));
    let wal = Arc::new(wal.expect("formatted"));
    let first = wal.engine.seq.lock().line.join();
    let log = Arc::clone(&wal);
    let second = std::thread::spawn(move || log.submit(Batch::new().append(1, &[(7, 1, b"no entry is before it")])));
    until("it stands in line", || wal.stats().stalls == 1);
    let woken = Arc::new(Woken(false.into()));
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let mut batch = Batch::new();
    batch.put(1, b"k", b"v");
    let mut task = std::pin::pin!(wal.submit_async(batch));
    let mut poll = || task.as_mut().poll(&mut std::task::Context::from_waker(&waker));
    assert!(poll().is_pending());
    {
        let mut s = wal.engine.seq.lock();
        assert!(s.line.is_first(first));
        s.line.leave();
    }
    wal.engine.room.notify_all();
    let refused = second.join().expect("no panic");
    assert!(matches!(refused, Err(Error::Gap { .. })), "{refused:?}");
    until("the task is woken", || woken.0.load(std::sync::atomic::Ordering::Acquire));
    let std::task::Poll::Ready(submitted) = poll() else { panic!("nobody stands in line") };
    block_on(submitted.expect("there is room")).expect("durable");
}
