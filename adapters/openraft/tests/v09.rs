//! openraft 0.9: its own storage suite in full, with each case as a new group in one shared log; and what that suite leaves out.
//! What both versions share is tested with 0.10.

#![cfg(feature = "v09")]
#![allow(missing_docs)]

use std::future::pending;
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use openraft_09::entry::RaftPayload;
use openraft_09::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft_09::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft_09::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft_09::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, StorageHelper};
use openraft_09::testing::{StoreBuilder, Suite, blank_ent, log_id};
use openraft_09::{
    Config, EmptyNode, LogId, OptionalSend, Raft, RaftLogId, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StoredMembership, Vote,
};
use strandlog::Wal;
use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog_openraft::v09::LogStore;

openraft_09::declare_raft_types!(
    pub Types: D = String, R = String, NodeId = u64, Node = openraft_09::EmptyNode,
        Entry = openraft_09::Entry<Types>, SnapshotData = Cursor<Vec<u8>>,
);

type Store = LogStore<Types>;
type Stored<T> = Result<T, StorageError<u64>>;
type Meta = SnapshotMeta<u64, openraft_09::EmptyNode>;
type Members = StoredMembership<u64, openraft_09::EmptyNode>;

/// A state machine that applies only log ids and memberships. Clones share one machine.
#[derive(Clone, Debug, Default)]
struct Machine(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    applied: Option<LogId<u64>>,
    members: Members,
    snapshot: Option<Meta>,
    /// Writing the files of a snapshot to be installed takes longer than anything here waits.
    is_slow: bool,
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let mut contents = self.0.lock().unwrap();
        let meta = Meta {
            last_log_id: contents.applied,
            last_membership: contents.members.clone(),
            snapshot_id: "one".into(),
        };
        contents.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: Box::default() })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, Members)> {
        let contents = self.0.lock().unwrap();
        Ok((contents.applied, contents.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<String>>
    where
        I: IntoIterator<Item = openraft_09::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut contents = self.0.lock().unwrap();
        let mut apply = |entry: openraft_09::Entry<Types>| {
            contents.applied = Some(*entry.get_log_id());
            if let Some(members) = entry.get_membership() {
                contents.members = Members::new(Some(entry.log_id), members.clone());
            }
            String::new()
        };
        Ok(entries.into_iter().map(&mut apply).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, _: Box<Cursor<Vec<u8>>>) -> Stored<()> {
        let is_slow = self.0.lock().unwrap().is_slow;
        if is_slow {
            pending::<()>().await;
        }
        let mut contents = self.0.lock().unwrap();
        contents.applied = meta.last_log_id;
        contents.members = meta.last_membership.clone();
        contents.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        let meta = self.0.lock().unwrap().snapshot.clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: Box::default() }))
    }
}

struct Groups {
    wal: Arc<Wal>,
    next: AtomicU64,
}

impl StoreBuilder<Types, Store, Machine> for Groups {
    async fn build(&self) -> Stored<((), Store, Machine)> {
        let group = self.next.fetch_add(1, Ordering::Relaxed);
        let store = Store::new(Arc::clone(&self.wal), group);
        Ok(((), store.expect("the group opens"), Machine::default()))
    }
}

#[test]
fn openrafts_suite_passes_with_all_groups_in_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = Wal::options().chunk_size(4096).segment_size(64 << 10).capacity(8 << 20);
    let wal = Arc::new(options.open(dir.path().join("raft.log")).unwrap());
    let groups = Groups { wal: Arc::clone(&wal), next: AtomicU64::new(1) };
    Suite::test_store(&groups).unwrap();

    let groups = groups.next.into_inner() - 1;
    assert!(groups >= 30, "{groups} groups: the suite has shrunk");
    assert!(wal.verify(|_| {}).unwrap().is_clean());
    wal.close().unwrap();
}

fn open(disk: &Arc<SimDisk>) -> Arc<Wal> {
    let options = Wal::options().chunk_size(4096).segment_size(64 << 10);
    Arc::new(options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).unwrap())
}

fn store(wal: &Arc<Wal>, group: u64) -> Store {
    Store::new(Arc::clone(wal), group).unwrap()
}

