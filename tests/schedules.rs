//! Threads ask a log for everything at once, until it ends: closed, dropped, poisoned, or cut off. Nobody waits for ever, each is told once
//! and rightly, and nothing acknowledged is gone.
//!
//! With `--cfg shuttle` every schedule is drawn from the seed, and a thread that waits for ever is found out at once.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Lsn, Wal};

use support::ending::End;
use support::schedule::{block_on, for_each, thread};
use support::{PLACEMENTS, assert_sound, open, payload, seeds, small, tally};

/// A writer with a replica of its own and its own way to submit.
struct Writer {
    replica: u64,
    way: u64,
    submitted: u64,
    acknowledged: u64,
}

impl Writer {
    fn batch(&mut self, rng: &mut StdRng) -> Batch {
        self.submitted += 1;
        let (index, replica) = (self.submitted, self.replica);
        let mut batch = Batch::new();
        batch.append(
            replica,
            &[(index, 1, payload(replica, index, 1, [1, 100, 3000, 9000, 30_000][rng.random_range(0..5)]))],
        );
        if rng.random_bool(0.5) {
            batch.truncate_prefix(replica, index.saturating_sub(rng.random_range(0..4)).max(1));
        }
        if rng.random_bool(0.2) {
            batch.lazy();
        }
        batch
    }

