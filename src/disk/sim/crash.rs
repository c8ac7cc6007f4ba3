//! What a power cut leaves: for every sector in doubt, a choice.

use super::{
    SimDisk,
    medium::{Medium, SECTOR, Version},
};

/// What a power cut leaves in one sector that no sync had covered.
///
/// Versions are numbered from 0, the oldest; a number too high means the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What the last sync left there.
    Durable,
    /// One of the versions written since.
    Version(usize),
    /// The first bytes of a version, over what the last sync left there.
    Torn {
        /// The version.
        version: usize,
        /// How many bytes of it.
        at_byte: usize,
    },
    /// The head of one version and the tail of another; `None` is what the last sync left.
    Spliced {
        /// Where the bytes before `at_byte` come from.
        head: Option<usize>,
        /// Where the bytes from `at_byte` on come from.
        tail: Option<usize>,
        /// Where they meet.
        at_byte: usize,
    },
    /// Bytes that nobody wrote, made from this seed.
    Garbage(u64),
}

impl SimDisk {
    /// Cuts the power: the disk as it is found afterwards, where `choose` decided, for every sector
    /// in doubt and given the number of its versions, what the medium kept.
    ///
    /// This disk stays as it is, so one run can end in many ways.
    pub fn crash(&self, choose: &mut dyn FnMut(u64, usize) -> Choice) -> SimDisk {
        self.crash_by(&mut |sector, versions| choose(sector, versions.len()))
    }

    /// A crash that keeps nothing but what was synced.
    pub fn crash_lost_all(&self) -> SimDisk {
        self.crash(&mut |_, _| Choice::Durable)
    }

    /// A crash that keeps everything that was written, even by writes that failed.
    pub fn crash_kept_all(&self) -> SimDisk {
        self.crash(&mut |_, versions| Choice::Version(versions.saturating_sub(1)))
    }

    /// A crash drawn from `seed`, always the same one for the same history.
    ///
    /// Deciding each sector by itself would almost never show what real devices mostly do, so the seed
    /// also draws the manner: writes kept in order up to some moment, whole writes kept or lost in any
    /// order, or every sector by itself, from nearly all kept to nearly all lost, with or without
    /// tearing and garbage.
    pub fn crash_seeded(&self, seed: u64) -> SimDisk {
        let mut random = Random(seed);
        let manner = random.below(4);
        let (oldest, newest) = self.with_medium(Medium::writes_in_doubt);
        // From just before the oldest write in doubt to the newest.
        let until = (oldest + random.below(newest - oldest + 2)).saturating_sub(1);
        let writes_kept_percent = [25, 50, 75][random.below(3) as usize];
        let sectors_kept_percent = [0, 5, 50, 95, 100][random.below(5) as usize];
        let spoilt_percent = [0, 0, 5, 40][random.below(4) as usize];
        self.crash_by(&mut |_, versions| {
            let spoilt = random.below(100) < spoilt_percent;
            let kept = match manner {
                0 => versions.iter().rposition(|version| version.write <= until),
                1 => versions.iter().rposition(|version| {
                    Random(seed ^ version.write.wrapping_mul(0x9e37)).below(100) < writes_kept_percent
                }),
                _ if random.below(100) < sectors_kept_percent => Some(random.below(versions.len() as u64) as usize),
                _ => None,
            };
            match kept {
                _ if spoilt => random.spoil(versions.len()),
                Some(version) => Choice::Version(version),
                None => Choice::Durable,
            }
        })
    }

    /// What a cut may leave, told apart by content: for each sector in doubt, every choice (short of tearing and garbage) that leaves other
    /// bytes than those before it. What was durable comes first, then the versions, oldest first. Sectors that are the same in every case
    /// are left out.
    ///
    /// A frame of a few hundred bytes covers eight sectors, seven of them zeros over zeros: whoever explores every outcome needs to know
    /// that these are two cases and not 256.
    pub fn outcomes(&self) -> Vec<(u64, Vec<Choice>)> {
        self.with_medium(|medium| {
            let outcomes = medium.unsynced().map(|(sector, versions)| {
                let mut durable = [0; SECTOR];
                medium.durable().read(sector * SECTOR as u64, &mut durable);
                let mut seen = vec![durable];
                let mut choices = vec![Choice::Durable];
                for (i, version) in versions.iter().enumerate() {
                    if !seen.iter().any(|bytes| bytes == version.bytes()) {
                        seen.extend(version.bytes().try_into().ok() as Option<[u8; SECTOR]>);
                        choices.push(Choice::Version(i));
                    }
                }
                (sector, choices)
            });
            outcomes.filter(|(_, choices)| choices.len() > 1).collect()
        })
    }

    fn crash_by(&self, choose: &mut dyn FnMut(u64, &[Version]) -> Choice) -> SimDisk {
        self.with_medium(|medium| {
            let mut kept = medium.durable().clone();
            for (sector, versions) in medium.unsynced() {
                let offset = sector * SECTOR as u64;
                let mut durable = [0; SECTOR];
                medium.durable().read(offset, &mut durable);
                let bytes = choose(sector, versions).apply(&durable, versions);
                kept.write(offset, &bytes);
            }
            SimDisk::from_pages(kept)
        })
    }
}

impl Choice {
    fn apply(self, durable: &[u8; SECTOR], versions: &[Version]) -> [u8; SECTOR] {
        let mut bytes = *durable;
        let newest = versions.len().saturating_sub(1);
        let pick = |version: Option<usize>| match version.map(|i| versions.get(i.min(newest))) {
            Some(Some(version)) => version.bytes(),
            _ => durable,
        };
        match self {
            Choice::Durable => {}
            Choice::Version(version) => bytes.copy_from_slice(pick(Some(version))),
            Choice::Torn { version, at_byte } => {
                let head = at_byte.min(SECTOR);
                bytes[..head].copy_from_slice(&pick(Some(version))[..head]);
            }
            Choice::Spliced { head, tail, at_byte } => {
                let at = at_byte.min(SECTOR);
                bytes[..at].copy_from_slice(&pick(head)[..at]);
                bytes[at..].copy_from_slice(&pick(tail)[at..]);
            }
            Choice::Garbage(seed) => {
                let mut random = Random(seed);
                for word in bytes.chunks_exact_mut(8) {
                    word.copy_from_slice(&random.next().to_le_bytes());
                }
            }
        }
        bytes
    }
}

/// SplitMix64: small, good enough to choose with, and the same everywhere and forever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn spoil(&mut self, versions: usize) -> Choice {
        // One more value than there are versions: 0 stands for what was durable.
        let mut any = || (self.below(versions as u64 + 1) as usize).checked_sub(1);
        let (head, tail) = (any(), any());
        match self.below(4) {
            0 => Choice::Garbage(self.next()),
            _ => Choice::Spliced { head, tail, at_byte: self.below(SECTOR as u64 + 1) as usize },
        }
    }
}
