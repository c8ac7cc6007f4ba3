//! What a store returns is the same after its log was closed, or dropped, and opened again.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use strandlog::Wal;
use strandlog_openraft::{Error, PURGED, VOTE};

use crate::support::{
    Held, Store, Vote, append, append_later, disk, entry, held, indexes, log_id, open, open_still, options, store, vote,
};

fn open_file(path: &Path) -> Arc<Wal> {
    Arc::new(options().capacity(8 << 20).open(path).unwrap())
}

/// Ends the log in both ways, opens it again, and compares what the group returns with what it returned before.
async fn same_after_reopening(path: &Path, wal: Arc<Wal>, mut group: Store) -> (Arc<Wal>, Store, Held) {
    let before = held(&mut group).await;
    wal.sync().unwrap();
    let id = group.group();
    drop((group, wal));
    let wal = open_file(path);
    assert_eq!(held(&mut store(&wal, id)).await, before, "after it was dropped");
    wal.close().unwrap();
    drop(wal);
    let wal = open_file(path);
    let mut group = store(&wal, id);
    assert_eq!(held(&mut group).await, before, "after it was closed");
    (wal, group, before)
}

#[tokio::test]
async fn vote_entries_purge_point_and_committed_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    let mut group = store(&wal, 7);
    assert_eq!(held(&mut group).await, Held { vote: None, purged: None, last: None, committed: None, entries: vec![] });

    group.save_vote(&vote(3, 2)).await.unwrap();
    append(&mut group, 2, 0..5).await;
    append(&mut group, 3, 5..9).await;
    group.save_committed(Some(log_id(3, 6))).await.unwrap();
    group.purge(log_id(2, 3)).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!(held_then.vote, Some(vote(3, 2)));
    assert_eq!((held_then.purged, held_then.last), (Some(log_id(2, 3)), Some(log_id(3, 8))));
    assert_eq!(held_then.committed, Some(log_id(3, 6)));
    assert_eq!(held_then.entries[0], entry(2, 4, "2/4"));
    assert_eq!(indexes(&held_then.entries), [4, 5, 6, 7, 8]);

    // A conflict: the end is cut off, and another leader's entries follow.
    group.truncate_after(Some(log_id(3, 6))).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!(held_then.last, Some(log_id(3, 6)));
    append(&mut group, 5, 7..8).await;
    group.save_committed(None).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!((held_then.last, held_then.committed), (Some(log_id(5, 7)), None));

    // Cut back to the purge point, of which the log no longer has an entry.
    group.truncate_after(Some(log_id(2, 3))).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!((held_then.purged, held_then.last), (Some(log_id(2, 3)), Some(log_id(2, 3))));
    append(&mut group, 6, 4..6).await;

    // A snapshot beyond the end, and entries after it.
    group.purge(log_id(9, 100)).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!((held_then.purged, held_then.last), (Some(log_id(9, 100)), Some(log_id(9, 100))));
    assert_eq!(wal.replica(7).term(101).unwrap(), 9, "also for those who look into the log");
    append(&mut group, 9, 101..103).await;
    let (_, _, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!(indexes(&held_then.entries), [101, 102]);
    assert_eq!(held_then.vote, Some(vote(3, 2)), "through all of it");
}

#[tokio::test]
async fn who_led_before_an_opening_does_not_lead_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    let mut group = store(&wal, 7);
    let committed = Vote::new_committed(3, 2);
    group.save_vote(&committed).await.unwrap();
    assert_eq!(group.reader().read_vote().await.unwrap(), Some(committed), "whoever leads reads that it does");
    drop((group, wal));

    // The vote's term and node stay: nobody votes twice.
    let wal = open_file(&path);
    let mut group = store(&wal, 7);
    for _ in 0..2 {
        assert_eq!(group.reader().read_vote().await.unwrap(), Some(vote(3, 2)));
    }
    // A vote saved after the opening is returned as it is: a follower hears from the same leader again, or there is another one.
    for told in [committed, vote(4, 1), Vote::new_committed(4, 1)] {
        let reader = group.reader();
        group.save_vote(&told).await.unwrap();
        assert_eq!(reader.clone().read_vote().await.unwrap(), Some(told));
    }
}

/// A vote that could not be saved says nothing about the vote that is there.
#[tokio::test]
async fn nor_by_a_vote_that_could_not_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    store(&wal, 7).save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    drop(wal);
    let wal = open_file(&path);
    let mut group = store(&wal, 7);
    wal.close().unwrap();
    group.save_vote(&Vote::new_committed(3, 2)).await.unwrap_err();
    assert_eq!(group.reader().read_vote().await.unwrap(), Some(vote(3, 2)));
}

