//! A log is dropped or closed in a callback, sink, waker or listener that it is just telling something, on the very thread that its end
//! would wait for. Nobody hangs, and the file is given up.

mod support;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use strandlog::{Batch, Error, Event, Listener, Lsn, Options, Placement, Result, Sink, Wal};

use support::small;

const LIMIT: Duration = Duration::from_secs(30);

fn options(background: bool) -> Options {
    small(Placement::Auto).background(background).capacity(4 << 20)
}

fn log(options: Options) -> (tempfile::TempDir, PathBuf, Arc<Wal>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let wal = Arc::new(options.open(&path).expect("created"));
    (dir, path, wal)
}

/// Runs `body` on a thread of its own: a hang there does not hang the test.
fn ends<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(body()));
    told.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Opens the log again as soon as the file is given up.
fn again(path: &Path) -> Wal {
    let begun = Instant::now();
    loop {
        match options(true).open(path) {
            Err(Error::Locked { .. }) if begun.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(2)),
            opened => return opened.expect("the file was given up"),
        }
    }
}

/// The last reference to a log: `go` drops it once all other holders have let go.
struct Last {
    wal: Option<Arc<Wal>>,
    alone: Receiver<()>,
}

impl Last {
    fn of(wal: &Arc<Wal>) -> (Self, Sender<()>) {
        let (tell, alone) = mpsc::channel();
        (Self { wal: Some(Arc::clone(wal)), alone }, tell)
    }
    fn go(&mut self) {
        let _ = self.alone.recv_timeout(LIMIT);
        self.wal = None;
    }
}

#[test]
fn the_last_wal_goes_in_a_callback_on_the_thread_of_a_caller() {
    for background in [false, true] {
        let (_dir, path, wal) = log(options(background));
        let replica = wal.replica(1);
        let waits = move || {
            let first = wal.submit(Batch::new().put(1, b"a", b"1").lazy()).expect("submitted");
            let last = Arc::clone(&wal);
            wal.submit_with(Batch::new().put(1, b"b", b"2").lazy(), move |_| drop(last)).expect("submitted");
            drop(wal);
            first.wait().expect("durable");
        };
        ends("the callback waits for its own thread", waits);
        let wal = again(&path);
        assert_eq!(wal.replica(1).get(b"b").expect("read").as_deref(), Some(&b"2"[..]));
        assert_eq!(replica.get(b"a").expect("read").as_deref(), Some(&b"1"[..]), "still readable");
    }
}

#[test]
fn a_callback_that_closes_the_log_is_refused_and_ends_nothing() {
    for background in [false, true] {
        let (_dir, path, wal) = log(options(background));
        let (tell, told) = mpsc::channel();
        let closes = Arc::clone(&wal);
        let done = move |_| tell.send(closes.close()).expect("heard");
        wal.submit_with(Batch::new().put(1, b"a", b"1").lazy(), done).expect("submitted");
        let log = Arc::clone(&wal);
        ends("the callback waits for its own thread", move || log.sync()).expect("written");
        let refused = told.recv_timeout(LIMIT).expect("told");
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        wal.commit(Batch::new().put(1, b"b", b"2")).expect("the log goes on");
        wal.close().expect("elsewhere it is closed");
        drop(again(&path));
    }
}

#[test]
fn the_last_wal_goes_in_a_callback_on_the_writer_thread() {
    let (_dir, path, wal) = log(options(true));
    let replica = wal.replica(1);
    let (mut last, alone) = Last::of(&wal);
    let (tell, told) = mpsc::channel();
    let done = move |outcome| {
        last.go();
        tell.send(outcome).expect("heard");
    };
    let lsn = wal.submit_with(Batch::new().put(1, b"a", b"1"), done).expect("submitted");
    drop(wal);
    alone.send(()).expect("it waits");
    let outcome: Result<Lsn> = told.recv_timeout(LIMIT).expect("the callback waits for its own thread");
    assert_eq!(outcome.expect("durable"), lsn);
    let wal = again(&path);
    assert_eq!(wal.replica(1).get(b"a").expect("read"), replica.get(b"a").expect("read"));
}