    /// Writes so many steps, or until the log ends.
    fn write(&mut self, wal: &Wal, steps: u64, rng: &mut StdRng, told: &Arc<Told>) -> Result<(), Error> {
        for _ in 0..steps {
            let batch = self.batch(rng);
            match self.way {
                0 => told_after(wal, wal.commit(batch)?),
                1 => told_after(wal, wal.submit(batch)?.wait()?),
                2 => told_after(wal, block_on(async { wal.submit_async(batch).await?.await })?),
                3 => {
                    let lsn = wal.submit(batch)?.lsn();
                    match rng.random_bool(0.5) {
                        true => wal.wait_durable(lsn)?,
                        false => block_on(wal.wait_durable_async(lsn))?,
                    }
                    told_after(wal, lsn);
                }
                4 => match wal.try_submit(batch) {
                    Ok(pending) => told_after(wal, pending.wait()?),
                    Err(Error::Busy { .. }) => {
                        self.submitted -= 1;
                        thread::yield_now();
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                _ => {
                    let told = Arc::clone(told);
                    told.asked.fetch_add(1, SeqCst);
                    let index = self.submitted;
                    let (replica, tell) = (self.replica, Arc::clone(&told));
                    let tell = move |outcome| tell.tell(replica, index, outcome);
                    let submitted = match rng.random_bool(0.5) {
                        true => wal.submit_with(batch, tell),
                        false => block_on(wal.submit_with_async(batch, tell)),
                    };
                    match submitted {
                        Ok(lsn) => {
                            told.submitted(self.replica, index, lsn);
                            continue;
                        }
                        Err(error) => {
                            told.asked.fetch_sub(1, SeqCst);
                            return Err(error);
                        }
                    }
                }
            }
            self.acknowledged = self.submitted;
        }
        Ok(())
    }
}

/// A caller that is told finds the watermark there.
fn told_after(wal: &Wal, lsn: Lsn) {
    assert!(wal.durable_lsn() >= lsn, "told of {lsn} while {} is durable", wal.durable_lsn());
}

/// A replica, and one of its entries.
type Tag = (u64, u64);

/// What the callbacks were told.
#[derive(Default)]
struct Told {
    asked: AtomicU64,
    answered: AtomicU64,
    /// A callback is running.
    telling: AtomicBool,
    /// Which batches were told, in that order, and whether they succeeded.
    order: Mutex<Vec<(Tag, bool)>>,
    /// The LSN of each.
    lsns: Mutex<BTreeMap<Tag, Lsn>>,
    /// The newest index of each replica that was acknowledged.
    newest: Mutex<BTreeMap<u64, u64>>,
}

impl Told {
    fn tell(&self, replica: u64, index: u64, outcome: Result<Lsn, Error>) {
        assert!(!self.telling.swap(true, SeqCst), "two are told at once");
        self.answered.fetch_add(1, SeqCst);
        self.order.lock().expect("no other panic").push(((replica, index), outcome.is_ok()));
        if outcome.is_ok() {
            self.newest.lock().expect("no other panic").insert(replica, index);
        }
        thread::yield_now();
        self.telling.store(false, SeqCst);
    }

    fn submitted(&self, replica: u64, index: u64, lsn: Lsn) {
        self.lsns.lock().expect("no other panic").insert((replica, index), lsn);
    }

    /// Outcomes must come in the order of the log, and no success behind a failure.
    fn check_order(&self, what: &str) {
        let (order, lsns) = (self.order.lock().expect("no panic"), self.lsns.lock().expect("no panic"));
        let told: Vec<(Lsn, bool)> = order.iter().filter_map(|(tag, ok)| Some((*lsns.get(tag)?, *ok))).collect();
        assert!(told.is_sorted_by_key(|(lsn, _)| *lsn), "{what}: {told:?}");
        assert!(told.is_sorted_by_key(|(_, ok)| !ok), "{what}: {told:?}");
    }
}

fn world(seed: u64, end: End) {
    let mut rng = StdRng::seed_from_u64(seed);
    let what = format!("seed {seed}, {end:?}");
    let steps = rng.random_range(5..40);
    let placement = PLACEMENTS[rng.random_range(0..3)];
    let first = Arc::new(SimDisk::new(4 << 20));
    drop(open(small(placement), &first));
    let disk = Arc::new(first.restart());
    let options =
        small(placement).background(rng.random_bool(0.7)).queue_bytes([64 << 10, 1 << 20][rng.random_range(0..2)]);
    let wal = open(options, &disk);
    let event = disk.events() + rng.random_range(0..steps * 4);
    end.comes_at(event, &disk);
    let told = Arc::new(Told::default());
    let ended = |error: Error| match (end, &error) {
        (End::Close, Error::Closed) | (End::Fault | End::Cut, Error::Poisoned { .. }) => {}
        // Without threads a caller that writes may have to clean, and reads for that.
        (End::Cut, Error::Io { .. }) if disk.is_cut() => {}
        _ => panic!("{what}: {error}"),
    };
    let mut writers: Vec<Writer> = (0..rng.random_range(2..6))
        .map(|replica| Writer { replica, way: rng.random_range(0..6), submitted: 0, acknowledged: 0 })
        .collect();
    thread::scope(|scope| {
        let (wal, told, ended, disk) = (&wal, &told, &ended, &disk);
        for writer in &mut writers {
            let mut rng = StdRng::seed_from_u64(rng.random());
            scope.spawn(move || writer.write(wal, steps, &mut rng, told).unwrap_or_else(ended));
        }
        let mut rng = StdRng::seed_from_u64(rng.random());
        scope.spawn(move || {
            for _ in 0..steps / 4 {
                let outcome = match rng.random_range(0..6) {
                    0 => wal.checkpoint(),
                    1 => wal.sync().map(drop),
                    2 => wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).map(drop),
                    3 => wal.commit(Batch::new().put(99, b"k", b"v")).map(drop),
                    // It reads from the disk, and without power there is none.
                    4 => wal.verify(|_| ()).map(drop).or_else(|e| if disk.is_cut() { Ok(()) } else { Err(e) }),
                    _ => {
                        wal.stats();
                        Ok(())
                    }
                };
                outcome.unwrap_or_else(ended);
            }
            if end == End::Close {
                wal.close().unwrap_or_else(ended);
            }
        });
    });
    if end == End::None {
        wal.sync().expect("all is well");
        assert_sound(&wal, &what);
    }
    drop(wal);
    assert_eq!(told.answered.load(SeqCst), told.asked.load(SeqCst), "{what}: each callback once");
    told.check_order(&what);
    let newest = told.newest.lock().expect("no panic").clone();
    // As after a power cut: while the power is on, the next process also reads what a failed sync did not make durable.
    let wal = open(small(PLACEMENTS[0]), &Arc::new(disk.crash_lost_all()));
    assert_sound(&wal, &what);
    for w in &writers {
        let acknowledged = newest.get(&w.replica).copied().unwrap_or(0).max(w.acknowledged);
        let r = wal.replica(w.replica);
        let (first, last) = r.bounds();
        assert!(last >= acknowledged, "{what}: replica {} ends at {last}, {acknowledged} was acknowledged", w.replica);
        assert!(last <= w.submitted, "{what}: replica {} ends at {last} of {}", w.replica, w.submitted);
        for i in first..=last {
            let e = r.entry(i).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(e.data == payload(w.replica, i, 1, e.data.len()), "{what}: replica {} entry {i}", w.replica);
        }
    }
    tally(&[("endings", 1)]);
}

#[test]
fn all_that_is_asked_is_done() {
    for_each(&seeds(1, 16), |seed| world(seed, End::None));
}

#[test]
fn closing_ends_everything_and_loses_nothing() {
    for_each(&seeds(1001, 16), |seed| world(seed, End::Close));
}

#[test]
fn a_failure_is_told_to_all() {
    for_each(&seeds(2001, 16), |seed| world(seed, End::Fault));
}

#[test]
fn a_cut_leaves_nobody_waiting() {
    for_each(&seeds(3001, 16), |seed| world(seed, End::Cut));
}
