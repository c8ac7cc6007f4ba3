//! Models of the queue hand-over: submitters, leaders in the caller's thread, and the writer thread that rests and is woken.
//!
//! They run the engine itself, not a sketch of it: `submit`, `drive`, `run_writer`, `stop`, over a device that only counts. loom
//! fails a model in which everybody sleeps, so each of them also says that no wake-up is lost.

use parking_lot::Mutex as Plain;

use super::rig_loom::{Log, model};
use super::{Mode, Submitted};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::POOL_OFFSET;
use crate::journal::{Class, Sequencer, Sink, Ticket, Whom};
use crate::lsn::Lsn;
use crate::sync::{Arc, Ordering};

impl Log {
    /// Puts something into the open frame, as the last steps of `submit` do; `lead` as there.
    fn put(&self, s: &mut Sequencer, lead: bool, whom: Option<Whom<'_>>) -> Submitted {
        assert!(s.make_room(16, 16, Class::Grow, &self.engine.segment_map));
        s.open.push_entry(0, b"payload");
        s.open.batches += 1;
        self.engine.submitted(s, false, whom, lead)
    }

    fn enter(&self) -> (Lsn, Arc<Ticket>) {
        self.enter_with(None)
    }

    fn enter_with(&self, whom: Option<Whom<'_>>) -> (Lsn, Arc<Ticket>) {
        let submitted = self.put(&mut self.engine.seq.lock(), false, whom);
        (submitted.lsn, submitted.ticket)
    }

    /// As `commit`: enters, then leads, or waits for the thread that does.
    fn commit(&self) -> Result<Lsn> {
        let submitted = self.put(&mut self.engine.seq.lock(), true, None);
        let lsn = self.engine.lead(submitted)?;
        self.check(lsn);
        Ok(lsn)
    }

    /// As `commit`, on a log that may have been stopped before: then nothing is entered.
    fn commit_or_refused(&self) -> Result<()> {
        let submitted = {
            let mut s = self.engine.seq.lock();
            if let Some(why) = &s.stopped {
                return Err(why.clone());
            }
            self.put(&mut s, true, None)
        };
        self.check(self.engine.lead(submitted)?);
        Ok(())
    }

    /// **No acknowledgement before the write that covers it.**
    fn check(&self, lsn: Lsn) {
        assert!(self.engine.durable() >= lsn.get(), "acknowledged above the watermark");
        assert!(self.device.durable() >= lsn.get(), "acknowledged and not written");
    }
}

/// Two callers, either of whom may lead, and the writer thread, which may be at work, resting, or on its way to either.
#[test]
fn loom_two_commits_and_the_writer_thread_all_end() {
    model(2, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        let other = log.spawn(|log| log.commit().unwrap());
        log.commit().unwrap();
        other.join().unwrap();
        log.stop();
        writer.join().unwrap();
    });
}

/// Nobody leads, nobody waits: the writer thread must notice by itself.
#[test]
fn loom_the_writer_thread_is_woken_for_what_nobody_leads() {
    model(3, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        let (lsn, ticket) = log.enter();
        ticket.wait().unwrap();
        log.check(lsn);
        log.stop();
        writer.join().unwrap();
    });
}

/// A leader looks only after its own frame: what came meanwhile must find the writer thread awake.
#[test]
fn loom_a_leader_leaves_nothing_behind() {
    model(2, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        let leader = log.spawn(|log| log.commit().unwrap());
        let (lsn, ticket) = log.enter();
        ticket.wait().unwrap();
        log.check(lsn);
        leader.join().unwrap();
        log.stop();
        writer.join().unwrap();
    });
}

/// Notes the LSN that it is told, with how many tags.
struct Noting {
    log: Arc<Log>,
    told: Arc<Plain<Vec<(Lsn, usize)>>>,
}

impl Sink for Noting {
    fn done(&self, tags: &[u64], outcome: &Result<Lsn>) {
        let lsn = *outcome.as_ref().unwrap();
        self.log.check(lsn);
        self.told.lock().push((lsn, tags.len()));
    }
}

