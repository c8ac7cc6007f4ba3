//! The contract of `raft::Storage`: the cases by which raft tests its own `MemStorage`, the places where a
//! log that survives must differ, and what is refused rather than believed.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;

use raft::eraftpb::{Entry, EntryType, Snapshot};
use raft::storage::MemStorage;
use raft::{Error as RaftError, GetEntriesContext, Storage, StorageError};
use strandlog::{Batch, Wal};
use strandlog_raft::{APPLIED, CONF_STATE, Checkpoint, Error, GroupStorage, HARD_STATE};
use support::{bootstrapped, commit, conf_state, disk, entry, hard_state, open};

const GROUP: u64 = 7;

/// Entries 3 to `last`, each with its index as term, after a snapshot at 2.
fn storage(wal: &Wal, last: u64) -> GroupStorage {
    let mut storage = GroupStorage::open(wal, GROUP).unwrap();
    commit(wal, |batch| storage.install_snapshot(batch, &snapshot(2, 2), None)).unwrap();
    let entries: Vec<Entry> = (3..=last).map(|i| entry(i, i)).collect();
    commit(wal, |batch| storage.append(batch, &entries)).unwrap();
    storage
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(conf_state(&[1, 2, 3]));
    snapshot
}

fn read(storage: &impl Storage, low: u64, high: u64, max: impl Into<Option<u64>>) -> raft::Result<Vec<Entry>> {
    storage.entries(low, high, max, GetEntriesContext::empty(false))
}

fn compacted<T>() -> raft::Result<T> {
    Err(RaftError::Store(StorageError::Compacted))
}

fn unavailable<T>() -> raft::Result<T> {
    Err(RaftError::Store(StorageError::Unavailable))
}

#[test]
fn term() {
    let wal = open(&disk());
    let storage = storage(&wal, 5);
    for (index, expected) in [(1, compacted()), (2, Ok(2)), (3, Ok(3)), (4, Ok(4)), (5, Ok(5)), (6, unavailable())] {
        assert_eq!(storage.term(index), expected, "term({index})");
    }
}

/// The only error that raft accepts there is that the entry is compacted: then it sends a snapshot.
#[test]
fn a_term_that_a_truncation_over_damage_left_unknown_is_compacted() {
    let disk = disk();
    let wal = open(&disk);
    let mut storage = storage(&wal, 5);
    let rotten = Entry { data: b"find me ".repeat(100).into(), ..entry(6, 6) };
    commit(&wal, |batch| storage.append(batch, &[rotten, entry(7, 7)])).unwrap();
    // Applied, so that the opening does not read it.
    let members = conf_state(&[1, 2, 3]);
    let checkpoint = Checkpoint { index: 7, term: 7, conf_state: &members, data: b"" };
    commit(&wal, |batch| storage.checkpoint(batch, checkpoint)).unwrap();
    wal.close().unwrap();
    drop((wal, storage));
    let disk = Arc::new(disk.restart());
    let image = disk.kept_image();
    for (at, _) in image.windows(16).enumerate().filter(|(_, bytes)| bytes == b"find me find me ").step_by(50) {
        disk.flip_bit(at as u64 + 5, 3);
    }
    let wal = open(&disk);
    let storage = GroupStorage::open(&wal, GROUP).unwrap();
    wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(storage.term(6), Err(RaftError::Store(StorageError::Other(_)))), "{:?}", storage.term(6));
    commit(&wal, |batch| _ = batch.truncate_prefix(GROUP, 7));
    assert_eq!((storage.first_index(), storage.term(6), storage.term(7)), (Ok(7), compacted(), Ok(7)));
    assert!(matches!(GroupStorage::open(&wal, GROUP), Err(Error::Damaged { .. })));
    commit(&wal, |batch| _ = batch.truncate_prefix(GROUP, 8));
    assert_eq!((storage.first_index(), storage.term(7), wal.damage()), (Ok(8), Ok(7), vec![]));
}

