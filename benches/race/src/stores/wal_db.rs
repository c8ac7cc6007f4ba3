//! wal-db: records in one log. Each entry's replica is written in front of it; nothing is indexed, nothing is truncated.

use std::path::Path;

use wal_db::{Wal, WalConfig};

use super::{Part, Scratch, Store};

pub struct WalDb(Wal);

impl WalDb {
    pub fn open(dir: &Path) -> Self {
        Self(Wal::open_with(dir.join("wal"), WalConfig::default()).unwrap())
    }
}

impl Store for WalDb {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        let mut record = Vec::new();
        for part in parts {
            for (i, data) in part.entries.iter().enumerate() {
                record.clear();
                record.extend_from_slice(&part.replica.to_le_bytes());
                record.extend_from_slice(&(part.first + i as u64).to_le_bytes());
                record.extend_from_slice(data);
                let _ = self.0.append(&record).unwrap();
            }
        }
        self.0.sync().unwrap();
    }
}
