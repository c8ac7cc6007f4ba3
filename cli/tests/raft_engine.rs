//! `strandlog import --from raft-engine`

#![cfg(feature = "raft-engine")]

mod support;

use std::path::Path;

use protobuf::Message;
use protobuf::descriptor::UninterpretedOption;
use protobuf::well_known_types::{Field, Field_Cardinality};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use strandlog::Wal;
use support::{place, str, strandlog};

/// Fields 2 and 3 are numbers and field 4 is text, like term, index and data in raft's own entries.
#[derive(Clone)]
struct LikeRaft;

impl MessageExt for LikeRaft {
    type Entry = Field;
    fn index(e: &Field) -> u64 {
        u64::try_from(e.number).unwrap()
    }
}

fn like_raft(index: u64, term: u64, data: &str) -> Field {
    let mut e = Field::new();
    e.number = i32::try_from(index).unwrap();
    e.cardinality =
        if term == 1 { Field_Cardinality::CARDINALITY_OPTIONAL } else { Field_Cardinality::CARDINALITY_REQUIRED };
    e.name = data.into();
    e
}

/// Another layout: index and term are in fields 4 and 5.
#[derive(Clone)]
struct Other;

impl MessageExt for Other {
    type Entry = UninterpretedOption;
    fn index(e: &UninterpretedOption) -> u64 {
        e.get_positive_int_value()
    }
}

fn engine(dir: &Path) -> Engine {
    Engine::open(Config { dir: str(dir).into(), ..Config::default() }).unwrap()
}

#[test]
fn every_group_entry_and_key_arrives() {
    let (dir, path) = place();
    let source = dir.path().join("engine");
    let engine = engine(&source);
    let text = |group: u64, index: u64| format!("group {group} entry {index} ").repeat(1 + (index as usize * 37) % 60);
    for group in 1..=50 {
        let mut batch = LogBatch::default();
        let entries: Vec<Field> = (1..=40).map(|i| like_raft(i, 1, &text(group, i))).collect();
        batch.add_entries::<LikeRaft>(group, &entries).unwrap();
        batch.put(group, b"hard state".to_vec(), group.to_le_bytes().to_vec()).unwrap();
        engine.write(&mut batch, true).unwrap();
    }
    let mut batch = LogBatch::default();
    batch.add_entries::<LikeRaft>(7, &[like_raft(30, 2, "overwritten")]).unwrap();
    batch.add_command(9, Command::Compact { index: 15 });
    batch.put(1000, b"only a key".to_vec(), vec![]).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);

    let import = ["import", "--from", "raft-engine", str(&source), str(&path), "--capacity", "32M", "--json"];
    let ran = strandlog(&import);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    let entries = 48 * 40 + 30 + 26;
    assert_eq!((&json["verified"], &json["replicas"], &json["entries"]), (&true.into(), &51.into(), &entries.into()));
    let wal = Wal::options().open(&path).unwrap();
    assert_eq!(wal.replicas().len(), 51);
    for group in 1..=50 {
        let replica = wal.replica(group);
        let bounds = match group {
            7 => (1, 30),
            9 => (15, 40),
            _ => (1, 40),
        };
        assert_eq!(replica.bounds(), bounds);
        assert_eq!(replica.get(b"hard state").unwrap().unwrap(), group.to_le_bytes()[..]);
        for index in bounds.0..=bounds.1 {
            let e = replica.entry(index).unwrap();
            let (term, data) =
                if (group, index) == (7, 30) { (2, "overwritten".into()) } else { (1, text(group, index)) };
            assert_eq!(e.data, like_raft(index, term, &data).write_to_bytes().unwrap(), "the message, byte for byte");
            // The enumeration begins with 0 (unknown): optional is 1, required is 2.
            assert_eq!(e.term, if term == 1 { 1 } else { 2 });
        }
    }
    assert_eq!(wal.replica(1000).get(b"only a key").unwrap().unwrap(), b""[..]);
    drop(wal);
    let again = strandlog(&import);
    assert_eq!((again.code, &again.json()["entries_there_already"]), (0, &entries.into()), "{again:?}");
}

