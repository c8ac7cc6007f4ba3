//! Runs the tool on what is left of a file.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::Value;
use strandlog::{Error, Wal};

use crate::field::{Fate, half_grown, happens};
use crate::life::{BLOCK, Made, make};
use crate::model::{Log, Replica, Told, agrees, read};
use crate::support::{Ran, str, strandlog};

/// What the tool says of a file.
#[derive(Debug)]
struct Seen {
    verify: Ran,
    /// `None` if the file could not be looked at.
    told: Option<Told>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}

fn key(name: &str) -> Vec<u8> {
    name.strip_prefix("hex:").map_or_else(|| name.as_bytes().to_vec(), unhex)
}

/// What `dump --json --hex --entries` says.
fn dumped(ran: &Ran, what: &str) -> Told {
    let mut told = Told::default();
    for line in ran.lines() {
        let id = line["replica"].as_u64().unwrap_or_else(|| panic!("{what}: {line}"));
        if line["state"].is_object() {
            let mut is = Replica {
                first: line["first"].as_u64().expect("first"),
                last: line["last"].as_u64().expect("last"),
                before: line["term_before_first"].as_u64(),
                ..Replica::default()
            };
            for (name, value) in line["state"].as_object().expect("state") {
                match value.as_str() {
                    Some(value) => drop(is.keys.insert(key(name), unhex(value))),
                    None => is.suspect = true,
                }
            }
            let damage = line["damage"].as_array().expect("damage");
            is.suspect |= damage.iter().any(|d| d.as_str().expect("text").contains("must not vote"));
            if !damage.is_empty() || is.suspect {
                told.hurt.insert(id);
            }
            told.log.insert(id, is);
        } else if line["data"].is_string() {
            let is = told.log.get_mut(&id).expect("behind its replica");
            let entry = (line["term"].as_u64().expect("term"), unhex(line["data"].as_str().expect("data")));
            is.entries.insert(line["index"].as_u64().expect("index"), entry);
        } else {
            assert!(line["damaged"].is_object() || line["unread"].is_string(), "{what}: {line}");
            told.hurt.insert(id);
        }
    }
    for (id, is) in &told.log {
        assert!(is.is_whole() || told.hurt.contains(id), "{what}: replica {id} is not whole, and not called hurt");
    }
    told
}

/// What an export says.
fn exported(path: &Path) -> (Log, u64) {
    let text = std::fs::read_to_string(path).expect("lines");
    let (mut log, mut lost) = (Log::new(), 0);
    let bytes = |value: &Value| BASE64.decode(value.as_str().expect("text")).expect("base64");
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let Some(id) = line["replica"].as_u64() else { continue };
        if line["lost"].is_array() || line["lost"].is_string() {
            lost += 1;
            let is = log.get_mut(&id).expect("behind its replica");
            is.suspect |= line["lost"] == "state";
            if line["lost"][0].as_u64() == Some(is.first.wrapping_sub(1)) {
                is.before = None;
            }
        } else if line["first"].is_u64() {
            let is = Replica {
                first: line["first"].as_u64().expect("first"),
                last: line["last"].as_u64().expect("last"),
                before: line["term_before_first"].as_u64(),
                applied: line["applied"].as_u64(),
                ..Replica::default()
            };
            assert!(log.insert(id, is).is_none());
        } else if line["key"].is_string() {
            log.get_mut(&id).expect("there").keys.insert(bytes(&line["key"]), bytes(&line["value"]));
        } else {
            let entry = (line["term"].as_u64().expect("term"), bytes(&line["data"]));
            log.get_mut(&id).expect("there").entries.insert(line["index"].as_u64().expect("index"), entry);
        }
    }
    (log, lost)
}

/// The JSON object that one run printed.
fn object(ran: &Ran, what: &str) -> Value {
    let value: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{what}: {e}: {ran:?}"));
    assert!(value.is_object() && ran.err.is_empty(), "{what}: {ran:?}");
    assert_eq!(value["error"].is_string(), ran.code == 2, "{what}: {ran:?}");
    value
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"))
}

