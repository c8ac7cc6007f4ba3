//! Compares the two logs, and makes strandlog's copy agree with the old one.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::{COPY_BYTES, Difference, Differs, DualWrite, MIRRORED, MigrateError, OldLog, refused};
use crate::batch::{Batch, Entry};
use crate::error::Error;
use crate::index::MOVING_KEY;

impl<O: OldLog> DualWrite<O> {
    /// The differences between the logs of a mirrored replica, within the range of strandlog's copy.
    ///
    /// # Errors
    /// Errors of the old log.
    pub fn differences_of(&self, replica: u64) -> Result<Vec<Difference>, MigrateError> {
        match self.old_bounds(replica)? {
            Some(held) => self.compare(replica, held),
            None => {
                let copied = self.new.replica(replica).exists();
                Ok(copied.then_some(Difference { replica, what: Differs::Gone }).into_iter().collect())
            }
        }
    }

    /// The same, given the first and last index in the old log.
    pub(super) fn compare(&self, replica: u64, (first, last): (u64, u64)) -> Result<Vec<Difference>, MigrateError> {
        let new = self.new.replica(replica);
        let mut found = self.compare_state(replica)?;
        let (new_first, new_last) = new.bounds();
        if last != new_last {
            found.push(Difference { replica, what: Differs::Last { old: last, new: new_last } });
        }
        let begin = first.max(new_first);
        if begin <= last.min(new_last).saturating_add(1) && !self.same_beginning(replica, begin)? {
            found.push(Difference { replica, what: Differs::Term { index: begin - 1 } });
        }
        let (mut next, last) = (begin, last.min(new_last));
        while next <= last {
            let entries = self.old_entries(replica, next, last)?;
            found.extend(self.compare_entries(replica, &entries));
            next = next.saturating_add(entries.len() as u64);
        }
        Ok(found)
    }

    /// Whether both have the same term before `first`; otherwise a snapshot, or another leader's entries, replaced what was there.
    fn same_beginning(&self, id: u64, first: u64) -> Result<bool, MigrateError> {
        let before = first.saturating_sub(1);
        let term = self.old.term(id, before).map_err(MigrateError::Old)?;
        Ok(self.new.replica(id).term(before).ok() == Some(term))
    }

    /// Compares entries of the old log with strandlog's copy, as far as that reaches back.
    pub(super) fn compare_entries(&self, replica: u64, entries: &[Entry]) -> Vec<Difference> {
        let new = self.new.replica(replica);
        let held = entries.iter().filter(|e| e.index >= new.first_index());
        held.filter_map(|entry| match new.entry(entry.index) {
            Ok(copy) if copy == *entry => None,
            Ok(_) => Some(Differs::Entry { index: entry.index }),
            Err(error) => Some(Differs::Unreadable { why: error.to_string() }),
        })
        .map(|what| Difference { replica, what })
        .collect()
    }

    fn compare_state(&self, replica: u64) -> Result<Vec<Difference>, MigrateError> {
        let new = self.new.replica(replica);
        let mut old: BTreeMap<Bytes, Bytes> = self.old.state(replica).map_err(MigrateError::Old)?.into_iter().collect();
        let mut found = Vec::new();
        for key in new.keys() {
            match (new.get(&key), old.remove(&key)) {
                (Ok(Some(copy)), Some(value)) if copy == value => {}
                (Ok(_), _) => found.push(Differs::Key { key }),
                (Err(error), _) => found.push(Differs::Unreadable { why: error.to_string() }),
            }
        }
        found.extend(old.into_keys().map(|key| Differs::Key { key }));
        Ok(found.into_iter().map(|what| Difference { replica, what }).collect())
    }

    /// Makes the copy of a mirrored replica agree with the old log. If strandlog has no place for all of it, the copy is begun anew at the
    /// old log's end: that frees what it held, which the old log has.
    pub(super) fn make_agree(&mut self, id: u64, held: (u64, u64)) -> Result<(), MigrateError> {
        self.doubtful.insert(id);
        match self.mend(id, held) {
            Err(error) if refused(&error) => self.begin(id, held.1),
            mended => mended,
        }
    }

