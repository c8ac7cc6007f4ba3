//! What is told where the log is full: how much is lacking, and who holds most.

use std::time::{Duration, Instant};

use super::Engine;
use super::admit::NoRoom;
use super::plan::Plan;
use super::relief::Lack;
use crate::error::{Error, FullReport};
use crate::events::Event;
use crate::index::ReplicaState;

/// How many holders are told.
const TOLD: usize = 5;
/// The holders found are told again for this many times as long as it took to find them: a log that refuses thousands of appends a second
/// must not look at all replicas for each.
const TOLD_AGAIN: u32 = 20;

/// Who held most when that was last looked for: of the log's space, and of what is carried.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    space: Known,
    carried: Known,
}

#[derive(Debug, Default)]
struct Known {
    /// Replicas, and their bytes.
    all: Vec<(u64, u64)>,
    good_until: Option<Instant>,
}

impl Known {
    /// The holders that are known, unless that is too long ago; else those that `find` finds.
    fn known_or(&mut self, find: impl FnOnce() -> Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        let begun = Instant::now();
        if self.good_until.is_none_or(|end| begun >= end) {
            self.all = find();
            self.good_until = begun.checked_add(Self::kept(begun.elapsed()));
        }
        self.all.clone()
    }

    /// For how long holders are told again that took this long to find.
    fn kept(took: Duration) -> Duration {
        took.saturating_mul(TOLD_AGAIN)
    }
}

impl Engine {
    /// The error for a full log: says who holds most, now or a moment ago.
    pub(super) fn full(&self, plan: &Plan, why: NoRoom) -> Error {
        let chunk = u64::from(self.geo.chunk_bytes);
        let (free, pending) = {
            let pool = self.pool.lock();
            (pool.free() * chunk, pool.pending() * chunk)
        };
        let reserved = self.seq.lock().accounts.reserved() * chunk;
        let reserved = reserved + self.kept_for_values(reserved / chunk, free / chunk) * chunk;
        // As it was counted: entries in the journal take more when they are moved than their length, and chunks are taken whole.
        let needed = match why.lack {
            Lack::Chunks(chunks) => chunks.saturating_sub(why.kept) * chunk,
            Lack::Carried(_) => plan.bytes(),
        };
        // Callers that come meanwhile wait for what this one finds, rather than looking, too.
        let metadata = why.lack.is_metadata();
        let holders = {
            let mut holders = self.holders.lock();
            let known = if metadata { &mut holders.carried } else { &mut holders.space };
            known.known_or(|| self.who_holds_most(if metadata { |s| s.charge.carried } else { |s| s.usage().bytes() }))
        };
        let report = Box::new(FullReport { needed, free, reserved, pending, metadata, holders });
        self.events.tell(|| Event::Full(report.clone()));
        Error::Full(report)
    }

    /// Chunks that appends leave for a large value, as far as there are any among the `free` ones beside those `reserved`.
    pub(crate) fn kept_for_values(&self, reserved: u64, free: u64) -> u64 {
        self.value_reserve.min(free.saturating_sub(reserved))
    }

    fn who_holds_most(&self, bytes: fn(&ReplicaState) -> u64) -> Vec<(u64, u64)> {
        let all = self.registry.all();
        let mut holders: Vec<(u64, u64)> =
            all.iter().map(|cell| (cell.id, bytes(&cell.lock()))).filter(|&(_, bytes)| bytes > 0).collect();
        holders.sort_unstable_by_key(|&(id, bytes)| (std::cmp::Reverse(bytes), id));
        holders.truncate(TOLD);
        holders
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_is_looked_for_anew_when_what_was_found_is_old() {
        let mut holders = Known::default();
        let mut looked = 0;
        let mut tell = |holders: &mut Known, bytes, takes| {
            let told = holders.known_or(|| {
                looked += 1;
                std::thread::sleep(takes);
                vec![(1, bytes)]
            });
            (told, looked)
        };
        let long = Duration::from_millis(20);
        assert_eq!(tell(&mut holders, 10, long), (vec![(1, 10)], 1));
        assert!(Known::kept(long) > 2 * long, "for a multiple of that");
        // However slow this machine is just now.
        holders.good_until = Instant::now().checked_add(Duration::from_secs(3600));
        for _ in 0..1000 {
            assert_eq!(tell(&mut holders, 11, long), (vec![(1, 10)], 1), "told again");
        }
        holders.good_until = Some(Instant::now());
        assert_eq!(tell(&mut holders, 12, Duration::ZERO), (vec![(1, 12)], 2));
    }
}
