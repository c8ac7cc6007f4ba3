//! openraft 0.10 in these worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::{EntryResponder, RaftLogReader, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::{
    ChangeMembers, Config, EmptyNode, EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2, ServerState,
    SnapshotPolicy,
};
use strandlog_openraft::v010::LogStore;

use crate::env::Keeps;
use crate::judge::Ballot;
use crate::life::Life;
use crate::machine::{self, Machine, What, decode};
use crate::world::{Change, Member, Net, Path, View};

openraft::declare_raft_types!(
    pub Types: D = u64, R = (), NodeId = u64, Node = EmptyNode,
);

type LogId = LogIdOf<Types>;
type Members = StoredMembershipOf<Types>;
type Contents = machine::Contents<LogId, Members>;
type Snapshot = SnapshotOf<Types, Vec<u8>>;
type Vote = VoteOf<Types>;

#[derive(Clone)]
struct Sm(Machine<LogId, Members>);

#[derive(Clone)]
pub struct Node {
    raft: openraft::Raft<Types, Sm>,
    machine: Sm,
}

fn ballot(vote: &Vote) -> Ballot {
    (vote.leader_id.term, vote.leader_id.node_id)
}

fn snapshot(contents: &Contents, bytes: Vec<u8>) -> Snapshot {
    let meta = SnapshotMetaOf::<Types> { last_log_id: contents.applied, last_membership: contents.members.clone() };
    Snapshot { meta, snapshot: bytes }
}

impl RaftSnapshotBuilder<Types> for Sm {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (contents, bytes) = self.0.build().await?;
        Ok(snapshot(&contents, bytes))
    }
}

impl RaftStateMachine<Types> for Sm {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Sm;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Members)> {
        let now = self.0.now();
        Ok((now.applied, now.members))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(one) = entries.next().await {
            let (entry, responder) = one?;
            let id = entry.log_id;
            let what = match entry.payload {
                EntryPayload::Blank => What::Blank,
                EntryPayload::Normal(line) => What::Line(line),
                EntryPayload::Membership(members) => What::Members(Members::new(Some(id), members)),
            };
            self.0.apply(id, (id.leader_id.term, id.leader_id.node_id, id.index), what);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Sm {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMetaOf<Types>, snapshot: Vec<u8>) -> io::Result<()> {
        self.0.install(&snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.0.snapshot().map(|bytes| snapshot(&decode(&bytes), bytes)))
    }
}

impl Member for Node {
    const LEADER_GOES_AT_ANY_TIME: bool = true;

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
        let vote = store.reader().read_vote().await.map_err(|error| error.to_string())?;
        env.judge.returned(id, group, vote.as_ref().map(ballot));
        // openraft draws the timeout between min and max. They differ by 1, so it is the seed that draws it.
        let patience = 300 + 100 * id + env.below(100);
        let config = Config {
            heartbeat_interval: 60,
            election_timeout_min: patience,
            election_timeout_max: patience + 1,
            enable_pre_vote: Some(env.one_in(2)),
            enable_leader_restore: Some(false),
            install_snapshot_timeout: 2000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(12 + env.below(20)),
            max_in_snapshot_log_to_keep: env.below(6),
            purge_batch_size: 1,
            replication_lag_threshold: 8,
            backoff: "50ms".into(),
            ..Config::default()
        };
        let links = Links { net, life, group };
        let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
        let raft = openraft::Raft::new(id, config, links, store, machine.clone()).await;
        Ok(Self { raft: raft.map_err(|error| error.to_string())?, machine })
    }

    async fn begin(&self) {
        let nodes: BTreeMap<u64, EmptyNode> = (0..self.machine.0.env.nodes).map(|node| (node, EmptyNode {})).collect();
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
        drop(self.raft.trigger().elect(self.machine.0.env.one_in(2)).await);
    }

    async fn snapshot(&self) {
        drop(self.raft.trigger().snapshot().await);
    }

    async fn shutdown(&self) {
        drop(self.raft.shutdown().await);
    }

    fn view(&self) -> View {
        let mut watch = self.raft.metrics();
        let metrics = watch.borrow_watched().clone();
        // A core that panicked reports nothing more.
        let mut gone = None;
        while let Some(told) = tokio::task::unconstrained(watch.changed()).now_or_never() {
            if told.is_err() {
                gone = Some("it is gone".to_owned());
                break;
            }
        }
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

fn no_answer<E: From<Unreachable<Types>>>() -> E {
    Unreachable::new(&io::Error::other("no answer")).into()
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

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let ask = |node: Node, rpc: AppendEntriesRequest<Types>| async move {
            let vote = rpc.vote;
            let answer = node.raft.append_entries(rpc).await.ok()?;
            Some((answer, vote))
        };
        let heard = |(answer, vote): &(AppendEntriesResponse<Types>, Vote)| {
            (!matches!(answer, AppendEntriesResponse::HigherVote(_))).then(|| ballot(vote))
        };
        self.call(rpc, ask, heard).await.map(|(answer, _)| answer).ok_or_else(no_answer)
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ask = |node: Node, rpc: VoteRequest<Types>| async move {
            let vote = rpc.vote;
            let answer = node.raft.vote(rpc).await.ok()?;
            Some((answer, vote))
        };
        let heard = |(answer, vote): &(VoteResponse<Types>, Vote)| answer.vote_granted.then(|| ballot(vote));
        self.call(rpc, ask, heard).await.map(|(answer, _)| answer).ok_or_else(no_answer)
    }

    /// This request promises nothing.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ask = |node: Node, rpc: VoteRequest<Types>| async move { node.raft.pre_vote(rpc).await.ok() };
        self.call(rpc, ask, |_| None).await.ok_or_else(no_answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        // The answer carries a vote from before the installation: by then another may have been granted.
        let ask = |node: Node, (vote, snapshot): (Vote, Snapshot)| async move {
            node.raft.install_full_snapshot(vote, snapshot).await.ok()
        };
        tokio::select! {
            biased;
            answer = self.call((vote, snapshot), ask, |_| None) => {
                answer.ok_or_else(no_answer)
            }
            closed = cancel => Err(closed.into()),
        }
    }
}
