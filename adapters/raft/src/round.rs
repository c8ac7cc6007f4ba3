//! One iteration of a poller thread: the readies of many groups, one batch.

use std::collections::HashSet;

use raft::Ready;
use strandlog::Batch;

use crate::waiting::Persisted;
use crate::{Error, GroupStorage, Result};

/// The readies of one iteration, gathered into one atomic [`Batch`].
///
/// Made by [`PersistQueue::round`](crate::PersistQueue::round), filled by [`persist`](Self::persist), emptied by [`PersistQueue::submit`](crate::PersistQueue::submit),
/// and then good for the next iteration.
#[derive(Debug, Default)]
pub struct Round {
    pub(crate) batch: Batch,
    pub(crate) readies: Vec<(u64, Ready)>,
    groups: HashSet<u64>,
    pub(crate) needs_sync: bool,
    /// Submitting was tried, and failed.
    pub(crate) sealed: bool,
    bytes: usize,
    limit: usize,
}

impl Round {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes over a group's Ready: writes its snapshot, entries and hard state, and keeps the messages
    /// which must wait for them.
    ///
    /// Before this, take from it what needs no persistence: [`Ready::take_messages`] (a leader's, to be
    /// sent at once), [`Ready::take_committed_entries`], [`Ready::take_read_states`]. Afterwards do not
    /// touch the group until the round is submitted.
    ///
    /// # Errors
    ///
    /// Nothing of this Ready was written; the other groups of the round are not concerned.
    pub fn persist(&mut self, storage: &mut GroupStorage, ready: Ready) -> Result<()> {
        let group = storage.group();
        if self.sealed {
            let what = "the round failed to be submitted: submit it again first";
            return Err(Error::Misuse { group, what });
        }
        if self.groups.contains(&group) {
            let what = "one Ready a group and round";
            return Err(Error::Misuse { group, what });
        }
        let (mut first, mut last) = (storage.replica().first_index(), storage.replica().last_index());
        let snapshot = ready.snapshot();
        let hard_state = ready.hs();
        if !snapshot.is_empty() {
            storage.install_snapshot(&mut self.batch, snapshot, hard_state)?;
            (first, last) = (snapshot.get_metadata().index + 1, snapshot.get_metadata().index);
            self.bytes += snapshot.data.len();
        }
        storage.append_behind(&mut self.batch, ready.entries(), first, last)?;
        if snapshot.is_empty()
            && let Some(hard_state) = hard_state
        {
            storage.set_hard_state(&mut self.batch, hard_state);
        }
        let size = |entry: &raft::eraftpb::Entry| entry.data.len() + entry.context.len() + 32;
        self.bytes += 64 + ready.entries().iter().map(size).sum::<usize>();
        self.needs_sync |= ready.must_sync();
        self.groups.insert(group);
        self.readies.push((group, ready));
        Ok(())
    }

    /// The batch, for what the state machine has to say: [`GroupStorage::checkpoint`],
    /// [`GroupStorage::compact`], or state of your own.
    ///
    /// What is added here does not make a round wait for a sync: it becomes durable with the next one.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Whether it should be submitted before it takes more groups: a batch must fit a segment of the log's journal.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// Whether there is nothing to submit.
    pub fn is_empty(&self) -> bool {
        self.readies.is_empty() && self.batch.is_empty()
    }

    /// After a successful submit.
    pub(crate) fn reset(&mut self) {
        self.batch.clear();
        self.groups.clear();
        self.needs_sync = false;
        self.sealed = false;
        self.bytes = 0;
    }
}

/// Splits off what has to wait: the Ready itself goes back to its group.
pub(crate) fn waiting_part(group: u64, ready: &mut Ready) -> Persisted {
    Persisted { group, number: ready.number(), messages: ready.take_persisted_messages() }
}
