//! walrus-rust: a topic for each replica, synced after each entry; nothing is truncated.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Part, Scratch, Store};

pub struct WalrusStore(Walrus);

impl WalrusStore {
    pub fn open(dir: &Path) -> Self {
        // SAFETY: before any other thread is started.
        unsafe { std::env::set_var("WALRUS_DATA_DIR", dir) };
        let consistency = ReadConsistency::StrictlyAtOnce;
        Self(Walrus::with_consistency_and_schedule_for_key("race", consistency, FsyncSchedule::SyncEach).unwrap())
    }
}

impl Store for WalrusStore {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        for part in parts {
            let topic = format!("r{}", part.replica);
            match part.entries {
                [one] => self.0.append_for_topic(&topic, one).unwrap(),
                many => self.0.batch_append_for_topic(&topic, many).unwrap(),
            }
        }
    }
}
