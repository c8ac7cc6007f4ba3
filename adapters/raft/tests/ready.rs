//! The asynchronous Ready flow, step by step, on a disk whose syncs the test holds back.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gate::Gate;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::disk::{Disk, DiskInfo, Map};
use strandlog_raft::{Error, GroupStorage, PersistQueue, Persisted, Round, Written};
use support::{bootstrapped, conf_state, entry, message, node};

const GROUP: u64 = 7;

mod gate {
    use std::sync::{Condvar, Mutex};

    /// Open or shut; a sync waits while it is shut.
    #[derive(Debug, Default)]
    pub struct Gate {
        shut: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        pub fn set_shut(&self, shut: bool) {
            *self.shut.lock().unwrap() = shut;
            self.opened.notify_all();
        }

        pub fn pass(&self) {
            drop(self.opened.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap());
        }
    }
}

/// A disk on which everything succeeds, once the gate lets it.
#[derive(Debug)]
struct GatedDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

impl Disk for GatedDisk {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.gate.pass();
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.gate.pass();
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

/// Replica 1 of a group of three, and the thread that drives it.
struct Bench {
    node: RawNode<GroupStorage>,
    queue: PersistQueue,
    round: Round,
    gate: Arc<Gate>,
    disk: Arc<GatedDisk>,
    woken: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let gate = Arc::new(Gate::default());
        let disk = Arc::new(GatedDisk { disk: SimDisk::new(4 << 20), gate: Arc::clone(&gate) });
        let options = support::options().background(true);
        let wal = Arc::new(options.open_disk(Arc::clone(&disk) as Arc<dyn Disk>).unwrap());
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let wake = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        let storage = bootstrapped(&wal, GROUP);
        let queue = PersistQueue::new(wal, wake);
        Bench { node: node(1, storage), round: queue.round(), queue, gate, disk, woken }
    }

    /// Takes the pending Ready, writes it, and returns the messages that may leave at once.
    fn write(&mut self) -> Vec<Message> {
        let ready = self.node.ready();
        self.round.persist(self.node.mut_store(), ready).unwrap();
        let (node, mut at_once) = (&mut self.node, Vec::new());
        let each = |Written { ready, messages, .. }| {
            node.advance_append_async(ready);
            at_once.extend(messages);
        };
        self.queue.submit(&mut self.round, each).unwrap();
        at_once
    }

    /// The messages that had to wait until now.
    fn released(&mut self) -> Vec<Message> {
        let mut out = Vec::new();
        let node = &mut self.node;
        let each = |Persisted { group, number, messages }| {
            assert_eq!(group, GROUP);
            node.on_persist_ready(number);
            out.extend(messages);
        };
        self.queue.poll(each).unwrap();
        out
    }

    /// Lets the disk finish, and waits until the queue has noticed.
    fn open_gate(&mut self) {
        let before = self.woken.load(Ordering::SeqCst);
        self.gate.set_shut(false);
        self.await_wake(before);
    }

