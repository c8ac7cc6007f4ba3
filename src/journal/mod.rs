//! The journal: where order is made and durability is bought.
//!
//! The *sequencer* is the lock under which batches get their place; queue order is log order. The *writer role* is the lock
//! under which frames go to the disk, one at a time. Nobody holds the first while waiting for the second's disk.

mod frames;
mod gate;
mod recent;
mod segments;
mod sequencer;
mod ticket;
#[cfg(all(test, loom))]
mod ticket_loom;

pub(crate) use frames::{Callbacks, Placed, SealedFrame};
pub(crate) use recent::{FrameMem, Recent};
pub(crate) use segments::{LiveSegment, SegmentMap, Segments};
pub(crate) use sequencer::{Resume, Sequencer};
pub(crate) use ticket::Ticket;

/// Who asks for room in the journal: the less a class frees, the earlier it has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Appends, and state that grows.
    Grow,
    /// Truncation, removal, and state that does not grow.
    Keep,
    /// The cleaner's moves.
    Clean,
}

/// Free segments that the cleaner alone may use: what it moves out of one segment fits one, and a frame may straddle.
pub(crate) const CLEANER_SEGMENTS: usize = 2;
/// Free segments below which appends wait: the cleaner's, and one for truncation, removal and state.
pub(crate) const RESERVED_SEGMENTS: usize = CLEANER_SEGMENTS + 1;

impl Class {
    /// How many segments must stay free after this class has taken one.
    pub fn leaves(self) -> usize {
        match self {
            Self::Grow => RESERVED_SEGMENTS,
            Self::Keep => CLEANER_SEGMENTS,
            Self::Clean => 0,
        }
    }
}