/// A sink that holds the log. The last reference to the sink is the log's own, and goes once the sink was told.
struct Holds {
    last: Mutex<Last>,
}

impl Sink for Holds {
    fn done(&self, tags: &[u64], outcome: &Result<Lsn>) {
        assert!(tags == [7] && outcome.is_ok());
        let _ = self.last.lock().expect("one at a time").alone.recv_timeout(LIMIT);
    }
}

#[test]
fn the_last_wal_goes_with_the_sink_that_was_told() {
    let (_dir, path, wal) = log(options(true));
    let replica = wal.replica(1);
    let (last, alone) = Last::of(&wal);
    let sink: Arc<dyn Sink> = Arc::new(Holds { last: Mutex::new(last) });
    wal.submit_to(Batch::new().put(1, b"a", b"1"), &sink, 7).expect("submitted");
    drop((sink, wal));
    alone.send(()).expect("it waits");
    let wal = again(&path);
    assert_eq!(wal.replica(1).get(b"a").expect("read"), replica.get(b"a").expect("read"));
}

/// The thread that drops the log is telling an outcome of another log, and none of this one.
#[test]
fn who_waits_for_a_log_that_goes_in_a_callback_of_another_is_told() {
    let (_dir, _path, wal) = log(options(true));
    let (_other_dir, _other_path, other) = log(options(false));
    let (tell, told) = mpsc::channel();
    other.submit_with(Batch::new().put(1, b"a", b"1"), move |o| tell.send(o).expect("heard")).expect("submitted");
    wal.submit_with(Batch::new().put(1, b"a", b"1"), move |_| drop(other)).expect("submitted");
    let outcome = told.recv_timeout(LIMIT).expect("told");
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
}

/// Each thread tells an outcome of one log, and would wait for the other thread to have told those of the other log.
#[test]
fn two_logs_each_of_which_goes_in_a_callback_of_the_other_both_end() {
    let (_first_dir, first_path, first) = log(options(true));
    let (_second_dir, second_path, second) = log(options(true));
    let both = Arc::new(std::sync::Barrier::new(2));
    let goes = |on: &Wal, other: Arc<Wal>| {
        let both = Arc::clone(&both);
        let done = move |_| {
            both.wait();
            drop(other);
        };
        on.submit_with(Batch::new().put(1, b"a", b"1").lazy(), done).expect("submitted");
        on.submit(Batch::new().put(1, b"b", b"2").lazy()).expect("submitted")
    };
    let (in_first, in_second) = (goes(&first, Arc::clone(&second)), goes(&second, Arc::clone(&first)));
    drop((first, second));
    let waits = [in_first, in_second].map(|pending| std::thread::spawn(move || pending.wait().map(drop)));
    ends("they wait for each other", move || waits.map(|wait| wait.join().expect("no panic").expect("durable")));
    for path in [first_path, second_path] {
        assert_eq!(again(&path).replica(1).get(b"b").expect("read").as_deref(), Some(&b"2"[..]));
    }
}

struct Panics;

impl Sink for Panics {
    fn done(&self, _tags: &[u64], _outcome: &Result<Lsn>) {}
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("a sink of the test");
    }
}

#[test]
fn a_sink_that_panics_when_it_goes_takes_nobody_along() {
    let (_dir, _path, wal) = log(options(true));
    let sink: Arc<dyn Sink> = Arc::new(Panics);
    let lsn = wal.submit_to(Batch::new().put(1, b"a", b"1").lazy(), &sink, 1).expect("submitted");
    drop(sink);
    let (tell, told) = mpsc::channel();
    wal.submit_with(Batch::new().put(1, b"b", b"2"), move |_| tell.send(()).expect("heard")).expect("submitted");
    told.recv_timeout(LIMIT).expect("told behind it");
    let log = Arc::clone(&wal);
    ends("the writer is gone", move || log.wait_durable(lsn)).expect("durable");
    let log = Arc::clone(&wal);
    ends("the writer is gone", move || log.commit(Batch::new().put(1, b"c", b"3"))).expect("it goes on");
}

