//! One replica of one group: raft's node, and the state machine it feeds.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Snapshot};
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, GroupStorage, Round};

use crate::Result;
use crate::machine::Machine;

/// Entries applied between two checkpoints of a group's state machine.
pub const CHECKPOINT_EVERY: u64 = 32;

/// In ticks of 100 ms: modest traffic even with a thousand groups.
const HEARTBEAT_TICKS: usize = 3;
const ELECTION_TICKS: usize = 10;

pub struct Group {
    pub node: RawNode<GroupStorage>,
    pub machine: Machine,
    /// As of what the machine has applied: the storage's is that of the last checkpoint.
    pub conf_state: ConfState,
    /// Number of the Ready that installed a snapshot, until it is durable.
    pub snapshot: Option<u64>,
    /// Has, or may have, a Ready: it is in the list of groups to look at.
    pub listed: bool,
}

impl Group {
    /// Opens the group as the log has it: the state machine from its checkpoint, with raft going on from there.
    pub fn open(wal: &Wal, group: u64, store: u64) -> Result<Self> {
        let storage = GroupStorage::open(wal, group)?;
        let data = storage.checkpoint_data()?.ok_or("a group without a checkpoint")?;
        let machine = Machine::decode(&data)?;
        let conf_state = storage.conf_state().clone();
        let config = Config {
            id: store,
            applied: storage.applied(),
            heartbeat_tick: HEARTBEAT_TICKS,
            election_tick: ELECTION_TICKS,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            // Followers learn of a commit with the next append or heartbeat.
            skip_bcast_commit: true,
            max_size_per_msg: 256 << 10,
            max_inflight_msgs: 64,
            ..Config::default()
        };
        let node = RawNode::new(&config, storage, &Logger::root(Discard, o!()))?;
        Ok(Group { node, machine, conf_state, snapshot: None, listed: false })
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// While a snapshot is not durable yet, its entries cannot be applied, and raft cannot campaign.
    pub fn tick(&mut self) -> bool {
        self.snapshot.is_none() && self.node.tick()
    }

    /// A snapshot replaces the machine.
    pub fn install(&mut self, snapshot: &Snapshot, ready: u64) -> Result<()> {
        self.machine = Machine::decode(&snapshot.data)?;
        self.conf_state = snapshot.get_metadata().get_conf_state().clone();
        self.snapshot = Some(ready);
        Ok(())
    }

    /// Applies the next entry. Returns the proposal's id if it is one. (Nobody here proposes a configuration change, but a store that did
    /// would have to keep the resulting configuration.)
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<u64>> {
        match entry.get_entry_type() {
            EntryType::EntryNormal => {}
            EntryType::EntryConfChange => {
                self.conf_state = self.node.apply_conf_change(&ConfChange::parse_from_bytes(&entry.data)?)?;
            }
            EntryType::EntryConfChangeV2 => {
                self.conf_state = self.node.apply_conf_change(&ConfChangeV2::parse_from_bytes(&entry.data)?)?;
            }
        }
        self.machine.apply(entry)
    }

    /// Tells raft how far the state machine is.
    pub fn applied(&mut self) {
        if self.snapshot.is_none() {
            self.node.advance_apply_to(self.machine.index);
        }
    }

    /// A Ready (and all before it) is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        if self.snapshot.is_some_and(|snapshot| snapshot <= number) {
            self.snapshot = None;
        }
        self.applied();
    }

    /// Checkpoints the state machine when that is worthwhile, and compacts the log up to it.
    pub fn checkpoint(&mut self, round: &mut Round, every: u64, retain: u64) -> Result<()> {
        let Machine { index, term, .. } = self.machine;
        let storage = self.node.mut_store();
        // raft may ask for a snapshot at an entry that is not applied yet: repeating the same checkpoint does not help.
        let has_news = index > storage.applied() || self.conf_state != *storage.conf_state();
        if index < storage.applied() + every && !(storage.wants_checkpoint() && has_news) {
            return Ok(());
        }
        let data = self.machine.encode();
        let checkpoint = Checkpoint { index, term, conf_state: &self.conf_state, data: &data };
        round.checkpoint(storage, checkpoint)?;
        round.compact(storage, index.saturating_sub(retain))?;
        Ok(())
    }

    /// Writes the state machine's copy and a compaction up to it, in a batch of their own. Returns the first index kept.
    pub fn let_go(&mut self, batch: &mut Batch) -> Result<u64> {
        let Machine { index, term, .. } = self.machine;
        let storage = self.node.mut_store();
        let data = self.machine.encode();
        storage.checkpoint(batch, Checkpoint { index, term, conf_state: &self.conf_state, data: &data })?;
        Ok(storage.compact(batch, index.saturating_add(1))?)
    }
}
