//! Why a disk could not be opened or created.

use super::SyncMethod;
use rustix::io::Errno;
use std::{io, path::PathBuf};

/// Why a disk could not be opened or created.
///
/// What a user can act on without knowing error numbers has a variant of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it open: another process, or another handle in this one.
    #[error("{} is in use: another process, or another handle in this one, has it open", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It was to be created and is there already.
    #[error("{} exists already", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a pipe, or something else that has no fixed size.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// The file system or the device cannot make writes durable in the way that was asked for.
    #[error("{} is on a file system that cannot sync with method {method}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The method that was asked for.
        method: SyncMethod,
    },
    /// The file cannot be mapped: a limited address space has no room for it, or its file system does not support it.
    #[error("mapping {}: {source}; ReadMode::Copied reads it without", .path.display())]
    Mapping {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("{context} {}: {source}", .path.display())]
    Io {
        /// What was being done, to be followed by the path.
        context: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl From<OpenError> for io::Error {
    /// For callers that deal in I/O errors only; the kind survives, and the typed error inside it.
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Locked { .. } => io::ErrorKind::WouldBlock,
            OpenError::Exists { .. } => io::ErrorKind::AlreadyExists,
            OpenError::NotAFile { .. } => io::ErrorKind::InvalidInput,
            OpenError::Unsupported { .. } => io::ErrorKind::Unsupported,
            OpenError::Mapping { source, .. } | OpenError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Whether an error says that the system does not support this, not that it went wrong.
pub(super) fn unsupported(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(is_unsupported) || error.kind() == io::ErrorKind::Unsupported
}

pub(super) fn is_unsupported(errno: i32) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS].iter().any(|e| e.raw_os_error() == errno)
}
