//! Rows that append, and the device's limit beside them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags};
use rustix::io::{ReadWriteFlags, pwrite, pwritev2};
use strandlog::disk::AlignedBuf;
use strandlog::{Batch, Placement};

use super::{Context, REPLICAS};
use crate::measure::{Figures, Meter, histogram, record};
use crate::stores::{Part, Scratch, Store, Strand};

/// Runs one worker on each thread until the time is up; returns the histogram of all.
pub fn crowd(
    seconds: f64,
    threads: u64,
    store: &dyn Store,
    work: impl Fn(u64, &AtomicBool) -> Histogram<u64> + Sync,
) -> Histogram<u64> {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut all = histogram();
    std::thread::scope(|s| {
        let (work, stop) = (&work, &stop);
        let workers: Vec<_> = (0..threads).map(|t| s.spawn(move || work(t, stop))).collect();
        while start.elapsed().as_secs_f64() < seconds {
            std::thread::sleep(Duration::from_millis(100));
            store.tend();
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            all.add(worker.join().unwrap()).unwrap();
        }
    });
    all
}

/// A file of so many bytes, written beforehand, for direct writes.
pub fn bare_file(path: &Path, len: u64) -> OwnedFd {
    const ZEROS: usize = 1 << 20;
    let fd =
        rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT, Mode::from_raw_mode(0o600)).unwrap();
    // These zeros go past the page cache, too: over cached pages ext4 silently turns a direct write into a buffered one.
    let mut zeros = AlignedBuf::with_capacity(ZEROS);
    zeros.resize(ZEROS);
    for offset in (0..len).step_by(ZEROS) {
        assert_eq!(pwrite(&fd, zeros.as_slice(), offset).unwrap(), ZEROS);
    }
    rustix::fs::fsync(&fd).unwrap();
    fd
}

/// Durable writes of `bytes` each, from several threads at once, into a file written in full beforehand.
pub fn raw(ctx: &Context, threads: u64, bytes: usize) -> Figures {
    const LEN: u64 = 512 << 20;
    // More in flight than the device has use for says nothing about it.
    let threads = threads.min(2);
    let fd = bare_file(&ctx.dir.join("raw"), LEN);
    let block = bytes.next_multiple_of(strandlog::disk::BLOCK);
    let next = AtomicU64::new(0);
    let meter = Meter::start(&ctx.dir);
    struct Nobody;
    impl Store for Nobody {
        fn commit(&self, _: &[Part<'_>], _: &mut Scratch) {}
    }
    let h = crowd(ctx.seconds, threads, &Nobody, |_, stop| {
        let mut buf = AlignedBuf::with_capacity(block);
        buf.resize(block);
        buf.as_mut_slice()[..bytes].copy_from_slice(ctx.payload.get(1, bytes));
        let mut h = histogram();
        while !stop.load(Ordering::Relaxed) {
            let offset = next.fetch_add(block as u64, Ordering::Relaxed) % (LEN - LEN % block as u64);
            let t = Instant::now();
            let n = pwritev2(&fd, &[std::io::IoSlice::new(buf.as_slice())], offset, ReadWriteFlags::DSYNC).unwrap();
            assert_eq!(n, block);
            record(&mut h, t);
        }
        h
    });
    let n = h.len() as f64;
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n, n * bytes as f64));
    figures
}

/// `threads` threads, each appending one entry to one of its replicas and waiting.
pub fn threads(ctx: &Context, threads: u64, bytes: usize, replicas: u64) -> Figures {
    // For large entries fewer replicas, or what is alive would not fit.
    let replicas = replicas.min((4 << 30) / (bytes as u64 * 64)).max(threads);
    // Truncated, as if applied, once this many entries are there: the log does not grow without end.
    let keep = (128_u64 << 10).div_ceil(bytes as u64).clamp(4, 256);
    let live = replicas * keep * bytes as u64;
    let store = ctx.open((2 * live).max(512 << 20));
    let meter = Meter::start(&ctx.dir);
    let h = crowd(ctx.seconds, threads, &*store, |t, stop| {
        let (mut h, mut scratch) = (histogram(), Scratch::default());
        let mine: Vec<u64> = (0..replicas).filter(|r| r % threads == t).map(|r| r + 1).collect();
        let mut next = vec![1_u64; mine.len()];
        let mut i = t * 1_000_000_007;
        while !stop.load(Ordering::Relaxed) {
            let at = i as usize % mine.len();
            let entry = [ctx.payload.get(i, bytes)];
            let truncate = next[at].is_multiple_of(keep).then(|| next[at] - keep / 2);
            let part = Part { replica: mine[at], first: next[at], entries: &entry, truncate };
            let start = Instant::now();
            store.commit(&[part], &mut scratch);
            record(&mut h, start);
            next[at] += 1;
            i += 1;
        }
        h
    });
    let n = h.len() as f64;
    ctx.note(&*store);
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n, n * bytes as f64));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// One thread with so many appends outstanding, each told by a callback; a store without callbacks writes so many at once.
pub fn window(ctx: &Context, window: u64) -> Figures {
    if !ctx.store.starts_with("strandlog") {
        return window_of_batches(ctx, window);
    }
    static DONE: AtomicU64 = AtomicU64::new(0);
    struct Poller(std::thread::Thread);
    impl strandlog::Sink for Poller {
        fn done(&self, tags: &[u64], outcome: &Result<strandlog::Lsn, strandlog::Error>) {
            outcome.as_ref().unwrap();
            DONE.fetch_add(tags.len() as u64, Ordering::Release);
            self.0.unpark();
        }
    }
    let poller: std::sync::Arc<dyn strandlog::Sink> = std::sync::Arc::new(Poller(std::thread::current()));
    let placement = if ctx.store.ends_with("chain") { Placement::Chain } else { Placement::Auto };
    let store = Strand::open(&ctx.dir, 1 << 30, placement);
    let meter = Meter::start(&ctx.dir);
    let (mut batch, mut sent, mut round) = (Batch::new(), 0_u64, 0_u64);
    let (mut h, mut starts) = (histogram(), VecDeque::new());
    while meter.seconds() < ctx.seconds {
        round += 1;
        for replica in 1..=REPLICAS {
            while sent - DONE.load(Ordering::Acquire) >= window {
                std::thread::park();
            }
            if sent.is_multiple_of(64) {
                starts.push_back((sent, Instant::now()));
                while starts.front().is_some_and(|(n, _)| *n < DONE.load(Ordering::Relaxed)) {
                    let (_, start) = starts.pop_front().unwrap();
                    record(&mut h, start);
                }
            }
            batch.append(replica, &[(round, 1, ctx.payload.get(sent, 256))]);
            if round.is_multiple_of(256) {
                batch.truncate_prefix(replica, round - 128);
            }
            store.0.submit_to(&mut batch, &poller, sent).unwrap();
            sent += 1;
        }
    }
    store.0.sync().unwrap();
    let n = DONE.load(Ordering::Acquire) as f64;
    ctx.note(&store);
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n, n * 256.0));
    figures.extend(ctx.footprint(&store));
    figures
}

