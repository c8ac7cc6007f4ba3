//! Models of the durable watermark and its waiters: every interleaving of two or three threads.

use std::future::poll_fn;

use loom::future::block_on;
use loom::thread;

use super::{Seat, Ticket};
use crate::error::Error;
use crate::sync::{Arc, AtomicU64, Ordering};

/// A watermark, and the tickets of two frames in a row.
#[derive(Default)]
struct Log {
    durable: AtomicU64,
    first: Ticket,
    second: Ticket,
}

impl Log {
    /// As the writer does it: the watermark, then the ticket; in order.
    fn write_both(&self) {
        self.durable.store(1, Ordering::Release);
        self.first.complete(Ok(()));
        self.durable.store(2, Ordering::Release);
        self.second.complete(Ok(()));
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }
}

/// A blocked waiter is woken, and finds the watermark at or above its frame: it is cumulative.
#[test]
fn loom_a_blocked_waiter_is_woken_and_sees_the_watermark() {
    loom::model(|| {
        let log = Arc::new(Log::default());
        let waiter = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.second.wait().unwrap();
                assert_eq!(log.durable(), 2);
                assert!(log.first.is_done(), "completions come in order");
            })
        };
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.write_both())
        };
        log.first.wait().unwrap();
        assert!(log.durable() >= 1);
        waiter.join().unwrap();
        writer.join().unwrap();
    });
}

/// A task is woken whether it registers before, after, or while the outcome comes.
#[test]
fn loom_a_task_is_woken_and_sees_the_watermark() {
    loom::model(|| {
        let log = Arc::new(Log::default());
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.write_both())
        };
        let (mut first, mut second) = (Seat::default(), Seat::default());
        block_on(poll_fn(|cx| log.first.poll(&mut first, cx.waker()))).unwrap();
        assert!(log.durable() >= 1);
        block_on(poll_fn(|cx| log.second.poll(&mut second, cx.waker()))).unwrap();
        assert_eq!(log.durable(), 2);
        writer.join().unwrap();
    });
}

/// Two who wait for one frame: neither takes the other's wake-up.
#[test]
fn loom_one_completion_wakes_everybody() {
    loom::model(|| {
        let ticket = Arc::new(Ticket::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let ticket = Arc::clone(&ticket);
                thread::spawn(move || ticket.wait().unwrap())
            })
            .collect();
        ticket.complete(Ok(()));
        waiters.into_iter().for_each(|w| w.join().unwrap());
    });
}

/// A log that is stopped while its last frame is written: the first outcome stands, and everybody is told the same.
#[test]
fn loom_the_first_outcome_stands() {
    loom::model(|| {
        let ticket = Arc::new(Ticket::new());
        let complete = |outcome: Result<(), Error>| {
            let ticket = Arc::clone(&ticket);
            thread::spawn(move || ticket.complete(outcome))
        };
        let threads = [complete(Ok(())), complete(Err(Error::Closed))];
        let told = ticket.wait().is_ok();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(ticket.outcome().map(|o| o.is_ok()), Some(told));
    });
}
