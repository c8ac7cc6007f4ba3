//! Messages of one iteration, gathered by store: one send for all groups.

use raft::SnapshotStatus;
use raft::eraftpb::{Message, MessageType};

use crate::STORES;
use crate::group::Group;
use crate::net::{Envelope, Network};

pub struct Outbox {
    lane: u64,
    to: [Vec<Envelope>; STORES],
}

impl Outbox {
    pub fn new(lane: u64) -> Self {
        Outbox { lane, to: Default::default() }
    }

    pub fn add(&mut self, group: u64, messages: Vec<Message>) {
        for message in messages {
            self.to[message.to as usize - 1].push((group, message));
        }
    }

    /// Sends them all, and tells raft which did not get through.
    pub fn flush(&mut self, network: &Network, groups: &mut [Group]) {
        for (index, batch) in self.to.iter_mut().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let store = index as u64 + 1;
            let snapshot = |(_, message): &&Envelope| message.get_msg_type() == MessageType::MsgSnapshot;
            let snapshots: Vec<u64> = batch.iter().filter(snapshot).map(|(group, _)| *group).collect();
            let sent = network.raft(store, self.lane, std::mem::take(batch));
            let status = if sent.is_ok() { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            for group in snapshots {
                groups[network.slot(group)].node.report_snapshot(store, status);
            }
            for (group, _) in sent.err().into_iter().flatten() {
                groups[network.slot(group)].node.report_unreachable(store);
            }
        }
    }
}
