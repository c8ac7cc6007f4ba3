//! One group's writes, into a batch that the caller submits.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use strandlog::Batch;

use crate::codec::{entry, state};
use crate::storage::{Written, snapshot_of};
use crate::{APPLIED, BOOTSTRAP_INDEX, CONF_STATE, Error, GroupStorage, HARD_STATE, Result};

/// The state machine's own copy, in the log beside the entries.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    /// Index of the last entry applied.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Configuration as of that entry.
    pub conf_state: &'a ConfState,
    /// The state machine's bytes; empty when it lives elsewhere.
    pub data: &'a [u8],
}

impl GroupStorage {
    /// Starts a new group with these members, its log at [`BOOTSTRAP_INDEX`] and `data` as the state
    /// machine's first checkpoint. Every first member must be given the same.
    pub fn bootstrap(&mut self, batch: &mut Batch, conf_state: &ConfState, data: &[u8]) -> Result<()> {
        let data = Bytes::copy_from_slice(data);
        let snapshot = snapshot_of(BOOTSTRAP_INDEX, BOOTSTRAP_INDEX, conf_state, data);
        self.install_snapshot(batch, &snapshot, None)
    }

    /// Appends entries; those at and behind the first one's index are overwritten.
    pub fn append(&self, batch: &mut Batch, entries: &[Entry]) -> Result<()> {
        let (first, last) = (self.replica.first_index(), self.replica.last_index());
        self.append_behind(batch, entries, first, last)
    }

    /// Appends to a log which is `[first, last]` by the time the batch gets there.
    ///
    /// Checked here although the log checks too: what it refuses is the whole batch, with the groups
    /// that did nothing wrong.
    pub(crate) fn append_behind(&self, batch: &mut Batch, entries: &[Entry], first: u64, last: u64) -> Result<()> {
        let Some(index) = entries.first().map(|entry| entry.index) else {
            return Ok(());
        };
        let steps_by_one = entries.iter().zip(index..).all(|(entry, i)| entry.index == i);
        if index < first || index > last + 1 || !steps_by_one {
            return Err(Error::NotContinuous { group: self.group(), index, first, last });
        }
        // One buffer for all, and slices of it: an entry costs no allocation.
        let mut bytes = Vec::with_capacity(encoded_size(entries));
        let mut ends = Vec::with_capacity(entries.len());
        for one in entries {
            entry::encode(one, &mut bytes);
            ends.push(bytes.len());
        }
        let mut start = 0;
        let mut slices = Vec::with_capacity(entries.len());
        for (one, end) in entries.iter().zip(ends) {
            slices.push((one.index, one.term, &bytes[start..end]));
            start = end;
        }
        batch.append(self.group(), &slices);
        Ok(())
    }

    /// Cuts off the entries from `from` on, none of them committed. Raft needs no such thing, it overwrites; this is for whoever gives up
    /// on them from outside, before the group is driven.
    pub fn cut(&self, batch: &mut Batch, from: u64) -> Result<()> {
        if from <= self.hard_state.commit.max(self.applied) {
            return Err(Error::Misuse { group: self.group(), what: "a committed entry is not cut off" });
        }
        batch.truncate_suffix(self.group(), from);
        Ok(())
    }

    /// Writes a hard state.
    pub fn set_hard_state(&mut self, batch: &mut Batch, hard_state: &HardState) {
        batch.put(self.group(), HARD_STATE, &state::encode_hard_state(hard_state));
        self.hard_state = hard_state.clone();
        self.written.commit = hard_state.commit;
    }

    /// Replaces the log by a snapshot: entries, configuration, applied position and hard state, at once.
    ///
    /// `hard_state` is the one that came with it, when one did. Where the state machine lives outside
    /// the log, it must hold the snapshot durably *before* the batch is submitted.
    pub fn install_snapshot(
        &mut self,
        batch: &mut Batch,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<()> {
        let metadata = snapshot.get_metadata();
        let (index, term, first) = (metadata.index, metadata.term, self.replica.first_index());
        if index < first {
            return Err(Error::SnapshotOutOfDate { group: self.group(), index, first });
        }
        batch.install_snapshot(self.group(), index, term);
        let mut hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        hard_state.term = hard_state.term.max(term);
        hard_state.commit = hard_state.commit.max(index);
        self.set_hard_state(batch, &hard_state);
        let conf_state = metadata.get_conf_state();
        self.conf_state = conf_state.clone();
        batch.put(self.group(), CONF_STATE, &state::encode_conf_state(conf_state));
        self.put_applied(batch, index, &state::encode_applied(index, term, &snapshot.data));
        Ok(())
    }

    /// Writes the state machine's own copy. From here applying resumes after a restart, and up to here
    /// the log may be compacted.
    ///
    /// May ride in a lazy batch: what a crash takes of one replica is always a suffix, so a compaction
    /// that survives has its checkpoint before it, and a checkpoint has its commit index.
    pub fn checkpoint(&mut self, batch: &mut Batch, checkpoint: Checkpoint<'_>) {
        let Checkpoint { index, term, conf_state, data } = checkpoint;
        if *conf_state != self.conf_state || !self.written.conf_state {
            batch.put(self.group(), CONF_STATE, &state::encode_conf_state(conf_state));
            self.conf_state = conf_state.clone();
        }
        self.put_applied(batch, index, &state::encode_applied(index, term, data));
    }

    /// The configuration in the log is that of this index.
    fn put_applied(&mut self, batch: &mut Batch, index: u64, encoded: &[u8]) {
        if index > self.written.commit {
            // What is applied is committed; raft must find it so after a restart.
            let hard_state = HardState { commit: index.max(self.hard_state.commit), ..self.hard_state.clone() };
            self.set_hard_state(batch, &hard_state);
        }
        batch.put(self.group(), APPLIED, encoded);
        self.applied = index;
        self.written = Written { conf_state: true, applied: index, told: true, ..self.written };
    }

    /// Drops entries before `first_kept`, but none which the state machine does not hold durably
    /// ([`applied`](Self::applied)). Returns the first index kept; costs no sync of its own.
    ///
    /// Where that goes beyond the newest checkpoint, the applied index and its configuration are written with it, and take the
    /// checkpoint's place: its state machine is elsewhere, and the entries that led on from it are gone.
    pub fn compact(&mut self, batch: &mut Batch, first_kept: u64) -> u64 {
        let first = self.replica.first_index();
        // The last bound: right behind an installed snapshot the log is still empty.
        let kept = first_kept.min(self.applied.saturating_add(1)).min(self.replica.last_index().saturating_add(1));
        if kept <= first {
            return first;
        }
        if kept > self.written.applied.saturating_add(1) {
            // A state machine said so, and the log does not yet: it must begin neither behind its commit index, nor behind
            // a change of the configuration that nothing else tells.
            if !self.written.conf_state {
                batch.put(self.group(), CONF_STATE, &state::encode_conf_state(&self.conf_state));
            }
            self.put_applied(batch, self.applied, &state::encode_applied_elsewhere(self.applied));
        }
        batch.truncate_prefix(self.group(), kept);
        kept
    }
}

fn encoded_size(entries: &[Entry]) -> usize {
    let one = |entry: &Entry| entry.data.len() + entry.context.len() + 11;
    entries.iter().map(one).sum()
}
