//! The tool is killed, or runs out of space, at any of its system calls. If `strace` is missing or may not trace, nothing is tried.

use std::path::Path;
use std::process::Command;

use rand::Rng;
use rand::rngs::SmallRng;
use strandlog::Wal;

use crate::life::make;
use crate::model::{Log, Replica, read};
use crate::support::{Ran, str, strandlog};

/// System calls that change files. `strace` does not see writes through `io_uring`, so that is refused.
const WRITES: &str = "write,pwrite64,pwritev2,fallocate,ftruncate,fsync,fdatasync";
const NAMES: &str = "renameat2,linkat,unlink";

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    /// The device is full from that call on.
    Full,
}

fn traced(dir: &Path, inject: &[String], args: &[&str]) -> Option<(Option<i32>, Ran)> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", str(&dir.join("trace")), "-e", "inject=io_uring_setup:error=EPERM"]);
    for inject in inject {
        strace.args(["-e", inject]);
    }
    let output = strace.arg(env!("CARGO_BIN_EXE_strandlog")).args(args).output().ok()?;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Some((
        output.status.code(),
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) },
    ))
}

fn holds(path: &Path, stood: &Log, what: &str) {
    let wal = Wal::options().read_only(true).open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(read(&wal).log == *stood, "{what}: {} is another log", path.display());
    let report = wal.verify(|_| ()).expect("verified");
    assert!(report.damage.is_empty() && report.accounting.is_empty(), "{what}: {report:?}");
}

/// Names of the other files beside the log.
fn beside(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("listed").map(|file| file.expect("listed").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
    names.retain(|name| !["log", "trace", "lines", "growing"].contains(&&**name));
    names.sort();
    names
}

/// Runs one command on a sound log, interrupts it, and runs it again as it says. Returns whether it was tried.
pub fn a_command(rng: &mut SmallRng) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let made = make(rng, dir);
    if !made.stood.values().all(Replica::is_whole) || made.or.is_some() {
        return false;
    }
    let (path, lines) = (dir.join("log"), dir.join("lines"));
    std::fs::write(&path, &made.image).expect("written");
    assert_eq!(strandlog(&["export", str(&path), "--out", str(&lines)]).code, 0);
    let to = dir.join("to");
    let larger = (made.image.len() as u64 + 4 * made.segment).to_string();
    let (command, args) = [
        ("create", vec!["create", str(&to), "--capacity", "3M"]),
        ("salvage", vec!["salvage", str(&path), str(&to)]),
        ("export", vec!["export", str(&path), "--out", str(&to)]),
        ("import", vec!["import", "--from", "jsonl", str(&lines), str(&to)]),
        ("grow", vec!["grow", str(&path), "--capacity", &larger]),
    ][rng.random_range(0..5)]
    .clone();
    let end = if rng.random_bool(0.6) { End::Killed } else { End::Full };
    let (set, nth) = match end {
        End::Killed if rng.random_bool(0.3) => (NAMES, rng.random_range(1..3)),
        _ => (WRITES, if rng.random_bool(0.5) { rng.random_range(1..6) } else { rng.random_range(1..60) }),
    };
    let inject = match end {
        End::Killed => format!("inject={set}:signal=KILL:when={nth}"),
        // Not `write`, which also prints messages, and not syncs, because the file system has promised the space by then.
        End::Full => format!("inject=pwrite64,pwritev2,fallocate:error=ENOSPC:when={nth}+"),
    };
    let Some((code, ran)) = traced(dir, std::slice::from_ref(&inject), &args) else { return false };
    if ran.err.contains("ptrace") || ran.err.contains("strace:") {
        return false;
    }
    let what = format!("{}, {command} with {inject}: {ran:?}, {:?}", made.what, beside(dir));
    let ended = code.is_some_and(|code| code < 100);
    assert!(end == End::Killed || matches!(code, Some(0 | 2)), "{what}");
    if command == "grow" {
        // The log is as before to anyone who looks, and the next growth completes it.
        holds(&path, &made.stood, &what);
        let again = strandlog(&args);
        let is_done = std::fs::metadata(&path).expect("there").len().to_string() == larger;
        assert!(again.code == 0 || is_done && again.err.contains("capacity"), "{what}: {again:?}");
        drop(Wal::options().create(false).open(&path).expect("opened"));
        holds(&path, &made.stood, &what);
        assert_eq!(strandlog(&["verify", str(&path)]).code, 0, "{what}");
        return true;
    }
    assert!(std::fs::read(&path).expect("read") == made.image, "{what}: it was changed");
    if end == End::Full && code == Some(2) {
        assert!(!ran.err.is_empty(), "{what}");
        // A created log may stay if all but its close was done; half an import may stay, as its name says that it is not whole.
        let kept: &[&str] = match command {
            "create" if to.exists() => &["to"],
            "import" if dir.join("to.importing").exists() => &["to.importing"],
            _ => &[],
        };
        assert_eq!(beside(dir), kept, "{what}: something is left behind");
    }
    if command == "import" {
        assert!(!to.exists() || ended && code == Some(0) || end == End::Killed, "{what}: half of it has its name");
        if to.exists() {
            holds(&to, &made.stood, &what);
        }
        let again = strandlog(&args);
        assert_eq!(again.code, 0, "{what}: {again:?}");
        assert!(beside(dir) == ["to"], "{what}: {:?} is left behind", beside(dir));
    } else if to.exists() {
        assert!(!ended || code == Some(0) || command == "create", "{what}: it failed, and its name is taken");
    } else {
        assert!(code != Some(0), "{what}: it ended well, and there is nothing");
        let mut again = strandlog(&args);
        if again.code == 2 && again.err.contains("remove it first") {
            let left = again.err.split(" is left of").next().and_then(|text| text.rsplit(' ').next()).expect("named");
            std::fs::remove_file(left).unwrap_or_else(|error| panic!("{what}: {left}: {error}"));
            again = strandlog(&args);
        }
        assert_eq!(again.code, 0, "{what}: {again:?}");
        assert!(beside(dir) == ["to"], "{what}: {:?} is left behind", beside(dir));
    }
    match command {
        "create" => holds(&to, &Log::new(), &what),
        "export" => assert!(std::fs::read(&to).expect("read") == std::fs::read(&lines).expect("read"), "{what}"),
        _ => holds(&to, &made.stood, &what),
    }
    true
}
