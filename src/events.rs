//! Events: what embedders are told of the log while it runs.

use crate::error::{Damage, FullReport};
use crate::lsn::Lsn;
use crate::sync::Arc;

/// Receives the events of a log: see [`Options::listener`](crate::Options::listener).
///
/// It is called on the threads that do the work, outside all locks of the log, so it must be cheap: count, or pass the event on. Events
/// of different frames may arrive on different threads and out of order, except [`Event::SpaceLow`] and [`Event::SpaceRecovered`], which
/// alternate.
///
/// Inside it, a submit that would have to wait for room returns [`Error::Busy`](crate::Error::Busy), and so does closing the log; do not commit
/// in it. On one of the log's own threads, everything else that waits returns `Busy`, too, because that thread may be the one that has to do what is waited for: waits for
/// durability, and for the cleaner ([`Wal::checkpoint`](crate::Wal::checkpoint), [`Wal::verify`](crate::Wal::verify),
/// [`Wal::scrub`](crate::Wal::scrub)).
///
/// The last [`Wal`](crate::Wal) may be dropped in it: another thread then gives up the file a little later. A panic in it is caught and traced.
pub trait Listener: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Something that happened to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A frame became durable: a group commit, entries or metadata moved by the cleaner, or a seal.
    Committed(Commit),
    /// A commit took longer than [`Options::slow_commit`](crate::Options::slow_commit) allows. Comes before its [`Event::Committed`].
    SlowCommit {
        /// The commit, and how long its parts took.
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
    /// Space is low, in one of two ways. Less than a tenth of the chunks is free and not reserved: truncate, or appends will soon be refused. Or less than a tenth is
    /// left of what the journal may carry, and it has no room to grow: then new replicas, keys and entries will soon be refused, however many chunks are free; remove
    /// replicas or keys that are not needed. Sent once, until [`Event::SpaceRecovered`].
    SpaceLow(Space),
    /// Space is no longer low.
    SpaceRecovered(Space),
    /// A batch was refused because the log is full.
    Full(Box<FullReport>),
    /// The journal took one segment's worth of space (a slab) from the chains.
    JournalGrown {
        /// Segments of the journal now.
        segments: u64,
    },
    /// The journal gave one segment's worth of space (a slab) back to the chains.
    JournalShrunk {
        /// Segments of the journal now.
        segments: u64,
    },
    /// Damage was found: at the opening, by the cleaner, or by a scrub. [`Lost::State`](crate::Lost::State) found by a scrub means one large keyed value
    /// that rotted, and nothing else, until that is put again; see [`Scrubbed::damage`](crate::Scrubbed::damage).
    Damaged(Damage),
    /// A write or a sync failed: nothing after it is acknowledged. If two were in flight, sent for each one that fails. The log can be reopened
    /// ([`Error::Poisoned`](crate::Error::Poisoned)).
    Poisoned {
        /// What failed.
        cause: Arc<str>,
    },
    /// The file was cut, removed or replaced: nothing more is acknowledged. Do **not** reopen the file
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
    /// Everything at or below this is durable.
    pub lsn: Lsn,
    /// Batches in it; 0 for a seal, and if the cleaner only moved something.
    pub batches: u64,
    /// Entries in it.
    pub entries: u64,
    /// Bytes that callers gave.
    pub user_bytes: u64,
    /// Bytes written for it, including payloads placed beside it.
    pub device_bytes: u64,
    /// The time from the first of its batches that somebody waits for until it was durable, less the time of the device; plus what a batch waited for
    /// room in the queue.
    pub queued_micros: u64,
    /// How long its write and sync took.
    pub device_micros: u64,
    /// The longest that one of its batches waited for the cleaner to free a segment.
    pub cleaner_micros: u64,
}

impl Commit {
    /// An upper bound of what its slowest batch took.
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

/// What a slow commit spent most of its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReason {
    /// The device was slow to write.
    Device,
    /// It waited for earlier frames: more is submitted than the device can take.
    Queue,
    /// No journal segment was free: the cleaner is behind, or has no room to clean.
    Cleaner,
}

/// Space figures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// In free chunks.
    pub free: u64,
    /// Of these, reserved for moving the journal's contents, and for rewriting a large value.
    pub reserved: u64,
    /// Of metadata and small replicas in the journal, which the cleaner carries forward.
    pub carried: u64,
    /// The limit of `carried`, until the journal grows.
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
