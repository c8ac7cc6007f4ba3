//! openraft 0.9 in these worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor};
use std::sync::Arc;

use openraft_09::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft_09::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft_09::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft_09::storage::{RaftLogStorage, RaftStateMachine};
use openraft_09::{
    AnyError, ChangeMembers, Config, EmptyNode, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, ServerState,
    Snapshot, SnapshotMeta, SnapshotPolicy, StorageError, StorageIOError, StoredMembership, Vote,
};
use strandlog_openraft::v09::LogStore;

use crate::env::Keeps;
use crate::judge::Ballot;
use crate::life::Life;
use crate::machine::{Contents, Machine, What, decode};
use crate::world::{Change, Member, Net, Path, View};

openraft_09::declare_raft_types!(
    pub Types: D = u64, R = (), NodeId = u64, Node = EmptyNode,
        Entry = openraft_09::Entry<Types>, SnapshotData = Cursor<Vec<u8>>,
);

type Members = StoredMembership<u64, EmptyNode>;
type Meta = SnapshotMeta<u64, EmptyNode>;
type Stored<T> = Result<T, StorageError<u64>>;
type Failed<E = openraft_09::error::Infallible> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

#[derive(Clone)]
struct Sm(Machine<LogId<u64>, Members>);

#[derive(Clone)]
pub struct Node {
    raft: openraft_09::Raft<Types>,
    machine: Sm,
}

fn ballot(vote: &Vote<u64>) -> Ballot {
    (vote.leader_id.term, vote.leader_id.node_id)
}

fn writing(error: &io::Error) -> StorageError<u64> {
    StorageIOError::write_state_machine(AnyError::new(error)).into()
}

fn meta(contents: &Contents<LogId<u64>, Members>) -> Meta {
    let snapshot_id = format!("to-{}", contents.next);
    Meta { last_log_id: contents.applied, last_membership: contents.members.clone(), snapshot_id }
}

fn snapshot(contents: &Contents<LogId<u64>, Members>, bytes: Vec<u8>) -> Snapshot<Types> {
    Snapshot { meta: meta(contents), snapshot: Box::new(Cursor::new(bytes)) }
}

impl RaftSnapshotBuilder<Types> for Sm {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let (contents, bytes) = self.0.build().await.map_err(|error| writing(&error))?;
        Ok(snapshot(&contents, bytes))
    }
}

impl RaftStateMachine<Types> for Sm {
    type SnapshotBuilder = Sm;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, Members)> {
        let now = self.0.now();
        Ok((now.applied, now.members))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = openraft_09::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let id = entry.log_id;
            let what = match entry.payload {
                EntryPayload::Blank => What::Blank,
                EntryPayload::Normal(line) => What::Line(line),
                EntryPayload::Membership(members) => What::Members(Members::new(Some(id), members)),
            };
            self.0.apply(id, (id.leader_id.term, id.leader_id.node_id, id.index), what);
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Sm {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, _: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Stored<()> {
        self.0.install(snapshot.get_ref()).await.map_err(|error| writing(&error))
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(self.0.snapshot().map(|bytes| snapshot(&decode(&bytes), bytes)))
    }
}

impl Member for Node {
    const LEADER_GOES_AT_ANY_TIME: bool = false;

    async fn start(net: Net<Self>, life: Arc<Life>, group: u64) -> Result<Self, String> {
        let (env, id) = (Arc::clone(&net.env), life.node);
        let machine = Sm(Machine::open(Arc::clone(&env), Arc::clone(&life), group));
        let mut store = LogStore::<Types>::new(Arc::clone(&life.wal), group).map_err(|error| error.to_string())?;
        if env.keeps == Keeps::FilesAndReports {
            let applied = machine.0.now().applied.map(|id| id.index);
            store.durable_applied(applied).map_err(|error| error.to_string())?;
            let reader = store.reader();
            // Refused only by a dead log.
            machine.0.reports_by(move |index| drop(reader.durable_applied(index)));
        }
        let vote = store.read_vote().await.map_err(|error| error.to_string())?;
        env.judge.returned(id, group, vote.as_ref().map(ballot));
        // openraft draws the timeout between min and max. They differ by 1, so it is the seed that draws it.
        let patience = 300 + 100 * id + env.below(100);
        let config = Config {
            heartbeat_interval: 60,
            election_timeout_min: patience,
            election_timeout_max: patience + 1,
            install_snapshot_timeout: 400,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(12 + env.below(20)),
            snapshot_max_chunk_size: 300,
            max_in_snapshot_log_to_keep: env.below(6),
            purge_batch_size: 1,
            replication_lag_threshold: 8,
            ..Config::default()
        };
        let links = Links { net, life, group };
        let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
        let raft = openraft_09::Raft::new(id, config, links, store, machine.clone()).await;
        Ok(Self { raft: raft.map_err(|error| error.to_string())?, machine })
    }

    async fn begin(&self) {
        let nodes: BTreeSet<u64> = (0..self.machine.0.env.nodes).collect();
        drop(self.raft.initialize(nodes).await);
    }

    async fn write(&self, line: u64) -> Result<(), Option<u64>> {
        match self.raft.client_write(line).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.forward_to_leader().and_then(|to| to.leader_id)),
        }
    }

    async fn change(&self, change: Change) -> bool {
        let (change, retain) = match change {
            Change::AddLearner(node) => (ChangeMembers::AddNodes(BTreeMap::from([(node, EmptyNode {})])), false),
            Change::Promote(node) => (ChangeMembers::AddVoterIds(BTreeSet::from([node])), false),
            Change::Demote { node, stays } => (ChangeMembers::RemoveVoters(BTreeSet::from([node])), stays),
            Change::Drop(node) => (ChangeMembers::RemoveNodes(BTreeSet::from([node])), false),
            Change::Voters { voters, stay } => (ChangeMembers::ReplaceAllVoters(voters), stay),
        };
        self.raft.change_membership(change, retain).await.is_ok()
    }

    async fn elect(&self) {
        drop(self.raft.trigger().elect().await);
    }

    async fn snapshot(&self) {
        drop(self.raft.trigger().snapshot().await);
    }

    async fn shutdown(&self) {
        drop(self.raft.shutdown().await);
    }

    fn view(&self) -> View {
        let watch = self.raft.metrics();
        // A core that panicked reports nothing more.
        let gone = watch.has_changed().is_err().then(|| "it is gone".to_owned());
        let metrics = watch.borrow().clone();
        let text = metrics.to_string();
        let configs = metrics.membership_config.membership().get_joint_config();
        let now = self.machine.0.now();
        View {
            ended: metrics.running_state.err().map(|error| error.to_string()).or(gone),
            leads: (metrics.state == ServerState::Leader).then(|| ballot(&metrics.vote)),
            members: (0..self.machine.0.env.nodes)
                .filter(|node| metrics.membership_config.membership().get_node(node).is_some())
                .collect(),
            voters: (0..self.machine.0.env.nodes)
                .filter(|node| configs.iter().all(|voters| voters.contains(node)))
                .collect(),
            is_joint: configs.len() > 1,
            applied: now.next,
            lines: now.lines,
            metrics: text,
        }
    }
}

