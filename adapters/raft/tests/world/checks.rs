//! What must hold in a world, whatever happens in it. The checks do not rely on what the log says, but on what was sent and applied.

use std::collections::{BTreeMap, HashMap};

use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole};
use strandlog_raft::{BOOTSTRAP_INDEX, GroupStorage};

use crate::machine::{Machine, digest};

/// An entry that somebody applied.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Applied {
    term: u64,
    digest: u64,
    /// The state of a machine after it.
    chain: u64,
    /// The term in which it was first applied: it was committed in that or in an earlier term.
    by: u64,
}

/// What a replica has promised others.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    term: u64,
    /// That up to this index its log is that of the leader of this term.
    matched: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub applied: u64,
    pub acknowledged: u64,
    pub leaders: u64,
    pub installed: u64,
    pub adopted: u64,
    pub crashes: u64,
    pub openings: u64,
    pub looked_ahead: u64,
    pub changes: u64,
    pub joint: u64,
    pub rebuilt: u64,
    /// Replicas that were found damaged.
    pub damaged: u64,
    pub compacted: u64,
    pub full: u64,
    pub reads: u64,
    pub fetched: u64,
    pub reopened: u64,
    /// Groups that were added to a round that was already full.
    pub gathered: u64,
    /// Snapshots that were refused: rare.
    pub outdated: u64,
}

impl Figures {
    fn all(&mut self) -> [&mut u64; 19] {
        let Self { applied, acknowledged, leaders, installed, adopted, crashes, openings, looked_ahead, .. } = self;
        let Self {
            changes,
            joint,
            rebuilt,
            damaged,
            compacted,
            full,
            reads,
            fetched,
            reopened,
            gathered,
            outdated,
            ..
        } = self;
        [
            applied,
            acknowledged,
            leaders,
            installed,
            adopted,
            crashes,
            openings,
            looked_ahead,
            changes,
            joint,
            rebuilt,
            damaged,
            compacted,
            full,
            reads,
            fetched,
            reopened,
            gathered,
            outdated,
        ]
    }

    pub fn add(&mut self, more: &Self) {
        let mut more = *more;
        for (sum, more) in self.all().into_iter().zip(more.all()) {
            *sum += *more;
        }
    }

    /// Every kind of event happened, and more than once.
    pub fn is_much(mut self) {
        let text = format!("{self:?}");
        let [usual @ .., _] = self.all();
        assert!(usual.iter().all(|many| **many > 1), "little was tried: {text}");
    }
}

#[derive(Debug, Default)]
pub struct Checks {
    /// Whom a replica voted for, by group, id and term.
    votes: HashMap<(u64, u64, u64), u64>,
    /// Who led a group in a term.
    leaders: HashMap<(u64, u64), u64>,
    /// Of each group, the entries after the bootstrap.
    committed: HashMap<u64, Vec<Applied>>,
    /// One content for each group, index and term.
    contents: HashMap<(u64, u64, u64), u64>,
    /// What the leader of a term has in its log, as far as its messages showed: the term at an index.
    logs: HashMap<(u64, u64), BTreeMap<u64, u64>>,
    promises: HashMap<(u64, u64), Promise>,
    /// Proposals that clients were told are applied.
    acknowledged: HashMap<(u64, u64), u64>,
    /// Reads that were requested, and the index that they must see.
    readings: HashMap<u64, (u64, u64)>,
    pub figures: Figures,
}

impl Checks {
    /// A message is sent.
    pub fn said(&mut self, group: u64, message: &Message) {
        use MessageType::*;
        let (id, kind, term) = (message.from, message.get_msg_type(), message.term);
        // Not messages that only ask, or that are forwarded for another replica.
        if matches!(kind, MsgRequestPreVote | MsgRequestPreVoteResponse | MsgTransferLeader | MsgPropose | MsgReadIndex)
        {
            return;
        }
        let promise = self.promises.entry((group, id)).or_default();
        promise.term = promise.term.max(term);
        match kind {
            MsgAppendResponse if !message.reject => promise.matched = promise.matched.max((term, message.index)),
            MsgRequestVoteResponse if !message.reject => self.votes_for(group, id, term, message.to),
            MsgRequestVote => self.votes_for(group, id, term, id),
            MsgAppend => {
                self.leads(group, id, term);
                let log = self.logs.entry((group, term)).or_default();
                log.insert(message.index, message.log_term);
                log.extend(message.get_entries().iter().map(|entry| (entry.index, entry.term)));
                message.get_entries().iter().for_each(|entry| self.content(group, entry));
            }
            MsgSnapshot => {
                self.leads(group, id, term);
                self.machine(group, &Machine::from_snapshot(message.get_snapshot()), "a snapshot that is sent");
            }
            MsgHeartbeat | MsgTimeoutNow => self.leads(group, id, term),
            _ => {}
        }
    }

    fn votes_for(&mut self, group: u64, id: u64, term: u64, candidate: u64) {
        let first = *self.votes.entry((group, id, term)).or_insert(candidate);
        assert_eq!(first, candidate, "group {group}: {id} votes twice in term {term}");
    }

    fn leads(&mut self, group: u64, id: u64, term: u64) {
        let first = *self.leaders.entry((group, term)).or_insert_with(|| {
            self.figures.leaders += 1;
            id
        });
        assert_eq!(first, id, "group {group}: two leaders in term {term}");
    }

    fn content(&mut self, group: u64, entry: &Entry) {
        let digest = digest(entry);
        let first = *self.contents.entry((group, entry.index, entry.term)).or_insert(digest);
        assert_eq!(first, digest, "group {group}: two entries {} of term {}", entry.index, entry.term);
    }

