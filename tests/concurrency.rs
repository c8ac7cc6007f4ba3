//! Writers, readers, truncation and cleaning all at once: no wrong byte, no acknowledgement out of order, nobody left waiting.

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::task::{Context, Waker};

use strandlog::disk::Disk;
use strandlog::disk::sim::{EventKind, SimDisk};
use strandlog::{Batch, Error, Placement, ReadMode, Wal};

use support::schedule::block_on;
use support::{PLACEMENTS, assert_sound, open, payload, small};

const WRITERS: u64 = 8;

/// A reader may find that an entry has gone, and must never find a wrong one.
fn read_a_little(wal: &Wal, replica: u64, turn: u64) -> u64 {
    let r = wal.replica(replica);
    let (first, last) = r.bounds();
    if last < first {
        return 0;
    }
    let check = |e: &strandlog::Entry| {
        let want = payload(replica, e.index, e.term, len(replica, e.index));
        assert!(e.data == want, "replica {replica} entry {}: wrong bytes", e.index);
    };
    let index = first + turn % (last - first + 1);
    let fine = |error: &Error| {
        matches!(error, Error::Compacted { .. } | Error::OutOfRange { .. } | Error::UnknownReplica { .. })
    };
    match r.entry(index) {
        Ok(e) => {
            assert_eq!(e.index, index);
            check(&e);
        }
        Err(error) => assert!(fine(&error), "replica {replica} entry {index}: {error}"),
    }
    match r.entries(index..last + 1, 50_000) {
        Ok(entries) => {
            assert!(entries.iter().zip(index..).all(|(e, i)| e.index == i), "replica {replica}: a hole");
            entries.iter().for_each(check);
            entries.len() as u64
        }
        Err(error) => {
            assert!(fine(&error), "replica {replica} from {index}: {error}");
            0
        }
    }
}

fn len(replica: u64, index: u64) -> usize {
    match (replica * 31 + index * 7) % 50 {
        0 => 9000,
        1 => 0,
        n => n as usize * 30,
    }
}

fn write(wal: &Wal, writer: u64, turns: u64) {
    let replicas = [writer * 3, writer * 3 + 1, writer * 3 + 2];
    let mut batch = Batch::new();
    for turn in 0..turns {
        for replica in replicas {
            let (first, last) = wal.replica(replica).bounds();
            let from = if turn % 13 == 5 && last >= first { last } else { last + 1 };
            let entries: Vec<_> =
                (from..from + 1 + turn % 3).map(|i| (i, turn, payload(replica, i, turn, len(replica, i)))).collect();
            batch.append(replica, &entries);
            let kept = if replica % 5 == 0 { 60 } else { 10 };
            batch.truncate_prefix(replica, first.max(last.saturating_sub(kept)));
        }
        let tops: Vec<u64> = replicas.map(|r| wal.replica(r).last_index()).to_vec();
        match turn % 3 {
            0 => drop(wal.commit(&mut batch).expect("committed")),
            _ => {
                let pending = wal.submit(&mut batch).expect("submitted");
                // Readable at once.
                for (replica, before) in replicas.iter().zip(tops) {
                    let r = wal.replica(*replica);
                    let last = r.last_index();
                    assert!(last >= before);
                    let e = r.entry(last).expect("what was submitted is readable");
                    assert!(e.data == payload(*replica, last, turn, len(*replica, last)));
                }
                if turn % 3 == 1 {
                    let lsn = pending.lsn();
                    assert_eq!(pending.wait().expect("durable"), lsn);
                    assert!(wal.durable_lsn() >= lsn);
                }
            }
        }
        if turn % 60 == 59 {
            wal.commit(Batch::new().remove(replicas[1])).expect("removed");
        }
    }
}

fn everything_at_once(wal: &Wal, turns: u64) {
    let done = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    let finished = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (done, read) = (&done, &read);
            scope.spawn(move || {
                let mut turn = reader;
                while !done.load(Ordering::Relaxed) {
                    turn += 1;
                    read.fetch_add(read_a_little(wal, turn % (WRITERS * 3), turn * 0x9e37), Ordering::Relaxed);
                }
            });
        }
        let checkpoints = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                wal.checkpoint().expect("cleaned");
            }
        });
        for writer in 0..WRITERS {
            let (done, finished) = (&done, &finished);
            scope.spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write(wal, writer, turns)));
                if finished.fetch_add(1, Ordering::Relaxed) + 1 == WRITERS || outcome.is_err() {
                    done.store(true, Ordering::Relaxed);
                }
                outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            });
        }
        checkpoints.join().expect("no panic");
    });
    assert!(read.load(Ordering::Relaxed) > 100, "the readers had something to read");
    assert_sound(wal, "after everything at once");
}

