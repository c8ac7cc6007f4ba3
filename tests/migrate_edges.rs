//! A migration at its edges: reports that come late or not at all, batches that strandlog refuses or has no room for, and batches that are
//! given again.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::migrate::{Change, Differs, DualWrite, MigrateError, Stage};
use strandlog::{Batch, Bytes, Error, Placement};

use support::old_log::{Fails, Old, open, past};
use support::{assert_sound, payload, small};

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

/// The removal reached the old log alone: what strandlog still has is of the life that it ended.
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

/// Operations that change nothing create no replica, as in strandlog alone.
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

/// As [`past`], with a strandlog that replica `by` fills. Replica 1 has a copy, and in the old log entries for which strandlog has no room.
fn full(by: u64) -> (Old, Arc<SimDisk>, DualWrite<Old>) {
    let (old, disk) = (past(), Arc::new(SimDisk::new(13 * (64 << 10))));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, payload(1, 11, 1, 3000))])).expect("written to both");
    let refused = |outcome: &Result<(), MigrateError>| {
        matches!(outcome, Err(MigrateError::New(Error::Full(_)) | MigrateError::OldAlone(Error::Full(_))))
    };
    let fill = |dual: &mut DualWrite<Old>, replica: u64, len: usize| {
        for index in dual.bounds(replica).expect("readable").expect("there").1 + 1.. {
            let mut batch = Batch::new();
            let outcome = dual.commit(batch.append(replica, &[(index, 1, payload(replica, index, 1, len))]));
            if refused(&outcome) {
                break;
            }
            outcome.expect("room");
        }
    };
    fill(&mut dual, by, 3000);
    if by != 1 {
        fill(&mut dual, 1, 3000);
    }
    (old, disk, dual)
}

/// What strandlog has no room for stops nothing that makes room, nor the next opening.
#[test]
fn a_full_strandlog_stops_no_truncation_no_removal_and_no_opening() {
    for (by, opened_anew) in [(1, false), (1, true), (2, false), (2, true)] {
        let when = format!("filled by {by}, opened anew: {opened_anew}");
        let full = || {
            let (old, disk, dual) = full(by);
            if !opened_anew {
                return (old, dual);
            }
            drop(dual);
            let dual = open(&old, &Arc::new(disk.crash_lost_all()));
            (old, dual)
        };
        let mut batch = Batch::new();
        let (old, mut dual) = full();
        let last = old.rep(1).expect("there").bounds().1;
        dual.commit(batch.truncate_prefix(1, last - 1)).unwrap_or_else(|e| panic!("{when}: truncated: {e}"));
        assert_eq!((dual.stage(1), old.rep(1).expect("there").bounds()), (Stage::Mirrored, (last - 1, last)), "{when}");
        dual.commit(batch.remove(2)).unwrap_or_else(|e| panic!("{when}: removed: {e}"));
        dual.commit(batch.append(1, &[(last + 1, 1, "on")])).expect("room");
        assert_eq!(dual.differences_of(1).expect("readable"), [], "{when}");
        dual.commit(batch.truncate_prefix(1, last + 1)).expect("truncated");
        assert_eq!((dual.stage(1), dual.take_differences()), (Stage::Switched, vec![]), "{when}");
        assert_sound(dual.new_log(), &when);

        let (old, mut dual) = full();
        dual.commit(batch.remove(1)).unwrap_or_else(|e| panic!("{when}: removed: {e}"));
        assert_eq!((dual.stage(1), old.rep(1)), (Stage::Old, None), "{when}");
        assert!(!dual.new_log().replicas().contains(&1), "{when}");

        let (old, mut dual) = full();
        dual.commit(batch.install_snapshot(1, 9000, 2)).unwrap_or_else(|e| panic!("{when}: installed: {e}"));
        assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Switched, Some((9001, 9000))), "{when}");
        assert_eq!(dual.get(1, b"hard_state").expect("readable").as_deref(), Some(&b"term 1"[..]), "{when}");
        drop(old);
    }
}

