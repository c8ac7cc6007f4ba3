//! The log as the state machine's only log: no truncation removes an entry that the state machine has not made durable, wherever power is
//! cut. The rules of reports one by one, then random work against a model, then a cut at every event.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::{PLACEMENTS, assert_sound, for_each, open, payload, seeds, small, tally};

const DISK_BYTES: u64 = 4 << 20;

fn log() -> (Arc<SimDisk>, Wal) {
    let disk = Arc::new(SimDisk::new(DISK_BYTES));
    let wal = open(small(Placement::Auto), &disk);
    (disk, wal)
}

fn fill(wal: &Wal, replica: u64, last: u64) {
    let entries: Vec<_> = (1..=last).map(|i| (i, 1, payload(replica, i, 1, 100))).collect();
    wal.commit(Batch::new().append(replica, &entries)).expect("committed");
}

fn truncate(wal: &Wal, replica: u64, first: u64) {
    drop(wal.submit(Batch::new().truncate_prefix(replica, first).lazy()).expect("submitted"));
}

#[test]
fn a_truncation_waits_for_the_state_machine_and_follows_it() {
    let (_, wal) = log();
    fill(&wal, 1, 20);
    let r = wal.replica(1);
    assert_eq!((r.durable_applied().expect("sound"), r.reapply_from().expect("sound")), (None, 1));
    wal.durable_applied(1, 5).expect("taken");
    truncate(&wal, 1, 11);
    assert_eq!((r.first_index(), r.reapply_from().expect("sound")), (6, 6), "only what is applied durably went");
    assert_eq!(wal.stats().held_truncations, 1);
    wal.durable_applied(1, 8).expect("taken");
    assert_eq!(r.first_index(), 9);
    wal.durable_applied(1, 7).expect("an older report comes late");
    assert_eq!((r.first_index(), r.durable_applied().expect("sound")), (9, Some(8)));
    wal.durable_applied(1, 15).expect("taken");
    assert_eq!((r.first_index(), r.reapply_from().expect("sound")), (11, 16), "no further than was asked for");
    assert_eq!(wal.stats().held_truncations, 0);
    truncate(&wal, 1, 14);
    assert_eq!(r.first_index(), 14, "at once, where nothing is in the way");
    assert_sound(&wal, "at the end");
}

#[test]
fn a_report_of_one_life_is_none_of_another() {
    let (disk, wal) = log();
    let r = wal.replica(1);
    assert_eq!(r.life(), None);
    fill(&wal, 1, 20);
    let first = r.life().expect("it lives");
    assert_eq!(wal.replica(1).life(), Some(first));
    wal.durable_applied_in(1, first, 5).expect("taken");
    truncate(&wal, 1, 11);
    assert_eq!((r.first_index(), r.durable_applied().expect("sound")), (6, Some(5)));
    wal.durable_applied_in(1, first, 8).expect("taken");
    assert_eq!(r.first_index(), 9, "what waited for it went");

    wal.commit(Batch::new().remove(1)).expect("removed");
    wal.durable_applied_in(1, first, 30).expect("ignored");
    assert_eq!((r.life(), r.exists()), (None, false));
    wal.commit(Batch::new().append(1, &[(1, 2, "anew")]).durable_applied(1, 0)).expect("begun");
    truncate(&wal, 1, 2);
    wal.durable_applied_in(1, first, 30).expect("ignored");
    let second = r.life().expect("it lives");
    assert_ne!(second, first);
    assert_eq!(
        (r.first_index(), r.durable_applied().expect("sound")),
        (1, Some(0)),
        "of the new life nothing is applied"
    );
    wal.sync().expect("durable");
    // It is known by the same after a crash.
    let wal = open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
    let r = wal.replica(1);
    assert_eq!(r.life(), Some(second));
    wal.durable_applied_in(1, first, 30).expect("ignored");
    wal.durable_applied_in(1, second, 1).expect("taken");
    assert_eq!(r.durable_applied().expect("sound"), Some(1));
    assert_sound(&wal, "at the end");
}