/// How a node's member of a group reaches the others.
#[derive(Clone)]
struct Links {
    net: Net<Node>,
    life: Arc<Life>,
    group: u64,
}

struct Link {
    links: Links,
    path: Path,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Link {
        Link { links: self.clone(), path: self.net.path(self.life.node, to, self.group) }
    }
}

fn no_answer<E: std::error::Error>() -> Failed<E> {
    RPCError::Unreachable(Unreachable::new(&io::Error::other("no answer")))
}

impl Link {
    async fn call<Q, A, F>(&self, question: Q, ask: fn(Node, Q) -> F, heard: fn(&A) -> Option<Ballot>) -> Option<A>
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + 'static,
        F: Future<Output = Option<A>> + Send + 'static,
    {
        let Links { net, life, .. } = &self.links;
        net.call(life, self.path, question, ask, heard).await
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let ask = |node: Node, rpc: AppendEntriesRequest<Types>| async move {
            let vote = rpc.vote;
            let answer = node.raft.append_entries(rpc).await.ok()?;
            Some((answer, vote))
        };
        let heard = |(answer, vote): &(AppendEntriesResponse<u64>, Vote<u64>)| {
            (!matches!(answer, AppendEntriesResponse::HigherVote(_))).then(|| ballot(vote))
        };
        self.call(rpc, ask, heard).await.map(|(answer, _)| answer).ok_or_else(no_answer)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let ask = |node: Node, rpc: InstallSnapshotRequest<Types>| async move {
            match node.raft.install_snapshot(rpc).await {
                Ok(answer) => Some(Ok(answer)),
                Err(error @ RaftError::APIError(_)) => Some(Err(error)),
                Err(RaftError::Fatal(_)) => None,
            }
        };
        match self.call(rpc, ask, |_| None).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(RPCError::RemoteError(openraft_09::error::RemoteError::new(self.path.to, error))),
            None => Err(no_answer()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failed> {
        let ask = |node: Node, rpc: VoteRequest<u64>| async move {
            let vote = rpc.vote;
            let answer = node.raft.vote(rpc).await.ok()?;
            Some((answer, vote))
        };
        let heard = |(answer, vote): &(VoteResponse<u64>, Vote<u64>)| answer.vote_granted.then(|| ballot(vote));
        self.call(rpc, ask, heard).await.map(|(answer, _)| answer).ok_or_else(no_answer)
    }
}
