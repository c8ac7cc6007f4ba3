//! What is asked for, and what is refused, where room is counted out.

use super::*;
use crate::Wal;
use crate::disk::sim::SimDisk;
use crate::space::Charge;
use crate::sync::Arc;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// In any order, repeated or not, across the bounds between searching and hashing.
#[test]
fn each_operation_finds_the_slot_of_its_replica() {
    let (registry, mut adm) = (Registry::new(), Admission::default());
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (ops, of) = (rng.random_range(1..60), rng.random_range(1..40_u64));
        let mut named: Vec<u64> = (0..ops).map(|_| rng.random_range(0..of)).collect();
        if seed % 3 == 0 {
            named.sort_unstable();
        }
        let mut batch = Batch::new();
        for &id in &named {
            batch.truncate_prefix(id, 1);
        }
        adm.resolve(&registry, &batch);
        let mut first: Vec<u64> = Vec::new();
        for &id in &named {
            if !first.contains(&id) {
                first.push(id);
            }
        }
        assert_eq!(adm.cells.iter().map(|cell| cell.id).collect::<Vec<_>>(), first, "seed {seed}");
        for (op, id) in named.iter().enumerate() {
            let cell = adm.slot(op).and_then(|slot| adm.cells.get(slot));
            assert_eq!(cell.map(|cell| cell.id), Some(*id), "seed {seed}, operation {op}");
        }
        let neighbours = named.chunk_by(|a, b| a == b).count() == first.len();
        assert_eq!(adm.grouped, neighbours, "seed {seed}");
    }
}

/// A run that does not adjoin begins a piece of its own: that is asked for before it is taken.
#[test]
fn an_append_behind_what_lies_in_the_chain_asks_for_all_that_it_is_charged() {
    let log = || {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        wal.commit(Batch::new().append(1, &[(1, 1, [1; 3000])])).expect("room");
        wal.commit(Batch::new().append(1, &[(2, 1, [2; 10_000])])).expect("room");
        wal
    };
    let append = |wal: &Wal| wal.commit(Batch::new().append(1, &[(3, 1, [3; 100])]));
    let reserved = |wal: &Wal| wal.stats().reserved_chunks;
    let asks = {
        let wal = log();
        let before = reserved(&wal);
        append(&wal).expect("room");
        reserved(&wal) - before
    };
    assert!(asks > 0);
    for spare in [asks - 1, asks] {
        let wal = log();
        {
            let mut s = wal.engine.seq.lock();
            let all = wal.engine.pool.lock().free() - wal.engine.value_reserve - s.accounts.reserved();
            s.accounts.settle(&mut Charge::default(), Charge { chunks: all - spare, carried: 0 });
        }
        assert_eq!(append(&wal).is_ok(), spare == asks, "{spare} of {asks}");
    }
}

/// One replica becomes small in the batch in which others are admitted as small by the last of the room: it keeps its chunks until
/// they have theirs.
#[test]
fn who_becomes_small_takes_nothing_from_who_was_admitted_as_small() {
    let entry = |len: usize| vec![7_u8; len];
    let log = || {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let entries: Vec<_> = (1..7).map(|i| (i, 1, entry(if i == 1 { 200 } else { 400 }))).collect();
        wal.commit(Batch::new().append(1, &entries)).expect("room");
        wal
    };
    let batch = || {
        let mut batch = Batch::new();
        batch.append(1, &[(2, 1, entry(150))]);
        for replica in 2..8 {
            batch.append(replica, &[(1, 1, entry(8))]);
        }
        batch
    };
    let (mut admitted, mut refused) = (0, 0);
    for spare in 0..1200 {
        let wal = log();
        {
            let mut s = wal.engine.seq.lock();
            let all = wal.engine.pool.lock().free() - wal.engine.value_reserve - s.accounts.reserved();
            let carried = s.accounts.budget() / 4 * 3 - s.accounts.carried() - spare;
            s.accounts.settle(&mut Charge::default(), Charge { chunks: all, carried });
        }
        match wal.commit(batch()) {
            Ok(_) => admitted += 1,
            Err(_) => refused += 1,
        }
        let (reserved, free) = (wal.engine.seq.lock().accounts.reserved(), wal.engine.pool.lock().free());
        assert!(reserved + wal.engine.value_reserve <= free, "{spare}: {reserved} reserved of {free}");
    }
    assert!(admitted > 100 && refused > 100, "{admitted} admitted, {refused} refused");
}

