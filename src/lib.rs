//! strandlog: the shared write-ahead log of a multi-raft store.
#![deny(unsafe_op_in_unsafe_fn)]

mod batch;
pub mod disk;
mod error;
#[doc(hidden)]
pub mod format;
mod index;
mod options;
mod space;
mod sync;

pub use batch::{AsEntry, Batch, Entry};
pub use error::{Damage, Error, FullReport, Lost, Result};
pub use options::{Options, Placement, Progress, ReadMode};
