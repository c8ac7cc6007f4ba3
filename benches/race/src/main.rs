//! strandlog and its peers on the same work, interleaved in one run: medians of several rounds, and ratios.

mod payload;
mod raw;
mod rows;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Where the files go; must be on the device to be measured.
    #[arg(long, default_value = "target/race")]
    dir: PathBuf,
    /// Rows to run: single, t16, t64, t256, batch, churn, read.
    #[arg(long, value_delimiter = ',', default_value = "single,t64,batch,churn,read")]
    rows: Vec<String>,
    /// Contestants: strand, chain, engine, tuned.
    #[arg(long, value_delimiter = ',', default_value = "strand,engine,tuned")]
    stores: Vec<String>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds a timed row runs for each store and round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Scale of churn and read: 1 is the full length.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Print each store's own figures.
    #[arg(long)]
    notes: bool,
}

fn main() {
    let args = Args::parse();
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(&args.dir).unwrap();
    let ctx = rows::Context {
        dir: args.dir.clone(),
        payload: payload::Payload::new(),
        time: Duration::from_secs_f64(args.seconds),
        scale: args.scale,
        notes: args.notes,
    };
    for row in &args.rows {
        rows::run(&ctx, row, &args.stores, args.rounds);
    }
    let _ = std::fs::remove_dir_all(&args.dir);
}
