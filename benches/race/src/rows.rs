//! The rows of the race.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use strandlog::Placement;

use crate::payload::Payload;
use crate::raw;
use crate::store::{Part, RaftEngine, Scratch, Store, Strand};

pub struct Context {
    pub dir: PathBuf,
    pub payload: Payload,
    pub time: Duration,
    pub scale: f64,
    pub notes: bool,
}

/// Figures of one run, by name.
type Figures = Vec<(&'static str, f64)>;

pub fn run(ctx: &Context, row: &str, stores: &[String], rounds: usize) {
    let mut all: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
    for round in 0..rounds {
        for name in std::iter::once("raw").chain(stores.iter().map(String::as_str)) {
            let figures = measure(ctx, row, name, round);
            if !figures.is_empty() {
                all.entry(name.to_owned()).or_default().push(figures);
            }
        }
    }
    println!("\n== {row} (median of {rounds}; in brackets least and most)");
    for (name, runs) in &all {
        print!("{name:>8}");
        for (i, (what, _)) in runs[0].iter().enumerate() {
            let mut values: Vec<f64> = runs.iter().map(|r| r[i].1).collect();
            values.sort_by(f64::total_cmp);
            print!("  {what} {:.6} [{:.6} {:.6}]", Short(values[values.len() / 2]), Short(values[0]), Short(values[values.len() - 1]));
        }
        println!();
    }
}

struct Short(f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 >= 1000.0 { write!(f, "{:.0}", self.0) } else { write!(f, "{:.2}", self.0) }
    }
}

fn open(dir: &Path, name: &str, capacity: u64) -> Box<dyn Store> {
    match name {
        "strand" => Strand::open(dir, capacity, Placement::Auto),
        "chain" => Strand::open(dir, capacity, Placement::Chain),
        "engine" => RaftEngine::open(dir, false),
        "tuned" => RaftEngine::open(dir, true),
        _ => panic!("unknown store {name}"),
    }
}

fn measure(ctx: &Context, row: &str, name: &str, _round: usize) -> Figures {
    let dir = ctx.dir.join(format!("{row}-{name}"));
    let raw = name == "raw";
    let figures = match row {
        "single" if raw => latency(&raw::durable_writes(&dir, 4096, ctx.time)),
        "single" => threads(ctx, &dir, name, 1, 256),
        "t16" if !raw => threads(ctx, &dir, name, 16, 256),
        "t64" if !raw => threads(ctx, &dir, name, 64, 256),
        "t256" if !raw => threads(ctx, &dir, name, 256, 256),
        "batch" if !raw => batches(ctx, &dir, name),
        "churn" if raw => latency(&raw::durable_writes(&dir, 65536, ctx.time)),
        "churn" => churn(ctx, &dir, name),
        "read" if !raw => read(ctx, &dir, name),
        _ => Vec::new(),
    };
    if !raw {
        let _ = std::fs::remove_dir_all(&dir);
    }
    figures
}

fn latency(h: &Histogram<u64>) -> Figures {
    let us = |n: u64| n as f64 / 1e3;
    vec![
        ("p50us", us(h.value_at_quantile(0.5))),
        ("p99us", us(h.value_at_quantile(0.99))),
        ("maxus", us(h.max())),
        ("meanus", h.mean() / 1e3),
    ]
}

/// Bytes this process caused to be written, and CPU seconds it used.
fn usage() -> (u64, f64) {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).and_then(|n| n.parse().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum();
    (written, ticks / 100.0)
}

