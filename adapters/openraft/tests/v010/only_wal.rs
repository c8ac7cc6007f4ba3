//! The log as the state machine's only write-ahead log: after a crash openraft applies again what the state machine lacks, and the
//! log still has it.

use std::sync::Arc;

use openraft::StorageHelper;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use strandlog::Batch;
use strandlog::disk::sim::SimDisk;
use strandlog_openraft::Error;

use crate::machine::Machine;
use crate::support::{Store, append, disk, held, indexes, log_id, open, store, vote};

const GROUP: u64 = 7;

/// A new group whose state machine reports, with `0..100` committed.
async fn reporting(disk: &Arc<SimDisk>) -> Store {
    let mut group = store(&open(disk), GROUP);
    group.durable_applied(None).unwrap();
    group.save_vote(&vote(1, 11)).await.unwrap();
    append(&mut group, 1, 0..100).await;
    group.save_committed(Some(log_id(1, 99))).await.unwrap();
    group
}

/// What openraft itself finds when a node starts, with a state machine that applied up to there.
async fn starts_at(group: &mut Store, applied: u64) -> Machine {
    let mut machine = Machine::default();
    machine.at(log_id(1, applied));
    let state = StorageHelper::new(group, &mut machine).with_id(1).get_initial_state().await;
    assert!(state.is_ok(), "{}", state.unwrap_err());
    machine
}

#[tokio::test]
async fn what_the_state_machine_lacks_after_a_crash_is_applied_again() {
    let disk = disk();
    let mut group = reporting(&disk).await;
    // Its files hold 0..=49. openraft took a snapshot at 79 and purges: the purge goes only as far as the files.
    group.reader().durable_applied(49).unwrap();
    group.purge(log_id(1, 79)).await.unwrap();
    let then = held(&mut group).await;
    assert_eq!((then.purged, indexes(&then.entries)), (Some(log_id(1, 49)), (50..100).collect()));
    // Also if the snapshot is at the last entry, or right after what was reported.
    for asked in [99, 50] {
        group.purge(log_id(1, asked)).await.unwrap();
        assert_eq!(held(&mut group).await, then, "{asked}");
    }
    append(&mut group, 1, 100..101).await;
    drop(group);

    let wal = open(&Arc::new(disk.crash_lost_all()));
    let mut group = store(&wal, GROUP);
    let replica = wal.replica(GROUP);
    assert_eq!(replica.reapply_from().unwrap(), strandlog_openraft::slot(50), "the log counts from 1");
    starts_at(&mut group, 49).await;

    // Once the files hold more, the next purge goes on.
    group.reader().durable_applied(79).unwrap();
    group.purge(log_id(1, 79)).await.unwrap();
    let then = held(&mut group).await;
    assert_eq!((then.purged, indexes(&then.entries)), (Some(log_id(1, 79)), (80..101).collect()));
    starts_at(&mut group, 79).await;
}

#[tokio::test]
async fn before_the_first_report_of_a_new_group_nothing_is_purged() {
    let disk = disk();
    let mut group = reporting(&disk).await;
    group.purge(log_id(1, 79)).await.unwrap();
    append(&mut group, 1, 100..101).await;
    drop(group);
    let mut group = store(&open(&Arc::new(disk.crash_lost_all())), GROUP);
    let then = held(&mut group).await;
    assert_eq!((then.vote, then.purged, then.entries.len()), (Some(vote(1, 11)), None, 101));
    let mut machine = Machine::default();
    let state = StorageHelper::new(&mut group, &mut machine).with_id(1).get_initial_state().await;
    assert!(state.is_ok(), "{}", state.unwrap_err());
    // Reported again, as after every opening: neither vote nor purge point changes.
    group.durable_applied(None).unwrap();
    group.durable_applied(Some(9)).unwrap();
    assert_eq!(held(&mut group).await, then);
    group.purge(log_id(1, 79)).await.unwrap();
    assert_eq!(group.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(1, 9)));
    assert_eq!(group.reader().try_get_log_entries(..).await.unwrap().len(), 91);
}

/// Its votes went with the log: a blank node beside a state machine at 149 could vote twice in a term.
#[tokio::test]
async fn a_state_machine_that_holds_something_beside_a_blank_log_is_refused() {
    let wal = open(&disk());
    let mut group = store(&wal, GROUP);
    let refused = group.durable_applied(Some(149));
    assert!(matches!(refused, Err(Error::Lost { group: GROUP, applied: 149 })), "{refused:?}");
    assert!(!wal.replica(GROUP).exists());
    group.durable_applied(None).unwrap();
    group.durable_applied(Some(149)).unwrap();
}

/// A snapshot beyond the log's end comes from a peer, and the state machine holds it before openraft purges.
#[tokio::test]
async fn a_snapshot_beyond_the_end_takes_the_place_of_what_was_not_reported() {
    let disk = disk();
    let mut group = reporting(&disk).await;
    group.reader().durable_applied(49).unwrap();
    group.purge(log_id(2, 149)).await.unwrap();
    append(&mut group, 2, 150..152).await;
    drop(group);
    let mut group = store(&open(&Arc::new(disk.crash_lost_all())), GROUP);
    let then = held(&mut group).await;
    assert_eq!((then.purged, indexes(&then.entries)), (Some(log_id(2, 149)), vec![150, 151]));
    let mut machine = Machine::default();
    machine.at(log_id(2, 149));
    assert!(StorageHelper::new(&mut group, &mut machine).with_id(1).get_initial_state().await.is_ok());
}

/// A flush was under way when the group was removed, and ends after it was begun anew: its report must not count for the new life.
#[tokio::test]
async fn what_a_removed_group_still_reports_is_not_of_its_next_life() {
    let wal = open(&disk());
    for begun in ["by a report", "by an entry", "by a vote"] {
        let mut group = store(&wal, GROUP);
        match begun {
            "by a report" => group.durable_applied(None).unwrap(),
            "by an entry" => append(&mut group, 1, 0..1).await,
            _ => group.save_vote(&vote(1, 11)).await.unwrap(),
        }
        let flushing = group.reader();
        drop(group);
        let remove = || wal.commit(Batch::new().remove(GROUP)).unwrap();
        remove();
        flushing.durable_applied(99).unwrap();
        assert!(!wal.replica(GROUP).exists(), "{begun}");

        let mut group = store(&wal, GROUP);
        group.durable_applied(None).unwrap();
        append(&mut group, 1, 0..100).await;
        flushing.durable_applied(99).unwrap();
        assert_eq!(wal.replica(GROUP).reapply_from().unwrap(), strandlog_openraft::slot(0), "{begun}");
        group.save_committed(Some(log_id(1, 99))).await.unwrap();
        group.purge(log_id(1, 79)).await.unwrap();
        assert_eq!(group.get_log_state().await.unwrap().last_purged_log_id, None, "{begun}");
        group.reader().durable_applied(49).unwrap();
        group.purge(log_id(1, 79)).await.unwrap();
        assert_eq!(group.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(1, 49)), "{begun}");
        drop(group);
        remove();
    }
}
