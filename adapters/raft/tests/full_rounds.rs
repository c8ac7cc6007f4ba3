//! A poller that submits whenever a round says that it is full never has one refused as too large, whatever it puts into it.

mod support;

use std::sync::Arc;

use raft::eraftpb::{Entry, MessageType};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, GroupStorage, PersistQueue, Round};
use support::{bootstrapped, commit, conf_state, entry, message, node};

/// `count` groups, each with the entries 2 to 9, and what a poller has for them.
struct Store {
    groups: Vec<GroupStorage>,
    queue: PersistQueue,
    round: Round,
    submitted: u64,
}

impl Store {
    fn new(wal: Wal, count: u64) -> Self {
        let wal = Arc::new(wal);
        let mut groups: Vec<GroupStorage> = (0..count).map(|group| bootstrapped(&wal, group)).collect();
        let entries: Vec<Entry> = (2..10).map(|index| entry(index, 1)).collect();
        for some in groups.chunks_mut(100) {
            commit(&wal, |batch| some.iter_mut().for_each(|group| group.append(batch, &entries).unwrap()));
        }
        let queue = PersistQueue::new(wal, || ());
        Self { groups, round: queue.round(), queue, submitted: 0 }
    }

    fn submit(&mut self) {
        self.queue.submit(&mut self.round, |_| ()).expect("a round that was not full");
        self.submitted += 1;
    }

    /// Puts something of each group into the round, and submits it whenever it is full.
    fn each(&mut self, write: impl Fn(&mut PersistQueue, &mut Round, &mut GroupStorage)) {
        for group in 0..self.groups.len() {
            write(&mut self.queue, &mut self.round, &mut self.groups[group]);
            if self.round.is_full() {
                self.submit();
            }
        }
        self.submit();
    }

    fn firsts(&self) -> Vec<u64> {
        self.groups.iter().map(|group| group.replica().first_index()).collect()
    }
}

fn large() -> Wal {
    support::options().segment_size(1 << 20).open_disk(Arc::new(SimDisk::new(64 << 20))).expect("the log opens")
}

#[test]
fn checkpoints_and_compactions_of_many_groups_come_in_rounds_that_fit() {
    let mut store = Store::new(large(), 3500);
    let conf_state = conf_state(&[1, 2, 3]);
    store.each(|_, round, group| {
        round.checkpoint(group, Checkpoint { index: 9, term: 1, conf_state: &conf_state, data: b"at nine" }).unwrap();
        round.compact(group, 9).unwrap();
    });
    assert_eq!(store.firsts(), vec![9; 3500]);
    assert!(store.submitted < 35, "{} rounds: they were not full", store.submitted);
}

#[test]
fn compactions_alone_come_in_rounds_that_fit() {
    let mut store = Store::new(large(), 3000);
    store.each(|_, round, group| {
        group.set_applied(9, 1).unwrap();
        round.compact(group, 9).unwrap();
    });
    assert_eq!(store.firsts(), vec![9; 3000]);
    store.each(|_, round, group| assert_eq!(round.compact(group, 10).unwrap(), 10));
    store.each(|queue, round, group| queue.remove(round, group.group()));
    assert!(store.groups.iter().all(|group| !group.replica().exists()));
    assert!(store.submitted < 90, "{} rounds: they were not full", store.submitted);
}

/// The size of a configuration counts, too.
#[test]
fn large_configurations_come_in_rounds_that_fit() {
    let mut store = Store::new(support::open(&Arc::new(SimDisk::new(16 << 20))), 200);
    let many = conf_state(&(1..=300).map(|n| n << 40).collect::<Vec<_>>());
    store.each(|_, round, group| {
        round.checkpoint(group, Checkpoint { index: 9, term: 1, conf_state: &many, data: b"" }).unwrap();
    });
    assert!(store.groups.iter().all(|group| group.conf_state() == &many));
}

/// The smallest segments hold fifty thousand bytes.
#[test]
fn readies_come_in_rounds_that_fit_the_smallest_segments() {
    let wal = Arc::new(support::open(&Arc::new(SimDisk::new(16 << 20))));
    let mut nodes: Vec<_> = (0..400).map(|group| node(1, bootstrapped(&wal, group))).collect();
    let mut queue = PersistQueue::new(Arc::clone(&wal), || ());
    let mut round = queue.round();
    for group in 0..nodes.len() {
        let mut append = message(MessageType::MsgAppend, 2, 1, 2);
        (append.index, append.log_term) = (1, 1);
        append.set_entries(vec![Entry { data: vec![7; 60].into(), ..entry(2, 2) }].into());
        nodes[group].step(append).unwrap();
        let ready = nodes[group].ready();
        round.persist(nodes[group].mut_store(), ready).unwrap();
        if round.is_full() {
            queue
                .submit(&mut round, |written| nodes[written.group as usize].advance_append_async(written.ready))
                .unwrap();
        }
    }
    queue.submit(&mut round, |written| nodes[written.group as usize].advance_append_async(written.ready)).unwrap();
    assert!(nodes.iter().all(|node| node.store().replica().last_index() == 2));
}

/// Taking something out of a round makes room in it.
#[test]
fn a_group_that_is_forgotten_no_longer_fills_the_round() {
    let mut store = Store::new(support::open(&support::disk()), 2);
    let conf_state = conf_state(&[1, 2, 3]);
    let data = vec![7; 20 << 10];
    let checkpoint = Checkpoint { index: 9, term: 1, conf_state: &conf_state, data: &data };
    store.round.checkpoint(&mut store.groups[0], checkpoint).unwrap();
    assert!(store.round.is_full());
    store.queue.forget(&mut store.round, 0);
    assert!(!store.round.is_full());
    let mut batch = Batch::new();
    store.groups[1].checkpoint(&mut batch, checkpoint).unwrap();
    store.queue.wal().commit(batch).expect("a value that fits");
}
