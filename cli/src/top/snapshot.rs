//! The figures that a log publishes, and the rates between two snapshots of them.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::failure::{Failure, Result};

/// The version of the layout that is understood.
const FORMAT: u64 = 1;
/// The most buckets that a latency needs.
const BUCKETS: usize = 64;
/// Figures older than this many publishing intervals are stale.
const STALE: u32 = 4;
/// But never before this age: on a busy machine a thread may not run for a while.
const STALE_AT_LEAST: Duration = Duration::from_secs(3);

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub pid: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub every_ms: u64,
    /// Why the log takes no more batches.
    pub stopped: Option<String>,
    pub sync: String,
    pub damaged: u64,
    pub holders: Vec<Holder>,
    figures: HashMap<String, u64>,
    /// Latencies by name, in buckets: bucket `i` counts what took less than `2^i` microseconds, but not less than half of that.
    histograms: HashMap<String, Vec<u64>>,
}

/// A replica that holds much.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub replica: u64,
    pub first: u64,
    pub last: u64,
    pub journal: u64,
    pub chain: u64,
}

impl Holder {
    pub fn entries(&self) -> u64 {
        self.last.wrapping_add(1).wrapping_sub(self.first)
    }

    pub fn bytes(&self) -> u64 {
        self.journal.saturating_add(self.chain)
    }
}

impl Snapshot {
    /// Parses what was published.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("no published figures ({e})"))?;
        match json["format"].as_u64() {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(format!("published in layout {other}, which this version does not know: use a newer one"));
            }
            None => return Err("no published figures".into()),
        }
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let holder = |h: &Value| Holder {
            replica: number(&h["replica"]),
            first: number(&h["first"]),
            last: number(&h["last"]),
            journal: number(&h["journal_bytes"]),
            chain: number(&h["chain_bytes"]),
        };
        let counts =
            |v: &Value| v.as_array().map(|all| all.iter().take(BUCKETS).map(number).collect()).unwrap_or_default();
        let histograms = json["histograms"].as_object();
        let histograms = histograms.map(|h| h.iter().map(|(name, v)| (name.clone(), counts(v))).collect());
        let figures =
            json["figures"].as_object().map(|f| f.iter().map(|(name, n)| (name.clone(), number(n))).collect());
        Ok(Self {
            pid: u32::try_from(number(&json["pid"])).unwrap_or(0),
            at_ms: number(&json["at_ms"]),
            every_ms: number(&json["every_ms"]),
            stopped: json["stopped"].as_str().map(Into::into),
            sync: json["sync"].as_str().unwrap_or("").into(),
            damaged: number(&json["damaged_replicas"]),
            holders: json["holders"].as_array().map(|all| all.iter().map(holder).collect()).unwrap_or_default(),
            figures: figures.unwrap_or_default(),
            histograms: histograms.unwrap_or_default(),
        })
    }

    /// A figure by its name; 0 if it is not published.
    pub fn get(&self, name: &str) -> u64 {
        self.figures.get(name).copied().unwrap_or(0)
    }

    /// The age of the figures.
    pub fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(self.at_ms))
    }

    /// Why these figures are stale, if they are.
    pub fn stale(&self) -> Option<String> {
        let age = self.age();
        if age < Duration::from_millis(self.every_ms).saturating_mul(STALE).max(STALE_AT_LEAST) {
            return None;
        }
        let alive = Path::new("/proc").join(self.pid.to_string()).exists();
        let who = if alive {
            format!("process {} hangs, or stopped publishing", self.pid)
        } else {
            format!("process {} is gone", self.pid)
        };
        Some(format!("{who}: these figures are {:.0} s old", age.as_secs_f64()))
    }
}

/// Where a log's figures are published by default.
pub fn beside(log: &Path) -> PathBuf {
    let mut path = log.to_owned().into_os_string();
    path.push(".stats");
    path.into()
}

