//! Crashes, and what must hold after each.
//!
//! A real process works until SIGKILL. That alone is not a power cut: what was written but not synced is still in the kernel's cache. So
//! after each flush and each opening, before it is reported, the tables are preserved as they are then (by hard links: tables never
//! change). After every other crash, all that was written to the tables' directory since is thrown away. Both are what a power cut may
//! leave; the latter is the worst of it. The log is left as it was: what it has acknowledged was durable.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use strandlog::Batch;

use crate::Result;
use crate::command::{KEYS, Model};
use crate::machine::{Flushed, Journal, Settings};
use crate::node::{Node, Shape};

/// The most acknowledged rounds before a crash: some lives flush several times, some never.
const ROUNDS: u64 = 150;
/// The crash comes at most so much later than the round that calls for it: anywhere in another round, or in a flush.
const DELAY_MICROS: u64 = 3000;

fn shape(seed: u64, lies: bool) -> Shape {
    Shape { seed, groups: 300, active: 16, value_bytes: 100, capacity: 32 << 20, lies }
}

fn settings(dir: &Path) -> Settings {
    // Small: a flush every thirty rounds.
    Settings { journal: Journal::None, table_bytes: 64 << 10, flushed: Some(keeper(dir)) }
}

/// The child process: after each round prints which group got which index, as that is durable, until it is killed.
pub fn work(dir: &Path, seed: u64, life: u64, lies: bool) -> Result<()> {
    let mut node = Node::open(dir, shape(seed, lies), settings(dir))?;
    let mut rng = SmallRng::seed_from_u64(seed ^ life << 32);
    let mut batch = Batch::new();
    let mut out = std::io::stdout().lock();
    loop {
        let mut line = String::new();
        for (group, index) in node.round(&mut rng, &mut batch)? {
            line += &format!("{group} {index} ");
        }
        // In one write: the parent reads all of it, or ignores it.
        writeln!(out, "{line}").and_then(|()| out.flush())?;
    }
}

/// What was acknowledged: the last index of each group.
type Told = BTreeMap<u64, u64>;

