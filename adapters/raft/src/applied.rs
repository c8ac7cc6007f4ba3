//! How far a group's state machine is, and which entries the log may drop because of it.
//!
//! What was put into a batch is not in the log yet: the batch may be refused, or another may be written before it. So what a batch drops
//! or promises depends only on what that batch and the log hold, and on what a state machine outside the log reports.

use raft::eraftpb::{ConfState, HardState};
use strandlog::Batch;

use crate::codec::state;
use crate::{APPLIED, CONF_STATE, Error, GroupStorage, HARD_STATE, Result};

/// The state machine's own copy, in the log beside the entries.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    /// Index of the last entry applied.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Configuration as of that entry: the last result of [`RawNode::apply_conf_change`](raft::RawNode::apply_conf_change), or that of a
    /// snapshot that was installed since. Not [`GroupStorage::conf_state`], which is that of the last checkpoint: changes that were applied
    /// since would be forgotten, and the entries that made them compacted away.
    pub conf_state: &'a ConfState,
    /// The state machine's bytes; empty when it lives elsewhere.
    pub data: &'a [u8],
}

impl GroupStorage {
    /// Reports that a state machine outside the log durably holds everything up to entry `index`, of `term`. Never goes back.
    ///
    /// # Errors
    ///
    /// [`Error::Inconsistent`] if the log ends before `index` (it lost what the state machine has, or never heard of a snapshot: see
    /// [`adopt`](Self::adopt)), starts beyond it (the state machine lost what was compacted), or has an entry of another term there
    /// (again `adopt`). Also if the configuration changed between
    /// [`applied`](Self::applied) and `index`, or may have, in entries that are gone: the log does not
    /// know to what, so [`set_applied_with`](Self::set_applied_with) must say it.
    pub fn set_applied(&mut self, index: u64, term: u64) -> Result<()> {
        let (group, applied) = (self.group(), self.applied);
        let inconsistent = |what| Err(Error::Inconsistent { group, what });
        if let Some(gone) = self.gone() {
            return inconsistent(format!(
                "{gone} and may have changed the configuration of applied index {applied}: set_applied_with must say to what"
            ));
        }
        self.check_applied(index, term)?;
        if let Some(change) = self.changes.first(&self.replica, index)? {
            return inconsistent(format!(
                "entry {change} changes the configuration of applied index {applied}: set_applied_with must say to what"
            ));
        }
        self.advance(index);
        Ok(())
    }

    /// As [`set_applied`](Self::set_applied), for a state machine that also holds the configuration as of `index`: the last result of
    /// [`RawNode::apply_conf_change`](raft::RawNode::apply_conf_change). The next checkpoint or compaction writes it.
    ///
    /// # Errors
    ///
    /// As [`set_applied`](Self::set_applied), except for changes of the configuration; [`Error::TooLarge`] for a configuration that no
    /// value can hold.
    pub fn set_applied_with(&mut self, index: u64, term: u64, conf_state: &ConfState) -> Result<()> {
        self.check_applied(index, term)?;
        self.encode_conf_state(index, conf_state)?;
        if index >= self.applied && *conf_state != self.conf_state {
            self.conf_state = conf_state.clone();
        }
        self.advance(index);
        Ok(())
    }

