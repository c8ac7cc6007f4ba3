//! Small clusters of real openraft on simulated disks, in a time that a seed directs: nodes are killed at any write, disks fail, logs are full for a while,
//! messages are lost, late and doubled, snapshots are built and installed, logs purged, members removed and taken back, some of them blank; members change at any time, in openraft
//! 0.10 the leader among them.
//!
//! Whatever happens: no vote is taken back, nobody applies at an index what another does not, what a client was told is in the end on all
//! nodes, every node comes back, and the groups go on. `STRANDLOG_SEED=n` runs one world, `STRANDLOG_SEEDS=n` so many.
//!
//! In openraft 0.9 a seed is one world. In 0.10, which does not repeat itself exactly, it is one of several: what was found in one may take a few runs to be
//! found again.

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

/// The seeds to run: `STRANDLOG_SEEDS` of them from `STRANDLOG_SEED`; that one alone, or `some` from 0, if only one is set.
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
