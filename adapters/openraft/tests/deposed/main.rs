//! openraft 0.9 leaves a leader's replication running when another leads. Of five nodes, one hears only from the old leader, whose
//! replication is in the middle of a read of its log when the next leader's entries replace those that it was to read.

#![cfg(feature = "v09")]
#![allow(missing_docs)]

mod disk;
mod machine;
mod network;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft_09::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use strandlog::Wal;
use strandlog::disk::Disk;
use strandlog_openraft::v09::LogStore;

use disk::Interrupted;
use machine::Machine;
use network::{Links, Net};

openraft_09::declare_raft_types!(
    pub Types: D = String, R = (), NodeId = u64, Node = EmptyNode,
        Entry = openraft_09::Entry<Types>, SnapshotData = std::io::Cursor<Vec<u8>>,
);

const OLD: u64 = 0;
const NEW: u64 = 1;
const THIRD: u64 = 2;
/// Hears only from the old leader.
const APART: u64 = 4;
const NODES: u64 = 5;
/// Size of an entry: one read for replication takes one entry, and leaves the next to another read.
const LARGE: usize = 600 << 10;
/// Entries that only the old leader has; `APART` has the first of them. The next leader's entries take their places and more: so many that
/// a third leader searches its log for what `APART` has beyond the place where the two logs diverge.
const OF_OLD: u64 = 9;
const OF_NEW: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deposed_leaders_replication_sends_nothing_of_the_next_ones_log() {
    another_leads(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_does_it_where_its_group_was_shut_down_and_opened_anew() {
    another_leads(true).await;
}

/// Another node becomes leader in the middle of the old leader's read. `anew`: the old one is shut down then,
/// and starts again on the same log.
async fn another_leads(anew: bool) {
    let net = Arc::new(Net::default());
    let disk = Interrupted::new(16 << 20);
    let mut nodes = Vec::new();
    for id in 0..NODES {
        let disk = if id == OLD { Arc::clone(&disk) } else { Interrupted::new(16 << 20) };
        // Reads come from the disk: memory holds only the last of these entries.
        let options = Wal::options().chunk_size(64 << 10).segment_size(1 << 20).recent_bytes(1 << 20);
        let wal = options.open_disk(disk as Arc<dyn Disk>).unwrap();
        nodes.push(start(id, &net, Arc::new(wal)).await);
    }
    let [old, new, third, apart] = [OLD, NEW, THIRD, APART].map(|id| &nodes[id as usize]);

    // All have the first leader's initial entries.
    net.open(|_, _| true);
    old.raft.initialize((0..NODES).collect::<BTreeSet<_>>()).await.unwrap();
    old.raft.wait(None).state(ServerState::Leader, "the first leads").await.unwrap();
    let begun = old.raft.wait(None).metrics(|now| now.last_log_index == Some(1), "it began").await.unwrap();
    for node in &nodes {
        let has_it = |now: &openraft_09::RaftMetrics<u64, EmptyNode>| now.last_log_index == begun.last_log_index;
        node.raft.wait(None).metrics(has_it, "has what it began with").await.unwrap();
    }

    // The old leader writes on, and no other node hears of it; then one hears of the first entry. The next one is being read.
    net.open(|_, _| false);
    for _ in 0..OF_OLD {
        let raft = old.raft.clone();
        tokio::spawn(async move { raft.client_write("x".repeat(LARGE)).await });
    }
    old.raft.wait(None).metrics(|now| now.last_log_index == Some(1 + OF_OLD), "it goes on").await.unwrap();
    old.wal.sync().unwrap();
    net.hold_next_read_behind(OLD, APART);
    net.open(|from, to| [from, to].iter().all(|node| [OLD, APART].contains(node)));
    disk.reading().await;
    let again;
    let old = if anew {
        old.raft.shutdown().await.unwrap();
        again = start(OLD, &net, Arc::clone(&old.wal)).await;
        &again
    } else {
        old
    };

    // The others elect another leader, which writes entries of its own, and the old one follows it.
    let others = |node| node != APART && node != OLD;
    net.open(|from, to| others(from) && others(to) || [(OLD, APART), (APART, OLD)].contains(&(from, to)));
    new.lead().await;
    let mut end = 0;
    for _ in 0..OF_NEW {
        end = new.write().await;
    }
    net.open(|from, to| others(from) && (others(to) || to == OLD) || from == OLD);
    old.machine.until(end).await;

    // What it now reads belongs to another log. When it has sent what it got, `APART` hears from a third leader, whose log is long.
    let sent = net.next_append(OLD, APART);
    disk.go_on();
    sent.await;
    net.open(|from, to| from != APART && to != APART);
    third.machine.until(end).await;
    third.lead().await;
    net.open(|_, _| true);
    let end = third.write().await;
    apart.machine.until(end).await;
    let applied = |node: &Node| node.machine.applied()[..=end as usize].to_vec();
    assert_eq!(applied(apart), applied(third), "it applied what others did not");
    for node in nodes {
        node.raft.shutdown().await.unwrap();
    }
}

struct Node {
    raft: Raft<Types>,
    machine: Machine,
    wal: Arc<Wal>,
}

impl Node {
    async fn lead(&self) {
        while self.raft.metrics().borrow().state != ServerState::Leader {
            self.raft.trigger().elect().await.unwrap();
            // Or the others still follow the previous leader.
            let soon = self.raft.wait(Some(Duration::from_millis(400)));
            drop(soon.state(ServerState::Leader, "it leads").await);
        }
    }

    /// Returns the index of the entry.
    async fn write(&self) -> u64 {
        loop {
            // An election that was requested twice may be under way.
            if let Ok(written) = self.raft.client_write("y".to_owned()).await {
                return written.log_id.index;
            }
            self.lead().await;
        }
    }
}

async fn start(id: u64, net: &Arc<Net>, wal: Arc<Wal>) -> Node {
    let machine = Machine::default();
    // No node does anything by itself.
    let config = Config {
        enable_tick: false,
        heartbeat_interval: 200,
        election_timeout_min: 300,
        election_timeout_max: 301,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let store = LogStore::<Types>::new(Arc::clone(&wal), 1).unwrap();
    let links = Links { net: Arc::clone(net), from: id };
    let raft = Raft::new(id, Arc::new(config.validate().unwrap()), links, store, machine.clone()).await.unwrap();
    net.begin(id, raft.clone());
    Node { raft, machine, wal }
}
