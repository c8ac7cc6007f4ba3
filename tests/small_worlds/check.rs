//! Checks what must hold of one image.

use std::fmt::Debug;
use std::sync::Arc;

use strandlog::Wal;
use strandlog::disk::sim::{Fault, SimDisk};

use super::steps::{REPLICAS, Step, append, hash, put};
use super::subsets;
use super::support::assert_sound;
use super::support::model::{Model, Op, Oracle, batch};
use super::world::{Base, Cut, options};

/// Cuts the power at this moment in every way, and checks what is found. Returns how many ways there were.
pub fn every_image(base: &Base, cut: &Cut, steps: &[Step], bound: usize) -> u64 {
    let event = cut.moment.event;
    let seed = hash(steps, event);
    let mut images = subsets::each(&cut.moment.cut, seed, bound, &mut |disk, how| {
        check(Arc::new(disk), cut, &cut.oracle, &(base.start, base.placement, steps, event, how));
    });
    // The process dies before the event; the power fails when the next process has opened the log. What that opening has shown is as good
    // as acknowledged.
    let what = (base.start, base.placement, steps, event, "killed, opened, then cut");
    let disk = Arc::new(cut.moment.before.restart());
    let wal = open(&disk, cut, &what);
    let shown = read(&wal, &what);
    cut.oracle.check(&shown).unwrap_or_else(|why| panic!("{what:?}: {why}"));
    drop(wal);
    let promised = Oracle { durable: shown.clone(), current: shown, ..Oracle::default() };
    images += 1;
    check(Arc::new(disk.crash_lost_all()), cut, &promised, &what);
    images
}

/// Asserts that the log holds what some prefix of the batches makes, all acknowledged ones among them, and that it goes on working.
fn check(disk: Arc<SimDisk>, cut: &Cut, oracle: &Oracle, what: &dyn Debug) {
    let as_found = disk.restart();
    let wal = open(&disk, cut, what);
    let found = read(&wal, what);
    oracle.check(&found).unwrap_or_else(|why| panic!("{what:?}: {why}\n{:#?}", wal.stats()));
    assert_sound(&wal, "recovered");
    cut_once_more(as_found, cut, &found, what);

    let mut now = found;
    for (replica, lens) in REPLICAS.into_iter().zip([&[300, 400][..], &[60][..]]) {
        let ops = more(&now, replica, lens);
        go_on(&wal, &mut now, ops, what);
    }
    // Before anything is cleaned, the dropped tail still lies behind what was just acknowledged, and must stay dropped.
    stands(disk.crash_lost_all(), cut, &now, what, "cut before cleaning");
    wal.checkpoint().unwrap_or_else(|e| panic!("{what:?}: cleaning: {e}"));
    let keep_one = REPLICAS.map(|replica| Op::Truncate { replica, first: now.reps[&replica].last() }).to_vec();
    go_on(&wal, &mut now, keep_one, what);
    let found = read(&wal, what);
    assert!(found == now, "{what:?}, going on:{}", now.difference(&found));
    assert_sound(&wal, "going on");
    drop(wal);
    // All of that was acknowledged.
    stands(disk.crash_lost_all(), cut, &now, what, "cut again");
}

/// Asserts that the log on this disk holds exactly what `now` does.
fn stands(disk: SimDisk, cut: &Cut, now: &Model, what: &dyn Debug, when: &str) {
    let wal = open(&Arc::new(disk), cut, what);
    let found = read(&wal, what);
    assert!(found == *now, "{what:?}, {when}:{}", now.difference(&found));
    assert_sound(&wal, when);
}

/// Cuts the first frame after a recovery as well: it lies where a tail was dropped, and neither may pass for the other.
fn cut_once_more(disk: SimDisk, cut: &Cut, found: &Model, what: &dyn Debug) {
    let disk = Arc::new(disk);
    let wal = open(&disk, cut, what);
    let mut oracle = Oracle { durable: found.clone(), current: found.clone(), ..Oracle::default() };
    let ops = more(found, 1, &[70]);
    disk.fail_at(disk.events(), Fault::Cut);
    wal.commit(batch(&ops)).expect_err("the power is cut");
    oracle.submitted(None, ops);
    drop(wal);
    for disk in [disk.crash_lost_all(), disk.crash_kept_all(), disk.crash_seeded(3)] {
        let wal = open(&Arc::new(disk), cut, what);
        let found = read(&wal, what);
        oracle.check(&found).unwrap_or_else(|why| panic!("{what:?}, then cut once more: {why}\n{:#?}", wal.stats()));
        assert_sound(&wal, "cut once more");
    }
}

fn more(model: &Model, replica: u64, lens: &[usize]) -> Vec<Op> {
    let last = model.reps.get(&replica).map_or(0, |r| r.last());
    vec![append(replica, last + 1, 1 << 20, lens), put(replica, 1 << 21, 20)]
}

fn go_on(wal: &Wal, now: &mut Model, ops: Vec<Op>, what: &dyn Debug) {
    wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{what:?}: going on: {e}"));
    now.apply(&ops);
}

fn open(disk: &Arc<SimDisk>, cut: &Cut, what: &dyn Debug) -> Wal {
    let wal = options(cut.placement).open_disk(Arc::clone(disk) as Arc<_>);
    wal.unwrap_or_else(|e| panic!("{what:?}: opening: {e}"))
}

fn read(wal: &Wal, what: &dyn Debug) -> Model {
    Model::read(wal).unwrap_or_else(|e| panic!("{what:?}: reading: {e}; damage {:?}", wal.damage()))
}