/// A snapshot is installed, and raft truncates to where the log begins now: behind what was reported, but there is nothing to wait for.
#[test]
fn a_truncation_to_where_the_log_begins_waits_for_nothing() {
    let (_, wal) = log();
    fill(&wal, 1, 20);
    wal.durable_applied(1, 5).expect("taken");
    wal.commit(Batch::new().install_snapshot(1, 30, 2).truncate_prefix(1, 31)).expect("committed");
    assert_eq!((wal.stats().held_truncations, wal.replica(1).first_index()), (0, 31));
    truncate(&wal, 1, 31);
    assert_eq!(wal.stats().held_truncations, 0);
    assert_eq!(wal.replica(1).usage().keys, wal.replica(1).keys().len() as u64, "a report is no key of the caller's");
}

#[test]
fn a_replica_that_never_reports_is_truncated_as_asked() {
    let (_, wal) = log();
    fill(&wal, 1, 20);
    fill(&wal, 2, 20);
    wal.durable_applied(2, 0).expect("nothing yet, but it will");
    truncate(&wal, 1, 21);
    truncate(&wal, 2, 21);
    assert_eq!((wal.replica(1).first_index(), wal.replica(2).first_index()), (21, 1));
    wal.durable_applied_many(&[(1, 20), (2, 20)]).expect("taken");
    assert_eq!(wal.replica(2).first_index(), 21);
}

#[test]
fn reports_and_truncations_cost_no_sync() {
    let (disk, wal) = log();
    (1..=300).for_each(|replica| fill(&wal, replica, 3));
    let reports = |index| (1..=300).map(|replica| (replica, index)).collect::<Vec<_>>();
    wal.durable_applied_many(&reports(1)).expect("taken");
    let before = disk.events();
    (1..=300).for_each(|replica| truncate(&wal, replica, 4));
    wal.durable_applied_many(&reports(3)).expect("taken");
    assert_eq!(disk.events(), before, "nothing is written for them");
    assert!((1..=300).all(|replica| wal.replica(replica).first_index() == 4));
    wal.sync().expect("with the next commit");
    drop(wal);
    let wal = open(small(Placement::Auto), &Arc::new(disk.restart()));
    assert!((1..=300).all(|replica| wal.replica(replica).reapply_from().expect("sound") == 4));
}

#[test]
fn what_is_not_there_is_not_brought_to_life_by_a_report() {
    let (_, wal) = log();
    wal.durable_applied(9, 5).expect("ignored");
    assert!(!wal.replica(9).exists() && wal.replicas().is_empty());
    fill(&wal, 1, 10);
    wal.durable_applied(1, 4).expect("taken");
    truncate(&wal, 1, 9);
    wal.commit(Batch::new().remove(1)).expect("removed");
    wal.durable_applied(1, 8).expect("ignored");
    assert_eq!((wal.replica(1).exists(), wal.stats().held_truncations), (false, 0));
    // A new life has reported nothing, and nothing waits for it.
    fill(&wal, 1, 10);
    assert_eq!(wal.replica(1).reapply_from().expect("sound"), 1);
    wal.durable_applied(1, 9).expect("taken");
    assert_eq!(wal.replica(1).first_index(), 1);
}

/// The report counts as 0, since the state it names may be of the replica's previous life. Were it dropped, the store that reports 0 first
/// would have its entries truncated as if it had no state machine.
#[test]
fn a_report_before_what_creates_its_replica_says_that_it_reports() {
    let (disk, wal) = log();
    let entries: Vec<_> = (1..=3).map(|i| (i, 1, b"entry")).collect();
    let mut batch = Batch::new();
    batch.durable_applied(1, 0).append(1, &entries);
    batch.append(2, &entries).durable_applied(2, 0);
    batch.durable_applied(3, 2).put(3, b"vote", b"1").append(3, &entries).durable_applied(3, 1);
    batch.durable_applied(4, 9).install_snapshot(4, 5, 1);
    batch.remove(5).durable_applied(5, 3).durable_applied(5, 2).append(5, &entries);
    // No operation creates replica 6.
    batch.durable_applied(6, 7).truncate_prefix(6, 1).delete(6, b"key");
    wal.commit(&mut batch).expect("room");
    let mut cut = Batch::new();
    [1, 2, 3, 5].iter().for_each(|&id| _ = cut.truncate_prefix(id, 4));
    wal.commit(&mut cut).expect("room");
    let seen = |wal: &Wal| {
        let of = |id| (wal.replica(id).first_index(), wal.replica(id).durable_applied().expect("sound"));
        (1..=6).map(of).collect::<Vec<_>>()
    };
    let nobody = wal.replica(9).first_index();
    let wanted = [(1, Some(0)), (1, Some(0)), (2, Some(1)), (6, Some(0)), (1, Some(0)), (nobody, None)];
    assert_eq!(seen(&wal), wanted);
    assert!(!wal.replica(6).exists());
    drop(wal);
    assert_eq!(seen(&open(small(Placement::Auto), &Arc::new(disk.restart()))), wanted);
}

