//! One node: a process with one log, a member of every group, and one connection from each other node.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::type_config::alias::SnapshotOf;
use openraft::{Config, EmptyNode, ReadPolicy, SnapshotPolicy};
use strandlog::Wal;
use strandlog_openraft::LogStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::link::Link;
use crate::machine::Machine;
use crate::network::Network;
use crate::types::{Raft, Types};
use crate::wire::{Answer, Ask, Status, put_frame, take_frame};

/// Groups that are opened, or formed, at once.
const AT_ONCE: usize = 32;
/// How long a single write or read may take before its client is told to ask again.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWERS_A_WRITE: usize = 256;

#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Which of the nodes this is.
    #[arg(long)]
    pub id: u64,
    /// Where each node listens, this one among them.
    #[arg(long, value_delimiter = ',')]
    pub nodes: Vec<SocketAddr>,
    /// Raft groups.
    #[arg(long)]
    pub groups: u64,
    /// The log.
    #[arg(long)]
    pub log: PathBuf,
    /// Its size, where there is none yet.
    #[arg(long)]
    pub log_bytes: u64,
    /// Milliseconds between a leader's signs of life.
    #[arg(long)]
    pub heartbeat: u64,
}

impl NodeArgs {
    /// What `cluster` must be given to run this node.
    pub fn command_line(&self) -> Vec<OsString> {
        let nodes: Vec<String> = self.nodes.iter().map(SocketAddr::to_string).collect();
        let words = [
            "node".to_owned(),
            format!("--id={}", self.id),
            format!("--nodes={}", nodes.join(",")),
            format!("--groups={}", self.groups),
            format!("--log-bytes={}", self.log_bytes),
            format!("--heartbeat={}", self.heartbeat),
            "--log".to_owned(),
        ];
        words.into_iter().map(OsString::from).chain([self.log.clone().into_os_string()]).collect()
    }
}

struct Group {
    raft: Raft,
    machine: Machine,
}

struct Node {
    id: u64,
    members: u64,
    wal: Arc<Wal>,
    groups: Vec<Group>,
    open_micros: u64,
    snapshots: AtomicU64,
    found: u64,
}

/// Runs until standard input ends: the process that started it is gone, or wants it to end.
pub async fn run(args: NodeArgs) -> io::Result<()> {
    let addr = usize::try_from(args.id).ok().and_then(|id| args.nodes.get(id)).copied();
    let listener = TcpListener::bind(addr.ok_or(io::ErrorKind::InvalidInput)?).await?;
    let node = Arc::new(open(&args).await?);
    tokio::spawn(accept(listener, Arc::clone(&node)));
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    stream::iter(&node.groups).for_each_concurrent(AT_ONCE, |group| async { drop(group.raft.shutdown().await) }).await;
    node.wal.close().map_err(io::Error::other)
}

async fn open(args: &NodeArgs) -> io::Result<Node> {
    let wal = Wal::options().capacity(args.log_bytes).open(&args.log).map_err(io::Error::other)?;
    let wal = Arc::new(wal);
    let began = Instant::now();
    let found = (0..args.groups).map(|group| wal.replica(group).bounds()).map(|(first, last)| last + 1 - first).sum();
    let config = Arc::new(config(args.heartbeat)?);
    let links = Arc::new(args.nodes.iter().map(|&addr| Link::to(addr)).collect::<Vec<_>>());
    let opening = stream::iter(0..args.groups).map(|group| {
        let (wal, config) = (Arc::clone(&wal), Arc::clone(&config));
        let network = Network { links: Arc::clone(&links), group };
        async move {
            let machine = Machine::open(Arc::clone(&wal), group)?;
            let store = LogStore::<Types>::new(wal, group)?;
            let raft = Raft::new(args.id, config, network, store, machine.clone()).await.map_err(io::Error::other)?;
            io::Result::Ok(Group { raft, machine })
        }
    });
    let groups = opening.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect::<io::Result<_>>()?;
    let open_micros = began.elapsed().as_micros() as u64;
    Ok(Node {
        id: args.id,
        members: args.nodes.len() as u64,
        wal,
        groups,
        open_micros,
        snapshots: AtomicU64::new(0),
        found,
    })
}

fn config(heartbeat: u64) -> io::Result<Config> {
    let config = Config {
        heartbeat_interval: heartbeat,
        // A leader's lease lasts the longer of these; an election begins that long after it.
        election_timeout_min: heartbeat * 2,
        election_timeout_max: heartbeat * 3,
        enable_pre_vote: Some(true),
        // A leader's entries reach the others before they are durable here: after a kill, it must not resume its term.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: PATIENCE.as_millis() as u64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(50),
        max_in_snapshot_log_to_keep: 20,
        // A thousand groups that cannot reach a node must not spend all their time on trying.
        backoff: "1s".into(),
        ..Config::default()
    };
    config.validate().map_err(io::Error::other)
}

async fn accept(listener: TcpListener, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&node)))),
            // Too many open files, for instance: they will become fewer.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Serves one connection: each request is a task, and answers go out as they come.
