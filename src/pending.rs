//! Waiting for durability: by blocking, by awaiting, or not at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::Batch;
use crate::engine::{Engine, Mode, Submitted};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::sync::Arc;

/// A submitted batch that is readable already and durable later.
///
/// Dropping it gives up the notice, not the batch.
#[derive(Debug)]
#[must_use = "the batch is not durable before this says so"]
pub struct Pending {
    pub(crate) engine: Arc<Engine>,
    pub(crate) submitted: Submitted,
}

impl Pending {
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
    /// [`Error::Poisoned`] when a write or a sync failed, [`Error::Closed`] when the log was dropped first: the batch may or may
    /// not be there after the next opening.
    pub fn wait(self) -> Result<Lsn> {
        self.engine.drive(&self.submitted.ticket)?;
        Ok(self.lsn())
    }
}

impl Future for Pending {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if !this.engine.run.background {
            return Poll::Ready(this.engine.drive(&this.submitted.ticket).map(|()| this.submitted.lsn));
        }
        // A lazy batch that is awaited is wanted.
        this.engine.want(&this.submitted.ticket);
        this.submitted.ticket.poll(cx).map(|outcome| outcome.map(|()| this.submitted.lsn))
    }
}

/// Submits once the queue has room: the asynchronous way in. Made by [`Wal::submit_async`](crate::Wal::submit_async).
#[derive(Debug)]
#[must_use = "nothing is submitted before this is awaited"]
pub struct SubmitFuture<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) batch: Batch,
}

impl Future for SubmitFuture<'_> {
    type Output = Result<Pending>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Without threads nobody else would ever make room.
        let mode = if this.engine.run.background { Mode::Try } else { Mode::Block };
        // Registered before the attempt: room made in between is not missed.
        this.engine.seq.lock().room_wakers.push(cx.waker().clone());
        match this.engine.submit(&this.batch, mode, None, false) {
            Err(Error::Busy { .. }) => Poll::Pending,
            outcome => {
                let engine = Arc::clone(this.engine);
                Poll::Ready(outcome.map(|submitted| Pending { engine, submitted }))
            }
        }
    }
}
