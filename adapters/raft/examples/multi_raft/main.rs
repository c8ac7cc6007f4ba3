//! Three stores, a thousand raft groups on each, one strandlog a store; in mid-run one store is cut off,
//! comes back and catches up; at the end everything is compared, byte for byte.
//!
//! ```text
//! clients --proposals--> [poller: a third of the leaders] <--messages--> pollers of the other stores
//!                              |  one batch a round
//!                              v
//!                         strandlog --durable--> the poller: on_persist_ready, acknowledgements
//! ```

mod args;
mod board;
mod child;
mod clients;
mod compare;
mod display;
mod group;
mod machine;
mod member;
mod net;
mod outbox;
mod poller;
mod remote;
mod rng;
mod scenario;
mod store;
mod summary;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Role};
use display::Display;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Stores, and replicas of each group.
const STORES: usize = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.role {
        Some(Role::Store { id, connect }) => child::run(args, id, connect).map(|()| true),
        None => run(args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether something was acknowledged, and everything agrees.
fn run(mut args: Args) -> Result<bool> {
    // The directory is removed only if nobody named it.
    let removable = args.data_dir.is_none();
    let dir = args.data_dir();
    args.data_dir = Some(dir.clone());
    prepare(&dir)?;
    let (story, display) = scenario::play(args.clone(), Display::new())
        .map_err(|error| format!("{error} (the logs are in {})", dir.display()))?;
    if let Some(what) = args.plant {
        compare::plant(&dir, args.groups, what)?;
    }
    let verdict = compare::compare(&dir, args.groups, &story.report.acknowledged)?;
    display.say("logs opened again and compared");
    display.clear();
    summary::print(&args, &story, &verdict);
    let proved = verdict.differences == 0 && story.report.answered > 0;
    if !proved {
        println!("  the logs are in {}", dir.display());
    } else if removable {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(proved)
}

/// A run starts from nothing: removes logs that an earlier one left, and only those.
fn prepare(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for store in 1..=STORES as u64 {
        match std::fs::remove_file(store::path(dir, store)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