/// Runs all commands that only look; they must report the same facts.
fn look(path: &Path, text_too: bool, what: &str) -> Seen {
    let before = std::fs::read(path).expect("read");
    let verify = strandlog(&["verify", "--json", str(path)]);
    let info = strandlog(&["info", "--json", "--top", "100", str(path)]);
    let dump = strandlog(&["dump", "--json", "--hex", "--entries", str(path)]);
    let map = strandlog(&["map", "--json", str(path)]);
    assert!([&verify, &info, &dump, &map].iter().all(|ran| (0..=2).contains(&ran.code)), "{what}: {verify:?} {info:?}");
    let (v, i) = (object(&verify, what), object(&info, what));
    if text_too {
        for (command, json) in [("verify", &verify), ("info", &info), ("map", &map), ("dump", &dump)] {
            let text = strandlog(&[command, str(path)]);
            assert_eq!(
                text.code,
                if command == "dump" { text.code.min(json.code) } else { json.code },
                "{what}: {text:?}"
            );
            if command == "verify" && text.code < 2 {
                assert_eq!(text.out.starts_with("sound"), text.code == 0, "{what}: {text:?}");
                assert_eq!(text.out.contains("replicas may be missing"), v["unnamed"] == true, "{what}: {text:?}");
                assert_eq!(text.out.contains("does not open"), v["refused"].is_string(), "{what}: {text:?}");
            }
        }
    }
    assert!(std::fs::read(path).expect("read") == before, "{what}: looking changed it");
    if verify.code == 2 {
        assert!([&info, &dump, &map].iter().all(|ran| ran.code == 2), "{what}: {verify:?} {info:?}");
        return Seen { verify, told: None };
    }
    let refused = v["refused"].is_string();
    assert_eq!(v["ok"], verify.code == 0, "{what}: {verify:?}");
    assert_eq!(v["refused"], i["refused"], "{what}: {verify:?} {info:?}");
    assert_eq!(v["cut"], i["cut"], "{what}: {verify:?} {info:?}");
    assert_eq!(v["unnamed"], i["recovery"]["unnamed"], "{what}: {verify:?} {info:?}");
    assert_eq!(v["lost_frames"], i["recovery"]["lost_frames"], "{what}: {verify:?} {info:?}");
    assert_eq!(v["accounting"], serde_json::json!([]), "{what}: {verify:?}");
    assert!(!refused || dump.code == 1 && map.code == 1 && info.code == 1, "{what}: {dump:?} {map:?} {info:?}");
    assert!(verify.code == 1 || [&info, &dump, &map].iter().all(|ran| ran.code == 0), "{what}: {info:?} {dump:?}");
    let mut told = dumped(&dump, what);
    told.unnamed = v["unnamed"] == true;
    let entries: usize = told.log.values().map(|r| r.entries.len()).sum();
    assert_eq!((number(&v, "replicas"), number(&v, "entries")), (told.log.len() as u64, entries as u64), "{what}");
    assert_eq!(number(&i, "replicas"), told.log.len() as u64, "{what}");
    let named: BTreeSet<u64> = v["damage"].as_array().expect("damage").iter().map(|d| number(d, "replica")).collect();
    assert_eq!(named, told.hurt, "{what}: {verify:?}");
    Seen { verify, told: Some(told) }
}

