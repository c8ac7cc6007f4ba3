//! Waiting for durability: by blocking, by awaiting, or not at all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::Batch;
use crate::engine::{Engine, Mode, Patience, Relieved, Submitted};
use crate::error::{Error, Result};
use crate::journal::{Class, Seat, Whom};
use crate::lsn::Lsn;
use crate::sync::Arc;

/// A submitted batch: readable already, durable later. Wait for it, or await it.
///
/// Dropping it gives up the notification, not the batch.
#[derive(Debug)]
#[must_use = "the batch is not durable before this says so"]
pub struct Pending {
    engine: Arc<Engine>,
    submitted: Submitted,
    /// Its task has said that it waits.
    wanted: bool,
    seat: Seat,
}

impl Pending {
    pub(crate) fn new(engine: &Arc<Engine>, submitted: Submitted) -> Self {
        Self { engine: Arc::clone(engine), submitted, wanted: false, seat: Seat::default() }
    }

    /// The batch's LSN: it is durable when [`Wal::durable_lsn`](crate::Wal::durable_lsn) has reached it.
    pub fn lsn(&self) -> Lsn {
        self.submitted.lsn
    }

    /// Whether the outcome is known.
    pub fn is_done(&self) -> bool {
        self.submitted.ticket.is_done()
    }

    /// Blocks until the batch is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::FileLost`] if a write or a sync failed, or the file is gone; [`Error::Closed`] if the log was dropped first. After any of
    /// these the batch may or may not be there at the next opening. [`Error::Busy`] if it would have to wait, in a callback or in a listener on a thread of the log.
    pub fn wait(self) -> Result<Lsn> {
        self.engine.drive(&self.submitted.ticket)?;
        Ok(self.lsn())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.seat.was_taken() && !self.submitted.ticket.is_done() {
            self.submitted.ticket.leave(&mut self.seat);
        }
    }
}

impl Future for Pending {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { engine, submitted, wanted, seat } = self.get_mut();
        let Submitted { lsn, ticket, .. } = submitted;
        if let Some(outcome) = ticket.outcome() {
            return Poll::Ready(outcome.map(|()| *lsn));
        }
        if !engine.run.background {
            return Poll::Ready(engine.drive(ticket).map(|()| *lsn));
        }
        // A lazy batch that is awaited is wanted. Saying so once is enough, whatever wakes the task.
        if !std::mem::replace(wanted, true) {
            engine.want(ticket);
        }
        ticket.poll(seat, cx.waker()).map(|outcome| outcome.map(|()| *lsn))
    }
}

/// Submits once the queue has room. Returned by [`Wal::submit_async`](crate::Wal::submit_async).
///
/// Dropping it before it is done submits nothing.
#[derive(Debug)]
#[must_use = "nothing is submitted before this is awaited"]
pub struct SubmitFuture<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) batch: Batch,
    pub(crate) waits: Waits,
}

/// What a task remembers from one attempt to the next.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// The request for relief that was made when the log was found full.
    relief: Option<u64>,
    /// How often the cleaner had failed when the batch first had to wait.
    failures: Option<u64>,
    /// What it has seen of the cleaner since.
    patience: Option<Patience>,
    seat: Seat,
}

impl Waits {
    /// Waits no longer: it may be long before room is made, and then a task that is gone would be woken.
    fn end(&mut self, engine: &Engine) {
        if self.seat.was_taken() {
            let left = engine.seq.lock().room_tasks.leave(&mut self.seat);
            drop(left);
        }
    }
}

impl Drop for SubmitFuture<'_> {
    fn drop(&mut self) {
        self.waits.end(self.engine);
    }
}

impl Future for SubmitFuture<'_> {
    type Output = Result<Pending>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let submitted = poll_submit(this.engine, &mut this.batch, &mut None, &mut this.waits, cx);
        submitted.map_ok(|submitted| Pending::new(this.engine, submitted))
    }
}

/// Submits once the queue has room, and calls back when the batch is durable. Returned by
/// [`Wal::submit_with_async`](crate::Wal::submit_with_async).
#[must_use = "nothing is submitted before this is awaited"]
pub struct SubmitWithFuture<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) batch: Batch,
    /// Taken by the submission that is accepted.
    pub(crate) whom: Option<Whom<'static>>,
    pub(crate) waits: Waits,
}

impl Drop for SubmitWithFuture<'_> {
    fn drop(&mut self) {
        self.waits.end(self.engine);
    }
}

impl Future for SubmitWithFuture<'_> {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let submitted = poll_submit(this.engine, &mut this.batch, &mut this.whom, &mut this.waits, cx);
        submitted.map_ok(|submitted| submitted.lsn)
    }
}

impl fmt::Debug for SubmitWithFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitWithFuture").field("batch", &self.batch).finish_non_exhaustive()
    }
}

