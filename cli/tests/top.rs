//! `strandlog top`

mod support;

use std::time::Duration;

use strandlog::{Batch, Wal};
use support::{filled, str, strandlog};

#[test]
fn a_log_that_publishes_is_watched_and_one_that_does_not_is_told_how() {
    let (_dir, path) = filled();
    let ran = strandlog(&["top", str(&path)]);
    assert!(ran.code == 2 && ran.err.contains("publish_stats"), "{ran:?}");
    let wal = Wal::options().open(&path).unwrap();
    let stats = path.with_extension("log.stats");
    let publisher = wal.publish_stats(&stats, Duration::from_millis(20)).unwrap();
    std::thread::scope(|s| {
        let seen = s.spawn(|| strandlog(&["top", str(&path), "--json", "--count", "5"]));
        for index in 21.. {
            wal.commit(Batch::new().append(2, &[(index, 9, [3; 100])])).unwrap();
            if seen.is_finished() {
                break;
            }
        }
        let ran = seen.join().unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");
        let lines = ran.lines();
        assert_eq!(lines.len(), 5);
        let entries: f64 = lines.iter().map(|l| l["per_second"]["entries"].as_f64().unwrap()).sum();
        assert!(entries > 0.0, "{ran:?}");
        assert_eq!(lines[0]["holders"][0]["replica"], 2);
        assert!(lines[4]["holders"][0]["growth_per_second"].as_f64().unwrap() > 0.0, "{ran:?}");
    });
    // The output is not a terminal.
    let ran = strandlog(&["top", str(&path)]);
    assert!(ran.code == 2 && ran.err.contains("--json"), "{ran:?}");
    drop(publisher);
    assert!(!stats.exists());
}

#[test]
fn figures_of_a_process_that_is_gone_are_called_old() {
    let (_dir, path) = filled();
    let stats = path.with_extension("elsewhere");
    std::fs::write(&stats, r#"{"format":1,"pid":4194304,"at_ms":1000,"every_ms":500,"figures":{},"holders":[]}"#)
        .unwrap();
    let ran = strandlog(&["top", str(&path), "--stats", str(&stats), "--json"]);
    assert!(ran.code == 2 && ran.json()["error"].as_str().unwrap().contains("4194304 is gone"), "{ran:?}");
    std::fs::write(&stats, "nonsense").unwrap();
    let ran = strandlog(&["top", str(&path), "--stats", str(&stats), "--json"]);
    assert!(ran.code == 2 && ran.json()["error"].as_str().unwrap().contains("no published figures"), "{ran:?}");
    // Only a regular file is read: reading a pipe without a writer would wait forever.
    let ran = strandlog(&["top", str(&path), "--stats", "/dev/null", "--json"]);
    assert!(ran.code == 2 && ran.json()["error"].as_str().unwrap().contains("not a regular file"), "{ran:?}");
}
