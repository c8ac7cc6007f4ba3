//! Migrations from an old log as somebody else may have written it: slow, with answers that its contract does not allow, and with panics.
//! And migrations that cannot go on with a log that they find.

mod support;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::migrate::{Change, DualWrite, MigrateError, OldError, OldLog, Stage};
use strandlog::{Batch, Bytes, Entry, Error, Placement, RecoveryMode};

use support::old_log::{Fails, Old, open, past};
use support::{assert_sound, payload, small};

/// What the old log does beyond its contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Does {
    #[default]
    Well,
    /// No entries, though it has them.
    Nothing,
    /// Entries from the beginning of the block in which it keeps them.
    Earlier,
    /// More entries than were asked for.
    Later,
    /// Every other entry.
    Gaps,
    /// All that was asked for at once, which it may.
    Whole,
    /// Bounds that contradict each other.
    NoBounds,
}

#[derive(Clone, Default)]
struct Strange {
    old: Option<Old>,
    does: Rc<Cell<Does>>,
    bounds: Rc<Cell<u64>>,
    entries: Rc<Cell<u64>>,
    writes: Rc<Cell<u64>>,
    states: Rc<Cell<u64>>,
    /// The call behind so many others panics.
    panics: Rc<Cell<Option<u64>>>,
}

impl Strange {
    fn over(old: &Old) -> Self {
        Self { old: Some(old.clone()), ..Self::default() }
    }

    fn old(&self) -> &Old {
        if let Some(behind) = self.panics.get() {
            self.panics.set(behind.checked_sub(1));
            assert!(behind > 0, "a panic of the old log's");
        }
        self.old.as_ref().expect("there")
    }

    /// How often bounds were asked for since this was last called.
    fn asked(&self) -> u64 {
        self.bounds.take()
    }

    fn open(&self, disk: &Arc<SimDisk>) -> DualWrite<Self> {
        DualWrite::open(self.clone(), support::open(small(Placement::Auto), disk)).expect("the migration goes on")
    }
}

impl OldLog for Strange {
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), OldError> {
        self.writes.update(|n| n + 1);
        self.old().clone().write(changes)?;
        // The call may also panic after it has written, before it answers.
        self.old();
        Ok(())
    }
    fn replicas(&self) -> Result<Vec<u64>, OldError> {
        self.old().replicas()
    }
    fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, OldError> {
        self.bounds.update(|n| n + 1);
        let held = self.old().bounds(replica)?;
        Ok(held.map(|(first, last)| if self.does.get() == Does::NoBounds { (last + 2, last) } else { (first, last) }))
    }
    fn term(&self, replica: u64, index: u64) -> Result<u64, OldError> {
        self.old().term(replica, index)
    }
    fn entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, OldError> {
        self.entries.update(|n| n + 1);
        assert!(self.entries.get() < 1000, "asked without end");
        let (begin, end) = self.old().rep(replica).ok_or("no such replica")?.bounds();
        let all = |from, to| self.old().entries(replica, from, to);
        Ok(match self.does.get() {
            Does::Well | Does::NoBounds => all(first, last)?,
            Does::Nothing => Vec::new(),
            Does::Earlier => all((first - first % 4).max(begin), first.min(last))?.drain(..1).collect(),
            Does::Later => (first..=end).map(|i| Ok(all(i, i)?.remove(0))).collect::<Result<_, OldError>>()?,
            Does::Whole => {
                let rep = self.old().rep(replica).ok_or("no such replica")?;
                let all = (begin..).zip(rep.entries).map(|(index, (term, data))| Entry { index, term, data });
                all.filter(|entry| (first..=last).contains(&entry.index)).collect()
            }
            Does::Gaps => {
                let every_other = (first..=last).step_by(2);
                every_other.map(|i| Ok(all(i, i)?.remove(0))).collect::<Result<_, OldError>>()?
            }
        })
    }
    fn state(&self, replica: u64) -> Result<Vec<(Bytes, Bytes)>, OldError> {
        self.states.update(|n| n + 1);
        self.old().state(replica)
    }
    fn value(&self, replica: u64, key: &[u8]) -> Result<Option<Bytes>, OldError> {
        Ok(self.old().rep(replica).and_then(|rep| rep.state.get(key).cloned()))
    }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64, Bytes)> {
    range.map(|i| (i, 1, payload(1, i, 1, 50))).collect()
}