/// Reads the figures. If there are none, the error says what to do.
pub fn read(path: &Path) -> Result<Snapshot> {
    // Reading a pipe that nobody writes to would wait forever.
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return Err(Failure::Request(format!(
            "{} is not a regular file: no process publishes its figures there",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::Request(format!(
            "{} is not there: no process that has the log open publishes its figures. It does with one line, kept for as long as the log is open:\n  \
             let publisher = wal.publish_stats({:?}, Duration::from_millis(500))?;\n\
             (another place: --stats PATH; a log that nobody has open: strandlog info)",
            path.display(),
            path,
        )),
        std::io::ErrorKind::InvalidData => Failure::Request(format!(
            "{} is no text: no process publishes its figures there (--stats names the file of the figures, not the log)",
            path.display()
        )),
        _ => Failure::Request(format!("reading {}: {error}", path.display())),
    })?;
    Snapshot::parse(&text).map_err(|why| Failure::Request(format!("{}: {why}", path.display())))
}

/// The snapshots of the last minutes.
#[derive(Debug, Default)]
pub struct History(VecDeque<Snapshot>);

/// What happened between two snapshots, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub seconds: f64,
    pub batches: f64,
    pub entries: f64,
    pub frames: f64,
    pub user_bytes: f64,
    pub written: f64,
    pub settled: f64,
    pub carried: f64,
    pub segments: f64,
    pub stalls: f64,
}

impl Rates {
    fn between(a: &Snapshot, b: &Snapshot) -> Option<Self> {
        // From another process, or another opening: its counters began anew.
        if b.pid != a.pid || b.at_ms <= a.at_ms || b.get("frames") < a.get("frames") {
            return None;
        }
        let seconds = (b.at_ms - a.at_ms) as f64 / 1e3;
        let rate = |name: &str| b.get(name).saturating_sub(a.get(name)) as f64 / seconds;
        Some(Self {
            seconds,
            batches: rate("batches"),
            entries: rate("entries"),
            frames: rate("frames"),
            user_bytes: rate("user_bytes"),
            written: rate("journal_bytes") + rate("placed_bytes") + rate("settled_bytes"),
            settled: rate("settled_bytes"),
            carried: rate("carried_bytes"),
            segments: rate("segments_cleaned"),
            stalls: rate("stalls"),
        })
    }

    /// Entries per frame, that is per sync.
    pub fn entries_a_frame(&self) -> f64 {
        if self.frames > 0.0 { self.entries / self.frames } else { 0.0 }
    }

    /// Bytes written per byte given.
    pub fn amplification(&self) -> f64 {
        if self.user_bytes > 0.0 { self.written / self.user_bytes } else { 0.0 }
    }
}

impl History {
    /// No more snapshots than this are shown.
    const MOST: usize = 512;

    /// Adds a snapshot, if it is a new one.
    pub fn add(&mut self, snapshot: Snapshot) {
        if self.0.back().is_some_and(|last| last.at_ms == snapshot.at_ms && last.pid == snapshot.pid) {
            return;
        }
        self.0.push_back(snapshot);
        if self.0.len() > Self::MOST {
            self.0.pop_front();
        }
    }

    pub fn last(&self) -> Option<&Snapshot> {
        self.0.back()
    }

    /// The rates, newest first.
    pub fn rates(&self) -> impl Iterator<Item = Rates> + '_ {
        let newer = self.0.iter().rev();
        let older = self.0.iter().rev().skip(1);
        older.zip(newer).map(|(a, b)| Rates::between(a, b).unwrap_or_default())
    }

    /// The latencies of the last seconds; `None` if they are not published.
    pub fn latencies(&self, name: &str) -> Option<Latencies> {
        let (last, counts) = self.0.back().and_then(|s| s.histograms.get(name).map(|h| (s, h)))?;
        let same = |s: &&Snapshot| s.pid == last.pid && last.at_ms.saturating_sub(s.at_ms) <= Latencies::SPAN_MS;
        // The oldest snapshot of the span: what it had counted is older than these seconds.
        let before = self.0.iter().rev().take_while(same).last().and_then(|s| s.histograms.get(name));
        let before = before.filter(|b| b.len() == counts.len() && b.iter().zip(counts).all(|(b, n)| b <= n));
        let of = |i: usize| before.and_then(|b| b.get(i)).copied().unwrap_or(0);
        Some(Latencies(counts.iter().enumerate().map(|(i, n)| n - of(i).min(*n)).collect()))
    }

    /// How fast a replica grows, in bytes per second, over all snapshots that list it.
    pub fn growth(&self, replica: u64) -> Option<f64> {
        let of = |s: &Snapshot| s.holders.iter().find(|h| h.replica == replica).map(|h| (s.at_ms, h.bytes()));
        let (new, old) = (self.0.back().and_then(of)?, self.0.iter().find_map(of)?);
        let seconds = new.0.checked_sub(old.0).filter(|ms| *ms > 0)? as f64 / 1e3;
        Some((new.1 as f64 - old.1 as f64) / seconds)
    }
}

