//! The ways in which a log ends while others are at work on it.

use strandlog::disk::sim::{EIO, Fault, SimDisk};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Nothing ends it early: all that was asked for is done.
    None,
    Close,
    /// A write or sync fails.
    Fault,
    /// The power fails.
    Cut,
}

impl End {
    /// Has the disk fail, or its power, at this event if that is how the log ends.
    pub fn comes_at(self, event: u64, disk: &SimDisk) {
        match self {
            Self::Fault => disk.fail_at(event, Fault::Error(EIO)),
            Self::Cut => disk.fail_at(event, Fault::Cut),
            Self::None | Self::Close => {}
        }
    }
}
