//! Where the layout of the system's queues is not known: there are no rings, and reads and writes are made one after the other.

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
