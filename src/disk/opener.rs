//! The process that has a file open. One that is forked from it has all of that, too, but for the other threads, and must not touch the file:
//! what it wrote would lie over what its parent writes, and the lock that it gave up would be its parent's.

use std::{io, process};

/// The process that it was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opener(u32);

impl Opener {
    pub fn this_process() -> Self {
        Self(process::id())
    }

    /// Another process than this one, as far as anybody can tell: what a child finds of its parent.
    #[cfg(test)]
    pub fn parent() -> Self {
        Self(process::id().wrapping_add(1))
    }

    /// Whether this is still that process. One system call, which does not enter the device.
    pub fn is_here(self) -> bool {
        self == Self::this_process()
    }

    /// # Errors
    /// `PermissionDenied` in a process that was forked from it.
    pub fn check(self) -> io::Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let what = format!(
            "this process was forked from process {}, which opened the log, and alone may write to it: open a log behind the fork, or leave it alone",
            self.0
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }
}