#[test]
fn a_snapshot_goes_before_reports_and_a_cut_suffix_ends_what_waits() {
    let (_, wal) = log();
    fill(&wal, 1, 10);
    wal.durable_applied(1, 2).expect("taken");
    truncate(&wal, 1, 11);
    // Meanwhile the suffix that was to be truncated is overwritten by a shorter one.
    wal.commit(Batch::new().append(1, &[(5, 2, b"new")])).expect("committed");
    wal.durable_applied(1, 5).expect("taken");
    assert_eq!((wal.replica(1).first_index(), wal.replica(1).last_index()), (6, 5));
    // The same where the state machine is ahead of what is left; the log goes on behind that.
    fill(&wal, 2, 10);
    wal.durable_applied(2, 2).expect("taken");
    truncate(&wal, 2, 11);
    wal.commit(Batch::new().append(2, &[(5, 2, b"new")])).expect("committed");
    wal.durable_applied(2, 8).expect("taken");
    assert_eq!((wal.replica(2).first_index(), wal.replica(2).last_index()), (6, 5));
    wal.commit(Batch::new().append(2, &[(6, 2, b"next")])).expect("it follows");
    wal.commit(Batch::new().install_snapshot(1, 50, 3)).expect("installed");
    assert_eq!((wal.replica(1).reapply_from().expect("sound"), wal.replica(1).first_index()), (51, 51));
    assert_sound(&wal, "at the end");
}

/// The state machine was made anew from a peer's snapshot: it no longer holds what it held beyond that.
#[test]
fn a_snapshot_below_what_was_reported_takes_the_report_back() {
    let (disk, wal) = log();
    fill(&wal, 1, 30);
    wal.durable_applied(1, 20).expect("taken");
    truncate(&wal, 1, 31);
    assert_eq!((wal.replica(1).first_index(), wal.stats().held_truncations), (21, 1));
    let mut batch = Batch::new();
    batch.install_snapshot(1, 10, 1).durable_applied(1, 10);
    batch.append(1, &(11..=25).map(|i| (i, 2, payload(1, i, 2, 100))).collect::<Vec<_>>());
    wal.commit(&mut batch).expect("installed");
    let stands = |wal: &Wal, why: &str| {
        let r = wal.replica(1);
        assert_eq!((r.durable_applied().expect("sound"), r.reapply_from().expect("sound")), (Some(10), 11), "{why}");
        assert_eq!((r.bounds(), wal.stats().held_truncations), ((11, 25), 0), "{why}");
    };
    stands(&wal, "what waited was asked of entries that are gone");
    let wal = {
        drop(wal);
        open(small(Placement::Auto), &Arc::new(disk.restart()))
    };
    stands(&wal, "after a crash");
    truncate(&wal, 1, 20);
    assert_eq!((wal.replica(1).first_index(), wal.stats().held_truncations), (11, 1));
    // In the batch of a snapshot, too, a report counts from the snapshot on, and truncations that waited before it wait no more.
    let mut batch = Batch::new();
    batch.durable_applied(1, 22).install_snapshot(1, 15, 2).durable_applied(1, 18);
    batch.append(1, &(16..=25).map(|i| (i, 2, payload(1, i, 2, 100))).collect::<Vec<_>>());
    wal.commit(&mut batch).expect("installed");
    assert_eq!((wal.replica(1).bounds(), wal.replica(1).reapply_from().expect("sound")), ((16, 25), 19));
    // A snapshot beyond what was reported leaves the report as it is.
    wal.commit(Batch::new().install_snapshot(1, 30, 2)).expect("installed");
    let r = wal.replica(1);
    assert_eq!((r.durable_applied().expect("sound"), r.reapply_from().expect("sound")), (Some(18), 31));
    assert_sound(&wal, "at the end");
}

