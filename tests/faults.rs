//! What goes wrong without a power failure: device errors, bad superblocks, unknown formats, rotten bytes. Each is told by a typed error or
//! by name, and costs nothing else.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::{EIO, ENOSPC, EventKind, Fault, SimDisk};
use strandlog::{Batch, Damage, Error, Lost, Options, Placement, Wal};

use support::model::{Model, Op, Oracle, batch};
use support::work::{Shape, Work};
use support::{PLACEMENTS, assert_sound, open, payload, small};

const SUPERBLOCKS: [u64; 2] = [0, 16 << 10];
const SUPERBLOCK_BYTES: usize = 16 << 10;

/// A formatted disk, with no events yet.
fn formatted(placement: Placement) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(4 << 20));
    drop(open(small(placement), &disk));
    Arc::new(disk.restart())
}

/// The same batches each time, cleaning and the close included; returns how that ended.
fn work(wal: &Wal, oracle: &mut Oracle) -> Result<(), Error> {
    let shape =
        Shape { replicas: (1..8).collect(), sizes: vec![0, 1, 100, 700, 4096, 9000], live_bytes: 300_000, nonsense: 0 };
    let mut work = Work::new(5, shape);
    for n in 0..60 {
        let ops = work.batch(&oracle.current);
        if n % 3 == 0 {
            let pending = wal.submit(batch(&ops))?;
            oracle.submitted(Some(pending.lsn()), ops);
            continue;
        }
        match wal.commit(batch(&ops)) {
            Ok(lsn) => {
                oracle.submitted(Some(lsn), ops);
                oracle.acknowledged(lsn);
            }
            Err(error) => {
                oracle.submitted(None, ops);
                return Err(error);
            }
        }
        if n % 20 == 19 {
            wal.checkpoint()?;
        }
    }
    wal.close()
}

