//! The thread that reads old entries, kept in step: a request is read before anything else happens.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use raft::eraftpb::{ConfState, Entry};
use raft::{GetEntriesContext, Storage as _};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, FetchQueue, Fetched, GroupStorage};

/// A group that only this uses: its request is read after all earlier ones.
const LAST_IN_LINE: u64 = u64::MAX / 2;
const ENTRIES: u64 = 40;

pub struct Fetches {
    queue: FetchQueue,
    woken: Receiver<()>,
    last_in_line: GroupStorage,
    /// Read, but not handed over yet.
    pub done: Vec<Fetched>,
}

impl Fetches {
    pub fn new() -> Self {
        let (wake, woken) = channel();
        let wake = move || {
            let _ = wake.send(());
        };
        let queue = FetchQueue::new(wake).expect("a thread");
        let mut last_in_line = GroupStorage::open(log(), LAST_IN_LINE).expect("the group opens");
        last_in_line.fetch_with(&queue);
        Self { queue, woken, last_in_line, done: Vec::new() }
    }

    pub fn serve(&self, storage: &mut GroupStorage) {
        storage.fetch_with(&self.queue);
    }

    /// Waits until all requests so far are read.
    pub fn keep_step(&mut self) {
        let read = |storage: &GroupStorage| storage.entries(2, 3, None, GetEntriesContext::empty(true));
        assert!(read(&self.last_in_line).is_err(), "it is in memory");
        let mut is_read = false;
        while !is_read {
            self.woken.recv().expect("the thread lives");
            let (done, last_in_line) = (&mut self.done, &mut self.last_in_line);
            self.queue.poll(|fetched| {
                if fetched.group() == LAST_IN_LINE {
                    last_in_line.accept(fetched);
                    is_read = true;
                } else {
                    done.push(fetched);
                }
            });
        }
        assert!(read(&self.last_in_line).is_ok(), "it was read");
    }
}

/// A log with a group that is not in memory.
fn log() -> &'static Wal {
    static LOG: OnceLock<Wal> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let wal = Wal::options()
            .segment_size(1 << 20)
            .background(false)
            .recent_bytes(1 << 20)
            .open_disk(disk)
            .expect("a log");
        let mut storage = GroupStorage::open(&wal, LAST_IN_LINE).expect("a group");
        let conf_state = ConfState { voters: vec![1], ..ConfState::default() };
        let mut batch = Batch::new();
        storage.bootstrap(&mut batch, &conf_state, b"").expect("a bootstrap");
        wal.commit(&mut batch).expect("a commit");
        for index in 2..2 + ENTRIES {
            let entry = Entry { index, term: 1, data: vec![7; 60_000].into(), ..Entry::default() };
            storage.append(&mut batch, &[entry]).expect("an entry");
            wal.commit(&mut batch).expect("a commit");
        }
        let checkpoint = Checkpoint { index: 1 + ENTRIES, term: 1, conf_state: &conf_state, data: b"" };
        storage.checkpoint(&mut batch, checkpoint).expect("a checkpoint");
        wal.commit(&mut batch).expect("a commit");
        wal
    })
}