fn run_and_kill(dir: &Path, seed: u64, life: u64, lies: bool, told: &mut Told) -> Result<u64> {
    let mut rng = SmallRng::seed_from_u64(seed ^ life);
    let rounds = rng.random_range(1..=ROUNDS);
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--seed", &seed.to_string()]).args(lies.then_some("--lie"));
    let mut child = child.arg("work").arg(dir).arg(life.to_string()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?);
    let mut line = String::new();
    let mut heard = 0;
    while lines.read_line(&mut line)? > 0 {
        if line.ends_with('\n') {
            let numbers = line.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
            told.extend(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            heard += 1;
        }
        if heard == rounds {
            std::thread::sleep(Duration::from_micros(rng.random_range(0..DELAY_MICROS)));
            // What it prints until it is dead still counts.
            child.kill()?;
        }
        line.clear();
    }
    let ended = child.wait()?;
    match std::os::unix::process::ExitStatusExt::signal(&ended) {
        Some(_) => Ok(heard),
        None => Err("the store gave up by itself".into()),
    }
}

/// Checks that all groups are as the model says, and no shorter than acknowledged.
fn check(node: &Node, seed: u64, told: &mut Told, models: &mut BTreeMap<u64, Model>) -> Result<()> {
    let Shape { groups, value_bytes, .. } = shape(seed, false);
    for group in 0..groups {
        let last = node.wal.replica(group).last_index();
        let acknowledged = told.get(&group).copied().unwrap_or(0);
        if last < acknowledged {
            return Err(format!("lost: group {group} ends at {last}, {acknowledged} was acknowledged").into());
        }
        if node.machine.applied(group) != last {
            return Err(format!("lost: group {group} is applied up to {}", node.machine.applied(group)).into());
        }
        // What was found is durable: it must not be lost from now on.
        told.insert(group, last);
        let model = models.entry(group).or_default();
        model.advance(seed, group, last, value_bytes);
        for key in 0..KEYS {
            if node.machine.get(group, key)? != model.values.get(&key).cloned() {
                return Err(format!("lost: group {group} key {key} is not what entry {last} leaves").into());
            }
        }
    }
    Ok(())
}

pub fn crashes(scratch: &Path, seed: u64, crashes: u64, lies: bool) -> Result<()> {
    let dir = scratch.join("crashed");
    fs::create_dir(&dir)?;
    let mut node = Node::open(&dir, shape(seed, lies), settings(&dir))?;
    let (mut told, mut models) = (Told::new(), BTreeMap::new());
    let (mut heard, mut cuts, mut again, mut most) = (0, 0, 0, 0);
    for life in 1..=crashes {
        // Nothing is closed, as in a crash. The tables have nothing that they would write now.
        drop(node);
        let in_life = |error: &dyn std::fmt::Display| format!("seed {seed}, crash {life}: {error}");
        heard += run_and_kill(&dir, seed, life, lies, &mut told).map_err(|e| in_life(&e))?;
        if life % 2 == 0 {
            lose_power(&dir)?;
            cuts += 1;
        }
        node = Node::open(&dir, shape(seed, lies), settings(&dir)).map_err(|e| in_life(&e))?;
        check(&node, seed, &mut told, &mut models).map_err(|e| in_life(&e))?;
        again += node.again;
        most = most.max(node.again);
    }
    let entries: u64 = told.values().sum();
    let journal = node.machine.journal_bytes()?;
    node.close()?;
    println!("{crashes} crashes, {cuts} of them as by a power cut: nothing acknowledged was lost");
    println!("  {entries} entries of {} groups in {heard} acknowledged rounds", told.len());
    println!(
        "  {} flushes and openings; after a crash {} entries were applied again on average, {most} at most",
        last_kept(&dir)?.0,
        again / crashes.max(1)
    );
    println!("  fjall's own journal takes {journal} bytes of the disk");
    Ok(())
}

const KEPT: &str = "kept.";

/// The newest complete copy of the tables, and its number.
fn last_kept(dir: &Path) -> Result<(u64, Option<PathBuf>)> {
    let mut newest = (0, None);
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let number = path.file_name().and_then(|n| n.to_str()?.strip_prefix(KEPT)?.parse().ok());
        if let Some(number) = number.filter(|n| *n >= newest.0) {
            newest = (number, Some(path));
        }
    }
    Ok(newest)
}

fn keeper(dir: &Path) -> Flushed {
    let dir = dir.to_owned();
    Arc::new(move || keep(&dir))
}

/// Preserves the tables as they are: everything in them is durable now.
fn keep(dir: &Path) -> Result<()> {
    let (number, before) = last_kept(dir)?;
    let (tables, new) = (dir.join("tables"), dir.join("new"));
    loop {
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        // Compaction goes on meanwhile: only a copy during which it changed nothing is of one state.
        let named = versions(&tables)?;
        if link(&tables, &new).is_ok() && versions(&tables)? == named {
            break;
        }
    }
    fs::rename(&new, dir.join(format!("{KEPT}{}", number + 1)))?;
    before.map_or(Ok(()), |before| Ok(fs::remove_dir_all(before)?))
}

/// The contents of the files that name the state of each tree.
fn versions(tables: &Path) -> Result<Vec<Vec<u8>>> {
    let mut versions = Vec::new();
    for tree in fs::read_dir(tables.join("keyspaces"))? {
        versions.push(fs::read(tree?.path().join("current"))?);
    }
    Ok(versions)
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let to = to.join(file.file_name());
        if file.file_type()?.is_dir() { link(&file.path(), &to)? } else { fs::hard_link(file.path(), to)? }
    }
    Ok(())
}

/// Throws away what was written to the tables since they were last preserved.
fn lose_power(dir: &Path) -> Result<()> {
    let tables = dir.join("tables");
    let kept = last_kept(dir)?.1.ok_or("nothing was kept")?;
    fs::remove_dir_all(&tables)?;
    Ok(link(&kept, &tables)?)
}
