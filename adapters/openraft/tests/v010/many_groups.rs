//! Many groups at once, written by many tasks, in one log.

use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use strandlog::disk::sim::Fault;

use crate::scribe::Scribe;
use crate::support::{Rng, append, disk, entry, held, indexes, log_id, open, open_still, store, vote};

const GROUPS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_task_finds_its_own_group_as_it_left_it() {
    let disk = disk();
    let wal = open(&disk);
    let tasks = (0..GROUPS).map(|group| {
        let wal = Arc::clone(&wal);
        tokio::spawn(async move {
            let mut scribe = Scribe::open(&wal, group).await;
            let mut rng = Rng(group);
            for _ in 0..40 {
                scribe.step(&mut rng).await.unwrap();
            }
            scribe
        })
    });
    let scribes = join_all(tasks).await;
    wal.close().unwrap();
    let found = open_still(&Arc::new(disk.crash_lost_all()));
    for scribe in scribes {
        scribe.unwrap().judge(&found, "closed").await;
    }
    let stats = wal.stats();
    assert!(stats.batches > stats.frames, "group commit: {stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_power_fails_while_all_of_them_write() {
    for seed in 0..25 {
        let disk = disk();
        let wal = open(&disk);
        disk.fail_at(disk.events() + 20 + seed * 9, Fault::Cut);
        let tasks = (0..GROUPS / 4).map(|group| {
            let wal = Arc::clone(&wal);
            tokio::spawn(async move {
                let mut scribe = Scribe::open(&wal, group).await;
                let mut rng = Rng(seed << 16 | group);
                while scribe.step(&mut rng).await.is_ok() {}
                scribe
            })
        });
        let scribes = join_all(tasks).await;
        drop(wal);
        let found = open_still(&Arc::new(disk.crash_seeded(seed)));
        for scribe in scribes {
            scribe.unwrap().judge(&found, &format!("seed {seed}")).await;
        }
    }
}

/// A replication task goes on reading while another leader's entries replace those that it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_sees_two_logs_at_once() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..40).await;
    // Each leader's tasks read with a reader of their own.
    let (leads, newest) = tokio::sync::watch::channel(group.reader());
    let reading = |limited: bool| {
        let newest = newest.clone();
        let mut reader = newest.borrow().clone();
        tokio::spawn(async move {
            let mut seen = 0_u64;
            loop {
                let entries = if limited {
                    reader.limited_get_log_entries(12, 60).await.unwrap()
                } else {
                    reader.try_get_log_entries(0..60).await.unwrap()
                };
                // What is sent ends where the log was cut off: the next leader sends what follows.
                if limited && entries.is_empty() {
                    reader = newest.borrow().clone();
                    tokio::task::yield_now().await;
                    continue;
                }
                let terms: Vec<u64> = entries.iter().map(|entry| entry.log_id.leader_id.term).collect();
                assert!(terms.is_sorted(), "{terms:?}");
                let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
                assert_eq!(indexes(&entries), (first.log_id.index..=last.log_id.index).collect::<Vec<_>>());
                // After a cut everything is from the newest leader.
                let cut = entries.iter().position(|entry| entry.log_id.leader_id.term > 1);
                let behind = cut.map_or(&[][..], |cut| &entries[cut..]);
                assert!(behind.iter().all(|entry| entry.log_id.leader_id == behind[0].log_id.leader_id), "{terms:?}");
                seen += 1;
                if last.log_id.leader_id.term == 150 {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let readers = [reading(false), reading(true), reading(false)];
    for term in 2..=150 {
        group.truncate_after(Some(log_id(1, 19))).await.unwrap();
        append(&mut group, term, 20..30 + term % 7).await;
        leads.send_replace(group.reader());
        if term == 75 {
            group.purge(log_id(1, 9)).await.unwrap();
        }
    }
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_streamed_in_pieces() {
    let wal = open(&disk());
    let mut group = store(&wal, 1);
    group.save_vote(&vote(1, 1)).await.unwrap();
    let text = "x".repeat(60 << 10);
    for index in 0..40 {
        group.blocking_append([entry(1, index, &text)]).await.unwrap();
    }
    let mut reader = group.get_log_reader().await;
    let some = reader.limited_get_log_entries(0, 40).await.unwrap();
    assert!(some.len() < 20, "{} entries of 60 KiB in one read", some.len());
    let streamed: Vec<_> = reader.entries_stream(3..39).await.try_collect().await.unwrap();
    assert_eq!(indexes(&streamed), (3..39).collect::<Vec<_>>());
    assert_eq!(streamed, held(&mut group).await.entries[3..39]);
}
