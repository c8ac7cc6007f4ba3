//! Small clusters of real openraft on simulated disks, in a time that a seed directs: nodes are killed at any write, disks fail, logs are
//! full for a while, messages are lost, late and duplicated, snapshots are built and installed, logs purged, members removed and taken
//! back, some of them blank; membership changes at any time, in openraft 0.10 even the leader's.
//!
//! Whatever happens: no vote is taken back, no two nodes apply different entries at an index, in the end all nodes have what a client was
//! told, every node comes back, and the groups go on. `STRANDLOG_SEED=n` runs one world, `STRANDLOG_SEEDS=n` runs that many.
//!
//! In openraft 0.9 a seed is exactly one world. openraft 0.10 does not repeat itself exactly, so a seed is one of several: it may take a
//! few runs to find a failure again.

#![cfg(any(feature = "v09", feature = "v010"))]

mod env;
mod judge;
mod life;
mod machine;
mod members;
mod rng;
#[cfg(feature = "v010")]
mod v010;
#[cfg(feature = "v09")]
mod v09;
mod world;

use world::{Member, Tally};

/// The seeds to run: `STRANDLOG_SEEDS` of them from `STRANDLOG_SEED`; only that one, or `some` from 0, if only one variable is set.
fn seeds(some: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (from, many) = (number("STRANDLOG_SEED"), number("STRANDLOG_SEEDS"));
    let first = from.unwrap_or(0);
    first..first + many.unwrap_or(if from.is_some() { 1 } else { some })
}

fn worlds<R: Member>(some: u64) {
    let mut all = Tally::default();
    for seed in seeds(some) {
        let Tally { acknowledged, deaths } = world::run::<R>(seed);
        all.acknowledged += acknowledged;
        all.deaths += deaths;
    }
    println!("tally acknowledged={} deaths={}", all.acknowledged, all.deaths);
}

#[cfg(feature = "v09")]
#[test]
fn openraft_0_9() {
    worlds::<v09::Node>(6);
}

#[cfg(feature = "v010")]
#[test]
fn openraft_0_10() {
    worlds::<v010::Node>(3);
}
