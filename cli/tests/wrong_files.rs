//! A file that is something else than was wanted, most often because the arguments stand in the wrong order: it is said what it is, and what to do.

mod support;

use std::path::Path;

use support::{Ran, filled, find, rot, str, strandlog};

fn import(source: &Path, into: &Path) -> Ran {
    let ran = strandlog(&["import", "--from", "jsonl", str(source), str(into)]);
    assert_eq!((ran.code, &*ran.out), (2, ""), "{ran:?}");
    ran
}

#[test]
fn a_log_in_the_place_of_lines_is_called_one() {
    let (dir, path) = filled();
    let (lines, new) = (dir.path().join("lines"), dir.path().join("new"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let turned = format!("`strandlog import --from jsonl {} {}`", lines.display(), path.display());
    let told = import(&path, &lines).err;
    assert!(told.contains("is no export of a log, but a strandlog file") && told.contains(&turned), "{told}");
    let told = import(&path, &new).err;
    assert!(
        told.contains("strandlog export") && told.contains("strandlog salvage") && !told.contains("JSON"),
        "{told}"
    );
    // One of the superblocks is enough to know it by.
    rot(&path, find(&path, &std::fs::read(&path).unwrap()[..8]));
    let told = import(&path, &new).err;
    assert!(told.contains("a strandlog file"), "{told}");
    assert!(!new.exists());
}

#[test]
fn what_is_neither_is_described() {
    let (dir, path) = filled();
    let (source, new) = (dir.path().join("source"), dir.path().join("new"));
    let cases: [(&[u8], &str); 7] = [
        (b"", "but empty"),
        (b"nonsense", "but not JSON"),
        (b"\0\0\0\0", "but not JSON"),
        (b"{\"replica\":1}\n", "but JSON, but no strandlog export"),
        (b"\x1f\x8b\x08", "`gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "`zstd -dc"),
        (b"{\"strandlog\":2}\n", "layout 2"),
    ];
    for (bytes, what) in cases {
        std::fs::write(&source, bytes).unwrap();
        let told = import(&source, &new).err;
        assert!(told.contains(what), "{what}: {told}");
    }
    let told = import(dir.path(), &new).err;
    assert!(told.contains("is a directory") && told.contains("--from raft-engine"), "{told}");
    assert!(!new.exists() && path.exists());
}

/// The other way round: an export where a log is wanted.
#[test]
fn an_export_in_the_place_of_a_log_is_called_one() {
    let (dir, path) = filled();
    let (lines, new) = (dir.path().join("lines"), dir.path().join("new"));
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    for args in [&["info", str(&lines)][..], &["verify", str(&lines)], &["salvage", str(&lines), str(&new)]] {
        let ran = strandlog(args);
        assert!(ran.code == 2 && ran.err.contains("is an export of a log") && ran.err.contains("import"), "{ran:?}");
    }
    let ran = strandlog(&["top", str(&path), "--stats", str(&path)]);
    assert!(ran.code == 2 && ran.err.contains("--stats") && ran.err.contains("not the log"), "{ran:?}");
}
