//! A log full of small groups: each can let go of what it has, and vote.

mod support;

use raft::eraftpb::Entry;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, GroupStorage};
use support::{conf_state, disk, entry, hard_state, open};

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

/// State machines of a few bytes more, and all entries go.
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
                    group.set_applied(last).unwrap();
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

/// None of these makes any room: terms, votes and indexes of any size take what the first ones took.
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
