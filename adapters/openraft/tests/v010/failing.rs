//! A disk that fails: every waiter is told, nothing is acknowledged afterwards, and what is there can be read.

use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog_openraft::{Error, LogStore};

use crate::support::{Told, Types, append, append_later, disk, entry, held, log_id, open, open_still, store, vote};

#[tokio::test]
async fn whoever_waits_for_a_failed_write_gets_its_error() {
    let disk = disk();
    let wal = open(&disk);
    let mut groups: Vec<_> = (0..10).map(|group| store(&wal, group)).collect();
    for group in &mut groups {
        append(group, 1, 0..2).await;
    }
    disk.on_event(|_| Some(Fault::Error(EIO)));
    let mut told = Vec::new();
    for group in &mut groups {
        // The first write may have failed already: then the append itself returns the error.
        match group.append([entry(1, 2, "lost")], signal(&mut told)).await {
            Ok(()) => {}
            Err(error) => assert!(error.to_string().contains("poisoned"), "{error}"),
        }
    }
    assert!(!told.is_empty());
    let mut errors = 0;
    for told in told {
        // A refused append drops its callback: openraft gets the append's error.
        if let Ok(outcome) = told.await {
            let error = outcome.expect_err("acknowledged, and not written");
            assert!(error.to_string().contains("poisoned"), "{error}");
            errors += 1;
        }
    }
    assert!(errors > 0);
    for group in &mut groups {
        assert!(group.save_vote(&vote(9, 9)).await.is_err());
        assert!(group.truncate_after(Some(log_id(1, 0))).await.is_err());
        assert!(group.purge(log_id(1, 0)).await.is_err());
        assert!(group.save_committed(Some(log_id(1, 0))).await.is_err());
        assert_eq!(group.reader().try_get_log_entries(..2).await.unwrap().len(), 2, "reads are still served");
    }
    let found = open_still(&Arc::new(disk.crash_lost_all()));
    for group in 0..10 {
        let found = held(&mut store(&found, group)).await;
        assert_eq!((found.vote, found.last), (None, Some(log_id(1, 1))));
    }
}

/// Corrupts every place on the disk that holds the text.
fn rot(disk: &SimDisk) {
    let image = disk.kept_image();
    for (at, _) in image.windows(16).enumerate().filter(|(_, window)| window == b"find me find me ").step_by(100) {
        disk.flip_bit(at as u64 + 5, 3);
    }
}

fn signal(told: &mut Vec<Told>) -> IOFlushed<Types> {
    let (sender, receiver) = Types::oneshot();
    told.push(receiver);
    IOFlushed::signal(sender)
}

#[tokio::test]
async fn a_log_that_is_dropped_tells_whoever_waits() {
    let disk = disk();
    let wal = open_still(&disk);
    let mut group = store(&wal, 1);
    let told = append_later(&mut group, entry(1, 0, "in the air")).await;
    wal.close().unwrap();
    // Closing makes durable what was submitted.
    told.await.unwrap().unwrap();
    let refused = group.append([entry(1, 1, "too late")], signal(&mut Vec::new())).await.unwrap_err();
    assert!(refused.to_string().contains("closed"), "{refused}");
}

/// Cutting off the end reads nothing: the entry that is then the last one may have rotted, and so may those that go.
#[tokio::test]
async fn an_end_is_cut_off_behind_what_rotted_and_with_it() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..3).await;
    group.blocking_append([entry(1, 3, &"find me ".repeat(300)), entry(1, 4, "behind it")]).await.unwrap();
    wal.close().unwrap();
    rot(&disk);
    let wal = open(&Arc::new(disk.crash_lost_all()));
    let mut group = store(&wal, 1);
    assert!(group.reader().try_get_log_entries(3..4).await.is_err(), "it did rot");
    group.truncate_after(Some(log_id(1, 3))).await.unwrap();
    assert_eq!(wal.replica(1).last_index(), 4);
    group.truncate_after(Some(log_id(1, 2))).await.unwrap();
    append(&mut group, 2, 3..5).await;
    let found = held(&mut group).await;
    assert_eq!((found.last, found.entries.len()), (Some(log_id(2, 4)), 5));
}

/// The log no longer knows the term of the last purged entry, and reports that as damage. openraft has its own purge point.
#[tokio::test]
async fn a_group_that_purged_what_rotted_is_opened() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..3).await;
    group.blocking_append([entry(1, 3, &"find me ".repeat(300)), entry(1, 4, "behind it")]).await.unwrap();
    wal.close().unwrap();
    rot(&disk);
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(matches!(LogStore::<Types>::new(Arc::clone(&wal), 1), Err(Error::Damaged { .. })));
    // But damage to an entry counts, even to the first one.
    group.purge(log_id(1, 2)).await.unwrap();
    assert!(matches!(LogStore::<Types>::new(Arc::clone(&wal), 1), Err(Error::Damaged { .. })));
    group.purge(log_id(1, 3)).await.unwrap();
    append(&mut group, 1, 5..6).await;
    wal.close().unwrap();
    let wal = open(&Arc::new(disk.crash_lost_all()));
    assert!(!wal.damage().is_empty());
    let found = held(&mut store(&wal, 1)).await;
    assert_eq!((found.last, found.entries.len()), (Some(log_id(1, 5)), 2));
}

/// openraft takes a refusal as fatal: a log that is full of others' entries must still let a follower follow.
#[tokio::test]
async fn a_full_log_lets_an_end_be_cut_off() {
    let disk = disk();
    let wal = open(&disk);
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..9).await;
    let filler = vec![7; 30_000];
    let mut next = 1;
    while let Ok(lsn) = wal.commit(strandlog::Batch::new().append(2, &[(next, 1, &filler)])) {
        assert!(lsn.get() > 0);
        next += 1;
    }
    for end in (0..8).rev() {
        group.truncate_after(Some(log_id(1, end))).await.unwrap();
    }
    group.truncate_after(None).await.unwrap();
    assert_eq!(held(&mut group).await.last, None);
}

#[tokio::test]
async fn a_damaged_group_is_not_opened_and_its_neighbours_are() {
    let disk = disk();
    let wal = open(&disk);
    for group in 1..=3 {
        append(&mut store(&wal, group), 1, 0..3).await;
    }
    let text = "find me ".repeat(2000);
    let mut hurt = store(&wal, 2);
    hurt.blocking_append([entry(1, 3, &text)]).await.unwrap();
    append(&mut store(&wal, 3), 1, 3..4).await;
    wal.close().unwrap();
    let image = disk.kept_image();
    let at = image.windows(16).position(|window| window == b"find me find me ").expect("it is written somewhere");
    disk.flip_bit(at as u64 + 5, 3);

    let wal = open_still(&Arc::new(disk.crash_lost_all()));
    let damage = wal.verify(|_| {}).unwrap().damage;
    assert!(damage.iter().all(|damage| damage.replica == 2) && !damage.is_empty(), "{damage:?}");
    // Whether the opening or the read finds it: never a wrong byte.
    match LogStore::<Types>::new(Arc::clone(&wal), 2) {
        Err(error) => assert!(matches!(error, Error::Damaged { group: 2, .. }), "{error}"),
        Ok(group) => {
            let error = group.reader().try_get_log_entries(..).await.unwrap_err();
            assert!(error.to_string().contains("damaged"), "{error}");
        }
    }
    for group in [1, 3] {
        assert!(held(&mut store(&wal, group)).await.last.is_some());
    }
}
