//! One iteration of a poller thread: the readies of many groups, one batch.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use raft::Ready;
use strandlog::{Batch, MAX_BATCH_BYTES};

use crate::part::{Part, Taken};
use crate::waiting::Met;
use crate::{APPLIED, CONF_STATE, Checkpoint, Error, GroupStorage, HARD_STATE, Result};

/// The readies of one iteration, gathered into one atomic [`Batch`]; or into several, if one would be too large for the log.
///
/// Made by [`PersistQueue::round`](crate::PersistQueue::round), filled by [`persist`](Self::persist), emptied by [`PersistQueue::submit`](crate::PersistQueue::submit),
/// and then ready for the next iteration. All that it has of one group is in one batch, durable together or not at all. Nothing else writes
/// to that batch: what a Ready wrote into it is what its messages promise.
#[derive(Debug, Default)]
pub struct Round {
    /// The whole round, until that turns out to be too large; then the part that is submitted next.
    pub(crate) part: Part,
    /// The parts that are submitted after it.
    pub(crate) rest: VecDeque<Part>,
    groups: HashSet<u64>,
    /// Groups that were taken out: they must not be written again before the round is submitted.
    gone: HashSet<u64>,
    /// A submission failed.
    pub(crate) sealed: bool,
    limit: u64,
    max_value: u64,
    /// Where the queue learns of each Ready taken.
    met: Arc<Met>,
}

impl Round {
    /// A round that is full at `limit` bytes; `max_value` is the log's limit for a value.
    pub(crate) fn new(limit: u64, max_value: u64, met: Arc<Met>) -> Self {
        Self { limit, max_value, met, ..Self::default() }
    }

    /// Takes over a group's Ready: writes its snapshot, entries and hard state, and keeps the messages. Call it as soon as the node made the
    /// Ready, before the next [`poll`](crate::PersistQueue::poll).
    ///
    /// Before this, take [`Ready::take_committed_entries`] and [`Ready::take_read_states`] from it, but *no messages*: those that may be sent
    /// at once, a leader's, come back when the round is submitted ([`Written`](crate::Written)), the others when it is durable. raft calls a
    /// leader's messages ready to be sent even if the Ready brings the very term that they speak of, as that of an only voter does that has
    /// just elected itself: if a learner hears of that term, and a power cut takes it, the term may get two leaders. Afterwards do
    /// not touch the group until the round is submitted.
    ///
    /// # Errors
    ///
    /// Nothing of this Ready was written, and it is gone; the other groups of the round are not affected. This group cannot go on, because its
    /// node counts on what the log will never have: [`PersistQueue::forget`](crate::PersistQueue::forget) it, and open it anew.
    pub fn persist(&mut self, storage: &mut GroupStorage, ready: Ready) -> Result<()> {
        let group = storage.group();
        if self.sealed {
            let what = "the round failed to be submitted: submit it again first";
            return Err(Error::Misuse { group, what });
        }
        self.check_not_gone(group)?;
        if self.groups.contains(&group) {
            let what = "one Ready a group and round";
            return Err(Error::Misuse { group, what });
        }
        let (snapshot, hard_state) = (ready.snapshot(), ready.hs());
        let known = (storage.hard_state().term, storage.hard_state().vote);
        let pledges = hard_state.is_some_and(|new| (new.term, new.vote) != known);
        check_bytes(group, &ready)?;
        if !snapshot.is_empty() {
            storage.check_not_behind(snapshot)?;
        }
        let (first, last) =
            if snapshot.is_empty() { storage.replica().bounds() } else { storage.bounds_behind(snapshot)? };
        // All that may be refused is checked before anything is written.
        let entries = storage.encode_behind(ready.entries(), first, last)?;
        let batch = self.part.batch_for(group);
        if !snapshot.is_empty() {
            storage.install_snapshot(batch, snapshot, hard_state)?;
        }
        storage.append_encoded(batch, &entries);
        if snapshot.is_empty()
            && let Some(hard_state) = hard_state
        {
            storage.set_hard_state(batch, hard_state);
        }
        drop(entries);
        self.groups.insert(group);
        self.met.add(group, ready.number());
        self.part.readies.push(Taken { group, ready, pledges });
        Ok(())
    }

    fn check_not_gone(&self, group: u64) -> Result<()> {
        let what = "the group was taken out of the round: submit that first, and open the group anew";
        if self.gone.contains(&group) { Err(Error::Misuse { group, what }) } else { Ok(()) }
    }