/// There is nothing to apply, however far the state machine is ahead.
#[test]
fn a_report_beyond_the_end_of_the_log_leaves_nothing_to_apply() {
    let (_, wal) = log();
    fill(&wal, 1, 3);
    wal.durable_applied(1, 1000).expect("its snapshot is about to be installed");
    assert_eq!(wal.replica(1).reapply_from().expect("sound"), 4);
    wal.commit(Batch::new().append(1, &[(4, 1, b"held already")])).expect("committed");
    assert_eq!(wal.replica(1).reapply_from().expect("sound"), 5);
    wal.commit(Batch::new().install_snapshot(1, 1000, 1)).expect("installed");
    assert_eq!(wal.replica(1).reapply_from().expect("sound"), 1001);
}

/// What such a batch cuts or writes below the new first index would leave the replica stuck.
#[test]
fn a_report_that_lets_a_truncation_pass_lets_nothing_of_its_batch_behind_it() {
    let (disk, wal) = log();
    fill(&wal, 1, 10);
    wal.durable_applied(1, 2).expect("taken");
    truncate(&wal, 1, 11);
    let r = wal.replica(1);
    assert_eq!(r.first_index(), 3);
    for batch in [
        Batch::new().durable_applied(1, 8).append(1, &[(5, 2, [7; 100])]),
        Batch::new().durable_applied(1, 8).truncate_suffix(1, 5),
    ] {
        assert!(matches!(wal.commit(batch), Err(Error::Compacted { replica: 1, index: 5, first_index: 9 })));
        assert_eq!((r.first_index(), r.last_index()), (3, 10), "nothing of it happened");
    }
    // In a new life no truncation waits, nor does one whose entries were cut before the report.
    let again = &mut Batch::new();
    again.remove(1).append(1, &[(1, 2, [7; 100])]).durable_applied(1, 8).append(1, &[(1, 3, [7; 100])]);
    wal.commit(again).expect("another replica 1");
    fill(&wal, 2, 10);
    wal.durable_applied(2, 2).expect("taken");
    truncate(&wal, 2, 11);
    wal.commit(Batch::new().truncate_suffix(2, 5).durable_applied(2, 8).append(2, &[(5, 2, [7; 100])])).expect("taken");
    assert_eq!((wal.replica(2).first_index(), wal.replica(2).last_index()), (5, 5));
    drop(wal);
    let wal = open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
    assert!(wal.damage().is_empty(), "{:?}", wal.damage());
    assert_sound(&wal, "after the crash");
}

#[test]
fn the_logs_own_keys_are_out_of_reach() {
    let (_, wal) = log();
    fill(&wal, 1, 3);
    wal.durable_applied(1, 2).expect("taken");
    for key in [&b"\0sl.a"[..], b"\0sl.", b"\0sl.anything"] {
        let put = wal.commit(Batch::new().put(1, key, b"99999999"));
        assert!(matches!(put, Err(Error::Contradiction { replica: 1, .. })), "{put:?}");
        assert!(matches!(wal.commit(Batch::new().delete(1, key)), Err(Error::Contradiction { .. })));
    }
    wal.commit(Batch::new().put(1, b"\0s", b"v").put(1, b"", b"w")).expect("keys like any other");
    let mut keys = wal.replica(1).keys();
    keys.sort();
    assert_eq!(keys, [&b""[..], b"\0s"]);
}

