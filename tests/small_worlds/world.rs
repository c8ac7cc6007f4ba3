//! One run of one workload, remembering each event of its last step.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use strandlog::disk::sim::SimDisk;
use strandlog::{Options, Placement, Wal};

use super::steps::{LARGE, Step, append, ops, put};
use super::support::model::{Model, Op, Oracle, batch};
use super::support::recorder::{Moment, Recorder};

/// The smallest log there may be. Little is carried, so that two steps are enough to have something to settle.
pub fn options(placement: Placement) -> Options {
    Wal::options()
        .chunk_size(4096)
        .segment_size(64 << 10)
        .direct_threshold(4096)
        .recent_bytes(1 << 20)
        .carry_fraction(12)
        .background(false)
        .placement(placement)
}

const CAPACITY: u64 = 8 * (64 << 10) + strandlog::format::POOL_OFFSET;

/// What workloads begin with.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// A log in which nothing was ever written.
    Blank,
    /// Two replicas over two segments: journal entries, a chain, keyed state, a truncated prefix.
    Worn,
    /// The same over so many segments that the next opening finds no fresh one, and goes on in the newest, behind its last frame.
    Tight,
}

pub const STARTS: [Start; 3] = [Start::Blank, Start::Worn, Start::Tight];

pub struct Base {
    pub start: Start,
    pub placement: Placement,
    disk: SimDisk,
    model: Model,
}

impl Base {
    pub fn build(start: Start, placement: Placement) -> Self {
        let mut disk = Arc::new(SimDisk::new(CAPACITY));
        let mut model = Model::default();
        let mut live = |batches: Vec<Vec<Op>>| {
            let wal = options(placement).open_disk(Arc::clone(&disk) as Arc<_>).expect("opened");
            for ops in batches {
                wal.commit(batch(&ops)).expect("committed");
                model.apply(&ops);
            }
            drop(wal);
            disk = Arc::new(disk.crash_lost_all());
        };
        live(Vec::new());
        if !matches!(start, Start::Blank) {
            // Each opening takes a fresh segment, so that there is something to clean.
            live(vec![
                vec![append(1, 1, 1, &[200, 100, 170]), put(1, 1, 30)],
                vec![append(2, 1, 1, &[LARGE]), put(2, 2, 30)],
            ]);
            live(vec![vec![append(2, 2, 2, &[120, 80]), Op::Truncate { replica: 1, first: 2 }]]);
        }
        if let Start::Tight = start {
            live(vec![vec![append(1, 4, 3, &[110])]]);
        }
        Self { start, placement, disk: disk.crash_lost_all(), model }
    }
}

/// An event of the last step, and what was promised before it.
pub struct Cut {
    pub placement: Placement,
    pub moment: Moment,
    pub oracle: Oracle,
}

pub enum Outcome {
    /// A step cannot be taken there.
    Refused,
    Ran(Vec<Cut>),
}

/// What the recorder sees: shared with the run.
#[derive(Default)]
struct Seen {
    last: AtomicBool,
    oracle: Mutex<Oracle>,
    wal: Mutex<Weak<Wal>>,
    moments: Mutex<Vec<Cut>>,
}

struct Run {
    placement: Placement,
    disk: Arc<SimDisk>,
    wal: Arc<Wal>,
    seen: Arc<Seen>,
}

/// Runs the workload; only the events of its last step are remembered.
pub fn run(base: &Base, steps: &[Step]) -> Outcome {
    let seen = Arc::new(Seen::default());
    seen.oracle.lock().expect("alive").settle(base.model.clone());
    let disk = Arc::new(base.disk.clone());
    let placement = base.placement;
    let wal = open(placement, &disk, &seen, steps);
    let mut run = Run { placement, disk, wal, seen };
    for (nth, &step) in steps.iter().enumerate() {
        run.seen.last.store(nth + 1 == steps.len(), Relaxed);
        if !run.step(step, nth as u64, steps) {
            return Outcome::Refused;
        }
    }
    let moments = std::mem::take(&mut *run.seen.moments.lock().expect("alive"));
    Outcome::Ran(moments)
}

fn open(placement: Placement, disk: &Arc<SimDisk>, seen: &Arc<Seen>, steps: &[Step]) -> Arc<Wal> {
    let watch = Arc::clone(seen);
    let recorder = Recorder::new(Arc::clone(disk), 1, move |moment| {
        if watch.last.load(Relaxed) {
            let mut oracle = watch.oracle.lock().expect("alive").clone();
            if let Some(wal) = watch.wal.lock().expect("alive").upgrade() {
                oracle.acknowledged(wal.durable_lsn());
            }
            watch.moments.lock().expect("alive").push(Cut { placement, moment, oracle });
        }
    });
    let wal = options(placement).open_disk(Arc::new(recorder)).unwrap_or_else(|e| panic!("{steps:?}: opening: {e}"));
    let wal = Arc::new(wal);
    *seen.wal.lock().expect("alive") = Arc::downgrade(&wal);
    wal
}

impl Run {
    /// Takes a step. Returns whether there was anything to do it to.
    fn step(&mut self, step: Step, nth: u64, steps: &[Step]) -> bool {
        let current = self.seen.oracle.lock().expect("alive").current.clone();
        match step {
            Step::Commit(what, replica) => {
                let Some(ops) = ops(what, replica, nth, &current) else { return false };
                // Noted before the call: its events must know of it.
                self.seen.oracle.lock().expect("alive").submitted(None, ops.clone());
                let lsn = self.wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
                let mut oracle = self.seen.oracle.lock().expect("alive");
                oracle.pending.iter_mut().for_each(|(at, _)| *at = at.or(Some(lsn)));
                oracle.acknowledged(lsn);
                assert!(oracle.pending.is_empty(), "{steps:?}: a commit acknowledges all before it");
            }
            Step::Submit(what, replica) => {
                let Some(ops) = ops(what, replica, nth, &current) else { return false };
                let pending = self.wal.submit(batch(&ops)).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
                self.seen.oracle.lock().expect("alive").submitted(Some(pending.lsn()), ops);
            }
            Step::Checkpoint => {
                self.wal.checkpoint().unwrap_or_else(|e| panic!("{steps:?}: {e}"));
                self.seen.oracle.lock().expect("alive").acknowledged(self.wal.durable_lsn());
            }
            Step::Reopen => {
                self.wal.close().unwrap_or_else(|e| panic!("{steps:?}: {e}"));
                self.seen.oracle.lock().expect("alive").settle(current);
                self.reopen(steps);
            }
            Step::Kill => {
                self.seen.oracle.lock().expect("alive").acknowledged(self.wal.durable_lsn());
                self.reopen(steps);
            }
        }
        true
    }

    /// Opens the log in the next process, on the disk that this one leaves.
    fn reopen(&mut self, steps: &[Step]) {
        *self.seen.wal.lock().expect("alive") = Weak::new();
        self.disk = Arc::new(self.disk.restart());
        self.wal = open(self.placement, &self.disk, &self.seen, steps);
        let found = Model::read(&self.wal).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
        let mut oracle = self.seen.oracle.lock().expect("alive");
        oracle.check(&found).unwrap_or_else(|why| panic!("{steps:?}: {why}"));
        oracle.settle(found);
    }
}
