//! A device that answers a read with what was there before the last write, and the next one rightly.
//!
//! Each read of an opening, of entries and keyed state, of cleaning and of a scrub is stale once, in three ways. What cannot be read is
//! reported by name, or the opening is refused; nothing is lost silently, no old byte passes for a new one, and what only looked damaged
//! for a moment is not accused.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use strandlog::disk::sim::SimDisk;
use strandlog::disk::{BLOCK, Disk};
use strandlog::{Error, Wal};

use support::judge::{CAPACITY, End, judge, judge_on, write};
use support::model::{Model, Op, batch};
use support::recorder::Recorder;
use support::{assert_sound, for_each, open, payload, tally};

/// What a stale read returns.
#[derive(Clone, Copy, Debug)]
enum Age {
    /// Every block as it was before its last write.
    Previous,
    /// Every block as it was first: zeros.
    First,
    /// Of the blocks that were ever rewritten only this one, as it was before its last write; the others as they are.
    OneBlock(usize),
}

impl Age {
    fn name(self) -> &'static str {
        match self {
            Age::Previous => "all blocks as before",
            Age::First => "all blocks as at first",
            Age::OneBlock(_) => "one block as before",
        }
    }
}

/// Which read is stale.
#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    /// The read with this number.
    Once(u64),
    /// The first read of every block.
    Always,
}

/// What each block held before, the oldest first.
#[derive(Default)]
struct Past {
    versions: Vec<Vec<Vec<u8>>>,
    now: Vec<u8>,
}

impl Past {
    fn see(&mut self, image: Vec<u8>) {
        self.versions.resize(image.len() / BLOCK, Vec::new());
        for (i, (old, new)) in self.now.chunks(BLOCK).zip(image.chunks(BLOCK)).enumerate() {
            if old != new {
                self.versions[i].push(old.to_vec());
            }
        }
        self.now = image;
    }

    /// The blocks of a range that were ever rewritten.
    fn changed(&self, offset: u64, len: usize) -> Vec<usize> {
        let (first, end) = (offset as usize / BLOCK, (offset as usize + len).div_ceil(BLOCK));
        (first..end).filter(|&block| !self.versions[block].is_empty()).collect()
    }

    /// Gives a block of what was read its old bytes. Returns whether that changed anything.
    fn put(&self, block: usize, first: bool, offset: u64, buf: &mut [u8]) -> bool {
        let versions = &self.versions[block];
        let Some(old) = (if first { versions.first() } else { versions.last() }) else { return false };
        let (offset, end) = (offset as usize, offset as usize + buf.len());
        let (from, to) = (offset.max(block * BLOCK), end.min((block + 1) * BLOCK));
        let (target, old) = (&mut buf[from - offset..to - offset], &old[from - block * BLOCK..to - block * BLOCK]);
        let changes = *target != *old;
        target.copy_from_slice(old);
        changes
    }
}

/// What a disk was asked for since it began to be stale.
#[derive(Default)]
struct Told {
    /// For each read, how many of its blocks were ever rewritten.
    readings: Vec<usize>,
    /// How many reads returned other bytes than those that are there.
    stale: u64,
    seen: HashSet<usize>,
}

/// Makes reads stale, counted from now.
fn make_stale(disk: &SimDisk, past: &Arc<Past>, when: When, age: Age) -> Arc<Mutex<Told>> {
    let (past, told) = (Arc::clone(past), Arc::new(Mutex::new(Told::default())));
    let tell = Arc::clone(&told);
    disk.on_read(move |offset, buf| {
        let mut told = tell.lock().expect("no panic");
        let mut blocks = past.changed(offset, buf.len());
        let number = told.readings.len() as u64;
        told.readings.push(blocks.len());
        match (when, age) {
            (When::Once(n), Age::OneBlock(i)) if n == number => blocks = blocks.into_iter().skip(i).take(1).collect(),
            (When::Once(n), _) if n == number => {}
            (When::Always, _) => blocks.retain(|&block| told.seen.insert(block)),
            _ => blocks.clear(),
        }
        let put = |&block: &usize| past.put(block, matches!(age, Age::First), offset, buf);
        told.stale += u64::from(blocks.iter().map(put).fold(false, |any, one| any | one));
        Ok(())
    });
    told
}

/// Every way for one of these reads to be stale.
fn cases(told: &Told) -> Vec<(When, Age)> {
    let mut cases = Vec::new();
    for (number, &blocks) in told.readings.iter().enumerate().filter(|(_, blocks)| **blocks > 0) {
        let once = When::Once(number as u64);
        cases.extend([(once, Age::Previous), (once, Age::First)]);
        if blocks > 1 {
            cases.extend((0..blocks).map(|i| (once, Age::OneBlock(i))));
        }
    }
    cases
}

