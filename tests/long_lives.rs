//! Logs that live for years: the same is done so often that anything that grows shows. Costs are counted, never timed: what is given to the
//! device, and what is held of memory and of chunks. `STRANDLOG_LIVES=n` does n times as much.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::{EventKind, SimDisk};
use strandlog::{Batch, Lost, Placement, Wal};

use support::{assert_sound, env, open, payload, small, superblocks};

/// Rounds of the same work. The second one is the measure of the last.
const ROUNDS: u64 = 8;

fn times(n: u64) -> u64 {
    n * env("STRANDLOG_LIVES", 1)
}

/// Memory of this process that is in use: pages, of which the allocator keeps some.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).expect("resident").parse::<u64>().expect("a number") * 4096
}

/// What a round cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    journal: u64,
    chains: u64,
    cleaned: u64,
    used: u64,
    resident: u64,
}

/// Does the same work in rounds. The last must not take more of the device than the second, nor leave more behind, but for a fifth and a
/// little.
fn stays_as_it_is(what: &str, wal: &Wal, mut round: impl FnMut(&Wal)) {
    let mut costs: Vec<Cost> = Vec::new();
    for _ in 0..ROUNDS {
        let before = wal.stats();
        round(wal);
        wal.sync().expect("durable");
        let after = wal.stats();
        costs.push(Cost {
            journal: after.journal_bytes - before.journal_bytes,
            chains: after.placed_bytes + after.settled_bytes - before.placed_bytes - before.settled_bytes,
            cleaned: after.segments_cleaned - before.segments_cleaned,
            used: after.used_chunks + after.pinned_chunks + after.reserved_chunks + after.journal_segments,
            resident: resident(),
        });
    }
    let (early, late) = (costs[1], costs[costs.len() - 1]);
    let no_more = |early: u64, late: u64, room: u64| late <= early + early / 5 + room;
    assert!(no_more(early.journal, late.journal, 256 << 10), "{what}: {costs:#?}");
    assert!(no_more(early.chains, late.chains, 256 << 10), "{what}: {costs:#?}");
    assert!(no_more(early.cleaned, late.cleaned, 4), "{what}: {costs:#?}");
    assert!(no_more(early.used, late.used, 32), "{what}: {costs:#?}");
    assert!(no_more(0, late.resident.saturating_sub(early.resident), 16 << 20), "{what}: {costs:#?}");
    let cleaned: u64 = costs.iter().map(|cost| cost.cleaned).sum();
    assert!(cleaned > 0, "{what}: the journal goes round: {costs:#?}");
}

/// A log in a real file: a simulated disk would remember each event.
fn in_a_file(placement: Placement) -> (tempfile::TempDir, Wal) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(placement).capacity(8 << 20).journal_cap(8 * (64 << 10)).queue_bytes(256 << 10);
    let wal = options.open(dir.path().join("log")).expect("created");
    (dir, wal)
}

/// Submits the batch lazily: it waits for the next frame, and costs none of its own.
fn put_off(wal: &Wal, batch: &mut Batch) {
    drop(wal.submit(batch.lazy()).expect("room"));
    batch.clear();
}

/// All in one test: what is measured is the memory of the whole process.
#[test]
fn what_is_done_again_and_again_leaves_nothing_behind() {
    let n = times(800);
    for placement in support::PLACEMENTS {
        let (_dir, wal) = in_a_file(placement);
        // Another replica, which must be carried all the while.
        wal.commit(Batch::new().put(7, b"vote", b"for 1").append(7, &[(1, 1, b"kept")])).expect("room");
        let mut batch = Batch::new();
        stays_as_it_is("a key that comes and goes", &wal, |wal| {
            for i in 0..n {
                batch.put(1, b"key", &payload(1, i, 1, 100)).put(1, b"vote", &i.to_le_bytes());
                put_off(wal, &mut batch);
                batch.delete(1, b"key");
                put_off(wal, &mut batch);
            }
        });
        let mut last = 0;
        stays_as_it_is("a prefix that is truncated", &wal, |wal| {
            for _ in 0..n {
                last += 1;
                batch
                    .append(2, &[(last, last / 3, payload(2, last, 1, 100))])
                    .truncate_prefix(2, last.saturating_sub(5));
                batch.put(2, b"vote", &last.to_le_bytes());
                put_off(wal, &mut batch);
            }
        });
        stays_as_it_is("a suffix that is overwritten, and cut", &wal, |wal| {
            for i in 0..n {
                let from = if i == 0 { 1 } else { 2 + (i - 1) % 5 };
                let run: Vec<_> = (from..from + 3).map(|index| (index, i, payload(3, i, index, 60))).collect();
                batch.append(3, &run);
                batch.truncate_suffix(3, 2 + i % 5);
                put_off(wal, &mut batch);
            }
        });
        stays_as_it_is("a replica that is removed, and made anew", &wal, |wal| {
            for i in 0..n {
                batch
                    .append(4, &[(1, i, payload(4, i, 1, 100))])
                    .put(4, b"vote", &i.to_le_bytes())
                    .durable_applied(4, 0);
                put_off(wal, &mut batch);
                batch.remove(4);
                put_off(wal, &mut batch);
            }
        });
        let mut id = 1000;
        stays_as_it_is("a new replica each time", &wal, |wal| {
            for _ in 0..n {
                id += 1;
                batch.append(id, &[(1, 1, payload(id, 1, 1, 100))]).truncate_prefix(id, 2);
                put_off(wal, &mut batch);
                batch.remove(id);
                put_off(wal, &mut batch);
            }
        });
        stays_as_it_is("a truncation that waits, and a snapshot", &wal, |wal| {
            for i in 0..n {
                batch.install_snapshot(5, i, 1).durable_applied(5, i).append(5, &[(i + 1, 1, payload(5, i, 1, 50))]);
                batch.truncate_prefix(5, i + 2);
                put_off(wal, &mut batch);
            }
        });
        assert_eq!(wal.replica(7).entry(1).expect("kept").data, b"kept"[..]);
        assert_eq!(wal.replica(7).get(b"vote").expect("kept").as_deref(), Some(&b"for 1"[..]));
        assert_sound(&wal, "at the end");
        for id in wal.replicas() {
            wal.commit(Batch::new().remove(id)).expect("room");
        }
        (0..3).for_each(|i| _ = wal.commit(Batch::new().put(1, b"vote", &[i; 8])).expect("room"));
        let s = wal.stats();
        assert_eq!((s.replicas, s.used_chunks + s.pinned_chunks, s.held_truncations), (1, 0, 0), "{s:#?}");
    }
}