#[tokio::test]
async fn what_was_promised_survives_a_power_cut() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = open(&disk);
    for group in 1..=9 {
        let mut store = store(&wal, group);
        store.save_vote(&Vote::new(group, group)).await.unwrap();
        store.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
        store.truncate(log_id(3, 9, 7)).await.unwrap();
        store.purge(log_id(3, 9, 1)).await.unwrap();
        store.save_committed(Some(log_id(3, 9, 4))).await.unwrap();
        // Makes the earlier lazy writes durable, too: one log, one order.
        store.blocking_append([blank_ent::<Types>(5, 8, 7)]).await.unwrap();
    }

    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(&disk);
    for group in 1..=9 {
        let mut store = store(&wal, group);
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(3, 9, 1)));
        assert_eq!(state.last_log_id, Some(log_id(5, 8, 7)));
        assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(group, group)));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(3, 9, 4)));
        let entries = store.try_get_log_entries(..).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    }
}

#[tokio::test]
async fn a_purge_goes_no_further_than_the_state_machine_was_reported_to_hold() {
    let wal = open(&Arc::new(SimDisk::new(8 << 20)));
    let mut store = store(&wal, 1);
    store.durable_applied(None).unwrap();
    store.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
    // As openraft does before it applies, and so before it purges for a snapshot of its own.
    store.save_committed(Some(log_id(3, 9, 9))).await.unwrap();
    store.purge(log_id(3, 9, 7)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, None);
    store.reader().durable_applied(4).unwrap();
    store.purge(log_id(3, 9, 7)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(3, 9, 4)));
    assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 5);
}

/// What is read would be sent as following an entry that is no longer the one before it, or that is gone.
#[tokio::test]
async fn a_leaders_replication_gets_what_follows_or_nothing_when_another_leads() {
    let wal = open(&Arc::new(SimDisk::new(8 << 20)));
    let mut store = store(&wal, 1);
    store.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
    let mut sends = store.get_log_reader().await;
    let sent = |entries: Vec<openraft_09::Entry<Types>>| entries.iter().map(|one| one.log_id).collect::<Vec<_>>();
    store.purge(log_id(3, 9, 2)).await.unwrap();
    assert_eq!(sent(sends.limited_get_log_entries(2, 10).await.unwrap()), []);
    assert_eq!(sent(sends.limited_get_log_entries(8, 10).await.unwrap()), [log_id(3, 9, 8), log_id(3, 9, 9)]);
    store.truncate(log_id(3, 9, 7)).await.unwrap();
    store.blocking_append((7..10).map(|i| blank_ent::<Types>(4, 8, i))).await.unwrap();
    assert_eq!(sent(sends.limited_get_log_entries(8, 10).await.unwrap()), []);
    let mut sends = store.get_log_reader().await;
    assert_eq!(sent(sends.limited_get_log_entries(8, 9).await.unwrap()), [log_id(4, 8, 8)]);
}

#[tokio::test]
async fn a_failed_disk_is_told_to_whoever_waits() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = open(&disk);
    let mut store = store(&wal, 1);
    store.blocking_append([blank_ent::<Types>(1, 1, 0)]).await.unwrap();
    disk.fail_at(disk.events(), strandlog::disk::sim::Fault::Error(strandlog::disk::sim::EIO));
    let failed = store.blocking_append([blank_ent::<Types>(1, 1, 1)]).await.unwrap_err();
    assert!(failed.to_string().contains("poisoned"), "{failed}");
    assert!(store.save_vote(&Vote::new(2, 1)).await.is_err());
    assert_eq!(store.try_get_log_entries(..1).await.unwrap().len(), 1, "what is there can still be read");
}

/// A network in which no node answers.
struct Nobody;

type NoAnswer<E = openraft_09::error::Infallible> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

fn no_answer<E: std::error::Error>() -> NoAnswer<E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other("nobody")))
}

impl RaftNetworkFactory<Types> for Nobody {
    type Network = Nobody;

    async fn new_client(&mut self, _: u64, _: &EmptyNode) -> Nobody {
        Nobody
    }
}

impl RaftNetwork<Types> for Nobody {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, NoAnswer> {
        Err(no_answer())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, NoAnswer<InstallSnapshotError>> {
        Err(no_answer())
    }

