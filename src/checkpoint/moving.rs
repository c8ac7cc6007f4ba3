//! Entries of one replica that are about to be moved, as they were when the cleaner looked.

use crate::index::{Cell, Loc};
use crate::space::Tail;
use crate::sync::Arc;

/// An entry as it was when the cleaner looked: it is moved only if the index still has it so.
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
    /// The end of its chain, if they are to be settled: until that is done nobody else writes behind it, and its chunk does not become
    /// free.
    pub tail: Option<Tail>,
}