#[test]
fn readers_never_see_a_wrong_byte_on_a_real_file() {
    for (placement, mode) in [
        (Placement::Auto, ReadMode::Mapped),
        (Placement::Chain, ReadMode::Mapped),
        (Placement::Journal, ReadMode::Copied),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let options = || {
            Wal::options()
                .capacity(12 << 20)
                .chunk_size(4096)
                .segment_size(128 << 10)
                .direct_threshold(8 << 10)
                .recent_bytes(1 << 20)
                .placement(placement)
                .read_mode(mode)
        };
        let wal = options().open(&path).expect("created");
        everything_at_once(&wal, 150);
        assert!(wal.stats().segments_cleaned > 2, "{:#?}", wal.stats());
        let before = support::model::Model::read(&wal).expect("readable");
        wal.sync().expect("synced");
        drop(wal);
        let wal = options().open(&path).expect("reopened");
        let after = support::model::Model::read(&wal).expect("readable");
        assert!(before == after, "{}", before.difference(&after));
        assert_sound(&wal, "reopened");
    }
}

#[test]
fn readers_never_see_a_wrong_byte_on_the_simulated_disk() {
    support::for_each(&PLACEMENTS, |placement| {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let wal = open(small(placement).background(true), &disk);
        everything_at_once(&wal, 120);
    });
}

#[test]
fn callbacks_come_once_each_in_order_of_lsn_and_never_before_the_watermark() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(small(Placement::Auto).background(true), &disk);
    let told: Arc<Mutex<Vec<strandlog::Lsn>>> = Arc::default();
    let mut lsns: Vec<strandlog::Lsn> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6_u64)
            .map(|t| {
                let (wal, told) = (&wal, &told);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for i in 1..=100_u64 {
                        let told = Arc::clone(told);
                        let mut b = Batch::new();
                        b.append(t, &[(i, 1, [t as u8; 50])]);
                        if i > 10 {
                            b.truncate_prefix(t, i - 10);
                        }
                        let lsn = wal
                            .submit_with(b, move |outcome| {
                                told.lock().expect("alive").push(outcome.expect("durable"));
                            })
                            .expect("submitted");
                        mine.push(lsn);
                    }
                    assert!(mine.is_sorted(), "one thread's batches are in order");
                    mine
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    wal.sync().expect("synced");
    wal.close().expect("closed");
    let told = told.lock().expect("alive");
    assert!(told.is_sorted(), "callbacks in order of LSN");
    lsns.sort_unstable();
    assert_eq!(*told, lsns, "each once");
}

#[test]
fn the_watermark_is_monotone_and_covers_whoever_waited_for_it() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(small(Placement::Auto).background(true), &disk);
    std::thread::scope(|scope| {
        for t in 0..4_u64 {
            let wal = &wal;
            scope.spawn(move || {
                let mut seen = wal.durable_lsn();
                for i in 1..=100_u64 {
                    let lsn = wal.submit(Batch::new().append(t, &[(i, 1, b"x")])).expect("submitted").lsn();
                    if i % 3 == 0 {
                        wal.wait_durable(lsn).expect("durable");
                        assert!(wal.durable_lsn() >= lsn);
                    }
                    let now = wal.durable_lsn();
                    assert!(now >= seen, "the watermark went back");
                    seen = now;
                }
            });
        }
    });
}

/// A disk whose writes wait until they are let through.
#[derive(Debug)]
struct Gate {
    disk: Arc<SimDisk>,
    closed: Mutex<bool>,
    opened: Condvar,
    /// Told of each write that waits.
    waiting: Mutex<mpsc::Sender<EventKind>>,
}

