//! One life of a log, from an opening to its end: batches submitted in every way, and what is known to be durable.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use strandlog::{Batch, Error, Lsn, Pending, Sink, Wal};

use super::check;
use super::model::{Op, Ops, Refused, World, batch};
use super::steps::{Steps, grows};
use super::support::schedule::block_on;
use super::told::{CHAIN, Tags, Told, poll_once};

pub struct Life {
    pub wal: Arc<Wal>,
    pub steps: Steps,
    /// What was found at the opening, and what the log holds behind each batch since.
    pub history: Vec<World>,
    /// The LSN of each; reports on their own have none.
    lsns: Vec<Option<Lsn>>,
    /// At least this many batches are durable.
    pub durable: usize,
    pub told: Arc<Told>,
    notices: usize,
    held: Vec<(usize, Pending)>,
    /// The world with a batch of which nobody knows whether it is in the log.
    pub doubtful: Option<World>,
    pub label: String,
}

impl Life {
    pub fn new(wal: Wal, steps: Steps, found: World, chain: u64, label: String) -> Self {
        let told = Told::default();
        *told.chain.lock().expect("no other panic") = chain;
        told.chain_durable.store(chain, std::sync::atomic::Ordering::SeqCst);
        Self {
            wal: Arc::new(wal),
            steps,
            history: vec![found],
            lsns: vec![Some(Lsn::default())],
            durable: 0,
            told: Arc::new(told),
            notices: 0,
            held: Vec::new(),
            doubtful: None,
            label,
        }
    }

    fn now(&self) -> &World {
        self.history.last().expect("what was found")
    }

    fn rng(&mut self) -> &mut StdRng {
        &mut self.steps.rng
    }

    fn submitted(&mut self, world: World, lsn: Lsn) {
        let last = self.lsns.iter().rev().find_map(|l| *l).expect("the first has one");
        assert!(lsn >= last, "{}: {lsn} behind {last}", self.label);
        self.history.push(world);
        self.lsns.push(Some(lsn));
    }

    fn is_durable(&mut self, n: usize) {
        self.durable = self.durable.max(n);
    }

