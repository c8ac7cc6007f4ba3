//! Three stores, a few groups, a lossy network, and power cuts on simulated disks: nothing that a store said
//! may be forgotten, nothing applied may differ, and in the end all have the same.
//!
//! One thread plays everything. Elections draw their timeouts from raft's own randomness, so a seed fixes the
//! kind of run, not the run itself.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};
use strandlog::Wal;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog_raft::{Checkpoint, GroupStorage, PersistQueue, Round, Written};
use support::{bootstrapped, node, open};

const STORES: u64 = 3;
const GROUPS: u64 = 8;
const CHECKPOINT_EVERY: u64 = 8;
const RETAIN: u64 = 6;

/// What a store has told others about a group.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    term: u64,
    /// Term and candidate of a vote.
    vote: (u64, u64),
    /// Term and index acknowledged.
    matched: (u64, u64),
}

struct Group {
    node: RawNode<GroupStorage>,
    index: u64,
    chain: u64,
    snapshot: Option<u64>,
}

struct Store {
    wal: Arc<Wal>,
    queue: PersistQueue,
    round: Round,
    groups: Vec<Group>,
}

struct Cluster {
    seed: u64,
    disks: Vec<Arc<SimDisk>>,
    stores: Vec<Option<Store>>,
    mail: Vec<Vec<(u64, Message)>>,
    promises: HashMap<(u64, u64), Promise>,
    /// The hash chain after each entry that was applied anywhere: the same everywhere.
    chains: HashMap<(u64, u64), u64>,
    snapshots: u64,
    crashes: u64,
}

