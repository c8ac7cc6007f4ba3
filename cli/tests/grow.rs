//! `strandlog grow`

mod support;

use strandlog::{Batch, Wal};
use support::{filled, payload, place, str, strandlog};

#[test]
fn a_grown_log_holds_what_it_held_and_takes_more() {
    let (_dir, path) = filled();
    let ran = strandlog(&["grow", str(&path), "--capacity", "12M", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((&ran.json()["from"], &ran.json()["to"]), (&(4 << 20).into(), &(12 << 20).into()));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 12 << 20);
    assert_eq!(strandlog(&["verify", str(&path)]).code, 0);
    let wal = Wal::options().open(&path).unwrap();
    assert_eq!(wal.replica(2).entry(20).unwrap().data, payload(2, 20));
    // More than the log had room for before.
    for index in 1..=600 {
        wal.commit(Batch::new().append(9, &[(index, 1, vec![9; 10_000])])).unwrap();
    }
}

#[test]
fn a_log_in_use_and_one_that_is_larger_already_stay_as_they_are() {
    let (_dir, path) = filled();
    let ran = strandlog(&["grow", str(&path), "--capacity", "1M"]);
    assert!(ran.code == 2 && ran.err.contains("capacity"), "{ran:?}");
    assert!(ran.err.contains("the log has 4194304 bytes now"), "{ran:?}");
    let wal = Wal::options().open(&path).unwrap();
    let ran = strandlog(&["grow", str(&path), "--capacity", "12M"]);
    assert!(ran.code == 2 && ran.err.contains("is open"), "{ran:?}");
    wal.close().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20);
}

#[test]
fn what_is_no_log_is_named() {
    let (_dir, path) = place();
    for bytes in [vec![7; 1 << 20], b"hello".to_vec()] {
        std::fs::write(&path, &bytes).unwrap();
        let ran = strandlog(&["grow", str(&path), "--capacity", "12M"]);
        assert!(ran.code == 2 && ran.err.contains(str(&path)) && ran.err.contains("no strandlog file"), "{ran:?}");
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}

#[test]
fn a_growth_that_was_interrupted_is_told_and_the_next_one_says_the_true_sizes() {
    let (_dir, path) = filled();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(64 << 20).unwrap();
    let json = strandlog(&["info", str(&path), "--json"]).json();
    let used = json["capacity"].as_u64().unwrap();
    assert!(used <= 4 << 20 && used > 3 << 20, "{json}");
    assert_eq!(json["file_bytes"], 64 << 20);
    assert_eq!(strandlog(&["map", str(&path), "--json"]).json()["capacity"], used);
    let ran = strandlog(&["info", str(&path)]);
    assert!(ran.out.contains("64 MiB, of which ") && ran.out.contains("growing was interrupted"), "{}", ran.out);
    let ran = strandlog(&["grow", str(&path), "--capacity", "12M"]);
    assert!(ran.out.contains(" to 12 MiB") && ran.out.contains("the file had 64 MiB"), "{ran:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 12 << 20);
    assert_eq!(strandlog(&["verify", str(&path)]).code, 0);
}