impl Gate {
    fn new() -> (Arc<Self>, mpsc::Receiver<EventKind>) {
        let (sender, receiver) = mpsc::channel();
        let disk = Arc::new(SimDisk::new(4 << 20));
        let (closed, opened, waiting) = (Mutex::new(false), Condvar::new(), Mutex::new(sender));
        (Arc::new(Self { disk, closed, opened, waiting }), receiver)
    }
    fn shut(&self, closed: bool) {
        *self.closed.lock().expect("alive") = closed;
        self.opened.notify_all();
    }
    fn pass(&self, kind: EventKind) {
        let mut closed = self.closed.lock().expect("alive");
        if *closed {
            let _ = self.waiting.lock().expect("alive").send(kind);
        }
        while *closed {
            closed = self.opened.wait(closed).expect("alive");
        }
    }
}

impl Disk for Gate {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.pass(EventKind::Write);
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.pass(EventKind::WriteDurable);
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.pass(EventKind::Flush);
        self.disk.flush()
    }
}

/// Opens a log, lets a first batch reach the disk and stop there.
fn stopped_log(queue: usize) -> (Arc<Gate>, Wal, strandlog::Pending) {
    let (gate, waiting) = Gate::new();
    let wal = small(Placement::Auto).background(true).queue_bytes(queue).open_disk(gate.clone()).expect("opened");
    gate.shut(true);
    let first = wal.submit(Batch::new().append(1, &[(1, 1, b"first")])).expect("submitted");
    waiting.recv().expect("its frame is at the disk");
    (gate, wal, first)
}

#[test]
fn nothing_is_acknowledged_and_everything_is_readable_while_the_disk_stands_still() {
    let (gate, wal, first) = stopped_log(1 << 20);
    let durable = wal.durable_lsn();
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let mut b = Batch::new();
    b.append(2, &[(1, 1, payload(2, 1, 1, 20_000)), (2, 1, payload(2, 2, 1, 0))]).put(2, b"k", &[5; 6000]);
    let lsn = wal.submit_with(b, move |_| tell.store(true, Ordering::SeqCst)).expect("submitted");
    assert!(!first.is_done() && wal.durable_lsn() == durable && first.lsn() > durable);
    assert_eq!(wal.replica(1).entry(1).expect("readable").data, b"first"[..]);
    assert_eq!(wal.replica(2).entry(1).expect("readable").data, payload(2, 1, 1, 20_000));
    assert_eq!(wal.replica(2).entry(2).expect("readable").data, b""[..]);
    assert_eq!(wal.replica(2).get(b"k").expect("readable").expect("there"), vec![5; 6000]);
    assert!(!told.load(Ordering::SeqCst) && wal.durable_lsn() < lsn);
    gate.shut(false);
    wal.wait_durable(lsn).expect("durable");
    assert!(first.is_done());
    wal.sync().expect("synced");
    wal.close().expect("closed");
    assert!(told.load(Ordering::SeqCst));
}

#[test]
fn a_full_queue_is_busy_to_try_submit_and_waits_for_the_others() {
    let (gate, wal, _first) = stopped_log(64 << 10);
    let big = |i: u64| {
        let mut b = Batch::new();
        b.append(5, &[(i, 1, payload(5, i, 1, 7000))]);
        b
    };
    let mut accepted = 0;
    let error = loop {
        match wal.try_submit(big(accepted + 1)) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Busy { queued, limit } if limit == 64 << 10 && queued <= limit), "{error}");
    assert!((5..=10).contains(&accepted), "{accepted} batches of 7000 bytes in 64 KiB");
    assert_eq!(wal.replica(5).last_index(), accepted, "a busy answer changes nothing");
    assert!(wal.stats().queued_bytes <= 64 << 10);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let (wal, big) = (&wal, &big);
        let blocked = scope.spawn(move || {
            sender.send(()).expect("heard");
            wal.submit(big(accepted + 1)).expect("submitted in the end").wait()
        });
        receiver.recv().expect("it is about to wait");
        let waiting = scope.spawn(move || {
            block_on(async {
                let mut b = Batch::new();
                b.append(6, &[(1, 1, payload(6, 1, 1, 7500))]);
                wal.submit_async(b).await.expect("submitted").await
            })
        });
        gate.shut(false);
        blocked.join().expect("no panic").expect("durable");
        waiting.join().expect("no panic").expect("durable");
    });
    assert_eq!(wal.replica(5).last_index(), accepted + 1);
    assert_eq!(wal.replica(6).last_index(), 1);
    wal.try_submit(big(accepted + 2)).expect("there is room again").wait().expect("durable");
}

