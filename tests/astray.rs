//! Writes that never arrive, and writes that arrive elsewhere, though the device said that all is well.
//!
//! Every write of a log of every structure is lost once, and misdirected to a few places. What was acknowledged and cannot be read is
//! reported, by name, or refuses the opening; the others are untouched.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use strandlog::disk::sim::{EventKind, Fault, SimDisk};

use support::for_each;
use support::judge::{CAPACITY, End, judge, write};

/// What is done to the write with this number.
#[derive(Clone, Copy, Debug)]
enum Astray {
    Lost,
    /// Where an earlier or later write of the same log belongs.
    To(u64),
}

#[test]
fn a_write_that_goes_astray_is_never_silent() {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    write(&disk);
    let events = disk.log();
    // The first opening formats the disk and believes what it wrote itself: from the first commit on.
    let writes: Vec<_> = events.iter().filter(|e| e.kind != EventKind::Flush && e.number > 4).collect();
    let mut cases = Vec::new();
    for (i, event) in writes.iter().enumerate() {
        cases.push((event.number, Astray::Lost));
        for other in [i * 7919 % writes.len(), i.saturating_sub(1), (i + 1) % writes.len()] {
            if writes[other].offset != event.offset {
                cases.push((event.number, Astray::To(writes[other].offset)));
            }
        }
        // Over a superblock.
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
        // As the journal tells it; and with a snapshot, which may know more, and must not know otherwise.
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
