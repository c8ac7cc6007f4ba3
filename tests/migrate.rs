//! A migration, with both logs at once: whatever fails, and wherever a crash falls, the store reads what it wrote, and each replica moves
//! over whole.

mod support;

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::migrate::{Change, Differs, DualWrite, MigrateError, Stage};
use strandlog::{Batch, Bytes, Error, Placement, Wal};

use support::old_log::{Fails, Old, Rep, World, apply, open, past};
use support::{assert_sound, for_each, payload, seeds, small, tally};

/// Reads what both logs together say.
fn read(dual: &mut DualWrite<Old>, ids: std::ops::RangeInclusive<u64>, keys: &[&'static [u8]]) -> World {
    let mut world = World::new();
    for id in ids {
        let Some((first, last)) = dual.bounds(id).expect("readable") else { continue };
        let mut rep = Rep { before: (first - 1, dual.term(id, first - 1).expect("readable")), ..Rep::default() };
        let mut next = first;
        while next <= last {
            let entries = dual.entries(id, next, last).expect("readable");
            next += entries.len() as u64;
            rep.entries.extend(entries.into_iter().map(|e| (e.term, e.data)));
        }
        for key in keys {
            if let Some(value) = dual.get(id, key).expect("readable") {
                rep.state.insert(Bytes::from_static(key), value);
            }
        }
        world.insert(id, rep);
    }
    world
}

#[test]
fn a_replica_is_old_then_in_both_then_in_strandlog_alone() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    assert_eq!(dual.stage(1), Stage::Old);
    let mut batch = Batch::new();
    batch.append(1, &[(11, 1, "new"), (12, 1, "newer")]).put(1, b"vote", b"3");
    dual.commit(&mut batch).expect("written to both");
    assert!(batch.is_empty());
    assert_eq!((dual.stage(1), dual.stage(2)), (Stage::Mirrored, Stage::Old));
    assert_eq!(dual.bounds(1).expect("readable"), Some((4, 12)));
    assert_eq!(dual.new_log().replica(1).bounds(), (11, 12), "what came since");
    // Strandlog does not have everything that stays, so the replica does not move over.
    dual.commit(batch.truncate_prefix(1, 10)).expect("truncated in both");
    assert_eq!(dual.stage(1), Stage::Mirrored);
    dual.commit(batch.truncate_prefix(1, 12)).expect("truncated in both");
    assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Switched, Some((12, 12))));
    assert_eq!((old.rep(1), dual.term(1, 11).expect("kept")), (None, 1));
    for (key, value) in [(&b"vote"[..], &b"3"[..]), (b"hard_state", b"term 1")] {
        assert_eq!(dual.get(1, key).expect("readable").as_deref(), Some(value));
    }
    // An overwrite from before the place where the copy begins moves that place along.
    dual.commit(batch.append(2, &[(7, 2, b"a new leader")])).expect("written to both");
    assert_eq!((old.rep(2).expect("there").bounds(), dual.new_log().replica(2).bounds()), ((4, 7), (7, 7)));
    // So does a suffix that is cut from before it.
    dual.commit(batch.append(2, &[(8, 2, b"more")])).expect("written to both");
    dual.commit(batch.truncate_suffix(2, 8)).expect("cut in both");
    assert_eq!((old.rep(2).expect("there").bounds(), dual.new_log().replica(2).bounds()), ((4, 7), (7, 7)));
    dual.commit(batch.truncate_suffix(2, 6)).expect("cut in both");
    assert_eq!((old.rep(2).expect("there").bounds(), dual.new_log().replica(2).bounds()), ((4, 5), (6, 5)));
    assert_eq!(dual.differences_of(2).expect("readable"), []);
    dual.commit(batch.install_snapshot(2, 20, 3)).expect("installed in both");
    assert_eq!((dual.stage(2), dual.bounds(2).expect("readable")), (Stage::Switched, Some((21, 20))));
    // A replica that is in neither log.
    dual.commit(batch.append(9, &[(1, 3, b"first")])).expect("written to both");
    dual.commit(batch.remove(3).remove(9)).expect("removed from both");
    assert!(dual.is_done().expect("readable") && dual.take_differences().is_empty());
    let (_, wal) = dual.into_parts();
    assert_eq!(wal.replicas(), [1, 2]);
    assert_sound(&wal, "at the end");
}

