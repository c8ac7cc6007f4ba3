//! TiKV's raft-engine.

use std::path::Path;

use raft_engine::{Config, Engine, MessageExt, ReadableSize, RecoveryMode};

use super::entry::Entry;
use super::{Part, Scratch, Store};

pub struct RaftEngine(Engine);

#[derive(Clone)]
struct Ext;

impl MessageExt for Ext {
    type Entry = Entry;
    fn index(e: &Self::Entry) -> u64 {
        e.index
    }
}

impl RaftEngine {
    pub fn open(dir: &Path, tuned: bool) -> Self {
        let mut config = Config { dir: dir.join("engine").to_string_lossy().into_owned(), ..Config::default() };
        if tuned {
            config.batch_compression_threshold = ReadableSize(0);
            config.enable_log_recycle = true;
            config.prefill_for_recycle = true;
            // More than a row writes. With all of its 15 GiB written before each measurement, that would be what is measured.
            config.prefill_limit = Some(ReadableSize::gb(3));
        }
        config.recovery_mode = RecoveryMode::TolerateTailCorruption;
        Self(Engine::open(config).unwrap())
    }
}

impl Store for RaftEngine {
    fn commit(&self, parts: &[Part<'_>], scratch: &mut Scratch) {
        // What the batch holds is taken out of it when it is written; its memory stays.
        let Scratch { log_batch, messages, .. } = scratch;
        for part in parts {
            messages.clear();
            messages.extend((part.first..).zip(part.entries).map(|(index, data)| Entry::new(index, data)));
            log_batch.add_entries::<Ext>(part.replica, messages).unwrap();
            if let Some(first) = part.truncate {
                log_batch.add_command(part.replica, raft_engine::Command::Compact { index: first });
            }
        }
        self.0.write(log_batch, true).unwrap();
    }

    fn state(&self, replicas: &[u64], value: &[u8], scratch: &mut Scratch) {
        for &replica in replicas {
            scratch.log_batch.put(replica, b"hs".to_vec(), value.to_vec()).unwrap();
        }
        self.0.write(&mut scratch.log_batch, true).unwrap();
    }

    fn read(&self, replica: u64, first: u64, last: u64) -> u64 {
        let mut out = Vec::new();
        let mut next = first;
        while next <= last {
            out.clear();
            self.0.fetch_entries_to::<Ext>(replica, next, last + 1, Some(1 << 20), &mut out).unwrap();
            next += out.len() as u64;
        }
        next - first
    }

    fn entry(&self, replica: u64, index: u64) -> usize {
        self.0.get_entry::<Ext>(replica, index).unwrap().unwrap().data.len()
    }

    fn term(&self, replica: u64, index: u64) -> Option<u64> {
        // It knows terms only through the entries; their value does not matter here.
        self.0.get_entry::<Ext>(replica, index).unwrap().map(|_| 1)
    }

    fn tend(&self) {
        // It names replicas that should be compacted; a store cannot always oblige.
        let _ = self.0.purge_expired_files().unwrap();
    }
}
