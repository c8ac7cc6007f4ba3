//! Whether anything drifts as the log fills up.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::append::crowd;
use super::{Context, REPLICAS};
use crate::measure::{Figures, Meter, histogram, record};
use crate::stores::{Part, Scratch};

const CAPACITY: u64 = 1 << 30;

/// 16 threads appending with live tails, on a log half full of what is never truncated, and on one at 95 %.
pub fn full(ctx: &Context) -> Figures {
    let store = ctx.open(CAPACITY);
    let meter = Meter::start(&ctx.dir);
    let (mut ballast, mut n) = (0_u64, 0.0);
    let mut fill_to = |percent: u64| {
        let mut scratch = Scratch::default();
        while store.occupied().expect("strandlog knows") < CAPACITY / 100 * percent {
            ballast += 1;
            let entries = [ctx.payload.get(ballast, 64 << 10)];
            let parts: Vec<_> = (0..8)
                .map(|r| Part { replica: 1_000_000 + r, first: ballast, entries: &entries, truncate: None })
                .collect();
            store.commit(&parts, &mut scratch);
        }
    };
    let mut tail = vec![1_u64; REPLICAS as usize];
    let mut run = |tail: &mut Vec<u64>| {
        let next: Vec<_> = tail.iter().map(|n| std::sync::atomic::AtomicU64::new(*n)).collect();
        let start = Instant::now();
        let h = crowd(ctx.seconds, 16, &*store, |t, stop| {
            let (mut h, mut scratch, mut i) = (histogram(), Scratch::default(), t);
            while !stop.load(Ordering::Relaxed) {
                let first = next[i as usize].fetch_add(1, Ordering::Relaxed);
                let entries = [ctx.payload.get(first * REPLICAS + i, 256)];
                let truncate = (first > 20).then(|| first - 20);
                let start = Instant::now();
                store.commit(&[Part { replica: i + 1, first, entries: &entries, truncate }], &mut scratch);
                record(&mut h, start);
                i = (i + 16) % (REPLICAS / 16 * 16);
            }
            h
        });
        *tail = next.into_iter().map(|n| n.into_inner()).collect();
        n += h.len() as f64;
        (h.len() as f64 / start.elapsed().as_secs_f64(), h)
    };
    fill_to(50);
    let (half, _) = run(&mut tail);
    fill_to(95);
    let (full, h) = run(&mut tail);
    ctx.note(&*store);
    let figures =
        Figures::default().with("per s half full", half).with("per s at 95 %", full).with("95 %/half", full / half);
    let mut figures = figures.latency(&h);
    figures.extend(meter.figures(n, n * 256.0));
    figures
}
