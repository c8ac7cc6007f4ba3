//! `cargo xtask`: what takes longer than a test may. See `cargo xtask help`.

mod instructions;
mod planted;
mod run;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's long runs")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Plants each bug of tests/planted in a copy of the tree and sees which test turns red; writes tests/planted/RESULTS.md
    Planted(planted::Args),
    /// Counts the instructions of the hot paths and compares them with benches/instructions.txt; needs valgrind
    Instructions(instructions::Args),
    /// Runs the randomised tests with ever new seeds
    Torture(torture::Args),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().what {
        What::Planted(args) => planted::run(&args),
        What::Instructions(args) => instructions::run(&args),
        What::Torture(args) => torture::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}