#[test]
fn a_failed_write_or_sync_poisons_for_good_and_nothing_acknowledged_is_lost() {
    let events = {
        let disk = formatted(Placement::Auto);
        let wal = open(small(Placement::Auto), &disk);
        work(&wal, &mut Oracle::default()).expect("no fault, no error");
        disk.events()
    };
    assert!(events > 60, "{events}");
    let faults = [
        Fault::Error(EIO),
        Fault::Error(ENOSPC),
        Fault::ShortThenError { kept: 512, errno: EIO },
        Fault::ShortThenError { kept: 8192, errno: ENOSPC },
    ];
    let jobs: Vec<(u64, Fault)> = (0..events).map(|e| (e, faults[e as usize % 4])).collect();
    support::for_each(&jobs, |(event, fault)| {
        let what = format!("event {event}: {fault:?}");
        let disk = formatted(Placement::Auto);
        disk.fail_at(event, fault);
        let wal = match small(Placement::Auto).open_disk(disk.clone()) {
            Ok(wal) => wal,
            Err(Error::Io { .. }) => {
                // The opening itself failed; the next one succeeds.
                assert_sound(&open(small(Placement::Auto), &disk.restart().into()), &what);
                return;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let mut oracle = Oracle::default();
        let error = work(&wal, &mut oracle).expect_err("a fault");
        let Error::Poisoned { cause } = &error else { panic!("{what}: {error}") };
        let (durable, events) = (wal.durable_lsn(), disk.events());
        // Sticky: every call returns the same error, and nothing more is written or acknowledged.
        let refused = [
            wal.commit(Batch::new().put(1, b"k", b"v")).map(drop),
            wal.submit(Batch::new().put(1, b"k", b"v")).map(drop),
            wal.try_submit(Batch::new().put(1, b"k", b"v")).map(drop),
            wal.submit_with(Batch::new().put(1, b"k", b"v"), |_| ()).map(drop),
            wal.sync().map(drop),
            wal.checkpoint(),
        ];
        for (n, refused) in refused.into_iter().enumerate() {
            let Err(Error::Poisoned { cause: again }) = refused else { panic!("{what}: way {n}: {refused:?}") };
            assert_eq!(again, *cause, "{what}: the first failure is told");
        }
        assert_eq!((wal.durable_lsn(), disk.events()), (durable, events), "{what}: nothing after the failure");
        let alive = Model::read(&wal).unwrap_or_else(|e| panic!("{what}: reads are still served: {e}"));
        oracle.check(&alive).unwrap_or_else(|why| panic!("{what}: alive: {why}"));
        drop(wal);
        for disk in [disk.restart(), disk.crash_lost_all(), disk.crash_kept_all(), disk.crash_seeded(event)] {
            let disk = Arc::new(disk);
            let wal = open(small(Placement::Auto), &disk);
            let found = Model::read(&wal).unwrap_or_else(|e| panic!("{what}: {e}"));
            oracle.check(&found).unwrap_or_else(|why| panic!("{what}: {why}"));
            assert_sound(&wal, &what);
            drop(wal);
            // What an opening shows is promised, since raft answers others by it: no cut takes it back.
            for cut in [disk.crash_lost_all(), disk.crash_kept_all(), disk.crash_seeded(event)] {
                let wal = open(small(Placement::Auto), &Arc::new(cut));
                let again = Model::read(&wal).unwrap_or_else(|e| panic!("{what}, then cut: {e}"));
                assert!(again == found, "{what}, then cut:{}", found.difference(&again));
            }
        }
    });
}

#[test]
fn whoever_waits_for_a_frame_that_fails_is_told() {
    let disk = formatted(Placement::Auto);
    let wal = open(small(Placement::Auto), &disk);
    let outcomes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let first = wal.submit(Batch::new().append(1, &[(1, 1, b"a")])).expect("submitted");
    let (told, out) = (Arc::clone(&outcomes), Arc::clone(&outcomes));
    wal.submit_with(Batch::new().append(2, &[(1, 1, b"b")]), move |o| told.lock().expect("alive").push(o.is_ok()))
        .expect("submitted");
    wal.submit_with(Batch::new().append(3, &[(1, 1, b"c")]), move |o| out.lock().expect("alive").push(o.is_ok()))
        .expect("submitted");
    disk.fail_at(disk.events(), Fault::Error(EIO));
    assert!(wal.check().is_ok() && wal.stats().queued_bytes > 0);
    assert!(matches!(first.wait(), Err(Error::Poisoned { .. })));
    assert!(matches!(wal.check(), Err(Error::Poisoned { .. })), "also told whoever has nothing to write");
    assert_eq!(*outcomes.lock().expect("alive"), [false, false], "each callback once, with the failure");
    assert_eq!(wal.replica(3).entry(1).expect("still readable").data, b"c"[..]);
    assert_eq!(wal.stats().queued_bytes, 0, "no writer comes for what is lost");
}

/// Two creations found no log. The slower one opens what the faster one has made, or finds it in use.
#[test]
fn a_creation_that_another_was_faster_than_opens_what_is_there() {
    for in_use in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        let options = || Wal::options().capacity(4 << 20).segment_size(64 << 10);
        let (theirs, name) = (Arc::new(std::sync::Mutex::new(None)), path.clone());
        let faster = Arc::clone(&theirs);
        let slower = options().progress(move |_| {
            let mut theirs = faster.lock().expect("no other panic");
            if theirs.is_none() && !name.exists() {
                let wal = options().open(&other).expect("created");
                wal.commit(Batch::new().put(1, b"k", b"theirs")).expect("committed");
                std::fs::rename(&other, &name).expect("renamed");
                *theirs = in_use.then_some(wal);
            }
        });
        match slower.open(&path) {
            Err(Error::Locked { path: p }) => assert!(in_use && p == path, "{}", p.display()),
            Ok(wal) => {
                assert!(!in_use, "it is in use");
                assert_eq!(wal.replica(1).get(b"k").expect("read").as_deref(), Some(&b"theirs"[..]));
            }
            Err(error) => panic!("in use: {in_use}: {error}"),
        }
    }
}

#[test]
fn a_second_opening_fails_at_once_until_the_first_has_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let options = || Wal::options().capacity(4 << 20).segment_size(64 << 10);
    let wal = options().open(&path).expect("created");
    wal.commit(Batch::new().append(1, &[(1, 1, b"x")])).expect("committed");
    for second in [options(), options().read_only(true), options().create(false)] {
        let error = second.open(&path).expect_err("it is open");
        assert!(matches!(&error, Error::Locked { path: p } if *p == path), "{error}");
        assert!(error.to_string().contains("close it there first"), "{error}");
    }
    wal.commit(Batch::new().append(1, &[(2, 1, b"y")])).expect("the first is not disturbed");
    wal.close().expect("closed");
    let again = options().open(&path).expect("closing gives the file up");
    assert!(matches!(wal.commit(Batch::new().put(1, b"k", b"v")), Err(Error::Closed)));
    assert_eq!(again.replica(1).bounds(), (1, 2));
    drop(again);
    let reader = options().read_only(true).open(&path).expect("dropping gives the file up");
    assert_eq!(reader.replica(1).entry(2).expect("held").data, b"y"[..]);
    assert!(matches!(reader.commit(Batch::new().put(1, b"k", b"v")), Err(Error::ReadOnly)));
    assert!(matches!(reader.sync(), Err(Error::ReadOnly)));
    assert!(matches!(reader.checkpoint(), Err(Error::ReadOnly)));
    drop(reader);
    let missing = Wal::options().create(false).open(dir.path().join("none"));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    // An opening that may not create must not begin an empty log just because a device is not mounted.
    let said = missing.err().map_or(String::new(), |e| e.to_string());
    assert!(said.contains("its device mounted") && said.contains("an empty log would begin here"), "{said}");
    assert!(!dir.path().join("none").exists());
}

#[test]
fn opening_for_reading_writes_nothing_whatever_it_finds() {
    let disk = formatted(Placement::Auto);
    let wal = open(small(Placement::Auto), &disk);
    let mut oracle = Oracle::default();
    disk.fail_at(50, Fault::Cut);
    work(&wal, &mut oracle).expect_err("cut");
    drop(wal);
    for crashed in [disk.crash_lost_all(), disk.crash_kept_all(), disk.crash_seeded(1)] {
        let torn = crashed.clone();
        torn.poke(SUPERBLOCKS[0] + 512, &[0xEE; 512]);
        let rotten = crashed.clone();
        // In the middle of the journal.
        rotten.poke(strandlog::format::POOL_OFFSET + 2 * (64 << 10), &[0xEE; 4096]);
        for disk in [crashed, torn, rotten] {
            let disk = Arc::new(disk.restart());
            let before = disk.kept_image();
            let wal = small(Placement::Auto).read_only(true).open_disk(disk.clone()).expect("readable");
            for id in wal.replicas() {
                let (first, last) = wal.replica(id).bounds();
                let _ = (first..=last).map(|i| wal.replica(id).entry(i).is_ok()).filter(|&ok| ok).count();
            }
            wal.verify(|_| ()).expect("verified");
            let _ = wal.damage();
            wal.close().expect("closed");
            drop(wal);
            assert_eq!(disk.events(), 0, "a write or a sync by a reader");
            assert!(disk.kept_image() == before);
        }
    }
}