    /// One thing that a store does. An error ends the life.
    pub fn step(&mut self) -> Result<(), Error> {
        match self.rng().random_range(0..1000) {
            0..=9 => self.wal.checkpoint()?,
            10..=14 => {
                // Callbacks may append to their chain meanwhile, so it counts as busy.
                let chain = (self.notices > 0 || self.wal.replica(CHAIN).exists()).then_some(CHAIN);
                check::sound(&self.wal, self.now(), chain, true, &self.label)?;
            }
            15..=29 => {
                let (n, lsn) = (self.history.len() - 1, self.wal.sync()?);
                assert!(Some(lsn) >= self.lsns[n] && self.wal.durable_lsn() >= lsn);
                self.is_durable(n);
            }
            30..=59 => {
                let n = self.steps.rng.random_range(0..self.history.len());
                let Some(lsn) = self.lsns[n] else { return Ok(()) };
                if self.steps.rng.random() {
                    self.wal.wait_durable(lsn)?;
                } else {
                    block_on(self.wal.wait_durable_async(lsn))?;
                }
                self.is_durable(n);
            }
            60..=129 if !self.held.is_empty() => {
                let at = self.steps.rng.random_range(0..self.held.len());
                let (n, pending) = self.held.swap_remove(at);
                assert_eq!(Some(pending.lsn()), self.lsns[n]);
                let lsn = if self.steps.rng.random() { pending.wait()? } else { block_on(pending)? };
                assert!(Some(lsn) >= self.lsns[n] && self.wal.durable_lsn() >= lsn, "{}", self.label);
                self.is_durable(n);
            }
            130..=249 => self.look()?,
            250..=299 => self.report()?,
            _ => {
                let ops = self.steps.draw(&self.history[self.history.len() - 1]);
                self.submit(ops)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Error> {
        let world = self.history[self.history.len() - 1].clone();
        let id = self.steps.shape.ids[self.steps.rng.random_range(0..self.steps.shape.ids.len())];
        check::one(&self.wal, &world, id, &mut self.steps.rng)?;
        if self.notices == 0 && !self.wal.replica(CHAIN).exists() {
            check::figures(&self.wal, &world, &self.label);
        }
        Ok(())
    }

    /// Reports of a state machine outside of any batch, for some replicas at once.
    fn report(&mut self) -> Result<(), Error> {
        let world = self.history[self.history.len() - 1].clone();
        let mut reports = Vec::new();
        for (&id, rep) in &world.0 {
            if rep.reported.is_some() && self.rng().random_ratio(1, 3) {
                reports.push((id, self.rng().random_range(rep.first() - 1..=rep.last())));
            }
        }
        let ops: Ops = reports.iter().map(|&(id, index)| (id, Op::Report(index))).collect();
        let next = world.after(&ops).expect("reports are never refused");
        match reports[..] {
            [] => return Ok(()),
            [(id, index)] => self.wal.durable_applied(id, index)?,
            _ => self.wal.durable_applied_many(&reports)?,
        }
        self.history.push(next);
        self.lsns.push(None);
        Ok(())
    }

    /// Submits in one of all ways, and compares the answer with the model's.
    pub fn submit(&mut self, ops: Ops) -> Result<(), Error> {
        let now = self.history[self.history.len() - 1].clone();
        let too_large = ops.iter().any(|(_, op)| match op {
            Op::Put(key, value) => key.len() > 256 || value.len() as u64 > self.wal.max_value_bytes(),
            _ => false,
        });
        let want = now.after(&ops).and_then(|w| if too_large { Err(Refused::TooLarge) } else { Ok(w) });
        let outcome = self.hand_over(&ops, want.as_ref().ok());
        let label = &self.label;
        match (outcome, want) {
            (Ok(()), Ok(_)) => Ok(()),
            (Ok(()), Err(refused)) => panic!("{label}: taken, not refused as {refused:?}: {ops:?}"),
            (Err(error @ (Error::Poisoned { .. } | Error::FileLost { .. })), _) => Err(error),
            (Err(Error::Full(report)), Ok(_)) => {
                if grows(&now, &ops) {
                    let relief = self.steps.relief(&now);
                    return self.full(&now, relief);
                }
                // A large value is written beside the old one. There is room for one at a time, for a caller that waits.
                let large = |op: &Op| matches!(op, Op::Put(_, value) if value.len() > 4096);
                assert!(ops.iter().any(|(_, op)| large(op)), "{label}: {report}: {ops:?} of {now:?}");
                let newest = self.history.len() - 1;
                self.wal.sync()?;
                self.is_durable(newest);
                self.full(&now, ops)
            }
            (Err(Error::BatchTooLarge { .. }), Ok(_)) => {
                assert!(batch(&ops).log_bytes() > self.wal.max_batch_bytes(), "{label}: {ops:?}");
                Ok(())
            }
            // A caller that does not wait may be told this first.
            (Err(Error::Busy { .. }), _) => Ok(()),
            (Err(error), Err(refused)) if Refused::of(&error) == Some(refused) => Ok(()),
            (Err(error), want) => panic!("{label}: {error:?} and not {:?}: {ops:?} of {now:?}", want.err()),
        }
    }

    /// Commits what even a full log must take.
    fn full(&mut self, now: &World, ops: Ops) -> Result<(), Error> {
        let next = now.after(&ops).expect("it makes sense");
        match self.wal.commit(batch(&ops)) {
            Ok(lsn) => self.submitted(next, lsn),
            Err(error @ (Error::Poisoned { .. } | Error::FileLost { .. })) => {
                self.doubtful = Some(next);
                return Err(error);
            }
            Err(error) => panic!("{}: a full log: {error}: {ops:?} of {now:?}", self.label),
        }
        self.is_durable(self.history.len() - 1);
        Ok(())
    }

    /// Hands the batch over in one of all ways. If it is taken, the history ends with it; if not, it changed nothing.
    fn hand_over(&mut self, ops: &Ops, next: Option<&World>) -> Result<(), Error> {
        let mut filled = batch(ops);
        if self.rng().random_ratio(1, 6) {
            filled.lazy();
        }
        let (n, bytes) = (self.history.len(), filled.log_bytes());
        let wal = Arc::clone(&self.wal);
        let world = || next.cloned().unwrap_or_default();
        match self.rng().random_range(0..10) {
            0..=3 => match wal.commit(&mut filled) {
                Ok(lsn) => {
                    assert!(filled.is_empty() && wal.durable_lsn() >= lsn);
                    self.submitted(world(), lsn);
                    self.is_durable(n);
                }
                Err(error) => {
                    if matches!(error, Error::Poisoned { .. } | Error::FileLost { .. }) {
                        self.doubtful = next.cloned();
                    } else {
                        assert_eq!(filled.log_bytes(), bytes, "a refused batch is as it was");
                    }
                    return Err(error);
                }
            },
            4 | 5 => {
                let pending = if self.rng().random() { wal.submit(&mut filled)? } else { wal.try_submit(&mut filled)? };
                self.submitted(world(), pending.lsn());
                if self.rng().random_ratio(3, 4) {
                    self.held.push((n, pending));
                }
            }
            6 => {
                // An asynchronous submission whose future is dropped early changes nothing, or is there.
                let future = wal.submit_async(filled);
                let pending = if self.rng().random_ratio(1, 4) {
                    match poll_once(future) {
                        None => return Err(Error::Busy { queued: 0, limit: 0 }),
                        Some(pending) => pending?,
                    }
                } else {
                    block_on(future)?
                };
                self.submitted(world(), pending.lsn());
                self.held.push((n, pending));
            }
            7 => {
                let sink: Arc<dyn Sink> = Arc::new(Tags(Arc::clone(&self.told)));
                let lsn = wal.submit_to(&mut filled, &sink, n as u64)?;
                self.notices += 1;
                self.submitted(world(), lsn);
            }
            _ => {
                let (told, weak) = (Arc::clone(&self.told), Arc::downgrade(&wal));
                let appends = self.rng().random_ratio(1, 3);
                let done = move |outcome: strandlog::Result<Lsn>| {
                    told.hear(&[n as u64], &outcome);
                    if let Some(wal) = weak.upgrade().filter(|_| appends) {
                        told.append(&wal);
                        let busy = wal.close();
                        assert!(matches!(busy, Err(Error::Busy { .. })), "closed in a callback: {busy:?}");
                    }
                };
                let lsn = match self.rng().random_range(0..3) {
                    0 => wal.submit_with(&mut filled, done)?,
                    1 => wal.try_submit_with(&mut filled, done)?,
                    _ => block_on(wal.submit_with_async(filled, done))?,
                };
                self.notices += 1;
                self.submitted(world(), lsn);
            }
        }
        Ok(())
    }

    /// After a failed write nothing more is taken, and everything can still be read.
    pub fn poisoned(&self) {
        let mut batch = Batch::new();
        batch.put(1, b"vote", b"late");
        let late = self.wal.commit(&mut batch);
        assert!(matches!(late, Err(Error::Poisoned { .. })), "{}: {late:?}", self.label);
        assert!(matches!(self.wal.check(), Err(Error::Poisoned { .. })), "{}", self.label);
        let mut found = check::read(&self.wal).unwrap_or_else(|e| panic!("{}: poisoned: {e}", self.label));
        found.0.remove(&CHAIN);
        let as_submitted = found == self.now().as_found();
        let with_doubtful = self.doubtful.as_ref().is_some_and(|w| found == w.as_found());
        assert!(as_submitted || with_doubtful, "{}: {}", self.label, self.now().as_found().difference(&found));
    }

    /// Ends the life, by a close or a drop. What was told durable by then counts as durable.
    pub fn end(mut self, close: bool) -> Ended {
        let promised = self.wal.durable_lsn();
        let newest = self.lsns.iter().rposition(|lsn| lsn.is_some_and(|l| l <= promised));
        self.is_durable(newest.unwrap_or(0));
        let closed = close && self.wal.close().is_ok();
        if closed {
            self.is_durable(self.history.len() - 1);
            assert!(matches!(self.wal.check(), Err(Error::Closed)), "{}", self.label);
        }
        let Self { wal, held, told, .. } = self;
        drop(wal);
        let mut durable = self.durable.max(told.newest(self.notices).unwrap_or(0) as usize);
        for (n, pending) in held {
            match pending.wait() {
                Ok(_) => durable = durable.max(n),
                Err(Error::Closed | Error::Poisoned { .. } | Error::FileLost { .. }) => {
                    assert!(!closed, "{}: closed, and {n} failed", self.label);
                }
                Err(error) => panic!("{}: {error}", self.label),
            }
        }
        let (history, doubtful, steps) = (self.history, self.doubtful, self.steps);
        Ended { closed, durable, history, doubtful, steps, told }
    }
}

/// What is left of a life.
pub struct Ended {
    pub closed: bool,
    pub durable: usize,
    pub history: Vec<World>,
    pub doubtful: Option<World>,
    pub steps: Steps,
    pub told: Arc<Told>,
}
