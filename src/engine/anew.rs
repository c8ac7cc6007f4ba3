//! A new life for a replica whose keyed state is not believed: what of a batch goes into it.

use crate::operation::What;

/// A snapshot that heals a replica of which the batch said something before it.
///
/// With it a new life begins, as what was known of the old one is not believed. State that the batch put before is not of that: it is
/// what the caller believes, and goes into the new life, whichever of the two is named first. Entries before it go with the old one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anew {
    /// The operation.
    pub op: usize,
    pub index: u64,
    pub term: u64,
}

impl Anew {
    /// Whether this operation of the replica, the snapshot's own among them, says nothing of the new life.
    pub fn leaves_out(&self, op: usize, what: What) -> bool {
        op <= self.op && !matches!(what, What::Put { .. } | What::Delete { .. } | What::Applied { .. })
    }

    /// The operation as the new life takes it: the snapshot takes back what was reported before it, though it is installed first.
    pub fn taken(&self, op: usize, what: What) -> What {
        match what {
            What::Applied { index, life } if op < self.op => What::Applied { index: index.min(self.index), life },
            other => other,
        }
    }
}
