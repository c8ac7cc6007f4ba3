//! Both logs at their edges: reports that come late or not at all, and what strandlog refuses.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::migrate::{DualWrite, MigrateError, Stage};
use strandlog::{Batch, Bytes, Error};

use support::old_log::{Fails, Old, open, past};
use support::{assert_sound, payload};

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64, Bytes)> {
    range.map(|i| (i, 1, payload(9, i, 1, 50))).collect()
}

/// Replica 9, written and removed again; the report of a flush that was under way is yet to come.
fn removed(old: &Old, disk: &Arc<SimDisk>) -> DualWrite<Old> {
    let mut dual = open(old, disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(9, &entries(1..=3)).durable_applied(9, 0)).expect("written to both");
    dual.commit(batch.remove(9)).expect("removed from both");
    dual
}

#[test]
fn a_report_that_comes_after_the_removal_is_not_one_of_the_next_life() {
    for with_the_life in [false, true] {
        let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = removed(&old, &disk);
        let mut batch = Batch::new();
        batch.durable_applied(9, 3);
        if !with_the_life {
            dual.commit(&mut batch).expect("ignored");
            assert_eq!((dual.stage(9), dual.new_log().replicas()), (Stage::Old, vec![]), "nobody begins by a report");
        }
        dual.commit(batch.append(9, &entries(1..=5)).durable_applied(9, 0)).expect("begun anew");
        assert_eq!(dual.stage(9), Stage::Mirrored);
        drop(dual);
        let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
        assert_eq!(dual.new_log().replica(9).reapply_from().expect("sound"), 1, "of the new life nothing is applied");
        dual.commit(batch.truncate_prefix(9, 4)).expect("it waits");
        assert_eq!(dual.bounds(9).expect("readable"), Some((1, 5)));
        assert_sound(dual.new_log(), "at the end");
    }
}

/// The removal reached the old log alone: what is left in strandlog is of that life.
#[test]
fn a_late_report_behind_half_a_removal_begins_nothing() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(9, &entries(1..=3)).durable_applied(9, 0)).expect("written to both");
    old.fail(Fails::After);
    assert!(matches!(dual.commit(batch.remove(9)), Err(MigrateError::Old(_))));
    batch.clear();
    dual.commit(batch.durable_applied(9, 3)).expect("ignored");
    assert_eq!((dual.stage(9), dual.new_log().replicas()), (Stage::Old, vec![]));
    dual.commit(batch.append(9, &entries(1..=5)).durable_applied(9, 0)).expect("begun anew");
    assert_eq!(dual.new_log().replica(9).reapply_from().expect("sound"), 1);
    assert_eq!(dual.differences_of(9).expect("readable"), []);
}

/// What changes nothing where there is nothing creates nobody, as in strandlog alone.
#[test]
fn who_is_in_neither_log_is_begun_only_by_what_begins_a_life() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    batch.delete(9, b"k").truncate_suffix(9, 5).truncate_prefix(9, 1).durable_applied(9, 7).remove(10);
    dual.commit(&mut batch).expect("nothing to change");
    let refused = dual.commit(batch.truncate_prefix(9, 2));
    assert!(matches!(refused, Err(MigrateError::New(Error::UnknownReplica { replica: 9 }))), "{refused:?}");
    assert_eq!((dual.stage(9), dual.new_log().replicas(), old.rep(9)), (Stage::Old, vec![], None));
    batch.clear();
    dual.commit(batch.put(9, b"k", b"v")).expect("begun");
    assert_eq!((dual.stage(9), dual.new_log().replicas()), (Stage::Mirrored, vec![9]));
    drop(dual);
    let dual = open(&old, &Arc::new(disk.crash_lost_all()));
    assert_eq!(dual.stage(9), Stage::Mirrored, "it has its mark");
    assert_eq!(dual.get(9, b"k").expect("readable").as_deref(), Some(&b"v"[..]));
}
