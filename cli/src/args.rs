//! The command line: commands and their arguments. The `///` comments are the help texts.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::size;

/// Create, inspect, verify, measure, watch, grow, export, import and salvage strandlog files.
#[derive(Debug, Parser)]
#[command(name = "strandlog", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Args {
    /// Write JSON: one object, or one per line for `dump`, `export` and `top`.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0, all is well; 1, damage was found, or not everything could be saved, exported or imported unchanged; \
2, the request makes no sense, or could not be carried out; 141, the reader of the output went away before its end, and nothing was wrong until then.";

/// Printed below the help of every command that takes a size.
const SIZES: &str = "A SIZE is in bytes, or has a suffix: 64K, 4M, 1G, 2T.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a log. The whole file is written now, so that no later write has to wait for an allocation.
    #[command(after_help = SIZES)]
    Create(Create),
    /// Show what a log holds, and where its space went.
    Info(Info),
    /// Draw a map of the file: what each part is used for, by which replica, and how much of it is dead.
    Map(Map),
    /// Show replicas, their keys and their entries.
    ///
    /// With --json, writes a line for each replica and each entry, and for each requested entry or range that is damaged or missing. Values and
    /// payloads are hexadecimal. A key that is printable text is written as it is; any other key, and one that itself begins with `hex:`, as `hex:`
    /// and hexadecimal.
    Dump(Dump),
    /// Read everything back and compare it with its checksums, even if the log does not open. If there is damage, lists it and exits with 1.
    Verify(Verify),
    /// Watch a log live, while the process that has it open publishes its figures.
    Top(Top),
    /// Measure each method of making writes durable on a device, and recommend one.
    #[command(after_help = SIZES)]
    Probe(Probe),
    /// Measure the log on your own disk, with a workload of your choice.
    #[command(after_help = SIZES)]
    Bench(Bench),
    /// Write everything that a log holds as JSON lines, for other programs and for `import`.
    ///
    /// Writes a line for the log; then, for each replica, a line for the replica, its keys and its entries; and a last line with the totals. Bytes
    /// are base64. `applied` in a replica's line is what its state machine reported to hold durably. What cannot be read is replaced by a line
    /// with `lost` (bad sectors only with --skip-unreadable).
    ///
    /// The marks of a migration (`DualWrite`) are left out; standard error says so if there are any. To continue a migration, use a copy made by
    /// `salvage`, not an import.
    Export(Export),
    /// Copy an export, or another kind of log, into a log, then read it back and compare. Run it again after an interruption: it goes on.
    ///
    /// A new log is called PATH.importing until everything is imported and compared. Do not use it as a log before that.
    ///
    /// A replica that the log already has, with other keys or another report of its state machine than an earlier import of the same source left,
    /// is not written to and is reported as different, so that no vote cast meanwhile is taken back. Exits with 1 then.
    #[command(after_help = SIZES)]
    Import(Import),
    /// Make a log larger, while no process has it open. Its contents are not touched.
    #[command(after_help = SIZES)]
    Grow(Grow),
    /// Copy what can still be proved intact into a fresh log, even from a log that does not open. If anything is lost, lists it and exits with 1.
    #[command(after_help = SIZES)]
    Salvage(Salvage),
    /// Write the completion script for a shell.
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
    /// Size of a chunk, the unit in which a replica takes and frees space: a power of two. An open log takes 10 bytes of memory for each chunk.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32, default_value = "64K")]
    pub chunk_size: u32,
    /// Size of a journal segment: a power of two. Chosen by capacity if not given.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32)]
    pub segment_size: Option<u32>,
    /// Largest size of the journal, and so the most that an opening has to read. If not given: an eighth of the capacity, but 512M to 4G, and at most
    /// half the capacity. Whatever is given, it is at least a sixteenth of the capacity and at most 4,000 segments.
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
    /// Draw the map as SVG into this file, for browsers and documents.
    #[arg(long, value_name = "OUT")]
    pub svg: Option<PathBuf>,
    /// Draw the map as PNG into this file (needs a build with `--features png`).
    #[arg(long, value_name = "OUT")]
    pub png: Option<PathBuf>,
    /// Replace existing output files, whatever they are, except logs.
    #[arg(long)]
    pub force: bool,
    /// Columns to draw in. The width of the terminal if not given.
    #[arg(long, value_name = "N")]
    pub width: Option<u16>,
}

