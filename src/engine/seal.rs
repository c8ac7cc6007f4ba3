//! Durable on demand: everything up to here, a last frame that says so, space given back.

use super::Engine;
use crate::error::{Error, Result};
use crate::journal::{Class, Ticket};
use crate::lsn::Lsn;
use crate::sync::Arc;

/// How often a close tries to find the log at rest. If a caller commits again and again, it is closed without a snapshot.
const FREEZES: u32 = 3;

impl Engine {
    /// Waits until nothing is being written any more.
    pub(crate) fn land_all(&self) {
        let mut s = self.seq.lock();
        while !s.in_flight.is_empty() {
            s = self.room.wait(s);
        }
    }

    /// Everything submitted so far becomes durable.
    pub(crate) fn sync(&self) -> Result<Lsn> {
        let ticket = {
            let s = self.seq.lock();
            if let Some(why) = &s.stopped {
                return Err(why.clone());
            }
            if s.open.batches > 0 {
                Some(Arc::clone(&s.open.ticket))
            } else {
                s.closed.back().map(|f| Arc::clone(&f.ticket)).or_else(|| s.in_flight.newest().map(Arc::clone))
            }
        };
        if let Some(ticket) = ticket {
            self.drive(&ticket)?;
        }
        Ok(Lsn(self.durable()))
    }

    /// The ticket of the frame that holds `lsn`; `None` when that is durable.
    pub(crate) fn ticket_of(&self, lsn: Lsn) -> Result<Option<Arc<Ticket>>> {
        let s = self.seq.lock();
        if lsn.0 <= self.durable() {
            return Ok(None);
        }
        if let Some(why) = &s.stopped {
            // What is being written may still succeed: callbacks are told so then.
            let flying = s.in_flight.ticket_of(lsn.0).filter(|ticket| s.in_flight.holds(ticket));
            return flying.map(|ticket| Some(Arc::clone(ticket))).ok_or_else(|| why.clone());
        }
        let waiting = s.closed.iter().chain(std::iter::once(&s.open));
        if let Some(frame) = waiting.rev().find(|f| f.lsn < lsn.0 && f.batches > 0) {
            if lsn.0 > s.open.here() {
                return Err(Error::Option {
                    name: "lsn",
                    given: lsn.to_string(),
                    range: "one that was given out".into(),
                });
            }
            return Ok(Some(Arc::clone(&frame.ticket)));
        }
        match s.in_flight.ticket_of(lsn.0) {
            Some(ticket) => Ok(Some(Arc::clone(ticket))),
            None => Err(Error::Option { name: "lsn", given: lsn.to_string(), range: "one that was given out".into() }),
        }
    }

    /// Somebody awaits this ticket: its frame is written even if it holds only lazy batches.
    pub(crate) fn want(&self, ticket: &Arc<Ticket>) {
        let mut s = self.seq.lock();
        s.open.wanted |= Arc::ptr_eq(&s.open.ticket, ticket);
        // Its frame may have been closed by a thread that had nothing to write, and woke nobody.
        self.wake_writer(&s);
    }

    /// Everything durable, and a last frame that says so.
    ///
    /// That frame only narrows what a later rot may leave in doubt. **It takes no segment that the cleaner counts on**: a log
    /// that is opened and closed for ever would end without one.
    pub(crate) fn seal_everything(&self) -> Result<()> {
        self.sync()?;
        self.seal_if_room(Class::Keep)
    }

