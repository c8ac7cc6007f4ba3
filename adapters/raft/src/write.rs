//! One group's writes, into a batch that the caller submits.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use strandlog::Batch;

use crate::codec::{entry, state};
use crate::storage::snapshot_of;
use crate::{APPLIED, BOOTSTRAP_INDEX, CONF_STATE, Error, GroupStorage, HARD_STATE, Result};

/// Entries as they lie in the log. One buffer for all, and slices of it: an entry costs no allocation.
pub(crate) struct Encoded<'a> {
    entries: &'a [Entry],
    bytes: Vec<u8>,
    ends: Vec<usize>,
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
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::NotContinuous`]; [`Error::TooLarge`] for an entry that a proposal of
    /// [`max_proposal_bytes`](Self::max_proposal_bytes) does not become.
    pub fn append(&mut self, batch: &mut Batch, entries: &[Entry]) -> Result<()> {
        let (first, last) = self.replica.bounds();
        let encoded = self.encode_behind(entries, first, last)?;
        self.append_encoded(batch, &encoded);
        Ok(())
    }

    /// What is appended to a log which is `[first, last]` by the time the batch gets there.
    ///
    /// Checked here although the log checks too: what it refuses is the whole batch, with the groups
    /// that did nothing wrong.
    pub(crate) fn encode_behind<'a>(&self, entries: &'a [Entry], first: u64, last: u64) -> Result<Encoded<'a>> {
        let mut encoded = Encoded { entries, bytes: Vec::new(), ends: Vec::new() };
        let Some(index) = entries.first().map(|entry| entry.index) else {
            return Ok(encoded);
        };
        let steps_by_one = entries.windows(2).all(|two| two[0].index.checked_add(1) == Some(two[1].index));
        if index < first || index > last.saturating_add(1) || !steps_by_one {
            return Err(Error::NotContinuous { group: self.group(), index, first, last });
        }
        encoded.bytes.reserve(encoded_size(entries));
        encoded.ends.reserve(entries.len());
        for one in entries {
            let start = encoded.bytes.len();
            entry::encode(one, &mut encoded.bytes);
            let (bytes, limit) = ((encoded.bytes.len() - start) as u64, self.limits.entry);
            if bytes > limit {
                return Err(Error::TooLarge { group: self.group(), what: "an entry", index: one.index, bytes, limit });
            }
            encoded.ends.push(encoded.bytes.len());
        }
        Ok(encoded)
    }

    pub(crate) fn append_encoded(&mut self, batch: &mut Batch, encoded: &Encoded<'_>) {
        let mut start = 0;
        let mut slices = Vec::with_capacity(encoded.entries.len());
        for (one, &end) in encoded.entries.iter().zip(&encoded.ends) {
            slices.push((one.index, one.term, encoded.bytes.get(start..end).unwrap_or(&[])));
            start = end;
        }
        batch.append(self.group(), &slices);
        self.changes.append(encoded.entries);
        if let Some(fetching) = self.fetching.as_ref().filter(|_| !slices.is_empty()) {
            fetching.let_go();
        }
    }

    /// The most that data and context of a proposal may have together. A larger one is to be refused where it is proposed: in the Ready that
    /// brings its entry it is too late ([`Error::TooLarge`]), for raft counts on it already. The other replicas' logs should have no lower limit: it
    /// is that of [`Wal::max_entry_bytes`](strandlog::Wal::max_entry_bytes), or an eighth of the log's capacity if that is less, which fits a log
    /// that is otherwise empty.
    pub fn max_proposal_bytes(&self) -> u64 {
        self.limits.entry.saturating_sub(entry::OVERHEAD as u64)
    }

    /// Cuts off the entries from `from` on, none of them committed. Raft needs no such thing, it overwrites; this is for whoever gives up
    /// on them from outside, before the group is driven.
    pub fn cut(&mut self, batch: &mut Batch, from: u64) -> Result<()> {
        if from <= self.hard_state.commit.max(self.applied) {
            return Err(Error::Misuse { group: self.group(), what: "a committed entry is not cut off" });
        }
        batch.truncate_suffix(self.group(), from);
        self.changes.cut(from);
        Ok(())
    }

    /// Writes a hard state.
    pub fn set_hard_state(&mut self, batch: &mut Batch, hard_state: &HardState) {
        batch.put(self.group(), HARD_STATE, &state::encode_hard_state(hard_state));
        if let Some(fetching) = self.fetching.as_ref().filter(|_| self.hard_state.term != hard_state.term) {
            fetching.let_all_go();
        }
        self.hard_state = hard_state.clone();
    }

    /// Replaces the log by a snapshot: entries, configuration, applied position and hard state, at once.
    ///
    /// `hard_state` is the one that came with it, when one did. Where the state machine lives outside
    /// the log, it must hold the snapshot durably *before* the batch is submitted; [`adopt`](Self::adopt) goes on from a crash between the two. Where snapshots come from a
    /// [source](Self::with_snapshots) that is where it lives, and the log takes the index alone; elsewhere it takes the bytes, as a checkpoint.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::SnapshotOutOfDate`] for one before the log's first index, but for one at the very end of an empty log, which
    /// raft may ask for ([`RawNode::request_snapshot`](raft::RawNode::request_snapshot)); [`Error::TooLarge`] for bytes that the log shall hold, and that are beyond
    /// [`Wal::max_value_bytes`](strandlog::Wal::max_value_bytes).
    pub fn install_snapshot(
        &mut self,
        batch: &mut Batch,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<()> {
        let metadata = snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        self.bounds_behind(snapshot)?;
        let applied = match &self.source {
            Some(_) => state::encode_applied_elsewhere(index),
            None => state::encode_applied(index, term, &snapshot.data),
        };
        self.check_value("a snapshot", index, applied.len())?;
        let conf_state = metadata.get_conf_state();
        let configuration = self.encode_conf_state(index, conf_state)?;
        let mut hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        hard_state.term = hard_state.term.max(term);
        self.replace(batch, (index, term), hard_state, conf_state, (&configuration, &applied));
        Ok(())
    }

    /// The log begins behind entry `at`, with these; nothing of it stays. The configuration and the applied position come encoded.
    pub(crate) fn replace(
        &mut self,
        batch: &mut Batch,
        at: (u64, u64),
        mut hard_state: HardState,
        conf_state: &ConfState,
        encoded: (&[u8], &[u8]),
    ) {
        let (group, (index, term)) = (self.group(), at);
        batch.install_snapshot(group, index, term);
        hard_state.commit = hard_state.commit.max(index);
        self.set_hard_state(batch, &hard_state);
        batch.put(group, CONF_STATE, encoded.0);
        batch.put(group, APPLIED, encoded.1);
        self.conf_state = conf_state.clone();
        self.put_in_batch(index);
        self.changes.cut(0);
        if let Some(fetching) = &self.fetching {
            fetching.let_go();
        }
    }

    /// The log goes on behind the snapshot's entry, which it has: what raft drops for a snapshot it dropped before, or never had. But while it waits for one that it
    /// asked for it takes an older one, too, and what is behind that was acknowledged.
    pub(crate) fn check_not_behind(&self, snapshot: &Snapshot) -> Result<()> {
        let (group, metadata) = (self.group(), snapshot.get_metadata());
        let (index, (first, last)) = (metadata.index, self.replica.bounds());
        let holds_it = first <= index && self.replica.term(index).is_ok_and(|term| term == metadata.term);
        if holds_it && index < last { Err(Error::SnapshotOutOfDate { group, index, first, last }) } else { Ok(()) }
    }

    /// First and last index of the log which the snapshot leaves.
    pub(crate) fn bounds_behind(&self, snapshot: &Snapshot) -> Result<(u64, u64)> {
        let (group, metadata) = (self.group(), snapshot.get_metadata());
        let (index, (first, last)) = (metadata.index, self.replica.bounds());
        // Where the log is empty, one at its very end is what raft asks for: the same again, for a state machine that lost it.
        let again = index > 0 && index == last && self.replica.term(index).map_or(true, |term| term == metadata.term);
        if index < first && !again {
            return Err(Error::SnapshotOutOfDate { group, index, first, last });
        }
        match index.checked_add(1) {
            Some(next) => Ok((next, index)),
            None => Err(Error::Inconsistent { group, what: "a snapshot at the last possible index".into() }),
        }
    }
}

fn encoded_size(entries: &[Entry]) -> usize {
    let one = |entry: &Entry| entry.data.len() + entry.context.len() + entry::OVERHEAD;
    entries.iter().map(one).sum()
}
