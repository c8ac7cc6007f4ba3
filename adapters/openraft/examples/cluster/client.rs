//! A client: finds the leader of a key's group, and asks again until it has an answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::link::{Link, NoAnswer};
use crate::types::{Put, Versioned, group_of};
use crate::wire::{Answer, Ask};

/// Longer than a node takes to give up.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long to wait before asking the next node, when one knew no leader.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Client {
    links: Vec<Link>,
    /// The node that led each group when it was last asked.
    leaders: Vec<AtomicUsize>,
}

impl Client {
    pub fn new(addrs: &[SocketAddr], groups: u64) -> Self {
        let leaders = (0..groups as usize).map(|group| AtomicUsize::new(group % addrs.len().max(1))).collect();
        Self { links: addrs.iter().map(|&addr| Link::to(addr)).collect(), leaders }
    }

    pub fn groups(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn nodes(&self) -> usize {
        self.links.len()
    }

    /// Sets a key. Acknowledged when this returns `Ok`; otherwise it may have been set or not.
    pub async fn put(&self, put: Put, until: Instant) -> Result<(), NoAnswer> {
        let group = group_of(&put.key, self.groups());
        self.of_leader(group, Ask::Put { group, put }, until).await.map(drop)
    }

    /// The current value of the key, not an outdated one.
    pub async fn get(&self, key: &str, until: Instant) -> Result<Option<Versioned>, NoAnswer> {
        let group = group_of(key, self.groups());
        match self.of_leader(group, Ask::Get { group, key: key.into() }, until).await? {
            Answer::Value(value) => Ok(value),
            _ => Err(NoAnswer),
        }
    }

    /// Sends a request to one node.
    pub async fn of(&self, node: usize, ask: Ask) -> Result<Answer, NoAnswer> {
        self.links.get(node).ok_or(NoAnswer)?.ask(ask, PATIENCE).await
    }

    async fn of_leader(&self, group: u64, ask: Ask, until: Instant) -> Result<Answer, NoAnswer> {
        let leader = usize::try_from(group).ok().and_then(|group| self.leaders.get(group)).ok_or(NoAnswer)?;
        while Instant::now() < until {
            let node = leader.load(Ordering::Relaxed);
            match self.of(node, ask.clone()).await {
                Ok(Answer::NotLeader(Some(other))) if other as usize != node => {
                    leader.store(other as usize, Ordering::Relaxed);
                    // It may not have heard yet that the leader is dead.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(Answer::NotLeader(_) | Answer::Failed(_)) | Err(NoAnswer) => {
                    leader.store((node + 1) % self.links.len().max(1), Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(answer) => return Ok(answer),
            }
        }
        Err(NoAnswer)
    }
}
