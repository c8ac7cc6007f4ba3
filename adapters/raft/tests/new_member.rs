//! A node joins a group in which nobody writes. Its snapshot would be the old checkpoint, which does not name it: raft would send that
//! again and again, and the new member would ignore it.

mod support;

use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, EntryType, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole, Storage as _};
use strandlog::Wal;
use strandlog_raft::{Checkpoint, GroupStorage, PersistQueue, Round};
use support::{commit, conf_state, disk, entry, node, open};

const GROUP: u64 = 7;

struct Member {
    wal: Arc<Wal>,
    node: RawNode<GroupStorage>,
    queue: PersistQueue,
    round: Round,
    out: Vec<Message>,
    /// Index and term of the last entry applied, and the configuration as of it.
    applied: (u64, u64),
    conf_state: ConfState,
    installed: bool,
}

impl Member {
    fn new(id: u64, bootstrap: bool) -> Self {
        let wal = Arc::new(open(&disk()));
        let mut storage = GroupStorage::open(&wal, GROUP).unwrap();
        if bootstrap {
            commit(&wal, |batch| storage.bootstrap(batch, &conf_state(&[1]), b"start")).unwrap();
        }
        let (applied, conf_state) = ((storage.applied(), 1), storage.conf_state().clone());
        let queue = PersistQueue::new(Arc::clone(&wal), || {});
        let round = queue.round();
        Self { wal, node: node(id, storage), queue, round, out: vec![], applied, conf_state, installed: false }
    }

    /// Polls as a poller does that checkpoints only groups that want it.
    fn drive(&mut self) {
        while self.node.has_ready() || self.node.store().wants_checkpoint() {
            let mut ready = self.node.ready();
            self.installed |= !ready.snapshot().is_empty();
            for entry in ready.take_committed_entries() {
                self.applied = (entry.index, entry.term);
                if entry.get_entry_type() == EntryType::EntryConfChange {
                    let change = ConfChange::parse_from_bytes(&entry.data).unwrap();
                    self.conf_state = self.node.apply_conf_change(&change).unwrap();
                }
            }
            self.round.persist(self.node.mut_store(), ready).unwrap();
            if self.node.store().wants_checkpoint() {
                let (index, term) = self.applied;
                let checkpoint = Checkpoint { index, term, conf_state: &self.conf_state, data: b"idle" };
                self.round.checkpoint(self.node.mut_store(), checkpoint).unwrap();
            }
            let (node, out, applied) = (&mut self.node, &mut self.out, self.applied.0);
            self.queue
                .submit(&mut self.round, |written| {
                    node.advance_append_async(written.ready);
                    node.advance_apply_to(applied);
                    out.extend(written.messages);
                })
                .unwrap();
            self.wal.sync().unwrap();
            self.queue
                .poll(|durable| {
                    node.on_persist_ready(durable.number);
                    node.advance_apply_to(applied);
                    out.extend(durable.messages);
                })
                .unwrap();
        }
    }
}

#[test]
fn a_new_member_of_an_idle_group_catches_up() {
    let (mut leader, mut learner) = (Member::new(1, true), Member::new(2, false));
    leader.node.campaign().unwrap();
    leader.drive();
    assert_eq!(leader.node.raft.state, StateRole::Leader);
    let mut change = ConfChange::default();
    change.set_change_type(ConfChangeType::AddLearnerNode);
    change.node_id = 2;
    leader.node.propose_conf_change(vec![], change).unwrap();
    leader.drive();
    for _ in 0..100 {
        leader.node.tick();
        leader.drive();
        for message in std::mem::take(&mut leader.out) {
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let _ = learner.node.step(message);
            learner.drive();
            if is_snapshot {
                leader.node.report_snapshot(2, SnapshotStatus::Finish);
            }
        }
        for message in std::mem::take(&mut learner.out) {
            let _ = leader.node.step(message);
        }
    }
    assert!(learner.installed, "it took no snapshot");
    let end = |member: &Member| member.node.store().replica().last_index();
    assert_eq!(end(&learner), end(&leader));
    assert!(!leader.node.store().wants_checkpoint());
}

/// A replica that the configuration names in any way gets a snapshot.
#[test]
fn a_snapshot_is_for_those_whom_its_configuration_names() {
    let wal = open(&disk());
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    let members = ConfState { voters_outgoing: vec![3], learners_next: vec![4], ..ConfState::from((vec![1], vec![2])) };
    commit(&wal, |batch| group.bootstrap(batch, &members, b"start")).unwrap();
    for id in 1..=4 {
        assert!(group.snapshot(0, id).is_ok() && !group.wants_checkpoint(), "{id}");
    }
    assert!(group.snapshot(0, 5).is_err() && group.wants_checkpoint());
    commit(&wal, |batch| group.append(batch, &[entry(2, 1)])).unwrap();
    let members = conf_state(&[1, 5]);
    let checkpoint = Checkpoint { index: 2, term: 1, conf_state: &members, data: b"" };
    commit(&wal, |batch| group.checkpoint(batch, checkpoint)).unwrap();
    assert!(!group.wants_checkpoint() && group.snapshot(0, 5).is_ok());
}
