//! The operating system says no: `strace` injects errors into the system calls of a real process on a real file.
//!
//! Each time: nothing is acknowledged that is not there afterwards, the error is typed and final, reads go on, and the log opens again.
//! Where `strace` is missing or may not trace, the test says so and passes.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use strandlog::disk::SyncMethod;
use strandlog::{Batch, Error, Options, Wal};

use support::{assert_sound, payload};

const FILE: &str = "STRANDLOG_FAULTS_FILE";
const METHOD: &str = "STRANDLOG_FAULTS_METHOD";
const METHODS: [SyncMethod; 3] = [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync];
const CREATE: &str = "STRANDLOG_FAULTS_CREATE";
const BATCHES: u64 = 24;

fn options(method: SyncMethod) -> Options {
    // With a given method, as the probe would take the injected error for an answer.
    Wal::options()
        .capacity(4 << 20)
        .chunk_size(4096)
        .segment_size(64 << 10)
        .direct_threshold(16 << 10)
        .sync_method(method)
        .background(false)
}

fn len(index: u64) -> usize {
    // Every fourth is placed directly: pieces, frame, flush.
    if index.is_multiple_of(4) { 20_000 } else { 100 }
}

fn say(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{what}").and_then(|()| out.flush()).expect("the parent listens");
}

/// The child: works until the system refuses, and says what was acknowledged. Not a test of its own.
#[test]
fn child() {
    let Ok(file) = std::env::var(FILE) else { return };
    let method = METHODS[std::env::var(METHOD).expect("given").parse::<usize>().expect("a number")];
    let wal = match options(method).open(&file) {
        Ok(wal) => wal,
        Err(Error::Io { .. }) => return say("refused"),
        Err(other) => panic!("an opening that fails says what the system said: {other:?}"),
    };
    let replica = wal.replica(1).last_index();
    let mut acknowledged = replica;
    for index in replica + 1..=replica + BATCHES {
        let mut batch = Batch::new();
        batch.append(1, &[(index, 1, payload(1, index, 1, len(index)))]).put(1, b"last", &index.to_le_bytes());
        if index > 30 {
            batch.truncate_prefix(1, index - 30);
        }
        let outcome = wal.commit(batch).and_then(|_| match index % 10 {
            0 => match wal.checkpoint() {
                // What the cleaner cannot read stays where it is, for the next time.
                Err(Error::Io { .. }) => Ok(()),
                cleaned => cleaned,
            },
            _ => Ok(()),
        });
        match outcome {
            Ok(()) => {
                acknowledged = index;
                say(&format!("ack {index}"));
            }
            Err(Error::Poisoned { .. }) => {
                let again = wal.commit(Batch::new().append(2, &[(1, 1, b"no")]));
                assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
                for index in wal.replica(1).first_index()..=acknowledged {
                    let entry = wal.replica(1).entry(index).expect("reads go on");
                    assert_eq!(entry.data, payload(1, index, 1, len(index)));
                }
                return say("poisoned");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    match wal.close() {
        Ok(()) => say("done"),
        Err(Error::Poisoned { .. }) => say("poisoned"),
        Err(other) => panic!("{other:?}"),
    }
}

fn run(file: &Path, method: usize, inject: Option<&str>) -> Output {
    let me = std::env::current_exe().expect("our own name");
    let mut command = Command::new("strace");
    // Calls on this file alone: not what the loader reads.
    command.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(file);
    match inject {
        Some(inject) => {
            let calls = inject.split(':').next().unwrap_or_default();
            command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")])
        }
        None => command.args(["-e", "trace=none"]),
    };
    command.arg(me).args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(FILE, file).env(METHOD, method.to_string()).stdin(Stdio::null());
    command.output().expect("strace starts")
}

fn can_trace() -> bool {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).output();
    match probe {
        Ok(out) if out.status.success() => true,
        Ok(out) => {
            println!("skipped: strace may not trace here: {}", String::from_utf8_lossy(&out.stderr));
            false
        }
        Err(error) => {
            println!("skipped: no strace: {error}");
            false
        }
    }
}

/// The last word of the child, and the last index it said was acknowledged.
fn heard(out: &Output, what: &str) -> (String, u64) {
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{what}: {text}\n{}", String::from_utf8_lossy(&out.stderr));
    let said = |line: &&str| ["done", "poisoned", "refused"].contains(line);
    let end = text.lines().rfind(said).unwrap_or_else(|| panic!("{what}: no last word: {text}")).to_owned();
    let acks = text.lines().filter_map(|l| l.strip_prefix("ack ")?.parse().ok());
    (end, acks.max().unwrap_or(0))
}

#[test]
fn whatever_call_fails_nothing_acknowledged_is_lost() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut poisoned, mut refused, mut done) = (0, 0, 0);
    for (m, method) in METHODS.into_iter().enumerate() {
        let file = dir.path().join(format!("log{m}"));
        match options(method).open(&file) {
            Ok(wal) => wal.close().expect("closed"),
            Err(error) => {
                println!("{method}: not here: {error}");
                continue;
            }
        }
        let mut last = 0;
        for call in ["pwritev2", "fdatasync", "pread64"] {
            for fault in ["error=EIO", "error=ENOSPC", "error=EINTR", "delay_enter=2000"] {
                for when in [1, 4, 13, 22] {
                    let inject = format!("{call}:{fault}:when={when}");
                    let what = format!("{method}, {inject}");
                    let (end, acknowledged) = heard(&run(&file, m, Some(&inject)), &what);
                    last = last.max(acknowledged);
                    match end.as_str() {
                        "poisoned" => poisoned += 1,
                        "refused" => refused += 1,
                        _ => done += 1,
                    }
                    if fault.contains("EINTR") || fault.starts_with("delay") {
                        assert_eq!(end, "done", "{what}: neither is an error");
                    }
                    let wal = options(method).open(&file).unwrap_or_else(|e| panic!("{what}: opened anew: {e}"));
                    let r = wal.replica(1);
                    assert!(r.last_index() >= last, "{what}: ends at {}, {last} was acknowledged", r.last_index());
                    for index in r.first_index()..=r.last_index() {
                        assert_eq!(r.entry(index).expect("whole").data, payload(1, index, 1, len(index)), "{what}");
                    }
                    assert_sound(&wal, &what);
                    last = r.last_index();
                }
            }
        }
        assert!(last > 0);
    }
    println!("{poisoned} poisoned, {refused} refused, {done} not disturbed");
    assert!(poisoned > 10 && refused > 0 && done > 10, "{poisoned} {refused} {done}");
}