/// Latencies in buckets that double.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// The time span that is shown.
    const SPAN_MS: u64 = 10_000;

    pub fn counts(&self) -> &[u64] {
        &self.0
    }

    /// Microseconds below which this share lies; `None` if there are no latencies, or if the share ends in the last bucket, which has no upper bound.
    pub fn below(&self, share: f64) -> Option<f64> {
        let all = self.0.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let wanted = (all as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        let at = self.0.iter().position(|n| {
            seen = n.saturating_add(seen);
            seen as f64 >= wanted
        })?;
        (at + 1 < self.0.len()).then(|| bound(at))
    }
}

/// Where a bucket ends, in microseconds.
pub fn bound(bucket: usize) -> f64 {
    2_f64.powi(i32::try_from(bucket).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at_ms: u64, entries: u64, frames: u64, bytes: u64) -> Snapshot {
        let text = format!(
            r#"{{"format":1,"pid":7,"at_ms":{at_ms},"every_ms":500,"stopped":null,"sync":"direct+dsync",
            "figures":{{"entries":{entries},"frames":{frames}}},"damaged_replicas":0,
            "holders":[{{"replica":9,"first":1,"last":{entries},"journal_bytes":{bytes},"chain_bytes":0}}]}}"#
        );
        Snapshot::parse(&text).unwrap()
    }

    #[test]
    fn rates_come_from_two_different_moments_of_one_process() {
        let mut history = History::default();
        history.add(snapshot(1000, 10, 1, 100));
        history.add(snapshot(1000, 10, 1, 100));
        assert_eq!(history.rates().count(), 0);
        history.add(snapshot(3000, 210, 5, 500));
        let rates = history.rates().next().unwrap();
        assert_eq!((rates.entries, rates.frames, rates.entries_a_frame()), (100.0, 2.0, 50.0));
        assert_eq!((history.growth(9), history.growth(8)), (Some(200.0), None));
        // Opened again: the earlier counts say nothing.
        history.add(snapshot(4000, 1, 0, 0));
        assert_eq!(history.rates().next().unwrap(), Rates::default());
    }

    #[test]
    fn latencies_are_those_of_the_last_seconds() {
        let at = |at_ms: u64, counts: &str| {
            let text = format!(r#"{{"format":1,"pid":7,"at_ms":{at_ms},"histograms":{{"commit_micros":{counts}}}}}"#);
            Snapshot::parse(&text).unwrap()
        };
        let mut history = History::default();
        assert_eq!(history.latencies("commit_micros"), None);
        history.add(at(1_000, "[9,9,9,9]"));
        history.add(at(20_000, "[9,9,9,9]"));
        history.add(at(22_000, "[9,19,10,9]"));
        let seen = history.latencies("commit_micros").unwrap();
        assert_eq!(seen.counts(), [0, 10, 1, 0]);
        assert_eq!((seen.below(0.5), seen.below(0.99)), (Some(2.0), Some(4.0)));
        assert_eq!(history.latencies("device_micros"), None);
        // The last bucket has no end; another process counts anew.
        history.add(Snapshot { pid: 8, ..at(23_000, "[0,0,0,5]") });
        let seen = history.latencies("commit_micros").unwrap();
        assert_eq!((seen.counts(), seen.below(0.5)), (&[0, 0, 0, 0][..], None));
    }

    #[test]
    fn what_is_old_or_strange_is_called_so() {
        let old = snapshot(1000, 1, 1, 1).stale().unwrap();
        assert!(old.contains("s old"), "{old}");
        for (text, why) in [("", "no published"), ("{}", "no published"), (r#"{"format":9}"#, "layout 9")] {
            let error = Snapshot::parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let empty = Snapshot::parse(r#"{"format":1}"#).unwrap();
        assert_eq!((empty.get("entries"), empty.holders.len()), (0, 0));
    }
}
