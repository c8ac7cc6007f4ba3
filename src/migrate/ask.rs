//! Queries to the old log, with its answers checked, because that is foreign code. Unchecked, entries that were not asked for would be
//! copied, or requested again without end, and entries that it leaves out would count as compared.

use super::{DualWrite, MigrateError, OldLog};
use crate::batch::Entry;

impl<O: OldLog> DualWrite<O> {
    /// [`OldLog::bounds`].
    pub(super) fn old_bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, MigrateError> {
        let held = self.old.bounds(replica).map_err(MigrateError::Old)?;
        match held {
            Some((first, last)) if first > last.saturating_add(1) => Err(untrue(format!(
                "of replica {replica} it says that the first index is {first}, and the last {last}"
            ))),
            held => Ok(held),
        }
    }

    /// [`OldLog::entries`].
    pub(super) fn old_entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, MigrateError> {
        let entries = self.old.entries(replica, first, last).map_err(MigrateError::Old)?;
        let asked = first..=last;
        let told = |gave: String| {
            Err(untrue(format!(
                "of replica {replica} it was asked for entries {first} to {last}, one at least, and gave {gave}"
            )))
        };
        if entries.is_empty() {
            return told("none".into());
        }
        if let Some((entry, _)) = entries.iter().zip(asked.clone()).find(|(entry, index)| entry.index != *index) {
            return told(format!("entry {} out of order", entry.index));
        }
        match entries.last().filter(|entry| !asked.contains(&entry.index)) {
            Some(entry) => told(format!("entry {}, too", entry.index)),
            None => Ok(entries),
        }
    }
}

/// The error for an answer that the contract does not allow.
fn untrue(what: String) -> MigrateError {
    MigrateError::Old(format!("{what}; `OldLog` does not allow that").into())
}
