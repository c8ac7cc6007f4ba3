//! Two frames in flight: a later one may be on the disk before an earlier one, and must not count before it.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use strandlog::disk::sim::SimDisk;
use strandlog::disk::{Disk, DiskInfo, Map, SyncMethod};
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::{PLACEMENTS, assert_sound, open, payload, small};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The next frame is kept from the disk, and the gate opens behind it.
    HoldNext,
    /// The next two frames are kept from the disk.
    HoldTwo,
    /// The next frame fails.
    FailNext,
}

/// A disk that holds chosen frames back while others pass.
#[derive(Debug)]
struct Held {
    disk: Arc<SimDisk>,
    gate: Mutex<Gate>,
    /// Whether each held frame will succeed, by the order in which they were held.
    verdicts: Mutex<BTreeMap<usize, bool>>,
    told: Condvar,
    holding: AtomicUsize,
    method: SyncMethod,
    /// Frames that reached the disk.
    passed: AtomicU64,
    /// Offset and bytes of what was held last.
    kept: Mutex<(u64, Vec<u8>)>,
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Held {
    fn new() -> Arc<Self> {
        Self::with(4 << 20, SyncMethod::DirectDsync)
    }

    fn with(len: u64, method: SyncMethod) -> Arc<Self> {
        Arc::new(Self {
            disk: Arc::new(SimDisk::new(len)),
            gate: Mutex::new(Gate::Open),
            verdicts: Mutex::default(),
            told: Condvar::new(),
            holding: AtomicUsize::new(0),
            method,
            passed: AtomicU64::new(0),
            kept: Mutex::new((0, Vec::new())),
        })
    }

    fn set(&self, gate: Gate) {
        *self.gate.lock().expect("no other panic") = gate;
    }

    /// Releases the frame that was held first, of those that still are.
    fn release(&self, ok: bool) {
        let first = self.verdicts.lock().expect("no other panic").len();
        self.release_nth(first, ok);
    }

    fn release_nth(&self, nth: usize, ok: bool) {
        self.verdicts.lock().expect("no other panic").insert(nth, ok);
        self.told.notify_all();
    }

    fn until_held(&self, n: usize) {
        self.until("a frame is held", |d| d.holding.load(Ordering::SeqCst) == n);
    }

    /// Spins until the condition holds: another thread is on its way to it.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if condition(self) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("never: {what}");
    }

    fn pass(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let gate = {
            let mut gate = self.gate.lock().expect("no other panic");
            let next = if *gate == Gate::HoldTwo { Gate::HoldNext } else { Gate::Open };
            std::mem::replace(&mut *gate, next)
        };
        match gate {
            Gate::Open => Ok(()),
            Gate::FailNext => Err(eio()),
            Gate::HoldNext | Gate::HoldTwo => {
                *self.kept.lock().expect("no other panic") = (offset, buf.to_vec());
                let nth = self.holding.fetch_add(1, Ordering::SeqCst);
                let mut verdicts = self.verdicts.lock().expect("no other panic");
                let ok = loop {
                    match verdicts.get(&nth) {
                        Some(&ok) => break ok,
                        None => verdicts = self.told.wait(verdicts).expect("no other panic"),
                    }
                };
                if ok { Ok(()) } else { Err(eio()) }
            }
        }
    }
}

