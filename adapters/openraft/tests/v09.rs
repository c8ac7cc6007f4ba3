//! openraft 0.9: its own storage suite in full, each case a new group in one shared log; and what the suite leaves out. The rest is
//! shared with 0.10 and tested there.

#![cfg(feature = "v09")]
#![allow(missing_docs)]

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use openraft_09::entry::RaftPayload;
use openraft_09::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft_09::testing::{StoreBuilder, Suite, blank_ent, log_id};
use openraft_09::{
    LogId, OptionalSend, RaftLogId, RaftLogReader, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StoredMembership, Vote,
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

/// A state machine that applies nothing but log ids and memberships. Clones are one machine.
#[derive(Clone, Debug, Default)]
struct Machine(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    applied: Option<LogId<u64>>,
    members: Members,
    snapshot: Option<Meta>,
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
        // Makes what was lazy durable, too: one log, one order.
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
    store.purge(log_id(3, 9, 7)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, None);
    store.reader().durable_applied(4).unwrap();
    store.purge(log_id(3, 9, 7)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(3, 9, 4)));
    assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 5);
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
