//! What is mapped: the file (read-only), a page that tells a process from its children, memory for buffers, and queues shared with the
//! system. The only `unsafe` code of the crate.

mod file;
mod mark;
mod memory;
// The architectures for which the layout of the system's queues is known.
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

/// The most requests at the device at once: more would delay those of others, and gain little.
pub(super) const DEPTH: usize = 8;

/// The outcome of each request: the bytes transferred, or the negated error number.
pub(super) type Outcomes = [i32; DEPTH];
