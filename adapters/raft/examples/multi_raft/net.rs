//! The network: channels between poller threads, and wires to stores in other processes.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use raft::eraftpb::Message;

use crate::STORES;
use crate::wire::Frame;

/// A raft message and the group it belongs to.
pub type Envelope = (u64, Message);

/// A client's write.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub id: u64,
    pub group: u64,
    pub payload: Vec<u8>,
}

/// The outcome of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, and applied by the store that took it.
    Applied(u64),
    /// Not taken: that store does not lead the group.
    NotLeader(u64),
}

/// An item in a poller thread's inbox.
#[derive(Debug)]
pub enum Inbound {
    Raft(Vec<Envelope>),
    Propose(Vec<Proposal>),
    /// A round of its own has become durable, or old entries were read.
    Durable,
    /// Stand for election in the groups assigned to this store.
    Campaign,
    /// Write final checkpoints and end.
    Finish,
}

/// The link to one store.
pub enum Outlet {
    /// The store is down: what is sent is lost, and the sender is told.
    Down,
    /// Poller threads of this process.
    Local(Vec<Sender<Inbound>>),
    /// A connection to another process.
    Wire(Sender<Frame>),
}

/// The links to all stores; they change when a store comes or goes.
pub struct Network {
    outlets: RwLock<[Outlet; STORES]>,
    pollers: u64,
}

impl Network {
    pub fn new(pollers: u64) -> Self {
        Network { outlets: RwLock::new(std::array::from_fn(|_| Outlet::Down)), pollers }
    }

    pub fn set(&self, store: u64, outlet: Outlet) {
        self.write()[store as usize - 1] = outlet;
    }

    /// The poller thread that drives `group`, the same on every store.
    pub fn lane(&self, group: u64) -> u64 {
        (group - 1) % self.pollers
    }

    /// The position of a group among those of its lane.
    pub fn slot(&self, group: u64) -> usize {
        ((group - 1) / self.pollers) as usize
    }

    /// Sends one batch of messages from a lane to the same lane of another store. Returns them if that store is down.
    pub fn raft(&self, store: u64, lane: u64, batch: Vec<Envelope>) -> Result<(), Vec<Envelope>> {
        match &self.read()[store as usize - 1] {
            Outlet::Down => Err(batch),
            Outlet::Local(lanes) => lanes[lane as usize].send(Inbound::Raft(batch)).map_err(|lost| match lost.0 {
                Inbound::Raft(batch) => batch,
                _ => Vec::new(),
            }),
            Outlet::Wire(wire) => wire.send(Frame::Raft { store, lane, batch }).map_err(|lost| match lost.0 {
                Frame::Raft { batch, .. } => batch,
                _ => Vec::new(),
            }),
        }
    }

    /// Sends proposals to a store, to the lanes that they belong to.
    pub fn propose(&self, store: u64, proposals: Vec<Proposal>) {
        match &self.read()[store as usize - 1] {
            Outlet::Down => {}
            Outlet::Local(lanes) => {
                let mut by_lane: BTreeMap<u64, Vec<Proposal>> = BTreeMap::new();
                for proposal in proposals {
                    by_lane.entry(self.lane(proposal.group)).or_default().push(proposal);
                }
                for (lane, proposals) in by_lane {
                    // A store that has just gone does not answer; the client will ask elsewhere.
                    let _ = lanes[lane as usize].send(Inbound::Propose(proposals));
                }
            }
            Outlet::Wire(wire) => {
                let _ = wire.send(Frame::Propose(proposals));
            }
        }
    }

    /// Tells all poller threads of a store.
    pub fn tell(&self, store: u64, what: fn() -> Inbound) {
        match &self.read()[store as usize - 1] {
            Outlet::Down => {}
            Outlet::Local(lanes) => {
                for lane in lanes {
                    let _ = lane.send(what());
                }
            }
            Outlet::Wire(wire) => {
                let frame = if matches!(what(), Inbound::Campaign) { Frame::Campaign } else { Frame::Finish };
                let _ = wire.send(frame);
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, [Outlet; STORES]> {
        self.outlets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, [Outlet; STORES]> {
        self.outlets.write().unwrap_or_else(PoisonError::into_inner)
    }
}
