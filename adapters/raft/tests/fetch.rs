//! Old entries are read by another thread if raft can wait for them, and by the caller if it cannot.

mod support;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Error as RaftError, GetEntriesContext, RawNode, StateRole, Storage, StorageError};
use strandlog::Wal;
use strandlog::disk::sim::SimDisk;
use strandlog::disk::{Disk, DiskInfo, Map};
use strandlog_raft::{FetchQueue, Fetched, GroupStorage, PersistQueue};
use support::{bootstrapped, commit, entry, hard_state, message, node};

const GROUP: u64 = 7;
/// Four times what the log keeps in memory.
const ENTRIES: u64 = 1000;

fn of(index: u64, term: u64) -> Entry {
    Entry { data: vec![index as u8; 4000].into(), ..entry(index, term) }
}

/// A log that keeps little in memory, and a group with more than that.
struct Bench {
    wal: Arc<Wal>,
    fetches: FetchQueue,
    woken: Receiver<()>,
}

impl Bench {
    fn new() -> (Self, GroupStorage) {
        Self::on(Arc::new(SimDisk::new(16 << 20)))
    }

    fn on(disk: Arc<dyn Disk>) -> (Self, GroupStorage) {
        let wal = Arc::new(support::options().recent_bytes(1 << 20).open_disk(disk).unwrap());
        let mut storage = bootstrapped(&wal, GROUP);
        for first in (2..ENTRIES).step_by(20) {
            let entries: Vec<Entry> = (first..first + 20).map(|i| of(i, 1)).collect();
            commit(&wal, |batch| storage.append(batch, &entries)).unwrap();
        }
        commit(&wal, |batch| storage.set_hard_state(batch, &hard_state(1, 0, 1)));
        let (wake, woken) = channel();
        let fetches = FetchQueue::new(move || {
            let _ = wake.send(());
        })
        .unwrap();
        storage.fetch_with(&fetches);
        (Self { wal, fetches, woken }, storage)
    }

    /// The next result of the other thread. Only a hang lasts this long.
    fn fetched(&mut self) -> Vec<Fetched> {
        let mut all = Vec::new();
        // A wake-up may be late: an earlier poll may have taken what it announces.
        while all.is_empty() {
            self.woken.recv_timeout(Duration::from_secs(60)).expect("something is being read");
            self.fetches.poll(|fetched| all.push(fetched));
        }
        all
    }
}

/// A disk on which a chosen read reports that it has begun, and waits until it may go on.
#[derive(Debug)]
struct Held {
    disk: SimDisk,
    hold: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self { disk: SimDisk::new(16 << 20), hold: Mutex::default() })
    }

    /// For the next read: reports that it has begun, and lets it go on.
    fn next(&self) -> (Receiver<()>, Sender<()>) {
        let (begins, began) = channel();
        let (go, goes) = channel();
        *self.hold.lock().unwrap() = Some((begins, goes));
        (began, go)
    }
}

impl Disk for Held {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let held = self.hold.lock().unwrap().take();
        if let Some((begins, goes)) = held {
            begins.send(()).unwrap();
            goes.recv().unwrap();
        }
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
    fn map(&self) -> Option<Arc<Map>> {
        None
    }
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }
    fn release(&self) {
        self.disk.release();
    }
}

fn write(wal: &Wal, storage: &mut GroupStorage, term: u64, indexes: std::ops::Range<u64>) {
    for first in indexes.clone().step_by(20) {
        let entries: Vec<Entry> = (first..indexes.end.min(first + 20)).map(|i| of(i, term)).collect();
        commit(wal, |batch| storage.append(batch, &entries)).unwrap();
    }
}

fn waiting() -> raft::Result<Vec<Entry>> {
    Err(RaftError::Store(StorageError::LogTemporarilyUnavailable))
}

fn later(storage: &GroupStorage, low: u64, high: u64, max: impl Into<Option<u64>>) -> raft::Result<Vec<Entry>> {
    storage.entries(low, high, max, GetEntriesContext::empty(true))
}

fn now(storage: &GroupStorage, low: u64, high: u64) -> raft::Result<Vec<Entry>> {
    storage.entries(low, high, None, GetEntriesContext::empty(false))
}

