//! What was put into a batch is not in the log yet: no compaction overtakes its checkpoint, and no applied index a configuration change.

mod support;

use std::sync::Arc;

use raft::Storage;
use raft::eraftpb::{Entry, EntryType, Snapshot};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, Error, GroupStorage};
use support::{bootstrapped, commit, conf_state, disk, entry, hard_state, open};

const GROUP: u64 = 7;

fn change(index: u64, term: u64) -> Entry {
    Entry { entry_type: EntryType::EntryConfChange, ..entry(index, term) }
}

/// Entries 101 to 140 after a checkpoint at 100, which is also the log's commit index.
fn at_100(wal: &Wal) -> GroupStorage {
    let mut group = GroupStorage::open(wal, GROUP).unwrap();
    let mut snapshot = Snapshot { data: b"100"[..].into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (100, 2);
    metadata.set_conf_state(conf_state(&[1, 2, 3]));
    commit(wal, |batch| group.install_snapshot(batch, &snapshot, None)).unwrap();
    let entries: Vec<Entry> = (101..=140).map(|i| entry(i, 2)).collect();
    commit(wal, |batch| group.append(batch, &entries)).unwrap();
    group
}

/// What the next opening finds after a power cut.
fn reopened(disk: &SimDisk) -> (Wal, GroupStorage) {
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let group = GroupStorage::open(&wal, GROUP).expect("it does not contradict itself");
    assert!(group.initial_state().is_ok());
    (wal, group)
}

fn checkpoint(index: u64) -> (Vec<u8>, raft::eraftpb::ConfState) {
    (index.to_string().into_bytes(), conf_state(&[1, 2, 3, 4]))
}

fn put(group: &mut GroupStorage, batch: &mut Batch, index: u64) {
    let (data, conf_state) = checkpoint(index);
    group.checkpoint(batch, Checkpoint { index, term: 2, conf_state: &conf_state, data: &data }).unwrap();
}

/// The log is full, and refuses the round that has the checkpoint; batches that compact still get through.
#[test]
fn a_compaction_goes_no_further_than_the_checkpoint_that_the_log_holds() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_100(&wal);
    let mut waits = Batch::new();
    group.set_hard_state(&mut waits, &hard_state(2, 0, 132));
    put(&mut group, &mut waits, 132);
    assert_eq!(commit(&wal, |batch| group.compact(batch, 133)).unwrap(), 101);
    let (_wal, found) = reopened(&disk);
    assert_eq!((found.first_index(), found.applied(), found.hard_state().commit), (Ok(101), 100, 100));
    assert_eq!(found.checkpoint_data().unwrap().unwrap(), &b"100"[..]);

    // Together with the checkpoint, or after it.
    assert_eq!(group.compact(&mut waits, 120).unwrap(), 120);
    wal.commit(&mut waits).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 140)).unwrap(), 133);
    let (_wal, found) = reopened(&disk);
    assert_eq!((found.first_index(), found.applied(), found.hard_state().commit), (Ok(133), 132, 132));
    assert_eq!(
        (found.checkpoint_data().unwrap().unwrap(), found.conf_state()),
        (b"132"[..].into(), &conf_state(&[1, 2, 3, 4]))
    );
}

/// Nor does a later checkpoint rely on a commit index or a configuration that waits in a batch.
#[test]
fn a_checkpoint_brings_what_only_a_waiting_batch_has() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_100(&wal);
    let mut waits = Batch::new();
    group.set_hard_state(&mut waits, &hard_state(3, 1, 135));
    put(&mut group, &mut waits, 120);
    commit(&wal, |batch| put(&mut group, batch, 130));
    let (_wal, found) = reopened(&disk);
    assert_eq!((found.applied(), found.conf_state()), (130, &conf_state(&[1, 2, 3, 4])));
    // The commit index is what was applied, and no higher: what raft committed since may be entries that wait, too. Its term and its vote
    // hold by themselves, and the sooner the better.
    assert_eq!(found.hard_state(), &hard_state(3, 1, 130));
}