    /// The batch that already holds something of the group, if one does: a compaction depends on the checkpoint in it.
    fn batch_of(&mut self, group: u64) -> &mut Batch {
        let Self { part, rest, .. } = self;
        let part = rest.iter_mut().find(|part| part.names(group)).unwrap_or(part);
        part.batch_for(group)
    }

    /// [`GroupStorage::checkpoint`] in this round. Like those below, it does not make the round wait for a sync: it is durable with the next one.
    ///
    /// # Errors
    ///
    /// As there; [`Error::Misuse`] for a group that was taken out of the round.
    pub fn checkpoint(&mut self, storage: &mut GroupStorage, checkpoint: Checkpoint<'_>) -> Result<()> {
        self.check_not_gone(storage.group())?;
        storage.checkpoint(self.batch_of(storage.group()), checkpoint)
    }

    /// [`GroupStorage::compact`] in this round; a checkpoint in the same round counts.
    ///
    /// # Errors
    ///
    /// As there; [`Error::Misuse`] for a group that was taken out of the round.
    pub fn compact(&mut self, storage: &mut GroupStorage, first_kept: u64) -> Result<u64> {
        self.check_not_gone(storage.group())?;
        storage.compact(self.batch_of(storage.group()), first_kept)
    }

    /// Sets a keyed value of your own.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::TooLarge`] for a value beyond [`Wal::max_value_bytes`](strandlog::Wal::max_value_bytes); [`Error::Misuse`]
    /// for a key of this crate or of the log, or a group that was taken out of the round.
    pub fn put(&mut self, group: u64, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_key(group, key)?;
        let (bytes, limit) = (value.len() as u64, self.max_value);
        if bytes > limit {
            return Err(Error::TooLarge { group, what: "a value", index: 0, bytes, limit });
        }
        self.batch_of(group).put(group, key, value);
        Ok(())
    }

    /// Deletes a keyed value of your own.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete(&mut self, group: u64, key: &[u8]) -> Result<()> {
        self.check_key(group, key)?;
        self.batch_of(group).delete(group, key);
        Ok(())
    }

    fn check_key(&self, group: u64, key: &[u8]) -> Result<()> {
        self.check_not_gone(group)?;
        let ours = [HARD_STATE, CONF_STATE, APPLIED].contains(&key);
        if ours || key.starts_with(b"\0sl.") || key.len() > strandlog::MAX_KEY_BYTES as usize {
            let what = "keys of your own are none of this crate's nor of the log's, and have 256 bytes at most";
            return Err(Error::Misuse { group, what });
        }
        Ok(())
    }

    /// Takes the group out of the round, whether or not its submission failed.
    pub(crate) fn forget(&mut self, group: u64) {
        self.parts_mut().for_each(|part| part.forget(group));
        self.gone.insert(group);
    }

    /// Takes the group out of the round, and puts only its removal into it.
    pub(crate) fn remove(&mut self, group: u64) {
        self.forget(group);
        self.batch_of(group).remove(group);
    }

    /// Whether it should be submitted before it takes more groups: a batch must fit a segment of the log's journal, and larger ones are no faster.
    /// A round that does not fit is written as several batches; splitting it costs copies.
    pub fn is_full(&self) -> bool {
        self.parts().map(|part| part.batch.log_bytes()).sum::<u64>() >= self.limit
    }

    /// Whether there is nothing to submit.
    pub fn is_empty(&self) -> bool {
        self.parts().all(|part| part.readies.is_empty() && part.batch.is_empty())
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.part).chain(&self.rest)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.part).chain(&mut self.rest)
    }

    /// After a successful submit.
    pub(crate) fn reset(&mut self) {
        self.part.clear();
        self.groups.clear();
        self.gone.clear();
        self.sealed = false;
    }
}

/// Refuses a Ready larger than any batch.
fn check_bytes(group: u64, ready: &Ready) -> Result<()> {
    let size = |entry: &raft::eraftpb::Entry| (entry.data.len() + entry.context.len() + 32) as u64;
    let bytes = ready.snapshot().data.len() as u64 + ready.entries().iter().map(size).sum::<u64>();
    let limit = MAX_BATCH_BYTES;
    if bytes > limit {
        let index = ready.entries().first().map_or(0, |entry| entry.index);
        return Err(Error::TooLarge { group, what: "a Ready", index, bytes, limit });
    }
    Ok(())
}
