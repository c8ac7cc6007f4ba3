//! One group's writes, into a batch that the caller submits.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use strandlog::Batch;

use crate::codec::{entry, state};
use crate::storage::snapshot_of;
use crate::{APPLIED, BOOTSTRAP_INDEX, CONF_STATE, Error, GroupStorage, HARD_STATE, Result};

/// Encoded entries: one buffer for all, and where each ends. An entry costs no allocation.
pub(crate) struct Encoded<'a> {
    entries: &'a [Entry],
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl GroupStorage {
    /// Starts a new group with these members, its log at [`BOOTSTRAP_INDEX`] and `data` as the state
    /// machine's first checkpoint. Every first member must be started with the same.
    pub fn bootstrap(&mut self, batch: &mut Batch, conf_state: &ConfState, data: &[u8]) -> Result<()> {
        let data = Bytes::copy_from_slice(data);
        let snapshot = snapshot_of(BOOTSTRAP_INDEX, BOOTSTRAP_INDEX, conf_state, data);
        self.install_snapshot(batch, &snapshot, None)
    }

    /// Appends entries; they replace those from the first one's index on.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::NotContinuous`]; [`Error::TooLarge`] for an entry that is too large for the log, which none of at most
    /// [`max_proposal_bytes`](Self::max_proposal_bytes) is.
    pub fn append(&mut self, batch: &mut Batch, entries: &[Entry]) -> Result<()> {
        let (first, last) = self.replica.bounds();
        let encoded = self.encode_behind(entries, first, last)?;
        self.append_encoded(batch, &encoded);
        Ok(())
    }

    /// Encodes entries for a log that will be `[first, last]` when the batch is written.
    ///
    /// Checked here although the log checks, too: the log refuses the whole batch, with the groups
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

    /// The most bytes that data and context of a proposal may have together. Refuse a larger one when it is proposed: in the Ready that
    /// brings its entry it is too late ([`Error::TooLarge`]), because raft already counts on it. The other replicas' logs should not have a lower
    /// limit: it comes from [`Wal::max_entry_bytes`](strandlog::Wal::max_entry_bytes), or from an eighth of the log's capacity if that is less,
    /// which fits a log that is otherwise empty.
    pub fn max_proposal_bytes(&self) -> u64 {
        self.limits.entry.saturating_sub(entry::OVERHEAD as u64)
    }

    /// Cuts off the entries from `from` on, none of which may be committed. Raft does not need this, it overwrites; it is for callers outside
    /// of raft that give those entries up before the group is driven.
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

    /// Replaces the log by a snapshot: entries, configuration, applied position and hard state, all at once.
    ///
    /// `hard_state` is the one that came with the snapshot, if any. A state machine outside the log must hold the snapshot durably
    /// *before* the batch is submitted; [`adopt`](Self::adopt) goes on from a crash between the two. If snapshots come from a
    /// [source](Self::with_snapshots), the state machine is taken to be outside, and the log takes only the index; otherwise it takes the bytes, as a
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::SnapshotOutOfDate`] for a snapshot before the log's first index, except one at the very end of an empty log, which
    /// raft may ask for ([`RawNode::request_snapshot`](raft::RawNode::request_snapshot)); [`Error::TooLarge`] for bytes that the log is to hold and that exceed
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

    /// Has the log begin after entry `at` (index, term); none of its entries stays. `encoded`: the configuration and the applied position.
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

    /// Refuses a snapshot whose entry the log has, with others after it, which were acknowledged. Normally raft drops nothing like that for a
    /// snapshot; but while it waits for one that it asked for, it takes an older one, too.
    pub(crate) fn check_not_behind(&self, snapshot: &Snapshot) -> Result<()> {
        let (group, metadata) = (self.group(), snapshot.get_metadata());
        let (index, (first, last)) = (metadata.index, self.replica.bounds());
        let holds_it = first <= index && self.replica.term(index).is_ok_and(|term| term == metadata.term);
        if holds_it && index < last { Err(Error::SnapshotOutOfDate { group, index, first, last }) } else { Ok(()) }
    }

    /// First and last index of the log once the snapshot is installed.
    pub(crate) fn bounds_behind(&self, snapshot: &Snapshot) -> Result<(u64, u64)> {
        let (group, metadata) = (self.group(), snapshot.get_metadata());
        let (index, (first, last)) = (metadata.index, self.replica.bounds());
        // If the log is empty, raft may ask for a snapshot at its very end: the same again, for a state machine that lost it.
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