    /// Copies from the first difference on, or from the copy's end.
    fn mend(&mut self, id: u64, (first, last): (u64, u64)) -> Result<(), MigrateError> {
        let new = self.new.replica(id);
        let (new_first, new_last) = new.bounds();
        let readable = new.exists() && new.damage().is_empty();
        // A copy that reaches beyond the old log's end, or does not reach its beginning, cannot be mended by appending.
        if !readable || new_last > last || new_last.saturating_add(1) < first || new_first > last.saturating_add(1) {
            return self.begin(id, last);
        }
        if !self.same_beginning(id, first.max(new_first))? {
            return self.begin(id, last);
        }
        let mut same = new_first.max(first);
        'compare: while same <= new_last {
            let entries = self.old_entries(id, same, new_last)?;
            for entry in entries {
                if new.entry(entry.index).ok().as_ref() != Some(&entry) {
                    break 'compare;
                }
                same = entry.index.saturating_add(1);
            }
        }
        let applied = new.durable_applied()?;
        // Applied entries are never overwritten: this is another life, which the report does not concern.
        let is_of_another_life = applied.is_some_and(|applied| same <= applied);
        // The old log was truncated after a report that a crash took: the copy would keep what the old log no longer has, and after the
        // switch the log would begin earlier.
        let lags = applied.is_some_and(|applied| applied.saturating_add(1) < first) && new_first < first;
        if is_of_another_life || lags {
            same = first.max(new_first);
            let before = same.saturating_sub(1);
            let term = self.old.term(id, before).map_err(MigrateError::Old)?;
            self.begin_behind(id, before, term)?;
        }
        while same <= last {
            let entries = self.old_entries(id, same, last)?;
            self.copy_entries(id, &entries)?;
            same = same.saturating_add(entries.len() as u64);
        }
        let mut batch = Batch::new();
        batch.truncate_prefix(id, first).put_own(id, MOVING_KEY, MIRRORED);
        drop(self.new.submit(batch.lazy())?);
        self.copy_state(id)?;
        self.doubtful.remove(&id);
        Ok(())
    }

    /// Copies about a mebibyte per batch: the old log may have returned all that it has.
    fn copy_entries(&self, id: u64, mut entries: &[Entry]) -> Result<(), Error> {
        while !entries.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.data.len();
                bytes <= COPY_BYTES
            };
            let n = entries.iter().take_while(fits).count().max(1);
            let (some, others) = entries.split_at(n);
            self.commit_entries(id, some)?;
            entries = others;
        }
        Ok(())
    }

    /// In one batch, or in several if that is too large, which it may be with little payload in many entries.
    fn commit_entries(&self, id: u64, entries: &[Entry]) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.append(id, entries);
        if entries.len() > 1 && batch.log_bytes() > self.new.max_batch_bytes() {
            drop(batch);
            let (some, others) = entries.split_at(entries.len() / 2);
            self.commit_entries(id, some)?;
            return self.commit_entries(id, others);
        }
        self.new.commit(&mut batch).map(drop)
    }

    /// Makes the keyed state of a copy agree with the old log, in several batches if there is much. Until the last of them is written the copy is in
    /// doubt, and after a crash its mark says that it must be compared.
    pub(super) fn copy_state(&self, id: u64) -> Result<(), MigrateError> {
        let state = self.old.state(id).map_err(MigrateError::Old)?;
        let stays: HashSet<&Bytes> = state.iter().map(|(key, _)| key).collect();
        let gone = self.new.replica(id).keys().into_iter().filter(|key| !stays.contains(key));
        let mut changes: Vec<(Bytes, Option<Bytes>)> = gone.map(|key| (key, None)).collect();
        changes.extend(state.into_iter().map(|(key, value)| (key, Some(value))));
        Ok(self.commit_state(id, &changes)?)
    }

    /// In one batch; in two if it is too large, and so on.
    fn commit_state(&self, id: u64, changes: &[(Bytes, Option<Bytes>)]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(id, key, value),
                None => batch.delete(id, key),
            };
        }
        match self.new.commit(&mut batch) {
            Err(Error::BatchTooLarge { .. }) if changes.len() > 1 => {
                let (some, others) = changes.split_at(changes.len() / 2);
                self.commit_state(id, some)?;
                self.commit_state(id, others)
            }
            committed => committed.map(drop),
        }
    }
}
