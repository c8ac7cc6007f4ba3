//! The rows of the race. A row's name says its parameters: `t64-256` is 64 threads appending 256 bytes each.

mod append;
pub use append::bare_file;
#[cfg(feature = "rocksdb")]
mod beside;
mod churn;
mod open;
mod read;
mod shape;

use std::path::PathBuf;

use crate::measure::Figures;
use crate::payload::Payload;
use crate::stores::{self, Store};

/// What one measurement is given.
pub struct Context {
    pub store: String,
    pub dir: PathBuf,
    /// Which of the row's processes this is.
    pub phase: usize,
    pub seconds: f64,
    pub scale: f64,
    pub notes: bool,
    pub payload: Payload,
}

impl Context {
    pub fn open(&self, capacity: u64) -> Box<dyn Store> {
        stores::open(&self.dir, &self.store, capacity)
    }

    pub fn is_raw(&self) -> bool {
        self.store == "raw"
    }

    pub fn note(&self, store: &dyn Store) {
        if self.notes {
            eprintln!("   {}: {}", self.store, store.notes());
        }
    }

    /// MiB that the files take on the disk; and, for a store that writes its file whole beforehand, in how many of them something is alive.
    pub fn footprint(&self, store: &dyn Store) -> Figures {
        let mib = |bytes| bytes as f64 / f64::from(1 << 20);
        let disk = Figures::default().with("disk MiB", mib(crate::measure::occupied(&self.dir)));
        match store.occupied() {
            Some(alive) => disk.with("alive MiB", mib(alive)),
            None => disk,
        }
    }
}

/// A row and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// So many threads, each appending one entry of so many bytes and waiting.
    Threads { threads: u64, bytes: usize },
    /// One thread that never waits, with so many appends outstanding.
    Window(u64),
    /// Batches of one entry to each of so many replicas, from so many threads.
    Batch { replicas: u64, threads: u64 },
    /// 10,000 replicas with a live tail of 20 to 40 entries, one in a hundred never truncated.
    Churn(churn::Churn),
    /// Small entries that are never truncated.
    Keep,
    /// A tenth of the replicas stop truncating, and catch up by reading it all.
    Slow,
    /// Hard state alone, 10,000 replicas, so many threads with so many replicas a commit.
    State { threads: u64, replicas: u64 },
    /// Reading what was written interleaved.
    Read,
    /// Opening.
    Open(open::Open),
    /// The same work half full and at 95 %.
    Full,
    /// The same work on so many replicas.
    Replicas(u64),
    /// Values of so many bytes, logged and applied to a RocksDB that is not synced.
    #[cfg(feature = "rocksdb")]
    Beside(usize),
}

/// How many replicas there are, where the row does not say.
pub const REPLICAS: u64 = 1000;

const GROUPS: &[(&str, &str, &[&str])] = &[
    (
        "short",
        "a row of each kind, for the README",
        &[
            "t1-256",
            "t16-256",
            "t64-256",
            "t256-256",
            "t64-4k",
            "t1-64k",
            "t2-1m",
            "window-10000",
            "batch-500x2",
            "churn-t64",
            "churn-b512",
            "state-t64",
            "keep",
            "read",
            "open-unclean",
            "open-clean",
            "idle-100k",
        ],
    ),
    (
        "append",
        "blocking appends",
        &[
            "t1-128", "t1-256", "t1-4k", "t1-64k", "t1-1m", "t4-256", "t4-4k", "t16-256", "t16-4k", "t64-128",
            "t64-256", "t64-4k", "t64-64k", "t256-256", "t256-4k", "t2-64k", "t2-1m",
        ],
    ),
    ("window", "appends that nobody waits for", &["window-1", "window-100", "window-1000", "window-10000"]),
    (
        "batch",
        "batches over many replicas",
        &["batch-10x1", "batch-10x2", "batch-100x1", "batch-100x2", "batch-500x2", "batch-1000x1", "batch-1000x2"],
    ),
    ("churn", "live tails", &["churn-t32", "churn-t64", "churn-b512", "churn-long", "keep", "slow"]),
    ("state", "hard state alone", &["state-t1", "state-t64", "state-b100"]),
    ("open", "opening", &["open-unclean", "open-clean", "open-large", "idle-100k", "idle-1m"]),
    (
        "scale",
        "the same work as things grow",
        &["replicas-10", "replicas-100", "replicas-1000", "replicas-10000", "replicas-100000", "full"],
    ),
    ("beside", "beside a state machine that is not synced (feature `rocksdb`)", BESIDE),
];

