//! Metrics through the facade of the [`metrics`](https://docs.rs/metrics) crate: feature `metrics`.
//!
//! ```
//! use std::sync::Arc;
//! use strandlog::Wal;
//! use strandlog::metrics::Metrics;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! // Install a recorder of the `metrics` crate first; without one everything here does nothing.
//! let metrics = Arc::new(Metrics::new("raft"));
//! let wal = Wal::options().capacity(64 << 20).listener(metrics.clone()).open(dir.path().join("raft.log"))?;
//! // Now and then, or when somebody asks for the figures:
//! metrics.observe(&wal.stats());
//! # Ok(())
//! # }
//! ```
//!
//! All names follow; each metric has the label `log`. Those marked *as it happens* are recorded by the listener, all others by
//! [`Metrics::observe`].
//!
//! | name | kind | what |
//! |---|---|---|
//! | `strandlog_commit_seconds` | histogram | from the first batch that somebody waits for until the frame was durable; as it happens |
//! | `strandlog_device_seconds` | histogram | the frame's write and sync; as it happens |
//! | `strandlog_commit_batches` | histogram | batches of a frame: what one sync carried; as it happens |
//! | `strandlog_slow_commits_total` | counter | slow commits, label `reason`: `device`, `queue`, `cleaner`; as it happens |
//! | `strandlog_refused_full_total` | counter | batches refused because the log was full; as it happens |
//! | `strandlog_damage_total` | counter | pieces of damage found; as it happens |
//! | `strandlog_poisoned` | gauge | 1 after a write or sync has failed, or the file was lost; as it happens |
//! | `strandlog_file_lost` | gauge | 1 after the file was cut, removed or replaced: a log that must not be opened anew; as it happens |
//! | `strandlog_space_low` | gauge | 1 while space is low; as it happens |
//! | `strandlog_recovery_seconds` | gauge | how long the opening took; as it happens |
//! | `strandlog_batches_total` | counter | batches made durable |
//! | `strandlog_entries_total` | counter | entries made durable |
//! | `strandlog_user_bytes_total` | counter | bytes that callers gave |
//! | `strandlog_frames_total` | counter | group commits |
//! | `strandlog_journal_bytes_total` | counter | bytes written to the journal |
//! | `strandlog_placed_bytes_total` | counter | bytes written straight into chains |
//! | `strandlog_settled_bytes_total` | counter | bytes that the cleaner moved into chains |
//! | `strandlog_carried_bytes_total` | counter | bytes that the cleaner copied forward in the journal |
//! | `strandlog_segments_cleaned_total` | counter | journal segments cleaned |
//! | `strandlog_stalls_total` | counter | times that a submit waited for the queue or for the cleaner |
//! | `strandlog_replicas` | gauge | replicas that exist |
//! | `strandlog_held_truncations` | gauge | replicas whose truncation waits for their state machine |
//! | `strandlog_capacity_bytes` | gauge | size of the log |
//! | `strandlog_free_bytes` | gauge | in free chunks, reserved ones among them |
//! | `strandlog_reserved_bytes` | gauge | free, but held back for what is in the journal, and for large values |
//! | `strandlog_used_bytes` | gauge | in chunks that hold pieces |
//! | `strandlog_pinned_bytes` | gauge | free, except for a reader's pin |
//! | `strandlog_journal_bytes` | gauge | size of the journal |
//! | `strandlog_journal_free_bytes` | gauge | of these, in free segments |
//! | `strandlog_queued_bytes` | gauge | waiting for the writer |
//! | `strandlog_recent_bytes` | gauge | recent frames in memory |

use metrics::{Counter, Gauge, Histogram, Unit};

use crate::events::{Event, Listener, SlowReason};
use crate::stats::Stats;

