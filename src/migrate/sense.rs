//! Checks whether a batch fits a log's bounds, as far as indexes go, as `engine/admit.rs` does for strandlog. For a replica that is not
//! switched strandlog cannot decide it: its copy may begin later than the old log, or there may be none, and then only the old log is asked.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Differs, DualWrite, MigrateError, OldLog, Stage};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::operation::What;

/// First and last index of replicas in the old log; `None` if it does not have the replica.
pub(super) type Bounds = BTreeMap<u64, Option<(u64, u64)>>;

/// A replica's bounds in the middle of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stands {
    replica: u64,
    bounds: Option<(u64, u64)>,
    /// If a truncation waits for a report: the first index that it was to keep.
    waiting: Option<u64>,
}

impl Stands {
    pub fn new(replica: u64, bounds: Option<(u64, u64)>) -> Self {
        Self { replica, bounds, waiting: None }
    }

    /// Checks the next operation on the replica, and moves the bounds.
    pub fn go(&mut self, what: What) -> Result<()> {
        let replica = self.replica;
        let behind = |last: u64, index: u64| last.checked_add(1).is_some_and(|next| index > next);
        match what {
            What::Append { first: index, from, to } => {
                let (first, last) = self.bounds.unwrap_or((1, 0));
                if index < first {
                    return Err(Error::Compacted { replica, index, first_index: first });
                }
                if behind(last, index) {
                    return Err(Error::Gap { replica, index, expected: last.saturating_add(1) });
                }
                self.bounds = Some((first, index.saturating_add((to - from) as u64).saturating_sub(1)));
            }
            What::Put { .. } => self.bounds = self.bounds.or(Some((1, 0))),
            What::Truncate { first: kept } => match self.bounds {
                None if kept > 1 => return Err(Error::UnknownReplica { replica }),
                Some((_, last)) if behind(last, kept) => {
                    let why = "truncate_prefix beyond last_index + 1; use install_snapshot, which says the term";
                    return Err(Error::Contradiction { replica, why });
                }
                _ => self.truncate(kept),
            },
            What::Cut { from: index } => match self.bounds {
                Some((first, _)) if index < first => {
                    return Err(Error::Compacted { replica, index, first_index: first });
                }
                _ => self.bounds = self.bounds.map(|(first, last)| (first, last.min(index.saturating_sub(1)))),
            },
            What::Reset { index, .. } => {
                (self.bounds, self.waiting) = (Some((index.saturating_add(1), index)), None);
            }
            What::Remove => (self.bounds, self.waiting) = (None, None),
            // The waiting truncation will be carried out: the batch must not append to or cut what it drops.
            What::Applied { index, .. } => {
                let first = self.waiting.map_or(0, |first| first.min(index.saturating_add(1)));
                self.truncate(self.bounds.map_or(0, |(_, last)| first.min(last.saturating_add(1))));
            }
            What::Delete { .. } => {}
        }
        Ok(())
    }

    fn truncate(&mut self, kept: u64) {
        self.bounds = self.bounds.map(|(first, last)| (first.max(kept), last));
    }
}

impl<O: OldLog> DualWrite<O> {
    /// Refuses a batch that does not fit the old log, before either log sees it. Returns the bounds there of each replica that is not switched.
    pub(super) fn check_sense(&self, batch: &Batch) -> std::result::Result<Bounds, MigrateError> {
        let ids: BTreeSet<u64> = batch.ops.iter().map(|op| op.replica).collect();
        let (mut bounds, mut stand) = (Bounds::new(), BTreeMap::new());
        for id in ids.into_iter().filter(|&id| self.stage(id) != Stage::Switched) {
            let (held, waiting) = (self.bounds(id)?, self.waiting.get(&id).copied());
            bounds.insert(id, held);
            stand.insert(id, Stands { waiting, ..Stands::new(id, held) });
        }
        for op in &batch.ops {
            stand.get_mut(&op.replica).map_or(Ok(()), |stands| stands.go(op.what))?;
        }
        Ok(bounds)
    }

    /// Puts mirrored replicas in doubt whose copy ends before the old log does (for whatever reason: it would refuse what the old log takes), or
    /// that the old log no longer has.
    pub(super) fn compare_ends(&mut self, bounds: &Bounds) {
        for (&replica, held) in bounds {
            if self.stage(replica) != Stage::Mirrored || self.doubtful.contains(&replica) {
                continue;
            }
            let new = self.new.replica(replica).last_index();
            let what = match *held {
                None => Differs::Gone,
                Some((_, old)) if old > new => Differs::Last { old, new },
                Some(_) => continue,
            };
            self.doubtful.insert(replica);
            self.report(vec![Difference { replica, what }]);
        }
    }
}
