//! What a migration must know of the log that it leaves.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;

use crate::batch::Entry;

/// An error of the old log: whatever it says.
pub type OldError = Box<dyn StdError + Send + Sync>;

/// The log to leave, as [`DualWrite`](crate::migrate::DualWrite) needs it. You implement it over the one that you have.
///
/// It is asked for nothing that makes no sense where it stands: no term or entry of an index that it does not have, no append that leaves a gap, nor
/// one or a cut that lies before its first entry, no truncation beyond one behind its last. Such a batch is refused before either log hears of it.
///
/// What it answers is looked at, too: bounds that contradict each other, no entries at all or others than were asked for are an error
/// ([`MigrateError::Old`](crate::migrate::MigrateError::Old)). A commit asks for the bounds of each replica that is not switched once, and once more where it
/// truncates that.
pub trait OldLog {
    /// Applies all changes, in order, and makes them durable. After an error they may or may not be there.
    ///
    /// # Errors
    /// What the old log says.
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), OldError>;

    /// The replicas that it holds.
    ///
    /// # Errors
    /// What the old log says.
    fn replicas(&self) -> Result<Vec<u64>, OldError>;

    /// First and last index of a replica, `first - 1` where it is empty; `None` where it does not exist.
    ///
    /// # Errors
    /// What the old log says.
    fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, OldError>;

    /// The term of an entry, or of the one before the first.
    ///
    /// # Errors
    /// What the old log says.
    fn term(&self, replica: u64, index: u64) -> Result<u64, OldError>;

    /// Entries from `first` to `last`, both among them: at least one, in order, as many as it likes.
    ///
    /// # Errors
    /// What the old log says.
    fn entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, OldError>;

    /// All keyed state of a replica: hard state, and whatever else lies beside the entries.
    ///
    /// # Errors
    /// What the old log says.
    fn state(&self, replica: u64) -> Result<Vec<(Bytes, Bytes)>, OldError>;

    /// One value of it: asked for by [`DualWrite::get`](crate::migrate::DualWrite::get) of a replica that has not moved over. As provided it looks through
    /// all of [`state`](OldLog::state): write one where your log finds a key by itself.
    ///
    /// # Errors
    /// What the old log says.
    fn value(&self, replica: u64, key: &[u8]) -> Result<Option<Bytes>, OldError> {
        let state = self.state(replica)?;
        Ok(state.into_iter().find(|(of, _)| of == key).map(|(_, value)| value))
    }
}

/// One change, as the old log is to make it: the operations of a [`Batch`](crate::Batch).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Entries of consecutive indexes; what is at or above the first of them goes.
    Append {
        /// The replica.
        replica: u64,
        /// Index, term, payload.
        entries: &'a [(u64, u64, &'a [u8])],
    },
    /// A keyed value.
    Put {
        /// The replica.
        replica: u64,
        /// Its key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A keyed value goes.
    Delete {
        /// The replica.
        replica: u64,
        /// Its key.
        key: &'a [u8],
    },
    /// Every entry below goes; where there is none, nothing changes.
    TruncatePrefix {
        /// The replica.
        replica: u64,
        /// The first that stays.
        first_kept: u64,
    },
    /// This entry goes, and every one behind it.
    TruncateSuffix {
        /// The replica.
        replica: u64,
        /// The first that goes.
        from: u64,
    },
    /// A snapshot was installed: every entry goes, the next index is one behind; keyed state stays.
    InstallSnapshot {
        /// The replica.
        replica: u64,
        /// Index of the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The replica goes, keyed state and all.
    Remove {
        /// The replica.
        replica: u64,
    },
}

/// Where the two logs do not say the same.
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
    /// The old log does not have the replica any more.
    Gone,
    /// The last index.
    Last {
        /// Of the old log.
        old: u64,
        /// Of strandlog.
        new: u64,
    },
    /// The term of the entry before those that are held.
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
    /// Strandlog cannot read what it was given.
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
