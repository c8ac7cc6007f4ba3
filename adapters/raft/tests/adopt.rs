//! A state machine with files of its own installs a snapshot: the file is durable *before* the batch (`GroupStorage::install_snapshot`). If
//! the process is killed between the two, the file has another history than the log, or is ahead of it.

mod support;

use std::sync::Arc;

use raft::Storage;
use raft::eraftpb::{Entry, Snapshot};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Error, GroupStorage, SnapshotSource};
use support::{commit, conf_state, disk, entry, hard_state, node, open};

const GROUP: u64 = 7;

struct Files;

impl SnapshotSource for Files {
    fn snapshot(&self, _: u64, _: u64, _: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// A follower with entries 101 to 140 of the leader of term 2, committed up to 110: nobody else has the rest.
fn follower(wal: &Wal) -> GroupStorage {
    let mut group = GroupStorage::open(wal, GROUP).unwrap().with_snapshots(Files);
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (100, 2);
    metadata.set_conf_state(conf_state(&[1, 2, 3]));
    commit(wal, |batch| group.install_snapshot(batch, &snapshot, None)).unwrap();
    let entries: Vec<Entry> = (101..=140).map(|i| entry(i, 2)).collect();
    commit(wal, |batch| group.append(batch, &entries)).unwrap();
    commit(wal, |batch| group.set_hard_state(batch, &hard_state(2, 3, 110)));
    group
}

fn reopened(disk: &SimDisk) -> (Wal, GroupStorage) {
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let group = GroupStorage::open(&wal, GROUP).unwrap().with_snapshots(Files);
    (wal, group)
}

/// The leader of term 3 sent a snapshot: at 130, where the log has an entry that is not committed, or at 150, beyond its end.
#[test]
fn a_file_that_the_log_does_not_know_is_gone_on_with() {
    let changed = conf_state(&[1, 2, 3, 4]);
    for index in [130, 150] {
        let disk = disk();
        let wal = open(&disk);
        drop(follower(&wal));
        let (wal, mut group) = reopened(&disk);
        for refused in [group.set_applied(index, 3), group.set_applied_with(index, 3, &changed)] {
            assert!(matches!(refused, Err(Error::Inconsistent { .. })), "{index}: {refused:?}");
        }
        assert_eq!((group.applied(), group.hard_state()), (100, &hard_state(2, 3, 110)), "nothing has changed");
        commit(&wal, |batch| group.adopt(batch, index, 3, &changed)).unwrap();
        for mut group in [group, GroupStorage::open(&wal, GROUP).unwrap()] {
            // It has not voted in term 3.
            assert_eq!(group.hard_state(), &hard_state(3, 0, index));
            assert_eq!((group.first_index(), group.last_index()), (Ok(index + 1), Ok(index)));
            assert_eq!((group.term(index), group.applied(), group.conf_state()), (Ok(3), index, &changed));
            group.set_applied_with(index, 3, &changed).unwrap();
            drop(node(1, group));
        }
    }
}

/// The log keeps what it has: it was acknowledged, and may be committed.
#[test]
fn a_file_of_an_entry_that_the_log_has_takes_nothing_from_it() {
    let disk = disk();
    let wal = open(&disk);
    drop(follower(&wal));
    let (wal, mut group) = reopened(&disk);
    let changed = conf_state(&[1, 2, 3, 4]);
    commit(&wal, |batch| group.adopt(batch, 130, 2, &changed)).unwrap();
    assert_eq!((group.first_index(), group.last_index()), (Ok(101), Ok(140)));
    assert_eq!((group.applied(), group.conf_state(), group.hard_state().vote), (130, &changed, 3));
}

#[test]
fn a_file_that_contradicts_what_is_committed_is_refused() {
    let disk = disk();
    let wal = open(&disk);
    drop(follower(&wal));
    let (_wal, mut group) = reopened(&disk);
    let mut batch = Batch::new();
    for index in [99, 100, 105, 110, u64::MAX] {
        let refused = group.adopt(&mut batch, index, 3, &conf_state(&[1, 2, 3]));
        assert!(matches!(refused, Err(Error::Inconsistent { .. })), "{index}: {refused:?}");
    }
    assert!(batch.is_empty() && group.applied() == 100);
}

/// The snapshot came from the leader of the replica's current term. It has voted in that term, and must not do so again.
#[test]
fn a_file_of_the_term_that_the_log_is_in_takes_no_vote_back() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = follower(&wal);
    commit(&wal, |batch| group.set_hard_state(batch, &hard_state(3, 2, 110)));
    drop(group);
    let (wal, mut group) = reopened(&disk);
    commit(&wal, |batch| group.adopt(batch, 150, 3, &conf_state(&[1, 2, 3]))).unwrap();
    for group in [group, GroupStorage::open(&wal, GROUP).unwrap()] {
        assert_eq!(group.hard_state(), &hard_state(3, 2, 150));
    }
}

/// Its votes went with the log: a blank replica that adopts could vote twice in a term.
#[test]
fn a_file_beside_a_log_that_knows_nothing_of_the_group_is_refused() {
    let wal = open(&disk());
    let mut group = GroupStorage::open(&wal, GROUP).unwrap().with_snapshots(Files);
    let mut batch = Batch::new();
    let refused = group.adopt(&mut batch, 150, 3, &conf_state(&[1, 2, 3]));
    assert!(
        matches!(refused, Err(Error::Inconsistent { ref what, .. }) if what.contains("as a new member")),
        "{refused:?}"
    );
    assert!(batch.is_empty() && group.applied() == 0);
    // A replica that has voted is known to the log, even without anything else: it was installing its first snapshot.
    commit(&wal, |batch| group.set_hard_state(batch, &hard_state(3, 2, 0)));
    for mut group in [group, GroupStorage::open(&wal, GROUP).unwrap()] {
        group.adopt(&mut batch, 150, 3, &conf_state(&[1, 2, 3])).unwrap();
        assert_eq!((group.applied(), group.hard_state()), (150, &hard_state(3, 2, 150)));
    }
}
