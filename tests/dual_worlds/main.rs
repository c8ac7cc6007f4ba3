//! Whole migrations, drawn at random. The old log fails writes and reads, and forgets what it had not made durable; power is cut anywhere;
//! strandlog's file fills up, rots, grows and is salvaged on the way; migrations are given up and begun again. What is read is what was
//! acknowledged, no comparison is wrong, no state machine skips an entry, and in the end every replica has moved over.
//!
//! `STRANDLOG_SEED=n` runs one seed alone, `STRANDLOG_SEEDS=n` more of them, `STRANDLOG_SAY=1` prints what each does.

#[path = "../from_the_docs/both.rs"]
mod both;
#[allow(dead_code)]
#[path = "../from_the_docs/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../from_the_docs/steps.rs"]
mod steps;
#[path = "../support/mod.rs"]
mod support;

mod judge;
mod old;
mod world;

use std::sync::Mutex;

use support::{for_each, seeds, tally};

#[test]
fn a_migration_loses_nothing_and_ends_whatever_fails_on_the_way() {
    let sums = Mutex::new(world::Counts::default());
    let all = seeds(0, 24);
    for_each(&all, |seed| {
        let counts = world::run(seed);
        sums.lock().expect("no other panic").add(&counts);
    });
    let sums = sums.into_inner().expect("no other panic");
    tally(&sums.named());
    let untried: Vec<_> = sums.named().into_iter().filter(|(what, n)| *n == 0 && *what != "corrupt").collect();
    assert!(all.len() < 24 || untried.is_empty(), "{untried:?}");
}
