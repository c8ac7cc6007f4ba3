//! How a log ends while everybody works on it.

use strandlog::disk::sim::{EIO, Fault, SimDisk};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// All that is asked is done.
    None,
    Close,
    /// A write or sync fails.
    Fault,
    /// The power fails.
    Cut,
}

impl End {
    /// What the disk does to it comes at this event.
    pub fn comes_at(self, event: u64, disk: &SimDisk) {
        match self {
            Self::Fault => disk.fail_at(event, Fault::Error(EIO)),
            Self::Cut => disk.fail_at(event, Fault::Cut),
            Self::None | Self::Close => {}
        }
    }
}