#[test]
fn entries() {
    let wal = open(&disk());
    let storage = storage(&wal, 6);
    let size = |index| u64::from(protobuf::Message::compute_size(&entry(index, index)));
    let of = |range: std::ops::Range<u64>| Ok(range.map(|i| entry(i, i)).collect::<Vec<_>>());
    for (low, high, max, expected) in [
        (2, 6, u64::MAX, compacted()),
        (3, 4, u64::MAX, of(3..4)),
        (4, 5, u64::MAX, of(4..5)),
        (4, 6, u64::MAX, of(4..6)),
        (4, 7, u64::MAX, of(4..7)),
        // Even with a limit of zero the first entry is returned.
        (4, 7, 0, of(4..5)),
        (4, 7, size(4) + size(5), of(4..6)),
        (4, 7, size(4) + size(5) + size(6) / 2, of(4..6)),
        (4, 7, size(4) + size(5) + size(6) - 1, of(4..6)),
        (4, 7, size(4) + size(5) + size(6), of(4..7)),
        // MemStorage panics here.
        (4, 8, u64::MAX, unavailable()),
    ] {
        assert_eq!(read(&storage, low, high, max), expected, "[{low}, {high}) up to {max}");
    }
}

#[test]
fn first_and_last_index_follow_appending_and_compacting() {
    let wal = open(&disk());
    let mut storage = storage(&wal, 5);
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(3), Ok(5)));
    commit(&wal, |batch| storage.append(batch, &[entry(6, 5)])).unwrap();
    assert_eq!(storage.last_index(), Ok(6));
    storage.set_applied(6, 5).unwrap();
    commit(&wal, |batch| storage.compact(batch, 4)).unwrap();
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(4), Ok(6)));
}

#[test]
fn compact() {
    for (to, first, term, length) in [(2, 3, 3, 3), (3, 3, 3, 3), (4, 4, 4, 2), (5, 5, 5, 1)] {
        let wal = open(&disk());
        let mut storage = storage(&wal, 5);
        storage.set_applied(5, 5).unwrap();
        assert_eq!(commit(&wal, |batch| storage.compact(batch, to)).unwrap(), first, "to {to}");
        assert_eq!(storage.first_index(), Ok(first));
        assert_eq!(read(&storage, first, 6, None).unwrap()[0].term, term);
        assert_eq!(read(&storage, first, 6, None).unwrap().len(), length);
        // The term before the first is still needed: to match the next append.
        assert_eq!(storage.term(first - 1), Ok(first - 1));
    }
}

#[test]
fn compaction_stops_at_what_the_state_machine_holds_durably() {
    let wal = open(&disk());
    let mut storage = storage(&wal, 9);
    commit(&wal, |batch| storage.set_hard_state(batch, &hard_state(9, 1, 9)));
    assert_eq!(commit(&wal, |batch| storage.compact(batch, 8)).unwrap(), 3, "nothing beyond the snapshot is applied");
    let conf_state = storage.conf_state().clone();
    let checkpoint = Checkpoint { index: 6, term: 6, conf_state: &conf_state, data: b"six" };
    commit(&wal, |batch| {
        storage.checkpoint(batch, checkpoint).unwrap();
        // In the same batch: all or nothing, so this is safe.
        assert_eq!(storage.compact(batch, 100).unwrap(), 7);
    });
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(7), Ok(9)));
    assert!(matches!(storage.set_applied(10, 10), Err(Error::Inconsistent { .. })), "the log ends at 9");
    assert!(matches!(storage.set_applied(5, 5), Err(Error::Inconsistent { .. })), "the log starts at 7");
}