    /// The state machine outside the log is at entry `index`, of `term`, maybe by a snapshot that the log does not know of: a snapshot is made
    /// durable there *before* its batch is submitted, and a crash may come between. Call this at an opening, before the group is driven, in
    /// place of [`set_applied_with`](Self::set_applied_with), and commit the batch before raft gets the storage.
    ///
    /// If the log has that entry, this does what `set_applied_with` does. Otherwise it drops the log's entries, as raft does for that snapshot.
    /// The replica promised nothing by them: they end before `index`, or come from a leader that was overruled.
    ///
    /// # Errors
    ///
    /// Nothing was written. As [`set_applied_with`](Self::set_applied_with) if the log begins after `index`. [`Error::Inconsistent`] also if the
    /// log has another entry there and knows that to be committed: then the file belongs to another group, or to another life of this one. And if
    /// the log has no hard state of the group at all: then the log was lost or replaced, and with it how this replica voted. An older copy of
    /// the log cannot be told from the right one.
    pub fn adopt(&mut self, batch: &mut Batch, index: u64, term: u64, conf_state: &ConfState) -> Result<()> {
        let (first, last) = self.replica.bounds();
        if index.saturating_add(1) < first || (index <= last && self.other_term(index, term)?.is_none()) {
            return self.set_applied_with(index, term, conf_state);
        }
        if self.replica.get(HARD_STATE)?.is_none() {
            let what = format!(
                "the state machine is at {index} of term {term}, and the log knows nothing of the group: it was lost or replaced, and with it \
                 how this replica voted. Rebuild it as a new member; if it has never been anything else, drop the state machine's files and \
                 start blank"
            );
            return Err(Error::Inconsistent { group: self.group(), what });
        }
        let committed = self.hard_state.commit.max(self.applied);
        if index <= committed || index == u64::MAX {
            let what = format!(
                "a snapshot at {index} of term {term} is not of this log, which is committed up to {committed}"
            );
            return Err(Error::Inconsistent { group: self.group(), what });
        }
        let configuration = self.encode_conf_state(index, conf_state)?;
        let mut hard_state = self.hard_state.clone();
        if hard_state.term < term {
            (hard_state.term, hard_state.vote) = (term, 0);
        }
        self.replace(
            batch,
            (index, term),
            hard_state,
            conf_state,
            (&configuration, &state::encode_applied_elsewhere(index)),
        );
        Ok(())
    }

