//! The `strandlog` command: create, look into, verify, salvage, measure, watch, grow, export and import log files.
//!
//! A log that exists is opened for reading only, and so never changed, but by `grow` and `import`. Exit codes: 0, all is well; 1, damage
//! was found, or not everything could be saved, exported or imported as it was; 2, it could not be done.

mod args;
mod bench;
mod create;
mod dump;
mod export;
mod failure;
mod grow;
mod import;
mod info;
mod item;
mod map;
mod measure;
mod open;
mod output;
mod overview;
mod png;
mod probe;
mod progress;
mod salvage;
mod scratch;
mod shell;
mod size;
mod top;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Output::new(args.json);
    let done = match &args.command {
        Command::Create(args) => create::run(args, &mut out),
        Command::Info(args) => info::run(args, &mut out),
        Command::Map(args) => map::run(args, &mut out),
        Command::Dump(args) => dump::run(args, &mut out),
        Command::Verify(args) => verify::run(args, &mut out),
        Command::Top(args) => top::run(args, &mut out),
        Command::Probe(args) => probe::run(args, &mut out),
        Command::Bench(args) => bench::run(args, &mut out),
        Command::Export(args) => export::run(args, &mut out),
        Command::Import(args) => import::run(args, &mut out),
        Command::Grow(args) => grow::run(args, &mut out),
        Command::Salvage(args) => salvage::run(args, &mut out),
        Command::Completions(args) => shell::completions(args, &mut out),
        Command::Man(args) => shell::man(args, &mut out),
    };
    match done.and_then(|code| out.finish().map(|()| code)) {
        Ok(code) => code,
        // Whoever was reading has seen enough.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(args.json);
            ExitCode::from(2)
        }
    }
}
