//! What is read has the very name that a new file has until it is whole, or is the target itself; and commands that run at once.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{filled, str, strandlog};

/// Runs the command, which must be refused and change nothing. Returns why.
fn refused(dir: &Path, args: &[&str]) -> String {
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = files();
    let ran = strandlog(args);
    assert!(ran.code == 2 && files() == before, "{args:?}: {ran:?}");
    ran.err
}

/// "Remove it first" would be an order to remove the only log there is.
#[test]
fn what_is_read_is_never_called_a_leftover() {
    let (dir, path) = filled();
    let new = dir.path().join("new");
    for suffix in ["salvaging", "salvaging.creating"] {
        let source = dir.path().join(format!("new.{suffix}"));
        std::fs::rename(&path, &source).unwrap();
        let dots = dir.path().join("../").join(dir.path().file_name().unwrap()).join("new");
        for to in [&new, &dots] {
            let why = refused(dir.path(), &["salvage", str(&source), str(to)]);
            assert!(why.contains("is what is read") && !why.contains("remove"), "{why}");
        }
        // By another name it is the same file.
        std::os::unix::fs::symlink(&source, &path).unwrap();
        let why = refused(dir.path(), &["salvage", str(&path), str(&new)]);
        assert!(why.contains("is what is read") && !why.contains("remove"), "{why}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&source, &path).unwrap();
    }
    for (suffix, args) in [("exporting", ["export", "--out"]), ("writing", ["map", "--svg"])] {
        let source = dir.path().join(format!("new.{suffix}"));
        std::fs::rename(&path, &source).unwrap();
        let [command, option] = args;
        let why = refused(dir.path(), &[command, str(&source), option, str(&new)]);
        assert!(why.contains("is a strandlog file") && !why.contains("remove"), "{why}");
        std::fs::rename(&source, &path).unwrap();
    }
}

#[test]
fn an_export_is_not_imported_into_itself_nor_into_a_log_that_has_its_name_meanwhile() {
    let (dir, path) = filled();
    let lines = dir.path().join("new.importing");
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let import = |to: &Path| refused(dir.path(), &["import", "--from", "jsonl", str(&lines), str(to)]);
    let why = import(&dir.path().join("new"));
    assert!(why.contains("is what is read") && why.contains("another name"), "{why}");
    let why = import(&lines);
    assert!(why.contains("are the same file"), "{why}");
}

#[test]
fn two_outputs_of_one_name_and_a_directory_in_the_place_of_a_file_are_refused() {
    let (dir, path) = filled();
    let (out, inner) = (dir.path().join("out"), tempfile::tempdir().unwrap());
    let why = refused(dir.path(), &["map", str(&path), "--svg", str(&out), "--png", str(&out), "--force"]);
    assert!(why.contains("the same file"), "{why}");
    for force in [&["--force"][..], &[]] {
        let why = refused(dir.path(), &[&["map", str(&path), "--svg", str(inner.path())], force].concat());
        assert!(why.contains("is a directory") && !why.contains("--force"), "{why}");
    }
    let why = refused(dir.path(), &["man", "--dir", str(&path)]);
    assert!(why.contains("is no directory"), "{why}");
}

/// Whoever is first, nothing is lost or half named, and whoever cannot go on says so.
#[test]
fn imports_at_once_into_one_name_leave_one_whole_log() {
    let (dir, path) = filled();
    let (lines, other_lines) = (dir.path().join("lines"), dir.path().join("other lines"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let other = dir.path().join("other");
    let wal = strandlog::Wal::options().capacity(4 << 20).open(&other).unwrap();
    wal.commit(strandlog::Batch::new().append(1, &[(1, 8, b"of another log")])).unwrap();
    wal.close().unwrap();
    drop(wal);
    assert_eq!(strandlog(&["export", str(&other), "--out", str(&other_lines)]).code, 0);
    let dump = |path: &Path| strandlog(&["dump", str(path), "--hex", "--json"]).out;
    for mixed in [false, true] {
        for round in 0..6 {
            let to = dir.path().join(format!("to {mixed} {round}"));
            let of = |n: usize| if mixed && n % 2 == 1 { &other_lines } else { &lines };
            let import = |n: usize| -> Child {
                let mut import = Command::new(env!("CARGO_BIN_EXE_strandlog"));
                import.args(["import", "--from", "jsonl", str(of(n)), str(&to)]);
                import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let ran: Vec<_> =
                (0..5).map(import).collect::<Vec<_>>().into_iter().map(|c| c.wait_with_output()).collect();
            for ran in ran.into_iter().map(Result::unwrap) {
                let err = String::from_utf8(ran.stderr).unwrap();
                // What differs was found to differ (1), or could not be written at all (2).
                let told = match ran.status.code() {
                    Some(0) => true,
                    Some(1) => mixed,
                    Some(2) => err.contains("run this one again") || mixed,
                    _ => false,
                };
                assert!(told, "{:?}: {err}", ran.status);
            }
            let unfinished = dir.path().join(format!("to {mixed} {round}.importing"));
            if !mixed {
                assert_eq!(strandlog(&["import", "--from", "jsonl", str(&lines), str(&to)]).code, 0);
                assert!(!unfinished.exists());
            }
            if to.exists() {
                let held = dump(&to);
                assert!(held == dump(&path) || mixed && held == dump(&other), "{held}");
            }
        }
    }
}
