//! Owners, which write each to a replica of its own and all to one, in every way there is; and readers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::{Bytes, Error, Lsn, Pending, Sink, Wal};

use crate::history::{Read, Seen, absent};
use crate::support::model::{Model, Op, batch};
use crate::support::schedule::{block_on, thread};
use crate::support::work::{Shape, Work};
use crate::tasks::GivenUp;
use crate::told::{Hears, Tag, World};

/// The replica that all write to.
pub const SHARED: u64 = 200;

pub struct Owner {
    pub world: Arc<World>,
    pub wal: Arc<Wal>,
    pub line: usize,
    pub rng: StdRng,
    /// A task must not block its thread.
    pub task: bool,
}

/// What became of an attempt to submit.
enum Done {
    Submitted,
    NotSubmitted,
}

impl Owner {
    fn works(&mut self) -> Work {
        let sizes = vec![0, 1, 30, 100, 700, 3000, 9000];
        let replicas = vec![self.world.lines[self.line].replica];
        Work::new(self.rng.random(), Shape { replicas, sizes, live_bytes: 40_000, nonsense: 0 })
    }

    /// Writes so many steps, or until the log ends.
    pub async fn write(mut self, steps: u64) {
        let world = Arc::clone(&self.world);
        let line = &world.lines[self.line];
        let (mut model, mut work) = (Model::default(), self.works());
        for n in 1..=steps {
            let mut ops = work.batch(&model);
            ops.push(Op::Put { replica: line.replica, key: b"n".to_vec(), value: n.to_le_bytes().to_vec().into() });
            let mut next = model.clone();
            next.apply(&ops);
            let shared = self.rng.random_bool(0.6).then(|| {
                let (key, value) = (self.rng.random_range(0..2), (self.line as u64) << 32 | n);
                ops.push(Op::Put { replica: SHARED, key: vec![key], value: value.to_le_bytes().to_vec().into() });
                (key, value)
            });
            let step = line.call(&world.clock, next.reps.get(&line.replica).cloned(), shared, &ops);
            match self.submit((self.line, step), &ops).await {
                Ok(Done::Submitted) => model = next,
                Ok(Done::NotSubmitted) => line.refused(step),
                Err(error) => return self.world.fine(&error),
            }
            if self.rng.random_bool(0.3) {
                look(&world, &self.wal, line.replica, &mut self.rng);
            }
        }
    }

