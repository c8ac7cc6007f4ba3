//! `strandlog info`

mod support;

use std::time::Duration;

use strandlog::format::frame::{FrameHeader, LAST_SESSION};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::format::{BLOCK_BYTES, POOL_OFFSET};
use strandlog::{Batch, Error, Wal};
use support::{filled, find, place, rot, str, strandlog};

#[test]
fn info_shows_the_log_and_a_map_of_its_space() {
    let (_dir, path) = filled();
    let ran = strandlog(&["info", str(&path)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in ["replicas    3, 25 entries", "# journal", "= chains", ". free", "none known", "     replica"] {
        assert!(ran.out.contains(part), "{part}:\n{}", ran.out);
    }
}

#[test]
fn info_accounts_for_every_chunk() {
    let (_dir, path) = filled();
    let json = strandlog(&["info", str(&path), "--json", "--top", "1"]).json();
    assert_eq!((&json["replicas"], &json["entries"]), (&3.into(), &25.into()));
    assert_eq!(json["largest"].as_array().unwrap().len(), 1);
    assert_eq!(json["largest"][0]["replica"], 2);
    let of = |kind: &str| -> u64 {
        let runs = json["space"].as_array().unwrap().iter().filter(|r| r[0] == kind);
        runs.map(|r| r[1].as_u64().unwrap()).sum()
    };
    assert_eq!(of("chain"), json["chunks"]["used"]);
    // The snapshot that the close wrote lies in chunks that are free again once the log is opened.
    assert_eq!(of("free") + of("snapshot"), json["chunks"]["free"]);
    let journal = json["journal"]["segments"].as_u64().unwrap() * json["segment_size"].as_u64().unwrap();
    assert_eq!((of("journal") + of("journalfree")) * 4096, journal);
}

#[test]
fn known_damage_is_shown() {
    let (_dir, path) = filled();
    // This value is in the frame's table, behind the payloads.
    rot(&path, find(&path, b"one hundred"));
    let ran = strandlog(&["info", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("frames lost"), "{}", ran.out);
    assert_eq!(strandlog(&["info", str(&path), "--json"]).code, 1);
}

#[test]
fn a_log_in_use_is_not_opened() {
    let (_dir, path) = filled();
    let _wal = strandlog::Wal::options().open(&path).unwrap();
    for command in ["info", "dump", "verify"] {
        let ran = strandlog(&[command, str(&path)]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("is open in another process") && ran.err.contains("test.log"), "{ran:?}");
        let ran = strandlog(&[command, str(&path), "--json"]);
        assert!(ran.json()["error"].is_string(), "{ran:?}");
    }
}

#[test]
fn what_is_no_log_is_called_so() {
    let (dir, path) = place();
    for bytes in [vec![], b"hello".to_vec(), vec![0; 1 << 20], vec![7; 1 << 20]] {
        std::fs::write(&path, &bytes).unwrap();
        let ran = strandlog(&["info", str(&path)]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("no strandlog file"), "{ran:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it was changed");
    }
    let ran = strandlog(&["info", str(&dir.path().join("missing"))]);
    assert!(ran.code == 2 && ran.err.contains("missing"), "{ran:?}");
    let ran = strandlog(&["info", str(dir.path())]);
    assert!(ran.code == 2 && ran.err.contains("is a directory"), "{ran:?}");
}

/// For a log in use, other commands name the one that shows it, and that one works.
#[test]
fn a_log_in_use_is_left_to_top() {
    let (_dir, path) = filled();
    let wal = Wal::options().open(&path).unwrap();
    let _publisher = wal.publish_stats(path.with_extension("log.stats"), Duration::from_millis(20)).unwrap();
    for command in ["info", "map", "dump", "verify", "export"] {
        let ran = strandlog(&[command, str(&path)]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(&format!("strandlog top {}", path.display())), "{ran:?}");
    }
    let ran = strandlog(&["top", str(&path), "--json", "--count", "1"]);
    assert_eq!((ran.code, ran.lines().len()), (0, 1), "{ran:?}");
}

/// The log keeps keys of its own beside the callers', which are not counted.
#[test]
fn keys_are_counted_as_an_export_counts_them() {
    let (dir, path) = filled();
    let wal = Wal::options().open(&path).unwrap();
    wal.commit(Batch::new().durable_applied(1, 2).durable_applied(2, 7)).unwrap();
    wal.close().unwrap();
    drop(wal);
    let largest = strandlog(&["info", str(&path), "--json"]).json()["largest"].clone();
    let counted: u64 = largest.as_array().unwrap().iter().map(|r| r["keys"].as_u64().unwrap()).sum();
    let exported = strandlog(&["export", str(&path), "--out", str(&dir.path().join("lines")), "--json"]).json();
    assert_eq!((counted, &exported["keys"]), (2, &2.into()), "{largest}");
}

/// Makes the log as old as if its last possible session had written it.
fn grow_old(path: &std::path::Path) {
    let mut image = std::fs::read(path).unwrap();
    let superblock = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).unwrap();
    let (seed, segment) = (superblock.seed(), u64::from(superblock.segment_bytes));
    let found = (POOL_OFFSET as usize..image.len()).step_by(BLOCK_BYTES as usize).filter_map(|at| {
        let within = (at as u64 - POOL_OFFSET) % segment;
        FrameHeader::decode(seed, within, segment, &image[at..]).map(|header| (at, header))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(_, header)| header.lsn);
    let mut prev: Option<FrameHeader> = None;
    for (at, mut header) in found {
        header.session = LAST_SESSION;
        if let Some(prev) = prev {
            (header.prev_hash, header.prev_prev_hash) = (prev.hash(seed), prev.prev_hash);
        }
        header.encode(seed, &mut image[at..]);
        prev = Some(header);
    }
    std::fs::write(path, image).unwrap();
}

/// The store learns it from its first batch; `info` must show why.
#[test]
fn a_log_whose_numbers_are_used_up_is_shown_as_such() {
    let (_dir, path) = filled();
    assert!(!strandlog(&["info", str(&path)]).out.contains("USED UP"));
    assert_eq!(strandlog(&["info", str(&path), "--json"]).json()["used_up"], false);
    grow_old(&path);
    let before = std::fs::read(&path).unwrap();
    let wal = Wal::options().create(false).open(&path).unwrap();
    assert!(matches!(wal.commit(Batch::new().put(1, b"vote", b"1")), Err(Error::UsedUp { .. })));
    drop(wal);
    let ran = strandlog(&["info", str(&path)]);
    assert!(ran.code == 0 && ran.out.contains("USED UP") && ran.out.contains("`strandlog salvage`"), "{ran:?}");
    assert_eq!(strandlog(&["info", str(&path), "--json"]).json()["used_up"], true);
    assert!(std::fs::read(&path).unwrap() == before, "nothing was written");
}
