//! Random work on many replicas, compared with a plain model: alive, after reopening, and after power cuts.
//!
//! A failure names its seed; `STRANDLOG_SEED=n` runs that one alone, `STRANDLOG_SEEDS=n` runs more of them.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;
use rand::rngs::StdRng;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::{Error, Options, Pending, Placement, Wal};

use support::model::{Model, Op, Oracle, Refusal, batch};
use support::work::{Shape, Work};
use support::{assert_sound, for_each, seeds, small};

struct Run {
    disk: Arc<SimDisk>,
    wal: Option<Wal>,
    oracle: Oracle,
    work: Work,
    held: Vec<(Pending, usize)>,
    options: Box<dyn Fn(&mut StdRng) -> Options>,
    label: String,
    /// The power fails soon: with threads, at any moment.
    doomed: bool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    batches: u64,
    refused: u64,
    full: u64,
    too_large: u64,
    cuts: u64,
    reopened: u64,
    survivors: usize,
}

impl Run {
    fn new(seed: u64, capacity: u64, shape: Shape, options: impl Fn(&mut StdRng) -> Options + 'static) -> Self {
        let disk = Arc::new(SimDisk::new(capacity));
        let mut work = Work::new(seed, shape);
        let wal = support::open(options(&mut work.rng), &disk);
        let label = format!("seed {seed}");
        let (oracle, held) = (Oracle::default(), Vec::new());
        Self {
            disk,
            wal: Some(wal),
            oracle,
            work,
            held,
            options: Box::new(options),
            label,
            doomed: false,
            counts: Counts::default(),
        }
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("open")
    }

    fn steps(&mut self, steps: u32) {
        for step in 0..steps {
            match self.work.rng.random_range(0..1000) {
                0..=849 => self.submit(),
                850..=879 => self.wait_for_some(),
                880..=949 => self.compare_one(),
                950..=957 => self.compare_all("alive"),
                958..=969 => self.checkpoint(),
                970..=977 => self.close_and_reopen(),
                978..=983 => self.die_and_reopen(),
                984..=992 => self.plan_a_cut(),
                _ => self.cut_now(),
            }
            if self.wal.is_none() {
                panic!("{} step {step}: no log", self.label);
            }
        }
        self.compare_all("at the end");
        self.close_and_reopen();
    }

    fn submit(&mut self) {
        let ops = self.work.batch(&self.oracle.current);
        if self.submit_ops(ops).is_err_and(|e| matches!(e, Error::Full(_))) {
            self.counts.full += 1;
            // A log that refuses for want of room must leave a way out.
            let relief = self.work.relief(&self.oracle.current);
            if let Err(error) = self.submit_ops(relief) {
                panic!("{}: relief on a full log: {error}", self.label);
            }
        }
    }

    /// Submits in one of the ways there are, and holds the outcome against the model's.
    fn submit_ops(&mut self, ops: Vec<Op>) -> Result<(), Error> {
        let mut b = batch(&ops);
        let predicted = self.oracle.current.predict(&ops);
        let way = self.work.rng.random_range(0..10);
        if way == 9 {
            b.lazy();
        }
        let lsn = match way {
            0..=5 => self.wal().commit(b).map(|lsn| (lsn, None)),
            _ => self.wal().submit(b).map(|p| (p.lsn(), Some(p))),
        };
        self.counts.batches += 1;
        match (lsn, predicted) {
            (Ok((lsn, pending)), Ok(())) => {
                self.oracle.submitted(Some(lsn), ops);
                match pending {
                    None => self.oracle.acknowledged(lsn),
                    Some(pending) => self.held.push((pending, 0)),
                }
                self.oracle.acknowledged(self.wal().durable_lsn());
                Ok(())
            }
            (Err(Error::Poisoned { .. }), predicted) => {
                if predicted.is_ok() {
                    self.oracle.submitted(None, ops);
                }
                assert!(self.disk.is_cut(), "{}: poisoned without a fault", self.label);
                self.recover();
                Ok(())
            }
            (Err(error @ Error::Full(_)), Ok(())) => Err(error),
            (Err(Error::BatchTooLarge { .. }), _) => {
                self.counts.too_large += 1;
                Ok(())
            }
            (Err(error), Err(refusal)) => {
                assert_eq!(Refusal::of(&error), Some(refusal), "{}: {error} for {ops:?}", self.label);
                self.counts.refused += 1;
                Ok(())
            }
            (Ok(_), Err(refusal)) => panic!("{}: accepted, wanted {refusal:?}: {ops:?}", self.label),
            (Err(error), Ok(())) => panic!("{}: {error} for {ops:?}", self.label),
        }
    }

