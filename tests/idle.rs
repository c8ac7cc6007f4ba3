//! Many idle replicas: the journal carries them and grows for it, and works even when full of what it carries.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::model::Model;
use support::{assert_sound, assert_space, open, payload, small};

/// Gives new replicas one entry each, until the log takes no more; returns how many.
fn one_each(wal: &Wal, from: u64, most: u64, len: usize) -> u64 {
    for replica in from..from + most {
        match wal.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1, 1, len))])) {
            Ok(_) => {}
            Err(Error::Full(_)) => return replica - from,
            Err(error) => panic!("replica {replica}: {error}"),
        }
    }
    most
}

/// Segments of several sizes, with chunks from small ones up to a whole segment.
fn shapes() -> Vec<(Options, u64)> {
    [
        (64 << 10, 4096, 6 << 20),
        (64 << 10, 64 << 10, 6 << 20),
        (128 << 10, 16 << 10, 12 << 20),
        (512 << 10, 32 << 10, 24 << 20),
    ]
    .map(|(segment, chunk, capacity)| (small(Placement::Auto).segment_size(segment).chunk_size(chunk), capacity))
    .into()
}

#[test]
fn no_idle_replica_takes_a_chunk_while_the_journal_can_grow() {
    let disk = Arc::new(SimDisk::new(16 << 20));
    let wal = open(small(Placement::Auto), &disk);
    let (before, mut carried) = (wal.stats(), 0);
    loop {
        let stats = wal.stats();
        assert!(stats.carried_class_bytes <= stats.carried_class_limit, "{stats:#?}");
        if stats.reserved_chunks > stats.reserved_for_values {
            assert_eq!(stats.journal_segments, stats.journal_cap_segments, "it could have grown: {stats:#?}");
            break;
        }
        carried += one_each(&wal, carried, 100, 256);
    }
    // Each replica takes 345 bytes of the budget, and small replicas stop at three quarters of it.
    assert!(carried * 345 >= wal.stats().carried_class_limit * 7 / 10, "{carried}");
    assert!(wal.stats().journal_segments > 4 * before.journal_segments);
    let before = wal.stats();
    drop(wal);
    let wal = open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
    let after = wal.stats();
    // An opening charges every replica's metadata first, 65 of the 345 bytes. So it can displace less than a quarter as many as already
    // hold chunks.
    let reserved = |stats: &strandlog::Stats| stats.reserved_chunks - stats.reserved_for_values;
    let (held, holds) = (reserved(&before), reserved(&after));
    assert!((held..=held + held.div_ceil(4)).contains(&holds), "{holds} reserved, {held} before");
    assert!(after.carried_class_bytes <= before.carried_class_bytes, "{after:#?}");
    assert_sound(&wal, "reopened");
}

