//! Rows with a long run: entries that are soon truncated, entries that never are, and replicas that lag behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::append::crowd;
use super::{Context, REPLICAS};
use crate::measure::{Figures, Meter, histogram, record};
use crate::stores::{Part, Scratch, Store};

/// How the churn is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Churn {
    /// 32 or 64 blocking threads, 8 entries of one replica a commit.
    Threads(u64),
    /// Two threads, 64 replicas with 8 entries each a commit.
    Batches,
    /// As 32 threads, ten times as long.
    Long,
}

impl Churn {
    pub fn named(name: &str) -> Option<Self> {
        [Self::Threads(32), Self::Threads(64), Self::Batches, Self::Long].into_iter().find(|c| c.name() == name)
    }

    pub fn name(self) -> String {
        match self {
            Self::Threads(n) => format!("t{n}"),
            Self::Batches => "b512".into(),
            Self::Long => "long".into(),
        }
    }

    pub fn title(self) -> String {
        match self {
            Self::Threads(n) => format!("{n} threads"),
            Self::Batches => "batches of 512 entries".into(),
            Self::Long => "32 threads, 20 GiB".into(),
        }
    }
}

/// Entries a replica gets at a time.
const RUN: u64 = 8;

/// 10,000 replicas with a live tail of 20 to 40 entries, one in a hundred never truncated, 2 GiB.
pub fn churn(ctx: &Context, how: Churn) -> Figures {
    let (threads, together, length) = match how {
        Churn::Threads(n) => (n, 1, 1.0),
        Churn::Batches => (2, 64, 1.0),
        Churn::Long => (32, 1, 10.0),
    };
    let goal = (2.0 * length * ctx.scale * f64::from(1 << 30)) as u64 / 256;
    // Room for what lives: the tails, and a hundredth of everything.
    let store = ctx.open((2 << 30) + goal * 256 / 50);
    let (done, finished) = (AtomicU64::new(0), AtomicBool::new(false));
    let meter = Meter::start(&ctx.dir);
    let mut all = histogram();
    let seconds = std::thread::scope(|s| {
        let (store, done, finished) = (&store, &done, &finished);
        let work = move |t: u64| -> Histogram<u64> {
            let (mut rng, mut h, mut scratch) = (SmallRng::seed_from_u64(t), histogram(), Scratch::default());
            let mine: Vec<u64> = (0..10_000).filter(|r| r % threads == t).collect();
            let mut heads = vec![(1_u64, 1_u64); mine.len()];
            let mut sent = 0_u64;
            while done.fetch_add(RUN * together, Ordering::Relaxed) < goal {
                // In steps of 7 from a random start: no replica twice in one batch.
                let at = rng.random_range(0..mine.len());
                let chosen: Vec<usize> = (0..together as usize).map(|k| (at + k * 7) % mine.len()).collect();
                let mut next = || {
                    sent += 1;
                    ctx.payload.get(sent * threads + t, 256)
                };
                let entries: Vec<Vec<&'static [u8]>> =
                    chosen.iter().map(|_| (0..RUN).map(|_| next()).collect()).collect();
                let parts: Vec<Part<'_>> = chosen
                    .iter()
                    .zip(&entries)
                    .map(|(&at, entries)| {
                        let (first, next) = &mut heads[at];
                        let start = *next;
                        *next += RUN;
                        let truncate = (mine[at] % 100 != 7 && *next - *first > 40).then(|| {
                            *first = *next - 20;
                            *first
                        });
                        Part { replica: mine[at] + 1, first: start, entries, truncate }
                    })
                    .collect();
                let start = Instant::now();
                store.commit(&parts, &mut scratch);
                record(&mut h, start);
            }
            h
        };
        let workers: Vec<_> = (0..threads).map(|t| s.spawn(move || work(t))).collect();
        s.spawn(move || {
            while !finished.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                store.tend();
            }
        });
        for worker in workers {
            all.add(worker.join().unwrap()).unwrap();
        }
        // Taken before the thread that tends the store wakes up and ends.
        let seconds = meter.seconds();
        finished.store(true, Ordering::Relaxed);
        seconds
    });
    ctx.note(&*store);
    let n = goal as f64;
    let mut figures = Figures::default().with("per s", n / seconds).latency(&all);
    figures.extend(meter.figures(n, n * 256.0));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// Small entries that are never truncated, until 1 GiB is there: each is moved once.