    fn wait_for_some(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let n = self.work.rng.random_range(0..self.held.len());
        let (pending, _) = self.held.swap_remove(n);
        match pending.wait() {
            Ok(lsn) => self.oracle.acknowledged(lsn),
            Err(Error::Poisoned { .. }) => {
                assert!(self.disk.is_cut(), "{}: poisoned without a fault", self.label);
                self.recover();
            }
            Err(error) => panic!("{}: waiting: {error}", self.label),
        }
    }

    fn checkpoint(&mut self) {
        match self.wal().checkpoint() {
            Ok(()) => self.oracle.acknowledged(self.wal().durable_lsn()),
            Err(Error::Poisoned { .. }) if self.disk.is_cut() => self.recover(),
            Err(error) => panic!("{}: checkpoint: {error}", self.label),
        }
    }

    /// One replica in detail: every entry alone, a range, and the typed errors around them.
    fn compare_one(&mut self) {
        if self.doomed {
            return;
        }
        let replica = self.work.shape.replicas[self.work.rng.random_range(0..self.work.shape.replicas.len())];
        let (r, label) = (self.wal().replica(replica), &self.label);
        let Some(want) = self.oracle.current.reps.get(&replica) else {
            assert!(!r.exists(), "{label}: replica {replica}");
            assert!(matches!(r.entry(1), Err(Error::UnknownReplica { .. })), "{label}: replica {replica}");
            return;
        };
        assert_eq!(r.bounds(), (want.first, want.last()), "{label}: replica {replica}");
        assert_eq!((r.first_index(), r.last_index()), r.bounds());
        if want.first > 1 {
            assert_eq!(
                r.term(want.first - 1).expect("the term before the first"),
                want.prev_term,
                "{label}: {replica}"
            );
            let below = r.entry(want.first - 1);
            assert!(matches!(below, Err(Error::Compacted { first_index, .. }) if first_index == want.first));
        }
        if let Some(beyond) = want.last().checked_add(1) {
            assert!(matches!(r.entry(beyond), Err(Error::OutOfRange { .. })), "{label}: replica {replica}");
            assert!(matches!(r.term(beyond), Err(Error::OutOfRange { .. })), "{label}: replica {replica}");
        }
        for (&index, (term, data)) in &want.entries {
            let entry = r.entry(index).unwrap_or_else(|e| panic!("{label}: replica {replica} entry {index}: {e}"));
            assert_eq!((entry.index, entry.term), (index, *term), "{label}: replica {replica}");
            assert!(entry.data == *data, "{label}: replica {replica} entry {index}: wrong bytes");
            assert_eq!(r.term(index).expect("a term"), *term, "{label}: replica {replica} entry {index}");
        }
        if !want.entries.is_empty() && want.last() < u64::MAX {
            let lo = self.work.rng.random_range(want.first..=want.last());
            let limit = self.work.rng.random_range(0..20_000);
            let got = r.entries(lo..want.last() + 1, limit).expect("a range");
            assert!(!got.is_empty(), "{label}: replica {replica}: at least one entry");
            let mut sum = 0;
            for (n, e) in got.iter().enumerate() {
                assert_eq!(want.entries.get(&(lo + n as u64)), Some(&(e.term, e.data.clone())), "{label}: {replica}");
                sum += e.data.len();
            }
            // The first comes however long it is; empty ones behind it cost nothing.
            assert!(sum <= limit.max(got[0].data.len()), "{label}: {sum} bytes, limit {limit}");
            let whole = (want.last() - lo + 1) as usize;
            let next = want.entries.get(&(lo + got.len() as u64)).map_or(0, |(_, d)| d.len());
            assert!(got.len() == whole || sum + next > limit, "{label}: stopped early: {} of {whole}", got.len());
        }
        for (key, value) in &want.keys {
            let got = r.get(key).expect("a key");
            assert!(got.as_ref() == Some(value), "{label}: replica {replica} key {key:x?}");
        }
        assert_eq!(r.keys().len(), want.keys.len(), "{label}: replica {replica}");
        assert_eq!(r.get(b"never").expect("no key"), None);
    }