fn untrue<T: std::fmt::Debug>(outcome: Result<T, MigrateError>, when: &str) {
    let Err(MigrateError::Old(error)) = &outcome else { panic!("{when}: {outcome:?}") };
    assert!(error.to_string().contains("`OldLog` does not allow"), "{when}: {error}");
}

/// One key is no reason to read them all.
#[test]
fn the_old_log_is_asked_for_one_key() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let strange = Strange::over(&old);
    let mut dual = strange.open(&disk);
    dual.commit(Batch::new().put(2, b"k", b"v")).expect("written to both");
    strange.states.set(0);
    for (replica, key, value) in [
        (1, &b"hard_state"[..], Some(&b"term 1"[..])),
        (2, b"hard_state", Some(b"term 1")),
        (2, b"k", Some(b"v")),
        (2, b"other", None),
        (9, b"hard_state", None),
    ] {
        assert_eq!(dual.get(replica, key).expect("readable").as_deref(), value, "{replica}, {key:?}");
    }
    assert_eq!(strange.states.get(), 0);
}

/// Of entries without payload a mebibyte is more than any batch takes. Begun anew behind them, the copy would lack what it had.
#[test]
fn a_long_run_of_entries_without_payload_is_copied_in_parts() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(8 << 20)));
    let mut dual = open(&old, &disk);
    dual.commit(Batch::new().append(1, &entries(1..=3))).expect("written to both");
    drop(dual);
    // It goes on alone, for long.
    let run: Vec<(u64, u64, &[u8])> = (4..=6_000).map(|index| (index, index, &b""[..])).collect();
    old.change(&Change::Append { replica: 1, entries: &run });
    let strange = Strange::over(&old);
    strange.does.set(Does::Whole);
    let dual = strange.open(&Arc::new(disk.crash_lost_all()));
    assert_eq!(dual.new_log().replica(1).bounds(), (1, 6_000));
    assert_eq!(dual.differences_of(1).expect("readable"), []);
    assert_sound(dual.new_log(), "copied");
}

/// However much it gives at once: it is not asked for the same again, and again for what is left of that.
#[test]
fn what_the_old_log_gave_is_not_asked_for_again() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(16 << 20)));
    let mut dual = open(&old, &disk);
    dual.commit(Batch::new().append(1, &entries(1..=3))).expect("written to both");
    drop(dual);
    let data = payload(1, 4, 1, 20_000);
    let run: Vec<(u64, u64, &[u8])> = (4..=203).map(|index| (index, 1, &data[..])).collect();
    old.change(&Change::Append { replica: 1, entries: &run });
    let strange = Strange::over(&old);
    strange.does.set(Does::Whole);
    let dual = strange.open(&Arc::new(disk.crash_lost_all()));
    assert_eq!(dual.new_log().replica(1).bounds(), (1, 203));
    // To compare what the copy had, and for the rest.
    assert_eq!(strange.entries.get(), 2);
}

