//! What each replica holds, and where: the only thing readers ask before they touch bytes.

mod few;
mod ids;
mod keys;
mod loc;
mod own;
mod pieces;
mod places;
mod ranges;
mod registry;
mod room;
mod span;
mod spans;
mod state;
mod terms;
mod usage;
mod weight;

pub(crate) use ids::{IdMap, IdSet};
pub(crate) use keys::{INLINE_VALUE_BYTES, Value, value_cost};
pub(crate) use loc::{Loc, MAX_INLINE_ENTRY, MAX_JOURNAL_LEAP};
pub(crate) use own::{APPLIED_BYTES, APPLIED_KEY, MOVING_KEY, is_own};
pub(crate) use pieces::ChainPiece;
pub(crate) use places::{Place, Places};
pub(crate) use ranges::Ranges;
pub(crate) use registry::{Cell, Cells, Registry};
pub use state::Life;
pub(crate) use state::ReplicaState;
pub use usage::ReplicaUsage;
pub(crate) use weight::{journal_bytes, weight};