/// Callbacks and sinks are told once each, in the order of the log, and never before the watermark, whichever thread writes their frames.
#[test]
fn loom_callbacks_come_in_the_order_of_the_log() {
    model(2, || {
        let log = Log::new(1 << 20);
        let told: Arc<Plain<Vec<(Lsn, usize)>>> = Arc::default();
        let sink: std::sync::Arc<dyn Sink> =
            std::sync::Arc::new(Noting { log: Arc::clone(&log), told: Arc::clone(&told) });
        let caller = {
            let (log, told) = (Arc::clone(&log), Arc::clone(&told));
            Whom::Caller(Box::new(move |outcome| {
                log.check(outcome.clone().unwrap());
                told.lock().push((outcome.unwrap(), 1));
            }))
        };
        let writer = log.spawn(|log| log.engine.run_writer());
        let other = log.spawn(|log| log.commit().unwrap());
        let (first, _) = log.enter_with(Some(caller));
        let (second, ticket) = log.enter_with(Some(Whom::Sink(&sink, 7)));
        ticket.wait().unwrap();
        other.join().unwrap();
        log.stop();
        writer.join().unwrap();
        assert_eq!(*told.lock(), [(first, 1), (second, 1)]);
    });
}

/// The watermark is cumulative: a waiter for an LSN is let go when everything up to it is durable, whichever frame it is in.
#[test]
fn loom_waiting_for_an_lsn_covers_all_below_it() {
    model(2, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        let (first, _) = log.enter();
        let other = log.spawn(move |log| {
            if let Some(ticket) = log.engine.ticket_of(first).unwrap() {
                log.engine.drive(&ticket).unwrap();
            }
            log.check(first);
        });
        let second = log.commit().unwrap();
        assert!(second > first);
        log.check(first);
        other.join().unwrap();
        log.stop();
        writer.join().unwrap();
    });
}

/// Two callers, two frames or one, the first write fails: its frame and what is behind it are told so, and nobody sleeps for ever.
#[test]
fn loom_a_failed_write_is_told_to_its_frame_and_all_behind_it() {
    model(2, || {
        let log = Log::new(1 << 20);
        *log.device.bad.lock() = Some(POOL_OFFSET);
        let failed = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
        let other = log.spawn(move |log| failed(log.commit_or_refused()));
        failed(log.commit_or_refused());
        other.join().unwrap();
        assert_eq!(log.engine.durable(), 0, "nothing at all became durable");
    });
}

/// As before, but the second frame fails: the first is acknowledged if it was written, whichever landed first.
#[test]
fn loom_a_frame_before_a_failed_one_is_acknowledged_when_it_lands() {
    model(2, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        *log.device.bad.lock() = Some(POOL_OFFSET + crate::format::BLOCK_BYTES);
        let told =
            |outcome: Result<()>| assert!(matches!(outcome, Ok(()) | Err(Error::Poisoned { .. })), "{outcome:?}");
        let other = log.spawn(move |log| told(log.commit_or_refused()));
        told(log.commit_or_refused());
        other.join().unwrap();
        log.stop();
        writer.join().unwrap();
    });
}

/// What callbacks were told, by their place in the log; and how many are being told.
#[derive(Default)]
struct Outcomes {
    put: u64,
    told: Vec<(u64, bool)>,
    telling: u64,
}

impl Log {
    /// As `commit_or_refused`, with a callback.
    fn commit_telling(self: &Arc<Self>, outcomes: &Arc<Plain<Outcomes>>) {
        let submitted = {
            let mut s = self.engine.seq.lock();
            if s.stopped.is_some() {
                return;
            }
            let nth = outcomes.lock().put;
            outcomes.lock().put += 1;
            let (log, outcomes) = (Arc::clone(self), Arc::clone(outcomes));
            let tell = move |outcome: Result<Lsn>| {
                outcomes.lock().telling += 1;
                // Others may run now.
                log.device.busy.fetch_add(1, Ordering::Relaxed);
                let mut outcomes = outcomes.lock();
                assert_eq!(outcomes.telling, 1, "two at once");
                outcomes.telling -= 1;
                outcomes.told.push((nth, outcome.is_ok()));
            };
            self.put(&mut s, true, Some(Whom::Caller(Box::new(tell))))
        };
        let _ = self.engine.lead(submitted);
    }
}