async fn serve(stream: TcpStream, node: Arc<Node>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let (answers, mut answered) = mpsc::unbounded_channel::<(u64, Answer)>();
    tokio::spawn(async move {
        let (mut bytes, mut some) = (Vec::new(), Vec::new());
        while answered.recv_many(&mut some, ANSWERS_A_WRITE).await > 0 {
            for (number, answer) in some.drain(..) {
                bytes = put_frame(number, &answer, bytes)?;
            }
            to.write_all(&bytes).await?;
            bytes.clear();
        }
        io::Result::Ok(())
    });
    let (mut from, mut body) = (BufReader::with_capacity(64 << 10, from), Vec::new());
    loop {
        let (number, ask) = take_frame(&mut from, &mut body).await?;
        let (node, answers) = (Arc::clone(&node), answers.clone());
        tokio::spawn(async move {
            let answer = node.answer(ask).await;
            // The connection may be gone by now.
            let _ = answers.send((number, answer));
        });
    }
}

impl Node {
    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Form => self.form().await,
            Ask::Status => Answer::Status(self.status()),
            Ask::Digests => Answer::Digests(self.groups.iter().map(|group| group.machine.digest()).collect()),
            Ask::Append { group, .. }
            | Ask::Vote { group, .. }
            | Ask::PreVote { group, .. }
            | Ask::Snapshot { group, .. }
            | Ask::Put { group, .. }
            | Ask::Get { group, .. }
            | Ask::Held { group } => match usize::try_from(group).ok().and_then(|group| self.groups.get(group)) {
                Some(group) => self.answer_in(group, ask).await,
                None => Answer::Failed("there is no such group".into()),
            },
        }
    }

    async fn answer_in(&self, group: &Group, ask: Ask) -> Answer {
        let Group { raft, machine } = group;
        let failed = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
        match ask {
            Ask::Append { rpc, .. } => raft.append_entries(rpc).await.map_or_else(|e| failed(&e), Answer::Append),
            Ask::Vote { rpc, .. } => raft.vote(rpc).await.map_or_else(|e| failed(&e), Answer::Vote),
            Ask::PreVote { rpc, .. } => raft.pre_vote(rpc).await.map_or_else(|e| failed(&e), Answer::Vote),
            Ask::Snapshot { vote, meta, data, .. } => {
                self.snapshots.fetch_add(1, Ordering::Relaxed);
                let snapshot = SnapshotOf::<Types, Vec<u8>> { meta, snapshot: data };
                raft.install_full_snapshot(vote, snapshot).await.map_or_else(|e| failed(&e), Answer::Snapshot)
            }
            Ask::Put { put, .. } => match tokio::time::timeout(PATIENCE, raft.client_write(put)).await {
                Ok(Ok(_)) => Answer::Done,
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Answer::NotLeader(to.leader_id),
                Ok(Err(error)) => failed(&error),
                Err(late) => failed(&late),
            },
            Ask::Get { key, .. } => {
                let reading = raft.ensure_linearizable(ReadPolicy::ReadIndex);
                match tokio::time::timeout(PATIENCE, reading).await {
                    Ok(Ok(_)) => Answer::Value(machine.get(&key)),
                    Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                        Answer::NotLeader(to.leader_id)
                    }
                    Ok(Err(error)) => failed(&error),
                    Err(late) => failed(&late),
                }
            }
            Ask::Held { .. } => Answer::Held(machine.pairs()),
            Ask::Form | Ask::Status | Ask::Digests => Answer::Failed("this is of no group".into()),
        }
    }

    /// Node `i` begins as the leader of every group whose number is `i` modulo the number of nodes.
    async fn form(&self) -> Answer {
        let members: std::collections::BTreeMap<u64, EmptyNode> =
            (0..self.members).map(|id| (id, EmptyNode {})).collect();
        let mine = (0_u64..).zip(&self.groups).filter(|(number, _)| number % self.members == self.id);
        let mine: Vec<Raft> = mine.map(|(_, group)| group.raft.clone()).collect();
        let forming = stream::iter(mine).map(|raft| {
            let members = members.clone();
            async move {
                // A group that exists already stays as it is.
                if matches!(raft.is_initialized().await, Ok(false)) {
                    let _ = raft.initialize(members).await;
                }
            }
        });
        forming.buffer_unordered(AT_ONCE).collect::<()>().await;
        Answer::Done
    }

    fn status(&self) -> Status {
        let stats = self.wal.stats();
        let mut status = Status {
            frames: stats.frames,
            batches: stats.batches,
            entries: stats.entries,
            recovery_micros: stats.recovery_micros,
            open_micros: self.open_micros,
            found: self.found,
            snapshots: self.snapshots.load(Ordering::Relaxed),
            ..Status::default()
        };
        for group in &self.groups {
            let leader = group.raft.server_metrics();
            let leader =
                openraft::type_config::async_runtime::watch::WatchReceiver::borrow_watched(&leader).current_leader;
            status.led += u64::from(leader.is_some());
            status.leads += u64::from(leader == Some(self.id));
        }
        status
    }
}
