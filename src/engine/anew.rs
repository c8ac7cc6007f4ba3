//! A new life for a replica whose keyed state is not believed, and which operations of a batch go into it.

use crate::operation::What;

/// A snapshot that heals a replica on which the batch has operations before it.
///
/// It begins a new life, as what was known of the old one is not believed. Keyed state that the batch puts is not part of that: the caller
/// believes it, so it goes into the new life, whichever of the two is named first. Entries before the snapshot go with the old life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anew {
    /// Its place among the batch's operations.
    pub op: usize,
    pub index: u64,
    pub term: u64,
}

impl Anew {
    /// Whether this operation on the replica, the snapshot itself among them, says nothing of the new life.
    pub fn leaves_out(&self, op: usize, what: What) -> bool {
        op <= self.op && !matches!(what, What::Put { .. } | What::Delete { .. } | What::Applied { .. })
    }

    /// The operation as the new life takes it: the snapshot takes a report before it back to its own index, though it is installed first.
    pub fn taken(&self, op: usize, what: What) -> What {
        match what {
            What::Applied { index, life } if op < self.op => What::Applied { index: index.min(self.index), life },
            other => other,
        }
    }
}