/// The lazily written commit index was lost, and the state machine is ahead of it.
#[test]
fn what_a_state_machine_says_is_committed_is_written_before_the_log_begins_behind_it() {
    for compacts in [true, false] {
        let disk = disk();
        let wal = open(&disk);
        let mut group = storage(&wal, 9);
        commit(&wal, |batch| group.set_hard_state(batch, &hard_state(9, 1, 4)));
        group.set_applied(9, 9).unwrap();
        commit(&wal, |batch| {
            if compacts {
                assert_eq!(group.compact(batch, 9).unwrap(), 9);
            } else {
                let conf_state = group.conf_state().clone();
                group.checkpoint(batch, Checkpoint { index: 8, term: 8, conf_state: &conf_state, data: b"" }).unwrap();
            }
        });
        let disk = std::sync::Arc::new(disk.crash_lost_all());
        drop((group, wal));
        let wal = open(&disk);
        let group = GroupStorage::open(&wal, GROUP).expect("it does not contradict itself");
        assert_eq!((group.hard_state().commit, group.hard_state().vote), (9, 1), "compacts: {compacts}");
    }
}

/// A group whose entry 5 changes the configuration, after a snapshot at 2; entry 6 is the last.
fn with_a_change(wal: &Wal) -> GroupStorage {
    let mut group = storage(wal, 4);
    let change = Entry { entry_type: EntryType::EntryConfChange, ..entry(5, 5) };
    commit(wal, |batch| group.append(batch, &[change, entry(6, 6)])).unwrap();
    group
}

/// Votes would be counted by an outdated configuration.
#[test]
fn a_state_machine_beyond_a_change_of_the_configuration_must_tell_it() {
    let disk = disk();
    let wal = open(&disk);
    let group = with_a_change(&wal);
    let disk = std::sync::Arc::new(disk.crash_lost_all());
    drop((group, wal));
    let wal = open(&disk);
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    let refused = group.set_applied(6, 6);
    assert!(matches!(&refused, Err(Error::Inconsistent { what, .. }) if what.contains("entry 5")), "{refused:?}");
    assert!(group.set_applied(5, 5).is_err() && group.applied() == 2, "nothing has changed");
    let changed = conf_state(&[1, 2, 3, 4]);
    group.set_applied_with(6, 6, &changed).unwrap();
    assert_eq!((group.applied(), group.initial_state().unwrap().conf_state), (6, changed.clone()));
    // From now on raft reports changes, and the log need not be searched.
    group.set_applied(6, 6).unwrap();
    commit(&wal, |batch| group.checkpoint(batch, Checkpoint { index: 6, term: 6, conf_state: &changed, data: b"" }))
        .unwrap();
    let disk = std::sync::Arc::new(disk.crash_lost_all());
    drop((group, wal));
    let wal = open(&disk);
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((group.applied(), group.conf_state()), (6, &changed));
    group.set_applied(6, 6).unwrap();
}

/// The entry that made the change goes: the next opening cannot know.
#[test]
fn a_compaction_writes_the_configuration_that_only_the_dropped_entries_told() {
    for first_kept in [4, 7] {
        let disk = disk();
        let wal = open(&disk);
        let mut group = with_a_change(&wal);
        let changed = conf_state(&[1, 2, 3, 4]);
        group.set_applied_with(6, 6, &changed).unwrap();
        assert_eq!(commit(&wal, |batch| group.compact(batch, first_kept)).unwrap(), first_kept);
        let disk = std::sync::Arc::new(disk.crash_lost_all());
        drop((group, wal));
        let wal = open(&disk);
        let mut group = GroupStorage::open(&wal, GROUP).unwrap();
        assert_eq!((group.first_index(), group.applied(), group.conf_state()), (Ok(first_kept), 6, &changed));
        // The bytes of the snapshot at 2 are not those of 6, and none were given.
        assert_eq!(group.checkpoint_data().unwrap(), None);
        let unavailable = RaftError::Store(StorageError::SnapshotTemporarilyUnavailable);
        assert_eq!(group.snapshot(0, 2).unwrap_err(), unavailable);
        group.set_applied(6, 6).unwrap();
        assert_eq!(group.initial_state().unwrap().conf_state, changed);
    }
}

