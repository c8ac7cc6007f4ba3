//! Readers of the output that go away: `strandlog ... | head`.

mod support;

use support::{filled, find, payload, rot, str, strandlog_cut_off};

#[test]
fn an_export_that_was_cut_off_is_no_export() {
    let (dir, path) = filled();
    let ran = strandlog_cut_off(&["export", str(&path)]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("writing the output"), "{ran:?}");
    // The lines are in a file, and whole, whoever hears of it.
    let ran = strandlog_cut_off(&["export", str(&path), "--out", str(&dir.path().join("lines"))]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn what_was_found_counts_though_nobody_reads_it() {
    let (dir, path) = filled();
    for command in ["verify", "info", "dump"] {
        assert_eq!(strandlog_cut_off(&[command, str(&path)]).code, 0, "{command}");
    }
    rot(&path, find(&path, &payload(2, 1)));
    let saved = dir.path().join("saved");
    // More than what is kept before anything is written: it is cut off in the middle.
    let dump = ["dump", str(&path), "--replica", "2", "--hex"];
    for args in [&["verify", str(&path)][..], &["salvage", str(&path), str(&saved)], &dump] {
        let ran = strandlog_cut_off(args);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.err, "", "no failure of ours");
    }
}