/// Exports the log and imports that into a fresh one, which must hold the same. Returns what was exported.
fn carry_over(rng: &mut SmallRng, dir: &Path, path: &Path, told: &Told, refused: bool, what: &str) -> Option<Log> {
    let (lines, copy) = (dir.join("lines"), dir.join("copy"));
    let ran = strandlog(&["export", "--json", str(path), "--out", str(&lines)]);
    let said = object(&ran, what);
    if refused {
        assert!(ran.code == 2 && !lines.exists(), "{what}: {ran:?}");
        return None;
    }
    let (mut log, lost) = exported(&lines);
    assert_eq!((ran.code, number(&said, "lost")), (i32::from(lost > 0), lost), "{what}: {ran:?}");
    assert_eq!(lost > 0, log.values().any(|r| !r.is_whole()), "{what}: what is lost is named");
    let with_reports = log.clone();
    log.values_mut().for_each(|r| r.applied = None);
    assert!(log == told.log, "{what}: the export says something else than the dump");
    if lost == 0 && rng.random_bool(0.5) {
        // An interrupted import: the lines end anywhere.
        let whole = std::fs::read(&lines).expect("lines");
        let part = dir.join("part");
        std::fs::write(&part, &whole[..rng.random_range(0..whole.len() - 1)]).expect("written");
        let ran = strandlog(&["import", "--json", "--from", "jsonl", str(&part), str(&copy)]);
        object(&ran, what);
        assert_eq!(ran.code, 2, "{what}: {ran:?}");
    }
    let ran = strandlog(&["import", "--json", "--from", "jsonl", str(&lines), str(&copy)]);
    let said = object(&ran, what);
    if lost > 0 {
        assert!(ran.code == 2 && ran.out.contains("strandlog salvage"), "{what}: {ran:?}");
        return None;
    }
    assert!(ran.code == 0 && said["different"] == serde_json::json!([]), "{what}: {ran:?}");
    let again = dir.join("again");
    assert_eq!(strandlog(&["export", str(&copy), "--out", str(&again)]).code, 0, "{what}");
    assert!(exported(&again).0 == with_reports, "{what}: the import is another log");
    Some(with_reports)
}

/// Salvages the log, and the copy again.
fn save(dir: &Path, path: &Path, seen: &Seen, what: &str) -> Option<Told> {
    let [to, again]: [PathBuf; 2] = [dir.join("saved"), dir.join("saved again")];
    let ran = strandlog(&["salvage", "--json", str(path), str(&to)]);
    let said = object(&ran, what);
    let Some(told) = &seen.told else {
        assert!(ran.code == 2 && !to.exists(), "{what}: {ran:?}");
        return None;
    };
    let verified = object(&seen.verify, what);
    assert!(ran.code < 2, "{what}: {ran:?}");
    assert_eq!(said["whole"], ran.code == 0, "{what}: {ran:?}");
    let sound = seen.verify.code == 0;
    if sound {
        assert!(
            said["damage"] == serde_json::json!([]) && said["unnamed"] == false && said["lost_frames"] == 0,
            "{what}: {ran:?}"
        );
    }
    if verified["refused"].is_string() {
        assert_eq!(verified["unnamed"], said["unnamed"], "{what}: {ran:?}");
        assert_eq!(verified["cut"], said["cut"], "{what}: {ran:?}");
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
    }
    let saved = {
        let wal = Wal::options().read_only(true).open(&to).expect("a copy opens");
        assert!(wal.verify(|_| ()).expect("verified").accounting.is_empty(), "{what}");
        let mut saved = read(&wal);
        saved.unnamed = said["unnamed"] == true;
        let named: BTreeSet<u64> =
            said["damage"].as_array().expect("damage").iter().map(|d| number(d, "replica")).collect();
        assert_eq!(named, saved.hurt, "{what}: {ran:?}");
        saved
    };
    for (id, was) in &told.log {
        let is = saved.log.get(id).unwrap_or_else(|| panic!("{what}: replica {id} is not saved"));
        for (index, entry) in &was.entries {
            assert!(is.entries.get(index) == Some(entry), "{what}: replica {id}, entry {index} is not saved");
        }
    }
    let ran = strandlog(&["salvage", "--json", str(&to), str(&again)]);
    let second = object(&ran, what);
    assert_eq!(ran.code, i32::from(!saved.hurt.is_empty()), "{what}: {ran:?}");
    let twice = read(&Wal::options().read_only(true).open(&again).expect("a copy opens"));
    assert!(twice.log == saved.log && twice.hurt == saved.hurt, "{what}: a salvage of a salvage is another log");
    assert!(
        second["damage"].as_array().expect("damage").len() <= said["damage"].as_array().expect("damage").len(),
        "{what}: {said} {second}"
    );
    Some(saved)
}

