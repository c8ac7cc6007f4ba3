//! Torture: the randomised tests run again and again, each time with seeds that were never used before.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::run;

#[derive(clap::Args)]
pub struct Args {
    /// How long, in hours; fractions are welcome
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// The first seed; each round takes the next. Default: the time of day
    #[arg(long)]
    seed: Option<u64>,
}

/// Targets that take seeds, or are different each time by themselves.
const TARGETS: [&str; 11] = [
    "model",
    "power_cut",
    "small_worlds",
    "large_worlds",
    "schedules",
    "histories",
    "damage",
    "concurrency",
    "scrub",
    "kill9",
    run::SHUTTLE,
];
/// Schedules drawn in one round; the seeds of the next begin behind them.
const SCHEDULES: u64 = 2000;
/// No run of a target takes so long.
const LIMIT: Duration = Duration::from_secs(1800);

pub fn run(args: &Args) -> io::Result<bool> {
    let started = Instant::now();
    let end = Duration::try_from_secs_f64(args.hours * 3600.0).map_err(io::Error::other)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let mut seed = args.seed.unwrap_or(now);
    let (mut rounds, mut tests) = (0, 0);
    let mut tallies: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    let mut violations = Vec::new();
    while rounds == 0 || started.elapsed() < end {
        for target in TARGETS {
            let mut command = Command::new("cargo");
            command.args(["test", "--release", "--package", "strandlog"]).current_dir(run::root());
            let mut env = format!("STRANDLOG_SEED={seed}");
            if target == run::SHUTTLE {
                let first = seed.wrapping_mul(SCHEDULES);
                env = format!("RUSTFLAGS='--cfg shuttle' STRANDLOG_SEED={first}");
                command.env("STRANDLOG_SEED", first.to_string()).env("STRANDLOG_SEEDS", SCHEDULES.to_string());
                command.args(["--test", "schedules", "--test", "histories", "--test", "large_worlds"]);
                command.args(["--target-dir", "target/shuttle"]);
                command.env("RUSTFLAGS", "--cfg shuttle").args(["--", "--nocapture", "--skip", "a_thousand"]);
            } else {
                // Without STRANDLOG_SEED, `model` and its like would take a range of seeds from one on: so one is set.
                command.env("STRANDLOG_SEED", seed.to_string()).args(["--test", target, "--", "--nocapture"]);
            }
            command.env("RUST_BACKTRACE", "0");
            let ran = run::run(&mut command, LIMIT)?;
            tests += 1;
            for line in ran.output.lines().filter_map(|l| l.strip_prefix("tally ")) {
                for (name, n) in line.split_whitespace().filter_map(|part| part.split_once('=')) {
                    *tallies.entry(name.to_owned()).or_default() += n.parse::<u64>().unwrap_or(0);
                }
            }
            if !ran.ok {
                let what =
                    if target == run::SHUTTLE { "schedules --test histories --test large_worlds" } else { target };
                let again = format!("{env} cargo test --release --test {what}");
                println!("VIOLATION: {again}\n{}", ran.output);
                violations.push(again);
            }
        }
        rounds += 1;
        seed += 1;
        println!("round {rounds}, {} s, {} violations", started.elapsed().as_secs(), violations.len());
    }
    println!("\n{rounds} rounds, {tests} runs of {} tests, {} s", TARGETS.len(), started.elapsed().as_secs());
    for (name, n) in tallies {
        println!("{name:12} {n}");
    }
    println!("violations   {}", violations.len());
    violations.iter().for_each(|v| println!("  {v}"));
    Ok(violations.is_empty())
}
