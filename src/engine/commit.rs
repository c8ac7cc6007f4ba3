//! Committing: frames go to the disk, a few at a time, and only then is anybody told, in the order of the log.

use std::cell::Cell as ThreadCell;
use std::sync::atomic::Ordering as StdOrdering;
use std::time::Instant;

use smallvec::SmallVec;

use super::submit::{TELLING, Telling, Told};
use super::{Completion, Engine, Mode, Submitted};
use crate::batch::Batch;
use crate::caught::by_disk;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::format::piece::Extent;
use crate::journal::{Landing, SealedFrame, Sequencer, Ticket, wake_all};
use crate::lsn::Lsn;
use crate::sync::{Arc, Ordering, thread};

/// A frame of this many batches released a crowd.
const CROWD: u64 = 4;
/// Pieces may take one part in this many of the memory for recent frames, beside these. Their buffers are used again in turns: all that are
/// kept must fit the processor's last cache, or each write of a megabyte takes a third longer.
const PIECES_KEPT: u64 = 4;
/// How often the writer thread gives the processor away before it takes what is there: some microseconds in all.
const YIELDS: u32 = 16;

/// A frame that a thread has taken. Should the thread unwind, the frame's waiters and callbacks are told so, and not left waiting for ever.
pub(super) struct Carrying<'a> {
    pub engine: &'a Engine,
    /// `None`: its waiters are being told, or another thread completes it.
    pub frame: Option<Box<SealedFrame>>,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        let lsn = frame.header.lsn;
        self.engine.poison(format!("writing frame {lsn}: the thread that wrote it panicked"), Some(frame));
    }
}

impl Engine {
    /// Writes the oldest waiting frame. `false`: there is none, or as many as allowed are in flight.
    fn round(&self) -> bool {
        let frame = {
            let mut s = self.seq.lock();
            if s.stopped.is_some() {
                return false;
            }
            s.take(self.durable(), &self.recent)
        };
        let Some(frame) = frame else { return false };
        self.carry_out(frame);
        true
    }

    /// Writes a frame that was taken, and completes what can be completed then.
    fn carry_out(&self, frame: Box<SealedFrame>) {
        let _tell_after_the_locks = self.hold();
        let mut carrying = Carrying { engine: self, frame: Some(frame) };
        let begun = Instant::now();
        let written = carrying.frame.as_deref().map_or(Ok(()), |frame| self.write(frame));
        let Some(mut frame) = carrying.frame.take() else { return };
        frame.times.device = begun.elapsed();
        if let Err(error) = written {
            self.poison(format!("writing frame {}: {error}", frame.header.lsn), Some(frame));
            return;
        }
        if let Err(why) = self.find_file_again() {
            self.fail(&why, Some(frame));
            return;
        }
        // Woken tasks count as callbacks, too: they may run, or go, at once. Made before the lock, so that it goes after it.
        let _told = Told::begin(Telling::Callbacks);
        {
            let mut completion = self.completion.lock();
            // A caller among few waits here while another one's large batch is applied. In a crowd others have use for the processor.
            let few = frame.batches < CROWD;
            let landing = { if few { self.seq.lock_awake() } else { self.seq.lock() }.in_flight.land(frame) };
            match landing {
                Landing::Next(frame) => {
                    let mut next = Some(frame);
                    while next.is_some() {
                        carrying.frame = next;
                        next = self.complete(&mut completion, &mut carrying.frame);
                    }
                }
                Landing::Waits => {}
                Landing::Doomed => self.room.notify_all(),
            }
        }
        // A listener is told next, and may wait for the cleaner, which may wait for the frames that are left: this thread looks at those
        // only after that. Callbacks and tasks wait for nothing.
        if self.events.hears() {
            self.wake_writer(&self.seq.lock());
        }
    }