/// It grows by nothing that was promised to others.
#[test]
fn a_journal_that_would_grow_leaves_what_is_kept_for_large_values() {
    let wal = open(small(Placement::Auto), &Arc::new(SimDisk::new(8 << 20)));
    wal.commit(Batch::new().put(1, b"large", &[6; 32 << 10])).expect("room");
    for i in 1.. {
        match wal.commit(Batch::new().append(100_000, &[(i, 1, payload(100_000, i, 1, 20_000))])) {
            Ok(_) => {}
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let before = wal.stats();
    assert!(before.free_chunks * before.chunk_size > before.segment_size, "{before:#?}");
    assert_eq!(before.reserved_chunks, before.reserved_for_values, "{before:#?}");
    assert!(one_each(&wal, 1, 100_000, 300) > 100);
    wal.checkpoint().expect("cleaned");
    let stats = wal.stats();
    assert_eq!(stats.journal_segments, before.journal_segments, "{stats:#?}");
    assert_space(&wal, "full");
    wal.commit(Batch::new().put(1, b"large", &[7; 32 << 10])).unwrap_or_else(|e| panic!("{e}: {stats:#?}"));
    assert_sound(&wal, "with a large value");
}

#[test]
fn who_does_not_wait_is_told_to_come_back_when_the_journal_has_grown() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(Placement::Auto).background(true).capacity(16 << 20);
    let wal = options.open(dir.path().join("log")).expect("created");
    let before = wal.stats().journal_segments;
    let mut batch = Batch::new();
    for replica in 0..6_000 {
        batch.append(replica, &[(1, 1, payload(replica, 1, 1, 200))]);
        loop {
            match wal.try_submit(&mut batch) {
                Ok(pending) => drop(pending),
                Err(Error::Busy { .. }) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(error) => panic!("replica {replica}: {error}"),
            }
            break;
        }
    }
    wal.sync().expect("synced");
    let stats = wal.stats();
    assert!(stats.reserved_chunks == stats.reserved_for_values && stats.journal_segments > before, "{stats:#?}");
    assert_sound(&wal, "grown");
}

/// The batch carries more than is left for that: it is let in once the journal has grown, and takes no chunks.
#[test]
fn a_batch_of_many_idle_replicas_that_does_not_wait_lets_the_journal_grow() {
    let wal = open(small(Placement::Auto).background(true), &Arc::new(SimDisk::new(6 << 20)));
    // The journal may grow before the batch comes, while other replicas are written: the threads decide.
    let before = wal.stats();
    let mut batch = Batch::new();
    one_each(&wal, 1000, 25, 300);
    for replica in 1..=80 {
        batch.append(replica, &[(1, 1, payload(replica, 1, 1, 400))]);
    }
    let mut busy = 0;
    while let Err(error) = wal.try_submit(&mut batch) {
        assert!(matches!(error, Error::Busy { .. }) && busy < 10_000, "{busy}: {error}: {:#?}", wal.stats());
        busy += 1;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let stats = wal.stats();
    assert_eq!(stats.reserved_chunks, stats.reserved_for_values, "{busy}: {stats:#?}");
    assert!(stats.journal_segments > before.journal_segments, "{stats:#?}");
}

/// A log with metadata up to its budget, so that one segment after the other is full of it; and how many replicas it has.
fn full_of_metadata(options: Options, capacity: u64) -> (Arc<SimDisk>, Wal, u64) {
    let disk = Arc::new(SimDisk::new(capacity));
    let wal = open(options, &disk);
    let mut batch = Batch::new();
    for replica in 1..1_000_000 {
        batch.clear();
        match wal.commit(batch.put(replica, b"hard_state", &payload(replica, 0, 0, 150))) {
            Ok(_) => {}
            Err(Error::Full(report)) => {
                assert!(report.metadata, "{report:?}");
                return (disk, wal, replica - 1);
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it never fills")
}

#[test]
fn a_journal_full_of_what_it_carries_is_cleaned_again_and_again() {
    for (n, (options, capacity)) in shapes().into_iter().enumerate() {
        let (_disk, wal, replicas) = full_of_metadata(options, capacity);
        for turn in 0..6 {
            let what = format!("shape {n}, turn {turn}: {:#?}", wal.stats());
            wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
            // About half of what is not kept back is free, and what is carried lies close together.
            let stats = wal.stats();
            assert!(stats.free_segments * 5 >= stats.journal_segments * 2, "{what}: {stats:#?}");
            // Write state everywhere, without growth: each segment that holds it is then half dead.
            for replica in (1..=replicas).filter(|r| (r + turn) % 7 == 0) {
                wal.commit(Batch::new().put(replica, b"hard_state", &payload(replica, turn, 0, 150)))
                    .unwrap_or_else(|e| panic!("{what}, replica {replica}: {e}"));
            }
        }
        // With a few replicas less, twice the file's length goes through what is left of the journal.
        let mut batch = Batch::new();
        for replica in 10..40 {
            batch.remove(replica);
        }
        wal.commit(&mut batch).expect("removed");
        for i in 1..=2 * capacity / 5000 {
            batch.append(3, &[(i, 1, payload(3, i, 1, 5000))]).truncate_prefix(3, i);
            wal.commit(&mut batch).unwrap_or_else(|e| panic!("shape {n}, entry {i}: {e}: {:#?}", wal.stats()));
        }
        assert_sound(&wal, "full of metadata");
    }
}

#[test]
fn a_journal_full_of_what_it_carries_survives_a_hundred_crashes_and_openings() {
    let (disk, wal, replicas) = full_of_metadata(small(Placement::Auto), 6 << 20);
    let mut state = Model::read(&wal).expect("readable");
    drop(wal);
    let mut disk = Arc::new(disk.crash_lost_all());
    for n in 0..100_u64 {
        // Every other time power is cut in the middle of cleaning, and a little of that reaches the disk.
        let wal = open(small(Placement::Auto), &disk);
        if n % 2 == 1 {
            disk.fail_at(disk.events() + n * 7 % 40, Fault::Cut);
            let _ = wal.checkpoint();
        } else {
            let replica = 1 + n % replicas;
            wal.commit(Batch::new().put(replica, b"hard_state", &payload(replica, n, 0, 150)))
                .unwrap_or_else(|e| panic!("crash {n}: {e}: {:#?}", wal.stats()));
            state = Model::read(&wal).expect("readable");
        }
        drop(wal);
        disk = Arc::new(disk.crash_kept_all());
        if n % 10 == 0 {
            let found = Model::read(&open(small(Placement::Auto), &Arc::new(disk.restart()))).expect("readable");
            assert!(found == state, "crash {n}: {}", state.difference(&found));
        }
    }
    let wal = open(small(Placement::Auto), &disk);
    wal.checkpoint().unwrap_or_else(|e| panic!("{e}: {:#?}", wal.stats()));
    wal.commit(Batch::new().remove(1)).expect("removed");
    wal.commit(Batch::new().append(2, &[(1, 1, payload(2, 1, 1, 100))])).expect("appended");
    assert_sound(&wal, "at the end");
}

/// Cuts the power at every event of `change`, and hands the log that is found then to `check`.
fn cut_everywhere(disk: &SimDisk, change: impl Fn(&Wal), mut check: impl FnMut(&Wal, u64)) {
    let uncut = Arc::new(disk.restart());
    let wal = open(small(Placement::Auto), &uncut);
    let opened = uncut.events();
    change(&wal);
    drop(wal);
    for event in opened..uncut.events() {
        let disk = Arc::new(disk.restart());
        let wal = open(small(Placement::Auto), &disk);
        disk.fail_at(event, Fault::Cut);
        change(&wal);
        drop(wal);
        check(&open(small(Placement::Auto), &Arc::new(disk.crash_seeded(event))), event);
    }
}

/// The journal takes slabs for what it carries; chains take the rest. When the carried replicas go, slabs go back to the chains.
#[test]
fn slabs_come_for_what_is_carried_and_go_with_it_whatever_is_cut() {
    let disk = Arc::new(SimDisk::new(6 << 20));
    let wal = open(small(Placement::Auto), &disk);
    let floor = wal.stats().journal_segments;
    let mut replicas = 1;
    while wal.stats().journal_segments < floor + 6 {
        replicas += one_each(&wal, replicas, 1, 300);
    }
    // Go on to just before it grows again.
    loop {
        let copy = Arc::new(disk.restart());
        let next = open(small(Placement::Auto), &copy);
        let slabs = next.stats().journal_segments;
        one_each(&next, replicas, 8, 300);
        if next.stats().journal_segments > slabs {
            break;
        }
        replicas += one_each(&wal, replicas, 1, 300);
    }
    drop(wal);
    let disk = disk.crash_lost_all();
    let mut grown = [0; 2];
    let before = open(small(Placement::Auto), &Arc::new(disk.restart())).stats().journal_segments;
    cut_everywhere(
        &disk,
        |wal| {
            for replica in replicas..replicas + 8 {
                let _ = wal.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1, 1, 300))]));
            }
        },
        |wal, event| {
            grown[usize::from(wal.stats().journal_segments > before)] += 1;
            assert_sound(wal, &format!("cut at {event}"));
            assert_space(wal, "while it grew");
            (1..replicas).for_each(|r| assert!(wal.replica(r).entry(1).expect("held").data == payload(r, 1, 1, 300)));
        },
    );
    assert!(grown[0] > 0 && grown[1] > 0, "{grown:?}");

    // Fill the chains to the brim while the journal holds what it has.
    let disk = Arc::new(disk);
    let wal = open(small(Placement::Auto), &disk);
    let mut last = 0;
    for i in 1.. {
        match wal.commit(Batch::new().append(100_000, &[(i, 1, payload(100_000, i, 1, 20_000))])) {
            Ok(_) => last = i,
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let full = wal.stats();
    assert!(full.carried_class_bytes <= full.carried_class_limit, "{full:#?}");
    assert!(full.journal_segments > floor, "what is carried holds on to its slabs: {full:#?}");
    // Two thirds of the idle replicas go: now appends find room that was the journal's.
    let mut batch = Batch::new();
    for replica in (1..replicas).filter(|r| r % 3 > 0) {
        batch.remove(replica);
    }
    wal.commit(&mut batch).expect("removed");
    drop(wal);
    let disk = disk.crash_lost_all();
    let slabs = open(small(Placement::Auto), &Arc::new(disk.restart())).stats().journal_segments;
    // What the journal may carry shrinks with it, as the next opening confirms.
    let uncut = Arc::new(disk.restart());
    let wal = open(small(Placement::Auto), &uncut);
    for i in last + 1..last + 6 {
        let _ = wal.commit(Batch::new().append(100_000, &[(i, 1, payload(100_000, i, 1, 20_000))]));
    }
    let now = wal.stats();
    drop(wal);
    let then = open(small(Placement::Auto), &Arc::new(uncut.crash_lost_all())).stats();
    assert!(now.journal_segments < slabs, "{now:#?}");
    let limits = [&now, &then].map(|s| (s.journal_segments, s.carried_class_limit));
    assert_eq!(limits[0], limits[1]);
    let mut shrunk = [0; 2];
    cut_everywhere(
        &disk,
        |wal| {
            for i in last + 1..last + 6 {
                let _ = wal.commit(Batch::new().append(100_000, &[(i, 1, payload(100_000, i, 1, 20_000))]));
            }
        },
        |wal, event| {
            let stats = wal.stats();
            shrunk[usize::from(stats.journal_segments < slabs)] += 1;
            assert!(stats.carried_class_bytes <= stats.carried_class_limit, "cut at {event}: {stats:#?}");
            assert_sound(wal, &format!("cut at {event}"));
            (1..replicas).filter(|r| r % 3 == 0).for_each(|r| {
                assert!(wal.replica(r).entry(1).expect("held").data == payload(r, 1, 1, 300), "replica {r}");
            });
            let (first, end) = wal.replica(100_000).bounds();
            (first..=end).step_by(7).for_each(|i| {
                assert!(wal.replica(100_000).entry(i).expect("held").data == payload(100_000, i, 1, 20_000));
            });
        },
    );
    assert!(shrunk[0] > 0 && shrunk[1] > 0, "{shrunk:?}");
}
