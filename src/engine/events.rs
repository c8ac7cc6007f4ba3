//! The way to the listener: what happened is noted under any lock, and told outside of all.

use std::collections::VecDeque;
// Not from `crate::sync`: set and cleared under a lock, and a thread that does not see it yet is not the one that is to flush.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::holding::{LogId, is_holding};
use super::{Engine, without_waiting};
use crate::caught::{caught, said};
use crate::error::Damage;
use crate::events::{Commit, Event, Listener, Recovery, Space};
use crate::histogram::Buckets;
use crate::journal::{SealedFrame, Times};
use crate::lsn::Lsn;
use crate::sync::{Arc, Mutex};

/// Space is low when less than one part in this many is free ..
const LOW_PART: u64 = 10;
/// .. and is not low any more when this much of that is free, in percent: no flapping around the bound.
const ENOUGH_PERCENT: u64 = 150;

/// What was noted of space. **One thread at a time tells of it, in order**: else a listener that takes the last event for the present state
/// would be wrong until the next, which may never come.
#[derive(Default)]
struct Turns {
    /// Whether it was low when that was noted last.
    low: bool,
    noted: VecDeque<Event>,
    /// A thread is telling them, and goes on while there are any.
    telling: bool,
}

type Saying = Box<dyn FnOnce() + Send>;

/// The way to the listener, and to `tracing` subscribers. Without a listener no event is gathered.
#[derive(Default)]
pub(crate) struct Events {
    listener: Option<Arc<dyn Listener>>,
    slow: Option<Duration>,
    /// What happened while locks were held.
    pending: Mutex<Vec<Event>>,
    /// What is to be said of it to subscribers, which are other people's code as well; and whether there is any.
    sayings: Mutex<Vec<Saying>>,
    says: AtomicBool,
    /// Events that space is low, or is not.
    space: Mutex<Turns>,
    pub commit_micros: Buckets,
    pub device_micros: Buckets,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("listener", &self.listener.is_some()).finish_non_exhaustive()
    }
}

impl Events {
    pub fn new(listener: Option<Arc<dyn Listener>>, slow: Option<Duration>) -> Self {
        Self { listener, slow, ..Self::default() }
    }

    /// Identifies the log, by the address of these events: that does not change while a thread may hold its locks.
    pub fn log(&self) -> LogId {
        LogId(std::ptr::from_ref(self).addr())
    }

    /// Whether anybody is told.
    pub fn hears(&self) -> bool {
        self.listener.is_some()
    }

    /// Notes what happened; it is told by the thread that flushes next. May be called under any lock.
    pub fn later(&self, event: impl FnOnce() -> Event) {
        self.together(|| [event()]);
    }

    /// As [`Events::later`]; these are told by one thread, one behind the other.
    fn together<E: IntoIterator<Item = Event>>(&self, events: impl FnOnce() -> E) {
        if self.listener.is_some() {
            self.pending.lock().extend(events());
        }
    }

    /// Tells what happened, at once unless this thread holds locks.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if self.listener.is_some() {
            self.later(event);
            self.flush();
        }
    }

    /// Says it, at once unless this thread holds locks: a subscriber may ask the log for something.
    pub fn say(&self, say: impl FnOnce() + Send + 'static) {
        self.say_later(say);
        self.flush();
    }

    /// Notes what is to be said by the thread that flushes next. May be called under any lock.
    pub fn say_later(&self, say: impl FnOnce() + Send + 'static) {
        let mut sayings = self.sayings.lock();
        sayings.push(Box::new(say));
        self.says.store(true, Ordering::Relaxed);
    }

    /// Says and tells what was noted, unless this thread holds locks.
    pub fn flush(&self) {
        let says = self.says.load(Ordering::Relaxed);
        if !says && self.listener.is_none() || is_holding(self.log()) {
            return;
        }
        if says {
            let sayings = {
                let mut sayings = self.sayings.lock();
                self.says.store(false, Ordering::Relaxed);
                std::mem::take(&mut *sayings)
            };
            sayings.into_iter().for_each(|say| without_waiting(|| said(say)));
        }
        let Some(listener) = &self.listener else { return };
        let pending = std::mem::take(&mut *self.pending.lock());
        pending.iter().for_each(|event| told(&**listener, event));
        let mut mine = false;
        while let Some(event) = self.next_of_space(&mut mine) {
            told(&**listener, &event);
        }
    }

    /// What is to be told of space now, if this thread is the one that tells of it.
    fn next_of_space(&self, mine: &mut bool) -> Option<Event> {
        let mut space = self.space.lock();
        if space.telling && !*mine {
            return None;
        }
        let next = space.noted.pop_front();
        (space.telling, *mine) = (next.is_some(), next.is_some());
        next
    }
}

