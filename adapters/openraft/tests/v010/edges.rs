//! Requests at the edges of a log, and beyond them.

use std::ops::{Bound, RangeBounds};

use futures_util::StreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use strandlog::Batch;

use crate::support::{Store, append, disk, entry, held, indexes, log_id, open, store};

/// The indexes of the range; asserts that a stream returns the same.
async fn read(group: &mut Store, range: impl RangeBounds<u64> + Clone + std::fmt::Debug + Send + Sync) -> Vec<u64> {
    let mut reader = group.get_log_reader().await;
    let got = indexes(&reader.try_get_log_entries(range.clone()).await.unwrap());
    let stream = reader.entries_stream(range.clone()).await;
    let streamed: Vec<_> = stream.map(|one| one.unwrap()).collect().await;
    assert_eq!(indexes(&streamed), got, "{range:?}, as a stream");
    got
}

#[tokio::test]
async fn a_reading_answers_what_is_there_of_its_range() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    assert_eq!((read(&mut group, ..).await, read(&mut group, 5..9).await), (vec![], vec![]), "nothing was written");
    append(&mut group, 1, 0..20).await;
    group.purge(log_id(1, 9)).await.unwrap();
    assert_eq!(read(&mut group, 0..13).await, [10, 11, 12]);
    assert_eq!(read(&mut group, 18..40).await, [18, 19]);
    assert_eq!(read(&mut group, 12..=12).await, [12]);
    let reversed = (Bound::Included(15), Bound::Excluded(12));
    assert_eq!(read(&mut group, reversed).await, [0; 0]);
    for nothing in [0..9, 3..10, 12..12, 20..20, 20..40, 1000..2000, u64::MAX - 1..u64::MAX, u64::MAX..u64::MAX] {
        assert_eq!(read(&mut group, nothing.clone()).await, [0; 0], "{nothing:?}");
        let mut sends = group.get_log_reader().await;
        assert_eq!(sends.limited_get_log_entries(nothing.start, nothing.end).await.unwrap(), []);
    }
    assert_eq!(read(&mut group, (Bound::Excluded(u64::MAX), Bound::Included(u64::MAX))).await, [0; 0]);
    let mut sends = group.get_log_reader().await;
    assert_eq!(sends.limited_get_log_entries(9, 13).await.unwrap(), [], "the first is purged");
    assert_eq!(indexes(&sends.limited_get_log_entries(19, u64::MAX).await.unwrap()), [19]);
}

#[tokio::test]
async fn a_log_is_cut_off_at_its_first_entry_and_no_further() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..20).await;
    group.purge(log_id(1, 9)).await.unwrap();
    for (beyond, cuts) in [(19, 20), (25, 20), (9, 10)] {
        group.truncate_after(Some(log_id(1, beyond))).await.unwrap();
        assert_eq!(held(&mut group).await.last, Some(log_id(1, cuts - 1)), "behind {beyond}");
    }
    let empty = held(&mut group).await;
    assert_eq!((empty.purged, empty.entries.len()), (Some(log_id(1, 9)), 0));
    // Nothing is left to be cut off there.
    group.truncate_after(Some(log_id(1, 9))).await.unwrap();
    append(&mut group, 2, 10..12).await;
    let before = held(&mut group).await;
    assert!(group.truncate_after(Some(log_id(1, 8))).await.is_err() && group.truncate_after(None).await.is_err());
    assert_eq!(held(&mut group).await, before);
}

#[tokio::test]
async fn a_purge_that_was_there_before_changes_nothing_and_none_is_beyond_the_last_index() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..20).await;
    group.purge(log_id(1, 9)).await.unwrap();
    let before = held(&mut group).await;
    for again in [9, 4, 0] {
        group.purge(log_id(1, again)).await.unwrap();
        assert_eq!(held(&mut group).await, before, "{again}");
    }
    for too_far in [u64::MAX, u64::MAX - 1] {
        assert!(group.purge(log_id(2, too_far)).await.is_err());
        assert!(group.blocking_append([entry(2, too_far, "far")]).await.is_err());
        assert_eq!(held(&mut group).await, before, "{too_far}");
    }
}

/// The log ends before the snapshot's entry, at it, or after it.
#[tokio::test]
async fn what_a_snapshot_holds_goes_and_what_lies_behind_it_stays() {
    for (snapshot, left) in [(25, vec![]), (19, vec![]), (14, vec![15, 16, 17, 18, 19]), (0, (1..20).collect())] {
        let disk = disk();
        let wal = open(&disk);
        let mut group = store(&wal, 1);
        append(&mut group, 1, 0..20).await;
        group.purge(log_id(1, snapshot)).await.unwrap();
        let last = left.last().copied().unwrap_or(snapshot);
        let now = held(&mut group).await;
        assert_eq!((now.purged, now.last), (Some(log_id(1, snapshot)), Some(log_id(1, last))));
        assert_eq!(indexes(&now.entries), left);
        append(&mut group, 2, last + 1..last + 3).await;
        let before = held(&mut group).await;
        drop(group);
        let wal = open(&std::sync::Arc::new(disk.crash_lost_all()));
        assert_eq!(held(&mut store(&wal, 1)).await, before, "to {snapshot}, and after a power cut");
    }
}

#[tokio::test]
async fn a_group_that_is_removed_begins_anew_and_its_neighbours_go_on() {
    let disk = disk();
    let wal = open(&disk);
    let mut groups: Vec<Store> = (1..=3).map(|id| store(&wal, id)).collect();
    for group in &mut groups {
        append(group, 1, 0..20).await;
        group.save_vote(&crate::support::vote(3, group.group())).await.unwrap();
        group.purge(log_id(1, 9)).await.unwrap();
        group.save_committed(Some(log_id(1, 15))).await.unwrap();
    }
    let neighbour = held(&mut groups[0]).await;
    drop(groups.remove(1));
    wal.commit(Batch::new().remove(2)).unwrap();
    let mut anew = store(&wal, 2);
    let blank = held(&mut anew).await;
    assert_eq!((blank.vote, blank.purged, blank.last, blank.committed), (None, None, None, None));
    append(&mut anew, 7, 0..3).await;
    let begun = held(&mut anew).await;
    assert_eq!((begun.vote, begun.purged, indexes(&begun.entries)), (None, None, vec![0, 1, 2]));
    drop((anew, groups));
    let wal = open(&std::sync::Arc::new(disk.crash_lost_all()));
    assert_eq!((held(&mut store(&wal, 2)).await, held(&mut store(&wal, 1)).await), (begun, neighbour));
}