#[test]
fn a_replica_that_must_not_be_believed_tells_no_beginning_and_keeps_its_entries() {
    let (disk, wal) = log();
    // The newest report lies in a frame that rots; the frames before and behind it are whole.
    fill(&wal, 1, 10);
    wal.durable_applied(1, 3).expect("taken");
    wal.sync().expect("durable");
    let before = disk.log().len();
    wal.durable_applied(1, 6).expect("taken");
    wal.sync().expect("durable");
    let frame = disk.log().into_iter().skip(before).find(|e| e.len > 0).expect("a frame");
    wal.commit(Batch::new().put(1, b"k", b"v")).expect("committed");
    wal.close().expect("closed");
    drop(wal);
    let disk = Arc::new(disk.restart());
    (0..frame.len / 512).for_each(|sector| disk.zero_sector(frame.offset / 512 + sector));
    support::forget_snapshot(&disk);
    let again = Arc::new(disk.restart());
    let wal = open(small(Placement::Auto), &disk);
    let r = wal.replica(1);
    assert!(matches!(r.reapply_from(), Err(Error::Damaged(_))), "{:?}", wal.damage());
    wal.durable_applied(1, 9).expect("ignored");
    truncate(&wal, 1, 8);
    assert_eq!(r.first_index(), 1, "nothing goes on the word of a state that may be of another life");
    wal.commit(Batch::new().install_snapshot(1, 5, 1)).expect("healed");
    assert_eq!((r.reapply_from().expect("sound"), r.durable_applied().expect("sound")), (6, None));
    // A truncation asked for in the life before is not done in this one.
    wal.commit(Batch::new().append(1, &[(6, 1, b"a"), (7, 1, b"b"), (8, 1, b"c")])).expect("committed");
    wal.durable_applied(1, 8).expect("taken");
    assert_eq!((r.first_index(), wal.stats().held_truncations), (6, 0));
    // A report before the snapshot in the same batch is believed, and taken back to the snapshot.
    let wal = open(small(Placement::Auto), &again);
    wal.commit(Batch::new().durable_applied(1, 9).install_snapshot(1, 5, 1)).expect("healed");
    assert_eq!(wal.replica(1).durable_applied().expect("sound"), Some(5));
}

/// What a replica must look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rep {
    first: u64,
    last: u64,
    applied: Option<u64>,
    /// The truncation that waits; a crash forgets it.
    held: u64,
}

type World = BTreeMap<u64, Rep>;

fn look(wal: &Wal) -> World {
    let one = |id| {
        let r = wal.replica(id);
        let (first, last) = r.bounds();
        (id, Rep { first, last, applied: r.durable_applied().expect("sound"), held: 0 })
    };
    wal.replicas().into_iter().map(one).collect()
}

fn without_held(world: &World) -> World {
    world.iter().map(|(&id, rep)| (id, Rep { held: 0, ..rep.clone() })).collect()
}

/// The log, a model of it, and the model after each batch since everything was last durable.
struct Run {
    rng: StdRng,
    options: fn() -> Options,
    disk: Arc<SimDisk>,
    wal: Wal,
    world: World,
    history: Vec<(u64, World)>,
    crashes: u64,
}

impl Run {
    fn step(&mut self) {
        let id = self.rng.random_range(1..=4);
        let mut batch = Batch::new();
        let many = self.rng.random_range(1..=3);
        // Within one batch the truncation that was asked for counts, not how far it went.
        let mut asked = 0;
        for _ in 0..many {
            self.add(&mut batch, id, &mut asked);
        }
        let durable = self.rng.random_bool(0.3);
        if !durable {
            batch.lazy();
        }
        let lsn = self.wal.submit(&mut batch).expect("a batch that fits").lsn();
        if durable {
            self.wal.wait_durable(lsn).expect("durable");
        }
        self.history.push((lsn.get(), without_held(&self.world)));
        let seen = look(&self.wal);
        assert_eq!(seen, without_held(&self.world));
    }