/// Even a callback with an empty batch takes room: otherwise there would be no end to them while the disk stands still.
#[test]
fn who_is_to_be_told_takes_room_in_the_queue_though_a_batch_says_nothing() {
    let (gate, wal, _first) = stopped_log(64 << 10);
    let told = Arc::new(AtomicU64::new(0));
    let mut asked = 0;
    let refused = loop {
        let told = Arc::clone(&told);
        let done = move |_| {
            told.fetch_add(1, Ordering::SeqCst);
        };
        match wal.try_submit_with(Batch::new(), done) {
            Ok(_) if asked < 100_000 => asked += 1,
            outcome => break outcome,
        }
    };
    gate.shut(false);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{asked} wait, and the next: {refused:?}");
    wal.sync().expect("written");
    let mut batch = Batch::new();
    wal.commit(batch.put(1, b"k", b"v")).expect("there is room again");
    wal.close().expect("closed");
    assert_eq!(told.load(Ordering::SeqCst), asked, "each once");
}

/// Lazy batches are never written for their own sake: a caller that waits for their room must have them written.
#[test]
fn a_task_that_waits_behind_lazy_batches_gets_its_room() {
    let (gate, wal, _first) = stopped_log(64 << 10);
    gate.shut(false);
    wal.sync().expect("written");
    // The log seals itself once when it rests, and then writes nothing of its own accord.
    let frames = wal.stats().frames;
    while wal.stats().frames == frames {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(wal.submit(Batch::new().put(1, b"commit", &[1; 300]).lazy()).expect("submitted"));
    let whole = |i: u64| {
        let mut b = Batch::new();
        b.append(5, &[(i, 1, payload(5, i, 1, 65_400))]);
        b
    };
    let refused = wal.try_submit(whole(1));
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    block_on(async { wal.submit_async(whole(1)).await.expect("submitted").await }).expect("durable");
    assert_eq!(wal.replica(5).last_index(), 1);
}

#[test]
fn a_task_that_waits_for_room_is_told_of_durability_by_its_callback() {
    let (gate, wal, _first) = stopped_log(64 << 10);
    let big = |i: u64| {
        let mut b = Batch::new();
        b.append(5, &[(i, 1, payload(5, i, 1, 7000))]);
        b
    };
    let (sender, receiver) = mpsc::channel();
    let done = |i: u64| {
        let sender = sender.clone();
        move |outcome: strandlog::Result<strandlog::Lsn>| sender.send((i, outcome.expect("durable"))).expect("heard")
    };
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut accepted = 0;
    let mut waiting = loop {
        let mut submitting = Box::pin(wal.submit_with_async(big(accepted + 1), done(accepted + 1)));
        match submitting.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(lsn) => drop(lsn.expect("accepted")),
            std::task::Poll::Pending => break submitting,
        }
        accepted += 1;
    };
    assert!((5..=10).contains(&accepted), "{accepted} batches of 7000 bytes in 64 KiB");
    // A submission that is dropped while it waits never happened, and nobody is told of it.
    let mut dropped = Box::pin(wal.submit_with_async(big(accepted + 1), |_| panic!("it was never submitted")));
    assert!(dropped.as_mut().poll(&mut cx).is_pending());
    drop(dropped);
    assert!(receiver.try_recv().is_err() && wal.replica(5).last_index() == accepted);
    gate.shut(false);
    let lsn = block_on(&mut waiting).expect("accepted in the end");
    for i in 1..=accepted + 1 {
        let (n, at) = receiver.recv().expect("told");
        assert_eq!(n, i, "in the order of the log");
        assert!(i <= accepted || at == lsn);
    }
    assert_eq!(wal.replica(5).last_index(), accepted + 1);
}

/// A log is not full before everything that makes room was tried; for a task the log's own thread does that.
#[test]
fn a_task_finds_the_room_that_a_truncation_has_just_made() {
    let options = small(Placement::Auto).background(true).journal_cap(6 * (64 << 10));
    let wal = open(options, &Arc::new(SimDisk::new(12 * (64 << 10) + (64 << 10))));
    let append = |replica: u64, i: u64| {
        let mut b = Batch::new();
        b.append(replica, &[(i, 1, payload(replica, i, 1, 9000))]);
        b
    };
    let submit = |b: Batch| block_on(async { wal.submit_async(b).await?.await });
    let mut last = 0;
    let error = loop {
        match submit(append(1, last + 1)) {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Full(report) if report.holders[0].0 == 1), "{error:?}");
    for i in 1..=10 {
        // Lazy: the truncation is not durable, and frees nothing, before somebody asks for it.
        drop(wal.submit(Batch::new().truncate_prefix(1, i * last / 12).lazy()).expect("submitted"));
        submit(append(2, i)).unwrap_or_else(|e| panic!("{i} of {last}: {e}"));
    }
    assert_sound(&wal, "relieved");
}