    /// The term of an entry in the log, if it is not `term`. A term that a truncation over damage left unknown counts as equal.
    fn other_term(&self, index: u64, term: u64) -> Result<Option<u64>> {
        match self.replica.term(index) {
            Ok(held) => Ok(Some(held).filter(|&held| held != term)),
            Err(strandlog::Error::Damaged(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn check_applied(&self, index: u64, term: u64) -> Result<()> {
        let (group, (first, last)) = (self.group(), self.replica.bounds());
        if index > last || index.saturating_add(1) < first {
            let what = format!("the state machine is at {index}, the log is [{first}, {last}]");
            return Err(Error::Inconsistent { group, what });
        }
        if let Some(held) = self.other_term(index, term)? {
            let what = format!("the state machine is at {index} of term {term}, the log has that entry of term {held}");
            return Err(Error::Inconsistent { group, what });
        }
        Ok(())
    }

    fn advance(&mut self, index: u64) {
        if index >= self.applied {
            self.changes.pass(self.applied, index);
            (self.applied, self.told) = (index, true);
        }
        // What is applied is committed, whether or not the lazily written commit index says so already.
        self.hard_state.commit = self.hard_state.commit.max(index);
    }

    /// Writes the state machine's own copy. After a restart applying resumes here, and up to here
    /// the log may be compacted.
    ///
    /// It may go in a lazy batch: what a crash takes of one replica is always a suffix, so a compaction
    /// never survives without its checkpoint, nor a checkpoint without its commit index.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::TooLarge`] for bytes beyond [`Wal::max_value_bytes`](strandlog::Wal::max_value_bytes);
    /// [`Error::Inconsistent`] if the log begins after entry `index + 1`.
    pub fn checkpoint(&mut self, batch: &mut Batch, checkpoint: Checkpoint<'_>) -> Result<()> {
        let Checkpoint { index, term, conf_state, data } = checkpoint;
        let first = self.replica.first_index();
        if index.saturating_add(1) < first {
            let what = format!("a checkpoint at {index} of a log that starts at {first}");
            return Err(Error::Inconsistent { group: self.group(), what });
        }
        let encoded = state::encode_applied(index, term, data);
        self.check_value("a checkpoint", index, encoded.len())?;
        let configuration = self.encode_conf_state(index, conf_state)?;
        self.put_applied(batch, index, &configuration, &encoded)?;
        self.conf_state = conf_state.clone();
        self.put_in_batch(index);
        Ok(())
    }

    /// Writes an applied position, and the configuration as of it.
    fn put_applied(&self, batch: &mut Batch, index: u64, configuration: &[u8], encoded: &[u8]) -> Result<()> {
        // What is applied is committed; raft must find it so after a restart.
        let commit = if self.told { index.max(self.applied) } else { index };
        let hard_state = self.committed(batch, commit)?;
        batch.put(self.group(), HARD_STATE, &state::encode_hard_state(&hard_state));
        batch.put(self.group(), CONF_STATE, configuration);
        batch.put(self.group(), APPLIED, encoded);
        Ok(())
    }

    /// The hard state to write with this batch; its commit index is at least `commit`.
    ///
    /// Term and vote are the newest that were written, in whichever batch: a batch submitted before this one must not be taken back, and
    /// for one that still waits, they hold earlier than raft asks. The commit index is no higher than what this batch and
    /// the log vouch for, because what raft has committed since may be entries that another batch has yet to bring; if it goes back by that,
    /// raft learns it anew. It is written even if the log has it: a batch before this one may say less.
    fn committed(&self, batch: &Batch, commit: u64) -> Result<HardState> {
        let decode = |bytes: &[u8]| state::decode_hard_state(bytes).map_err(|e| self.undecodable("hard state", e));
        let written = self.replica.get(HARD_STATE)?.map(|bytes| decode(&bytes)).transpose()?;
        let put = batch.value(self.group(), HARD_STATE).map(decode).transpose()?;
        let commit = [written, put].into_iter().flatten().fold(commit, |commit, state| commit.max(state.commit));
        Ok(HardState { commit, ..self.hard_state.clone() })
    }

    /// Drops entries before `first_kept`, but only those that the state machine holds durably: by a checkpoint in this very batch or in
    /// the log (not in another batch that is yet to be submitted), or by what [`set_applied`](Self::set_applied) reported. Returns the first
    /// index kept; costs no sync of its own.
    ///
    /// If it goes beyond the newest checkpoint, the applied index and its configuration are written with it, and replace the
    /// checkpoint: the state machine is elsewhere, and the entries that led on from the checkpoint are gone.
    ///
    /// # Errors
    ///
    /// Nothing was written: what the log holds of the group cannot be read.
    pub fn compact(&mut self, batch: &mut Batch, first_kept: u64) -> Result<u64> {
        let (first, last) = self.replica.bounds();
        // The bound by `last`: right after a snapshot was installed, the log is still empty.
        let mut kept = first_kept.min(self.applied.saturating_add(1)).min(last.saturating_add(1));
        if kept <= first {
            return Ok(first);
        }
        let held = self.held(batch, kept - 1)?;
        // Not past a checkpoint in a batch that waits: it would take the applied index back when it is written.
        if kept - 1 > held && self.told && held >= self.put {
            // A state machine reported it, and the log does not say so yet: the log must begin neither after its own commit index, nor after
            // a change of the configuration that is recorded nowhere else.
            let configuration = self.encode_conf_state(self.applied, &self.conf_state)?;
            self.put_applied(batch, self.applied, &configuration, &state::encode_applied_elsewhere(self.applied))?;
        } else {
            kept = kept.min(held.saturating_add(1));
        }
        if kept <= first {
            return Ok(first);
        }
        batch.truncate_prefix(self.group(), kept);
        Ok(kept)
    }

    /// The applied index as it will be after the batch; or an earlier one, if that is `enough`.
    fn held(&mut self, batch: &Batch, enough: u64) -> Result<u64> {
        if self.in_log < enough {
            let decode = |bytes: &[u8]| state::applied_index(bytes).map_err(|e| self.undecodable("applied index", e));
            if let Some(bytes) = batch.value(self.group(), APPLIED) {
                return decode(bytes);
            }
            self.in_log = self.replica.get(APPLIED)?.map_or(Ok(0), |bytes| decode(&bytes))?;
        }
        Ok(self.in_log)
    }
}
