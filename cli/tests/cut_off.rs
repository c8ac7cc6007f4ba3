//! Readers of the output that go away (`strandlog ... | head`), and full devices.

mod support;

use std::path::Path;
use std::process::Command;

use support::{filled, find, payload, rot, str, strandlog, strandlog_cut_off, strandlog_full};

/// As a shell reports a process ended by SIGPIPE.
const CUT_OFF: i32 = 141;

/// Every command on a sound log, except the measurements, which take too long.
fn commands(dir: &Path, log: &str) -> Vec<Vec<String>> {
    let path = |name: &str| dir.join(name).display().to_string();
    let lines = path("lines");
    if !Path::new(&lines).exists() {
        assert_eq!(strandlog(&["export", log, "--out", &lines]).code, 0);
    }
    let name = (0..).map(|n| path(&format!("new{n}"))).find(|name| !Path::new(name).exists()).unwrap();
    let created = format!("{name}.created");
    let commands: [&[&str]; 14] = [
        &["info", log],
        &["dump", log],
        &["dump", log, "--replica", "2", "--hex"],
        &["map", log],
        &["verify", log],
        &["create", &created, "--capacity", "4M"],
        &["grow", &created, "--capacity", "8M"],
        &["salvage", log, &name],
        &["import", "--from", "jsonl", &lines, &name],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["dump", "--help"],
        &["--version"],
    ];
    commands.iter().map(|args| args.iter().map(|arg| (*arg).to_owned()).collect()).collect()
}

/// A script takes what it has read for the whole output, unless the exit code says otherwise.
#[test]
fn an_output_that_was_cut_off_is_told_from_a_whole_one() {
    let (dir, path) = filled();
    for json in [false, true] {
        for args in commands(dir.path(), str(&path)) {
            let json = ["--json"].into_iter().filter(|_| json);
            let args: Vec<&str> = args.iter().map(String::as_str).chain(json).collect();
            let ran = strandlog_cut_off(&args);
            assert_eq!((ran.code, &*ran.err), (CUT_OFF, ""), "{args:?}");
        }
    }
}

#[test]
fn an_output_that_does_not_fit_its_device_is_a_failure() {
    let (dir, path) = filled();
    for json in [false, true] {
        let export = ["export", str(&path)].map(str::to_owned).to_vec();
        for args in commands(dir.path(), str(&path)).into_iter().chain([export]) {
            let json = ["--json"].into_iter().filter(|_| json);
            let args: Vec<&str> = args.iter().map(String::as_str).chain(json).collect();
            let ran = strandlog_full(&args);
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
            assert!(ran.err.contains("writing the output: No space left"), "{args:?}: {ran:?}");
        }
    }
}

/// With --json the answer is JSON, whatever was wrong with the request.
#[test]
fn a_request_that_makes_no_sense_is_refused_in_json_where_that_was_asked_for() {
    let nonsense: [&[&str]; 5] = [
        &["--json"],
        &["dump", "--json"],
        &["--json", "info"],
        &["--json", "nothing"],
        &["create", "x", "--capacity", "much", "--json"],
    ];
    for args in nonsense {
        let ran = strandlog(args);
        assert_eq!((ran.code, &*ran.err), (2, ""), "{args:?}");
        let told = ran.json();
        assert!(told["error"].as_str().is_some_and(|why| !why.is_empty()), "{args:?}: {told}");
    }
    let ran = strandlog(&["info", "--", "--json"]);
    assert_eq!((ran.code, &*ran.out), (2, ""), "{ran:?}");
    assert!(ran.err.contains("--json: "), "{ran:?}");
}

/// A file's name has a suffix until the file is whole.
#[test]
fn a_name_that_is_too_long_for_that_is_refused_with_the_reason() {
    let (dir, path) = filled();
    let long = |bytes: usize| dir.path().join("x".repeat(bytes));
    let ran = strandlog(&["create", str(&long(246)), "--capacity", "4M"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for command in [&["create"][..], &["salvage", str(&path)], &["export", str(&path), "--out"]] {
        let name = long(247);
        let args: Vec<&str> = command.iter().copied().chain([str(&name)]).collect();
        let ran = strandlog(&args);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("too long") && ran.err.contains("until it is whole"), "{ran:?}");
        assert!(!name.exists(), "{args:?}");
    }
}

#[test]
fn an_export_that_was_cut_off_is_no_export() {
    let (dir, path) = filled();
    let ran = strandlog_cut_off(&["export", str(&path)]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("writing the output"), "{ran:?}");
    // The lines are whole, in a file, even if nobody reads the report.
    let lines = dir.path().join("lines");
    let ran = strandlog_cut_off(&["export", str(&path), "--out", str(&lines)]);
    assert_eq!(ran.code, CUT_OFF, "{ran:?}");
    assert!(std::fs::read_to_string(&lines).unwrap().lines().last().unwrap().starts_with(r#"{"end":true"#));
}

/// Nothing of it would arrive anywhere, and the exit code would say that all is well.
#[test]
fn an_output_that_cannot_be_written_to_is_refused() {
    let (dir, path) = filled();
    let other = dir.path().join("other");
    std::fs::write(&other, "precious").unwrap();
    for args in [&["export", str(&path)][..], &["info", str(&path), "--json"]] {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_strandlog"));
        let ran = tool.args(args).stdout(std::fs::File::open(&other).unwrap()).output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(2) && err.contains("for reading only"), "{args:?}: {:?}: {err}", ran.status);
    }
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
}

#[test]
fn what_was_found_counts_though_nobody_reads_it() {
    let (dir, path) = filled();
    rot(&path, find(&path, &payload(2, 1)));
    let saved = dir.path().join("saved");
    // More than the output's buffer holds, so it is cut off in the middle.
    let dump = ["dump", str(&path), "--replica", "2", "--hex"];
    for args in [&["verify", str(&path)][..], &["salvage", str(&path), str(&saved)], &dump] {
        let ran = strandlog_cut_off(args);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.err, "", "no failure of ours");
    }
}
