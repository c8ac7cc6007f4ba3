//! The shortest way through everything: create, write, read, crash, recover, truncate.
//!
//! ```sh
//! cargo run --example quickstart [PATH]
//! ```

use std::error::Error;
use std::path::PathBuf;

use strandlog::{Batch, Wal};

const REPLICA: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or_else(|| scratch.path().join("raft.log"), PathBuf::from);
    let options = || Wal::options().capacity(64 << 20);

    // The file is created whole, or recovered. One process at a time.
    let wal = options().open(&path)?;
    println!("{} is open: {}", path.display(), wal.stats().disk.map_or_else(String::new, |disk| disk.to_string()));

    // A batch is atomic over all the replicas that it names. This example may be run twice on one file, so it goes on where
    // the log ends.
    let next = wal.replica(REPLICA).last_index() + 1;
    let mut batch = Batch::new();
    batch.append(REPLICA, &[(next, 1, "the first"), (next + 1, 1, "the second"), (next + 2, 1, "the third")]);
    batch.put(REPLICA, b"hard_state", b"term 1, vote 3");
    batch.put(8, b"hard_state", b"another replica, in the same breath");
    let lsn = wal.commit(&mut batch)?;
    println!("durable up to LSN {lsn}");

    // A new leader overwrites the suffix: one commit, one sync.
    batch.append(REPLICA, &[(next + 1, 2, "the second, as the new leader has it")]);
    wal.commit(&mut batch)?;

    // Dropped without closing, as in a crash. What was acknowledged is there.
    drop(wal);
    let wal = options().open(&path)?;
    let replica = wal.replica(REPLICA);
    println!("replica {REPLICA} holds {}..={}:", replica.first_index(), replica.last_index());
    for entry in replica.entries(next..replica.last_index() + 1, usize::MAX)? {
        println!("  {} (term {}): {}", entry.index, entry.term, String::from_utf8_lossy(&entry.data));
    }
    if let Some(state) = replica.get(b"hard_state")? {
        println!("  hard state: {}", String::from_utf8_lossy(&state));
    }

    // Applied, and durable in the state machine: the prefix may go. That costs no sync of its own.
    batch.truncate_prefix(REPLICA, next + 1).lazy();
    // Nobody waits for it: whether it survives a crash does not matter, as it can be repeated.
    drop(wal.submit(&mut batch)?);
    println!("truncated: replica {REPLICA} begins at {}", replica.first_index());
    wal.close()?;
    Ok(())
}
