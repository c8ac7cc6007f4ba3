//! Which thread runs when: the system decides, or, with `--cfg shuttle`, a schedule drawn from a seed.

#[cfg(not(shuttle))]
#[allow(unused_imports)]
pub use super::for_each;

#[cfg(not(shuttle))]
pub use std::thread;

#[cfg(shuttle)]
pub use shuttle::thread;

/// Runs do this many times fewer steps where every switch of threads is scheduled.
pub const STEP: u32 = if cfg!(shuttle) { 4 } else { 1 };

/// Runs `test` for every seed, under a schedule drawn from it. A schedule that fails is printed, to be replayed.
#[cfg(shuttle)]
pub fn for_each(seeds: &[u64], test: impl Fn(u64) + Copy + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    for &seed in seeds {
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 20;
        config.max_steps = shuttle::MaxSteps::None;
        println!("seed {seed}");
        // Some races need a thread that is held back for long; most need many switches.
        match seed % 3 {
            0 => shuttle::Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(move || test(seed)),
            _ => shuttle::Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(move || test(seed)),
        };
    }
}

/// Polls on the calling thread, which sleeps between polls.
#[cfg(shuttle)]
#[allow(unused_imports)] // Not every test has tasks.
pub use shuttle::future::block_on;

/// Polls on the calling thread, which is parked between polls.
#[cfg(not(shuttle))]
pub fn block_on<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return out;
        }
        thread::park();
    }
}
