//! Chains: entries packed into pieces, and pieces read back.

mod pack;
mod read;

pub(crate) use pack::{PackEntry, Packed, pack, pack_next};
pub(crate) use read::{PieceRef, verify_piece};
