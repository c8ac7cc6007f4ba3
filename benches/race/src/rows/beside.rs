//! Log appends beside a state machine: the RFC's own comparison. The state machine is a RocksDB, written without a sync; the log is
//! in that same RocksDB, or beside it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::append::crowd;
use super::{Context, REPLICAS};
use crate::measure::{Figures, Meter, histogram, record};
use crate::stores::{Part, Scratch, Store, rocks::Rocks};

const THREADS: u64 = 16;
/// What the state machines hold: each key is written again and again.
const KEYS: u64 = 100_000;
const STATE_BYTES: u64 = 512 << 20;

/// Each commit appends a value durably; then the value is applied: put under a key of the state machine, unsynced. The log keeps the last
/// 64 KiB of each replica, and at least two entries.
pub fn beside(ctx: &Context, bytes: usize) -> Figures {
    let keep = (64_u64 << 10).div_ceil(bytes as u64).max(2);
    let keys = KEYS.min(STATE_BYTES / bytes as u64);
    let replicas = REPLICAS.min((2 << 30) / (2 * keep * bytes as u64)).max(THREADS);
    let store = ctx.open((4 * replicas * keep * bytes as u64).max(512 << 20));
    // The state machine's own RocksDB, unless the log's will do.
    let own = if ctx.store == "rocksdb" { None } else { Some(Rocks::open(&ctx.dir.join("state"))) };
    let apply = |key: u64, value: &[u8]| match &own {
        Some(state) => state.apply(key, value),
        None => store.apply(key, value),
    };
    let meter = Meter::start(&ctx.dir);
    let h = crowd(ctx.seconds, THREADS, &*store, |t, stop| {
        let (mut h, mut scratch) = (histogram(), Scratch::default());
        let mine: Vec<u64> = (0..replicas).filter(|r| r % THREADS == t).map(|r| r + 1).collect();
        let mut next = vec![1_u64; mine.len()];
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let at = sent as usize % mine.len();
            let n = sent * THREADS + t;
            let entry = [ctx.payload.get(n, bytes)];
            let truncate = next[at].is_multiple_of(keep).then(|| next[at] - keep / 2);
            let part = Part { replica: mine[at], first: next[at], entries: &entry, truncate };
            let start = Instant::now();
            store.commit(&[part], &mut scratch);
            record(&mut h, start);
            apply(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys, entry[0]);
            next[at] += 1;
            sent += 1;
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
