//! Space: it comes back, it is accounted for, a full log has a way out, and nothing is written under a reader.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Bytes, Error, FullReport, Placement, Wal};

use support::model::Model;
use support::{PLACEMENTS, assert_sound, assert_space, open, payload, small};

const CAPACITY: u64 = 4 << 20;

/// Appends `n` entries of `len` bytes behind the last.
fn grow(batch: &mut Batch, wal: &Wal, replica: u64, n: u64, len: usize) {
    let next = wal.replica(replica).last_index() + 1;
    let entries: Vec<_> = (next..next + n).map(|i| (i, 1, payload(replica, i, 1, len))).collect();
    batch.append(replica, &entries);
}

fn assert_contents(wal: &Wal, replicas: impl IntoIterator<Item = u64>, len: usize) {
    for replica in replicas {
        let r = wal.replica(replica);
        let (first, last) = r.bounds();
        for i in first..=last {
            assert!(r.entry(i).expect("held").data == payload(replica, i, 1, len), "replica {replica} entry {i}");
        }
    }
}

/// Writes twenty times the capacity through one file; two replicas lag far behind, one is removed and comes back all the time.
fn churn(wal: &Wal, capacity: u64) {
    let mut batch = Batch::new();
    let mut written = 0;
    for turn in 0_u64.. {
        if written >= 20 * capacity {
            break;
        }
        for replica in 1..=12 {
            let n = 1 + (turn + replica) % 5;
            grow(&mut batch, wal, replica, n, 900);
            written += n * 900;
            let (first, last) = wal.replica(replica).bounds();
            let lag = match replica {
                1 => 400,
                2 => 150,
                _ => 10 + replica,
            };
            if last > lag && last - lag > first {
                batch.truncate_prefix(replica, last - lag);
            }
        }
        if turn % 7 == 0 {
            batch.remove(50);
        }
        batch.put(3, b"hard_state", &turn.to_le_bytes());
        wal.commit(&mut batch).unwrap_or_else(|e| panic!("turn {turn}, {written} bytes: {e}\n{:#?}", wal.stats()));
        grow(&mut batch, wal, 50, 2, 3000);
        written += 6000;
        wal.commit(&mut batch).unwrap_or_else(|e| panic!("turn {turn}, {written} bytes: {e}\n{:#?}", wal.stats()));
    }
}

#[test]
fn a_churn_with_lagging_replicas_runs_for_ever_in_one_file() {
    support::for_each(&PLACEMENTS, |placement| {
        let disk = Arc::new(SimDisk::new(CAPACITY));
        let wal = open(small(placement), &disk);
        churn(&wal, CAPACITY);
        assert_sound(&wal, "after the churn");
        assert_contents(&wal, 1..=12, 900);
        assert_contents(&wal, [50], 3000);
        // What is kept is about 600 KiB: the rest has come back.
        wal.checkpoint().expect("cleaned");
        wal.sync().expect("synced");
        wal.commit(Batch::new().put(3, b"hard_state", b"")).expect("committed");
        wal.commit(Batch::new().put(3, b"hard_state", b"")).expect("committed");
        let s = wal.stats();
        assert!(s.used_chunks * s.chunk_size < 1300 << 10, "{placement:?}: {s:#?}");
        assert_space(&wal, "after the churn");
        let before = Model::read(&wal).expect("readable");
        drop(wal);
        let wal = open(small(placement), &Arc::new(disk.restart()));
        assert_sound(&wal, "reopened");
        let after = Model::read(&wal).expect("readable");
        assert!(before == after, "{placement:?}:{}", before.difference(&after));
    });
}

#[test]
fn a_churn_on_a_real_file_with_threads_gives_everything_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let options = || Wal::options().capacity(8 << 20).chunk_size(16 << 10).segment_size(128 << 10);
    let wal = options().open(&path).expect("created");
    churn(&wal, 8 << 20);
    assert_sound(&wal, "after the churn");
    assert_contents(&wal, 1..=12, 900);
    let mut batch = Batch::new();
    for replica in wal.replicas() {
        batch.remove(replica);
    }
    wal.commit(batch).expect("removed");
    wal.close().expect("closed");
    assert_eq!(std::fs::metadata(&path).expect("there").len(), 8 << 20, "the file has kept its size");
    let wal = options().open(&path).expect("opened");
    assert_eq!((wal.replicas(), wal.stats().used_chunks), (vec![], 0), "an empty log holds no chunk");
    assert_space(&wal, "empty");
}

