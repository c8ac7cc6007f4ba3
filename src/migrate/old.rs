//! What a migration must know of the log that it leaves.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;

use crate::batch::Entry;

/// An error of the old log, of any type.
pub type OldError = Box<dyn StdError + Send + Sync>;

/// The log to migrate from, as [`DualWrite`](crate::migrate::DualWrite) needs it. Implement it for the log that you have.
///
/// It is never asked for anything that its state does not allow: no term or entry of an index that it does not have, no append that leaves a gap, no append
/// or cut before its first entry, no truncation beyond `last + 1`. A batch that asks for such a thing is refused before either log sees it.
///
/// Its answers are checked: contradictory bounds, no entries at all, or entries other than those asked for, are an error
/// ([`MigrateError::Old`](crate::migrate::MigrateError::Old)). A commit asks once for the bounds of each replica that is not switched, and once more if it
/// truncates that replica.
pub trait OldLog {
    /// Applies all changes, in order, and makes them durable. After an error they may or may not be there.
    ///
    /// # Errors
    /// Errors of the old log.
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), OldError>;

    /// The replicas that it holds.
    ///
    /// # Errors
    /// Errors of the old log.
    fn replicas(&self) -> Result<Vec<u64>, OldError>;

    /// First and last index of a replica (the last is `first - 1` if it is empty); `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the old log.
    fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, OldError>;

    /// The term of an entry, or of the one before the first.
    ///
    /// # Errors
    /// Errors of the old log.
    fn term(&self, replica: u64, index: u64) -> Result<u64, OldError>;

    /// Entries from the front of the inclusive range `first..=last`, in order: at least one, and as many as it likes.
    ///
    /// # Errors
    /// Errors of the old log.
    fn entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, OldError>;

    /// All keyed state of a replica: hard state, and whatever else is stored beside the entries.
    ///
    /// # Errors
    /// Errors of the old log.
    fn state(&self, replica: u64) -> Result<Vec<(Bytes, Bytes)>, OldError>;

    /// One value of the keyed state, for [`DualWrite::get`](crate::migrate::DualWrite::get) of a replica that has not moved over. The default
    /// searches all of [`state`](OldLog::state): override it if your log can look up a key.
    ///
    /// # Errors
    /// Errors of the old log.
    fn value(&self, replica: u64, key: &[u8]) -> Result<Option<Bytes>, OldError> {
        let state = self.state(replica)?;
        Ok(state.into_iter().find(|(of, _)| of == key).map(|(_, value)| value))
    }
}

/// One change for the old log to make: an operation of a [`Batch`](crate::Batch).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Append entries with consecutive indexes; existing entries at or above the first of them are dropped.
    Append {
        /// The replica.
        replica: u64,
        /// Index, term, payload.
        entries: &'a [(u64, u64, &'a [u8])],
    },
    /// Set a keyed value.
    Put {
        /// The replica.
        replica: u64,
        /// Its key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Delete a keyed value.
    Delete {
        /// The replica.
        replica: u64,
        /// Its key.
        key: &'a [u8],
    },
    /// Drop every entry below an index; if there is none, nothing changes.
    TruncatePrefix {
        /// The replica.
        replica: u64,
        /// The first that stays.
        first_kept: u64,
    },
    /// Drop an entry and all entries after it.
    TruncateSuffix {
        /// The replica.
        replica: u64,
        /// The first that goes.
        from: u64,
    },
    /// A snapshot was installed: drop every entry; the next index is one after the snapshot's. Keyed state stays.
    InstallSnapshot {
        /// The replica.
        replica: u64,
        /// Index of the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Remove the replica, with its keyed state.
    Remove {
        /// The replica.
        replica: u64,
    },
}

/// A difference between the two logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The replica.
    pub replica: u64,
    /// What differs.
    pub what: Differs,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Differs {
    /// The old log no longer has the replica.
    Gone,
    /// The last index.
    Last {
        /// Of the old log.
        old: u64,
        /// Of strandlog.
        new: u64,
    },
    /// The term of the entry before the first that is held.
    Term {
        /// Its index.
        index: u64,
    },
    /// The term or the payload of an entry.
    Entry {
        /// Its index.
        index: u64,
    },
    /// A keyed value.
    Key {
        /// Its key.
        key: Bytes,
    },
    /// Strandlog cannot read its copy.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}: ", self.replica)?;
        match &self.what {
            Differs::Gone => write!(f, "the old log does not have it"),
            Differs::Last { old, new } => write!(f, "the old log ends with {old}, the new one with {new}"),
            Differs::Term { index } => write!(f, "the term of {index}, before what is held, differs"),
            Differs::Entry { index } => write!(f, "entry {index} differs"),
            Differs::Key { key } => write!(f, "key {:?} differs", key.escape_ascii().to_string()),
            Differs::Unreadable { why } => write!(f, "the new log cannot be read: {why}"),
        }
    }
}
