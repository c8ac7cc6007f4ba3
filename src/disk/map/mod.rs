//! What is mapped: the file, to be read, a page that tells a process from its children, memory for buffers, and queues shared with the system. The only
//! `unsafe` of the crate.

mod file;
mod mark;
mod memory;
// How the system lays out its queues is known for these.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "loongarch64",
    target_arch = "powerpc64"
))]
mod ring;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "loongarch64",
    target_arch = "powerpc64"
)))]
#[path = "no_ring.rs"]
mod ring;

pub(crate) use self::file::View;
pub use self::file::{Advice, Map};
pub(super) use self::mark::Mark;
#[cfg(test)]
pub(super) use self::mark::in_a_child;
pub(super) use self::memory::{HUGE, Piece, pieces};
pub(super) use self::ring::Ring;

/// So many are at the device at once, at most: more make what comes from elsewhere wait, and gain little.
pub(super) const DEPTH: usize = 8;

/// What became of each: bytes that were transferred, or the error's number below zero.
pub(super) type Outcomes = [i32; DEPTH];
