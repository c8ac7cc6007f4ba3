//! Lives of a log on a simulated disk. Each ends with a close, a drop, a failed write or a power cut; the next begins with other options,
//! after openings for reading in every recovery mode.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::Rng;
use rand::rngs::StdRng;
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Error, Options, Placement, ReadMode, RecoveryMode, Wal};

use super::check;
use super::life::{Ended, Life};
use super::model::World;
use super::steps::{Shape, Steps};
use super::told::{CHAIN, chain_entry};

/// The shape of a file, set when it is created: what later openings ask for has no effect.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub capacity: u64,
    pub chunk: u32,
    pub segment: u32,
    pub cap: u64,
}

impl File {
    pub fn draw(rng: &mut StdRng) -> Self {
        let (chunk, segment) =
            [(4096, 64 << 10), (4096, 128 << 10), (16 << 10, 64 << 10), (64 << 10, 64 << 10)][rng.random_range(0..4)];
        let capacity = [576 << 10, 1 << 20, 3 << 20, 4 << 20, (5 << 20) + 4096][rng.random_range(0..5)];
        let capacity = u64::max(capacity, 8 * u64::from(segment) + (64 << 10));
        Self { capacity, chunk, segment, cap: rng.random_range(6 * u64::from(segment)..=capacity) }
    }

    pub fn shape(&self, ids: Vec<u64>, nonsense: u32) -> Shape {
        let max_value = self.segment as usize / 2;
        Shape { ids, live: self.capacity / 6, max_value, max_entry: 30_000.min(self.capacity as usize / 40), nonsense }
    }

    pub fn create(&self, options: Options) -> Options {
        options.capacity(self.capacity).chunk_size(self.chunk).segment_size(self.segment).journal_cap(self.cap)
    }
}

/// Options that may differ at each opening, and a shape that is asked for in vain.
pub fn options(rng: &mut StdRng) -> Options {
    let pick = |rng: &mut StdRng, of: [u32; 3]| of[rng.random_range(0..3)];
    Wal::options()
        .capacity(u64::from(pick(rng, [2, 7, 64])) << 20)
        .chunk_size(pick(rng, [4096, 16 << 10, 64 << 10]))
        .segment_size(64 << 10)
        .journal_cap(rng.random_range(6 * (64 << 10)..=1 << 20))
        .placement([Placement::Auto, Placement::Journal, Placement::Chain][rng.random_range(0..3)])
        .direct_threshold(pick(rng, [4096, 8 << 10, 64 << 10]))
        .carry_fraction(pick(rng, [1, 50, 100]) as u8)
        .recent_bytes(1 << 20)
        .queue_bytes(pick(rng, [64 << 10, 256 << 10, 16 << 20]) as usize)
        .read_mode(if rng.random() { ReadMode::Mapped } else { ReadMode::Copied })
        .io_uring(rng.random())
}

