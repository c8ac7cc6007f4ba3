//! Random batches that mix everything: reports of state machines, snapshots, removals, truncations of both ends, entries and keys of
//! several replicas, in any order. The log must say what a plain model of contents says, also after power cuts.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Bytes, Error, Options, Wal};

use support::model::{Model, Rep};
use support::{PLACEMENTS, assert_sound, for_each, open, payload, seeds, small, tally};

const DISK_BYTES: u64 = 6 << 20;
const REPLICAS: u64 = 4;
const STEPS: u64 = 250;

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u64, u64, Bytes)>),
    Put(Vec<u8>, Bytes),
    Delete(Vec<u8>),
    Truncate(u64),
    Cut(u64),
    Report(u64),
    Reset(u64, u64),
    Remove,
}

type Ops = Vec<(u64, Op)>;

fn batch(ops: &Ops) -> Batch {
    let mut batch = Batch::new();
    for (id, op) in ops {
        match op {
            Op::Append(entries) => batch.append(*id, entries),
            Op::Put(key, value) => batch.put(*id, key, value),
            Op::Delete(key) => batch.delete(*id, key),
            Op::Truncate(first) => batch.truncate_prefix(*id, *first),
            Op::Cut(from) => batch.truncate_suffix(*id, *from),
            Op::Report(index) => batch.durable_applied(*id, *index),
            Op::Reset(index, term) => batch.install_snapshot(*id, *index, *term),
            Op::Remove => batch.remove(*id),
        };
    }
    batch
}

/// The operations that no later removal ends; the others are not looked at, and need not make sense.
fn not_ended(ops: &Ops) -> impl Iterator<Item = &(u64, Op)> {
    let ends = |i: usize, id: u64| ops[i + 1..].iter().any(|(other, op)| *other == id && matches!(op, Op::Remove));
    ops.iter().enumerate().filter(move |(i, (id, _))| !ends(*i, *id)).map(|(_, op)| op)
}

/// A replica: what it holds, what its state machine reported, and the truncation that waits for a report, which a crash forgets.
#[derive(Clone, Debug, Default, PartialEq)]
struct Life {
    rep: Rep,
    applied: Option<u64>,
    held: Option<u64>,
}

