//! `Config::batch_append`: raft 0.7 adds entries to a message that waits, whatever position that message names. Taken literally, it makes a
//! follower acknowledge entries that it never had.

mod support;

use std::sync::Arc;

use raft::eraftpb::{Message, MessageType};
use raft::{Config, RawNode, StateRole};
use strandlog_raft::{GroupStorage, PersistQueue};
use support::{bootstrapped, commit, disk, entry, hard_state, message, open};

const GROUP: u64 = 7;

#[test]
fn entries_leave_in_no_message_that_says_they_follow_another_than_they_do() {
    let wal = Arc::new(open(&disk()));
    let mut storage = bootstrapped(&wal, GROUP);
    commit(&wal, |batch| {
        storage.append(batch, &(2..=20).map(|index| entry(index, 1)).collect::<Vec<_>>()).unwrap();
        storage.set_hard_state(batch, &hard_state(1, 0, 1));
    });
    let config = Config { id: 1, applied: 1, batch_append: true, max_size_per_msg: 1 << 20, ..Config::default() };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut leader = RawNode::new(&config, storage, &logger).unwrap();
    let mut queue = PersistQueue::new(Arc::clone(&wal), || ());
    let mut round = queue.round();
    let mut drive = |node: &mut RawNode<GroupStorage>| {
        let mut said: Vec<Message> = Vec::new();
        while node.has_ready() {
            let mut ready = node.ready();
            let applied = ready.take_committed_entries().last().map_or(0, |entry| entry.index);
            round.persist(node.mut_store(), ready).unwrap();
            let advance = |written: strandlog_raft::Written| {
                node.advance_append_async(written.ready);
                node.advance_apply_to(applied);
                said.extend(written.messages);
            };
            queue.submit(&mut round, advance).unwrap();
            queue.flush().unwrap();
            queue
                .poll(|durable| {
                    node.on_persist_ready(durable.number);
                    said.extend(durable.messages);
                })
                .unwrap();
        }
        said
    };
    let answer = |from, index| Message { index, ..message(MessageType::MsgAppendResponse, from, 1, 2) };
    leader.campaign().unwrap();
    drive(&mut leader);
    leader.step(message(MessageType::MsgRequestVoteResponse, 2, 1, 2)).unwrap();
    assert_eq!(leader.raft.state, StateRole::Leader);
    drive(&mut leader);
    // Replica 2 has entry 10, and is sent the rest.
    leader.step(answer(2, 10)).unwrap();
    drive(&mut leader);
    // Replica 3's acknowledgement commits, which 2 is told by a message without entries; and then 2 reports that the earlier ones were
    // lost.
    leader.step(answer(3, 21)).unwrap();
    leader.step(Message { reject: true, reject_hint: 10, ..answer(2, 21) }).unwrap();
    let mut said = drive(&mut leader);
    // The message counts as lost, as on any network, and raft sends its content again.
    leader.step(message(MessageType::MsgHeartbeatResponse, 2, 1, 2)).unwrap();
    said.extend(drive(&mut leader));
    let mut sent = 0;
    for append in said.iter().filter(|said| said.to == 2 && said.get_msg_type() == MessageType::MsgAppend) {
        for (index, entry) in (append.index + 1..).zip(append.get_entries()) {
            assert_eq!(entry.index, index, "in a message that begins behind {}", append.index);
            sent = index;
        }
    }
    assert_eq!(sent, 21);
}
