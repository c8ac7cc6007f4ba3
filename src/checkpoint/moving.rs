//! What is about to be moved: entries of one replica, as they were seen.

use crate::index::{Cell, Loc};
use crate::space::Tail;
use crate::sync::Arc;

/// An entry as it was seen: it counts only if it still stands so when it is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub index: u64,
    pub term: u64,
    pub loc: Loc,
}

/// Entries of one replica about to be moved.
#[derive(Debug)]
pub(super) struct Moving {
    pub cell: Arc<Cell>,
    pub incarnation: u64,
    pub entries: Vec<Seen>,
    /// The end of its chain, if they are to be settled: until that is done nobody else writes behind it, and it does not become free.
    pub tail: Option<Tail>,
}
