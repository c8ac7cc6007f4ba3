//! What the tests share: a reference model, an oracle for crashes, generated work, a judge of damaged logs, and a disk that remembers what
//! it was before each of its events.
#![allow(dead_code)]

pub mod ending;
pub mod judge;
pub mod model;
pub mod old_log;
pub mod recorder;
pub mod schedule;
pub mod work;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};
use strandlog::{Bytes, Options, Placement, Wal};

/// The methods that a disk in front of a [`SimDisk`], its field `disk`, passes on to it. It cannot be mapped, so every read goes through
/// it.
#[allow(unused_macros)]
macro_rules! passed_on {
    () => {
        support::passed_on!(one_at_a_time);
        fn at_once(&self) -> usize {
            self.disk.at_once()
        }
    };
    (one_at_a_time) => {
        fn len(&self) -> u64 {
            strandlog::disk::Disk::len(&*self.disk)
        }
        fn map(&self) -> Option<std::sync::Arc<strandlog::disk::Map>> {
            None
        }
        fn info(&self) -> strandlog::disk::DiskInfo {
            self.disk.info()
        }
        fn release(&self) {
            self.disk.release();
        }
    };
}
#[allow(unused_imports)]
pub(crate) use passed_on;

pub const PLACEMENTS: [Placement; 3] = [Placement::Auto, Placement::Journal, Placement::Chain];

/// Small chunks and segments: every path is reached soon.
pub fn small(placement: Placement) -> Options {
    Wal::options()
        .chunk_size(4096)
        .segment_size(64 << 10)
        .direct_threshold(8 << 10)
        .recent_bytes(1 << 20)
        .background(false)
        .placement(placement)
}

/// Bytes that only this entry can have.
pub fn payload(replica: u64, index: u64, term: u64, len: usize) -> Bytes {
    let mut x = replica ^ index.rotate_left(21) ^ term.rotate_left(42) ^ (len as u64) << 7;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&(z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// The number that an environment variable holds, or a default.
pub fn env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// The seeds to run: `STRANDLOG_SEEDS` many from `STRANDLOG_SEED` on. If only the first is set, that many from `from` on; if only the
/// second, that one alone; else `count` from `from` on.
pub fn seeds(from: u64, count: u64) -> Vec<u64> {
    let count = if std::env::var("STRANDLOG_SEED").is_ok() { 1 } else { count };
    let from = env("STRANDLOG_SEED", from);
    (from..from + env("STRANDLOG_SEEDS", count)).collect()
}

/// Prints how much was tried, in a line that `cargo xtask torture` adds up.
pub fn tally(counts: &[(&str, u64)]) {
    let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what}={n}")).collect();
    println!("tally {}", counts.join(" "));
}

/// Runs `test` for every job, on two threads; a failure names the job.
pub fn for_each<T: Copy + Send + Sync + std::fmt::Debug>(jobs: &[T], test: impl Fn(T) + Send + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&job) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(job)));
                    if let Err(panic) = outcome {
                        eprintln!("failed: {job:?} (a seed alone: STRANDLOG_SEED=...)");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

/// Asserts that verification finds nothing, and that the figures about space add up.
pub fn assert_sound(wal: &Wal, when: &str) {
    let report = wal.verify(|_| ()).unwrap_or_else(|e| panic!("{when}: verify: {e}"));
    assert!(report.is_clean(), "{when}: {report:?}");
    assert_eq!(wal.damage(), [], "{when}");
    assert_eq!(wal.stats().replicas, wal.replicas().len() as u64, "{when}: replicas are miscounted");
    assert_space(wal, when);
}

/// Asserts that free, used, pinned and journal chunks make up the whole file, that what is reserved is free, and that no more is carried
/// than may be.
pub fn assert_space(wal: &Wal, when: &str) {
    let s = wal.stats();
    let journal = s.journal_segments * (s.segment_size / s.chunk_size);
    let all = (s.capacity - strandlog::format::POOL_OFFSET) / s.segment_size * (s.segment_size / s.chunk_size);
    assert_eq!(s.free_chunks + s.used_chunks + s.pinned_chunks + journal, all, "{when}: {s:#?}");
    assert!(s.free_chunks >= s.reserved_chunks, "{when}: what is promised is not there: {s:#?}");
    assert!(s.carried_class_bytes <= s.carried_class_limit, "{when}: more is carried than may be: {s:#?}");
}

pub fn open(options: Options, disk: &Arc<SimDisk>) -> Wal {
    let disk: Arc<SimDisk> = Arc::clone(disk);
    options.open_disk(disk).expect("the log opens")
}

/// Both superblocks of a disk that is at rest; `None` for one that is bad.
pub fn superblocks(disk: &SimDisk) -> [Option<Superblock>; 2] {
    let image = disk.kept_image();
    let decode = |at: u64| Superblock::decode(&image[at as usize..][..SUPERBLOCK_BYTES], image.len() as u64).ok();
    SUPERBLOCK_OFFSETS.map(decode)
}

/// Makes a closed log forget its snapshot: the next opening reads the journal.
pub fn forget_snapshot(disk: &SimDisk) {
    for (offset, sb) in SUPERBLOCK_OFFSETS.into_iter().zip(superblocks(disk)) {
        if let Some(sb) = sb.filter(|sb| sb.snapshot.is_some()) {
            disk.poke(offset, &Superblock { snapshot: None, ..sb }.encode());
        }
    }
}

/// As [`forget_snapshot`], of an image.
pub fn without_snapshot(image: Vec<u8>) -> Vec<u8> {
    let disk = SimDisk::from_image(image);
    forget_snapshot(&disk);
    disk.kept_image()
}