#[test]
fn old_entries_come_later_to_whom_can_wait_and_at_once_to_all_others() {
    let (mut bench, mut storage) = Bench::new();
    let (first, last) = storage.replica().bounds();
    let want = |range: std::ops::Range<u64>| Ok(range.map(|i| of(i, 1)).collect::<Vec<_>>());
    assert_eq!(now(&storage, 2, 5), want(2..5));
    assert_eq!(later(&storage, last - 2, last + 1, None), want(last - 2..last + 1), "these are in memory");
    for _ in 0..3 {
        assert_eq!(later(&storage, 2, 5, None), waiting());
    }
    let mut all = bench.fetched();
    assert_eq!((all.len(), all[0].group()), (1, GROUP), "asked for three times, read once");
    let _ = storage.accept(all.remove(0));
    assert_eq!(later(&storage, 2, 5, None), want(2..5));
    assert_eq!(later(&storage, 2, 5, None), waiting(), "they are not kept");
    // Less than was read, if the limit is smaller by now; at least one.
    for (high, max, end) in [(4, u64::MAX, 4), (5, 0, 3), (5, 4010, 3), (5, 8100, 4)] {
        let mut all = bench.fetched();
        let _ = storage.accept(all.remove(0));
        assert_eq!(later(&storage, 2, high, max), want(2..end), "to {high}, {max} bytes");
        assert_eq!(later(&storage, 2, 5, None), waiting());
    }
    // What will never come is refused at once.
    assert_eq!(later(&storage, first - 1, 5, None), Err(RaftError::Store(StorageError::Compacted)));
    assert_eq!(later(&storage, last, last + 2, None), Err(RaftError::Store(StorageError::Unavailable)));
    assert_eq!(later(&storage, 5, 5, None), Ok(vec![]));
}

#[test]
fn what_was_overwritten_or_compacted_while_it_was_read_is_not_handed_out() {
    let (mut bench, mut storage) = Bench::new();
    assert_eq!(later(&storage, 2, 5, None), waiting());
    let mut all = bench.fetched();
    commit(&bench.wal, |batch| storage.append(batch, &[of(3, 9), of(4, 9), of(5, 9)])).unwrap();
    let _ = storage.accept(all.remove(0));
    // Entry 2 is old, the others are not: read anew.
    assert_eq!(later(&storage, 2, 5, None), waiting());
    let mut all = bench.fetched();
    let _ = storage.accept(all.remove(0));
    assert_eq!(later(&storage, 2, 5, None), Ok(vec![of(2, 1), of(3, 9), of(4, 9)]));

    assert_eq!(later(&storage, 2, 5, None), waiting());
    let mut all = bench.fetched();
    storage.set_applied(4, 9).unwrap();
    commit(&bench.wal, |batch| storage.compact(batch, 4)).unwrap();
    let _ = storage.accept(all.remove(0));
    assert_eq!(later(&storage, 2, 5, None), Err(RaftError::Store(StorageError::Compacted)));
}

/// During the read another leader's log takes the place, and the same range is requested again before the answer comes.
#[test]
fn what_is_handed_out_is_one_log_whatever_was_written_while_it_was_read() {
    let disk = Held::new();
    let (mut bench, mut storage) = Bench::on(Arc::clone(&disk) as Arc<dyn Disk>);
    let end = storage.replica().last_index() + 1;
    let (began, go) = disk.next();
    assert_eq!(later(&storage, 2, end, None), waiting());
    began.recv_timeout(Duration::from_secs(60)).expect("it is read from the disk");
    write(&bench.wal, &mut storage, 9, 2..end);
    commit(&bench.wal, |batch| storage.set_hard_state(batch, &hard_state(10, 0, 1)));
    assert_eq!(later(&storage, 2, end, None), waiting());
    go.send(()).unwrap();
    let handed = loop {
        for fetched in bench.fetched() {
            let _ = storage.accept(fetched);
        }
        match later(&storage, 2, end, None) {
            Err(RaftError::Store(StorageError::LogTemporarilyUnavailable)) => {}
            handed => break handed.expect("the log holds it"),
        }
    };
    assert!(!handed.is_empty());
    for (index, entry) in (2..).zip(&handed) {
        assert!(*entry == of(index, 9), "entry {index} has term {}", entry.term);
    }
}

