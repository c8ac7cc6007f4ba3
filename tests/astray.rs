//! The device loses a write, or writes it elsewhere, and says that all is well.
//!
//! Every write to a log with every structure is lost once, and misdirected to a few places. What was acknowledged and cannot be read must
//! be reported by name, or the opening refused; all other replicas are untouched.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use strandlog::disk::sim::{EventKind, Fault, SimDisk};

use strandlog::Placement;
use strandlog::disk::{BLOCK, Disk};

use support::judge::{CAPACITY, End, judge, options, write};
use support::model::{Model, Op, batch};
use support::{for_each, payload};

/// What becomes of the write with this number.
#[derive(Clone, Copy, Debug)]
enum Astray {
    Lost,
    /// Written where an earlier or later write of the same log belongs.
    To(u64),
}

#[test]
fn a_write_that_goes_astray_is_never_silent() {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    write(&disk);
    let events = disk.log();
    // From the first commit on: the first opening formats the disk, and believes what it has just written itself.
    let writes: Vec<_> = events.iter().filter(|e| e.kind != EventKind::Flush && e.number > 4).collect();
    let mut cases = Vec::new();
    for (i, event) in writes.iter().enumerate() {
        cases.push((event.number, Astray::Lost));
        for other in [i * 7919 % writes.len(), i.saturating_sub(1), (i + 1) % writes.len()] {
            if writes[other].offset != event.offset {
                cases.push((event.number, Astray::To(writes[other].offset)));
            }
        }
        // Misdirected over a superblock.
        cases.push((event.number, Astray::To([0, 16 << 10][i % 2])));
    }
    let table: Mutex<BTreeMap<(&str, String), u64>> = Mutex::new(BTreeMap::new());
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    for_each(&cases, |(number, astray)| {
        let disk = Arc::new(SimDisk::new(CAPACITY));
        let (name, fault) = match astray {
            Astray::Lost => ("lost", Fault::Lost),
            Astray::To(to) => ("misdirected", Fault::Misdirected { to }),
        };
        disk.fail_at(number, fault);
        let (model, _) = write(&disk);
        let closed = disk.kept_image();
        // Opened from the journal; and from the snapshot, which may know more but must not say otherwise.
        match judge(support::without_snapshot(closed.clone()), &model) {
            Ok(end) => {
                let end = match end {
                    End::Refused(what) => format!("refused: {what}"),
                    other => format!("{other:?}"),
                };
                *table.lock().expect("no panic").entry((name, end)).or_default() += 1;
            }
            Err(why) => failures.lock().expect("no panic").push(format!("{number} {astray:?}: {why}")),
        }
        if let Err(why) = judge(closed, &model) {
            failures.lock().expect("no panic").push(format!("{number} {astray:?}, with a snapshot: {why}"));
        }
    });
    for ((name, end), n) in &*table.lock().expect("no panic") {
        println!("{name:12} {n:6}  {end}");
    }
    let failures = failures.into_inner().expect("no panic");
    let shown: Vec<_> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} of {} cases: {shown:#?}", failures.len(), cases.len());
}

/// Fills all slabs with large frames, then writes `small` small ones over them, which do not reach to where the large ones end. The log is
/// not closed.
fn write_over_large_frames(disk: &Arc<SimDisk>, small: u64) -> (Model, Vec<u64>) {
    let options = options().placement(Placement::Journal);
    let wal = options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
    let mut model = Model::default();
    let mut commit = |ops: Vec<Op>| {
        wal.commit(batch(&ops)).expect("committed");
        model.apply(&ops);
    };
    let append = |replica: u64, from: u64, lens: &[usize]| {
        let entries = (from..).zip(lens).map(|(i, &len)| (i, 1, payload(replica, i, 1, len))).collect();
        Op::Append { replica, entries }
    };
    commit(vec![append(1, 1, &[100; 3]), append(2, 1, &[200; 2])]);
    // Each frame has six or seven blocks: they go through all slabs more than once.
    for n in 0..60 {
        let first = 1 + 6 * n;
        commit(vec![append(9, first, &[4000; 6]), Op::Truncate { replica: 9, first: first + 6 }]);
        if n % 3 == 2 {
            wal.checkpoint().expect("cleaned");
        }
    }
    let mut numbers = Vec::new();
    for n in 1..=small {
        numbers.push(disk.events());
        commit(vec![append(3 + n % 3, 1 + (n - 1) / 3, &[50])]);
    }
    // Killed: nothing that an end of the log would write is in the image.
    (model, numbers)
}

#[test]
fn a_lost_write_over_a_large_frame_of_an_earlier_life_hides_nothing_of_a_log_that_was_killed() {
    const SMALL: u64 = 50;
    let disk = Arc::new(SimDisk::new(CAPACITY));
    let (_, numbers) = write_over_large_frames(&disk, SMALL);
    assert!(disk.log().iter().filter(|e| e.number < numbers[0] && e.len >= 6 * BLOCK as u64).count() > 40);
    let mut cases = Vec::new();
    for event in disk.log().iter().filter(|e| e.kind != EventKind::Flush && e.number >= numbers[0]) {
        // With three more frames: the last two may have been in flight, and a log that was never closed cannot miss them.
        let small = numbers.partition_point(|&first| first <= event.number) as u64 + 3;
        if small <= SMALL {
            cases.push((small, event.number));
        }
    }
    let reported = Mutex::new(0);
    for_each(&cases, |(small, lost)| {
        let disk = Arc::new(SimDisk::new(CAPACITY));
        disk.fail_at(lost, Fault::Lost);
        let (model, again) = write_over_large_frames(&disk, small);
        assert_eq!(again, numbers[..small as usize]);
        match judge(disk.kept_image(), &model) {
            Ok(End::Reported(_)) => *reported.lock().expect("no panic") += 1,
            // The lost frame was nobody's.
            Ok(End::NoEffect) => {}
            Ok(End::Refused(what)) => panic!("{small} small frames, {lost} lost: refused: {what}"),
            Err(why) => panic!("{small} small frames, {lost} lost: {why}"),
        }
    });
    let reported = reported.into_inner().expect("no panic");
    assert!(reported > 40, "{reported} of {}", cases.len());
}
