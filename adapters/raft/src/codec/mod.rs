//! How raft's types are encoded in the log.
//!
//! Compact, versioned, and decoded with typed errors: bytes whose checksums are right may still
//! come from a newer version of this crate, or from another program.

pub mod entry;
pub mod state;
mod varint;

pub(crate) use varint::{put_varint, take_varint};

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the bytes end early")]
    Truncated,
    /// Bytes are left over after the value.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// The value's format has a version which this crate does not know.
    #[error("format version {0} is unknown")]
    Version(u8),
    /// An entry's first byte has bits which this crate does not know, or names no entry type.
    #[error("entry shape {0:#04x} is unknown")]
    Shape(u8),
    /// A number does not fit 64 bits.
    #[error("a number does not fit 64 bits")]
    Number,
}