macro_rules! from_stats {
    ($name:ident: $($field:ident $kind:ident $metric:literal $unit:ident $what:literal = $value:expr;)*) => {
        /// The figures of [`Stats`], as metrics.
        struct Figures { $($field: from_stats!(@type $kind)),* }

        impl Figures {
            fn new($name: &str) -> Self {
                Self { $($field: {
                    from_stats!(@describe $kind $metric $unit $what);
                    from_stats!(@new $kind $metric $name)
                }),* }
            }

            fn observe(&self, stats: &Stats) {
                $({
                    let value: fn(&Stats) -> u64 = $value;
                    from_stats!(@set $kind self.$field, value(stats));
                })*
            }
        }
    };
    (@type counter) => { Counter };
    (@type gauge) => { Gauge };
    (@describe counter $metric:literal $unit:ident $what:literal) => {
        metrics::describe_counter!($metric, Unit::$unit, $what)
    };
    (@describe gauge $metric:literal $unit:ident $what:literal) => {
        metrics::describe_gauge!($metric, Unit::$unit, $what)
    };
    (@new counter $metric:literal $name:ident) => { metrics::counter!($metric, "log" => $name.to_owned()) };
    (@new gauge $metric:literal $name:ident) => { metrics::gauge!($metric, "log" => $name.to_owned()) };
    (@set counter $handle:expr, $value:expr) => { $handle.absolute($value) };
    (@set gauge $handle:expr, $value:expr) => { $handle.set($value as f64) };
}

from_stats! { log:
    batches counter "strandlog_batches_total" Count "batches made durable" = |s| s.batches;
    entries counter "strandlog_entries_total" Count "entries made durable" = |s| s.entries;
    user_bytes counter "strandlog_user_bytes_total" Bytes "bytes that callers gave" = |s| s.user_bytes;
    frames counter "strandlog_frames_total" Count "group commits" = |s| s.frames;
    journal_written counter "strandlog_journal_bytes_total" Bytes "bytes written to the journal" = |s| s.journal_bytes;
    placed counter "strandlog_placed_bytes_total" Bytes "bytes written straight into chains" = |s| s.placed_bytes;
    settled counter "strandlog_settled_bytes_total" Bytes "bytes that the cleaner moved into chains" = |s| s.settled_bytes;
    carried counter "strandlog_carried_bytes_total" Bytes "bytes that the cleaner copied forward" = |s| s.carried_bytes;
    cleaned counter "strandlog_segments_cleaned_total" Count "journal segments cleaned" = |s| s.segments_cleaned;
    stalls counter "strandlog_stalls_total" Count "times that a submit waited" = |s| s.stalls;
    replicas gauge "strandlog_replicas" Count "replicas that exist" = |s| s.replicas;
    held gauge "strandlog_held_truncations" Count "replicas whose truncation waits" = |s| s.held_truncations;
    capacity gauge "strandlog_capacity_bytes" Bytes "size of the log" = |s| s.capacity;
    free gauge "strandlog_free_bytes" Bytes "in free chunks" = |s| s.free_chunks.saturating_mul(s.chunk_size);
    reserved gauge "strandlog_reserved_bytes" Bytes "free, but held back from appends" = |s| s.reserved_chunks.saturating_mul(s.chunk_size);
    used gauge "strandlog_used_bytes" Bytes "in chunks that hold pieces" = |s| s.used_chunks.saturating_mul(s.chunk_size);
    pinned gauge "strandlog_pinned_bytes" Bytes "free but for a reader's pin" = |s| s.pinned_chunks.saturating_mul(s.chunk_size);
    journal gauge "strandlog_journal_bytes" Bytes "size of the journal" = |s| s.journal_segments.saturating_mul(s.segment_size);
    journal_free gauge "strandlog_journal_free_bytes" Bytes "in free segments" = |s| s.free_segments.saturating_mul(s.segment_size);
    queued gauge "strandlog_queued_bytes" Bytes "waiting for the writer" = |s| s.queued_bytes;
    recent gauge "strandlog_recent_bytes" Bytes "recent frames in memory" = |s| s.recent_bytes;
}

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// Feeds the metrics of one log: as a [`Listener`] for [`Options::listener`](crate::Options::listener), and by [`Metrics::observe`].
pub struct Metrics {
    commit: Histogram,
    device: Histogram,
    batches: Histogram,
    slow: [Counter; 3],
    full: Counter,
    damage: Counter,
    poisoned: Gauge,
    file_lost: Gauge,
    space_low: Gauge,
    recovery: Gauge,
    figures: Figures,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every metric with the installed recorder; `log` is the value of the label `log`.
    pub fn new(log: &str) -> Self {
        use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
        let label = || log.to_owned();
        describe_histogram!("strandlog_commit_seconds", Unit::Seconds, "until a frame was durable");
        describe_histogram!("strandlog_device_seconds", Unit::Seconds, "a frame's write and sync");
        describe_histogram!("strandlog_commit_batches", Unit::Count, "batches of a frame");
        describe_counter!("strandlog_slow_commits_total", Unit::Count, "slow commits");
        describe_counter!("strandlog_refused_full_total", Unit::Count, "batches refused because the log was full");
        describe_counter!("strandlog_damage_total", Unit::Count, "pieces of damage found");
        describe_gauge!("strandlog_poisoned", Unit::Count, "1 after a write or sync has failed, or the file was lost");
        describe_gauge!("strandlog_file_lost", Unit::Count, "1 after the file was cut, removed or replaced");
        describe_gauge!("strandlog_space_low", Unit::Count, "1 while space is low");
        describe_gauge!("strandlog_recovery_seconds", Unit::Seconds, "how long the opening took");
        let slow =
            |reason: &'static str| counter!("strandlog_slow_commits_total", "log" => label(), "reason" => reason);
        Self {
            commit: histogram!("strandlog_commit_seconds", "log" => label()),
            device: histogram!("strandlog_device_seconds", "log" => label()),
            batches: histogram!("strandlog_commit_batches", "log" => label()),
            slow: ["device", "queue", "cleaner"].map(slow),
            full: counter!("strandlog_refused_full_total", "log" => label()),
            damage: counter!("strandlog_damage_total", "log" => label()),
            poisoned: gauge!("strandlog_poisoned", "log" => label()),
            file_lost: gauge!("strandlog_file_lost", "log" => label()),
            space_low: gauge!("strandlog_space_low", "log" => label()),
            recovery: gauge!("strandlog_recovery_seconds", "log" => label()),
            figures: Figures::new(log),
        }
    }

