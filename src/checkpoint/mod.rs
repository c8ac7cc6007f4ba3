//! The checkpointer: empties the oldest journal segments, so that they can be written again.
//!
//! What is still alive there is *settled* into the replica's chain if it is worth chunks, and otherwise *carried* to the journal's head. A
//! segment is superseded when everything submitted up to the end of its scan is durable: its moves, and whatever else made its content
//! dead. It is free when a durable frame has named a tail beyond it.

#[cfg(all(test, not(any(loom, shuttle))))]
mod accounts_tests;
mod carry;
#[cfg(all(test, loom))]
mod clip_loom;
mod copies;
mod fate;
mod gather;
mod group;
mod moving;
mod resize;
mod settle;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod unasked_tests;

use group::Group;

use crate::engine::{Engine, Oldest, Patience, Turn};
use crate::error::{Error, Result};
use crate::journal::{Class, Sequencer};

impl Engine {
    /// Frees segments until the low-water mark is passed. Answers how many.
    pub(crate) fn clean_some(&self) -> Result<u64> {
        {
            let _tell_after_the_lock = self.hold();
            let _one = self.cleaning.lock();
            self.give_back()?;
            self.grow_journal()?;
        }
        let last = { self.seq.lock().segments.current() };
        // Once around at most: what one turn does not free, another does not either.
        let freed = self.clean_while(|s| {
            s.segments.free.len() + s.segments.leaving.len() <= s.low_water() && s.segments.tail() <= last
        })?;
        self.cleaner.lock().turns += 1;
        Ok(freed)
    }

    /// Frees every segment except the one being written.
    pub(crate) fn clean_all(&self) -> Result<u64> {
        let _hurry = self.hurry.begin();
        // Refused in a callback: the cleaner, for which this would wait, waits for the frame that is being completed.
        self.may_wait()?;
        self.sync()?;
        let last = { self.seq.lock().segments.current() };
        self.clean_while(|s| s.segments.tail() < last)
    }

    /// Frees every segment up to `seq`, and first leaves that one if it is being written. `false`: there is no room for that.
    pub(crate) fn clean_through(&self, seq: u64) -> Result<bool> {
        let _hurry = self.hurry.begin();
        let (mut freed, mut patience) = (None, None);
        loop {
            {
                let mut s = self.seq.lock();
                if let Some(why) = &s.stopped {
                    return Err(why.clone());
                }
                if s.segments.current() > seq || s.leave_segment(Class::Keep, &self.segment_map) {
                    break;
                }
                let waits = Patience::go_on(patience, self, &s);
                if freed == Some(0) || waits.is_over(self, &s, Class::Keep) {
                    return Ok(false);
                }
                patience = Some(waits);
            }
            freed = Some(self.clean_some()?);
        }
        self.sync()?;
        self.clean_while(|s| s.segments.tail() <= seq)?;
        Ok(self.seq.lock().segments.tail() > seq)
    }

    fn clean_while(&self, more: impl Fn(&Sequencer) -> bool) -> Result<u64> {
        self.forget_those_gone();
        let mut freed = 0;
        loop {
            let turn = Turn::begin_if(|| more(&self.seq.lock()));
            let segments = {
                let _tell_after_the_lock = self.hold();
                // Held for one group at a time: a caller that waits for it need not wait for all of them.
                let mut one = self.cleaning.lock();
                self.clean_next(&more, &mut one)?
            };
            turn.into_iter().for_each(|turn| turn.cleaned(segments));
            if segments == 0 {
                return Ok(freed);
            }
            freed += segments;
        }
    }

    /// Frees the oldest segments among those before segment `end`. The caller holds `cleaning`. Answers how many; 0: there are none, or no
    /// room to clean them.
    pub(crate) fn clean_oldest(&self, end: u64, oldest: &mut Oldest) -> Result<u64> {
        self.clean_next(&|s| s.segments.tail() < end, oldest)
    }

    /// Frees the oldest segments, if there is `more` to free. Answers how many; 0 also if there is no room to clean them.
    fn clean_next(&self, more: &impl Fn(&Sequencer) -> bool, oldest: &mut Oldest) -> Result<u64> {
        let segments = self.leave_next(more, oldest)?;
        if segments > 0 {
            // The frame that says so must be durable before anything is reused.
            self.seal(Class::Clean)?;
            self.counters.segments_cleaned.add(segments);
        }
        Ok(segments)
    }