/// Opens the log for writing, and returns what it holds.
fn open(path: &Path, seen: &Seen, what: &str) -> Option<Told> {
    match Wal::options().create(false).background(false).open(path) {
        Ok(wal) => {
            assert!(seen.told.is_some(), "{what}: it opens, and the tool did not look at it");
            let said = object(&seen.verify, what);
            let by_snapshot = said["snapshot"] == true;
            assert!(said["refused"].is_null() || by_snapshot, "{what}: it opens, and is called refused: {said}");
            let told = read(&wal);
            wal.close().expect("closed");
            Some(told)
        }
        Err(Error::Corrupt { .. } | Error::Cut { .. }) => {
            assert!(seen.verify.code > 0, "{what}: it does not open, and is called sound");
            if seen.told.is_some() {
                assert!(object(&seen.verify, what)["refused"].is_string(), "{what}: {:?}", seen.verify);
            }
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Checks that what is reported fits what was acknowledged.
fn holds(told: &Told, made: &Made, fate: Fate, with_reports: bool, what: &str) {
    let of = |log: &Log| {
        let mut log = log.clone();
        if !with_reports {
            log.values_mut().for_each(|r| r.applied = None);
        }
        log
    };
    let candidates: Vec<Log> = std::iter::once(&made.stood).chain(&made.or).map(of).collect();
    if fate == Fate::Sound {
        assert!(candidates.contains(&told.log), "{what}: it is another log");
    } else if fate == Fate::Hurt && candidates.len() == 1 {
        agrees(told, &candidates[0], &made.history, what);
    }
}

fn write_sparse(path: &Path, image: &[u8]) {
    let file = std::fs::File::create(path).expect("created");
    file.set_len(image.len() as u64).expect("long enough");
    for (at, block) in (0..).step_by(BLOCK).zip(image.chunks(BLOCK)) {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, at).expect("written");
        }
    }
}

/// While a process has the log open for reading, others can look at it, but not grow it or write to it; while one has it open for writing, nobody else can
/// open it.
fn in_use(dir: &Path, path: &Path, what: &str) {
    let lines = dir.join("no lines");
    std::fs::write(
        &lines,
        r#"{"strandlog":1,"replicas":0,"capacity":1048576,"chunk_size":4096,"segment_size":65536,"journal_cap":393216}
{"end":true,"replicas":0,"entries":0,"keys":0}
"#,
    )
    .expect("written");
    let before = std::fs::read(path).expect("read");
    let writing =
        [vec!["grow", "--capacity", "64M", str(path)], vec!["import", "--from", "jsonl", str(&lines), str(path)]];
    let options = || Wal::options().create(false).background(false);
    let reader =
        options().read_only(true).recovery_mode(strandlog::RecoveryMode::Salvage).open(path).expect("a salvage opens");
    assert!((0..2).contains(&strandlog(&["verify", str(path)]).code), "{what}: two may look");
    for command in writing {
        let ran = strandlog(&command);
        assert!(ran.code == 2 && ran.err.contains("is open"), "{what}: {command:?}: {ran:?}");
    }
    drop(reader);
    assert!(std::fs::read(path).expect("read") == before, "{what}: it was changed");
    let copy = dir.join("in use");
    std::fs::copy(path, &copy).expect("copied");
    let Ok(_writer) = options().open(&copy) else { return };
    let path = &copy;
    for command in ["verify", "info", "dump", "map", "export"].map(|command| vec![command, str(path)]) {
        let ran = strandlog(&command);
        assert!(ran.code == 2 && ran.err.contains("is open"), "{what}: {command:?}: {ran:?}");
    }
    let to = dir.join("never");
    let ran = strandlog(&["salvage", str(path), str(&to)]);
    assert!(ran.code == 2 && ran.err.contains("is open") && !to.exists(), "{what}: {ran:?}");
}

/// Counts of what was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    pub days: u64,
    pub sound: u64,
    pub hurt: u64,
    pub refused: u64,
    pub unnamed: u64,
    pub nothing_left: u64,
    pub carried_over: u64,
    pub half_grown: u64,
    pub entries: u64,
}

