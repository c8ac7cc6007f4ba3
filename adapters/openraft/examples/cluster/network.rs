//! The network as openraft sees it: a client for each group and each other node, with all clients to a node on one link.

use std::future::Future;
use std::sync::Arc;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::link::Link;
use crate::types::Types;
use crate::wire::{Answer, Ask};

/// One group's client for the other nodes.
#[derive(Clone)]
pub struct Network {
    pub links: Arc<Vec<Link>>,
    pub group: u64,
}

pub struct Peer {
    link: Option<Link>,
    group: u64,
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("there is no such node")]
    NoSuchNode,
    #[error("no answer")]
    NoAnswer,
    #[error("an answer to something else: {0:?}")]
    Foreign(Box<Answer>),
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &openraft::EmptyNode) -> Peer {
        let link = usize::try_from(target).ok().and_then(|target| self.links.get(target)).cloned();
        Peer { link, group: self.group }
    }
}

impl Peer {
    async fn ask(&self, ask: Ask, option: &RPCOption) -> Result<Answer, Unusable> {
        let link = self.link.as_ref().ok_or(Unusable::NoSuchNode)?;
        match link.ask(ask, option.hard_ttl()).await {
            Ok(Answer::Failed(_)) | Err(_) => Err(Unusable::NoAnswer),
            Ok(answer) => Ok(answer),
        }
    }

    async fn vote(&self, ask: Ask, option: &RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(ask, option).await {
            Ok(Answer::Vote(response)) => Ok(response),
            other => Err(unreachable(other)),
        }
    }
}

/// Has openraft wait a while before it tries again.
fn unreachable<E: From<Unreachable<Types>>>(answer: Result<Answer, Unusable>) -> E {
    let why = answer.map_or_else(|error| error, |answer| Unusable::Foreign(Box::new(answer)));
    E::from(Unreachable::new(&why))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.ask(Ask::Append { group: self.group, rpc }, &option).await {
            Ok(Answer::Append(response)) => Ok(response),
            other => Err(unreachable(other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Peer::vote(self, Ask::Vote { group: self.group, rpc }, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Peer::vote(self, Ask::PreVote { group: self.group, rpc }, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let ask = Ask::Snapshot { group: self.group, vote, meta: snapshot.meta, data: snapshot.snapshot };
        tokio::select! {
            answer = self.ask(ask, &option) => match answer {
                Ok(Answer::Snapshot(response)) => Ok(response),
                other => Err(unreachable(other)),
            },
            closed = cancel => Err(closed.into()),
        }
    }
}
