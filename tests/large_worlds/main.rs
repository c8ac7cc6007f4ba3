//! Large worlds: long random runs over many replicas, with several threads writing at the moment of the cut, crash after crash, many
//! of them in the middle of the recovery from the one before.
//!
//! Each writer has replicas of its own and counts its batches in one that is never removed, so what was found says how many of
//! each writer's batches survived; the content then has to be exactly theirs, and no batch may have survived one before it in log
//! order. A failure names its seed; `STRANDLOG_SEED=n` runs that one alone, `STRANDLOG_SEEDS=n` runs more of them. With one
//! writer a seed is the same run again; with several it is the same work, met by the cut elsewhere.
//!
//! With `--cfg shuttle` the schedule is drawn, too: every step of every thread of the log, its own threads among them.

#[path = "../support/mod.rs"]
mod support;

mod jittery;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jittery::Jittery;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::{Lsn, Options, Wal};
use support::model::{Model, Op, batch};
use support::schedule::{STEP, for_each, thread};
use support::work::{Shape, Work};
use support::{PLACEMENTS, assert_sound, payload, seeds, small, tally};
use writer::Writer;

struct World {
    disk: SimDisk,
    writers: Vec<Writer>,
    options: Box<dyn Fn(&mut StdRng) -> Options>,
    rng: StdRng,
    label: String,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    batches: u64,
    crashes: u64,
    in_recovery: u64,
    /// The most crashes after one another without a single batch between them.
    in_a_row: u64,
    survivors: u64,
    lost: u64,
}

impl World {
    fn new(
        seed: u64,
        writers: u64,
        replicas: u64,
        capacity: u64,
        options: impl Fn(&mut StdRng) -> Options + 'static,
    ) -> Self {
        let label = format!("seed {seed}, {writers} writers");
        let writer = |w: u64| Writer {
            counter: 1_000_000 + w,
            work: Work::new(
                seed * 64 + w,
                Shape {
                    replicas: (0..replicas).map(|r| r * writers + w).collect(),
                    sizes: Shape::boundaries(4096, 64 << 10, 8 << 10),
                    live_bytes: (capacity / 6 / writers) as usize,
                    nonsense: 0,
                },
            ),
            base: Model::default(),
            from: 0,
            current: Model::default(),
            submitted: Vec::new(),
            acknowledged: Lsn::default(),
            label: label.clone(),
        };
        let (disk, mut rng) = (Arc::new(SimDisk::new(capacity)), StdRng::seed_from_u64(seed));
        // A file is complete before it has its name: what a crash leaves of a creation is never opened.
        drop(support::open(options(&mut rng), &disk));
        Self {
            disk: disk.crash_lost_all(),
            writers: (0..writers).map(writer).collect(),
            options: Box::new(options),
            rng,
            label,
            counts: Counts::default(),
        }
    }

    fn live(&mut self, lives: u32, steps: u32) {
        for _ in 0..lives {
            let (disk, wal) = self.recover();
            let cut_after = self.rng.random_range(1..3 * steps as u64);
            disk.fail_at(disk.events() + cut_after, Fault::Cut);
            thread::scope(|scope| {
                for writer in &mut self.writers {
                    let (wal, disk) = (&wal, &disk);
                    scope.spawn(move || writer.write(wal, disk, steps));
                }
            });
            self.counts.batches += self.writers.iter().map(|w| w.submitted.len() as u64).sum::<u64>();
            self.crash(&disk, Some(&wal));
        }
        self.recover();
        println!("{}: {:?}", self.label, self.counts);
    }

    /// The power fails, or (now and then) only the process dies.
    fn crash(&mut self, disk: &SimDisk, wal: Option<&Wal>) {
        self.counts.crashes += 1;
        // First what was promised, then what is left: the log may have threads of its own.
        let promised = wal.map(Wal::durable_lsn).unwrap_or_default();
        for writer in &mut self.writers {
            writer.acknowledged = writer.acknowledged.max(promised);
        }
        let killed = !disk.is_cut() && self.rng.random_bool(0.3);
        self.disk = match self.rng.random_range(0..6) {
            _ if killed => disk.restart(),
            0 => disk.crash_kept_all(),
            1 => disk.crash_lost_all(),
            _ => disk.crash_seeded(self.rng.random()),
        };
    }