pub fn keep(ctx: &Context) -> Figures {
    let goal = (ctx.scale * f64::from(1 << 30)) as u64 / 256;
    let store = ctx.open((2 * goal * 256).max(256 << 20));
    let done = AtomicU64::new(0);
    let meter = Meter::start(&ctx.dir);
    let mut all = histogram();
    std::thread::scope(|s| {
        let (store, done) = (&store, &done);
        let work = move |t: u64| {
            let (mut h, mut scratch, mut index) = (histogram(), Scratch::default(), 1_u64);
            while done.fetch_add(500, Ordering::Relaxed) < goal {
                let entries: Vec<[&'static [u8]; 1]> =
                    (0..500).map(|r| [ctx.payload.get((index * 500 + r) * 2 + t, 256)]).collect();
                let parts: Vec<_> = (0..500)
                    .zip(&entries)
                    .map(|(r, entries)| Part { replica: r * 2 + t + 1, first: index, entries, truncate: None })
                    .collect();
                let start = Instant::now();
                store.commit(&parts, &mut scratch);
                record(&mut h, start);
                index += 1;
            }
            h
        };
        let workers: Vec<_> = (0..2).map(|t| s.spawn(move || work(t))).collect();
        for worker in workers {
            all.add(worker.join().unwrap()).unwrap();
        }
    });
    let n = goal as f64;
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&all);
    figures.extend(meter.figures(n, n * 256.0));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// 32 threads on 1,000 replicas; in the second half a tenth of these stop truncating. In the end all that they have is read, then read
/// again, and a third time in another process, with nothing in memory.
pub fn slow(ctx: &Context) -> Figures {
    let store = ctx.open(4 << 30);
    let told = ctx.dir.join("lagging.json");
    if ctx.phase == 1 {
        let lagging: Vec<(u64, u64, u64)> = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
        // A store that opens by reading everything has it in the cache.
        crate::measure::drop_caches();
        return Figures::default().with("cold catch-up per s", catch_up(&*store, &lagging));
    }
    let mut next: Vec<AtomicU64> = (0..REPLICAS).map(|_| AtomicU64::new(1)).collect();
    let meter = Meter::start(&ctx.dir);
    let half = |lag: bool| {
        crowd(ctx.seconds, 32, &*store, |t, stop| {
            let (mut rng, mut h, mut scratch) = (SmallRng::seed_from_u64(t), histogram(), Scratch::default());
            let mine: Vec<u64> = (0..REPLICAS).filter(|r| r % 32 == t).collect();
            while !stop.load(Ordering::Relaxed) {
                let replica = mine[rng.random_range(0..mine.len())];
                let first = next[replica as usize].fetch_add(RUN, Ordering::Relaxed);
                let entries: Vec<&'static [u8]> =
                    (0..RUN).map(|i| ctx.payload.get(replica * 1_000_003 + first + i, 256)).collect();
                let slow = lag && replica % 10 == 7;
                let truncate = (!slow && first > 40).then(|| first - 20);
                let start = Instant::now();
                store.commit(&[Part { replica: replica + 1, first, entries: &entries, truncate }], &mut scratch);
                if !slow {
                    record(&mut h, start);
                }
            }
            h
        })
    };
    let before = half(false);
    let firsts: Vec<u64> = next.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    let with = half(true);
    let n = (before.len() + with.len()) * RUN;
    let lagging: Vec<(u64, u64, u64)> = (7..REPLICAS as usize)
        .step_by(10)
        .map(|replica| (replica as u64 + 1, firsts[replica], *next[replica].get_mut() - 1))
        .filter(|(_, first, last)| first <= last)
        .collect();
    std::fs::write(told, serde_json::to_string(&lagging).unwrap()).unwrap();
    let (fresh, again) = (catch_up(&*store, &lagging), catch_up(&*store, &lagging));
    ctx.note(&*store);
    let p99 = |h: &Histogram<u64>| h.value_at_quantile(0.99) as f64 / 1e3;
    let figures = Figures::default()
        .with("per s", n as f64 / meter.seconds())
        .with("p99 us alone", p99(&before))
        .with("p99 us beside", p99(&with))
        .with("p99 beside/alone", p99(&with) / p99(&before))
        .with("catch-up per s", fresh)
        .with("again per s", again);
    let mut figures = figures;
    figures.extend(meter.figures(n as f64, n as f64 * 256.0));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// Reads all these ranges (replica, first index, last index); returns the entries a second.
fn catch_up(store: &dyn Store, lagging: &[(u64, u64, u64)]) -> f64 {
    let start = Instant::now();
    let read: u64 = lagging.iter().map(|&(replica, first, last)| store.read(replica, first, last)).sum();
    read as f64 / start.elapsed().as_secs_f64()
}
