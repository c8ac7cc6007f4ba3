//! [guide]: crate::guide
//! [capacity]: crate::guide#capacity-chunks-segments
//! [full]: crate::guide#a-full-log
//! [damage]: crate::guide#damage
//! [damaged]: crate::guide#a-damaged-replica
//! [limits]: crate::guide#limits
//! [comparison]: crate::comparison
//! [own_raft]: crate::cookbook::own_raft
//! [examples]: https://github.com/strandlog/strandlog/tree/main/examples
//! [only_wal]: https://github.com/strandlog/strandlog/tree/main/examples/only-wal
//! [metrics_example]: https://github.com/strandlog/strandlog/blob/main/examples/metrics.rs
//! [grafana]: https://github.com/strandlog/strandlog/blob/main/examples/grafana.json
//! [raft-rs]: https://github.com/strandlog/strandlog/tree/main/adapters/raft
//! [openraft]: https://github.com/strandlog/strandlog/tree/main/adapters/openraft
//! [tool]: https://github.com/strandlog/strandlog/blob/main/docs/tool.md
//! [design]: https://github.com/strandlog/strandlog/blob/main/DESIGN.md
//! [numbers]: https://github.com/strandlog/strandlog/blob/main/docs/numbers.md
//! [race]: https://raw.githubusercontent.com/strandlog/strandlog/main/docs/race.svg
//! [race_txt]: https://github.com/strandlog/strandlog/blob/main/docs/race.txt
#![doc = ""]
// The front page. If a link is defined twice, the first definition counts: those above lead to the items here, the README's own to the
// files beside it.
#![doc = include_str!("../README.md")]
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![deny(missing_docs)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("strandlog runs on Linux only, and on processors of 64 bits");

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
mod open;
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
pub use index::{Life, ReplicaUsage};
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
