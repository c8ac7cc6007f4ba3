//! This crate's errors, and how they become raft's.

use crate::codec::DecodeError;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Converts into [`raft::Error`], which has fewer kinds.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] strandlog::Error),

    /// Bytes read from the log are intact (their checksum holds) but are not what this crate writes.
    #[error("group {group}: {what} cannot be decoded: {source}")]
    Decode {
        /// The group.
        group: u64,
        /// What was to be decoded.
        what: &'static str,
        /// Why it could not be.
        source: DecodeError,
    },

    /// The log knows that it lost something of this group, which therefore must neither vote nor
    /// acknowledge. Take it out of the group's configuration, wait until that is committed, remove the replica,
    /// and let it come back as a new member: README, "A damaged group".
    #[error("group {group} is damaged: {what}")]
    Damaged {
        /// The group.
        group: u64,
        /// The log's own report.
        what: String,
    },

    /// What the log holds of this group cannot have been written by this crate in this order.
    #[error("group {group} is inconsistent: {what}")]
    Inconsistent {
        /// The group.
        group: u64,
        /// What contradicts what.
        what: String,
    },

    /// The entries would leave a hole in the log, or rewrite what was compacted.
    #[error("group {group}: entries from {index} do not continue the log [{first}, {last}]")]
    NotContinuous {
        /// The group.
        group: u64,
        /// Index of the first entry offered.
        index: u64,
        /// First index of the log.
        first: u64,
        /// Last index of the log.
        last: u64,
    },

    /// A snapshot offers nothing beyond what the log has already compacted. Or the log has the snapshot's entry and others after it, which this
    /// replica has acknowledged and the snapshot would drop: raft 0.7 may hand over one that was on its way when another was asked for
    /// ([`RawNode::request_snapshot`](raft::RawNode::request_snapshot)).
    #[error("group {group}: snapshot at {index} is out of date, the log is [{first}, {last}]")]
    SnapshotOutOfDate {
        /// The group.
        group: u64,
        /// Index of the snapshot.
        index: u64,
        /// First index of the log.
        first: u64,
        /// Last index of the log.
        last: u64,
    },

    /// The log would refuse it, and with it the whole batch: nothing of this group was written. Trying again does not help: refuse an entry when it is
    /// proposed ([`GroupStorage::max_proposal_bytes`](crate::GroupStorage::max_proposal_bytes)), and let a state machine of that size keep its own
    /// files ([`GroupStorage::with_snapshots`](crate::GroupStorage::with_snapshots)).
    #[error("group {group}: {what} at {index} takes {bytes} bytes, the log's limit is {limit}; nothing was written")]
    TooLarge {
        /// The group.
        group: u64,
        /// "an entry", "a snapshot", "a checkpoint", "the configuration", "a value" (of another key), "a Ready" (as a whole), or "all of a round" if a
        /// round has more of the group than any batch takes.
        what: &'static str,
        /// Its index; 0 for a value of another key.
        index: u64,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },

    /// The call was not allowed at this point, such as a group's Ready for a [`Round`](crate::Round) that cannot take it.
    #[error("group {group}: {what}")]
    Misuse {
        /// The group.
        group: u64,
        /// What the caller should have done.
        what: &'static str,
    },
}

impl From<Error> for raft::Error {
    fn from(error: Error) -> Self {
        use raft::StorageError as S;
        raft::Error::Store(match error {
            Error::Log(strandlog::Error::Compacted { .. }) => S::Compacted,
            // A replica that was never written has no entries, like any blank group.
            Error::Log(strandlog::Error::OutOfRange { .. } | strandlog::Error::UnknownReplica { .. }) => S::Unavailable,
            Error::SnapshotOutOfDate { .. } => S::SnapshotOutOfDate,
            other => S::Other(Box::new(other)),
        })
    }
}