    /// Publishes the figures: call it now and then, or when somebody asks for them.
    pub fn observe(&self, stats: &Stats) {
        self.figures.observe(stats);
    }
}

impl Listener for Metrics {
    fn event(&self, event: &Event) {
        match event {
            Event::Committed(commit) => {
                self.commit.record(commit.micros() as f64 / MICROS);
                self.device.record(commit.device_micros as f64 / MICROS);
                self.batches.record(commit.batches as f64);
            }
            Event::SlowCommit { reason, .. } => {
                let [device, queue, cleaner] = &self.slow;
                match reason {
                    SlowReason::Device => device,
                    SlowReason::Queue => queue,
                    SlowReason::Cleaner => cleaner,
                }
                .increment(1);
            }
            Event::SpaceLow(_) => self.space_low.set(1.0),
            Event::SpaceRecovered(_) => self.space_low.set(0.0),
            Event::Full(_) => self.full.increment(1),
            Event::Damaged(_) => self.damage.increment(1),
            Event::Poisoned { .. } => self.poisoned.set(1.0),
            Event::FileLost { .. } => {
                self.poisoned.set(1.0);
                self.file_lost.set(1.0);
            }
            Event::Recovered(found) => {
                self.recovery.set(found.micros as f64 / MICROS);
                self.poisoned.set(0.0);
                self.file_lost.set(0.0);
                self.space_low.set(0.0);
            }
            Event::SegmentsFreed { .. } | Event::JournalGrown { .. } | Event::JournalShrunk { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metric names in a text: all begin alike.
    fn names(text: &str) -> std::collections::BTreeSet<&str> {
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = text.split(|c| !word(c)).filter(|w| w.starts_with("strandlog_"));
        words.map(|w| w.strip_suffix("_bucket").unwrap_or(w)).collect()
    }

    /// A recorder that notes what is registered, and nothing else.
    #[derive(Default)]
    struct Names(std::sync::Mutex<std::collections::BTreeSet<String>>);

    impl Names {
        fn note(&self, name: &str) {
            self.0.lock().unwrap().insert(name.to_owned());
        }
    }

    impl metrics::Recorder for Names {
        fn describe_counter(&self, _: metrics::KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn describe_gauge(&self, _: metrics::KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn describe_histogram(&self, _: metrics::KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> Counter {
            self.note(key.name());
            Counter::noop()
        }
        fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> Gauge {
            self.note(key.name());
            Gauge::noop()
        }
        fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> Histogram {
            self.note(key.name());
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_registered_the_table_and_the_dashboard_name_the_same_metrics() {
        let registered = Names::default();
        metrics::with_local_recorder(&registered, || Metrics::new("raft"));
        let registered = registered.0.into_inner().unwrap();
        let registered = registered.iter().map(String::as_str).collect();
        let table: String = include_str!("metrics.rs")
            .lines()
            .filter(|line| line.starts_with("//! | `"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(names(&table), registered);
        assert_eq!(names(include_str!("../examples/grafana.json")), registered);
    }
}