/// Fills the log with entries of `len` bytes from a few replicas until it says that it is full.
fn fill(wal: &Wal, len: usize) -> FullReport {
    let mut batch = Batch::new();
    for n in 0_u64.. {
        // Replica 1 gets half of everything.
        let replica = if n % 2 == 0 { 1 } else { 2 + n % 3 };
        batch.clear();
        grow(&mut batch, wal, replica, 4, len);
        let bounds = wal.replica(replica).bounds();
        match wal.commit(&mut batch) {
            Ok(_) => assert!(n < 100_000, "it never fills"),
            Err(Error::Full(report)) => {
                assert_eq!(wal.replica(replica).bounds(), bounds, "a refused batch changes nothing");
                return *report;
            }
            Err(error) => panic!("filling: {error}"),
        }
    }
    unreachable!()
}

#[test]
fn a_full_log_says_who_holds_most_and_truncation_removal_and_state_get_through() {
    for placement in PLACEMENTS {
        for len in [700, 3000, 20_000] {
            let what = format!("{placement:?}, entries of {len} bytes");
            let disk = Arc::new(SimDisk::new(CAPACITY));
            let wal = open(small(placement), &disk);
            let mut batch = Batch::new();
            for replica in 1..=4 {
                batch.put(replica, b"hard_state", &[1; 32]);
            }
            wal.commit(&mut batch).expect("state");
            let report = fill(&wal, len);
            assert!(report.needed >= 4 * len as u64, "{what}: {report:?}");
            assert!(report.free >= report.reserved || report.free < CAPACITY / 4, "{what}: {report:?}");
            assert_eq!(report.holders.first().map(|h| h.0), Some(1), "{what}: replica 1 holds most: {report:?}");
            assert!(report.holders.is_sorted_by(|a, b| a.1 >= b.1), "{what}: {report:?}");
            let said = Error::Full(Box::new(report.clone())).to_string();
            assert!(said.contains("truncate") && said.contains("nothing was changed"), "{said}");
            // Much of the log was used before it was called full.
            let held: u64 = report.holders.iter().map(|h| h.1).sum();
            assert!(held > CAPACITY / 3, "{what}: only {held} bytes: {report:?}");

            // State that does not grow, again and again: the reserve is not eaten by it.
            for n in 0..200_u8 {
                let mut batch = Batch::new();
                batch.put(u64::from(n % 4) + 1, b"hard_state", &[n; 32]);
                wal.commit(batch).unwrap_or_else(|e| panic!("{what}: state {n} on a full log: {e}"));
            }
            assert_sound(&wal, &what);
            assert_contents(&wal, 1..=4, len);
            let (first, last) = wal.replica(1).bounds();
            wal.commit(Batch::new().truncate_prefix(1, first + (last - first) / 2)).expect("truncation on a full log");
            wal.commit(Batch::new().remove(2)).expect("removal on a full log");
            let mut batch = Batch::new();
            for _ in 0..10 {
                batch.clear();
                grow(&mut batch, &wal, 3, 4, len);
                wal.commit(&mut batch).unwrap_or_else(|e| panic!("{what}: an append after relief: {e}"));
            }
            assert_sound(&wal, &what);
            assert_contents(&wal, [1, 3, 4], len);
            assert!(!wal.replica(2).exists());
            let state = wal.replica(4).get(b"hard_state").expect("readable").expect("there");
            assert_eq!(state, vec![199; 32], "{what}");
        }
    }
}

