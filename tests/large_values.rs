//! A full log still takes a large value in the place of one that takes as many chunks: the new one is written beside the old one, in chunks
//! that are kept for that, and whatever grows leaves those alone.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::{assert_sound, assert_space, for_each, open, payload, seeds, tally};

/// A value longer than this lies in chunks.
const LARGE: usize = 4096;
/// The length of a piece's header, which lies before a value that fits a chunk.
const HEADER: usize = 72;
/// Replicas with values; the others have entries.
const OWNERS: u64 = 3;
const OTHERS: u64 = 6;

/// The size of a log.
#[derive(Clone, Copy, Debug)]
struct Size {
    chunk: u32,
    segment: u32,
    segments: u64,
}

impl Size {
    fn options(self) -> Options {
        let journal = 6 * u64::from(self.segment);
        let options = Wal::options().chunk_size(self.chunk).segment_size(self.segment).journal_cap(journal);
        options.direct_threshold(8 << 10).recent_bytes(1 << 20).background(false)
    }

    fn disk(self) -> SimDisk {
        SimDisk::new((64 << 10) + self.segments * u64::from(self.segment))
    }

    /// Chunks that a value takes.
    fn chunks(self, len: usize) -> usize {
        let chunk = self.chunk as usize;
        match len {
            ..=LARGE => 0,
            _ if len + HEADER <= chunk => 1,
            _ => len.div_ceil(chunk),
        }
    }

    /// A length near the bounds of chunks, near the largest, or any.
    fn length(self, rng: &mut StdRng, most: usize) -> usize {
        let chunk = self.chunk as usize;
        let around = |at: usize, rng: &mut StdRng| (at + rng.random_range(0..3)).saturating_sub(1);
        match rng.random_range(0..6) {
            0 => most - rng.random_range(0..3),
            1 => around(rng.random_range(1..=most.div_ceil(chunk)) * chunk, rng),
            2 => around(rng.random_range(1..=most.div_ceil(chunk)) * chunk - HEADER, rng),
            3 => around(LARGE, rng),
            _ => rng.random_range(0..=most),
        }
        .min(most)
    }

    /// A length that takes no more chunks than `than` does, and is no longer if that takes none. A value in chunks stays in chunks.
    fn no_larger(self, rng: &mut StdRng, than: usize) -> usize {
        let (shortest, longest) = match self.chunks(than) {
            0 => (0, than),
            1 => (LARGE + 1, (self.chunk as usize - HEADER).max(than)),
            n => (LARGE + 1, n * self.chunk as usize),
        };
        match rng.random_range(0..3) {
            0 => than,
            1 => longest,
            _ => rng.random_range(shortest..=longest),
        }
    }
}

type Values = BTreeMap<(u64, u8), Vec<u8>>;

/// One life of a log, and the values in it.
struct Life {
    size: Size,
    disk: Arc<SimDisk>,
    wal: Wal,
    most: usize,
    values: Values,
    salt: u64,
    rng: StdRng,
    what: String,
    written: u64,
    grown: u64,
    refused: u64,
}

impl Life {
    fn begin(size: Size, seed: u64, placement: Placement) -> Self {
        let disk = Arc::new(size.disk());
        let wal = size.options().placement(placement).open_disk(disk.clone()).expect("formatted");
        let most = wal.max_value_bytes() as usize;
        let (values, rng, what) = (Values::new(), StdRng::seed_from_u64(seed), format!("seed {seed}, {size:?}"));
        Self { size, disk, wal, most, values, salt: 0, rng, what, written: 0, grown: 0, refused: 0 }
    }

    fn put(&mut self, at: (u64, u8), len: usize) -> Result<(), Error> {
        self.salt += 1;
        let value = payload(at.0, self.salt, at.1.into(), len).to_vec();
        self.wal.commit(Batch::new().put(at.0, &[at.1], &value))?;
        self.values.insert(at, value);
        Ok(())
    }

