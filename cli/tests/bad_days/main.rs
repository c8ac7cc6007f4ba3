//! Bad days: logs of every shape suffer what happens to files in the field; the tool's reports on the rest are checked against a model of what was
//! acknowledged.
//!
//! `STRANDLOG_SEED=n` runs this one seed, `STRANDLOG_SEEDS=n` this many.

#[path = "../support/mod.rs"]
mod support;

mod field;
mod interrupted;
mod life;
mod look;
mod model;
mod sectors;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Runs each seed; says which one failed.
fn for_each_seed(default: u64, mut test: impl FnMut(&mut SmallRng)) {
    let env = |name| std::env::var(name).ok().and_then(|n: String| n.parse::<u64>().ok());
    let one = env("STRANDLOG_SEED");
    let count = env("STRANDLOG_SEEDS").unwrap_or(default);
    for seed in one.map_or(0..count, |seed| seed..seed + 1) {
        let mut rng = SmallRng::seed_from_u64(seed);
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| test(&mut rng))) {
            eprintln!("STRANDLOG_SEED={seed}");
            resume_unwind(why);
        }
    }
}

#[test]
fn whatever_happened_to_a_file_the_tool_tells_what_stands_and_what_is_lost() {
    let mut tried = look::Tried::default();
    for_each_seed(4, |rng| look::a_bad_day(rng, &mut tried));
    println!("{tried:?}");
    let look::Tried { sound, hurt, refused, carried_over, half_grown, .. } = tried;
    assert!(tried.days < 100 || [sound, hurt, refused, carried_over, half_grown].iter().all(|&n| n > 0), "{tried:?}");
}

#[test]
fn a_device_with_bad_sectors_is_looked_at_to_its_end() {
    for_each_seed(20, sectors::a_bad_device);
}

#[test]
fn a_command_that_is_interrupted_takes_nothing_along_and_can_be_run_again() {
    let mut tried = 0;
    for_each_seed(3, |rng| tried += u64::from(interrupted::a_command(rng)));
    println!("interrupted {tried}");
}
