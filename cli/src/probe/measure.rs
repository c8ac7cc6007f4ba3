//! Measures what durable writes in a directory cost with each method.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use strandlog::disk::{AlignedBuf, BLOCK, Disk, FileDisk, OpenError, OpenMode, SyncMethod};

use crate::failure::{Failure, Result};
use crate::measure::Latencies;
use crate::scratch::{Interrupt, Scratch};

/// The ways to make a write durable.
pub const METHODS: [SyncMethod; 3] = [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync];
/// Sizes of a write.
pub const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// How many of these sizes are also written by two threads at once: a single larger write keeps any device busy.
pub const SIZES_BY_TWO: usize = 2;
/// Blocks that are written all over the file, and then made durable together.
pub const SCATTERED: usize = 64;

/// How often each method has its turn. They alternate so that other load on the machine hits all of them.
const ROUNDS: u32 = 5;
/// Writes that are not counted at the beginning of a test: they also pay for what the method before left in the page cache.
const WARM_UP: usize = 3;
/// Where the writes begin: behind where a log has its header.
const BEGIN: u64 = 64 << 10;

/// One kind of write, by one method.
#[derive(Clone, Debug)]
pub struct Figure {
    pub latencies: Latencies,
    pub spent: Duration,
}

impl Figure {
    fn new() -> Self {
        Self { latencies: Latencies::new(), spent: Duration::ZERO }
    }

