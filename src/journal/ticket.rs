//! The ticket: everything that waits for one frame.
//!
//! One ticket a frame, not one a batch: completion is one state change and one wake-up call, however many wait.

use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};

/// Waits for one frame to become durable, or to fail.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    done: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), Error>>,
    wakers: Vec<Waker>,
}

impl Ticket {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the outcome is known.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The outcome, if it is known.
    pub fn outcome(&self) -> Option<Result<()>> {
        if !self.is_done() {
            return None;
        }
        self.state.lock().outcome.clone()
    }

    /// Blocks until the outcome is known.
    pub fn wait(&self) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.changed.wait(state);
        }
    }

    /// Registers for a wake-up unless the outcome is known. The check and the registration are one step: no wake-up is lost.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        if !state.wakers.iter().any(|w| w.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Tells everybody. The first outcome stands.
    pub fn complete(&self, outcome: Result<()>) {
        let wakers = {
            let mut state = self.state.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            self.done.store(true, Ordering::Release);
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        // Outside of the lock: a waker may run the task at once.
        for waker in wakers {
            waker.wake();
        }
    }
}