    /// As [`Engine::seal`]; where there is no room, another frame will say it.
    pub(crate) fn seal_if_room(&self, class: Class) -> Result<()> {
        match self.seal(class) {
            Err(Error::Full(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// At close: as [`Engine::seal_for_good`], if the file is still the log's. One that was cut must not be written to: it would be as long
    /// as it was, and have holes. Of one that was removed nothing is left when this is done, so its name is asked for last.
    pub(crate) fn end_well(&self) -> Result<()> {
        if matches!(self.seq.lock().stopped, Some(Error::Closed)) {
            // The thread that closes it just now may find that it fails, and says so under this lock.
            drop(self.cleaning.lock());
            return Err(self.seq.lock().stopped.clone().unwrap_or(Error::Closed));
        }
        self.look_after_file(|disk| disk.check_size())?;
        let _hurry = self.hurry.begin();
        let _tell_after_the_locks = self.hold();
        // Nothing moves any more, and another close waits until this is done.
        let _still = self.cleaning.lock();
        self.seal_for_good()?;
        // From then on a failure is what is told, as there.
        self.look_after_file(|disk| disk.check_name()).inspect_err(|why| self.seq.lock().stopped = Some(why.clone()))
    }

    /// As [`Engine::seal_everything`]; the superblock says how far the log reached, without the seal itself, and where its index lies. The
    /// seal brings nothing, and its rot must not look like a loss. The caller holds the cleaner's lock.
    fn seal_for_good(&self) -> Result<()> {
        for _ in 0..FREEZES {
            let durable = self.sync()?;
            self.seal_everything()?;
            // A thread that writes it at this moment may fail, and then it is not written again: that must be seen before all is stopped.
            let mut superblock = self.superblock.lock();
            if self.freeze() {
                let marked = self.mark_closed(&mut superblock, durable.get());
                // From then on the failure is what is told, and not the close that met it.
                return marked.inspect_err(|why| self.seq.lock().stopped = Some(why.clone()));
            }
        }
        let durable = self.sync()?;
        self.mark_durable(durable.get())?;
        self.seal_everything()
    }

    /// Ends all submitting, if nothing is left to be written: from now on the index is what the last frame left. `false`: somebody has
    /// submitted since.
    fn freeze(&self) -> bool {
        let mut s = self.seq.lock();
        let rests = s.stopped.is_none() && s.open.batches == 0 && s.closed.is_empty() && s.in_flight.is_empty();
        if rests {
            s.stopped = Some(Error::Closed);
        }
        rests
    }

    /// Writes a frame even if it is empty: it carries the watermark and the tail.
    pub(crate) fn seal(&self, class: Class) -> Result<()> {
        let ticket = {
            let mut s = self.seq.lock();
            if let Some(why) = &s.stopped {
                return Err(why.clone());
            }
            if s.open.batches == 0 && !s.make_room(0, 0, class, &self.segment_map) {
                return Err(Error::Full(Box::default()));
            }
            s.open.wanted = true;
            Arc::clone(&s.open.ticket)
        };
        self.drive(&ticket)
    }

    /// Makes what was unlinked so far free: a frame with the records, then one whose header says that the first is durable.
    pub(crate) fn release_space(&self) -> Result<()> {
        self.sync()?;
        if self.pool.lock().has_dying() {
            self.seal(Class::Clean)?;
        }
        // If only pins held space, readers may have let go meanwhile.
        self.pool.lock().release(0, &self.pins);
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::{Batch, Wal};

    /// As happens when what was to be carried is gone by then: room was made for it, and nothing is written.
    #[test]
    fn whoever_awaits_a_lazy_batch_wakes_the_writer_also_where_its_frame_was_closed() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        // The writer is there: nobody else writes this.
        let first = wal.submit(Batch::new().put(1, b"k", b"v")).expect("room");
        while !first.is_done() {
            std::thread::yield_now();
        }
        let engine = &wal.engine;
        // Until the writer waits for work, and the batch for somebody to want it: a log in which nothing happens seals itself.
        let mut pending = loop {
            let pending = wal.submit(Batch::new().put(1, b"k", b"w").lazy()).expect("room");
            let mut s = engine.seq.lock();
            if s.writer_idle && s.in_flight.is_empty() && s.closed.is_empty() && s.open.batches > 0 {
                assert!(s.leave_segment(Class::Clean, &engine.segment_map) && s.closed.len() == 1);
                break pending;
            }
        };
        // Nothing else wakes it: nobody submits, and nobody blocks.
        let polled = std::pin::Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
        while polled.is_pending() && !pending.is_done() {
            std::thread::yield_now();
        }
    }
}