    /// Writes a second.
    pub fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.spent.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// What one method costs.
#[derive(Clone, Debug)]
pub struct Measured {
    pub method: SyncMethod,
    /// For each of [`SIZES`], one write at a time.
    pub alone: Vec<Figure>,
    /// For the first [`SIZES_BY_TWO`] of them, two writes at a time.
    pub two: Vec<Figure>,
    /// [`SCATTERED`] blocks all over the file, then one flush.
    pub scattered: Figure,
    /// As many blocks in one piece.
    pub together: Figure,
}

/// All that was measured.
#[derive(Debug)]
pub struct Evidence {
    /// The methods that work here.
    pub methods: Vec<Measured>,
    /// The method that the log itself chooses when opened here.
    pub chosen: SyncMethod,
    /// Size of the file.
    pub bytes: u64,
}

/// Measures for `time`, in a file of `bytes` bytes.
pub fn measure(dir: &Path, bytes: u64, time: Duration, stop: &Interrupt, bar: &ProgressBar) -> Result<Evidence> {
    let file = Scratch::new(dir, "probe")?;
    let failed = |e: OpenError| Failure::Request(e.to_string());
    // Rounded down: the next multiple of the largest number is none.
    let len = bytes.max(2 * (BEGIN + SIZES[2] as u64)) / BLOCK as u64 * BLOCK as u64;
    let mut progress = |done, total| {
        file.end_if(stop);
        bar.set_length(total);
        bar.set_position(done);
    };
    let disk = FileDisk::create(file.path(), len, mode(SyncMethod::Auto), &mut progress, |_| Ok(())).map_err(failed)?;
    let chosen = disk.info().method;
    drop(disk);
    let mut methods = Vec::new();
    for method in METHODS {
        match FileDisk::open(file.path(), mode(method), |_| Ok(())) {
            Ok(_) => methods.push(Measured {
                method,
                alone: vec![Figure::new(); SIZES.len()],
                two: vec![Figure::new(); SIZES_BY_TWO],
                scattered: Figure::new(),
                together: Figure::new(),
            }),
            Err(OpenError::Unsupported { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let tests = methods.len() * (SIZES.len() + SIZES_BY_TWO + 2);
    let slice = time / ROUNDS / u32::try_from(tests.max(1)).unwrap_or(u32::MAX);
    bar.set_message("measuring");
    bar.set_length(u64::from(ROUNDS) * methods.len() as u64);
    bar.set_position(0);
    let cursor = AtomicU64::new(0);
    for _ in 0..ROUNDS {
        for measured in &mut methods {
            if stop.came() {
                return Err(Failure::Request("interrupted: too little was measured to say anything".into()));
            }
            let disk = FileDisk::open(file.path(), mode(measured.method), |_| Ok(())).map_err(failed)?;
            turn(&disk, measured, slice, &cursor)
                .map_err(|e| Failure::Request(format!("writing {}: {e}", file.path().display())))?;
            bar.inc(1);
        }
    }
    Ok(Evidence { methods, chosen, bytes: len })
}

fn mode(sync: SyncMethod) -> OpenMode {
    OpenMode { sync, ..OpenMode::default() }
}

/// One method's turn: a slice of time for each kind of write.
fn turn(disk: &FileDisk, m: &mut Measured, slice: Duration, cursor: &AtomicU64) -> std::io::Result<()> {
    for (figure, size) in m.alone.iter_mut().zip(SIZES) {
        writers(disk, 1, size, slice, cursor, figure)?;
    }
    for (figure, size) in m.two.iter_mut().zip(SIZES) {
        writers(disk, 2, size, slice, cursor, figure)?;
    }
    writers(disk, 1, SCATTERED * BLOCK, slice, cursor, &mut m.together)?;
    scatter(disk, slice, &mut m.scattered)
}

/// Writes from this many threads until the time is up, each write behind the one that began last.
fn writers(
    disk: &FileDisk,
    threads: usize,
    bytes: usize,
    slice: Duration,
    cursor: &AtomicU64,
    figure: &mut Figure,
) -> std::io::Result<()> {
    let buf = filled(bytes);
    let room = disk.len() - BEGIN;
    let write = |latencies: Option<&mut Latencies>| {
        let at = BEGIN
            + cursor.fetch_add(bytes as u64, Ordering::Relaxed) % (room - bytes as u64) / BLOCK as u64 * BLOCK as u64;
        let start = Instant::now();
        disk.write_durable_at(at, buf.as_slice())?;
        if let Some(latencies) = latencies {
            latencies.record(start);
        }
        std::io::Result::Ok(())
    };
    for _ in 0..WARM_UP {
        write(None)?;
    }
    let start = Instant::now();
    let work = || {
        let mut latencies = Latencies::new();
        while start.elapsed() < slice || latencies.count() == 0 {
            write(Some(&mut latencies))?;
        }
        Ok(latencies)
    };
    let done: Vec<std::io::Result<Latencies>> = std::thread::scope(|s| {
        let workers: Vec<_> = (0..threads).map(|_| std::thread::Builder::new().spawn_scoped(s, work)).collect();
        let lost = || Err(std::io::Error::other("a writer panicked"));
        workers.into_iter().map(|w| w?.join().unwrap_or_else(|_| lost())).collect()
    });
    figure.spent += start.elapsed();
    for latencies in done {
        figure.latencies.add(&latencies?);
    }
    Ok(())
}

/// Writes blocks all over the file and then flushes once, repeatedly until the time is up.
fn scatter(disk: &FileDisk, slice: Duration, figure: &mut Figure) -> std::io::Result<()> {
    /// Coprime to nearly every number of blocks, so that the steps visit the whole file.
    const STEP: u64 = 2_654_435_761;
    let buf = filled(BLOCK);
    let blocks = (disk.len() - BEGIN) / BLOCK as u64;
    let mut n = figure.latencies.count() * SCATTERED as u64;
    let begin = Instant::now();
    loop {
        let start = Instant::now();
        for _ in 0..SCATTERED {
            n += 1;
            disk.write_at(BEGIN + n.wrapping_mul(STEP) % blocks * BLOCK as u64, buf.as_slice())?;
        }
        disk.flush()?;
        figure.latencies.record(start);
        if begin.elapsed() >= slice {
            break;
        }
    }
    figure.spent += begin.elapsed();
    Ok(())
}

fn filled(bytes: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::with_capacity(bytes);
    buf.resize(bytes);
    buf.fill(0x5a);
    buf
}
