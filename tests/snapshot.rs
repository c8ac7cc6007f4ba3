//! A log that was closed opens from its snapshot, and stands exactly as its journal says. Whatever is wrong with the snapshot, it opens
//! from the journal. A snapshot is never believed once a later session has begun.

mod support;

use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::StdRng;
use strandlog::disk::sim::{EIO, EventKind, Fault, SECTOR, SimDisk};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Snapshot, Superblock};
use strandlog::{
    Batch, ChunkUse, Damage, Error, Options, Placement, RecoveryMode, ReplicaUsage, Stats, VerifyReport, Wal,
};

use support::model::{Model, Op, Oracle, batch};
use support::recorder::{Moment, Recorder};
use support::work::{Shape, Work};
use support::{assert_sound, assert_space, env, for_each, forget_snapshot, open, seeds, small, superblocks, tally};

fn options() -> Options {
    small(Placement::Auto).journal_cap(10 * (64 << 10))
}

fn shape() -> Shape {
    Shape {
        replicas: (1..=12).collect(),
        sizes: Shape::boundaries(4096, 64 << 10, 8 << 10),
        live_bytes: 700_000,
        nonsense: 0,
    }
}

/// All that can be seen of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    model: Result<Model, String>,
    damage: Vec<Damage>,
    usage: Vec<(u64, ReplicaUsage)>,
    space: [u64; 11],
    report: VerifyReport,
}

fn see(wal: &Wal) -> Seen {
    let Stats {
        durable_lsn,
        replicas,
        chunks,
        free_chunks,
        used_chunks,
        pinned_chunks,
        reserved_chunks,
        journal_segments,
        free_segments,
        carried_class_bytes,
        carried_class_limit,
        ..
    } = wal.stats();
    Seen {
        model: Model::read(wal).map_err(|e| e.to_string()),
        damage: wal.damage(),
        usage: wal.replicas().into_iter().map(|id| (id, wal.replica(id).usage())).collect(),
        space: [
            durable_lsn,
            replicas,
            chunks,
            free_chunks,
            used_chunks,
            pinned_chunks,
            reserved_chunks,
            journal_segments,
            free_segments,
            carried_class_bytes,
            carried_class_limit,
        ],
        report: wal.verify(|_| ()).expect("the disk is whole"),
    }
}

fn by_snapshot(wal: &Wal) -> bool {
    wal.stats().opened_by_snapshot == 1
}

/// Opens a closed log twice: from its snapshot, and from its journal.
fn both(options: impl Fn() -> Options, disk: &SimDisk) -> ([Arc<SimDisk>; 2], [Wal; 2]) {
    let disks = [Arc::new(disk.restart()), Arc::new(disk.restart())];
    forget_snapshot(&disks[1]);
    let wals = [0, 1].map(|i| open(options(), &disks[i]));
    (disks, wals)
}

#[derive(Clone)]
struct Writer {
    work: Work,
    model: Model,
}

impl Writer {
    fn new(seed: u64) -> Self {
        Self { work: Work::new(seed, shape()), model: Model::default() }
    }

    fn commit(&mut self, wal: &Wal, batches: u32) {
        for _ in 0..batches {
            let ops = self.work.batch(&self.model);
            match wal.commit(batch(&ops)) {
                Ok(_) => self.model.apply(&ops),
                Err(
                    Error::Full(_)
                    | Error::BatchTooLarge { .. }
                    | Error::ValueTooLarge { .. }
                    | Error::EntryTooLarge { .. },
                ) => {}
                Err(error) => panic!("{error}: {ops:?}"),
            }
            if self.work.rng.random_bool(0.02) {
                wal.checkpoint().expect("cleaned");
            }
        }
    }
}

/// Also if chunks died in the very last batch: the seal behind it has let go of them.
#[test]
fn a_log_whose_last_batch_freed_chunks_leaves_a_snapshot() {
    for placement in [Placement::Auto, Placement::Chain, Placement::Journal] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(support::small(placement), &disk);
        for i in 1..=20 {
            wal.commit(Batch::new().append(1, &[(i, 1, vec![i as u8; 3000])])).expect("room");
        }
        wal.checkpoint().expect("settled");
        assert!(wal.stats().used_chunks > 0, "{placement:?}");
        wal.commit(Batch::new().truncate_prefix(1, 21)).expect("room");
        wal.close().expect("closed");
        let wal = open(support::small(placement), &Arc::new(disk.restart()));
        assert!(by_snapshot(&wal), "{placement:?}");
        assert_eq!(wal.replica(1).bounds(), (21, 20));
    }
}

