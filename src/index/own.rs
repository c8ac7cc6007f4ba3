//! The log's own keys, among those of a replica.

use super::keys::Value;
use super::state::ReplicaState;

/// Keys with this prefix are the log's own: callers can neither set nor delete them.
pub(crate) const OWN_KEYS: &[u8] = b"\0sl.";
/// The replica's last index that its state machine has made durable: eight bytes, so that a newer report never needs more room.
pub(crate) const APPLIED_KEY: &[u8] = b"\0sl.a";
/// How far a migration has come with the replica: see [`crate::migrate`].
pub(crate) const MOVING_KEY: &[u8] = b"\0sl.m";
/// Length of the reported index.
pub(crate) const APPLIED_BYTES: usize = size_of::<u64>();

/// Whether the key is one of the log's own.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key.starts_with(OWN_KEYS)
}

impl ReplicaState {
    /// The last index that its state machine was reported to hold durably, if any was in this life of the replica.
    pub fn reported(&self) -> Option<u64> {
        match self.keys.get(APPLIED_KEY)? {
            Value::Inline(value) => Some(u64::from_le_bytes(value.as_slice().try_into().ok()?)),
            Value::Out(_) => None,
        }
    }

    /// How far a truncation to `first` goes at least, in a batch that reports `report` before or behind it.
    pub fn reaches(&self, first: u64, report: Option<u64>) -> u64 {
        let Some(applied) = self.reported().max(report) else { return first };
        first.min(if self.state_suspect { self.first } else { applied.saturating_add(1) })
    }
}
