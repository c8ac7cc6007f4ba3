//! Threads and tasks make every call that there is, at once. What each was answered must be what a log would answer that does one thing
//! after the other.
//!
//! Each replica has one owner that writes to it, so each read of it must show a state between two batches, and none an older state than an
//! earlier read showed. Keys that all write must read as they were last written in the order of the log. Each outcome is told once, in that
//! order; the figures add up; and a crash leaves all that was done up to some moment.
//!
//! `STRANDLOG_SEED=n` runs one seed alone, `STRANDLOG_SEEDS=n` more of them. With `--cfg shuttle` every schedule is drawn from the seed.

#[path = "../support/mod.rs"]
mod support;

mod history;
mod owner;
mod tasks;
mod told;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Listener, Options, Scrubbed, Stats, Wal};

use history::{Outcome, check_crashed, check_line, check_outcomes, check_shared};
use owner::{Owner, SHARED, read, wait_for_others};
use support::ending::End;
use support::schedule::{block_on, for_each, thread};
use support::{PLACEMENTS, assert_sound, open, seeds, small, tally};
use told::{Heard, MEDDLED, Whom, World};

/// Keeps the log busy with work that is no owner's.
fn housekeeping(world: &World, wal: &Arc<Wal>, end: End, seed: u64, rounds: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut before = wal.stats();
    for _ in 0..rounds {
        let outcome = match rng.random_range(0..7) {
            0 => wal.checkpoint(),
            1 => wal.sync().map(drop),
            2 => {
                let each = |_: &Scrubbed| {
                    world.meddle(wal, Whom::Nobody);
                    ControlFlow::Continue(())
                };
                wal.scrub(u64::MAX, each).map(drop)
            }
            3 => wal.verify(|_| world.meddle(wal, Whom::Nobody)).map(drop),
            4 => wal.submit(Batch::new().put(MEDDLED, b"lazy", b"value").lazy()).map(|p| world.note_other(p.lsn(), 9)),
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            world.fine(&error);
        }
        let now = wal.stats();
        only_grows(&before, &now);
        before = now;
        thread::yield_now();
    }
    if end == End::Close
        && let Err(error) = wal.close()
    {
        world.fine(&error);
    }
}

fn only_grows(before: &Stats, now: &Stats) {
    let counters = [
        "batches",
        "entries",
        "user_bytes",
        "frames",
        "journal_bytes",
        "placed_bytes",
        "settled_bytes",
        "settled_entries",
        "carried_bytes",
        "carried_entries",
        "segments_cleaned",
        "stalls",
        "durable_lsn",
    ];
    for ((name, before), (_, now)) in before.figures().into_iter().zip(now.figures()) {
        assert!(!counters.contains(&name) || before <= now, "{name}: {before}, and then {now}");
    }
    for (before, now) in [(&before.commit_micros, &now.commit_micros), (&before.device_micros, &now.device_micros)] {
        assert!(before.count() <= now.count() && before.sum_micros() <= now.sum_micros());
    }
}

/// The figures must count exactly what was made durable.
fn check_figures(world: &World, stats: &Stats, what: &str) {
    let durable = |lsn: u64| lsn <= stats.durable_lsn;
    let steps = world.lines.iter().flat_map(history::Line::all);
    let steps: Vec<_> = steps.filter(|step| step.lsn.is_some_and(durable)).collect();
    assert!(steps.iter().all(|step| step.outcome != Outcome::Lost), "{what}: told that it is lost: {steps:?}");
    let others = world.others.lock().expect("no panic");
    let others: Vec<_> = others.iter().filter(|(lsn, _)| durable(*lsn)).collect();
    assert_eq!(stats.batches, (steps.len() + others.len()) as u64, "{what}: batches");
    assert_eq!(stats.entries, steps.iter().map(|step| step.entries).sum::<u64>(), "{what}: entries");
    let bytes = steps.iter().map(|step| step.bytes).sum::<u64>() + others.iter().map(|(_, bytes)| bytes).sum::<u64>();
    assert_eq!(stats.user_bytes, bytes, "{what}: bytes");
}

/// Once everything is removed, no space may be held.
fn check_empty(wal: &Wal, what: &str) {
    for replica in wal.replicas() {
        wal.commit(Batch::new().remove(replica)).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
    wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_sound(wal, what);
    let s = wal.stats();
    let held = (s.replicas, s.used_chunks, s.pinned_chunks, s.held_truncations);
    assert_eq!(held, (0, 0, 0, 0), "{what}: {s:#?}");
    assert_eq!(s.reserved_chunks, s.reserved_for_values, "{what}: {s:#?}");
}

/// Ends the waiting of the other threads when the owners are done, even if they panic.
struct Over<'a>(&'a World);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

