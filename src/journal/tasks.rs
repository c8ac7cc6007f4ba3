//! Tasks that are woken when something has happened. Their wakers are other people's code.

use std::task::Waker;

use crate::caught::{caught, said};

/// Tasks that wait for one thing, each with its newest waker.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    wakers: Vec<Option<Waker>>,
    /// Seats among them that nobody has any more.
    left: Vec<usize>,
    /// How often all of them were woken.
    round: u64,
}

/// A task's place among those that wait, so that it need not be searched for when it comes again.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<(u64, usize)>);

impl Seat {
    /// Whether it was ever taken.
    pub fn was_taken(&self) -> bool {
        self.0.is_some()
    }
}

impl Tasks {
    /// Notes the task, once between two wake-ups. The caller drops the returned waker, the task's previous one or this one, **outside of
    /// every lock**: the task may go with it. Nor is a waker cloned under a lock: that is other people's code as well.
    #[must_use]
    pub fn wait(&mut self, seat: &mut Seat, waker: Waker) -> Option<Waker> {
        let mine = seat.0.filter(|&(round, _)| round == self.round);
        if let Some(known) = mine.and_then(|(_, at)| self.wakers.get_mut(at)) {
            let same = known.as_ref().is_some_and(|known| known.will_wake(&waker));
            return if same { Some(waker) } else { known.replace(waker) };
        }
        let at = self.left.pop().unwrap_or(self.wakers.len());
        match self.wakers.get_mut(at) {
            Some(place) => *place = Some(waker),
            None => self.wakers.push(Some(waker)),
        }
        seat.0 = Some((self.round, at));
        None
    }

    /// The task waits no more: its seat is free for another. The caller drops the waker, as in [`wait`](Self::wait).
    #[must_use]
    pub fn leave(&mut self, seat: &mut Seat) -> Option<Waker> {
        let (_, at) = seat.0.take().filter(|&(round, _)| round == self.round)?;
        let waker = self.wakers.get_mut(at)?.take();
        self.left.push(at);
        waker
    }

    /// How many seats there are.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub fn seats(&self) -> usize {
        self.wakers.len()
    }

    /// Takes all wakers, for [`wake_all`] outside of every lock: a waker may run its task at once.
    pub fn take(&mut self) -> Vec<Option<Waker>> {
        self.round += 1;
        self.left.clear();
        std::mem::take(&mut self.wakers)
    }
}

/// Wakes all tasks. A waker that panics, as that of an executor which is gone may, takes neither the others nor this thread along.
pub(crate) fn wake_all(wakers: Vec<Option<Waker>>) {
    for waker in wakers.into_iter().flatten() {
        if caught(|| waker.wake()).is_none() {
            said(|| tracing::error!(target: "strandlog", "a waker panicked"));
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

    /// The waker that it had before, if that was another.
    fn wait(tasks: &mut Tasks, seat: &mut Seat, waker: &Waker) -> Option<Waker> {
        tasks.wait(seat, waker.clone()).filter(|left| !left.will_wake(waker))
    }

    #[test]
    fn who_comes_again_is_noted_once_with_the_newest_waker() {
        let (mut tasks, mut one, mut other) = (Tasks::default(), Seat::default(), Seat::default());
        let counts: [Arc<Counts>; 3] = std::array::from_fn(|_| Arc::default());
        let [old, new, others] = counts.each_ref().map(|c| Waker::from(Arc::clone(c)));
        for _ in 0..100 {
            assert!(wait(&mut tasks, &mut one, &old).is_none() && wait(&mut tasks, &mut other, &others).is_none());
        }
        let left = wait(&mut tasks, &mut one, &new);
        assert!(left.is_some_and(|waker| waker.will_wake(&old)));
        assert!(wait(&mut tasks, &mut one, &new).is_none());
        wake_all(tasks.take());
        assert_eq!(counts.each_ref().map(|c| c.0.load(Ordering::Relaxed)), [0, 1, 1]);
        // A seat of the round before is nobody's: another may sit there.
        assert!(wait(&mut tasks, &mut other, &others).is_none() && wait(&mut tasks, &mut one, &new).is_none());
        wake_all(tasks.take());
        assert_eq!(counts.each_ref().map(|c| c.0.load(Ordering::Relaxed)), [0, 2, 2]);
    }

    /// Any number of tasks may come and go between two wake-ups.
    #[test]
    fn who_leaves_is_not_woken_and_another_takes_the_seat() {
        let (mut tasks, mut stays, counts) = (Tasks::default(), Seat::default(), Arc::<Counts>::default());
        let waker = Waker::from(Arc::clone(&counts));
        assert!(wait(&mut tasks, &mut stays, &waker).is_none());
        for _ in 0..100 {
            let [mut one, mut other] = [Seat::default(), Seat::default()];
            assert!(wait(&mut tasks, &mut one, &waker).is_none() && wait(&mut tasks, &mut other, &waker).is_none());
            assert!(tasks.leave(&mut one).is_some() && tasks.leave(&mut other).is_some());
            assert!(tasks.leave(&mut one).is_none(), "once");
        }
        assert_eq!((tasks.seats(), Arc::strong_count(&counts)), (3, 3));
        wake_all(tasks.take());
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
        // Seats of the round before are others'.
        let mut other = Seat::default();
        assert!(wait(&mut tasks, &mut other, &waker).is_none() && tasks.leave(&mut stays).is_none());
        wake_all(tasks.take());
        assert_eq!(counts.0.load(Ordering::Relaxed), 2);
    }

    struct Explodes;

    impl Wake for Explodes {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any(crate::caught::tests::Bomb);
        }
    }

    #[test]
    fn a_waker_whose_panic_panics_takes_nobody_along() {
        let (mut tasks, counts) = (Tasks::default(), Arc::<Counts>::default());
        for waker in [Waker::from(Arc::new(Explodes)), Waker::from(Arc::clone(&counts))] {
            assert!(wait(&mut tasks, &mut Seat::default(), &waker).is_none());
        }
        wake_all(tasks.take());
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
    }
}
