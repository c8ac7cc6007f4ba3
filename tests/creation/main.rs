//! Power fails while a log is being created: at every call that a real process makes, with every name, size and write in doubt, there is no
//! log or a whole one.
//!
//! The simulated disk is a device: it has one size for ever, and no directory. Here a process creates a log under `strace`, and what it
//! asks for is fed to a model of a file system that keeps no more than it must: the size of a file, its contents and each name persist
//! independently until they are synced, and the sync of a file says nothing about its name. After every call, and in the middle of
//! those that make something durable, each state that a power cut may leave is made of real files, and the log is opened there.
//! Either there is no log, and it is created; or there is a whole one. Once its creator was told that it exists, it does.
//!
//! Where `strace` is missing or may not trace, the test says so and passes.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod filesystem;
mod trace;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use strandlog::disk::sim::SimDisk;
use strandlog::disk::{AlignedBuf, FileDisk, OpenError, OpenMode, SyncMethod};
use strandlog::{Batch, Error, Options, Wal};

use crash::State;
use filesystem::{FileSystem, Lie};
use support::judge::CAPACITY;
use support::{assert_sound, for_each, payload, tally};
use trace::Call;

const FILE: &str = "STRANDLOG_CREATION_FILE";
const METHOD: &str = "STRANDLOG_CREATION_METHOD";
const SIZE: &str = "STRANDLOG_CREATION_SIZE";
const PLAIN: &str = "STRANDLOG_CREATION_PLAIN";
const METHODS: [SyncMethod; 4] =
    [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync, SyncMethod::Auto];
const CREATED: &str = "it is created";
const FAILED: &str = "it cannot be created";
const COMMITTED: &str = "it is committed";
/// What a creation that was cut off leaves.
const TEMPORARY: &str = "log.creating";
/// The length of both superblocks.
const HEAD: usize = 32 << 10;

/// One way for a file to be created, or to fail to be.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    method: usize,
    capacity: u64,
    /// What the system is made to refuse.
    inject: &'static [&'static str],
    /// The writes of the superblocks are not durable by themselves: the creation syncs them.
    plain: bool,
    /// An earlier creation was cut off.
    stale: bool,
    /// What is refused fails the creation, and there must be no file.
    fails: bool,
}

/// The default method, as far as the size allows.
const AUTO: Way =
    Way { name: "probed", method: 3, capacity: CAPACITY, inject: &[], plain: false, stale: false, fails: false };
const NO_FALLOCATE: &str = "fallocate:error=EOPNOTSUPP";
const NO_RENAME: &str = "renameat2:error=EINVAL";

const WAYS: [Way; 13] = [
    AUTO,
    Way { name: "direct writes", method: 0, ..AUTO },
    Way { name: "ranged syncs", method: 1, ..AUTO },
    Way { name: "fdatasync", method: 2, ..AUTO },
    // So large that the zeros are written in several steps.
    Way { name: "larger", method: 1, capacity: (1 << 20) + (64 << 10), ..AUTO },
    Way { name: "plain writes", method: 1, plain: true, ..AUTO },
    Way { name: "no fallocate", method: 1, inject: &[NO_FALLOCATE], ..AUTO },
    Way { name: "no rename", method: 1, inject: &[NO_RENAME], ..AUTO },
    Way { name: "stale file", method: 2, stale: true, ..AUTO },
    Way { name: "all at once", method: 2, inject: &[NO_FALLOCATE, NO_RENAME], plain: true, stale: true, ..AUTO },
    Way { name: "zeros fail", method: 1, inject: &["fsync:error=EIO:when=1"], fails: true, ..AUTO },
    Way { name: "content fails", method: 1, inject: &["fsync:error=EIO:when=2"], fails: true, ..AUTO },
    Way { name: "name fails", method: 1, inject: &["fsync:error=EIO:when=3"], fails: true, ..AUTO },
];

fn options(method: SyncMethod, capacity: u64) -> Options {
    // Small, and without threads of its own.
    Wal::options().capacity(capacity).chunk_size(4096).segment_size(64 << 10).sync_method(method).background(false)
}

fn say(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{what}").and_then(|()| out.flush()).expect("the parent listens");
}