    async fn vote(&mut self, _: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, NoAnswer> {
        Err(no_answer())
    }
}

/// openraft 0.9 purges for a snapshot as soon as it has told the state machine to install it: at 149, beyond the log's end, or at 109,
/// where the log has entries that are not committed here.
#[tokio::test]
async fn the_log_keeps_what_the_state_machine_lacks_until_a_snapshot_is_installed() {
    for (reports, snapshot) in [(true, 149), (true, 109), (false, 149), (false, 109)] {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let wal = open(&disk);
        let mut group = store(&wal, 7);
        let reader = group.reader();
        if reports {
            group.durable_applied(None).unwrap();
        }
        let machine = Machine::default();
        machine.0.lock().unwrap().is_slow = true;
        let config = Config { enable_tick: false, enable_elect: false, ..Config::default() };
        let raft = Raft::new(1, Arc::new(config), Nobody, group, machine).await.unwrap();
        let vote = Vote::new_committed(1, 2);
        let entries = (0..120).map(|i| blank_ent::<Types>(1, 2, i)).collect();
        let leader_commit = Some(log_id(1, 2, 99));
        raft.append_entries(AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit }).await.unwrap();
        raft.wait(None).applied_index(Some(99), "applied").await.unwrap();
        // If it reports, its files lag behind.
        let durable = if reports { 49 } else { 99 };
        if reports {
            reader.durable_applied(durable).unwrap();
        }

        let last_log_id = Some(log_id(1, 2, snapshot));
        let meta = SnapshotMeta { last_log_id, last_membership: Members::default(), snapshot_id: "peer".into() };
        let node = raft.clone();
        let sent = Snapshot { meta, snapshot: Box::default() };
        let installing = tokio::spawn(async move { node.install_full_snapshot(vote, sent).await.map(drop) });
        raft.wait(None).metrics(|metrics| metrics.purged == last_log_id, "purged").await.unwrap();
        assert!(!installing.is_finished());
        // Another group's write makes the lazy writes durable. Then the power goes.
        store(&wal, 8).save_vote(&Vote::new(1, 1)).await.unwrap();
        let wal = open(&Arc::new(disk.crash_lost_all()));
        let mut group = store(&wal, 7);
        if reports {
            group.durable_applied(Some(durable)).unwrap();
        }
        let machine = Machine::default();
        machine.0.lock().unwrap().applied = Some(log_id(1, 2, durable));
        let state = StorageHelper::new(&mut group, &mut machine.clone()).get_initial_state().await;
        assert!(state.is_ok(), "reports: {reports}, at {snapshot}: {}", state.map(drop).unwrap_err());
        let log = group.get_log_state().await.unwrap();
        assert_eq!((log.last_purged_log_id, log.last_log_id), (None, Some(log_id(1, 2, 119))), "{reports}, {snapshot}");
        assert_eq!(machine.0.lock().unwrap().applied, Some(log_id(1, 2, 99)), "what it lacked is applied again");
    }
}

/// What openraft sees of a group, and the slots that are in the log.
async fn seen(wal: &Wal, group: &mut Store) -> (Option<LogId<u64>>, Option<LogId<u64>>, Vec<u64>, (u64, u64)) {
    let state = group.get_log_state().await.unwrap();
    let entries = group.try_get_log_entries(..).await.unwrap();
    let indexes = entries.iter().map(|entry| entry.log_id.index).collect();
    (state.last_purged_log_id, state.last_log_id, indexes, wal.replica(1).bounds())
}

#[tokio::test]
async fn a_purge_that_waits_is_shown_at_once_and_carried_out_before_the_next_append() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    let at = |index| Some(log_id(3, 9, index));
    group.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
    group.save_committed(at(4)).await.unwrap();
    // In the log, but not committed here.
    group.purge(log_id(3, 9, 6)).await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(6), at(9), vec![7, 8, 9], (1, 10)));
    group.purge(log_id(3, 9, 3)).await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(6), at(9), vec![7, 8, 9], (5, 10)), "below it, at once");
    group.truncate(log_id(3, 9, 9)).await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(6), at(8), vec![7, 8], (5, 9)));
    assert!(group.truncate(log_id(3, 9, 5)).await.is_err(), "that is purged");
    // Beyond the end, and once more.
    for index in [19, 29, 24] {
        group.purge(log_id(3, 9, index)).await.unwrap();
    }
    assert_eq!(seen(&wal, &mut group).await, (at(29), at(29), vec![], (5, 9)));
    group.truncate(log_id(3, 9, 30)).await.unwrap();
    assert!(group.limited_get_log_entries(7, 9).await.unwrap().is_empty());
    // A crash forgets the waiting purge. openraft asks again when it finds the state machine ahead of the log.
    group.save_vote(&Vote::new(3, 9)).await.unwrap();
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    assert_eq!(seen(&wal, &mut group).await, (at(3), at(8), vec![4, 5, 6, 7, 8], (5, 9)));
    let machine = Machine::default();
    machine.0.lock().unwrap().applied = at(29);
    StorageHelper::new(&mut group, &mut machine.clone()).get_initial_state().await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(29), at(29), vec![], (5, 9)));
    group.blocking_append((30..32).map(|i| blank_ent::<Types>(4, 9, i))).await.unwrap();
    let then = (at(29), Some(log_id(4, 9, 31)), vec![30, 31], (31, 32));
    assert_eq!(seen(&wal, &mut group).await, then);
    let wal = open(&Arc::new(disk.crash_lost_all()));
    assert_eq!(seen(&wal, &mut store(&wal, 1)).await, then);
}

