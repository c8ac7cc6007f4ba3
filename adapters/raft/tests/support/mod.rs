//! Shared by the tests: small logs on simulated disks, and helpers to drive raft.

#![allow(dead_code, missing_docs, reason = "each test uses its part")]

use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use raft::{Config, RawNode};
use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Options, Wal};
use strandlog_raft::GroupStorage;

/// A log without threads of its own: nothing is durable before a caller syncs.
pub fn options() -> Options {
    Wal::options().chunk_size(4096).segment_size(64 << 10).direct_threshold(8 << 10).background(false)
}

pub fn disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::new(4 << 20))
}

pub fn open(disk: &Arc<SimDisk>) -> Wal {
    options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("the log opens")
}

pub fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

pub fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

pub fn conf_state(voters: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), ..ConfState::default() }
}

pub fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    let mut message = Message { from, to, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

/// Commits what `write` puts into a batch.
pub fn commit<T>(wal: &Wal, write: impl FnOnce(&mut Batch) -> T) -> T {
    let mut batch = Batch::new();
    let out = write(&mut batch);
    wal.commit(batch).expect("the batch is committed");
    out
}

/// A group of three, just bootstrapped.
pub fn bootstrapped(wal: &Wal, group: u64) -> GroupStorage {
    let mut storage = GroupStorage::open(wal, group).expect("the group opens");
    commit(wal, |batch| storage.bootstrap(batch, &conf_state(&[1, 2, 3]), b"start")).expect("a bootstrap");
    storage
}

/// Replica 1 of `count` groups of three, as the log has it or just bootstrapped.
pub fn nodes(wal: &Wal, groups: u64, fresh: bool) -> Vec<RawNode<GroupStorage>> {
    let storage = |group| match fresh {
        true => bootstrapped(wal, group),
        false => GroupStorage::open(wal, group).expect("the group opens"),
    };
    (0..groups).map(|group| node(1, storage(group))).collect()
}

pub fn node(id: u64, storage: GroupStorage) -> RawNode<GroupStorage> {
    let config = Config {
        id,
        applied: storage.applied(),
        election_tick: 10,
        heartbeat_tick: 3,
        max_size_per_msg: 1 << 20,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, storage, &logger).expect("the node starts")
}
