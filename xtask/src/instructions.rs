//! Counts the instructions of the hot paths. They are the same on a quiet machine and on a noisy one, so that a change that costs is
//! noticed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::run;

#[derive(clap::Args)]
pub struct Args {
    /// Write what was counted to benches/instructions.txt, for later runs to be held to
    #[arg(long)]
    write: bool,
}

/// The paths of benches/hot.rs.
const PATHS: [&str; 6] = ["single", "tagged", "batched", "state", "read", "term"];
/// Each path is counted with so many operations and with twice as many: the difference is free of what setting up costs.
const TIMES: u64 = 10_000;
/// More than so many percent above what is written down is a regression.
const TOLERANCE: u64 = 10;
const LIMIT: Duration = Duration::from_secs(600);

fn table() -> PathBuf {
    run::root().join("benches/instructions.txt")
}

pub fn run(args: &Args) -> io::Result<bool> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("not counted: there is no valgrind on this machine");
        return Ok(true);
    }
    let compiler = String::from_utf8_lossy(&Command::new("rustc").arg("--version").output()?.stdout).trim().to_owned();
    let program = build()?;
    let mut counted = Vec::new();
    for path in PATHS {
        let (once, twice) = (count(&program, path, TIMES)?, count(&program, path, 2 * TIMES)?);
        counted.push((path, twice.saturating_sub(once) / TIMES));
    }
    if args.write {
        let mut text =
            format!("# Instructions an operation, counted by `cargo xtask instructions --write` with {compiler}.\n");
        counted.iter().for_each(|(path, n)| writeln!(text, "{path} {n}").unwrap_or(()));
        fs::write(table(), text)?;
    }
    let held = fs::read_to_string(table())?;
    // Another compiler makes other code: then there is nothing to compare with.
    let same = held.lines().next().is_some_and(|line| line.contains(&compiler));
    let mut well = true;
    for (path, n) in counted {
        let want = held.lines().find_map(|line| line.strip_prefix(path)?.trim().parse::<u64>().ok());
        let Some(want) = want else {
            return Err(io::Error::other(format!("{path} is not in benches/instructions.txt")));
        };
        let more = same && n > want + want * TOLERANCE / 100;
        well &= !more;
        println!("{path:>8} {n:>6} (held {want}){}", if more { "  TOO MANY" } else { "" });
    }
    if !same {
        println!("not compared: this is {compiler}, what is held was counted with another compiler");
    }
    Ok(well)
}

/// Builds benches/hot.rs; returns where the program is.
fn build() -> io::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--no-run", "--package", "strandlog", "--bench", "hot"]).current_dir(run::root());
    let built = run::run(&mut cargo, LIMIT)?;
    let path = built.output.lines().find_map(|l| l.trim().strip_prefix("Executable")?.split(['(', ')']).nth(1));
    match path {
        Some(path) if built.ok => Ok(run::root().join(path)),
        _ => Err(io::Error::other(built.output)),
    }
}

fn count(program: &PathBuf, path: &str, times: u64) -> io::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args([path, &times.to_string()]);
    let ran = run::run(&mut valgrind, LIMIT)?;
    let collected = ran.output.lines().find_map(|l| l.split("Collected :").nth(1)?.trim().parse().ok());
    collected.filter(|_| ran.ok).ok_or_else(|| io::Error::other(ran.output))
}
