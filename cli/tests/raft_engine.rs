//! `strandlog import --from raft-engine`

#![cfg(feature = "raft-engine")]

mod support;

use std::path::Path;

use protobuf::Message;
use protobuf::descriptor::UninterpretedOption;
use protobuf::well_known_types::{Field, Field_Cardinality};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt};
use strandlog::Wal;
use support::{place, str, strandlog};

/// Its fields 2 and 3 are numbers and its field 4 is text: as raft's own entries have term, index and data.
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

/// Index and term where somebody else put them: fields 4 and 5.
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
            // The enumeration begins with 0.
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