fn told(listener: &dyn Listener, event: &Event) {
    if without_waiting(|| caught(|| listener.event(event))).is_none() {
        said(|| tracing::error!(target: "strandlog", ?event, "a listener panicked"));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Engine {
    /// A frame is durable: counts how long it took, and says so.
    pub(crate) fn note_commit(&self, frame: &SealedFrame) {
        let events = &self.events;
        let Times { begun, device, waits } = frame.times;
        let total = begun.map_or(device, |at| at.elapsed());
        let commit = Commit {
            lsn: Lsn(frame.header.end()),
            batches: frame.user_batches,
            entries: frame.entries,
            user_bytes: frame.user_bytes,
            device_bytes: frame.header.bytes() + frame.placed.iter().map(|p| p.buf.len() as u64).sum::<u64>(),
            queued_micros: micros(total.saturating_sub(device) + waits.queue),
            device_micros: micros(device),
            cleaner_micros: micros(waits.cleaner),
        };
        events.commit_micros.record(commit.micros());
        events.device_micros.record(commit.device_micros);
        let is_slow = events.slow.is_some_and(|slow| u128::from(commit.micros()) > slow.as_micros());
        let slow = is_slow.then(|| {
            let reason = commit.reason();
            // Not said here, before waiters are told, and among callbacks, which are refused whatever waits.
            events.say_later(move || {
                tracing::warn!(
                    target: "strandlog",
                    lsn = commit.lsn.get(),
                    ?reason,
                    queued_micros = commit.queued_micros,
                    device_micros = commit.device_micros,
                    cleaner_micros = commit.cleaner_micros,
                    bytes = commit.device_bytes,
                    "a slow commit"
                )
            });
            Event::SlowCommit { commit, reason }
        });
        if events.hears() {
            // In one step: else another thread might take the first event, and be overtaken while it tells it.
            events.together(|| slow.into_iter().chain([Event::Committed(commit)]));
            self.watch_space();
        }
    }

    /// Says when space becomes low, and when it is not low any more.
    fn watch_space(&self) {
        let (reserved, free, carried, carried_limit, grows) = {
            let accounts = &self.seq.lock().accounts;
            let (reserved, free) = (accounts.reserved(), self.pool.lock().free());
            let grows = accounts.may_grow(free.saturating_sub(reserved + self.value_reserve));
            (reserved, free, accounts.carried(), accounts.budget(), grows)
        };
        let reserved = reserved + self.kept_for_values(reserved, free);
        let low = { self.events.space.lock().low };
        let is_low = |left: u64, of: u64| {
            let bound = of / LOW_PART;
            left < if low { bound * ENOUGH_PERCENT / 100 } else { bound }
        };
        let now = is_low(free.saturating_sub(reserved), self.geo.chunks.into())
            // What the journal carries has no other place than the journal.
            || !grows && is_low(carried_limit.saturating_sub(carried), carried_limit);
        let mut space = self.events.space.lock();
        // Unless another thread has noted something else meanwhile. The decision and the note are one step: nobody is told "low" of what is
        // not.
        if now != low && space.low == low {
            space.low = now;
            let chunk = u64::from(self.geo.chunk_bytes);
            let left = Space { free: free * chunk, reserved: reserved * chunk, carried, carried_limit };
            let event = if now { Event::SpaceLow(left) } else { Event::SpaceRecovered(left) };
            space.noted.push_back(event);
        }
    }

    /// Says what the opening found.
    pub(crate) fn note_recovery(&self, replicas: u64, found: Vec<Damage>) {
        let damage = found.len() as u64;
        let _told_after_all = self.hold();
        for lost in found {
            tracing::error!(target: "strandlog", damage = %lost, "damage found at the opening");
            self.events.later(|| Event::Damaged(lost));
        }
        let c = &self.counters;
        let found = Recovery {
            micros: c.recovery_micros.get(),
            frames: c.recovered_frames.get(),
            lost_frames: c.lost_frames.get(),
            dropped_frames: c.dropped_frames.get(),
            replicas,
            damage,
        };
        tracing::info!(
            target: "strandlog",
            micros = found.micros,
            frames = found.frames,
            lost_frames = found.lost_frames,
            dropped_frames = found.dropped_frames,
            replicas = found.replicas,
            damage,
            "recovered"
        );
        self.events.tell(|| Event::Recovered(found));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "events_tests.rs"]
mod tests;