/// Entries that were not asked for, or none: nothing waits for the rest without end, and nobody moves over for what was not compared.
#[test]
fn an_answer_that_is_none_is_an_error_of_the_old_log() {
    for does in [Does::Nothing, Does::Earlier, Does::Gaps, Does::Later] {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let strange = Strange::over(&old);
        let mut dual = strange.open(&disk);
        let mut batch = Batch::new();
        dual.commit(batch.append(1, &entries(11..=20))).expect("written to both");
        strange.does.set(does);
        untrue(dual.entries(1, 15, 18), &format!("{does:?}, read"));
        if does != Does::Later {
            untrue(dual.differences_of(1), &format!("{does:?}, compared"));
            untrue(dual.commit(batch.truncate_prefix(1, 15)), &format!("{does:?}, moved over"));
            assert_eq!(dual.stage(1), Stage::Mirrored, "{does:?}");
            assert_eq!(old.rep(1).map(|rep| rep.bounds()), Some((15, 20)), "{does:?}: not removed");
        }
        drop(dual);
        // The old log goes on alone, and what it has then is to be copied.
        old.change(&Change::Append { replica: 1, entries: &[(21, 1, b"a"), (22, 1, b"b"), (23, 1, b"c")] });
        strange.does.set(if does == Does::Later { Does::Well } else { does });
        let wal = support::open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
        let again = DualWrite::open(strange.clone(), wal);
        if does == Does::Later {
            assert_eq!(again.expect("well again").differences_of(1).expect("readable"), []);
        } else {
            untrue(again.map(|_| ()), &format!("{does:?}, opened anew"));
        }
        strange.does.set(Does::Well);
        let mut dual = strange.open(&Arc::new(disk.crash_lost_all()));
        dual.commit(batch.append(1, &entries(24..=24)).truncate_prefix(1, 24)).expect("truncated");
        assert_eq!(dual.stage(1), Stage::Switched, "{does:?}: well again");
        assert_sound(dual.new_log(), "at the end");
    }
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let strange = Strange::over(&old);
    let mut dual = strange.open(&disk);
    strange.does.set(Does::NoBounds);
    untrue(dual.bounds(1), "bounds");
    untrue(dual.commit(Batch::new().append(1, &entries(11..=11))), "written");
    assert_eq!(old.world(), past().world());
}

/// A call may cost a reading of the device.
#[test]
fn the_old_log_is_asked_for_bounds_no_more_than_it_takes() {
    let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
    let strange = Strange::over(&old);
    let mut dual = strange.open(&disk);
    assert_eq!(strange.asked(), 0, "strandlog has nobody");
    let mut batch = Batch::new();
    let all = |batch: &mut Batch, index: u64| {
        (1..=3).for_each(|id| _ = batch.append(id, &[(index, 1, "x")]));
    };
    // One call for each replica: of one that is mirrored already it tells whether somebody changed it behind our back.
    for index in 11..=13 {
        all(&mut batch, index);
        dual.commit(&mut batch).expect("written to both");
        assert_eq!(strange.asked(), 3, "{index}");
    }
    // And another one where both logs have truncated the replica.
    dual.commit(batch.truncate_prefix(1, 13)).expect("truncated");
    assert_eq!((dual.stage(1), strange.asked()), (Stage::Switched, 2));
    dual.commit(batch.truncate_prefix(2, 6)).expect("truncated");
    assert_eq!((dual.stage(2), strange.asked()), (Stage::Mirrored, 2));
    dual.commit(batch.durable_applied(2, 9).truncate_prefix(2, 12)).expect("it waits");
    dual.commit(batch.durable_applied(2, 12)).expect("reported");
    assert_eq!((dual.stage(2), strange.asked()), (Stage::Switched, 4));
    dual.commit(batch.append(1, &[(14, 1, "x")]).append(2, &[(14, 1, "x")])).expect("written");
    assert_eq!(strange.asked(), 0, "who is switched");
    // A copy that is in doubt.
    strange.panics.set(Some(2));
    catch_unwind(AssertUnwindSafe(|| dual.commit(batch.append(3, &[(14, 1, "x")])))).expect_err("behind the write");
    strange.asked();
    batch.clear();
    dual.commit(batch.append(3, &[(15, 1, "x")])).expect("made to agree, and written");
    assert_eq!((strange.asked(), dual.stage(3)), (1, Stage::Mirrored));
    assert_eq!(dual.differences_of(3).expect("readable"), []);
    drop(dual);
    strange.asked();
    drop(strange.open(&Arc::new(disk.crash_lost_all())));
    assert_eq!(strange.asked(), 3, "an opening");
}