pub fn a_bad_day(rng: &mut SmallRng, tried: &mut Tried) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let made = make(rng, dir);
    let mut what = made.what.clone();
    tried.days += 1;
    let (mut image, fate) = happens(rng, &made, &mut what);
    let path = dir.join("log");
    // Some copies are sparse.
    let sparse = rng.random_bool(0.15);
    let write =
        |image: &[u8]| if sparse { write_sparse(&path, image) } else { std::fs::write(&path, image).expect("written") };
    write(&image);
    if fate == Fate::Sound && rng.random_bool(0.3) {
        let to = image.len() as u64 + made.segment * rng.random_range(1..6);
        let ran = strandlog(&["grow", "--json", str(&path), "--capacity", &to.to_string()]);
        object(&ran, &what);
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        what += ", grown by the tool";
        let grown = std::fs::read(&path).expect("read");
        if rng.random_bool(0.6) {
            image = half_grown(rng, &image, &grown);
            what += ", half of it";
            tried.half_grown += 1;
        } else {
            image = grown;
        }
        write(&image);
    }
    let seen = look(&path, rng.random_bool(0.2), &what);
    let verified = object(&seen.verify, &what);
    if fate == Fate::Sound
        && made.stood.values().all(Replica::is_whole)
        && verified["structure"] == serde_json::json!([])
    {
        assert_eq!(seen.verify.code, 0, "{what}: {:?}", seen.verify);
    }
    if let Some(told) = &seen.told {
        holds(told, &made, fate, false, &what);
        let refused = verified["refused"].is_string();
        tried.sound += u64::from(seen.verify.code == 0);
        tried.hurt += u64::from(seen.verify.code == 1);
        tried.refused += u64::from(refused);
        tried.unnamed += u64::from(told.unnamed);
        tried.entries += number(&verified, "entries");
        if let Some(log) = carry_over(rng, dir, &path, told, refused, &what) {
            let told = Told { log, ..told.clone() };
            holds(&told, &made, fate, true, &format!("{what}, imported"));
            tried.carried_over += 1;
        }
    } else {
        tried.nothing_left += 1;
    }
    if let Some(saved) = save(dir, &path, &seen, &what) {
        holds(&saved, &made, fate, true, &format!("{what}, saved"));
    }
    assert!(std::fs::read(&path).expect("read") == image, "{what}: it was changed");
    if seen.told.is_some() && rng.random_bool(0.2) {
        in_use(dir, &path, &what);
    }
    if let Some(opened) = open(&path, &seen, &what) {
        let told = seen.told.as_ref().expect("looked at");
        holds(&opened, &made, fate, true, &format!("{what}, opened"));
        let mut without = opened.log;
        without.values_mut().for_each(|r| r.applied = None);
        // After a close, opening for writing reads the snapshot, but the tool reads the journal.
        for (id, was) in told.log.iter().filter(|_| fate != Fate::Anything) {
            let is = &without[id];
            assert!(made.closed || is == was, "{what}: replica {id}: an opening says something else than the tool");
            assert!(
                was.entries.iter().all(|(index, entry)| is.entries.get(index) == Some(entry)),
                "{what}: replica {id}"
            );
        }
    }
}
