//! One replica of a group: raft's node, and the state machine that it feeds.

use std::collections::{HashSet, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Snapshot};
use raft::{Config, RawNode, StateRole};
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, Error, GroupStorage, Round};

use crate::checks::Checks;
use crate::machine::{Files, Machine};
use crate::manner::{Machines, Manner, Plant};

pub struct Group {
    pub group: u64,
    pub id: u64,
    pub node: RawNode<GroupStorage>,
    /// The state machine in memory.
    pub machine: Machine,
    /// Number of the Ready that brought a snapshot, until that is durable.
    pub snapshot: Option<u64>,
    /// Committed, but not applied yet.
    pub waits: VecDeque<Entry>,
    /// Proposals of clients that wait for an answer here.
    pub proposed: HashSet<u64>,
}

/// Opens a group as the log and the files have it.
pub fn found(
    wal: &Wal,
    files: &Files,
    manner: &Manner,
    group: u64,
    is_new: bool,
) -> Result<(GroupStorage, Machine, bool), Error> {
    let mut storage = GroupStorage::open(wal, group)?;
    if manner.planted(Plant::VotesForgotten) {
        let mut batch = Batch::new();
        let forgot = raft::eraftpb::HardState { vote: 0, ..storage.hard_state().clone() };
        storage.set_hard_state(&mut batch, &forgot);
        wal.commit(&mut batch).map_err(Error::Log)?;
    }
    if manner.in_log() {
        let data = storage.checkpoint_data()?;
        let index = storage.applied();
        let term = storage.replica().term(index).unwrap_or(0);
        let machine = data.map_or_else(Machine::default, |data| Machine::from_bytes(&data, term, storage.conf_state()));
        return Ok((storage, machine, false));
    }
    storage = storage.with_snapshots(files.clone());
    let saved = files.lock().get(&group).cloned();
    let Some(machine) = saved else { return Ok((storage, Machine::default(), false)) };
    let before = storage.replica().bounds();
    let mut batch = Batch::new();
    match storage.adopt(&mut batch, machine.index, machine.term, &machine.conf_state) {
        // A new member that was killed between its first snapshot's file and its first batch.
        Err(Error::Inconsistent { .. }) if is_new && !wal.replica(group).exists() => {
            files.lock().remove(&group);
            return Ok((storage, Machine::default(), false));
        }
        adopted => adopted?,
    }
    if !batch.is_empty() {
        wal.commit(&mut batch).map_err(Error::Log)?;
    }
    let adopted = storage.replica().bounds() != before;
    Ok((storage, machine, adopted))
}

impl Group {
    pub fn new(id: u64, storage: GroupStorage, machine: Machine, manner: &Manner) -> Self {
        let config = Config {
            id,
            applied: storage.applied(),
            election_tick: 10,
            heartbeat_tick: 3,
            // One timeout for all, with chance deciding how time passes: a seed is exactly one run.
            min_election_tick: 10,
            max_election_tick: 11,
            check_quorum: manner.check_quorum,
            pre_vote: manner.pre_vote,
            skip_bcast_commit: manner.skip_bcast_commit,
            batch_append: manner.batch_append,
            max_size_per_msg: manner.max_size_per_msg,
            max_committed_size_per_ready: manner.max_committed_size_per_ready,
            max_inflight_msgs: manner.max_inflight_msgs,
            // A log that is full of entries that nobody can commit stays full for good.
            max_uncommitted_size: (manner.capacity / 32 / manner.groups).max(16 << 10),
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let group = storage.group();
        let node = RawNode::new(&config, storage, &logger).expect("the node starts");
        let (waits, proposed) = Default::default();
        Self { group, id, node, machine, snapshot: None, waits, proposed }
    }

    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// As of what raft has applied.
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// When raft 0.7 panics if it stands for election: see the README, "What to mind".
    pub fn may_campaign(&self) -> bool {
        let (voters, log) = (self.conf_state().voters, &self.node.raft.raft_log);
        self.snapshot.is_none() && (self.leads() || voters != [self.id] || log.persisted == log.last_index())
    }

    pub fn is_voter(&self) -> bool {
        self.node.raft.prs().conf().voters().contains(self.id)
    }

    /// A snapshot replaces the machine, durably if it has files.
    pub fn install(&mut self, snapshot: &Snapshot, ready: u64, files: &Files, manner: &Manner, checks: &mut Checks) {
        let machine = Machine::from_snapshot(snapshot);
        checks.machine(self.group, &machine, "a snapshot that is installed");
        checks.figures.installed += 1;
        if !manner.in_log() && !manner.planted(Plant::SnapshotTooLate) {
            files.lock().insert(self.group, machine.clone());
        }
        self.machine = machine;
        self.waits.clear();
        self.snapshot = Some(ready);
    }

    pub fn apply_all(&mut self, checks: &mut Checks) {
        while self.apply_next(checks) {}
    }

    pub fn apply_next(&mut self, checks: &mut Checks) -> bool {
        let Some(entry) = self.waits.pop_front() else { return false };
        match entry.get_entry_type() {
            EntryType::EntryNormal => {}
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_bytes(&entry.data).expect("a change");
                let conf_state = self.node.apply_conf_change(&change).ok();
                self.changed(conf_state, checks);
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::parse_from_bytes(&entry.data).expect("a change");
                let conf_state = self.node.apply_conf_change(&change).ok();
                self.changed(conf_state, checks);
            }
        }
        self.machine.apply(&entry);
        checks.applied(self.group, self.id, self.node.raft.term, &entry, &self.machine);
        if let Ok(id) = entry.context[..].try_into().map(u64::from_le_bytes)
            && self.proposed.remove(&id)
        {
            checks.acknowledge(self.group, id, entry.index);
        }
        true
    }