/// The child: creates a log, says so, commits, says so, and closes it. Not a test of its own.
#[test]
fn child() {
    let Ok(file) = std::env::var(FILE) else { return };
    let method = METHODS[std::env::var(METHOD).expect("given").parse::<usize>().expect("a number")];
    let capacity = support::env(SIZE, CAPACITY);
    if std::env::var(PLAIN).is_ok() {
        let blank = Arc::new(SimDisk::new(capacity));
        drop(support::open(options(method, capacity), &blank));
        let head = AlignedBuf::from(&blank.kept_image()[..HEAD]);
        let mode = OpenMode { sync: method, ..OpenMode::default() };
        match FileDisk::create(&file, capacity, mode, &mut |_, _| {}, |disk| disk.write_at(0, &head)) {
            Ok(disk) => drop(disk),
            Err(OpenError::Unsupported { .. }) => return,
            Err(other) => panic!("{other:?}"),
        }
        say(CREATED);
    }
    let wal = match options(method, capacity).open(&file) {
        Ok(wal) => wal,
        Err(Error::Unsupported { .. }) => return,
        Err(Error::Io { .. }) => return say(FAILED),
        Err(other) => panic!("{other:?}"),
    };
    say(CREATED);
    commit(&wal).expect("committed");
    say(COMMITTED);
    wal.close().expect("closed");
}

fn commit(wal: &Wal) -> strandlog::Result<()> {
    let index = wal.replica(1).last_index() + 1;
    wal.commit(Batch::new().append(1, &[(index, 1, payload(1, index, 1, 100))])).map(|_| ())
}

/// What the creator had been told when power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Promise {
    created: bool,
    committed: bool,
}

/// Opens the log in what is left, and uses it. Returns whether it was there.
fn judge(state: &State, promise: Promise, capacity: u64, dir: &Path) -> Result<bool, String> {
    state.write(dir).map_err(|e| format!("cannot be made: {e}"))?;
    let there = state.names.contains_key("log");
    if promise.created && !there {
        return Err("the log was created, and is gone".to_owned());
    }
    let open = |when: &str| {
        let opened = options(SyncMethod::Fdatasync, capacity).create(true).open(dir.join("log"));
        opened.map_err(|e| format!("{when}: {e:?}"))
    };
    let wal = open(if there { "it is there, and does not open" } else { "it is not there, and cannot be created" })?;
    if !there && dir.join(TEMPORARY).exists() {
        return Err("what an earlier creation left is still there".to_owned());
    }
    let last = wal.replica(1).last_index();
    if last < u64::from(promise.committed) {
        return Err("an acknowledged entry is gone".to_owned());
    }
    commit(&wal).map_err(|e| format!("takes no entry: {e:?}"))?;
    if last > 0 {
        wal.close().map_err(|e| format!("cannot be closed: {e:?}"))?;
    }
    drop(wal);
    let wal = open("opened anew")?;
    for index in 1..=last + 1 {
        match wal.replica(1).entry(index) {
            Ok(entry) if entry.data == payload(1, index, 1, 100) => {}
            other => return Err(format!("entry {index}: {other:?}")),
        }
    }
    assert_sound(&wal, "opened anew");
    Ok(there)
}

/// A place for what is made and thrown away thousands of times: in memory, if the system has such.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// What one way was put through.
#[derive(Default)]
struct Outcome {
    moments: u64,
    states: u64,
    there: u64,
    failures: Vec<String>,
}

