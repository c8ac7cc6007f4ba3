//! The workload, with all sizes filled in.

use strandlog::Error;

use crate::args::{Bench, Workload};
use crate::failure::{Failure, Result};
use crate::size::{count, human};

/// Entries that a replica gets at a time in the workload `churn`.
pub const RUN: u64 = 8;
/// Bytes of a term, a vote and a commit index.
pub const STATE_BYTES: usize = 24;
const LEAST_CAPACITY: u64 = 512 << 20;
/// The default size of a chunk.
const CHUNK_BYTES: u64 = 64 << 10;
/// Chunks of the file for each replica, if --capacity is given: a replica has a chunk or two and reserves the next one, and half of the file is for
/// the journal. With half as many, one run in twenty found a log of 16 MiB full.
const CHUNKS_A_REPLICA: u64 = 8;
/// Bytes of entries between two truncations of a replica, and the range of their number.
const KEEP_BYTES: u64 = 128 << 10;
const KEEP_ENTRIES: std::ops::RangeInclusive<u64> = 4..=256;

/// The work.
#[derive(Clone, Debug)]
pub struct Plan {
    pub workload: Workload,
    pub threads: u64,
    pub replicas: u64,
    pub entry_bytes: usize,
    /// Replicas per commit.
    pub together: u64,
    pub window: u64,
    /// After every `keep` entries, a replica is truncated to the newest half of them.
    pub keep: u64,
    pub capacity: u64,
}

impl Plan {
    /// Fills in what was not given.
    pub fn of(args: &Bench) -> Result<Self> {
        let workload = args.workload;
        let many = if matches!(workload, Workload::Churn | Workload::State) { 10_000 } else { 1_000 };
        let bytes = u64::from(args.entry_size);
        if args.entry_size > strandlog::MAX_ENTRY_BYTES {
            return Err(Failure::Request(format!("an entry has at most {}", human(strandlog::MAX_ENTRY_BYTES.into()))));
        }
        // Hard states take no chunks.
        let chunks = args.capacity.filter(|_| workload != Workload::State).map(|bytes| bytes / CHUNK_BYTES);
        let most = chunks.map_or(u64::MAX, |chunks| chunks / CHUNKS_A_REPLICA);
        let asked = args.replicas.unwrap_or(u64::MAX);
        let threads = threads(args, asked);
        let together = match workload {
            Workload::Batch => args.batch.unwrap_or((most.min(asked) / threads).clamp(1, 500)),
            Workload::State => args.batch.unwrap_or(1),
            _ => 1,
        };
        // Every thread needs replicas of its own: enough for one batch.
        let least = threads * together;
        if asked < least {
            return Err(too_few(threads, together, asked));
        }
        let replicas = args.replicas.unwrap_or(many.min(most).max(least));
        let keep = KEEP_BYTES.div_ceil(bytes.max(1)).clamp(*KEEP_ENTRIES.start(), *KEEP_ENTRIES.end());
        let live = match workload {
            Workload::State => 0,
            // The short tails, and the replicas that lag.
            Workload::Churn => replicas.saturating_mul(40).saturating_add(replicas / 100 * LAG).saturating_mul(bytes),
            _ => replicas.saturating_mul(keep).saturating_mul(bytes),
        };
        let capacity = args.capacity.unwrap_or(live.saturating_mul(2).max(LEAST_CAPACITY).next_multiple_of(1 << 20));
        // What is alive takes at most a quarter of a log whose size was given, unless even the shortest tails take more.
        let fits = capacity / 4 / replicas.saturating_mul(bytes).max(1);
        let keep = keep.min(fits.max(*KEEP_ENTRIES.start()));
        let plan = Self {
            workload,
            threads,
            replicas,
            entry_bytes: args.entry_size as usize,
            together,
            window: args.window,
            keep,
            capacity,
        };
        Ok(plan)
    }

    /// The error, with advice on what to do about it.
    pub fn failure(&self, error: Error) -> Failure {
        match error {
            Error::Full(_) => {
                // The threads' batches need all replicas: with fewer, --batch must be smaller, too.
                let tight = self.together > 1 && self.replicas == self.threads * self.together;
                let less = if tight { "a smaller --batch and fewer --replicas" } else { "fewer --replicas" };
                Failure::Request(format!(
                    "{error}\nthe log of {} is too small for this work: give it more with --capacity, or {less}",
                    human(self.capacity)
                ))
            }
            other => other.into(),
        }
    }

