//! Callbacks, sinks and a listener. Each of them asks the log, while it is told, for everything that can be asked for.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Waker};

use strandlog::{Batch, Error, Event, Listener, Lsn, Pending, Result, Sink, Stats, Wal};

use crate::history::{Clock, Line, Read};
use crate::support::schedule::thread;

/// The replica that any callback or listener writes to.
pub const MEDDLED: u64 = 300;

/// A line, and one of its batches.
pub type Tag = (usize, usize);

/// A batch that belongs to no line: its LSN, and the bytes that it brought.
pub type Other = (u64, u64);

/// Whom the log is telling something.
#[derive(Clone, Copy, PartialEq)]
pub enum Whom {
    Callback,
    Listener,
    /// A caller that scrubs or verifies.
    Nobody,
}

#[derive(Default)]
pub struct World {
    pub clock: Clock,
    pub lines: Vec<Line>,
    pub reads: Mutex<Vec<Read>>,
    /// For any thread to wait for, or to drop.
    pub pending: Mutex<Vec<(Tag, Pending)>>,
    pub others: Mutex<Vec<Other>>,
    pub asked: AtomicU64,
    pub answered: AtomicU64,
    telling: AtomicBool,
    order: Mutex<Vec<(Option<Lsn>, bool)>>,
    pub wal: OnceLock<Weak<Wal>>,
    meddling: AtomicBool,
    meddled: AtomicU64,
    /// Panics in callbacks, which the log catches.
    pub wrong: Mutex<Vec<String>>,
    pub over: AtomicBool,
    pub cut: AtomicBool,
}

impl World {
    pub fn new(replicas: std::ops::Range<u64>) -> Arc<Self> {
        Arc::new(Self { lines: replicas.map(Line::new).collect(), ..Self::default() })
    }

    fn wal(&self) -> Option<Arc<Wal>> {
        self.wal.get().and_then(Weak::upgrade)
    }

    /// Runs what is told and records its panic, which the log catches: the test must fail all the same.
    fn remembered(&self, told: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(told)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(text.unwrap_or_default());
            resume_unwind(panic);
        }
    }

    /// Notes an outcome that is told: one at a time, in the order of the log, successes before failures.
    pub fn tell(&self, tags: &[Tag], outcome: &Result<Lsn>) {
        self.remembered(|| self.tell_all(tags, outcome));
    }

    fn tell_all(&self, tags: &[Tag], outcome: &Result<Lsn>) {
        assert!(!self.telling.swap(true, SeqCst), "two are told at once");
        self.answered.fetch_add(tags.len() as u64, SeqCst);
        for &(line, step) in tags {
            self.lines[line].told(step, outcome.is_ok());
        }
        if let Err(error) = outcome {
            assert!(matches!(error, Error::Poisoned { .. } | Error::Closed), "{error}");
        }
        self.order.lock().expect("no other panic").push((outcome.as_ref().ok().copied(), outcome.is_ok()));
        if let Some(wal) = self.wal() {
            if let Ok(lsn) = outcome {
                assert!(wal.durable_lsn() >= *lsn, "told of {lsn} while {} is durable", wal.durable_lsn());
            }
            self.meddle(&wal, Whom::Callback);
        }
        thread::yield_now();
        self.telling.store(false, SeqCst);
    }

    pub fn check_order(&self, what: &str) {
        assert_eq!(*self.wrong.lock().unwrap_or_else(PoisonError::into_inner), [""; 0], "{what}");
        let order = self.order.lock().expect("no panic");
        assert!(order.is_sorted_by_key(|(_, well)| !well), "{what}: {order:?}");
        assert!(order.iter().map_while(|(lsn, _)| *lsn).is_sorted(), "{what}: {order:?}");
        assert_eq!(self.answered.load(SeqCst), self.asked.load(SeqCst), "{what}: each is told once");
    }

    pub fn note_other(&self, lsn: Lsn, bytes: u64) {
        self.others.lock().expect("no other panic").push((lsn.get(), bytes));
    }

    /// Makes one call after the other, a different one each time.
    pub fn meddle(&self, wal: &Arc<Wal>, whom: Whom) {
        if self.meddling.swap(true, SeqCst) {
            return;
        }
        let n = self.meddled.fetch_add(1, SeqCst);
        let value = n.to_le_bytes();
        let put = || std::mem::take(Batch::new().put(MEDDLED, b"k", &value));
        let callback = whom == Whom::Callback;
        let outcome = match n % 16 {
            0 => wal.submit(put().lazy()).map(|pending| self.note_other(pending.lsn(), 9)),
            1 => wal.try_submit(put()).map(|pending| self.note_other(pending.lsn(), 9)),
            2 if callback => {
                let outcome = wal.commit(put()).map(drop);
                assert!(outcome.is_err(), "committed in a callback");
                outcome
            }
            3 => wal.sync().map(drop),
            4 if whom != Whom::Nobody => {
                let outcome = wal.close();
                assert!(matches!(outcome, Err(Error::Busy { .. })), "closed while it tells: {outcome:?}");
                Ok(())
            }
            5 => {
                let outcome = wal.checkpoint();
                assert!(!callback || outcome.is_err(), "cleaned in a callback");
                outcome
            }
            6 => wal.verify(|_| ()).map(drop),
            7 => wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).map(drop),
            8 => wal.submit(Batch::new().durable_applied(MEDDLED, n).lazy()).map(|p| self.note_other(p.lsn(), 0)),
            9 => wal.wait_durable(wal.durable_lsn()),
            10 => {
                let mut waits = Box::pin(wal.submit_async(put()));
                match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    std::task::Poll::Ready(outcome) => outcome.map(|pending| self.note_other(pending.lsn(), 9)),
                    std::task::Poll::Pending => Ok(()),
                }
            }
            11 => wal.submit_with(put(), drop).map(|lsn| self.note_other(lsn, 9)),
            12 => {
                let replica = wal.replica(n % 8);
                let (first, last) = replica.bounds();
                let _ = (
                    replica.entries(first..last.saturating_add(1), 1000),
                    replica.keys(),
                    replica.get(b"n"),
                    replica.term(first),
                );
                Ok(())
            }
            13 => {
                let _ = (wal.replicas(), wal.damage(), wal.capacity());
                wal.check()
            }
            _ => {
                wal.stats();
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.fine(&error);
        }
        self.meddling.store(false, SeqCst);
    }

    /// Asserts that a log may return this error.
    pub fn fine(&self, error: &Error) {
        let fine = match error {
            Error::Busy { .. } | Error::Full(_) => true,
            Error::Closed | Error::Poisoned { .. } => true,
            Error::Io { .. } => self.cut.load(SeqCst),
            _ => false,
        };
        assert!(fine, "{error}");
    }
}