    /// Appends entries large and small until not one more gets in.
    fn fill(&mut self) {
        for len in [20_000, 3000, 300, 1] {
            let mut refused = 0;
            while refused < OTHERS {
                let replica = 100 + self.rng.random_range(0..OTHERS);
                let next = self.wal.replica(replica).last_index() + 1;
                match self.wal.commit(Batch::new().append(replica, &[(next, 1, payload(replica, next, 1, len))])) {
                    Ok(_) => refused = 0,
                    Err(Error::Full(_)) => refused += 1,
                    Err(error) => panic!("{}: {error}", self.what),
                }
            }
        }
    }

    /// Puts a value of any length. One that grows may be refused, and must leave what is kept for those that do not.
    fn grow(&mut self) {
        let at = (self.rng.random_range(0..OWNERS), self.rng.random_range(0..4));
        let len = self.size.length(&mut self.rng, self.most);
        match self.put(at, len) {
            Ok(()) => self.grown += 1,
            Err(Error::Full(_)) => self.refused += 1,
            Err(error) => panic!("{}: {error}", self.what),
        }
    }

    /// Puts each value anew in its own place, no larger than before.
    fn write_anew(&mut self) {
        let all: Vec<((u64, u8), usize)> = self.values.iter().map(|(&at, value)| (at, value.len())).collect();
        for (at, was) in all {
            let len = self.size.no_larger(&mut self.rng, was).min(self.most);
            match self.put(at, len) {
                Ok(()) => {}
                // A longer one in the same chunks may have a longer record: ten bytes a block.
                Err(Error::Full(report)) if len > was && report.metadata => {}
                Err(error) => {
                    panic!("{}, {at:?} of {len} in the place of {was}: {error}: {:?}", self.what, self.wal.stats())
                }
            }
            self.written += 1;
        }
    }

    fn check(&self) {
        for (&(replica, key), value) in &self.values {
            let found = self.wal.replica(replica).get(&[key]).expect("readable");
            assert!(found.is_some_and(|found| found == value.as_slice()), "{}: {replica} {key}", self.what);
        }
        assert_space(&self.wal, &self.what);
    }

    /// Closes the log or cuts the power, and opens it again.
    fn again(mut self, placement: Placement) -> Self {
        self.check();
        let disk = match self.rng.random_range(0..3) {
            0 => {
                self.wal.close().expect("closed");
                self.disk.restart()
            }
            1 => self.disk.crash_lost_all(),
            _ => self.disk.crash_seeded(self.rng.random()),
        };
        self.disk = Arc::new(disk);
        self.wal = self.size.options().placement(placement).open_disk(self.disk.clone()).expect("opened");
        self.check();
        self
    }
}

/// Logs of as few segments as there may be, and of more; chunks from a block to a segment.
fn sizes() -> Vec<Size> {
    let (small, large) = (64 << 10, 1 << 20);
    let of = |chunk, segment, segments| Size { chunk, segment, segments };
    let mut all: Vec<Size> = [8, 9, 12, 15, 16, 40]
        .into_iter()
        .flat_map(|n| [of(4096, small, n), of(16 << 10, small, n), of(small, small, n)])
        .collect();
    all.extend([of(64 << 10, large, 8), of(4096, 256 << 10, 10), of(512 << 10, 4 << 20, 8)]);
    all
}

#[test]
fn a_full_log_takes_a_large_value_in_the_place_of_one_that_takes_as_many_chunks() {
    let lives: Vec<(u64, Size)> =
        seeds(0, 8).into_iter().flat_map(|seed| sizes().into_iter().map(move |s| (seed, s))).collect();
    let counts = std::sync::Mutex::new([0; 3]);
    for_each(&lives, |(seed, size)| {
        let placement = support::PLACEMENTS[(seed % 3) as usize];
        let mut life = Life::begin(size, seed, placement);
        for _ in 0..20 {
            life.grow();
        }
        for _ in 0..3 {
            life.fill();
            for _ in 0..4 {
                life.write_anew();
                for _ in 0..5 {
                    life.grow();
                }
            }
            life.write_anew();
            life = life.again(placement);
            life.write_anew();
        }
        assert_sound(&life.wal, &life.what);
        let mut counts = counts.lock().expect("no panic");
        for (sum, n) in counts.iter_mut().zip([life.written, life.grown, life.refused]) {
            *sum += n;
        }
    });
    let [written, grown, refused] = *counts.lock().expect("no panic");
    tally(&[("written_anew", written), ("grown", grown), ("refused", refused)]);
    assert!(written > 0 && grown > 0 && refused > 0);
}