/// Checks the injection itself: without it, the test above could not tell that the error of a sync is not swallowed.
#[test]
fn the_injection_reaches_the_log() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for (m, method) in METHODS.into_iter().enumerate().take(2) {
        let file = dir.path().join(format!("log{m}"));
        if let Err(error) = options(method).open(&file).and_then(|wal| wal.close()) {
            println!("{method}: not here: {error}");
            continue;
        }
        // Also where every write is durable by itself: pieces placed beside a frame are not.
        let (end, acknowledged) =
            heard(&run(&file, m, Some("fdatasync:error=EIO:when=6+")), "every sync from the sixth");
        assert_eq!(end, "poisoned", "{method}");
        assert!(acknowledged < BATCHES, "{method}: {acknowledged}");
    }
    let file = dir.path().join("log");
    options(SyncMethod::Fdatasync).open(&file).expect("created").close().expect("closed");
    assert_eq!(heard(&run(&file, 2, None), "undisturbed"), ("done".to_owned(), BATCHES));
    let (end, acknowledged) = heard(&run(&file, 2, Some("fdatasync:error=EIO:when=20+")), "the twentieth sync");
    assert_eq!(end, "poisoned");
    assert!(acknowledged > BATCHES && acknowledged < BATCHES + 20, "{acknowledged}");
}

