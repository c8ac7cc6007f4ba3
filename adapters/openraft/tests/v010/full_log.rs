//! A log full of small groups: neither votes nor what makes room in it are refused.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use crate::support::{Store, disk, entry, held, log_id, open, store, vote};

/// The groups that began and could append; then one that could not.
async fn fill(wal: &std::sync::Arc<strandlog::Wal>, begin: impl AsyncFn(&mut Store) -> bool) -> u64 {
    let mut groups = 0;
    loop {
        let mut group = store(wal, groups + 1);
        if !begin(&mut group).await {
            wal.sync().unwrap();
            return groups;
        }
        groups += 1;
    }
}

#[tokio::test]
async fn groups_purge_and_vote_in_a_log_that_is_full() {
    let disk = disk();
    let wal = open(&disk);
    let groups = fill(&wal, async |group| {
        group.save_vote(&vote(1, 1)).await.is_ok()
            && group.blocking_append([entry(1, 0, &"x".repeat(100)), entry(1, 1, &"y".repeat(100))]).await.is_ok()
    })
    .await;
    assert!(groups > 1000, "{groups} groups");
    // Some purge, and so make room, before the others do.
    for id in 1..=40 {
        let mut group = store(&wal, id);
        group.save_vote(&vote(u64::MAX, u64::MAX)).await.unwrap();
        group.save_committed(Some(log_id(1, 1))).await.unwrap();
        group.truncate_after(Some(log_id(1, 1))).await.unwrap();
        group.purge(log_id(1, 1)).await.unwrap();
    }
    let held = held(&mut store(&wal, 40)).await;
    assert_eq!((held.vote, held.committed), (Some(vote(u64::MAX, u64::MAX)), Some(log_id(1, 1))));
    assert_eq!((held.purged, held.last, held.entries), (Some(log_id(1, 1)), Some(log_id(1, 1)), vec![]));
}

/// None of these makes room.
#[tokio::test]
async fn what_a_group_keeps_beside_its_entries_finds_the_room_that_its_first_write_asked_for() {
    let disk = disk();
    let wal = open(&disk);
    // Its first write is a vote, or an append, as when a cluster begins.
    let groups = fill(&wal, async |group| {
        let append = group.group() % 2 == 0 && group.blocking_append([entry(1, 0, "")]).await.is_ok();
        append || group.group() % 2 == 1 && group.save_vote(&vote(1, 1)).await.is_ok()
    })
    .await;
    for id in 1..=groups {
        let mut group = store(&wal, id);
        group.save_vote(&vote(u64::MAX, u64::MAX)).await.unwrap();
        group.save_committed(Some(log_id(u64::MAX - 10, u64::MAX))).await.unwrap();
        if id % 2 == 0 {
            group.purge(log_id(1, 0)).await.unwrap();
        }
        group.save_committed(None).await.unwrap();
        group.save_committed(Some(log_id(1, 0))).await.unwrap();
    }
    let held = held(&mut store(&wal, 1)).await;
    assert_eq!((held.vote, held.committed, held.purged), (Some(vote(u64::MAX, u64::MAX)), Some(log_id(1, 0)), None));
}
