//! Logs to look at, and running the tool on them.

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

/// Runs the tool with an output whose reader has gone away.
pub fn strandlog_cut_off(args: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_strandlog")).args(args).stdout(writer).stderr(Stdio::piped()).spawn();
    ran(child.unwrap().wait_with_output().unwrap())
}

/// Runs the tool with an output on a full device.
pub fn strandlog_full(args: &[&str]) -> Ran {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_strandlog")).args(args).stdout(full).stderr(Stdio::piped()).spawn();
    ran(child.unwrap().wait_with_output().unwrap())
}

fn ran(Output { status, stdout, stderr }: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

/// A temporary directory, and a path in it.
pub fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.log");
    (dir, path)
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A unique payload, so that it can be found in the file.
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

/// A log that does not open: two neighbouring frames are lost, and nothing says which replicas the first of them held. Replicas 1 to 5 had an
/// entry each, and replica 1 another; the entries of 3 and 4 are gone.
pub fn refused() -> (TempDir, PathBuf) {
    let (dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).chunk_size(4 << 10).open(&path).unwrap();
    for replica in 1..=5 {
        wal.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1))])).unwrap();
    }
    wal.commit(Batch::new().append(1, &[(2, 1, payload(1, 2))])).unwrap();
    // Not closed, so there is no snapshot, only the journal.
    drop(wal);
    for replica in [3, 4] {
        // A frame begins with the block that holds its first payload.
        rot(&path, find(&path, &payload(replica, 1)) / 4096 * 4096);
    }
    (dir, path)
}

/// The offset of these bytes in the file.
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