/// The child: creates a log. Not a test of its own.
#[test]
fn creator() {
    let Ok(file) = std::env::var(CREATE) else { return };
    options(SyncMethod::DirectDsync).open(&file).expect("created").close().expect("closed");
}

/// A power cut at any moment leaves no file under its name, or a whole one: content before name, name before use.
#[test]
fn a_new_file_is_durable_before_it_has_its_name_and_its_name_before_it_is_used() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (file, trace) = (dir.path().join("log"), dir.path().join("trace"));
    let me = std::env::current_exe().expect("our own name");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2,linkat,flock,pwritev2", "-o"]).arg(&trace);
    command.arg(me).args(["--exact", "creator", "--test-threads=1"]).env(CREATE, &file);
    let ran = command.output().expect("strace starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(&trace).expect("traced");
    let lines: Vec<&str> = text.lines().filter(|l| l.contains(&*dir.path().to_string_lossy())).collect();
    let at = |what: &str, holds: &dyn Fn(&str) -> bool| {
        lines.iter().position(|l| holds(l)).unwrap_or_else(|| panic!("no {what} in {text}"))
    };
    let named = at("rename", &|l| l.contains("rename") || l.contains("linkat"));
    let content = at("sync of the content", &|l| l.contains("fsync(") && l.contains(".creating"));
    let last_write =
        lines[..named].iter().rposition(|l| l.contains("pwritev2(")).expect("it is written before it is named");
    let directory = named + lines[named..].iter().position(|l| l.contains("fsync(")).expect("the directory is synced");
    let used = lines[named..].iter().position(|l| l.contains("pwritev2(")).map(|i| named + i);
    assert!(content < named, "named before its content was durable: {text}");
    assert!(lines[last_write..named].iter().any(|l| l.contains("fsync(")), "written after its last sync: {text}");
    assert!(used.is_none_or(|used| directory < used), "used before its name was durable: {text}");
}

/// What the child asked of the system, a call a line, in order.
fn trace(file: &Path, method: usize) -> Vec<String> {
    let told = file.with_extension("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=write,pwritev2,fsync,fdatasync,renameat2,linkat", "-o"]).arg(&told);
    command.arg(std::env::current_exe().expect("our own name"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(FILE, file).env(METHOD, method.to_string()).stdin(Stdio::null());
    let out = command.output().expect("strace starts");
    assert_eq!(heard(&out, "traced"), ("done".to_owned(), BATCHES));
    let text = std::fs::read_to_string(&told).expect("a trace");
    // The number of the thread comes first.
    text.lines().filter_map(|l| Some(l.split_once(' ')?.1.trim_start().to_owned())).collect()
}

/// The simulated disk believes that a durable write is durable; this looks at what the system is asked for.
#[test]
fn nothing_is_acknowledged_and_no_name_given_before_the_system_was_asked_to_make_it_durable() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for (m, method) in METHODS.into_iter().enumerate() {
        let probe = dir.path().join(format!("probe{m}"));
        if let Err(error) = options(method).open(&probe) {
            println!("{method}: not here: {error}");
            continue;
        }
        let calls = trace(&dir.path().join(format!("log{m}")), m);
        let (mut unsynced, mut acks, mut named) = (0, 0, false);
        let mut name_unsynced = false;
        for call in &calls {
            let what = || format!("{method}: {call}, {unsynced} writes before it are not durable");
            if call.starts_with("pwritev2(") {
                unsynced += u64::from(!call.contains("RWF_DSYNC") && !call.contains("RWF_SYNC"));
            } else if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
                (unsynced, name_unsynced) = (0, false);
            } else if call.starts_with("renameat2(") || call.starts_with("linkat(") {
                assert_eq!(unsynced, 0, "{}", what());
                (named, name_unsynced) = (true, true);
            } else if call.starts_with("write(1, ") && call.contains("ack ") {
                acks += 1;
                assert!(unsynced == 0 && !name_unsynced, "{}", what());
            }
            if name_unsynced && call.starts_with("pwritev2(") {
                panic!("{method}: {call}: used before its name is durable");
            }
        }
        assert!(named && acks == BATCHES, "{method}: {acks} acknowledged");
    }
}

