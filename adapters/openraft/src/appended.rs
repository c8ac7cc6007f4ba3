//! Appends that may not be durable yet: who reads what is committed waits for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use strandlog::Lsn;

#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// The first slot of each, and where it is in the log: in the order of the log, and each takes what lay from its first slot on.
    batches: Mutex<VecDeque<(u64, Lsn)>>,
    /// openraft said that everything before this index is committed.
    committed: AtomicU64,
}

impl Appended {
    /// Entries from this slot on are submitted. Those that are durable are forgotten.
    pub fn push(&self, first: u64, lsn: Lsn, durable: Lsn) {
        let mut batches = self.batches();
        while batches.front().is_some_and(|&(_, lsn)| lsn <= durable) {
            batches.pop_front();
        }
        batches.push_back((first, lsn));
    }

    /// All before this index is committed.
    pub fn commit(&self, next: u64) {
        self.committed.fetch_max(next, Ordering::AcqRel);
    }

    /// Up to which index the entries from `next` to `end` may be handed out: all, if they are not all committed, else those that are durable. The place that has
    /// to be durable first, where there is none. An index is the slot of the entry before it.
    pub fn durable_from(&self, next: u64, end: u64, durable: Lsn) -> Result<u64, Lsn> {
        if next >= end || end > self.committed.load(Ordering::Acquire) {
            return Ok(end);
        }
        let batches = self.batches();
        // They are the last ones: each may begin before those that it takes the place of.
        let waiting = batches.iter().rev().take_while(|&&(_, lsn)| lsn > durable);
        match waiting.clone().map(|&(first, _)| first.saturating_sub(1)).min() {
            Some(begins) if begins <= next && begins < end => {
                let holds = waiting.clone().find(|&&(first, _)| first <= next.saturating_add(1));
                holds.map_or(Ok(end), |&(_, lsn)| Err(lsn))
            }
            Some(begins) => Ok(begins.min(end)),
            None => Ok(end),
        }
    }

    fn batches(&self) -> MutexGuard<'_, VecDeque<(u64, Lsn)>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
