//! The final names of whole files: they outlive a power cut, and need only one of two ways to give them in the file system. If `strace` is missing or
//! may not trace, these tests pass.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Ran, filled, str, strandlog};

/// Runs the tool under `strace`; returns the run, and its system calls with the paths of their files.
fn traced(trace: &Path, options: &[&str], args: &[&str]) -> Option<(Ran, String)> {
    let _ = std::fs::remove_file(trace);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-o", str(trace), "-e", "trace=renameat2,linkat,fsync"]).args(options);
    let output = strace.arg(env!("CARGO_BIN_EXE_strandlog")).args(args).output().ok()?;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let ran = Ran { code: output.status.code()?, out: text(output.stdout), err: text(output.stderr) };
    let calls = std::fs::read_to_string(trace).unwrap_or_default();
    if calls.is_empty() {
        println!("skipped: strace may not trace here");
        return None;
    }
    Some((ran, calls))
}

/// The commands that make a new file out of an existing log.
fn copies(path: &Path, lines: &Path, to: &Path) -> [Vec<String>; 4] {
    let (path, lines, to) = (str(path), str(lines), str(to));
    let import = vec!["import", "--from", "jsonl", lines, to];
    [vec!["salvage", path, to], vec!["export", path, "--out", to], vec!["map", path, "--svg", to], import]
        .map(|args| args.into_iter().map(str::to_owned).collect())
}

/// Once told that there is a copy, the user may remove the old log.
#[test]
fn a_name_that_was_given_outlives_a_power_cut_or_that_is_said() {
    let (dir, path) = filled();
    let (lines, to, trace) = (dir.path().join("lines"), dir.path().join("to"), dir.path().join("trace"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let of_dir = format!("<{}>", str(&dir.path().canonicalize().unwrap()));
    for args in copies(&path, &lines, &to) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some((ran, calls)) = traced(&trace, &[], &args) else { return };
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        let calls: Vec<&str> = calls.lines().collect();
        let syncs = |call: &str| call.contains("fsync(") && call.contains(&of_dir);
        let named = |call: &str| !call.contains("fsync(") && call.contains("to\"");
        let at = calls.iter().rposition(|call| named(call)).unwrap_or_else(|| panic!("{args:?}: {calls:?}"));
        assert!(calls[at..].iter().any(|call| syncs(call)), "{args:?}: {calls:?}");
        std::fs::remove_file(&to).unwrap();
        // Now make that call fail. `strace` counts the calls of each thread separately.
        let same = |call: &str| call.split(' ').next() == calls[at].split(' ').next();
        let nth = 1 + calls[..at].iter().filter(|call| same(call) && call.contains("fsync(")).count();
        let inject = format!("inject=fsync:error=EIO:when={nth}");
        let Some((ran, _)) = traced(&trace, &["-e", &inject], &args) else { return };
        assert!(ran.code == 2 && ran.err.contains("power cut") && to.exists(), "{args:?}: {ran:?}");
        std::fs::remove_file(&to).unwrap();
    }
}

/// Some file systems (FAT) have no hard links; some (on a network) have no rename that replaces nothing.
#[test]
fn either_way_to_give_a_name_will_do_and_without_any_the_copy_is_kept() {
    let (dir, path) = filled();
    let (lines, to, trace) = (dir.path().join("lines"), dir.path().join("to"), dir.path().join("trace"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let (no_links, no_renames) = ("inject=linkat:error=EPERM", "inject=renameat2:error=EINVAL");
    for args in copies(&path, &lines, &to) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for lacks in [no_links, no_renames] {
            let Some((ran, _)) = traced(&trace, &["-e", lacks], &args) else { return };
            assert!(ran.code == 0 && to.exists(), "{args:?}, {lacks}: {ran:?}");
            std::fs::remove_file(&to).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "{args:?}, {lacks}: something is left");
        }
    }
    let export = ["export", str(&path), "--out", str(&to)];
    let Some((ran, _)) = traced(&trace, &["-e", no_links, "-e", no_renames], &export) else { return };
    assert!(ran.code == 2 && ran.err.contains("stays under the name") && !to.exists(), "{ran:?}");
    let kept = std::fs::read(dir.path().join("to.exporting")).unwrap();
    assert_eq!(kept, std::fs::read(&lines).unwrap(), "hours of work");
}