/// A panic in any call, that the store catches: the next call finds both logs as after any failure.
#[test]
fn a_panic_of_the_old_log_is_a_failure_like_any() {
    let mut panicked = 0;
    for behind in 0.. {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let strange = Strange::over(&old);
        let mut dual = strange.open(&disk);
        let mut batches: Vec<Batch> = (0..5).map(|_| Batch::new()).collect();
        batches[0].append(1, &entries(11..=14)).put(2, b"vote", b"2");
        batches[1].append(1, &entries(13..=15)).append(9, &entries(1..=2)).durable_applied(2, 8);
        batches[2].truncate_prefix(1, 12).truncate_prefix(2, 10);
        batches[3].remove(9).append(9, &entries(1..=1)).append(2, &entries(11..=11));
        batches[4].durable_applied(2, 11).truncate_prefix(2, 11).install_snapshot(3, 20, 2).remove(9);
        strange.panics.set(Some(behind));
        for batch in &mut batches {
            // Given again as it was: the panic may have come before it, behind it or in its middle.
            while !batch.is_empty() {
                let outcome = catch_unwind(AssertUnwindSafe(|| dual.commit(batch)));
                panicked += u64::from(outcome.is_err());
                outcome.unwrap_or(Ok(())).unwrap_or_else(|e| panic!("behind {behind}: {e}"));
            }
        }
        let unheard = strange.panics.replace(None).is_some();
        let stands = (1..=3).map(|id| (dual.stage(id), dual.bounds(id).expect("readable"))).collect::<Vec<_>>();
        let all = [Some((12, 15)), Some((11, 11)), Some((21, 20))].map(|held| (Stage::Switched, held));
        assert_eq!(stands, all, "behind {behind}");
        assert!(dual.is_done().expect("readable"), "behind {behind}");
        assert_eq!(dual.get(2, b"vote").expect("readable").as_deref(), Some(&b"2"[..]), "behind {behind}");
        assert_sound(dual.new_log(), &format!("behind {behind}"));
        if unheard {
            break;
        }
    }
    assert!(panicked > 20, "{panicked}");
}

/// A key in the old log begins as strandlog's own keys do: its replica does not move over, and stops no other one.
#[test]
fn a_key_of_strandlogs_own_in_the_old_log_stops_no_opening() {
    for mirrored in [false, true] {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        if mirrored {
            dual.commit(batch.append(1, &entries(11..=11))).expect("written to both");
        }
        drop(dual);
        old.change(&Change::Put { replica: 1, key: b"\0sl.a", value: b"8 bytes!" });
        let before = old.world();
        let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
        let last = old.rep(1).expect("there").bounds().1;
        for _ in 0..2 {
            let outcome = dual.commit(batch.append(1, &[(last + 1, 1, "on")]));
            let Err(MigrateError::New(error @ Error::Contradiction { replica: 1, .. })) = outcome else {
                panic!("mirrored {mirrored}: {outcome:?}");
            };
            assert!(error.to_string().contains("`sl.` is the log's own"), "{error}");
            assert_eq!(old.world(), before, "mirrored {mirrored}");
            batch.clear();
            // Opened again, it is in doubt as before.
            drop(dual);
            dual = open(&old, &Arc::new(disk.crash_lost_all()));
        }
        dual.commit(batch.append(2, &entries(11..=11))).expect("the others go on");
        dual.commit(batch.truncate_prefix(1, last)).expect("the old log alone");
        assert_eq!(dual.bounds(1).expect("readable"), Some((last, last)));
        // The key cannot be deleted through the migration; the owner of the old log can delete it.
        drop(dual);
        old.change(&Change::Delete { replica: 1, key: b"\0sl.a" });
        let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
        dual.commit(batch.append(1, &[(last + 1, 1, "on")]).truncate_prefix(1, last + 1)).expect("truncated");
        assert_eq!((dual.stage(1), dual.take_differences()), (Stage::Switched, vec![]), "mirrored {mirrored}");
    }
}

