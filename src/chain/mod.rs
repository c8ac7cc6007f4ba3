//! Chains: entries packed into pieces, and pieces read back.

mod pack;
mod read;

pub(crate) use pack::{PackEntry, Packed, pack};
pub(crate) use read::{PieceRef, verify_piece};
