//! Which replicas the operations of a long batch name, so that those of one among thousands are ended without a look at all others, in
//! whatever order they go.
//!
//! Ended operations stay in the list until they are half of it, or the batch is submitted: so each one that is moved then is paid for by
//! one that goes.

use crate::charge::Takes;
use crate::index::IdMap;
use crate::operation::{Meta, Op, What};

/// What is asked of a replica, and what that takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    ops: usize,
    /// What it takes in a frame.
    pub takes: Takes,
    /// Payloads, keys and values.
    pub bytes: u64,
    pub metas: usize,
}

impl Asked {
    pub fn of(op: &Op, metas: &[Meta]) -> Self {
        let (bytes, entries) = match op.what {
            What::Append { from, to, .. } => {
                let metas = metas.get(from..to).unwrap_or(&[]);
                (metas.iter().map(|meta| u64::from(meta.len)).sum(), metas.len())
            }
            What::Put { key, value } => ((key.len + value.len) as u64, 0),
            What::Delete { key } => (key.len as u64, 0),
            _ => (0, 0),
        };
        Self { ops: 1, takes: Takes::of(op.what, metas), bytes, metas: entries }
    }

    pub fn and(self, other: Self) -> Self {
        let Self { ops, takes, bytes, metas } = other;
        Self { ops: self.ops + ops, takes: self.takes.and(takes), bytes: self.bytes + bytes, metas: self.metas + metas }
    }
}

#[derive(Debug, Default)]
struct Replica {
    /// What counts, as far as was looked.
    asked: Asked,
    /// Its operations before this place are ended.
    ended_before: usize,
}

#[derive(Debug, Default)]
pub(super) struct Named {
    replicas: IdMap<Replica>,
    /// How many operations were looked at.
    looked: usize,
    /// How many of them are ended.
    ended: usize,
}

impl Named {
    /// Whether it has seen nothing yet.
    pub fn is_new(&self) -> bool {
        self.looked == 0
    }

    pub fn ended(&self) -> usize {
        self.ended
    }

    pub fn ended_before(&self, replica: u64) -> usize {
        self.replicas.get(&replica).map_or(0, |of| of.ended_before)
    }

    /// Whether the replica's operation at this place counts.
    pub fn counts(&self, at: usize, replica: u64) -> bool {
        self.ended == 0 || at >= self.ended_before(replica)
    }

    /// Looks at the operations that were added since.
    pub fn look(&mut self, ops: &[Op], metas: &[Meta]) {
        for op in ops.get(self.looked..).unwrap_or(&[]) {
            let of = self.replicas.entry(op.replica).or_default();
            of.asked = of.asked.and(Asked::of(op, metas));
        }
        self.looked = ops.len();
    }

    /// Ends what was asked of the replica before this place; answers what that was.
    pub fn end(&mut self, replica: u64, place: usize) -> Asked {
        let Some(of) = self.replicas.get_mut(&replica) else { return Asked::default() };
        of.ended_before = place;
        self.ended += of.asked.ops;
        std::mem::take(&mut of.asked)
    }

    /// Removes what is ended from the operations.
    pub fn settle(&mut self, ops: &mut Vec<Op>) {
        if self.ended == 0 {
            return;
        }
        let mut place = 0..;
        ops.retain(|op| place.next().is_some_and(|at| self.counts(at, op.replica)));
        self.looked -= self.ended;
        self.ended = 0;
        self.replicas.retain(|_, of| of.asked.ops > 0);
        self.replicas.values_mut().for_each(|of| of.ended_before = 0);
    }

    pub fn clear(&mut self) {
        self.replicas.clear();
        (self.looked, self.ended) = (0, 0);
    }
}