    fn changed(&mut self, conf_state: Option<ConfState>, checks: &mut Checks) {
        let Some(conf_state) = conf_state else { return };
        checks.figures.changes += 1;
        checks.figures.joint += u64::from(!conf_state.voters_outgoing.is_empty());
        self.machine.conf_state = conf_state;
        // raft 0.7 goes on leading after it was removed, and panics when something of it becomes durable.
        if self.leads() && self.node.raft.prs().get(self.id).is_none() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Tells raft how far the machine is.
    pub fn tell(&mut self) {
        if self.snapshot.is_none() {
            self.node.advance_apply_to(self.machine.index);
        }
    }

    /// A Ready, and all before it, is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        if self.snapshot.is_some_and(|snapshot| snapshot <= number) {
            self.snapshot = None;
        }
        self.tell();
    }

    /// What a machine in the log writes about itself.
    pub fn checkpoint(&mut self, batch: Into<'_>, retain: u64, manner: &Manner) -> Result<u64, Error> {
        let Machine { index, term, .. } = self.machine;
        let data = self.machine.bytes();
        let old = self.node.store().conf_state().clone();
        let conf_state = if manner.planted(Plant::OldConfiguration) { &old } else { &self.machine.conf_state };
        let checkpoint = Checkpoint { index, term, conf_state, data: &data };
        let (storage, kept) = (self.node.mut_store(), (index + 1).saturating_sub(retain));
        match batch {
            Into::Round(round) => {
                round.checkpoint(storage, checkpoint)?;
                round.compact(storage, kept)
            }
            Into::Batch(batch) => {
                storage.checkpoint(batch, checkpoint)?;
                storage.compact(batch, kept)
            }
        }
    }

    /// Whether another checkpoint would differ from the last one.
    pub fn has_news(&self) -> bool {
        let storage = self.node.store();
        self.machine.index > storage.applied() || self.machine.conf_state != *storage.conf_state()
    }

    /// Reports to the log what a machine with files has made durable.
    pub fn report(&mut self, wal: &Wal, files: &Files, manner: &Manner) -> Result<(), Error> {
        let saved = files.lock().get(&self.group).cloned();
        let saved = if manner.planted(Plant::AppliedTooEarly) { Some(self.machine.clone()) } else { saved };
        let Some(saved) = saved.filter(|_| self.snapshot.is_none()) else { return Ok(()) };
        let storage = self.node.mut_store();
        // It refuses if the configuration changed on the way.
        if storage.set_applied(saved.index, saved.term).is_err() {
            storage.set_applied_with(saved.index, saved.term, &saved.conf_state)?;
        }
        if manner.machines == Machines::Reported {
            wal.durable_applied(self.group, saved.index).map_err(Error::Log)?;
        }
        Ok(())
    }
}

/// Where a write goes.
pub enum Into<'a> {
    Round(&'a mut Round),
    Batch(&'a mut Batch),
}