/// The power is cut between the old log's truncation and strandlog's report that allowed it: nothing comes back with the switch.
#[test]
fn the_first_index_does_not_go_back_at_the_switch() {
    let mut between = 0;
    for cut in 0.. {
        let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        let mut batch = Batch::new();
        dual.commit(batch.append(9, &entries(1..=10)).durable_applied(9, 3)).expect("written to both");
        disk.fail_at(disk.events() + cut, Fault::Cut);
        let written =
            dual.commit(batch.durable_applied(9, 8).truncate_prefix(9, 8).append(9, &entries(11..=11))).is_ok();
        drop(dual);
        let mut dual = open(&old, &Arc::new(disk.crash_lost_all()));
        batch.clear();
        if dual.stage(9) == Stage::Mirrored {
            let (first, last) = dual.bounds(9).expect("readable").expect("there");
            between += u64::from(first == 8);
            let from = dual.reapply_from(9).expect("readable");
            dual.commit(batch.append(9, &entries(last + 1..=last + 1)).truncate_prefix(9, first))
                .expect("nothing to truncate");
            assert_eq!(dual.stage(9), Stage::Switched, "cut at {cut}");
            assert_eq!(dual.bounds(9).expect("readable"), Some((first, last + 1)), "cut at {cut}");
            assert_eq!(dual.reapply_from(9).expect("readable"), from, "cut at {cut}");
        }
        assert_sound(dual.new_log(), &format!("cut at {cut}"));
        if written {
            break;
        }
    }
    assert!(between > 0, "no cut fell between the logs");
}

/// Replica 1 is switched, and the old log has not let go of it yet.
fn left_over(disk: &Arc<SimDisk>) -> Old {
    let old = past();
    let mut dual = open(&old, disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &entries(11..=20))).expect("written to both");
    old.fail(Fails::Later);
    dual.commit(batch.truncate_prefix(1, 11)).expect_err("the switch fails");
    assert_eq!((dual.stage(1), old.rep(1).map(|rep| rep.bounds())), (Stage::Switched, Some((11, 20))));
    old
}

/// Nothing can be written: so the old log lets go of nothing either.
#[test]
fn a_strandlog_that_is_only_read_is_refused_before_the_old_log_lets_go_of_anything() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let old = left_over(&disk);
    let before = old.world();
    for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage] {
        let image = Arc::new(disk.crash_lost_all());
        let wal = small(Placement::Auto).read_only(true).recovery_mode(mode).open_disk(image).expect("readable");
        let opened = DualWrite::open(old.clone(), wal);
        assert!(matches!(opened, Err(MigrateError::New(Error::ReadOnly))), "{mode:?}");
        assert_eq!(old.world(), before, "{mode:?}");
    }
    assert_eq!(open(&old, &Arc::new(disk.crash_lost_all())).stage(1), Stage::Switched);
    assert_eq!(old.rep(1), None);
}

