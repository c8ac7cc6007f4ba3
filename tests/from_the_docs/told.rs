//! What callbacks, sinks and futures are told: each once, in the order of the log, one at a time, and no success behind a failure.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strandlog::{Error, Lsn, Result, Sink, Wal};

use super::support::payload;

/// The replica that callbacks append to, one entry each.
pub const CHAIN: u64 = 900;
const CHAIN_TERM: u64 = 1;

pub fn chain_entry(index: u64) -> (u64, u64, strandlog::Bytes) {
    (index, CHAIN_TERM, payload(CHAIN, index, CHAIN_TERM, 40 + index as usize % 90))
}

#[derive(Debug, Default)]
pub struct Told {
    inside: AtomicBool,
    heard: Mutex<Vec<(u64, Result<Lsn>)>>,
    all: Condvar,
    /// How many entries of the chain were submitted, and how many of them are durable.
    pub chain: Mutex<u64>,
    pub chain_durable: AtomicU64,
}

impl Told {
    pub fn hear(&self, batches: &[u64], outcome: &Result<Lsn>) {
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two at a time");
        let mut heard = self.heard.lock().expect("no other panic");
        for n in batches {
            assert!(heard.iter().all(|(other, _)| other < n), "batch {n} is told late, or twice: {heard:?}");
            let before = heard.last().map(|(_, outcome)| outcome);
            if let Some(Ok(lsn)) = before {
                assert!(outcome.as_ref().is_ok_and(|now| now >= lsn) || outcome.is_err(), "{lsn} before {outcome:?}");
            }
            assert!(!matches!(before, Some(Err(_))) || outcome.is_err(), "something good behind a failure: {heard:?}");
            heard.push((*n, outcome.clone()));
        }
        self.all.notify_all();
        drop(heard);
        self.inside.store(false, Ordering::SeqCst);
    }

    /// Appends to the chain from a callback, which must not wait.
    pub fn append(self: &Arc<Self>, wal: &Wal) {
        let mut next = self.chain.lock().expect("no other panic");
        let mut batch = strandlog::Batch::new();
        batch.append(CHAIN, &[chain_entry(*next + 1)]);
        let (told, n) = (Arc::clone(self), *next + 1);
        let done = move |outcome: Result<Lsn>| {
            if outcome.is_ok() {
                told.chain_durable.fetch_max(n, Ordering::SeqCst);
            }
        };
        match wal.submit_with(&mut batch, done) {
            Ok(_) => *next = n,
            Err(
                Error::Busy { .. } | Error::Full(_) | Error::Poisoned { .. } | Error::Closed | Error::FileLost { .. },
            ) => {}
            Err(other) => panic!("a callback: {other}"),
        }
    }

    /// The newest batch that was told durable; first waits until the outcomes of `count` batches were told.
    pub fn newest(&self, count: usize) -> Option<u64> {
        let mut heard = self.heard.lock().expect("no other panic");
        while heard.len() < count {
            let (again, late) = self.all.wait_timeout(heard, Duration::from_secs(60)).expect("no other panic");
            heard = again;
            assert!(!late.timed_out(), "{} of {count} were told: {heard:?}", heard.len());
        }
        assert!(heard.len() <= count, "{count} were submitted: {heard:?}");
        heard.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(n, _)| *n).max()
    }
}

pub struct Tags(pub Arc<Told>);

impl Sink for Tags {
    fn done(&self, tags: &[u64], outcome: &Result<Lsn>) {
        self.0.hear(tags, outcome);
    }
}

/// Polls the future once and drops it.
pub fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => Some(out),
        Poll::Pending => None,
    }
}
