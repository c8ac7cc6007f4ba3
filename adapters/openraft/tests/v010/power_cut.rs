//! The power fails at each write of a script in turn: every group is found as it was after some of its writes, in their order, and after
//! all that were acknowledged. A group's vote, entries, purge point and committed log id never change places.

use std::sync::Arc;

use strandlog::disk::sim::{Fault, SimDisk};

use crate::scribe::Scribe;
use crate::support::{Rng, disk, open_still};

const GROUPS: u64 = 5;
const STEPS: usize = 60;

/// Writes to all groups, one thread, until the power fails; says what each may be.
async fn write(disk: &Arc<SimDisk>, seed: u64) -> Vec<Scribe> {
    let mut rng = Rng(seed);
    let wal = open_still(disk);
    let mut scribes = Vec::new();
    for group in 0..GROUPS {
        scribes.push(Scribe::open(&wal, group).await);
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
        write(&whole, seed).await;
        let opening = {
            let fresh = disk();
            drop(open_still(&fresh));
            fresh.events()
        };
        for event in opening..whole.events() {
            let cut = disk();
            cut.fail_at(event, Fault::Cut);
            let scribes = write(&cut, seed).await;
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
            // What opening writes may be what fails: then there is nothing to judge.
            let lived = std::panic::AssertUnwindSafe(write(&disk, rng.next()));
            let scribes = futures_util::FutureExt::catch_unwind(lived).await;
            disk = Arc::new(disk.crash_seeded(rng.next()));
            let Ok(scribes) = scribes else { continue };
            let wal = open_still(&disk);
            for scribe in scribes {
                scribe.judge(&wal, &format!("seed {seed}, life {life}")).await;
            }
        }
    }
}
