//! A network in which the test decides which node hears which.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft_09::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft_09::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft_09::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft_09::{EmptyNode, Raft};
use tokio::sync::oneshot;

use crate::{Types, disk};

type Way = (u64, u64);

#[derive(Default)]
pub struct Net(Mutex<State>);

#[derive(Default)]
struct State {
    rafts: BTreeMap<u64, Raft<Types>>,
    open: Vec<Way>,
    /// Holds up the read that follows the next entries on this link.
    holds: Option<Way>,
    tells: Option<(Way, oneshot::Sender<()>)>,
}

impl Net {
    pub fn begin(&self, node: u64, raft: Raft<Types>) {
        self.0.lock().unwrap().rafts.insert(node, raft);
    }

    pub fn open(&self, is_open: impl Fn(u64, u64) -> bool) {
        let mut state = self.0.lock().unwrap();
        let nodes: Vec<u64> = state.rafts.keys().copied().collect();
        let ways = nodes.iter().flat_map(|&from| nodes.iter().map(move |&to| (from, to)));
        state.open = ways.filter(|&(from, to)| is_open(from, to)).collect();
    }

    /// The sender of the next entries on this link is held up in its following read.
    pub fn hold_next_read_behind(&self, from: u64, to: u64) {
        self.0.lock().unwrap().holds = Some((from, to));
    }

    /// Completed when the next append on this link was answered.
    pub fn next_append(&self, from: u64, to: u64) -> impl Future<Output = ()> + use<> {
        let (tell, told) = oneshot::channel();
        self.0.lock().unwrap().tells = Some(((from, to), tell));
        async { told.await.expect("told") }
    }

    fn at(&self, way: Way) -> Option<Raft<Types>> {
        let state = self.0.lock().unwrap();
        state.rafts.get(&way.1).filter(|_| state.open.contains(&way)).cloned()
    }

    /// On the sender's thread.
    fn was_appended(&self, way: Way, had_entries: bool) {
        let mut state = self.0.lock().unwrap();
        if had_entries && state.holds.take_if(|holds| *holds == way).is_some() {
            disk::hold_next_read();
        }
        if let Some((_, tell)) = state.tells.take_if(|(tells, _)| *tells == way) {
            tell.send(()).expect("somebody waits");
        }
    }
}

#[derive(Clone)]
pub struct Links {
    pub net: Arc<Net>,
    pub from: u64,
}

pub struct Link {
    net: Arc<Net>,
    way: Way,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Link {
        Link { net: Arc::clone(&self.net), way: (self.from, to) }
    }
}

type Failed<E = openraft_09::error::Infallible> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

fn nobody<E: std::error::Error>() -> Failed<E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other("nobody")))
}

impl Link {
    fn remote<E: std::error::Error>(&self, error: RaftError<u64, E>) -> Failed<E> {
        RPCError::RemoteError(RemoteError::new(self.way.1, error))
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let had_entries = !rpc.entries.is_empty();
        let answer =
            self.net.at(self.way).ok_or_else(nobody)?.append_entries(rpc).await.map_err(|error| self.remote(error))?;
        self.net.was_appended(self.way, had_entries);
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        unreachable!("nobody takes one")
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failed> {
        self.net.at(self.way).ok_or_else(nobody)?.vote(rpc).await.map_err(|error| self.remote(error))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(2)))
    }
}
