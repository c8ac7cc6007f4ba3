//! What each replica holds, and where: the only thing readers ask before they touch bytes.

mod few;
mod ids;
mod keys;
mod loc;
mod pieces;
mod places;
mod registry;
mod room;
mod span;
mod spans;
mod state;
mod terms;

pub(crate) use ids::{IdMap, IdSet};
pub(crate) use keys::{INLINE_VALUE_BYTES, Value, value_cost};
pub(crate) use loc::{Loc, MAX_INLINE_ENTRY, MAX_JOURNAL_LEAP};
pub(crate) use places::{ChainPiece, Place, Places, journal_bytes, weight};
pub(crate) use registry::{Cell, Cells, Registry};
pub(crate) use state::ReplicaState;
