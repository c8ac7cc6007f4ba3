//! What a contestant must be able to do, and the contestants.

use std::path::Path;
use std::sync::Arc;

use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use strandlog::{Batch, Placement, Wal};

/// One replica's share of a commit.
pub struct Part<'a> {
    pub replica: u64,
    pub first: u64,
    pub entries: &'a [&'a [u8]],
    /// Entries below this go.
    pub truncate: Option<u64>,
}

pub trait Store: Send + Sync {
    /// Durable on return.
    fn commit(&self, parts: &[Part<'_>], scratch: &mut Scratch);
    /// Number of entries read.
    fn scan(&self, replica: u64) -> u64;
    fn entry(&self, replica: u64, index: u64) -> usize;
    /// What a store's user must call now and then.
    fn tend(&self) {}
    /// Ends without closing, as far as the store allows.
    fn abandon(self: Box<Self>);
    fn notes(&self) -> String {
        String::new()
    }
}

/// Buffers a thread keeps.
#[derive(Default)]
pub struct Scratch {
    batch: Batch,
}

pub struct Strand(Arc<Wal>);

impl Strand {
    pub fn open(dir: &Path, capacity: u64, placement: Placement) -> Box<dyn Store> {
        std::fs::create_dir_all(dir).unwrap();
        let wal = Wal::options().capacity(capacity).placement(placement).open(dir.join("log")).unwrap();
        Box::new(Self(Arc::new(wal)))
    }
}

impl Store for Strand {
    fn commit(&self, parts: &[Part<'_>], scratch: &mut Scratch) {
        for part in parts {
            let mut index = part.first;
            // Tuples as the API takes them; small enough to live on the stack of the loop.
            for chunk in part.entries.chunks(8) {
                let mut tuples: [(u64, u64, &[u8]); 8] = [(0, 1, &[]); 8];
                for (slot, data) in tuples.iter_mut().zip(chunk) {
                    *slot = (index, 1, data);
                    index += 1;
                }
                scratch.batch.append(part.replica, &tuples[..chunk.len()]);
            }
            if let Some(first) = part.truncate {
                scratch.batch.truncate_prefix(part.replica, first);
            }
        }
        self.0.commit(&mut scratch.batch).unwrap();
    }

    fn scan(&self, replica: u64) -> u64 {
        let r = self.0.replica(replica);
        let (mut next, last) = r.bounds();
        let mut n = 0;
        while next <= last {
            let got = r.entries(next..last + 1, 1 << 20).unwrap();
            n += got.len() as u64;
            next += got.len() as u64;
        }
        n
    }

    fn entry(&self, replica: u64, index: u64) -> usize {
        self.0.replica(replica).entry(index).unwrap().data.len()
    }

    fn abandon(self: Box<Self>) {
        // Dropping is stopping like a crash: nothing is flushed or sealed.
    }

    fn notes(&self) -> String {
        let s = self.0.stats();
        format!(
            "frames {} entries/frame {:.1} journal {} MiB settled {} MiB carried {} MiB segments {}/{} free {} cleaned {} stalls {} recovery {} us, {}",
            s.frames,
            s.entries as f64 / s.frames.max(1) as f64,
            s.journal_bytes >> 20,
            s.settled_bytes >> 20,
            s.carried_bytes >> 20,
            s.journal_segments,
            s.journal_cap_segments,
            s.free_segments,
            s.segments_cleaned,
            s.stalls,
            s.recovery_micros,
            s.disk.map_or(String::new(), |d| d.to_string()),
        )
    }
}

pub struct RaftEngine(Arc<Engine>);

#[derive(Clone)]
struct Ext;

/// raft-engine wants a protobuf message with an index; this well-known one has an integer and bytes.
impl MessageExt for Ext {
    type Entry = UninterpretedOption;
    fn index(e: &Self::Entry) -> u64 {
        e.get_positive_int_value()
    }
}

impl RaftEngine {
    pub fn open(dir: &Path, tuned: bool) -> Box<dyn Store> {
        std::fs::create_dir_all(dir).unwrap();
        let mut config = Config { dir: dir.join("engine").to_string_lossy().into_owned(), ..Config::default() };
        if tuned {
            config.batch_compression_threshold = ReadableSize(0);
            config.enable_log_recycle = true;
            config.prefill_for_recycle = true;
        }
        config.recovery_mode = RecoveryMode::TolerateTailCorruption;
        Box::new(Self(Arc::new(Engine::open(config).unwrap())))
    }
}

impl Store for RaftEngine {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        let mut batch = LogBatch::with_capacity(parts.len());
        for part in parts {
            let entries: Vec<UninterpretedOption> = part
                .entries
                .iter()
                .enumerate()
                .map(|(i, data)| {
                    let mut e = UninterpretedOption::new();
                    e.set_positive_int_value(part.first + i as u64);
                    e.set_string_value(data.to_vec());
                    e
                })
                .collect();
            batch.add_entries::<Ext>(part.replica, &entries).unwrap();
            if let Some(first) = part.truncate {
                batch.add_command(part.replica, raft_engine::Command::Compact { index: first });
            }
        }
        self.0.write(&mut batch, true).unwrap();
    }

    fn scan(&self, replica: u64) -> u64 {
        let (Some(first), Some(last)) = (self.0.first_index(replica), self.0.last_index(replica)) else { return 0 };
        let mut out = Vec::new();
        let (mut next, mut n) = (first, 0);
        while next <= last {
            out.clear();
            self.0.fetch_entries_to::<Ext>(replica, next, last + 1, Some(1 << 20), &mut out).unwrap();
            n += out.len() as u64;
            next += out.len() as u64;
        }
        n
    }

    fn entry(&self, replica: u64, index: u64) -> usize {
        self.0.get_entry::<Ext>(replica, index).unwrap().unwrap().get_string_value().len()
    }

    fn tend(&self) {
        for replica in self.0.purge_expired_files().unwrap() {
            // It asks for these to be compacted; a store cannot always oblige.
            let _ = replica;
        }
    }

    fn abandon(self: Box<Self>) {
        // Its drop closes its files; there is no more abrupt way within one process.
    }
}