/// A raft group that leaves a store and comes back to it in one batch is a new life, and is as durable as any.
#[test]
fn who_is_removed_and_begun_anew_in_one_batch_stays_where_it_is() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, "new")])).expect("written to both");
    dual.commit(batch.truncate_prefix(1, 11)).expect("truncated in both");
    dual.commit(batch.append(2, &[(11, 1, "new")])).expect("written to both");
    assert_eq!([1, 2, 3].map(|id| dual.stage(id)), [Stage::Switched, Stage::Mirrored, Stage::Old]);
    for id in 1..=3 {
        batch.remove(id).put(id, b"vote", b"9").append(id, &[(1, 4, "again"), (2, 4, "and again")]);
    }
    dual.commit(&mut batch).expect("written");
    let stages = [Stage::Switched, Stage::Mirrored, Stage::Mirrored];
    for opened_anew in [false, true] {
        assert_eq!([1, 2, 3].map(|id| dual.stage(id)), stages, "opened anew: {opened_anew}");
        for id in 1..=3 {
            assert_eq!(dual.get(id, b"vote").expect("readable").as_deref(), Some(&b"9"[..]), "{id}");
            assert_eq!(dual.bounds(id).expect("readable"), Some((1, 2)), "{id}");
            if dual.stage(id) == Stage::Mirrored {
                assert_eq!(dual.differences_of(id).expect("readable"), [], "{id}");
            }
        }
        let (_, wal) = dual.into_parts();
        drop(wal);
        dual = open(&old, &Arc::new(disk.crash_lost_all()));
    }
    dual.commit(batch.append(1, &[(3, 4, "on")]).append(2, &[(3, 4, "on")])).expect("written");
    assert_eq!(dual.bounds(1).expect("readable"), Some((1, 3)));
    // And of what is merely removed nothing is left.
    dual.commit(batch.remove(1).remove(2).remove(3)).expect("removed");
    assert!(dual.is_done().expect("readable") && dual.new_log().replicas().is_empty());
}

#[test]
fn a_difference_is_reported_and_nothing_moves_over_it() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, "new"), (12, 1, "newer")])).expect("written to both");
    // The old log changes behind our back: an entry, and state.
    old.change(&Change::Append { replica: 1, entries: &[(12, 1, b"other")] });
    assert_eq!(&dual.entries(1, 12, 12).expect("readable")[0].data[..], b"other", "the old one is the truth");
    let found = dual.take_differences();
    assert!(matches!(&found[..], [d] if d.replica == 1 && d.what == Differs::Entry { index: 12 }), "{found:?}");
    dual.commit(batch.put(1, b"k", b"v")).expect("copied anew first");
    assert_eq!(dual.differences_of(1).expect("readable"), []);
    old.change(&Change::Put { replica: 1, key: b"hard_state", value: b"term 9" });
    old.change(&Change::Put { replica: 1, key: b"only there", value: b"x" });
    dual.commit(batch.truncate_prefix(1, 12)).expect("truncated");
    assert_eq!(dual.stage(1), Stage::Mirrored, "it must not move over with a wrong hard state");
    let keys: Vec<_> = dual.take_differences().into_iter().map(|d| d.what).collect();
    let key = |k: &'static [u8]| Differs::Key { key: Bytes::from_static(k) };
    assert_eq!(keys, [key(b"hard_state"), key(b"only there")]);
    // The replica was copied anew, so the next truncation moves it over.
    dual.commit(batch.append(1, &[(13, 1, b"x")]).truncate_prefix(1, 13)).expect("truncated");
    assert_eq!(dual.stage(1), Stage::Switched);
    assert_eq!(dual.get(1, b"hard_state").expect("readable").as_deref(), Some(&b"term 9"[..]));
}

/// Somebody else appended to the old log, or removed a replica from it: the next batch is taken as the old log takes it.
#[test]
fn a_copy_that_ends_before_the_old_log_is_made_anew_before_it_is_written() {
    let changes = [
        (Change::Append { replica: 1, entries: &[(13, 1, b"other")] }, Differs::Last { old: 13, new: 12 }, 14),
        (Change::Remove { replica: 1 }, Differs::Gone, 1),
    ];
    for (change, what, next) in changes {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        dual.commit(batch.append(1, &[(11, 1, "new"), (12, 1, "newer")])).expect("written to both");
        old.change(&change);
        dual.commit(batch.append(1, &[(next, 2, "on")])).unwrap_or_else(|e| panic!("{what:?}: {e}"));
        assert_eq!(
            dual.take_differences().into_iter().map(|d| d.what).collect::<Vec<_>>(),
            std::slice::from_ref(&what)
        );
        assert_eq!((dual.differences_of(1).expect("readable"), dual.stage(1)), (vec![], Stage::Mirrored), "{what:?}");
        assert_eq!(dual.bounds(1).expect("readable").map(|(_, last)| last), Some(next), "{what:?}");
    }
}

