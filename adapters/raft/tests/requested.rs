//! A snapshot that raft asks for when the log is empty: its index is that of the last entry, which was compacted.

mod support;

use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{Message, MessageType, Snapshot};
use strandlog::{Batch, Wal};
use strandlog_raft::{Error, GroupStorage, PersistQueue};
use support::{bootstrapped, commit, conf_state, disk, entry, hard_state, message, node, open};

const GROUP: u64 = 7;

fn snapshot(index: u64, term: u64, data: &'static [u8]) -> Snapshot {
    let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.set_conf_state(conf_state(&[1, 2, 3]));
    snapshot
}

/// Persists everything that the node has, and returns its messages.
fn drive(wal: &Arc<Wal>, node: &mut RawNode<GroupStorage>) -> Result<Vec<Message>, Error> {
    let mut queue = PersistQueue::new(Arc::clone(wal), || ());
    let mut round = queue.round();
    let mut said = Vec::new();
    while node.has_ready() {
        let ready = node.ready();
        round.persist(node.mut_store(), ready)?;
        queue.submit(&mut round, |written| node.advance_append_async(written.ready))?;
        queue.flush()?;
        queue.poll(|durable| {
            node.on_persist_ready(durable.number);
            said.extend(durable.messages);
        })?;
    }
    Ok(said)
}

#[test]
fn a_snapshot_that_raft_asked_for_is_taken_where_the_log_is_empty() {
    let disk = disk();
    let wal = Arc::new(open(&disk));
    let mut follower = node(1, bootstrapped(&wal, GROUP));
    follower.step(message(MessageType::MsgHeartbeat, 2, 1, 1)).unwrap();
    drive(&wal, &mut follower).unwrap();
    follower.request_snapshot().unwrap();
    drive(&wal, &mut follower).unwrap();
    let mut sent = message(MessageType::MsgSnapshot, 2, 1, 1);
    sent.set_snapshot(snapshot(1, 1, b"again"));
    follower.step(sent).unwrap();
    drive(&wal, &mut follower).expect("it is taken");
    assert_eq!(follower.store().checkpoint_data().unwrap().unwrap(), &b"again"[..]);
    // And the log goes on after it.
    let mut append = message(MessageType::MsgAppend, 2, 1, 1);
    (append.index, append.log_term) = (1, 1);
    append.set_entries(vec![entry(2, 1)].into());
    follower.step(append).unwrap();
    let said = drive(&wal, &mut follower).unwrap();
    assert!(said.iter().any(|m| m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject && m.index == 2));
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let found = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((found.replica().bounds(), found.applied()), ((2, 2), 1));
    assert_eq!(found.checkpoint_data().unwrap().unwrap(), &b"again"[..]);
}

/// What such a snapshot would replace is newer: nobody asks for that, and a group that is bootstrapped again would lose what it
/// acknowledged.
#[test]
fn a_snapshot_at_the_beginning_of_a_log_that_has_entries_is_refused() {
    let wal = open(&disk());
    let mut group = bootstrapped(&wal, GROUP);
    commit(&wal, |batch| {
        group.append(batch, &[entry(2, 1)]).unwrap();
        group.set_hard_state(batch, &hard_state(1, 2, 2));
    });
    let mut batch = Batch::new();
    let again = group.bootstrap(&mut batch, &conf_state(&[1, 2, 3]), b"start");
    assert!(matches!(again, Err(Error::SnapshotOutOfDate { index: 1, first: 2, .. })), "{again:?}");
    assert!(batch.is_empty());
}

#[test]
fn a_snapshot_of_nothing_or_of_what_was_compacted_is_refused() {
    let wal = open(&disk());
    let mut blank = GroupStorage::open(&wal, GROUP).unwrap();
    let mut batch = Batch::new();
    let refused = blank.install_snapshot(&mut batch, &snapshot(0, 0, b""), None);
    assert!(matches!(refused, Err(Error::SnapshotOutOfDate { index: 0, first: 1, .. })), "{refused:?}");
    commit(&wal, |batch| blank.install_snapshot(batch, &snapshot(9, 2, b"nine"), None)).unwrap();
    let refused = blank.install_snapshot(&mut batch, &snapshot(8, 2, b"eight"), None);
    assert!(matches!(refused, Err(Error::SnapshotOutOfDate { index: 8, first: 10, .. })), "{refused:?}");
    assert!(batch.is_empty());
}

/// While raft 0.7 waits for a snapshot that it asked for it takes any, even an older one that was on its way already, and forgets the
/// entries after it, which the leader counts on.
#[test]
fn a_snapshot_that_was_on_its_way_takes_no_entry_that_was_acknowledged() {
    let disk = disk();
    let wal = Arc::new(open(&disk));
    let mut follower = node(1, bootstrapped(&wal, GROUP));
    let mut append = message(MessageType::MsgAppend, 2, 1, 1);
    (append.index, append.log_term, append.commit) = (1, 1, 5);
    append.set_entries((2..=10).map(|index| entry(index, 1)).collect::<Vec<_>>().into());
    follower.step(append).unwrap();
    let said = drive(&wal, &mut follower).unwrap();
    assert!(said.iter().any(|m| m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject && m.index == 10));
    follower.advance_apply_to(5);
    follower.request_snapshot().unwrap();
    drive(&wal, &mut follower).unwrap();
    let mut sent = message(MessageType::MsgSnapshot, 2, 1, 1);
    sent.set_snapshot(snapshot(6, 1, b"six"));
    follower.step(sent).unwrap();
    let refused = drive(&wal, &mut follower);
    assert!(matches!(refused, Err(Error::SnapshotOutOfDate { index: 6, last: 10, .. })), "{refused:?}");
    // The group is opened anew, and has what it acknowledged; raft asks again if it is told to.
    let mut follower = node(1, GroupStorage::open(&wal, GROUP).unwrap());
    assert_eq!(follower.store().replica().bounds(), (2, 10));
    follower.step(message(MessageType::MsgHeartbeat, 2, 1, 1)).unwrap();
    follower.request_snapshot().unwrap();
    drive(&wal, &mut follower).unwrap();
    let mut sent = message(MessageType::MsgSnapshot, 2, 1, 1);
    sent.set_snapshot(snapshot(10, 1, b"ten"));
    follower.step(sent).unwrap();
    drive(&wal, &mut follower).expect("it drops nothing");
    assert_eq!(follower.store().replica().bounds(), (11, 10));
}
