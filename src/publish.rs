//! Publishing: the figures of a log in use, in a small file, for observers from outside (`strandlog top`).
//!
//! An open log is locked, so nobody can look into the file itself; nor would that show how the log fares. Publishing costs committers
//! nothing but a lock now and then, held while a few numbers are copied.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
// Not from `crate::sync`: no model runs this, and nothing that is modelled waits for it.
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::wal::Wal;

/// The layout of the file. A reader that knows only another one says so.
const FORMAT: u32 = 1;
/// How many of the replicas that hold most are named.
const HOLDERS: usize = 16;
/// Looking at a million replicas takes a while: at most one part in this many of the time is spent on it.
const MOST_OF_THE_TIME: u32 = 20;

/// Publishes for as long as it lives; when it is dropped, the file is removed.
#[derive(Debug)]
#[must_use = "dropped, it publishes no more"]
pub struct Publisher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wal {
    /// Writes the log's figures into the file at `path`, now and then at the given interval, from a thread of its own. A common choice is the
    /// log's path with `.stats` appended, where `strandlog top` looks. The file is replaced as a whole (JSON, a few KiB) and never
    /// synced. Later failures are only traced: a log does not fail for its figures. With very many replicas the file is written less often than
    /// asked for, and states how often.
    ///
    /// # Errors
    /// [`Error::Option`] for an interval of zero; [`Error::Io`] if the file cannot be written or the thread cannot be started.
    pub fn publish_stats(&self, path: impl AsRef<Path>, every: Duration) -> Result<Publisher> {
        if every.is_zero() {
            let (name, given) = ("every", "0 s".to_owned());
            return Err(Error::Option { name, given, range: "longer than nothing".into() });
        }
        let file = File::at(path.as_ref());
        let said = |e| Error::io(format!("publishing to {}", file.path.display()), e);
        let (first, pause) = figures(&self.engine, every, Instant::now);
        file.write(&first).map_err(said)?;
        let (stop, told) = mpsc::channel::<()>();
        let engine = Arc::downgrade(&self.engine);
        let body = move || publish(&engine, &file, (every, pause), &told);
        let thread = thread::Builder::new().name("strandlog-stats".into()).spawn(body);
        let thread = thread.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Publisher { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs until nobody wants the figures any more, or the log is gone.
fn publish(engine: &Weak<Engine>, file: &File, (every, mut pause): (Duration, Duration), told: &mpsc::Receiver<()>) {
    while told.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let Some(engine) = engine.upgrade() else { break };
        let (next, then) = figures(&engine, every, Instant::now);
        pause = then;
        if let Err(error) = file.write(&next) {
            tracing::warn!(path = %file.path.display(), %error, "the figures could not be published");
        }
    }
    file.remove();
}

/// The file, and the temporary name under which it is written.
struct File {
    path: PathBuf,
    next: PathBuf,
}

impl File {
    fn at(path: &Path) -> Self {
        let mut next = path.to_owned().into_os_string();
        next.push(".next");
        Self { path: path.into(), next: next.into() }
    }

    /// Whole or not at all: nobody reads half of it.
    fn write(&self, text: &str) -> std::io::Result<()> {
        std::fs::write(&self.next, text)?;
        std::fs::rename(&self.next, &self.path)
    }

    fn remove(&self) {
        // It is gone already, or it stays: a reader sees how old it is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Everything that is published, as JSON, and the pause that is to follow. The JSON states the pause: a reader must not take a log that
/// publishes less often than asked for one that hangs.
fn figures(engine: &Engine, every: Duration, mut clock: impl FnMut() -> Instant) -> (String, Duration) {
    let start = clock();
    let stats = engine.stats();
    let stopped = engine.seq.lock().stopped.as_ref().map(ToString::to_string);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (holders, damaged) = look(engine);
    let pause = every.max(clock().saturating_duration_since(start).saturating_mul(MOST_OF_THE_TIME));
    let mut out = String::with_capacity(4 << 10);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"format":{FORMAT},"pid":{},"at_ms":{},"every_ms":{},"stopped":{},"sync":{},"figures":{{"#,
        std::process::id(),
        now.as_millis(),
        pause.as_millis(),
        stopped.map_or_else(|| "null".to_owned(), |why| quoted(&why)),
        stats.disk.map_or_else(|| "null".to_owned(), |disk| quoted(&disk.to_string())),
    );
    for (i, (name, value)) in stats.figures().into_iter().enumerate() {
        let _ = write!(out, r#"{}"{name}":{value}"#, comma(i));
    }
    out.push_str(r#"},"histograms":{"#);
    let histograms = [("commit_micros", &stats.commit_micros), ("device_micros", &stats.device_micros)];
    for (i, (name, histogram)) in histograms.into_iter().enumerate() {
        let _ = write!(out, r#"{}"{name}":{:?}"#, comma(i), histogram.counts());
    }
    let _ = write!(out, r#"}},"damaged_replicas":{damaged},"holders":["#);
    for (i, h) in holders.into_iter().enumerate() {
        let _ = write!(
            out,
            r#"{}{{"replica":{},"first":{},"last":{},"journal_bytes":{},"chain_bytes":{}}}"#,
            comma(i),
            h.replica,
            h.first,
            h.last,
            h.journal,
            h.chain
        );
    }
    out.push_str("]}\n");
    (out, pause)
}

fn comma(i: usize) -> &'static str {
    if i == 0 { "" } else { "," }
}

/// A replica, and what it holds.
struct Holder {
    replica: u64,
    first: u64,
    last: u64,
    journal: u64,
    chain: u64,
}

/// The replicas that hold most, the largest first; and how many replicas are damaged.
fn look(engine: &Engine) -> (Vec<Holder>, u64) {
    let (mut holders, mut damaged) = (Vec::new(), 0);
    for cell in engine.registry.all() {
        let state = cell.lock();
        if !state.exists {
            continue;
        }
        damaged += u64::from(state.state_suspect || !state.damaged.is_empty());
        let (first, last, usage) = (state.first, state.last, state.usage());
        let journal = usage.journal_bytes + usage.key_bytes;
        holders.push(Holder { replica: cell.id, first, last, journal, chain: usage.chain_bytes });
    }
    let most = |h: &Holder| (std::cmp::Reverse(h.journal + h.chain), h.replica);
    if holders.len() > HOLDERS {
        holders.select_nth_unstable_by_key(HOLDERS, most);
        holders.truncate(HOLDERS);
    }
    holders.sort_unstable_by_key(most);
    (holders, damaged)
}

/// Text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Batch;
    use crate::disk::sim::SimDisk;

    #[test]
    fn text_is_quoted_as_json_wants_it() {
        assert_eq!(quoted("a \"b\" \\ \n \u{1f}"), r#""a \"b\" \\ \u000a \u001f""#);
    }

    #[test]
    fn who_takes_long_to_look_says_how_long_the_pause_is() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let every = Duration::from_millis(500);
        for (looking, pause) in [(0, 500), (25, 500), (400, 8000)] {
            let mut time = Instant::now();
            let (text, then) = figures(&wal.engine, every, || {
                time += Duration::from_millis(looking);
                time
            });
            assert_eq!(then, Duration::from_millis(pause));
            assert!(text.contains(&format!(r#""every_ms":{pause},"#)), "{looking} ms of looking: {text}");
        }
    }

    #[test]
    fn the_figures_come_again_and_go_with_the_publisher() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log.stats");
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        assert!(wal.publish_stats(&path, Duration::ZERO).is_err());
        let missing = dir.path().join("missing").join("log.stats");
        assert!(matches!(wal.publish_stats(missing, Duration::from_secs(1)), Err(Error::Io { .. })));
        let publisher = wal.publish_stats(&path, Duration::from_millis(1)).expect("published");
        let read = || std::fs::read_to_string(&path).expect("always there");
        assert!(read().contains(r#""batches":0,"#), "{}", read());
        let entries: Vec<_> = (1..=9).map(|i| (i, 1, [7; 100])).collect();
        wal.commit(Batch::new().append(5, &entries)).expect("committed");
        let shown = r#""holders":[{"replica":5,"first":1,"last":9,"#;
        // One file may show the holders after a commit and the figures before it: the next one shows both.
        while !read().contains(shown) || !read().contains(r#""entries":9,"#) {
            thread::yield_now();
        }
        let buckets = ["0"; 24].join(", ");
        assert!(read().contains(r#""histograms":{"commit_micros":["#) && !read().contains(&buckets), "{}", read());
        drop(publisher);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing stays");
    }
}