/// A replica that has no copy, and gets none for want of room: it goes on being truncated in the old log.
#[test]
fn a_full_strandlog_stops_no_truncation_of_who_has_no_copy() {
    let (old, _disk, mut dual) = full(2);
    let mut batch = Batch::new();
    let refused = dual.commit(batch.append(3, &[(11, 1, vec![7; 3000])]));
    assert!(matches!(refused, Err(MigrateError::OldAlone(Error::Full(_)))), "{refused:?}");
    batch.clear();
    dual.commit(batch.truncate_prefix(3, 8)).expect("truncated");
    assert_eq!(old.rep(3).expect("there").bounds().0, 8);
    // It reports from now on, and that must be known.
    dual.commit(batch.remove(2)).expect("removed");
    dual.commit(batch.put(3, b"k", b"v").durable_applied(3, 9)).expect("room");
    assert_eq!(dual.differences_of(3).expect("readable"), []);
    assert_sound(dual.new_log(), "at the end");
}

/// What strandlog refuses as it stands is in neither log.
#[test]
fn what_strandlog_refuses_is_not_in_the_old_log_either() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let open = |disk: &Arc<SimDisk>| {
        let wal = support::open(small(Placement::Auto).max_entry_bytes(9000), disk);
        DualWrite::open(old.clone(), wal).expect("the migration goes on")
    };
    let mut dual = open(&disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, "new")])).expect("written to both");
    let before = old.world();
    let large = vec![7; 40 << 10];
    let outcome = dual.commit(batch.append(1, &[(12, 1, &large[..9001])]));
    assert!(
        matches!(outcome, Err(MigrateError::New(Error::EntryTooLarge { replica: 1, index: 12, .. }))),
        "{outcome:?}"
    );
    batch.clear();
    for (key, value) in [(&b"value"[..], &large[..]), (&large[..300], b"key")] {
        let outcome = dual.commit(batch.put(1, key, value));
        assert!(matches!(outcome, Err(MigrateError::New(Error::ValueTooLarge { replica: 1, .. }))), "{outcome:?}");
        batch.clear();
    }
    let outcome = dual.commit(batch.append(2, &[(11, 1, "new")]).append(1, &[(13, 1, "a gap")]));
    assert!(matches!(outcome, Err(MigrateError::New(Error::Gap { replica: 1, .. }))), "{outcome:?}");
    batch.clear();
    assert_eq!(old.world(), before);
    dual.commit(batch.append(1, &[(12, 1, &large[..9000])])).expect("nothing is in its way");
    drop(dual);
    let dual = open(&Arc::new(disk.crash_lost_all()));
    assert_eq!((dual.stage(1), dual.differences_of(1).expect("readable")), (Stage::Mirrored, vec![]));
}

/// The old log, alone for a while, took what strandlog never will.
#[test]
fn who_cannot_be_copied_stays_in_doubt_and_stops_nobody_else() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    for replica in 1..=3 {
        dual.commit(batch.append(replica, &[(11, 1, "new")])).expect("written to both");
    }
    drop(dual);
    for replica in [1, 3] {
        old.change(&Change::Put { replica, key: b"large", value: &[7; 40 << 10] });
    }
    let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
    assert_eq!(dual.stage(1), Stage::Mirrored);
    dual.commit(batch.append(2, &[(12, 1, "on")])).expect("the others go on");
    dual.commit(batch.remove(3)).expect("nothing has to agree with what goes");
    assert_eq!((dual.stage(3), old.rep(3)), (Stage::Old, None));
    let outcome = dual.commit(batch.append(1, &[(12, 1, "on")]));
    assert!(matches!(outcome, Err(MigrateError::New(Error::ValueTooLarge { replica: 1, .. }))), "{outcome:?}");
    batch.clear();
    dual.commit(batch.truncate_prefix(1, 12)).expect("the old log alone");
    assert_eq!(
        (dual.stage(1), dual.bounds(1).expect("readable")),
        (Stage::Mirrored, Some((12, 11))),
        "in doubt as it is"
    );
    dual.commit(batch.delete(1, b"large")).expect("the old log alone");
    dual.commit(batch.append(1, &[(12, 1, "on")])).expect("written to both");
    assert_eq!(dual.differences_of(1).expect("readable"), []);
    dual.commit(batch.truncate_prefix(1, 12)).expect("truncated");
    assert_eq!((dual.stage(1), dual.take_differences()), (Stage::Switched, vec![]));
    assert_eq!(dual.get(1, b"hard_state").expect("readable").as_deref(), Some(&b"term 1"[..]));
    assert_sound(dual.new_log(), "at the end");
}

