//! A leader's replication gets entries that follow what it sent before, or nothing: even if another leads by now, which openraft tells it
//! only later.

use openraft::storage::{RaftLogReader, RaftLogStorage};
use strandlog::Batch;

use crate::support::{append, disk, entry, indexes, log_id, open, store};

/// A node that has entry 6 of term 1, and has not heard of term 2, would put entry 7 of term 2 after it.
#[tokio::test]
async fn a_leaders_replication_gets_nothing_of_anothers_log() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..10).await;
    for (term, cuts_by_itself) in [(2, true), (3, false)] {
        let mut sends = group.get_log_reader().await;
        assert_eq!(indexes(&sends.limited_get_log_entries(6, 10).await.unwrap()), [6, 7, 8, 9]);
        if cuts_by_itself {
            append(&mut group, term, 5..10).await;
        } else {
            group.truncate_after(Some(log_id(1, 4))).await.unwrap();
            append(&mut group, term, 5..10).await;
        }
        assert_eq!(sends.limited_get_log_entries(7, 10).await.unwrap(), []);
        assert_eq!(sends.clone().limited_get_log_entries(7, 8).await.unwrap(), []);
        // When the node leads again, openraft asks for another reader.
        let mut sends = group.get_log_reader().await;
        assert_eq!(sends.limited_get_log_entries(7, 8).await.unwrap(), [entry(term, 7, &format!("{term}/7"))]);
    }
}

/// It would be taken as following the entry before those that are gone.
#[tokio::test]
async fn nor_what_lies_behind_entries_that_were_purged() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..10).await;
    let mut sends = group.get_log_reader().await;
    group.purge(log_id(1, 5)).await.unwrap();
    assert_eq!(sends.limited_get_log_entries(3, 10).await.unwrap(), []);
    assert_eq!(indexes(&sends.limited_get_log_entries(6, 10).await.unwrap()), [6, 7, 8, 9]);
    // Purged for another leader's snapshot, with that leader's entries after it.
    group.purge(log_id(2, 19)).await.unwrap();
    append(&mut group, 2, 20..22).await;
    assert_eq!(sends.limited_get_log_entries(8, 22).await.unwrap(), []);
}

/// At its shutdown openraft does not wait for its replication tasks: a leftover one must not send what the group's next life in this
/// process wrote.
#[tokio::test]
async fn nor_what_was_written_since_the_group_was_opened_anew() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..10).await;
    for (term, is_removed) in [(2, false), (3, true)] {
        let mut sends = group.get_log_reader().await;
        assert_eq!(indexes(&sends.limited_get_log_entries(6, 10).await.unwrap()), [6, 7, 8, 9]);
        drop(group);
        if is_removed {
            wal.commit(Batch::new().remove(1)).unwrap();
        }
        group = store(&wal, 1);
        append(&mut group, term, if is_removed { 0..10 } else { 5..10 }).await;
        assert_eq!(sends.limited_get_log_entries(7, 10).await.unwrap(), []);
        let mut sends = group.get_log_reader().await;
        assert_eq!(sends.limited_get_log_entries(7, 8).await.unwrap(), [entry(term, 7, &format!("{term}/7"))]);
    }
}