    /// Something was done to a group. A leader has all that was committed in earlier terms.
    pub fn look(&mut self, group: u64, node: &RawNode<GroupStorage>) {
        let raft = &node.raft;
        if raft.state != StateRole::Leader || self.leaders.get(&(group, raft.term)) == Some(&raft.id) {
            return;
        }
        self.leads(group, raft.id, raft.term);
        let (first, last) = (raft.raft_log.first_index(), raft.raft_log.last_index());
        for (index, applied) in (BOOTSTRAP_INDEX + 1..).zip(self.committed.get(&group).into_iter().flatten()) {
            if applied.by >= raft.term {
                continue;
            }
            let what = format!("group {group}: {} leads in term {} and", raft.id, raft.term);
            assert!(index <= last, "{what} ends at {last}, {index} is committed");
            if index + 1 >= first {
                assert_eq!(raft.raft_log.term(index).ok(), Some(applied.term), "{what} has another entry {index}");
            }
        }
    }

    /// An entry was applied, with this result: the same everywhere.
    pub fn applied(&mut self, group: u64, id: u64, by: u64, entry: &Entry, machine: &Machine) {
        self.content(group, entry);
        let committed = self.committed.entry(group).or_default();
        let at = (entry.index - BOOTSTRAP_INDEX - 1) as usize;
        let new = Applied { term: entry.term, digest: digest(entry), chain: machine.chain, by };
        if at == committed.len() {
            committed.push(new);
            self.figures.applied += 1;
        }
        let known = committed.get(at).unwrap_or_else(|| panic!("group {group}: {id} applies {} ahead", entry.index));
        let same = (known.term, known.digest, known.chain) == (new.term, new.digest, new.chain);
        assert!(same, "group {group}: {id} applies another entry {}: {new:?}, not {known:?}", entry.index);
    }

    /// A machine that was found anywhere must be that of its index.
    pub fn machine(&self, group: u64, machine: &Machine, what: &str) {
        if machine.index <= BOOTSTRAP_INDEX {
            return;
        }
        let at = (machine.index - BOOTSTRAP_INDEX - 1) as usize;
        let known = self.committed.get(&group).and_then(|all| all.get(at));
        let known = known.unwrap_or_else(|| panic!("group {group}: {what} is ahead of everybody: {machine:?}"));
        assert_eq!((known.term, known.chain), (machine.term, machine.chain), "group {group}: {what} is another");
    }

    /// The highest index that any machine has applied.
    pub fn end(&self, group: u64) -> u64 {
        BOOTSTRAP_INDEX + self.committed.get(&group).map_or(0, Vec::len) as u64
    }

    /// A client is told that its proposal is applied.
    pub fn acknowledge(&mut self, group: u64, proposal: u64, index: u64) {
        self.figures.acknowledged += 1;
        let first = *self.acknowledged.entry((group, proposal)).or_insert(index);
        assert_eq!(first, index, "group {group}: proposal {proposal} twice");
    }

    /// A client reads: it must see everything that was applied anywhere by now.
    pub fn asks(&mut self, reading: u64, group: u64) {
        self.readings.insert(reading, (group, self.end(group)));
    }

    pub fn reads(&mut self, reading: u64, index: u64) {
        let Some((group, end)) = self.readings.remove(&reading) else { return };
        self.figures.reads += 1;
        assert!(index >= end, "group {group}: a reading at {index} misses what was applied up to {end}");
    }

    /// Whether others may rely on something that the replica sent.
    pub fn promised(&self, group: u64, id: u64) -> bool {
        self.promises.get(&(group, id)).is_some_and(|promise| promise.matched.1 > 0)
    }

    /// An opening found this of a replica: all that it ever promised must still hold. (`is_past`: what really happened, not only what could
    /// have.)
    pub fn found(&mut self, group: u64, id: u64, storage: &GroupStorage, machine: &Machine, is_past: bool) {
        let (state, (first, last)) = (storage.hard_state(), storage.replica().bounds());
        let promise = self.promises.get(&(group, id)).copied().unwrap_or_default();
        let what = format!("group {group}: {id} said {promise:?}, and comes back with [{first}, {last}] and {state:?}");
        assert!(state.term >= promise.term, "the term is forgotten: {what}");
        let vote = self.votes.get(&(group, id, state.term)).copied().unwrap_or(state.vote);
        assert_eq!(state.vote, vote, "the vote is forgotten: {what}");
        let (term, index) = promise.matched;
        if state.term == term {
            assert!(last >= index, "entries are forgotten: {what}");
            let told = self.logs.get(&(group, term)).and_then(|log| log.get(&index));
            if let (Some(&told), true) = (told, index + 1 >= first) {
                assert_eq!(storage.replica().term(index).ok(), Some(told), "entries are of another leader: {what}");
            }
        }
        assert_eq!(machine.index, storage.applied(), "where raft goes on is not where the machine is: {what}");
        assert!(machine.index <= state.commit, "applied and not committed: {what}");
        self.machine(group, machine, "what comes back");
        let entries = storage.read_entries(first, last + 1, None).unwrap_or_else(|error| panic!("{error}: {what}"));
        assert_eq!(entries.len() as u64, last + 1 - first, "{what}");
        for entry in entries {
            if is_past {
                self.content(group, &entry);
            }
            let at = entry.index.checked_sub(BOOTSTRAP_INDEX + 1).map(|at| at as usize);
            let known = at.and_then(|at| self.committed.get(&group).and_then(|all| all.get(at)));
            if let (Some(known), true) = (known, entry.index <= state.commit) {
                assert_eq!(known.digest, digest(&entry), "committed entry {} is another: {what}", entry.index);
            }
        }
    }
}
