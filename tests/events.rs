//! What a listener is told, and when. It may look at the log whenever it is told anything: no lock is held then.

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{
    Batch, Error, Event, Histogram, Listener, Options, Placement, Replica, Scrubbed, SlowReason, Space, Wal,
};

use support::{payload, small};

/// Remembers everything, and looks at the log each time.
#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Event>>,
    wal: OnceLock<Weak<Wal>>,
    /// Cleans the log when it hears that the journal has grown: that takes the cleaner's lock and all others.
    clean_when_grown: bool,
    panics: bool,
}

impl Listener for Heard {
    fn event(&self, event: &Event) {
        self.events.lock().expect("no other panic").push(event.clone());
        if let Some(wal) = self.wal.get().and_then(Weak::upgrade) {
            // Each of these takes locks: a listener called under one of them would never come back.
            let stats = wal.stats();
            assert!(stats.durable_lsn > 0);
            let _ = (wal.damage(), wal.replica(1).bounds());
            if self.clean_when_grown && matches!(event, Event::JournalGrown { .. }) {
                let _ = wal.checkpoint();
            }
        }
        assert!(!self.panics, "as planned");
    }
}

impl Heard {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().expect("no other panic"))
    }
}

fn open(options: Options, disk: &Arc<SimDisk>, heard: &Arc<Heard>) -> Arc<Wal> {
    let disk: Arc<SimDisk> = Arc::clone(disk);
    let listener: Arc<dyn Listener> = Arc::clone(heard) as Arc<dyn Listener>;
    let wal = Arc::new(options.listener(listener).open_disk(disk).expect("the log opens"));
    let _ = heard.wal.set(Arc::downgrade(&wal));
    wal
}

fn append(wal: &Wal, replica: u64, len: usize) -> strandlog::Result<()> {
    let index = wal.replica(replica).last_index() + 1;
    wal.commit(Batch::new().append(replica, &[(index, 1, payload(replica, index, 1, len))])).map(drop)
}

#[test]
fn commits_are_told_one_by_one_and_add_up_to_the_figures() {
    let (disk, heard) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Heard::default()));
    let wal = open(small(Placement::Auto).slow_commit(Duration::MAX), &disk, &heard);
    assert!(matches!(heard.take()[..], [Event::Recovered(r)] if r.replicas == 0 && r.damage == 0));
    let mut last = wal.durable_lsn();
    for len in [10, 700, 9000] {
        append(&wal, 1, len).expect("committed");
        let events = heard.take();
        let [Event::Committed(commit)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((commit.batches, commit.entries, commit.user_bytes), (1, 1, len as u64));
        assert!(commit.lsn > last && commit.lsn == wal.durable_lsn());
        assert!(commit.device_bytes > len as u64 && commit.micros() >= commit.device_micros);
        last = commit.lsn;
    }
    // How long a lazy batch lay there is no latency: it waits for nobody, and nobody waits for it.
    drop(wal.submit(Batch::new().put(1, b"k", b"v").lazy()).expect("submitted"));
    assert_eq!(heard.take(), []);
    wal.close().expect("closed");
    let commits: Vec<_> =
        heard.take().into_iter().filter_map(|e| if let Event::Committed(c) = e { Some(c) } else { None }).collect();
    assert_eq!(commits.iter().map(|c| c.batches).sum::<u64>(), 1, "the lazy one, and a seal of none: {commits:?}");
    let stats = wal.stats();
    for histogram in [&stats.commit_micros, &stats.device_micros] {
        assert_eq!(histogram.count(), stats.frames);
        assert!(
            histogram.quantile_micros(1.0).is_some_and(|bound| bound * histogram.count() >= histogram.sum_micros())
        );
    }
    assert_eq!(Histogram::bound_micros(stats.commit_micros.counts().len() - 1), None);
}

#[test]
fn the_life_of_the_journal_is_told_outside_of_every_lock() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let heard = Arc::new(Heard { clean_when_grown: true, ..Heard::default() });
    let wal = open(small(Placement::Journal).journal_cap(20 * (64 << 10)), &disk, &heard);
    for _ in 0..600 {
        append(&wal, 1, 3000).expect("there is room");
    }
    let events = heard.take();
    let count = |what: fn(&Event) -> bool| events.iter().filter(|e| what(e)).count() as u64;
    assert!(count(|e| matches!(e, Event::JournalGrown { .. })) > 0);
    let freed: u64 =
        events.iter().map(|e| if let Event::SegmentsFreed { segments, .. } = e { *segments } else { 0 }).sum();
    assert!(freed > 0 && freed <= wal.stats().segments_cleaned, "{freed} of {}", wal.stats().segments_cleaned);
    assert_eq!(count(|e| matches!(e, Event::Committed(_))), wal.stats().frames);
    // Now all at once: space becomes low, the journal gives slabs back, an append is refused.
    let refused = loop {
        match append(&wal, 2, 3000) {
            Ok(()) => {}
            Err(refused) => break refused,
        }
    };
    let events = heard.take();
    let Error::Full(report) = refused else { panic!("{refused}") };
    assert_eq!(events.iter().filter(|e| matches!(e, Event::SpaceLow(_))).count(), 1, "told once");
    assert!(events.iter().any(|e| matches!(e, Event::JournalShrunk { .. })));
    assert_eq!(events.last(), Some(&Event::Full(report)));
    wal.commit(Batch::new().remove(1).remove(2)).expect("removed");
    (0..4).for_each(|_| append(&wal, 3, 10).expect("there is room again"));
    assert!(heard.take().iter().any(|e| matches!(e, Event::SpaceRecovered(s) if s.free > s.reserved)));
}