impl Disk for Held {
    fn len(&self) -> u64 {
        Disk::len(&*self.disk)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.pass(offset, buf)?;
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.pass(offset, buf)?;
        self.disk.write_durable_at(offset, buf)?;
        self.passed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()?;
        self.passed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn map(&self) -> Option<Arc<Map>> {
        None
    }
    fn info(&self) -> DiskInfo {
        let mut info = self.disk.info();
        info.method = self.method;
        info
    }
    fn release(&self) {
        self.disk.release();
    }
}

/// The segment size of [`small`].
const SEGMENT: u64 = 64 << 10;

fn options(placement: Placement) -> Options {
    small(placement)
}

fn entry(replica: u64, index: u64) -> Batch {
    let mut batch = Batch::new();
    batch.append(replica, &[(index, 1, payload(replica, index, 1, 9000))]).put(replica, b"k", &index.to_le_bytes());
    batch
}

/// The last index of each of three replicas, whose entries must read as written.
fn lasts(wal: &Wal) -> [u64; 3] {
    [1, 2, 3].map(|r| {
        let replica = wal.replica(r);
        let last = replica.last_index();
        for i in 1..=last {
            assert_eq!(replica.entry(i).expect("held").data, payload(r, i, 1, 9000));
        }
        assert_eq!(replica.get(b"k").expect("readable").map_or(0, |v| v[0]), last as u8);
        last
    })
}

/// A log with one durable entry in replica 3, a frame of replica 1 held back, and one of replica 2 on the disk behind it.
struct Scene {
    disk: Arc<Held>,
    wal: Arc<Wal>,
    first: std::thread::JoinHandle<Result<strandlog::Lsn, Error>>,
    second: std::thread::JoinHandle<Result<strandlog::Lsn, Error>>,
}

fn scene(placement: Placement, second: Gate) -> Scene {
    scene_behind(placement, second, 0)
}

/// As [`scene`], behind `more` further entries of replica 3.
fn scene_behind(placement: Placement, second: Gate, more: u64) -> Scene {
    let disk = Held::new();
    let wal = Arc::new(options(placement).open_disk(disk.clone()).expect("opened"));
    for i in 1..=1 + more {
        wal.commit(entry(3, i)).expect("committed");
    }
    if more > 0 {
        // This leaves the free slabs in another order than an opening finds them in.
        wal.checkpoint().expect("cleaned");
    }
    disk.set(Gate::HoldNext);
    let commit = |replica| {
        let wal = Arc::clone(&wal);
        std::thread::spawn(move || wal.commit(entry(replica, 1)))
    };
    let first = commit(1);
    disk.until_held(1);
    let passed = disk.passed.load(Ordering::SeqCst);
    disk.set(second);
    let second_frame = commit(2);
    if second == Gate::Open {
        disk.until("the second frame is written", |d| d.passed.load(Ordering::SeqCst) > passed);
    } else {
        while !second_frame.is_finished() {
            std::thread::yield_now();
        }
    }
    Scene { disk, wal, first, second: second_frame }
}

#[test]
fn a_frame_behind_a_missing_one_was_never_acknowledged_and_is_dropped() {
    for placement in PLACEMENTS {
        let s = scene(placement, Gate::Open);
        // Time enough for a wrong acknowledgement.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!s.second.is_finished(), "acknowledged before the frame in front of it");
        let image = s.disk.disk.durable_image();
        let (offset, held) = s.disk.kept.lock().expect("no other panic").clone();
        // Power fails now. Of the held write nothing has arrived, or any first part of it.
        for blocks in 0..=held.len() / 512 {
            let mut image = image.clone();
            let at = offset as usize;
            let part = &held[..blocks * 512];
            image[at..at + part.len()].copy_from_slice(part);
            // Its padding is zeros, as the disk is: it may be whole before its end. And of a placed payload the frame is still to come.
            let whole = image[at..at + held.len()] == held && held.starts_with(b"SFRM");
            let mut disk = Arc::new(SimDisk::from_image(image));
            for round in 0..2 {
                let wal = open(options(placement), &disk);
                let expected = if whole { [1, 1, 1] } else { [0, 0, 1] };
                assert_eq!(lasts(&wal), expected, "{placement:?}, {blocks} sectors, round {round}");
                assert_sound(&wal, "after the cut");
                drop(wal);
                disk = Arc::new(disk.restart());
            }
            // The log goes on where it ends, and what was dropped does not come back.
            let wal = open(options(placement), &disk);
            wal.commit(entry(3, 2)).expect("goes on");
            drop(wal);
            let disk = Arc::new(disk.crash_lost_all());
            let wal = open(options(placement), &disk);
            assert_eq!(lasts(&wal), if whole { [1, 1, 2] } else { [0, 0, 2] });
            wal.checkpoint().expect("cleaned");
            assert_sound(&wal, "after it went on");
        }
        s.disk.release(true);
        let first = s.first.join().expect("no panic").expect("acknowledged");
        let second = s.second.join().expect("no panic").expect("acknowledged");
        assert!(first < second && s.wal.durable_lsn() >= second);
        assert_eq!(lasts(&open(options(placement), &Arc::new(s.disk.disk.crash_lost_all()))), [1, 1, 1]);
    }
}

/// The frame behind the missing one began a segment, and is dropped. Neither that segment's number nor its LSNs are given again: its bytes
/// would be believed in the place of others.
#[test]
fn the_segment_of_a_dropped_frame_is_not_begun_again() {
    let mut begun = 0;
    for fill in 16..32 {
        let s = scene_behind(Placement::Journal, Gate::Open, fill);
        let image = s.disk.disk.durable_image();
        s.disk.release(true);
        let [first, second] = [s.first, s.second].map(|t| t.join().expect("no panic").expect("acknowledged").get());
        begun += u64::from((first - 1) / SEGMENT != (second - 1) / SEGMENT);
        let mut disk = Arc::new(SimDisk::from_image(image));
        for round in 1..=3 {
            let wal = open(options(Placement::Journal), &disk);
            let last = fill + 1 + (round - 1) * 8;
            assert_eq!(lasts(&wal), [0, 0, last], "{fill} before it, round {round}");
            for i in 1..=8 {
                let lsn = wal.commit(entry(3, last + i)).expect("goes on").get();
                assert!(lsn > second, "LSN {lsn} is not behind {second}, which was dropped");
            }
            drop(wal);
            disk = Arc::new(disk.crash_lost_all());
        }
    }
    assert!(begun > 0, "never was the dropped frame the first of its segment");
}

#[test]
fn a_frame_behind_a_failed_one_is_told_so_though_it_is_on_the_disk() {
    for placement in PLACEMENTS {
        let s = scene(placement, Gate::Open);
        s.disk.release(false);
        for outcome in [s.first, s.second].map(|t| t.join().expect("no panic")) {
            assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
        }
        assert!(matches!(s.wal.commit(entry(3, 2)), Err(Error::Poisoned { .. })));
        drop(s.wal);
        assert_eq!(lasts(&open(options(placement), &Arc::new(s.disk.disk.crash_lost_all()))), [0, 0, 1]);
    }
}

/// The frame was written. But a sync that fails may have been a flush, which took along what was written (without forced unit access a
/// durable write is one). Where only a write failed, all behind it is lost and nothing before it.
#[test]
fn a_frame_in_flight_beside_a_failed_sync_is_not_acknowledged_and_beside_a_failed_write_it_is() {
    for placement in PLACEMENTS {
        let s = scene(placement, Gate::FailNext);
        let second = s.second.join().expect("no panic");
        assert!(matches!(second, Err(Error::Poisoned { .. })), "{second:?}");
        s.disk.release(true);
        let (first, durable) = (s.first.join().expect("no panic"), s.wal.durable_lsn());
        match first {
            // What failed was the write of a payload.
            Ok(first) => assert!(placement != Placement::Journal && durable >= first, "{placement:?}"),
            Err(error) => assert!(matches!(error, Error::Poisoned { .. }), "{error}"),
        }
        assert!(matches!(s.wal.commit(entry(3, 2)), Err(Error::Poisoned { .. })));
        assert_eq!(s.wal.durable_lsn(), durable);
        drop(s.wal);
        let lasts = lasts(&open(options(placement), &Arc::new(s.disk.disk.crash_lost_all())));
        assert_eq!(lasts, [1, 0, 1], "here it is there");
    }
}

/// Both frames put a large value, which lies in chunks of its own; the callbacks come in the order of the log.
#[test]
fn completions_come_in_the_order_of_the_log_whichever_frame_was_written_first() {
    let s = scene(Placement::Auto, Gate::Open);
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..3_u64 {
        let mut batch = Batch::new();
        batch.put(3, b"large", &vec![n as u8; 20_000]);
        let order = Arc::clone(&order);
        let told = move |outcome: Result<strandlog::Lsn, Error>| {
            order.lock().expect("no other panic").push((n, outcome.expect("durable")));
        };
        s.wal.submit_with(batch, told).expect("submitted");
    }
    s.disk.release(true);
    s.wal.sync().expect("synced");
    let first = s.first.join().expect("no panic").expect("acknowledged");
    let second = s.second.join().expect("no panic").expect("acknowledged");
    let order = order.lock().expect("no other panic").clone();
    assert_eq!(order.iter().map(|o| o.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(first < second && order.iter().all(|o| o.1 > second) && order.is_sorted_by_key(|o| o.1));
}

type Outcome = Result<strandlog::Lsn, Error>;

/// Time enough for a wrong acknowledgement.
fn a_moment() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

/// Frames of replicas 1 and 2, both held; the second has a callback.
struct Both {
    disk: Arc<Held>,
    wal: Arc<Wal>,
    /// What the callback was told.
    told: mpsc::Receiver<Outcome>,
    first: JoinHandle<Outcome>,
    second: JoinHandle<Outcome>,
}

/// A log whose first frame is written: that one flies alone.
fn begun(disk: &Arc<Held>, options: Options) -> Arc<Wal> {
    let wal = options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
    wal.commit(entry(9, 1)).expect("committed");
    Arc::new(wal)
}

fn both_held(disk: Arc<Held>, options: Options, second: Batch) -> Both {
    let wal = begun(&disk, options);
    disk.set(Gate::HoldTwo);
    let (tell, told) = mpsc::channel();
    let ours = Arc::clone(&wal);
    let first = std::thread::spawn(move || ours.commit(entry(1, 1)));
    disk.until_held(1);
    let ours = Arc::clone(&wal);
    let second = std::thread::spawn(move || {
        let pending = ours.submit_with(second, move |outcome| tell.send(outcome).expect("heard"));
        pending.and_then(|_| ours.sync())
    });
    disk.until_held(2);
    Both { disk, wal, told, first, second }
}

/// A sync covers all that was submitted before it, in whatever frame that is.
#[test]
fn a_sync_waits_for_every_frame_in_flight() {
    let Both { disk, wal, told, first, second } = both_held(Held::new(), options(Placement::Journal), entry(2, 1));
    let syncing = {
        let wal = Arc::clone(&wal);
        std::thread::spawn(move || wal.sync())
    };
    a_moment();
    assert!(!syncing.is_finished(), "both frames are held");
    disk.release(true);
    disk.until("the first frame is durable", |_| first.is_finished());
    a_moment();
    assert!(!syncing.is_finished(), "the second frame is held");
    disk.release(true);
    let synced = syncing.join().expect("no panic").expect("synced");
    assert!(synced >= told.recv().expect("told").expect("durable"));
    for thread in [first, second] {
        thread.join().expect("no panic").expect("durable");
    }
}

/// A callback that would wait for what only its own thread completes gets an error, and hangs nobody; what it submits is on its way.
#[test]
fn a_callback_that_waits_for_durability_is_refused() {
    let wal = Arc::new(options(Placement::Auto).open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted"));
    let (tell, told) = mpsc::channel();
    let ours = Arc::clone(&wal);
    let done = move |outcome: Result<strandlog::Lsn, Error>| {
        outcome.expect("durable");
        let committed = ours.commit(entry(2, 1)).map(drop);
        let submitted = ours.submit(entry(3, 1)).expect("room");
        let lsn = submitted.lsn();
        let waited = [submitted.wait().map(drop), ours.sync().map(drop), ours.wait_durable(lsn)];
        tell.send((committed, waited)).expect("heard");
    };
    wal.submit_with(entry(1, 1), done).expect("submitted");
    // In a thread of its own: what hangs there does not hang the test.
    let ours = Arc::clone(&wal);
    let writer = std::thread::spawn(move || ours.sync());
    let (committed, waited) = told.recv_timeout(Duration::from_secs(60)).expect("it does not hang");
    for outcome in waited.into_iter().chain([committed]) {
        assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    }
    writer.join().expect("ended").expect("written");
    wal.sync().expect("written");
    assert_eq!([1, 2, 3].map(|id| wal.replica(id).last_index()), [1, 0, 1], "what was refused was not submitted");
}

/// A frame that is being written when the one before it fails lands in vain. Its callback must hear of it all the same, and once.
#[test]
fn a_callback_behind_a_failed_frame_is_told_when_its_own_write_ends() {
    let Both { disk, wal, told, first, second } = both_held(Held::new(), options(Placement::Journal), entry(2, 1));
    let before = wal.durable_lsn();
    disk.release(false);
    let first = first.join().expect("no panic");
    assert!(matches!(first, Err(Error::Poisoned { .. })), "{first:?}");
    disk.release(true);
    let outcome = second.join().expect("no panic");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    let outcome = told.recv_timeout(std::time::Duration::from_secs(10)).expect("told");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    a_moment();
    assert!(told.try_recv().is_err(), "told twice");
    assert_eq!(wal.durable_lsn(), before);
}

/// A batch submitted while as many frames are in flight as may be has no leader: the leader of one of those frames wakes the writer for it.
#[test]
fn what_nobody_waits_for_is_written_when_the_frames_in_flight_have_landed() {
    let disk = Held::new();
    let wal = begun(&disk, options(Placement::Journal).background(true));
    disk.set(Gate::HoldTwo);
    let mut leaders = Vec::new();
    for replica in [1, 2] {
        let ours = Arc::clone(&wal);
        leaders.push(std::thread::spawn(move || ours.commit(entry(replica, 1))));
        disk.until_held(replica as usize);
    }
    let (tell, told) = std::sync::mpsc::channel();
    let done = move |outcome: Outcome| tell.send(outcome).expect("heard");
    wal.submit_with(entry(3, 1), done).expect("submitted");
    disk.release(true);
    disk.release(true);
    for leader in leaders {
        leader.join().expect("no panic").expect("durable");
    }
    told.recv_timeout(std::time::Duration::from_secs(10)).expect("told").expect("durable");
}

/// A frame that is being written cannot be read from the disk: it stays in memory, however little that may hold.
#[test]
fn a_frame_in_flight_is_readable_though_nothing_is_kept_in_memory() {
    let disk = Held::with(128 << 20, SyncMethod::DirectDsync);
    let options = options(Placement::Journal).segment_size(2 << 20);
    // More than the memory for frames.
    let mut large = Batch::new();
    large.append(2, &[(1, 1, payload(2, 1, 1, 1 << 20))]);
    let Both { disk, wal, told, first, second } = both_held(disk, options, large);
    disk.release(true);
    first.join().expect("no panic").expect("durable");
    assert_eq!(wal.replica(2).entry(1).expect("readable").data, payload(2, 1, 1, 1 << 20));
    disk.release(true);
    told.recv().expect("told").expect("durable");
    second.join().expect("no panic").expect("durable");
}

/// Were it lost with the frame behind it on the disk, an opening might not find its session, and would draw the same number again.
#[test]
fn the_first_frame_of_an_opening_is_in_flight_alone() {
    let disk = Held::new();
    let wal = Arc::new(options(Placement::Journal).open_disk(disk.clone()).expect("formatted"));
    disk.set(Gate::HoldTwo);
    let commit = |replica, index| {
        let wal = Arc::clone(&wal);
        std::thread::spawn(move || wal.commit(entry(replica, index)))
    };
    let mut threads = vec![commit(1, 1)];
    disk.until_held(1);
    threads.push(commit(2, 1));
    disk.until("the second is submitted", |_| wal.replica(2).last_index() == 1);
    a_moment();
    assert_eq!(disk.holding.load(Ordering::SeqCst), 1, "two in flight");
    disk.release(true);
    disk.until_held(2);
    let passed = disk.passed.load(Ordering::SeqCst);
    threads.push(commit(3, 1));
    disk.until("from then on two are", |d| d.passed.load(Ordering::SeqCst) > passed);
    disk.release(true);
    for thread in threads {
        thread.join().expect("no panic").expect("durable");
    }
}

/// Where a sync covers more than its own write, the system may report another write's error to the first that syncs: so there is one write
/// at a time.
#[test]
fn where_a_sync_covers_others_writes_one_frame_is_in_flight() {
    for method in [SyncMethod::RwfDsync, SyncMethod::Fdatasync] {
        let disk = Held::with(4 << 20, method);
        // What lies beside a frame is written before any sync that could take its turn.
        let wal = begun(&disk, options(Placement::Chain));
        disk.set(Gate::HoldTwo);
        let threads: Vec<_> = [1, 2]
            .map(|replica| {
                let wal = Arc::clone(&wal);
                let thread = std::thread::spawn(move || wal.commit(entry(replica, 1)));
                disk.until("the first frame is held", |d| d.holding.load(Ordering::SeqCst) > 0);
                thread
            })
            .into();
        disk.until("the second is submitted", |_| wal.replica(2).last_index() == 1);
        a_moment();
        assert_eq!(disk.holding.load(Ordering::SeqCst), 1, "{method:?}: two in flight");
        disk.release(true);
        disk.until_held(2);
        disk.release(true);
        for thread in threads {
            thread.join().expect("no panic").expect("durable");
        }
    }
}

/// Frames that are full and wait behind those in flight fail with them, and so does the one that is still open.
#[test]
fn whoever_waits_for_a_frame_that_was_never_taken_is_told_of_the_failure() {
    let disk = Held::with(64 << 20, SyncMethod::DirectDsync);
    let Both { disk, wal, told, first, second } = both_held(disk, options(Placement::Journal), entry(2, 1));
    let (tell, later) = mpsc::channel();
    let pendings: Vec<_> = (1..=30)
        .map(|index| {
            let tell = tell.clone();
            let done = move |outcome: Outcome| tell.send(outcome).expect("heard");
            wal.submit_with(entry(3, index), done).expect("submitted");
            wal.submit(entry(4, index)).expect("submitted")
        })
        .collect();
    assert!(wal.stats().queued_bytes > 128 << 10, "more than one frame waits");
    disk.release(false);
    disk.release(true);
    for _ in 0..30 {
        let outcome = later.recv_timeout(std::time::Duration::from_secs(10)).expect("told");
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }
    for pending in pendings {
        let outcome = pending.wait();
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }
    for outcome in [first.join().expect("no panic"), second.join().expect("no panic"), told.recv().expect("told")] {
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }
}

/// What callbacks were told, in the order in which they came, and on which thread.
type Heard = Arc<Mutex<Vec<(char, Result<(), Error>, ThreadId)>>>;

fn heard(heard: &Heard) -> Vec<(char, Result<(), Error>, ThreadId)> {
    heard.lock().expect("no other panic").clone()
}

fn outcomes(all: &Heard) -> String {
    heard(all)
        .iter()
        .map(|(name, outcome, _)| if outcome.is_ok() { *name } else { name.to_ascii_uppercase() })
        .collect()
}

/// Frames `a` and `b` are in flight, both held, and `c` is still open; each has a callback.
struct Three {
    disk: Arc<Held>,
    wal: Arc<Wal>,
    heard: Heard,
    first: JoinHandle<Outcome>,
    second: JoinHandle<Outcome>,
}

fn three() -> Three {
    three_while(|_| ())
}

/// As [`three`], with `told` called in each callback.
fn three_while(told: impl Fn(char) + Send + Sync + 'static) -> Three {
    let during = Arc::new(told);
    let disk = Held::new();
    let wal = begun(&disk, options(Placement::Journal));
    let heard = Heard::default();
    let submit = |name, replica| {
        let (heard, during) = (Arc::clone(&heard), Arc::clone(&during));
        let done = move |outcome: Outcome| {
            during(name);
            let told = (name, outcome.map(drop), std::thread::current().id());
            heard.lock().expect("no other panic").push(told);
        };
        wal.submit_with(entry(replica, 1), done).expect("submitted");
        // The callbacks hold no reference to the log: the test must hold the last one.
        wal.submit(Batch::new().put(replica, b"k", &[1, 0, 0, 0, 0, 0, 0, 0])).expect("submitted")
    };
    disk.set(Gate::HoldTwo);
    let lead = |name, replica, held| {
        let pending = submit(name, replica);
        let leader = std::thread::spawn(move || pending.wait());
        disk.until_held(held);
        leader
    };
    let (first, second) = (lead('a', 1, 1), lead('b', 2, 2));
    drop(submit('c', 3));
    Three { disk, wal, heard, first, second }
}

/// Otherwise a caller that takes each callback for that of the first batch waiting would take one batch's failure for another's.
#[test]
fn callbacks_come_in_the_order_of_the_log_though_a_later_frame_fails_first() {
    let Three { disk, wal, heard: all, first, second } = three();
    disk.release_nth(1, false);
    let failed = second.join().expect("no panic");
    let refused = wal.commit(entry(4, 1));
    let early = outcomes(&all);
    // Before anything is asserted: the end of the log would wait for it.
    disk.release_nth(0, true);
    let before = first.join().expect("no panic");
    assert_eq!((early.as_str(), outcomes(&all).as_str()), ("", "ABC"), "not before what is still being written");
    for outcome in [before, failed, refused] {
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
    }
    let threads: std::collections::HashSet<_> = heard(&all).iter().map(|(.., thread)| *thread).collect();
    assert_eq!(threads.len(), 1, "on two threads");
}

#[test]
fn callbacks_come_in_the_order_of_the_log_though_a_frame_is_written_in_vain() {
    let Three { disk, wal: _wal, heard: all, first, second } = three();
    disk.release_nth(0, false);
    first.join().expect("no panic").expect_err("it failed");
    let early = outcomes(&all);
    disk.release_nth(1, true);
    second.join().expect("no panic").expect_err("the one before it failed");
    assert_eq!((early.as_str(), outcomes(&all).as_str()), ("A", "ABC"), "not before the one that is being written");
}

/// Neither the thread that wrote the frame nor the one whose write failed tells while the other does.
#[test]
fn one_callback_runs_at_a_time_though_another_thread_ends_the_log() {
    let ((come, came), (go, gone)) = (mpsc::channel(), mpsc::channel::<()>());
    let gone = Mutex::new(gone);
    let Three { disk, wal: _wal, heard: all, first, second } = three_while(move |name| {
        if name == 'a' {
            come.send(()).expect("the test waits");
            let _ = gone.lock().expect("no other panic").recv_timeout(Duration::from_secs(30));
        }
    });
    disk.release_nth(0, true);
    came.recv_timeout(Duration::from_secs(30)).expect("it is told");
    disk.release_nth(1, false);
    a_moment();
    let early = outcomes(&all);
    go.send(()).expect("it waits");
    first.join().expect("no panic").expect("written");
    second.join().expect("no panic").expect_err("it failed");
    assert_eq!((early.as_str(), outcomes(&all).as_str()), ("", "aBC"), "beside another");
}

#[test]
fn callbacks_come_in_the_order_of_the_log_when_it_ends() {
    let Three { disk, wal, heard: all, first, second } = three();
    let ended = std::thread::spawn(move || drop(wal));
    let mut early = Vec::new();
    for nth in [1, 0] {
        a_moment();
        early.push(outcomes(&all));
        disk.release_nth(nth, true);
    }
    for leader in [first, second] {
        leader.join().expect("no panic").expect("written");
    }
    ended.join().expect("ended");
    assert_eq!((early, outcomes(&all).as_str()), (vec![String::new(); 2], "abC"), "all, before the end has come");
    let told = heard(&all).pop().map(|(_, outcome, _)| outcome);
    assert!(matches!(told, Some(Err(Error::Closed))), "{told:?}");
}

/// A task whose executor is gone: waking it panics.
struct Gone;

impl std::task::Wake for Gone {
    fn wake(self: Arc<Self>) {
        panic!("as planned");
    }
}

/// Not the waiters told after it, nor the frame that landed behind this one, nor the thread that wakes.
#[test]
fn a_waker_that_panics_takes_nobody_along() {
    const LIMIT: Duration = Duration::from_secs(20);
    let disk = Held::new();
    let wal = begun(&disk, options(Placement::Journal).background(true));
    // A log at rest is sealed: wait for that, so that it does not come in the midst of this.
    disk.until("sealed", |_| wal.stats().frames > 1);
    disk.set(Gate::HoldNext);
    let (tell, told) = mpsc::channel();
    let submit = |replica: u64| {
        let tell = tell.clone();
        let done = move |outcome: Outcome| tell.send((replica, outcome.is_ok())).expect("heard");
        wal.submit_with(entry(replica, 1), done).expect("submitted")
    };
    let mut awaited = std::pin::pin!(wal.submit(entry(1, 1).lazy()).expect("submitted"));
    submit(2);
    disk.until_held(1);
    let waker = std::task::Waker::from(Arc::new(Gone));
    assert!(awaited.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let passed = disk.passed.load(Ordering::SeqCst);
    submit(3);
    let ours = Arc::clone(&wal);
    let second = std::thread::spawn(move || ours.sync());
    disk.until("the second frame is written", |d| d.passed.load(Ordering::SeqCst) > passed);
    disk.release(true);
    for replica in [2, 3] {
        assert_eq!(told.recv_timeout(LIMIT), Ok((replica, true)), "nobody else is told any more");
    }
    second.join().expect("no panic").expect("durable");
    // And it goes on, by the thread that woke the task.
    submit(4);
    assert_eq!(told.recv_timeout(LIMIT), Ok((4, true)), "the writer is gone");
    wal.close().expect("closed");
}

/// A caller that takes a replica over asks for this.
#[test]
fn a_replica_is_durable_when_all_that_was_submitted_of_it_is() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = small(Placement::Auto).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("a log");
    let (one, unwritten) = (wal.replica(1), wal.replica(3));
    assert!(one.is_durable() && unwritten.is_durable(), "nothing was written");
    let changes: [fn(&mut Batch); 4] = [
        |batch| _ = batch.append(1, &[(1, 1, "entry")]),
        |batch| _ = batch.put(1, b"key", b"value").lazy(),
        |batch| _ = batch.truncate_suffix(1, 1),
        |batch| _ = batch.remove(1),
    ];
    for change in changes {
        wal.commit(Batch::new().append(2, &[(wal.replica(2).last_index() + 1, 1, "another's")])).expect("room");
        assert!(one.is_durable() && wal.replica(2).is_durable());
        let mut batch = Batch::new();
        change(&mut batch);
        drop(wal.submit(batch).expect("room"));
        assert!(!one.is_durable() && !wal.replica(1).is_durable());
        assert!(wal.replica(2).is_durable() && unwritten.is_durable(), "it is another's");
        wal.sync().expect("the disk is well");
        assert!(one.is_durable());
    }
    drop((one, unwritten, wal));
    let wal = small(Placement::Auto).open_disk(Arc::new(disk.crash_lost_all()) as Arc<dyn Disk>).expect("a log");
    assert!(wal.replica(2).is_durable() && wal.replica(2).exists(), "what an opening finds is");
}