/// What the replica had goes with it: its keys are new ones.
#[test]
fn a_key_of_a_replica_that_the_batch_removed_is_asked_for_whole() {
    let put = |wal: &Wal, len: usize| wal.commit(Batch::new().remove(1).put(1, b"key", &vec![7; len]));
    let log = |spare: u64| {
        // It does not grow.
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(6 * (64 << 10));
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        put(&wal, 3000).expect("room");
        {
            let mut s = wal.engine.seq.lock();
            let carried = s.accounts.budget() - s.accounts.carried() - spare;
            s.accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
        }
        wal
    };
    let outcome = put(&log(500), 4000);
    assert!(matches!(outcome, Err(Error::Full(_))), "a thousand bytes more where there are 500: {outcome:?}");
    put(&log(1500), 4000).expect("where there are 1,500");
}

/// Before the operation that creates the replica or behind it, a report takes the same.
#[test]
fn a_report_in_the_batch_that_creates_a_replica_is_asked_for_wherever_it_stands() {
    let put = |wal: &Wal, first: bool| {
        let mut batch = Batch::new();
        if first {
            wal.commit(batch.durable_applied(2, 0).put(2, b"key", &[7; 100]))
        } else {
            wal.commit(batch.put(2, b"key", &[7; 100]).durable_applied(2, 0))
        }
    };
    let log = |spare: u64| {
        // It does not grow.
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(6 * (64 << 10));
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let mut s = wal.engine.seq.lock();
        let carried = s.accounts.budget() - s.accounts.carried() - spare;
        s.accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
        drop(s);
        wal
    };
    let least = |first: bool| (0..1000).find(|&spare| put(&log(spare), first).is_ok()).expect("room");
    let behind = least(false);
    assert_eq!(least(true), behind);
    let wal = log(behind);
    put(&wal, true).expect("room");
    let s = wal.engine.seq.lock();
    assert!(s.accounts.carried() <= s.accounts.budget(), "{} carried", s.accounts.carried());
}

/// A purge that notes its point, a checkpoint and its compaction: were these refused, nobody could let go of anything. No more than goes
/// counts.
#[test]
fn what_a_batch_truncates_makes_room_for_what_it_brings() {
    let log = |report: Option<u64>| {
        // It does not grow.
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(6 * (64 << 10));
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let entries: Vec<_> = (1..=10).map(|i| (i, 1, [7; 100])).collect();
        let mut batch = Batch::new();
        batch.append(1, &entries).put(1, b"key", &[7; 100]);
        if let Some(index) = report {
            batch.durable_applied(1, index);
        }
        wal.commit(&mut batch).expect("room");
        {
            // Nor is there a chunk that its entries could be moved to.
            let mut s = wal.engine.seq.lock();
            let chunks = wal.engine.pool.lock().free() - wal.engine.value_reserve - s.accounts.reserved();
            let carried = s.accounts.budget() - s.accounts.carried();
            s.accounts.settle(&mut Charge::default(), Charge { chunks, carried });
        }
        wal
    };
    let longer = |wal: &Wal, first: u64, by: usize| {
        wal.commit(Batch::new().truncate_prefix(1, first).put(1, b"key", &vec![7; 100 + by]))
    };
    // Each gives back 124 bytes.
    longer(&log(None), 11, 1240).expect("all that ten entries took");
    longer(&log(Some(10)), 11, 1240).expect("all that ten entries took");
    longer(&log(None), 4, 372).expect("all that three took");
    for (report, first, by) in [(None, 11, 1241), (None, 4, 373), (Some(3), 11, 373), (None, 1, 1)] {
        let outcome = longer(&log(report), first, by);
        assert!(matches!(outcome, Err(Error::Full(_))), "{report:?}, {first}, {by}: {outcome:?}");
    }
    longer(&log(Some(3)), 11, 372).expect("three may go");
    // A first report in the same batch holds it back, too.
    let with_report = |by: usize| {
        let mut batch = Batch::new();
        batch.durable_applied(1, 5).truncate_prefix(1, 11).put(1, b"key", &vec![7; 100 + by]);
        log(None).commit(&mut batch)
    };
    with_report(500).expect("five make room for it, and for the report");
    let outcome = with_report(700);
    assert!(matches!(outcome, Err(Error::Full(_))), "{outcome:?}");
}

