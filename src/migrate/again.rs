//! A batch that failed is committed again: by then the old log may have all of it, the first of its changes, or none.
//!
//! Absolute changes may be done twice: entries at their indexes, keys, a snapshot. But a batch that appended, and then overwrote from a lower
//! index or truncated past the entries, cannot append them again. So the changes that the log can no longer take are left out. They have been
//! done: changes are made in order, so repeating all from the first undone one, or from any earlier one if the log takes them, has the same result.
//!
//! A report before the operation that begins its replica counts as one of 0, because it may concern a previous life. It still does if the first
//! attempt has begun the replica.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::sense::Stands;
use super::write::{add_again, entries_of};
use super::{DualWrite, MigrateError, OldLog};
use crate::batch::Batch;
use crate::operation::What;

/// For one replica: a batch that failed after the old log might have applied it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// The batch's fingerprint.
    is: u64,
    /// Neither log had the replica before the batch.
    unborn: bool,
}

impl<O: OldLog> DualWrite<O> {
    /// What is left to do of a batch that failed before; `None` if that is all of it.
    pub(super) fn rest_of(&self, batch: &Batch) -> Result<Option<Batch>, MigrateError> {
        if !batch.ops.iter().any(|op| self.unfinished.contains_key(&op.replica)) {
            return Ok(None);
        }
        let is = fingerprint(batch);
        let (mut done, mut early) = (BTreeSet::new(), BTreeSet::new());
        let mut of: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        batch.ops.iter().enumerate().for_each(|(at, op)| of.entry(op.replica).or_default().push(at));
        for (id, at) in of {
            let Some(unfinished) = self.unfinished.get(&id).filter(|unfinished| unfinished.is == is) else { continue };
            let ops: Vec<What> = at.iter().filter_map(|&at| batch.ops.get(at)).map(|op| op.what).collect();
            let stands = Stands::new(id, self.bounds(id)?);
            // If no suffix fits, the obstacle is not what was already done.
            let first = (0..ops.len()).find(|&first| fits(ops.get(first..).unwrap_or(&[]), stands)).unwrap_or(0);
            let moves = |what: &What| matches!(what, What::Append { .. } | What::Truncate { .. } | What::Cut { .. });
            done.extend(at.iter().zip(&ops).take(first).filter(|(_, what)| moves(what)).map(|(&at, _)| at));
            let begins = |what: &What| matches!(what, What::Append { .. } | What::Put { .. } | What::Reset { .. });
            let before = ops.iter().position(begins).filter(|_| unfinished.unborn).unwrap_or(0);
            early.extend(at.into_iter().take(before));
        }
        if done.is_empty() && early.is_empty() {
            return Ok(None);
        }
        let mut rest = Batch::new();
        for (at, op) in batch.ops.iter().enumerate().filter(|(at, _)| !done.contains(at)) {
            match op.what {
                What::Applied { .. } if early.contains(&at) => _ = rest.durable_applied(op.replica, 0),
                _ => add_again(&mut rest, batch, op),
            }
        }
        Ok(Some(rest))
    }

    /// Remembers that the batch may be in the old log, and is not known to be in strandlog. `unborn`: the replicas that neither log had.
    pub(super) fn is_unfinished(&mut self, batch: &Batch, unborn: &BTreeSet<u64>) {
        let is = fingerprint(batch);
        for op in &batch.ops {
            let was = self.unfinished.get(&op.replica).filter(|was| was.is == is);
            let unborn = was.map_or(unborn.contains(&op.replica), |was| was.unborn);
            self.unfinished.insert(op.replica, Unfinished { is, unborn });
        }
    }
}

/// Whether a replica with these bounds takes the operations, as far as indexes go.
fn fits(ops: &[What], mut stands: Stands) -> bool {
    ops.iter().all(|&what| stands.go(what).is_ok())
}

/// A hash of the batch's content, to recognize it.
fn fingerprint(batch: &Batch) -> u64 {
    let mut hasher = DefaultHasher::new();
    for op in &batch.ops {
        op.replica.hash(&mut hasher);
        std::mem::discriminant(&op.what).hash(&mut hasher);
        match op.what {
            What::Append { .. } => entries_of(batch, op.what).hash(&mut hasher),
            What::Put { key, value } => (batch.bytes_of(key), batch.bytes_of(value)).hash(&mut hasher),
            What::Delete { key } => batch.bytes_of(key).hash(&mut hasher),
            What::Truncate { first: index } | What::Cut { from: index } | What::Applied { index, .. } => {
                index.hash(&mut hasher)
            }
            What::Reset { index, term } => (index, term).hash(&mut hasher),
            What::Remove => {}
        }
    }
    hasher.finish()
}
