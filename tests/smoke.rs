//! The shortest way through everything: write, read, reopen, clean.

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Placement, Wal};

fn options() -> strandlog::Options {
    Wal::options().chunk_size(4096).segment_size(64 << 10).background(false).direct_threshold(8 << 10)
}

#[test]
fn what_is_written_is_read_before_and_after_a_reopening() {
    for placement in [Placement::Auto, Placement::Journal, Placement::Chain] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = options().placement(placement).open_disk(disk.clone()).unwrap();
        let mut batch = Batch::new();
        for replica in 1..=20_u64 {
            let entries: Vec<_> = (1..=10).map(|i| (i, 1 + i / 4, vec![replica as u8; (i * 100) as usize])).collect();
            batch.append(replica, &entries).put(replica, b"hard_state", &[replica as u8; 24]);
        }
        batch.put(3, b"large", &[9; 20_000]);
        wal.commit(batch).unwrap();
        let mut batch = Batch::new();
        batch.append(1, &[(5, 9, vec![7_u8; 20_000])]).truncate_prefix(2, 8).remove(4).install_snapshot(5, 100, 7);
        wal.commit(&mut batch).unwrap();
        let check = |wal: &Wal| {
            assert_eq!(wal.replica(1).bounds(), (1, 5), "{placement:?}");
            assert_eq!(wal.replica(1).entry(5).unwrap().data, vec![7; 20_000]);
            assert_eq!(wal.replica(1).term(5).unwrap(), 9);
            assert_eq!(wal.replica(1).entry(4).unwrap().data, vec![1; 400]);
            assert_eq!(wal.replica(2).bounds(), (8, 10));
            assert_eq!(wal.replica(2).term(7).unwrap(), 2);
            assert_eq!(wal.replica(2).entries(8..11, usize::MAX).unwrap().len(), 3);
            assert!(matches!(wal.replica(2).entry(7), Err(Error::Compacted { first_index: 8, .. })));
            assert!(!wal.replica(4).exists());
            assert_eq!(wal.replica(5).bounds(), (101, 100));
            assert_eq!(wal.replica(5).term(100).unwrap(), 7);
            assert_eq!(wal.replica(3).get(b"large").unwrap().unwrap(), vec![9; 20_000]);
            assert_eq!(wal.replica(20).get(b"hard_state").unwrap().unwrap(), vec![20; 24]);
            assert!(wal.verify(|_| ()).unwrap().is_clean(), "{:?}", wal.verify(|_| ()).unwrap());
        };
        check(&wal);
        wal.checkpoint().unwrap();
        check(&wal);
        drop(wal);
        let disk = Arc::new(disk.restart());
        let wal = options().placement(placement).open_disk(disk.clone()).unwrap();
        assert_eq!(wal.damage(), []);
        check(&wal);
        wal.close().unwrap();
        let wal = options().placement(placement).open_disk(Arc::new(disk.restart())).unwrap();
        check(&wal);
    }
}

