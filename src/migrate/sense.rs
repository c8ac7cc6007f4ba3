//! Whether what a batch asks for makes sense where a log stands, as far as indexes go: see `engine/admit.rs`, which decides it for strandlog. Of a
//! replica that is not switched strandlog cannot: its copy may begin later than the old log, and who has none is asked of that log alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Differs, DualWrite, MigrateError, OldLog, Stage};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::operation::What;

/// First and last index of replicas in the old log, where it has them.
pub(super) type Bounds = BTreeMap<u64, Option<(u64, u64)>>;

/// Where a replica stands in the middle of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stands {
    replica: u64,
    bounds: Option<(u64, u64)>,
    /// A truncation waits for a report: the index that was to be the first.
    waiting: Option<u64>,
}

impl Stands {
    pub fn new(replica: u64, bounds: Option<(u64, u64)>) -> Self {
        Self { replica, bounds, waiting: None }
    }

    /// The next operation on it.
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
            // As it will be truncated: what the batch lets go it must not append or cut.
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
    /// Refuses what makes no sense to the old log, before either hears of it. Answers where each of the replicas stands there that are not switched.
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

    /// A copy that ends before the old log does would refuse what that takes, whoever appended there; and of who is gone there is nothing to go on from.
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