/// Between admission and application a segment may be opened: a replica admitted as carried would find too few free, and take a chunk.
#[test]
fn admission_counts_on_no_more_segments_than_are_free_when_the_batch_is_applied() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    let (mut opened, mut waited) = (0, 0);
    for i in 1..=150 {
        let (counted, before, leaves) = {
            let s = wal.engine.seq.lock();
            (s.free_with_room(Class::Grow), s.segments.free.len(), s.leaves(Class::Grow))
        };
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])]).truncate_prefix(1, i)).expect("room");
        let after = wal.engine.seq.lock().segments.free.len();
        assert!(after >= counted, "{after} of {counted} segments");
        opened += u64::from(after < before);
        waited += u64::from(before <= leaves && after > before);
    }
    assert!(opened > 3 && waited > 0, "{opened} opened, {waited} waited for the cleaner");
}

/// What a snapshot takes away, terms and runs and descriptors among it, is not counted against what the same batch appends behind it.
#[test]
fn behind_a_snapshot_entries_are_priced_without_what_it_took_away() {
    let log = |settled: bool| {
        // It does not grow.
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(6 * (64 << 10));
        let wal = options
            .background(false)
            .direct_threshold(16 << 10)
            .open_disk(Arc::new(SimDisk::new(4 << 20)))
            .expect("formatted");
        let mut batch = Batch::new();
        if settled {
            batch.append(1, &[(1, 1, [7; 40_000])]);
        }
        let first = wal.replica(1).last_index() + 1 + u64::from(settled);
        let entries: Vec<_> = (first..first + 10).map(|i| (i, i, [7; 100])).collect();
        wal.commit(batch.append(1, &entries)).expect("room");
        let cell = wal.engine.registry.get(1).expect("there");
        let (runs, pieces) = {
            let state = cell.lock();
            (state.terms.len() as u64, state.places.chain().len() as u64)
        };
        assert!(runs >= 10 && (pieces > 0) == settled, "{runs} runs, {pieces} pieces");
        {
            // Nor is there a chunk that its entries could be moved to.
            let mut s = wal.engine.seq.lock();
            let chunks = wal.engine.pool.lock().free() - wal.engine.value_reserve - s.accounts.reserved();
            let carried = s.accounts.budget() - s.accounts.carried();
            s.accounts.settle(&mut Charge::default(), Charge { chunks, carried });
        }
        // Two entries have a record of terms, and no descriptor.
        (wal, (runs - 1) * 12 + pieces * 64 + 10 * 124 - 2 * 24)
    };
    for settled in [false, true] {
        let (_, fits) = log(settled);
        for (more, twice) in [(0, false), (1, false), (0, true), (1, true)] {
            let lens = [fits / 2, fits - fits / 2 + more].map(|len| vec![1_u8; len as usize]);
            let [one, other] = lens;
            let (wal, _) = log(settled);
            let mut batch = Batch::new();
            if twice {
                // Nor what the batch appends before it; and what the first one took the second does not take again.
                let next = wal.replica(1).last_index() + 1;
                batch.append(1, &[(next, 50, [1; 10]), (next + 1, 51, [1; 10])]).install_snapshot(1, 90, 50);
                batch.append(1, &[(91, 50, [1; 10])]);
            }
            batch.install_snapshot(1, 100, 50).append(1, &[(101, 51, one), (102, 51, other)]);
            let outcome = wal.commit(&mut batch);
            if more == 0 {
                outcome.unwrap_or_else(|why| panic!("settled: {settled}: {why}"));
                let s = wal.engine.seq.lock();
                assert!(s.accounts.carried() <= s.accounts.budget(), "{} carried", s.accounts.carried());
            } else {
                assert!(matches!(outcome, Err(Error::Full(_))), "settled: {settled}: {outcome:?}");
            }
        }
    }
}
