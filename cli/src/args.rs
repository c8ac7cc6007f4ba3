//! What can be asked for.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::size;

/// Create, look into, verify, measure, watch, grow, move and save strandlog files.
#[derive(Debug, Parser)]
#[command(name = "strandlog", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Args {
    /// Machine-readable output: one JSON object, or one a line for `dump`, `export` and `top`.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0, all is well; 1, damage was found, or not everything could be saved, exported or imported as it was; \
2, the request makes no sense, or could not be carried out; 141, whoever read the output went away before its end, and nothing was wrong until then.";

/// Below the help of every command that takes a size.
const SIZES: &str = "A SIZE is in bytes, or has a suffix: 64K, 4M, 1G, 2T.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a log: all of the file is written now, so that no later write has to wait for an allocation.
    #[command(after_help = SIZES)]
    Create(Create),
    /// Show what a log holds, and where its space went.
    Info(Info),
    /// Draw the file: whose each part of it is, and how much of that is dead.
    Map(Map),
    /// Show replicas, and their entries.
    ///
    /// With --json a line for each replica, each entry, and what is damaged or not there of what was asked for. Values and payloads are
    /// hexadecimal. A key is itself where it is printable text; `hex:` and hexadecimal where it is not, or begins with `hex:`.
    Dump(Dump),
    /// Read everything back and compare it with its checksums, also in a log that does not open. Exits with 1, and names the damage, if
    /// there is any.
    Verify(Verify),
    /// Watch a log that another process has open, and that publishes its figures.
    Top(Top),
    /// Measure which way of making writes durable a device likes.
    #[command(after_help = SIZES)]
    Probe(Probe),
    /// Measure the log on your own disk, under work that you choose.
    #[command(after_help = SIZES)]
    Bench(Bench),
    /// Write everything that a log holds as JSON lines, for other programs and for `import`.
    ///
    /// A line for the log, then for each replica a line, its keys and its entries, and a last line with how many there were; bytes are
    /// base64. What a state machine reported to hold durably is `applied` in its replica's line. What cannot be read stands as a line with
    /// `lost` where it would be.
    ///
    /// The marks of a migration (`DualWrite`) are left out, and standard error says so where there are some: a migration goes on with a copy
    /// made by `salvage`, not with an import.
    Export(Export),
    /// Copy an export, or another kind of log, into a log, and compare. Run again after an interruption, it goes on.
    ///
    /// A log that is made is called FILE.importing until all of it is there and compared: it is no log before.
    ///
    /// A replica that is there with other keys, or another report of its state machine, than an earlier import of the same left is not
    /// written to, and called different: a vote that was cast meanwhile is not taken back. Exits with 1 then.
    #[command(after_help = SIZES)]
    Import(Import),
    /// Make a log longer that nobody has open. What it holds is not touched.
    #[command(after_help = SIZES)]
    Grow(Grow),
    /// Copy what can still be proved into a fresh log, also from one that does not open. Exits with 1, and names it, if anything is lost.
    #[command(after_help = SIZES)]
    Salvage(Salvage),
    /// Write the completions for a shell.
    Completions(Completions),
    /// Write the manual page.
    Man(Man),
}

/// What to create.
#[derive(Debug, ClapArgs)]
pub struct Create {
    /// The file to create; it must not exist.
    pub path: PathBuf,
    /// Size of the file.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1G")]
    pub capacity: u64,
    /// Bytes a chunk, the unit in which a replica's space comes and goes: a power of two. An open log takes 10 bytes of memory for each.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32, default_value = "64K")]
    pub chunk_size: u32,
    /// Bytes a journal segment: a power of two. Chosen by capacity if not given.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32)]
    pub segment_size: Option<u32>,
    /// The most bytes that the journal may grow to, and so what an opening has to read. An eighth of the capacity, from 512M to 4G, at most half, if not given;
    /// never less than a sixteenth, nor more than 4,000 segments, whatever is asked for.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub journal_cap: Option<u64>,
}

/// What to show.
#[derive(Debug, ClapArgs)]
pub struct Info {
    /// The log.
    pub path: PathBuf,
    /// How many of the largest replicas to list.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
}

/// What to draw, and where.
#[derive(Debug, ClapArgs)]
pub struct Map {
    /// The log.
    pub path: PathBuf,
    /// Draw a picture into this file, for browsers and documents.
    #[arg(long, value_name = "OUT")]
    pub svg: Option<PathBuf>,
    /// The same as PNG (a build with `--features png`).
    #[arg(long, value_name = "OUT")]
    pub png: Option<PathBuf>,
    /// Replace files of these names that are there, whatever they are, but for logs.
    #[arg(long)]
    pub force: bool,
    /// Columns in the terminal; all that it has if not given.
    #[arg(long, value_name = "N")]
    pub width: Option<u16>,
}

/// What to dump.
#[derive(Debug, ClapArgs)]
pub struct Dump {
    /// The log.
    pub path: PathBuf,
    /// This replica only; may be given more than once.
    #[arg(long, value_name = "ID")]
    pub replica: Vec<u64>,
    /// Every entry: index, term, length, and how its payload begins.
    #[arg(long)]
    pub entries: bool,
    /// Payloads and values whole, in hexadecimal. Implies --entries.
    #[arg(long)]
    pub hex: bool,
    /// Entries from this index on. Implies --entries.
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// Entries up to this index. Implies --entries.
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,
}

