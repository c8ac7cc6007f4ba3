//! The work, with every size filled in.

use strandlog::Error;

use crate::args::{Bench, Workload};
use crate::failure::{Failure, Result};
use crate::size::{count, human};

/// Entries that a replica gets at a time in the churn.
pub const RUN: u64 = 8;
/// Bytes of a term, a vote and a commit index.
pub const STATE_BYTES: usize = 24;
const LEAST_CAPACITY: u64 = 512 << 20;
/// A chunk, as logs have them by default.
const CHUNK_BYTES: u64 = 64 << 10;
/// Of the file that the user gave a size: a replica has a chunk or two, and the next one reserved, and half of the file is for the journal.
/// With half as many for each, one run in twenty found a log of 16 MiB full.
const CHUNKS_A_REPLICA: u64 = 8;
/// Where a replica is truncated once it holds so many bytes, or so many entries.
const KEEP_BYTES: u64 = 128 << 10;
const KEEP_ENTRIES: std::ops::RangeInclusive<u64> = 4..=256;

/// The work.
#[derive(Clone, Debug)]
pub struct Plan {
    pub workload: Workload,
    pub threads: u64,
    pub replicas: u64,
    pub entry_bytes: usize,
    /// Replicas a commit.
    pub together: u64,
    pub window: u64,
    /// Entries after which a replica is truncated to the half.
    pub keep: u64,
    pub capacity: u64,
}

impl Plan {
    /// Fills in what was not given.
    pub fn of(args: &Bench) -> Result<Self> {
        let workload = args.workload;
        let threads = match workload {
            Workload::Window => 1,
            Workload::Batch => args.threads.unwrap_or(2),
            _ => args.threads.unwrap_or(32),
        };
        let many = if matches!(workload, Workload::Churn | Workload::State) { 10_000 } else { 1_000 };
        let bytes = u64::from(args.entry_size);
        if args.entry_size > strandlog::MAX_ENTRY_BYTES {
            return Err(Failure::Request(format!("an entry has at most {}", human(strandlog::MAX_ENTRY_BYTES.into()))));
        }
        // Hard states take no chunks.
        let chunks = args.capacity.filter(|_| workload != Workload::State).map(|bytes| bytes / CHUNK_BYTES);
        let most = chunks.map_or(u64::MAX, |chunks| chunks / CHUNKS_A_REPLICA);
        let together = match workload {
            Workload::Batch => args.batch.unwrap_or((most / threads).clamp(1, 500)),
            Workload::State => args.batch.unwrap_or(1),
            _ => 1,
        };
        // Every thread has replicas of its own: enough for one batch.
        let replicas = args.replicas.unwrap_or(many.min(most)).max(threads * together);
        let keep = KEEP_BYTES.div_ceil(bytes.max(1)).clamp(*KEEP_ENTRIES.start(), *KEEP_ENTRIES.end());
        let live = match workload {
            Workload::State => 0,
            // The tails, and those that lag behind.
            Workload::Churn => replicas.saturating_mul(40).saturating_add(replicas / 100 * LAG).saturating_mul(bytes),
            _ => replicas.saturating_mul(keep).saturating_mul(bytes),
        };
        let capacity = args.capacity.unwrap_or(live.saturating_mul(2).max(LEAST_CAPACITY).next_multiple_of(1 << 20));
        // In a log that was given a size what is alive takes a quarter of it, or the shortest tails there are.
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

    /// What went wrong, with what to do about it.
    pub fn failure(&self, error: Error) -> Failure {
        match error {
            Error::Full(_) => Failure::Request(format!(
                "{error}\nthe log of {} is too small for this work: give it more with --capacity, or fewer --replicas",
                human(self.capacity)
            )),
            other => other.into(),
        }
    }

    /// What is counted.
    pub fn unit(&self) -> &'static str {
        if self.workload == Workload::State { "updates" } else { "entries" }
    }

    /// The work in a line.
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

/// Entries after which even a laggard of the churn is truncated: a log without end has no measurement.
pub const LAG: u64 = 20_000;