fn window_of_batches(ctx: &Context, window: u64) -> Figures {
    let store = ctx.open(1 << 30);
    let meter = Meter::start(&ctx.dir);
    let (mut scratch, mut n, mut h) = (Scratch::default(), 0_u64, histogram());
    while meter.seconds() < ctx.seconds {
        let (first, last) = (n, n + window);
        // One entry a part, in the order in which they come.
        let entries: Vec<[&'static [u8]; 1]> = (first..last).map(|i| [ctx.payload.get(i, 256)]).collect();
        let parts: Vec<Part<'_>> = (first..last)
            .zip(&entries)
            .map(|(i, entries)| {
                let round = i / REPLICAS + 1;
                let truncate = round.is_multiple_of(256).then(|| round - 128);
                Part { replica: i % REPLICAS + 1, first: round, entries, truncate }
            })
            .collect();
        let start = Instant::now();
        store.commit(&parts, &mut scratch);
        record(&mut h, start);
        n = last;
        if n % (64 * window) < window {
            store.tend();
        }
    }
    let mut figures = Figures::default().with("per s", n as f64 / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n as f64, n as f64 * 256.0));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// `threads` threads, each committing batches of one entry to each of `replicas` replicas.
pub fn batches(ctx: &Context, replicas: u64, threads: u64) -> Figures {
    let store = ctx.open(512 << 20);
    let meter = Meter::start(&ctx.dir);
    let h = crowd(ctx.seconds, threads, &*store, |t, stop| {
        let (mut h, mut scratch, mut index) = (histogram(), Scratch::default(), 1_u64);
        while !stop.load(Ordering::Relaxed) {
            let entries: Vec<[&'static [u8]; 1]> =
                (0..replicas).map(|r| [ctx.payload.get((index * replicas + r) * threads + t, 256)]).collect();
            let truncate = index.is_multiple_of(64).then(|| index - 32);
            let parts: Vec<_> = (0..replicas)
                .zip(&entries)
                .map(|(r, entries)| Part { replica: r * threads + t + 1, first: index, entries, truncate })
                .collect();
            let start = Instant::now();
            store.commit(&parts, &mut scratch);
            record(&mut h, start);
            index += 1;
        }
        h
    });
    let n = (h.len() * replicas) as f64;
    ctx.note(&*store);
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n, n * 256.0));
    figures.extend(ctx.footprint(&*store));
    figures
}

/// Terms and votes of 10,000 replicas.
pub fn state(ctx: &Context, threads: u64, each: u64) -> Figures {
    const ALL: u64 = 10_000;
    let store = ctx.open(512 << 20);
    let meter = Meter::start(&ctx.dir);
    let h = crowd(ctx.seconds, threads, &*store, |t, stop| {
        let (mut h, mut scratch, mut i) = (histogram(), Scratch::default(), t);
        while !stop.load(Ordering::Relaxed) {
            let replicas: Vec<u64> = (0..each).map(|r| (i + r * threads) % ALL + 1).collect();
            // Term, vote, commit.
            let value = ctx.payload.get(i, 24);
            let start = Instant::now();
            store.state(&replicas, value, &mut scratch);
            record(&mut h, start);
            i += threads * each;
        }
        h
    });
    let n = (h.len() * each) as f64;
    ctx.note(&*store);
    let mut figures = Figures::default().with("per s", n / meter.seconds()).latency(&h);
    figures.extend(meter.figures(n, n * 24.0));
    figures.extend(ctx.footprint(&*store));
    figures
}
