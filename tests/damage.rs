//! A closed log with every kind of structure is damaged in every sector, one wound at a time, in several ways. Damage never passes for a
//! torn tail.
//!
//! Each case must end in one of three ways: no effect, because the space was dead; a typed report that names the replica, all others
//! byte-exact and writable; or a refusal to open that says what is broken. **Never silent loss, never wrong bytes.**
//!
//! `STRANDLOG_DAMAGE=all` flips every single bit, instead of a few in each sector (`STRANDLOG_SEED` chooses which); `STRANDLOG_DAMAGE=3/40`
//! flips the third of forty parts of them, which together are all bits.

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;

use support::judge::{End, judge, specimen};
use support::model::Model;
use support::{env, for_each};

const SECTOR: usize = 512;
#[derive(Clone, Copy, Debug)]
enum Hurt {
    Flip {
        bit: usize,
    },
    Zero {
        sector: usize,
    },
    /// The block there, whole.
    ZeroBlock {
        block: usize,
    },
    Swap {
        a: usize,
        b: usize,
    },
    /// What belongs to `from` lies at `to`, too.
    Misdirect {
        from: usize,
        to: usize,
    },
}

impl Hurt {
    fn name(self) -> &'static str {
        match self {
            Self::Flip { .. } => "one bit flipped",
            Self::Zero { .. } => "a sector zeroed",
            Self::ZeroBlock { .. } => "a block zeroed",
            Self::Swap { .. } => "two sectors swapped",
            Self::Misdirect { .. } => "a sector written elsewhere",
        }
    }

    fn apply(self, image: &mut [u8]) {
        match self {
            Self::Flip { bit } => image[bit / 8] ^= 1 << (bit % 8),
            Self::Zero { sector } => image[sector * SECTOR..][..SECTOR].fill(0),
            Self::ZeroBlock { block } => image[block * 4096..][..4096].fill(0),
            Self::Swap { a, b } => {
                for i in 0..SECTOR {
                    image.swap(a * SECTOR + i, b * SECTOR + i);
                }
            }
            Self::Misdirect { from, to } => image.copy_within(from * SECTOR..(from + 1) * SECTOR, to * SECTOR),
        }
    }
}

/// Every wound to try on an image of so many sectors. Flips a few bits of each sector, unless every bit is asked for.
fn cases(sectors: usize) -> Vec<Hurt> {
    let mut x = env("STRANDLOG_SEED", 1);
    let mut random = move |below: usize| {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 33) as usize % below
    };
    let mut cases = Vec::new();
    let part = std::env::var("STRANDLOG_DAMAGE").ok().map(|part| match part.split_once('/') {
        None if part == "all" => (1, 1),
        Some((part, of)) => (part.parse::<usize>().expect("a part"), of.parse::<usize>().expect("of so many")),
        None => panic!("STRANDLOG_DAMAGE={part} is neither `all` nor a part, like 3/40"),
    });
    for sector in 0..sectors {
        if let Some((part, of)) = part {
            let bits = (0..SECTOR * 8).map(|bit| sector * SECTOR * 8 + bit);
            cases.extend(bits.filter(|bit| bit % of == part % of).map(|bit| Hurt::Flip { bit }));
        } else {
            // The first bytes of a block are the densest.
            let dense = sector * SECTOR * 8 + random(128 * 8);
            cases.push(Hurt::Flip { bit: dense });
            cases.push(Hurt::Flip { bit: sector * SECTOR * 8 + random(SECTOR * 8) });
        }
        cases.push(Hurt::Zero { sector });
        if sector % 8 == 0 {
            cases.push(Hurt::ZeroBlock { block: sector / 8 });
        }
        // The neighbour, the same place in the next block, anywhere.
        let others = [(sector + 1) % sectors, (sector + 8) % sectors, random(sectors)];
        let other = others[random(3)];
        cases.push(Hurt::Swap { a: sector, b: other });
        cases.push(Hurt::Misdirect { from: others[random(3)], to: sector });
    }
    cases
}

/// Opened from the journal, as after a crash.
#[test]
fn every_wound_is_harmless_or_reported_or_refused() {
    let (image, model) = specimen();
    wounds(support::without_snapshot(image), &model);
}

/// Opened from the snapshot, which says much of the journal once more: fewer wounds hurt, and none is silent.
#[test]
fn with_a_snapshot_every_wound_is_harmless_or_reported_or_refused_too() {
    let (image, model) = specimen();
    wounds(image, &model);
}

fn wounds(image: Vec<u8>, model: &Model) {
    assert_eq!(judge(image.clone(), model), Ok(End::NoEffect), "the specimen itself");
    let cases = cases(image.len() / SECTOR);
    let table: Mutex<BTreeMap<(&'static str, End), u64>> = Mutex::new(BTreeMap::new());
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    for_each(&cases, |case| {
        let mut hurt = image.clone();
        case.apply(&mut hurt);
        let end = if hurt == image { Ok(End::NoEffect) } else { judge(hurt, model) };
        match end {
            Ok(end) => *table.lock().expect("no panic").entry((case.name(), end)).or_default() += 1,
            Err(why) => failures.lock().expect("no panic").push(format!("{case:?}: {why}")),
        }
    });
    for ((name, end), n) in &*table.lock().expect("no panic") {
        println!("{name:28} {n:8}  {end:?}");
    }
    let failures = failures.into_inner().expect("no panic");
    let shown: Vec<_> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} of {} cases: {shown:#?}", failures.len(), cases.len());
}
