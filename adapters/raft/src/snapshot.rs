//! Where a snapshot's bytes come from.

use raft::eraftpb::Snapshot;

/// Supplies snapshots of a state machine that does not live in the log.
///
/// Without one, [`GroupStorage`](crate::GroupStorage) answers with its newest
/// [`Checkpoint`](crate::Checkpoint).
pub trait SnapshotSource: Send {
    /// A snapshot of `group` at an index of at least `request_index`, for replica `to`.
    ///
    /// Its metadata must carry index, term and configuration as of that index. While none is at hand,
    /// answer [`SnapshotTemporarilyUnavailable`](raft::StorageError::SnapshotTemporarilyUnavailable):
    /// raft asks again.
    fn snapshot(&self, group: u64, request_index: u64, to: u64) -> raft::Result<Snapshot>;
}