#[test]
fn a_file_that_belongs_to_somebody_else_is_refused() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let wal = support::open(small(Placement::Auto), &disk);
    wal.commit(Batch::new().append(2, &[(1, 1, b"not of this store")])).expect("committed");
    let before = old.world();
    assert!(matches!(DualWrite::open(old.clone(), wal), Err(MigrateError::Collision { replica: 2 })));
    assert_eq!(old.world(), before, "nothing is removed on a suspicion");
}

#[test]
fn a_failure_of_either_side_leaves_the_old_log_the_truth() {
    for fails in [Fails::Before, Fails::After] {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        dual.commit(batch.append(1, &[(11, 1, b"well")])).expect("written");
        old.fail(fails);
        batch.append(1, &[(12, 1, b"doubtful")]);
        assert!(matches!(dual.commit(&mut batch), Err(MigrateError::Old(_))));
        assert!(!batch.is_empty(), "as it was");
        // A new leader's entry is taken, whatever was there.
        batch.clear();
        dual.commit(batch.append(1, &[(12, 2, b"other")]).put(1, b"k", b"v")).expect("written");
        assert_eq!(dual.differences_of(1).expect("readable"), [], "{fails:?}");
        // Strandlog fails: durable in the old log all the same.
        disk.fail_at(disk.events(), Fault::Error(EIO));
        batch.append(1, &[(13, 2, b"there")]).delete(1, b"k");
        assert!(matches!(dual.commit(&mut batch), Err(MigrateError::OldAlone(_))));
        assert_eq!(dual.bounds(1).expect("readable"), Some((4, 13)));
        drop(dual);
        let disk = Arc::new(disk.crash_lost_all());
        let mut dual = open(&old, &disk);
        assert_eq!((dual.differences_of(1).expect("readable"), dual.stage(1)), (vec![], Stage::Mirrored));
        // The removal from the old log fails behind the switch: it is repeated, before the replica may change.
        batch.clear();
        dual.commit(batch.append(1, &[(14, 2, b"x")])).expect("written");
        batch.truncate_prefix(1, 14);
        old.fail(Fails::Later);
        assert!(matches!(dual.commit(&mut batch), Err(MigrateError::Old(_))));
        assert!(dual.stage(1) == Stage::Switched && old.rep(1).is_some());
        batch.clear();
        dual.commit(batch.remove(1)).expect("removed from both");
        assert_eq!((dual.bounds(1).expect("readable"), old.rep(1)), (None, None), "it would come back");
    }
}

/// Whoever looks at the log alone, as the tool does, hears how far each replica has moved.
#[test]
fn a_log_says_how_far_each_of_its_replicas_has_moved() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    for id in [1, 2] {
        dual.commit(Batch::new().append(id, &[(11, 1, b"x")])).expect("written to both");
    }
    dual.commit(Batch::new().truncate_prefix(2, 11)).expect("truncated");
    let (_, wal) = dual.into_parts();
    wal.commit(Batch::new().append(3, &[(1, 1, b"no migration's")])).expect("committed");
    let stages = [1, 2, 3, 4].map(|id| wal.replica(id).migration().expect("sound"));
    assert_eq!(stages, [Some(Stage::Mirrored), Some(Stage::Switched), None, None]);
}

/// Replica 9, mirrored from its birth, with three entries that its state machine holds durably.
fn with_report(old: &Old, disk: &Arc<SimDisk>) -> DualWrite<Old> {
    let mut dual = open(old, disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(9, &life(1)[..3])).expect("written to both");
    dual.commit(batch.durable_applied(9, 3)).expect("reported");
    assert_eq!(dual.new_log().replica(9).reapply_from().expect("sound"), 4);
    dual
}

fn life(term: u64) -> Vec<(u64, u64, Bytes)> {
    (1..=5).map(|i| (i, term, payload(9, i, 1, 50))).collect()
}