/// After a failed write a listener may open the log anew; after a lost file it must not.
#[test]
fn a_lost_file_is_told_as_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, heard) = (dir.path().join("log"), Arc::new(Heard::default()));
    let options = Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
    let wal = options.listener(Arc::clone(&heard) as Arc<dyn Listener>).open(&path).expect("created");
    std::fs::remove_file(&path).expect("removed");
    // The housekeeper looks ten times a second.
    while wal.check().is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for told in [wal.check(), wal.sync().map(drop)] {
        assert!(matches!(told, Err(Error::FileLost { .. })), "{told:?}");
    }
    // `Poisoned` ends the loop, too: otherwise a wrong event would be waited for in vain.
    let is_lost = |event: &Event| matches!(event, Event::FileLost { .. } | Event::Poisoned { .. });
    let mut events = Vec::new();
    while !events.iter().any(is_lost) {
        events.extend(heard.take());
        std::thread::yield_now();
    }
    assert!(!events.iter().any(|event| matches!(event, Event::Poisoned { .. })), "{events:?}");
}

#[test]
fn a_failed_write_and_what_an_opening_finds_are_told() {
    let (disk, heard) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Heard::default()));
    let wal = open(small(Placement::Auto), &disk, &heard);
    (0..10).for_each(|_| append(&wal, 1, 700).expect("committed"));
    let lsn_of = |e: &Event| if let Event::Committed(c) = e { Some(c.lsn) } else { None };
    assert!(heard.take().iter().filter_map(lsn_of).is_sorted());
    disk.fail_at(disk.events(), Fault::Error(EIO));
    append(&wal, 1, 700).expect_err("the device failed");
    let events = heard.take();
    assert!(matches!(&events[..], [Event::Poisoned { cause }] if cause.contains("writing frame")), "{events:?}");
}

#[test]
fn damage_found_by_an_opening_is_told_piece_by_piece() {
    let (disk, heard) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Heard::default()));
    let wal = open(small(Placement::Auto), &disk, &heard);
    append(&wal, 1, 700).expect("committed");
    append(&wal, 2, 700).expect("committed");
    let at = disk.log().into_iter().rfind(|e| e.len > 0).expect("a frame").offset;
    append(&wal, 3, 700).expect("committed");
    wal.close().expect("closed");
    drop(wal);
    let disk = Arc::new(disk.restart());
    disk.zero_sector(at / 512);
    support::forget_snapshot(&disk);
    let heard = Arc::new(Heard::default());
    let wal = open(small(Placement::Auto), &disk, &heard);
    let events = heard.take();
    let told: Vec<_> =
        events.iter().filter_map(|e| if let Event::Damaged(d) = e { Some(d.clone()) } else { None }).collect();
    assert!(!told.is_empty() && told == wal.damage(), "{told:?}");
    assert!(matches!(events.last(), Some(Event::Recovered(r)) if r.lost_frames == 1 && r.damage == told.len() as u64));
}

#[test]
fn a_slow_commit_is_told_with_its_reason_first() {
    let (disk, heard) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Heard::default()));
    let wal = open(small(Placement::Auto).slow_commit(Duration::from_millis(5)), &disk, &heard);
    heard.take();
    disk.on_event(|e| {
        if e.len > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    });
    append(&wal, 1, 100).expect("committed");
    let events = heard.take();
    let [Event::SlowCommit { commit, reason: SlowReason::Device }, Event::Committed(same)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(commit, same);
    assert!(commit.device_micros >= 20_000);
}

#[test]
fn a_listener_that_panics_harms_nobody() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let heard = Arc::new(Heard { panics: true, ..Heard::default() });
    let wal = open(small(Placement::Auto).queue_bytes(64 << 10), &disk, &heard);
    (0..3).for_each(|_| append(&wal, 1, 100).expect("committed"));
    let read = |r: Replica| r.entry(3).map(|e| e.data.len());
    assert_eq!(read(wal.replica(1)).expect("there"), 100);
    // The first of the four came before the listener knew the log.
    assert_eq!(heard.events.lock().map_or_else(|e| e.into_inner().len(), |e| e.len()), 4);
    // This thread may wait for room again, which it must not in a listener.
    for index in 4..=10 {
        let batch = &mut Batch::new();
        batch.append(1, &[(index, 1, payload(1, index, 1, 40_000))]);
        drop(wal.submit(batch).expect("waits for room"));
    }
}