    /// One contiguous durable write. If payloads are placed beside the frame, it and they are written at once, as far as the disk can or a
    /// hand is free, and then flushed together.
    ///
    /// **A durable write covers its own range only**: what is placed beside a frame is made durable with it, never by it.
    fn write(&self, frame: &SealedFrame) -> std::io::Result<()> {
        let bytes = frame.mem.buf.as_slice();
        if bytes.len() as u64 > frame.room {
            // This happens only if this crate is wrong: then the log ends, and nobody's bytes are written over.
            return Err(std::io::Error::other("the frame has no place in its segment; nothing was written"));
        }
        if frame.placed.is_empty() {
            return self.write_durable(None, frame.offset, bytes);
        }
        if self.disk.at_once() > 1 {
            let placed = frame.placed.iter().flat_map(|p| parts(&p.extents, p.buf.as_slice()));
            let writes: SmallVec<[_; 8]> = placed.chain([(frame.offset, bytes)]).collect();
            by_disk(|| self.disk.write_many(&writes))?;
            return self.flush(None);
        }
        let given = self.hands.give(frame.offset, &frame.mem);
        let placed = by_disk(|| {
            let mut parts = frame.placed.iter().flat_map(|p| parts(&p.extents, p.buf.as_slice()));
            parts.try_for_each(|(offset, part)| self.disk.write_at(offset, part))
        });
        let framed = match given {
            // Even if the payloads failed: nobody may write any more when this log is given up.
            Some(job) => self.hands.finish(&job, &*self.disk),
            None if placed.is_ok() => by_disk(|| self.disk.write_at(frame.offset, bytes)),
            None => Ok(()),
        };
        placed.and(framed)?;
        self.flush(None)
    }

    /// The frame and all before it are durable: the watermark moves first, then all waiters are told, in order. Returns the next frame, if
    /// that was written before this one. The frame is taken out of `carried` when its waiters are told.
    fn complete(
        &self,
        completion: &mut Completion,
        carried: &mut Option<Box<SealedFrame>>,
    ) -> Option<Box<SealedFrame>> {
        let frame = carried.as_deref()?;
        let end = frame.header.end();
        self.durable.store(end, Ordering::Release);
        let (next, wakers) = {
            let mut s = self.seq.lock();
            s.queued -= frame.queued;
            let next = s.in_flight.completed();
            while s.segments.leaving.front().is_some_and(|&(seq, _)| seq < frame.header.tail_seq) {
                if let Some((_, slab)) = s.segments.leaving.pop_front() {
                    // Readers lose the segment before anybody may write into it.
                    self.segment_map.write().pop_front();
                    s.segments.freeing.push(slab);
                }
            }
            self.free_unpinned(&mut s);
            self.room.notify_all();
            (next, s.room_tasks.take())
        };
        // What a *durable header's* watermark covers: recovery never again verifies what lay there.
        self.pool.lock().release(frame.header.watermark, &self.pins);
        let c = &self.counters;
        c.frames.add(1);
        c.batches.add(frame.user_batches);
        self.last_batches.store(frame.batches, Ordering::Relaxed);
        c.entries.add(frame.entries);
        c.user_bytes.add(frame.user_bytes);
        c.journal_bytes.add(frame.header.bytes());
        for placed in &frame.placed {
            let len = placed.buf.len() as u64;
            c.placed_bytes.add(len);
            completion.recent_pieces.push_back((placed.replica, placed.first, placed.piece, len));
            completion.recent_piece_bytes += len;
        }
        self.note_commit(frame);
        let frame = *carried.take()?;
        frame.ticket.complete(Ok(()));
        frame.notices.tell(&Ok(()));
        wake_all(wakers);
        drop(frame.mem);
        self.recent.evict(end);
        self.forget_pieces(completion);
        next
    }

