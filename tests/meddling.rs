//! On a log that is nearly full, callers submit batches between any two steps of the cleaner. What is reserved is there at every moment,
//! and nothing that was accepted is lost.

mod support;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, Weak};

use rand::Rng;
use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Error, Placement, Wal};

use support::model::{Model, batch};
use support::work::{Shape, Work};
use support::{PLACEMENTS, assert_sound, assert_space, for_each, open, seeds, small};

/// A disk that lets a caller in before each write and each flush.
struct Meddled {
    disk: Arc<SimDisk>,
    caller: Mutex<Option<Caller>>,
    /// What a caller panicked with. On its way through the log a panic would leave a frame in flight for ever, so it waits here.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meddled").finish_non_exhaustive()
    }
}

/// Submits batches without waiting for a write.
struct Caller {
    wal: Weak<Wal>,
    desk: Arc<Mutex<Desk>>,
}

/// What callers write, and what the log must hold.
struct Desk {
    work: Work,
    model: Model,
    accepted: u64,
    refused: u64,
}

thread_local! {
    /// Whether a caller is inside: its own writes let nobody in.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Caller {
    fn comes(&self) {
        let Some(wal) = self.wal.upgrade() else { return };
        let Ok(mut desk) = self.desk.lock() else { return };
        assert_space(&wal, "between two writes");
        for _ in 0..desk.work.rng.random_range(0..4) {
            desk.writes(&wal, false);
            assert_space(&wal, "between two writes, written to");
        }
    }
}

impl Desk {
    /// Submits a batch of work, or one that makes room for others.
    fn writes(&mut self, wal: &Wal, may_wait: bool) {
        let relief = self.work.rng.random_range(0..8) == 0 && !self.model.reps.is_empty();
        let ops = if relief { self.work.relief(&self.model) } else { self.work.batch(&self.model) };
        if ops.is_empty() || self.model.predict(&ops).is_err() {
            return;
        }
        let outcome = if may_wait { wal.submit(batch(&ops)) } else { wal.try_submit(batch(&ops)) };
        match outcome {
            Ok(_) => {
                self.model.apply(&ops);
                self.accepted += 1;
            }
            Err(Error::Full(_) | Error::Busy { .. } | Error::BatchTooLarge { .. }) => self.refused += 1,
            Err(error) => panic!("{ops:?}: {error}"),
        }
    }
}

impl Meddled {
    fn pass(&self) {
        if INSIDE.replace(true) {
            return;
        }
        if let Some(caller) = &*self.caller.lock().expect("alive") {
            let outcome = catch_unwind(AssertUnwindSafe(|| caller.comes()));
            if let Err(panic) = outcome {
                self.panic.lock().expect("alive").get_or_insert(panic);
            }
        }
        INSIDE.set(false);
    }
}

impl Disk for Meddled {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.pass();
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.pass();
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.pass();
        self.disk.flush()
    }
}

/// Work that fills the log before it would turn to truncation by itself.
fn work(seed: u64, chunk: usize) -> Work {
    let sizes = Shape::boundaries(chunk, 64 << 10, 8 << 10);
    Work::new(seed, Shape { replicas: vec![1, 2, 3, 4, 5, 6], sizes, live_bytes: 2 << 20, nonsense: 0 })
}

#[test]
fn what_is_reserved_is_there_whatever_comes_between_two_writes_of_the_cleaner() {
    let jobs: Vec<(u64, Placement)> = seeds(0, 20).into_iter().flat_map(|seed| PLACEMENTS.map(|p| (seed, p))).collect();
    let counts = Mutex::new((0, 0, 0));
    for_each(&jobs, |(seed, placement)| {
        let chunk = [4096, 16 << 10][seed as usize % 2];
        let options = || small(placement).chunk_size(chunk).journal_cap([6, 12][seed as usize / 2 % 2] * (64 << 10));
        let disk = Arc::new(SimDisk::new(20 * (64 << 10) + (64 << 10)));
        let meddled = Arc::new(Meddled { disk: Arc::clone(&disk), caller: Mutex::new(None), panic: Mutex::new(None) });
        let wal = Arc::new(options().open_disk(Arc::clone(&meddled) as Arc<dyn Disk>).expect("the log opens"));
        let model = Model::default();
        let desk = Arc::new(Mutex::new(Desk { work: work(seed, chunk as usize), model, accepted: 0, refused: 0 }));
        for round in 0..12 {
            for _ in 0..25 {
                desk.lock().expect("alive").writes(&wal, true);
                assert_space(&wal, "written");
            }
            let caller = Caller { wal: Arc::downgrade(&wal), desk: Arc::clone(&desk) };
            *meddled.caller.lock().expect("alive") = Some(caller);
            let outcome = wal.checkpoint();
            *meddled.caller.lock().expect("alive") = None;
            if let Some(panic) = meddled.panic.lock().expect("alive").take() {
                resume_unwind(panic);
            }
            outcome.unwrap_or_else(|e| panic!("round {round}: {e}: {:#?}", wal.stats()));
            assert_space(&wal, "cleaned");
        }
        wal.sync().expect("durable");
        let desk = desk.lock().expect("alive");
        let found = Model::read(&wal).expect("readable");
        assert!(found == desk.model, "{}", desk.model.difference(&found));
        assert_sound(&wal, "at the end");
        let settled = wal.stats().settled_entries;
        drop(wal);
        let wal = open(options(), &Arc::new(disk.restart()));
        let found = Model::read(&wal).expect("readable");
        assert!(found == desk.model, "opened again: {}", desk.model.difference(&found));
        assert_space(&wal, "opened again");
        let mut counts = counts.lock().expect("alive");
        *counts = (counts.0 + desk.accepted, counts.1 + desk.refused, counts.2 + settled);
    });
    let (accepted, refused, settled) = counts.into_inner().expect("alive");
    support::tally(&[("accepted", accepted), ("refused", refused), ("settled", settled)]);
    assert!(
        refused * 50 > accepted && settled > accepted / 50,
        "{accepted} accepted, {refused} refused, {settled} settled"
    );
}