/// A creation as it was traced, and the files that were there before.
struct Traced {
    dir: tempfile::TempDir,
    before: Vec<(&'static str, Vec<u8>)>,
    capacity: u64,
    calls: Vec<Call>,
}

fn trace(way: Way) -> Traced {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_dir(&dir).join("log");
    std::fs::create_dir(log_dir(&dir)).expect("made");
    let mut before = Vec::new();
    if way.stale {
        before.push((TEMPORARY, vec![0xa5; 100_000]));
        std::fs::write(log_dir(&dir).join(TEMPORARY), &before[0].1).expect("written");
    }
    let (method, capacity) = (way.method.to_string(), way.capacity.to_string());
    let mut env = vec![(FILE, log.to_str().expect("a plain name")), (METHOD, &method), (SIZE, &capacity)];
    if way.plain {
        env.push((PLAIN, "1"));
    }
    let calls = trace::run(dir.path(), way.inject, &env);
    Traced { dir, before, capacity: way.capacity, calls }
}

fn log_dir(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().canonicalize().expect("it is there").join("of the log")
}

/// Cuts the power after every call, and in the middle of those that make something durable.
fn explore(traced: &Traced, lie: Lie, failures: usize) -> (FileSystem, Outcome) {
    let scratch = scratch();
    let mut fs = FileSystem::new(&log_dir(&traced.dir), &traced.before, lie);
    let (mut seen, mut outcome) = (HashSet::new(), Outcome::default());
    let mut cut = |fs: &FileSystem, call: &Call, moment: &str| {
        let promise = Promise { created: fs.said.contains(CREATED), committed: fs.said.contains(COMMITTED) };
        outcome.moments += 1;
        let ended = crash::each(fs, &mut |state| {
            if !seen.insert((state.hash(), promise)) {
                return ControlFlow::Continue(());
            }
            outcome.states += 1;
            let dir = scratch.path().join(outcome.states.to_string());
            std::fs::create_dir(&dir).expect("made");
            match judge(&state, promise, traced.capacity, &dir) {
                Ok(there) => outcome.there += u64::from(there),
                Err(why) => {
                    outcome.failures.push(format!("{moment} {call}: {promise:?}: {}: {why}", state.describe()));
                }
            }
            std::fs::remove_dir_all(&dir).expect("removed");
            if outcome.failures.len() < failures { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        ended.is_continue()
    };
    for call in &traced.calls {
        if fs.begin(call) && !cut(&fs, call, "in") || fs.end(call) && !cut(&fs, call, "after") {
            break;
        }
    }
    (fs, outcome)
}

/// The model is judged too: in the end it holds what the file system holds.
fn assert_faithful(fs: &FileSystem, dir: &Path, way: Way) {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("it is there") {
        let entry = entry.expect("read");
        found
            .insert(entry.file_name().into_string().expect("a plain name"), std::fs::read(entry.path()).expect("read"));
    }
    let live = fs.names.iter().filter_map(|(name, leads)| Some((name.clone(), fs.files[leads.live()?].live.clone())));
    let same = live.collect::<BTreeMap<_, _>>() == found;
    assert!(
        same,
        "{}: the model does not end as the file system did: a call is not traced or not understood",
        way.name
    );
}

#[test]
fn a_power_cut_leaves_no_log_or_a_whole_one_and_it_stays_once_it_was_promised() {
    if !trace::can_trace() {
        return;
    }
    let states = AtomicU64::new(0);
    for_each(&WAYS, |way| {
        let traced = trace(way);
        let (fs, outcome) = explore(&traced, Lie::None, 5);
        let Outcome { moments, states: n, there, failures } = outcome;
        assert!(failures.is_empty(), "{}: {failures:#?}", way.name);
        assert_faithful(&fs, &log_dir(&traced.dir), way);
        if way.fails {
            assert!(fs.said.contains(FAILED) && !fs.said.contains(CREATED), "{}: {}", way.name, fs.said);
            assert!(fs.names.values().all(|leads| leads.live().is_none()), "{}: a file is left", way.name);
        } else if !fs.said.contains(COMMITTED) {
            return println!("{}: not here", way.name);
        } else {
            assert!(n > there && there > 3, "{}: both are seen", way.name);
        }
        println!("{:14} {moments:3} moments, {n:5} states, the log is there in {there:4}", way.name);
        states.fetch_add(n, Relaxed);
    });
    tally(&[("states", states.into_inner())]);
}

/// Were the model blind, it would pass anything.
#[test]
fn a_system_that_lies_about_its_syncs_is_found_out() {
    if !trace::can_trace() {
        return;
    }
    for (way, lie) in
        [(WAYS[1], Lie::Directory), (WAYS[2], Lie::Files), (WAYS[3], Lie::Directory), (WAYS[3], Lie::Files)]
    {
        let (_, outcome) = explore(&trace(way), lie, 1);
        assert_eq!(outcome.failures.len(), 1, "{}: {lie:?} is not noticed in {} states", way.name, outcome.states);
        println!("{}, {lie:?}: {}", way.name, outcome.failures[0]);
    }
}