    /// Frees the segments that no reader is copying from: nearly always all of them.
    pub(crate) fn free_unpinned(&self, s: &mut Sequencer) {
        let chunks_per_slab = (self.geo.segment_bytes / u64::from(self.geo.chunk_bytes)) as u32;
        let segments = &mut s.segments;
        let before = segments.free.len();
        segments.freeing.retain(|&slab| {
            let pinned = self.pins.is_pinned(slab * chunks_per_slab);
            if !pinned {
                segments.free.push_back(slab);
            }
            pinned
        });
        let (free, freed) = (segments.free.len() as u64, segments.free.len().saturating_sub(before) as u64);
        s.note_gained();
        if freed > 0 {
            self.events.later(|| Event::SegmentsFreed { segments: freed, free });
        }
    }

    /// Lets go of the oldest pieces in memory while they exceed the budget: they are in their chains by now.
    fn forget_pieces(&self, completion: &mut Completion) {
        while completion.recent_piece_bytes > self.run.recent_bytes as u64 / PIECES_KEPT {
            let Some((replica, first, id, len)) = completion.recent_pieces.pop_front() else { return };
            completion.recent_piece_bytes -= len;
            let Some(cell) = self.registry.get(replica) else { continue };
            let mut state = cell.lock();
            if let Some(piece) = state.places.piece_mut(first, id) {
                piece.mem = None;
                continue;
            }
            // Entries begin at 1, so this one is a keyed value. Any other is gone, and is not searched for among the keys, which may be
            // very many.
            if first == 0 {
                state.keys.forget_memory(id);
            }
        }
    }

    /// Something could not be made durable: nothing more is written or acknowledged, and all waiters are told why.
    pub(crate) fn poison(&self, cause: String, frame: Option<Box<SealedFrame>>) {
        self.fail(&Error::Poisoned { cause: cause.into() }, frame);
    }

    /// As [`Engine::poison`], for any reason.
    pub(super) fn fail(&self, why: &Error, frame: Option<Box<SealedFrame>>) {
        // Before it is said: a subscriber may panic, and nobody would be told.
        self.stop(why, frame);
        let said = why.clone();
        self.events.say(move || tracing::error!(target: "strandlog", "{said}"));
        self.events.tell(|| match why.clone() {
            Error::FileLost { cause } => Event::FileLost { cause },
            Error::Poisoned { cause } => Event::Poisoned { cause },
            other => Event::Poisoned { cause: other.to_string().into() },
        });
    }

    /// Ends all writing; the first reason stands. The waiters of what was not acknowledged are told that reason: of a frame that failed, of
    /// those behind it, and of all that were not taken yet. Frames being written before these may still succeed: **they are told behind
    /// those**, and under none of the caller's locks.
    pub(crate) fn stop(&self, why: &Error, frame: Option<Box<SealedFrame>>) {
        {
            let mut s = self.seq.lock();
            let s = &mut *s;
            s.stopped.get_or_insert_with(|| why.clone());
            if let Some(frame) = frame {
                s.in_flight.fail(*frame);
            }
            for open in s.closed.iter_mut().chain(std::iter::once(&mut s.open)) {
                s.in_flight.end(open);
            }
            self.ended.store(true, StdOrdering::Relaxed);
        }
        self.work.notify_all();
        self.room.notify_all();
        {
            let mut cleaner = self.cleaner.lock();
            cleaner.stop = true;
            self.clean.notify_all();
        }
        self.hands.stop();
        self.tell();
    }

    /// Whether what waits is better left to the writer thread: it is at work and looks again before it rests, and there is a crowd to share
    /// its frames. A few callers are faster by themselves: nobody has to be woken.
    pub(super) fn writer_will(&self, s: &Sequencer) -> bool {
        self.run.background && !s.writer_idle && self.last_batches.load(Ordering::Relaxed) >= CROWD
    }

    /// Submits the batch, clears it if it was accepted, and waits until it is durable.
    pub(crate) fn commit(&self, batch: &mut Batch) -> Result<Lsn> {
        // Before anything is submitted: a callback that commits is refused, and may try again elsewhere.
        self.may_wait()?;
        let submitted = self.submit(batch, Mode::Block, None, self.run.background)?;
        batch.clear();
        self.lead(submitted)
    }

