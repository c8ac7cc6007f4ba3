//! Latencies: recorded, and shown as quantiles.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longer latencies count as this one.
const LONGEST: Duration = Duration::from_secs(60);
/// Significant digits that are kept: latencies that differ by less than a hundredth count as equal.
const DIGITS: u8 = 2;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Empty.
    pub fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        Self(Histogram::new_with_bounds(1, longest, DIGITS).expect("constant bounds, and they are fine"))
    }

    /// Adds the time since `start`.
    pub fn record(&mut self, start: Instant) {
        self.0.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds a latency in microseconds.
    #[cfg(test)]
    pub fn add_micros(&mut self, micros: u64) {
        self.0.saturating_record(micros * 1000);
    }

    /// Adds all latencies of another.
    pub fn add(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of them does not exceed, in microseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        self.0.value_at_quantile(q) as f64 / 1e3
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// Pairs of microseconds and the share of latencies that are not longer, ascending, for a curve. The share stays below 1: the longest of a
    /// thousand is drawn as if it were the longest of two thousand.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let most = 1.0 - 0.5 / self.count().max(1) as f64;
        self.0.iter_recorded().map(|v| (v.value_iterated_to() as f64 / 1e3, v.quantile().min(most))).collect()
    }
}

/// Microseconds, written for people.
pub fn micros(us: f64) -> String {
    match us {
        us if us < 100.0 => format!("{us:.1} us"),
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}