/// Asserts that nothing of the new life counts as applied, and that nothing of it is truncated before it does.
fn assert_begun_anew(mut dual: DualWrite<Old>, when: &str) {
    let mut batch = Batch::new();
    dual.commit(batch.durable_applied(9, 0)).expect("the report of the start");
    assert_eq!(dual.new_log().replica(9).reapply_from().expect("sound"), 1, "{when}");
    dual.commit(batch.append(9, &[(6, 4, b"more")]).truncate_prefix(9, 4)).expect("truncated");
    assert_eq!(dual.stage(9), Stage::Switched, "{when}");
    assert_eq!(dual.bounds(9).expect("readable"), Some((1, 6)), "{when}: the truncation waits");
    dual.commit(batch.durable_applied(9, 5)).expect("reported");
    assert_eq!(dual.bounds(9).expect("readable"), Some((4, 6)), "{when}");
    assert_sound(dual.new_log(), when);
}

/// The group comes back in the batch that removes it, with other entries or the same ones: wherever a crash cuts that, the report of the
/// life before is not taken for one of the new.
#[test]
fn a_report_of_a_removed_life_does_not_reach_the_next() {
    for term in [4, 1] {
        let mut between = 0;
        for cut in 0.. {
            let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
            let mut dual = with_report(&old, &disk);
            disk.fail_at(disk.events() + cut, Fault::Cut);
            let mut batch = Batch::new();
            let outcome = dual.commit(batch.remove(9).append(9, &life(term)).durable_applied(9, 0));
            drop(dual);
            let dual = open(&old, &Arc::new(disk.crash_lost_all()));
            let when = format!("term {term}, cut at {cut}");
            if old.rep(9).expect("there").bounds() == (1, 5) {
                between += u32::from(outcome.is_err());
                assert_begun_anew(dual, &when);
            } else {
                assert_eq!(dual.new_log().replica(9).bounds(), (1, 3), "{when}: the life before goes on");
            }
            if outcome.is_ok() {
                break;
            }
        }
        assert!(between > 0, "term {term}: no crash fell between the two logs");
    }
}

/// The removal fails where it comes first: the life goes on, and that it had reported is not forgotten.
#[test]
fn a_life_that_was_not_removed_after_all_is_still_not_truncated_ahead_of_its_reports() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = with_report(&old, &disk);
    old.fail(Fails::Before);
    let mut batch = Batch::new();
    batch.remove(9).append(9, &life(4));
    assert!(matches!(dual.commit(&mut batch), Err(MigrateError::Old(_))));
    batch.clear();
    dual.commit(batch.append(9, &life(1)[3..])).expect("written to both");
    assert_eq!(dual.differences_of(9).expect("readable"), []);
    assert_begun_anew(dual, "not removed");
}

/// The migration is given up for a while: the old log alone goes through a removal, and strandlog is never told.
#[test]
fn a_life_that_the_old_log_began_alone_has_no_report() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    drop(with_report(&old, &disk));
    old.change(&Change::Remove { replica: 9 });
    let life = life(4);
    let entries: Vec<_> = life.iter().map(|(index, term, data)| (*index, *term, &data[..])).collect();
    old.change(&Change::Append { replica: 9, entries: &entries });
    assert_begun_anew(open(&old, &Arc::new(disk.crash_lost_all())), "begun alone");
}

/// A copy that is made anew begins behind whatever was reported; the truncations behind that wait all the same.
#[test]
fn a_copy_made_anew_remembers_that_its_replica_reports() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = with_report(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(9, &life(1)[3..])).expect("written to both");
    // Behind our back the old log is cut: its copy is now longer, which is found when the replica is to move over.
    old.change(&Change::TruncateSuffix { replica: 9, from: 5 });
    dual.commit(batch.truncate_prefix(9, 3)).expect("truncated");
    assert_eq!(dual.stage(9), Stage::Mirrored);
    assert!(!dual.take_differences().is_empty());
    dual.commit(batch.append(9, &[(5, 1, "on"), (6, 1, "and on")])).expect("written to both");
    dual.commit(batch.truncate_prefix(9, 6)).expect("truncated");
    // The copy begins with 5, and nothing says that what lies before it was applied.
    assert_eq!((dual.stage(9), dual.bounds(9).expect("readable")), (Stage::Mirrored, Some((3, 6))), "none was applied");
    dual.commit(batch.durable_applied(9, 5)).expect("reported");
    assert_eq!((dual.stage(9), dual.bounds(9).expect("readable")), (Stage::Switched, Some((6, 6))));
}

