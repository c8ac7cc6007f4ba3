//! The operations of a batch, as the engine takes them: what is to be done to which replica, and where in the batch the bytes lie.

use crate::index::Life;

/// An entry's place in the batch, and the part of its checksum that needs no lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub term: u64,
    /// Where it begins in the arena; of a bulky entry, the number of the buffer that it has for itself.
    pub offset: usize,
    pub len: u32,
    pub payload_crc: u32,
}

/// A range of the batch's arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub offset: usize,
    pub len: usize,
}

/// One thing to do to one replica. Operations on one replica take effect in the order in which they were added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// Entries `metas[from..to]`, the first of them at index `first`.
    Append {
        first: u64,
        from: usize,
        to: usize,
    },
    Put {
        key: Span,
        value: Span,
    },
    Delete {
        key: Span,
    },
    Truncate {
        first: u64,
    },
    /// The entries from `from` on are cut.
    Cut {
        from: u64,
    },
    Applied {
        index: u64,
        /// In this life of the replica, where it is said which.
        life: Option<Life>,
    },
    Reset {
        index: u64,
        term: u64,
    },
    Remove,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub replica: u64,
    pub what: What,
}
