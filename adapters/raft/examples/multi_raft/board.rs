//! What all threads may know: which store leads, how far each replica has applied, what went wrong.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::STORES;

/// A store's running totals.
#[derive(Debug, Default)]
pub struct Totals {
    pub applied: AtomicU64,
    pub snapshots: AtomicU64,
}

/// Hints and figures: raft decides nothing by them.
#[derive(Debug)]
pub struct Board {
    leaders: Vec<AtomicU8>,
    applied: [Vec<AtomicU64>; STORES],
    pub totals: [Totals; STORES],
    failure: Mutex<Option<String>>,
}

impl Board {
    pub fn new(groups: u64) -> Self {
        Board {
            leaders: (0..groups).map(|_| AtomicU8::new(0)).collect(),
            applied: std::array::from_fn(|_| (0..groups).map(|_| AtomicU64::new(0)).collect()),
            totals: Default::default(),
            failure: Mutex::new(None),
        }
    }

    /// The store that leads `group`, or 0 if none is known to.
    pub fn leader(&self, group: u64) -> u64 {
        u64::from(self.leaders[group as usize - 1].load(Relaxed))
    }

    /// `store` became the leader, or lost the lead.
    pub fn set_leader(&self, group: u64, store: u64, leads: bool) {
        let leader = &self.leaders[group as usize - 1];
        if leads {
            leader.store(store as u8, Relaxed);
        } else {
            let _ = leader.compare_exchange(store as u8, 0, Relaxed, Relaxed);
        }
    }

    /// `store` is gone: it leads nothing.
    pub fn depose(&self, store: u64) {
        for group in 1..=self.groups() {
            self.set_leader(group, store, false);
        }
    }

    pub fn led(&self) -> u64 {
        self.leaders.iter().filter(|leader| leader.load(Relaxed) != 0).count() as u64
    }

    pub fn groups(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn applied(&self, store: u64, group: u64) -> u64 {
        self.applied[store as usize - 1][group as usize - 1].load(Relaxed)
    }

    pub fn set_applied(&self, store: u64, group: u64, index: u64) {
        self.applied[store as usize - 1][group as usize - 1].store(index, Relaxed);
    }

    pub fn totals(&self, store: u64) -> &Totals {
        &self.totals[store as usize - 1]
    }

    /// How far the furthest replica of each group has applied.
    pub fn furthest(&self) -> Vec<u64> {
        let stores = 1..=STORES as u64;
        let furthest = |group| stores.clone().map(|store| self.applied(store, group)).max().unwrap_or(0);
        (1..=self.groups()).map(furthest).collect()
    }

    /// Groups of `store` that have not reached `target`.
    pub fn behind(&self, store: u64, target: &[u64]) -> usize {
        let groups = 1..=self.groups();
        groups.zip(target).filter(|(group, target)| self.applied(store, *group) < **target).count()
    }

    /// Groups whose replicas are not all at one index.
    pub fn apart(&self) -> usize {
        let furthest = self.furthest();
        let stores = 1..=STORES as u64;
        stores.map(|store| self.behind(store, &furthest)).max().unwrap_or(0)
    }

    /// Keeps only the first failure.
    pub fn fail(&self, what: impl Into<String>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| what.into());
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
