//! One process at a time: the lock on the file.

use super::Opener;
use rustix::{
    fd::OwnedFd,
    fs::{self, FlockOperation},
    io::{Result, retry_on_intr},
};
use std::sync::Arc;

/// While this lives, the file belongs to this process alone, or is shared with others that only read.
///
/// Closing the descriptor would not be enough: a mapping refers to the same open file, and reads go on.
pub(super) struct Lock {
    file: Arc<OwnedFd>,
    opener: Opener,
}

impl Lock {
    /// Turns this into what a forked child finds of its parent's lock.
    #[cfg(test)]
    pub fn leave_to_the_parent(&mut self) {
        self.opener = Opener::parent();
    }

    /// `WOULDBLOCK` at once if somebody else holds the lock: they usually will for days.
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
        // The lock belongs to the open file, which a forked child shares: if the child gave it up, its parent would lose it.
        if self.opener.is_here() {
            // Unlocking a lock that is held cannot fail in a way that anybody could act upon.
            let _ = retry_on_intr(|| fs::flock(&self.file, FlockOperation::Unlock));
        }
    }
}