/// A write of which the system took only a part goes on with the rest; less than a block is an error, and what is not written is not
/// acknowledged.
#[test]
fn a_write_that_falls_short_is_not_taken_for_a_whole_one() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("log");
    options(SyncMethod::RwfDsync).open(&file).expect("created").close().expect("closed");
    let mut last = 0;
    for when in [2, 5, 9] {
        // The system says so, and writes nothing.
        let inject = format!("pwritev2:retval=512:when={when}");
        let (end, acknowledged) = heard(&run(&file, 1, Some(&inject)), &inject);
        assert!(end == "poisoned" || end == "refused", "{inject}: {end}");
        last = last.max(acknowledged);
        let wal = options(SyncMethod::RwfDsync).open(&file).expect("opened anew");
        assert!(wal.replica(1).last_index() >= last, "{inject}");
        assert_sound(&wal, &inject);
    }
}

/// A failed sync leaves pages that look written. Whoever opens the file next must ask the device, or it promises what is not there.
#[test]
fn what_the_system_holds_of_the_file_is_forgotten_before_it_is_read_and_its_name_durable_before_it_is_written() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for m in [0, 1, 2] {
        let (file, told) = (dir.path().join(format!("log{m}")), dir.path().join("trace"));
        options(METHODS[m]).open(&file).expect("created").close().expect("closed");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-e", "trace=pread64,pwritev2,fsync,fdatasync,fadvise64", "-P"]).arg(&file);
        command.arg("-P").arg(dir.path()).arg("-o").arg(&told).arg(std::env::current_exe().expect("our own name"));
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FILE, &file)
            .env(METHOD, m.to_string());
        assert_eq!(heard(&command.output().expect("strace starts"), "traced").0, "done");
        let text = std::fs::read_to_string(&told).expect("a trace");
        let calls: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once(' ')?.1.trim_start())).collect();
        // The probe's scratch lies behind the superblocks, and holds nothing.
        let scratch = |c: &str| c.contains(", 32768) = ");
        // Before the probe writes, the file is read only to see whether it is a log.
        let probed = calls.iter().position(|c| c.starts_with("pwritev2(")).expect("it is probed");
        assert!(calls[..probed].iter().filter(|c| c.starts_with("pread64(") && !scratch(c)).count() == 2, "{text}");
        let read =
            calls[probed..].iter().position(|c| c.starts_with("pread64(") && !scratch(c)).expect("it is read") + probed;
        let forgotten = calls.iter().position(|c| c.contains("POSIX_FADV_DONTNEED")).expect("it is forgotten");
        assert!(forgotten < read && calls[..forgotten].last().is_some_and(|c| c.starts_with("fdatasync(")), "{text}");
        // Nor does an opening know whether the creator lived to make the name durable.
        let named =
            calls.iter().position(|c| c.starts_with("fsync(") && !c.contains("log")).expect("the name is durable");
        let written = calls.iter().position(|c| c.starts_with("pwritev2(") && !scratch(c)).expect("it is written");
        assert!(named < written, "{text}");
    }
}

