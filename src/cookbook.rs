//! Recipes: the complete programs of `examples/`, run as doctests.
//!
//! - [A raft of your own](own_raft) on the log, in a hundred lines.
//! - [A sharded queue](queue) that uses the log as its write-ahead log.
//! - The log as a state machine's only log: an LSM whose own journal stays empty, crashed hundreds of times, in `examples/only-wal`.
//! - Figures for Prometheus: `examples/metrics.rs`, and the feature `metrics`.
//! - raft-rs: the crate `strandlog-raft` implements all of its `Storage`, and the asynchronous Ready flow. openraft: `strandlog-openraft`.

/// A raft of your own.
///
#[doc = concat!("```\n", include_str!("../examples/own_raft.rs"), "\n```")]
pub mod own_raft {}

/// A sharded queue.
///
#[doc = concat!("```\n", include_str!("../examples/queue.rs"), "\n```")]
pub mod queue {}