    /// A batch removes a replica or installs a snapshot at most once, and only as its first operation.
    fn add(&mut self, batch: &mut Batch, id: u64, asked: &mut u64) {
        let rep = self.world.get(&id).cloned();
        match (self.rng.random_range(0..10), rep) {
            (0..=3, rep) => {
                let known = rep.is_some();
                let mut rep = rep.unwrap_or(Rep { first: 1, ..Rep::default() });
                // What is applied durably is committed, so no suffix is cut below it.
                let from = rep.first.max(rep.applied.unwrap_or(0) + 1).max(rep.last.saturating_sub(2)).max(*asked);
                let from = from.min(rep.last + 1);
                let from = self.rng.random_range(from..=rep.last + 1);
                if known && self.rng.random_bool(0.15) {
                    batch.truncate_suffix(id, from);
                    rep.last = from - 1;
                    self.world.insert(id, rep);
                    return;
                }
                let count = self.rng.random_range(1..=6);
                let len = *[10, 300, 9000].get(self.rng.random_range(0..3)).expect("three");
                let entries: Vec<_> = (from..from + count).map(|i| (i, 1, payload(id, i, 1, len))).collect();
                batch.append(id, &entries);
                rep.last = from + count - 1;
                self.world.insert(id, rep);
            }
            (4..=6, Some(mut rep)) => {
                // The state machine trails the log, and its reports come out of order.
                let index = self.rng.random_range(0..=rep.last);
                batch.durable_applied(id, index);
                if rep.applied.is_none_or(|known| index > known) {
                    rep.applied = Some(index);
                    let first = rep.held.min(index + 1).min(rep.last + 1);
                    if rep.held <= index + 1 {
                        rep.held = 0;
                    }
                    rep.first = rep.first.max(first);
                }
                self.world.insert(id, rep);
            }
            (7..=8, Some(mut rep)) => {
                let first = self.rng.random_range(rep.first..=rep.last + 1);
                batch.truncate_prefix(id, first);
                *asked = first.max(*asked);
                let allowed = rep.applied.map_or(first, |applied| first.min(applied + 1));
                if allowed < first {
                    rep.held = rep.held.max(first);
                }
                rep.first = rep.first.max(allowed);
                self.world.insert(id, rep);
            }
            (9, Some(mut rep)) if batch.is_empty() => {
                if self.rng.random_bool(0.5) {
                    batch.remove(id);
                    self.world.remove(&id);
                } else {
                    // Now and then the state machine begins anew, from an older state than it had.
                    let behind = self.rng.random_range(0..8);
                    let index = (rep.last + self.rng.random_range(0..5)).saturating_sub(behind);
                    batch.install_snapshot(id, index, 1);
                    (rep.first, rep.last, rep.held) = (index + 1, index, 0);
                    rep.applied = rep.applied.map(|known| known.min(index));
                    self.world.insert(id, rep);
                }
            }
            _ => {}
        }
    }

    fn crash(&mut self, seed: u64) {
        let durable = self.wal.durable_lsn().get();
        let empty = (0, World::new());
        let known = self.history.iter().rposition(|(lsn, _)| *lsn <= durable);
        let after = Arc::new(self.disk.crash_seeded(seed));
        self.disk = after;
        self.wal = open((self.options)(), &self.disk);
        let found = look(&self.wal);
        let possible = known.map_or(&self.history[..], |at| &self.history[at..]);
        let start = if known.is_none() { &empty.1 } else { &possible[0].1 };
        assert!(
            found == *start || possible.iter().any(|(_, world)| *world == found),
            "after a crash that was durable to {durable}: {found:?} is none of {possible:?}"
        );
        for (&id, rep) in &found {
            let r = self.wal.replica(id);
            let from = r.reapply_from().expect("sound");
            assert_eq!(from, rep.first.max(rep.applied.map_or(0, |a| a + 1)));
            for index in rep.first..=rep.last {
                let entry = r.entry(index).expect("what is not applied durably is there");
                assert_eq!(entry.data, payload(id, index, 1, entry.data.len()), "entry {index} of {id}");
            }
        }
        self.world = found;
        self.settle();
        self.crashes += 1;
    }

    fn settle(&mut self) {
        self.wal.sync().expect("durable");
        self.history = vec![(self.wal.durable_lsn().get(), without_held(&self.world))];
    }
}

