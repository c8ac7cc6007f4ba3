//! What the log refuses concerns one group alone: the others of its round are written, and their poller goes on.

mod support;

use std::sync::Arc;

use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
use raft::{RawNode, StorageError};
use strandlog::Wal;
use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog_raft::{APPLIED, Checkpoint, Error, GroupStorage, PersistQueue, Round, SnapshotSource};
use support::{bootstrapped, commit, conf_state, entry, hard_state, message, node};

const GROUPS: u64 = 3;
/// Half of the smallest segment: the limit for a value.
const MAX_VALUE: usize = 32 << 10;
const MAX_ENTRY: u32 = 1000;

/// The source of a state machine that keeps its own files.
struct Elsewhere;

impl SnapshotSource for Elsewhere {
    fn snapshot(&self, _group: u64, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// Replica 1 of groups 0 to 2, and what they have sent.
struct Poller {
    disk: Arc<SimDisk>,
    nodes: Vec<RawNode<GroupStorage>>,
    queue: PersistQueue,
    round: Round,
    said: Vec<(u64, MessageType, u64)>,
}

impl Poller {
    fn new(elsewhere: bool) -> Self {
        let disk = support::disk();
        let options = support::options().max_entry_bytes(MAX_ENTRY);
        let wal = Arc::new(options.open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("the log opens"));
        let storage = |group| {
            let storage = bootstrapped(&wal, group);
            if elsewhere { storage.with_snapshots(Elsewhere) } else { storage }
        };
        let nodes = (0..GROUPS).map(|group| node(1, storage(group))).collect();
        let queue = PersistQueue::new(wal, || ());
        Poller { disk, nodes, round: queue.round(), queue, said: Vec::new() }
    }

    /// The leader of term 2 sends a group entries from 2 on.
    fn append(&mut self, group: u64, entries: Vec<Entry>) {
        let mut append = message(MessageType::MsgAppend, 2, 1, 2);
        (append.index, append.log_term) = (1, 1);
        append.set_entries(entries.into());
        self.step(group, append);
    }

    /// The leader sends the state machine as of 10.
    fn install(&mut self, group: u64, bytes: usize) {
        let mut install = message(MessageType::MsgSnapshot, 2, 1, 2);
        install.mut_snapshot().data = vec![7; bytes].into();
        let metadata = install.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (10, 2);
        metadata.set_conf_state(conf_state(&[1, 2, 3]));
        self.step(group, install);
    }

    fn step(&mut self, group: u64, message: Message) {
        self.nodes[group as usize].step(message).unwrap();
    }

    fn persist(&mut self, group: u64) -> Result<(), Error> {
        let node = &mut self.nodes[group as usize];
        let ready = node.ready();
        self.round.persist(node.mut_store(), ready)
    }

    fn submit(&mut self) -> Result<(), Error> {
        let nodes = &mut self.nodes;
        self.queue.submit(&mut self.round, |written| nodes[written.group as usize].advance_append_async(written.ready))
    }

    /// All messages that may be sent now.
    fn hear(&mut self) -> Vec<(u64, MessageType, u64)> {
        let (nodes, said) = (&mut self.nodes, &mut self.said);
        self.queue
            .poll(|durable| {
                nodes[durable.group as usize].on_persist_ready(durable.number);
                said.extend(durable.messages.iter().map(|m| (durable.group, m.get_msg_type(), m.index)));
            })
            .unwrap();
        std::mem::take(said)
    }

    /// Opens a group anew from the log.
    fn reopen(&mut self, group: u64) {
        let storage = GroupStorage::open(self.queue.wal(), group).expect("the group opens");
        self.nodes[group as usize] = node(1, storage);
    }

    /// What another opening finds after a power cut.
    fn after_a_cut(&self) -> Wal {
        support::open(&Arc::new(self.disk.crash_lost_all()))
    }
}

fn acknowledged(group: u64, index: u64) -> (u64, MessageType, u64) {
    (group, MessageType::MsgAppendResponse, index)
}

fn too_large(outcome: &Result<(), Error>, of: u64) -> bool {
    matches!(outcome, Err(Error::TooLarge { group, .. }) if *group == of)
}

#[test]
fn the_bytes_of_a_snapshot_go_where_the_state_machine_is() {
    let mut poller = Poller::new(true);
    poller.install(1, 200_000);
    poller.append(2, vec![entry(2, 2)]);
    (1..GROUPS).for_each(|group| poller.persist(group).expect("the log takes the index alone"));
    poller.submit().unwrap();
    poller.queue.flush().unwrap();
    assert_eq!(poller.hear(), [acknowledged(1, 10), acknowledged(2, 2)]);
    let wal = poller.after_a_cut();
    let storage = GroupStorage::open(&wal, 1).unwrap();
    assert_eq!((storage.applied(), storage.hard_state().commit, storage.replica().bounds()), (10, 10, (11, 10)));
    assert_eq!(storage.checkpoint_data().unwrap(), None);
}

/// There is no way to store the state machine, and so none for its group: the others go on.
#[test]
fn a_snapshot_too_large_for_the_log_and_an_entry_are_refused_to_their_groups_alone() {
    let mut poller = Poller::new(false);
    poller.install(0, MAX_VALUE);
    poller.append(1, vec![entry(2, 2), Entry { data: vec![1; MAX_ENTRY as usize].into(), ..entry(3, 2) }]);
    poller.append(2, vec![entry(2, 2)]);
    for group in [0, 1] {
        let refused = poller.persist(group);
        assert!(too_large(&refused, group), "{refused:?}");
    }
    poller.persist(2).unwrap();
    for group in [0, 1] {
        poller.queue.forget(&mut poller.round, group);
    }
    poller.submit().unwrap();
    poller.queue.flush().unwrap();
    assert_eq!(poller.hear(), [acknowledged(2, 2)]);
    for group in [0, 1] {
        poller.reopen(group);
        assert_eq!(poller.nodes[group as usize].store().replica().bounds(), (2, 1), "nothing was written");
    }
    // As large as a value may be.
    let most = poller.nodes[1].store().max_proposal_bytes() as usize;
    poller.append(1, vec![Entry { data: vec![1; most].into(), ..entry(2, 2) }]);
    poller.install(0, MAX_VALUE - 22);
    (0..2).for_each(|group| poller.persist(group).unwrap());
    poller.submit().unwrap();
    poller.queue.flush().unwrap();
    assert_eq!(poller.hear(), [acknowledged(0, 10), acknowledged(1, 2)]);
}

/// A snapshot that fits, with entries after it that do not: neither is written.
#[test]
fn a_ready_that_is_refused_for_its_end_has_written_nothing_of_its_beginning() {
    let mut poller = Poller::new(false);
    poller.install(0, 100);
    let mut append = message(MessageType::MsgAppend, 2, 1, 2);
    (append.index, append.log_term) = (10, 2);
    append.set_entries(vec![Entry { data: vec![1; 2000].into(), ..entry(11, 2) }].into());
    poller.step(0, append);
    let refused = poller.persist(0);
    assert!(too_large(&refused, 0) && poller.round.is_empty(), "{refused:?}");
    assert_eq!(poller.nodes[0].store().applied(), 1);
}

#[test]
fn a_checkpoint_or_state_of_ones_own_too_large_for_the_log_is_not_in_the_round() {
    let mut poller = Poller::new(false);
    let storage = poller.nodes[0].mut_store();
    let (conf_state, data) = (conf_state(&[1, 2, 3]), vec![0; MAX_VALUE]);
    let refused =
        poller.round.checkpoint(storage, Checkpoint { index: 1, term: 1, conf_state: &conf_state, data: &data });
    assert!(too_large(&refused, 0), "{refused:?}");
    let refused = poller.round.put(0, b"own", &[0; MAX_VALUE + 1]);
    assert!(too_large(&refused, 0), "{refused:?}");
    for key in [APPLIED, b"\0sl.a", &[b'k'; 257]] {
        for refused in [poller.round.put(0, key, b""), poller.round.delete(0, key)] {
            assert!(matches!(refused, Err(Error::Misuse { group: 0, .. })), "{refused:?}");
        }
    }
    assert!(poller.round.is_empty());
    poller.round.put(0, b"own", &[1; MAX_VALUE]).unwrap();
    poller.submit().unwrap();
    assert_eq!(poller.nodes[0].store().replica().get(b"own").unwrap().unwrap(), &[1; MAX_VALUE][..]);
}

/// Forgotten in the round that has its Ready, with an earlier one under way; a later group of the same id hears nothing of it.
#[test]
fn a_group_is_removed_whatever_it_has_in_the_round() {
    for sealed in [false, true] {
        let mut poller = Poller::new(false);
        (0..GROUPS).for_each(|group| poller.append(group, vec![entry(2, 2)]));
        (0..GROUPS).for_each(|group| poller.persist(group).unwrap());
        poller.submit().unwrap();
        let two = || vec![entry(2, 2), entry(3, 2)];
        for group in [1, 2] {
            poller.append(group, two());
            poller.persist(group).unwrap();
        }
        if sealed {
            // Something that the log refuses, whatever it is.
            commit(poller.queue.wal(), |batch| {
                batch.remove(1);
            });
            let refused = poller.submit();
            assert!(matches!(refused, Err(Error::Log(strandlog::Error::Gap { replica: 1, .. }))), "{refused:?}");
            poller.append(0, two());
            assert!(matches!(poller.persist(0), Err(Error::Misuse { group: 0, .. })), "the round is sealed");
            poller.reopen(0);
        }
        poller.queue.remove(&mut poller.round, 1);
        let storage = poller.nodes[1].mut_store();
        let gone = poller.round.compact(storage, 2);
        assert!(matches!(gone, Err(Error::Misuse { group: 1, .. })), "{gone:?}");
        assert!(matches!(poller.round.put(1, b"own", b""), Err(Error::Misuse { group: 1, .. })), "a zombie");
        assert!(matches!(poller.persist(1), Err(Error::Misuse { group: 1, .. })), "a zombie");
        poller.submit().expect("the others go on");
        assert!(!poller.queue.wal().replica(1).exists());
        // A replica of that id is placed here anew, and starts blank.
        let storage = GroupStorage::open(poller.queue.wal(), 1).expect("it starts blank");
        poller.nodes[1] = node(1, storage);
        poller.install(1, 5);
        poller.persist(1).unwrap();
        poller.submit().unwrap();
        poller.queue.flush().unwrap();
        let of = |group, said: &[(u64, MessageType, u64)]| -> Vec<u64> {
            said.iter().filter(|one| one.0 == group).map(|one| one.2).collect()
        };
        let said = poller.hear();
        assert_eq!((of(1, &said), of(2, &said)), (vec![10], vec![2, 3]), "sealed: {sealed}");
        let wal = poller.after_a_cut();
        let storage = GroupStorage::open(&wal, 1).unwrap();
        assert_eq!((storage.replica().bounds(), storage.applied()), ((11, 10), 10));
        assert_eq!(storage.hard_state(), &hard_state(2, 0, 10));
    }
}

/// A heartbeat's commit index needs no sync, and comes last; or it is taken out again. The other group's entries are waited for in any
/// case.
#[test]
fn a_round_waits_for_the_sync_that_any_of_its_groups_needs() {
    for forgets in [false, true] {
        let mut poller = Poller::new(false);
        poller.append(2, vec![entry(2, 2)]);
        poller.persist(2).unwrap();
        poller.submit().unwrap();
        poller.queue.flush().unwrap();
        poller.hear();
        poller.append(1, vec![entry(2, 2)]);
        poller.persist(1).unwrap();
        poller.step(2, Message { commit: 2, ..message(MessageType::MsgHeartbeat, 2, 1, 2) });
        poller.persist(2).unwrap();
        if forgets {
            poller.queue.forget(&mut poller.round, 2);
        }
        poller.submit().unwrap();
        let early = poller.hear();
        assert!(early.iter().all(|said| said.0 != 1), "forgets: {forgets}: {early:?}");
        poller.queue.flush().unwrap();
        assert!(poller.hear().contains(&acknowledged(1, 2)), "forgets: {forgets}");
    }
}

/// A round in which raft relies on nothing requests no sync; a flush waits for it.
#[test]
fn what_was_flushed_survives_a_power_cut_also_where_no_round_asked_for_a_sync() {
    let mut poller = Poller::new(false);
    poller.round.put(0, b"own", b"state").unwrap();
    poller.submit().unwrap();
    poller.queue.flush().unwrap();
    let wal = poller.after_a_cut();
    assert_eq!(wal.replica(0).get(b"own").unwrap().unwrap(), &b"state"[..]);
}
