//! The hot paths on a disk that does nothing, run a fixed number of times, to count their instructions (`cargo xtask instructions`).
//!
//! `hot WHAT N`, where WHAT is one of [`WHATS`].

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use strandlog::disk::{Disk, DiskInfo, Map, SyncMethod};
use strandlog::{Batch, Error, Lsn, Sink, Wal};

/// A disk that keeps only what opening a log reads: the beginning of the file.
#[derive(Debug)]
struct Nowhere(std::sync::Mutex<Vec<u8>>);

const HEAD: usize = 64 << 10;
const CAPACITY: u64 = 256 << 20;
const REPLICAS: u64 = 1000;
const BYTES: usize = 256;
/// Entries a replica keeps: few enough that the journal holds all of them without cleaning.
const KEPT: u64 = 32;

impl Disk for Nowhere {
    fn len(&self) -> u64 {
        CAPACITY
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        if let Some(part) = self.0.lock().expect("no panics").get(offset as usize..offset as usize + buf.len()) {
            buf.copy_from_slice(part);
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if let Some(part) = self.0.lock().expect("no panics").get_mut(offset as usize..offset as usize + buf.len()) {
            part.copy_from_slice(buf);
        }
        Ok(())
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> Option<Arc<Map>> {
        None
    }
    fn info(&self) -> DiskInfo {
        DiskInfo::unprobed(SyncMethod::DirectDsync)
    }
    fn release(&self) {}
}

struct Nobody;

impl Sink for Nobody {
    fn done(&self, tags: &[u64], outcome: &Result<Lsn, Error>) {
        assert!(outcome.is_ok() && !black_box(tags).is_empty());
    }
}

struct Log {
    wal: Wal,
    batch: Batch,
    next: Vec<u64>,
    payload: Vec<u8>,
}

impl Log {
    fn add(&mut self, replica: u64) {
        let next = &mut self.next[replica as usize];
        self.batch.append(replica, &[(*next, 1, &self.payload)]);
        if next.is_multiple_of(KEPT) {
            self.batch.truncate_prefix(replica, *next - KEPT / 2);
        }
        *next += 1;
    }

    fn commit(&mut self) {
        black_box(self.wal.commit(&mut self.batch).expect("room"));
    }

    /// One entry a commit.
    fn single(&mut self, n: u64) {
        for i in 0..n {
            self.add(i % REPLICAS);
            self.commit();
        }
    }

    /// One entry a batch, 500 batches a frame, completed by tag.
    fn tagged(&mut self, n: u64) {
        let sink: Arc<dyn Sink> = Arc::new(Nobody);
        for i in 0..n {
            self.add(i % REPLICAS);
            self.wal.submit_to(&mut self.batch, &sink, i).expect("room");
            if i % 500 == 499 {
                self.wal.sync().expect("written");
            }
        }
        self.wal.sync().expect("written");
    }

    /// 500 replicas a batch, one entry each.
    fn batched(&mut self, n: u64) {
        for i in 0..n {
            self.add(i % REPLICAS);
            if i % 500 == 499 {
                self.commit();
            }
        }
        self.commit();
    }

    /// Hard states, 500 replicas a batch.
    fn state(&mut self, n: u64) {
        for i in 0..n {
            self.batch.put(i % REPLICAS, b"hs", &[i as u8; 24]);
            if i % 500 == 499 {
                self.commit();
            }
        }
        self.commit();
    }

    /// The newest entry of each replica, from memory.
    fn read(&mut self, n: u64) {
        let replicas: Vec<_> = (0..REPLICAS).map(|id| self.wal.replica(id)).collect();
        for i in 0..n {
            let replica = &replicas[(i % REPLICAS) as usize];
            black_box(replica.entry(replica.last_index()).expect("in memory"));
        }
    }

    /// The term of each replica's newest entry.
    fn term(&mut self, n: u64) {
        let replicas: Vec<_> = (0..REPLICAS).map(|id| self.wal.replica(id)).collect();
        for i in 0..n {
            let replica = &replicas[(i % REPLICAS) as usize];
            black_box(replica.term(self.next[(i % REPLICAS) as usize] - 1).expect("known"));
        }
    }
}

type Path = fn(&mut Log, u64);

const WHATS: [(&str, Path); 6] = [
    ("single", Log::single),
    ("tagged", Log::tagged),
    ("batched", Log::batched),
    ("state", Log::state),
    ("read", Log::read),
    ("term", Log::term),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(what), Some(Ok(n))) = (args.next(), args.next().map(|n| n.parse())) else {
        // Run as a bench, without arguments: there is nothing to time here.
        println!("hot WHAT N, with WHAT one of {}", WHATS.map(|w| w.0).join(", "));
        return;
    };
    let Some((_, path)) = WHATS.into_iter().find(|w| w.0 == what) else { panic!("no such path: {what}") };
    let disk = Arc::new(Nowhere(std::sync::Mutex::new(vec![0; HEAD])));
    let wal =
        Wal::options().capacity(CAPACITY).recent_bytes(1 << 20).background(false).open_disk(disk).expect("formatted");
    let mut log = Log { wal, batch: Batch::new(), next: vec![1; REPLICAS as usize], payload: vec![7; BYTES] };
    // Creates every replica and every buffer: what follows is the steady state.
    log.batched(16 * REPLICAS);
    path(&mut log, n);
}
