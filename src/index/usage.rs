//! How much space a replica takes, and where.

use super::own::is_own;
use super::state::ReplicaState;

/// How much space a replica takes, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaUsage {
    /// Bytes of its entries in the journal.
    pub journal_bytes: u64,
    /// Bytes of its pieces in chains, large keyed values among them.
    pub chain_bytes: u64,
    /// How many pieces.
    pub pieces: u64,
    /// How many keys of keyed state: those of [`Replica::keys`](crate::Replica::keys), not the log's own.
    pub keys: u64,
    /// Bytes of keyed state in the journal: keys, inline values, and the descriptors of large ones; those of the log's own keys, too.
    pub key_bytes: u64,
}

impl ReplicaUsage {
    /// All bytes together.
    pub(crate) fn bytes(self) -> u64 {
        self.journal_bytes + self.chain_bytes + self.key_bytes
    }
}

impl ReplicaState {
    /// What it takes, and where.
    pub fn usage(&self) -> ReplicaUsage {
        let mut usage = ReplicaUsage {
            journal_bytes: self.places.journal_bytes(),
            keys: self.keys.iter().filter(|entry| !is_own(&entry.key)).count() as u64,
            key_bytes: self.keys.bytes(),
            ..ReplicaUsage::default()
        };
        let values = self.keys.iter().filter_map(|entry| entry.value.piece());
        for piece in self.places.chain().iter().chain(values) {
            usage.pieces += 1;
            usage.chain_bytes += u64::from(piece.desc.bytes);
        }
        usage
    }
}