/// Replicas that were carried count as large then, and find no chunks but those that are kept.
#[test]
fn a_full_log_takes_a_large_value_also_when_less_is_carried_than_before() {
    // More such replicas than chunks that are kept, or fewer.
    for (chunk, segments, small) in [(4096, 12, 12), (4096, 40, 5), (16 << 10, 16, 12), (16 << 10, 16, 2)] {
        let size = Size { chunk, segment: 64 << 10, segments };
        let options = |carry| size.options().direct_threshold(4096).carry_fraction(carry);
        let disk = Arc::new(size.disk());
        let wal = options(100).open_disk(disk.clone()).expect("formatted");
        let most = wal.max_value_bytes() as usize;
        wal.commit(Batch::new().put(1, b"large", &payload(1, 0, 1, most)).put(2, b"vote", &[0; 40])).expect("room");
        for replica in 100..100 + small {
            wal.commit(Batch::new().append(replica, &[(1, 1, payload(replica, 1, 1, 1500))])).expect("room");
        }
        let reserved = |wal: &Wal| wal.stats().reserved_chunks - wal.stats().reserved_for_values;
        assert_eq!(reserved(&wal), 0, "they are carried");
        let mut index = 1;
        while wal.commit(Batch::new().append(200, &[(index, 1, payload(200, index, 1, chunk as usize))])).is_ok() {
            index += 1;
        }
        wal.sync().expect("durable");
        drop(wal);
        let wal = options(1).open_disk(Arc::new(disk.crash_lost_all())).expect("opened");
        for salt in 1..20 {
            let value = payload(1, salt, 1, most);
            wal.commit(Batch::new().put(1, b"large", &value)).unwrap_or_else(|e| panic!("{size:?}, {salt}: {e}"));
            assert_eq!(wal.replica(1).get(b"large").expect("readable").as_deref(), Some(&value[..]));
            wal.commit(Batch::new().put(2, b"vote", &[salt as u8; 40])).expect("room");
        }
        assert_sound(&wal, "less is carried");
        // The replicas are settled as far as there are chunks, and all segments can be cleaned.
        wal.checkpoint().expect("cleaned");
        assert_sound(&wal, "cleaned");
        for replica in 100..100 + small {
            assert_eq!(wal.replica(replica).entry(1).expect("kept").data, payload(replica, 1, 1, 1500));
        }
        wal.commit(Batch::new().remove(200)).expect("a removal");
        wal.commit(Batch::new().append(100, &[(2, 1, payload(100, 2, 1, 1500))])).expect("room");
    }
}

/// With a smaller fraction, what was carried may no longer count as a small part of a chunk. It does not get the chunks that are kept for a
/// large value.
#[test]
fn a_full_log_that_is_opened_with_a_smaller_carry_fraction_still_takes_a_value_in_its_own_place() {
    for percent in [1, 12] {
        let disk = Arc::new(SimDisk::new(3 << 20));
        let options = |percent| {
            let options = Wal::options().chunk_size(16 << 10).segment_size(64 << 10).background(false);
            options.carry_fraction(percent).recent_bytes(1 << 20)
        };
        let value = [7; 30_000];
        let wal = open(options(100), &disk);
        wal.commit(Batch::new().put(1, b"large", &value)).expect("there is room");
        // First replicas that are carried, then what fills the chunks.
        for id in 10..14 {
            wal.commit(Batch::new().append(id, &[(1, 1, [0; 3000])])).expect("there is room");
        }
        let full = (1..).find_map(|i| wal.commit(Batch::new().append(2, &[(i, 1, [0; 9000])])).err());
        assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
        let full = (1..).find_map(|i| wal.commit(Batch::new().append(3, &[(i, 1, [0; 5000])])).err());
        assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
        drop(wal);
        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(options(percent), &disk);
        let s = wal.stats();
        wal.commit(Batch::new().put(1, b"large", &value)).unwrap_or_else(|e| panic!("{percent} %: {e}: {s:?}"));
        assert_sound(&wal, "at the end");
    }
}
