//! `strandlog dump`

mod support;

use std::path::PathBuf;

use strandlog::{Batch, Wal};
use support::{filled, find, payload, place, rot, str, strandlog};
use tempfile::TempDir;

#[test]
fn dump_lists_replicas_and_their_state() {
    let (_dir, path) = filled();
    let ran = strandlog(&["dump", str(&path)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("replica 1: 5 entries, 1..=5, terms 1 to 2"), "{}", ran.out);
    assert!(ran.out.contains("replica 3: 0 entries, 101..=100"), "{}", ran.out);
    assert!(ran.out.contains("\"applied\" = \"one hundred\""), "{}", ran.out);
    assert!(ran.out.contains("\"vote\" = 0102"), "{}", ran.out);
}

#[test]
fn dump_shows_every_entry_whole() {
    let (_dir, path) = filled();
    let ran = strandlog(&["dump", str(&path), "--replica", "2", "--hex", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.lines();
    assert_eq!(lines.len(), 21);
    assert_eq!((&lines[0]["replica"], &lines[0]["last"]), (&2.into(), &20.into()));
    for (i, line) in (1..).zip(&lines[1..]) {
        let hex: String = payload(2, i).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((&line["index"], &line["data"]), (&i.into(), &hex.into()));
    }
}

#[test]
fn dump_shows_a_range() {
    let (_dir, path) = filled();
    let ran = strandlog(&["dump", str(&path), "--replica", "2", "--entries", "--from", "7", "--to", "9"]);
    assert_eq!(ran.out.lines().count(), 4, "{}", ran.out);
    assert!(ran.out.contains("payload of replica 2 entry 7;"), "{}", ran.out);
    let ran = strandlog(&["dump", str(&path), "--replica", "9"]);
    assert!(ran.code == 2 && ran.err.contains("no replica 9"), "{ran:?}");
}

#[test]
fn dump_goes_on_behind_a_damaged_entry() {
    let (_dir, path) = filled();
    rot(&path, find(&path, &payload(1, 3)) + 5);
    let ran = strandlog(&["dump", str(&path), "--replica", "1", "--entries", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines = ran.lines();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[3]["damaged"]["first"], 3);
    assert_eq!(lines[4]["index"], 4);
}

#[test]
fn dump_ends_as_what_it_showed() {
    let (_dir, path) = filled();
    rot(&path, find(&path, &payload(1, 3)) + 5);
    let code = |more: &[&str]| strandlog(&[&["dump", str(&path)][..], more].concat()).code;
    assert_eq!(code(&["--replica", "2", "--entries"]), 0, "another's damage was not asked for");
    assert_eq!(code(&["--replica", "1", "--entries", "--from", "4"]), 0);
    assert_eq!(code(&["--entries"]), 1);
    let (_dir, path) = filled();
    rot(&path, find(&path, b"one hundred"));
    assert_eq!(strandlog(&["dump", str(&path)]).code, 1, "keyed state that may miss an update");
}

/// The failure comes after the output, on whichever stream.
#[test]
fn what_was_dumped_before_a_failure_comes_before_it() {
    let (_dir, path) = filled();
    let ran = strandlog(&["dump", str(&path), "--replica", "2", "--replica", "99", "--json"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let lines = ran.lines();
    assert_eq!((lines.len(), &lines[0]["replica"]), (2, &2.into()), "{ran:?}");
    assert!(lines[1]["error"].as_str().unwrap().contains("no replica 99"), "{ran:?}");
}

/// A log whose replica 1 holds just the last three indexes before the end of u64.
fn at_the_end_of_the_numbers() -> (TempDir, PathBuf) {
    let (dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).open(&path).unwrap();
    let entries: Vec<_> = (u64::MAX - 2..=u64::MAX).map(|i| (i, 1, payload(1, i))).collect();
    wal.commit(Batch::new().install_snapshot(1, u64::MAX - 3, 1).append(1, &entries)).unwrap();
    wal.close().unwrap();
    (dir, path)
}

#[test]
fn dump_shows_all_up_to_the_last_index_that_there_is() {
    let (_dir, path) = at_the_end_of_the_numbers();
    let ran = strandlog(&["dump", str(&path), "--entries", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown: Vec<_> = ran.lines()[1..].iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(shown, [u64::MAX - 2, u64::MAX - 1, u64::MAX], "{ran:?}");
}

#[test]
fn dump_says_that_the_last_index_there_is_is_damaged() {
    let (_dir, path) = at_the_end_of_the_numbers();
    rot(&path, find(&path, &payload(1, u64::MAX)) + 5);
    let ran = strandlog(&["dump", str(&path), "--entries", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines = ran.lines();
    assert_eq!(lines.len(), 4, "{ran:?}");
    assert_eq!(lines[3]["damaged"]["first"], u64::MAX);
}

/// A key's name in JSON is the key itself if it is text, or else a form that no text has.
#[test]
fn keys_in_json_are_what_they_are() {
    let (_dir, path) = filled();
    let wal = Wal::options().open(&path).unwrap();
    let mut batch = Batch::new();
    batch
        .put(1, b"\x00\xff", b"\x03")
        .put(1, b"hex:00ff", b"\x04")
        .put(1, b"a \"b\"", b"\x05")
        .put(1, b"00ff", b"\x06");
    wal.commit(batch.put(1, b"two\nlines", b"\x07")).unwrap();
    wal.close().unwrap();
    drop(wal);
    let dump = |more: &[&str]| strandlog(&[&["dump", str(&path), "--replica", "1"][..], more].concat());
    let expected = serde_json::json!({
        "vote": "0102", "hex:00ff": "03", "hex:6865783a30306666": "04", "a \"b\"": "05", "00ff": "06",
        "hex:74776f0a6c696e6573": "07",
    });
    assert_eq!(dump(&["--json"]).lines()[0]["state"], expected);
    assert!(dump(&[]).out.contains("  \"vote\" = "), "people see where it begins and ends");
    assert!(strandlog(&["dump", "--help"]).out.contains("`hex:`"));
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    let (_dir, path) = filled();
    for more in [&["--entries"][..], &[]] {
        let ran = strandlog(&[&["dump", str(&path), "--from", "5", "--to", "3"][..], more].concat());
        assert!(ran.code == 2 && ran.err.contains("--from 5") && ran.err.contains("--to 3"), "{ran:?}");
        assert_eq!(ran.out, "");
    }
}

/// A request for entries shows some, or says which exist.
#[test]
fn a_range_without_entries_says_what_there_is() {
    let (_dir, path) = filled();
    let dump = |more: &[&str]| strandlog(&[&["dump", str(&path), "--replica", "2"][..], more].concat());
    let shown = dump(&["--from", "19", "--json"]).lines();
    let shown: Vec<_> = shown[1..].iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(shown, [19, 20], "a range asks for entries");
    for (range, words) in [
        (&["--from", "21"][..], "no entry from 21 on, there are 1..=20"),
        (&["--from", "21", "--to", "30"], "no entry in 21..=30, there are 1..=20"),
        (&["--to", "0"], "no entry up to 0, there are 1..=20"),
    ] {
        let ran = dump(range);
        assert!(ran.code == 0 && ran.out.contains(words), "{ran:?}");
    }
    let lines = dump(&["--from", "21", "--json"]).lines();
    assert_eq!(lines[1], serde_json::json!({ "replica": 2, "no_entries": { "from": 21, "to": null } }));
    let ran = strandlog(&["dump", str(&path), "--replica", "3", "--from", "7"]);
    assert!(ran.code == 0 && ran.out.contains("no entry from 7 on, there is none"), "{ran:?}");
    assert!(!strandlog(&["dump", str(&path), "--entries"]).out.contains("no entry"), "nobody asked");
}

/// The device cannot read a sector: the entry in it is reported as unread, and everything else is shown. If `strace` is missing or may not trace, the
/// test passes.
#[test]
fn entries_that_cannot_be_read_are_named_and_the_others_follow() {
    let (_dir, path) = filled();
    let traced = |options: &[&str]| {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P", str(&path)]).args(options);
        strace.args([env!("CARGO_BIN_EXE_strandlog"), "dump", "--entries", "--replica", "2", str(&path)]).output()
    };
    if !traced(&["-e", "trace=none"]).is_ok_and(|ran| ran.status.success()) {
        println!("skipped: no strace, or it may not trace here");
        return;
    }
    let mut unread = 0;
    for nth in 1..=40 {
        // The read of many entries fails, and then the read of the first of them alone.
        let inject = format!("inject=pread64:error=EIO:when={nth}..{}", nth + 1);
        let ran = traced(&["-e", "trace=pread64", "-e", &inject]).expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let entries = out.lines().filter(|line| line.contains("bytes  \"payload of replica 2")).count();
        if out.lines().any(|line| line.contains("Input/output error") && !line.contains("does not open")) {
            unread += 1;
            assert!(ran.status.code() == Some(1) && entries == 19, "{nth}: {entries}: {out}{err}");
        }
    }
    assert!(unread > 0, "no reading of an entry among them");
}
