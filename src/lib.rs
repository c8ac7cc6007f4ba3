#![doc = include_str!("../README.md")]
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![deny(missing_docs)]

mod applied;
mod batch;
mod caught;
mod chain;
mod charge;
mod checkpoint;
#[cfg(any(doc, doctest))]
pub mod cookbook;
pub mod disk;
mod engine;
mod error;
mod events;
#[doc(hidden)]
pub mod format;
mod grow;
mod histogram;
mod index;
mod inspect;
mod journal;
mod lsn;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod migrate;
mod operation;
mod options;
mod pending;
mod publish;
mod recovery;
mod replica;
mod salvage;
mod scrub;
mod snapshot;
mod space;
mod stats;
mod sync;
mod verify;
mod wal;

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

pub use batch::{AsEntry, Batch, Entry};
pub use bytes::Bytes;
pub use error::{Damage, Error, FullReport, Lost, Result};
pub use events::{Commit, Event, Listener, Recovery, SlowReason, Space};
pub use grow::{Grown, grow};
pub use histogram::Histogram;
pub use index::ReplicaUsage;
pub use inspect::{SpaceRun, Stretch};
pub use journal::Sink;
pub use lsn::Lsn;
pub use options::{
    MAX_BATCH_BYTES, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, Options, Placement, Progress, ReadMode,
    RecoveryMode,
};
pub use pending::{Pending, SubmitFuture, SubmitWithFuture};
pub use publish::Publisher;
pub use replica::Replica;
pub use salvage::{SalvageProgress, SalvageReport};
pub use scrub::{Scrubbed, ScrubbedJournal};
pub use space::ChunkUse;
pub use stats::{CutFile, Stats};
pub use verify::{VerifyProgress, VerifyReport};
pub use wal::Wal;