fn filled(placement: Placement) -> (Arc<SimDisk>, Model) {
    let disk = formatted(placement);
    let wal = open(small(placement), &disk);
    let mut oracle = Oracle::default();
    work(&wal, &mut oracle).expect("no fault");
    (disk, oracle.current)
}

#[test]
fn one_bad_superblock_is_repaired_from_the_other_and_two_are_refused() {
    let (disk, model) = filled(Placement::Auto);
    for (bad, good) in [(0, 1), (1, 0)] {
        for spoil in [[0xEE; 512], [0; 512]] {
            let hurt = Arc::new(disk.restart());
            for sector in 0..SUPERBLOCK_BYTES as u64 / 512 {
                hurt.poke(SUPERBLOCKS[bad] + sector * 512, &spoil);
            }
            let wal = open(small(Placement::Auto), &hurt);
            assert!(Model::read(&wal).expect("readable") == model);
            drop(wal);
            // The bad copy is whole again, so the other may now go bad.
            let hurt = hurt.restart();
            hurt.poke(SUPERBLOCKS[good], &[0xEE; 512]);
            let wal = open(small(Placement::Auto), &Arc::new(hurt));
            assert!(Model::read(&wal).expect("readable") == model);
            assert_sound(&wal, "repaired");
        }
    }
    let both = disk.restart();
    SUPERBLOCKS.iter().for_each(|&at| both.poke(at, &[0xEE; 512]));
    let error = small(Placement::Auto).open_disk(Arc::new(both)).expect_err("nothing to go by");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("from their peers, as new members"), "{error}");
}

#[test]
fn a_cut_while_the_superblocks_are_written_leaves_one_of_them() {
    // The journal grows: superblock A is written durably, then B. With either torn, the log opens with the old set of slabs or the new one.
    let disk = formatted(Placement::Journal);
    let wal = open(small(Placement::Journal), &disk);
    let mut batch = Batch::new();
    for i in 1..400_u64 {
        batch.append(1, &[(i, 1, payload(1, i, 1, 5000))]).truncate_prefix(1, i.saturating_sub(10).max(1));
        wal.commit(&mut batch).expect("committed");
    }
    drop(wal);
    let writes: Vec<_> = disk.log().into_iter().filter(|e| SUPERBLOCKS.contains(&e.offset) && e.len > 0).collect();
    assert!(writes.len() >= 4 && writes.len().is_multiple_of(2), "the journal grew: {writes:?}");
    assert!(writes.iter().all(|e| e.kind == EventKind::WriteDurable));
    assert!(writes.chunks(2).all(|w| (w[0].offset, w[1].offset) == (SUPERBLOCKS[0], SUPERBLOCKS[1])), "A before B");
}

/// Cut between A and B, the log had gone on with A; cut again while A was written, only B was left, which did not know every slab.
#[test]
fn a_superblock_left_behind_by_a_cut_is_brought_up_before_the_other_is_written_again() {
    let disk = formatted(Placement::Journal);
    let mut batch = Batch::new();
    let mut grow = |wal: &Wal| {
        for _ in 0..100_u64 {
            let i = wal.replica(1).last_index() + 1;
            batch.append(1, &[(i, 1, payload(1, i, 1, 5000))]).truncate_prefix(1, i.saturating_sub(10).max(1));
            wal.commit(&mut batch)?;
        }
        Ok::<(), Error>(())
    };
    disk.on_event(|e| (e.offset == SUPERBLOCKS[1] && e.kind == EventKind::WriteDurable).then_some(Fault::Cut));
    grow(&open(small(Placement::Journal), &disk)).expect_err("cut before B is written");
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(small(Placement::Journal), &disk);
    let image = disk.kept_image();
    let copy = |n: usize| &image[SUPERBLOCKS[n] as usize..][..SUPERBLOCK_BYTES];
    assert!(copy(0) == copy(1), "both are the same before anything relies on either");
    let writes: Vec<_> = disk.log().into_iter().filter(|e| e.len > 0 && e.offset < 32 << 10).collect();
    assert!(writes.iter().all(|e| e.offset == SUPERBLOCKS[1]), "the good one is not touched: {writes:?}");
    let seen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hook = Arc::clone(&seen);
    disk.on_event(move |e| {
        let hit = e.offset == SUPERBLOCKS[0] && e.len > 0;
        hook.fetch_or(hit, std::sync::atomic::Ordering::Relaxed);
        hit.then_some(Fault::Cut)
    });
    grow(&wal).expect_err("cut while A is written");
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed));
    let last = wal.replica(1).last_index() - 1;
    drop(wal);
    // What was in flight becomes garbage.
    let torn = disk.crash(&mut |sector, _| strandlog::disk::sim::Choice::Garbage(sector));
    let wal = open(small(Placement::Journal), &Arc::new(torn));
    assert!(wal.replica(1).last_index() >= last, "{:?}, {last} was acknowledged", wal.replica(1).bounds());
    assert_sound(&wal, "opened from B");
}