/// The checkpoint that waits holds what it says, whatever else waits.
#[test]
fn a_state_machine_elsewhere_is_believed() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_100(&wal);
    let mut waits = Batch::new();
    group.set_hard_state(&mut waits, &hard_state(3, 1, 135));
    group.set_applied(132, 2).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 120)).unwrap(), 120);
    assert_eq!(commit(&wal, |batch| group.compact(batch, 140)).unwrap(), 133);
    let (_wal, mut found) = reopened(&disk);
    assert_eq!((found.first_index(), found.applied()), (Ok(133), 132));
    assert_eq!(found.hard_state(), &hard_state(3, 1, 132));
    found.set_applied(132, 2).unwrap();
    // If a checkpoint waits, the log may not begin after it when it is written.
    group.set_applied(135, 2).unwrap();
    put(&mut group, &mut waits, 140);
    assert_eq!(commit(&wal, |batch| group.compact(batch, 141)).unwrap(), 133);
    let early = conf_state(&[1]);
    let refused = group.checkpoint(&mut waits, Checkpoint { index: 131, term: 2, conf_state: &early, data: b"" });
    assert!(matches!(refused, Err(Error::Inconsistent { .. })), "{refused:?}");
}

#[test]
fn what_a_state_machine_says_does_not_overtake_a_checkpoint_that_waits() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_100(&wal);
    let mut waits = Batch::new();
    put(&mut group, &mut waits, 120);
    group.set_applied(132, 2).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 133)).unwrap(), 101);
    wal.commit(&mut waits).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 133)).unwrap(), 133);
    let (_wal, found) = reopened(&disk);
    assert_eq!((found.first_index(), found.applied()), (Ok(133), 132));
}

/// Raft applies the change, and the next opening would start with the old members.
#[test]
fn an_applied_index_passes_no_change_of_the_configuration_that_was_written_since_the_opening() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = bootstrapped(&wal, GROUP);
    let entries = |range: std::ops::RangeInclusive<u64>, changes: &[u64]| -> Vec<Entry> {
        range.map(|i| if changes.contains(&i) { change(i, 2) } else { entry(i, 2) }).collect()
    };
    commit(&wal, |batch| group.append(batch, &entries(2..=60, &[30, 55]))).unwrap();
    group.set_applied(29, 2).unwrap();
    let refused = group.set_applied(50, 2);
    assert!(matches!(&refused, Err(Error::Inconsistent { what, .. }) if what.contains("entry 30")), "{refused:?}");
    assert_eq!(group.applied(), 29);
    let changed = conf_state(&[1, 2, 3, 4]);
    group.set_applied_with(40, 2, &changed).unwrap();
    group.set_applied(54, 2).unwrap();
    assert!(group.set_applied(55, 2).is_err());
    // Overwritten, cut off, written anew.
    commit(&wal, |batch| group.append(batch, &entries(55..=70, &[65]))).unwrap();
    group.set_applied(64, 2).unwrap();
    assert!(group.set_applied(65, 2).is_err());
    commit(&wal, |batch| group.cut(batch, 65)).unwrap();
    commit(&wal, |batch| group.append(batch, &entries(65..=80, &[75]))).unwrap();
    group.set_applied(70, 2).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 71)).unwrap(), 71);
    let (_wal, mut found) = reopened(&disk);
    assert_eq!((found.applied(), found.conf_state()), (70, &changed));
    // Found in the log, where a part was overwritten before anything looked at it.
    assert!(found.set_applied(80, 2).is_err());
    let mut batch = Batch::new();
    found.append(&mut batch, &entries(78..=79, &[79])).unwrap();
    found.set_applied(74, 2).unwrap();
    assert!(found.set_applied(77, 2).is_err());
    found.set_applied_with(76, 2, &changed).unwrap();
    found.set_applied(78, 2).unwrap();
    assert!(found.set_applied(79, 2).is_err());
}