    fn compare_all(&mut self, when: &str) {
        if self.doomed {
            return self.recover();
        }
        let found = Model::read(self.wal()).unwrap_or_else(|e| panic!("{}: reading: {e}", self.label));
        let want = &self.oracle.current;
        assert_eq!(self.wal().stats().replicas, want.reps.len() as u64, "{} {when}: miscounted", self.label);
        assert!(found == *want, "{} {when}:{}", self.label, want.difference(&found));
    }

    fn close_and_reopen(&mut self) {
        match self.wal().close() {
            Ok(()) => {
                for (pending, _) in self.held.drain(..) {
                    pending.wait().expect("closing makes everything durable");
                }
                self.oracle.settle(self.oracle.current.clone());
            }
            Err(Error::Poisoned { .. }) => assert!(self.disk.is_cut(), "{}", self.label),
            Err(error) => panic!("{}: close: {error}", self.label),
        }
        let disk = if self.disk.is_cut() { self.crashed() } else { self.disk.restart() };
        if self.counts.reopened % 2 == 1 && !self.disk.is_cut() {
            support::forget_snapshot(&disk);
        }
        self.reopen_on(disk);
    }

    /// As after kill -9: the process is gone, the power stayed.
    fn die_and_reopen(&mut self) {
        if self.disk.is_cut() {
            return self.recover();
        }
        self.oracle.acknowledged(self.wal().durable_lsn());
        self.reopen_on(self.disk.restart());
    }

    /// The power will fail at one of the next events.
    fn plan_a_cut(&mut self) {
        self.doomed = true;
        let events = self.disk.events() + self.work.rng.random_range(0..40);
        self.disk.fail_at(events, Fault::Cut);
    }

    fn cut_now(&mut self) {
        self.recover();
    }

    fn recover(&mut self) {
        self.counts.cuts += 1;
        let crashed = self.crashed();
        self.reopen_on(crashed);
    }

    fn crashed(&mut self) -> SimDisk {
        // First what was promised, then what is left: with threads the log goes on meanwhile.
        self.oracle.acknowledged(self.wal().durable_lsn());
        self.disk.crash_seeded(self.work.rng.clone().random())
    }

    fn reopen_on(&mut self, disk: SimDisk) {
        self.counts.reopened += 1;
        self.held.clear();
        self.doomed = false;
        self.wal = None;
        let _: u64 = self.work.rng.random();
        self.disk = Arc::new(disk);
        let options = (self.options)(&mut self.work.rng);
        let wal = options.open_disk(Arc::clone(&self.disk) as Arc<_>);
        let wal = wal.unwrap_or_else(|e| panic!("{}: opening: {e}", self.label));
        let found = Model::read(&wal).unwrap_or_else(|e| {
            panic!("{}: reading after recovery: {e}; damage {:?}; stats {:#?}", self.label, wal.damage(), wal.stats())
        });
        match self.oracle.check(&found) {
            Ok(n) => self.counts.survivors += n,
            Err(why) => panic!("{}: {why}\n{:#?}", self.label, wal.stats()),
        }
        self.oracle.settle(found);
        assert_sound(&wal, &self.label);
        self.wal = Some(wal);
    }
}

