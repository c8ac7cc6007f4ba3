//! An only voter elects itself, and leads, in one Ready: nobody hears of its term before that is durable.
mod support;

use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{ConfState, Message};
use strandlog::{Batch, Wal};
use strandlog_raft::{Error, GroupStorage, PersistQueue, Persisted, Written};
use support::{commit, disk, node, open, options};

const GROUP: u64 = 7;

fn members() -> ConfState {
    ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() }
}

struct Member {
    node: RawNode<GroupStorage>,
    queue: PersistQueue,
    committed: Vec<(u64, u64, Vec<u8>)>,
}

impl Member {
    fn new(id: u64, wal: &Arc<Wal>) -> Self {
        let mut storage = GroupStorage::open(wal, GROUP).unwrap();
        if storage.replica().last_index() == 0 {
            commit(wal, |batch| storage.bootstrap(batch, &members(), b"start")).unwrap();
        }
        Self { node: node(id, storage), queue: PersistQueue::new(Arc::clone(wal), || ()), committed: vec![] }
    }

    /// Submits and polls as a poller does, and returns the messages that may be sent. `sync`: the disk is fast, or never finishes.
    fn drive(&mut self, sync: bool) -> Vec<Message> {
        let (mut out, mut round) = (Vec::new(), self.queue.round());
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            for entry in ready.take_committed_entries() {
                self.committed.push((entry.index, entry.term, entry.data.to_vec()));
            }
            round.persist(self.node.mut_store(), ready).unwrap();
            let node = &mut self.node;
            self.queue
                .submit(&mut round, |Written { ready, messages, .. }| {
                    node.advance_append_async(ready);
                    out.extend(messages);
                })
                .unwrap();
            if sync {
                self.queue.flush().unwrap();
            }
            self.queue
                .poll(|Persisted { number, messages, .. }| {
                    node.on_persist_ready(number);
                    out.extend(messages);
                })
                .unwrap();
        }
        out
    }
}

fn talk(leader: &mut Member, learner: &mut Member, sync: bool) {
    for _ in 0..10 {
        for message in leader.drive(sync) {
            learner.node.step(message).unwrap();
        }
        for message in learner.drive(true) {
            leader.node.step(message).unwrap();
        }
    }
}

#[test]
fn an_only_voter_tells_nothing_of_a_term_before_it_is_durable() {
    let (disk_1, disk_2) = (disk(), disk());
    let (wal_1, wal_2) = (Arc::new(open(&disk_1)), Arc::new(open(&disk_2)));
    let (mut first_life, mut learner) = (Member::new(1, &wal_1), Member::new(2, &wal_2));
    wal_1.sync().unwrap();
    first_life.node.campaign().unwrap();
    talk(&mut first_life, &mut learner, false);
    first_life.node.propose(vec![], b"X".to_vec()).unwrap();
    talk(&mut first_life, &mut learner, false);
    assert_eq!(first_life.committed, [], "nothing of it was durable, and nothing acknowledged");
    drop(first_life);
    drop(wal_1);
    // The power of the voter's machine fails.
    let wal_1 = Arc::new(open(&Arc::new(disk_1.crash_lost_all())));
    let mut second_life = Member::new(1, &wal_1);
    second_life.node.campaign().unwrap();
    talk(&mut second_life, &mut learner, true);
    second_life.node.propose(vec![], b"Y".to_vec()).unwrap();
    talk(&mut second_life, &mut learner, true);
    second_life.node.ping();
    talk(&mut second_life, &mut learner, true);
    assert!(second_life.committed.iter().any(|(.., data)| data == b"Y"));
    assert_eq!(second_life.committed, learner.committed);
}

/// A later Ready brings neither term nor vote, but its messages speak of the earlier one's.
#[test]
fn nor_in_a_later_ready_and_once_it_is_durable_messages_need_not_wait() {
    let wal = Arc::new(open(&disk()));
    let mut leader = Member::new(1, &wal);
    wal.sync().unwrap();
    leader.node.campaign().unwrap();
    assert_eq!(leader.drive(false), []);
    for _ in 0..3 {
        leader.node.ping();
        assert_eq!(leader.drive(false), [], "a heartbeat of the term");
    }
    leader.queue.flush().unwrap();
    let mut told = 0;
    let node = &mut leader.node;
    leader
        .queue
        .poll(|Persisted { number, messages, .. }| {
            node.on_persist_ready(number);
            told += messages.len();
        })
        .unwrap();
    assert!(told >= 4, "{told} messages: an append, and the heartbeats");
    leader.node.propose(vec![], b"X".to_vec()).unwrap();
    leader.node.ping();
    assert!(!leader.drive(false).is_empty(), "at once, beside its own write");
}

/// A caller that opens a group anew should have its queue forget it. If it did not, what waited there must not reach the new node, which
/// counts its readies from one again: it would take the old write for its own, commit, and answer clients.
#[test]
fn a_node_that_is_opened_anew_takes_nothing_for_durable_that_the_one_before_wrote() {
    let wal = Arc::new(open(&disk()));
    let mut member = Member::new(1, &wal);
    member.node.campaign().unwrap();
    member.drive(false);
    assert!(member.committed.is_empty(), "nothing is durable yet");
    assert!(member.queue.waiting() > 0);
    // The opening syncs what is there; nothing has polled.
    member.node = node(1, GroupStorage::open(&wal, GROUP).unwrap());
    member.node.campaign().unwrap();
    member.drive(false);
    assert!(member.committed.is_empty(), "committed, and not durable: {:?}", member.committed);
    member.queue.flush().unwrap();
    let node = &mut member.node;
    member.queue.poll(|Persisted { number, .. }| node.on_persist_ready(number)).unwrap();
    member.drive(true);
    assert!(!member.committed.is_empty(), "it leads");
}

/// The log's queue is full, so its first Ready stays in the round; a poller that is woken polls before it submits again. raft panics at a Ready
/// that is durable before it is written.
#[test]
fn nor_while_its_own_first_write_waits_for_room() {
    let wal = Arc::new(options().queue_bytes(64 << 10).open_disk(disk()).unwrap());
    let mut member = Member::new(1, &wal);
    member.node.campaign().unwrap();
    member.drive(false);
    member.node = node(1, GroupStorage::open(&wal, GROUP).unwrap());
    member.node.campaign().unwrap();
    let (mut round, ready) = (member.queue.round(), member.node.ready());
    round.persist(member.node.mut_store(), ready).unwrap();
    for len in [4000, 1] {
        while wal.try_submit(Batch::new().put(9, b"key", &vec![7; len]).lazy()).is_ok() {}
    }
    let busy = member.queue.try_submit(&mut round, |_| panic!("there is no room"));
    assert!(matches!(busy, Err(Error::Log(strandlog::Error::Busy { .. }))), "{busy:?}");
    let node = &mut member.node;
    member.queue.poll(|Persisted { number, .. }| node.on_persist_ready(number)).unwrap();
    wal.sync().unwrap();
    member.queue.submit(&mut round, |Written { ready, .. }| node.advance_append_async(ready)).unwrap();
    member.queue.flush().unwrap();
    member.queue.poll(|Persisted { number, .. }| node.on_persist_ready(number)).unwrap();
    member.drive(true);
    assert!(!member.committed.is_empty(), "it leads");
}