/// Good and bad outcomes come in one order, one after the other, whichever frame failed first and whichever thread tells of it.
#[test]
fn loom_callbacks_come_in_the_order_of_the_log_though_a_frame_fails() {
    for bad in [0, crate::format::BLOCK_BYTES] {
        model(2, move || {
            let log = Log::new(1 << 20);
            *log.device.bad.lock() = Some(POOL_OFFSET + bad);
            let outcomes: Arc<Plain<Outcomes>> = Arc::default();
            let other = {
                let (log, outcomes) = (Arc::clone(&log), Arc::clone(&outcomes));
                loom::thread::spawn(move || log.commit_telling(&outcomes))
            };
            log.commit_telling(&outcomes);
            other.join().unwrap();
            log.stop();
            log.engine.land_all();
            log.engine.tell_ended();
            let outcomes = outcomes.lock();
            let order: Vec<u64> = outcomes.told.iter().map(|told| told.0).collect();
            assert_eq!(order, (0..outcomes.put).collect::<Vec<_>>(), "each once, in the order of the log");
            assert!(outcomes.told.is_sorted_by_key(|told| !told.1), "{:?}", outcomes.told);
        });
    }
}

/// Closing waits for what is being written, and finds nothing in flight behind it.
#[test]
fn loom_closing_waits_for_what_is_in_flight() {
    model(2, || {
        let log = Log::new(1 << 20);
        let caller = log.spawn(|log| match log.commit_or_refused() {
            Ok(()) | Err(Error::Closed) => {}
            Err(other) => panic!("{other}"),
        });
        log.stop();
        log.engine.land_all();
        assert!(log.engine.seq.lock().in_flight.is_empty());
        let written = log.device.busy.load(Ordering::Relaxed);
        caller.join().unwrap();
        assert_eq!(log.device.busy.load(Ordering::Relaxed), written, "written after it was closed");
    });
}

/// A caller that waits while the log is stopped is told so, or that its batch is durable.
#[test]
fn loom_stopping_leaves_nobody_waiting() {
    model(2, || {
        let log = Log::new(1 << 20);
        let writer = log.spawn(|log| log.engine.run_writer());
        let caller = log.spawn(|log| match log.commit() {
            Ok(_) | Err(Error::Closed) => {}
            Err(other) => panic!("{other}"),
        });
        log.stop();
        caller.join().unwrap();
        writer.join().unwrap();
    });
}

/// A full queue: a caller that waits for room is let in when the frame before it is written. The whole of `submit`, index and all.
#[test]
fn loom_a_full_queue_lets_the_next_one_in() {
    model(1, || {
        let log = Log::new(1);
        let writer = log.spawn(|log| log.engine.run_writer());
        let submit = |log: &Log, replica: u64| {
            let mut batch = Batch::new();
            batch.append(replica, &[(1, 1, b"payload")]);
            log.engine.submit(&mut batch, Mode::Block, None, false).unwrap()
        };
        let other = log.spawn(move |log| submit(log, 1).ticket);
        let mine = submit(&log, 2);
        mine.ticket.wait().unwrap();
        log.check(mine.lsn);
        other.join().unwrap().wait().unwrap();
        log.stop();
        writer.join().unwrap();
    });
}

/// Two in line behind one that goes: whichever looks first, both are let in. Nothing is written that would wake them otherwise.
#[test]
fn loom_who_goes_in_tells_the_next_in_line() {
    model(2, || {
        let log = Log::new(1 << 20);
        log.engine.seq.lock().line.join();
        let submit = |log: &Log, replica: u64| {
            let mut batch = Batch::new();
            batch.put(replica, b"k", b"v").lazy();
            log.engine.submit(&mut batch, Mode::Block, None, false).unwrap();
        };
        let one = log.spawn(move |log| submit(log, 1));
        let other = log.spawn(move |log| submit(log, 2));
        log.engine.seq.lock().line.leave();
        log.engine.room.notify_all();
        one.join().unwrap();
        other.join().unwrap();
        assert!(log.engine.seq.lock().line.is_empty());
    });
}