fn replicas() -> Vec<u64> {
    vec![0, 1, 2, 3, 4, 5, 6, 7, 300, 70_000, 1 << 40, u64::MAX - 1, u64::MAX]
}

fn small_shape(live_bytes: usize) -> Shape {
    Shape { replicas: replicas(), sizes: Shape::boundaries(4096, 64 << 10, 8 << 10), live_bytes, nonsense: 25 }
}

fn small_run(seed: u64, placement: Placement) -> Run {
    let capacity = [3 << 20, 4 << 20, 6 << 20, 8 << 20][seed as usize % 4];
    let options = move |rng: &mut StdRng| {
        small(placement).carry_fraction([1, 12, 50, 100][rng.random_range(0..4)]).queue_bytes(64 << 10)
    };
    // Too little to fill the log: a full one has tests of its own.
    let mut run = Run::new(seed, capacity, small_shape(capacity as usize / 6), options);
    run.label = format!("seed {seed} {placement:?}");
    run
}

#[test]
fn every_placement_agrees_with_the_model_over_reopenings_and_power_cuts() {
    let jobs: Vec<(u64, Placement)> =
        seeds(0, 8).into_iter().flat_map(|seed| support::PLACEMENTS.map(|p| (seed, p))).collect();
    for_each(&jobs, |(seed, placement)| {
        let mut run = small_run(seed, placement);
        run.steps(1500);
        println!("{}: {:?}", run.label, run.counts);
        support::tally(&[("images", run.counts.cuts)]);
        assert!(run.counts.cuts > 5 && run.counts.refused > 10, "{:?}", run.counts);
    });
}

#[test]
fn a_log_that_runs_full_again_and_again_agrees_with_the_model() {
    let (seeds, full) = (seeds(100, 6), AtomicU64::new(0));
    for_each(&seeds, |seed| {
        let placement = support::PLACEMENTS[seed as usize % 3];
        let mut run = Run::new(seed, 3 << 20, small_shape(usize::MAX), move |_| small(placement));
        run.label = format!("seed {seed} {placement:?}");
        run.steps(1500);
        println!("{}: {:?}", run.label, run.counts);
        full.fetch_add(run.counts.full, Ordering::Relaxed);
    });
    // Now and then one of the logs is never full.
    let full = full.into_inner();
    assert!(full >= seeds.len() as u64, "{full} times full in {} runs", seeds.len());
}

#[test]
fn changing_the_placement_at_every_opening_loses_nothing() {
    for_each(&seeds(200, 4), |seed| {
        let mut run = Run::new(seed, 4 << 20, small_shape(600_000), |rng| {
            small(support::PLACEMENTS[rng.random_range(0..3)]).carry_fraction(rng.random_range(1..=100))
        });
        run.steps(1500);
    });
}

#[test]
fn default_geometry_agrees_with_the_model() {
    for_each(&seeds(300, 2), |seed| {
        let shape = Shape {
            replicas: (0..60).chain([u64::MAX]).collect(),
            sizes: Shape::boundaries(64 << 10, 256 << 10, 64 << 10),
            live_bytes: 8 << 20,
            nonsense: 30,
        };
        let placement = support::PLACEMENTS[seed as usize % 2];
        let mut run = Run::new(seed, 32 << 20, shape, move |_| {
            Wal::options().capacity(32 << 20).background(false).placement(placement)
        });
        run.steps(700);
    });
}

#[test]
fn with_its_threads_running_it_agrees_with_the_model() {
    for_each(&seeds(400, 4), |seed| {
        let placement = support::PLACEMENTS[seed as usize % 3];
        let mut run = Run::new(seed, 4 << 20, small_shape(600_000), move |_| small(placement).background(true));
        run.label = format!("seed {seed} {placement:?}, with threads");
        run.steps(1000);
    });
}
