//! The log as the state machine's only write-ahead log: a key-value store on fjall, whose own journal stays empty, over strandlog.
//!
//! It is crashed again and again, by SIGKILL and as by a power cut; nothing acknowledged may be lost. Then the same work is done
//! with one write-ahead log and with two, and what the device had to write is compared.
//!
//! ```sh
//! cargo run --release --package strandlog-only-wal -- --crashes 200
//! ```

mod command;
mod compare;
mod crash;
mod machine;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use machine::Journal;

/// Anything may go wrong here; it is reported, and the program ends.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(
    about = "A key-value store whose only write-ahead log is strandlog: crashed, checked, and compared with two logs"
)]
struct Args {
    /// How often to crash it.
    #[arg(long, default_value_t = 200)]
    crashes: u64,
    /// Rounds of the comparison, 64 entries each; 0 for none.
    #[arg(long, default_value_t = 10_000)]
    rounds: u64,
    /// Draws everything: the entries, the moments of the crashes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to work, in a directory that is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Reports what is not durable yet, to see that the check finds the loss.
    #[arg(long)]
    lie: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The processes that the program starts of itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Works until it is killed, and says what is acknowledged.
    #[command(hide = true)]
    Work { dir: PathBuf, life: u64 },
    /// One set-up of the comparison.
    #[command(hide = true)]
    Measure { dir: PathBuf, journal: Journal },
}

fn run(args: Args) -> Result<()> {
    match args.part {
        Some(Part::Work { dir, life }) => return crash::work(&dir, args.seed, life, args.lie),
        Some(Part::Measure { dir, journal }) => return compare::measure(&dir, journal, args.rounds, args.seed),
        None => {}
    }
    let scratch = match args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    if args.crashes > 0 {
        crash::crashes(scratch.path(), args.seed, args.crashes, args.lie)?;
    }
    if args.rounds > 0 {
        compare::compare(scratch.path(), args.seed, args.rounds)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
