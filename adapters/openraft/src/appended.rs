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

    /// Where the log has all that lies before this index, if that is committed. An index is the slot of the entry before it.
    pub fn place_of_committed(&self, end: u64) -> Option<Lsn> {
        if end > self.committed.load(Ordering::Acquire) {
            return None;
        }
        self.batches().iter().rev().find(|&&(first, _)| first <= end).map(|&(_, lsn)| lsn)
    }

    fn batches(&self) -> MutexGuard<'_, VecDeque<(u64, Lsn)>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
