//! A log to look at, and the tool to look with.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use strandlog::{Batch, Wal};
use tempfile::TempDir;

/// What one run of the tool did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// Runs the tool.
pub fn strandlog(args: &[&str]) -> Ran {
    ran(Command::new(env!("CARGO_BIN_EXE_strandlog")).args(args).output().unwrap())
}

/// Runs the tool with an output that nobody reads any more.
pub fn strandlog_cut_off(args: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_strandlog")).args(args).stdout(writer).stderr(Stdio::piped()).spawn();
    ran(child.unwrap().wait_with_output().unwrap())
}

/// Runs the tool with an output that takes nothing, as a full device.
pub fn strandlog_full(args: &[&str]) -> Ran {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_strandlog")).args(args).stdout(full).stderr(Stdio::piped()).spawn();
    ran(child.unwrap().wait_with_output().unwrap())
}

fn ran(Output { status, stdout, stderr }: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

/// A directory with a path in it.
pub fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.log");
    (dir, path)
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A payload that is found in the file by searching for it.
pub fn payload(replica: u64, index: u64) -> Vec<u8> {
    format!("payload of replica {replica} entry {index};").repeat(20).into_bytes()
}

/// A log of three replicas: 1 in the journal, 2 in a chain, 3 empty after a snapshot. Closed.
pub fn filled() -> (TempDir, PathBuf) {
    let (dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).chunk_size(4 << 10).direct_threshold(8 << 10).open(&path).unwrap();
    let entries = |replica, n| (1..=n).map(|i| (i, 1 + i / 5, payload(replica, i))).collect::<Vec<_>>();
    let mut batch = Batch::new();
    batch.append(1, &entries(1, 5)).put(1, b"vote", b"\x01\x02").append(2, &entries(2, 20));
    batch.install_snapshot(3, 100, 7).put(3, b"applied", b"one hundred");
    wal.commit(&mut batch).unwrap();
    wal.close().unwrap();
    (dir, path)
}

/// A log that does not open: two neighbouring frames are lost, and who was in the first of them nobody says. Of replicas 1 to 5, each with
/// an entry, and one more of 1, the entries of 3 and 4 are gone.
pub fn refused() -> (TempDir, PathBuf) {
    let (dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).chunk_size(4 << 10).open(&path).unwrap();
    for replica in 1..=5 {
        wal.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1))])).unwrap();
    }
    wal.commit(Batch::new().append(1, &[(2, 1, payload(1, 2))])).unwrap();
    // Not closed: nothing but the journal tells.
    drop(wal);
    for replica in [3, 4] {
        // A frame begins with the block that holds its first payload.
        rot(&path, find(&path, &payload(replica, 1)) / 4096 * 4096);
    }
    (dir, path)
}

/// Where these bytes lie in the file.
pub fn find(path: &Path, needle: &[u8]) -> usize {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(needle.len()).position(|w| w == needle).expect("it is in the file")
}

/// Changes one byte of the file.
pub fn rot(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}
