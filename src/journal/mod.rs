//! The journal: where order is made and durability is bought.
//!
//! The *sequencer* is the lock under which batches get their place; queue order is log order. Under the same lock frames are sealed and
//! their flight begins; the thread that took one writes it under no lock at all. A few may be in flight at once; they are acknowledged in
//! the order of the log, whichever was written first.

mod flights;
mod frames;
mod gate;
mod line;
mod notices;
mod recent;
mod segments;
mod sequencer;
mod tasks;
mod ticket;
#[cfg(all(test, loom))]
mod ticket_loom;
mod times;

pub(crate) use flights::{Flights, Landing};
pub(crate) use frames::{Placed, SealedFrame};
pub(crate) use gate::Gate;
pub(crate) use line::Standing;
pub use notices::Sink;
pub(crate) use notices::Whom;
pub(crate) use recent::{FrameMem, Recent};
pub(crate) use segments::{LiveSegment, SegmentMap, Segments};
pub(crate) use sequencer::{Resume, Sequencer};
pub(crate) use tasks::{Seat, wake_all};
pub(crate) use ticket::Ticket;
pub(crate) use times::{Times, Waits};

/// Classes of requests for room in the journal: the less a class frees, the earlier it has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// Appends, and state that grows.
    #[default]
    Grow,
    /// Truncation, removal, and state that does not grow.
    Keep,
    /// A batch that only frees something, while the cleaner gains nothing: see [`Sequencer::is_stuck`].
    LetGo,
    /// The cleaner's moves.
    Clean,
}

/// Free segments that the cleaner alone may use: what it moves out of one segment takes at most a segment and a frame. Where much is
/// carried it needs more: see [`Accounts::cleaning`](crate::space::Accounts::cleaning).
pub(crate) const CLEANER_SEGMENTS: usize = 2;
/// Free segments below which appends wait: the cleaner's, and one for truncation, removal and state.
pub(crate) const RESERVED_SEGMENTS: usize = CLEANER_SEGMENTS + 1;
const _: () = assert!(RESERVED_SEGMENTS as u64 == crate::space::RESERVED_SLABS);
const _: () = assert!(CLEANER_SEGMENTS as u64 == crate::space::CLEANER_SLABS);

// What `space` assumes of a full frame where it counts the cleaner's segments.
const _: () = assert!(sequencer::FRAME_TARGET >= crate::space::FULL_FRAME + 2 * crate::space::MOST_STEP);