    /// Submits in one of all ways. After an error it is over, and the batch may be in the log.
    async fn submit(&mut self, tag: Tag, ops: &[Op]) -> Result<Done, Error> {
        let (line, step) = tag;
        let (world, wal) = (Arc::clone(&self.world), Arc::clone(&self.wal));
        let accepted = |lsn: Lsn| world.lines[line].accepted(&world.clock, step, lsn.get());
        let mut batch = batch(ops);
        if self.rng.random_bool(0.2) {
            batch.lazy();
        }
        let polls = self.rng.random_range(0..4);
        let way = if self.task { self.rng.random_range(5..11) } else { self.rng.random_range(0..11) };
        let told = || {
            world.asked.fetch_add(1, SeqCst);
            let world = Arc::clone(&world);
            move |outcome: Result<Lsn, Error>| world.tell(&[tag], &outcome)
        };
        match way {
            // After an error other than `Busy` or `Full` it is not known whether the batch was submitted.
            0 => match wal.commit(batch) {
                Ok(lsn) => {
                    accepted(lsn);
                    world.lines[line].told(step, true);
                    assert!(wal.durable_lsn() >= lsn);
                }
                Err(error @ (Error::Busy { .. } | Error::Full(_))) => return self.refused(tag, error),
                Err(error) => return Err(error),
            },
            1 => match wal.submit(batch) {
                Ok(pending) => {
                    accepted(pending.lsn());
                    self.wait(tag, pending)?;
                }
                Err(error) => return self.refused(tag, error),
            },
            2 => match wal.submit_with(batch, told()) {
                Ok(lsn) => accepted(lsn),
                Err(error) => return self.untold(tag, error),
            },
            3 => {
                world.asked.fetch_add(1, SeqCst);
                let sink: Arc<dyn Sink> = Arc::new(Hears(Arc::clone(&world)));
                match wal.submit_to(batch, &sink, (line as u64) << 32 | step as u64) {
                    Ok(lsn) => accepted(lsn),
                    Err(error) => return self.untold(tag, error),
                }
            }
            4 => match wal.submit(batch) {
                Ok(pending) => {
                    accepted(pending.lsn());
                    let lsn = pending.lsn();
                    drop(pending);
                    if self.rng.random_bool(0.5) {
                        wal.wait_durable(lsn)?
                    } else {
                        block_on(wal.wait_durable_async(lsn))?
                    }
                    world.lines[line].told(step, true);
                }
                Err(error) => return self.refused(tag, error),
            },
            5 => match wal.try_submit(batch) {
                Ok(pending) => {
                    accepted(pending.lsn());
                    self.keep(tag, pending);
                }
                Err(error) => {
                    thread::yield_now();
                    return self.refused(tag, error);
                }
            },
            6 => match wal.try_submit_with(batch, told()) {
                Ok(lsn) => accepted(lsn),
                Err(error) => return self.untold(tag, error),
            },
            7 => match GivenUp::after(polls, wal.submit_async(batch)).await {
                Some(Ok(pending)) => {
                    accepted(pending.lsn());
                    self.keep(tag, pending);
                }
                Some(Err(error)) => return self.refused(tag, error),
                None => return Ok(Done::NotSubmitted),
            },
            8 => match GivenUp::after(polls, wal.submit_with_async(batch, told())).await {
                Some(Ok(lsn)) => accepted(lsn),
                Some(Err(error)) => return self.untold(tag, error),
                None => {
                    world.asked.fetch_sub(1, SeqCst);
                    return Ok(Done::NotSubmitted);
                }
            },
            9 => match wal.submit_async(batch).await {
                Ok(pending) => {
                    accepted(pending.lsn());
                    // Given up, it takes its waker along, which nobody may wake any more.
                    if let Some(outcome) = GivenUp::after(polls, pending).await {
                        self.outcome(tag, outcome)?;
                    }
                }
                Err(error) => return self.refused(tag, error),
            },
            _ => match wal.submit_async(batch).await {
                Ok(pending) => {
                    accepted(pending.lsn());
                    let lsn = pending.lsn();
                    let outcome = if self.rng.random_bool(0.5) {
                        drop(pending);
                        wal.wait_durable_async(lsn).await.map(|()| lsn)
                    } else {
                        pending.await
                    };
                    self.outcome(tag, outcome)?;
                }
                Err(error) => return self.refused(tag, error),
            },
        }
        Ok(Done::Submitted)
    }

    /// The callback was not taken, so its outcome will not be told.
    fn untold(&self, tag: Tag, error: Error) -> Result<Done, Error> {
        self.world.asked.fetch_sub(1, SeqCst);
        self.refused(tag, error)
    }

    fn refused(&self, (line, step): Tag, error: Error) -> Result<Done, Error> {
        match error {
            Error::Busy { .. } | Error::Full(_) => Ok(Done::NotSubmitted),
            error => {
                self.world.lines[line].refused(step);
                Err(error)
            }
        }
    }

    fn outcome(&self, (line, step): Tag, outcome: Result<Lsn, Error>) -> Result<(), Error> {
        self.world.lines[line].told(step, outcome.is_ok());
        outcome.map(|lsn| assert!(self.wal.durable_lsn() >= lsn))
    }

    fn wait(&self, tag: Tag, pending: Pending) -> Result<(), Error> {
        self.outcome(tag, pending.wait())
    }

    /// Keeps it for another thread to wait for.
    fn keep(&self, tag: Tag, pending: Pending) {
        self.world.pending.lock().expect("no other panic").push((tag, pending));
    }
}

