//! Committing: frames go to the disk, one at a time, and only then is anybody told.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::submit::COMPLETING;
use super::{Engine, Writer};
use crate::error::{Error, Result};
use crate::journal::{Callbacks, Class, SealedFrame, Ticket};
use crate::lsn::Lsn;
use crate::sync::{Arc, Ordering};

/// A frame of so many batches released a crowd.
const CROWD: u64 = 4;
/// How often the writer thread gives the processor away before it takes what is there: some microseconds in all.
const YIELDS: u32 = 16;

impl Engine {
    /// Writes the oldest waiting frame, if there is one. The caller holds the writer role.
    fn round(&self, writer: &mut Writer) -> bool {
        let frame = {
            let mut s = self.seq.lock();
            if s.stopped.is_some() {
                return false;
            }
            s.take(self.durable(), &self.recent)
        };
        let Some(frame) = frame else { return false };
        match self.write(&frame) {
            Ok(()) => self.complete(writer, frame),
            Err(error) => self.poison(format!("writing frame {}: {error}", frame.header.lsn), Some(frame)),
        }
        true
    }

    /// One contiguous durable write; with payloads placed beside the frame, all of them and then one flush.
    ///
    /// **A durable write covers its own range only**: a frame must never be made durable while what it describes is not.
    fn write(&self, frame: &SealedFrame) -> std::io::Result<()> {
        if frame.placed.is_empty() {
            return self.disk.write_durable_at(frame.offset, frame.mem.buf.as_slice());
        }
        for placed in &frame.placed {
            self.write_piece(&placed.extents, placed.buf.as_slice())?;
        }
        self.disk.write_at(frame.offset, frame.mem.buf.as_slice())?;
        self.disk.flush()
    }

    /// Writes a piece to its extents. Not durable yet.
    pub(crate) fn write_piece(&self, extents: &[crate::format::piece::Extent], bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        for extent in extents {
            let (part, tail) = rest.split_at(rest.len().min(extent.bytes() as usize));
            self.disk.write_at(extent.offset(), part)?;
            rest = tail;
        }
        Ok(())
    }

    /// The frame is durable: the watermark moves first, then everybody who waits is told, in order.
    fn complete(&self, writer: &mut Writer, frame: SealedFrame) {
        let end = frame.header.end();
        self.durable.store(end, Ordering::Release);
        let wakers = {
            let mut s = self.seq.lock();
            s.queued -= frame.queued;
            s.in_flight = None;
            while s.segments.leaving.front().is_some_and(|&(seq, _)| seq < frame.header.tail_seq) {
                if let Some((_, slab)) = s.segments.leaving.pop_front() {
                    // Readers lose the segment before anybody may write into it.
                    self.segment_map.write().pop_front();
                    s.segments.freeing.push(slab);
                }
            }
            self.free_unpinned(&mut s);
            self.room.notify_all();
            std::mem::take(&mut s.room_wakers)
        };
        // What a *durable header's* watermark covers: recovery never again verifies what lay there.
        self.pool.lock().release(frame.header.watermark, &self.pins);
        let c = &self.counters;
        c.frames.add(1);
        c.batches.add(frame.batches);
        self.last_batches.store(frame.batches, Ordering::Relaxed);
        c.entries.add(frame.entries);
        c.user_bytes.add(frame.user_bytes);
        c.journal_bytes.add(frame.header.bytes());
        for placed in &frame.placed {
            let len = placed.buf.len() as u64;
            c.placed_bytes.add(len);
            writer.recent_pieces.push_back((placed.replica, placed.piece, len));
            writer.recent_piece_bytes += len;
        }
        frame.ticket.complete(Ok(()));
        run(frame.callbacks, &Ok(()));
        wakers.into_iter().for_each(std::task::Waker::wake);
        drop(frame.mem);
        self.recent.evict(end);
        self.forget_pieces(writer);
    }

    /// Frees the segments that no reader is copying from: nearly always all of them.
    fn free_unpinned(&self, s: &mut crate::journal::Sequencer) {
        let chunks_per_slab = (self.geo.segment_bytes / u64::from(self.geo.chunk_bytes)) as u32;
        let segments = &mut s.segments;
        segments.freeing.retain(|&slab| {
            let pinned = self.pins.is_pinned(slab * chunks_per_slab);
            if !pinned {
                segments.free.push_back(slab);
            }
            pinned
        });
    }

    /// Lets go of the oldest pieces in memory while they exceed the budget: they are in their chains by now.
    fn forget_pieces(&self, writer: &mut Writer) {
        while writer.recent_piece_bytes > self.run.recent_bytes as u64 / 2 {
            let Some((replica, id, len)) = writer.recent_pieces.pop_front() else { return };
            writer.recent_piece_bytes -= len;
            let Some(cell) = self.registry.get(replica) else { continue };
            let mut state = cell.lock();
            if let Some(piece) = state.places.piece_mut(id) {
                piece.mem = None;
                continue;
            }
            for entry in state.keys.iter_mut() {
                if let crate::index::Value::Out(piece) = &mut entry.value
                    && piece.desc.id == id
                {
                    piece.mem = None;
                }
            }
        }
    }

    /// Something could not be made durable: nothing more is written or acknowledged, and everybody who waits is told why.
    pub(crate) fn poison(&self, cause: String, frame: Option<SealedFrame>) {
        tracing::error!(%cause, "strandlog is poisoned");
        self.stop(&Error::Poisoned { cause: cause.into() }, frame);
    }

