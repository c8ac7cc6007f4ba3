//! The ticket: everything that waits for one frame.
//!
//! One ticket a frame, not one a batch: completion is one state change and one wake-up call, however many wait.

use std::task::{Poll, Waker};

use super::gate::Gate;
use super::tasks::{Seat, Tasks, wake_all};
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// Waits for one frame to become durable, or to fail.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    gate: Gate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: bool,
    /// Why the frame is not durable.
    failure: Option<Error>,
    tasks: Tasks,
}

impl Ticket {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the outcome is known.
    pub fn is_done(&self) -> bool {
        self.gate.is_open().is_some()
    }

    /// The outcome, if it is known.
    pub fn outcome(&self) -> Option<Result<()>> {
        self.gate.is_open().map(|well| self.told(well))
    }

    /// The outcome, once the gate is open. A crowd released by success takes no lock.
    fn told(&self, well: bool) -> Result<()> {
        if well { Ok(()) } else { self.state.lock().failure.clone().map_or(Ok(()), Err) }
    }

    /// Blocks until the outcome is known.
    pub fn wait(&self) -> Result<()> {
        let well = self.gate.wait();
        self.told(well)
    }

    /// Registers for a wake-up unless the outcome is known. The check and the registration are one step: no wake-up is lost.
    pub fn poll(&self, seat: &mut Seat, waker: &Waker) -> Poll<Result<()>> {
        // Cloned outside of the lock, as what is left is dropped: a waker is other people's code.
        let waker = waker.clone();
        let mut state = self.state.lock();
        if state.done {
            return Poll::Ready(state.failure.clone().map_or(Ok(()), Err));
        }
        let left = state.tasks.wait(seat, waker);
        drop(state);
        drop(left);
        Poll::Pending
    }

    /// The task waits no more.
    pub fn leave(&self, seat: &mut Seat) {
        let left = self.state.lock().tasks.leave(seat);
        // Outside of the lock: the task may go with it.
        drop(left);
    }

    /// Tells everybody. The first outcome stands.
    pub fn complete(&self, outcome: Result<()>) {
        let well = outcome.is_ok();
        let wakers = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.done, true) {
                return;
            }
            state.failure = outcome.err();
            state.tasks.take()
        };
        // After the outcome was written: all that pass the gate find it.
        self.gate.open(well);
        // Outside of the lock: a waker may run the task at once.
        wake_all(wakers);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::{Duration, Instant};

    use super::*;

    struct Noop;

    impl Wake for Noop {
        fn wake(self: Arc<Self>) {}
    }

    /// Cloning a waker runs its executor's code, as waking does: that may call the log.
    #[test]
    fn a_waker_is_cloned_outside_of_the_lock() {
        let (ticket, noop) = (Ticket::new(), Arc::new(Noop));
        let waker = Waker::from(Arc::clone(&noop));
        std::thread::scope(|scope| {
            let state = ticket.state.lock();
            let polled = scope.spawn(|| ticket.poll(&mut Seat::default(), &waker).is_pending());
            let begun = Instant::now();
            while Arc::strong_count(&noop) == 2 && begun.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            let clones = Arc::strong_count(&noop) - 2;
            drop(state);
            assert!(polled.join().expect("no panic"));
            assert_eq!(clones, 1);
        });
        ticket.complete(Ok(()));
        assert_eq!(Arc::strong_count(&noop), 2, "woken, and let go");
    }
}