#[test]
fn index_and_term_are_found_where_they_are_said_to_be() {
    let (dir, path) = place();
    let source = dir.path().join("engine");
    let engine = engine(&source);
    let mut e = UninterpretedOption::new();
    e.set_positive_int_value(1);
    e.set_negative_int_value(77);
    e.set_string_value(b"data".to_vec());
    let mut batch = LogBatch::default();
    batch.add_entries::<Other>(3, &[e]).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    let import = |more: &[&str]| {
        let all = ["import", "--from", "raft-engine", str(&source), str(&path), "--capacity", "32M"];
        strandlog(&[&all[..], more].concat())
    };
    let ran = import(&[]);
    assert!(ran.code == 2 && ran.err.contains("--index-field"), "{ran:?}");
    let ran = import(&["--index-field", "4", "--term-field", "5"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(Wal::options().open(&path).unwrap().replica(3).term(1).unwrap(), 77);
}

#[test]
fn what_is_no_engine_is_left_alone() {
    let (dir, path) = place();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let ran = strandlog(&["import", "--from", "raft-engine", str(&empty), str(&path)]);
    assert!(ran.code == 2 && ran.err.contains("holds no files"), "{ran:?}");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    assert!(!path.exists());
}

/// An engine of one group, whose entries have term 1, in many small files; `spill` is its spill-dir.
fn of_many_files(dir: &Path, spill: Option<&Path>, indexes: std::ops::RangeInclusive<u64>) {
    let config = Config {
        dir: str(dir).into(),
        spill_dir: spill.map(|spill| str(spill).into()),
        target_file_size: ReadableSize::kb(16),
        ..Config::default()
    };
    let engine = Engine::open(config).unwrap();
    let end = *indexes.end();
    for i in indexes {
        let mut batch = LogBatch::default();
        // No pair of letters repeats, so the data does not compress.
        let data: String = (0..300_u64).map(|n| char::from(b'!' + (((n + 1) * (n + i)) % 90) as u8)).collect();
        batch.add_entries::<LikeRaft>(1, &[like_raft(i, 1, &data)]).unwrap();
        batch.put(1, b"hard state".to_vec(), format!("vote {i}").into_bytes()).unwrap();
        engine.write(&mut batch, true).unwrap();
    }
    assert_eq!(engine.last_index(1), Some(end));
}

/// The engine's files of entries, oldest first.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut logs: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    logs.retain(|p| p.extension().is_some_and(|e| e == "raftlog"));
    logs.sort();
    logs
}

/// An engine whose directory is full writes into its spill-dir, which then holds the newest data, votes included.
#[test]
fn what_lies_in_the_spill_dir_arrives_and_is_not_left_out_without_a_word() {
    let (dir, path) = place();
    let (source, spill) = (dir.path().join("engine"), dir.path().join("spill"));
    std::fs::create_dir(&spill).unwrap();
    of_many_files(&source, Some(&spill), 1..=300);
    // As if the main directory had had no room for it.
    let last = files(&source).pop().unwrap();
    std::fs::rename(&last, spill.join(last.file_name().unwrap())).unwrap();
    let import = |path: &Path, more: &[&str]| {
        let all = ["import", "--from", "raft-engine", str(&source), str(path), "--capacity", "32M"];
        strandlog(&[&all[..], more].concat())
    };
    // The main directory does not say that there is a spill-dir.
    let ran = import(&dir.path().join("half.log"), &[]);
    assert!(ran.err.contains("--spill-dir"), "{ran:?}");
    let ran = import(&path, &["--spill-dir", str(&spill)]);
    assert!(ran.code == 0 && ran.err.is_empty(), "{ran:?}");
    let wal = Wal::options().read_only(true).open(&path).unwrap();
    assert_eq!(wal.replica(1).last_index(), 300);
    assert_eq!(wal.replica(1).get(b"hard state").unwrap().unwrap(), b"vote 300"[..]);
    drop(wal);
    // A name that is not a spill-dir's is a mistake; raft-engine would create a missing directory.
    let (missing, other) = (dir.path().join("missing"), dir.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    for wrong in [&missing, &other] {
        let ran = import(&dir.path().join("wrong.log"), &["--spill-dir", str(wrong)]);
        assert!(ran.code == 2 && ran.err.contains(str(wrong)), "{ran:?}");
    }
    assert!(!missing.exists());
}

/// raft-engine silently skips everything before a missing file.
#[test]
fn an_engine_of_which_a_file_is_missing_is_refused() {
    let (dir, path) = place();
    let (source, spill) = (dir.path().join("engine"), dir.path().join("spill"));
    of_many_files(&source, None, 1..=300);
    let all = files(&source);
    assert!(all.len() > 2, "{all:?}");
    std::fs::create_dir(&spill).unwrap();
    let missing = &all[1];
    let elsewhere = spill.join(missing.file_name().unwrap());
    std::fs::rename(missing, &elsewhere).unwrap();
    let import = ["import", "--from", "raft-engine", str(&source), str(&path), "--capacity", "32M"];
    let ran = strandlog(&import);
    let name = missing.file_name().unwrap().to_str().unwrap();
    assert!(ran.code == 2 && ran.err.contains(name) && ran.err.contains("--spill-dir"), "{ran:?}");
    assert!(!path.exists());
    // A file that exists twice is as bad: nobody knows which one counts.
    std::fs::copy(&elsewhere, missing).unwrap();
    let ran = strandlog(&[&import[..], &["--spill-dir", str(&spill)]].concat());
    assert!(ran.code == 2 && ran.err.contains(name), "{ran:?}");
    std::fs::remove_file(missing).unwrap();
    let ran = strandlog(&[&import[..], &["--spill-dir", str(&spill)]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(Wal::options().read_only(true).open(&path).unwrap().replica(1).bounds(), (1, 300));
}

/// No entry has term 0, so the term is not in a missing field, nor in a text field; and the index field is not the term field.
#[test]
fn a_term_that_is_not_where_it_is_said_to_be_is_refused() {
    let (dir, path) = place();
    let source = dir.path().join("engine");
    of_many_files(&source, None, 1..=3);
    for field in ["3", "9", "4"] {
        let from = ["import", "--from", "raft-engine", str(&source), str(&path), "--capacity", "32M"];
        let ran = strandlog(&[&from[..], &["--term-field", field]].concat());
        assert!(ran.code == 2 && ran.err.contains("--term-field"), "--term-field {field}: {ran:?}");
        assert!(!path.exists(), "--term-field {field}: {ran:?}");
    }
}

/// The arguments stand in the wrong order.
#[test]
fn a_file_in_the_place_of_the_engine_is_called_one() {
    let (dir, path) = place();
    std::fs::write(&path, "a file").unwrap();
    let ran = strandlog(&["import", "--from", "raft-engine", str(&path), str(dir.path())]);
    assert!(ran.code == 2 && ran.err.contains("is a file, and a raft-engine is a directory"), "{ran:?}");
}