pub struct Run {
    seed: u64,
    rng: StdRng,
    pub disk: SimDisk,
    cap_segments: u64,
    steps: Option<Steps>,
    lives: u64,
    pub counts: [u64; 6],
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let mut rng = rand::SeedableRng::seed_from_u64(seed);
        let file = File::draw(&mut rng);
        let disk = Arc::new(SimDisk::new(file.capacity));
        let wal = file.create(options(&mut rng)).background(false).open_disk(Arc::clone(&disk) as Arc<_>);
        let wal = wal.unwrap_or_else(|e| panic!("seed {seed}: {file:?}: {e}"));
        let cap_segments = wal.stats().journal_cap_segments;
        drop(wal);
        let steps = Some(Steps::new(seed, file.shape((1..=6).collect(), 30)));
        let disk = disk.crash_lost_all();
        Self { seed, rng, disk, cap_segments, steps, lives: 0, counts: [0; 6] }
    }

    pub fn run(&mut self, lives: u64, steps: u64) {
        let (mut may, mut chain, mut clean) = (vec![World::default()], (0, 0), true);
        for _ in 0..lives {
            self.lives += 1;
            let label = format!("seed {}, life {}", self.seed, self.lives);
            let (disk, wal, found) = self.open(&may, chain, clean, &label);
            let mut steps_ = self.steps.take().expect("no life has them");
            steps_.begin_life(self.lives);
            let entries = wal.replica(CHAIN).last_index();
            let mut life = Life::new(wal, steps_, found, entries, label);
            let ended = self.live(&disk, &mut life, steps);
            let Ended { closed, durable, history, doubtful, steps: steps_, told } = life.end(ended);
            self.steps = Some(steps_);
            clean = closed && !disk.is_cut();
            self.counts[usize::from(clean)] += 1;
            may = history[durable..].iter().chain(&doubtful).map(World::as_found).collect();
            let submitted = *told.chain.lock().expect("no other panic");
            let durable = told.chain_durable.load(Ordering::SeqCst);
            chain = (if closed { submitted } else { durable }, submitted);
            self.disk = match self.rng.random_range(0..6) {
                0..=2 if !disk.is_cut() => disk.restart(),
                3 => disk.crash_lost_all(),
                4 => disk.crash_kept_all(),
                _ => disk.crash_seeded(self.rng.random()),
            };
        }
    }

    /// Works until an end that is drawn. Returns whether the log is to be closed.
    fn live(&mut self, disk: &SimDisk, life: &mut Life, steps: u64) -> bool {
        let steps = self.rng.random_range(0..=steps);
        let (end, at) = (self.rng.random_range(0..10), self.rng.random_range(0..2 * steps + 20));
        match end {
            0..=3 => disk.fail_at(disk.events() + at, Fault::Cut),
            4 | 5 => disk.fail_at(disk.events() + at, Fault::Error(EIO)),
            _ => {}
        }
        for _ in 0..steps {
            match life.step() {
                Ok(()) => {}
                Err(_) if disk.is_cut() => break,
                Err(error) if matches!(end, 4 | 5) => {
                    // An operation that reads the disk may return its own error first.
                    if !matches!(error, Error::Poisoned { .. }) {
                        continue;
                    }
                    self.counts[2] += 1;
                    life.poisoned();
                    break;
                }
                Err(error) => panic!("{}: {error}", life.label),
            }
        }
        self.rng.random_ratio(2, 3)
    }

    /// Opens the log, which must hold one of `may`, after readers have looked at it. Now and then the power fails on the way.
    fn open(&mut self, may: &[World], chain: (u64, u64), clean: bool, label: &str) -> (Arc<SimDisk>, Wal, World) {
        for fallen in 0.. {
            let seen = self.look(clean, label);
            let disk = Arc::new(self.disk.restart());
            if fallen < 3 && self.rng.random_ratio(1, 4) {
                disk.fail_at(disk.events() + self.rng.random_range(0..8), Fault::Cut);
            }
            // A log that was closed opens in the strictest mode, too.
            let mode = if clean && self.rng.random() { RecoveryMode::Strict } else { RecoveryMode::TolerateTornTail };
            let background = self.rng.random_ratio(1, 3);
            let opened = options(&mut self.rng).background(background).recovery_mode(mode);
            match opened.open_disk(Arc::clone(&disk) as Arc<_>) {
                Ok(wal) if !disk.is_cut() => {
                    let found = self.found(&wal, may, chain, label);
                    if let Some(seen) = seen {
                        assert!(seen == found, "{label}: seen by a reader before:{}", seen.difference(&found));
                    }
                    return self.copied(disk, wal, found, label);
                }
                Ok(wal) => drop(wal),
                Err(error) => assert!(disk.is_cut(), "{label}: opening ({mode:?}): {error}"),
            }
            self.counts[3] += 1;
            self.disk = disk.crash_seeded(self.rng.random());
        }
        unreachable!("the power does not always fail")
    }

    /// Readers in all modes write nothing and see the same. Returns what they saw.
    fn look(&mut self, clean: bool, label: &str) -> Option<World> {
        let mut seen: Option<World> = None;
        for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage, RecoveryMode::Strict] {
            if self.rng.random_ratio(1, 2) {
                continue;
            }
            let disk = Arc::new(self.disk.restart());
            let events = disk.events();
            let opened = options(&mut self.rng).read_only(true).recovery_mode(mode).background(self.rng.random());
            match opened.open_disk(Arc::clone(&disk) as Arc<_>) {
                Ok(wal) => {
                    let found = check::read(&wal).unwrap_or_else(|e| panic!("{label}: {mode:?}: {e}"));
                    check::figures(&wal, &found, &format!("{label}: {mode:?}, for reading"));
                    let mut batch = Batch::new();
                    batch.put(1, b"vote", b"x");
                    assert!(matches!(wal.submit(&mut batch), Err(Error::ReadOnly)), "{label}");
                    assert!(matches!(wal.check(), Err(Error::ReadOnly)), "{label}");
                    wal.close().unwrap_or_else(|e| panic!("{label}: {e}"));
                    if let Some(seen) = &seen {
                        assert!(*seen == found, "{label}: {mode:?}:{}", seen.difference(&found));
                    }
                    seen = Some(found);
                }
                Err(error) => assert!(mode == RecoveryMode::Strict && !clean, "{label}: {mode:?}: {error}"),
            }
            assert_eq!(disk.events(), events, "{label}: a reader wrote");
        }
        seen
    }

    fn found(&mut self, wal: &Wal, may: &[World], chain: (u64, u64), label: &str) -> World {
        let mut found = check::read(wal).unwrap_or_else(|e| panic!("{label}: {e}; {:?}", wal.damage()));
        check::figures(wal, &found, label);
        let s = wal.stats();
        assert_eq!((s.capacity, s.journal_cap_segments), (self.disk_len(), self.cap_segments), "{label}");
        check::sound(wal, &found, None, self.rng.random_ratio(1, 8), label).unwrap_or_else(|e| panic!("{label}: {e}"));
        let all = found.clone();
        let links = found.0.remove(&CHAIN).unwrap_or_default();
        let n = links.last();
        assert!((chain.0..=chain.1).contains(&n), "{label}: {n} of the chain, not {chain:?}");
        for (i, (_, data)) in (1..).zip(&links.entries) {
            assert_eq!(*data, chain_entry(i).2, "{label}: the chain");
        }
        if !may.contains(&found) {
            let all: Vec<_> = may.iter().take(4).map(|w| w.difference(&found)).collect();
            panic!("{label}: not one of {}: {}", may.len(), all.join("\n--"));
        }
        self.counts[4] += may.len() as u64 - 1;
        all
    }

    fn disk_len(&self) -> u64 {
        strandlog::disk::Disk::len(&self.disk)
    }

    /// Now and then the log is copied into a fresh one, with which the run goes on.
    fn copied(&mut self, disk: Arc<SimDisk>, wal: Wal, mut found: World, label: &str) -> (Arc<SimDisk>, Wal, World) {
        if !self.rng.random_ratio(1, 12) {
            found.0.remove(&CHAIN);
            return (disk, wal, found);
        }
        self.counts[5] += 1;
        let s = wal.stats();
        let capacity = (s.capacity / 8 * 9).next_multiple_of(4096);
        let (chunk, segment) = (s.chunk_size as u32, s.segment_size as u32);
        let file = File { capacity, chunk, segment, cap: capacity };
        let to_disk = Arc::new(SimDisk::new(capacity));
        let to = file.create(Wal::options()).background(false).open_disk(Arc::clone(&to_disk) as Arc<_>);
        let to = to.unwrap_or_else(|e| panic!("{label}: a copy: {e}"));
        let report = wal.salvage_into(&to, |_| ()).unwrap_or_else(|e| panic!("{label}: a copy: {e}"));
        // Frames that a cut left behind the end of the log were never acknowledged, and do not count as lost.
        assert!(report.damage.is_empty() && !report.unnamed && report.lost_frames == 0, "{label}: {report:?}");
        assert_eq!(report.replicas, found.0.len() as u64, "{label}: {report:?}");
        assert_ne!(to.uuid(), wal.uuid());
        let copy = check::read(&to).unwrap_or_else(|e| panic!("{label}: a copy: {e}"));
        assert!(copy == found, "{label}: a copy:{}", found.difference(&copy));
        check::sound(&to, &copy, None, true, label).unwrap_or_else(|e| panic!("{label}: a copy: {e}"));
        self.cap_segments = to.stats().journal_cap_segments;
        self.disk = to_disk.restart();
        found.0.remove(&CHAIN);
        (to_disk, to, found)
    }
}
