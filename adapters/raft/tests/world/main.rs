//! Clusters under everything that may happen to them, with checks of what raft promises.
//!
//! Three to five stores, several groups on the one log of each, on simulated disks whose power is cut at any write; a network that loses,
//! duplicates and reorders; leaders that change, members that come and go, snapshots, compactions, replicas that are damaged and rebuilt;
//! state machines in the log and in files of their own.
//! One thread plays everything, and a seed is exactly one run: `STRANDLOG_SEED=n` runs only that one, `STRANDLOG_SEEDS=n` runs more
//! of them, `STRANDLOG_SAY=1` prints what happens.

mod checks;
mod fetches;
mod group;
mod machine;
mod manner;
mod members;
mod network;
mod rng;
mod settle;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use checks::Figures;
use manner::Plant;
use world::World;

/// Worlds of a run by default.
const SEEDS: u64 = 60;
/// A bug must be noticed within this many worlds.
const ENOUGH: u64 = 150;

fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seeds() -> Vec<u64> {
    let from = env("STRANDLOG_SEED");
    let count = env("STRANDLOG_SEEDS").unwrap_or(if from.is_some() { 1 } else { SEEDS });
    let from = from.unwrap_or(1);
    (from..from + count).collect()
}

#[test]
fn nothing_that_raft_promises_is_broken_whatever_happens() {
    let (seeds, next, all) = (seeds(), AtomicUsize::new(0), Mutex::new(Figures::default()));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match catch_unwind(AssertUnwindSafe(|| World::new(seed, None).live())) {
                        Ok(figures) => all.lock().unwrap().add(&figures),
                        Err(_) => {
                            eprintln!("failed: STRANDLOG_SEED={seed}");
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    let (failed, all) = (failed.into_inner().unwrap(), all.into_inner().unwrap());
    println!("{} worlds: {all:?}", seeds.len());
    assert!(failed.is_empty(), "seeds {failed:?}");
    if seeds.len() as u64 >= SEEDS {
        all.is_much();
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in [3, 4, 5] {
        let tell = || {
            let mut world = World::new(seed, None);
            let figures = world.live();
            format!("{figures:?} {:?}", world.ends())
        };
        assert_eq!(tell(), tell(), "seed {seed}");
    }
}

/// The number of the first world in which the checks notice it.
fn noticed(plant: Plant) -> Option<u64> {
    (1..=ENOUGH).find(|&seed| catch_unwind(AssertUnwindSafe(|| World::new(seed, Some(plant)).live())).is_err())
}

#[test]
fn the_checks_notice_who_breaks_a_promise() {
    let plants = [
        Plant::SentAtOnce,
        Plant::SyncsIgnored,
        Plant::VotesForgotten,
        Plant::AppliedTooEarly,
        Plant::SnapshotTooLate,
        Plant::OldConfiguration,
        Plant::BackBlank,
        Plant::PersistedAtOnce,
    ];
    for plant in plants {
        let seed = noticed(plant);
        println!("{plant:?}: seed {seed:?}");
        assert!(seed.is_some(), "{plant:?} is not noticed");
    }
}