/// Damages a random sector and has a scrub find it, so that the log knows of the damage.
fn hurt(rng: &mut StdRng, wal: &Wal, disk: &SimDisk) {
    let image = disk.kept_image();
    let sector = rng.random_range(0..image.len() / SECTOR);
    if sector * SECTOR >= 64 << 10 {
        disk.poke((sector * SECTOR) as u64, &[0x5a; SECTOR]);
        wal.scrub(1 << 40, |_| std::ops::ControlFlow::Continue(())).expect("scrubbed");
    }
}

/// One log, closed again and again; each time it must look the same from its snapshot and from its journal, and go on alike.
fn alike(seed: u64) -> u64 {
    let placement = support::PLACEMENTS[seed as usize % 3];
    let options = || options().placement(placement);
    let mut writer = Writer::new(seed);
    let mut disk = Arc::new(SimDisk::new(3 << 20));
    let mut used = 0;
    // In one of four logs something rots.
    let rots = seed % 4 == 3;
    for life in 0..5 {
        let what = format!("seed {seed} life {life}");
        let wal = open(options(), &disk);
        let n = writer.work.rng.random_range(0..60);
        writer.commit(&wal, n);
        if rots && life > 1 {
            hurt(&mut writer.work.rng, &wal, &disk);
        }
        wal.close().expect("closed");
        assert!(see(&wal).report.accounting.is_empty(), "{what}: the books balance after the close");
        drop(wal);
        let ([a, b], [from_snapshot, from_journal]) = both(options, &disk);
        assert!(!by_snapshot(&from_journal), "{what}");
        used += u64::from(by_snapshot(&from_snapshot));
        let (left, right) = (see(&from_snapshot), see(&from_journal));
        if rots {
            // Rot in the journal shows only when the journal is read, and that knows of locations that were given up with their damage.
            assert!(left.report.accounting.is_empty(), "{what}");
            if from_journal.stats().lost_frames > 0 {
                return used;
            }
            assert_eq!((left.model, left.damage), (right.model, right.damage), "{what}");
            disk = Arc::new(a.restart());
            continue;
        }
        assert_sound(&from_snapshot, &what);
        assert_eq!(left, right, "{what}");
        assert_eq!(left.model.ok().as_ref(), Some(&writer.model), "{what}");
        // Both go on with the same work, are cleaned, and die.
        writer.work.next_term();
        let (mut other, mut twin) = (writer.clone(), writer.clone());
        other.commit(&from_snapshot, 12);
        twin.commit(&from_journal, 12);
        assert!(other.model == twin.model, "{what}");
        for wal in [&from_snapshot, &from_journal] {
            wal.checkpoint().expect("cleaned");
            assert_sound(wal, &what);
            assert_eq!(Model::read(wal).expect("readable"), other.model, "{what}, at work");
        }
        drop((from_snapshot, from_journal));
        for disk in [&a, &b] {
            let wal = open(options(), &Arc::new(disk.crash_lost_all()));
            assert!(!by_snapshot(&wal), "{what}");
            assert_eq!(Model::read(&wal).expect("readable"), other.model, "{what}, after a crash");
            assert_sound(&wal, &what);
        }
        disk = Arc::new(disk.restart());
    }
    used
}

#[test]
fn a_closed_log_looks_the_same_from_its_snapshot_and_from_its_journal() {
    let used = Mutex::new(0);
    let seeds = seeds(1, 120);
    for_each(&seeds, |seed| *used.lock().expect("no panic") += alike(seed));
    let used = used.into_inner().expect("no panic");
    tally(&[("logs", seeds.len() as u64), ("openings by snapshot", used)]);
    assert!(used > seeds.len() as u64 * 2, "{used} openings from a snapshot: it is meant to be the rule");
}

/// A closed log of some size, and what it holds.
fn closed(seed: u64) -> (Arc<SimDisk>, Model) {
    let disk = Arc::new(SimDisk::new(3 << 20));
    let wal = open(options(), &disk);
    let mut writer = Writer::new(seed);
    writer.commit(&wal, 150);
    wal.close().expect("closed");
    (Arc::new(disk.restart()), writer.model)
}

fn named(disk: &SimDisk) -> Snapshot {
    let [a, b] = superblocks(disk);
    assert_eq!(a, b);
    a.and_then(|sb| sb.snapshot).expect("a closed log has a snapshot")
}