/// A caller that waits for room while others make it finds it made; one that finds it taken again makes more.
#[test]
fn many_who_find_the_log_full_at_once_all_get_through() {
    const CALLERS: u64 = 16;
    for tasks in [false, true] {
        let options = small(Placement::Journal).background(true).journal_cap(12 * (64 << 10));
        let wal = open(options, &Arc::new(SimDisk::new(40 * (64 << 10) + (64 << 10))));
        let append = |replica: u64, i: u64| {
            let mut b = Batch::new();
            b.append(replica, &[(i, 1, payload(replica, i, 1, 3000))]);
            b
        };
        let mut last = 0;
        while wal.commit(append(1, last + 1)).is_ok() {
            last += 1;
        }
        // Lazy: the truncation frees nothing before somebody asks for it.
        drop(wal.submit(Batch::new().truncate_prefix(1, last / 2).lazy()).expect("submitted"));
        let start = Barrier::new(CALLERS as usize);
        std::thread::scope(|scope| {
            for replica in 2..2 + CALLERS {
                let (wal, start) = (&wal, &start);
                scope.spawn(move || {
                    start.wait();
                    for i in 1..=3 {
                        let b = append(replica, i);
                        let outcome =
                            if tasks { block_on(async { wal.submit_async(b).await?.await }) } else { wal.commit(b) };
                        outcome.unwrap_or_else(|e| panic!("replica {replica}, entry {i}: {e}: {:#?}", wal.stats()));
                    }
                });
            }
        });
        for replica in 2..2 + CALLERS {
            assert_eq!(wal.replica(replica).bounds(), (1, 3));
        }
        assert_sound(&wal, "all got through");
    }
}

/// `stats` once took the superblock's lock, which the cleaner holds while it writes the superblock.
#[test]
fn figures_are_given_while_the_superblock_is_being_written() {
    let (gate, waiting) = Gate::new();
    let wal = small(Placement::Auto).background(true).open_disk(gate.clone()).expect("opened");
    // Fill the last free segments while the disk stands still, so that the cleaner comes and lets the journal grow.
    gate.shut(true);
    let mut writes = 0;
    let mut replica = 1;
    while writes < 2 {
        let mut b = Batch::new();
        b.append(replica, &[(1, 1, payload(replica, 1, 1, 7000))]);
        replica += 1;
        let full = wal.try_submit(b).is_err();
        while let Ok(kind) = waiting.recv_timeout(std::time::Duration::from_millis(if full { 2000 } else { 1 })) {
            writes += u32::from(kind == EventKind::WriteDurable);
            if writes == 2 {
                break;
            }
        }
        assert!(!full || writes == 2, "the journal never grew");
    }
    let stats = wal.stats();
    assert!(stats.journal_cap_segments > 0 && stats.queued_bytes > 0);
    gate.shut(false);
    wal.sync().expect("synced");
}

#[test]
fn dropping_a_pending_gives_up_the_notice_and_not_the_batch() {
    let (gate, wal, first) = stopped_log(1 << 20);
    drop(first);
    let second = wal.submit(Batch::new().append(1, &[(2, 1, b"second")])).expect("submitted");
    let mut polled = pin!(wal.submit(Batch::new().append(1, &[(3, 1, b"third")])).expect("submitted"));
    assert!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(second);
    gate.shut(false);
    wal.sync().expect("synced");
    drop(wal);
    let wal = open(small(Placement::Auto), &Arc::new(gate.disk.crash_lost_all()));
    assert_eq!(wal.replica(1).bounds(), (1, 3));
}

#[test]
fn awaiting_works_with_threads_and_without() {
    for background in [false, true] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(small(Placement::Auto).background(background), &disk);
        // More than the journal holds: without threads the caller cleans it.
        for i in 1..=150_u64 {
            let mut b = Batch::new();
            b.append(1, &[(i, 1, payload(1, i, 1, 100))]);
            if i % 5 == 0 {
                // To await a lazy batch is to want it written.
                b.lazy();
            }
            let lsn = block_on(async { wal.submit_async(b).await.expect("submitted").await }).expect("durable");
            assert!(wal.durable_lsn() >= lsn);
        }
        let wal = open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
        assert_eq!(wal.replica(1).bounds(), (1, 150));
        assert_sound(&wal, "awaited");
    }
}

