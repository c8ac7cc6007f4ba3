//! Opening: what recovery costs, by the length of the journal and by the number of replicas.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strandlog::{Batch, Wal};
use tempfile::TempDir;

const CAPACITY: u64 = 1 << 30;
/// Small chunks, so that each of many small replicas can be given some of its own.
const CHUNK: u32 = 4 << 10;

/// A log with `entries` entries of 256 bytes, spread over the replicas; not closed.
fn filled(replicas: u64, entries: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let wal = Wal::options().capacity(CAPACITY).chunk_size(CHUNK).open(&path).expect("a log");
    let mut batch = Batch::new();
    for index in 1..=entries / replicas {
        for replica in 0..replicas {
            batch.append(replica, &[(index, 1, [7; 256])]);
            if replica % 1_000 == 999 {
                wal.commit(&mut batch).expect("room");
            }
        }
        wal.commit(&mut batch).expect("room");
    }
    (dir, path)
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for (replicas, entries) in [(1, 1), (100, 200_000), (10_000, 200_000), (50_000, 50_000)] {
        let (_dir, path) = filled(replicas, entries);
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(format!("{replicas} replicas, {entries} entries")), |b| {
            b.iter(|| {
                // Read-only: it changes nothing, so that every round finds the same file.
                let wal = Wal::options().read_only(true).open(&path).expect("it recovers");
                black_box(wal.durable_lsn());
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(2));
    targets = open
}
criterion_main!(benches);
