//! The chunks: which are free, which readers pin, and what must be held back.

mod accounts;
mod chunk_use;
mod free;
mod pins;
#[cfg(all(test, loom))]
mod pins_loom;
mod pool;

pub(crate) use accounts::{
    Accounts, CLEANER_SLABS, Charge, Demand, FULL_FRAME, Held, MOST_STEP, Pledge, RESERVED_SLABS, small_weight, step,
};
pub use chunk_use::ChunkUse;
pub(crate) use pins::Pins;
pub(crate) use pool::{Owners, Pool, Tail, count_pieces};
