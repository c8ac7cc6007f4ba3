//! One process at a time: the lock on the file.

use super::Opener;
use rustix::{
    fd::OwnedFd,
    fs::{self, FlockOperation},
    io::{Result, retry_on_intr},
};
use std::sync::Arc;

/// The file is this process's alone until this is gone, or shared with others that only read.
///
/// To close the descriptor would not do: a mapping refers to the same open file, and reads go on.
pub(super) struct Lock {
    file: Arc<OwnedFd>,
    opener: Opener,
}

impl Lock {
    /// As a child finds it that was forked from who took it.
    #[cfg(test)]
    pub fn leave_to_the_parent(&mut self) {
        self.opener = Opener::parent();
    }

    /// `WOULDBLOCK` at once where somebody else has it: whoever does will usually have it for days.
    pub fn take(file: Arc<OwnedFd>, read_only: bool) -> Result<Self> {
        let how = match read_only {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        retry_on_intr(|| fs::flock(&file, how))?;
        Ok(Self { file, opener: Opener::this_process() })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It is one lock for all that have this open file, and a forked child has it: what it gave up would be its parent's.
        if self.opener.is_here() {
            // An unlock of a lock that is held has no way to fail that anybody could act upon.
            let _ = retry_on_intr(|| fs::flock(&self.file, FlockOperation::Unlock));
        }
    }
}
