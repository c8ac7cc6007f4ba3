//! Members come and go, as the crate's README allows.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
};

use crate::network::store_of;
use crate::world::{Life, World};

/// The most entries that a learner may lack when it is promoted.
const CLOSE: u64 = 5;

impl World {
    /// Manages one of the groups, through its leader.
    pub fn admin(&mut self) {
        if !self.manner.members_change {
            return;
        }
        let group = 1 + self.rng.below(self.manner.groups);
        let Some(leader) = self.leader(group) else { return };
        self.notice(group, leader);
        self.bury_who_left(group, leader);
        let Some(conf_state) = self.configuration(group, leader) else { return };
        if !conf_state.voters_outgoing.is_empty() {
            if !conf_state.auto_leave || self.rng.chance(20) {
                self.leave_joint(group, leader);
            }
            return;
        }
        if !self.take_out_the_damaged(group, leader) {
            self.change(group, leader, &conf_state);
        }
    }

    /// A damaged replica is removed from its group before anything else is changed; it comes back as a new one.
    pub fn take_out_the_damaged(&mut self, group: u64, leader: u64) -> bool {
        let Some(conf_state) = self.configuration(group, leader) else { return false };
        let named = ids(&conf_state);
        let damaged = self.lives.iter().filter_map(|lives| lives.get(&group));
        let damaged = damaged.filter(|life| life.is_damaged).map(|life| life.id).find(|id| named.contains(id));
        let Some(node_id) = damaged else { return false };
        let change_type = ConfChangeType::RemoveNode;
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![ConfChangeSingle { change_type, node_id, ..ConfChangeSingle::default() }].into());
        self.propose_change(group, leader, change);
        true
    }

    /// Whether the group can go on without this voter, whatever becomes of the changes that some replica still knows of.
    pub fn is_spared(&self, store: u64, group: u64) -> bool {
        let Some(leader) = self.leader(group) else { return false };
        let Some(conf_state) = self.configuration(group, leader) else { return false };
        let Some(life) = self.lives[store as usize - 1].get(&group) else { return false };
        let voters = |of: &ConfState| of.voters.iter().copied().collect::<BTreeSet<u64>>();
        let steady = |id: u64| {
            let opened = self.stores[store_of(id) as usize - 1].as_ref();
            opened.and_then(|opened| opened.groups.get(&group)).is_some_and(|one| {
                let (storage, from) = (one.node.store(), one.machine.index + 1);
                let last = storage.replica().last_index();
                let unapplied = storage.read_entries(from.max(storage.replica().first_index()), last + 1, None);
                let is_plain = |entry: &Entry| entry.get_entry_type() == EntryType::EntryNormal;
                one.id == id
                    && one.snapshot.is_none()
                    && voters(&one.machine.conf_state) == voters(&conf_state)
                    && unapplied.is_ok_and(|entries| entries.iter().all(is_plain))
                    && one.node.raft.raft_log.unstable.entries.iter().all(is_plain)
            })
        };
        conf_state.voters.len() >= 3
            && conf_state.voters_outgoing.is_empty()
            && conf_state.voters.contains(&life.id)
            && conf_state.voters.iter().all(|&id| id == life.id || steady(id))
            && self.lives.iter().filter_map(|lives| lives.get(&group)).all(|life| !life.is_damaged)
            && !self.network.carries_change(group)
    }

    pub fn configuration(&self, group: u64, store: u64) -> Option<ConfState> {
        let opened = self.stores[store as usize - 1].as_ref()?;
        opened.groups.get(&group).map(|group| group.machine.conf_state.clone())
    }

    /// The members that a configuration names, and as of when.
    pub fn notice(&mut self, group: u64, leader: u64) {
        let Some(opened) = &self.stores[leader as usize - 1] else { return };
        let Some(one) = opened.groups.get(&group) else { return };
        let (index, named) = (one.machine.index, ids(&one.machine.conf_state));
        for lives in &mut self.lives {
            if let Some(life) = lives.get_mut(&group).filter(|life| named.contains(&life.id)) {
                life.named = life.named.max(index);
            }
        }
    }

    /// The leader has applied a change by which a replica is no member any more.
    pub fn bury_who_left(&mut self, group: u64, leader: u64) {
        let Some(opened) = &self.stores[leader as usize - 1] else { return };
        let Some(one) = opened.groups.get(&group) else { return };
        let (index, named) = (one.machine.index, ids(&one.machine.conf_state));
        for store in 1..=self.manner.stores {
            let Some(life) = self.lives[store as usize - 1].get_mut(&group) else { continue };
            if life.named > 0 && life.named < index && !named.contains(&life.id) {
                life.leaves = true;
                self.bury(store, group);
            }
        }
    }

    /// Takes a replica out of its store's log, durably.
    pub fn bury(&mut self, store: u64, group: u64) {
        if self.stores[store as usize - 1].is_none() {
            return;
        }
        let id = self.lives[store as usize - 1].get(&group).map(|life| life.id);
        self.say(|| format!("store {store}: replica {id:?} of group {group} goes"));
        let outcome = self.with(store, |store, around| store.remove(group, around));
        if outcome.is_ok() {
            self.lives[store as usize - 1].remove(&group);
        }
        self.ended(store, outcome);
    }

    pub fn leave_joint(&mut self, group: u64, leader: u64) {
        self.propose_change(group, leader, ConfChangeV2::default());
    }

    fn change(&mut self, group: u64, leader: u64, now: &ConfState) {
        let leader_id = self.lives[leader as usize - 1].get(&group).map_or(0, |life| life.id);
        let mut changes = Vec::new();
        let many = if self.rng.chance(35) { 2 + self.rng.below(3) } else { 1 };
        let mut voters = now.voters.clone();
        for store in 1..=self.manner.stores {
            if changes.len() as u64 >= many || !self.rng.chance(50) {
                continue;
            }
            let (at, dice) = (store as usize - 1, self.rng.below(100));
            let life = self.lives[at].get(&group).copied();
            let (id, kind) = match life {
                None => {
                    // Blank, with an id that was never used.
                    self.ids[at] += 1;
                    let id = store + 100 * self.ids[at];
                    self.lives[at].insert(group, Life { id, named: 0, leaves: false, is_damaged: false, is_new: true });
                    self.checks.figures.rebuilt += 1;
                    self.say(|| format!("store {store}: replica {id} of group {group} begins"));
                    self.open_group(store, group, true);
                    (id, ConfChangeType::AddLearnerNode)
                }
                Some(life) if life.leaves || life.is_damaged => continue,
                Some(life) if now.learners.contains(&life.id) => {
                    let promoted = self.is_close(group, leader, life.id) || dice < 3;
                    match (dice < 85, promoted) {
                        (true, true) => (life.id, ConfChangeType::AddNode),
                        (true, false) => continue,
                        _ => (life.id, ConfChangeType::RemoveNode),
                    }
                }
                Some(life) if now.voters.contains(&life.id) => {
                    let spared = life.id == leader_id && dice >= 5;
                    if spared || voters.len() < 2 {
                        continue;
                    }
                    voters.retain(|&voter| voter != life.id);
                    let kind = if dice < 70 { ConfChangeType::RemoveNode } else { ConfChangeType::AddLearnerNode };
                    (life.id, kind)
                }
                Some(life) => (life.id, ConfChangeType::AddLearnerNode),
            };
            assert_eq!(store_of(id), store);
            changes.push(ConfChangeSingle { change_type: kind, node_id: id, ..ConfChangeSingle::default() });
        }
        if changes.is_empty() {
            return;
        }
        let transitions = [ConfChangeTransition::Auto, ConfChangeTransition::Implicit, ConfChangeTransition::Explicit];
        let transition = transitions[self.rng.below(3) as usize];
        let mut change = ConfChangeV2 { transition, ..ConfChangeV2::default() };
        change.set_changes(changes.into());
        self.propose_change(group, leader, change);
    }

    fn is_close(&self, group: u64, leader: u64, id: u64) -> bool {
        let group = self.stores[leader as usize - 1].as_ref().and_then(|opened| opened.groups.get(&group));
        let progress = group.and_then(|group| group.node.raft.prs().get(id).map(|p| (p.matched, group.machine.index)));
        progress.is_some_and(|(matched, index)| matched + CLOSE >= index)
    }

    fn propose_change(&mut self, group: u64, store: u64, change: ConfChangeV2) {
        let simple = change.get_changes().len() == 1 && change.get_transition() == ConfChangeTransition::Auto;
        let Some(opened) = &mut self.stores[store as usize - 1] else { return };
        let Some(one) = opened.groups.get_mut(&group) else { return };
        let what = format!("group {group}: {:?} proposed by {}", change.get_changes(), one.id);
        if simple && self.rng.chance(50) {
            let single = &change.get_changes()[0];
            let change =
                ConfChange { change_type: single.change_type, node_id: single.node_id, ..ConfChange::default() };
            debug_assert!(change.is_initialized());
            let _ = one.node.propose_conf_change(vec![], change);
        } else {
            let _ = one.node.propose_conf_change(vec![], change);
        }
        opened.look(group, &mut self.checks);
        self.say(|| what);
    }
}

pub fn ids(of: &ConfState) -> Vec<u64> {
    [&of.voters, &of.learners, &of.voters_outgoing, &of.learners_next].into_iter().flatten().copied().collect()
}
