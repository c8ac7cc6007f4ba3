//! What happens to files in the field.

use rand::Rng;
use rand::rngs::SmallRng;
use strandlog::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS};

use crate::life::{BLOCK, Made, block};

/// What is expected after what happened to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The log opens, and holds everything acknowledged.
    Sound,
    /// Everything acknowledged is there, or is reported as lost.
    Hurt,
    /// Parts of the file are older: nothing is expected except that the tool looks at it to its end.
    Anything,
}

/// Does something at random to the file.
pub fn happens(rng: &mut SmallRng, made: &Made, what: &mut String) -> (Vec<u8>, Fate) {
    let mut image = made.image.clone();
    let blocks = image.len() / BLOCK;
    let used: Vec<usize> = (0..blocks).filter(|&b| block(&image, b).iter().any(|&x| x != 0)).collect();
    let first_slab = 16;
    let fate = match rng.random_range(0..20) {
        0..5 => Fate::Sound,
        5..12 => {
            for _ in 0..rng.random_range(1..6) {
                let at = if rng.random_bool(0.9) {
                    used[rng.random_range(0..used.len())]
                } else {
                    rng.random_range(first_slab..blocks)
                };
                // After a close the superblocks say how far the log was durable; otherwise damage in the last frames looks like a torn end.
                if at < first_slab || !made.closed && made.newest.contains(&at) {
                    continue;
                }
                *what += &rot(rng, &mut image, &made.old, at);
            }
            Fate::Hurt
        }
        12 => {
            let at = SUPERBLOCK_OFFSETS[rng.random_range(0..2)] as usize;
            image[at + rng.random_range(0..100)] ^= 1 << rng.random_range(0..8);
            *what += &format!(", superblock at {at}");
            Fate::Hurt
        }
        13 => {
            for at in SUPERBLOCK_OFFSETS {
                image[at as usize + rng.random_range(0..100)] ^= 4;
            }
            *what += ", both superblocks";
            Fate::Hurt
        }
        14..17 => {
            let len = match rng.random_range(0..4) {
                0 => rng.random_range(0..image.len()),
                1 => image.len() - 1,
                2 => image.len() / BLOCK / 2 * BLOCK,
                _ => image.len() - rng.random_range(0..image.len() / 4),
            };
            image.truncate(len);
            *what += &format!(", cut to {len}");
            Fate::Hurt
        }
        17 => {
            // Copied while in use: the front of the file is older than its end, or the other way round.
            let at = rng.random_range(0..=made.old.len());
            image[..at].copy_from_slice(&made.old[..at]);
            *what += &format!(", a copy whose first {at} bytes are older");
            Fate::Anything
        }
        18 => {
            let at = rng.random_range(0..=made.old.len());
            let end = made.old.len();
            image[at..end].copy_from_slice(&made.old[at..]);
            *what += &format!(", a copy that is older from {at} on");
            Fate::Anything
        }
        _ => {
            // A growth that was interrupted before any superblock was written.
            let more = rng.random_range(1..300_000);
            image.extend((0..more).map(|i| (i as u8) ^ 0x5a));
            *what += &format!(", {more} bytes longer");
            Fate::Sound
        }
    };
    (image, fate)
}

fn rot(rng: &mut SmallRng, image: &mut [u8], old: &[u8], at: usize) -> String {
    let range = at * BLOCK..(at + 1) * BLOCK;
    match rng.random_range(0..5) {
        0 | 1 => {
            let bit = rng.random_range(0..BLOCK);
            image[range.start + bit] ^= 1 << rng.random_range(0..8);
            format!(", a bit of block {at} at {bit}")
        }
        2 => {
            image[range].fill(0);
            format!(", zeros in block {at}")
        }
        3 => {
            let sector = range.start + rng.random_range(0..8) * 512;
            image[sector..sector + 512].fill(0xee);
            format!(", sector at {sector}")
        }
        _ => {
            if let Some(was) = old.get(range.clone()) {
                image[range].copy_from_slice(was);
            }
            format!(", block {at} is older")
        }
    }
}

/// A growth of `image` to `grown` that was interrupted between the two superblocks, or in the middle of the first.
pub fn half_grown(rng: &mut SmallRng, image: &[u8], grown: &[u8]) -> Vec<u8> {
    let mut half = grown.to_vec();
    let [a, b] = SUPERBLOCK_OFFSETS.map(|at| at as usize);
    half[b..b + SUPERBLOCK_BYTES].copy_from_slice(&image[b..b + SUPERBLOCK_BYTES]);
    let sectors = SUPERBLOCK_BYTES / 512;
    let torn = rng.random_range(0..=sectors);
    half[a + torn * 512..a + SUPERBLOCK_BYTES].copy_from_slice(&image[a + torn * 512..a + SUPERBLOCK_BYTES]);
    half
}
