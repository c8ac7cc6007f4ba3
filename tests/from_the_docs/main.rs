//! What README, the guide and the documentation of the interface promise, held against a model that was written from these alone.
//!
//! Logs live many lives: each opening has other options, after readers have looked at the file in every recovery mode; batches are
//! submitted in every way there is, by callbacks and futures, too; and each life ends with a close, a drop, a failed write, a power cut, or
//! SIGKILL. `STRANDLOG_SEED=n` runs one seed alone, `STRANDLOG_SEEDS=n` more of them.

#[path = "../support/mod.rs"]
mod support;

mod both;
mod check;
mod disk;
mod kill;
mod life;
mod model;
mod moving;
mod steps;
mod told;

use support::{for_each, seeds, tally};

#[test]
fn a_log_on_a_simulated_disk_keeps_what_the_documents_promise() {
    for_each(&seeds(0, 12), |seed| {
        let mut run = disk::Run::new(seed);
        run.run(12, 60);
        let [crashes, closes, poisoned, in_recovery, in_doubt, copies] = run.counts;
        tally(&[
            ("crashes", crashes),
            ("closes", closes),
            ("poisoned", poisoned),
            ("recoveries_cut", in_recovery),
            ("in_doubt", in_doubt),
            ("copies", copies),
        ]);
    });
}

/// Not a test of its own: see `kill::lives`.
#[test]
fn kill_child() {
    kill::child();
}

#[test]
fn a_log_in_a_file_keeps_what_the_documents_promise_when_its_process_is_killed() {
    for_each(&seeds(0, 2), |seed| {
        let heard = kill::lives(seed, 7);
        tally(&[("acknowledged", heard)]);
    });
}

#[test]
fn a_migration_keeps_what_the_documents_promise() {
    for_each(&seeds(0, 30), |seed| {
        let [again, batches, switched, cuts] = moving::run(seed, 20);
        tally(&[("again", again), ("moved_batches", batches), ("switched", switched), ("cuts", cuts)]);
    });
}
