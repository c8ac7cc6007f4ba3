//! A stream is of one log, or reports that it is not.

use std::sync::Arc;

use futures_util::StreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use strandlog::Wal;

use crate::support::{Entry, LogId, Store, disk, entry, indexes, log_id, open, store};

/// So large that a stream reads only a few entries at once.
const LARGE: usize = 300 << 10;

async fn append(group: &mut Store, term: u64, range: std::ops::Range<u64>) {
    for index in range {
        group.blocking_append([entry(term, index, &"x".repeat(LARGE))]).await.unwrap();
    }
}

/// Streams all of a log with entries `..10` of term 1, which is changed after the first; returns the entries, and whether the stream ended
/// well.
async fn streamed(change: impl AsyncFnOnce(&mut Store)) -> (Vec<Entry>, bool) {
    streamed_of(&open(&disk()), change).await
}

async fn streamed_of(wal: &Arc<Wal>, change: impl AsyncFnOnce(&mut Store)) -> (Vec<Entry>, bool) {
    let mut group = store(wal, 1);
    append(&mut group, 1, 0..10).await;
    let mut reader = group.get_log_reader().await;
    let stream = reader.entries_stream(0..10).await;
    let mut stream = std::pin::pin!(stream);
    let mut got = vec![stream.next().await.unwrap().unwrap()];
    change(&mut group).await;
    while let Some(one) = stream.next().await {
        match one {
            Ok(entry) => got.push(entry),
            Err(_) => return (got, false),
        }
    }
    (got, true)
}

fn log_ids(entries: &[Entry]) -> Vec<LogId> {
    entries.iter().map(|entry| entry.log_id).collect()
}

#[tokio::test]
async fn a_stream_is_not_of_two_leaders() {
    let (got, whole) = streamed(async |group| {
        group.truncate_after(Some(log_id(1, 1))).await.unwrap();
        append(group, 2, 2..8).await;
    })
    .await;
    let old: Vec<LogId> = (0..10).map(|index| log_id(1, index)).collect();
    assert!(old.starts_with(&log_ids(&got)), "{:?}", log_ids(&got));
    assert!(!whole, "it was cut off, and nothing was said");
}

/// An append over an old end cuts that off by itself; that is a cut like any other.
#[tokio::test]
async fn nor_is_it_where_an_append_takes_the_place_of_what_was_handed_out() {
    let (got, whole) = streamed(async |group| append(group, 2, 2..8).await).await;
    let old: Vec<LogId> = (0..10).map(|index| log_id(1, index)).collect();
    assert!(old.starts_with(&log_ids(&got)), "{:?}", log_ids(&got));
    assert!(!whole, "it was overwritten, and nothing was said");
}

/// Nor if another opening of the group in this process does that.
#[tokio::test]
async fn nor_is_it_where_the_group_was_opened_anew() {
    let wal = open(&disk());
    let (got, whole) = streamed_of(&wal, async |_| append(&mut store(&wal, 1), 2, 2..8).await).await;
    let old: Vec<LogId> = (0..10).map(|index| log_id(1, index)).collect();
    assert!(old.starts_with(&log_ids(&got)), "{:?}", log_ids(&got));
    assert!(!whole, "it was overwritten, and nothing was said");
}

#[tokio::test]
async fn nor_does_it_end_as_if_a_log_that_was_cut_off_ended_there() {
    let (got, whole) = streamed(async |group| group.truncate_after(Some(log_id(1, 1))).await.unwrap()).await;
    assert!(indexes(&got).len() > 2 && !whole, "{:?}", indexes(&got));
}

/// openraft applies committed entries from a stream while it cuts off others.
#[tokio::test]
async fn a_cut_of_what_was_not_handed_out_yet_ends_no_stream() {
    let (got, whole) = streamed(async |group| {
        for term in 2..5 {
            group.truncate_after(Some(log_id(1, 6))).await.unwrap();
            append(group, term, 7..10).await;
        }
    })
    .await;
    let new: Vec<LogId> = (0..10).map(|index| log_id(if index < 7 { 1 } else { 4 }, index)).collect();
    assert_eq!((log_ids(&got), whole), (new, true));
}

#[tokio::test]
async fn a_stream_has_no_hole() {
    for purged in [7, 9] {
        let (got, whole) = streamed(async |group| group.purge(log_id(1, purged)).await.unwrap()).await;
        let indexes = indexes(&got);
        assert!(indexes.windows(2).all(|two| two[0] + 1 == two[1]), "a hole: {indexes:?}");
        assert!(!whole, "purged to {purged}, and nothing was said: {indexes:?}");
    }
}

/// What was handed out is not read again.
#[tokio::test]
async fn a_purge_of_what_was_handed_out_ends_no_stream() {
    let (got, whole) = streamed(async |group| group.purge(log_id(1, 1)).await.unwrap()).await;
    assert_eq!((indexes(&got), whole), ((0..10).collect(), true));
}