/// Waits for batches that others have submitted, or drops the `Pending`.
pub fn wait_for_others(world: &World, wal: &Wal, rng: &mut StdRng) {
    loop {
        let over = world.over.load(SeqCst);
        let next = { world.pending.lock().expect("no other panic").pop() };
        match next {
            Some((tag, pending)) => {
                let lsn = pending.lsn();
                let outcome = match rng.random_range(0..4) {
                    0 => {
                        drop(pending);
                        continue;
                    }
                    1 => block_on(pending),
                    2 => match block_on(GivenUp::after(rng.random_range(0..3), pending)) {
                        Some(outcome) => outcome,
                        None => continue,
                    },
                    _ => pending.wait(),
                };
                world.lines[tag.0].told(tag.1, outcome.is_ok());
                match outcome {
                    Ok(durable) => assert!(durable == lsn && wal.durable_lsn() >= lsn),
                    Err(error) => world.fine(&error),
                }
            }
            None if over => return,
            None => thread::yield_now(),
        }
    }
}

/// Reads one thing of a replica, and records the answer. Some slices of chains stay pinned until the end.
pub fn look(world: &World, wal: &Wal, replica: u64, rng: &mut StdRng) {
    let r = wal.replica(replica);
    // Somewhere about the entries.
    let (first, last) = r.bounds();
    let index = rng.random_range(first.saturating_sub(2)..=last.saturating_add(2));
    let held = rng.random_bool(0.1);
    let keep = |data: Bytes| if held { data } else { Bytes::copy_from_slice(&data) };
    let what = format!("replica {replica}, {index}");
    let failed = |error: &Error| matches!(error, Error::Io { .. }) && world.cut.load(SeqCst);
    let call = world.clock.tick();
    let seen = match rng.random_range(0..9) {
        0 | 1 => {
            let (first, last) = r.bounds();
            Seen::Bounds(first, last)
        }
        2 => Seen::Term(index, absent(r.term(index), &what)),
        3 => match r.entry(index) {
            Err(error) if failed(&error) => return,
            read => Seen::Entry(index, absent(read, &what).map(|e| (e.term, keep(e.data)))),
        },
        4 | 5 => {
            let (to, most) = (
                rng.random_range(index..=index.saturating_add(20)).saturating_add(1),
                [1, 3000, 100_000][rng.random_range(0..3)],
            );
            match r.entries(index..to, most) {
                Err(error) if failed(&error) => return,
                read => {
                    let found = absent(read, &what).map(|entries| {
                        let told = entries.iter().zip(index..).all(|(entry, i)| entry.index == i);
                        assert!(told, "{what}: {entries:?}");
                        entries.into_iter().map(|e| (e.term, keep(e.data))).collect()
                    });
                    Seen::Entries(index, to, most, found)
                }
            }
        }
        6 | 7 => {
            let key = if replica == SHARED { vec![rng.random_range(0..2)] } else { b"n".to_vec() };
            let value = r.get(&key).expect("it is in memory").map(keep);
            Seen::Key(key, value)
        }
        _ if rng.random_bool(0.5) => {
            let mut keys = r.keys();
            keys.sort_unstable();
            Seen::Keys(keys)
        }
        _ => Seen::Exists(wal.replicas().contains(&replica)),
    };
    let read = Read { replica, call, ret: world.clock.tick(), seen };
    world.reads.lock().expect("no other panic").push(read);
}

/// Reads until the owners are done.
pub fn read(world: &World, wal: &Wal, seed: u64, most: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..most {
        if world.over.load(SeqCst) {
            return;
        }
        let replica =
            if rng.random_bool(0.3) { SHARED } else { world.lines[rng.random_range(0..world.lines.len())].replica };
        look(world, wal, replica, &mut rng);
        if rng.random_bool(0.3) {
            thread::yield_now();
        }
    }
}
