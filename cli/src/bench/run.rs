//! One measurement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use strandlog::disk::{FileDisk, OpenMode};
use strandlog::{Error, Stats, Wal};

use super::disk::{NotedDisk, Notes};
use super::plan::Plan;
use super::work::{Done, Payload, Slot, Work};
use crate::failure::{Failure, Result};
use crate::measure::{Latencies, micros};
use crate::scratch::{Interrupt, Scratch};
use crate::size::{count, human};

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(250);

/// What was done between the sample before and this one.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at: f64,
    pub seconds: f64,
    pub items: u64,
    /// Quantiles of the commits in between, in microseconds.
    pub p50: f64,
    pub p99: f64,
    pub stats: Stats,
}

/// All that was measured.
#[derive(Debug)]
pub struct Outcome {
    pub seconds: f64,
    pub items: u64,
    pub latencies: Latencies,
    pub notes: Notes,
    pub samples: Vec<Sample>,
    pub stats: Stats,
    /// Seconds of processor time, of the whole process.
    pub cpu: f64,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.items as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Creates a log in a file of its own, on a disk that records its writes.
pub fn open(file: &Scratch, plan: &Plan, stop: &Interrupt, bar: &ProgressBar) -> Result<(Wal, Arc<NotedDisk>)> {
    let mut progress = |done, total| {
        file.end_if(stop);
        bar.set_length(total);
        bar.set_position(done);
    };
    let mode = OpenMode { read_only: false, mapped: true, ..OpenMode::default() };
    let len = plan.capacity / strandlog::disk::BLOCK as u64 * strandlog::disk::BLOCK as u64;
    let made = FileDisk::create(file.path(), len, mode, &mut progress, |_| Ok(()));
    let disk = Arc::new(NotedDisk::new(made.map_err(|e| Failure::Request(e.to_string()))?));
    let wal = Wal::options().capacity(plan.capacity).open_disk(Arc::clone(&disk) as Arc<_>)?;
    Ok((wal, disk))
}

/// Runs the workload for this many seconds.
pub fn measure(
    wal: &Wal,
    disk: &NotedDisk,
    plan: &Plan,
    time: f64,
    interrupt: &Interrupt,
    bar: &ProgressBar,
) -> Result<Outcome> {
    let payload = Payload::new(plan.entry_bytes);
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(None::<Error>));
    let slots: Vec<Arc<Slot>> = (0..plan.threads).map(|_| Arc::new(Slot::new())).collect();
    let mut all = Done { latencies: Latencies::new(), items: 0 };
    let mut samples = Vec::new();
    let cpu = cpu_seconds();
    let begin = Instant::now();
    bar.set_length((time * 1000.0) as u64);
    let work = Work { wal, plan, payload: &payload, stop: &stop };
    let mut missing = None;
    std::thread::scope(|scope| {
        let (work, failed, stop) = (&work, &failed, &stop);
        for (thread, slot) in (0..).zip(&slots) {
            let started = std::thread::Builder::new().spawn_scoped(scope, move || {
                if let Err(error) = work.run(thread, slot) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            });
            if let Err(error) = started {
                missing =
                    Some(format!("only {thread} threads could be started ({error}); ask for fewer with --threads"));
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        let mut last = begin;
        while !stop.load(Ordering::Relaxed) {
            let left = time - begin.elapsed().as_secs_f64();
            if left <= 0.0 || interrupt.came() {
                stop.store(true, Ordering::Relaxed);
                break;
            }
            std::thread::sleep(SAMPLE.min(Duration::from_secs_f64(left)));
            let sample = sample(wal, &slots, begin, &mut last, &mut all);
            show(&sample, plan, bar);
            samples.push(sample);
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    for slot in &slots {
        slot.drain(&mut all);
    }
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(plan.failure(error));
    }
    if let Some(missing) = missing {
        return Err(Failure::Request(missing));
    }
    let (notes, stats) = (disk.notes(), wal.stats());
    Ok(Outcome { seconds, items: all.items, latencies: all.latencies, notes, samples, stats, cpu: cpu_seconds() - cpu })
}

fn sample(wal: &Wal, slots: &[Arc<Slot>], begin: Instant, last: &mut Instant, all: &mut Done) -> Sample {
    let mut since = Done { latencies: Latencies::new(), items: 0 };
    for slot in slots {
        slot.drain(&mut since);
    }
    let now = Instant::now();
    let seconds = now.duration_since(*last).as_secs_f64();
    *last = now;
    all.latencies.add(&since.latencies);
    all.items += since.items;
    Sample {
        at: now.duration_since(begin).as_secs_f64(),
        seconds,
        items: since.items,
        p50: since.latencies.quantile(0.5),
        p99: since.latencies.quantile(0.99),
        stats: wal.stats(),
    }
}

fn show(sample: &Sample, plan: &Plan, bar: &ProgressBar) {
    let per_second = sample.items as f64 / sample.seconds.max(f64::MIN_POSITIVE);
    let used = sample.stats.used_chunks * sample.stats.chunk_size
        + (sample.stats.journal_segments - sample.stats.free_segments) * sample.stats.segment_size;
    bar.set_position((sample.at * 1000.0) as u64);
    bar.set_message(format!(
        "{:>11} {}/s   p50 {:>8}   p99 {:>8}   {} in use",
        count(per_second as u64),
        plan.unit(),
        micros(sample.p50),
        micros(sample.p99),
        human(used),
    ));
}

/// Seconds of processor time, of all threads; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    /// The system has always reported processor time in hundredths of a second.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields are counted behind the process name, which may hold anything: user and system time are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum();
    ticks / TICKS_A_SECOND
}