#[test]
fn a_snapshot_that_rots_anywhere_costs_nothing_but_time() {
    let (disk, model) = closed(5);
    assert!(by_snapshot(&open(options(), &Arc::new(disk.restart()))), "the specimen itself");
    let snapshot = named(&disk);
    let sectors: Vec<u64> = snapshot
        .extents
        .iter()
        .flat_map(|e| (e.offset()..e.offset() + e.bytes()).step_by(SECTOR))
        .take(snapshot.bytes.div_ceil(SECTOR as u64) as usize)
        .collect();
    assert!(sectors.len() > 7, "{snapshot:?}");
    for_each(&sectors, |at| {
        for wound in 0..4 {
            let disk = Arc::new(disk.restart());
            match wound {
                0 => disk.flip_bit(at, at as u32 / 512 % 8),
                1 => disk.poke(at, &[0xff; SECTOR]),
                2 => disk.swap_sectors(at / SECTOR as u64, at / SECTOR as u64 + 1),
                _ => disk.fail_reads(at..at + 1, EIO),
            }
            let wal = open(options(), &disk);
            let last = at == sectors[sectors.len() - 1];
            assert!(!by_snapshot(&wal) || (last && wound != 3), "at {at}, wound {wound}");
            disk.heal_reads();
            assert_eq!(Model::read(&wal).expect("readable"), model, "at {at}, wound {wound}");
            assert_sound(&wal, "rot");
        }
    });
}

/// Copies the superblocks of one disk to another.
fn transplant(from: &SimDisk, to: &SimDisk) {
    let image = from.kept_image();
    for offset in SUPERBLOCK_OFFSETS {
        to.poke(offset, &image[offset as usize..][..SUPERBLOCK_BYTES]);
    }
}

/// Both writes that dropped the snapshot from the superblocks were lost, by a device that said they were not.
#[test]
fn a_snapshot_is_not_believed_once_a_later_session_wrote_a_frame() {
    let mut stale = 0;
    for seed in 0..40 {
        let (before, mut model) = closed(seed);
        let mut disk = Arc::new(before.restart());
        let mut wal = open(options(), &disk);
        let mut index = 1;
        let mut put = |wal: &Wal, model: &mut Model| {
            let ops = vec![Op::Put { replica: 1, key: b"later".to_vec(), value: support::payload(1, index, 1, 40) }];
            index += 1;
            wal.commit(batch(&ops)).expect("committed");
            model.apply(&ops);
        };
        put(&wal, &mut model);
        for life in 0..seed % 3 {
            // Later sessions, killed: where segments are short they go on in place.
            drop(wal);
            disk = Arc::new(disk.restart());
            wal = open(options(), &disk);
            put(&wal, &mut model);
            if life == 1 {
                wal.close().expect("closed");
            }
        }
        drop(wal);
        let disk = Arc::new(disk.restart());
        transplant(&before, &disk);
        let snapshot = named(&disk);
        let same = |image: Vec<u8>| -> Vec<u8> {
            snapshot.extents.iter().flat_map(|e| image[e.offset() as usize..][..e.bytes() as usize].to_vec()).collect()
        };
        stale += u64::from(same(before.kept_image()) == same(disk.kept_image()));
        let wal = open(options(), &disk);
        assert!(!by_snapshot(&wal), "seed {seed}: a later session is forgotten");
        assert_eq!(Model::read(&wal).expect("readable"), model, "seed {seed}");
    }
    assert!(stale > 20, "{stale}: mostly the snapshot itself is still whole");
}

/// As above, but the chunks of the snapshot were written anew.
#[test]
fn a_snapshot_whose_chunks_were_used_again_is_not_believed() {
    let (before, model) = closed(3);
    let disk = Arc::new(before.restart());
    let wal = open(options(), &disk);
    let mut writer = Writer { work: Work::new(77, shape()), model };
    writer.work.next_term();
    writer.commit(&wal, 300);
    drop(wal);
    let disk = Arc::new(disk.restart());
    transplant(&before, &disk);
    // That the journal has moved on is found by reading it.
    let wal = open(options(), &disk);
    assert!(!by_snapshot(&wal));
}