    /// As [`Engine::clean_next`], without the frame that says so.
    pub(crate) fn leave_next(&self, more: &impl Fn(&Sequencer) -> bool, oldest: &mut Oldest) -> Result<u64> {
        // The caller that stopped the log has waited for the group before this one, and does not wait for one that begins now.
        if let Some(why) = &self.seq.lock().stopped {
            return Err(why.clone());
        }
        let Some((mut group, behind)) = self.next_group(more) else { return Ok(0) };
        // A durable frame must lie behind the group: in a log in which nothing is alive nothing else would be left, and the next frame,
        // which goes there, may be torn. None does if the segment behind was opened and nothing was written to it.
        if self.durable() <= behind {
            self.sync()?;
            if self.durable() <= behind {
                self.seal(Class::Clean)?;
            }
        }
        let segments = group.len();
        self.leave_out(&mut group, oldest);
        let cleaned = self.clean_group(&mut group);
        if let Some((what, error)) = group.segments.unread.take() {
            self.events.say(move || tracing::debug!(target: "strandlog", %error, "{what}"));
        }
        oldest.learn(group.beyond);
        if !cleaned? {
            self.events.say(|| tracing::warn!(target: "strandlog", "no room to clean the oldest segments"));
            return Ok(0);
        }
        Ok(segments)
    }

    /// The oldest segments, and the LSN behind them. One at a time when room is short: what is moved out of one fits what is kept
    /// for the cleaner.
    fn next_group(&self, more: &impl Fn(&Sequencer) -> bool) -> Option<(Group, u64)> {
        let mut s = self.seq.lock();
        // Readers may have let go of some since the last frame, and in a small journal nothing may be left to clean: then no frame would
        // come to free them.
        self.free_unpinned(&mut s);
        if !more(&s) {
            return None;
        }
        // All of the group may be alive: what is carried out of it, and the frame that publishes it, must find segments.
        let spare = s.segments.free.len().saturating_sub(s.reserved());
        let most = spare.min(s.together()).max(1);
        // Never the segment that is being written.
        let n = most.min(s.segments.live.len().checked_sub(1)?);
        let behind = s.segments.live.get(n)?.seq * self.geo.segment_bytes;
        (n > 0).then(|| (Group::new(s.segments.live.iter().take(n), &self.geo), behind))
    }

    /// Moves everything alive out of the group, makes that durable, and takes the group off the log's tail. `false`: no room.
    fn clean_group(&self, group: &mut Group) -> Result<bool> {
        if !self.move_entries(group)? || !self.carry_metadata(group)? {
            return Ok(false);
        }
        // Not only the moves: what made the rest dead must be durable, too, before it is forgotten.
        self.sync()?;
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        debug_assert!(
            group.holds(s.segments.current())
                || self.registry.all().iter().all(|cell| !self.has_something_in(group, cell.id)),
            "something of a replica is left behind in segments that are given up"
        );
        while group.holds(s.segments.tail()) && s.segments.leave_oldest() {}
        Ok(true)
    }

    /// Leaves out of the group the replicas that certainly have nothing in it.
    fn leave_out(&self, group: &mut Group, oldest: &mut Oldest) {
        oldest.come_to(group.last());
        let mut all = std::mem::take(&mut group.participants);
        all.retain(|&id| {
            let beyond = oldest.is_beyond(id);
            debug_assert!(!beyond || !self.has_something_in(group, id), "replica {id} is left out of what concerns it");
            !beyond
        });
        group.participants = all;
    }

    /// Whether an entry of the replica lies in the group, or its newest metadata does.
    fn has_something_in(&self, group: &Group, id: u64) -> bool {
        let Some(cell) = self.registry.get(id) else { return false };
        let state = cell.lock();
        state.has_metadata_in(|seq| group.holds(seq)) || state.has_entry_in(group.lsns())
    }

    /// A write other than a frame's has failed: like any other, it poisons.
    pub(crate) fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        self.poison(format!("{what}: {error}"), None);
        Error::Poisoned { cause: format!("{what}: {error}").into() }
    }
}
