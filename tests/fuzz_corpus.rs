//! Replays the fuzzers' corpora without a fuzzer: what was found once stays found.
//!
//! Files called `found-*` made something fail; the others are what coverage-guided runs kept. See `fuzz/README.md`.

#[allow(dead_code)]
#[path = "../fuzz/harness/mod.rs"]
mod harness;

use std::path::Path;
use std::time::{Duration, Instant};

/// No input may take longer than this: a hostile one must not make the log work for ever.
const LIMIT: Duration = Duration::from_secs(20);

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "the corpus of {target} is gone");
    for file in files {
        let input = std::fs::read(&file).unwrap();
        println!("{}", file.display());
        let started = Instant::now();
        run(&input);
        assert!(started.elapsed() < LIMIT, "{} took {:?}", file.display(), started.elapsed());
    }
}

#[test]
fn the_crash_image_corpus_holds() {
    replay("crash_image", harness::crash::run);
}

#[test]
fn the_hostile_image_corpus_holds() {
    replay("hostile_image", harness::hostile::run);
}

#[test]
fn the_ops_corpus_holds() {
    replay("ops", harness::ops::run);
}

#[test]
fn the_decode_corpus_holds() {
    replay("decode", harness::decode::run);
}

/// An image that was looked at first could not be opened for work afterwards: a quarter of the corpus did nothing more.
#[test]
fn a_sound_image_is_worked_on_whoever_looked_at_it_before() {
    for looks in [0, 0x40, 0x80, 0xc0] {
        for specimen in [0x01, 0x05, 0x09, 0x0d, 0x13] {
            assert!(harness::hostile::is_worked_on(&[looks | specimen]), "{looks:x}, {specimen:x}");
        }
    }
}

/// Proves the oracle: on a disk that ignores its syncs some of the same inputs fail.
#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/crash_image");
    let mut inputs = std::fs::read_dir(&corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let caught = inputs.any(|input| {
        let lying = std::panic::AssertUnwindSafe(|| harness::crash::run_on_a_lying_disk(&input));
        std::panic::catch_unwind(lying).is_err()
    });
    assert!(caught, "no input noticed that nothing was ever made durable");
}

/// Until then `crash_image` never removed a replica and changed it in the same batch.
#[test]
fn replicas_that_are_removed_and_begun_anew_in_one_batch_are_in_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/crash_image");
    let inputs = std::fs::read_dir(&corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let begun: u64 = inputs.map(|input| harness::crash::lives_begun_with_a_removal(&input)).sum();
    assert!(begun >= 40, "{begun}");
}