    /// Opens the log; in the middle of that the power may fail again and again.
    fn recover(&mut self) -> (Arc<SimDisk>, Wal) {
        let streak = if self.rng.random_bool(0.3) { self.rng.random_range(2..=5) } else { self.rng.random_range(0..2) };
        for fallen in 0.. {
            let disk = Arc::new(self.disk.restart());
            if fallen < streak {
                let events = self.opening_takes((self.options)(&mut self.rng.clone()));
                disk.fail_at(self.rng.random_range(0..events), Fault::Cut);
            }
            let several = self.writers.len() > 1;
            if several {
                disk.in_flight_at_cut(self.rng.random_range(0..2));
            }
            let drawn = if several { self.rng.random::<u64>() | 1 } else { 0 };
            let jittery = Jittery { disk: Arc::clone(&disk), drawn: AtomicU64::new(drawn) };
            match (self.options)(&mut self.rng).open_disk(Arc::new(jittery)) {
                Ok(wal) => match Model::read(&wal) {
                    Ok(found) => {
                        self.check(&found);
                        self.go_on(found);
                        return (disk, wal);
                    }
                    Err(error) => assert!(disk.is_cut(), "{}: reading: {error}; {:?}", self.label, wal.damage()),
                },
                Err(error) => assert!(disk.is_cut(), "{}: opening: {error}", self.label),
            }
            self.counts.in_recovery += 1;
            // Another crash ended the life before.
            self.counts.in_a_row = self.counts.in_a_row.max(fallen + 2);
            self.crash(&disk, None);
        }
        unreachable!("a streak has an end")
    }

    /// How many writes and syncs opening this log takes.
    fn opening_takes(&self, options: Options) -> u64 {
        let copy = Arc::new(self.disk.restart());
        let wal = options.background(false).open_disk(Arc::clone(&copy) as Arc<_>);
        let wal = wal.unwrap_or_else(|e| panic!("{}: opening a copy: {e}", self.label));
        let events = copy.events();
        drop(wal);
        events.max(1)
    }

    /// Asserts that what was found is exactly some prefix, in log order, of what was submitted. From now on it is promised.
    fn check(&mut self, found: &Model) {
        let (mut newest_kept, mut oldest_lost) = (None, None);
        let mut want = Model::default();
        for writer in &mut self.writers {
            let kept = writer.kept(found);
            let (survived, gone) = writer.submitted.split_at(kept);
            newest_kept = newest_kept.max(survived.iter().filter_map(|(lsn, _)| *lsn).max());
            oldest_lost = gone.iter().filter_map(|(lsn, _)| *lsn).chain(oldest_lost).min();
            let unpromised = survived.iter().filter(|(lsn, _)| lsn.is_none_or(|l| l > writer.acknowledged)).count();
            self.counts.survivors += unpromised as u64;
            self.counts.lost += gone.len() as u64;
            writer.settle(kept);
            want.reps.extend(writer.base.reps.clone());
        }
        if let (Some(kept), Some(lost)) = (newest_kept, oldest_lost) {
            assert!(
                kept < lost,
                "{}: the batch at {kept:?} survived, the one at {lost:?} before it did not",
                self.label
            );
        }
        assert!(want == *found, "{}: wrong content:{}", self.label, want.difference(found));
    }

