//! `strandlog salvage`

mod support;

use strandlog::{Batch, Error, Wal};
use support::{filled, find, payload, rot, str, strandlog};

#[test]
fn a_whole_log_is_copied_whole() {
    let (dir, path) = filled();
    let to = dir.path().join("saved");
    let before = std::fs::read(&path).unwrap();
    let ran = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("everything was saved: 3 replicas, 25 entries"), "{ran:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "the old one is not touched");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left behind");
    let wal = Wal::options().open(&to).unwrap();
    for (replica, n) in [(1, 5), (2, 20)] {
        for i in 1..=n {
            let entry = wal.replica(replica).entry(i).unwrap();
            assert_eq!((entry.term, &entry.data[..]), (1 + i / 5, &payload(replica, i)[..]));
        }
    }
    assert_eq!(wal.replica(1).get(b"vote").unwrap().unwrap(), &b"\x01\x02"[..]);
    assert_eq!((wal.replica(3).bounds(), wal.replica(3).term(100).unwrap()), ((101, 100), 7));
    assert_eq!(wal.replica(3).get(b"applied").unwrap().unwrap(), &b"one hundred"[..]);
}

#[test]
fn an_entry_that_rotted_is_named_and_stays_damage_in_the_new_log() {
    for (replica, index) in [(1, 4), (2, 13)] {
        let (dir, path) = filled();
        let to = dir.path().join("saved");
        rot(&path, find(&path, &payload(replica, index)));
        let ran = strandlog(&["salvage", str(&path), str(&to), "--json"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let json = ran.json();
        assert_eq!(json["damage"], serde_json::json!([{ "replica": replica, "entries": [index, index] }]));
        assert_eq!((&json["entries"], &json["unnamed"]), (&24.into(), &false.into()));
        let wal = Wal::options().open(&to).unwrap();
        for (id, n) in [(1, 5), (2, 20)] {
            for i in 1..=n {
                match wal.replica(id).entry(i) {
                    Err(Error::Damaged(d)) => assert_eq!((d.replica, id, i), (replica, replica, index)),
                    read => assert_eq!(read.unwrap().data, payload(id, i)),
                }
            }
        }
        assert_eq!(wal.damage().len(), 1);
    }
}

#[test]
fn lost_state_stays_lost_and_what_exists_is_never_overwritten() {
    let (dir, path) = filled();
    let to = dir.path().join("saved");
    // This value is in the table of the only frame with records.
    rot(&path, find(&path, b"one hundred"));
    let ran = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("NOT EVERYTHING"), "{ran:?}");
    let wal = Wal::options().open(&to).unwrap();
    for replica in 1..=3 {
        assert!(
            matches!(wal.replica(replica).get(b"vote"), Err(Error::Damaged(_))),
            "replica {replica} might vote twice"
        );
    }
    drop(wal);
    let again = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.err.contains("never overwrites"), "{again:?}");
}

#[test]
fn without_superblocks_nothing_can_be_proved() {
    let (dir, path) = filled();
    rot(&path, 100);
    rot(&path, (16 << 10) + 100);
    let to = dir.path().join("saved");
    let ran = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("both superblocks are bad") && !to.exists(), "{ran:?}");
}

#[test]
fn a_log_that_cannot_be_opened_says_what_to_do_and_is_saved_by_it() {
    let (dir, path) = support::refused();
    let before = std::fs::read(&path).unwrap();
    let ran = strandlog(&["info", str(&path)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.contains("REFUSED") && ran.out.contains("nobody can say") && ran.out.contains("salvage"),
        "{ran:?}"
    );
    assert!(Wal::options().open(&path).is_err(), "nor does the library open it");
    assert_eq!(std::fs::read(&path).unwrap(), before, "what is refused is not touched");
    let (to, other) = (dir.path().join("saved"), dir.path().join("told"));
    let ran = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("NOT EVERYTHING"), "{ran:?}");
    let json = strandlog(&["salvage", str(&path), str(&other), "--json"]).json();
    assert_eq!(json["unnamed"], true, "{json}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "the old one is not touched");
    let wal = Wal::options().open(&to).unwrap();
    assert_eq!(wal.replica(1).entry(2).unwrap().data, payload(1, 2));
    assert_eq!(wal.replica(5).entry(1).unwrap().data, payload(5, 1), "its life began behind the loss");
    assert!(wal.replica(3).entry(1).is_err() && wal.replica(4).entry(1).is_err(), "lost, and not made up");
    wal.commit(Batch::new().append(1, &[(3, 1, b"it goes on")])).unwrap();
}

#[test]
fn of_a_file_that_was_cut_both_sizes_are_told_and_what_is_left_is_saved() {
    let (dir, path) = filled();
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(len - (256 << 10)).unwrap();
    let saved = dir.path().join("saved.log");
    for command in [vec!["info", str(&path)], vec!["verify", str(&path)], vec!["salvage", str(&path), str(&saved)]] {
        let ran = strandlog(&command);
        assert!(ran.code == 1 && ran.out.to_lowercase().contains("is cut"), "{ran:?}");
        assert!(!ran.out.contains("none known"), "half of it is not there: {ran:?}");
    }
    let json = strandlog(&["verify", str(&path), "--json"]).json();
    assert_eq!(json["cut"]["file_bytes"], len - (256 << 10));
    assert_eq!(strandlog(&["info", str(&path), "--json"]).json()["file_bytes"], len - (256 << 10));
    assert_eq!(strandlog(&["verify", str(&saved)]).code, 0);
    let ran = strandlog(&["grow", str(&path), "--capacity", "12M"]);
    assert!(ran.code == 2 && ran.err.contains("salvage"), "{ran:?}");
}

/// While it is made, the copy needs more room than the original took in the end.
#[test]
fn a_full_log_is_copied_and_one_that_is_too_small_is_told_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("full"), dir.path().join("saved"));
    let wal = Wal::options().capacity(64 << 20).open(&path).unwrap();
    let mut last = 0;
    loop {
        let entries: Vec<_> = (last + 1..=last + 10).map(|i| (i, 1, vec![i as u8; 5000])).collect();
        match wal.commit(Batch::new().append(1, &entries)) {
            Ok(_) => last += 10,
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    wal.close().unwrap();
    drop(wal);
    let ran = strandlog(&["salvage", str(&path), str(&to), "--capacity", "48M"]);
    assert!(ran.code == 2 && ran.err.contains("48 MiB") && ran.err.contains("--capacity"), "{ran:?}");
    assert!(!ran.err.contains("truncate"), "of a log that nobody has open: {ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    let ran = strandlog(&["salvage", str(&path), str(&to)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(std::fs::metadata(&to).unwrap().len(), 72 << 20);
    assert_eq!(Wal::options().open(&to).unwrap().replica(1).bounds(), (1, last));
}
