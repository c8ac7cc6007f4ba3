//! Lives of a log in a real file, each in a process of its own that is killed with SIGKILL at some moment. Between them the file grows, is
//! copied, is looked at by readers, and is opened with other options.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::{Batch, Error, Options, RecoveryMode, Wal, grow};

use super::check;
use super::disk::{File, options};
use super::model::{World, batch};
use super::steps::{Shape, Steps};

const CHILD: &str = "STRANDLOG_DOCS_CHILD";
/// Each thread has replicas of its own and waits for each of its batches, so at most one batch a thread is in doubt.
const THREADS: u64 = 3;
const IDS: u64 = 4;

fn file() -> File {
    File { capacity: 3 << 20, chunk: 4096, segment: 64 << 10, cap: 2 << 20 }
}

fn is_of(thread: u64) -> impl Fn(u64) -> bool {
    move |id| id / 100 == thread
}

fn steps(seed: u64, life: u64, thread: u64) -> Steps {
    let ids = (0..IDS).map(|n| thread * 100 + n).collect();
    let shape = Shape { ids, live: file().capacity / 8 / THREADS, max_value: 12_000, max_entry: 9000, nonsense: 0 };
    let mut steps = Steps::new(seed * 1_000_003 + life * 101 + thread, shape);
    steps.begin_life(life);
    steps
}

fn opening(seed: u64, life: u64) -> Options {
    let mut rng = StdRng::seed_from_u64(seed ^ life << 32);
    file().create(options(&mut rng)).queue_bytes(1 << 20)
}

/// The child: creates or opens the file and works until it is killed, or makes the file grow. It says what was acknowledged.
pub fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = what.splitn(4, ' ').collect();
    let number = |n: usize| words[n].parse::<u64>().expect("a number");
    let (seed, life, path) = (number(1), number(2), Path::new(words[3]));
    let say = |text: String| {
        // In one write: the parent hears a whole line, or does not believe it.
        let line = format!("\nsays {text}\n");
        std::io::stdout()
            .write_all(line.as_bytes())
            .and_then(|()| std::io::stdout().flush())
            .expect("the parent listens");
    };
    if words[0] == "grow" {
        let grown = grow(path, seed, |p| say(format!("0 0 {}", p.done)));
        return say(format!("0 0 {grown:?}").replace(' ', ""));
    }
    let wal = opening(seed, life).progress(move |p| say(format!("0 0 {}", p.done))).open(path).expect("the log opens");
    let found = check::read(&wal).expect("readable");
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let (wal, mut world, mut steps) = (&wal, found.of(is_of(thread)), steps(seed, life, thread));
            scope.spawn(move || {
                for n in 1.. {
                    let ops = steps.draw(&world);
                    match wal.commit(batch(&ops)) {
                        Ok(_) => world = world.after(&ops).expect("it was taken"),
                        Err(Error::Full(_) | Error::BatchTooLarge { .. }) => {
                            say(format!("{thread} {n} refused"));
                            continue;
                        }
                        Err(error) => panic!("{thread}: {error}: {ops:?}"),
                    }
                    say(format!("{thread} {n} durable"));
                }
            });
        }
    });
}

struct Parent {
    seed: u64,
    rng: StdRng,
    path: PathBuf,
    capacity: u64,
}

/// What a child said: by thread the newest batch, and which batches were refused.
#[derive(Default)]
struct Said {
    lines: u64,
    newest: [u64; THREADS as usize + 1],
    refused: HashSet<(u64, u64)>,
}

impl Parent {
    /// Runs a child until it has said so many lines, kills it, and hears all that it still said.
    fn run(&mut self, what: &str, seed: u64, life: u64, lines: u64) -> Said {
        let name = format!("{what} {seed} {life} {}", self.path.display());
        let mut child = Command::new(std::env::current_exe().expect("our own name"))
            .args(["--exact", "kill_child", "--nocapture", "--test-threads=1"])
            .env(CHILD, name)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        if lines == 0 {
            child.kill().expect("killed");
        }
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (mut said, mut line) = (Said::default(), String::new());
        while out.read_line(&mut line).expect("read") > 0 {
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            if let ["says", thread, n, how] = words[..]
                && line.ends_with('\n')
            {
                let (thread, n) = (thread.parse::<u64>().expect("a number"), n.parse().expect("a number"));
                said.newest[thread as usize] = n;
                if how == "refused" {
                    said.refused.insert((thread, n));
                }
                said.lines += 1;
                if said.lines == lines {
                    // A second opening, for reading or writing, is refused at once.
                    let second = opening(self.seed, life).read_only(self.rng.random()).open(&self.path);
                    assert!(what != "work" || thread == 0 || matches!(second, Err(Error::Locked { .. })), "{second:?}");
                    drop(second);
                    child.kill().expect("killed");
                }
            }
            line.clear();
        }
        let status = child.wait().expect("it ended");
        assert!(!status.success() || what == "grow", "it ended by itself");
        assert!(status.code().is_none_or(|code| code == 0), "seed {}, life {life}: the child failed", self.seed);
        said
    }

