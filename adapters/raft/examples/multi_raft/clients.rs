//! The clients: each has one proposal under way, and makes the next when that is answered.
//!
//! One thread plays them all. A fifth of the proposals goes to one group in a hundred: those logs are
//! truncated beyond a store that was away, which then needs a snapshot; the others catch up by log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::machine::{SLOTS, slot_of};
use crate::net::{Outcome, Proposal};
use crate::rng::Rng;
use crate::store::World;
use crate::{Result, STORES};

/// How long to wait after asking the wrong store, or when no store leads.
const RETRY: Duration = Duration::from_millis(10);
/// How long to wait for an answer: the store that took the proposal is gone, and the proposal's fate stays unknown.
const GIVE_UP: Duration = Duration::from_secs(2);
/// How long to wait when no store took it: an election is under way.
const GIVE_UP_LOOKING: Duration = Duration::from_secs(10);

/// Figures to watch while they work.
#[derive(Debug, Default)]
pub struct Load {
    pub answered: AtomicU64,
    stop: AtomicBool,
    recent: Mutex<Option<Histogram<u64>>>,
}

impl Load {
    /// Ask for no new proposals; the thread ends when the last one is answered.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// 50th and 99th percentile (in microseconds) since the last call.
    pub fn recent(&self) -> (u64, u64) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).take();
        recent.map_or((0, 0), |h| (h.value_at_quantile(0.5), h.value_at_quantile(0.99)))
    }

    fn record(&self, micros: &[u64]) -> Result<()> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = match &mut *recent {
            Some(histogram) => histogram,
            none => none.insert(histogram(2)?),
        };
        micros.iter().for_each(|value| histogram.saturating_record(*value));
        Ok(())
    }
}

/// What they report at the end.
pub struct Report {
    /// From proposing to applied by the leader, and back, in microseconds.
    pub latency: Histogram<u64>,
    pub answered: u64,
    pub unanswered: u64,
    pub redirected: u64,
    /// Answered proposals, by group and slot of the state machine: none of them may be missing.
    pub acknowledged: Vec<[u32; SLOTS]>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    /// No store has taken the proposal: no leader is known, or it was the wrong one.
    Looking,
    /// A store has it.
    Sent,
}

#[derive(Clone, Copy)]
struct Client {
    /// Id of its proposal, which also names the client.
    id: u64,
    group: u64,
    start: Instant,
    phase: Phase,
}

pub struct Clients {
    world: World,
    load: Arc<Load>,
    outcomes: Receiver<Vec<Outcome>>,
    clients: Vec<Client>,
    rng: Rng,
    retries: VecDeque<(Instant, u64)>,
    out: [Vec<Proposal>; STORES],
    report: Report,
    next_scan: Instant,
}

impl Clients {
    pub fn new(world: World, load: Arc<Load>, outcomes: Receiver<Vec<Outcome>>) -> Result<Self> {
        let report = Report {
            latency: histogram(3)?,
            answered: 0,
            unanswered: 0,
            redirected: 0,
            acknowledged: vec![[0; SLOTS]; world.args.groups as usize],
        };
        let now = Instant::now();
        let idle = |index| Client { id: index, group: 0, start: now, phase: Phase::Idle };
        Ok(Clients {
            clients: (0..u64::from(world.args.clients)).map(idle).collect(),
            rng: Rng::new(world.args.seed),
            retries: VecDeque::new(),
            out: Default::default(),
            next_scan: now,
            report,
            world,
            load,
            outcomes,
        })
    }

    pub fn run(mut self) -> Result<Report> {
        for index in 0..self.clients.len() {
            self.propose(index);
        }
        while self.clients.iter().any(|client| client.phase != Phase::Idle) {
            self.flush();
            match self.outcomes.recv_timeout(Duration::from_millis(2)) {
                Ok(outcomes) => {
                    let mut times = Vec::new();
                    self.take(outcomes, &mut times);
                    while let Ok(outcomes) = self.outcomes.try_recv() {
                        self.take(outcomes, &mut times);
                    }
                    self.load.record(&times)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.retry();
            self.give_up();
        }
        Ok(self.report)
    }

    /// Makes the client's next proposal, unless it is to stop.
    fn propose(&mut self, index: usize) {
        let groups = self.world.args.groups;
        let range = if self.rng.below(5) == 0 { groups.div_ceil(100) } else { groups };
        let client = &mut self.clients[index];
        client.phase = Phase::Idle;
        if !self.load.stop.load(Relaxed) {
            client.id += u64::from(self.world.args.clients);
            client.group = 1 + self.rng.below(range);
            client.start = Instant::now();
            self.send(index);
        }
    }

    /// Sends it to the leader, as far as one is known.
    fn send(&mut self, index: usize) {
        let Client { id, group, .. } = self.clients[index];
        let leader = self.world.board.leader(group);
        if leader == 0 {
            return self.look(index);
        }
        self.clients[index].phase = Phase::Sent;
        let mut payload = Rng::new(self.world.args.seed ^ id.rotate_left(32));
        let payload = payload.bytes(self.world.args.payload as usize);
        self.out[leader as usize - 1].push(Proposal { id, group, payload });
    }

    fn look(&mut self, index: usize) {
        self.clients[index].phase = Phase::Looking;
        self.retries.push_back((Instant::now() + RETRY, self.clients[index].id));
    }

    fn flush(&mut self) {
        for (index, proposals) in self.out.iter_mut().enumerate() {
            if !proposals.is_empty() {
                self.world.network.propose(index as u64 + 1, std::mem::take(proposals));
            }
        }
    }

    fn take(&mut self, outcomes: Vec<Outcome>, times: &mut Vec<u64>) {
        for outcome in outcomes {
            let (Outcome::Applied(id) | Outcome::NotLeader(id)) = outcome;
            let index = self.index(id);
            let Client { id: current, group, start, phase } = self.clients[index];
            if current != id || phase != Phase::Sent {
                // The client had given up before the answer came: the outcome stays unknown.
                continue;
            }
            if outcome == Outcome::NotLeader(id) {
                self.report.redirected += 1;
                self.look(index);
                continue;
            }
            let micros = crate::store::micros(start.elapsed());
            self.report.latency.saturating_record(micros);
            times.push(micros);
            self.report.answered += 1;
            self.report.acknowledged[group as usize - 1][slot_of(id)] += 1;
            self.load.answered.fetch_add(1, Relaxed);
            self.propose(index);
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        while let Some((due, id)) = self.retries.front().copied()
            && due <= now
        {
            self.retries.pop_front();
            let index = self.index(id);
            if self.clients[index].id == id && self.clients[index].phase == Phase::Looking {
                self.send(index);
            }
        }
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        if now < self.next_scan {
            return;
        }
        self.next_scan = now + Duration::from_millis(50);
        for index in 0..self.clients.len() {
            let Client { start, phase, .. } = self.clients[index];
            let patience = match phase {
                Phase::Idle => continue,
                Phase::Sent => GIVE_UP,
                Phase::Looking => GIVE_UP_LOOKING,
            };
            if now.duration_since(start) > patience {
                self.report.unanswered += 1;
                self.propose(index);
            }
        }
    }

    fn index(&self, id: u64) -> usize {
        (id % self.clients.len() as u64) as usize
    }
}

/// Records microseconds, up to a minute.
fn histogram(digits: u8) -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, digits)?)
}
