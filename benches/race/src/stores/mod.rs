//! What a contestant must be able to do, and the contestants.

mod entry;
mod raft_engine;
mod raft_log;
#[cfg(feature = "rocksdb")]
pub mod rocks;
mod shared;
mod strand;
mod wal_db;
mod walrus;

use std::path::Path;

use strandlog::{Batch, Placement};

pub use strand::Strand;

/// One replica's share of a commit.
pub struct Part<'a> {
    pub replica: u64,
    pub first: u64,
    pub entries: &'a [&'static [u8]],
    /// Entries below this are truncated.
    pub truncate: Option<u64>,
}

/// Buffers that a thread keeps, as one that commits again and again would.
#[derive(Default)]
pub struct Scratch {
    pub batch: Batch,
    pub log_batch: ::raft_engine::LogBatch,
    pub messages: Vec<entry::Entry>,
}

/// Called for what a store cannot do: [`Row::takes`](crate::rows::Row::takes) keeps the store out of the rows that ask for it.
fn not_asked() -> ! {
    panic!("a row asks a store for what it cannot do: see `Row::takes`")
}

/// A log of many replicas.
pub trait Store: Send + Sync {
    /// Commits; durable on return.
    fn commit(&self, parts: &[Part<'_>], scratch: &mut Scratch);
    /// Sets the hard state of each replica, durable on return.
    fn state(&self, _replicas: &[u64], _value: &[u8], _scratch: &mut Scratch) {
        not_asked()
    }
    /// Reads the entries `[first, last]`; returns how many.
    fn read(&self, _replica: u64, _first: u64, _last: u64) -> u64 {
        not_asked()
    }
    /// Length of an entry.
    fn entry(&self, _replica: u64, _index: u64) -> usize {
        not_asked()
    }
    /// Term of an entry, if the store knows terms.
    fn term(&self, _replica: u64, _index: u64) -> Option<u64> {
        None
    }
    /// Puts a value that need not be durable, if the store keeps such.
    #[cfg(feature = "rocksdb")]
    fn apply(&self, _key: u64, _value: &[u8]) {
        not_asked()
    }
    /// What a user of the store must do now and then.
    fn tend(&self) {}
    /// Closes the store in an orderly way.
    fn close(&self) {}
    /// Bytes in which something is alive, for a store that writes its file whole beforehand.
    fn occupied(&self) -> Option<u64> {
        None
    }
    fn notes(&self) -> String {
        String::new()
    }
}

/// All contestants.
pub const NAMES: &[(&str, &str)] = &[
    ("raw", "a bare loop of O_DIRECT | O_DSYNC writes: the device's limit"),
    ("shared", "callers who share such writes, and nothing else: the machine's limit for who waits"),
    ("strandlog", "as it comes"),
    ("strandlog-chain", "every append placed in its replica's chain: the layout as the RFC drew it"),
    ("raft-engine", "0.4.2 as it comes"),
    ("raft-engine-tuned", "compression off, files recycled and filled beforehand"),
    ("rocksdb", "a RocksDB of its own for raft, synced writes (feature `rocksdb`)"),
    ("wal-db", "1.1: one log of records, no replicas, nothing is truncated"),
    ("raft-log", "0.4.6: the log of one raft group, shared by all threads"),
    ("walrus", "walrus-rust 0.2: a topic a replica, synced after each entry"),
];

/// Opens a contestant; `capacity` is for those that must know it in advance.
pub fn open(dir: &Path, name: &str, capacity: u64) -> Box<dyn Store> {
    match name {
        "shared" => Box::new(shared::Shared::open(dir)),
        "strandlog" => Box::new(Strand::open(dir, capacity, Placement::Auto)),
        "strandlog-chain" => Box::new(Strand::open(dir, capacity, Placement::Chain)),
        "raft-engine" => Box::new(raft_engine::RaftEngine::open(dir, false)),
        "raft-engine-tuned" => Box::new(raft_engine::RaftEngine::open(dir, true)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(rocks::Rocks::open(dir)),
        "wal-db" => Box::new(wal_db::WalDb::open(dir)),
        "raft-log" => Box::new(raft_log::RaftLogStore::open(dir)),
        "walrus" => Box::new(walrus::WalrusStore::open(dir)),
        _ => panic!("no such store, or not compiled in: {name}"),
    }
}
