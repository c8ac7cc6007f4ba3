//! The worker threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use strandlog::{Batch, Error, Wal};

use super::plan::{LAG, Plan, RUN, STATE_BYTES};
use crate::args::Workload;
use crate::measure::Latencies;

/// What one worker did since the last drain.
#[derive(Debug)]
pub struct Done {
    pub latencies: Latencies,
    pub items: u64,
}

/// Where a worker records what it did. Its lock is never held for long.
#[derive(Debug)]
pub struct Slot(Mutex<Done>);

impl Slot {
    pub fn new() -> Self {
        Self(Mutex::new(Done { latencies: Latencies::new(), items: 0 }))
    }

    fn note(&self, since: Instant, items: u64) {
        let mut done = self.lock();
        done.latencies.record(since);
        done.items += items;
    }

    /// Moves the record into `all`.
    pub fn drain(&self, all: &mut Done) {
        let mut done = self.lock();
        all.latencies.add(&done.latencies);
        all.items += std::mem::take(&mut done.items);
        done.latencies.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random bytes, which no device can compress.
pub struct Payload(Vec<u8>);

impl Payload {
    /// Enough that no two commits look alike.
    const LEAST_BYTES: usize = 8 << 20;

    pub fn new(longest: usize) -> Self {
        let mut bytes = vec![0; Self::LEAST_BYTES + longest];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A different slice for each `n`.
    fn get(&self, n: u64, len: usize) -> &[u8] {
        let at = (n.wrapping_mul(len as u64) % Self::LEAST_BYTES as u64) as usize;
        self.0.get(at..at + len).unwrap_or(&[])
    }
}

/// Entries from this size on are placed outside the journal if their batch would overflow a segment.
const PLACED_BYTES: usize = 32 << 10;

/// What all workers share.
pub struct Work<'a> {
    pub wal: &'a Wal,
    pub plan: &'a Plan,
    pub payload: &'a Payload,
    pub stop: &'a AtomicBool,
}

impl Work<'_> {
    /// Works until told to stop, or until something fails.
    pub fn run(&self, thread: u64, slot: &Arc<Slot>) -> Result<(), Error> {
        match self.plan.workload {
            Workload::Append | Workload::Batch => self.append(thread, slot),
            Workload::Churn => self.churn(thread, slot),
            Workload::State => self.state(thread, slot),
            Workload::Window => self.window(slot),
        }
    }

    /// Commits the batch early if more might not fit one batch. Returns how many items it holds now.
    fn commit_if_full(&self, batch: &mut Batch, filled: u64, slot: &Slot) -> Result<u64, Error> {
        if self.plan.entry_bytes >= PLACED_BYTES || batch.log_bytes() < self.wal.max_batch_bytes() / 2 {
            return Ok(filled);
        }
        self.commit(batch, filled, slot)?;
        Ok(0)
    }

    fn commit(&self, batch: &mut Batch, items: u64, slot: &Slot) -> Result<(), Error> {
        if items > 0 {
            let start = Instant::now();
            self.wal.commit(&mut *batch)?;
            slot.note(start, items);
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The replicas of one thread.
    fn mine(&self, thread: u64) -> Vec<u64> {
        (0..self.plan.replicas).filter(|r| r % self.plan.threads == thread).map(|r| r + 1).collect()
    }

    /// Appends one entry to each of `together` of the thread's replicas per commit, in turn.
    fn append(&self, thread: u64, slot: &Slot) -> Result<(), Error> {
        let (mine, keep) = (self.mine(thread), self.plan.keep);
        let mut next = vec![1_u64; mine.len()];
        let (mut batch, mut n) = (Batch::new(), thread << 32);
        let mut at = 0;
        while !self.stopped() {
            let mut filled = 0;
            for _ in 0..self.plan.together {
                let (Some(&replica), Some(index)) = (mine.get(at), next.get_mut(at)) else { return Ok(()) };
                batch.append(replica, &[(*index, 1, self.payload.get(n, self.plan.entry_bytes))]);
                if index.is_multiple_of(keep) {
                    batch.truncate_prefix(replica, *index - keep / 2);
                }
                *index += 1;
                n += 1;
                at = (at + 1) % mine.len();
                filled = self.commit_if_full(&mut batch, filled + 1, slot)?;
            }
            self.commit(&mut batch, filled, slot)?;
        }
        Ok(())
    }

    /// Appends eight entries to a random replica of the thread. Replicas keep 20 to 40 entries, but one in a hundred is not truncated for long.
    fn churn(&self, thread: u64, slot: &Slot) -> Result<(), Error> {
        const LONGEST: u64 = 40;
        const SHORTEST: u64 = 20;
        let mine = self.mine(thread);
        let mut heads = vec![(1_u64, 1_u64); mine.len()];
        let (mut rng, mut batch) = (SmallRng::seed_from_u64(thread), Batch::new());
        while !self.stopped() {
            let at = rng.random_range(0..mine.len());
            let (Some(&replica), Some((first, next))) = (mine.get(at), heads.get_mut(at)) else { return Ok(()) };
            let payload = |i: u64| self.payload.get(thread * 1_000_003 + i * 8191, self.plan.entry_bytes);
            let entries: Vec<(u64, u64, &[u8])> = (*next..*next + RUN).map(|i| (i, 1, payload(i))).collect();
            *next += RUN;
            batch.append(replica, &entries);
            let longest = if replica % 100 == 7 { LAG } else { LONGEST };
            if *next - *first > longest {
                *first = *next - SHORTEST;
                batch.truncate_prefix(replica, *first);
            }
            let start = Instant::now();
            self.wal.commit(&mut batch)?;
            slot.note(start, RUN);
        }
        Ok(())
    }

    /// Writes terms and votes.
    fn state(&self, thread: u64, slot: &Slot) -> Result<(), Error> {
        let mine = self.mine(thread);
        let (mut batch, mut n, mut at) = (Batch::new(), thread << 32, 0);
        while !self.stopped() {
            let mut filled = 0;
            for _ in 0..self.plan.together {
                let Some(&replica) = mine.get(at) else { return Ok(()) };
                batch.put(replica, b"hard_state", self.payload.get(n, STATE_BYTES));
                n += 1;
                at = (at + 1) % mine.len();
                filled = self.commit_if_full(&mut batch, filled + 1, slot)?;
            }
            self.commit(&mut batch, filled, slot)?;
        }
        Ok(())
    }

    /// Never waits for its own commit, only until fewer appends are outstanding than the window allows.
    fn window(&self, slot: &Arc<Slot>) -> Result<(), Error> {
        /// One append in this many is timed: reading the clock for each would distort the measurement.
        const TIMED: u64 = 16;
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let poller = std::thread::current();
        let (mut batch, mut sent, mut round) = (Batch::new(), 0_u64, 0_u64);
        while !self.stopped() {
            round += 1;
            for replica in 1..=self.plan.replicas {
                while sent - done.load(Ordering::Acquire) >= self.plan.window {
                    std::thread::park();
                }
                batch.append(replica, &[(round, 1, self.payload.get(sent, self.plan.entry_bytes))]);
                if round.is_multiple_of(self.plan.keep) {
                    batch.truncate_prefix(replica, round - self.plan.keep / 2);
                }
                let start = sent.is_multiple_of(TIMED).then(Instant::now);
                let (done, failed, slot, poller) =
                    (Arc::clone(&done), Arc::clone(&failed), Arc::clone(slot), poller.clone());
                self.wal.submit_with(&mut batch, move |outcome| {
                    match (outcome, start) {
                        (Ok(_), Some(start)) => slot.note(start, TIMED),
                        (Ok(_), None) => {}
                        (Err(error), _) => drop(failed.lock().unwrap_or_else(PoisonError::into_inner).insert(error)),
                    }
                    done.fetch_add(1, Ordering::Release);
                    poller.unpark();
                })?;
                sent += 1;
                if self.stopped() {
                    break;
                }
            }
            if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
        }
        self.wal.sync().map(|_| ())
    }
}
