//! The power fails at each write of a script in turn. Every group is then found as it was after some of its writes, in their order, and
//! after all that were acknowledged: its vote, entries, purge point and committed log id are never reordered.

use std::sync::Arc;

use strandlog::Wal;
use strandlog::disk::sim::Fault;

use crate::scribe::Scribe;
use crate::support::{Rng, disk, open_still, try_open_still};

const GROUPS: u64 = 5;
const STEPS: usize = 60;

/// Writes to all groups from one thread until the power fails; returns what each group may be.
async fn write(wal: &Arc<Wal>, seed: u64) -> Vec<Scribe> {
    let mut rng = Rng(seed);
    let mut scribes = Vec::new();
    for group in 0..GROUPS {
        scribes.push(Scribe::open(wal, group).await);
    }
    for _ in 0..STEPS {
        let scribe = &mut scribes[rng.below(GROUPS) as usize];
        if scribe.step(&mut rng).await.is_err() {
            break;
        }
    }
    scribes
}

#[tokio::test]
async fn the_power_fails_at_every_write() {
    let (mut cuts, mut acknowledged) = (0, 0);
    for seed in 0..6 {
        let whole = disk();
        let wal = open_still(&whole);
        let opening = whole.events();
        write(&wal, seed).await;
        for event in opening..whole.events() {
            let cut = disk();
            cut.fail_at(event, Fault::Cut);
            let scribes = write(&open_still(&cut), seed).await;
            assert!(cut.is_cut(), "seed {seed}: no event {event}");
            let found = Arc::new(cut.crash_seeded(seed << 32 | event));
            let wal = open_still(&found);
            for scribe in scribes {
                acknowledged += scribe.acknowledged();
                scribe.judge(&wal, &format!("seed {seed}, event {event}")).await;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts, {acknowledged} writes acknowledged before them");
    assert!(cuts > 100 && acknowledged > 1000, "little was tested: {cuts} cuts, {acknowledged} writes");
}

#[tokio::test]
async fn one_power_cut_after_another() {
    for seed in 100..112 {
        let mut rng = Rng(seed);
        let mut disk = disk();
        for life in 0..6 {
            disk.fail_at(disk.events() + 10 + rng.below(40), Fault::Cut);
            // The opening's own writes may fail: then there is nothing to judge.
            let scribes = match try_open_still(&disk) {
                Ok(wal) => write(&wal, rng.next()).await,
                Err(_) => Vec::new(),
            };
            disk = Arc::new(disk.crash_seeded(rng.next()));
            let wal = open_still(&disk);
            for scribe in scribes {
                scribe.judge(&wal, &format!("seed {seed}, life {life}")).await;
            }
        }
    }
}
