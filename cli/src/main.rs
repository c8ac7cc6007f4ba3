//! The `strandlog` command: create, inspect, verify, salvage, measure, watch, grow, export and import log files.
//!
//! Only `grow` and `import` change an existing log; all other commands open it read-only. Exit codes: 0, all is well; 1, damage was found, or not
//! everything could be saved, exported or imported unchanged; 2, it could not be done; 141, the reader of the output went away.

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
use std::sync::Arc;

use clap::Parser;

use args::{Args, Command};
use failure::{Failure, Result};
use output::{CUT_OFF, Output, say};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(told) => return help_or_usage(&told),
    };
    if let Err(failure) = save::refuse_output() {
        // To standard error even with --json: JSON would go into the log.
        let _ = writeln!(io::stderr(), "strandlog: {failure}");
        return ExitCode::from(2);
    }
    survive_limits();
    let mut out = Output::new(args.json);
    match run(&args.command, &mut out).and_then(|()| out.finish()) {
        Ok(()) => out.exit_code(),
        // The reader has seen enough, or died: end quietly, but not as if all had been read. Except for an export: half of one is no export.
        Err(failure) if failure.is_broken_pipe() && !exports_to_output(&args.command) => out.cut_off(),
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(2)
        }
    }
}

/// Catches SIGXFSZ, so that a write beyond the process's file size limit (`ulimit -f`) fails and is reported, as on a full device. Otherwise the system
/// kills the process, and half of an export is left.
fn survive_limits() {
    // If that fails, the default remains: the signal kills.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Prints the help that was asked for, or what is wrong with the request; that as JSON if the arguments contain `--json`.
fn help_or_usage(told: &clap::Error) -> ExitCode {
    if told.use_stderr() {
        if std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json") {
            Output::new(true).failure(&Failure::Request(told.to_string().trim_end().into()));
        } else {
            // If it cannot be printed, the exit code still says it.
            let _ = told.print();
        }
        return ExitCode::from(2);
    }
    match told.print().and_then(|()| io::stdout().flush()).map_err(Failure::Output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::from(CUT_OFF),
        Err(failure) => {
            say(format_args!("{failure}"));
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