fn poll_submit(
    engine: &Engine,
    batch: &mut Batch,
    whom: &mut Option<Whom<'static>>,
    waits: &mut Waits,
    cx: &Context<'_>,
) -> Poll<Result<Submitted>> {
    let background = engine.run.background;
    let mut registered = false;
    loop {
        let outcome = waits.relief.map_or(Relieved::NotYet, |request| engine.relieved(request));
        // If the cleaner has gone around in vain, again and again, there is no other relief.
        let over = waits.patience.is_some_and(|p| p.is_over(engine, &engine.seq.lock(), Class::Grow));
        let relieved = outcome == Relieved::Hopeless || over;
        // If others have taken the room that was made, it is asked for again.
        if outcome == Relieved::Made {
            waits.relief = None;
        }
        // Without threads nobody else would ever make room.
        let Waits { failures, patience, .. } = *waits;
        let mode = if background { Mode::Async { relieved, failures, patience } } else { Mode::Block };
        match engine.submit_told(batch, mode, whom, false) {
            Err(Error::Busy { .. }) => {
                waits.failures.get_or_insert_with(|| engine.cleaner.lock().failed.0);
                waits.patience = Some(Patience::go_on(patience, engine, &engine.seq.lock()));
            }
            Err(Error::Full(report)) if background && !relieved => {
                waits.relief.get_or_insert_with(|| engine.ask_for_relief(&report));
            }
            outcome => return Poll::Ready(outcome),
        }
        // Registered before the last attempt, so that room made in between is not missed.
        if std::mem::replace(&mut registered, true) {
            return Poll::Pending;
        }
        // Outside the lock: a waker is other people's code.
        let waker = cx.waker().clone();
        let left = engine.seq.lock().room_tasks.wait(&mut waits.seat, waker);
        drop(left);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::Wal;
    use crate::disk::sim::SimDisk;

    /// Everybody needs that lock: a task that only looks once more leaves it alone.
    #[test]
    fn a_task_that_is_done_or_has_asked_takes_no_part_in_the_sequencer() {
        let wal = Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(SimDisk::new(4 << 20)));
        let wal = wal.expect("formatted");
        let mut pending = wal.submit(Batch::new().put(1, b"k", b"v").lazy()).expect("submitted");
        let looks = |pending: &mut Pending| {
            let (tell, told) = mpsc::channel();
            let locked = wal.engine.seq.lock();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut cx = Context::from_waker(std::task::Waker::noop());
                    let _ = tell.send(Pin::new(pending).poll(&mut cx).is_ready());
                });
                let looked = told.recv_timeout(Duration::from_secs(5));
                drop(locked);
                looked
            })
        };
        wal.sync().expect("durable");
        assert_eq!(looks(&mut pending), Ok(true), "it is done");
        // A ticket that nobody writes: a call that wants it is held up.
        let ticket = Arc::new(crate::journal::Ticket::new());
        let submitted = Submitted { lsn: Lsn(1), ticket, writer_busy: false, taken: None };
        let mut pending = Pending::new(&wal.engine, submitted);
        assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert_eq!(looks(&mut pending), Ok(false), "it has asked");
    }

    struct Task;

    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    /// Futures that are given up, one after the other, while the disk stands still.
    #[test]
    fn a_future_that_is_dropped_leaves_nothing_of_its_task() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).queue_bytes(64 << 10);
        let wal = options.open_disk(disk.clone()).expect("formatted");
        let (go, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        disk.on_event(move |_| {
            let _ = held.lock().expect("no panic").recv();
            None
        });
        let big = || {
            let mut batch = Batch::new();
            batch.put(1, b"k", &[1; 4000]);
            batch
        };
        let first = wal.submit(big()).expect("room");
        while wal.try_submit(big()).is_ok() {}
        let task = Arc::new(Task);
        let waker = std::task::Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let mut waits = |future: Pin<&mut dyn Future<Output = ()>>| assert!(future.poll(&mut cx).is_pending());
        for _ in 0..100 {
            waits(std::pin::pin!(async { drop(wal.submit_async(big()).await) }));
            waits(std::pin::pin!(async { drop(wal.submit_with_async(big(), |_| ()).await) }));
            waits(std::pin::pin!(async { drop(wal.wait_durable_async(first.lsn()).await) }));
        }
        assert_eq!(Arc::strong_count(&task), 2, "of those that are gone");
        // Nor their seats: two futures take seats that many had.
        let [mut one, mut other] = [wal.submit_async(big()), wal.submit_async(big())];
        assert!(Pin::new(&mut one).poll(&mut cx).is_pending() && Pin::new(&mut other).poll(&mut cx).is_pending());
        assert_eq!((Arc::strong_count(&task), wal.engine.seq.lock().room_tasks.seats()), (4, 2));
        drop(one);
        assert_eq!(Arc::strong_count(&task), 3, "the other waits");
        drop(go);
        first.wait().expect("durable");
        let begun = std::time::Instant::now();
        while Arc::strong_count(&task) > 2 {
            assert!(begun.elapsed().as_secs() < 30, "it is never woken");
            std::thread::yield_now();
        }
    }
}