    fn await_wake(&self, before: usize) {
        let start = Instant::now();
        while self.woken.load(Ordering::SeqCst) == before {
            assert!(start.elapsed() < Duration::from_secs(10), "nobody woke the poller");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Replica 2 leads in term 2 and sends entries `range`.
    fn append(&mut self, range: std::ops::Range<u64>) {
        let mut append = message(MessageType::MsgAppend, 2, 1, 2);
        append.index = range.start - 1;
        append.log_term = if range.start == 2 { 1 } else { 2 };
        append.set_entries(range.map(|i| entry(i, 2)).collect::<Vec<_>>().into());
        self.node.step(append).unwrap();
    }
}

/// A test that fails must not leave the log's writer waiting for the gate, and itself for the writer.
impl Drop for Bench {
    fn drop(&mut self) {
        self.gate.set_shut(false);
    }
}

fn kinds(messages: &[Message]) -> Vec<MessageType> {
    messages.iter().map(Message::get_msg_type).collect()
}

#[test]
fn a_follower_acknowledges_nothing_before_it_is_durable() {
    let mut bench = Bench::new();
    bench.gate.set_shut(true);
    bench.append(2..4);
    assert_eq!(bench.write(), []);
    assert_eq!(bench.node.store().replica().last_index(), 3, "written is readable");
    // The leader sends it again: there is nothing new to write, but the acknowledgement says the same.
    bench.append(2..4);
    assert_eq!(bench.write(), []);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.released(), [], "neither may leave while the sync is on its way");
    bench.open_gate();
    let messages = bench.released();
    assert_eq!(kinds(&messages), [MessageType::MsgAppendResponse; 2]);
    assert!(messages.iter().all(|message| message.index == 3 && !message.reject));
    assert_eq!(bench.queue.waiting(), 0);
    // With nothing under way, an answer that changes nothing need not wait.
    bench.gate.set_shut(true);
    bench.append(2..4);
    assert_eq!(bench.write(), []);
    assert_eq!(kinds(&bench.released()), [MessageType::MsgAppendResponse]);
    bench.gate.set_shut(false);
}

#[test]
fn a_vote_leaves_when_it_is_durable() {
    let mut bench = Bench::new();
    bench.gate.set_shut(true);
    let mut request = message(MessageType::MsgRequestVote, 3, 1, 2);
    (request.index, request.log_term) = (9, 1);
    bench.node.step(request).unwrap();
    assert_eq!(bench.write(), []);
    assert_eq!(bench.released(), []);
    bench.open_gate();
    let messages = bench.released();
    assert_eq!(kinds(&messages), [MessageType::MsgRequestVoteResponse]);
    assert!(!messages[0].reject);
    // And it is on the disk, even if the power goes now.
    let wal = support::open(&Arc::new(bench.disk.disk.crash_lost_all()));
    let storage = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((storage.hard_state().term, storage.hard_state().vote), (2, 3));
}

#[test]
fn a_leader_sends_while_it_appends_and_counts_itself_when_durable() {
    let mut bench = Bench::new();
    bench.node.campaign().unwrap();
    let before = bench.woken.load(Ordering::SeqCst);
    assert_eq!(bench.write(), []);
    bench.await_wake(before);
    assert_eq!(kinds(&bench.released()), [MessageType::MsgRequestVote; 2]);
    bench.node.step(message(MessageType::MsgRequestVoteResponse, 2, 1, 2)).unwrap();
    assert_eq!(bench.node.raft.state, StateRole::Leader);
    bench.gate.set_shut(true);
    assert_eq!(kinds(&bench.write()), [MessageType::MsgAppend; 2], "at once, beside its own write");
    assert_eq!(bench.released(), []);
    // One follower has it; with the leader that would be a quorum, but the leader itself does not have it yet.
    let mut answer = message(MessageType::MsgAppendResponse, 2, 1, 2);
    answer.index = 2;
    bench.node.step(answer).unwrap();
    assert_eq!(bench.node.raft.raft_log.committed, 1);
    bench.open_gate();
    assert_eq!(bench.released(), []);
    assert_eq!(bench.node.raft.raft_log.committed, 2);
    assert_eq!(bench.node.ready().committed_entries().len(), 1);
}

#[test]
fn a_snapshot_and_what_follows_it_come_in_one_batch() {
    let mut bench = Bench::new();
    bench.gate.set_shut(true);
    let mut install = message(MessageType::MsgSnapshot, 2, 1, 2);
    install.mut_snapshot().data = b"ten"[..].into();
    let metadata = install.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (10, 2);
    metadata.set_conf_state(conf_state(&[1, 2, 3]));
    bench.node.step(install).unwrap();
    bench.append(11..13);
    assert_eq!(bench.write(), []);
    assert_eq!(bench.released(), []);
    bench.open_gate();
    let messages = bench.released();
    assert_eq!(messages.iter().map(|message| message.index).collect::<Vec<_>>(), [10, 12]);
    bench.node.advance_apply_to(10);
    let wal = support::open(&Arc::new(bench.disk.disk.crash_lost_all()));
    let storage = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((storage.replica().first_index(), storage.replica().last_index()), (11, 12));
    assert_eq!((storage.applied(), storage.hard_state().commit), (10, 10));
    assert_eq!(storage.checkpoint_data().unwrap().unwrap(), &b"ten"[..]);
}

#[test]
fn after_a_failed_sync_nobody_hears_anything() {
    let mut bench = Bench::new();
    bench.disk.disk.fail_sync_at(bench.disk.disk.syncs(), Fault::Error(EIO));
    let before = bench.woken.load(Ordering::SeqCst);
    bench.append(2..4);
    assert_eq!(bench.write(), []);
    bench.await_wake(before);
    for _ in 0..2 {
        let outcome = bench.queue.poll(|ready| panic!("{ready:?} is not durable"));
        assert!(matches!(outcome, Err(Error::Log(strandlog::Error::Poisoned { .. }))), "{outcome:?}");
    }
}

/// Leaders with nothing to write would otherwise keep others from leading, although they themselves no longer can.
#[test]
fn who_writes_nothing_hears_that_another_write_has_poisoned_the_log() {
    let mut bench = Bench::new();
    bench.append(2..4);
    bench.write();
    bench.await_wake(0);
    let mut first = 0;
    bench.queue.poll(|_| first += 1).unwrap();
    bench.queue.submit(&mut bench.round, |_| ()).unwrap();
    bench.disk.disk.fail_sync_at(bench.disk.disk.syncs(), Fault::Error(EIO));
    let mut other = strandlog::Batch::new();
    other.append(9, &[(1, 1, b"another poller's")]);
    bench.queue.wal().commit(other).unwrap_err();
    let poisoned = |outcome| matches!(outcome, Err(Error::Log(strandlog::Error::Poisoned { .. })));
    assert!(first == 1 && poisoned(bench.queue.poll(|_| ())));
    let node = &mut bench.node;
    // A Ready with only messages: nothing to write.
    let beat = message(MessageType::MsgHeartbeat, 2, 1, 2);
    node.step(beat).unwrap();
    let ready = node.ready();
    bench.round.persist(node.mut_store(), ready).unwrap();
    assert!(poisoned(bench.queue.submit(&mut bench.round, |written| node.advance_append_async(written.ready))));
    assert!(poisoned(bench.queue.poll(|ready| panic!("{ready:?} says that all is well"))));
}

#[test]
fn what_was_durable_is_handed_over_also_when_the_log_was_closed() {
    let mut bench = Bench::new();
    bench.append(2..4);
    bench.write();
    bench.await_wake(0);
    bench.queue.wal().close().unwrap();
    assert_eq!(kinds(&bench.released()), [MessageType::MsgAppendResponse]);
    assert_eq!(bench.released(), []);
}

#[test]
fn a_round_takes_one_ready_a_group_and_a_bad_one_does_no_harm() {
    let mut bench = Bench::new();
    bench.append(2..4);
    let ready = bench.node.ready();
    let number = ready.number();
    bench.round.persist(bench.node.mut_store(), ready).unwrap();
    // A second Ready of the same group would overwrite what the first has not written yet.
    let second = RawNode::ready(&mut node(1, GroupStorage::open(bench.queue.wal(), GROUP).unwrap()));
    let refused = bench.round.persist(bench.node.mut_store(), second);
    assert!(matches!(refused, Err(Error::Misuse { group: GROUP, .. })), "{refused:?}");
    let node = &mut bench.node;
    bench.queue.submit(&mut bench.round, |written| node.advance_append_async(written.ready)).unwrap();
    assert!(bench.round.is_empty());
    bench.queue.flush().unwrap();
    bench.await_wake(0);
    bench.queue.poll(|ready| assert_eq!(ready.number, number)).unwrap();
}

/// The first node's readies are durable, but it is gone before it hears of it, and nobody called `forget`. The second counts its own from 1 again. If it
/// heard of the first one's, it would take a snapshot for durable that is not even written, and panic when it is.
#[test]
fn a_node_opened_anew_hears_nothing_of_who_was_before_it_once_its_ready_is_taken() {
    for installs in [false, true] {
        let mut bench = Bench::new();
        for range in [2..4, 4..5] {
            bench.append(range);
            bench.write();
        }
        bench.queue.flush().unwrap();
        bench.await_wake(0);
        bench.await_wake(1);
        bench.node = node(1, GroupStorage::open(bench.queue.wal(), GROUP).unwrap());
        let last = if installs {
            let mut install = message(MessageType::MsgSnapshot, 2, 1, 2);
            let metadata = install.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (10, 2);
            metadata.set_conf_state(conf_state(&[1, 2, 3]));
            bench.node.step(install).unwrap();
            10
        } else {
            bench.append(5..6);
            5
        };
        let ready = bench.node.ready();
        assert_eq!(ready.number(), 1);
        bench.round.persist(bench.node.mut_store(), ready).unwrap();
        let durable = bench.node.raft.raft_log.persisted;
        assert!(durable < last && bench.released().is_empty());
        assert_eq!(bench.node.raft.raft_log.persisted, durable);
        let (node, before) = (&mut bench.node, bench.woken.load(Ordering::SeqCst));
        bench.queue.submit(&mut bench.round, |written| node.advance_append_async(written.ready)).unwrap();
        bench.queue.flush().unwrap();
        bench.await_wake(before);
        assert_eq!(kinds(&bench.released()), [MessageType::MsgAppendResponse]);
        assert_eq!(bench.node.raft.raft_log.persisted, last);
    }
}
