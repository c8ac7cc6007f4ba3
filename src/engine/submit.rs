//! Submitting: a batch gets its place in the log, or a reason why not.

use std::cell::Cell as ThreadCell;
use std::time::Instant;

use super::admit::{Admission, NoRoom};
use super::patience::Patience;
use super::plan::Plan;
use super::relief::Lack;
use super::{Ending, Engine};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::journal::{Class, SealedFrame, Sequencer, Standing, Ticket, Waits, Whom, wake_all};
use crate::lsn::Lsn;
use crate::sync::{Arc, MutexGuard, thread_local};

/// Whom this thread is telling something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Telling {
    Nobody,
    /// Nobody, but the thread is a log's own: a task that it wakes must not wait for the log's end.
    Own,
    /// What they submit must not wait: this thread may be the one that it would wait for.
    Listeners,
    /// Listeners, on a thread of a log's own. They may not wait for any frame either: this thread may be the one that writes it.
    ListenersOfOwn,
    /// These may not wait for any frame either: no other one is completed before they return.
    Callbacks,
}

impl Telling {
    /// Whom the thread is telling when it tells these, too.
    fn and(self, whom: Self) -> Self {
        match (self, whom) {
            (Self::Own, Self::Listeners) => Self::ListenersOfOwn,
            (before, whom) => before.max(whom),
        }
    }
}

thread_local! {
    // Not `const`: loom's macro does not know that. It has nothing to drop, so a thread that is ending still has it.
    #[allow(clippy::missing_const_for_thread_local)]
    pub(super) static TELLING: ThreadCell<Telling> = ThreadCell::new(Telling::Nobody);
    #[allow(clippy::missing_const_for_thread_local)]
    static SCRATCH: ThreadCell<Option<Box<Scratch>>> = ThreadCell::new(None);
}

/// What a submission needs while it lasts; kept by its thread for the next one.
#[derive(Debug, Default)]
struct Scratch {
    plan: Plan,
    adm: Admission,
}

/// What to do when there is no room at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Wait.
    Block,
    /// Say `Busy`.
    Try,
    /// Say `Busy`, and be told when to ask again. Before the task was `relieved` ([`Engine::ask_for_relief`]), `Full` is no last word, and
    /// no listener is told of it. If only the cleaner can make room, and it failed since it had failed `failures` times, its error is the
    /// last word; if it gained nothing until `patience` was over, `Full` is.
    Async { relieved: bool, failures: Option<u64>, patience: Option<Patience> },
}

/// Where the batch went.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub lsn: Lsn,
    pub ticket: Arc<Ticket>,
    /// The writer thread will write its frame. Never set for a frame of lazy batches, which nobody writes unless it is wanted.
    pub writer_busy: bool,
    /// The frame that a caller which asked to lead must write first.
    pub taken: Option<Box<SealedFrame>>,
}

/// What [`Error::UsedUp`] says of the journal's bytes.
pub(crate) const USED_UP_BYTES: &str = "3 EiB of journal";
/// What it says of sessions.
pub(crate) const USED_UP_OPENINGS: &str = "three thousand million openings";

/// A batch of so many operations holds the sequencer about as long as it takes to fall asleep and be woken.
const MANY: usize = 32;

/// How often in a row a relief may make room that is not enough, although the log did not move.
const UNMOVED_RELIEFS: u32 = 3;

/// Whether the log still takes any batch at all.
fn takes_batches(s: &Sequencer) -> Result<()> {
    if let Some(why) = &s.stopped {
        return Err(why.clone());
    }
    if s.is_used_up() {
        return Err(Error::UsedUp { what: USED_UP_BYTES });
    }
    Ok(())
}

/// What is submitted in here does not wait.
pub(crate) fn without_waiting<T>(f: impl FnOnce() -> T) -> T {
    telling(Telling::Listeners, f)
}