/// What was out of bounds when it was read need not be when raft asks again; raft panics if it is told so about entries that it knows to
/// exist.
#[test]
fn a_log_that_was_too_short_while_it_was_read_is_read_anew() {
    let disk = Held::new();
    let (mut bench, mut storage) = Bench::on(Arc::clone(&disk) as Arc<dyn Disk>);
    let end = storage.replica().last_index() + 1;
    let (began, go) = disk.next();
    assert_eq!(later(&storage, 2, 5, None), waiting());
    began.recv_timeout(Duration::from_secs(60)).expect("it is read from the disk");
    assert_eq!(later(&storage, 501, 505, None), waiting());
    write(&bench.wal, &mut storage, 9, 300..301);
    commit(&bench.wal, |batch| storage.set_hard_state(batch, &hard_state(10, 0, 1)));
    go.send(()).unwrap();
    for _ in 0..2 {
        bench.woken.recv_timeout(Duration::from_secs(60)).expect("both are read");
    }
    write(&bench.wal, &mut storage, 10, 301..end);
    assert_eq!(later(&storage, 501, 505, None), waiting());
    loop {
        bench.fetches.poll(|fetched| {
            let _ = storage.accept(fetched);
        });
        match later(&storage, 501, 505, None) {
            Err(RaftError::Store(StorageError::LogTemporarilyUnavailable)) => {}
            handed => break assert_eq!(handed, Ok((501..505).map(|i| of(i, 10)).collect::<Vec<_>>())),
        }
        bench.woken.recv_timeout(Duration::from_secs(60)).expect("it is read again");
    }
}

/// Slices of what was read pin its chunks: a leader that stepped down never asks again.
#[test]
fn what_was_read_is_let_go_when_the_log_grows_or_something_else_is_asked_for() {
    let (mut bench, mut storage) = Bench::new();
    let last = storage.replica().last_index();
    assert_eq!(later(&storage, 2, 5, None), waiting());
    let _ = storage.accept(bench.fetched().remove(0));
    assert_eq!(later(&storage, 501, 502, None), waiting());
    assert_eq!(later(&storage, 2, 5, None), waiting(), "kept while others were asked for");
    let mut all = bench.fetched();
    while all.len() < 2 {
        all.extend(bench.fetched());
    }
    for fetched in all {
        let _ = storage.accept(fetched);
    }
    commit(&bench.wal, |batch| storage.append(batch, &[of(last + 1, 2)])).unwrap();
    assert_eq!(later(&storage, 2, 5, None), waiting(), "kept while the log grew");
    // In another term somebody else sends.
    let _ = storage.accept(bench.fetched().remove(0));
    commit(&bench.wal, |batch| storage.set_hard_state(batch, &hard_state(3, 0, 1)));
    assert_eq!(later(&storage, 2, 5, None), waiting(), "kept in another term");
    let mut all = bench.fetched();
    assert_eq!(later(&storage, 501, 502, None), waiting());
    let _ = storage.accept(all.remove(0));
    assert_eq!(later(&storage, 2, 5, None), Ok((2..5).map(|i| of(i, 1)).collect::<Vec<_>>()));
}

/// raft drops the answer to a request of another term: a new leader that asks for the same gets an answer of its own.
#[test]
fn what_was_asked_in_another_term_is_asked_again() {
    let (mut bench, mut storage) = Bench::new();
    assert_eq!(later(&storage, 2, 5, None), waiting());
    commit(&bench.wal, |batch| storage.set_hard_state(batch, &hard_state(1, 2, 1)));
    assert_eq!(later(&storage, 2, 5, None), waiting(), "another vote is no other term: awaited as it was");
    commit(&bench.wal, |batch| storage.set_hard_state(batch, &hard_state(3, 0, 1)));
    assert_eq!(later(&storage, 2, 5, None), waiting());
    // The last request is read last.
    assert_eq!(later(&storage, 501, 502, None), waiting());
    let mut handed = 0;
    while later(&storage, 501, 502, None) == waiting() {
        for fetched in bench.fetched() {
            handed += 1;
            let _ = storage.accept(fetched);
        }
    }
    assert_eq!(handed, 3, "twice, once a term, and the last");
}

