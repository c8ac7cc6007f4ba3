//! The LSN: a place in the journal.

use std::fmt;

/// A log sequence number: the position of a byte in the journal, never used twice. From batch to batch it never decreases; batches of one frame may
/// share one, and they become durable together.
///
/// A batch is durable when [`Wal::durable_lsn`](crate::Wal::durable_lsn) has reached its LSN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub(crate) u64);

impl Lsn {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