    /// Writes the frame taken at submission, and goes on until the batch is durable. **A caller that asked to lead must come here**: nobody
    /// else writes that frame.
    pub(super) fn lead(&self, submitted: Submitted) -> Result<Lsn> {
        let Submitted { lsn, ticket, writer_busy, taken } = submitted;
        if writer_busy {
            return ticket.wait().map(|()| lsn);
        }
        let led = taken.is_some();
        if let Some(frame) = taken {
            self.carry_out(frame);
        }
        self.go_on(&ticket, led).map(|()| lsn)
    }

    /// Brings the ticket's frame to the disk, or waits for the thread that does. When few callers are about, this one leads inline.
    pub(crate) fn drive(&self, ticket: &Arc<Ticket>) -> Result<()> {
        self.go_on(ticket, false)
    }

    /// Whether this thread may wait for a frame, or for the cleaner, which waits for frames: not in a callback, for which the next
    /// completion waits, nor in a listener on one of the log's threads, which may be the one that has to write.
    pub(crate) fn may_wait(&self) -> Result<()> {
        if TELLING.with(ThreadCell::get) > Telling::Listeners {
            return Err(self.busy());
        }
        Ok(())
    }

    /// The error for a thread that would wait for itself.
    pub(super) fn busy(&self) -> Error {
        Error::Busy { queued: self.seq.lock().waiting_bytes(), limit: self.run.queue_bytes as u64 }
    }

    fn go_on(&self, ticket: &Arc<Ticket>, mut led: bool) -> Result<()> {
        loop {
            if let Some(outcome) = ticket.outcome() {
                if led {
                    self.wake_writer(&self.seq.lock());
                }
                return outcome;
            }
            self.may_wait()?;
            let mut s = self.seq.lock();
            let flying = s.in_flight.holds(ticket);
            if let Some(why) = s.stopped.clone().filter(|_| !flying) {
                drop(s);
                // A thread that is just completing it has taken it out of the flights, and tells of it under this lock.
                drop(self.completion.lock());
                return ticket.outcome().unwrap_or(Err(why));
            }
            if Arc::ptr_eq(&s.open.ticket, ticket) {
                s.open.wanted = true;
            }
            let others = flying || self.writer_will(&s);
            if !others && let Some(frame) = s.take(self.durable(), &self.recent) {
                drop(s);
                led = true;
                self.carry_out(frame);
                continue;
            }
            // Others write it, or as many as allowed are in flight: what is left when they are done is the writer thread's, and without one
            // the caller's.
            self.wake_writer(&s);
            let oldest = if flying || self.run.background { None } else { s.in_flight.oldest().map(Arc::clone) };
            drop(s);
            match oldest {
                Some(oldest) => drop(oldest.wait()),
                None => drop(ticket.wait()),
            }
        }
    }

    /// Writes one waiting frame in the caller's thread, or waits for one that is being written.
    pub(crate) fn lead_one(&self) {
        if !self.round() {
            let oldest = self.seq.lock().in_flight.oldest().map(Arc::clone);
            if let Some(oldest) = oldest {
                let _ = oldest.wait();
            }
        }
    }

    /// Callers that the last frame released come back at once with their next batch: a frame taken before they had the processor would
    /// carry one of these batches, and make all other callers wait for it. Gives the processor away a few times; never sleeps.
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
            thread::yield_now();
        }
    }

    /// A hand: see [`Hands`](super::hands::Hands).
    pub(crate) fn run_hand(&self) {
        self.hands.run(&*self.disk);
    }

    /// The writer thread: takes frames until there are none, then rests.
    pub(crate) fn run_writer(&self) {
        self.seq.lock().writer_idle = false;
        loop {
            loop {
                self.let_others_in();
                if !self.round() {
                    break;
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

/// Where the bytes of a piece go.
pub(crate) fn parts<'a>(extents: &'a [Extent], mut bytes: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
    extents.iter().map(move |extent| {
        let (part, rest) = bytes.split_at(bytes.len().min(extent.bytes() as usize));
        bytes = rest;
        (extent.offset(), part)
    })
}
