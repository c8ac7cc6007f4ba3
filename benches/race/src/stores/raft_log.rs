//! raft-log: the log of a single raft group. All threads append to that one; those that wait in line share a flush.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use parking_lot::Mutex;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog, Types};

use super::{Part, Scratch, Store};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OneGroup;

impl Types for OneGroup {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type Callback = SyncSender<Result<(), io::Error>>;
    type UserData = String;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

pub struct RaftLogStore(Mutex<(RaftLog<OneGroup>, u64)>);

impl RaftLogStore {
    pub fn open(dir: &Path) -> Self {
        let config = Config::new(dir.join("raft-log").to_string_lossy());
        std::fs::create_dir_all(dir.join("raft-log")).unwrap();
        Self(Mutex::new((RaftLog::open(Arc::new(config)).unwrap(), 0)))
    }
}

impl Store for RaftLogStore {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        let (done, wait) = sync_channel(1);
        {
            let mut guard = self.0.lock();
            let (log, next) = &mut *guard;
            for data in parts.iter().flat_map(|p| p.entries) {
                log.append([((1, *next), data.to_vec())]).unwrap();
                *next += 1;
            }
            if *next % 65536 == 0 {
                log.purge((1, *next - 32768)).unwrap();
            }
            log.flush(true, Some(done)).unwrap();
        }
        wait.recv().unwrap().unwrap();
    }
}
