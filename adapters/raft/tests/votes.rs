//! A checkpoint or a compaction also writes a hard state, and takes back nothing of one that another batch brought.

mod support;

use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{Entry, Message, MessageType};
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, GroupStorage, PersistQueue};
use support::{bootstrapped, commit, conf_state, disk, entry, hard_state, message, node, open};

const GROUP: u64 = 7;

/// Entries up to 20, committed up to 5, in term 2, with a vote for 2.
fn at_20(wal: &Wal) -> GroupStorage {
    let mut group = bootstrapped(wal, GROUP);
    let entries: Vec<Entry> = (2..=20).map(|i| entry(i, 2)).collect();
    commit(wal, |batch| {
        group.append(batch, &entries).unwrap();
        group.set_hard_state(batch, &hard_state(2, 2, 5));
    });
    group
}

fn put(group: &mut GroupStorage, batch: &mut Batch, index: u64) {
    let conf_state = conf_state(&[1, 2, 3]);
    group.checkpoint(batch, Checkpoint { index, term: 2, conf_state: &conf_state, data: b"" }).unwrap();
}

/// Written and submitted in this order, both durable.
#[test]
fn a_checkpoint_in_a_batch_of_its_own_takes_no_vote_back() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_20(&wal);
    let (mut first, mut second) = (Batch::new(), Batch::new());
    group.set_hard_state(&mut first, &hard_state(5, 3, 10));
    put(&mut group, &mut second, 10);
    wal.commit(&mut first).unwrap();
    drop(wal.submit(second.lazy()).unwrap());
    wal.sync().unwrap();
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let found = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!(found.hard_state(), &hard_state(5, 3, 10));
}

#[test]
fn nor_does_a_compaction_that_writes_what_a_state_machine_said() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_20(&wal);
    let (mut first, mut second) = (Batch::new(), Batch::new());
    group.set_hard_state(&mut first, &hard_state(5, 3, 10));
    group.set_applied(10, 2).unwrap();
    assert_eq!(group.compact(&mut second, 11).unwrap(), 11);
    wal.commit(&mut first).unwrap();
    wal.commit(&mut second).unwrap();
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let found = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((found.hard_state(), found.applied()), (&hard_state(5, 3, 10), 10));
}

/// The log has a commit index that the earlier batch, written when the log had less, will take back.
#[test]
fn a_checkpoint_brings_its_commit_index_whatever_the_log_has_when_it_is_written() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_20(&wal);
    let (mut first, mut second, mut third) = (Batch::new(), Batch::new(), Batch::new());
    group.set_hard_state(&mut first, &hard_state(5, 3, 20));
    put(&mut group, &mut second, 10);
    wal.commit(&mut first).unwrap();
    put(&mut group, &mut third, 18);
    wal.commit(&mut second).unwrap();
    wal.commit(&mut third).unwrap();
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let found = GroupStorage::open(&wal, GROUP).expect("it does not contradict itself");
    assert_eq!((found.hard_state(), found.applied()), (&hard_state(5, 3, 20), 18));
}

/// Replica 1 votes for 3 in term 5, is cut off, and is then asked by 2 in term 5.
#[test]
fn nobody_votes_twice_in_a_term() {
    let disk = disk();
    let wal = Arc::new(open(&disk));
    let mut first_life = node(1, bootstrapped(&wal, GROUP));
    // Entries of leader 2 in term 2, not committed yet.
    let mut append = message(MessageType::MsgAppend, 2, 1, 2);
    (append.index, append.log_term) = (1, 1);
    append.set_entries((2..=10).map(|i| entry(i, 2)).collect::<Vec<_>>().into());
    first_life.step(append).unwrap();
    drive(&wal, &mut first_life, &mut Batch::new());
    // Leader 2's last message, and then a candidate. What was applied is checkpointed in a lazy batch.
    first_life.step(Message { commit: 10, ..message(MessageType::MsgHeartbeat, 2, 1, 2) }).unwrap();
    first_life.step(asks_for_a_vote(3)).unwrap();
    let mut lazy = Batch::new();
    let said = drive(&wal, &mut first_life, &mut lazy);
    assert!(grants(&said), "{said:?}");
    assert_eq!(first_life.store().applied(), 10);
    drop(wal.submit(lazy.lazy()).unwrap());
    wal.sync().unwrap();

    let wal = Arc::new(open(&Arc::new(disk.crash_lost_all())));
    let mut second_life = node(1, GroupStorage::open(&wal, GROUP).unwrap());
    second_life.step(asks_for_a_vote(2)).unwrap();
    let said = drive(&wal, &mut second_life, &mut Batch::new());
    assert!(!grants(&said), "it voted for 3 in this term: {said:?}");
}

fn asks_for_a_vote(from: u64) -> Message {
    Message { index: 10, log_term: 2, ..message(MessageType::MsgRequestVote, from, 1, 5) }
}

fn grants(said: &[Message]) -> bool {
    said.iter().any(|m| m.get_msg_type() == MessageType::MsgRequestVoteResponse && !m.reject && m.term == 5)
}

/// Persists all that the node has, checkpoints what it applies between writing a Ready and submitting it, and returns the messages.
fn drive(wal: &Arc<Wal>, node: &mut RawNode<GroupStorage>, checkpoints: &mut Batch) -> Vec<Message> {
    let mut queue = PersistQueue::new(Arc::clone(wal), || ());
    let mut round = queue.round();
    let mut said = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        let committed = ready.take_committed_entries();
        round.persist(node.mut_store(), ready).unwrap();
        if let Some(last) = committed.last() {
            put(node.mut_store(), checkpoints, last.index);
        }
        queue.submit(&mut round, |written| node.advance_append_async(written.ready)).unwrap();
        queue.flush().unwrap();
        let each = |durable: strandlog_raft::Persisted| {
            node.on_persist_ready(durable.number);
            said.extend(durable.messages);
        };
        queue.poll(each).unwrap();
    }
    said
}
