//! The checkpointer: empties the oldest journal segments, so that they can be written again.
//!
//! What is still alive there is *settled* into the replica's chain where that is worth chunks, and *carried* to the journal's
//! head where it is not. A segment is superseded when everything submitted up to the end of its scan is durable: its
//! moves, and whatever else made its content dead. It is free when a durable frame has named a tail beyond it.

mod carry;
mod gather;
mod resize;
mod settle;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::journal::RESERVED_SEGMENTS;

/// Segments cleaned before their release is published, while there are enough free ones.
const CLEAN_BATCH: usize = 8;

impl Engine {
    /// Frees segments until the low-water mark is passed. Answers how many.
    pub(crate) fn clean_some(&self) -> Result<u64> {
        let _one = self.cleaning.lock();
        self.grow_journal()?;
        let target = { self.seq.lock().low_water() };
        self.clean_until(|free| free > target)
    }

    /// Frees every segment but the one being written.
    pub(crate) fn clean_all(&self) -> Result<u64> {
        let _one = self.cleaning.lock();
        self.sync()?;
        let last = { self.seq.lock().segments.current() };
        let mut freed = 0;
        loop {
            let tail = { self.seq.lock().segments.tail() };
            if tail >= last {
                return Ok(freed);
            }
            let n = self.clean_batch(|s| s.segments.tail() < last)?;
            if n == 0 {
                return Ok(freed);
            }
            freed += n;
        }
    }

    fn clean_until(&self, enough: impl Fn(usize) -> bool) -> Result<u64> {
        let mut freed = 0;
        loop {
            let free = self.seq.lock().segments.free.len();
            if enough(free) {
                break;
            }
            let n = self.clean_batch(|s| !enough(s.segments.free.len() + s.segments.leaving.len()))?;
            if n == 0 {
                break;
            }
            freed += n;
        }
        Ok(freed)
    }

    /// Cleans a few segments, then publishes that they are free: two frames, however many segments.
    fn clean_batch(&self, more: impl Fn(&crate::journal::Sequencer) -> bool) -> Result<u64> {
        let mut done = 0;
        for _ in 0..CLEAN_BATCH {
            let front = {
                let s = self.seq.lock();
                if done > 0 && (!more(&s) || s.segments.free.len() <= RESERVED_SEGMENTS) {
                    break;
                }
                let next = s.segments.live.get(1).map(|n| n.seq * self.geo.segment_bytes);
                s.segments.live.front().map(|f| (f.seq, f.slab, f.participants.clone())).zip(next)
            };
            let Some(((seq, slab, participants), next_lsn)) = front else { break };
            if self.durable() < next_lsn {
                self.sync()?;
            }
            if !self.clean_segment(seq, slab, participants)? {
                break;
            }
            self.supersede(seq)?;
            done += 1;
        }
        if done > 0 {
            // The frame that says so must be durable before anything is reused.
            self.seal()?;
            self.counters.segments_cleaned.add(done);
        }
        Ok(done)
    }

    /// Makes durable all that emptied the segment, then takes it off the log's tail.
    fn supersede(&self, seq: u64) -> Result<()> {
        self.sync()?;
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        if s.segments.live.len() > 1
            && s.segments.live.front().is_some_and(|f| f.seq == seq)
            && let Some(front) = s.segments.live.pop_front()
        {
            s.segments.leaving.push_back((front.seq, front.slab));
        }
        Ok(())
    }

    /// Moves everything alive out of the segment. `false`: there was no room to move it to.
    fn clean_segment(&self, seq: u64, slab: u32, mut participants: Vec<u64>) -> Result<bool> {
        participants.sort_unstable();
        participants.dedup();
        let mut source = self.segment_source(seq, slab);
        let moved = self.move_entries(seq, &participants, &mut source)? && self.carry_metadata(seq, &participants)?;
        if !moved {
            tracing::warn!(seq, "no room to clean the oldest segment");
        }
        Ok(moved)
    }

    /// A write of the cleaner failed: like any other, it poisons.
    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        self.poison(format!("{what}: {error}"), None);
        Error::Poisoned { cause: format!("{what}: {error}").into() }
    }
}