pub(crate) fn telling<T>(whom: Telling, f: impl FnOnce() -> T) -> T {
    let _told = Told::begin(whom);
    f()
}

/// Runs `f` as if the thread told nobody anything: for a log that nobody else knows yet, so that nothing that is told by it can wait for
/// it, nor it for that. The thread that opens it may be in another log's callback, and is there again behind this: endings left with the
/// thread are not finished in here.
pub(crate) fn among_ourselves<T>(f: impl FnOnce() -> T) -> T {
    let _told = Told(TELLING.with(|t| t.replace(Telling::Own)));
    f()
}

/// While this lives the thread is telling somebody something. A guard: a panic that unwinds through it leaves nothing behind.
pub(super) struct Told(Telling);

impl Told {
    pub fn begin(whom: Telling) -> Self {
        let before = TELLING.with(|t| t.replace(t.get().and(whom)));
        Self(before)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        TELLING.with(|t| t.set(self.0));
        if self.0 == Telling::Nobody {
            Ending::finish_those_left();
        }
    }
}

impl Engine {
    /// Checks, admits and applies the batch: readable on return.
    ///
    /// `lead`: the caller means to write the frame itself, so nobody is woken for it; it is taken at once, if that is allowed. Were it
    /// taken under a second lock, another batch could join it in between, whose caller would have to be woken, though it could have led a
    /// frame of its own.
    pub(crate) fn submit(
        &self,
        batch: &mut Batch,
        mode: Mode,
        whom: Option<Whom<'_>>,
        lead: bool,
    ) -> Result<Submitted> {
        let mut whom = whom;
        self.submit_told(batch, mode, &mut whom, lead)
    }

    /// As [`Engine::submit`]; `whom` is taken only if the batch is accepted.
    pub(crate) fn submit_told(
        &self,
        batch: &mut Batch,
        mode: Mode,
        whom: &mut Option<Whom<'_>>,
        lead: bool,
    ) -> Result<Submitted> {
        self.writable()?;
        batch.check()?;
        // Taken, not borrowed: while this one waits, callbacks may submit on the same thread. A thread that is ending may not have it any
        // more.
        let mut scratch = SCRATCH.try_with(ThreadCell::take).ok().flatten().unwrap_or_default();
        let mut standing = Standing::default();
        let outcome = self.submit_with(batch, mode, whom, lead, &mut scratch, &mut standing);
        if standing.was_last {
            self.let_tasks_in();
        }
        scratch.adm.clear();
        // Their buffers may be the batch's, and are not kept alive for it.
        scratch.plan.pieces.clear();
        let _ = SCRATCH.try_with(|s| s.set(Some(scratch)));
        outcome
    }

    /// Whether the batch would be refused as things stand, whatever room there is. Changes nothing.
    pub(crate) fn check(&self, batch: &mut Batch) -> Result<()> {
        self.writable()?;
        batch.check()?;
        let mut scratch = Scratch::default();
        self.plan(batch, &mut scratch.plan)?;
        scratch.adm.resolve(&self.registry, batch);
        let s = self.seq.lock();
        takes_batches(&s)?;
        self.validate(batch, &scratch.plan, &mut scratch.adm)
    }