/// The migration was given up when some replicas had moved over, and the old log got those anew, from their groups' snapshots. It is
/// resumed with the file that was left: what that has of them is long past, votes and all.
#[test]
fn what_the_old_log_has_anew_is_not_let_go_of() {
    type Changes<'a> = &'a [Change<'a>];
    let anew: [Changes<'_>; 3] = [
        &[
            Change::InstallSnapshot { replica: 1, index: 40, term: 3 },
            Change::Put { replica: 1, key: b"vote", value: b"9" },
        ],
        &[
            Change::InstallSnapshot { replica: 1, index: 10, term: 1 },
            Change::Append { replica: 1, entries: &[(11, 1, b"new")] },
            Change::Put { replica: 1, key: b"hard_state", value: b"term 2" },
        ],
        // As strandlog has it, but that it begins earlier.
        &[
            Change::InstallSnapshot { replica: 1, index: 9, term: 1 },
            Change::Append { replica: 1, entries: &[(10, 1, b"old"), (11, 1, b"new")] },
            Change::Put { replica: 1, key: b"hard_state", value: b"term 1" },
        ],
    ];
    for changes in anew {
        let (old, disk) = (past(), Arc::new(SimDisk::new(4 << 20)));
        let mut dual = open(&old, &disk);
        dual.commit(Batch::new().append(1, &[(11, 1, "new")]).truncate_prefix(1, 11)).expect("truncated");
        assert_eq!((dual.stage(1), old.rep(1)), (Stage::Switched, None));
        drop(dual);
        changes.iter().for_each(|change| old.change(change));
        let before = old.world();
        let wal = support::open(small(Placement::Auto), &Arc::new(disk.crash_lost_all()));
        let opened = DualWrite::open(old.clone(), wal);
        assert!(matches!(opened, Err(MigrateError::Collision { replica: 1 })), "{changes:?}: {opened:?}");
        assert_eq!(old.world(), before, "{changes:?}");
        // The migration is begun again with a new file.
        let mut dual = open(&old, &Arc::new(SimDisk::new(4 << 20)));
        let last = old.rep(1).expect("there").bounds().1;
        dual.commit(Batch::new().append(1, &[(last + 1, 4, "on")]).truncate_prefix(1, last + 1)).expect("truncated");
        assert_eq!(dual.stage(1), Stage::Switched);
    }
}

/// A write of the old log failed, and what can be seen of it may be lost with the power: no replica moves over by that.
#[test]
fn nobody_moves_over_by_what_the_old_log_may_lose_yet() {
    let (old, disk) = (Old::new(), Arc::new(SimDisk::new(4 << 20)));
    let strange = Strange::over(&old);
    let mut dual = strange.open(&disk);
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &entries(1..=5)).durable_applied(1, 3)).expect("written to both");
    // Behind our back, so that the replica does not move over this time.
    old.change(&Change::Put { replica: 1, key: b"only there", value: b"x" });
    dual.commit(batch.truncate_prefix(1, 5)).expect("it waits");
    assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Mirrored, Some((4, 5))));
    old.fail(Fails::After);
    dual.commit(batch.append(1, &entries(6..=6))).expect_err("the old log failed");
    batch.clear();
    strange.writes.take();
    dual.commit(batch.durable_applied(1, 3)).expect("reported again");
    assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Switched, Some((4, 6))));
    assert_eq!(strange.writes.take(), 2, "one before it was switched, and that it goes");
}

/// A switched replica rots before the old log has let go of it: the old log still has all of it.
#[test]
fn who_was_hurt_before_the_old_log_let_go_of_it_is_copied_anew() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let old = left_over(&disk);
    let image = disk.kept_image();
    let entry = payload(1, 15, 1, 50);
    let at = image.windows(entry.len()).position(|bytes| *bytes == *entry).expect("in the journal");
    let rotten = Arc::new(SimDisk::from_image(image));
    rotten.flip_bit(at as u64, 3);
    let wal = support::open(small(Placement::Auto), &rotten);
    assert!(wal.replica(1).entry(15).is_err(), "hurt");
    wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).expect("what a reading met is written down");
    assert!(!wal.replica(1).damage().is_empty());
    wal.sync().expect("durable");
    drop(wal);
    let mut dual = open(&old, &Arc::new(rotten.crash_lost_all()));
    assert_eq!(dual.bounds(1).expect("readable"), Some((11, 20)));
    assert_eq!(dual.entries(1, 15, 15).expect("sound").first().map(|e| e.data.clone()), Some(entry));
    let mut batch = Batch::new();
    dual.commit(batch.append(1, &entries(21..=21)).truncate_prefix(1, 21)).expect("truncated");
    assert_eq!((dual.stage(1), dual.bounds(1).expect("readable")), (Stage::Switched, Some((21, 21))));
    assert_sound(dual.new_log(), "at the end");
}