    /// Ends all writing; the first reason stands. What was not acknowledged is told that reason.
    pub(crate) fn stop(&self, why: &Error, frame: Option<SealedFrame>) {
        let (why, waiting, wakers) = {
            let mut s = self.seq.lock();
            let why = s.stopped.get_or_insert_with(|| why.clone()).clone();
            let mut waiting: Vec<(Arc<Ticket>, Callbacks)> = Vec::new();
            if let Some(frame) = frame {
                waiting.push((frame.ticket, frame.callbacks));
            }
            let s = &mut *s;
            for open in s.closed.iter_mut().chain(std::iter::once(&mut s.open)) {
                waiting.push((Arc::clone(&open.ticket), std::mem::take(&mut open.callbacks)));
            }
            (why, waiting, std::mem::take(&mut s.room_wakers))
        };
        self.work.notify_all();
        self.room.notify_all();
        {
            let mut cleaner = self.cleaner.lock();
            cleaner.stop = true;
            self.clean.notify_all();
        }
        for (ticket, callbacks) in waiting {
            ticket.complete(Err(why.clone()));
            run(callbacks, &Err(why.clone()));
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Brings the ticket's frame to the disk, or waits for whoever does. A caller leads inline when nobody else is about.
    pub(crate) fn drive(&self, ticket: &Arc<Ticket>) -> Result<()> {
        loop {
            if let Some(outcome) = ticket.outcome() {
                return outcome;
            }
            {
                let mut s = self.seq.lock();
                if let Some(why) = &s.stopped {
                    // The frame in flight may still succeed; all others were told.
                    if !s.in_flight.as_ref().is_some_and(|t| Arc::ptr_eq(t, ticket)) {
                        return ticket.outcome().unwrap_or_else(|| Err(why.clone()));
                    }
                }
                if Arc::ptr_eq(&s.open.ticket, ticket) {
                    s.open.wanted = true;
                }
                if self.run.background && !s.writer_idle {
                    // The writer thread is at work and looks again before it rests.
                    drop(s);
                    return ticket.wait();
                }
            }
            match self.writer.try_lock() {
                Some(mut writer) => {
                    while !ticket.is_done() && self.round(&mut writer) {}
                    drop(writer);
                    self.wake_writer(&self.seq.lock());
                }
                None if self.run.background => {
                    // Somebody else leads; what is left when they are done is the writer thread's.
                    self.wake_writer(&self.seq.lock());
                    return ticket.wait();
                }
                None => {
                    let mut writer = self.writer.lock();
                    while !ticket.is_done() && self.round(&mut writer) {}
                }
            }
        }
    }

    /// Writes one waiting frame in the caller's thread.
    pub(crate) fn lead_one(&self) {
        let mut writer = self.writer.lock();
        self.round(&mut writer);
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
                s.closed.back().map(|f| Arc::clone(&f.ticket)).or_else(|| s.in_flight.clone())
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
            return Err(why.clone());
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
        match &s.in_flight {
            Some(ticket) if lsn.0 <= s.open.lsn => Ok(Some(Arc::clone(ticket))),
            _ => Err(Error::Option { name: "lsn", given: lsn.to_string(), range: "one that was given out".into() }),
        }
    }

    /// A ticket that somebody awaits: a frame of lazy batches is written for it.
    pub(crate) fn want(&self, ticket: &Arc<Ticket>) {
        let mut s = self.seq.lock();
        if Arc::ptr_eq(&s.open.ticket, ticket) && !s.open.wanted {
            s.open.wanted = true;
            self.wake_writer(&s);
        }
    }

    /// Everything durable, and a last frame that says so.
    ///
    /// That frame only narrows what a later rot may leave in doubt. **It takes no segment that the cleaner counts on**: a log
    /// that is opened and closed for ever would end without one.
    pub(crate) fn seal_everything(&self) -> Result<()> {
        self.sync()?;
        match self.seal(Class::Keep) {
            Err(Error::Full(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Writes a frame even if nobody has anything to say: it carries the watermark and the tail.
    pub(crate) fn seal(&self, class: Class) -> Result<()> {
        let ticket = {
            let mut s = self.seq.lock();
            if let Some(why) = &s.stopped {
                return Err(why.clone());
            }
            if s.open.batches == 0 && !s.make_room(0, 0, class, &self.segment_map, &self.recent) {
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
        // Where only pins held space, a reader may have let go meanwhile.
        self.pool.lock().release(0, &self.pins);
        Ok(())
    }

    /// Those whom the last frame released come back at once with their next batch: a frame taken before they had the processor would
    /// carry one of them, and make all others wait for it. Gives the processor away a few times; never sleeps.
    fn let_others_in(&self) {
        let last = self.last_batches.load(Ordering::Relaxed);
        if last < CROWD {
            return;
        }
        for _ in 0..YIELDS {
            {
                let s = self.seq.lock();
                if s.stopped.is_some() || !s.closed.is_empty() || 2 * s.open.batches >= last {
                    return;
                }
            }
            std::thread::yield_now();
        }
    }

    /// The writer thread: takes frames until there are none, then rests.
    pub(crate) fn run_writer(&self) {
        loop {
            {
                let mut writer = self.writer.lock();
                loop {
                    self.let_others_in();
                    if !self.round(&mut writer) {
                        break;
                    }
                }
            }
            let mut s = self.seq.lock();
            loop {
                if s.stopped.is_some() {
                    return;
                }
                if s.has_work() {
                    break;
                }
                s.writer_idle = true;
                s = self.work.wait(s);
                s.writer_idle = false;
            }
        }
    }
}

/// Runs callbacks in order. One that panics does not take the others' acknowledgements with it.
fn run(callbacks: Callbacks, outcome: &Result<()>) {
    if callbacks.is_empty() {
        return;
    }
    let before = COMPLETING.with(|c| c.replace(true));
    for (lsn, done) in callbacks {
        let outcome = outcome.clone().map(|()| lsn);
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!(%lsn, "a completion callback panicked");
        }
    }
    COMPLETING.with(|c| c.set(before));
}