/// The switch of one replica fails in the batch that removes another one. That one is gone, and its next life is mirrored like any.
#[test]
fn a_switch_that_fails_leaves_nobody_half_removed() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let mut dual = open(&old, &disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &[(11, 1, b"new")]).append(2, &[(11, 1, b"new")])).expect("written to both");
    old.fail(Fails::Later);
    assert!(matches!(dual.commit(batch.truncate_prefix(1, 11).remove(2)), Err(MigrateError::Old(_))));
    assert_eq!((dual.stage(1), dual.stage(2), old.rep(2)), (Stage::Switched, Stage::Old, None));
    batch.clear();
    dual.commit(batch.append(2, &[(1, 4, "again")])).expect("written to both");
    assert_eq!(dual.stage(2), Stage::Mirrored);
    drop(dual);
    let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
    assert_eq!((dual.stage(1), dual.stage(2)), (Stage::Switched, Stage::Mirrored));
    assert_eq!(dual.differences_of(2).expect("readable"), []);
    dual.commit(batch.append(2, &[(2, 4, "on")]).truncate_prefix(2, 2)).expect("truncated");
    assert_eq!((dual.stage(2), dual.bounds(2).expect("readable")), (Stage::Switched, Some((2, 2))));
}

/// More keyed state than one batch holds: it goes in parts, and a crash between them is mended.
#[test]
fn keyed_state_beyond_one_batch_moves_in_parts() {
    const LARGE: u64 = 12;
    let put = |old: &Old, name: &str, count: u64, len: usize| {
        for i in 0..count {
            old.change(&Change::Put {
                replica: 1,
                key: format!("{name} {i}").as_bytes(),
                value: &payload(1, i, 1, len),
            });
        }
    };
    let mut between = 0;
    for cut in 0.. {
        let (old, disk) = (past(), Arc::new(SimDisk::new(8 << 20)));
        put(&old, "small", 500, 100);
        put(&old, "large", LARGE, 5000);
        let all = old.rep(1).expect("there").state.len();
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        disk.fail_at(disk.events() + cut, Fault::Cut);
        let outcome = dual.commit(batch.append(1, &[(11, 1, b"new")]));
        let whole = outcome.is_ok();
        assert!(
            whole
                || matches!(
                    outcome,
                    Err(MigrateError::New(Error::Poisoned { .. }) | MigrateError::OldAlone(Error::Poisoned { .. }))
                ),
            "cut at {cut}: {outcome:?}"
        );
        drop(dual);
        let wal = support::open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
        between += u32::from((1..all).contains(&wal.replica(1).keys().len()));
        // The old log goes on alone for a while: as many keys are to go as are to come.
        for i in 0..500_u64 {
            old.change(&Change::Delete { replica: 1, key: format!("small {i}").as_bytes() });
        }
        put(&old, "later", 500, 90);
        let mut dual = DualWrite::open(old.clone(), wal).expect("the migration goes on");
        if dual.stage(1) == Stage::Mirrored {
            assert_eq!(dual.differences_of(1).expect("readable"), [], "cut at {cut}");
        }
        let next = old.rep(1).expect("there").bounds().1 + 1;
        dual.commit(batch.append(1, &[(next, 1, b"on")])).expect("written to both");
        dual.commit(batch.truncate_prefix(1, next)).expect("truncated");
        assert_eq!((dual.stage(1), dual.take_differences()), (Stage::Switched, vec![]), "cut at {cut}");
        assert_eq!(dual.new_log().replica(1).keys().len(), all, "cut at {cut}");
        assert_sound(dual.new_log(), &format!("cut at {cut}"));
        if whole {
            break;
        }
    }
    assert!(between > 1, "no crash fell between the parts");
}

const KEYS: [&[u8]; 3] = [b"hard_state", b"vote", b"k"];

/// What differs, in a line.
fn unlike(seen: &World, want: &World) -> String {
    let brief = |w: &World, id| w.get(&id).map(|r: &Rep| (r.before, r.bounds(), r.state.len()));
    let ids = (1..=5).filter(|id| seen.get(id) != want.get(id));
    ids.map(|id| format!("{id}: {:?} for {:?}", brief(seen, id), brief(want, id))).collect::<Vec<_>>().join(", ")
}