fn options(rng: &mut StdRng) -> Options {
    let queue = [64 << 10, 64 << 10, 1 << 20][rng.random_range(0..3)];
    small(PLACEMENTS[rng.random_range(0..3)]).background(rng.random_bool(0.7)).queue_bytes(queue)
}

fn world(seed: u64, end: End) {
    let mut rng = StdRng::seed_from_u64(seed);
    let what = format!("seed {seed}, {end:?}");
    let (owners, tasks) = (rng.random_range(1..4), rng.random_range(0..4));
    let steps = rng.random_range(4..30);
    let first = Arc::new(SimDisk::new(8 << 20));
    drop(open(options(&mut rng), &first));
    let disk = Arc::new(first.restart());
    let heard = Arc::new(Heard::default());
    let world = World::new(1..1 + owners + tasks);
    let listens = rng.random_bool(0.7);
    let options = options(&mut rng);
    let options = if listens { options.listener(Arc::clone(&heard) as Arc<dyn Listener>) } else { options };
    let wal = Arc::new(open(options, &disk));
    world.wal.set(Arc::downgrade(&wal)).expect("once");
    heard.world.set(Arc::downgrade(&world)).expect("once");
    let event = disk.events() + rng.random_range(0..steps * 6);
    world.cut.store(end == End::Cut, SeqCst);
    end.comes_at(event, &disk);
    let mut owner = |line: u64| {
        let (world, wal) = (Arc::clone(&world), Arc::clone(&wal));
        let rng = StdRng::seed_from_u64(rng.random());
        Owner { world, wal, line: line as usize, rng, task: line >= owners }
    };
    let all: Vec<Owner> = (0..owners + tasks).map(&mut owner).collect();
    let [readers, house, waits, polls] = std::array::from_fn(|_| rng.random::<u64>());
    thread::scope(|scope| {
        let (world, wal) = (&world, &wal);
        scope.spawn(move || read(world, wal, readers, steps * 10));
        scope.spawn(move || read(world, wal, !readers, steps * 10));
        scope.spawn(move || wait_for_others(world, wal, &mut StdRng::seed_from_u64(waits)));
        let _over = Over(world);
        thread::scope(|scope| {
            let mut in_tasks = Vec::new();
            for owner in all {
                match owner.task {
                    true => in_tasks.push(Box::pin(owner.write(steps)) as tasks::Task<'_>),
                    false => drop(scope.spawn(move || block_on(owner.write(steps)))),
                }
            }
            scope.spawn(move || tasks::run(in_tasks, &mut StdRng::seed_from_u64(polls)));
            scope.spawn(move || housekeeping(world, wal, end, house, steps / 4));
        });
    });
    if end == End::None {
        wal.sync().unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    match wal.close() {
        Err(error) if matches!(end, End::Fault | End::Cut) => world.fine(&error),
        outcome => outcome.unwrap_or_else(|e| panic!("{what}: {e}")),
    }
    let stats = wal.stats();
    if matches!(end, End::None | End::Close) {
        check_figures(&world, &stats, &what);
    }
    if listens {
        heard.check(&stats, &what, matches!(end, End::None | End::Close));
    }
    drop(wal);
    world.check_order(&what);
    check_outcomes(&world.lines, &what);
    let reads = world.reads.lock().expect("no panic");
    world.lines.iter().for_each(|line| check_line(line, &reads, &what));
    check_shared(&world.lines, &reads, SHARED, &what);
    let wal = open(small(PLACEMENTS[0]), &Arc::new(disk.crash_lost_all()));
    check_crashed(&wal, &world.lines, SHARED, &what);
    assert_sound(&wal, &what);
    check_empty(&wal, &what);
    tally(&[("histories", 1), ("reads", reads.len() as u64)]);
}

#[test]
fn what_all_are_answered_is_one_history() {
    for_each(&seeds(1, 20), |seed| world(seed, End::None));
}

#[test]
fn it_is_one_history_until_the_log_is_closed() {
    for_each(&seeds(1001, 20), |seed| world(seed, End::Close));
}

#[test]
fn it_is_one_history_until_a_write_fails() {
    for_each(&seeds(2001, 20), |seed| world(seed, End::Fault));
}

#[test]
fn it_is_one_history_until_the_power_fails() {
    for_each(&seeds(3001, 20), |seed| world(seed, End::Cut));
}
