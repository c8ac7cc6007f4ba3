//! What has been promised, and whether it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A vote as raft orders them: term, then node.
pub type Ballot = (u64, u64);

#[derive(Default)]
struct Group {
    /// What the state machine is when everything up to this index is applied: one hash, on every node and in every life.
    states: BTreeMap<u64, u64>,
    /// What clients were told is written.
    acknowledged: BTreeSet<u64>,
    /// The highest vote that a node gave away, or by which it accepted a leader.
    ballots: BTreeMap<u64, Ballot>,
}

#[derive(Default)]
pub struct Judge {
    groups: Mutex<BTreeMap<u64, Group>>,
    verdict: Mutex<Option<String>>,
}

impl Judge {
    /// The first word stands: what follows is of a world that is broken.
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

    /// What a node has given so far. To be asked before it is asked something.
    pub fn given(&self, node: u64, group: u64) -> Option<Ballot> {
        self.groups.lock().unwrap().entry(group).or_default().ballots.get(&node).copied()
    }

    /// A node granted a vote, or accepted a leader by it; `before`: what it had given when it was asked. What it gave meanwhile may have come later: openraft
    /// 0.10 answers an append when its entries are durable, and may have voted since.
    pub fn voted(&self, node: u64, group: u64, ballot: Ballot, before: Option<Ballot>) {
        if Some(ballot) < before {
            self.fail(format!("node {node}, group {group}: voted for {ballot:?} after {before:?}"));
        }
        let mut groups = self.groups.lock().unwrap();
        let highest = groups.entry(group).or_default().ballots.entry(node).or_insert(ballot);
        *highest = ballot.max(*highest);
    }

    /// The node is no member, and will be a new one: it owes nothing.
    pub fn forget(&self, node: u64, group: u64) {
        self.groups.lock().unwrap().entry(group).or_default().ballots.remove(&node);
    }

    /// The vote that a node comes back with.
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
        // What was not acknowledged may be there; nothing is there more than once.
        let different: BTreeSet<u64> = lines.iter().copied().collect();
        if different.len() != lines.len() {
            self.fail(format!("node {node}, group {group}: applied twice, {twice} lines unexpected"));
        }
    }
}