impl Life {
    fn truncate(&mut self, first: u64) {
        if first > self.rep.first {
            self.rep.prev_term = self.rep.entries[&(first - 1)].0;
            self.rep.entries = self.rep.entries.split_off(&first);
            self.rep.first = first;
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct World(BTreeMap<u64, Life>);

impl World {
    fn read(wal: &Wal) -> Self {
        let reps = Model::read(wal).expect("readable").reps;
        let life =
            |(id, rep)| (id, Life { rep, applied: wal.replica(id).durable_applied().expect("sound"), held: None });
        Self(reps.into_iter().map(life).collect())
    }

    /// The world as a crash leaves it.
    fn without_held(&self) -> Self {
        Self(self.0.iter().map(|(&id, life)| (id, Life { held: None, ..life.clone() })).collect())
    }

    /// Whether the batch makes sense, with each replica as it would stand if every operation took effect at once.
    fn takes(&self, ops: &Ops) -> bool {
        /// First and last index, if it exists; and whether it is the life that it was.
        struct At(Option<(u64, u64)>, bool);
        let mut at: BTreeMap<u64, At> = BTreeMap::new();
        for (id, op) in not_ended(ops) {
            let life = self.0.get(id);
            let At(bounds, same) =
                at.entry(*id).or_insert_with(|| At(life.map(|l| (l.rep.first, l.rep.last())), life.is_some()));
            let (first, last) = bounds.unwrap_or((1, 0));
            *bounds = match op {
                Op::Append(entries) => {
                    let from = entries[0].0;
                    if from < first || is_behind(from, last) {
                        return false;
                    }
                    Some((first, entries[entries.len() - 1].0))
                }
                Op::Put(..) => Some((first, last)),
                Op::Truncate(to) if bounds.is_none() && *to > 1 => return false,
                Op::Truncate(to) if bounds.is_some() && is_behind(*to, last) => return false,
                Op::Truncate(to) => bounds.map(|_| (first.max(*to), last)),
                Op::Cut(from) if bounds.is_some() && *from < first => return false,
                Op::Cut(from) => bounds.map(|_| (first, last.min(from - 1))),
                // What a report lets go of must not be written behind it.
                Op::Report(index) => {
                    let passes = life.filter(|l| *same && l.applied.is_none_or(|known| known < *index));
                    let to = passes
                        .and_then(|l| l.held)
                        .map_or(0, |held| held.min(index.saturating_add(1)).min(last.saturating_add(1)));
                    bounds.map(|_| (first.max(to), last))
                }
                Op::Reset(u64::MAX, _) => return false,
                Op::Reset(index, _) => {
                    *same = false;
                    Some((index + 1, *index))
                }
                Op::Remove => {
                    *same = false;
                    None
                }
                Op::Delete(_) => *bounds,
            };
        }
        true
    }

    fn apply(&mut self, ops: &Ops) {
        // Replicas whose report comes before the operation that creates them in this batch.
        let mut early: BTreeSet<u64> = BTreeSet::new();
        for (id, op) in not_ended(ops) {
            if matches!(op, Op::Append(_) | Op::Put(..) | Op::Reset(..)) {
                let reports = |early: &mut BTreeSet<u64>| early.remove(id).then_some(0);
                self.0.entry(*id).or_insert_with(|| Life { applied: reports(&mut early), ..Life::default() });
            } else if matches!(op, Op::Report(_)) && !self.0.contains_key(id) {
                early.insert(*id);
            }
            let Some(life) = self.0.get_mut(id) else { continue };
            match op {
                Op::Append(entries) => {
                    life.rep.entries.split_off(&entries[0].0);
                    life.rep.entries.extend(entries.iter().map(|(i, t, d)| (*i, (*t, d.clone()))));
                }
                Op::Put(key, value) => _ = life.rep.keys.insert(key.clone(), value.clone()),
                Op::Delete(key) => _ = life.rep.keys.remove(key),
                Op::Truncate(first) => {
                    let allowed = life.applied.map_or(u64::MAX, |applied| applied.saturating_add(1));
                    // A truncation that the report reaches already does not wait.
                    if *first > allowed.max(life.rep.first) {
                        life.held = life.held.max(Some(*first));
                    }
                    life.truncate(allowed.min(*first));
                }
                Op::Cut(from) => _ = life.rep.entries.split_off(from),
                Op::Report(index) if life.applied.is_none_or(|known| known < *index) => {
                    life.applied = Some(*index);
                    if let Some(held) = life.held {
                        let reached = index.saturating_add(1);
                        life.held = life.held.filter(|held| *held > reached);
                        life.truncate(held.min(reached).min(life.rep.last().saturating_add(1)));
                    }
                }
                Op::Report(_) => {}
                Op::Reset(index, term) => {
                    life.rep.entries.clear();
                    (life.rep.first, life.rep.prev_term) = (index + 1, if *index == 0 { 0 } else { *term });
                    (life.applied, life.held) = (life.applied.map(|applied| applied.min(*index)), None);
                }
                Op::Remove => _ = self.0.remove(id),
            }
        }
    }
}

/// Whether the index leaves a gap behind `last`: behind the last possible index there is none to leave.
fn is_behind(index: u64, last: u64) -> bool {
    last.checked_add(1).is_some_and(|next| index > next)
}

/// Replica numbers at the ends of what is possible.
const ENDS: [u64; REPLICAS as usize] = [0, u64::MAX, u64::MAX - 1, 1 << 63];

struct Run {
    rng: StdRng,
    /// Replicas, indexes and terms are all at the end of the numbers.
    far: bool,
    options: Box<dyn Fn() -> Options>,
    disk: Arc<SimDisk>,
    wal: Wal,
    world: World,
    /// The LSN of each batch that may not be durable, and the world after it; first the world before them.
    history: Vec<(u64, World)>,
    term: u64,
    counts: [u64; 4],
}

impl Run {
    /// Draws an operation that mostly makes sense in this world, where those before it in the batch have happened.
    fn op(&mut self, world: &World, id: u64) -> Op {
        let life = world.0.get(&id).cloned().unwrap_or_default();
        let (first, last, rng) = (life.rep.first, life.rep.last(), &mut self.rng);
        if self.far && first < 1 << 60 && rng.random_bool(0.8) {
            return Op::Reset(u64::MAX - rng.random_range(0..40), self.term);
        }
        match rng.random_range(0..100) {
            0..=39 => {
                let back = if rng.random_bool(0.3) { rng.random_range(0..5) } else { 0 };
                let from = last.saturating_add(1).saturating_sub(back).max(first);
                let from = from.saturating_add(u64::from(rng.random_bool(0.02)));
                let most = [30, 300, 3000, 10_000][rng.random_range(0..4)];
                let count = if most > 300 { 1 } else { rng.random_range(1..8) };
                let entries = (from..=from.saturating_add(count - 1)).map(|i| {
                    self.term = self.term.saturating_add(u64::from(rng.random_bool(0.1)));
                    (i, self.term, payload(id, i, self.term, rng.random_range(0..=most)))
                });
                Op::Append(entries.collect())
            }
            40..=54 => {
                let len = if rng.random_bool(0.1) { rng.random_range(4097..12_000) } else { rng.random_range(0..200) };
                Op::Put(vec![rng.random_range(0..3)], payload(id, rng.random(), 7, len))
            }
            55..=58 => Op::Delete(vec![rng.random_range(0..3)]),
            59..=69 => {
                let beyond = u64::from(rng.random_bool(0.02));
                Op::Truncate(rng.random_range(first..=last.saturating_add(1)).saturating_add(beyond))
            }
            70..=75 => {
                let before = rng.random_range(0..2);
                Op::Cut(rng.random_range(first..=last.saturating_add(1)).saturating_sub(before).max(1))
            }
            76..=87 => Op::Report(rng.random_range(first - 1..=last.saturating_add(2))),
            88..=94 => Op::Reset(rng.random_range(first.saturating_sub(3)..=last.saturating_add(3)), self.term),
            _ => Op::Remove,
        }
    }

    fn step(&mut self) {
        let (mut ops, mut after) = (Ops::new(), self.world.clone());
        let few = self.rng.random_range(1..=REPLICAS);
        for _ in 0..self.rng.random_range(1..8) {
            let id = self.rng.random_range(1..=few);
            let id = if self.far { ENDS[id as usize - 1] } else { id };
            ops.push((id, self.op(&after, id)));
            if self.world.takes(&ops) {
                after = self.world.clone();
                after.apply(&ops);
            } else if self.rng.random_bool(0.8) {
                ops.pop();
            }
        }
        let sense = self.world.takes(&ops);
        match self.wal.submit(batch(&ops)) {
            Ok(pending) => {
                assert!(sense, "accepted: {ops:?} of {:?}", self.world);
                self.world.apply(&ops);
                self.history.push((pending.lsn().get(), self.world.without_held()));
                self.counts[0] += 1;
            }
            Err(Error::Full(_)) => self.counts[1] += 1,
            Err(error) => {
                assert!(!sense, "{error}: {ops:?} of {:?}", self.world);
                self.counts[2] += 1;
            }
        }
        let waits = self.world.0.values().filter(|life| life.held.is_some()).count() as u64;
        assert_eq!(self.wal.stats().held_truncations, waits, "behind {ops:?}");
        let found = World::read(&self.wal);
        assert_eq!(found, self.world.without_held(), "behind {ops:?}");
    }

    fn cut(&mut self) {
        let durable = self.wal.durable_lsn().get();
        let clean = self.rng.random_bool(0.2);
        if clean {
            self.wal.close().expect("closed");
        }
        self.disk = Arc::new(if clean { self.disk.restart() } else { self.disk.crash_seeded(self.rng.random()) });
        self.wal = open((self.options)(), &self.disk);
        let found = World::read(&self.wal);
        let acknowledged = self.history.iter().rposition(|(lsn, _)| *lsn <= durable).unwrap_or(0);
        let may_be = &self.history[if clean { self.history.len() - 1 } else { acknowledged }..];
        assert!(may_be.iter().any(|(_, world)| *world == found), "{found:?} is none of {may_be:?}");
        (self.world, self.history) = (found.clone(), vec![(0, found)]);
        self.counts[3] += 1;
    }
}

fn run(seed: u64, far: bool) -> [u64; 4] {
    let placement = PLACEMENTS[seed as usize % PLACEMENTS.len()];
    let options = Box::new(move || small(placement));
    let disk = Arc::new(SimDisk::new(DISK_BYTES));
    let wal = open(options(), &disk);
    let mut run = Run {
        rng: StdRng::seed_from_u64(seed),
        far,
        options,
        disk,
        wal,
        world: World::default(),
        history: vec![(0, World::default())],
        term: if far { u64::MAX - 100 } else { 1 },
        counts: [0; 4],
    };
    for _ in 0..STEPS {
        match run.rng.random_range(0..40) {
            0 => run.cut(),
            1 => run.wal.checkpoint().expect("cleaned"),
            2..=8 => _ = run.wal.sync().expect("durable"),
            _ => run.step(),
        }
    }
    assert_sound(&run.wal, "at the end");
    run.counts
}

fn run_all(seeds: &[u64], far: bool) {
    let counts = std::sync::Mutex::new([0; 4]);
    for_each(seeds, |seed| {
        let of = run(seed, far);
        counts.lock().expect("no panic").iter_mut().zip(of).for_each(|(sum, n)| *sum += n);
    });
    let [accepted, full, refused, cuts] = counts.into_inner().expect("no panic");
    tally(&[("batches", accepted), ("full", full), ("refused", refused), ("crashes", cuts)]);
    assert!(accepted > refused && refused > 0 && cuts > 0);
}

#[test]
fn batches_that_mix_everything_leave_what_a_model_says() {
    run_all(&seeds(1, 80), false);
}

/// Replicas 0 and the last, entries up to the last possible index, reports of it, terms up to the last.
#[test]
fn batches_that_mix_everything_at_the_end_of_the_numbers_leave_what_a_model_says() {
    run_all(&seeds(1, 40), true);
}