#[test]
fn space_is_low_once_until_there_is_clearly_more() {
    let (disk, heard) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Heard::default()));
    let wal = open(small(Placement::Auto), &disk, &heard);
    let s = wal.stats();
    let low = (s.capacity - strandlog::format::POOL_OFFSET) / s.segment_size * (s.segment_size / s.chunk_size) / 10;
    let enough = low * 3 / 2;
    let usable = || {
        let s = wal.stats();
        s.free_chunks - s.reserved_chunks
    };
    let told = |space: &Space| (space.free - space.reserved) / s.chunk_size;
    loop {
        append(&wal, 1, 3000).expect("there is room");
        let events = heard.take();
        if let Some(space) = events.iter().find_map(|e| if let Event::SpaceLow(space) = e { Some(space) } else { None })
        {
            assert!(space.reserved > 0 && told(space) < low, "{space:?}");
            break;
        }
        assert!(usable() >= low, "nobody was told: {:#?}", wal.stats());
    }
    let (mut between, mut first) = (0, 1);
    loop {
        first += 1;
        wal.commit(Batch::new().truncate_prefix(1, first)).expect("truncated");
        let events = heard.take();
        assert!(!events.iter().any(|e| matches!(e, Event::SpaceLow(_))), "told once: {events:?}");
        if let Some(space) =
            events.iter().find_map(|e| if let Event::SpaceRecovered(space) = e { Some(space) } else { None })
        {
            assert!(told(space) >= enough, "{space:?}");
            break;
        }
        between += u64::from((low..enough).contains(&usable()));
    }
    assert!(between > 3, "{between}");
}

/// Halts at the commit by which space became low, until the test lets it go on.
struct Late {
    heard: Heard,
    low: u64,
    stands: Mutex<Option<(Sender<()>, mpsc::Receiver<()>)>>,
}

impl Listener for Late {
    fn event(&self, event: &Event) {
        let wal = self.heard.wal.get().and_then(Weak::upgrade);
        if let (Event::Committed(_), Some(wal)) = (event, wal) {
            let s = wal.stats();
            let late = s.free_chunks.saturating_sub(s.reserved_chunks) < self.low;
            if let Some((tell, go)) = late.then(|| self.stands.lock().expect("no panic").take()).flatten() {
                tell.send(()).expect("heard");
                go.recv_timeout(Duration::from_secs(30)).expect("it is let go on");
            }
        }
        self.heard.event(event);
    }
}