#[test]
fn without_its_thread_a_group_reads_for_itself() {
    let (bench, storage) = Bench::new();
    let Bench { wal: _wal, fetches, woken } = bench;
    assert_eq!(later(&storage, 2, 3, None), waiting());
    drop((fetches, woken));
    // Also what was requested while there was a thread to read it.
    assert_eq!(later(&storage, 2, 3, None), Ok(vec![of(2, 1)]));
    assert_eq!(later(&storage, 501, 502, None), Ok(vec![of(501, 1)]));
}

/// The group was removed while entries were read for it, or opened anew: the caller need not know what was under way.
#[test]
fn a_group_that_is_gone_is_handed_nothing() {
    let (mut bench, storage) = Bench::new();
    assert_eq!(later(&storage, 2, 5, None), waiting());
    assert_eq!(later(&storage, 301, 302, None), waiting());
    drop(storage);
    let mut storage = GroupStorage::open(&bench.wal, GROUP).unwrap();
    storage.fetch_with(&bench.fetches);
    assert_eq!(later(&storage, 501, 502, None), waiting());
    // The first request is read first.
    let mut handed = 0;
    while later(&storage, 501, 502, None) == waiting() {
        for fetched in bench.fetched() {
            handed += 1;
            let _ = storage.accept(fetched);
        }
    }
    assert_eq!(handed, 1);
}

/// A leader whose follower is far behind: it sends all that was fetched, and nothing twice.
#[test]
fn a_follower_that_lags_is_sent_everything_as_it_is_fetched() {
    let (mut bench, storage) = Bench::new();
    let mut node = node(1, storage);
    let mut queue = PersistQueue::new(Arc::clone(&bench.wal), || ());
    let mut round = queue.round();
    let mut drive = |node: &mut RawNode<GroupStorage>| {
        let mut sent: Vec<Message> = Vec::new();
        while node.has_ready() {
            let ready = node.ready();
            round.persist(node.mut_store(), ready).unwrap();
            queue
                .submit(&mut round, |written| {
                    node.advance_append_async(written.ready);
                    sent.extend(written.messages);
                })
                .unwrap();
            queue.flush().unwrap();
            queue
                .poll(|durable| {
                    node.on_persist_ready(durable.number);
                    sent.extend(durable.messages);
                })
                .unwrap();
        }
        sent.retain(|message| message.to == 2 && message.get_msg_type() == MessageType::MsgAppend);
        sent
    };
    node.campaign().unwrap();
    assert_eq!(drive(&mut node).len(), 0);
    node.step(message(MessageType::MsgRequestVoteResponse, 2, 1, 2)).unwrap();
    assert_eq!(node.raft.state, StateRole::Leader);
    let probe = drive(&mut node).pop().expect("an append");
    let mut refusal = message(MessageType::MsgAppendResponse, 2, 1, 2);
    (refusal.index, refusal.reject, refusal.reject_hint, refusal.log_term) = (probe.index, true, 1, 1);
    node.step(refusal).unwrap();

    let last = node.store().replica().last_index();
    let (mut got, mut fetches) = (1, 0);
    while got < last {
        let sent = drive(&mut node);
        for append in &sent {
            assert_eq!(append.index, got);
            for one in append.get_entries() {
                got += 1;
                assert_eq!(one.index, got);
                assert!(got > ENTRIES || one.data == of(got, 1).data, "entry {got}");
            }
            let mut answer = message(MessageType::MsgAppendResponse, 2, 1, 2);
            answer.index = got;
            node.step(answer).unwrap();
        }
        if sent.is_empty() {
            for fetched in bench.fetched() {
                fetches += 1;
                let context = node.mut_store().accept(fetched);
                node.on_entries_fetched(context);
            }
        }
    }
    assert!(fetches >= 3, "{fetches} fetches: nothing was old");
}
