//! `strandlog export` and `strandlog import`

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use strandlog::migrate::{Change, DualWrite, OldError, OldLog};
use strandlog::{Batch, Bytes, Entry, Wal};
use support::{filled, find, payload, place, rot, str, strandlog};

/// [`filled`] plus harder cases: a term before the first entry, an empty entry, many replicas, many entries.
fn rich() -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, path) = filled();
    let wal = Wal::options().open(&path).unwrap();
    let mut batch = Batch::new();
    batch.truncate_prefix(2, 8).append(1, &[(6, 9, b"")]).put(1, b"\x00\xff", b"").put(2, b"large", &[7; 9000]);
    wal.commit(&mut batch).unwrap();
    for replica in 100..140 {
        let entries: Vec<_> = (1..=30).map(|i| (i, i, payload(replica, i))).collect();
        wal.commit(Batch::new().append(replica, &entries)).unwrap();
    }
    wal.close().unwrap();
    (dir, path)
}

/// Everything that `dump` shows of a log.
fn dumped(path: &std::path::Path) -> String {
    strandlog(&["dump", str(path), "--hex", "--json"]).out
}

#[test]
fn what_was_exported_and_imported_is_the_same() {
    let (dir, path) = rich();
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    let ran = strandlog(&["export", str(&path), "--out", str(&lines), "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((&ran.json()["replicas"], &ran.json()["keys"]), (&43.into(), &4.into()));
    let piped = strandlog(&["export", str(&path)]);
    assert_eq!(piped.out, std::fs::read_to_string(&lines).unwrap(), "a file or a pipe is the same");
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy), "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    assert_eq!(
        (&json["verified"], &json["replicas"], &json["entries_there_already"]),
        (&true.into(), &43.into(), &0.into())
    );
    assert_eq!(dumped(&copy), dumped(&path));
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), (4 << 20) / 8 * 9, "of the same shape, and an eighth larger");
    // Imported once more: everything is already there.
    let again = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy), "--json"]).json();
    assert_eq!(again["entries_there_already"], json["entries"]);
    assert_eq!(dumped(&copy), dumped(&path));
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert!(ran.code == 2 && ran.err.contains("never overwrites"), "{ran:?}");
}

#[test]
fn an_import_that_was_cut_anywhere_goes_on() {
    let (dir, path) = rich();
    let lines = strandlog(&["export", str(&path)]).out;
    let ends: Vec<usize> = lines.match_indices('\n').map(|(i, _)| i + 1).collect();
    for cut in [1, 2, 5, 9, 30, ends.len() / 2, ends.len() - 2] {
        let (half, copy) = (dir.path().join("half"), dir.path().join(format!("copy {cut}")));
        std::fs::write(&half, &lines[..ends[cut - 1]]).unwrap();
        let ran = strandlog(&["import", "--from", "jsonl", str(&half), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains("the end is missing"), "{cut}: {ran:?}");
        // Also cut in the middle of a line.
        std::fs::write(&half, &lines[..ends[cut] - 3]).unwrap();
        let ran = strandlog(&["import", "--from", "jsonl", str(&half), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains("line"), "{cut}: {ran:?}");
        let tool = env!("CARGO_BIN_EXE_strandlog");
        let mut import = Command::new(tool);
        import.args(["import", "--from", "jsonl", "-", str(&copy)]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = import.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{cut}");
        assert_eq!(dumped(&copy), dumped(&path), "{cut}");
    }
}

#[test]
fn what_is_lost_is_named_and_not_imported_as_if_it_were_whole() {
    let (dir, path) = filled();
    rot(&path, find(&path, &payload(2, 13)));
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("IN PART"), "{ran:?}");
    assert!(std::fs::read_to_string(&lines).unwrap().contains(r#"{"replica":2,"lost":[13,13]}"#));
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
    assert!(
        ran.code == 2 && ran.err.contains("entries 13..=13 of replica 2") && ran.err.contains("salvage"),
        "{ran:?}"
    );
}

/// Of the entry before the first only the term is exported. If it is unknown, an import would have to make one up.
#[test]
fn a_term_that_is_unknown_before_the_first_entry_is_lost_like_an_entry() {
    let (dir, path) = filled();
    rot(&path, find(&path, &payload(2, 13)));
    let wal = Wal::options().open(&path).unwrap();
    wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).unwrap();
    wal.commit(Batch::new().truncate_prefix(2, 14)).unwrap();
    wal.close().unwrap();
    drop(wal);
    let lines = dir.path().join("lines");
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(std::fs::read_to_string(&lines).unwrap().contains(r#"{"replica":2,"lost":[13,13]}"#));
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&dir.path().join("copy"))]);
    assert!(ran.code == 2 && ran.err.contains("entries 13..=13 of replica 2"), "{ran:?}");
}

#[test]
fn a_log_that_holds_something_else_is_not_mixed_with_an_import() {
    let (dir, path) = filled();
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    strandlog(&["export", str(&path), "--out", str(&lines)]);
    let wal = Wal::options().capacity(4 << 20).open(&copy).unwrap();
    wal.commit(Batch::new().append(2, &[(1, 1, payload(2, 1)), (2, 1, b"not the same".to_vec())])).unwrap();
    wal.close().unwrap();
    drop(wal);
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("IMPORTED, AND NOT THE SAME") && ran.out.contains("replica 2 differs"), "{ran:?}");
    let other = dir.path().join("other");
    let wal = Wal::options().capacity(4 << 20).open(&other).unwrap();
    wal.commit(Batch::new().install_snapshot(2, 500, 3)).unwrap();
    wal.close().unwrap();
    drop(wal);
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&other)]);
    assert!(ran.code == 2 && ran.err.contains("replica 2 is there with 501..=500"), "{ran:?}");
}

