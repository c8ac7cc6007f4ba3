//! Events: what embedders are told of the log while it runs.

use crate::error::{Damage, FullReport};
use crate::lsn::Lsn;
use crate::sync::Arc;

/// Is told what happens to the log: see [`Options::listener`](crate::Options::listener).
///
/// Called on the threads that do the work, outside of every lock of the log, so it must be cheap: count, or pass the event on. Events
/// of different frames may come on different threads, and out of order, but for [`Event::SpaceLow`] and [`Event::SpaceRecovered`], which come in
/// turns. What it submits does not wait
/// ([`Error::Busy`](crate::Error::Busy)); it must not commit, and may not close the log, which is `Busy`, too. On a thread of the log's own, which
/// may be the one to write what it would wait for, so is all else that waits: for durability, or for the cleaner
/// ([`Wal::checkpoint`](crate::Wal::checkpoint), [`Wal::verify`](crate::Wal::verify), [`Wal::scrub`](crate::Wal::scrub)). The last
/// [`Wal`](crate::Wal) may be dropped in it: another thread then gives the file up a little later. A panic in it is caught and logged.
pub trait Listener: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Something that happened to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A frame became durable: a group commit, a move of the cleaner, or a seal.
    Committed(Commit),
    /// A commit took longer than [`Options::slow_commit`](crate::Options::slow_commit) allows. Told before its [`Event::Committed`].
    SlowCommit {
        /// How long what took.
        commit: Commit,
        /// What took longest.
        reason: SlowReason,
    },
    /// Journal segments became free.
    SegmentsFreed {
        /// How many.
        segments: u64,
        /// How many are free now.
        free: u64,
    },
    /// Less than a tenth of the chunks is free and not reserved: truncate, or appends are refused soon. Or less than a tenth is left of what the journal
    /// may carry, and it has no room to grow: then new replicas, keys and entries are refused soon, however many chunks are free. Remove replicas or keys that are
    /// not needed. Told once, until [`Event::SpaceRecovered`].
    SpaceLow(Space),
    /// Space is not low any more.
    SpaceRecovered(Space),
    /// A batch was refused: the log is full.
    Full(Box<FullReport>),
    /// The journal took a slab from the chains.
    JournalGrown {
        /// Segments of the journal now.
        segments: u64,
    },
    /// The journal gave a slab back to the chains.
    JournalShrunk {
        /// Segments of the journal now.
        segments: u64,
    },
    /// Damage was found: at the opening, by the cleaner, or by a scrub. [`Lost::State`](crate::Lost::State) found by a scrub is a large keyed value
    /// that rotted: it alone, until it is put again; see [`Scrubbed::damage`](crate::Scrubbed::damage).
    Damaged(Damage),
    /// A write or a sync failed: nothing after it is acknowledged. Told of each that fails, when two were in flight. Opening the log anew is right
    /// ([`Error::Poisoned`](crate::Error::Poisoned)).
    Poisoned {
        /// What failed.
        cause: Arc<str>,
    },
    /// The file was cut, removed or replaced: nothing more is acknowledged, and opening the log anew is **wrong**
    /// ([`Error::FileLost`](crate::Error::FileLost)).
    FileLost {
        /// What became of it, and what to do.
        cause: Arc<str>,
    },
    /// The log was opened.
    Recovered(Recovery),
}

/// A frame that became durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// Everything at or below is durable.
    pub lsn: Lsn,
    /// Batches in it; 0 for a seal, and where the log only moved something.
    pub batches: u64,
    /// Entries in it.
    pub entries: u64,
    /// Bytes that callers gave.
    pub user_bytes: u64,
    /// Bytes that were written for it, payloads placed beside it among them.
    pub device_bytes: u64,
    /// From the first of its batches that somebody waits for until it was durable, less the time of the device, and what a batch waited for
    /// room in the queue.
    pub queued_micros: u64,
    /// What its write and sync took.
    pub device_micros: u64,
    /// What one of its batches waited for the cleaner to free a segment, at most.
    pub cleaner_micros: u64,
}

impl Commit {
    /// What its slowest batch took, at most.
    pub fn micros(&self) -> u64 {
        self.queued_micros.saturating_add(self.device_micros).saturating_add(self.cleaner_micros)
    }

    pub(crate) fn reason(&self) -> SlowReason {
        let (queue, device, cleaner) = (self.queued_micros, self.device_micros, self.cleaner_micros);
        if cleaner > queue.max(device) {
            SlowReason::Cleaner
        } else if queue > device {
            SlowReason::Queue
        } else {
            SlowReason::Device
        }
    }
}

/// What a slow commit spent most of its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReason {
    /// The device took its time for the write.
    Device,
    /// It waited for those before it: more is submitted than the device takes.
    Queue,
    /// No journal segment was free: the cleaner is behind, or has no room to clean.
    Cleaner,
}

/// How much space there is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// In free chunks.
    pub free: u64,
    /// Of these, held back for what is in the journal, and for a large value that is written anew.
    pub reserved: u64,
    /// In the journal, of metadata and small replicas, which it carries.
    pub carried: u64,
    /// The bound on `carried`, until the journal grows.
    pub carried_limit: u64,
}

/// What an opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How long it took.
    pub micros: u64,
    /// Frames that were replayed.
    pub frames: u64,
    /// Frames that were durable and cannot be read.
    pub lost_frames: u64,
    /// Frames at the end that were dropped: see [`Stats::dropped_frames`](crate::Stats::dropped_frames).
    pub dropped_frames: u64,
    /// Replicas that exist.
    pub replicas: u64,
    /// Pieces of damage, each of which is told by an [`Event::Damaged`], too.
    pub damage: u64,
}
