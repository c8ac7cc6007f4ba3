//! What was promised, and whether it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A vote as raft orders them: term, then node.
pub type Ballot = (u64, u64);

#[derive(Default)]
struct Group {
    /// The state machine after everything up to this index: one hash, the same on every node and in every life.
    states: BTreeMap<u64, u64>,
    /// What clients were told is written.
    acknowledged: BTreeSet<u64>,
    /// The highest vote that a node granted, or by which it accepted a leader.
    ballots: BTreeMap<u64, Ballot>,
}

#[derive(Default)]
pub struct Judge {
    groups: Mutex<BTreeMap<u64, Group>>,
    verdict: Mutex<Option<String>>,
}

impl Judge {
    /// Keeps only the first failure: what follows is of a world that is already broken.
    pub fn fail(&self, why: String) {
        self.verdict.lock().unwrap().get_or_insert(why);
    }

    pub fn verdict(&self) -> Option<String> {
        self.verdict.lock().unwrap().clone()
    }

    pub fn is_at(&self, node: u64, group: u64, index: u64, state: u64, how: &str) {
        let mut groups = self.groups.lock().unwrap();
        let known = *groups.entry(group).or_default().states.entry(index).or_insert(state);
        if known != state {
            self.fail(format!("node {node}, group {group}: {how} at {index} is not what another had there"));
        }
    }

    /// What a node has granted so far. Ask before sending it a request.
    pub fn given(&self, node: u64, group: u64) -> Option<Ballot> {
        self.groups.lock().unwrap().entry(group).or_default().ballots.get(&node).copied()
    }

    /// A node granted a vote, or accepted a leader by it. `before`: what it had granted before the request. What it granted meanwhile may
    /// have come later: openraft 0.10 answers an append when its entries are durable, and may have voted since.
    pub fn voted(&self, node: u64, group: u64, ballot: Ballot, before: Option<Ballot>) {
        if Some(ballot) < before {
            self.fail(format!("node {node}, group {group}: voted for {ballot:?} after {before:?}"));
        }
        let mut groups = self.groups.lock().unwrap();
        let highest = groups.entry(group).or_default().ballots.entry(node).or_insert(ballot);
        *highest = ballot.max(*highest);
    }

    /// The node is no longer a member, and will come back as a new one: it is bound by nothing.
    pub fn forget(&self, node: u64, group: u64) {
        self.groups.lock().unwrap().entry(group).or_default().ballots.remove(&node);
    }

    /// The vote with which a node comes back.
    pub fn returned(&self, node: u64, group: u64, ballot: Option<Ballot>) {
        let mut groups = self.groups.lock().unwrap();
        let given = groups.entry(group).or_default().ballots.get(&node).copied();
        if ballot < given {
            self.fail(format!("node {node}, group {group}: gave {given:?}, and comes back with {ballot:?}"));
        }
    }

    pub fn acknowledged(&self, group: u64, line: u64) {
        self.groups.lock().unwrap().entry(group).or_default().acknowledged.insert(line);
    }

    pub fn count(&self) -> u64 {
        self.groups.lock().unwrap().values().map(|group| group.acknowledged.len() as u64).sum()
    }

    pub fn ends_with(&self, node: u64, group: u64, lines: &[u64]) {
        let mut left = self.groups.lock().unwrap().entry(group).or_default().acknowledged.clone();
        let twice = lines.iter().filter(|line| !left.remove(line)).count();
        if !left.is_empty() {
            self.fail(format!("node {node}, group {group}: acknowledged, and gone: {left:?}"));
        }
        // Unacknowledged writes may be there; nothing is there more than once.
        let different: BTreeSet<u64> = lines.iter().copied().collect();
        if different.len() != lines.len() {
            self.fail(format!("node {node}, group {group}: applied twice, {twice} lines unexpected"));
        }
    }
}
