//! This crate's errors, and how they become openraft's.

use std::io;

use crate::codec::CodecError;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. openraft 0.10 gets it as the source of an [`io::Error`], openraft 0.9 as the source of its `StorageError`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] strandlog::Error),

    /// A value's own serialization failed.
    #[error("group {group}: {what} cannot be encoded: {source}")]
    Encode {
        /// The group.
        group: u64,
        /// What was to be encoded.
        what: &'static str,
        /// Why it could not be.
        source: CodecError,
    },

    /// Bytes read from the log are intact (their checksum holds) but are not what this crate writes for these types.
    #[error("group {group}: {what} cannot be decoded: {source}")]
    Decode {
        /// The group.
        group: u64,
        /// What was to be decoded.
        what: &'static str,
        /// Why it could not be.
        source: CodecError,
    },

    /// The log knows that it lost something of this group, which therefore must neither vote nor acknowledge. Take the node out of the group's
    /// membership, wait until that is committed, remove the replica, and let it come back as a new member: README, "A damaged group".
    #[error("group {group} is damaged: {what}")]
    Damaged {
        /// The group.
        group: u64,
        /// The log's own report.
        what: String,
    },

    /// The state machine holds something of a group that the log does not know: the log was lost or replaced, and with it votes and acknowledged
    /// entries. Rebuild the node as a new member: README, "A damaged group".
    #[error(
        "group {group}: the state machine is at {applied}, and the log knows nothing of the group: it was lost or replaced; rebuild it as a new member"
    )]
    Lost {
        /// The group.
        group: u64,
        /// The last index that the state machine holds, as openraft counts.
        applied: u64,
    },

    /// An append would leave a hole or rewrite what was purged, or a truncation would cut off what was purged.
    #[error("group {group}: index {index} does not continue the log, which holds {first}..{next}")]
    NotContinuous {
        /// The group.
        group: u64,
        /// The index.
        index: u64,
        /// First index of the log.
        first: u64,
        /// The index that comes next.
        next: u64,
    },

    /// The log was cut off or purged while a stream read it: what comes next does not follow what was handed out. Start again.
    #[error("group {group}: entry {next} no longer follows what was read: the log changed meanwhile")]
    Changed {
        /// The group.
        group: u64,
        /// The index that would come next.
        next: u64,
    },

    /// Entries given together are not consecutive.
    #[error("group {group}: entry {index} does not follow the one before it")]
    NotConsecutive {
        /// The group.
        group: u64,
        /// The entry's index.
        index: u64,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}