#[tokio::test]
async fn a_log_that_is_cut_back_to_nothing_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    let mut group = store(&wal, 1);
    group.truncate_after(None).await.unwrap();
    append(&mut group, 1, 0..3).await;
    group.truncate_after(None).await.unwrap();
    let (wal, mut group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!((held_then.last, held_then.entries), (None, vec![]));
    append(&mut group, 2, 0..2).await;
    let (_, _, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!(held_then.last, Some(log_id(2, 1)));
}

#[tokio::test]
async fn entries_of_every_size_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    let mut group = store(&wal, 1);
    let sizes = [0, 1, 100, 4096, 8 << 10, 9000, 40 << 10, 200 << 10];
    for (index, size) in (0..).zip(sizes) {
        group.blocking_append([entry(1, index, &"x".repeat(size))]).await.unwrap();
    }
    let (_wal, group, held_then) = same_after_reopening(&path, wal, group).await;
    assert_eq!(held_then.entries.len(), sizes.len());
    for (one, size) in held_then.entries.iter().zip(sizes) {
        assert_eq!(*one, entry(1, one.log_id.index, &"x".repeat(size)));
    }
    // A read for replication takes what fits, and at least one entry.
    let some = group.reader().limited_get_log_entries(0, 8).await.unwrap();
    assert!(!some.is_empty() && some.len() <= 8);
    assert_eq!(group.reader().limited_get_log_entries(7, 8).await.unwrap().len(), 1);
}

#[tokio::test]
async fn bytes_of_another_program_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open_file(&dir.path().join("raft.log"));
    let mut batch = strandlog::Batch::new();
    batch.put(1, VOTE, b"\x09vote").put(1, PURGED, b"").append(1, &[(1, 1, b"\x01entry")]);
    wal.commit(&mut batch).unwrap();
    let mut group = store(&wal, 1);
    let told = |error: std::io::Error| error.to_string();
    assert!(told(group.reader().read_vote().await.unwrap_err()).contains("format version 9"));
    assert!(told(group.get_log_state().await.unwrap_err()).contains("cannot be decoded"));
    assert!(told(group.reader().try_get_log_entries(..).await.unwrap_err()).contains("cannot be decoded"));
}

#[tokio::test]
async fn what_would_leave_a_hole_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open_file(&dir.path().join("raft.log"));
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..8).await;
    group.purge(log_id(1, 3)).await.unwrap();
    let before = held(&mut group).await;

    let refused = group.blocking_append([entry(1, 9, "a hole")]).await.unwrap_err();
    assert!(refused.to_string().contains("index 9 does not continue the log, which holds 4..8"), "{refused}");
    let refused = group.blocking_append([entry(1, 8, "one"), entry(1, 10, "three")]).await.unwrap_err();
    assert!(refused.to_string().contains("does not follow"), "{refused}");
    let refused = group.truncate_after(Some(log_id(1, 2))).await.unwrap_err();
    let source = refused.get_ref().and_then(|source| source.downcast_ref::<Error>());
    assert!(matches!(source, Some(Error::NotContinuous { group: 1, index: 3, first: 4, next: 8 })), "{refused}");
    // Neither goes back: what was purged stays so, and is not stored again.
    group.purge(log_id(1, 1)).await.unwrap();
    group.blocking_append([entry(1, 2, "long gone")]).await.unwrap();
    assert_eq!(held(&mut group).await, before);
}

#[tokio::test]
async fn groups_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let wal = open_file(&path);
    for id in 0..50 {
        let mut group = store(&wal, id);
        group.save_vote(&vote(id + 1, id)).await.unwrap();
        append(&mut group, id + 1, 0..id % 7).await;
    }
    // One group is removed, and comes back as if it had never existed.
    let mut batch = strandlog::Batch::new();
    batch.remove(20);
    wal.commit(&mut batch).unwrap();
    drop(wal);
    let wal = open_file(&path);
    for id in (0..50).filter(|&id| id != 20) {
        let held_then = held(&mut store(&wal, id)).await;
        assert_eq!((held_then.vote, held_then.entries.len() as u64), (Some(vote(id + 1, id)), id % 7));
    }
    let gone = held(&mut store(&wal, 20)).await;
    assert_eq!(gone, Held { vote: None, purged: None, last: None, committed: None, entries: vec![] });
}

/// At its start openraft takes what it finds to be durable, and tells a leader so.
#[tokio::test]
async fn what_an_opening_finds_survives_a_power_cut_though_nobody_waited_for_it() {
    let disk = disk();
    let wal = open_still(&disk);
    let mut group = store(&wal, 1);
    // Nothing writes these before a caller waits for them, and the group is shut down.
    for index in 0..4 {
        drop(append_later(&mut group, entry(1, index, "x")).await);
    }
    drop(group);
    let found = held(&mut store(&wal, 1)).await;
    assert_eq!(found.last, Some(log_id(1, 3)));
    let wal = open(&Arc::new(disk.crash_lost_all()));
    assert_eq!(held(&mut store(&wal, 1)).await, found);
}
