//! A leader that is killed between "the others have it" and "my own log has it". openraft 0.10 sends entries when they are submitted, and by
//! default (`Config::enable_leader_restore`) it resumes as the leader of the same term: it would give the same log ids to other entries,
//! and followers would answer that they have them.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::RaftLogReader;
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{Config, EmptyNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use strandlog::disk::sim::SimDisk;
use tokio::time::{sleep, timeout};

use crate::machine::{Contents, Machine};
use crate::support::{Types, disk, open, store};

type Raft = openraft::Raft<Types, Machine>;
type Nodes = Arc<Mutex<HashMap<u64, Raft>>>;

const GROUP: u64 = 7;
/// Nothing here takes this long, except a test that would never end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one node reaches the others, until it is unplugged.
#[derive(Clone)]
struct Net {
    nodes: Nodes,
    plugged: Arc<AtomicBool>,
}

struct Client {
    net: Net,
    target: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("away")]
struct Away;

fn away() -> RPCError<Types> {
    Unreachable::new(&Away).into()
}

impl RaftNetworkFactory<Types> for Net {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Client {
        Client { net: self.clone(), target }
    }
}

impl Client {
    fn to(&self) -> Result<Raft, RPCError<Types>> {
        let to = self.net.nodes.lock().unwrap().get(&self.target).cloned();
        to.filter(|_| self.net.plugged.load(Ordering::SeqCst)).ok_or_else(away)
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Contents;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.to()?.append_entries(rpc).await.map_err(|_| away())
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.to()?.vote(rpc).await.map_err(|_| away())
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, Contents>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        unreachable!("no log is purged here")
    }
}

/// openraft's defaults, except that nobody is elected before a killed leader is back.
async fn start(nodes: &Nodes, id: u64, disk: &Arc<SimDisk>) -> (Raft, Arc<AtomicBool>) {
    let config =
        Config { heartbeat_interval: 100, election_timeout_min: 2000, election_timeout_max: 3000, ..Config::default() };
    let plugged = Arc::new(AtomicBool::new(true));
    let net = Net { nodes: Arc::clone(nodes), plugged: Arc::clone(&plugged) };
    let raft = Raft::new(id, Arc::new(config), net, store(&open(disk), GROUP), Machine::default()).await.unwrap();
    nodes.lock().unwrap().insert(id, raft.clone());
    (raft, plugged)
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let is = async {
        while !is().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, is).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn last(raft: &Raft) -> Option<u64> {
    raft.metrics().borrow_watched().last_log_index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_is_killed_does_not_give_one_log_id_to_two_entries() {
    let nodes = Nodes::default();
    let disks: Vec<_> = (0..3).map(|_| disk()).collect();
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = Arc::clone(&slow);
    disks[0].on_event(move |_| {
        while is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    });
    let mut rafts = Vec::new();
    for (id, disk) in (0..).zip(&disks) {
        rafts.push(start(&nodes, id, disk).await);
    }
    let (leader, plugged) = &rafts[0];
    leader.initialize((0..3).map(|id| (id, EmptyNode {})).collect::<BTreeMap<_, _>>()).await.unwrap();
    until("a leader", async || leader.client_write("first".to_owned()).await.is_ok()).await;
    let at = last(leader);
    until("all have it", async || rafts.iter().all(|(raft, _)| last(raft) == at)).await;

    // The device of node 0 is slow: what the others already have is not durable there. Then node 0 is killed.
    let found = Arc::new(disks[0].crash_lost_all());
    slow.store(true, Ordering::SeqCst);
    let old = leader.clone();
    tokio::spawn(async move { old.client_write("one".to_owned()).await.map(drop) });
    until("the others have it", async || rafts[1..].iter().all(|(raft, _)| last(raft) > at)).await;
    plugged.store(false, Ordering::SeqCst);
    nodes.lock().unwrap().remove(&0);

    // It comes back, and a client writes.
    start(&nodes, 0, &found).await;
    let written = async {
        loop {
            let all: Vec<Raft> = nodes.lock().unwrap().values().cloned().collect();
            for raft in all {
                if let Ok(answer) = raft.client_write("two".to_owned()).await {
                    return answer.log_id;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let written = timeout(PATIENCE, written).await.expect("acknowledged");
    let all_of_it = async || nodes.lock().unwrap().values().all(|raft| last(raft) >= Some(written.index));
    until("all have that, too", all_of_it).await;

    slow.store(false, Ordering::SeqCst);
    let mut held = Vec::new();
    for (id, disk) in [(0, &found), (1, &disks[1]), (2, &disks[2])] {
        let raft = nodes.lock().unwrap().remove(&id).unwrap();
        raft.shutdown().await.unwrap();
        let mut reader = store(&open(&Arc::new(disk.crash_kept_all())), GROUP).reader();
        held.push(reader.try_get_log_entries(written.index..written.index + 1).await.unwrap());
    }
    assert!(held.iter().all(|one| *one == held[0]), "acknowledged as {written}, and the nodes hold {held:?}");
}