    /// The log that a recovery leaves works on, and its accounts balance; tried on a copy, so that the next crash meets it fresh.
    fn go_on(&mut self, mut now: Model) {
        let label = &self.label;
        let open = |disk: SimDisk, options: Options| {
            let disk = Arc::new(disk);
            let wal = options.background(false).open_disk(Arc::clone(&disk) as Arc<_>);
            (disk, wal.unwrap_or_else(|e| panic!("{label}: opening again: {e}")))
        };
        let same = |wal: &Wal, now: &Model, when: &str| {
            let found = Model::read(wal).unwrap_or_else(|e| panic!("{label} {when}: {e}; {:?}", wal.damage()));
            assert!(found == *now, "{label} {when}:{}", now.difference(&found));
            assert_sound(wal, &format!("{label} {when}"));
        };
        let (disk, wal) = open(self.disk.restart(), (self.options)(&mut self.rng));
        same(&wal, &now, "opened again");
        let commit = |ops: Vec<Op>, now: &mut Model| {
            wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{label}: going on: {e}"));
            now.apply(&ops);
        };
        for (replica, len) in [(0, 300), (1, 9000), (7_000_000, 4100)] {
            let next = now.reps.get(&replica).map_or(1, |r| r.last().saturating_add(1));
            // A replica at the last index there is takes no more.
            if next < u64::MAX - 1 {
                let entries = (next..next + 2).map(|i| (i, 1 << 40, payload(replica, i, 1 << 40, len))).collect();
                commit(vec![Op::Append { replica, entries }], &mut now);
            }
        }
        wal.checkpoint().unwrap_or_else(|e| panic!("{label}: cleaning: {e}"));
        same(&wal, &now, "gone on");
        let held = now.reps.iter().filter(|(_, r)| !r.entries.is_empty());
        let truncate: Vec<Op> = held.map(|(&replica, r)| Op::Truncate { replica, first: r.last() }).collect();
        // All at once may be more than a frame holds.
        truncate.chunks(100).for_each(|ops| commit(ops.to_vec(), &mut now));
        drop(wal);
        let (_, wal) = open(disk.crash_lost_all(), (self.options)(&mut self.rng));
        same(&wal, &now, "gone on and cut");
    }

    fn tell(&self) {
        let c = &self.counts;
        tally(&[
            ("images", c.crashes),
            ("crashes", c.crashes),
            ("recoveries_cut", c.in_recovery),
            ("batches", c.batches),
        ]);
        if STEP > 1 {
            return;
        }
        assert!(c.in_recovery > 3 && c.in_a_row >= 3, "{}: not enough crashes: {c:?}", self.label);
        assert!(c.survivors + c.lost > 0, "{}: nothing was ever in doubt: {c:?}", self.label);
    }
}

#[test]
fn crash_after_crash_one_writer_keeps_exactly_what_was_promised() {
    for_each(&seeds(0, 12), |seed| {
        let placement = PLACEMENTS[seed as usize % 3];
        let options = move |rng: &mut StdRng| small(placement).carry_fraction([1, 12, 50, 100][rng.random_range(0..4)]);
        let mut world = World::new(seed, 1, 40, [3 << 20, 4 << 20, 6 << 20][seed as usize / 3 % 3], options);
        world.live(60 / STEP, 120 / STEP);
        world.tell();
    });
}

#[test]
fn several_writers_at_the_cut_keep_exactly_what_was_promised() {
    for_each(&seeds(100, 8), |seed| {
        let placement = PLACEMENTS[seed as usize % 3];
        let background = seed % 2 == 0;
        let options = move |_: &mut StdRng| small(placement).background(background).queue_bytes(64 << 10);
        let mut world = World::new(seed, 2 + seed % 3, 20, 6 << 20, options);
        world.live(30 / STEP, 80 / STEP);
        world.tell();
    });
}

#[test]
fn a_thousand_replicas_survive_crash_after_crash() {
    for_each(&seeds(200, 2), |seed| {
        let options = |rng: &mut StdRng| small(PLACEMENTS[rng.random_range(0..3)]);
        let mut world = World::new(seed, 2, 500, 16 << 20, options);
        world.live(25 / STEP, 400 / STEP);
        world.tell();
    });
}
