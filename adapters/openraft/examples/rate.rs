//! Measures writes per second, and the time of one, with one node or several in this process, each with a log of its own and one group.
//!
//! `cargo run --release --example rate -- --nodes 3 --clients 64 --seconds 2 --dir /on/the/disk`

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{Stream, StreamExt};
use hdrhistogram::Histogram;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::{
    Config, EmptyNode, EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2, ServerState, SnapshotPolicy,
};
use strandlog::Wal;
use strandlog_openraft::v010::LogStore;

openraft::declare_raft_types!(
    /// A line, and nothing is answered.
    pub Types: D = String, R = (), NodeId = u64, Node = EmptyNode,
);

type Raft = openraft::Raft<Types, Machine>;
type Snapshot = SnapshotOf<Types, Vec<u8>>;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// Each waits for its write.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Bytes of a write.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Where the logs lie. Default: the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Remembers its position, and nothing else.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<SnapshotMetaOf<Types>>>);

impl Machine {
    fn now(&self) -> SnapshotMetaOf<Types> {
        self.0.lock().unwrap().clone()
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(Snapshot { meta: self.now(), snapshot: Vec::new() })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let now = self.now();
        Ok((now.last_log_id, now.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(one) = entries.next().await {
            let (entry, responder) = one?;
            let mut now = self.0.lock().unwrap();
            now.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(members) = entry.payload {
                now.last_membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), members);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, _: Vec<u8>) -> io::Result<()> {
        *self.0.lock().unwrap() = meta.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(None)
    }
}

/// The nodes, which call each other directly.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<BTreeMap<u64, Raft>>>);

struct Link(Net, u64);

impl RaftNetworkFactory<Types> for Net {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Link {
        Link(self.clone(), to)
    }
}

impl Link {
    fn node(&self) -> Result<Raft, Unreachable<Types>> {
        let nodes = self.0.0.lock().unwrap();
        nodes.get(&self.1).cloned().ok_or_else(|| Unreachable::new(&io::Error::other("it is not there yet")))
    }
}

fn no_answer(error: impl Error + 'static) -> Unreachable<Types> {
    Unreachable::new(&error)
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.node()?.append_entries(rpc).await.map_err(no_answer)?)
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.node()?.vote(rpc).await.map_err(no_answer)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Ok(self.node()?.install_full_snapshot(vote, snapshot).await.map_err(no_answer)?)
    }
}

async fn begin(args: &Args, dir: &std::path::Path) -> Result<Raft, Box<dyn Error>> {
    let net = Net::default();
    let config = Config {
        heartbeat_interval: 200,
        // So long that no other node takes over because the machine was busy.
        election_timeout_min: 10_000,
        election_timeout_max: 20_000,
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    for id in 0..args.nodes {
        let wal = Wal::options().capacity(1 << 30).open(dir.join(format!("{id}.log")))?;
        let store = LogStore::<Types>::new(Arc::new(wal), 1)?;
        let raft = Raft::new(id, Arc::clone(&config), net.clone(), store, Machine::default()).await?;
        net.0.lock().unwrap().insert(id, raft);
    }
    let first = Link(net.clone(), 0).node()?;
    let nodes: BTreeMap<u64, EmptyNode> = (0..args.nodes).map(|id| (id, EmptyNode {})).collect();
    first.initialize(nodes).await?;
    first.wait(Some(Duration::from_secs(20))).state(ServerState::Leader, "it leads").await?;
    // Until the others have answered, the leader serves nobody.
    while first.client_write("the first".to_owned()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(first)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let raft = begin(&args, dir.path()).await?;
    let (started, line) = (Instant::now(), "x".repeat(args.payload));
    let clients = (0..args.clients).map(|_| {
        let (raft, line, seconds) = (raft.clone(), line.clone(), args.seconds);
        tokio::spawn(async move {
            let mut took = Vec::new();
            while started.elapsed().as_secs_f64() < seconds {
                let at = Instant::now();
                raft.client_write(line.clone()).await.map_err(|error| error.to_string())?;
                took.push(at.elapsed());
            }
            Ok::<_, String>(took)
        })
    });
    let mut micros = Histogram::<u64>::new(3)?;
    for client in clients.collect::<Vec<_>>() {
        for took in client.await?? {
            micros.record(u64::try_from(took.as_micros())?)?;
        }
    }
    let rate = micros.len() as f64 / started.elapsed().as_secs_f64();
    let (median, high) = (micros.value_at_quantile(0.5), micros.value_at_quantile(0.99));
    println!("{} nodes, {} clients: {rate:.0} writes/s, p50 {median} us, p99 {high} us", args.nodes, args.clients);
    Ok(())
}
