//! A log full of small groups: each can still compact what it has, and vote.

mod support;

use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{Entry, MessageType};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, Error, GroupStorage, PersistQueue, Round};
use support::{bootstrapped, commit, conf_state, disk, entry, hard_state, message, node, open};

/// As many groups as there is room for, each with entries 2 to `last`, all committed.
fn full(wal: &Wal, last: u64, data: usize) -> Vec<GroupStorage> {
    let mut groups = Vec::new();
    let entries: Vec<_> = (2..=last).map(|i| Entry { data: vec![7; data].into(), ..entry(i, 1) }).collect();
    for id in 1.. {
        let mut group = GroupStorage::open(wal, id).unwrap();
        let mut batch = Batch::new();
        group.bootstrap(&mut batch, &conf_state(&[1, 2, 3]), b"start").unwrap();
        if wal.commit(&mut batch).is_err() {
            break;
        }
        let mut batch = Batch::new();
        group.append(&mut batch, &entries).unwrap();
        group.set_hard_state(&mut batch, &hard_state(1, 1, last));
        if wal.commit(&mut batch).is_err() {
            break;
        }
        groups.push(group);
    }
    wal.sync().unwrap();
    groups
}

/// State machines that need a few more bytes, while all entries go.
#[test]
fn a_full_log_takes_checkpoints_that_let_go_of_entries() {
    for (last, data) in [(3, 10), (3, 100), (3, 400), (20, 10), (20, 50), (60, 10), (130, 0)] {
        for elsewhere in [false, true] {
            let wal = open(&disk());
            let mut groups = full(&wal, last, data);
            let conf_state = conf_state(&[1, 2, 3]);
            for group in &mut groups {
                let mut batch = Batch::new();
                if elsewhere {
                    group.set_applied(last, 1).unwrap();
                } else {
                    let checkpoint =
                        Checkpoint { index: last, term: 1, conf_state: &conf_state, data: b"state, longer" };
                    group.checkpoint(&mut batch, checkpoint).unwrap();
                }
                assert_eq!(group.compact(&mut batch, last + 1).unwrap(), last + 1);
                let outcome = wal.commit(&mut batch);
                assert!(outcome.is_ok(), "{last} entries of {data}, {elsewhere}, group {}: {outcome:?}", group.group());
            }
        }
    }
}

/// None of these makes room: terms, votes and indexes of any size take what the first ones took.
#[test]
fn a_full_log_takes_hard_states_and_checkpoints_of_the_same_data() {
    let wal = open(&disk());
    let mut groups = full(&wal, 3, 0);
    let conf_state = conf_state(&[1, 2, 3]);
    for group in &mut groups {
        let mut batch = Batch::new();
        group.set_hard_state(&mut batch, &hard_state(u64::MAX, u64::MAX, 3));
        wal.commit(&mut batch).unwrap();
        let mut batch = Batch::new();
        let checkpoint = Checkpoint { index: 3, term: u64::MAX, conf_state: &conf_state, data: b"stats" };
        group.checkpoint(&mut batch, checkpoint).unwrap();
        wal.commit(&mut batch).unwrap();
    }
    drop(groups);
    let group = GroupStorage::open(&wal, 1).unwrap();
    assert_eq!(group.hard_state(), &hard_state(u64::MAX, u64::MAX, 3));
    assert_eq!(group.checkpoint_data().unwrap().as_deref(), Some(&b"stats"[..]));
}

/// A larger entry would seal its round, with all groups in it, for good.
#[test]
fn the_largest_proposal_fits_a_log_that_holds_nothing_else() {
    let small = || Wal::options().segment_size(64 << 10).chunk_size(4096);
    for (options, capacity) in [
        (small(), (64 << 10) + 8 * (64 << 10)),
        (small(), 4 << 20),
        (Wal::options(), 8 << 20),
        (Wal::options(), 64 << 20),
        (Wal::options(), 100 << 20),
    ] {
        let options = options.capacity(capacity).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(capacity))).unwrap();
        let mut group = bootstrapped(&wal, 1);
        let most = group.max_proposal_bytes() as usize;
        assert!(most as u64 > capacity / 10, "{most} of {capacity}");
        let entry = |data: usize| [Entry { data: vec![7; data].into(), ..entry(2, 1) }];
        commit(&wal, |batch| group.append(batch, &entry(most)).unwrap());
        let refused = group.append(&mut Batch::new(), &entry(most + 64));
        assert!(matches!(refused, Err(Error::TooLarge { group: 1, index: 2, .. })), "{refused:?}");
    }
}

/// The leader of term 1 sends a group its next entry, and the news that all earlier ones are committed.
fn next(node: &mut RawNode<GroupStorage>, round: &mut Round) -> u64 {
    let last = node.raft.raft_log.last_index();
    let mut append = message(MessageType::MsgAppend, 2, 1, 1);
    (append.index, append.log_term, append.commit) = (last, 1, last);
    append.set_entries(vec![Entry { data: vec![7; 7000].into(), ..entry(last + 1, 1) }].into());
    node.step(append).unwrap();
    let mut ready = node.ready();
    let applied = ready.take_committed_entries().last().map_or(1, |entry| entry.index);
    round.persist(node.mut_store(), ready).unwrap();
    applied
}

#[test]
fn a_round_that_a_full_log_refused_goes_in_behind_checkpoints_of_another_batch() {
    let disk = disk();
    let wal = Arc::new(open(&disk));
    let mut nodes: Vec<_> = (0..3).map(|group| node(1, bootstrapped(&wal, group))).collect();
    let mut queue = PersistQueue::new(Arc::clone(&wal), || ());
    let (mut round, mut applied) = (queue.round(), [1; 3]);
    let submit = |queue: &mut PersistQueue, round: &mut Round, nodes: &mut Vec<RawNode<GroupStorage>>| {
        queue.submit(round, |written| nodes[written.group as usize].advance_append_async(written.ready))
    };
    let refused = loop {
        for (node, applied) in nodes.iter_mut().zip(&mut applied) {
            *applied = next(node, &mut round);
        }
        if let Err(error) = submit(&mut queue, &mut round, &mut nodes) {
            break error;
        }
        queue.flush().unwrap();
        queue.poll(|durable| nodes[durable.group as usize].on_persist_ready(durable.number)).unwrap();
        (0..3).for_each(|group| nodes[group].advance_apply_to(applied[group]));
    };
    assert!(matches!(refused, Error::Log(strandlog::Error::Full(_))), "{refused}");
    assert!(applied[0] > 20, "{applied:?}");
    let conf_state = conf_state(&[1, 2, 3]);
    for (node, &index) in nodes.iter_mut().zip(&applied) {
        let (storage, mut batch) = (node.mut_store(), Batch::new());
        assert_eq!(storage.compact(&mut batch, index + 1).unwrap(), 2, "no further than the checkpoint in the log");
        storage.checkpoint(&mut batch, Checkpoint { index, term: 1, conf_state: &conf_state, data: b"state" }).unwrap();
        assert_eq!(storage.compact(&mut batch, index + 1).unwrap(), index + 1);
        wal.commit(&mut batch).unwrap();
    }
    submit(&mut queue, &mut round, &mut nodes).expect("the same round again");
    queue.flush().unwrap();
    let wal = open(&Arc::new(disk.crash_lost_all()));
    for (group, index) in (0..).zip(applied) {
        let storage = GroupStorage::open(&wal, group).unwrap();
        let (first, last) = storage.replica().bounds();
        assert_eq!((storage.applied(), first, storage.hard_state().commit), (index, index + 1, index));
        assert!(last > index, "{last}");
    }
}