    fn submit_with(
        &self,
        batch: &Batch,
        mode: Mode,
        whom: &mut Option<Whom<'_>>,
        lead: bool,
        scratch: &mut Scratch,
        standing: &mut Standing,
    ) -> Result<Submitted> {
        let Scratch { plan, adm } = scratch;
        let mode =
            if mode == Mode::Block && TELLING.with(ThreadCell::get) >= Telling::Listeners { Mode::Try } else { mode };
        self.plan(batch, plan)?;
        adm.resolve(&self.registry, batch);
        let (mut hopeless, mut stood, mut unmoved) = (false, 0, 0);
        let (mut patience, mut last_resort) = (None, false);
        let mut waits = Waits::default();
        // So that two callers with many replicas each do not send each other to sleep.
        let mut s = if batch.ops.len() >= MANY { self.seq.lock_awake() } else { self.seq.lock() };
        loop {
            takes_batches(&s)?;
            let (waiting, limit) = (s.waiting_bytes(), self.run.queue_bytes as u64);
            let full = waiting > 0 && waiting + plan.bytes() > limit;
            if full || !standing.is_next(&s.line) {
                // Also for a caller that does not wait: lazy batches would never make room for it when it comes again.
                s.open.wanted |= s.open.batches > 0;
                if mode != Mode::Block {
                    self.wake_writer(&s);
                    return Err(Error::Busy { queued: waiting, limit });
                }
                let asked = Instant::now();
                s = if standing.join(&mut s.line) { self.wait_for_writer(s) } else { self.wait_in_line(s) };
                waits.queue += asked.elapsed();
                continue;
            }
            if standing.leave(&mut s.line) {
                // The caller that is first now may fit as well.
                self.room.notify_all();
            }
            self.validate(batch, plan, adm)?;
            let (free, grow) = (s.free_with_room(adm.class), mode == Mode::Block || self.run.background);
            let room = self.admit(adm, &s.accounts, free, grow);
            if let Err(why) = room {
                if why.grow {
                    if mode != Mode::Block {
                        s.accounts.press();
                        self.ask_cleaner(mode)?;
                        return Err(Error::Busy { queued: waiting, limit });
                    }
                    let budget = s.accounts.budget();
                    drop(s);
                    self.grow_for_carried(budget)?;
                    s = self.seq.lock();
                    continue;
                }
                let stands = s.open.here();
                drop(s);
                if matches!(mode, Mode::Async { relieved: false, .. }) {
                    return Err(Error::Full(why.lack.report(self.geo.chunk_bytes)));
                }
                if mode != Mode::Block || hopeless {
                    return Err(self.full(plan, why));
                }
                hopeless = !self.make_room_for(why.lack)?;
                // Others took the room that was made, or nothing moves.
                unmoved = if stands == stood { unmoved + 1 } else { 0 };
                hopeless |= unmoved > UNMOVED_RELIEFS;
                stood = stands;
                s = self.seq.lock();
                continue;
            }
            let table = plan.table + adm.creating();
            let class = match adm.class {
                Class::Keep if last_resort => Class::Clean,
                Class::Keep if s.is_stuck() && self.lets_go(batch, adm) => Class::LetGo,
                class => class,
            };
            if !s.make_room(plan.payload, table, class, &self.segment_map) {
                // A frame that was closed to make room is ready to be written.
                self.wake_writer(&s);
                let waited = match mode {
                    Mode::Block => Some(Patience::go_on(patience, self, &s)),
                    Mode::Async { patience, .. } => patience,
                    Mode::Try => Some(self.patience_of_pollers(&s)),
                };
                if waited.is_some_and(|waited| waited.is_over(self, &s, class)) {
                    s.stuck |= s.gained() <= s.leaves(Class::Keep);
                    if mode == Mode::Try {
                        self.polled_enough();
                    }
                    // Only a batch that frees something can help the cleaner: it gets some of what is kept for it.
                    if !last_resort && adm.class == Class::Keep && self.lets_go(batch, adm) {
                        // At first only what the cleaner can do without for a while.
                        last_resort = class == Class::LetGo || !s.is_stuck();
                        continue;
                    }
                    drop(s);
                    return Err(self.full(plan, NoRoom { lack: Lack::Carried(0), kept: 0, grow: false }));
                }
                if mode != Mode::Block {
                    self.ask_cleaner(mode)?;
                    return Err(Error::Busy { queued: waiting, limit });
                }
                patience = waited;
                let asked = Instant::now();
                s = self.wait_for_cleaner(s)?;
                waits.cleaner += asked.elapsed();
                continue;
            }
            self.apply(&mut s, batch, plan, adm);
            // Not where it took what is kept for the cleaner: nothing was gained then, and nobody else must wait longer for it.
            s.accepted += u64::from(class == adm.class);
            s.open.times.joined(waits);
            return Ok(self.submitted(&mut s, batch.lazy, whom.take(), lead));
        }
    }