/// What the system did not take is offered again, from where it stopped.
#[test]
fn a_short_write_is_gone_on_with() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (file, told) = (dir.path().join("log"), dir.path().join("trace"));
    options(SyncMethod::RwfDsync).open(&file).expect("created").close().expect("closed");
    let mut command = Command::new("strace");
    // Says that one block was written, whatever was asked, and writes nothing.
    command.args(["-f", "-qq", "-e", "trace=pwritev2", "-e", "inject=pwritev2:retval=4096:when=6+", "-P"]).arg(&file);
    command.arg("-o").arg(&told).arg(std::env::current_exe().expect("our own name"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(FILE, &file).env(METHOD, "1");
    assert_eq!(heard(&command.output().expect("strace starts"), "traced").0, "done");
    let text = std::fs::read_to_string(&told).expect("a trace");
    let number = |call: &str, after: &str, until: &str| -> u64 {
        let rest = &call[call.find(after).expect("a field") + after.len()..];
        rest[..rest.find(until).expect("its end")].parse().expect("a number")
    };
    let calls: Vec<(u64, u64)> = text
        .lines()
        .filter(|l| l.contains("INJECTED"))
        .map(|l| (number(l, "}], 1, ", ","), number(l, "iov_len=", "}")))
        .collect();
    let mut pieces = 0;
    for pair in calls.windows(2).filter(|pair| pair[0].1 > 4096) {
        assert_eq!(pair[1], (pair[0].0 + 4096, pair[0].1 - 4096), "{text}");
        pieces += 1;
    }
    assert!(pieces > 8, "some writes were longer than a block: {text}");
}

/// Runs the creator, or the child on a log that is there; returns how it ended and what it said.
fn limited(program: &str, args: &[&str], test: &str, file: &Path) -> (Output, String) {
    let mut command = Command::new(program);
    command.args(args).arg(std::env::current_exe().expect("our own name"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command.env(if test == "child" { FILE } else { CREATE }, file).env(METHOD, "1");
    let out = command.output().expect("it starts");
    let said = [&out.stdout[..], &out.stderr[..]].concat();
    (out, String::from_utf8_lossy(&said).into_owned())
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect()
}

/// A process that writes beyond the limit is killed, whatever it is doing.
#[test]
fn a_limit_on_the_size_of_files_is_told_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, other) = (dir.path().join("log"), dir.path().join("other"));
    options(SyncMethod::RwfDsync).open(&file).expect("created").close().expect("closed");
    let before = std::fs::read(&file).expect("a log");
    let limit = ["-c", "ulimit -f 1 && exec \"$0\" \"$@\""];
    let (out, said) = limited("sh", &limit, "creator", &other);
    assert!(out.status.code().is_some_and(|code| code != 0), "killed, or created: {:?} {said}", out.status);
    assert!(said.contains("ulimit -f") && said.contains("creating"), "{said}");
    let (out, said) = limited("sh", &limit, "child", &file);
    assert!(out.status.success() && said.contains("refused"), "{:?} {said}", out.status);
    assert!(std::fs::read(&file).expect("a log") == before, "something was written");
    assert_eq!(names(dir.path()), ["log"]);
}

#[test]
fn where_no_file_can_be_locked_none_is_left() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let inject = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"];
    let (out, said) = limited("strace", &inject, "creator", &dir.path().join("log"));
    assert!(!out.status.success() && said.contains("locks no files"), "{said}");
    assert_eq!(names(dir.path()), [""; 0], "{said}");
}

/// Some file systems begin the reservation anew whenever a signal comes.
#[test]
fn a_reservation_that_is_interrupted_again_and_again_is_done_without() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let inject = ["60", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fallocate"];
    let inject = [&inject[..], &["-e", "inject=fallocate:error=EINTR"]].concat();
    let (out, said) = limited("timeout", &inject, "creator", &dir.path().join("log"));
    assert!(out.status.success(), "{:?} {said}", out.status);
    options(SyncMethod::RwfDsync).create(false).open(dir.path().join("log")).expect("created");
}

/// The first read after those of the superblocks is the probe's.
#[test]
fn what_direct_reads_refuse_is_read_through_the_cache() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("log");
    if let Err(error) = options(SyncMethod::DirectDsync).open(&file) {
        return println!("no direct I/O here: {error}");
    }
    let out = run(&file, 0, Some("pread64:error=EINVAL:when=3"));
    assert_eq!(heard(&out, "refused once"), ("done".to_owned(), BATCHES));
}

/// As it happens where the file is on another machine, and timers go off here meanwhile.
#[test]
fn an_opening_that_a_signal_interrupts_goes_on() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("log");
    options(SyncMethod::RwfDsync).open(&file).expect("created").close().expect("closed");
    for when in 1..=3 {
        let inject = format!("open,openat:error=EINTR:when={when}");
        assert_eq!(heard(&run(&file, 1, Some(&inject)), &inject).0, "done");
    }
}