#[test]
fn what_was_said_survives_power_cuts_and_all_stores_agree_in_the_end() {
    let (mut applied, mut snapshots, mut crashes) = (0, 0, 0);
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..1500 {
            cluster.step();
        }
        cluster.settle();
        applied += cluster.chains.len();
        snapshots += cluster.snapshots;
        crashes += cluster.crashes;
    }
    println!("{applied} entries, {snapshots} snapshots, {crashes} crashes");
    assert!(applied > 20_000 && snapshots > 200 && crashes > 400, "little was tested");
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let disks: Vec<_> = (0..STORES).map(|_| support::disk()).collect();
        let mut cluster = Cluster {
            seed,
            stores: Vec::new(),
            mail: vec![Vec::new(); STORES as usize],
            promises: HashMap::new(),
            chains: HashMap::new(),
            snapshots: 0,
            crashes: 0,
            disks,
        };
        for store in 1..=STORES {
            let wal = open(&cluster.disks[store as usize - 1]);
            (1..=GROUPS).for_each(|group| drop(bootstrapped(&wal, group)));
            let opened = cluster.store(store, wal);
            cluster.stores.push(Some(opened));
        }
        cluster
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Opens a store as its log has it. Everything that it ever said must still hold.
    fn store(&self, store: u64, wal: Wal) -> Store {
        assert_eq!(wal.damage(), [], "store {store}");
        let group = |group| {
            let storage = GroupStorage::open(&wal, group).unwrap();
            let (state, last) = (storage.hard_state(), storage.replica().last_index());
            let promise = self.promises.get(&(store, group)).copied().unwrap_or_default();
            let what = format!("store {store}, group {group}: {promise:?}, but {state:?} and last index {last}");
            assert!(state.term >= promise.term, "the term is forgotten: {what}");
            assert!(state.term > promise.vote.0 || state.vote == promise.vote.1, "the vote is forgotten: {what}");
            assert!(state.term > promise.matched.0 || last >= promise.matched.1, "entries are forgotten: {what}");
            let data = storage.checkpoint_data().unwrap().unwrap();
            let index = storage.applied();
            let chain = if index == 1 { 0 } else { u64::from_le_bytes(data[..].try_into().unwrap()) };
            Group { node: node(store, storage), index, chain, snapshot: None }
        };
        let groups = (1..=GROUPS).map(group).collect();
        let queue = PersistQueue::new(Arc::new(wal), || {});
        Store { wal: Arc::clone(queue.wal()), round: queue.round(), queue, groups }
    }

    fn step(&mut self) {
        let store = 1 + self.below(STORES);
        if self.stores[store as usize - 1].is_none() {
            if self.chance(10) {
                self.come_back(store);
            }
            return;
        }
        self.time_passes(store);
        self.deliver(store, 10);
        if self.chance(4) {
            // A power cut somewhere in the writes to come, or perhaps after them.
            let disk = &self.disks[store as usize - 1];
            let (disk, now) = (Arc::clone(disk), disk.events());
            disk.fail_at(now + self.below(4), Fault::Cut);
        }
        let sync = self.chance(60);
        if self.drive(store, sync).is_err() {
            self.crash(store);
        }
    }

    fn time_passes(&mut self, store: u64) {
        let ticks = self.below(3);
        let proposals = self.below(40);
        let Some(opened) = &mut self.stores[store as usize - 1] else { return };
        for group in &mut opened.groups {
            for _ in 0..ticks {
                if group.snapshot.is_none() {
                    group.node.tick();
                }
            }
            if group.node.raft.state == StateRole::Leader {
                for _ in 0..proposals % 5 {
                    let _ = group.node.propose(vec![], vec![proposals as u8; proposals as usize * 8]);
                }
            }
        }
    }

    /// Delivers the mail; some of it is lost, none is reordered.
    fn deliver(&mut self, store: u64, loss_percent: u64) {
        for (group, message) in std::mem::take(&mut self.mail[store as usize - 1]) {
            let lost = self.chance(loss_percent);
            let Some(opened) = &mut self.stores[store as usize - 1] else { return };
            if !lost {
                let _ = opened.groups[group as usize - 1].node.step(message);
            }
        }
    }

    /// One iteration of the store's poller.
    fn drive(&mut self, store: u64, sync: bool) -> Result<(), Box<dyn std::error::Error>> {
        let Some(mut opened) = self.stores[store as usize - 1].take() else { return Ok(()) };
        let Store { wal, queue, round, groups } = &mut opened;
        let mut out = Vec::new();
        for (group, id) in groups.iter_mut().zip(1..) {
            if !group.node.has_ready() {
                continue;
            }
            let mut ready = group.node.ready();
            if !ready.snapshot().is_empty() {
                self.snapshots += 1;
                group.index = ready.snapshot().get_metadata().index;
                group.chain = u64::from_le_bytes(ready.snapshot().data[..].try_into()?);
                group.snapshot = Some(ready.number());
                assert_eq!(self.chains.get(&(id, group.index)), Some(&group.chain), "group {id}: a false snapshot");
            }
            let committed = ready.take_committed_entries();
            round.persist(group.node.mut_store(), ready)?;
            for entry in committed {
                assert_eq!(entry.index, group.index + 1);
                group.index = entry.index;
                group.chain = chain(group.chain, entry.term, &entry.data);
                let expected = *self.chains.entry((id, group.index)).or_insert(group.chain);
                assert_eq!(group.chain, expected, "group {id}: entry {} differs", group.index);
            }
            if group.snapshot.is_none() {
                group.checkpoint(round);
            }
        }
        queue.submit(round, |Written { group, ready, messages }| {
            groups[group as usize - 1].node.advance_append_async(ready);
            out.extend(messages.into_iter().map(|message| (group, message)));
        })?;
        if sync {
            wal.sync()?;
        }
        queue.poll(|durable| {
            let group = &mut groups[durable.group as usize - 1];
            group.node.on_persist_ready(durable.number);
            if group.snapshot.is_some_and(|number| number <= durable.number) {
                group.snapshot = None;
            }
            out.extend(durable.messages.into_iter().map(|message| (durable.group, message)));
        })?;
        for group in groups.iter_mut().filter(|group| group.snapshot.is_none()) {
            group.node.advance_apply_to(group.index);
        }
        self.stores[store as usize - 1] = Some(opened);
        self.send(store, out);
        Ok(())
    }

    fn send(&mut self, store: u64, out: Vec<(u64, Message)>) {
        for (group, message) in out {
            let promise = self.promises.entry((store, group)).or_default();
            let kind = message.get_msg_type();
            if !matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
                promise.term = promise.term.max(message.term);
            }
            if !message.reject && kind == MessageType::MsgRequestVoteResponse {
                promise.vote = (message.term, message.to);
            }
            if !message.reject && kind == MessageType::MsgAppendResponse {
                promise.matched = promise.matched.max((message.term, message.index));
            }
            let to = message.to;
            let Some(opened) = &mut self.stores[store as usize - 1] else { return };
            let node = &mut opened.groups[group as usize - 1].node;
            if kind == MessageType::MsgSnapshot {
                node.report_snapshot(to, raft::SnapshotStatus::Finish);
            }
            self.mail[to as usize - 1].push((group, message));
        }
    }

    /// Cuts the power; chance decides what the medium keeps.
    fn crash(&mut self, store: u64) {
        self.crashes += 1;
        self.stores[store as usize - 1] = None;
        self.mail[store as usize - 1].clear();
        let seed = self.below(u64::MAX);
        let disk = &mut self.disks[store as usize - 1];
        *disk = Arc::new(disk.crash_seeded(seed));
    }

    fn come_back(&mut self, store: u64) {
        let opened = self.store(store, open(&self.disks[store as usize - 1]));
        self.stores[store as usize - 1] = Some(opened);
    }

    /// All stores are up and nothing is lost: runs until all are at the same index.
    fn settle(&mut self) {
        for store in 1..=STORES {
            // A power cut that was planned and has not happened is cancelled.
            self.crash(store);
            self.come_back(store);
        }
        for _ in 0..2000 {
            for store in 1..=STORES {
                if let Some(opened) = &mut self.stores[store as usize - 1] {
                    opened.groups.iter_mut().filter(|group| group.snapshot.is_none()).for_each(|group| {
                        group.node.tick();
                    });
                }
                self.deliver(store, 0);
                self.drive(store, true).unwrap();
            }
            if self.agree() {
                return;
            }
        }
        panic!("the stores did not come together");
    }

    /// Whether each group has a leader, and all its replicas have applied everything and hold the same.
    fn agree(&self) -> bool {
        let stores: Vec<&Store> = self.stores.iter().flatten().collect();
        (0..GROUPS as usize).all(|group| {
            let of: Vec<&Group> = stores.iter().map(|store| &store.groups[group]).collect();
            let last = |group: &Group| group.node.store().replica().last_index();
            of.iter().any(|group| group.node.raft.state == StateRole::Leader)
                && of.iter().all(|one| one.index == last(one) && one.index == of[0].index && one.chain == of[0].chain)
                && of.iter().all(|one| same_log(one.node.store(), of[0].node.store()))
        })
    }
}

impl Group {
    fn checkpoint(&mut self, round: &mut Round) {
        let storage = self.node.mut_store();
        if self.index < storage.applied() + CHECKPOINT_EVERY {
            return;
        }
        let term = storage.replica().term(self.index).unwrap();
        let (conf_state, data) = (storage.conf_state().clone(), self.chain.to_le_bytes());
        let checkpoint = Checkpoint { index: self.index, term, conf_state: &conf_state, data: &data };
        round.checkpoint(storage, checkpoint).unwrap();
        round.compact(storage, self.index - RETAIN).unwrap();
    }
}

fn same_log(one: &GroupStorage, other: &GroupStorage) -> bool {
    let low = one.replica().first_index().max(other.replica().first_index());
    let high = one.replica().last_index() + 1;
    one.read_entries(low, high, None).unwrap() == other.read_entries(low, high, None).unwrap()
}

fn chain(before: u64, term: u64, data: &[u8]) -> u64 {
    let words = [term, data.len() as u64, u64::from(data.first().copied().unwrap_or(0))];
    words.iter().fold(before, |chain, word| (chain ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(17))
}
