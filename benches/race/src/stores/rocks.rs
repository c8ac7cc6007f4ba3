//! RocksDB, for raft alone: keys are replica and index, big endian, so that a replica's entries lie side by side.

use std::path::Path;

use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

use super::{Part, Scratch, Store};

pub struct Rocks(DB);

fn key(replica: u64, index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&replica.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl Rocks {
    pub fn open(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_write_buffer_size(64 << 20);
        options.set_max_background_jobs(2);
        Self(DB::open(&options, dir.join("rocks")).unwrap())
    }
}

impl Store for Rocks {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        let mut batch = WriteBatch::default();
        for part in parts {
            for (i, data) in part.entries.iter().enumerate() {
                batch.put(key(part.replica, part.first + i as u64), data);
            }
            if let Some(first) = part.truncate {
                batch.delete_range(key(part.replica, 0), key(part.replica, first));
            }
        }
        self.0.write_opt(batch, &synced()).unwrap();
    }

    fn state(&self, replicas: &[u64], value: &[u8], _: &mut Scratch) {
        let mut batch = WriteBatch::default();
        for &replica in replicas {
            batch.put(key(replica, u64::MAX), value);
        }
        self.0.write_opt(batch, &synced()).unwrap();
    }

    fn apply(&self, at: u64, value: &[u8]) {
        // Its keys lie behind those of every replica.
        self.0.put(key(u64::MAX, at), value).unwrap();
    }

    fn read(&self, replica: u64, first: u64, last: u64) -> u64 {
        let from = key(replica, first);
        let iter = self.0.iterator(IteratorMode::From(&from, Direction::Forward));
        iter.take((last - first + 1) as usize).map(|item| item.unwrap()).filter(|(k, _)| k[..8] == from[..8]).count()
            as u64
    }

    fn entry(&self, replica: u64, index: u64) -> usize {
        self.0.get_pinned(key(replica, index)).unwrap().unwrap().len()
    }
}