    /// What each thread's replicas may hold: all that it said is durable, and at most one batch more.
    fn may(&self, life: u64, found: &World, said: &Said) -> Vec<[World; 2]> {
        let of = |thread: u64| {
            let (mut world, mut steps) = (found.of(is_of(thread)), steps(self.seed, life, thread));
            for n in 1..=said.newest[thread as usize] {
                let ops = steps.draw(&world);
                if !said.refused.contains(&(thread, n)) {
                    world = world.after(&ops).expect("it was taken");
                }
            }
            let next = world.after(&steps.draw(&world)).expect("it makes sense");
            [world.as_found(), next.as_found()]
        };
        (1..=THREADS).map(of).collect()
    }

    /// Two readers at once, in different modes, change nothing and see the same; a writer beside them is refused.
    fn readers(&mut self, label: &str) -> World {
        let read = |mode| Wal::options().recovery_mode(mode).read_only(true).open(&self.path);
        let bytes = std::fs::read(&self.path).expect("readable");
        let one = read(RecoveryMode::TolerateTornTail).unwrap_or_else(|e| panic!("{label}: {e}"));
        let other = read(RecoveryMode::Salvage).unwrap_or_else(|e| panic!("{label}: {e}"));
        let writer = Wal::options().open(&self.path);
        assert!(matches!(writer, Err(Error::Locked { .. })), "{label}: {writer:?}");
        let seen = check::read(&one).unwrap_or_else(|e| panic!("{label}: {e}"));
        let same = check::read(&other).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert!(seen == same, "{label}: {}", seen.difference(&same));
        assert!(matches!(other.commit(Batch::new().put(1, b"k", b"v")), Err(Error::ReadOnly)));
        drop((one, other));
        assert!(bytes == std::fs::read(&self.path).expect("readable"), "{label}: a reader wrote");
        seen
    }

    /// Makes the file grow, which may be interrupted: it opens with its old capacity or with the new one.
    fn grow(&mut self, life: u64) {
        let to = self.capacity + self.rng.random_range(1..4) * (64 << 10);
        let lines = self.rng.random_range(0..4);
        self.run("grow", to, life, lines);
        let is = Wal::options().read_only(true).open(&self.path).expect("it opens").capacity();
        assert!(is == self.capacity || is == to, "life {life}: {is}, not {} or {to}", self.capacity);
        if is != to && self.rng.random() {
            let grown = grow(&self.path, to, |_| ()).expect("growing goes on");
            assert_eq!((grown.from, grown.to), (is, to));
            self.capacity = to;
        } else {
            self.capacity = is;
        }
    }
}

pub fn lives(seed: u64, lives: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let mut parent = Parent { seed, rng: StdRng::seed_from_u64(seed), path, capacity: file().capacity };
    let (mut found, mut heard) = (World::default(), 0);
    for life in 1..=lives {
        let label = format!("seed {seed}, life {life}");
        let lines = [0, 3, 20, 100, 400][parent.rng.random_range(0..5)];
        let said = parent.run("work", seed, life, lines);
        heard += said.lines;
        if !parent.path.exists() {
            // Killed before it had made the file, which is there whole or not at all.
            continue;
        }
        let may = parent.may(life, &found, &said);
        let seen = parent.readers(&label);
        if parent.rng.random_ratio(1, 4) {
            parent.grow(life);
        }
        if parent.rng.random_ratio(1, 6) {
            // Nobody has the file open, so a copy is as good.
            let copy = dir.path().join(format!("copy-{life}"));
            std::fs::copy(&parent.path, &copy).expect("copied");
            std::fs::remove_file(&parent.path).expect("removed");
            parent.path = copy;
        }
        let wal = opening(seed, life + 1000).create(false).open(&parent.path);
        let wal = wal.unwrap_or_else(|e| panic!("{label}: {e}"));
        found = check::read(&wal).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert!(found == seen, "{label}: as readers saw it: {}", seen.difference(&found));
        for (thread, may) in (1..).zip(&may) {
            let is = found.of(is_of(thread));
            let differ = || format!("{}\n--{}", may[0].difference(&is), may[1].difference(&is));
            assert!(may.contains(&is), "{label}: thread {thread}, {}: {}", said.newest[thread as usize], differ());
        }
        check::figures(&wal, &found, &label);
        assert_eq!((wal.capacity(), wal.stats().chunk_size), (parent.capacity, 4096), "{label}");
        check::sound(&wal, &found, None, parent.rng.random(), &label).unwrap_or_else(|e| panic!("{label}: {e}"));
        if parent.rng.random() {
            wal.close().unwrap_or_else(|e| panic!("{label}: {e}"));
            // What was closed opens in the strictest mode.
            let strict = Wal::options().recovery_mode(RecoveryMode::Strict).open(&parent.path);
            let strict = check::read(&strict.unwrap_or_else(|e| panic!("{label}: strict: {e}"))).expect("readable");
            assert!(strict == found, "{label}: strict: {}", found.difference(&strict));
        }
    }
    heard
}