/// A task that only its waker holds: waking it drops the log.
struct Task {
    last: Mutex<Last>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.last.lock().expect("one at a time").go();
    }
}

#[test]
fn the_last_wal_goes_with_the_task_that_is_woken() {
    let (_dir, path, wal) = log(options(true));
    let replica = wal.replica(1);
    let (last, alone) = Last::of(&wal);
    let waker = Waker::from(Arc::new(Task { last: Mutex::new(last) }));
    // A batch may be durable at once, and then nothing waits; nor does a `Pending` that is dropped.
    let _waits = loop {
        let mut pending = wal.submit(Batch::new().put(1, b"a", b"1")).expect("submitted");
        if pin!(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending() {
            break pending;
        }
    };
    drop((waker, wal));
    alone.send(()).expect("it waits");
    let wal = again(&path);
    assert_eq!(wal.replica(1).get(b"a").expect("read"), replica.get(b"a").expect("read"));
}

/// Hears of a commit, then tries to close the log, and drops it.
struct Hears {
    last: Mutex<Option<Last>>,
    told: Sender<Result<()>>,
}

impl Listener for Hears {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Committed(_)) {
            return;
        }
        let Some(mut last) = self.last.lock().expect("no panic").take() else { return };
        let _ = last.alone.recv_timeout(LIMIT);
        let closed = last.wal.as_ref().map_or(Ok(()), |wal| wal.close());
        last.wal = None;
        self.told.send(closed).expect("heard");
    }
}

#[test]
fn the_last_wal_goes_in_a_listener_which_may_not_close_it() {
    let (tell, told) = mpsc::channel();
    let hears = Arc::new(Hears { last: Mutex::new(None), told: tell });
    let (_dir, path, wal) = log(options(true).listener(Arc::clone(&hears) as Arc<dyn Listener>));
    let replica = wal.replica(1);
    let (last, alone) = Last::of(&wal);
    *hears.last.lock().expect("no panic") = Some(last);
    wal.submit_with(Batch::new().put(1, b"a", b"1"), drop).expect("submitted");
    drop(wal);
    alone.send(()).expect("it waits");
    let closed = told.recv_timeout(LIMIT).expect("the listener waits for its own thread");
    assert!(matches!(closed, Err(Error::Busy { .. })), "{closed:?}");
    let wal = again(&path);
    assert_eq!(wal.replica(1).get(b"a").expect("read"), replica.get(b"a").expect("read"));
}

/// Commits when its thread ends.
struct Parting(std::cell::RefCell<Option<Arc<Wal>>>, u64);

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(wal) = self.0.take() {
            wal.commit(Batch::new().put(self.1, b"a", b"1")).expect("committed");
        }
    }
}

thread_local! {
    static EARLY: Parting = const { Parting(std::cell::RefCell::new(None), 1) };
    static LATE: Parting = const { Parting(std::cell::RefCell::new(None), 2) };
}

/// What the log keeps for a thread may be gone by then, or not yet: of these two values one goes before it and one after. So may the log
/// itself.
#[test]
fn a_thread_that_ends_may_commit_and_let_the_log_go() {
    for background in [false, true] {
        let (_dir, path, wal) = log(options(background));
        let thread = move || {
            EARLY.with(|parting| parting.0.replace(Some(Arc::clone(&wal))));
            wal.commit(Batch::new().put(3, b"a", b"1")).expect("committed");
            LATE.with(|parting| parting.0.replace(Some(wal)));
        };
        std::thread::spawn(thread).join().expect("no panic");
        let wal = again(&path);
        for replica in 1..=3 {
            assert_eq!(wal.replica(replica).get(b"a").expect("read").as_deref(), Some(&b"1"[..]));
        }
    }
}