/// Runs `work` on a fresh disk, and remembers what each block held.
fn remember<T>(capacity: u64, work: impl FnOnce(&Arc<Recorder>) -> T) -> (Arc<Past>, T) {
    let past = Arc::new(Mutex::new(Past::default()));
    let seen = Arc::clone(&past);
    let watch = move |moment: support::recorder::Moment| seen.lock().expect("no panic").see(moment.before.kept_image());
    let disk = Arc::new(Recorder::new(Arc::new(SimDisk::new(capacity)), 1, watch));
    let done = work(&disk);
    let mut all = std::mem::take(&mut *past.lock().expect("no panic"));
    all.see(disk.disk.kept_image());
    (Arc::new(all), done)
}

type Table = Mutex<BTreeMap<(&'static str, String), u64>>;

fn note(table: &Table, age: Age, end: String) {
    *table.lock().expect("no panic").entry((age.name(), end)).or_default() += 1;
}

fn print(table: &Table) {
    for ((age, end), n) in &*table.lock().expect("no panic") {
        println!("{age:22} {n:5}  {end}");
    }
}

/// A closed log with every structure, and what its blocks held before.
fn closed() -> (Arc<Past>, Model) {
    let (past, (model, _)) = remember(CAPACITY, write);
    (past, model)
}

#[test]
fn a_closed_log_that_is_read_stale_once_loses_nothing_silently() {
    let (past, model) = closed();
    stale_once(&past, &model, &past.now);
    // The same without a snapshot, from the journal alone.
    let ends = stale_once(&past, &model, &support::without_snapshot(past.now.clone()));
    assert!(ends.iter().any(|end| end.starts_with("Reported")), "{ends:?}");
}

/// Opens the image with each read stale once; returns how that ended.
fn stale_once(past: &Arc<Past>, model: &Model, image: &[u8]) -> Vec<String> {
    let disk = Arc::new(SimDisk::from_image(image.to_vec()));
    let told = make_stale(&disk, past, When::Never, Age::First);
    assert_eq!(judge_on(&disk, model), Ok(End::NoEffect));
    let cases = cases(&told.lock().expect("no panic"));
    let (table, failures) = (Table::default(), Mutex::new(Vec::new()));
    for_each(&cases, |(when, age)| {
        let disk = Arc::new(SimDisk::from_image(image.to_vec()));
        let told = make_stale(&disk, past, when, age);
        let end = judge_on(&disk, model).and_then(|end| {
            // A refusal has changed nothing: the next opening, whose reads are right, finds everything.
            let again = matches!(end, End::Refused(_)).then(|| judge(disk.kept_image(), model));
            match again {
                Some(again) if again != Ok(End::NoEffect) => Err(format!("{end:?}, and then {again:?}")),
                _ => Ok(end),
            }
        });
        match end {
            Ok(end) if told.lock().expect("no panic").stale > 0 => note(&table, age, format!("{end:?}")),
            Ok(end) => assert_eq!(end, End::NoEffect, "nothing was stale"),
            Err(why) => failures.lock().expect("no panic").push(format!("{when:?}, {age:?}: {why}")),
        }
    });
    print(&table);
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} of {}: {:#?}", failures.len(), cases.len(), &failures[..failures.len().min(20)]);
    let ends = table.into_inner().expect("no panic");
    tally(&[("stale", ends.values().sum())]);
    ends.into_keys().map(|(_, end)| end).collect()
}

/// What a log in use reads.
#[derive(Clone, Copy, Debug)]
enum Task {
    Entries,
    Cleaning,
    Scrub,
}

impl Task {
    fn run(self, wal: &Wal, model: &Model) -> Result<(), String> {
        match self {
            Task::Entries => {
                let found = Model::read(wal).map_err(|e| format!("cannot be read: {e:?}"))?;
                if found != *model {
                    return Err(format!("is read wrongly:{}", model.difference(&found)));
                }
            }
            Task::Cleaning => wal.checkpoint().map_err(|e| format!("cannot be cleaned: {e:?}"))?,
            Task::Scrub => {
                let mut accused = Vec::new();
                let scrubbed = wal.scrub(u64::MAX, |one| {
                    if !one.damage.is_empty() || !one.structure.is_empty() {
                        accused.push(one.clone());
                    }
                    ControlFlow::Continue(())
                });
                let journal = scrubbed.map_err(|e| format!("cannot be scrubbed: {e:?}"))?;
                if !accused.is_empty() || journal.rotten_frames > 0 {
                    return Err(format!("is accused: {accused:?}, {journal:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The device rights itself: a second read gets what is there, so nothing is damage.
#[test]
fn what_is_stale_for_a_moment_is_read_again_and_accused_of_nothing() {
    let (past, mut model) = closed();
    // Write into a segment of its own, so that all others can be cleaned.
    let more: Vec<_> = (1..=10).map(|i| (i, 1, payload(20, i, 1, 7000))).collect();
    let more = [Op::Append { replica: 20, entries: more }];
    model.apply(&more);
    let opened = || {
        let disk = Arc::new(SimDisk::from_image(past.now.clone()));
        let wal = open(support::judge::options(), &disk);
        wal.commit(batch(&more)).expect("committed");
        (disk, wal)
    };
    for task in [Task::Entries, Task::Cleaning, Task::Scrub] {
        let (disk, wal) = opened();
        let told = make_stale(&disk, &past, When::Never, Age::First);
        task.run(&wal, &model).expect("nothing is stale");
        let mut cases = cases(&told.lock().expect("no panic"));
        cases.extend([(When::Always, Age::Previous), (When::Always, Age::First)]);
        let (stale, failures) = (Mutex::new(0), Mutex::new(Vec::new()));
        for_each(&cases, |(when, age)| {
            let (disk, wal) = opened();
            let told = make_stale(&disk, &past, when, age);
            let ended = task.run(&wal, &model).and_then(|()| {
                disk.heal_reads();
                if !wal.damage().is_empty() {
                    return Err(format!("counts as damaged: {:?}", wal.damage()));
                }
                assert_sound(&wal, "afterwards");
                Task::Entries.run(&wal, &model)?;
                drop(wal);
                let wal = open(support::judge::options(), &Arc::new(disk.crash_lost_all()));
                Task::Entries.run(&wal, &model).map_err(|why| format!("after a power cut it {why}"))
            });
            *stale.lock().expect("no panic") += told.lock().expect("no panic").stale;
            if let Err(why) = ended {
                failures.lock().expect("no panic").push(format!("{when:?}, {age:?}: {why}"));
            }
        });
        let stale = stale.into_inner().expect("no panic");
        println!("{task:?}: {} cases, {stale} stale readings", cases.len());
        let failures = failures.into_inner().expect("no panic");
        let shown = &failures[..failures.len().min(20)];
        assert!(failures.is_empty(), "{task:?}: {} of {}: {shown:#?}", failures.len(), cases.len());
        assert!(stale > 10, "{task:?}");
    }
}

/// What a log holds after each of its commits, all of them acknowledged, and what its blocks held before.
fn unclosed(commits: u64) -> (Arc<Past>, Vec<Model>) {
    let mut states = vec![Model::default()];
    let (past, ()) = remember(CAPACITY, |disk| {
        let wal = support::judge::options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
        for i in 1..=commits {
            let (replica, index, len) = (i % 3, i.div_ceil(3), 500 + (i as usize * 613) % 4000);
            let mut ops = vec![Op::Append { replica, entries: vec![(index, 1, payload(replica, index, 1, len))] }];
            // One replica keeps little, and one everything for long.
            if replica > 0 {
                ops.push(Op::Truncate { replica, first: index.saturating_sub(replica * 8).max(1) });
            }
            wal.commit(batch(&ops)).expect("committed");
            let mut next = states.last().expect("the first").clone();
            next.apply(&ops);
            states.push(next);
            if i % 10 == 0 {
                wal.checkpoint().expect("cleaned");
            }
        }
    });
    (past, states)
}

/// Opens a log that was not closed; returns how it is found.
fn reopen(disk: &Arc<SimDisk>, states: &[Model]) -> String {
    let wal = match support::judge::options().open_disk(Arc::clone(disk) as Arc<dyn Disk>) {
        Ok(wal) => wal,
        Err(Error::Corrupt { what, .. }) => return format!("refused: {what}"),
        Err(other) => panic!("{other:?}"),
    };
    disk.heal_reads();
    if !wal.damage().is_empty() {
        return "reported".to_owned();
    }
    match Model::read(&wal) {
        Ok(found) => match states.iter().rev().position(|state| *state == found) {
            Some(0) => "whole".to_owned(),
            Some(lost) => format!("SILENT: {lost} commits are lost"),
            None => "SILENT: nothing that ever was".to_owned(),
        },
        Err(error) => format!("SILENT until it is read: {error:?}"),
    }
}

/// After a crash nothing proves where the log ends but what is read there: so it is read twice.
#[test]
fn the_end_of_a_log_that_was_not_closed_is_not_believed_at_first_sight() {
    let table = Table::default();
    // The last segment just begun, half full, nearly full.
    let lengths: Vec<u64> = (100..124).collect();
    for_each(&lengths, |commits| {
        let (past, states) = unclosed(commits);
        let disk = Arc::new(SimDisk::from_image(past.now.clone()));
        let told = make_stale(&disk, &past, When::Never, Age::First);
        assert_eq!(reopen(&disk, &states), "whole");
        let cases = cases(&told.lock().expect("no panic"));
        for (when, age) in cases {
            let disk = Arc::new(SimDisk::from_image(past.now.clone()));
            make_stale(&disk, &past, when, age);
            let end = reopen(&disk, &states);
            if end.starts_with("SILENT") {
                println!("{commits} commits, {when:?}, {age:?}: {end}");
            }
            note(&table, age, end);
        }
    });
    print(&table);
    let ends = table.into_inner().expect("no panic");
    assert!(!ends.keys().any(|(_, end)| end.starts_with("SILENT")), "{ends:?}");
    assert!(ends.keys().any(|(_, end)| end == "reported"), "{ends:?}");
    tally(&[("stale", ends.values().sum())]);
}