/// A random migration: failures and crashes wherever they fall. What is read is always what was written, or where a write failed,
/// what was there before or after.
fn migrate(seed: u64) -> (u64, u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let old = past();
    let mut disk = Arc::new(SimDisk::new(4 << 20));
    let mut dual = open(&old, &disk);
    let mut model = old.world();
    let (mut crashes, mut switched) = (0, 0);
    for step in 0..300 {
        let mut after = model.clone();
        let mut batch = Batch::new();
        // One replica a batch: a batch is not atomic over replicas of both kinds.
        let id = rng.random_range(1..=5);
        for _ in 0..rng.random_range(1..=3) {
            let (first, last) = after.get(&id).map_or((1, 0), Rep::bounds);
            let data = payload(id, step, 5, *[10, 400, 9000].get(rng.random_range(0..3)).expect("three"));
            match rng.random_range(0..10) {
                0..=4 => {
                    let from = rng.random_range(first.max(last.saturating_sub(3)).min(last + 1)..=last + 1);
                    let entries: Vec<_> = (from..from + rng.random_range(1..4)).map(|i| (i, step, &data[..])).collect();
                    batch.append(id, &entries);
                    apply(&mut after, &Change::Append { replica: id, entries: &entries });
                }
                5 | 6 => {
                    let (key, value) = (KEYS[rng.random_range(0..3)], &data[..data.len().min(50)]);
                    batch.put(id, key, value);
                    apply(&mut after, &Change::Put { replica: id, key, value });
                }
                7 if after.contains_key(&id) => {
                    let first_kept = rng.random_range(first..=last + 1);
                    batch.truncate_prefix(id, first_kept);
                    apply(&mut after, &Change::TruncatePrefix { replica: id, first_kept });
                }
                8 if after.contains_key(&id) && rng.random_bool(0.5) => {
                    let from = rng.random_range(first.max(last.saturating_sub(3))..=last + 1);
                    batch.truncate_suffix(id, from);
                    apply(&mut after, &Change::TruncateSuffix { replica: id, from });
                }
                8 if rng.random_bool(0.6) => {
                    let (index, term) = ((last + rng.random_range(0..4)).max(1), step);
                    batch.install_snapshot(id, index, term);
                    apply(&mut after, &Change::InstallSnapshot { replica: id, index, term });
                }
                9 if batch.is_empty() && rng.random_bool(0.3) => {
                    batch.remove(id);
                    apply(&mut after, &Change::Remove { replica: id });
                    // It may come back in the same batch.
                    if rng.random_bool(0.5) {
                        break;
                    }
                }
                _ => {}
            }
        }
        let crash = rng.random_bool(0.08);
        match rng.random_range(0..12) {
            0 => old.fail(Fails::Before),
            1 => old.fail(Fails::After),
            2 => old.fail(Fails::Later),
            _ if crash => disk.fail_at(disk.events() + rng.random_range(0..4), Fault::Cut),
            _ => {}
        }
        let outcome = dual.commit(&mut batch);
        old.fail(Fails::Never);
        if crash || matches!(outcome, Err(MigrateError::New(_) | MigrateError::OldAlone(_))) {
            drop(dual);
            disk = Arc::new(disk.crash_seeded(seed ^ step));
            dual = open(&old, &disk);
            crashes += 1;
        }
        let seen = read(&mut dual, 1..=5, &KEYS);
        let told = outcome.as_ref().err().map(ToString::to_string);
        if told.is_none() {
            assert!(seen == after, "step {step}: {}", unlike(&seen, &after));
        } else {
            let fits = seen == model || seen == after;
            assert!(fits, "step {step}, {told:?}: {}; or {}", unlike(&seen, &model), unlike(&seen, &after));
        }
        model = seen;
        assert_eq!(dual.take_differences(), [], "step {step}: nobody changed anything behind our back");
        switched = switched.max((1..=5).filter(|&id| dual.stage(id) == Stage::Switched).count() as u64);
    }
    let wal: &Wal = dual.new_log();
    assert_sound(wal, "at the end");
    (crashes, switched)
}

#[test]
fn migrations_survive_failures_of_both_sides_and_crashes_between_the_two_writes() {
    let sums = Mutex::new((0, 0));
    for_each(&seeds(1, 40), |seed| {
        let (crashes, switched) = migrate(seed);
        let mut sums = sums.lock().expect("no other panic");
        *sums = (sums.0 + crashes, sums.1 + switched);
    });
    let (crashes, switched) = sums.into_inner().expect("no other panic");
    assert!(switched > 40, "{switched} replicas moved over");
    tally(&[("crashes", crashes), ("switched", switched)]);
}