/// What to verify.
#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// The log.
    pub path: PathBuf,
}

/// What to export.
#[derive(Debug, ClapArgs)]
pub struct Export {
    /// The log.
    pub path: PathBuf,
    /// Write into this file, which must not exist. Standard output if not given.
    #[arg(long, value_name = "OUT")]
    pub out: Option<PathBuf>,
    /// Go on around what the device cannot read (bad sectors): it stands as `lost`, and the exit code is 1. Without this the export ends there, with
    /// nothing written to OUT, as it may be readable tomorrow.
    #[arg(long)]
    pub skip_unreadable: bool,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// What `export` writes; `-` is standard input.
    Jsonl,
    /// A directory of raft-engine that nobody has open (a build with `--features raft-engine`). Each entry's message becomes its payload, byte for byte.
    RaftEngine,
}

/// What to import, and where to.
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// What kind of thing it is.
    #[arg(long, value_enum)]
    pub from: Source,
    /// The file or directory to import.
    pub source: PathBuf,
    /// The log: created if it is not there.
    pub path: PathBuf,
    /// Size of a log that is created. An eighth more than the one's that was exported, or as needed, if not given.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
    /// For raft-engine: its `spill-dir`, if it has one. The main directory does not tell of it, and what lies there may be the newest.
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// For raft-engine: the field of an entry's message that holds its index.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub index_field: u32,
    /// For raft-engine: the field of an entry's message that holds its term.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub term_field: u32,
}

/// Which shell.
#[derive(Debug, ClapArgs)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Where to.
#[derive(Debug, ClapArgs)]
pub struct Man {
    /// Write a page for each command into this directory, instead of the one of the tool to standard output.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Replace pages that are there.
    #[arg(long, requires = "dir")]
    pub force: bool,
}

/// What to make longer.
#[derive(Debug, ClapArgs)]
pub struct Grow {
    /// The log.
    pub path: PathBuf,
    /// Size that the file is to have.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: u64,
}

/// What to salvage.
#[derive(Debug, ClapArgs)]
pub struct Salvage {
    /// The log; it is not changed.
    pub from: PathBuf,
    /// The log to create; it must not exist.
    pub to: PathBuf,
    /// Size of the log that is created. An eighth more than the old one's if not given: a copy of a log that is full takes a little more.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
}

/// What to watch.
#[derive(Debug, ClapArgs)]
pub struct Top {
    /// The log.
    pub path: PathBuf,
    /// Where its figures are published, if not beside it with `.stats` behind its name.
    #[arg(long, value_name = "PATH")]
    pub stats: Option<PathBuf>,
    /// With --json: how many lines to write; no end if not given.
    #[arg(long, value_name = "N", requires = "json")]
    pub count: Option<u64>,
}

/// Where to measure, and for how long.
#[derive(Debug, ClapArgs)]
pub struct Probe {
    /// The directory that a log would be kept in. A file is written there, and removed.
    pub dir: PathBuf,
    /// Seconds to measure for, all methods together.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    pub seconds: f64,
    /// Size of the file.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "256M")]
    pub size: u64,
}

/// Work for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Threads that append one entry to one replica each, and wait.
    Append,
    /// Threads that append one entry to each of many replicas, in one batch, and wait.
    Batch,
    /// Threads that append eight entries to a replica drawn at random; most are truncated soon, some replicas lag far behind.
    Churn,
    /// Threads that write terms and votes.
    State,
    /// One thread that never waits, with so many appends outstanding.
    Window,
}

/// What to do, where, and for how long.
#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// The directory to write a log into; it is removed in the end.
    pub dir: PathBuf,
    /// What to do.
    #[arg(long, value_enum, default_value = "append")]
    pub workload: Workload,
    /// Threads. By default 2 for batches, and else 32; fewer where the replicas that were asked for are too few for so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub threads: Option<u64>,
    /// Bytes an entry.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32, default_value = "256")]
    pub entry_size: u32,
    /// Replicas. By default 10,000 for churn and state, and else 1,000; fewer in a log that was given too small a size for them, more where the
    /// threads and batches that were asked for take more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub replicas: Option<u64>,
    /// Replicas in a batch of the workloads `batch` (500 by default, or as many as there are) and `state` (1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub batch: Option<u64>,
    /// Appends outstanding at most, with the workload `window`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000), default_value_t = 10_000)]
    pub window: u64,
    /// Seconds to measure for.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    pub seconds: f64,
    /// Size of the log. By default as much as the work needs, and 512M at least.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
    /// Write a report with plots: one file, for browsers.
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,
    /// Replace a file of the report's name that is there, whatever it is, but for a log.
    #[arg(long, requires = "html")]
    pub force: bool,
}

/// A day is long enough for any measurement, and no overflow.
const MOST_SECONDS: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=MOST_SECONDS).contains(s) && *s > 0.0);
    seconds.ok_or_else(|| format!("`{text}` is no time: write seconds, more than 0 and at most {MOST_SECONDS}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