    /// The name of what is counted.
    pub fn unit(&self) -> &'static str {
        if self.workload == Workload::State { "updates" } else { "entries" }
    }

    /// The workload in one line.
    pub fn words(&self) -> String {
        let threads = match self.threads {
            1 => "1 thread".to_owned(),
            n => format!("{} threads", count(n)),
        };
        let (replicas, bytes) = (count(self.replicas), human(self.entry_bytes as u64));
        match self.workload {
            Workload::Append => format!("append: {threads}, one entry of {bytes} a commit, {replicas} replicas"),
            Workload::Batch => {
                format!(
                    "batch: {threads}, an entry of {bytes} for each of {} replicas a commit, {replicas} replicas",
                    count(self.together)
                )
            }
            Workload::Churn => format!(
                "churn: {threads}, {RUN} entries of {bytes} a commit, {replicas} replicas, one in a hundred lags"
            ),
            Workload::State => {
                format!(
                    "state: {threads}, {STATE_BYTES} bytes for each of {} replicas a commit, {replicas} replicas",
                    count(self.together)
                )
            }
            Workload::Window => {
                format!("window: 1 thread, {} appends of {bytes} outstanding, {replicas} replicas", count(self.window))
            }
        }
    }
}

/// The number of threads asked for; or else the usual one, but no more than can have a batch of these replicas each.
fn threads(args: &Bench, replicas: u64) -> u64 {
    let usual = match args.workload {
        Workload::Window => return 1,
        Workload::Batch => 2,
        _ => 32,
    };
    let together = match args.workload {
        Workload::Batch | Workload::State => args.batch.unwrap_or(1),
        _ => 1,
    };
    args.threads.unwrap_or((replicas / together.max(1)).clamp(1, usual))
}

/// Refuses too few replicas: running with more of them than were asked for would be another workload.
fn too_few(threads: u64, together: u64, replicas: u64) -> Failure {
    let who = match (threads, together) {
        (1, together) => format!("--batch {together} takes"),
        (threads, 1) => format!("{threads} threads take"),
        (threads, together) => format!("{threads} threads with --batch {together} take"),
    };
    let least = threads * together;
    Failure::Request(format!(
        "{who} {least} replicas, and --replicas gives {replicas}: give more of them, or ask for less at a time"
    ))
}

/// Entries after which even a lagging replica of `churn` is truncated: nothing can be measured on a log that only grows.
pub const LAG: u64 = 20_000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn plan(more: &[&str]) -> Result<Plan> {
        let args = Args::parse_from([&["strandlog", "bench", ".", "--workload"][..], more].concat());
        let Command::Bench(bench) = args.command else { panic!("{more:?}") };
        Plan::of(&bench)
    }

    #[test]
    fn nothing_runs_on_more_replicas_than_were_asked_for() {
        for (more, threads, together, replicas) in [
            (&["batch"][..], 2, 500, 1000),
            (&["batch", "--batch", "1000"], 2, 1000, 2000),
            (&["batch", "--replicas", "100"], 2, 50, 100),
            (&["batch", "--replicas", "100", "--batch", "100"], 1, 100, 100),
            (&["batch", "--replicas", "1"], 1, 1, 1),
            (&["state", "--replicas", "45", "--batch", "10"], 4, 10, 45),
            (&["append", "--replicas", "3"], 3, 1, 3),
            (&["append", "--capacity", "16M"], 32, 1, 32),
            (&["window", "--replicas", "3", "--threads", "9"], 1, 1, 3),
        ] {
            let plan = plan(more).unwrap();
            assert_eq!((plan.threads, plan.together, plan.replicas), (threads, together, replicas), "{more:?}");
        }
        let refused = plan(&["batch", "--replicas", "199", "--batch", "100", "--threads", "2"]).unwrap_err();
        assert!(refused.to_string().starts_with("2 threads with --batch 100 take 200 replicas"), "{refused}");
    }

    #[test]
    fn a_full_log_advises_what_would_help() {
        for (more, advice) in [
            (&["batch", "--replicas", "100"][..], "a smaller --batch and fewer"),
            (&["batch", "--replicas", "101", "--batch", "50"], "--capacity, or fewer"),
            (&["append"], "--capacity, or fewer"),
        ] {
            let failure = plan(more).unwrap().failure(Error::Full(Box::default()));
            assert!(failure.to_string().contains(advice), "{more:?}: {failure}");
        }
    }
}
