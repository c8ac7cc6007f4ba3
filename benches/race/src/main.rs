//! strandlog and its peers on the same work, in one run: interleaved, each measurement in a process of its own, medians of several
//! rounds, ratios with their spread.

mod chart;
mod measure;
mod payload;
mod report;
mod rows;
mod stores;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use measure::Figures;
use report::Race;

#[derive(Parser)]
#[command(about = "strandlog and its peers on the same work, in one run")]
struct Args {
    #[command(subcommand)]
    child: Option<Child>,
    /// Where the files go; must be on the device to be measured.
    #[arg(long, default_value = "target/race")]
    dir: PathBuf,
    /// Rows to run, by name or by group; `--list` shows them.
    #[arg(long, value_delimiter = ',', default_value = "short")]
    rows: Vec<String>,
    /// Contestants; those that cannot run a row are left out of it.
    #[arg(long, value_delimiter = ',', default_value = "raw,shared,strandlog,raft-engine,raft-engine-tuned")]
    stores: Vec<String>,
    /// How often each store runs each row, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that a timed row runs for each store and round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Length of the rows that have one (churn, read, open): 1 is the full length.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Write all figures of all rounds here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the ratios here.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Read the figures of an earlier run instead of measuring.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Show the rows and the contestants.
    #[arg(long)]
    list: bool,
    /// Print what each store says about itself.
    #[arg(long)]
    notes: bool,
}

#[derive(Subcommand)]
enum Child {
    /// One measurement, in this process.
    #[command(hide = true)]
    Measure {
        row: String,
        store: String,
        phase: usize,
        dir: PathBuf,
        seconds: f64,
        scale: f64,
        #[arg(long)]
        notes: bool,
    },
}

fn main() {
    let args = Args::parse();
    if let Some(Child::Measure { row, store, phase, dir, seconds, scale, notes }) = args.child {
        let ctx = rows::Context { store, dir, phase, seconds, scale, notes, payload: payload::Payload::new() };
        let figures = rows::find(&row).expect("a row").measure(&ctx);
        println!("{}", serde_json::to_string(&figures).expect("plain figures"));
        // Not closed, unless the row closed it: the next opening finds what a killed process leaves.
        std::process::exit(0);
    }
    if args.list {
        return rows::list();
    }
    let race = match &args.from {
        Some(path) => serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("figures"),
        None => run(&args),
    };
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&race).expect("plain figures")).expect("written");
    }
    print!("{}", race.table());
    if let Some(path) = &args.svg {
        chart::draw(&race, path);
    }
}

fn run(args: &Args) -> Race {
    let rows = rows::select(&args.rows);
    let mut race = Race::default();
    let steps: usize = rows.iter().map(|row| args.stores.iter().filter(|s| row.takes(s)).count() * args.rounds).sum();
    let bar = ProgressBar::new(steps as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} [{elapsed}, {eta} to go]").expect("sound"),
    );
    for row in rows {
        for _ in 0..args.rounds {
            for store in args.stores.iter().filter(|s| row.takes(s)) {
                bar.set_message(format!("{}: {store}", row.name()));
                match measure(args, row, store) {
                    Ok(figures) => race.add(&row.name(), store, figures),
                    Err(why) => bar.suspend(|| eprintln!("{}: {store}: {why}", row.name())),
                }
                bar.inc(1);
            }
        }
        bar.suspend(|| eprint!("{}", race.row_table(&row.name())));
    }
    bar.finish_and_clear();
    let _ = std::fs::remove_dir_all(&args.dir);
    race
}

/// Runs all phases of a row, each in its own process, and returns the figures of all of them.
fn measure(args: &Args, row: rows::Row, store: &str) -> Result<Figures, String> {
    let dir = args.dir.join(format!("{}-{store}", row.name()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut all = Figures::default();
    for phase in 0..row.phases() {
        settle_device(&dir);
        let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
        command.arg("measure").args([row.name().as_str(), store, &phase.to_string()]).arg(&dir);
        command.args([args.seconds.to_string(), args.scale.to_string()]);
        command.args(args.notes.then_some("--notes")).env("WALRUS_QUIET", "1");
        let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() {
            return Err(format!("{}: {text}", out.status));
        }
        let figures: Figures = serde_json::from_str(text.lines().last().unwrap_or("")).map_err(|e| e.to_string())?;
        all.extend(figures);
    }
    let _ = std::fs::remove_dir_all(&dir);
    Ok(all)
}

/// Writes what others left dirty before a measurement, not during it, and drops the caches, so that reads come from the device.
fn settle_device(dir: &Path) {
    if let Ok(dir) = std::fs::File::open(dir) {
        let _ = rustix::fs::syncfs(&dir);
    }
    measure::drop_caches();
}
