//! A sharded queue with the log under it: each shard is a replica, each message an entry, each consumer's position a keyed value.
//!
//! There is no raft here: terms stay 1. Producers on many threads share each sync; a consumer reads without a lock; what every consumer has
//! confirmed is truncated, and costs no sync of its own.
//!
//! ```sh
//! cargo run --release --example queue
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strandlog::{Batch, Bytes, Wal};

/// The queue has one term.
const TERM: u64 = 1;

struct Queue {
    wal: Wal,
    /// The next index of each shard; locked while a message gets its place, not while that becomes durable.
    shards: Vec<Mutex<u64>>,
}

impl Queue {
    fn open(wal: Wal, shards: u64) -> Self {
        let next = |shard| Mutex::new(wal.replica(shard).last_index() + 1);
        Self { shards: (0..shards).map(next).collect(), wal }
    }

    /// Puts a message into the shard; durable on return.
    fn push(&self, shard: u64, message: &[u8]) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let mut batch = Batch::new();
        let (index, pending) = {
            let mut next =
                self.shards.get(shard as usize).ok_or("no such shard")?.lock().map_err(|_| "a thread failed")?;
            batch.append(shard, &[(*next, TERM, message)]);
            let pending = self.wal.submit(&mut batch)?;
            *next += 1;
            (*next - 1, pending)
        };
        // Other pushes of the same moment share this sync.
        pending.wait()?;
        Ok(index)
    }

    /// Messages of the shard that this consumer has not confirmed yet: at most `bytes` bytes of them, but at least one if there is one.
    fn poll(&self, shard: u64, consumer: &[u8], bytes: usize) -> strandlog::Result<Vec<(u64, Bytes)>> {
        let r = self.wal.replica(shard);
        let from = self.position(shard, consumer)? + 1;
        let entries = r.entries(from.max(r.first_index())..r.last_index() + 1, bytes)?;
        Ok(entries.into_iter().map(|e| (e.index, e.data)).collect())
    }

    fn position(&self, shard: u64, consumer: &[u8]) -> strandlog::Result<u64> {
        let value = self.wal.replica(shard).get(consumer)?;
        Ok(value.and_then(|v| v[..].try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// The consumer has everything up to `index`: that is remembered, and what all consumers have is truncated. One lazy batch: after a
    /// crash a consumer may see again what it had, but never misses anything.
    fn confirm(&self, shard: u64, consumer: &[u8], index: u64, others: &[&[u8]]) -> strandlog::Result<()> {
        let mut batch = Batch::new();
        batch.put(shard, consumer, &index.to_le_bytes());
        let mut all = index;
        for other in others {
            all = all.min(self.position(shard, other)?);
        }
        batch.truncate_prefix(shard, all + 1);
        drop(self.wal.submit(batch.lazy())?);
        Ok(())
    }
}

const SHARDS: u64 = 256;
const PRODUCERS: u64 = 16;
const MESSAGES: u64 = 2_000;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("queue.log");
    let options = || Wal::options().capacity(64 << 20);
    let queue = Arc::new(Queue::open(options().open(&path)?, SHARDS));
    let pushed = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let (queue, pushed) = (Arc::clone(&queue), Arc::clone(&pushed));
            std::thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
                for i in 0..MESSAGES {
                    queue.push((producer + i * PRODUCERS) % SHARDS, format!("{producer}/{i}").as_bytes())?;
                    pushed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    for producer in producers {
        producer.join().map_err(|_| "a producer failed")??;
    }
    let stats = queue.wal.stats();
    println!(
        "{} messages in {} syncs, p99 below {} us",
        pushed.load(Ordering::Relaxed),
        stats.frames,
        stats.commit_micros.quantile_micros(0.99).unwrap_or(0)
    );

    // One consumer takes everything, the other half of each shard.
    let mut taken = 0;
    for shard in 0..SHARDS {
        let messages = queue.poll(shard, b"mail", usize::MAX)?;
        taken += messages.len() as u64;
        let Some(&(last, _)) = messages.last() else { continue };
        queue.confirm(shard, b"mail", last, &[b"audit"])?;
        queue.confirm(shard, b"audit", last / 2, &[b"mail"])?;
    }
    assert_eq!(taken, PRODUCERS * MESSAGES);
    queue.wal.sync()?;
    drop(queue);

    // A crash later: positions and messages are there.
    let queue = Queue::open(options().open(&path)?, SHARDS);
    let left = |consumer: &[u8]| {
        (0..SHARDS).map(|s| Ok(queue.poll(s, consumer, usize::MAX)?.len())).sum::<strandlog::Result<usize>>()
    };
    println!("after a crash: {} left for mail, {} for audit", left(b"mail")?, left(b"audit")?);
    assert_eq!(left(b"mail")?, 0);
    assert!(left(b"audit")? > 0);
    queue.wal.close()?;
    Ok(())
}
