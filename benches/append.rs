//! Appending: one commit at a time, and many at once.
//!
//! On a real file, so the device is measured, too; `benches/race` compares with others.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strandlog::{Batch, Wal};
use tempfile::TempDir;

/// Entries kept of each replica: older ones are truncated as a raft store would.
const KEPT: u64 = 32;

/// A log, and the next index of each of its replicas.
struct Appender {
    wal: Wal,
    batch: Batch,
    next: Vec<u64>,
    _dir: TempDir,
}

impl Appender {
    fn new(replicas: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let wal = Wal::options().capacity(512 << 20).open(dir.path().join("log")).expect("a log");
        Self { wal, batch: Batch::new(), next: vec![1; replicas], _dir: dir }
    }

    /// Adds one entry of `replica` to the batch.
    fn add(&mut self, replica: usize, payload: &[u8]) {
        let index = self.next[replica];
        self.next[replica] += 1;
        self.batch.append(replica as u64, &[(index, 1, payload)]);
        if index.is_multiple_of(KEPT) {
            self.batch.truncate_prefix(replica as u64, index - KEPT / 2);
        }
    }

    fn commit(&mut self) {
        black_box(self.wal.commit(&mut self.batch).expect("room and a working disk"));
    }
}

/// One thread, one entry a commit: the latency of the device, and what the log adds to it.
fn commit_one(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit one entry");
    for bytes in [256_usize, 4 << 10, 64 << 10] {
        let payload = vec![7; bytes];
        let mut log = Appender::new(1);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| {
                log.add(0, &payload);
                log.commit();
            });
        });
    }
    group.finish();
}

/// One batch over many replicas: the cost of an entry when the sync is shared.
fn commit_many(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit 500 replicas");
    let payload = vec![7; 256];
    let mut log = Appender::new(500);
    group.throughput(Throughput::Elements(500));
    group.bench_function("256", |b| {
        b.iter(|| {
            for replica in 0..500 {
                log.add(replica, &payload);
            }
            log.commit();
        });
    });
    group.finish();
}

/// What `submit` costs its caller: the disk is not involved until the queue is full.
fn submit(c: &mut Criterion) {
    let payload = vec![7; 256];
    let mut log = Appender::new(1000);
    let mut replica = 0;
    c.bench_function("submit one entry", |b| {
        b.iter(|| {
            replica = (replica + 1) % 1000;
            log.add(replica, &payload);
            drop(black_box(log.wal.submit(&mut log.batch).expect("room")));
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = commit_one, commit_many, submit
}
criterion_main!(benches);