/// How many events, and how many bytes, an opening and the end of the log after it gave the device.
fn one_life(disk: &mut Arc<SimDisk>, life: u64) -> (u64, u64) {
    let options = small(support::PLACEMENTS[life as usize % 3]);
    *disk = Arc::new(match life % 4 {
        0 => disk.crash_lost_all(),
        1 => disk.crash_seeded(life),
        _ => disk.restart(),
    });
    let wal = open(options, disk);
    let vote = wal.replica(1).get(b"vote").expect("sound").expect("there");
    assert_eq!(vote, life.to_le_bytes()[..], "life {life}");
    assert_eq!(wal.replica(2).bounds(), (1, 20));
    wal.commit(Batch::new().put(1, b"vote", &(life + 1).to_le_bytes())).expect("room");
    if life.is_multiple_of(3) {
        wal.close().expect("closed");
    }
    drop(wal);
    let events = disk.log();
    let bytes = events.iter().filter(|e| e.kind != EventKind::Flush).map(|e| e.len).sum();
    (events.len() as u64, bytes)
}

/// After thousands of openings, each behind a close, a crash or the end of a process, one costs what it did at first.
#[test]
fn a_log_that_is_opened_for_ever_is_opened_as_it_was() {
    let mut disk = Arc::new(SimDisk::new(2 << 20));
    let wal = open(small(Placement::Auto), &disk);
    let entries: Vec<_> = (1..=20).map(|i| (i, 1, payload(2, i, 1, 3000))).collect();
    wal.commit(Batch::new().append(2, &entries).put(1, b"vote", &0_u64.to_le_bytes())).expect("room");
    drop(wal);
    let round = times(120);
    let mut costs = Vec::new();
    for n in 0..ROUNDS {
        let lives = n * round..(n + 1) * round;
        costs.push(lives.map(|life| one_life(&mut disk, life)).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)));
    }
    let (early, late) = (costs[1], costs[costs.len() - 1]);
    assert!(late.0 <= early.0 + early.0 / 5 && late.1 <= early.1 + early.1 / 5, "{costs:?}");
    let epoch = superblocks(&disk).iter().flatten().map(|sb| sb.epoch).max().expect("sound");
    assert!(epoch <= 4 * ROUNDS * round, "a few for each opening: {epoch}");
    let wal = open(small(Placement::Auto), &Arc::new(disk.restart()));
    assert_sound(&wal, "at the end");
    assert!(wal.damage().iter().all(|damage| damage.lost != Lost::State), "{:?}", wal.damage());
}

/// The file grows by a segment each time, with a life in between.
#[test]
fn a_log_that_is_grown_again_and_again_has_all_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, segment) = (dir.path().join("log"), 64 << 10);
    let mut capacity = (64 << 10) + 8 * segment;
    let options = || small(Placement::Auto);
    let wal = options().capacity(capacity).open(&path).expect("created");
    wal.commit(Batch::new().append(1, &[(1, 1, b"kept")])).expect("room");
    wal.close().expect("closed");
    drop(wal);
    for n in 0..times(60) {
        capacity += segment;
        let grown = strandlog::grow(&path, capacity, |_| ()).expect("grown");
        assert_eq!((grown.to, grown.usable_to), (capacity, capacity));
        let wal = options().create(false).open(&path).unwrap_or_else(|e| panic!("{n}: {e}"));
        assert_eq!(wal.stats().capacity, capacity);
        assert_eq!(wal.replica(1).entry(1).expect("kept").data, b"kept"[..]);
        wal.commit(Batch::new().append(2, &[(n + 1, n, payload(2, n, 1, 9000))])).expect("room");
        if n.is_multiple_of(8) {
            assert_sound(&wal, "grown");
        }
        if n.is_multiple_of(2) {
            wal.close().expect("closed");
        }
    }
}