pub struct Hears(pub Arc<World>);

impl Sink for Hears {
    fn done(&self, tags: &[u64], outcome: &Result<Lsn>) {
        let tags: Vec<Tag> = tags.iter().map(|tag| ((tag >> 32) as usize, *tag as u32 as usize)).collect();
        self.0.tell(&tags, outcome);
    }
}

/// Records the events, and meddles in each.
#[derive(Default)]
pub struct Heard {
    pub events: Mutex<Vec<Event>>,
    pub world: OnceLock<Weak<World>>,
}

impl Listener for Heard {
    fn event(&self, event: &Event) {
        self.events.lock().expect("no other panic").push(event.clone());
        if let Some(world) = self.world.get().and_then(Weak::upgrade)
            && let Some(wal) = world.wal()
        {
            world.remembered(|| world.meddle(&wal, Whom::Listener));
        }
    }
}

impl Heard {
    /// The events of all commits must add up to the figures.
    pub fn check(&self, stats: &Stats, what: &str, well: bool) {
        let events = self.events.lock().expect("no panic");
        let mut commits: Vec<_> =
            events.iter().filter_map(|e| if let Event::Committed(c) = e { Some(*c) } else { None }).collect();
        commits.sort_unstable_by_key(|commit| commit.lsn);
        assert!(commits.windows(2).all(|two| two[0].lsn < two[1].lsn), "{what}: told twice: {commits:?}");
        assert_eq!(commits.len() as u64, stats.frames, "{what}: commits that were told");
        let sum = |f: fn(&strandlog::Commit) -> u64| commits.iter().map(f).sum::<u64>();
        assert_eq!(sum(|c| c.batches), stats.batches, "{what}");
        assert_eq!(sum(|c| c.entries), stats.entries, "{what}");
        assert_eq!(sum(|c| c.user_bytes), stats.user_bytes, "{what}");
        assert_eq!(sum(|c| c.device_bytes), stats.journal_bytes + stats.placed_bytes, "{what}");
        assert_eq!(
            commits.last().map(|c| c.lsn.get()),
            Some(stats.durable_lsn).filter(|_| !commits.is_empty()),
            "{what}"
        );
        for histogram in [&stats.commit_micros, &stats.device_micros] {
            assert_eq!(histogram.count(), stats.frames, "{what}");
        }
        let freed: u64 =
            events.iter().map(|e| if let Event::SegmentsFreed { segments, .. } = e { *segments } else { 0 }).sum();
        assert!(
            !well || freed <= stats.segments_cleaned,
            "{what}: {freed} segments are free of {}",
            stats.segments_cleaned
        );
        let space: Vec<bool> = events
            .iter()
            .filter_map(|e| match e {
                Event::SpaceLow(_) => Some(true),
                Event::SpaceRecovered(_) => Some(false),
                _ => None,
            })
            .collect();
        assert!(space.first() != Some(&false) && space.windows(2).all(|two| two[0] != two[1]), "{what}: {space:?}");
    }
}
