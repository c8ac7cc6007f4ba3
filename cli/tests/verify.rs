//! `strandlog verify`

mod support;

use support::{filled, find, payload, refused, rot, str, strandlog};

#[test]
fn a_sound_log_is_called_sound_and_not_touched() {
    let (_dir, path) = filled();
    let before = std::fs::read(&path).unwrap();
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("sound"), "{ran:?}");
    let json = strandlog(&["verify", str(&path), "--json"]).json();
    assert_eq!((&json["ok"], &json["entries"]), (&true.into(), &25.into()));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// A byte is flipped in an entry in the journal, and in one in a chain: each is named.
#[test]
fn a_flipped_byte_is_found_and_named() {
    for (replica, index) in [(1, 4), (2, 13)] {
        let (_dir, path) = filled();
        rot(&path, find(&path, &payload(replica, index)));
        let ran = strandlog(&["verify", str(&path)]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.starts_with("DAMAGED"), "{ran:?}");
        assert!(ran.out.contains(&format!("replica {replica}: entries {index}..={index} are damaged")), "{ran:?}");
        let json = strandlog(&["verify", str(&path), "--json"]).json();
        assert_eq!(json["damage"], serde_json::json!([{ "replica": replica, "entries": [index, index] }]));
    }
}

#[test]
fn lost_state_is_named() {
    let (_dir, path) = filled();
    rot(&path, find(&path, b"one hundred"));
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("must not vote"), "{ran:?}");
    let json = strandlog(&["verify", str(&path), "--json"]).json();
    assert_eq!((&json["lost_frames"], &json["rotten_frames"]), (&1.into(), &1.into()), "{json}");
}

/// Rot that costs no data is found and named, too.
#[test]
fn a_rotten_superblock_copy_and_a_rotten_piece_header_are_found() {
    let (_dir, path) = filled();
    rot(&path, 16 << 10);
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("superblock B is bad"), "{ran:?}");

    let (_dir, path) = filled();
    let header = find(&path, b"PIEC");
    rot(&path, header + 33);
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("the header of the piece"), "{ran:?}");
}

#[test]
fn both_superblocks_rotten_is_an_error_that_says_so() {
    let (_dir, path) = filled();
    rot(&path, 100);
    rot(&path, (16 << 10) + 100);
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("both superblocks are bad"), "{ran:?}");
}

/// For a log that does not open, `verify` says why, and what is left.
#[test]
fn what_a_log_that_does_not_open_still_holds_is_told() {
    let (_dir, path) = refused();
    let before = std::fs::read(&path).unwrap();
    let ran = strandlog(&["verify", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("DAMAGED"), "{ran:?}");
    for part in ["it does not open: ", "nobody can say", "salvage", "replicas may be missing", "frames of the journal"]
    {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.out.contains("a bug in strandlog"), "{ran:?}");
    let json = strandlog(&["verify", str(&path), "--json"]).json();
    assert_eq!((&json["ok"], &json["unnamed"]), (&false.into(), &true.into()), "{json}");
    assert!(json["refused"].as_str().unwrap().contains("nobody can say"), "{json}");
    // At least the second entry of replica 1, and the one of replica 5.
    assert!(json["entries"].as_u64().unwrap() >= 2, "{json}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "what is refused is not touched");
}

/// The device cannot read a block of the journal: `verify` says why the log does not open, and what is left. If `strace` is missing or may not trace,
/// the test passes.
#[test]
fn what_a_log_that_cannot_be_read_everywhere_still_holds_is_told() {
    let (_dir, path) = filled();
    let traced = |options: &[&str]| {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P", str(&path)]).args(options);
        strace.args([env!("CARGO_BIN_EXE_strandlog"), "verify", str(&path)]).output()
    };
    if !traced(&["-e", "trace=none"]).is_ok_and(|ran| ran.status.success()) {
        println!("skipped: no strace, or it may not trace here");
        return;
    }
    let mut refused = 0;
    for nth in 1..=12 {
        let inject = format!("inject=pread64:error=EIO:when={nth}");
        let ran = traced(&["-e", "trace=pread64", "-e", &inject]).expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let opening = format!("{out}{err}").contains("reading journal slab");
        if opening {
            refused += 1;
            assert_eq!(ran.status.code(), Some(1), "{nth}: {out}{err}");
            assert!(
                out.starts_with("DAMAGED") && out.contains("it does not open: reading journal slab"),
                "{nth}: {out}{err}"
            );
        }
    }
    assert!(refused > 0, "no reading of the journal among them");
}

/// A sparse copy is sound, but writes to it may fail: `verify` and `info` warn before it is used.
#[test]
fn a_copy_with_holes_is_told_by_who_looks_into_it() {
    let (dir, path) = filled();
    let (bytes, sparse) = (std::fs::read(&path).unwrap(), dir.path().join("sparse.log"));
    let file = std::fs::File::create(&sparse).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (at, block) in (0..).step_by(4096).zip(bytes.chunks(4096)) {
        if block.iter().any(|&byte| byte != 0) {
            std::os::unix::fs::FileExt::write_all_at(&file, block, at).unwrap();
        }
    }
    file.sync_all().unwrap();
    if std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512 > 3 << 20 {
        return; // No holes on this file system.
    }
    for command in ["verify", "info"] {
        let ran = strandlog(&[command, str(&sparse)]);
        assert!(ran.code == 0 && ran.out.contains("cp --sparse=never"), "{command}: {ran:?}");
        let holes = |path| strandlog(&[command, str(path), "--json"]).json()["hole_bytes"].as_u64().unwrap();
        assert!(holes(&sparse) > 3 << 20, "{command}: {}", holes(&sparse));
        assert_eq!(holes(&path), 0, "{command}");
    }
}

/// The tool reads the journal, but an opening for writing reads a close's snapshot: a salvage would lose what only that knows, so the tool says so.
#[test]
fn a_closed_log_whose_snapshot_knows_what_the_journal_lost_is_not_sent_to_a_salvage_at_once() {
    let (dir, path) = filled();
    rot(&path, find(&path, b"one hundred"));
    let ran = strandlog(&["verify", str(&path)]);
    assert!(ran.code == 1 && ran.out.contains("open a copy of the file"), "{ran:?}");
    assert_eq!(strandlog(&["verify", "--json", str(&path)]).json()["snapshot"], true);
    let ran = strandlog(&["salvage", str(&path), str(&dir.path().join("saved"))]);
    assert!(ran.code == 1 && ran.out.contains("open a copy of the file"), "{ran:?}");
    // The advice is right: opening for writing finds everything.
    let wal = strandlog::Wal::options().open(&path).unwrap();
    assert_eq!(wal.replica(3).get(b"applied").unwrap().unwrap(), &b"one hundred"[..]);
    assert!(wal.damage().is_empty());
    drop(wal);
    let (_dir, path) = refused();
    let ran = strandlog(&["verify", str(&path)]);
    assert!(ran.code == 1 && !ran.out.contains("open a copy of the file"), "it was not closed: {ran:?}");
}