#[test]
fn a_snapshot_that_one_superblock_alone_names_is_forgotten() {
    let (disk, model) = closed(8);
    let [a, _] = superblocks(&disk);
    let sb = a.expect("whole");
    let bare = Superblock { snapshot: None, ..sb.clone() };
    let newer = Superblock { epoch: sb.epoch + 1, ..bare.clone() };
    let older = Superblock { epoch: sb.epoch - 1, ..bare.clone() };
    let other = Superblock { snapshot: sb.snapshot.clone().map(|s| Snapshot { crc: !s.crc, ..s }), ..sb };
    let copies: [(&str, Option<&Superblock>); 5] = [
        ("a cut in B, at the close", Some(&older)),
        ("a cut between A and B, at the opening", Some(&newer)),
        ("rot", None),
        ("one epoch, two minds", Some(&bare)),
        ("one epoch, two snapshots", Some(&other)),
    ];
    for (what, copy) in copies {
        for offset in SUPERBLOCK_OFFSETS {
            let disk = Arc::new(disk.restart());
            let bytes = copy.map_or(vec![7; SUPERBLOCK_BYTES], Superblock::encode);
            disk.poke(offset, &bytes);
            let wal = open(options(), &disk);
            assert!(!by_snapshot(&wal), "{what}");
            assert_eq!(Model::read(&wal).expect("readable"), model, "{what}");
            drop(wal);
            let [a, b] = superblocks(&disk);
            assert!(a.is_some() && a == b, "{what}: both are whole again");
            assert_eq!(a.and_then(|sb| sb.snapshot), None, "{what}");
            // A log that was killed there opens from its journal, too.
            let wal = open(options(), &Arc::new(disk.crash_lost_all()));
            assert_eq!((by_snapshot(&wal), Model::read(&wal).expect("readable")), (false, model.clone()), "{what}");
        }
    }
}

/// The superblocks drop it before the first frame is written, and before the first piece in its chunks.
#[test]
fn no_superblock_names_a_snapshot_once_the_log_is_open() {
    let (disk, _) = closed(9);
    let snapshot = named(&disk);
    for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Strict] {
        let disk = Arc::new(disk.restart());
        let wal = open(options().recovery_mode(mode), &disk);
        assert_eq!(by_snapshot(&wal), mode == RecoveryMode::TolerateTornTail, "the strictest reading reads everything");
        assert!(superblocks(&disk).iter().flatten().all(|sb| sb.snapshot.is_none()));
        let log = disk.log();
        let first = log.iter().position(|e| e.offset >= 64 << 10 && e.kind != EventKind::Flush);
        assert_eq!(first, None, "nothing else was written");
        // The chunks of the snapshot are free now.
        assert!(wal.space_map().iter().all(|run| run.used != ChunkUse::Snapshot));
        assert_space(&wal, "open");
    }
    assert!(snapshot.bytes > 0);
}

#[test]
fn who_only_reads_leaves_the_snapshot_to_the_next_who_writes() {
    let (disk, model) = closed(11);
    let snapshot = named(&disk);
    let wal = open(options().read_only(true), &disk);
    assert!(!by_snapshot(&wal));
    assert_eq!(Model::read(&wal).expect("readable"), model);
    assert_sound(&wal, "read-only");
    let chunks: u64 = wal.space_map().iter().filter(|run| run.used == ChunkUse::Snapshot).map(|run| run.chunks).sum();
    assert_eq!(chunks, snapshot.bytes.div_ceil(4096));
    drop(wal);
    let disk = Arc::new(disk.restart());
    let salvaged = open(options().recovery_mode(RecoveryMode::Salvage), &disk);
    assert_eq!((by_snapshot(&salvaged), Model::read(&salvaged).expect("readable")), (false, model));
    drop(salvaged);
    let disk = Arc::new(disk.restart());
    assert_eq!(named(&disk), snapshot);
    assert!(by_snapshot(&open(options(), &disk)));
}

/// A snapshot that a power cut could take back would be none.
#[test]
fn a_snapshot_survives_a_power_cut_after_the_close() {
    for seed in 20..30 {
        let disk = Arc::new(SimDisk::new(3 << 20));
        let wal = open(options(), &disk);
        let mut writer = Writer::new(seed);
        writer.commit(&wal, 80);
        wal.close().expect("closed");
        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(options(), &disk);
        assert!(by_snapshot(&wal), "seed {seed}");
        assert_eq!(Model::read(&wal).expect("readable"), writer.model, "seed {seed}");
    }
}

