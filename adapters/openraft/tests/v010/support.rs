//! Shared by the tests: small logs, and helpers to drive openraft.

use std::sync::Arc;

use futures_util::FutureExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{EntryOf, LogIdOf, OneshotReceiverOf, VoteOf};
use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Options, Wal};
use strandlog_openraft::LogStore;

#[path = "../worlds/rng.rs"]
mod rng;
pub use rng::Rng;

openraft::declare_raft_types!(
    pub Types: D = String, R = String, NodeId = u64, Node = openraft::EmptyNode,
);

pub type Store = LogStore<Types>;
pub type Entry = EntryOf<Types>;
pub type LogId = LogIdOf<Types>;
pub type Vote = VoteOf<Types>;

pub fn options() -> Options {
    Wal::options().chunk_size(4096).segment_size(64 << 10).direct_threshold(8 << 10)
}

pub fn disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::new(8 << 20))
}

pub fn open(disk: &Arc<SimDisk>) -> Arc<Wal> {
    Arc::new(options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("the log opens"))
}

/// Without threads: nothing is durable before a caller waits for it, and every run makes the same writes.
pub fn open_still(disk: &Arc<SimDisk>) -> Arc<Wal> {
    try_open_still(disk).expect("the log opens")
}

pub fn try_open_still(disk: &Arc<SimDisk>) -> strandlog::Result<Arc<Wal>> {
    options().background(false).open_disk(Arc::clone(disk) as Arc<dyn Disk>).map(Arc::new)
}

pub fn store(wal: &Arc<Wal>, group: u64) -> Store {
    Store::new(Arc::clone(wal), group).expect("the group opens")
}

/// The leader of a term is the node whose id is that number plus ten.
pub fn log_id(term: u64, index: u64) -> LogId {
    openraft::testing::log_id::<Types>(term, term + 10, index)
}

pub fn entry(term: u64, index: u64, data: &str) -> Entry {
    use openraft::entry::RaftEntry;
    Entry::new_normal(log_id(term, index), data.to_owned())
}

pub fn vote(term: u64, node: u64) -> Vote {
    Vote::new(term, node)
}

/// Appends entries of one term and waits until they are durable.
pub async fn append(store: &mut Store, term: u64, indexes: std::ops::Range<u64>) {
    let entries = indexes.map(|index| entry(term, index, &format!("{term}/{index}")));
    store.blocking_append(entries.collect::<Vec<_>>()).await.expect("appended");
}

/// Appends one entry without waiting. The returned receiver completes when it is durable.
pub async fn append_later(store: &mut Store, entry: Entry) -> Told {
    let (told, told_later) = Types::oneshot();
    store.append([entry], IOFlushed::signal(told)).await.expect("appended");
    told_later
}

pub type Told = OneshotReceiverOf<Types, std::io::Result<()>>;

/// What has been received by now, if anything. tokio's budget, which ends a task's turn, does not count.
pub fn told_already(told: &mut Told) -> Option<std::io::Result<()>> {
    tokio::task::unconstrained(told).now_or_never().map(|told| told.expect("a callback was dropped"))
}

/// Everything that the store would return after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub committed: Option<LogId>,
    pub entries: Vec<Entry>,
}

pub async fn held(store: &mut Store) -> Held {
    let state = store.get_log_state().await.expect("a log state");
    let committed = store.read_committed().await.expect("a committed log id");
    let mut reader = store.get_log_reader().await;
    Held {
        vote: reader.read_vote().await.expect("a vote"),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        committed,
        entries: reader.try_get_log_entries(..).await.expect("entries"),
    }
}

pub fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}