#[cfg(feature = "rocksdb")]
const BESIDE: &[&str] = &["beside-1k", "beside-16k", "beside-64k", "beside-1m"];
#[cfg(not(feature = "rocksdb"))]
const BESIDE: &[&str] = &[];

const ALONE: &[&str] = &["read"];

/// The row of a name.
pub fn find(name: &str) -> Option<Row> {
    let (kind, rest) = name.split_once('-').unwrap_or((name, ""));
    let number = |s: &str| s.parse::<u64>().ok().filter(|n| *n > 0);
    Some(match (kind, rest) {
        ("churn", _) => Row::Churn(churn::Churn::named(rest)?),
        ("open" | "idle", _) => Row::Open(open::Open::named(name)?),
        ("keep", "") => Row::Keep,
        ("slow", "") => Row::Slow,
        ("read", "") => Row::Read,
        ("full", "") => Row::Full,
        ("window", n) => Row::Window(number(n)?),
        ("replicas", n) => Row::Replicas(number(n)?),
        ("batch", n) => {
            let (replicas, threads) = n.split_once('x')?;
            Row::Batch { replicas: number(replicas)?, threads: number(threads)? }
        }
        ("state", n) if n.starts_with('t') => Row::State { threads: number(&n[1..])?, replicas: 1 },
        ("state", n) => Row::State { threads: 2, replicas: number(n.strip_prefix('b')?)? },
        #[cfg(feature = "rocksdb")]
        ("beside", size) => Row::Beside(bytes_of(size)?),
        (t, size) => Row::Threads { threads: number(t.strip_prefix('t')?)?, bytes: bytes_of(size)? },
    })
}

/// `256`, `64k`, `1m`.
fn bytes_of(size: &str) -> Option<usize> {
    let unit = match size.chars().last()? {
        'k' => 1 << 10,
        'm' => 1 << 20,
        _ => 1,
    };
    size.trim_end_matches(['k', 'm']).parse::<usize>().ok().filter(|n| *n > 0).map(|n| n * unit)
}

fn size_of(bytes: usize) -> String {
    match bytes {
        b if b % (1 << 20) == 0 => format!("{}m", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}k", b >> 10),
        b => b.to_string(),
    }
}