#[test]
fn a_real_file_with_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options = || Wal::options().capacity(32 << 20);
    let wal = Arc::new(options().open(&path).unwrap());
    assert!(matches!(options().open(&path), Err(Error::Locked { .. })));
    let threads: Vec<_> = (0..8_u64)
        .map(|t| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || {
                let mut batch = Batch::new();
                for i in 1..=500_u64 {
                    batch.append(t, &[(i, 1, [t as u8; 300])]);
                    if i % 50 == 0 {
                        batch.truncate_prefix(t, i - 10);
                    }
                    wal.commit(&mut batch).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    println!("{:#?}", wal.stats());
    assert_eq!(wal.stats().entries, 4000);
    drop(wal);
    let wal = options().open(&path).unwrap();
    for t in 0..8 {
        assert_eq!(wal.replica(t).bounds(), (490, 500));
        assert_eq!(wal.replica(t).entry(495).unwrap().data, vec![t as u8; 300]);
    }
    assert!(wal.verify(|_| ()).unwrap().is_clean());
    wal.close().unwrap();
}

#[test]
fn the_journal_is_reused_for_ever() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = options().open_disk(disk.clone()).unwrap();
    let mut batch = Batch::new();
    for i in 1..=3000_u64 {
        for replica in 1..=5 {
            batch.append(replica, &[(i, 1, vec![i as u8; 700])]);
            if replica > 1 && i > 20 {
                batch.truncate_prefix(replica, i - 20);
            }
        }
        if i > 1500 {
            batch.truncate_prefix(1, i - 1500);
        }
        wal.commit(&mut batch).unwrap_or_else(|e| panic!("{i}: {e}\n{:#?}", wal.stats()));
    }
    assert!(wal.stats().segments_cleaned > 20);
    let report = wal.verify(|_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.entries, 4 * 21 + 1501);
    drop(wal);
    let wal = options().open_disk(Arc::new(disk.restart())).unwrap();
    let report = wal.verify(|_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.entries, 4 * 21 + 1501);
}

/// Reads are limited as raft-rs limits what it sends (`limit_size`), but for the headers that it counts: behind an entry that exceeds the
/// limit comes no other, not even an empty one.
#[test]
fn entries_without_a_payload_come_only_where_what_is_before_them_fits() {
    let lengths = [100, 0, 0, 1, 0, 9000, 0, 5];
    for placement in [Placement::Auto, Placement::Journal, Placement::Chain] {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let wal = options().placement(placement).open_disk(disk.clone()).unwrap();
        let entries: Vec<_> = (1..).zip(lengths).map(|(index, len)| (index, 1, vec![7; len])).collect();
        wal.commit(Batch::new().append(1, &entries)).unwrap();
        let opened = || options().placement(placement).open_disk(Arc::new(disk.crash_kept_all())).unwrap();
        for wal in [&wal, &opened()] {
            for first in 1..=lengths.len() {
                for limit in [0, 1, 5, 99, 100, 101, 8999, 9000, 9005, usize::MAX] {
                    let ends = lengths.iter().skip(first - 1).scan(0, |sum, len| {
                        *sum += len;
                        Some(*sum)
                    });
                    let fit = ends.take_while(|end| *end <= limit).count().max(1);
                    let got = wal.replica(1).entries(first as u64..lengths.len() as u64 + 1, limit).unwrap();
                    assert_eq!(got.len(), fit, "{placement:?}: from {first}, {limit} bytes");
                }
            }
        }
    }
}

#[test]
fn what_is_in_memory_is_told_from_what_must_come_from_the_file() {
    const LAST: u64 = 800;
    for placement in [Placement::Auto, Placement::Journal, Placement::Chain] {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let options = || options().placement(placement).recent_bytes(1 << 20);
        let wal = options().open_disk(disk.clone()).unwrap();
        for i in 1..=LAST {
            wal.commit(Batch::new().append(1, &[(i, 1, vec![i as u8; 4000])])).unwrap();
        }
        drop(wal.submit(Batch::new().append(1, &[(LAST + 1, 1, b"not yet written")])).unwrap());
        let r = wal.replica(1);
        let read = || disk.bytes_read();
        let before = read();
        assert!(r.is_in_memory(LAST - 20..LAST + 2, usize::MAX), "{placement:?}");
        r.entries(LAST - 20..LAST + 2, usize::MAX).unwrap();
        assert_eq!(read(), before, "{placement:?}: it asked the disk");
        assert!(!r.is_in_memory(1..2, usize::MAX) && !r.is_in_memory(1..LAST, 0), "{placement:?}");
        r.entries(1..2, usize::MAX).unwrap();
        assert!(read() > before, "{placement:?}: it was in memory");
        // Entries are in memory from the newest of all backwards, up to this one.
        let first = (1..LAST).rev().find(|&i| !r.is_in_memory(i..LAST, usize::MAX)).unwrap() + 1;
        assert!((100..LAST - 20).contains(&first), "{placement:?}: from {first} on");
        assert!(!r.is_in_memory(first - 1..LAST, 4000) && r.is_in_memory(first..LAST, 4000));
        assert!(r.is_in_memory(LAST + 5..LAST + 9, 10) && wal.replica(9).is_in_memory(1..2, 10), "there is nothing");
        drop(wal);
        let wal = options().open_disk(Arc::new(disk.crash_kept_all())).unwrap();
        assert!(!wal.replica(1).is_in_memory(LAST - 1..LAST, usize::MAX), "{placement:?}: just opened");
    }
}