#[test]
fn a_compaction_without_a_change_of_the_configuration_has_nothing_told_again() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = with_a_change(&wal);
    group.set_applied(4, 4).unwrap();
    assert_eq!(commit(&wal, |batch| group.compact(batch, 5)).unwrap(), 5);
    let disk = std::sync::Arc::new(disk.crash_lost_all());
    drop((group, wal));
    let wal = open(&disk);
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!((group.first_index(), group.applied()), (Ok(5), 4));
    group.set_applied(4, 4).unwrap();
    // Nor is one needed after a snapshot: it brings its own configuration.
    let installed = snapshot(9, 9);
    commit(&wal, |batch| group.install_snapshot(batch, &installed, None)).unwrap();
    let disk = std::sync::Arc::new(disk.crash_lost_all());
    drop((group, wal));
    let wal = open(&disk);
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    assert_eq!(group.first_index(), Ok(10));
    group.set_applied(9, 9).unwrap();
}

/// As a log that was compacted without writing the configuration.
#[test]
fn a_log_that_begins_behind_its_configuration_must_be_told_it() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = with_a_change(&wal);
    commit(&wal, |batch| {
        group.set_hard_state(batch, &hard_state(6, 1, 6));
        batch.truncate_prefix(GROUP, 7);
    });
    let disk = std::sync::Arc::new(disk.crash_lost_all());
    drop((group, wal));
    let wal = open(&disk);
    let mut group = GroupStorage::open(&wal, GROUP).unwrap();
    let gone = |what: &str| what.contains("entries 3 to 6");
    let refused = group.set_applied(6, 6);
    assert!(matches!(&refused, Err(Error::Inconsistent { what, .. }) if gone(what)), "{refused:?}");
    // Raft would panic: it finds nothing to apply after index 2.
    let started = group.initial_state();
    assert!(started.as_ref().is_err_and(|error| gone(&error.to_string())), "{started:?}");
    let changed = conf_state(&[1, 2, 3, 4]);
    group.set_applied_with(6, 6, &changed).unwrap();
    group.set_applied(6, 6).unwrap();
    assert_eq!(group.initial_state().unwrap().conf_state, changed);
}

#[test]
fn append() {
    let of = |list: &[(u64, u64)]| list.iter().map(|&(i, t)| entry(i, t)).collect::<Vec<_>>();
    for (add, expected) in [
        (of(&[(3, 3), (4, 4), (5, 5)]), Some(of(&[(3, 3), (4, 4), (5, 5)]))),
        (of(&[(3, 3), (4, 6), (5, 6)]), Some(of(&[(3, 3), (4, 6), (5, 6)]))),
        (of(&[(3, 3), (4, 4), (5, 5), (6, 5)]), Some(of(&[(3, 3), (4, 4), (5, 5), (6, 5)]))),
        // Overwriting what was compacted is refused.
        (of(&[(2, 3), (3, 3), (4, 5)]), None),
        // Truncates existing entries and appends.
        (of(&[(4, 5)]), Some(of(&[(3, 3), (4, 5)]))),
        (of(&[(6, 6)]), Some(of(&[(3, 3), (4, 4), (5, 5), (6, 6)]))),
        // Holes, after the log and among the entries.
        (of(&[(7, 7)]), None),
        (of(&[(5, 5), (7, 7)]), None),
        (vec![], Some(of(&[(3, 3), (4, 4), (5, 5)]))),
    ] {
        let wal = open(&disk());
        let mut storage = storage(&wal, 5);
        let outcome = commit(&wal, |batch| storage.append(batch, &add));
        match expected {
            Some(expected) => {
                outcome.unwrap();
                let last = storage.last_index().unwrap();
                assert_eq!(read(&storage, 3, last + 1, None), Ok(expected));
            }
            None => {
                assert!(matches!(outcome, Err(Error::NotContinuous { group: GROUP, first: 3, last: 5, .. })));
                assert_eq!(storage.last_index(), Ok(5));
            }
        }
    }
}