#[test]
fn closing_under_load_tells_everybody_how_it_ended() {
    for round in 0..10_u64 {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(small(Placement::Auto).background(true), &disk);
        let acknowledged: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u64)
                .map(|t| {
                    let wal = &wal;
                    scope.spawn(move || {
                        let mut done = 0;
                        for i in 1..10_000_u64 {
                            match wal
                                .commit(Batch::new().append(t, &[(i, 1, payload(t, i, 1, 60))]).truncate_prefix(t, i))
                            {
                                Ok(_) => done = i,
                                Err(Error::Closed) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        (t, done)
                    })
                })
                .collect();
            while wal.stats().batches < 20 * (round + 1) {
                std::thread::yield_now();
            }
            wal.close().expect("closed");
            threads.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        let wal = open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
        for (replica, done) in acknowledged {
            assert!(
                wal.replica(replica).last_index() >= done,
                "round {round}: replica {replica}: {done} was acknowledged"
            );
        }
        assert_sound(&wal, "after closing under load");
    }
}

/// Such a commit was left to the writer thread, which was at work on other frames and then rested: nobody had told it that the frame of the
/// lazy batch was wanted.
#[test]
fn a_lazy_commit_beside_a_busy_writer_returns() {
    let dir = tempfile::tempdir().unwrap();
    let options = Wal::options().capacity(16 << 20).segment_size(256 << 10).chunk_size(16 << 10);
    let wal = Arc::new(options.open(dir.path().join("log")).unwrap());
    let threads: Vec<_> = (1..=3_u64)
        .map(|t| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || {
                let mut batch = Batch::new();
                for i in 1..=300_u64 {
                    if t == 1 {
                        batch.put(t, b"commit", &i.to_le_bytes()).lazy();
                    } else {
                        batch.append(t, &[(i, 1, vec![t as u8; 30_000])]).truncate_prefix(t, i);
                    }
                    if t == 1 || i % 20 == 0 {
                        wal.commit(&mut batch).unwrap();
                    } else {
                        drop(wal.submit(&mut batch).unwrap());
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(wal.replica(1).get(b"commit").unwrap().as_deref(), Some(&300_u64.to_le_bytes()[..]));
}

/// A callback runs on the thread that empties the queue: were it to wait for room, nobody would make any.
#[test]
fn what_a_callback_submits_never_waits() {
    let (gate, wal, first) = stopped_log(64 << 10);
    let wal = Arc::new(wal);
    let (sender, told) = mpsc::channel();
    let within = Arc::downgrade(&wal);
    wal.submit_with(Batch::new().append(2, &[(1, 1, b"asks")]), move |_| {
        let wal = within.upgrade().expect("open");
        let mut taken = 0;
        let refused = loop {
            match wal.submit(Batch::new().append(3, &[(taken + 1, 1, [7; 5000])])) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        sender.send((taken, refused)).expect("somebody listens");
    })
    .expect("submitted");
    gate.shut(false);
    let told = told.recv_timeout(std::time::Duration::from_secs(30));
    let (taken, refused) = told.expect("the callback waits for the thread that it runs on");
    assert!(taken > 5 && matches!(refused, Error::Busy { .. }), "{taken}: {refused}");
    first.wait().expect("durable");
    wal.sync().expect("the log goes on");
    assert_eq!(wal.replica(3).last_index(), taken);
}

#[test]
fn a_callback_that_panics_takes_nobody_along() {
    let (gate, wal, first) = stopped_log(1 << 20);
    let (sender, told) = mpsc::channel();
    wal.submit_with(Batch::new().append(2, &[(1, 1, b"a")]), |_| panic!("a callback of the test")).expect("submitted");
    wal.submit_with(Batch::new().append(3, &[(1, 1, b"b")]), move |o| sender.send(o.is_ok()).expect("heard"))
        .expect("submitted");
    gate.shut(false);
    assert!(told.recv_timeout(std::time::Duration::from_secs(30)).expect("told, in the same frame"));
    first.wait().expect("durable");
    wal.commit(Batch::new().append(4, &[(1, 1, b"c")])).expect("the writer thread is alive");
}