#[test]
fn an_unknown_version_or_feature_is_refused_by_name() {
    let (disk, _) = filled(Placement::Auto);
    let image = disk.kept_image();
    // The version, then feature bits. The checksum is made good again: the meaning is refused, not the bytes.
    for (at, name) in [(8, "format version"), (16, "feature bits"), (23, "feature bits")] {
        let mut changed = image[..SUPERBLOCK_BYTES].to_vec();
        changed[at] ^= 0x40;
        let crc = crc32c::crc32c(&changed[..SUPERBLOCK_BYTES - 4]);
        changed[SUPERBLOCK_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        // In both copies; or in one, where a newer version was cut while it wrote: that must not be "repaired".
        for copies in [&SUPERBLOCKS[..], &SUPERBLOCKS[..1], &SUPERBLOCKS[1..]] {
            let hurt = Arc::new(disk.restart());
            copies.iter().for_each(|&offset| hurt.poke(offset, &changed));
            let error = small(Placement::Auto).open_disk(hurt.clone()).expect_err("refused");
            assert!(matches!(&error, Error::Unsupported { feature } if feature.contains(name)), "{error}");
            assert!(error.to_string().contains("newer"), "{error}");
            assert_eq!(hurt.events(), 0, "what is not understood is not written to");
        }
    }
}

/// All places in the file where the payload lies, whose bytes are like no other's.
fn find(disk: &SimDisk, bytes: &[u8]) -> Vec<u64> {
    let image = disk.kept_image();
    let head = &bytes[..32];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(n) = image[at..].windows(32).position(|w| w == head) {
        if image[at + n..].starts_with(bytes) {
            found.push((at + n) as u64);
        }
        at += n + 1;
    }
    found
}

const LEN: usize = 600;

/// Three replicas of twenty entries each, then a frame that vouches for all before it. If `settled`, the entries lie in chains.
fn victims(options: Options, settled: bool) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = options.open_disk(disk.clone()).expect("opened");
    for i in 1..=20 {
        let mut batch = Batch::new();
        for replica in 1..=3 {
            batch.append(replica, &[(i, 1, payload(replica, i, 1, LEN))]);
            batch.put(replica, b"hard_state", &[i as u8; 16]);
        }
        wal.commit(batch).expect("committed");
    }
    if settled {
        for n in 0..200_u64 {
            let mut batch = Batch::new();
            batch.append(9, &[(n + 1, 1, [0; 4000])]);
            batch.truncate_prefix(9, n.max(1));
            wal.commit(batch).expect("committed");
        }
        wal.checkpoint().expect("settled");
        assert!(wal.stats().settled_entries + wal.stats().placed_bytes > 0);
    }
    wal.close().expect("closed");
    support::forget_snapshot(&disk);
    disk
}

fn intact(wal: &Wal, replica: u64, but: &[u64]) {
    for i in 1..=20 {
        if !but.contains(&i) {
            let e = wal.replica(replica).entry(i).unwrap_or_else(|e| panic!("replica {replica} entry {i}: {e}"));
            assert!(e.data == payload(replica, i, 1, LEN), "replica {replica} entry {i}");
        }
    }
}