#[test]
fn snapshots_come_from_the_newest_checkpoint_and_never_from_the_future() {
    let wal = open(&disk());
    let mut storage = storage(&wal, 5);
    assert_eq!(storage.snapshot(0, 2).unwrap().get_metadata().index, 2);
    let conf_state = conf_state(&[1, 2, 3, 4]);
    let checkpoint = Checkpoint { index: 4, term: 4, conf_state: &conf_state, data: b"four" };
    commit(&wal, |batch| storage.checkpoint(batch, checkpoint)).unwrap();
    for request in [0, 3, 4] {
        let snapshot = storage.snapshot(request, 2).unwrap();
        let metadata = snapshot.get_metadata();
        assert_eq!((metadata.index, metadata.term, &snapshot.data[..]), (4, 4, &b"four"[..]));
        assert_eq!(metadata.get_conf_state(), &conf_state);
    }
    // MemStorage would label its state with the index it was asked for.
    let error = storage.snapshot(5, 2).unwrap_err();
    assert_eq!(error, RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
}

#[test]
fn an_installed_snapshot_replaces_everything_and_an_old_one_is_refused() {
    let wal = open(&disk());
    let mut storage = storage(&wal, 5);
    commit(&wal, |batch| storage.install_snapshot(batch, &snapshot(4, 4), None)).unwrap();
    assert_eq!((storage.first_index(), storage.last_index(), storage.term(4)), (Ok(5), Ok(4), Ok(4)));
    assert_eq!(storage.initial_state().unwrap().hard_state, hard_state(4, 0, 4));
    for index in [3, 4] {
        let error = commit(&wal, |batch| storage.install_snapshot(batch, &snapshot(index, 3), None)).unwrap_err();
        assert_eq!(RaftError::from(error), RaftError::Store(StorageError::SnapshotOutOfDate));
    }
}

#[test]
fn a_blank_group_is_uninitialized_and_empty() {
    let wal = open(&disk());
    let storage = GroupStorage::open(&wal, GROUP).unwrap();
    assert!(!storage.initial_state().unwrap().initialized());
    assert_eq!((storage.first_index(), storage.last_index(), storage.term(0)), (Ok(1), Ok(0), Ok(0)));
    let error = storage.snapshot(0, 1).unwrap_err();
    assert_eq!(error, RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
}

#[test]
fn everything_is_there_after_a_power_cut() {
    let disk = disk();
    let wal = open(&disk);
    let mut storage = bootstrapped(&wal, GROUP);
    let mut entries = vec![entry(2, 2), entry(3, 2)];
    entries[0].data = b"data".to_vec().into();
    entries[1].context = b"context".to_vec().into();
    commit(&wal, |batch| {
        storage.append(batch, &entries).unwrap();
        storage.set_hard_state(batch, &hard_state(2, 3, 2));
    });
    drop((wal, storage));
    let wal = open(&std::sync::Arc::new(disk.crash_lost_all()));
    let storage = GroupStorage::open(&wal, GROUP).unwrap();
    let state = storage.initial_state().unwrap();
    assert_eq!((state.hard_state, state.conf_state), (hard_state(2, 3, 2), conf_state(&[1, 2, 3])));
    assert_eq!((storage.applied(), storage.checkpoint_data().unwrap().unwrap()), (1, b"start"[..].into()));
    assert_eq!(read(&storage, 2, 4, None), Ok(entries));
}

#[test]
fn state_that_contradicts_itself_is_not_opened() {
    let open_with = |write: &dyn Fn(&mut strandlog::Batch)| {
        let wal = open(&disk());
        drop(bootstrapped(&wal, GROUP));
        commit(&wal, |batch| write(batch));
        GroupStorage::open(&wal, GROUP).map(drop).unwrap_err()
    };
    let put = |key: &'static [u8], value: &'static [u8]| {
        open_with(&move |batch| {
            batch.put(GROUP, key, value);
        })
    };
    // Term 1, no vote, commit 9, in a log that ends at 1.
    assert!(matches!(put(HARD_STATE, &[1, 1, 0, 9]), Error::Inconsistent { .. }));
    assert!(matches!(put(HARD_STATE, &[1, 1, 0, 0]), Error::Inconsistent { .. }));
    assert!(matches!(put(APPLIED, &[1, 5, 1]), Error::Inconsistent { .. }));
    for key in [HARD_STATE, CONF_STATE, APPLIED] {
        let error = put(key, &[99]);
        assert!(matches!(error, Error::Decode { group: GROUP, .. }), "{error}");
    }
    let lost = open_with(&|batch| {
        batch.delete(GROUP, HARD_STATE);
    });
    assert!(matches!(lost, Error::Inconsistent { .. }), "it may have voted: {lost}");
}

#[test]
fn an_entry_of_another_program_is_an_error_not_a_panic() {
    let wal = open(&disk());
    let storage = bootstrapped(&wal, GROUP);
    commit(&wal, |batch| {
        batch.append(GROUP, &[(2, 1, &b"\xffforeign"[..])]);
    });
    let error = storage.read_entries(2, 3, None).unwrap_err();
    assert!(matches!(error, Error::Decode { what: "entry", .. }), "{error}");
    assert!(matches!(read(&storage, 2, 3, None), Err(RaftError::Store(StorageError::Other(_)))));
}

/// After the same operations both return the same.
#[test]
fn agrees_with_mem_storage() {
    let mut seed = 1u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let wal = open(&disk());
    let mut ours = GroupStorage::open(&wal, GROUP).unwrap();
    let theirs = MemStorage::new();
    let mut term = 1;
    for _ in 0..2000 {
        let (first, last) = (ours.first_index().unwrap(), ours.last_index().unwrap());
        match below(10) {
            0..6 => {
                let from = first + below(last + 2 - first);
                term += below(2);
                let entries: Vec<Entry> = (from..=from + below(8)).map(|i| entry(i, term)).collect();
                commit(&wal, |batch| ours.append(batch, &entries)).unwrap();
                theirs.wl().append(&entries).unwrap();
            }
            // MemStorage forgets its position when it is compacted to nothing.
            6..8 if last > first => {
                let to = first + below(last - first);
                ours.set_applied(last, ours.term(last).unwrap()).unwrap();
                commit(&wal, |batch| ours.compact(batch, to)).unwrap();
                theirs.wl().compact(to).unwrap();
            }
            8 if last > 20 => {
                let at = last + 1 + below(5);
                commit(&wal, |batch| ours.install_snapshot(batch, &snapshot(at, term), None)).unwrap();
                theirs.wl().apply_snapshot(snapshot(at, term)).unwrap();
            }
            _ => {}
        }
        let (first, last) = (ours.first_index().unwrap(), ours.last_index().unwrap());
        assert_eq!((Ok(first), Ok(last)), (theirs.first_index(), theirs.last_index()));
        for index in first..=last + 1 {
            assert_eq!(ours.term(index), theirs.term(index));
        }
        if first <= last {
            let low = first + below(last + 1 - first);
            let high = low + 1 + below(last + 1 - low);
            let max = [0, 5, 20, 100, u64::MAX][below(5) as usize];
            assert_eq!(read(&ours, low, high, max), read(&theirs, low, high, max));
        }
    }
}

/// At its start raft acknowledges what it finds, without any Ready that reports it persisted.
#[test]
fn what_an_opening_finds_survives_a_power_cut_though_nobody_waited_for_it() {
    let disk = disk();
    let wal = open(&disk);
    let mut storage = bootstrapped(&wal, GROUP);
    let before = storage.last_index().expect("a log");
    let mut batch = Batch::new();
    storage.append(&mut batch, &[entry(before + 1, 1), entry(before + 2, 1)]).expect("entries");
    drop(wal.submit(&mut batch).expect("room"));
    drop(storage);
    let found = GroupStorage::open(&wal, GROUP).expect("the group opens").last_index().expect("a log");
    assert_eq!(found, before + 2);
    let cut = Arc::new(disk.restart());
    let kept = GroupStorage::open(&open(&cut), GROUP).expect("the group opens").last_index().expect("a log");
    assert_eq!(kept, found, "what raft was shown is gone");
}
