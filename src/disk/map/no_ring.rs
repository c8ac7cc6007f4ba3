//! Where it is not known how the system lays out its queues: there are none, and one read or write is made after the other.

use std::io;

use rustix::fd::OwnedFd;

use super::Outcomes;

/// There is none.
pub(in crate::disk) enum Ring {}

impl Ring {
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn read(self, _file: &OwnedFd, _reads: &mut [(u64, &mut [u8])]) -> (Outcomes, Option<Self>) {
        match self {}
    }

    pub fn write(self, _file: &OwnedFd, _writes: &[(u64, &[u8])]) -> (Outcomes, Option<Self>) {
        match self {}
    }
}