/// Told the other way round, a listener that keeps the last event would take space for low for as long as that lasts.
#[test]
fn that_space_is_low_is_told_before_that_it_is_not_whoever_tells() {
    let ((tell, late), (go, gone)) = (mpsc::channel(), mpsc::channel());
    // A tenth of the chunks that lie in whole segments.
    let low = ((4 << 20) - strandlog::format::POOL_OFFSET) / (64 << 10) * 16 / 10;
    let listener = Arc::new(Late { heard: Heard::default(), low, stands: Mutex::new(Some((tell, gone))) });
    let options = small(Placement::Auto).listener(Arc::clone(&listener) as Arc<dyn Listener>);
    let wal = Arc::new(options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted"));
    listener.heard.wal.set(Arc::downgrade(&wal)).expect("once");
    let filled = Arc::clone(&wal);
    let fills = std::thread::spawn(move || while append(&filled, 1, 3000).is_ok() {});
    late.recv_timeout(Duration::from_secs(30)).expect("space becomes low");
    wal.commit(Batch::new().remove(1)).expect("removed");
    let space = || {
        let events = listener.heard.events.lock().expect("no panic");
        let space = |e: &Event| matches!(e, Event::SpaceLow(_) | Event::SpaceRecovered(_));
        events.iter().filter(|e| space(e)).cloned().collect::<Vec<_>>()
    };
    for index in 1..=4 {
        wal.commit(Batch::new().append(2, &[(index, 1, b"x")])).expect("room");
    }
    let early = space();
    go.send(()).expect("it waits");
    fills.join().expect("no panic");
    let told = space();
    let first = told.get(..2);
    let in_turn = matches!(first, Some([Event::SpaceLow(_), Event::SpaceRecovered(_)]));
    assert!(in_turn, "{early:?}, and then {told:?}");
}

/// Submits until there is no room.
struct Submits {
    wal: OnceLock<Weak<Wal>>,
    busy: AtomicU64,
}

impl Listener for Submits {
    fn event(&self, event: &Event) {
        let Some(wal) = self.wal.get().and_then(Weak::upgrade) else { return };
        if !matches!(event, Event::Committed(_)) || self.busy.load(Ordering::Relaxed) > 0 {
            return;
        }
        for index in 1..=10 {
            let mut batch = Batch::new();
            batch.append(2, &[(index, 1, payload(2, index, 1, 7_000))]);
            match wal.submit(&mut batch) {
                Ok(pending) => drop(pending),
                Err(Error::Busy { .. }) => drop(self.busy.fetch_add(1, Ordering::Relaxed)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn what_a_listener_submits_does_not_wait() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let submits = Arc::new(Submits { wal: OnceLock::new(), busy: 0.into() });
    let listener = Arc::clone(&submits) as Arc<dyn Listener>;
    let options = small(Placement::Journal).queue_bytes(64 << 10).listener(listener);
    let wal = Arc::new(options.open_disk(disk).expect("the log opens"));
    submits.wal.set(Arc::downgrade(&wal)).expect("once");
    append(&wal, 1, 100).expect("committed");
    wal.sync().expect("what it submitted is written");
    assert!(submits.busy.load(Ordering::Relaxed) > 0);
    assert!((8..10).contains(&wal.replica(2).last_index()), "as much as the queue holds");
}

type Outcomes = Vec<Result<(), Error>>;

/// Waits for the log in every way, once it is told of a commit on the writer thread.
struct Waits {
    wal: OnceLock<Weak<Wal>>,
    told: Mutex<Option<Sender<Outcomes>>>,
}

impl Listener for Waits {
    fn event(&self, event: &Event) {
        let writer = std::thread::current().name() == Some("strandlog-writer");
        let Some(wal) = self.wal.get().and_then(Weak::upgrade).filter(|_| writer) else { return };
        if !matches!(event, Event::Committed(commit) if commit.batches > 4) {
            return;
        }
        let Some(told) = self.told.lock().expect("no panic").take() else { return };
        let pending = wal.submit(Batch::new().put(2, b"k", b"v").lazy()).expect("room");
        let lsn = pending.lsn();
        let each = |_: &Scrubbed| ControlFlow::Continue(());
        let refused = vec![
            pending.wait().map(drop),
            wal.sync().map(drop),
            wal.wait_durable(lsn),
            wal.commit(Batch::new().put(2, b"k", b"w")).map(drop),
            wal.checkpoint(),
            wal.verify(|_| ()).map(drop),
            wal.scrub(u64::MAX, each).map(drop),
        ];
        told.send(refused).expect("heard");
    }
}

/// With a crowd waiting, the frame is left to the writer thread, and the listener runs on that.
#[test]
fn a_listener_on_a_thread_of_the_log_may_not_wait_for_it() {
    let (tell, told) = mpsc::channel();
    let waits = Arc::new(Waits { wal: OnceLock::new(), told: Mutex::new(Some(tell)) });
    let options = small(Placement::Auto).background(true).listener(Arc::clone(&waits) as Arc<dyn Listener>);
    let wal = Arc::new(options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("the log opens"));
    waits.wal.set(Arc::downgrade(&wal)).expect("once");
    for replica in 1..=5 {
        drop(wal.submit(Batch::new().put(replica, b"k", b"v").lazy()).expect("room"));
    }
    wal.submit_with(Batch::new().put(1, b"k", b"w"), drop).expect("room");
    let refused = told.recv_timeout(Duration::from_secs(20)).expect("the listener waits for its own thread");
    assert!(refused.iter().all(|told| matches!(told, Err(Error::Busy { .. }))), "{refused:?}");
    wal.sync().expect("elsewhere one waits");
}

/// Cleans the log whenever it is told of a commit.
struct Cleans(OnceLock<Weak<Wal>>);

impl Listener for Cleans {
    fn event(&self, event: &Event) {
        if let Some(wal) = self.0.get().and_then(Weak::upgrade)
            && matches!(event, Event::Committed(_))
        {
            // The log may have ended.
            let _ = wal.checkpoint();
        }
    }
}

/// The end of a log keeps the cleaner out. The listener, which may ask for it, is told only after that.
#[test]
fn a_listener_may_clean_the_log_while_it_is_closed() {
    let cleans = Arc::new(Cleans(OnceLock::new()));
    let options = small(Placement::Auto).listener(Arc::clone(&cleans) as Arc<dyn Listener>);
    let wal = Arc::new(options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("the log opens"));
    cleans.0.set(Arc::downgrade(&wal)).expect("once");
    drop(wal.submit(Batch::new().put(1, b"k", b"v").lazy()).expect("room"));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(wal.close()));
    told.recv_timeout(Duration::from_secs(20)).expect("the listener waits for its own thread").expect("closed");
}