    /// The last step of every submission, the cleaner's among them.
    pub(crate) fn submitted(&self, s: &mut Sequencer, lazy: bool, whom: Option<Whom<'_>>, lead: bool) -> Submitted {
        let lsn = Lsn(s.open.here());
        let ticket = Arc::clone(&s.open.ticket);
        if let Some(whom) = whom {
            s.open.notices.add(lsn, whom);
        }
        // A lazy batch causes no write, unless the queue fills with lazy ones. Nor does an empty frame, which may have no place.
        s.open.wanted |= s.open.batches > 0 && (!lazy || s.waiting_bytes() > self.run.queue_bytes as u64 / 2);
        if s.open.wanted && s.open.times.begun.is_none() {
            s.open.times.begun = Some(Instant::now());
        }
        if !lead {
            self.wake_writer(s);
        }
        let segment = s.segments.current();
        if s.nudged != segment && (s.segments.free.len() <= s.low_water() || s.accounts.wants_to_grow()) {
            s.nudged = segment;
            self.want_segments();
        }
        let writer_busy = s.open.wanted && self.writer_will(s);
        let taken = if lead && !writer_busy { s.take(self.durable(), &self.recent) } else { None };
        Submitted { lsn, ticket, writer_busy, taken }
    }

    pub(crate) fn wake_writer(&self, s: &Sequencer) {
        if s.writer_idle && s.has_work() {
            self.work.notify_one();
        }
    }

    /// Waits behind others: the first of them sees to it that there is room.
    fn wait_in_line<'a>(&'a self, s: MutexGuard<'a, Sequencer>) -> MutexGuard<'a, Sequencer> {
        self.counters.stalls.add(1);
        self.room.wait(s)
    }

    /// Nobody stands in line any more: wakes the tasks that were refused only for that. The line may end without a frame being written,
    /// which would wake them.
    fn let_tasks_in(&self) {
        let wakers = self.seq.lock().room_tasks.take();
        // This thread may have taken a frame that it has not written yet.
        let _told = Told::begin(Telling::Callbacks);
        wake_all(wakers);
    }

    fn wait_for_writer<'a>(&'a self, s: MutexGuard<'a, Sequencer>) -> MutexGuard<'a, Sequencer> {
        self.counters.stalls.add(1);
        if self.run.background {
            self.wake_writer(&s);
            return self.room.wait(s);
        }
        drop(s);
        self.lead_one();
        self.seq.lock()
    }

    fn wait_for_cleaner<'a>(&'a self, s: MutexGuard<'a, Sequencer>) -> Result<MutexGuard<'a, Sequencer>> {
        self.counters.stalls.add(1);
        if self.run.background {
            let (before, _) = self.cleaner.lock().failed;
            self.want_segments();
            let s = self.room.wait(s);
            self.cleaner.lock().failed_since(before)?;
            return Ok(s);
        }
        drop(s);
        self.clean_some()?;
        Ok(self.seq.lock())
    }

    /// For a caller that does not wait: asks the cleaner to make room for another attempt. A task that has waited for that already, or a
    /// poller that came before, is told why the cleaner failed.
    fn ask_cleaner(&self, mode: Mode) -> Result<()> {
        let failed = {
            let cleaner = self.cleaner.lock();
            match (mode, cleaner.polled) {
                (Mode::Async { failures: Some(before), .. }, _) => cleaner.failed_since(before),
                (Mode::Try, Some(polled)) => polled.failed(&cleaner),
                _ => Ok(()),
            }
        };
        if failed.is_err() && mode == Mode::Try {
            self.polled_enough();
        }
        failed?;
        self.want_segments();
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "submit_tests.rs"]
pub(super) mod tests;
