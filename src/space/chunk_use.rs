//! What chunks are used for.

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkUse {
    /// Nothing: it is free.
    Free,
    /// Part of a journal segment that holds something, or is being written.
    Journal,
    /// Part of a journal segment that is free to be rewritten.
    JournalFree,
    /// In the chain of one replica.
    Chain,
    /// Dead, but still pinned by a reader.
    Pinned,
    /// Free, except that it holds the snapshot of the last close, which the next opening for writing uses.
    Snapshot,
}