/// Without free chunks there is no snapshot, and the log is closed all the same.
#[test]
fn a_log_without_free_chunks_is_closed_without_a_snapshot() {
    let disk = Arc::new(SimDisk::new(3 << 20));
    let wal = open(options().placement(Placement::Chain), &disk);
    let mut index = 1;
    // Append until not even a single chunk is to be had.
    loop {
        match wal.commit(Batch::new().append(1, &[(index, 1, vec![index as u8; 3000])])) {
            Ok(_) => index += 1,
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let free = wal.stats().free_chunks;
    wal.close().expect("closed");
    let snapshot = superblocks(&disk)[0].clone().and_then(|sb| sb.snapshot);
    assert!(snapshot.is_none_or(|s| s.bytes.div_ceil(4096) <= free));
    let wal = open(options(), &Arc::new(disk.restart()));
    assert_eq!(wal.replica(1).last_index(), index - 1);
    assert_sound(&wal, "full");
}

/// It leaves no snapshot: another opening may be able to read more of what this one lost.
#[test]
fn a_log_that_lost_frames_is_read_anew_each_time() {
    let disk = Arc::new(SimDisk::new(3 << 20));
    let wal = open(options(), &disk);
    // A segment whose first block is not a frame is by itself reason enough not to believe a snapshot, and is not what is tested here.
    wal.commit(Batch::new().append(2, &[(1, 1, b"first")])).expect("committed");
    let event = disk.events() as usize;
    wal.commit(Batch::new().append(1, &[(1, 1, b"lost")])).expect("committed");
    let at = disk.log()[event].offset;
    wal.commit(Batch::new().append(2, &[(2, 1, b"kept")])).expect("committed");
    wal.close().expect("closed");
    let mut disk = Arc::new(disk.restart());
    forget_snapshot(&disk);
    disk.zero_sector(at / SECTOR as u64);
    for _ in 0..2 {
        let wal = open(options(), &disk);
        assert_eq!((by_snapshot(&wal), wal.stats().lost_frames), (false, 1));
        assert!(wal.damage().iter().all(|d| d.replica == 1) && !wal.damage().is_empty());
        wal.close().expect("closed");
        disk = Arc::new(disk.restart());
    }
}

/// Callbacks submit again and again, so that there is always something that the last frame does not hold.
#[test]
fn what_is_submitted_while_the_log_closes_is_written_or_refused_and_never_in_between() {
    for chain in [0_u64, 1, 2, 3, 5, 6, 7, 1000] {
        let disk = Arc::new(SimDisk::new(3 << 20));
        let wal = Arc::new(open(options(), &disk));
        let durable = Arc::new(Mutex::new(0));
        fn next(wal: &Arc<Wal>, index: u64, left: u64, durable: &Arc<Mutex<u64>>) {
            let mut batch = Batch::new();
            batch.append(1, &[(index, 1, [index as u8; 100])]);
            let (again, seen) = (Arc::clone(wal), Arc::clone(durable));
            let done = move |outcome: strandlog::Result<_>| {
                if outcome.is_ok() {
                    *seen.lock().expect("no panic") = index;
                    if left > 0 {
                        next(&again, index + 1, left - 1, &seen);
                    }
                }
            };
            // Refused once the log is closed.
            let _ = wal.submit_with(batch, done);
        }
        next(&wal, 1, chain, &durable);
        wal.close().expect("closed");
        let durable = *durable.lock().expect("no panic");
        assert!(durable == chain + 1 || chain == 1000, "{durable} of {chain}");
        let found = open(options(), &Arc::new(disk.restart()));
        assert_eq!(found.replica(1).last_index(), durable, "a chain of {chain}");
        assert_eq!(by_snapshot(&found), chain < 10, "a chain of {chain}");
        assert_sound(&found, "closed");
    }
}

/// What happened up to a cut: what was acknowledged, and what was on its way.
struct Cut {
    moment: Moment,
    oracle: Oracle,
}

/// Opens and closes in turn, with a little work between; every event is cut.
fn rehearse(seed: u64, lives: u64) -> Vec<Cut> {
    let (mut disk, model) = closed(seed);
    let settled = |model: &Model| Oracle { durable: model.clone(), current: model.clone(), ..Oracle::default() };
    let oracle = Arc::new(Mutex::new(settled(&model)));
    let cuts: Arc<Mutex<Vec<Cut>>> = Arc::default();
    let mut writer = Writer { work: Work::new(seed + 1000, shape()), model };
    for life in 0..lives {
        writer.work.next_term();
        let (told, kept) = (Arc::clone(&oracle), Arc::clone(&cuts));
        let recorder = Recorder::new(Arc::clone(&disk), 1, move |moment| {
            let oracle = told.lock().expect("alive").clone();
            kept.lock().expect("alive").push(Cut { moment, oracle });
        });
        let wal = options().open_disk(Arc::new(recorder)).unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
        assert!(by_snapshot(&wal), "seed {seed} life {life}");
        for _ in 0..3 {
            let ops = writer.work.batch(&writer.model);
            oracle.lock().expect("alive").submitted(None, ops.clone());
            if wal.commit(batch(&ops)).is_ok() {
                writer.model.apply(&ops);
            }
            *oracle.lock().expect("alive") = settled(&writer.model);
        }
        wal.close().expect("closed");
        drop(wal);
        disk = Arc::new(disk.restart());
    }
    std::mem::take(&mut *cuts.lock().expect("alive"))
}

/// Opens what is left, closes it, opens it again, works on, and loses the power: three more chances to believe a snapshot that is not true.
fn go_on(disk: SimDisk, oracle: &Oracle, what: &str) {
    let disk = Arc::new(disk);
    let wal = open(options(), &disk);
    let found = Model::read(&wal).unwrap_or_else(|e| panic!("{what}: {e}"));
    oracle.check(&found).unwrap_or_else(|why| panic!("{what}: {why}"));
    assert_sound(&wal, what);
    drop(wal);
    let read = |wal: &Wal, when: &str| {
        let now = Model::read(wal).unwrap_or_else(|e| panic!("{what}, {when}: {e}"));
        assert!(now == found, "{what}, {when}:{}", found.difference(&now));
        assert_sound(wal, what);
    };
    // Killed right after the opening.
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(options(), &disk);
    assert!(!by_snapshot(&wal), "{what}: that session left none");
    read(&wal, "after the first life");
    wal.close().unwrap_or_else(|e| panic!("{what}: {e}"));
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(options(), &disk);
    assert!(by_snapshot(&wal), "{what}: it was closed");
    read(&wal, "from the snapshot");
    let ops = [Op::Put { replica: 5, key: b"more".to_vec(), value: support::payload(5, 1, 1, 50) }];
    wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{what}: {e}"));
    drop(wal);
    let disk = Arc::new(disk.crash_lost_all());
    let wal = open(options(), &disk);
    let mut after = found.clone();
    after.apply(&ops);
    let now = Model::read(&wal).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!by_snapshot(&wal) && now == after, "{what}, in the end:{}", after.difference(&now));
}

/// `STRANDLOG_SEEDS=n` runs more logs.
#[test]
fn a_cut_at_any_event_of_a_close_or_an_opening_loses_nothing() {
    let (mut events, mut images) = (0, 0);
    for seed in seeds(40, 6) {
        let cuts = rehearse(seed, 4);
        events += cuts.len();
        let seeds = env("STRANDLOG_CUT_SEEDS", 4);
        let jobs: Vec<(usize, u64)> = (0..cuts.len()).flat_map(|i| (0..seeds + 3).map(move |how| (i, how))).collect();
        images += jobs.len();
        for_each(&jobs, |(i, how)| {
            let Cut { moment, oracle } = &cuts[i];
            let what = format!("seed {seed}, cut {i}, event {}, how {how}", moment.event);
            let disk = match how {
                0 => moment.cut.crash_lost_all(),
                1 => moment.cut.crash_kept_all(),
                2 => moment.before.restart(),
                how => moment.cut.crash_seeded(how << 32 | i as u64),
            };
            go_on(disk, oracle, &what);
        });
    }
    tally(&[("cuts", events as u64), ("images", images as u64)]);
}

/// A close that fails says so; the next opening has everything that was acknowledged.
#[test]
fn a_write_that_fails_while_the_log_closes_or_opens_costs_nothing_that_was_acknowledged() {
    let (disk, model) = closed(50);
    let run = |disk: &Arc<SimDisk>| -> Result<(), Error> {
        let wal = options().open_disk(disk.clone())?;
        wal.commit(Batch::new().put(3, b"more", b"v"))?;
        wal.close()
    };
    let whole = Arc::new(disk.restart());
    run(&whole).expect("nothing fails");
    let mut after = model.clone();
    after.apply(&[Op::Put { replica: 3, key: b"more".to_vec(), value: b"v"[..].into() }]);
    for event in 0..whole.events() {
        let disk = Arc::new(disk.restart());
        disk.fail_at(event, Fault::Error(EIO));
        run(&disk).expect_err("it fails");
        for disk in [disk.crash_lost_all(), disk.crash_kept_all(), disk.restart()] {
            let wal = open(options(), &Arc::new(disk));
            let found = Model::read(&wal).expect("readable");
            assert!(found == model || found == after, "event {event}:{}", model.difference(&found));
            assert_sound(&wal, "after a failure");
        }
    }
}