/// 79 entries of the replica, in the old log alone.
fn begin_in_old(old: &Old, replica: u64) {
    let past = entries(1..=79);
    let past: Vec<_> = past.iter().map(|(index, term, data)| (*index, *term, &data[..])).collect();
    old.change(&Change::Append { replica, entries: &past });
}

/// The copy begins in the middle; what the state machine lacks lies before that, in the old log alone.
#[test]
fn the_old_log_keeps_what_no_report_has_let_go() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    begin_in_old(&old, 7);
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(7, &entries(80..=80)).durable_applied(7, 50)).expect("written to both");
    assert_eq!(dual.reapply_from(7).expect("readable"), 51);
    dual.commit(batch.append(7, &entries(81..=100))).expect("written to both");
    dual.commit(batch.truncate_prefix(7, 100)).expect("it waits");
    for opened_anew in [false, true] {
        let stands = (dual.stage(7), dual.bounds(7).expect("readable"), dual.reapply_from(7).expect("readable"));
        assert_eq!(stands, (Stage::Mirrored, Some((51, 100)), 51), "opened anew: {opened_anew}");
        if !opened_anew {
            drop(dual);
            dual = open(&old, &Arc::new(disk.crash_lost_all()));
        }
    }
    // A report of the same batch counts, before the truncation or behind it; what waited before the crash is to be asked for again.
    dual.commit(batch.durable_applied(7, 60).truncate_prefix(7, 100)).expect("as far as it may go");
    assert_eq!(dual.bounds(7).expect("readable"), Some((61, 100)));
    dual.commit(batch.truncate_prefix(7, 90).durable_applied(7, 70)).expect("as far as it may go");
    assert_eq!((dual.stage(7), dual.bounds(7).expect("readable")), (Stage::Mirrored, Some((71, 100))));
    // A report lets go what waits, and with the last of what strandlog lacks the replica moves over.
    dual.commit(batch.durable_applied(7, 75)).expect("reported");
    assert_eq!((dual.stage(7), dual.bounds(7).expect("readable")), (Stage::Mirrored, Some((76, 100))));
    dual.commit(batch.durable_applied(7, 85)).expect("reported");
    let stands = (dual.stage(7), dual.bounds(7).expect("readable"), dual.reapply_from(7).expect("readable"));
    assert_eq!(stands, (Stage::Switched, Some((86, 100)), 86));
    dual.commit(batch.durable_applied(7, 100)).expect("reported");
    assert_eq!(dual.bounds(7).expect("readable"), Some((100, 100)), "what waits goes on waiting in strandlog");
    assert_eq!(dual.reapply_from(7).expect("readable"), 101);
    assert_sound(dual.new_log(), "at the end");
}

/// As in strandlog: the state machine was made anew, and lacks what it had reported. Also if only the old log heard of the snapshot.
#[test]
fn a_snapshot_below_a_report_lets_the_old_log_keep_what_is_behind_it() {
    for half in [false, true] {
        let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        dual.commit(batch.append(9, &entries(1..=10)).durable_applied(9, 10)).expect("written to both");
        batch.install_snapshot(9, 5, 1).append(9, &entries(6..=10)).truncate_prefix(9, 9);
        if half {
            old.fail(Fails::After);
            assert!(matches!(dual.commit(&mut batch), Err(MigrateError::Old(_))));
            drop(dual);
            dual = open(&old, &Arc::new(disk.crash_lost_all()));
        } else {
            dual.commit(&mut batch).expect("written to both");
            assert_eq!(dual.reapply_from(9).expect("readable"), 6);
            assert_eq!(dual.new_log().replica(9).bounds(), (6, 10));
        }
        assert_eq!(dual.bounds(9).expect("readable"), Some((6, 10)), "only the old log: {half}");
        assert_sound(dual.new_log(), "at the end");
    }
}