fn run(seed: u64, options: fn() -> Options, steps: u64) -> u64 {
    let disk = Arc::new(SimDisk::new(DISK_BYTES));
    let mut run = Run {
        rng: StdRng::seed_from_u64(seed),
        options,
        wal: open(options(), &disk),
        disk,
        world: World::new(),
        history: Vec::new(),
        crashes: 0,
    };
    for step in 0..steps {
        run.step();
        match run.rng.random_range(0..60) {
            0 => run.crash(seed ^ step << 8),
            1 => {
                run.wal.checkpoint().expect("cleaned");
                run.settle();
            }
            2 => {
                run.wal.close().expect("closed");
                run.disk = Arc::new(run.disk.restart());
                run.wal = open(options(), &run.disk);
                assert_eq!(look(&run.wal), without_held(&run.world));
                run.world = look(&run.wal);
                run.settle();
            }
            _ => {}
        }
    }
    assert_sound(&run.wal, "at the end");
    run.crashes
}

#[test]
fn reports_truncations_and_crashes_in_any_order_agree_with_the_model() {
    let options: [fn() -> Options; 3] = [|| small(PLACEMENTS[0]), || small(PLACEMENTS[1]), || small(PLACEMENTS[2])];
    let crashes = std::sync::atomic::AtomicU64::new(0);
    for_each(&seeds(1, 30), |seed| {
        let n = run(seed, options[seed as usize % options.len()], 400);
        crashes.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    });
    tally(&[("crashes", crashes.into_inner())]);
}

/// Wherever the log is cut, it still holds what a state machine that flushes now and then has not flushed.
#[test]
fn an_entry_that_the_state_machine_has_not_made_durable_is_never_truncated() {
    let script = |disk: &Arc<SimDisk>, flushed: &mut u64| {
        let disk: Arc<SimDisk> = Arc::clone(disk);
        let Ok(wal) = small(Placement::Auto).open_disk(disk) else { return 0 };
        for index in 1..=40 {
            let mut batch = Batch::new();
            batch.append(1, &[(index, 1, payload(1, index, 1, 700))]);
            if wal.commit(&mut batch).is_err() {
                return index - 1;
            }
            // The store truncates what it applied as if it were durable; the log knows better.
            batch.clear();
            batch.truncate_prefix(1, index + 1).lazy();
            if wal.submit(&mut batch).is_err() {
                return index;
            }
            if index % 7 == 0 {
                // First durable in the state machine, then reported.
                *flushed = index;
                let _ = wal.durable_applied(1, index);
            } else if index == 1 {
                let _ = wal.durable_applied(1, 0);
            }
            if index % 15 == 0 && wal.checkpoint().is_err() {
                return index;
            }
        }
        40
    };
    let whole = Arc::new(SimDisk::new(DISK_BYTES));
    // The very first truncation comes before the first report, as in a store that upgrades: index 1 may go.
    assert_eq!(script(&whole, &mut 0), 40);
    let events = whole.events();
    let mut cuts = 0;
    for cut in 3..events {
        let disk = Arc::new(SimDisk::new(DISK_BYTES));
        disk.fail_at(cut, strandlog::disk::sim::Fault::Cut);
        let mut flushed = 0;
        let acknowledged = script(&disk, &mut flushed);
        if acknowledged == 0 {
            // The cut came while the log was being made.
            continue;
        }
        let wal = open(small(Placement::Auto), &Arc::new(disk.crash_seeded(cut)));
        let r = wal.replica(1);
        let from = r.reapply_from().expect("sound");
        assert!(
            from <= flushed.max(1) + 1,
            "cut at {cut}: applying begins at {from}, but {flushed} is what was flushed"
        );
        for index in flushed.max(1) + 1..=acknowledged {
            let entry = r.entry(index).unwrap_or_else(|e| panic!("cut at {cut}, {flushed} flushed: {e}"));
            assert_eq!(entry.data, payload(1, index, 1, 700));
        }
        cuts += 1;
    }
    assert!(cuts > 40, "{cuts} of {events}");
    tally(&[("cuts", cuts)]);
}
