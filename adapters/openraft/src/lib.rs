#![doc = include_str!("../README.md")]

#[cfg(not(any(feature = "v010", feature = "v09")))]
compile_error!("enable the feature `v010` (openraft 0.10, the default) or `v09` (openraft 0.9), or both");

#[cfg(feature = "v010")]
mod appended;
mod codec;
mod encoded;
mod error;
mod group;
mod store;
#[cfg(feature = "v010")]
pub mod v010;
#[cfg(feature = "v09")]
pub mod v09;

pub use codec::CodecError;
pub use error::{Error, Result};
pub use store::{LogReader, LogStore};

/// Key of a group's vote.
pub const VOTE: &[u8] = b"vote";
/// Key of a group's committed log id.
pub const COMMITTED: &[u8] = b"committed";
/// Key of the log id up to which a group's log was purged.
pub const PURGED: &[u8] = b"purged";

/// The log's index of openraft's entry `index`: openraft counts from 0, the log from 1. Calls to the log itself use it, such as
/// [`Wal::durable_applied_many`](strandlog::Wal::durable_applied_many).
pub const fn slot(index: u64) -> u64 {
    index.saturating_add(1)
}

/// The most bytes of one read for replication or for applying, but at least one entry: it is all in memory at once.
const READ_BYTES: usize = 1 << 20;