/// A truncation waits within one life.
#[test]
fn a_truncation_that_waits_is_not_one_of_the_next_life() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, "new")]).durable_applied(1, 5)).expect("written to both");
    dual.commit(batch.truncate_prefix(1, 11)).expect("it waits");
    dual.commit(batch.remove(1).append(1, &entries(1..=12)).durable_applied(1, 0)).expect("begun anew");
    dual.commit(batch.durable_applied(1, 11)).expect("reported");
    assert_eq!(
        (dual.stage(1), dual.bounds(1).expect("readable")),
        (Stage::Mirrored, Some((1, 12))),
        "nobody asked for it"
    );
}

#[test]
fn entries_are_read_up_to_the_last_index_that_there_is() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let wal = support::open(small(Placement::Auto), &disk);
    let mut batch = Batch::new();
    batch.install_snapshot(9, u64::MAX - 3, 1).append(9, &entries(u64::MAX - 2..=u64::MAX));
    wal.commit(&mut batch).expect("room");
    let mut dual = DualWrite::open(old, wal).expect("strandlog alone has it");
    for first in u64::MAX - 2..=u64::MAX {
        let read = dual.entries(9, first, u64::MAX).expect("readable");
        assert_eq!(read.first().map(|e| e.index), Some(first), "at least one");
    }
}

/// It is true that nothing was changed in strandlog, but the error must also say that the old log has the batch.
#[test]
fn what_only_the_old_log_took_is_said_to_be_there() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(13 * (64 << 10))));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, payload(1, 11, 1, 3000))])).expect("written to both");
    let mut index = 11;
    let error = loop {
        index += 1;
        if let Err(error) = dual.commit(batch.append(1, &[(index, 1, payload(1, index, 1, 3000))])) {
            break error;
        }
    };
    assert!(matches!(error, MigrateError::OldAlone(Error::Full(_))), "{error}");
    assert!(error.to_string().ends_with("the old log, which is written first, has its part of the batch"), "{error}");
    assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Mirrored, Some((4, index))));
    // The copy is begun anew behind what the old log holds, and takes the next entry there.
    batch.clear();
    dual.commit(batch.append(1, &[(index + 1, 1, "on")])).expect("begun anew");
    // An entry that neither log takes is in neither.
    let before = old.world();
    let gap = dual.commit(batch.append(1, &[(index + 9, 1, "a gap")]));
    assert!(matches!(gap, Err(MigrateError::New(Error::Gap { .. }))), "{gap:?}");
    assert_eq!(old.world(), before);
}

