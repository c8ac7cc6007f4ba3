//! What a seed decides: how the state machines keep their state, and what becomes of each message.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use crate::judge::Judge;
use crate::life::Life;
use crate::rng::Rng;

pub const GROUPS: u64 = 2;

/// Where a state machine keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// In files of its own; the log is told nothing.
    Files,
    /// In files of its own, and it reports what is durable: the log is its only write-ahead log.
    FilesAndReports,
    /// In memory, with its snapshots in the log.
    InLog,
}

pub struct Env {
    pub keeps: Keeps,
    pub nodes: u64,
    pub judge: Judge,
    rng: Mutex<Rng>,
    net: Mutex<Net>,
    /// Groups that are to get another leader while a snapshot is installed.
    elections: Mutex<Vec<u64>>,
}

struct Net {
    /// Links (from, to) on which nothing gets through.
    cut: BTreeSet<(u64, u64)>,
    /// Percentages of messages that are lost, and that are delivered twice.
    lossy: u64,
    doubled: u64,
    /// Milliseconds.
    slowest: u64,
}

impl Env {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let keeps = [Keeps::Files, Keeps::FilesAndReports, Keeps::InLog][(seed % 3) as usize];
        // Of five, a leader that two follow is not the only one for long.
        let nodes = if seed % 4 == 2 { 5 } else { 3 };
        rng.next();
        let net = Net { cut: BTreeSet::new(), lossy: 0, doubled: 5, slowest: 8 };
        Self {
            keeps,
            nodes,
            judge: Judge::default(),
            rng: Mutex::new(rng),
            net: Mutex::new(net),
            elections: Mutex::default(),
        }
    }

    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap())
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.with_rng(|rng| rng.below(bound))
    }

    pub fn one_in(&self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Asks for another leader soon.
    pub fn want_election(&self, group: u64) {
        self.elections.lock().unwrap().push(group);
    }

    pub fn wanted_election(&self) -> Option<u64> {
        self.elections.lock().unwrap().pop()
    }

    /// Changes the network's conditions.
    pub fn change_net(&self) {
        let mut net = self.net.lock().unwrap();
        net.cut.clear();
        let nodes = self.nodes;
        let node = self.below(nodes);
        let other = (node + 1 + self.below(nodes - 1)) % nodes;
        match self.below(if nodes > 3 { 8 } else { 6 }) {
            0 => net.cut.extend((0..nodes).flat_map(|peer| [(node, peer), (peer, node)])),
            1 => net.cut.extend([(node, other), (other, node)]),
            2 => net.cut.extend([(node, other)]),
            // One node is connected only with the other.
            6 | 7 => {
                net.cut.extend((0..nodes).filter(|&peer| peer != other).flat_map(|peer| [(node, peer), (peer, node)]))
            }
            _ => {}
        }
        net.lossy = [0, 0, 5, 20][self.below(4) as usize];
        net.doubled = [0, 5, 20][self.below(3) as usize];
        net.slowest = [3, 10, 80][self.below(3) as usize];
    }

    pub fn heal_net(&self) {
        let mut net = self.net.lock().unwrap();
        net.cut.clear();
        (net.lossy, net.doubled, net.slowest) = (0, 0, 3);
    }

    /// Whether a message arrives, after its delay.
    async fn travel(&self, from: u64, to: u64) -> bool {
        let (slow, lost) = {
            let net = self.net.lock().unwrap();
            (self.below(net.slowest), self.below(100) < net.lossy)
        };
        sleep(Duration::from_millis(slow)).await;
        !lost && !self.net.lock().unwrap().cut.contains(&(from, to))
    }

    /// Sends a request to another node over this network. `ask` is done there, sometimes twice. None: no answer came.
    pub async fn call<A, F>(
        self: &Arc<Self>,
        from: &Arc<Life>,
        to: u64,
        ask: impl Fn() -> F + Clone + Send + 'static,
    ) -> Option<A>
    where
        A: Send + 'static,
        F: Future<Output = Option<A>> + Send + 'static,
    {
        if !from.is_alive() {
            return None;
        }
        if self.below(100) < self.net.lock().unwrap().doubled {
            let (env, node, again) = (Arc::clone(self), from.node, ask.clone());
            let late = self.below(200);
            tokio::spawn(async move {
                sleep(Duration::from_millis(late)).await;
                if env.travel(node, to).await {
                    again().await;
                }
            });
        }
        if self.travel(from.node, to).await
            && let Some(answer) = ask().await
            && self.travel(to, from.node).await
            && from.is_alive()
        {
            return Some(answer);
        }
        sleep(Duration::from_millis(20)).await;
        None
    }
}
