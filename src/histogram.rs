//! Latencies in buckets that double: cheap to fill, enough to draw.

use std::sync::atomic::{AtomicU64, Ordering};

/// The last bucket takes everything from 2^22 microseconds (4 seconds) on.
const BUCKETS: usize = 24;

/// A histogram of durations. Bucket `i` counts durations below `2^i` microseconds and not below half of that; the
/// last bucket counts everything longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_micros: u64,
}

impl Histogram {
    /// The counts of all buckets, shortest first.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The upper bound of bucket `i`, exclusive, in microseconds. `None` for the last one, which has no bound.
    pub fn bound_micros(i: usize) -> Option<u64> {
        (i + 1 < BUCKETS).then(|| 1 << i)
    }

    /// The number of durations counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// An upper bound of the given quantile, from 0 to 1: 0.99 for the 99th percentile. `None` if nothing was counted, or if
    /// the quantile is in the last bucket.
    pub fn quantile_micros(&self, part: f64) -> Option<u64> {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|n| {
            seen += n;
            seen as f64 >= wanted
        })?;
        Self::bound_micros(bucket)
    }
}

/// A histogram that is being filled, with the standard library's plain atomics in every build: no other step depends on them.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Buckets {
    pub fn record(&self, micros: u64) {
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(count) = self.counts.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn get(&self) -> Histogram {
        let counts = std::array::from_fn(|i| self.counts.get(i).map_or(0, |n| n.load(Ordering::Relaxed)));
        Histogram { counts, sum_micros: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_its_bucket_and_quantiles_bound_what_they_say() {
        let buckets = Buckets::default();
        assert_eq!(buckets.get().quantile_micros(0.5), None);
        for (micros, bucket) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (90, 7), ((1 << 22) - 1, 22), (1 << 22, 23)] {
            let before = buckets.get();
            buckets.record(micros);
            let after = buckets.get();
            assert_eq!(after.counts()[bucket], before.counts()[bucket] + 1, "{micros}");
            assert_eq!(after.sum_micros(), before.sum_micros() + micros);
            assert!(Histogram::bound_micros(bucket).is_none_or(|bound| micros < bound));
        }
        buckets.record(u64::MAX >> 1);
        let all = buckets.get();
        assert_eq!((all.count(), all.counts()[BUCKETS - 1]), (9, 2));
        assert_eq!(
            (all.quantile_micros(0.0), all.quantile_micros(0.5), all.quantile_micros(1.0)),
            (Some(1), Some(8), None)
        );
    }
}
