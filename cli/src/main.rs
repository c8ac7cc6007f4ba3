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
mod save;
mod scratch;
mod shell;
mod size;
mod top;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::Result;
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(failure) = save::refuse_log_as_output() {
        // Where JSON was asked for, too: it would be written there.
        let _ = writeln!(io::stderr(), "strandlog: {failure}");
        return ExitCode::from(2);
    }
    let mut out = Output::new(args.json);
    match run(&args.command, &mut out).and_then(|()| out.finish()) {
        Ok(()) => out.exit_code(),
        // Whoever was reading has seen enough, and what was found until then counts. But half an export is none.
        Err(failure) if failure.is_broken_pipe() && !exports_to_output(&args.command) => out.exit_code(),
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, out: &mut Output) -> Result<()> {
    match command {
        Command::Create(args) => create::run(args, out),
        Command::Info(args) => info::run(args, out),
        Command::Map(args) => map::run(args, out),
        Command::Dump(args) => dump::run(args, out),
        Command::Verify(args) => verify::run(args, out),
        Command::Top(args) => top::run(args, out),
        Command::Probe(args) => probe::run(args, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Export(args) => export::run(args, out),
        Command::Import(args) => import::run(args, out),
        Command::Grow(args) => grow::run(args, out),
        Command::Salvage(args) => salvage::run(args, out),
        Command::Completions(args) => shell::completions(args, out),
        Command::Man(args) => shell::man(args, out),
    }
}

fn exports_to_output(command: &Command) -> bool {
    matches!(command, Command::Export(args) if args.out.is_none())
}