/// The batch is given again as it was, and comes to the same, whatever of it the old log has by then.
#[test]
fn a_batch_that_failed_may_be_given_again() {
    type Fill = fn(&mut Batch);
    fn e(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<(u64, u64, Bytes)> {
        range.map(|i| (i, term, payload(1, i, term, 50))).collect()
    }
    let batches: [(&str, Fill); 6] = [
        ("overwritten further down", |b| _ = b.append(1, &e(11..=12, 1)).append(1, &e(9..=9, 2))),
        ("cut further down", |b| {
            _ = b.append(1, &e(11..=12, 1)).put(1, b"k", b"1").truncate_suffix(1, 7).put(1, b"k", b"2")
        }),
        ("truncated behind what it appends", |b| _ = b.append(1, &e(11..=14, 1)).truncate_prefix(1, 14)),
        ("a snapshot behind what it appends", |b| {
            _ = b.append(1, &e(11..=14, 1)).install_snapshot(1, 30, 2).append(1, &e(31..=32, 2))
        }),
        ("in three rounds", |b| {
            _ = b
                .durable_applied(1, 5)
                .append(1, &e(11..=15, 1))
                .append(1, &e(8..=12, 2))
                .append(1, &e(6..=6, 3))
                .append(1, &e(7..=7, 3))
        }),
        ("begun anew", |b| _ = b.remove(1).append(1, &e(1..=5, 1)).append(1, &e(3..=3, 2))),
    ];
    for (what, fill) in batches {
        for (fails, switched) in [(Fails::Before, false), (Fails::After, false), (Fails::After, true)] {
            let when = format!("{what}, {fails:?}, switched {switched}");
            let write =
                |fail: bool| {
                    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
                    let mut dual = open(&old, &disk);
                    let mut batch = Batch::new();
                    dual.commit(batch.put(1, b"k", b"v").append(2, &[(11, 1, "new")])).expect("written to both");
                    fill(&mut batch);
                    batch.append(2, &[(12, 1, "a"), (13, 1, "a")]).append(2, &[(12, 2, "b")]).durable_applied(2, 12);
                    if switched {
                        // Replica 2 moves over, and only the write that ends its switch fails.
                        batch.truncate_prefix(2, 12);
                    }
                    if fail {
                        old.fail(if switched { Fails::Later } else { fails });
                        dual.commit(&mut batch).expect_err(&when);
                        assert!(!batch.is_empty(), "{when}: as it was");
                    }
                    dual.commit(&mut batch).unwrap_or_else(|e| panic!("{when}: {e}"));
                    let read = |id| {
                        let reported = dual.new_log().replica(id).durable_applied().expect("sound");
                        (dual.bounds(id).expect("readable"), dual.get(id, b"k").expect("readable"), reported)
                    };
                    let stands = [read(1), read(2)];
                    assert!(
                        [1, 2].into_iter().all(|id| dual.stage(id) != Stage::Mirrored
                            || dual.differences_of(id).expect("readable").is_empty()),
                        "{when}"
                    );
                    assert_eq!(dual.new_log().replica(2).durable_applied().expect("sound"), Some(12), "{when}");
                    assert_sound(dual.new_log(), &when);
                    stands
                };
            assert_eq!(write(true), write(false), "{when}");
        }
    }
    // A different batch is not taken for one that is given again, wherever it begins.
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    old.fail(Fails::Before);
    dual.commit(batch.append(1, &[(11, 1, "a")])).expect_err("the old log failed");
    batch.clear();
    let gap = dual.commit(batch.append(1, &[(13, 1, "a")]).append(1, &[(11, 2, "b")]));
    assert!(matches!(gap, Err(MigrateError::New(Error::Gap { .. }))), "{gap:?}");
}

/// A copy that begins later than the old log, or none at all, cannot tell what lies before the old log's first entry.
#[test]
fn what_lies_before_the_old_log_is_refused_and_the_old_log_is_not_asked() {
    let e = |range: std::ops::RangeInclusive<u64>| range.map(|i| (i, 2, "x")).collect::<Vec<_>>();
    let compacted = |outcome: &Result<(), MigrateError>, at, first| {
        let Err(MigrateError::New(Error::Compacted { replica: 1, index, first_index })) = outcome else { return false };
        (*index, *first_index) == (at, first)
    };
    for mirrored in [false, true] {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        if mirrored {
            dual.commit(batch.append(1, &e(11..=12))).expect("written to both");
        }
        let before = old.world();
        type Fill = fn(&mut Batch, &[(u64, u64, &str)]);
        let fills: [(&str, u64, u64, Fill); 6] = [
            ("an entry before the first", 3, 4, |b, e| _ = b.append(1, &e[2..])),
            ("a cut before the first", 2, 4, |b, _| _ = b.truncate_suffix(1, 2)),
            ("an entry that it truncates", 6, 8, |b, e| _ = b.truncate_prefix(1, 8).append(1, &e[5..])),
            ("a cut of what it truncates", 7, 8, |b, _| _ = b.truncate_prefix(1, 8).truncate_suffix(1, 7)),
            ("an entry before its snapshot", 5, 21, |b, e| _ = b.install_snapshot(1, 20, 2).append(1, &e[4..])),
            ("a cut before its snapshot", 20, 21, |b, _| _ = b.install_snapshot(1, 20, 2).truncate_suffix(1, 20)),
        ];
        for (what, at, first, fill) in fills {
            fill(&mut batch, &e(1..=12));
            let outcome = dual.commit(&mut batch);
            assert!(compacted(&outcome, at, first), "{what}, mirrored {mirrored}: {outcome:?}");
            assert_eq!(old.world(), before, "{what}, mirrored {mirrored}");
            batch.clear();
        }
        dual.commit(batch.append(1, &e(4..=4))).expect("the first may be written anew");
        assert_eq!((old.rep(1).expect("there").bounds(), dual.new_log().replica(1).bounds()), ((4, 4), (4, 4)));
    }
}

/// The old log gets no operation that strandlog would refuse if it had room, though the batch never reaches strandlog.
#[test]
fn what_goes_to_the_old_log_alone_makes_sense_there() {
    let (old, _disk, mut dual) = full(2);
    let last = old.rep(3).expect("there").bounds().1;
    let mut batch = Batch::new();
    for (what, kept, from) in [("beyond the end", last + 2, last), ("before the first", 4, 3)] {
        let outcome = dual.commit(batch.truncate_prefix(3, kept).truncate_suffix(3, from));
        let refused = matches!(
            outcome,
            Err(MigrateError::New(
                Error::Contradiction { replica: 3, .. } | Error::Compacted { replica: 3, index: 3, .. }
            ))
        );
        assert!(refused, "{what}: {outcome:?}");
        batch.clear();
    }
    assert_eq!(old.rep(3).expect("there").bounds(), (4, last));
}

/// A late report of the life before, in the batch that begins the next one, counts as 0. So it does when that batch is given again and the
/// replica is there by then.
#[test]
fn a_report_before_what_begins_its_replica_counts_as_none_when_the_batch_is_given_again() {
    for fails in [Fails::Before, Fails::After, Fails::Later] {
        for again in [1, 2] {
            let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
            let mut dual = removed(&old, &disk);
            let mut batch = Batch::new();
            dual.commit(batch.append(1, &[(11, 1, "new")])).expect("written to both");
            batch.durable_applied(9, 3).put(9, b"vote", b"1").append(9, &entries(1..=5));
            // Replica 1 moves over, so that a write can still fail when both logs have the new life.
            batch.truncate_prefix(1, 11);
            for _ in 0..again {
                old.fail(fails);
                if dual.commit(&mut batch).is_ok() {
                    break;
                }
            }
            if !batch.is_empty() {
                dual.commit(&mut batch).expect("given again");
            }
            let new = dual.new_log().replica(9);
            assert_eq!(new.durable_applied().expect("sound"), Some(0), "{fails:?}, {again} times");
            assert_eq!(dual.reapply_from(9).expect("sound"), 1, "{fails:?}, {again} times: nothing of it is applied");
        }
    }
}

/// The old log removed the replica, by itself or before strandlog failed. It makes no less a difference that the copy has no keys.
#[test]
fn a_copy_of_what_the_old_log_has_no_more_differs() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(9, &entries(1..=3)).append(8, &entries(1..=1))).expect("written to both");
    dual.commit(batch.truncate_suffix(8, 1)).expect("cut in both");
    assert_eq!(
        (dual.differences_of(8).expect("readable"), dual.differences_of(9).expect("readable")),
        (vec![], vec![])
    );
    for replica in [8, 9] {
        old.change(&Change::Remove { replica });
        let found = dual.differences_of(replica).expect("readable");
        assert!(matches!(&found[..], [d] if d.what == Differs::Gone && d.replica == replica), "{replica}: {found:?}");
    }
}

/// As in strandlog: a batch must not write what its own report lets go of a truncation that waits. Also before the beginning of the copy.
#[test]
fn what_a_report_lets_go_is_not_written_with_it() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    begin_in_old(&old, 7);
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(7, &entries(80..=100)).durable_applied(7, 50)).expect("written to both");
    dual.commit(batch.truncate_prefix(7, 95)).expect("it waits");
    for index in [60, 85] {
        let outcome = dual.commit(batch.durable_applied(7, 90).append(7, &entries(index..=index)));
        let Err(MigrateError::New(Error::Compacted { index: at, first_index: 91, .. })) = outcome else {
            panic!("{index}: {outcome:?}");
        };
        assert_eq!((at, old.rep(7).expect("there").bounds()), (index, (51, 100)));
        batch.clear();
    }
    dual.commit(batch.durable_applied(7, 90).append(7, &entries(91..=91))).expect("behind it");
    assert_eq!(dual.bounds(7).expect("readable"), Some((91, 91)));
}
