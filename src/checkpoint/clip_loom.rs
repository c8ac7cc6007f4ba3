//! Models of the cleaner beside what changes the log: a move that was gathered before a change and is submitted after it never brings
//! back what the change took away.

use super::group::Group;
use super::moving::{Moving, Seen};
use crate::batch::Batch;
use crate::engine::Mode;
use crate::engine::rig_loom::{Log, model};
use crate::error::Error;
use crate::index::Place;
use crate::sync::Arc;

const REPLICA: u64 = 7;

fn submit(log: &Log, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    log.engine.submit(&mut batch, Mode::Block, None, false).unwrap();
}

/// Two entries, and what the cleaner saw of them.
fn gathered() -> (Arc<Log>, Moving, Group) {
    let log = Log::new(1 << 20);
    submit(&log, |b| {
        b.append(REPLICA, &[(1, 1, b"one"), (2, 1, b"two")]);
    });
    let cell = log.engine.registry.get(REPLICA).unwrap();
    let state = cell.lock();
    let seen = |index| match state.places.get(index) {
        Some(Place::Journal(loc)) => Seen { index, term: 1, loc },
        _ => panic!("it was never moved"),
    };
    let (entries, incarnation) = (vec![seen(1), seen(2)], state.incarnation);
    drop(state);
    // A group of no segments: the bytes are found in memory.
    let group = Group::new(std::iter::empty(), &log.engine.geo);
    (log, Moving { cell, incarnation, entries, tail: None }, group)
}

/// Carries or settles what was gathered, while `change` happens; then `check`s what stands.
fn beside(carry: bool, change: fn(&mut Batch), check: fn(&Log, &Moving)) {
    model(2, move || {
        let (log, moving, mut group) = gathered();
        let other = log.spawn(move |log| submit(log, change));
        let cell = Arc::clone(&moving.cell);
        let again = Moving { cell, incarnation: moving.incarnation, entries: moving.entries.clone(), tail: None };
        let moved = match carry {
            true => log.engine.carry(&moving, &mut group),
            false => log.engine.settle(vec![moving], &mut group),
        };
        assert!(moved.unwrap(), "there is room");
        other.join().unwrap();
        check(&log, &again);
    });
}

fn both_ways(change: fn(&mut Batch), check: fn(&Log, &Moving)) {
    beside(true, change, check);
    beside(false, change, check);
}

fn bytes(log: &Log, moving: &Moving, index: u64) -> Result<Vec<u8>, Error> {
    let state = moving.cell.lock();
    // The device keeps no settled bytes: what matters here is only whose place it is.
    if let Some(Place::Chain(piece)) = state.places.get(index) {
        let old = state.terms.get(index) == Some(1) && piece.desc.first <= index && index <= piece.desc.last();
        return Ok(if old { [&b"one"[..], &b"two"[..]][index as usize - 1].to_vec() } else { b"wrong".to_vec() });
    }
    drop(state);
    log.engine.read_entry(&moving.cell, index).map(|e| e.data.to_vec())
}

#[test]
fn loom_a_move_never_brings_back_what_was_truncated() {
    both_ways(
        |b| {
            b.truncate_prefix(REPLICA, 2);
        },
        |log, moving| {
            assert_eq!(moving.cell.lock().first, 2);
            assert!(matches!(bytes(log, moving, 1), Err(Error::Compacted { .. }) | Ok(_)));
            assert!(log.engine.read_entry(&moving.cell, 1).is_err(), "entry 1 came back");
            assert_eq!(bytes(log, moving, 2).unwrap(), b"two");
        },
    );
}

#[test]
fn loom_a_move_never_covers_what_was_written_anew() {
    both_ways(
        |b| {
            b.append(REPLICA, &[(2, 9, b"new")]);
        },
        |log, moving| {
            assert_eq!(log.engine.read_term(&moving.cell, 2).unwrap(), 9);
            assert_eq!(bytes(log, moving, 2).unwrap(), b"new", "the old entry covers the new one");
            assert_eq!(bytes(log, moving, 1).unwrap(), b"one");
        },
    );
}

#[test]
fn loom_a_move_never_brings_back_a_suffix_that_was_cut() {
    both_ways(
        |b| {
            b.truncate_suffix(REPLICA, 2);
        },
        |log, moving| {
            assert!(log.engine.read_entry(&moving.cell, 2).is_err(), "entry 2 came back");
            let state = moving.cell.lock();
            assert_eq!((state.first, state.last), (1, 1));
            assert!(state.places.get(2).is_none(), "it has a place, and is cut");
            drop(state);
            assert_eq!(bytes(log, moving, 1).unwrap(), b"one");
        },
    );
}

#[test]
fn loom_a_move_never_brings_back_a_removed_replica() {
    both_ways(
        |b| {
            b.remove(REPLICA);
        },
        |_, moving| {
            let state = moving.cell.lock();
            assert!(!state.exists && state.places.get(1).is_none() && state.places.get(2).is_none(), "it came back");
        },
    );
}

/// The same indexes, the same terms, another life.
#[test]
fn loom_a_move_is_no_part_of_the_next_life() {
    both_ways(
        |b| {
            b.install_snapshot(REPLICA, 2, 1);
        },
        |log, moving| {
            assert!(log.engine.read_entry(&moving.cell, 2).is_err(), "entry 2 came back");
            let state = moving.cell.lock();
            assert_eq!((state.first, state.last), (3, 2));
            assert!(state.places.get(2).is_none(), "it has a place, and no meaning");
        },
    );
}