#[test]
fn too_much_metadata_is_refused_as_such_and_removal_makes_room() {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    let wal = open(small(Placement::Auto), &disk);
    let mut refused = None;
    for replica in 0..100_000 {
        match wal.commit(Batch::new().put(replica, b"state", &[7; 100])) {
            Ok(_) => {}
            Err(Error::Full(report)) => {
                refused = Some((replica, report));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let (replica, report) = refused.expect("it fills");
    assert!(report.metadata, "{report:?}");
    assert!(!wal.replica(replica).exists(), "a refused batch creates nothing");
    assert_sound(&wal, "full of metadata");
    for r in 0..replica / 2 {
        wal.commit(Batch::new().remove(r)).expect("removed");
    }
    wal.commit(Batch::new().put(replica, b"state", &[7; 100])).expect("there is room again");
    drop(wal);
    let wal = open(small(Placement::Auto), &Arc::new(disk.restart()));
    assert_eq!(wal.replicas(), (replica / 2..=replica).collect::<Vec<_>>());
    assert_sound(&wal, "reopened");
}

#[test]
fn a_full_log_survives_a_hundred_crashes_and_openings() {
    for placement in PLACEMENTS {
        let mut disk = Arc::new(SimDisk::new(CAPACITY));
        let wal = open(small(placement), &disk);
        wal.commit(Batch::new().put(1, b"hard_state", &[0; 32])).expect("state");
        fill(&wal, 700);
        let mut state = Model::read(&wal).expect("readable");
        drop(wal);
        for n in 0..100_u64 {
            disk = Arc::new(disk.crash_seeded(n));
            let wal = small(placement).open_disk(disk.clone());
            let wal = wal.unwrap_or_else(|e| panic!("{placement:?}, crash {n}: {e}"));
            let found = Model::read(&wal).expect("readable");
            assert!(found == state, "{placement:?}, crash {n}:{}", state.difference(&found));
            if n % 10 == 0 {
                assert_sound(&wal, "a full log reopened");
            }
            if n % 3 == 1 {
                let put = wal.commit(Batch::new().put(1, b"hard_state", &[n as u8; 32]));
                put.unwrap_or_else(|e| panic!("{placement:?}, crash {n}: state: {e}\n{:#?}", wal.stats()));
                state = Model::read(&wal).expect("readable");
            }
            drop(wal);
        }
        let wal = open(small(placement), &disk.restart().into());
        let (first, last) = wal.replica(1).bounds();
        wal.commit(Batch::new().truncate_prefix(1, first + (last - first) / 2)).expect("truncation");
        let mut batch = Batch::new();
        grow(&mut batch, &wal, 3, 4, 700);
        wal.commit(batch).expect("an append after relief");
        assert_sound(&wal, "at the end");
    }
}

/// Slices of a chain are the mapped file itself: were their chunks written again, they would change in the reader's hands.
#[test]
fn a_slice_keeps_its_bytes_while_its_chunk_is_dead_and_the_log_is_rewritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let wal = Wal::options()
        .capacity(8 << 20)
        .chunk_size(16 << 10)
        .segment_size(128 << 10)
        .recent_bytes(1 << 20)
        .background(false)
        .open(dir.path().join("log"))
        .expect("created");
    let mut batch = Batch::new();
    for replica in 1..=3 {
        grow(&mut batch, &wal, replica, 40, 6000);
        wal.commit(&mut batch).expect("written");
        grow(&mut batch, &wal, replica, 2, 70_000);
        wal.commit(&mut batch).expect("written");
    }
    wal.checkpoint().expect("settled");
    // Push what is recent out of memory.
    for _ in 0..300 {
        grow(&mut batch, &wal, 9, 2, 8000);
        let (_, last) = wal.replica(9).bounds();
        batch.truncate_prefix(9, last.max(1));
        wal.commit(&mut batch).expect("written");
    }
    let mut held: Vec<(u64, u64, Bytes)> = Vec::new();
    for replica in 1..=3 {
        for i in (1..=42).step_by(3) {
            held.push((replica, i, wal.replica(replica).entry(i).expect("held").data));
        }
        held.push((replica, 42, wal.replica(replica).entry(42).expect("held").data));
    }
    let settled = wal.stats().used_chunks;
    wal.commit(Batch::new().remove(1)).expect("removed");
    wal.commit(Batch::new().truncate_prefix(2, 43)).expect("truncated");
    wal.commit(Batch::new().install_snapshot(3, 1000, 5)).expect("reset");
    wal.sync().expect("synced");
    wal.commit(Batch::new().put(9, b"a", b"1")).expect("a watermark");
    wal.commit(Batch::new().put(9, b"a", b"2")).expect("a watermark");
    let pinned = wal.stats().pinned_chunks;
    assert!(pinned > 20, "{pinned} chunks of {settled} are pinned: slices are not copies");
    // Write three times the file, through every free chunk of it.
    for turn in 0..400 {
        grow(&mut batch, &wal, 7, 1, 64 << 10);
        let (_, last) = wal.replica(7).bounds();
        if last > 30 {
            batch.truncate_prefix(7, last - 30);
        }
        wal.commit(&mut batch).unwrap_or_else(|e| panic!("turn {turn}: {e}"));
    }
    for (replica, i, data) in &held {
        let len = if *i <= 40 { 6000 } else { 70_000 };
        assert!(*data == payload(*replica, *i, 1, len), "replica {replica} entry {i} changed under its reader");
    }
    assert_eq!(wal.stats().pinned_chunks, pinned);
    assert_sound(&wal, "with pins");
    drop(held);
    wal.commit(Batch::new().put(9, b"a", b"3")).expect("committed");
    wal.commit(Batch::new().put(9, b"a", b"4")).expect("committed");
    assert_eq!(wal.stats().pinned_chunks, 0, "what no reader holds is free");
    assert_sound(&wal, "without pins");
}

/// The next opening would know nothing of what is still being read, and would write to it.
#[test]
fn a_slice_that_outlives_its_log_keeps_the_file_and_its_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let options =
        || Wal::options().capacity(8 << 20).chunk_size(4096).segment_size(64 << 10).placement(Placement::Chain);
    let wal = options().open(&path).expect("created");
    wal.commit(Batch::new().append(1, &[(1, 1, payload(1, 1, 1, 3000))])).expect("committed");
    wal.close().expect("closed");
    let wal = options().open(&path).expect("opened");
    let replica = wal.replica(1);
    let entry = replica.entry(1).expect("mapped");
    wal.close().expect("closed");
    drop(wal);
    assert!(matches!(options().open(&path), Err(Error::Locked { .. })), "somebody reads its chunks");
    assert_eq!(replica.entry(1).expect("a copy").data, entry.data);
    assert_eq!(entry.data, payload(1, 1, 1, 3000));
    drop(entry);
    let wal = options().open(&path).expect("nobody reads any more");
    wal.commit(Batch::new().truncate_prefix(1, 2)).expect("committed");
    for index in 2..2000 {
        wal.commit(Batch::new().append(1, &[(index, 2, payload(1, index, 2, 3000))]).truncate_prefix(1, index))
            .expect("room");
    }
    // A handle of the closed log does not take for its own what is there now.
    assert!(replica.entry(1).is_err());
}

#[test]
fn an_opening_charges_every_replica_what_it_costs() {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    let wal = open(small(Placement::Journal), &disk);
    for replica in 1..=20 {
        let mut batch = Batch::new();
        grow(&mut batch, &wal, replica, 3, 700 * (replica as usize % 3 + 1));
        wal.commit(batch.put(replica, b"hard_state", &[1; 40])).expect("committed");
    }
    let before = wal.stats();
    assert!(before.reserved_chunks > before.reserved_for_values && before.carried_class_bytes > 0, "{before:#?}");
    drop(wal);
    let after = open(small(Placement::Journal), &disk.restart().into()).stats();
    let charged = |s: &strandlog::Stats| (s.reserved_chunks, s.carried_class_bytes, s.carried_class_limit);
    assert_eq!(charged(&after), charged(&before));
}

/// The cleaner's first frame goes into a segment that is kept for it. Were each opening to begin with a fresh one, so many cuts in
/// the middle of cleaning would leave none.
#[test]
fn cuts_in_the_middle_of_cleaning_do_not_eat_what_is_kept_for_it() {
    for placement in PLACEMENTS {
        let mut disk = Arc::new(SimDisk::new(CAPACITY));
        let wal = open(small(placement), &disk);
        // More is to be carried than fits what is left of a segment.
        for replica in 1..=30 {
            wal.commit(Batch::new().put(replica, b"hard_state", &[0; 2900])).expect("state");
        }
        fill(&wal, 700);
        let state = Model::read(&wal).expect("readable");
        drop(wal);
        for n in 0..40_u64 {
            // A little of the cleaning reaches the disk each time, and stays there.
            let copy = Arc::new(disk.restart());
            let wal = open(small(placement), &copy);
            let opened = copy.events();
            copy.fail_at(opened + 1 + n * 7 % 20, strandlog::disk::sim::Fault::Cut);
            let _ = wal.checkpoint();
            drop(wal);
            disk = Arc::new(copy.crash_kept_all());
        }
        let wal = open(small(placement), &disk.restart().into());
        wal.checkpoint().unwrap_or_else(|e| panic!("{placement:?}: {e}: {:#?}", wal.stats()));
        assert!(Model::read(&wal).expect("readable") == state, "{placement:?}");
        wal.commit(Batch::new().put(1, b"hard_state", &[9; 2900])).expect("state");
        wal.commit(Batch::new().truncate_prefix(1, wal.replica(1).last_index())).expect("truncation");
        assert_sound(&wal, "after so many cuts");
    }
}

#[test]
fn what_the_cleaner_moves_is_no_batch_of_a_caller() {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    let wal = open(small(Placement::Auto), &disk);
    let mut batch = Batch::new();
    const BATCHES: u64 = 100;
    for turn in 0..BATCHES {
        for replica in 1..=30 {
            grow(&mut batch, &wal, replica, 1, 100);
            batch.put(replica, b"hard_state", &turn.to_le_bytes());
        }
        wal.commit(&mut batch).expect("committed");
    }
    wal.checkpoint().expect("cleaned");
    wal.sync().expect("durable");
    let stats = wal.stats();
    assert!(stats.carried_bytes + stats.settled_bytes > 0 && stats.segments_cleaned > 0, "{stats:#?}");
    assert_eq!((stats.batches, stats.entries), (BATCHES, 30 * BATCHES));
}

/// Entries placed directly end the runs between them: each end costs a block more, which the batch must find free.
#[test]
fn an_append_that_begins_runs_reserves_for_their_ends() {
    let disk = Arc::new(SimDisk::new(12 * (64 << 10) + (64 << 10)));
    let wal = open(small(Placement::Auto).journal_cap(6 * (64 << 10)), &disk);
    // As many pairs at once as there is room for.
    let most = (1..=40).rev().find(|&pairs| {
        let mut batch = Batch::new();
        for i in (1..=2 * pairs).step_by(2) {
            batch.append(1, &[(i, 1, payload(1, i, 1, 250))]).append(1, &[(i + 1, 1, payload(1, i + 1, 1, 8500))]);
        }
        let accepted = wal.commit(&mut batch);
        assert_space(&wal, &format!("{pairs} pairs, {accepted:?}"));
        accepted.is_ok()
    });
    assert!(most.is_some_and(|pairs| pairs > 15), "{most:?}");
    // Go on, out of the segment that is being written.
    for n in 0..60 {
        wal.commit(Batch::new().put(2, b"k", &[n; 2000])).expect("state");
    }
    wal.checkpoint().expect("cleaned");
    assert!(wal.stats().settled_entries > 15, "{:#?}", wal.stats());
    assert_sound(&wal, "settled");
}

/// The replicas keep next to nothing: a chunk for each of them would fill the log. The error says enough to split the batch by.
#[test]
fn a_batch_of_many_small_runs_is_split_and_takes_no_chunk_for_each() {
    let wal = open(small(Placement::Auto), &Arc::new(SimDisk::new(CAPACITY)));
    let round = |index, replicas: std::ops::Range<u64>| {
        let mut batch = Batch::new();
        for replica in replicas {
            batch.append(replica, &[(index, 1, payload(replica, index, 1, 600))]);
            batch.truncate_prefix(replica, index);
        }
        batch
    };
    for index in 1..=20 {
        let mut whole = round(index, 0..120);
        let (bytes, limit) = match wal.commit(&mut whole) {
            Err(Error::BatchTooLarge { bytes, limit }) => (bytes, limit),
            other => panic!("round {index}: {other:?}"),
        };
        assert_eq!((bytes, limit), (whole.log_bytes(), wal.max_batch_bytes()));
        let each = 120 * limit / bytes;
        for from in (0..120).step_by(each as usize) {
            let mut part = round(index, from..(from + each).min(120));
            assert!(part.log_bytes() <= limit);
            wal.commit(&mut part).expect("split by what was told");
        }
    }
    let stats = wal.stats();
    assert_eq!((stats.used_chunks, stats.reserved_chunks), (0, stats.reserved_for_values), "{stats:?}");
    assert_contents(&wal, 0..120, 600);
    assert_sound(&wal, "at the end");
}

/// Runs so large that the cleaner would settle them are placed beside the journal, as before.
#[test]
fn of_a_batch_that_overflows_a_segment_the_runs_that_are_worth_chunks_go_into_them() {
    let wal = open(small(Placement::Auto), &Arc::new(SimDisk::new(CAPACITY)));
    let mut batch = Batch::new();
    for replica in 0..40 {
        grow(&mut batch, &wal, replica, 2, 1000);
        grow(&mut batch, &wal, 100 + replica, 1, 100);
    }
    assert!(batch.log_bytes() > wal.max_batch_bytes());
    let free = wal.stats().free_chunks;
    wal.commit(&mut batch).expect("half of a chunk each");
    let taken = free - wal.stats().free_chunks;
    assert!((5..=40).contains(&taken), "{taken} of 40 runs");
    assert_contents(&wal, 0..40, 1000);
    assert_contents(&wal, 100..140, 100);
}

/// A caller that truncates or removes the replicas that the error names must come away with room.
#[test]
fn a_log_full_of_keyed_state_names_who_holds_that() {
    let log = || {
        let disk = Arc::new(SimDisk::new(CAPACITY));
        let wal = open(small(Placement::Auto), &disk);
        wal.commit(Batch::new().append(1, &[(1, 1, [7; 20])])).expect("room");
        wal
    };
    // Large values take chunks, small ones are carried.
    for (len, keys, metadata) in [(20_000, 1, false), (100, 40, true)] {
        let wal = log();
        let refused = (2_u64..).find_map(|replica| {
            let mut batch = Batch::new();
            let keys = if replica == 5 { 2 * keys } else { keys };
            (0..keys).for_each(|key: u32| _ = batch.put(replica, &key.to_le_bytes(), &vec![7; len]));
            match wal.commit(&mut batch) {
                Ok(_) => None,
                Err(Error::Full(report)) => Some(report),
                Err(error) => panic!("{error}"),
            }
        });
        let report = refused.expect("it is full");
        assert_eq!(report.metadata, metadata, "{report:?}");
        let (most, bytes) = report.holders[0];
        assert_eq!(most, 5, "{report:?}");
        assert!(bytes > 2 * u64::from(keys) * len as u64 && report.holders.len() > 3, "{report:?}");
        let usage = wal.replica(5).usage();
        assert!(
            usage.key_bytes + usage.chain_bytes > 2 * u64::from(keys) * len as u64 && usage.keys == 2 * u64::from(keys),
            "{usage:?}"
        );
        wal.commit(Batch::new().remove(most)).expect("a removal");
        wal.commit(Batch::new().put(1, b"key", &vec![7; len])).expect("there is room again");
    }
    let report = strandlog::FullReport::default().to_string();
    assert!(report.contains("nobody") && report.contains("strandlog grow"), "{report}");
}