/// If it were two batches, a crash between them would leave a log that does not begin at the purge point that openraft is told.
#[tokio::test]
async fn a_purge_and_its_point_are_one_batch() {
    let wal = open(&Arc::new(SimDisk::new(8 << 20)));
    let mut group = store(&wal, 1);
    group.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
    group.save_committed(Some(log_id(3, 9, 29))).await.unwrap();
    for index in [4, 29] {
        wal.sync().unwrap();
        let before = wal.stats().batches;
        group.purge(log_id(3, 9, index)).await.unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.stats().batches - before, 1, "to {index}");
    }
}

#[tokio::test]
async fn a_purge_for_a_snapshot_that_was_reported_waits_for_nothing() {
    let wal = open(&Arc::new(SimDisk::new(8 << 20)));
    let mut group = store(&wal, 1);
    group.durable_applied(None).unwrap();
    group.blocking_append((0..10).map(|i| blank_ent::<Types>(3, 9, i))).await.unwrap();
    let at = |index| Some(log_id(3, 9, index));
    group.purge(log_id(3, 9, 19)).await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(19), at(19), vec![], (1, 10)));
    group.reader().durable_applied(19).unwrap();
    group.purge(log_id(3, 9, 19)).await.unwrap();
    assert_eq!(seen(&wal, &mut group).await, (at(19), at(19), vec![], (21, 20)));
}

/// The leader changes while the state machine installs, or sends the snapshot again, and then the entries after it. openraft does nothing
/// of that, nor votes, before the state machine has the snapshot: a crash finds the log as it was.
#[tokio::test]
async fn nothing_is_written_behind_a_snapshot_before_it_is_installed() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = open(&disk);
    let machine = Machine::default();
    machine.0.lock().unwrap().is_slow = true;
    let config = Config { enable_tick: false, enable_elect: false, ..Config::default() };
    let raft = Raft::new(1, Arc::new(config), Nobody, store(&wal, 7), machine).await.unwrap();
    let append = |vote, prev_log_id, entries| {
        let raft = raft.clone();
        async move {
            let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: prev_log_id };
            raft.append_entries(request).await.map(drop)
        }
    };
    let entries = (0..10).map(|i| blank_ent::<Types>(3, 9, i)).collect();
    let (leads, leads_next) = (Vote::new_committed(3, 9), Vote::new_committed(4, 8));
    append(leads, None, entries).await.unwrap();
    let meta =
        Meta { last_log_id: Some(log_id(3, 9, 19)), last_membership: Members::default(), snapshot_id: "peer".into() };
    let install = |vote| {
        let (raft, sent) = (raft.clone(), Snapshot { meta: meta.clone(), snapshot: Box::default() });
        tokio::spawn(async move { raft.install_full_snapshot(vote, sent).await.map(drop) })
    };
    let installing = [install(leads), install(leads)];
    raft.wait(None).metrics(|metrics| metrics.purged == Some(log_id(3, 9, 19)), "purged").await.unwrap();
    let asked = [
        tokio::spawn(append(leads, Some(log_id(3, 9, 19)), vec![blank_ent::<Types>(3, 9, 20)])),
        tokio::spawn(append(leads_next, Some(log_id(3, 9, 19)), vec![blank_ent::<Types>(4, 8, 20)])),
    ];
    let again = install(leads_next);
    // Other groups' writes take as many turns.
    for term in 1..50 {
        store(&wal, 8).save_vote(&Vote::new(term, 1)).await.unwrap();
    }
    assert!(!asked.iter().any(|task| task.is_finished()), "an append was answered");
    assert!(!installing.iter().chain([&again]).any(|task| task.is_finished()), "a snapshot was");
    assert_eq!(wal.replica(7).bounds(), (1, 10));

    let wal = open(&Arc::new(disk.crash_lost_all()));
    let (mut group, mut machine) = (store(&wal, 7), Machine::default());
    let state = StorageHelper::new(&mut group, &mut machine).get_initial_state().await;
    assert!(state.is_ok(), "{}", state.map(drop).unwrap_err());
    assert_eq!(group.read_vote().await.unwrap(), Some(leads));
    assert_eq!(group.get_log_state().await.unwrap().last_log_id, Some(log_id(3, 9, 9)));
}
