//! Asynchronous commits: a leader goes on while its entries become durable, and is told when they are.
//!
//! One thread submits for a thousand replicas, and waits for nothing. Completions run in order of LSN, a frame at a time, on the thread
//! that wrote the frame: here they only tell a channel, whose receiver would send the messages.
//!
//! ```sh
//! cargo run --release --example async_commit
//! ```

use std::error::Error;
use std::sync::mpsc;
use std::time::Instant;

use strandlog::{Batch, Wal};

const REPLICAS: u64 = 1_000;
const ROUNDS: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let wal = Wal::options().capacity(256 << 20).open(scratch.path().join("raft.log"))?;
    let (acknowledged, acknowledgements) = mpsc::channel();
    let payload = vec![42; 256];

    let started = Instant::now();
    let mut batch = Batch::new();
    for index in 1..=ROUNDS {
        for replica in 0..REPLICAS {
            batch.append(replica, &[(index, 1, &payload)]);
            let tell = acknowledged.clone();
            // Short, and never waits: it runs where the next frame is about to be written.
            wal.submit_with(&mut batch, move |outcome| {
                let _ = tell.send(outcome.map(|lsn| (replica, index, lsn)));
            })?;
            // Readable already, durable soon.
            debug_assert_eq!(wal.replica(replica).last_index(), index);
        }
    }
    let submitted = started.elapsed();
    drop(acknowledged);

    // Here a store would answer its peers. Outcomes come in the order in which the batches were submitted.
    let mut count = 0;
    let mut last = None;
    for outcome in acknowledgements {
        let (_, _, lsn) = outcome?;
        assert!(last <= Some(lsn), "completions are in order");
        last = Some(lsn);
        count += 1;
        if count == REPLICAS * ROUNDS {
            break;
        }
    }
    let stats = wal.stats();
    println!("{count} batches submitted in {submitted:.1?}, durable after {:.1?}", started.elapsed());
    println!(
        "{} syncs: {:.0} batches each, {:.2} device bytes for each byte of payload",
        stats.frames,
        stats.batches as f64 / stats.frames.max(1) as f64,
        stats.write_amplification()
    );

    // Instead of a callback one may await, or wait for, what `submit` returns: all three may be mixed.
    batch.append(1, &[(ROUNDS + 1, 1, "awaited")]);
    let pending = wal.submit(&mut batch)?;
    let lsn = pending.lsn();
    pending.wait()?;
    assert!(wal.durable_lsn() >= lsn);
    wal.close()?;
    Ok(())
}