/// What to dump.
#[derive(Debug, ClapArgs)]
pub struct Dump {
    /// The log.
    pub path: PathBuf,
    /// Show only this replica; may be given more than once.
    #[arg(long, value_name = "ID")]
    pub replica: Vec<u64>,
    /// Show every entry: index, term, length and the beginning of its payload.
    #[arg(long)]
    pub entries: bool,
    /// Show whole payloads and values, in hexadecimal. Implies --entries.
    #[arg(long)]
    pub hex: bool,
    /// Show entries from this index on. Implies --entries.
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// Show entries up to and including this index. Implies --entries.
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
    /// Skip what the device cannot read (bad sectors): it is written as `lost`, and the exit code is 1. Without this the export fails there and leaves
    /// no OUT, because the sectors may be readable tomorrow.
    #[arg(long)]
    pub skip_unreadable: bool,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// A file that `export` wrote; `-` is standard input.
    Jsonl,
    /// A raft-engine directory that nobody has open (needs a build with `--features raft-engine`). Each entry's message becomes its payload, byte for byte.
    RaftEngine,
}

/// What to import, and where to.
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// Kind of the source.
    #[arg(long, value_enum)]
    pub from: Source,
    /// The file or directory to import.
    pub source: PathBuf,
    /// The log to import into; created if it does not exist.
    pub path: PathBuf,
    /// Size of the log if it is created. If not given: an eighth more than the exported log's, or for raft-engine as needed.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
    /// For raft-engine: its `spill-dir`, if it has one. The main directory does not mention it, and the newest data may be in it.
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// For raft-engine: number of the field that holds the index in an entry's message.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub index_field: u32,
    /// For raft-engine: number of the field that holds the term in an entry's message.
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
    /// Write a page for the tool and one for each command into this directory, instead of the tool's page to standard output.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Replace existing pages.
    #[arg(long, requires = "dir")]
    pub force: bool,
}

/// What to make longer.
#[derive(Debug, ClapArgs)]
pub struct Grow {
    /// The log.
    pub path: PathBuf,
    /// New size of the file.
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
    /// Size of the new log. An eighth more than the old one's if not given, because a copy of a full log takes a little more.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
}

/// What to watch.
#[derive(Debug, ClapArgs)]
pub struct Top {
    /// The log.
    pub path: PathBuf,
    /// File in which its figures are published. The log's path with `.stats` appended if not given.
    #[arg(long, value_name = "PATH")]
    pub stats: Option<PathBuf>,
    /// With --json: stop after this many lines. Endless if not given.
    #[arg(long, value_name = "N", requires = "json")]
    pub count: Option<u64>,
}

/// Where to measure, and for how long.
#[derive(Debug, ClapArgs)]
pub struct Probe {
    /// Directory in which a log would be kept. A temporary file is written there, and removed at the end.
    pub dir: PathBuf,
    /// Seconds to measure, for all methods together.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    pub seconds: f64,
    /// Size of the temporary file.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "256M")]
    pub size: u64,
}

/// A workload for `bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Each thread appends one entry to one replica per commit, and waits for it.
    Append,
    /// Each thread appends one entry to each of many replicas in one batch, and waits for it.
    Batch,
    /// Each thread appends eight entries to a random replica, and waits; most entries are truncated soon, but some replicas lag far behind.
    Churn,
    /// Each thread writes terms and votes, and waits.
    State,
    /// One thread that does not wait for its appends, with at most --window of them outstanding.
    Window,
}

/// What to do, where, and for how long.
#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// Directory in which to create a temporary log, which is removed at the end.
    pub dir: PathBuf,
    /// Workload to run.
    #[arg(long, value_enum, default_value = "append")]
    pub workload: Workload,
    /// Number of threads. By default 2 for `batch` and 32 otherwise, or fewer if --replicas is too small for so many; `window` always has one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub threads: Option<u64>,
    /// Size of an entry.
    #[arg(long, value_name = "SIZE", value_parser = size::parse32, default_value = "256")]
    pub entry_size: u32,
    /// Number of replicas. By default 10,000 for `churn` and `state` and 1,000 otherwise; fewer if --capacity is too small for them, more if --threads
    /// and --batch need more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub replicas: Option<u64>,
    /// Replicas per batch, in the workloads `batch` (by default 500, or as many as there are) and `state` (by default 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub batch: Option<u64>,
    /// Most appends outstanding at once, in the workload `window`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000), default_value_t = 10_000)]
    pub window: u64,
    /// Seconds to measure.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    pub seconds: f64,
    /// Size of the log. By default as much as the work needs, but at least 512M.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub capacity: Option<u64>,
    /// Write a report with plots into this file: one self-contained page, for browsers.
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,
    /// Replace the report's file if it exists, whatever it is, unless it is a log.
    #[arg(long, requires = "html")]
    pub force: bool,
}

/// A day: long enough for any measurement, and too short to overflow.
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
