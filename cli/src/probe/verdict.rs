//! What the figures mean for a log.

use strandlog::disk::SyncMethod;

use super::measure::{Evidence, Measured, SCATTERED};
use crate::measure::micros;

/// Another method must be half as fast again to be preferred, as in the log itself, because small writes do not show everything.
const CLEARLY: f64 = 1.5;
/// The quantile that stands for undisturbed writes: a disturbance only makes a write longer.
const UNDISTURBED: f64 = 0.1;
/// If the p99 is more than this many times the undisturbed latency, something else is going on.
const BUSY: f64 = 20.0;
/// Two writes at once are a gain only if they get at least this many times as much done as one.
const WORTH_TWO: f64 = 1.15;
/// A device that makes a block durable faster than this has memory that survives a power cut, or lies.
const TOO_FAST_MICROS: f64 = 20.0;
/// If scattered blocks cost at most this many times one piece, writing straight into chains is reasonable.
const CHEAP_SCATTER: f64 = 3.0;

/// The recommendation.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub method: Option<SyncMethod>,
    pub words: Vec<String>,
}

/// Weighs the evidence.
pub fn weigh(evidence: &Evidence) -> Verdict {
    let small = |m: &Measured| m.alone.first().map_or(f64::MAX, |f| f.latencies.quantile(UNDISTURBED));
    // The methods are in order of preference: a direct write is not copied, and a ranged sync does not wait for what others wrote.
    let best = evidence.methods.iter().reduce(|best, m| if small(m) * CLEARLY < small(best) { m } else { best });
    let Some(best) = best else {
        return Verdict {
            method: None,
            words: vec!["no method works here: a log cannot be kept in this directory".into()],
        };
    };
    let mut words = vec![choice(evidence, best, small)];
    if evidence.chosen != best.method {
        words.push(format!(
            "Opened here just now, the log itself chose {}: the two are close, or the machine is busy. `Options::sync_method` fixes it.",
            evidence.chosen
        ));
    }
    if let (Some(one), Some(two)) = (best.alone.first(), best.two.first()) {
        words.push(in_flight(best.method, two.per_second() / one.per_second().max(f64::MIN_POSITIVE)));
    }
    words.push(scatter(best));
    if small(best) < TOO_FAST_MICROS {
        words.push(format!(
            "{} a block is too fast for a disk: this is memory, a cache that survives power cuts, or a device that does not do what it says.",
            micros(small(best))
        ));
    }
    let slowest = best.alone.first().map_or(0.0, |f| f.latencies.quantile(0.99));
    if slowest > BUSY * small(best) {
        words.push(format!(
            "This machine is busy: one write in a hundred took {:.0} times as long as it must. Measure again when it is quiet.",
            slowest / small(best)
        ));
    }
    Verdict { method: Some(best.method), words }
}

fn choice(evidence: &Evidence, best: &Measured, small: impl Fn(&Measured) -> f64) -> String {
    let others: Vec<String> = evidence
        .methods
        .iter()
        .filter(|m| m.method != best.method)
        .map(|m| format!("{} {}", m.method, micros(small(m))))
        .collect();
    let against = if others.is_empty() {
        "the only one that works here".into()
    } else {
        format!("against {}", others.join(", "))
    };
    format!(
        "Use {}: {} for a durable block of 4 KiB when nothing disturbs it, {against}.",
        best.method,
        micros(small(best))
    )
}

fn in_flight(method: SyncMethod, gain: f64) -> String {
    let used = method == SyncMethod::DirectDsync;
    match (gain >= WORTH_TWO, used) {
        (true, true) => format!("Two writes in flight get {gain:.1} times as much done as one; the log uses that."),
        (true, false) => format!(
            "Two writes in flight get {gain:.1} times as much done as one; the log uses that with {} only.",
            SyncMethod::DirectDsync
        ),
        (false, _) => {
            format!("Two writes in flight get {gain:.1} times as much done as one: this device takes one at a time.")
        }
    }
}

fn scatter(best: &Measured) -> String {
    let (apart, one) = (best.scattered.latencies.quantile(UNDISTURBED), best.together.latencies.quantile(UNDISTURBED));
    let factor = apart / one.max(f64::MIN_POSITIVE);
    let cost =
        format!("{SCATTERED} scattered blocks cost {}, {factor:.1} times as much as in one piece", micros(apart));
    if factor <= CHEAP_SCATTER {
        format!("{cost}: cheap. `Placement::Chain` may serve large entries of few replicas; measure it.")
    } else {
        format!("{cost}: keep `Placement::Auto`, which writes commits in one piece.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Latencies;
    use crate::probe::measure::{Figure, SIZES, SIZES_BY_TWO};
    use std::time::Duration;

    /// A hundred writes of this many microseconds.
    fn figure(micros: u64) -> Figure {
        let mut latencies = Latencies::new();
        (0..100).for_each(|_| latencies.add_micros(micros));
        Figure { latencies, spent: Duration::from_micros(100 * micros) }
    }

    fn measured(method: SyncMethod, one: u64, two: u64, scattered: u64) -> Measured {
        Measured {
            method,
            alone: vec![figure(one); SIZES.len()],
            two: vec![figure(two); SIZES_BY_TWO],
            scattered: figure(scattered),
            together: figure(100),
        }
    }

    fn words(methods: Vec<Measured>) -> (Option<SyncMethod>, String) {
        let chosen = methods.first().map_or(SyncMethod::Auto, |m| m.method);
        let verdict = weigh(&Evidence { methods, chosen, bytes: 1 << 20 });
        (verdict.method, verdict.words.join("\n"))
    }

    #[test]
    fn the_preferred_method_stays_unless_another_is_clearly_faster() {
        for (direct, sync, expected) in
            [(100, 67, SyncMethod::DirectDsync), (100, 66, SyncMethod::Fdatasync), (50, 90, SyncMethod::DirectDsync)]
        {
            let of = |method, micros| measured(method, micros, micros, 1000);
            let (method, words) = words(vec![of(SyncMethod::DirectDsync, direct), of(SyncMethod::Fdatasync, sync)]);
            assert_eq!(method, Some(expected), "{words}");
            assert!(words.starts_with(&format!("Use {expected}: ")) && !words.contains("This machine"), "{words}");
        }
        assert_eq!(words(vec![]).0, None);
    }

    #[test]
    fn what_the_device_does_is_said() {
        let (_, said) = words(vec![measured(SyncMethod::DirectDsync, 90, 60, 1000)]);
        assert!(said.contains("1.5 times as much done") && said.contains("`Placement::Auto`"), "{said}");
        let (_, said) = words(vec![measured(SyncMethod::Fdatasync, 5, 5, 200)]);
        assert!(said.contains("one at a time") && said.contains("cheap") && said.contains("too fast"), "{said}");
    }
}
