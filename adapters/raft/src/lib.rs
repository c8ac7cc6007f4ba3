//! [raft-rs](https://docs.rs/raft/0.7) on [`strandlog`]: a [`raft::Storage`] per group, and the
//! asynchronous Ready flow for a thread that drives many groups.
//!
//! A multi-raft store keeps every replica's log, hard state and small state in one [`strandlog::Wal`].
//! Each poller thread owns some groups and goes round and round:
//!
//! 1. step messages, ticks and proposals into its groups;
//! 2. take the [`Ready`](raft::Ready) of each group that has one into a [`Round`]: one
//!    [`strandlog::Batch`] for all of them, as long as they fit one;
//! 3. [`PersistQueue::submit`] the round, send the messages that it hands back, and go on at once. What it wrote is readable, not yet durable;
//! 4. when the durable watermark passes, [`PersistQueue::poll`] hands back what may happen now:
//!    [`on_persist_ready`](raft::RawNode::on_persist_ready), and the messages that had to wait.
//!
//! Entries for a lagging follower may have to come from the disk: a [`FetchQueue`] reads them on another thread.
//!
//! No poller thread ever waits for the disk. A leader's messages leave before its own entries are durable; a follower's
//! acknowledgement never does. No message leaves before the term and the vote that it speaks of are durable.
//!
//! # What lives where
//!
//! | raft                | strandlog                                                                  |
//! |---------------------|----------------------------------------------------------------------------|
//! | group               | replica                                                                    |
//! | entry               | entry: index and term as they are; type, context, data by [`codec::entry`] |
//! | hard state          | keyed state [`HARD_STATE`]                                                 |
//! | configuration       | keyed state [`CONF_STATE`], always written together with `applied`         |
//! | applied index, term | keyed state [`APPLIED`], followed by the state machine's bytes, if any; the index alone if the state machine lives elsewhere and the log was compacted |
//!
//! # What must come from outside
//!
//! Ticks, a network, and the state machine. A state machine small enough (1 MiB, or half a segment of the log if that is
//! less) can live in the log as a [`Checkpoint`]. A larger one keeps its own files, reports the index that it holds *durably* with
//! [`GroupStorage::set_applied`] ([`GroupStorage::adopt`] at an opening), and supplies a [`SnapshotSource`]: then the log stores only the index of a
//! snapshot from a peer.

mod applied;
mod changes;
pub mod codec;
mod error;
mod fetch;
mod outgoing;
mod part;
mod queue;
mod read;
mod round;
mod snapshot;
mod storage;
mod waiting;
mod write;

pub use applied::Checkpoint;
pub use error::{Error, Result};
pub use fetch::{FetchQueue, Fetched};
pub use queue::PersistQueue;
pub use round::Round;
pub use snapshot::SnapshotSource;
pub use storage::GroupStorage;
pub use waiting::{Persisted, Written};

/// Key of a group's hard state (term, vote, commit).
pub const HARD_STATE: &[u8] = b"hard_state";
/// Key of a group's configuration as of its applied index.
pub const CONF_STATE: &[u8] = b"conf_state";
/// Key of a group's applied index and term, and of the state machine's bytes as of there.
pub const APPLIED: &[u8] = b"applied";

/// Index (and term) at which [`GroupStorage::bootstrap`] starts a group.
///
/// Not 0: a replica that is added later starts blank, at 0, and so can only catch up through a snapshot, which
/// brings the configuration that no log entry holds.
pub const BOOTSTRAP_INDEX: u64 = 1;

/// Compiles the README's snippets.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
