//! Resizing: the journal grows for what it carries, and while chunks are plentiful, and gives slabs back when they are not.

use crate::engine::Engine;
use crate::error::Result;
use crate::events::Event;
use crate::format::superblock::Superblock;
use crate::journal::Class;

/// How many slabs a journal of `slabs` takes at a time for what it carries: each time costs two writes.
fn growth(slabs: u32) -> u32 {
    (slabs / 16).max(1)
}

/// This many eighths of all chunks stay with the chains when the journal grows to move less.
pub(super) const KEPT_EIGHTHS: u64 = 1;
/// This many if it grows for that beyond the size that it may have whatever it carries. It gives these slabs back when fewer than
/// [`KEPT_EIGHTHS`] are left.
const PLENTY_EIGHTHS: u64 = 2;
const _: () = assert!(PLENTY_EIGHTHS > KEPT_EIGHTHS, "what was just taken would be given back");

impl Engine {
    /// Lets the journal grow if it should: for what it carries, and while segments are short and the chains do not need most of what they
    /// have left. The caller holds `cleaning`.
    pub(super) fn grow_journal(&self) -> Result<()> {
        loop {
            let (low, carries, wish) = {
                let s = self.seq.lock();
                let low = s.segments.free.len() <= s.low_water();
                (low, s.accounts.wants_to_grow(), self.geo.cycle.slabs(s.accounts.carried()))
            };
            let slabs = { self.superblock.lock().journal_slabs.len() as u32 };
            let left = if slabs < self.geo.cycle.least { KEPT_EIGHTHS } else { PLENTY_EIGHTHS };
            let grown = match (carries, low && slabs < wish) {
                (true, _) => self.take_slabs(growth(slabs), 0)?,
                (_, true) => self.take_slabs(1, self.eighths(left))?,
                _ => false,
            };
            if !grown {
                return Ok(());
            }
        }
    }

    /// Gives back what the journal took to move less, when chunks are no longer plentiful. The caller holds `cleaning`.
    pub(super) fn give_back(&self) -> Result<()> {
        while self.superblock.lock().journal_slabs.len() as u32 > self.geo.cycle.least
            && self.unreserved() < self.eighths(KEPT_EIGHTHS)
        {
            if !self.shrink_journal()? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn eighths(&self, n: u64) -> u64 {
        u64::from(self.geo.chunks) * n / 8
    }

    /// Free chunks that nobody has reserved.
    fn unreserved(&self) -> u64 {
        let held = { self.seq.lock().accounts.reserved() + self.value_reserve };
        self.pool.lock().free().saturating_sub(held)
    }

    /// Lets the journal grow for what it carries, if there is a slab to be had and the budget is still the one that was too small.
    pub(crate) fn grow_for_carried(&self, budget: u64) -> Result<()> {
        let _hurry = self.hurry.begin();
        let _tell_after_the_locks = self.hold();
        // Held so that no settling meanwhile takes the chunks that nobody has reserved.
        let _still = self.cleaning.lock();
        if self.seq.lock().accounts.budget() != budget {
            return Ok(());
        }
        let slabs = { self.superblock.lock().journal_slabs.len() as u32 };
        self.take_slabs(growth(slabs), 0).map(|_| ())
    }

    /// Takes up to `most` slabs for the journal, as long as `left` chunks are left that nobody has reserved. `false`: none.
    fn take_slabs(&self, most: u32, left: u64) -> Result<bool> {
        let _tell_after_the_locks = self.hold();
        let mut superblock = self.superblock.lock();
        let most = most.min(superblock.journal_cap.saturating_sub(superblock.journal_slabs.len() as u32));
        let mut next = superblock.clone();
        {
            // While this lock is held, nobody reserves what is taken here.
            let mut s = self.seq.lock();
            let mut pool = self.pool.lock();
            let held = s.accounts.reserved() + self.value_reserve;
            let had = pool.free().saturating_sub(held);
            let slab = u64::from(pool.chunks_per_slab());
            for _ in 0..most {
                let spare = pool.free().saturating_sub(held);
                let Some(slab) = (spare >= left + slab).then(|| pool.take_slab()).flatten() else { break };
                next.journal_slabs.push(slab);
            }
            if next.journal_slabs.len() == superblock.journal_slabs.len() {
                // Refused for moving less, it may still grow for what is carried: that asks for less to be left.
                if left == 0 {
                    s.accounts.deny(had);
                }
                return Ok(false);
            }
        }
        let before = superblock.journal_slabs.len();
        let taken: Vec<u32> = next.journal_slabs.iter().skip(before).copied().collect();
        self.expect_reads(&taken, true);
        if let Err(error) = self.write_superblock(&mut superblock, next) {
            // Nobody writes any more; readers of the pool find the slabs where they were.
            let mut pool = self.pool.lock();
            taken.into_iter().for_each(|slab| pool.return_slab(slab));
            return Err(error);
        }
        let slabs = superblock.journal_slabs.len() as u64;
        self.events.say(move || tracing::debug!(target: "strandlog", segments = slabs, "the journal has grown"));
        self.events.later(|| Event::JournalGrown { segments: slabs });
        let mut s = self.seq.lock();
        s.segments.free.extend(taken);
        s.accounts.resize(slabs);
        Ok(true)
    }

    /// Gives a free slab back to the chains, if the journal is above its floor, needs less for what it carries, and has a free segment to
    /// spare.
    pub(crate) fn shrink_journal(&self) -> Result<bool> {
        let _tell_after_the_locks = self.hold();
        let mut superblock = self.superblock.lock();
        let slabs = superblock.journal_slabs.len() as u32;
        if slabs <= superblock.journal_floor {
            return Ok(false);
        }
        let slab = {
            let mut s = self.seq.lock();
            let spare = s.segments.free.len() > s.leaves(Class::Grow) + 1 && s.accounts.may_shrink();
            let slab = if spare { s.segments.free.pop_back() } else { None };
            if slab.is_some() {
                s.accounts.resize(u64::from(slabs - 1));
            }
            slab
        };
        let Some(slab) = slab else { return Ok(false) };
        self.expect_reads(&[slab], false);
        let mut next = superblock.clone();
        next.journal_slabs.retain(|&s| s != slab);
        let segments = next.journal_slabs.len() as u64;
        self.write_superblock(&mut superblock, next)?;
        self.events.say(move || tracing::debug!(target: "strandlog", segments, "the journal has shrunk"));
        self.events.later(|| Event::JournalShrunk { segments });
        self.pool.lock().return_slab(slab);
        Ok(true)
    }

    /// At close: from now on, what is missing below `durable` is known to be lost, whatever becomes of the frames that say so.
    pub(crate) fn mark_durable(&self, durable: u64) -> Result<()> {
        let _tell_after_the_locks = self.hold();
        let mut superblock = self.superblock.lock();
        if superblock.durable >= durable {
            return Ok(());
        }
        let next = Superblock { durable, ..superblock.clone() };
        self.write_superblock(&mut superblock, next)
    }

    /// As [`Engine::mark_durable`], for a log that was stopped with nothing left to write: the snapshot of its index goes along.
    pub(crate) fn mark_closed(&self, superblock: &mut Superblock, durable: u64) -> Result<()> {
        let snapshot = self.write_snapshot(superblock, superblock.epoch + 1)?;
        if superblock.durable >= durable && snapshot.is_none() {
            return Ok(());
        }
        let next = Superblock { durable: superblock.durable.max(durable), snapshot, ..superblock.clone() };
        self.write_copies(superblock, next)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "resize_tests.rs"]
mod tests;
