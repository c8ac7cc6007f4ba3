//! Reading what was written interleaved: 4M entries of 256 bytes over 1,000 replicas.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::append::crowd;
use super::{Context, REPLICAS};
use crate::measure::{Figures, histogram, record};
use crate::stores::{Part, Scratch, Store};

const BYTES: usize = 256;

fn per_replica(ctx: &Context) -> u64 {
    (4000.0 * ctx.scale) as u64 / 4 * 4
}

fn capacity(ctx: &Context) -> u64 {
    ((2.5 * ctx.scale * f64::from(1 << 30)) as u64).max(128 << 20)
}

/// Four entries of each replica in turn, 500 replicas a commit.
pub fn fill(ctx: &Context, store: &dyn Store, each: u64, bytes: usize) {
    let mut scratch = Scratch::default();
    for i in (1..=each).step_by(4) {
        for half in 0..2 {
            let replicas = half * REPLICAS / 2..(half + 1) * REPLICAS / 2;
            let entries: Vec<Vec<&'static [u8]>> = replicas
                .clone()
                .map(|r| (0..4).map(|k| ctx.payload.get((i + k) * REPLICAS + r, bytes)).collect())
                .collect();
            let parts: Vec<_> = replicas
                .zip(&entries)
                .map(|(r, entries)| Part { replica: r + 1, first: i, entries, truncate: None })
                .collect();
            store.commit(&parts, &mut scratch);
        }
        if i % 400 == 1 {
            store.tend();
        }
    }
}

pub fn read(ctx: &Context) -> Figures {
    let store = ctx.open(capacity(ctx));
    let each = per_replica(ctx);
    let rate = |first: u64, last: u64| {
        let start = Instant::now();
        let n: u64 = (1..=REPLICAS).map(|r| store.read(r, first, last)).sum();
        assert_eq!(n, (last - first + 1) * REPLICAS);
        n as f64 / start.elapsed().as_secs_f64()
    };
    if ctx.phase == 1 {
        return Figures::default().with("cold scan per s", rate(1, each / 2));
    }
    let start = Instant::now();
    fill(ctx, &*store, each, BYTES);
    let written = (each * REPLICAS) as f64 / start.elapsed().as_secs_f64();
    ctx.note(&*store);
    // The first half has left strandlog's journal long ago; the last twentieth has not.
    rate(1, each);
    let warm = rate(1, each / 2);
    let young = rate(each - each / 20, each);
    let catch_up = rate(each - each.min(1000) + 1, each);
    let mut rng = SmallRng::seed_from_u64(3);
    let mut random = |lookups: u64, low: u64, high: u64| {
        let start = Instant::now();
        for _ in 0..lookups {
            let n = store.entry(rng.random_range(1..=REPLICAS), rng.random_range(low..=high));
            assert_eq!(n, BYTES);
        }
        start.elapsed().as_secs_f64() * 1e6 / lookups as f64
    };
    let random_us = random(200_000, 1, each);
    let cached_us = random(200_000, each - 8, each);
    let term_ns = {
        let start = Instant::now();
        let known =
            (0..200_000).filter(|_| store.term(rng.random_range(1..=REPLICAS), rng.random_range(1..=each)).is_some());
        let known = known.count();
        (known > 0).then(|| start.elapsed().as_secs_f64() * 1e9 / known as f64)
    };
    let (mixed, reads) = together(ctx, &*store, each);
    let figures = Figures::default();
    let figures = if let Some(ns) = term_ns { figures.with("term ns", ns) } else { figures };
    figures
        .with("write per s", written)
        .with("scan per s", warm)
        .with("young scan per s", young)
        .with("last 1000 per s", catch_up)
        .with("random us", random_us)
        .with("newest us", cached_us)
        .with("beside: appends per s", mixed)
        .with("beside: reads per s", reads)
}

/// Readers of random entries and writers at the same time, two threads each.
fn together(ctx: &Context, store: &dyn Store, each: u64) -> (f64, f64) {
    let (appended, read) = (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicU64::new(0));
    let start = Instant::now();
    crowd(ctx.seconds, 4, store, |t, stop| {
        let (mut rng, mut h, mut scratch) = (SmallRng::seed_from_u64(t), histogram(), Scratch::default());
        let mut index = each + 1;
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            if t < 2 {
                for _ in 0..100 {
                    store.entry(rng.random_range(1..=REPLICAS), rng.random_range(1..=each));
                }
                read.fetch_add(100, Ordering::Relaxed);
            } else {
                let entry = [ctx.payload.get(index * 2 + t, BYTES)];
                let parts: Vec<_> = (0..REPLICAS / 2)
                    .map(|r| Part { replica: r * 2 + t - 1, first: index, entries: &entry, truncate: None })
                    .collect();
                // As many appends as the file has room for, then only reads.
                if index - each < 400 {
                    store.commit(&parts, &mut scratch);
                    appended.fetch_add(REPLICAS / 2, Ordering::Relaxed);
                } else {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                index += 1;
            }
            record(&mut h, start);
        }
        h
    });
    let seconds = start.elapsed().as_secs_f64();
    (appended.into_inner() as f64 / seconds, read.into_inner() as f64 / seconds)
}
