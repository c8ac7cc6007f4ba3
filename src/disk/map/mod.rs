//! What is mapped: the file, to be read, memory for buffers, and queues shared with the system. The only `unsafe` of the crate.

mod file;
mod memory;
mod ring;

pub(crate) use self::file::View;
pub use self::file::{Advice, Map};
pub(super) use self::memory::{HUGE, Piece, pieces};
pub(super) use self::ring::{DEPTH, Outcomes, Ring};
