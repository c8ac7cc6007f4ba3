//! What is mapped: the file, to be read, and memory for buffers. The only `unsafe` of the crate.

mod file;
mod memory;

pub use self::file::{Advice, Map};
pub(super) use self::memory::{HUGE, Piece, pieces};
