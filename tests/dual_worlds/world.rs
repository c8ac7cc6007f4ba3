//! One random migration, in lives that each end with a close, a failure or a power cut, and what must hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::format::POOL_OFFSET;
use strandlog::migrate::{DualWrite, MigrateError, Stage};
use strandlog::{Error, Options, Placement, RecoveryMode, Wal};

use super::both::read;
use super::judge::{Stand, is_same, settle};
use super::model::{Op, Ops, Refused, Rep, World, batch};
use super::old::{Fails, Old};
use super::steps::{Shape, Steps};
use super::support::{assert_sound, payload};

type Dual = DualWrite<Old>;

macro_rules! counts {
    ($($name:ident),*) => {
        /// How much was tried.
        #[derive(Clone, Debug, Default)]
        pub struct Counts { $(pub $name: u64),* }
        impl Counts {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}
counts!(
    batches,
    refused,
    full,
    again,
    other,
    cuts,
    poisoned,
    loose,
    grown,
    salvaged,
    rotten,
    corrupt,
    meddled,
    alone,
    new_files,
    switched,
    ended,
    strict,
    strict_refused,
    only_read
);

struct Run {
    rng: StdRng,
    old: Old,
    disk: SimDisk,
    capacity: u64,
    steps: Steps,
    ids: Vec<u64>,
    stand: Stand,
    /// The stand before the writes that the old log has not made durable.
    before_loose: Option<Stand>,
    /// The batch that was under way when the last life ended: the stands it may have left, and which replicas were switched then.
    pending: Option<(Vec<Stand>, BTreeMap<u64, bool>)>,
    /// Whether each replica is switched.
    kinds: BTreeMap<u64, bool>,
    /// Replicas of which strandlog is known to have a report.
    reporting: BTreeSet<u64>,
    /// Replicas that have reported in some life, or may have: a copy made anew then has a report of 0.
    may_report: BTreeSet<u64>,
    /// Replicas of a batch that failed: their copies are made to agree at their next write.
    unfinished: BTreeSet<u64>,
    /// Replicas that the old log may have begun anew on its own, while strandlog has a copy of the life before: that they reported is
    /// remembered.
    reported: BTreeSet<u64>,
    /// Replicas of which the old log was changed behind our back.
    meddled: BTreeSet<u64>,
    /// The old log holds, or held, a key or value larger than strandlog ever takes.
    large: bool,
    /// Hardly any replica moves over.
    slow: bool,
    /// The last life ended with a close.
    closed: bool,
    /// Strandlog's file has rotted since it was closed.
    rotten: bool,
    label: String,
    counts: Counts,
    say: bool,
}

fn options(rng: &mut StdRng) -> Options {
    Wal::options()
        .chunk_size(4096)
        .segment_size(64 << 10)
        .placement([Placement::Auto, Placement::Journal, Placement::Chain][rng.random_range(0..3)])
        .direct_threshold([4096, 8 << 10, 64 << 10][rng.random_range(0..3)])
        .carry_fraction([1, 50, 100][rng.random_range(0..3)])
        .recent_bytes(1 << 20)
        .background(false)
}

/// A new file, which gets its name only once there is a log in it.
fn fresh(rng: &mut StdRng, capacity: u64) -> SimDisk {
    let disk = Arc::new(SimDisk::new(capacity));
    drop(options(rng).open_disk(Arc::clone(&disk) as Arc<_>).expect("a log"));
    disk.crash_lost_all()
}

pub fn run(seed: u64) -> Counts {
    let mut rng = StdRng::seed_from_u64(seed);
    // Some files are full soon.
    let capacity = [640 << 10, 1 << 20, 4 << 20, 4 << 20][rng.random_range(0..4)];
    let ids: Vec<u64> = (1..=5).collect();
    let live = [capacity / 6, 2 * capacity][rng.random_range(0..2)];
    let shape = Shape { ids: ids.clone(), live, max_value: 32 << 10, max_entry: 16 << 10, nonsense: 25 };
    let disk = fresh(&mut rng, capacity);
    let mut run = Run {
        rng,
        old: Old::default(),
        disk,
        capacity,
        steps: Steps::new(seed, shape),
        kinds: ids.iter().map(|&id| (id, false)).collect(),
        ids,
        stand: Stand::new(),
        before_loose: None,
        pending: None,
        reporting: BTreeSet::new(),
        reported: BTreeSet::new(),
        may_report: BTreeSet::new(),
        unfinished: BTreeSet::new(),
        meddled: BTreeSet::new(),
        large: false,
        slow: false,
        closed: false,
        rotten: false,
        label: format!("seed {seed}"),
        counts: Counts::default(),
        say: std::env::var("STRANDLOG_SAY").is_ok(),
    };
    // The old log has a past that strandlog knows nothing of.
    run.alone(12);
    for life in 1..=10 {
        run.label = format!("seed {seed}, life {life}");
        run.steps.begin_life(life);
        run.slow = seed.is_multiple_of(2) && life < 8;
        run.life();
        run.between();
    }
    run.label = format!("seed {seed}, the end");
    run.end();
    run.counts
}

/// Whether strandlog had no room for it, or never will.
fn is_full(error: &MigrateError) -> bool {
    let (MigrateError::New(error) | MigrateError::OldAlone(error)) = error else { return false };
    matches!(error, Error::Full(_) | Error::ValueTooLarge { .. } | Error::BatchTooLarge { .. })
}

/// Whether strandlog must be opened anew.
fn is_end(error: &MigrateError) -> bool {
    let (MigrateError::New(error) | MigrateError::OldAlone(error)) = error else { return false };
    matches!(error, Error::Poisoned { .. } | Error::Io { .. })
}

/// Whether the batch brings something: one that only drops something is never refused for want of room.
fn grows(ops: &Ops) -> bool {
    !ops.iter().all(|(_, op)| matches!(op, Op::Delete(_) | Op::Truncate(_) | Op::Cut(_) | Op::Remove))
}

fn is_too_large(ops: &Ops) -> bool {
    let large = |op: &Op| matches!(op, Op::Put(key, value) if key.len() > 256 || value.len() > 32 << 10);
    ops.iter().any(|(_, op)| large(op))
}

impl Run {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.say {
            println!("{}: {}", self.label, what());
        }
    }

    /// The old log is used alone.
    fn alone(&mut self, steps: u32) {
        self.reported = std::mem::take(&mut self.reporting);
        for _ in 0..self.rng.random_range(0..=steps) {
            let ops = self.steps.draw(&self.stand.world);
            for (id, op) in ops {
                let may = !self.kinds[&id] && !matches!(op, Op::Report(_));
                self.large |= is_too_large(&vec![(id, op.clone())]);
                let tried = may && self.old.alone(id, op.clone());
                self.say(|| format!("the old log alone: {id}: {op:?}: {tried}"));
                if tried {
                    self.counts.alone += 1;
                    self.old_is_the_truth(id, &op);
                }
            }
            if self.rng.random_ratio(1, 40) {
                let id = self.ids[self.rng.random_range(0..self.ids.len())];
                if !self.kinds[&id] {
                    let op = Op::Put(b"large".to_vec(), payload(id, 0, 0, 40 << 10));
                    self.large |= self.old.alone(id, op.clone());
                    self.old_is_the_truth(id, &op);
                }
            }
        }
    }

    /// Takes over a change that somebody else made to the old log.
    fn old_is_the_truth(&mut self, id: u64, op: &Op) {
        let mut world = self.stand.world.clone();
        let was = world.0.remove(&id).filter(|_| *op != Op::Remove);
        if let Some(rep) = self.old.world().0.get(&id) {
            let before = self.reported.contains(&id).then_some(0);
            let (reported, held) = was.map_or((before, None), |was| (was.reported, was.held));
            world.0.insert(id, Rep { reported, held, ..rep.clone() });
        }
        self.stand.go(id, op, world);
    }

    fn kinds(&self, dual: &Dual) -> BTreeMap<u64, bool> {
        self.ids.iter().map(|&id| (id, dual.stage(id) == Stage::Switched)).collect()
    }

    fn read(&self, dual: &mut Dual) -> World {
        read(dual, &self.ids).unwrap_or_else(|e| panic!("{}: {e}", self.label))
    }

    /// Opens both logs, again if something fails.
    fn open(&mut self, may_fail: bool) -> (Arc<SimDisk>, Dual) {
        self.only_read();
        for fallen in 0.. {
            let disk = Arc::new(self.disk.restart());
            // A strict opening that is refused changes nothing, and the next one, which is not strict, succeeds.
            let strict = fallen == 0 && self.rng.random_ratio(1, 3);
            if may_fail && fallen < 3 && self.rng.random_ratio(1, 4) {
                match self.rng.random_range(0..3) {
                    0 => disk.fail_at(disk.events() + self.rng.random_range(0..8), Fault::Cut),
                    1 => self.old.fail_read(self.rng.random_range(0..30)),
                    _ => self.fail_write(0, 1),
                }
            }
            let mut opening = options(&mut self.rng).capacity(self.capacity);
            if strict {
                opening = opening.recovery_mode(RecoveryMode::Strict);
                self.counts.strict += 1;
            }
            let wal = opening.open_disk(Arc::clone(&disk) as Arc<_>);
            let opened = wal.map_err(MigrateError::from).and_then(|wal| DualWrite::open(self.old.clone(), wal));
            let old_failed = self.old.heal();
            match opened {
                Ok(dual) => return (disk, dual),
                Err(MigrateError::New(error @ (Error::Corrupt { .. } | Error::Damaged(_)))) if strict => {
                    assert!(self.rotten || !self.closed, "{}: strictly: {error}", self.label);
                    self.counts.strict_refused += 1;
                    continue;
                }
                // No replica has moved over yet, so the migration is begun again.
                Err(MigrateError::New(Error::Corrupt { .. })) if self.rotten => {
                    self.counts.corrupt += 1;
                    self.new_file();
                    continue;
                }
                Err(error) => {
                    assert!(disk.is_cut() || old_failed, "{}: {error}", self.label);
                    self.say(|| format!("an opening fails: {error}"));
                }
            }
            self.power(&disk);
        }
        unreachable!("it does not always fail")
    }

    /// Somebody looks at strandlog alone. A migration refuses to go on with a log that cannot be written, and the old log lets go of
    /// nothing.
    fn only_read(&mut self) {
        if !self.rng.random_ratio(1, 4) {
            return;
        }
        let mode = [RecoveryMode::Salvage, RecoveryMode::TolerateTornTail][self.rng.random_range(0..2)];
        let looking = options(&mut self.rng).read_only(true).recovery_mode(mode);
        match looking.open_disk(Arc::new(self.disk.restart())) {
            Ok(wal) => {
                self.counts.only_read += 1;
                let before = self.old.world();
                let opened = DualWrite::open(self.old.clone(), wal);
                assert!(matches!(opened, Err(MigrateError::New(Error::ReadOnly))), "{}: {mode:?}", self.label);
                assert!(self.old.world() == before, "{}: {mode:?}", self.label);
            }
            Err(error) => assert!(self.rotten, "{}: {mode:?}: {error}", self.label),
        }
    }

    /// Decides what is left of the disk when the process ends, with the power or without.
    fn power(&mut self, disk: &SimDisk) {
        let cut = disk.is_cut() || self.rng.random_bool(0.5);
        self.counts.cuts += u64::from(cut);
        self.disk = match self.rng.random_range(0..4) {
            _ if !cut => disk.restart(),
            0 => disk.crash_lost_all(),
            1 => disk.crash_kept_all(),
            _ => disk.crash_seeded(self.rng.random()),
        };
        if cut {
            self.old.cut();
        }
    }

    /// Has the write after so many others fail, with none, some or all of its changes made.
    fn fail_write(&mut self, behind: u32, changes: usize) {
        let n = [0, usize::MAX, self.rng.random_range(0..=changes)][self.rng.random_range(0..3)];
        let how = if self.rng.random_ratio(1, 3) { Fails::Loose(n) } else { Fails::Durable(n) };
        self.old.fail_write(behind, how);
    }

    fn life(&mut self) {
        let (disk, mut dual) = self.opened(true);
        let found = self.read(&mut dual);
        let kinds = self.kinds(&dual);
        let (may, then) = self.pending.take().unwrap_or_else(|| (vec![self.stand.clone()], kinds));
        self.found(&dual, &found, &may, &then);
        self.meddled.clear();
        self.ids.iter().for_each(|&id| self.agree(&dual, id));
        assert_eq!(dual.take_differences(), [], "{}", self.label);
        match self.rng.random_range(0..6) {
            0 | 1 => disk.fail_at(disk.events() + self.rng.random_range(0..60), Fault::Cut),
            2 => disk.fail_at(disk.events() + self.rng.random_range(0..60), Fault::Error(EIO)),
            _ => {}
        }
        for _ in 0..self.rng.random_range(0..30) {
            if !self.step(&mut dual) {
                break;
            }
            if self.rng.random_ratio(1, 20) {
                self.meddle(&dual);
            }
        }
        self.kinds = self.kinds(&dual);
        self.counts.switched += self.kinds.values().filter(|switched| **switched).count() as u64;
        let (_, wal) = dual.into_parts();
        self.closed = self.rng.random_bool(0.4) && wal.close().is_ok();
        drop(wal);
        self.power(&disk);
    }

    /// Goes on from what is found after an opening, or a batch that failed: it must be one of these stands, the newest last.
    fn found(&mut self, dual: &Dual, found: &World, may: &[Stand], kinds: &BTreeMap<u64, bool>) {
        let mut old: Vec<Stand> = self.before_loose.iter().cloned().collect();
        old.extend(may.iter().cloned());
        let new: Vec<Stand> = may.first().into_iter().chain(may.last()).cloned().collect();
        let next = settle(&old, &new, found, kinds);
        self.stand = next.unwrap_or_else(|why| panic!("{}: {why}", self.label));
        // The report of a batch that failed may be lost, and with it that there was one.
        for (&id, rep) in &mut self.stand.world.0 {
            match dual.new_log().replica(id).durable_applied() {
                Ok(None) if !self.reporting.contains(&id) => (rep.reported, rep.held) = (None, None),
                Ok(Some(0)) if self.may_report.contains(&id) => rep.reported = rep.reported.max(Some(0)),
                _ => {}
            }
        }
        self.forget_loose();
        self.reports(dual);
    }

    /// The old log does not lose what it has made durable.
    fn forget_loose(&mut self) {
        if !self.old.is_loose() {
            self.before_loose = None;
        }
        // Reports do not go through the old log.
        for (id, rep) in self.before_loose.iter_mut().flat_map(|stand| &mut stand.world.0) {
            rep.reported = rep.reported.max(self.stand.world.0.get(id).and_then(|rep| rep.reported));
        }
    }

    /// Asserts that nothing counts as applied that was not reported, and that nothing is skipped.
    fn reports(&mut self, dual: &Dual) {
        let mut reporting = BTreeSet::new();
        for (&id, rep) in &self.stand.world.0 {
            let new = dual.new_log().replica(id);
            if self.unfinished.contains(&id) {
                continue;
            }
            let known = new.durable_applied().unwrap_or_else(|e| panic!("{}: {e}", self.label));
            assert!(known <= rep.reported, "{}: {id}: {known:?} of {:?} was reported", self.label, rep.reported);
            assert!(known.is_some() || !self.reporting.contains(&id), "{}: {id}: no report any more", self.label);
            let from = dual.reapply_from(id).unwrap_or_else(|e| panic!("{}: {e}", self.label));
            assert!(from <= rep.reapply_from(), "{}: {id}: applies from {from}, {rep:?}", self.label);
            reporting.extend(known.map(|_| id));
        }
        self.may_report.extend(&reporting);
        self.reporting = reporting;
    }

    /// Asserts that the comparison of a mirrored replica tells the truth; returns whether both logs agree.
    fn compare(&self, dual: &Dual, id: u64) -> bool {
        if dual.stage(id) != Stage::Mirrored {
            return true;
        }
        let told = dual.differences_of(id).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        let same = is_same(dual, &self.old.world(), id);
        assert_eq!(told.is_empty(), same, "{}: {id}: {told:?}", self.label);
        same
    }

    /// Asserts besides that they do agree, unless somebody else had a hand in it.
    fn agree(&self, dual: &Dual, id: u64) {
        let same = self.compare(dual, id);
        let may_differ = self.counts.full > 0 || self.large || self.meddled.contains(&id);
        assert!(same || may_differ, "{}: {id} differs", self.label);
    }

    /// Commits one batch, again where it failed. Returns whether the life goes on.
    fn step(&mut self, dual: &mut Dual) -> bool {
        let mut ops = self.steps.draw(&self.stand.world);
        if self.slow {
            ops.retain(|(_, op)| !matches!(op, Op::Truncate(_) | Op::Snapshot(..) | Op::Report(1..)));
        }
        match self.stand.world.after(&ops) {
            _ if ops.is_empty() => return true,
            Ok(_) if !is_too_large(&ops) => {}
            // A batch must not write below what its own report lets go of. How much that is depends on what was forgotten with a copy.
            Err(Refused::Compacted) if ops.iter().any(|(_, op)| matches!(op, Op::Report(_))) => return true,
            next => return self.refused(dual, &ops, next.err()),
        }
        let may = self.stand.through(&ops);
        match self.rng.random_range(0..12) {
            0 => self.fail_write(0, ops.len()),
            1 => self.fail_write(1, 1),
            2 => self.old.fail_read(self.rng.random_range(0..40)),
            _ => {}
        }
        let removed = ops.iter().filter(|(_, op)| *op == Op::Remove);
        removed.for_each(|(id, _)| _ = self.reporting.remove(id));
        let mut filled = batch(&ops);
        for tries in 0.. {
            let (kinds, before) = (self.kinds(dual), self.old.world());
            let outcome = dual.commit(&mut filled);
            let old_failed = self.old.heal();
            self.say(|| format!("{ops:?}: {:?}", outcome.as_ref().err().map(ToString::to_string)));
            if self.old.is_loose() && self.before_loose.is_none() {
                self.counts.loose += 1;
                self.before_loose = Some(self.stand.clone());
            }
            let Err(error) = outcome else {
                assert!(filled.is_empty(), "{}", self.label);
                self.not_back(dual, &ops, &before);
                self.written(dual, &ops, &may);
                return true;
            };
            assert!(!filled.is_empty(), "{}: {error}", self.label);
            let untouched = |world: &World| world.of(|id| !kinds[&id]);
            let is_untouched = untouched(&before) == untouched(&self.old.world());
            assert!(!matches!(error, MigrateError::New(_)) || is_untouched, "{}: {error}: {ops:?}", self.label);
            let expected = match &error {
                MigrateError::Old(_) => old_failed,
                error if is_full(error) => grows(&ops),
                error => is_end(error) && dual.new_log().check().is_err(),
            };
            assert!(expected, "{}: {error}: {ops:?}", self.label);
            self.counts.full += u64::from(is_full(&error));
            if is_end(&error) {
                // Nobody knows what is there before it is opened anew.
                self.counts.poisoned += 1;
                self.pending = Some((may, kinds));
                return false;
            }
            if tries < 3 && self.rng.random_bool(0.6) {
                self.counts.again += 1;
                continue;
            }
            self.counts.other += 1;
            self.unfinished.extend(ops.iter().map(|(id, _)| *id));
            let found = self.read(dual);
            self.found(dual, &found, &may, &kinds);
            self.ids.iter().for_each(|&id| _ = self.compare(dual, id));
            return true;
        }
        unreachable!("four times at most")
    }

    /// Asserts that what the old log has let go of does not come back, not even when its replica moves over.
    fn not_back(&self, dual: &Dual, ops: &Ops, before: &World) {
        let begun = |id: u64| ops.iter().any(|(of, op)| *of == id && matches!(op, Op::Remove | Op::Snapshot(..)));
        for (&id, rep) in before.0.iter().filter(|(id, _)| !begun(**id)) {
            let first = dual.bounds(id).unwrap_or_else(|e| panic!("{}: {e}", self.label)).map_or(0, |(first, _)| first);
            assert!(first >= rep.first(), "{}: {id}: from {} back to {first}: {ops:?}", self.label, rep.first());
        }
    }

    /// Asserts that all of the batch is in both logs.
    fn written(&mut self, dual: &mut Dual, ops: &Ops, may: &[Stand]) {
        self.counts.batches += 1;
        ops.iter().for_each(|(id, _)| _ = self.unfinished.remove(id));
        let (found, kinds) = (self.read(dual), self.kinds(dual));
        let all = may.last().into_iter().cloned().collect::<Vec<_>>();
        self.stand = settle(&all, &all, &found, &kinds).unwrap_or_else(|why| panic!("{}: {ops:?}: {why}", self.label));
        self.forget_loose();
        self.reports(dual);
        let old = self.old.world();
        for id in ops.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>() {
            assert!(!kinds[&id] || !old.0.contains_key(&id), "{}: {id} is in both", self.label);
            self.agree(dual, id);
        }
        let told = dual.take_differences();
        assert!(told.iter().all(|d| self.meddled.contains(&d.replica)), "{}: {told:?}", self.label);
    }

    /// Asserts that a batch that makes no sense is in neither log.
    fn refused(&mut self, dual: &mut Dual, ops: &Ops, why: Option<Refused>) -> bool {
        self.counts.refused += 1;
        let kinds = self.kinds(dual);
        let outcome = dual.commit(&mut batch(ops));
        self.say(|| format!("{ops:?}: {:?}", outcome.as_ref().err().map(ToString::to_string)));
        let Err(error) = outcome else { panic!("{}: taken: {ops:?}", self.label) };
        if is_end(&error) {
            self.pending = Some((vec![self.stand.clone()], kinds));
            return false;
        }
        let MigrateError::New(told) = &error else { panic!("{}: {error}: {ops:?}", self.label) };
        let same = why.is_none_or(|why| Refused::of(told) == Some(why));
        assert!(same || is_full(&error), "{}: {why:?}: {error}: {ops:?}", self.label);
        let found = self.read(dual);
        let stand = [self.stand.clone()];
        self.found(dual, &found, &stand, &kinds);
        true
    }

    /// Somebody else changes the old log while the migration runs.
    fn meddle(&mut self, dual: &Dual) {
        let mirrored: Vec<u64> = self.ids.iter().copied().filter(|id| dual.stage(*id) == Stage::Mirrored).collect();
        let Some(&id) = mirrored.get(self.rng.random_range(0..5)) else { return };
        let Some(rep) = self.stand.world.0.get(&id).filter(|_| !self.old.is_loose()) else { return };
        let op = match self.rng.random_range(0..6) {
            0 if !rep.entries.is_empty() => Op::Append(vec![(rep.last(), 7, payload(id, 0, 7, 30))]),
            2 => Op::Append(vec![(rep.last() + 1, 7, payload(id, 0, 7, 30))]),
            3 => Op::Cut(rep.last().max(rep.first())),
            1 => Op::Delete(b"vote".to_vec()),
            _ => Op::Put(b"vote".to_vec(), payload(id, 1, 7, 20)),
        };
        self.say(|| format!("{id} is meddled with: {op:?}"));
        assert!(self.old.alone(id, op.clone()), "{}", self.label);
        self.counts.meddled += 1;
        self.old_is_the_truth(id, &op);
        self.meddled.insert(id);
        _ = self.compare(dual, id);
    }

    /// What happens to the file and to the old log while the migration is not open.
    fn between(&mut self) {
        match self.rng.random_range(0..12) {
            0 | 1 => self.grow(),
            2 => self.salvage(),
            3 | 4 if self.pending.is_none() && self.before_loose.is_none() => self.alone(6),
            5 if self.pending.is_none() && self.kinds.values().all(|switched| !switched) => self.new_file(),
            6 | 7 if self.closed && self.kinds.values().all(|switched| !switched) => self.rot(),
            _ => {}
        }
    }

    /// The migration is begun again with an empty file.
    fn new_file(&mut self) {
        self.say(|| "begun again with a new file".into());
        self.counts.new_files += 1;
        self.reporting.clear();
        self.reported.clear();
        self.rotten = false;
        self.disk = fresh(&mut self.rng, self.capacity);
        for stand in self.before_loose.iter_mut().chain([&mut self.stand]) {
            stand.world.0.values_mut().for_each(|rep| (rep.reported, rep.held) = (None, None));
        }
    }

    /// Strandlog's file rots while no replica has moved over: the old log still has all that the copies had.
    fn rot(&mut self) {
        self.counts.rotten += 1;
        self.rotten = true;
        self.may_report.extend(&self.ids);
        for _ in 0..self.rng.random_range(1..30) {
            let at = self.rng.random_range(POOL_OFFSET..self.capacity);
            self.disk.flip_bit(at, 3);
        }
        self.say(|| "strandlog's file rots".into());
    }

    /// Opens both logs; what has rotted is put right before any replica moves over.
    fn opened(&mut self, may_fail: bool) -> (Arc<SimDisk>, Dual) {
        let (disk, mut dual) = self.open(may_fail && !self.rotten);
        self.unfinished.clear();
        if !std::mem::take(&mut self.rotten) {
            return (disk, dual);
        }
        // Damaged, and no longer known to be a copy: the old log lacks the replica, so it counts as strandlog's alone.
        for id in self.ids.clone() {
            if !dual.new_log().replica(id).damage().is_empty() {
                assert_eq!(dual.stage(id), Stage::Switched, "{}: {id} is not copied anew", self.label);
                let mut removal = batch(&vec![(id, Op::Remove)]);
                dual.commit(&mut removal).unwrap_or_else(|e| panic!("{}: {e}", self.label));
            }
        }
        let scrubbed = dual.new_log().scrub(u64::MAX, |_| ControlFlow::Continue(()));
        let is_clean = || dual.new_log().verify(|_| ()).is_ok_and(|report| report.is_clean());
        if scrubbed.is_ok() && is_clean() {
            return (disk, dual);
        }
        drop(dual);
        self.new_file();
        self.open(false)
    }

    /// Makes the file longer, or leaves that half done.
    fn grow(&mut self) {
        let before = self.disk.kept_image();
        let to = self.capacity + self.rng.random_range(1..8) * (64 << 10);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, &before).expect("written");
        strandlog::grow(&path, to, |_| ()).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        let mut image = std::fs::read(&path).expect("read");
        self.counts.grown += 1;
        let (a, b) = (0..16 << 10, 16 << 10..32 << 10);
        let kind = self.rng.random_range(0..4);
        self.say(|| format!("grown to {to}, {kind}"));
        match kind {
            // Interrupted before the first copy of the superblock said so, or before the second did.
            0 => [a, b].into_iter().for_each(|copy| image[copy.clone()].copy_from_slice(&before[copy])),
            1 => image[b.clone()].copy_from_slice(&before[b]),
            _ => {}
        }
        self.disk = SimDisk::from_image(image);
        self.capacity = to;
    }

    /// Salvages the log into a new file, and again if a cut interrupts that.
    fn salvage(&mut self) {
        let opened = options(&mut self.rng).read_only(true).recovery_mode(RecoveryMode::Salvage);
        let from = opened.open_disk(Arc::new(self.disk.restart())).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        let capacity = 2 * self.capacity;
        for cut in [self.rng.random_bool(0.3), false] {
            let disk = Arc::new(SimDisk::new(capacity));
            let to = options(&mut self.rng).open_disk(Arc::clone(&disk) as Arc<_>).expect("a log");
            if cut {
                disk.fail_at(disk.events() + self.rng.random_range(0..20), Fault::Cut);
            }
            match from.salvage_into(&to, |_| ()) {
                Ok(report) => {
                    assert!(report.damage.is_empty() && !report.unnamed, "{}: {report:?}", self.label);
                    drop(to);
                    self.disk = disk.crash_lost_all();
                    self.capacity = capacity;
                    self.counts.salvaged += 1;
                    self.say(|| "salvaged".into());
                    return;
                }
                Err(error) => assert!(disk.is_cut(), "{}: {error}", self.label),
            }
        }
    }

    /// Moves everything over.
    fn end(&mut self) {
        self.capacity = self.capacity.max(8 << 20);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, self.disk.kept_image()).expect("written");
        strandlog::grow(&path, 2 * self.capacity, |_| ()).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        self.disk = SimDisk::from_image(std::fs::read(&path).expect("read"));
        let (_, mut dual) = self.opened(false);
        let (found, kinds) = (self.read(&mut dual), self.kinds(&dual));
        let (may, then) = self.pending.take().unwrap_or_else(|| (vec![self.stand.clone()], kinds));
        self.found(&dual, &found, &may, &then);
        for (id, rep) in self.stand.world.clone().0 {
            let large = rep.keys.iter().filter(|(key, value)| key.len() > 256 || value.len() > 32 << 10);
            let drops: Ops = large.map(|(key, _)| (id, Op::Delete(key.clone()))).collect();
            let mut moves: Ops = rep.reported.map(|_| (id, Op::Report(rep.last()))).into_iter().collect();
            moves.push((id, Op::Truncate(rep.last() + 1)));
            for ops in [drops, moves] {
                let may = self.stand.through(&ops);
                dual.commit(&mut batch(&ops)).unwrap_or_else(|e| panic!("{}: {id}: {e}", self.label));
                self.written(&mut dual, &ops, &may);
            }
            assert_eq!(dual.stage(id), Stage::Switched, "{}: {id}: {rep:?}", self.label);
        }
        assert!(dual.is_done().expect("readable"), "{}", self.label);
        assert!(self.old.world().0.is_empty(), "{}", self.label);
        assert_sound(dual.new_log(), &self.label);
        self.counts.ended += 1;
    }
}
