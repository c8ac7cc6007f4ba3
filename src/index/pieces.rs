//! The pieces of a replica, in the order of their entries: a queue, as they come at its end and go at its front.
//!
//! A replayed log names them in another order: first those that were not carried for long, then, before or among these, the ones that were.
//! If others were moved for each, hundreds of thousands would take an opening minutes. So where one comes or goes in the midst of many, all
//! lie in a tree until the replay ends.

use std::collections::{BTreeMap, VecDeque};

use super::room::Spare as _;
use crate::disk::AlignedBuf;
use crate::format::piece::{Extent, PieceDesc};
use crate::sync::Arc;

/// At most this many pieces are moved for one that comes or goes.
const FEW: usize = 64;

/// A piece of the chain as the index knows it. Its terms are kept with the replica's, not here.
#[derive(Clone, Debug)]
pub(crate) struct ChainPiece {
    /// Its descriptor, without terms. `count` is what has not been overwritten.
    pub desc: PieceDesc,
    /// Segment that holds the newest record naming it: carried when that segment is freed.
    pub meta_seq: u64,
    /// Its bytes, while they are recent or not yet written.
    pub mem: Option<Arc<AlignedBuf>>,
}

/// No index is in two of them.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    queue: VecDeque<ChainPiece>,
    /// By their first indexes, which never change. While there is a tree, the queue is empty. Boxed, as there nearly never is one.
    #[allow(clippy::box_collection)]
    tree: Option<Box<BTreeMap<u64, ChainPiece>>>,
}

/// The pieces of a replica that has none.
pub(super) static NO_PIECES: VecDeque<ChainPiece> = VecDeque::new();

/// What became of a piece that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    /// It is there already, and is named by a newer record now.
    Renewed,
    /// Another overlaps: nothing is changed.
    Refused,
}

impl Pieces {
    /// All of them. Not to be called before a replay has [settled](Self::settle) them.
    pub fn all(&self) -> &VecDeque<ChainPiece> {
        debug_assert!(self.tree.is_none(), "a replay has not ended");
        &self.queue
    }

    pub fn all_mut(&mut self) -> &mut VecDeque<ChainPiece> {
        self.settle();
        &mut self.queue
    }

    /// Turns a tree into the queue again: no more will come or go in the midst of many.
    pub fn settle(&mut self) {
        if let Some(tree) = self.tree.take() {
            self.queue = tree.into_values().collect();
        }
    }

    /// Makes ready for a piece that comes or goes at this index: in the midst of many, all go into a tree.
    pub fn expect_anywhere(&mut self, index: u64) {
        if self.tree.is_none() && self.queue.len() > 2 * FEW {
            let before = self.queue.partition_point(|p| p.desc.first < index);
            if before.min(self.queue.len() - before) > FEW {
                let queue = std::mem::take(&mut self.queue);
                self.tree = Some(Box::new(queue.into_iter().map(|p| (p.desc.first, p)).collect()));
            }
        }
    }

    pub fn add(&mut self, piece: ChainPiece) -> Added {
        let (id, first, last) = (piece.desc.id, piece.desc.first, piece.desc.last());
        let reaches = |before: Option<&ChainPiece>| before.is_some_and(|p| p.desc.last() >= first);
        let begins = |after: Option<&ChainPiece>| after.is_some_and(|p| p.desc.first <= last);
        if let Some(tree) = &mut self.tree {
            if let Some((_, same)) = tree.range_mut(first..).next().filter(|(_, p)| p.desc.id == id) {
                same.meta_seq = piece.meta_seq;
                return Added::Renewed;
            }
            let (before, after) = (tree.range(..first).next_back(), tree.range(first..).next());
            if reaches(before.map(|(_, p)| p)) || begins(after.map(|(_, p)| p)) {
                return Added::Refused;
            }
            tree.insert(first, piece);
            return Added::New;
        }
        // Many replicas have a single piece.
        if self.queue.capacity() == 0 {
            self.queue.reserve_exact(1);
        }
        let at = self.queue.partition_point(|p| p.desc.first < first);
        if let Some(same) = self.queue.get_mut(at).filter(|p| p.desc.id == id) {
            same.meta_seq = piece.meta_seq;
            return Added::Renewed;
        }
        if reaches(at.checked_sub(1).and_then(|i| self.queue.get(i))) || begins(self.queue.get(at)) {
            return Added::Refused;
        }
        self.queue.insert(at, piece);
        Added::New
    }

    fn last_mut(&mut self) -> Option<&mut ChainPiece> {
        match &mut self.tree {
            Some(tree) => tree.last_entry().map(|last| last.into_mut()),
            None => self.queue.back_mut(),
        }
    }

    fn pop_last(&mut self) -> Option<ChainPiece> {
        match &mut self.tree {
            Some(tree) => tree.pop_last().map(|(_, piece)| piece),
            None => self.queue.pop_back(),
        }
    }

    /// Forgets every index at or above `from`; the space of pieces that die goes to `freed`.
    pub fn cut_from(&mut self, from: u64, freed: &mut Vec<Extent>) {
        while let Some(piece) = self.last_mut().filter(|piece| piece.desc.last() >= from) {
            if piece.desc.first < from {
                // The cut lies inside the piece, so this is less than its count, and fits.
                piece.desc.count = (from - piece.desc.first) as u32;
                break;
            }
            freed.extend(self.pop_last().into_iter().flat_map(|piece| piece.desc.extents));
        }
        self.queue.spare();
    }

    /// Forgets the pieces that end below `first`; their space goes to `freed`.
    pub fn drop_below(&mut self, first: u64, freed: &mut Vec<Extent>) {
        let past = |piece: Option<&ChainPiece>| piece.is_some_and(|p| p.desc.last() < first);
        loop {
            let gone = match &mut self.tree {
                Some(tree) if past(tree.first_key_value().map(|(_, p)| p)) => tree.pop_first().map(|(_, piece)| piece),
                None if past(self.queue.front()) => self.queue.pop_front(),
                _ => break,
            };
            freed.extend(gone.into_iter().flat_map(|piece| piece.desc.extents));
        }
        self.queue.spare();
    }

    /// Forgets the pieces that begin within `lo..=hi`, and the end of one that reaches into it.
    pub fn forget(&mut self, lo: u64, hi: u64) {
        let shorten = |before: &mut ChainPiece| {
            let left = u32::try_from(lo - before.desc.first).unwrap_or(u32::MAX);
            before.desc.count = before.desc.count.min(left);
        };
        self.expect_anywhere(lo);
        match &mut self.tree {
            Some(tree) => {
                tree.range_mut(..lo).next_back().into_iter().for_each(|(_, before)| shorten(before));
                while let Some(first) = tree.range(lo..=hi).next().map(|(&first, _)| first) {
                    tree.remove(&first);
                }
            }
            None => {
                let from = self.queue.partition_point(|p| p.desc.first < lo);
                from.checked_sub(1).and_then(|i| self.queue.get_mut(i)).into_iter().for_each(shorten);
                let to = self.queue.partition_point(|p| p.desc.first <= hi);
                self.queue.drain(from..to.max(from));
            }
        }
    }
}