/// The replica goes beyond what is given, or begins behind an entry of another term: no import of this export left it so.
#[test]
fn a_log_that_is_beyond_what_is_given_or_began_elsewhere_is_refused() {
    let (dir, path) = filled();
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let beyond: Vec<_> = (1..=6).map(|i| (i, 1 + i / 5, payload(1, i))).collect();
    let (mut went_on, mut elsewhere) = (Batch::new(), Batch::new());
    went_on.append(1, &beyond);
    elsewhere.install_snapshot(3, 100, 8);
    let others = [("replica 1 is there with 1..=6", went_on), ("replica 3 is there with 101..=100", elsewhere)];
    for (why, batch) in others {
        let wal = Wal::options().capacity(4 << 20).open(&copy).unwrap();
        wal.commit(batch).unwrap();
        wal.close().unwrap();
        drop(wal);
        let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains(why), "{why}: {ran:?}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn nonsense_is_refused_by_line() {
    let (dir, path) = filled();
    let lines = strandlog(&["export", str(&path)]).out;
    let (bad, copy) = (dir.path().join("bad"), dir.path().join("copy"));
    let second = lines.lines().nth(1).unwrap();
    let third = &lines[lines.find(r#"{"replica":3"#).unwrap()..lines.find(r#"{"end""#).unwrap()];
    for (text, why) in [
        (String::new(), "line 1"),
        ("{}\n".into(), "line 1"),
        (lines.replace(r#""index":3"#, r#""index":4"#), "expected was 3"),
        (lines.replace(second, &format!("{second}\n{second}")), "ends before entry 5"),
        (lines.replace(r#""replica":3,"key""#, r#""replica":8,"key""#), "replica 8"),
        (lines.replace(r#""entries":25"#, r#""entries":26"#), "lines are missing"),
        (lines.replace(third, &format!("{third}{third}")), "replica 3 comes twice"),
        (format!("{}\n{lines}", lines.lines().next().unwrap()), "line 2: a second export"),
    ] {
        std::fs::write(&bad, text).unwrap();
        let _ = std::fs::remove_file(&copy);
        let ran = strandlog(&["import", "--from", "jsonl", str(&bad), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains(why), "{why}: {ran:?}");
    }
}

/// The state machines' reports are carried over; otherwise a truncation could overtake a state machine in the copy.
#[test]
fn what_state_machines_reported_is_exported_and_imported() {
    let (dir, path) = filled();
    let wal = Wal::options().open(&path).unwrap();
    wal.durable_applied_many(&[(1, 0), (2, 7)]).unwrap();
    wal.close().unwrap();
    drop(wal);
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert_eq!((ran.code, &ran.err[..]), (0, ""), "{ran:?}");
    // Imported twice: what is already there is the same.
    for _ in 0..2 {
        let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let wal = Wal::options().open(&copy).unwrap();
    let reported = [1, 2, 3].map(|id| wal.replica(id).durable_applied().unwrap());
    assert_eq!(reported, [Some(0), Some(7), None]);
    wal.commit(Batch::new().truncate_prefix(2, 20)).unwrap();
    assert_eq!(wal.replica(2).first_index(), 8);
    // Reports only grow: a copy with a later report is not the same.
    wal.durable_applied(1, 3).unwrap();
    wal.close().unwrap();
    drop(wal);
    let other = dir.path().join("other");
    let wal = Wal::options().capacity(4 << 20).open(&other).unwrap();
    wal.commit(Batch::new().install_snapshot(1, 0, 0).durable_applied(1, 3)).unwrap();
    wal.close().unwrap();
    drop(wal);
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&other)]);
    assert!(ran.code == 1 && ran.out.contains("replica 1 differs"), "{ran:?}");
}

/// An old log that is empty, and forgets what it is given.
struct Forgetful;

impl OldLog for Forgetful {
    fn replicas(&self) -> Result<Vec<u64>, OldError> {
        Ok(Vec::new())
    }
    fn bounds(&self, _: u64) -> Result<Option<(u64, u64)>, OldError> {
        Ok(None)
    }
    fn term(&self, _: u64, _: u64) -> Result<u64, OldError> {
        Ok(0)
    }
    fn entries(&self, _: u64, _: u64, _: u64) -> Result<Vec<Entry>, OldError> {
        Ok(Vec::new())
    }
    fn state(&self, _: u64) -> Result<Vec<(Bytes, Bytes)>, OldError> {
        Ok(Vec::new())
    }
    fn write(&mut self, _: &[Change<'_>]) -> Result<(), OldError> {
        Ok(())
    }
}

/// A migration's marks are left out, and the export says so, because the migration could not continue with an import.
#[test]
fn an_export_in_the_middle_of_a_migration_says_what_it_leaves_out() {
    let (dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).open(&path).unwrap();
    let mut both = DualWrite::open(Forgetful, wal).unwrap();
    for replica in 1..=2 {
        both.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1))])).unwrap();
    }
    let (_, wal) = both.into_parts();
    wal.close().unwrap();
    drop(wal);
    let lines = dir.path().join("lines");
    let to_file = strandlog(&["export", str(&path), "--out", str(&lines), "--json"]);
    for ran in [&to_file, &strandlog(&["export", str(&path)])] {
        assert_eq!(ran.code, 0, "{ran:?}");
        for part in ["2 replicas", "migration", "strandlog salvage"] {
            assert!(ran.err.contains(part), "{part}: {ran:?}");
        }
    }
    assert_eq!(to_file.json()["migration_marks_left_out"], 2, "{to_file:?}");
    let help = strandlog(&["export", "--help"]).out;
    assert!(help.contains("migration"), "{help}");
}

#[test]
fn an_export_that_did_not_end_is_not_written_over() {
    let (dir, path) = filled();
    let (lines, half) = (dir.path().join("lines"), dir.path().join("lines.exporting"));
    std::fs::write(&half, "precious").unwrap();
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert!(ran.code == 2 && ran.err.contains("remove it first"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&half).unwrap(), "precious");
    assert!(!lines.exists());
}

/// A batch is limited by what its operations take in the journal, not by their bytes alone.
#[test]
fn many_small_replicas_are_imported_into_small_segments() {
    let (dir, path) = place();
    let ran = strandlog(&["create", str(&path), "--capacity", "16M"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let wal = Wal::options().open(&path).unwrap();
    for replica in 1..=1000 {
        drop(wal.submit(Batch::new().put(replica, b"hard state", &[replica as u8; 25]).lazy()).unwrap());
    }
    wal.close().unwrap();
    drop(wal);
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy), "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    assert_eq!((&json["verified"], &json["replicas"], &json["keys"]), (&true.into(), &1000.into(), &1000.into()));
    assert_eq!(dumped(&copy), dumped(&path));
}

/// Commits a batch to the log at this path, and closes it.
fn change(path: &std::path::Path, batch: &mut Batch) {
    let wal = Wal::options().open(path).unwrap();
    wal.commit(batch).unwrap();
    wal.close().unwrap();
}

/// A group voted since the first import, but its entries are the same. An old export must not take the vote back, whichever way the keys differ.
#[test]
fn keys_that_are_there_already_are_not_taken_back() {
    type Change = fn(&mut Batch) -> &mut Batch;
    let changes: [(u64, Change); 4] = [
        (1, |b| b.put(1, b"vote", b"\x02\x02")),
        (1, |b| b.put(1, b"term", b"\x09")),
        (1, |b| b.delete(1, b"vote")),
        // In a replica without entries, after a key that is equal.
        (3, |b| b.put(3, b"vote", b"\x02")),
    ];
    for (replica, changed) in changes {
        let (dir, path) = filled();
        change(&path, Batch::new().put(3, b"vote", b"\x01"));
        let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
        assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
        let import = ["import", "--from", "jsonl", str(&lines), str(&copy)];
        assert_eq!(strandlog(&import).code, 0);
        change(&copy, changed(&mut Batch::new()));
        let before = dumped(&copy);
        let ran = strandlog(&import);
        assert!(dumped(&copy) == before, "replica {replica}: {ran:?}");
        assert_eq!(ran.code, 1, "{ran:?}");
        let told = format!("replica {replica} differs from what was given");
        assert!(ran.out.contains(&told) && ran.out.contains("nothing of it was written"), "{ran:?}");
        let json = strandlog(&[&import[..], &["--json"]].concat()).json();
        assert_eq!((&json["verified"], &json["different"]), (&false.into(), &serde_json::json!([replica])));
    }
}

/// A later report than the log's own would let truncations overtake its state machine.
#[test]
fn a_report_that_is_there_already_is_not_taken_forward() {
    let (dir, path) = filled();
    change(&path, Batch::new().durable_applied(2, 7));
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let wal = Wal::options().capacity(4 << 20).open(&copy).unwrap();
    wal.commit(Batch::new().install_snapshot(2, 0, 0).durable_applied(2, 3)).unwrap();
    wal.close().unwrap();
    drop(wal);
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
    assert!(ran.code == 1 && ran.out.contains("replica 2 differs"), "{ran:?}");
    let wal = Wal::options().open(&copy).unwrap();
    assert_eq!((wal.replica(2).durable_applied().unwrap(), wal.replica(2).last_index()), (Some(3), 0));
}

/// What an interrupted import wrote of a replica is equal to what is given again.
#[test]
fn an_import_that_was_cut_among_the_keys_of_a_replica_goes_on() {
    let (dir, path) = place();
    let wal = Wal::options().capacity(16 << 20).open(&path).unwrap();
    let mut batch = Batch::new();
    // Each key fills a batch of an import.
    for key in 0..4 {
        batch.put(1, &[key], &[key; 126 << 10]);
    }
    wal.commit(batch.append(1, &[(1, 1, payload(1, 1))])).unwrap();
    wal.close().unwrap();
    drop(wal);
    let (half, copy, left) = (dir.path().join("half"), dir.path().join("copy"), dir.path().join("copy.importing"));
    let lines = strandlog(&["export", str(&path)]).out;
    // The line of the log, the line of the replica, and this many keys.
    for given in 1..=4 {
        let head: Vec<&str> = lines.split_inclusive('\n').take(2 + given).collect();
        std::fs::write(&half, head.concat()).unwrap();
        let ran = strandlog(&["import", "--from", "jsonl", str(&half), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains("the end is missing; what was imported stays"), "{ran:?}");
        assert!(!copy.exists(), "half of it is no log");
        let keys = Wal::options().create(false).open(&left).unwrap().replica(1).keys().len();
        assert!(keys > 0, "something of it was written");
    }
    std::fs::write(&half, &lines).unwrap();
    let ran = strandlog(&["import", "--from", "jsonl", str(&half), str(&copy)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(dumped(&copy), dumped(&path));
}

#[test]
fn what_is_no_log_is_named() {
    let (dir, path) = filled();
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    std::fs::write(&copy, [7; 1 << 20]).unwrap();
    let ran = strandlog(&["import", "--from", "jsonl", str(&lines), str(&copy)]);
    assert!(ran.code == 2 && ran.err.contains(str(&copy)) && ran.err.contains("no strandlog file"), "{ran:?}");
}

/// An import does not say that something stays when nothing was written.
#[test]
fn an_import_that_was_cut_before_anything_was_written_says_so() {
    let (dir, path) = filled();
    let lines = strandlog(&["export", str(&path)]).out;
    let (half, copy) = (dir.path().join("half"), dir.path().join("copy"));
    let head: Vec<&str> = lines.split_inclusive('\n').take(3).collect();
    std::fs::write(&half, head.concat()).unwrap();
    let ran = strandlog(&["import", "--from", "jsonl", str(&half), str(&copy)]);
    assert!(ran.code == 2 && ran.err.contains("the end is missing; nothing was written"), "{ran:?}");
    assert!(!ran.err.contains("stays"), "{ran:?}");
    assert!(Wal::options().open(&copy).unwrap().replicas().is_empty());
}

/// If the system refuses to map a log, the error says how to do without.
#[test]
fn a_log_that_cannot_be_mapped_says_what_to_do() {
    let (dir, path) = filled();
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    std::fs::copy(&path, &copy).unwrap();
    // The bytes behind the log are a hole, but are mapped with it.
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(1 << 40).unwrap();
    let tool = env!("CARGO_BIN_EXE_strandlog");
    let limited = "ulimit -v 67108864; exec \"$0\" \"$@\"";
    let import = ["-c", limited, tool, "import", "--from", "jsonl", str(&lines), str(&copy)];
    let ran = Command::new("sh").args(import).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    for part in ["mapping", str(&copy), "Cannot allocate memory", "ReadMode::Copied"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(ran.status.code(), Some(2), "{said}");
}

/// After `cat one two`, or with an added line, what is not read would be lost silently.
#[test]
fn what_stands_behind_the_end_of_an_export_is_refused() {
    let (dir, path) = filled();
    let lines = strandlog(&["export", str(&path)]).out;
    let both = dir.path().join("both");
    for (what, behind) in
        [("another export", lines.as_str()), ("text", "something\n"), ("half a line", "x"), ("a blank", "\n")]
    {
        std::fs::write(&both, format!("{lines}{behind}")).unwrap();
        let ran = strandlog(&["import", "--from", "jsonl", str(&both), str(&dir.path().join(what))]);
        assert!(ran.code == 2 && ran.err.contains("behind the end"), "{what}: {ran:?}");
    }
}

/// During the import, somebody puts another log in the place of the new one.
#[test]
fn an_import_that_failed_removes_no_log_but_its_own() {
    let (dir, path) = filled();
    let lines = strandlog(&["export", str(&path)]).out;
    let (begin, copy) = (lines.split_inclusive('\n').next().unwrap(), dir.path().join("copy"));
    let ours = dir.path().join("copy.importing");
    let mut import = Command::new(env!("CARGO_BIN_EXE_strandlog"))
        .args(["import", "--from", "jsonl", "-", str(&copy)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(begin.as_bytes()).unwrap();
    while !ours.exists() {
        std::thread::yield_now();
    }
    let before = std::fs::read(&path).unwrap();
    std::fs::rename(&path, &ours).unwrap();
    input.write_all(b"no line\n").unwrap();
    drop(input);
    let ran = import.wait_with_output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.code() == Some(2) && said.contains("nothing was written"), "{said}");
    assert!(std::fs::read(&ours).unwrap() == before, "it is as it was");
    assert!(!copy.exists());
}

/// A log keeps its size, so a left-over one would not get the --capacity of the next import.
#[test]
fn an_import_that_wrote_nothing_leaves_nothing() {
    let (dir, path) = filled();
    let lines = strandlog(&["export", str(&path)]).out;
    let (wrong, copy) = (dir.path().join("wrong"), dir.path().join("copy"));
    let upto = |n: usize| lines.lines().take(n).map(|line| format!("{line}\n")).collect::<String>();
    // The bad line is the first item, or comes after items that are not written yet.
    for good in [1, 4] {
        std::fs::write(&wrong, upto(good) + "no line\n").unwrap();
        let ran = strandlog(&["import", "--from", "jsonl", str(&wrong), str(&copy)]);
        assert!(ran.code == 2 && ran.err.contains("nothing was written"), "{good}: {ran:?}");
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{good}: beside the log and the lines: {left:?}");
    }
    // A log that was there before stays.
    assert_eq!(strandlog(&["create", str(&copy), "--capacity", "16M"]).code, 0);
    let ran = strandlog(&["import", "--from", "jsonl", str(&wrong), str(&copy)]);
    assert!(ran.code == 2 && ran.err.contains("nothing was written"), "{ran:?}");
    assert_eq!(copy.metadata().unwrap().len(), 16 << 20);
    // It keeps its size, which is said if another was asked for.
    std::fs::write(&wrong, &lines).unwrap();
    let ran = strandlog(&["import", "--from", "jsonl", str(&wrong), str(&copy), "--capacity", "32M"]);
    assert!(ran.code == 0 && ran.err.contains("--capacity") && ran.err.contains("16 MiB"), "{ran:?}");
    let ran = strandlog(&["import", "--from", "jsonl", str(&wrong), str(&copy), "--capacity", "16M"]);
    assert!(ran.code == 0 && ran.err.is_empty(), "{ran:?}");
}

/// A copy needs more room until its entries are moved to where they take least, so one of a full log does not fit a log of the same size.
#[test]
fn what_a_full_log_held_fits_the_log_that_an_import_makes() {
    let (dir, path) = place();
    let wal = Wal::options().capacity(64 << 20).open(&path).unwrap();
    // Many entries, each of which fills a little more than half of the room it is given.
    let mut refused = 0;
    for turn in 0_u64.. {
        let id = 1 + turn % 64;
        let next = wal.replica(id).last_index() + 1;
        let entries: Vec<_> = (next..next + 4).map(|i| (i, 1, vec![i as u8; 3000])).collect();
        match wal.commit(Batch::new().append(id, &entries)) {
            Ok(_) => refused = 0,
            Err(strandlog::Error::Full(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if refused == 64 {
            break;
        }
    }
    let entries: u64 = (1..=64).map(|id| wal.replica(id).last_index()).sum();
    wal.close().unwrap();
    drop(wal);
    let (lines, copy) = (dir.path().join("lines"), dir.path().join("copy"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let import = |to: &str, more: &[&str]| {
        let all = ["import", "--from", "jsonl", str(&lines), to];
        strandlog(&[&all[..], more].concat())
    };
    let ran = import(str(&dir.path().join("like")), &["--capacity", "64M"]);
    assert!(ran.code == 2 && ran.err.contains("is full") && ran.err.contains("--capacity"), "{ran:?}");
    let ran = import(str(&copy), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let wal = Wal::options().read_only(true).open(&copy).unwrap();
    assert_eq!((1..=64).map(|id| wal.replica(id).last_index()).sum::<u64>(), entries);
}

/// The device cannot read a sector: the export fails there and leaves nothing, or with --skip-unreadable goes on and says what is left out. If `strace` is
/// missing or may not trace, the test passes.
#[test]
fn what_cannot_be_read_ends_an_export_or_is_skipped() {
    let (dir, path) = filled();
    let (whole, lines) = (dir.path().join("whole"), dir.path().join("lines"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&whole)]).code, 0);
    let whole = std::fs::read_to_string(whole).unwrap();
    let traced = |options: &[&str], more: &[&str]| {
        let _ = std::fs::remove_file(&lines);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P", str(&path)]).args(options);
        strace.args([env!("CARGO_BIN_EXE_strandlog"), "export", str(&path), "--out", str(&lines)]).args(more).output()
    };
    if !traced(&["-e", "trace=none"], &[]).is_ok_and(|ran| ran.status.success()) {
        println!("skipped: no strace, or it may not trace here");
        return;
    }
    let mut skipped = 0;
    for nth in 1..=40 {
        // Three reads in a row fail: of many entries, of those from the bad one on, and of that one alone.
        let inject = format!("inject=pread64:error=EIO:when={nth}..{}", nth + 2);
        let options = ["-e", "trace=pread64", "-e", &inject];
        let ended = traced(&options, &[]).expect("it starts");
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        if !err.contains("--skip-unreadable") {
            continue;
        }
        assert!(ended.status.code() == Some(2) && !lines.exists(), "{nth}: {err}");
        let ran = traced(&options, &["--skip-unreadable"]).expect("it starts");
        let told = String::from_utf8_lossy(&ran.stdout).into_owned();
        let got = std::fs::read_to_string(&lines).unwrap();
        let lost: Vec<&str> = got.lines().filter(|line| line.contains(r#""lost":"#)).collect();
        let left_out = whole.lines().filter(|line| !got.contains(*line) && !line.contains(r#""end":true"#)).count();
        assert_eq!((ran.status.code(), lost.len(), left_out), (Some(1), 1, 1), "{nth}: {got}");
        assert!(told.contains("IN PART") && told.contains("1 thing could not be read, 1 of them"), "{nth}: {told}");
        skipped += 1;
    }
    assert!(skipped > 0, "no reading of an entry among them");
}

/// A store that opened half an import would lack replicas, which would then vote as if they never had. So the log gets its name when it is whole.
#[test]
fn half_of_an_import_is_not_taken_for_a_log() {
    let (dir, path) = rich();
    let lines = strandlog(&["export", str(&path)]).out;
    let file = |name: &str| dir.path().join(name);
    let (half, copy, left) = (file("half"), file("copy"), file("copy.importing"));
    let cut = lines.find(r#"{"replica":139"#).unwrap();
    std::fs::write(&half, &lines[..cut]).unwrap();
    let import = ["import", "--from", "jsonl", str(&half), str(&copy)];
    let ran = strandlog(&import);
    assert!(ran.code == 2 && ran.err.contains(str(&left)), "{ran:?}");
    assert!(!copy.exists() && Wal::options().create(false).open(&left).unwrap().replicas().len() > 3);
    // Then an import of something else.
    let (_other_dir, other) = filled();
    let other = strandlog(&["export", str(&other)]).out;
    std::fs::write(&half, other).unwrap();
    let ran = strandlog(&import);
    assert!(ran.code != 0 && !copy.exists(), "{ran:?}");
    let begins_so: String = lines.split_inclusive('\n').take_while(|line| !line.contains(r#""replica":1,"#)).collect();
    std::fs::write(&half, begins_so + r#"{"end":true,"replicas":0,"entries":0,"keys":0}"#).unwrap();
    let ran = strandlog(&import);
    assert!(ran.code == 2 && ran.err.contains("was not given") && !copy.exists(), "{ran:?}");
    // Then all of the first one.
    std::fs::write(&half, &lines).unwrap();
    let ran = strandlog(&[&import[..], &["--json"]].concat());
    assert!(ran.code == 0 && ran.err.contains("going on there"), "{ran:?}");
    assert!(ran.json()["entries_there_already"].as_u64() > Some(0) && ran.json()["imported"] == str(&copy), "{ran:?}");
    assert_eq!(dumped(&copy), dumped(&path));
    assert!(!left.exists());
}

/// `ulimit -f`: by default the system kills a process that writes beyond it.
#[test]
fn an_export_that_is_larger_than_files_may_be_fails_and_leaves_nothing() {
    let (dir, path) = filled();
    let lines = dir.path().join("lines");
    let tool =
        ["-c", "ulimit -c 0; ulimit -f 4; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_strandlog"), "export", str(&path)];
    let ran = Command::new("sh").args(tool).args(["--out", str(&lines)]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(2) && said.contains("File too large"), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something is left behind");
}