fn words(bytes: usize) -> String {
    match bytes {
        b if b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// The rows of names and of groups.
pub fn select(names: &[String]) -> Vec<Row> {
    let known = |name: &str| find(name).unwrap_or_else(|| panic!("no such row: {name}; --list shows them"));
    let of_group = |name: &String| GROUPS.iter().find(|g| g.0 == name && !ALONE.contains(&g.0));
    names
        .iter()
        .flat_map(|name| match of_group(name) {
            Some((_, _, rows)) => rows.iter().map(|r| known(r)).collect(),
            None if name == "all" => all(),
            None => vec![known(name)],
        })
        .collect()
}

fn all() -> Vec<Row> {
    let rows = GROUPS.iter().skip(1).flat_map(|g| g.2).chain(ALONE);
    rows.map(|name| find(name).expect("a row of our own")).collect()
}

/// Shows groups, rows and contestants.
pub fn list() {
    for (name, what, rows) in GROUPS {
        println!("{name:>8}: {what}\n          {}", rows.join(" "));
    }
    println!("\n          alone: {}", ALONE.join(" "));
    println!("\ncontestants:");
    for (name, what) in stores::NAMES {
        println!("{name:>20}: {what}");
    }
}

impl Row {
    pub fn name(&self) -> String {
        match self {
            Row::Threads { threads, bytes } => format!("t{threads}-{}", size_of(*bytes)),
            Row::Window(n) => format!("window-{n}"),
            Row::Batch { replicas, threads } => format!("batch-{replicas}x{threads}"),
            Row::Churn(churn) => format!("churn-{}", churn.name()),
            Row::Keep => "keep".into(),
            Row::Slow => "slow".into(),
            Row::State { threads, replicas: 1 } => format!("state-t{threads}"),
            Row::State { replicas, .. } => format!("state-b{replicas}"),
            Row::Read => "read".into(),
            Row::Open(open) => open.name().into(),
            Row::Full => "full".into(),
            Row::Replicas(n) => format!("replicas-{n}"),
            #[cfg(feature = "rocksdb")]
            Row::Beside(bytes) => format!("beside-{}", size_of(*bytes)),
        }
    }

    /// The row in words, for a picture.
    pub fn title(&self) -> String {
        let threads = |n: &u64| if *n == 1 { "1 thread".into() } else { format!("{n} threads") };
        match self {
            Row::Threads { threads: n, bytes } => format!("append, {}, {}", threads(n), words(*bytes)),
            Row::Window(n) => format!("append, 1 thread, {n} outstanding"),
            Row::Batch { replicas, threads: n } => format!("batches of {replicas} replicas, {}", threads(n)),
            Row::Churn(churn) => format!("live tails, {}", churn.title()),
            Row::Keep => "append, never truncated".into(),
            Row::Slow => "beside slow followers".into(),
            Row::State { threads: n, replicas: 1 } => format!("hard states, {}", threads(n)),
            Row::State { replicas, .. } => format!("hard states, batches of {replicas}"),
            Row::Read => "scan of whole logs, warm".into(),
            Row::Open(open) => format!("open {}", open.title()),
            Row::Full => "append, 95 % full".into(),
            Row::Replicas(n) => format!("append, {n} replicas, 16 threads"),
            #[cfg(feature = "rocksdb")]
            Row::Beside(bytes) => format!("beside a state machine, {}", words(*bytes)),
        }
    }

    /// Whether a contestant can do this at all.
    pub fn takes(&self, store: &str) -> bool {
        let strand = store.starts_with("strandlog");
        match (self, store) {
            (Row::Threads { .. }, "raw") => true,
            (Row::Churn(_), "raw") => true,
            (_, "raw") => false,
            (Row::Threads { .. } | Row::Batch { .. } | Row::State { .. } | Row::Churn(_), "shared") => true,
            (_, "shared") => false,
            (Row::Full, _) => strand,
            (Row::Threads { .. } | Row::Batch { .. }, "wal-db") => true,
            (Row::Threads { .. }, "raft-log" | "walrus") => true,
            (_, "wal-db" | "raft-log" | "walrus") => false,
            _ => true,
        }
    }

    /// In how many processes it is measured.
    pub fn phases(&self) -> usize {
        match self {
            Row::Open(_) | Row::Read | Row::Slow => 2,
            _ => 1,
        }
    }

    pub fn measure(&self, ctx: &Context) -> Figures {
        match *self {
            Row::Threads { threads, bytes } if ctx.is_raw() => append::raw(ctx, threads, bytes),
            Row::Churn(_) if ctx.is_raw() => append::raw(ctx, 1, 64 << 10),
            Row::Threads { threads, bytes } => append::threads(ctx, threads, bytes, REPLICAS),
            Row::Window(n) => append::window(ctx, n),
            Row::Batch { replicas, threads } => append::batches(ctx, replicas, threads),
            Row::Churn(churn) => churn::churn(ctx, churn),
            Row::Keep => churn::keep(ctx),
            Row::Slow => churn::slow(ctx),
            Row::State { threads, replicas } => append::state(ctx, threads, replicas),
            Row::Read => read::read(ctx),
            Row::Open(open) => open::open(ctx, open),
            Row::Full => shape::full(ctx),
            Row::Replicas(n) => append::threads(ctx, 16, 256, n),
            #[cfg(feature = "rocksdb")]
            Row::Beside(bytes) => beside::beside(ctx, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        for row in all().into_iter().chain(select(&["short".into()])) {
            assert_eq!(find(&row.name()), Some(row));
        }
    }
}
