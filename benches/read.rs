//! Reading: single entries and scans, from recent memory, from the journal, and from chains.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandlog::{Batch, Placement, Wal};
use tempfile::TempDir;

const REPLICAS: u64 = 100;
const ENTRIES: u64 = 1_000;
const BYTES: usize = 256;

/// A log whose entries lie where `placement` puts them; reopened, so that nothing is in memory by chance.
fn filled(placement: Placement) -> (TempDir, Wal) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let options = || Wal::options().capacity(256 << 20).placement(placement);
    let wal = options().open(&path).expect("a log");
    let mut batch = Batch::new();
    // Interleaved, as group commit leaves it.
    for from in (1..=ENTRIES).step_by(50) {
        for replica in 0..REPLICAS {
            let entries: Vec<_> = (from..from + 50).map(|i| (i, 1, [replica as u8; BYTES])).collect();
            batch.append(replica, &entries);
        }
        wal.commit(&mut batch).expect("room");
    }
    wal.close().expect("a working disk");
    let wal = options().open(&path).expect("a log");
    (dir, wal)
}

fn read(c: &mut Criterion) {
    for (name, placement) in [("journal", Placement::Journal), ("chain", Placement::Chain)] {
        let (_dir, wal) = filled(placement);
        let mut group = c.benchmark_group(format!("read from the {name}"));
        group.throughput(Throughput::Elements(1));
        let mut n = 0_u64;
        group.bench_function("a random entry", |b| {
            b.iter(|| {
                // A stride that shares no factor with their number: every entry is visited, in no order.
                n = (n + 61_027) % (REPLICAS * ENTRIES);
                let entry = wal.replica(n / ENTRIES).entry(1 + n % ENTRIES);
                black_box(entry.expect("it is there"));
            });
        });
        group.throughput(Throughput::Elements(ENTRIES));
        let mut replica = 0;
        group.bench_function("a whole replica", |b| {
            b.iter(|| {
                replica = (replica + 1) % REPLICAS;
                let mut next = 1;
                while next <= ENTRIES {
                    let entries = wal.replica(replica).entries(next..ENTRIES + 1, 1 << 20).expect("they are there");
                    next += entries.len() as u64;
                    black_box(entries);
                }
            });
        });
        group.bench_function("terms", |b| {
            b.iter(|| {
                replica = (replica + 1) % REPLICAS;
                let handle = wal.replica(replica);
                (1..=ENTRIES).for_each(|i| drop(black_box(handle.term(i))));
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = read
}
criterion_main!(benches);