/// So many threads, each appending one entry to one of its replicas and waiting.
fn threads(ctx: &Context, dir: &Path, name: &str, n: usize, len: usize) -> Figures {
    let store = open(dir, name, 512 << 20);
    let stop = AtomicBool::new(false);
    let total = AtomicU64::new(0);
    let (bytes, cpu) = usage();
    let start = Instant::now();
    let mut merged = Histogram::<u64>::new(3).unwrap();
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..n)
            .map(|t| {
                let (store, stop, total, payload) = (&store, &stop, &total, &ctx.payload);
                s.spawn(move || {
                    let mut h = Histogram::<u64>::new(3).unwrap();
                    let mut scratch = Scratch::default();
                    let replicas: Vec<u64> = (0..1000).filter(|r| r % n == t).map(|r| r as u64 + 1).collect();
                    let mut next = vec![1_u64; replicas.len()];
                    let mut i = t as u64 * 1_000_000_007;
                    while !stop.load(Ordering::Relaxed) {
                        let at = i as usize % replicas.len();
                        let entry = [payload.get(i, len)];
                        // Applied a thousand entries later: the log does not grow without end.
                        let truncate = (next[at] % 256 == 0).then(|| next[at] - 128);
                        let part = Part { replica: replicas[at], first: next[at], entries: &entry, truncate };
                        let t = Instant::now();
                        store.commit(&[part], &mut scratch);
                        h.record(t.elapsed().as_nanos() as u64).unwrap();
                        next[at] += 1;
                        i += 1;
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                    h
                })
            })
            .collect();
        while start.elapsed() < ctx.time {
            std::thread::sleep(Duration::from_millis(200));
            store.tend();
        }
        stop.store(true, Ordering::Relaxed);
        for w in workers {
            merged.add(w.join().unwrap()).unwrap();
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let total = total.load(Ordering::Relaxed) as f64;
    let (bytes2, cpu2) = usage();
    notes(ctx, name, &*store);
    let mut figures = vec![("per_s", total / seconds)];
    figures.extend(latency(&merged));
    figures.push(("dev/user", (bytes2 - bytes) as f64 / (total * len as f64)));
    figures.push(("cpu_us", (cpu2 - cpu) * 1e6 / total));
    figures
}

fn notes(ctx: &Context, name: &str, store: &dyn Store) {
    if ctx.notes {
        println!("   {name}: {}", store.notes());
    }
}

/// Two threads, each committing batches of one entry to each of 500 replicas.
fn batches(ctx: &Context, dir: &Path, name: &str) -> Figures {
    let store = open(dir, name, 512 << 20);
    let stop = AtomicBool::new(false);
    let total = AtomicU64::new(0);
    let (bytes, cpu) = usage();
    let start = Instant::now();
    std::thread::scope(|s| {
        for t in 0..2_u64 {
            let (store, stop, total, payload) = (&store, &stop, &total, &ctx.payload);
            s.spawn(move || {
                let mut scratch = Scratch::default();
                let mut index = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    let entries: Vec<[&[u8]; 1]> =
                        (0..500).map(|r| [payload.get(index * 1000 + r * 2 + t, 256)]).collect();
                    let parts: Vec<_> = entries
                        .iter()
                        .enumerate()
                        .map(|(r, e)| Part {
                            replica: r as u64 * 2 + t + 1,
                            first: index,
                            entries: e,
                            truncate: index.is_multiple_of(64).then(|| index - 32),
                        })
                        .collect();
                    store.commit(&parts, &mut scratch);
                    index += 1;
                    total.fetch_add(500, Ordering::Relaxed);
                }
            });
        }
        while start.elapsed() < ctx.time {
            std::thread::sleep(Duration::from_millis(200));
            store.tend();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let total = total.load(Ordering::Relaxed) as f64;
    let (bytes2, cpu2) = usage();
    notes(ctx, name, &*store);
    vec![
        ("per_s", total / seconds),
        ("dev/user", (bytes2 - bytes) as f64 / (total * 256.0)),
        ("cpu_us", (cpu2 - cpu) * 1e6 / total),
    ]
}

/// 10,000 replicas with a live tail of 20 to 40 entries, one in a hundred never truncated; 32 threads, 8 entries a commit.
fn churn(ctx: &Context, dir: &Path, name: &str) -> Figures {
    let store = open(dir, name, 2 << 30);
    let goal = (2.0 * ctx.scale * f64::from(1 << 30)) as u64 / 256;
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (bytes, cpu) = usage();
    let start = Instant::now();
    let mut merged = Histogram::<u64>::new(3).unwrap();
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..32_u64)
            .map(|t| {
                let (store, done, payload) = (&store, &done, &ctx.payload);
                s.spawn(move || {
                    let mut rng = SmallRng::seed_from_u64(t);
                    let mut h = Histogram::<u64>::new(3).unwrap();
                    let mut scratch = Scratch::default();
                    let replicas: Vec<u64> = (0..10_000).filter(|r| r % 32 == t).collect();
                    let mut heads = vec![(1_u64, 1_u64); replicas.len()];
                    while done.fetch_add(8, Ordering::Relaxed) < goal {
                        let at = rng.random_range(0..replicas.len());
                        let (first, next) = &mut heads[at];
                        let entries: Vec<&[u8]> = (0..8).map(|i| payload.get(t * 1_000_003 + *next * 8191 + i, 256)).collect();
                        let truncate = if replicas[at] % 100 != 7 && *next + 8 - *first > 40 {
                            *first = *next + 8 - 20;
                            Some(*first)
                        } else {
                            None
                        };
                        let t = Instant::now();
                        store.commit(&[Part { replica: replicas[at] + 1, first: *next, entries: &entries, truncate }], &mut scratch);
                        h.record(t.elapsed().as_nanos() as u64).unwrap();
                        *next += 8;
                    }
                    h
                })
            })
            .collect();
        let (stop, store) = (&stop, &store);
        s.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
                store.tend();
            }
        });
        for w in workers {
            merged.add(w.join().unwrap()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let (bytes2, cpu2) = usage();
    notes(ctx, name, &*store);
    let mut figures = vec![("per_s", goal as f64 / seconds)];
    figures.extend(latency(&merged));
    figures.push(("dev/user", (bytes2 - bytes) as f64 / (goal as f64 * 256.0)));
    figures.push(("cpu_us", (cpu2 - cpu) * 1e6 / goal as f64));
    figures
}

/// 4M entries of 256 B over 1,000 replicas, written interleaved: scan, random reads, and an opening after an unclean end.
fn read(ctx: &Context, dir: &Path, name: &str) -> Figures {
    let capacity = ((2.5 * ctx.scale * f64::from(1 << 30)) as u64).max(64 << 20);
    let store = open(dir, name, capacity);
    let each = (4000.0 * ctx.scale) as u64;
    let mut scratch = Scratch::default();
    let start = Instant::now();
    for i in (1..=each).step_by(4) {
        let entries: Vec<Vec<&[u8]>> =
            (0..1000).map(|r| (0..4).map(|k| ctx.payload.get((i + k) * 1000 + r, 256)).collect()).collect();
        for (half, some) in entries.chunks(500).enumerate() {
            let parts: Vec<_> = some
                .iter()
                .enumerate()
                .map(|(r, e)| Part { replica: (half * 500 + r) as u64 + 1, first: i, entries: e, truncate: None })
                .collect();
            store.commit(&parts, &mut scratch);
        }
    }
    let write_rate = each as f64 * 1000.0 / start.elapsed().as_secs_f64();
    notes(ctx, name, &*store);
    let scan = || {
        let t = Instant::now();
        let n: u64 = (1..=1000).map(|r| store.scan(r)).sum();
        assert_eq!(n, each * 1000);
        n as f64 / t.elapsed().as_secs_f64()
    };
    let first_scan = scan();
    let warm_scan = scan();
    let mut rng = SmallRng::seed_from_u64(3);
    let t = Instant::now();
    let lookups = 200_000;
    for _ in 0..lookups {
        let n = store.entry(rng.random_range(1..=1000), rng.random_range(1..=each));
        assert_eq!(n, 256);
    }
    let random = t.elapsed().as_secs_f64() * 1e6 / f64::from(lookups);
    store.abandon();
    // Cold: pages that are clean leave the cache.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
    let t = Instant::now();
    let store = open(dir, name, capacity);
    let open_ms = t.elapsed().as_secs_f64() * 1e3;
    notes(ctx, name, &*store);
    let n: u64 = (1..=3).map(|r| store.scan(r)).sum();
    assert_eq!(n, each * 3);
    vec![
        ("write/s", write_rate),
        ("scan/s", first_scan),
        ("warm/s", warm_scan),
        ("random_us", random),
        ("open_ms", open_ms),
    ]
}