/// After a checkpoint that goes back, the changes after it count again, even one right where the state machine was.
#[test]
fn a_change_that_was_passed_counts_again_for_an_older_checkpoint() {
    for passed in [3, 4] {
        let wal = open(&disk());
        let mut group = bootstrapped(&wal, GROUP);
        commit(&wal, |batch| group.append(batch, &[entry(2, 2), change(3, 2), entry(4, 2)])).unwrap();
        group.set_applied_with(passed, 2, &conf_state(&[1, 2])).unwrap();
        commit(&wal, |batch| put(&mut group, batch, 2));
        for again in 3..=passed {
            assert!(group.set_applied(again, 2).is_err(), "{again} of {passed}");
        }
        assert_eq!(group.applied(), 2);
    }
}

/// raft writes a change in one of two ways.
#[test]
fn a_change_of_the_second_kind_is_one_too() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = bootstrapped(&wal, GROUP);
    let joint = Entry { entry_type: EntryType::EntryConfChangeV2, ..entry(3, 2) };
    commit(&wal, |batch| group.append(batch, &[entry(2, 2), joint, entry(4, 2)])).unwrap();
    assert!(group.set_applied(4, 2).is_err(), "as it was written");
    let (_wal, mut found) = reopened(&disk);
    assert!(found.set_applied(4, 2).is_err(), "as an opening finds it");
}

/// A late report, or an old file: that the log was compacted by the newer report is not forgotten.
#[test]
fn what_a_state_machine_says_of_less_than_is_known_changes_nothing() {
    let wal = open(&disk());
    let mut group = at_100(&wal);
    let changed = conf_state(&[1, 2, 3, 4]);
    group.set_applied_with(132, 2, &changed).unwrap();
    group.set_applied(120, 2).unwrap();
    assert_eq!(group.applied(), 132);
    group.set_applied_with(120, 2, &conf_state(&[1])).unwrap();
    assert_eq!((group.applied(), group.conf_state()), (132, &changed));
    assert_eq!(commit(&wal, |batch| group.compact(batch, 133)).unwrap(), 133);
}

/// The hard state of the Ready in the round is only in its batch, although raft was told that it is committed.
#[test]
fn a_checkpoint_takes_back_no_commit_index_of_its_own_batch() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = at_100(&wal);
    commit(&wal, |batch| {
        group.set_hard_state(batch, &hard_state(3, 1, 135));
        put(&mut group, batch, 130);
    });
    let (_wal, found) = reopened(&disk);
    assert_eq!((found.hard_state(), found.applied()), (&hard_state(3, 1, 135), 130));
}

/// Index, term and bytes come from the log, and the configuration is the one written together with them.
#[test]
fn a_snapshot_has_the_configuration_of_its_index_and_none_that_waits() {
    let wal = open(&disk());
    let mut group = bootstrapped(&wal, GROUP);
    let entries: Vec<Entry> = (2..=10).map(|i| if i == 9 { change(i, 2) } else { entry(i, 2) }).collect();
    commit(&wal, |batch| group.append(batch, &entries)).unwrap();
    let of = |group: &GroupStorage| {
        let metadata = group.snapshot(0, 2).unwrap().get_metadata().clone();
        (metadata.index, metadata.get_conf_state().clone())
    };
    let (before, changed) = (conf_state(&[1, 2, 3]), conf_state(&[1, 2, 3, 4]));
    let mut waits = Batch::new();
    put(&mut group, &mut waits, 9);
    assert_eq!(of(&group), (1, before.clone()));
    wal.commit(&mut waits).unwrap();
    assert_eq!(of(&group), (9, changed.clone()));
    // Nor the one that a state machine outside the log reports for a later index.
    group.set_applied_with(10, 2, &before).unwrap();
    assert_eq!(of(&group), (9, changed));
    assert_eq!(group.conf_state(), &before);
}
