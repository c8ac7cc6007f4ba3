//! A real process under load is killed with SIGKILL, again and again, on one real file. Whatever it was told is durable is there
//! afterwards.
//!
//! `STRANDLOG_KILLS=n` changes the number of rounds.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use strandlog::{Batch, Options, Placement, Wal};

use support::{assert_sound, env, payload};

const THREADS: u64 = 4;
const REPLICAS_EACH: u64 = 5;
const FILE: &str = "STRANDLOG_KILL9_FILE";

fn options(placement: Placement) -> Options {
    // Small, so that the journal wraps and cleaning never stops.
    Wal::options()
        .capacity(16 << 20)
        .chunk_size(4096)
        .segment_size(256 << 10)
        .direct_threshold(16 << 10)
        .recent_bytes(1 << 20)
        .placement(placement)
}

fn placement(round: u64) -> Placement {
    support::PLACEMENTS[round as usize % 3]
}

/// The length of an entry follows from its place, so the parent needs no list.
fn len(replica: u64, index: u64) -> usize {
    match (replica ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 40 {
        0 => 20_000,
        1 => 5000,
        n => n as usize * 20,
    }
}

/// The child: works until it is killed, and says what was acknowledged. Not a test of its own.
#[test]
fn child() {
    let Ok(file) = std::env::var(FILE) else { return };
    let round = env("STRANDLOG_KILL9_ROUND", 0);
    let wal = options(placement(round)).open(&file).expect("the log opens");
    let out = Mutex::new(std::io::stdout());
    std::thread::scope(|scope| {
        for t in 0..THREADS {
            let (wal, out) = (&wal, &out);
            scope.spawn(move || work(wal, t, round, out));
        }
    });
}

fn work(wal: &Wal, thread: u64, round: u64, out: &Mutex<std::io::Stdout>) {
    let mine = |n: u64| thread * REPLICAS_EACH + n % REPLICAS_EACH;
    let mut batch = Batch::new();
    for n in 0.. {
        // Two replicas in one batch: both or neither.
        let pair = [mine(n), mine(n + 1)];
        let mut said = String::new();
        for replica in pair {
            let (first, last) = wal.replica(replica).bounds();
            let count = 1 + (n + replica) % 4;
            // Now and then a suffix is overwritten; the term says in which round and turn.
            let from = if n % 17 == 3 && last > first { last } else { last + 1 };
            let term = round << 32 | n;
            let entries: Vec<_> =
                (from..from + count).map(|i| (i, term, payload(replica, i, term, len(replica, i)))).collect();
            batch.append(replica, &entries).put(replica, b"hard_state", &(from + count - 1).to_le_bytes());
            // One replica of each thread lags behind.
            let kept = if replica % REPLICAS_EACH == 0 { 400 } else { 20 };
            let first = first.max((from + count).saturating_sub(kept));
            batch.truncate_prefix(replica, first);
            said += &format!("{replica} {first} {} {term} ", from + count - 1);
        }
        wal.commit(&mut batch).expect("committed");
        // One line in one write: the parent sees a whole line or ignores it.
        let mut out = out.lock().expect("alive");
        writeln!(out, "ack {said}").and_then(|()| out.flush()).expect("the parent listens");
    }
}

/// Replica: first, last, term of the last.
type Acknowledged = BTreeMap<u64, (u64, u64, u64)>;

fn run_and_kill(file: &Path, round: u64, acks: u64, told: &mut Acknowledged) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("our own name"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env("STRANDLOG_KILL9_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut heard = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).expect("read") == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        // The last line may be cut; what it says was acknowledged nevertheless, and is not asked for.
        let Some(said) = text.find("ack ").map(|at| &text[at + 4..]).filter(|t| t.ends_with('\n')) else { continue };
        let numbers: Vec<u64> = said.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        for part in numbers.chunks_exact(4) {
            told.insert(part[0], (part[1], part[2], part[3]));
        }
        heard += 1;
        if heard == 1 + round * 31 % acks {
            // A second opening is refused at once, and disturbs nobody.
            let second = options(placement(round)).open(file);
            assert!(matches!(second, Err(strandlog::Error::Locked { .. })), "round {round}: {second:?}");
        }
        if heard == acks {
            // In mid-load: what it says until it is dead still counts.
            child.kill().expect("killed");
        }
    }
    child.wait().expect("it ended");
    heard
}

/// Asserts that everything acknowledged is there. What is beyond may be there, and is whole then.
fn check(wal: &Wal, told: &Acknowledged, round: u64) {
    for (&replica, &(first, last, term)) in told {
        let r = wal.replica(replica);
        let (f, l) = r.bounds();
        assert!(f >= first, "round {round}: replica {replica}: a truncation to {first} was undone: {f}");
        // Unacknowledged batches of the pair may have followed, each by at most four entries or an overwritten one.
        assert!(l >= last, "round {round}: replica {replica} ends at {l}, {last} was acknowledged");
        if f <= last {
            let found = r.term(last).expect("held");
            assert!(found >= term, "round {round}: replica {replica} entry {last} has term {found}, not {term}");
        }
        for e in r.entries(f..l + 1, usize::MAX).expect("readable") {
            let want = payload(replica, e.index, e.term, len(replica, e.index));
            assert!(e.data == want, "round {round}: replica {replica} entry {}: wrong bytes", e.index);
        }
        let state = r.get(b"hard_state").expect("readable").expect("it was put with the entries");
        assert_eq!(*state, l.to_le_bytes(), "round {round}: replica {replica}: a batch in halves");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("log");
    let mut told = Acknowledged::new();
    let mut heard = 0;
    for round in 0..env("STRANDLOG_KILLS", 21) {
        heard += run_and_kill(&file, round, 30 + round * 7919 % 400, &mut told);
        let wal = options(placement(round)).open(&file).unwrap_or_else(|e| panic!("round {round}: {e}"));
        check(&wal, &told, round);
        assert_sound(&wal, "after the kill");
        // What recovery shows is acknowledged from now on.
        for &replica in told.clone().keys() {
            let r = wal.replica(replica);
            let (f, l) = r.bounds();
            told.insert(replica, (f, l, r.term(l).expect("held")));
        }
        if round % 2 == 0 {
            wal.close().expect("closed");
        }
    }
    println!("{heard} acknowledgements heard");
    assert_eq!(told.len() as u64, THREADS * REPLICAS_EACH);
}
