//! Tasks: who is woken when something has happened. Their wakers are other people's code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Tasks that wait for one thing, each with its newest waker.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    wakers: Vec<Waker>,
    /// How often all of them were woken.
    round: u64,
}

/// Where a task is among those who wait: it need not be looked for when it comes again.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<(u64, usize)>);

impl Tasks {
    /// Notes the task, once between two wake-ups. The waker that it had before is for the caller to drop, **outside of every lock**: the
    /// task may go with it.
    #[must_use]
    pub fn wait(&mut self, seat: &mut Seat, waker: &Waker) -> Option<Waker> {
        let mine = seat.0.filter(|&(round, _)| round == self.round);
        match mine.and_then(|(_, at)| self.wakers.get_mut(at)) {
            Some(known) if known.will_wake(waker) => None,
            Some(known) => Some(std::mem::replace(known, waker.clone())),
            None => {
                seat.0 = Some((self.round, self.wakers.len()));
                self.wakers.push(waker.clone());
                None
            }
        }
    }

    /// All of them, for [`wake_all`]: outside of every lock, as a waker may run its task at once.
    pub fn take(&mut self) -> Vec<Waker> {
        self.round += 1;
        std::mem::take(&mut self.wakers)
    }
}

/// Wakes all of them. One that panics, as that of an executor which is gone may, takes neither the others nor this thread along.
pub(crate) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!(target: "strandlog", "a waker panicked");
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_comes_again_is_noted_once_with_the_newest_waker() {
        let (mut tasks, mut one, mut other) = (Tasks::default(), Seat::default(), Seat::default());
        let counts: [Arc<Counts>; 3] = std::array::from_fn(|_| Arc::default());
        let [old, new, others] = counts.each_ref().map(|c| Waker::from(Arc::clone(c)));
        for _ in 0..100 {
            assert!(tasks.wait(&mut one, &old).is_none() && tasks.wait(&mut other, &others).is_none());
        }
        let left = tasks.wait(&mut one, &new);
        assert!(left.is_some_and(|waker| waker.will_wake(&old)));
        assert!(tasks.wait(&mut one, &new).is_none());
        wake_all(tasks.take());
        assert_eq!(counts.each_ref().map(|c| c.0.load(Ordering::Relaxed)), [0, 1, 1]);
        // A seat of the round before is nobody's: another may sit there.
        assert!(tasks.wait(&mut other, &others).is_none() && tasks.wait(&mut one, &new).is_none());
        wake_all(tasks.take());
        assert_eq!(counts.each_ref().map(|c| c.0.load(Ordering::Relaxed)), [0, 2, 2]);
    }
}
