//! Appends that may not be durable yet: readers of committed entries wait for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use strandlog::Lsn;

#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// First slot and LSN of each append, in log order. Each overwrites everything from its first slot on.
    batches: Mutex<VecDeque<(u64, Lsn)>>,
    /// openraft reported everything before this index as committed.
    committed: AtomicU64,
}

impl Appended {
    /// An append of entries from slot `first` on was submitted. Forgets the appends that are durable.
    pub fn push(&self, first: u64, lsn: Lsn, durable: Lsn) {
        let mut batches = self.batches();
        while batches.front().is_some_and(|&(_, lsn)| lsn <= durable) {
            batches.pop_front();
        }
        batches.push_back((first, lsn));
    }

    /// Everything before this index is committed.
    pub fn commit(&self, next: u64) {
        self.committed.fetch_max(next, Ordering::AcqRel);
    }

    /// The index up to which entries from `next` to `end` may be handed out: `end` if not all of them are committed, otherwise up to the first
    /// that is not durable. If that is `next`, the LSN that must be durable first. An index is also the slot of the entry before it.
    pub fn durable_from(&self, next: u64, end: u64, durable: Lsn) -> Result<u64, Lsn> {
        if next >= end || end > self.committed.load(Ordering::Acquire) {
            return Ok(end);
        }
        let batches = self.batches();
        // The appends that are not durable are the last ones. Each may begin before earlier ones, which it overwrites.
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
