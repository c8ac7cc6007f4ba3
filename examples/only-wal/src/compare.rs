//! The same work with one write-ahead log, and with two: what the device has to write, and what a round costs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use strandlog::Batch;

use crate::Result;
use crate::machine::{Journal, Settings};
use crate::node::{Node, Shape};

/// Groups that write in a round: so many share a sync in a busy store.
const ACTIVE: usize = 64;
/// The unit of the kernel's counters of a device.
const SECTOR: u64 = 512;

fn shape(seed: u64) -> Shape {
    Shape { seed, groups: 1000, active: ACTIVE, value_bytes: 256, capacity: 256 << 20, lies: false }
}

/// The child process: does the work, and prints what it cost, as names and numbers.
pub fn measure(dir: &Path, journal: Journal, rounds: u64, seed: u64) -> Result<()> {
    let shape = shape(seed);
    let entry_bytes = shape.value_bytes as u64;
    let entries = rounds * shape.active as u64;
    let mut node = Node::open(dir, shape, Settings { journal, table_bytes: 8 << 20, flushed: None })?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut batch = Batch::new();
    let mut micros = Vec::with_capacity(rounds as usize);
    let whole = fs::File::open(dir)?;
    rustix::fs::syncfs(&whole)?;
    let (process, device, began) = (process_bytes()?, device_bytes(dir)?, Instant::now());
    for _ in 0..rounds {
        let began = Instant::now();
        node.round(&mut rng, &mut batch)?;
        micros.push(began.elapsed().as_micros() as u64);
    }
    let seconds = began.elapsed().as_secs_f64();
    let frames = node.wal.stats().frames;
    // Every set-up ends with all that it holds on the device.
    node.close()?;
    rustix::fs::syncfs(&whole)?;
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!("payload {}", entries * entry_bytes);
    println!("process {}", process_bytes()?.saturating_sub(process));
    println!("device {}", device_bytes(dir)?.map_or(0, |now| now.saturating_sub(device.unwrap_or(now))));
    println!("p50 {}\np99 {}", at(0.5), at(0.99));
    println!("rate {}", (entries as f64 / seconds) as u64);
    println!("frames {frames}");
    Ok(())
}

/// Bytes that this process caused to be written to any device: pages that it dirtied, and direct writes.
fn process_bytes() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes")?;
    Ok(line.parse()?)
}

/// Bytes written to the device below the directory, by anybody; `None` where no device counts them.
fn device_bytes(dir: &Path) -> Result<Option<u64>> {
    let device = fs::metadata(dir)?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(stat) = fs::read_to_string(path) else { return Ok(None) };
    // The seventh figure: sectors written.
    let sectors = stat.split_whitespace().nth(6).ok_or("no sectors in the device's figures")?;
    Ok(Some(sectors.parse::<u64>()? * SECTOR))
}

pub fn compare(scratch: &Path, seed: u64, rounds: u64) -> Result<()> {
    println!("{rounds} rounds of {ACTIVE} entries of 256 B, 1,000 groups; a sync of the log each");
    println!("| | device bytes a payload byte (whole device) | p50 of a round | p99 | entries/s |");
    println!("|---|---|---|---|---|");
    for (journal, name) in [
        (Journal::Synced, "two logs: strandlog, and fjall's journal synced with each round"),
        (Journal::Lazy, "fjall's journal written, synced only before a report"),
        (Journal::None, "one log: strandlog"),
    ] {
        let dir = scratch.join("compared");
        fs::create_dir(&dir)?;
        let value = journal.to_possible_value().ok_or("no such set-up")?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--seed", &seed.to_string(), "--rounds", &rounds.to_string(), "measure"]);
        let output = child.arg(&dir).arg(value.get_name()).stderr(std::process::Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{name}: the process failed").into());
        }
        let said = String::from_utf8(output.stdout)?;
        let figures: BTreeMap<&str, f64> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
            .collect();
        let get = |name: &str| figures.get(name).copied().unwrap_or(0.0);
        let amplified = |name| get(name) / get("payload").max(1.0);
        println!(
            "| {name} | {:.2} ({:.2}) | {:.0} us | {:.0} us | {:.0}k |",
            amplified("process"),
            amplified("device"),
            get("p50"),
            get("p99"),
            get("rate") / 1000.0
        );
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
