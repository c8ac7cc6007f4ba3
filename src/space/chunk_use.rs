//! What chunks are used for.

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkUse {
    /// For nothing.
    Free,
    /// Part of a journal segment that holds something, or is being written.
    Journal,
    /// Part of a journal segment that may be written anew.
    JournalFree,
    /// In the chain of one replica.
    Chain,
    /// Dead, but a reader still holds it.
    Pinned,
    /// Free, but for the snapshot of the last close, which the next opening for writing makes use of.
    Snapshot,
}
