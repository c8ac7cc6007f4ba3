//! Runs tasks on an executor made by hand: polled in any order, at times without being woken, and now and then with a new waker.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use crate::support::schedule::thread;

struct Woken {
    ready: AtomicBool,
    thread: thread::Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.ready.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Self { ready: AtomicBool::new(true), thread: thread::current() })
    }
}

pub type Task<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs the tasks to their ends. One of which only a replaced waker is woken is not polled for that, and may hang.
pub fn run(tasks: Vec<Task<'_>>, rng: &mut StdRng) {
    let mut tasks: Vec<(Task<'_>, Arc<Woken>)> = tasks.into_iter().map(|task| (task, Woken::new())).collect();
    while !tasks.is_empty() {
        let ready = |(_, woken): &(Task<'_>, Arc<Woken>)| woken.ready.load(SeqCst);
        let next = (0..tasks.len()).filter(|&i| ready(&tasks[i])).choose(rng);
        let next = next.or_else(|| rng.random_bool(0.05).then(|| rng.random_range(0..tasks.len())));
        let Some(next) = next else {
            thread::park();
            continue;
        };
        let (task, woken) = &mut tasks[next];
        woken.ready.store(false, SeqCst);
        if rng.random_bool(0.3) {
            *woken = Woken::new();
            woken.ready.store(false, SeqCst);
        }
        if task.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready() {
            drop(tasks.swap_remove(next));
        }
    }
}

/// Drops a future that is not done after so many polls.
pub struct GivenUp<F> {
    future: Option<Pin<Box<F>>>,
    polls: u32,
}

impl<F> GivenUp<F> {
    pub fn after(polls: u32, future: F) -> Self {
        Self { future: Some(Box::pin(future)), polls }
    }
}

impl<F: Future> Future for GivenUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(left) = self.polls.checked_sub(1) {
            self.polls = left;
            if let Some(Poll::Ready(out)) = self.future.as_mut().map(|future| future.as_mut().poll(cx)) {
                return Poll::Ready(Some(out));
            }
            if left > 0 {
                return Poll::Pending;
            }
        }
        self.future = None;
        Poll::Ready(None)
    }
}