#[test]
fn a_rotten_entry_is_named_and_hurts_nobody_else_until_it_is_healed() {
    for settled in [false, true] {
        for placement in PLACEMENTS {
            let what = format!("{placement:?}, settled: {settled}");
            let disk = victims(small(placement), settled);
            let disk = disk.restart();
            let copies = find(&disk, &payload(2, 7, 1, LEN));
            assert!(!copies.is_empty(), "{what}");
            copies.iter().for_each(|&at| disk.flip_bit(at + 300, 3));
            let disk = Arc::new(disk);
            let wal = open(small(placement), &disk);
            let named = |e: Result<strandlog::Entry, Error>| match e {
                Err(Error::Damaged(Damage { replica: 2, lost: Lost::Entries { first, last } })) => {
                    first <= 7 && 7 <= last
                }
                other => panic!("{what}: {other:?}"),
            };
            assert!(named(wal.replica(2).entry(7)), "{what}");
            let range = wal.replica(2).entries(1..21, usize::MAX).expect("what lies before the damage");
            assert_eq!(range.len(), 6, "{what}");
            [1, 3].into_iter().for_each(|replica| intact(&wal, replica, &[]));
            intact(&wal, 2, &[7]);
            let report = wal.verify(|_| ()).expect("verified");
            let lost = Damage { replica: 2, lost: Lost::Entries { first: 7, last: 7 } };
            assert_eq!((report.damage.as_slice(), report.accounting.len()), (&[lost][..], 0), "{what}");

            // All replicas go on, the hurt one included.
            for replica in 1..=3 {
                wal.commit(Batch::new().append(replica, &[(21, 2, b"more")])).expect("writable");
            }
            // Cleaning moves what it can, and writes down what it cannot.
            for _ in 0..2 {
                wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            drop(wal);
            let disk = Arc::new(disk.crash_lost_all());
            let wal = open(small(placement), &disk);
            assert!(named(wal.replica(2).entry(7)), "{what}: after cleaning and reopening");
            intact(&wal, 2, &[7]);
            [1, 3].into_iter().for_each(|replica| intact(&wal, replica, &[]));
            assert_eq!(wal.replica(2).bounds(), (1, 21), "{what}");
            let report = wal.verify(|_| ()).expect("verified");
            assert!(report.damage.iter().all(|d| d.replica == 2) && !report.damage.is_empty(), "{what}: {report:?}");

            // Each of these heals: a truncation past the entry and one more, whose term is known; a snapshot; a removal; writing it anew.
            for heal in 0..4 {
                let disk = Arc::new(disk.restart());
                let wal = open(small(placement), &disk);
                let mut b = Batch::new();
                match heal {
                    0 => b.truncate_prefix(2, 9),
                    1 => b.install_snapshot(2, 50, 9),
                    2 => b.remove(2),
                    _ => b.append(2, &[(7, 3, b"written anew")]),
                };
                wal.commit(b).expect("healed");
                assert_sound(&wal, &what);
                drop(wal);
                let wal = open(small(placement), &disk.crash_lost_all().into());
                assert_sound(&wal, &what);
                let bounds = [(9, 21), (51, 50), (1, 0), (1, 7)][heal];
                assert_eq!(wal.replica(2).bounds(), bounds, "{what}");
                if heal == 3 {
                    assert_eq!(wal.replica(2).entry(7).expect("whole").data, b"written anew"[..], "{what}");
                }
                [1, 3].into_iter().for_each(|replica| intact(&wal, replica, &[]));
            }
        }
    }
}

#[test]
fn rot_in_the_journal_below_the_watermark_is_told_and_never_truncates_the_log() {
    let disk = victims(small(Placement::Journal), false);
    let frames: Vec<_> = disk.log().into_iter().filter(|e| e.offset >= strandlog::format::POOL_OFFSET).collect();
    assert!(frames.len() > 20);
    // Every frame that a later one vouches for. The snapshot of a close is not used.
    for frame in &frames[..frames.len() - 3] {
        for at in [10, 60, 127, frame.len / 2] {
            let what = format!("byte {at} of the frame at {}", frame.offset);
            let hurt = Arc::new(disk.restart());
            hurt.flip_bit(frame.offset + at, 5);
            let wal = open(small(Placement::Journal), &hurt);
            // All three replicas are in every frame: hurt or not, nothing vanishes without a word, and no wrong byte is shown.
            let check = |wal: &Wal, when: &str| {
                for replica in 1..=3 {
                    let r = wal.replica(replica);
                    let told = !r.damage().is_empty();
                    let mut lost = 0;
                    for i in 1..=20 {
                        match r.entry(i) {
                            Ok(e) => assert!(e.data == payload(replica, i, 1, LEN), "{what} {when}"),
                            Err(Error::Damaged(d)) => {
                                assert_eq!(d.replica, replica, "{what} {when}");
                                lost += 1;
                            }
                            // The replica's CORE is lost, and with it where its log began: that is told, so that it is fetched again.
                            Err(Error::Compacted { first_index, .. }) if told && first_index == r.first_index() => {}
                            Err(error) => {
                                panic!("{what} {when}: replica {replica} entry {i} of {:?}: {error}", r.bounds())
                            }
                        }
                    }
                    match r.get(b"hard_state") {
                        Ok(value) => assert_eq!(value.expect("there"), vec![20; 16], "{what} {when}"),
                        Err(Error::Damaged(Damage { lost: Lost::State, .. })) => assert!(told, "{what} {when}"),
                        Err(error) => panic!("{what} {when}: {error}"),
                    }
                    // A rotten byte in a payload costs that entry; in a header or a table it costs what the frame held of its participants.
                    assert!(told || lost <= 1, "{what} {when}: replica {replica}: {lost} entries, and it is not told");
                }
            };
            check(&wal, "at once");
            let hurt_ones = (1..=3).filter(|&r| !wal.replica(r).damage().is_empty()).count();
            for replica in 1..=3 {
                wal.commit(Batch::new().append(replica, &[(21, 1, b"more")])).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
            drop(wal);
            let again = Arc::new(hurt.crash_lost_all());
            let wal = open(small(Placement::Journal), &again);
            check(&wal, "reopened");
            let still = (1..=3).filter(|&r| !wal.replica(r).damage().is_empty()).count();
            assert!(still >= hurt_ones, "{what}: damage was forgotten: {hurt_ones} hurt, then {still}");
            // A snapshot with state put again heals each of them, whichever of the two comes first in the batch.
            for replica in 1..=3 {
                let mut b = Batch::new();
                match replica {
                    1 => b.install_snapshot(1, 100, 9).put(1, b"hard_state", b"new"),
                    2 => b.put(2, b"hard_state", b"new").install_snapshot(2, 100, 9),
                    _ => b
                        .put(3, b"hard_state", b"newer than old")
                        .append(3, &[(22, 1, b"goes"), (23, 1, b"also")])
                        .put(3, b"hard_state", b"new")
                        .install_snapshot(3, 100, 9),
                };
                wal.commit(b).expect("healed");
                assert_eq!(wal.replica(replica).first_index(), 101);
                let state = wal.replica(replica).get(b"hard_state").expect("healed");
                assert_eq!(state.expect("there"), b"new"[..], "{what}: replica {replica}");
            }
            drop(wal);
            let wal = open(small(Placement::Journal), &again.crash_lost_all().into());
            for replica in 1..=3 {
                assert_eq!(wal.replica(replica).damage(), [], "{what}");
                assert_eq!(wal.replica(replica).get(b"hard_state").expect("healed").expect("there"), b"new"[..]);
                assert_eq!(wal.replica(replica).term(100).expect("known"), 9);
            }
            assert_sound(&wal, &what);
        }
    }
}

#[test]
fn a_rotten_large_value_makes_the_state_suspect_and_nothing_else() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(small(Placement::Auto), &disk);
    let value = payload(5, 1, 1, 20_000);
    wal.commit(Batch::new().put(5, b"large", &value).put(6, b"large", &payload(6, 1, 1, 20_000))).expect("committed");
    wal.commit(Batch::new().append(5, &[(1, 1, b"x")])).expect("committed");
    wal.close().expect("closed");
    let disk = disk.restart();
    find(&disk, &value).iter().for_each(|&at| disk.flip_bit(at + 15_000, 0));
    let wal = open(small(Placement::Auto), &Arc::new(disk));
    let lost = |e| matches!(e, Err(Error::Damaged(Damage { replica: 5, lost: Lost::State })));
    assert!(lost(wal.replica(5).get(b"large")));
    assert_eq!(wal.replica(5).entry(1).expect("held").data, b"x"[..]);
    assert_eq!(wal.replica(6).get(b"large").expect("readable").expect("there"), payload(6, 1, 1, 20_000));
    let report = wal.verify(|_| ()).expect("verified");
    assert_eq!(report.damage, [Damage { replica: 5, lost: Lost::State }]);
    wal.commit(Batch::new().put(5, b"large", &value)).expect("a new value");
    assert_eq!(wal.replica(5).get(b"large").expect("readable").expect("there"), value);
    assert_sound(&wal, "put anew");
}

#[test]
fn a_device_that_cannot_read_is_an_error_and_not_damage() {
    let disk = victims(small(Placement::Chain), true);
    let disk = Arc::new(disk.restart());
    let wal = open(small(Placement::Chain), &disk);
    let at = find(&disk, &payload(2, 7, 1, LEN));
    at.iter().for_each(|&at| disk.fail_reads(at..at + 1, EIO));
    assert!(matches!(wal.replica(2).entry(7), Err(Error::Io { .. })));
    intact(&wal, 2, &[7]);
    disk.heal_reads();
    assert_eq!(wal.damage(), []);
    intact(&wal, 2, &[]);
    assert_sound(&wal, "healed");
}

#[test]
fn a_batch_beyond_the_limits_is_refused_and_changes_nothing() {
    let disk = formatted(Placement::Auto);
    let wal = small(Placement::Auto).max_entry_bytes(10_000).open_disk(disk).expect("opened");
    assert_eq!((wal.max_entry_bytes(), wal.max_value_bytes()), (10_000, 32_768));
    let mut b = Batch::new();
    b.put(1, b"k", b"v").append(1, &[(1, 1, vec![0; 10_001])]);
    let refused = wal.commit(&mut b);
    assert!(matches!(refused, Err(Error::EntryTooLarge { replica: 1, index: 1, bytes: 10_001, limit: 10_000 })));
    assert_eq!(wal.replicas(), [] as [u64; 0]);
    let refused = wal.commit(Batch::new().put(1, &[0; 257], b"v"));
    assert!(matches!(refused, Err(Error::ValueTooLarge { replica: 1, bytes: 257, limit: 256, .. })), "{refused:?}");
    let refused = wal.commit(Batch::new().put(1, b"k", &[0; 32_769]));
    assert!(matches!(refused, Err(Error::ValueTooLarge { bytes: 32_769, limit: 32_768, .. })), "{refused:?}");
    let told = refused.expect_err("refused").to_string();
    assert!(told.contains("half a segment"), "whoever knows of a mebibyte hears why it is less here: {told}");
    let mut b = Batch::new();
    for n in 0..30_u8 {
        b.put(u64::from(n), b"k", &[n; 4096]);
    }
    assert!(matches!(wal.commit(&mut b), Err(Error::BatchTooLarge { .. })));
    assert_eq!(wal.replicas(), [] as [u64; 0]);
    wal.commit(Batch::new().append(1, &[(1, 1, vec![7; 10_000])]).put(1, &[0; 256], &[1; 32_768]))
        .expect("at the limits");
    assert_eq!(wal.replica(1).entry(1).expect("held").data, vec![7; 10_000]);
    let op = [Op::Remove { replica: 1 }];
    wal.commit(batch(&op)).expect("removed");
    assert_eq!(wal.replicas(), [] as [u64; 0]);
}

/// Entries in buffers of their own and entries that are not, values and keys: what stays in the batch is what was asked for.
#[test]
fn a_batch_that_is_refused_for_one_replica_is_taken_without_it() {
    let disk = formatted(Placement::Auto);
    let options = || small(Placement::Auto).max_entry_bytes(40_000);
    let wal = options().open_disk(disk.clone()).expect("opened");
    let whole = |n: u8| [(1, 1, vec![n; 100]), (2, 1, vec![n + 1; 36_000]), (3, 2, vec![n + 2; 200])];
    let mut b = Batch::new();
    b.append(1, &whole(1)).put(2, b"k", &[2; 5000]).put(1, b"k", b"one").append(2, &[(1, 1, vec![0; 40_001])]);
    b.append(3, &whole(30)).delete(3, b"k").put(3, b"last", &[3; 9000]).append(4, &whole(40)).truncate_prefix(4, 3);
    let refused = wal.commit(&mut b);
    assert!(matches!(refused, Err(Error::EntryTooLarge { replica: 2, .. })), "{refused:?}");
    wal.commit(b.withdraw(9).withdraw(2)).expect("without the one that was refused");
    assert!(b.is_empty());
    let holds = |wal: &Wal| {
        assert_eq!(wal.replicas(), [1, 3, 4]);
        for (replica, first, n) in [(1, 1, 1), (3, 1, 30), (4, 3, 40)] {
            for (index, term, data) in whole(n).into_iter().skip(first - 1) {
                let entry = wal.replica(replica).entry(index).expect("held");
                assert!(entry.term == term && entry.data == data, "replica {replica}, entry {index}");
            }
        }
        let value = |replica, key: &[u8]| wal.replica(replica).get(key).expect("read");
        assert_eq!((value(1, b"k"), value(3, b"last")), (Some(b"one"[..].into()), Some(vec![3; 9000].into())));
    };
    holds(&wal);
    drop(wal);
    holds(&options().open_disk(Arc::new(disk.crash_lost_all())).expect("opened again"));
}

/// A mapping of a file that was cut kills whoever reads beyond its end; all that can be noticed before is.
#[test]
fn a_file_cut_behind_our_back_is_noticed_and_ends_all_writing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let options = || Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
    let wal = options().open(&path).expect("created");
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, b"kept")]);
    wal.commit(&mut batch).expect("committed");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file");
    file.set_len(1 << 20).expect("cut");
    let verified = wal.verify(|_| ());
    assert!(matches!(verified, Err(Error::Io { .. })), "{verified:?}");
    // The housekeeper looks ten times a second.
    let cause = loop {
        batch.clear();
        batch.append(1, &[(wal.replica(1).last_index() + 1, 1, b"more")]);
        match wal.commit(&mut batch) {
            Ok(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(Error::FileLost { cause }) => break cause,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(cause.contains("cut to 1048576 of"), "{cause}");
    let said = wal.check().expect_err("also told whoever has nothing to write");
    assert!(matches!(said, Error::FileLost { .. }), "{said:?}");
    assert!(!said.to_string().contains("everything acknowledged is in its file"), "{said}");
    assert_eq!(wal.replica(1).entry(1).expect("in memory").data, b"kept"[..]);
    drop(wal);
    let again = options().open(&path);
    assert!(matches!(again, Err(Error::Cut { file_bytes: 1_048_576, .. })), "{again:?}");
}

/// A lost write may leave this, or a disk half of which was restored; no order of our own writes does.
#[test]
fn of_two_superblocks_the_newer_one_counts_wherever_it_lies() {
    for newer in [0, 1] {
        let disk = formatted(Placement::Journal);
        let old = disk.kept_image();
        let wal = open(small(Placement::Journal), &disk);
        let mut batch = Batch::new();
        for i in 1..200_u64 {
            batch.append(1, &[(i, 1, payload(1, i, 1, 5000))]).truncate_prefix(1, i.saturating_sub(20).max(1));
            wal.commit(&mut batch).expect("committed");
        }
        let (bounds, slabs) = (wal.replica(1).bounds(), wal.stats().journal_segments);
        drop(wal);
        let disk = Arc::new(disk.restart());
        let older = SUPERBLOCKS[1 - newer];
        disk.poke(older, &old[older as usize..][..SUPERBLOCK_BYTES]);
        let wal = open(small(Placement::Journal), &disk);
        assert_eq!((wal.replica(1).bounds(), wal.stats().journal_segments), (bounds, slabs), "{newer} is newer");
        assert_sound(&wal, "the newer one counts");
    }
}

#[test]
fn a_file_too_short_for_any_log_is_refused_by_what_it_is() {
    for len in [4096, strandlog::format::POOL_OFFSET - 4096] {
        let error = small(Placement::Auto).open_disk(Arc::new(SimDisk::new(len))).expect_err("too short");
        assert!(error.to_string().contains("shorter than any log"), "{error}");
    }
}

#[test]
fn what_may_be_carried_is_as_much_when_the_log_is_opened_again() {
    let disk = formatted(Placement::Auto);
    let wal = open(small(Placement::Auto), &disk);
    let before = wal.stats();
    for replica in 1..1000 {
        wal.commit(Batch::new().put(replica, b"k", b"v")).expect("committed");
    }
    let after = wal.stats();
    assert!(after.journal_segments > before.journal_segments && after.carried_class_limit > before.carried_class_limit);
    drop(wal);
    let reopened = open(small(Placement::Auto), &Arc::new(disk.restart())).stats();
    assert_eq!(reopened.carried_class_limit, after.carried_class_limit);
}

/// A dropped frame left its body at a place where the next session writes a frame of the same entries with other bytes. That frame is torn
/// so that its header and table meet the old body, all of whose checksums hold.
#[test]
fn the_body_of_a_dropped_frame_does_not_pass_for_that_of_its_successor() {
    let options = || small(Placement::Journal).journal_cap(6 * (64 << 10));
    let disk = Arc::new(SimDisk::new(13 * (64 << 10)));
    let wal = open(options(), &disk);
    // So few free segments that an opening goes on in the last one.
    while wal.stats().free_segments > 3 {
        let i = wal.replica(2).last_index() + 1;
        wal.commit(Batch::new().append(2, &[(i, 1, payload(2, i, 1, 3000))])).expect("committed");
    }
    drop(wal);
    // The middle entry shares the sectors in which it begins and ends with its neighbours alone.
    let batch = |byte: u8| {
        let mut batch = Batch::new();
        batch.append(3, &[(1, 1, [3; 600])]).append(1, &[(1, 1, [byte; 2000])]).append(4, &[(1, 1, [4; 600])]);
        batch
    };
    let cut_while_writing = |disk: &Arc<SimDisk>, byte| {
        let wal = open(options(), disk);
        disk.fail_at(disk.events(), Fault::Cut);
        wal.commit(batch(byte)).expect_err("cut");
        disk.sectors_in_doubt()[0]
    };
    let disk = Arc::new(disk.crash_lost_all());
    let at = cut_while_writing(&disk, 0xAA);
    use strandlog::disk::sim::Choice;
    let keep = |disk: &SimDisk, kept: &dyn Fn(u64) -> bool| {
        disk.crash(&mut |sector, _| if kept(sector - at) { Choice::Version(0) } else { Choice::Durable })
    };
    let headless = Arc::new(keep(&disk, &|sector| sector != 0));
    assert_eq!(cut_while_writing(&headless, 0xBB), at, "the next session writes at the same place");
    let mut found = [0; 2];
    // Any combination of the sectors may still be the old ones.
    for old in 0..1_u32 << 8 {
        let torn = keep(&headless, &|sector| old >> sector & 1 == 0);
        let wal = open(options(), &Arc::new(torn));
        match wal.replica(1).entry(1) {
            Ok(entry) => assert_eq!(entry.data, [0xBB; 2000][..], "{old:#010b}: bytes that were dropped come back"),
            Err(Error::UnknownReplica { .. }) => {}
            Err(error) => panic!("{old:#010b}: {error}"),
        }
        found[usize::from(wal.replica(1).exists())] += 1;
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}

/// Nor anything else of the failed batch: nobody was told that it is there.
#[test]
fn a_verification_of_a_log_that_failed_accuses_nothing_that_was_never_written() {
    for placement in PLACEMENTS {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(small(placement), &disk);
        wal.commit(Batch::new().append(1, &[(1, 1, [1; 3000])])).expect("committed");
        disk.on_event(|e| (e.kind != EventKind::Flush).then_some(Fault::ShortThenError { kept: 0, errno: EIO }));
        let told = wal.commit(Batch::new().append(1, &[(2, 1, [2; 3000])]).put(1, b"large", &[3; 9000]));
        assert!(matches!(told, Err(Error::Poisoned { .. })), "{told:?}");
        let report = wal.verify(|_| ()).expect("read");
        assert!(report.is_clean(), "{placement:?}: {report:?}");
    }
}

/// A batch happens in the order in which it was asked for: a removal ends what came before it, and what comes after it begins anew.
#[test]
fn a_batch_that_changes_a_replica_and_then_removes_it_removes_it() {
    let disk = formatted(Placement::Auto);
    let wal = open(small(Placement::Auto), &disk);
    let whole = |n: u8| [(1, 1, vec![n; 100]), (2, 1, vec![n; 36_000])];
    wal.commit(Batch::new().append(1, &whole(1)).put(1, b"k", b"old").append(2, &whole(2))).expect("committed");
    let mut batch = Batch::new();
    // Removed are a replica that exists, ones that do not, one that begins anew and one that goes again; meanwhile another is changed.
    batch.append(1, &[(3, 1, b"more")]).put(1, b"k", b"new").append(3, &whole(3)).append(2, &[(3, 1, b"stays")]);
    batch.install_snapshot(4, 7, 1).durable_applied(1, 3).remove(1).remove(3).remove(4).put(2, b"k", b"stays");
    batch.append(5, &whole(5)).remove(5).append(5, &whole(6)).put(5, b"k", b"five");
    batch.append(6, &whole(7)).remove(6).append(6, &whole(8)).remove(6).truncate_prefix(2, 2);
    assert_eq!((batch.value(1, b"k"), batch.value(2, b"k")), (None, Some(&b"stays"[..])));
    wal.commit(&mut batch).expect("in this order");
    let holds = |wal: &Wal| {
        assert_eq!(wal.replicas(), [2, 5]);
        assert_eq!((wal.replica(2).bounds(), wal.replica(5).bounds()), ((2, 3), (1, 2)));
        assert_eq!(wal.replica(2).entry(3).expect("held").data, b"stays"[..]);
        assert_eq!(wal.replica(5).entry(2).expect("held").data, vec![6; 36_000]);
        let value = |replica| wal.replica(replica).get(b"k").expect("read");
        assert_eq!((value(2), value(5)), (Some(b"stays"[..].into()), Some(b"five"[..].into())));
        assert_sound(wal, "whole");
    };
    holds(&wal);
    drop(wal);
    holds(&open(small(Placement::Auto), &Arc::new(disk.restart())));
}

/// What a removal ends takes no room from what stays, and what is refused on its own is refused all the same.
#[test]
fn what_a_removal_ends_takes_no_room_and_absolves_of_nothing() {
    let wal = open(small(Placement::Auto), &formatted(Placement::Auto));
    let (mut alone, mut batch) = (Batch::new(), Batch::new());
    for replica in 0..100 {
        alone.remove(replica);
        batch.append(replica, &[(1, 1, vec![7; 700])]).put(replica, b"k", &[7; 100]);
    }
    assert!(batch.log_bytes() > wal.max_batch_bytes());
    for replica in 0..100 {
        batch.remove(replica);
    }
    assert_eq!(batch.log_bytes(), alone.log_bytes());
    wal.commit(&mut batch).expect("it fits");
    batch.append(1, &[(1, 1, b"a"), (3, 1, b"b")]).remove(1);
    let refused = wal.commit(&mut batch);
    assert!(matches!(refused, Err(Error::Contradiction { replica: 1, .. })), "{refused:?}");
}
