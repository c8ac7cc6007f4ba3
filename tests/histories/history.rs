//! Records what was called, when, and with what outcome; and checks whether one log, in one order, could have answered so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use strandlog::{Bytes, Error, Wal};

use crate::support::model::{Model, Op, Rep};

/// The moments at which calls begin and return.
#[derive(Default)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn tick(&self) -> u64 {
        self.0.fetch_add(1, SeqCst)
    }
}

/// Key and value written to the replica that all write to.
pub type Shared = (u8, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not known whether it was submitted.
    Unknown,
    /// It was never submitted.
    Refused,
    Accepted,
    Durable,
    /// Its caller was told that it never will be durable.
    Lost,
}

/// A batch of the one owner of a replica.
#[derive(Clone, Debug)]
pub struct Step {
    pub call: u64,
    /// The latest moment at which it became readable; `u64::MAX` if it never returned.
    pub ret: u64,
    pub lsn: Option<u64>,
    pub outcome: Outcome,
    /// The replica after it.
    pub rep: Option<Rep>,
    pub shared: Option<Shared>,
    pub entries: u64,
    pub bytes: u64,
}

/// The history of a replica that a single thread or task writes to.
pub struct Line {
    pub replica: u64,
    pub steps: Mutex<Vec<Step>>,
}

fn given(op: &Op) -> (u64, u64) {
    match op {
        Op::Append { entries, .. } => (entries.len() as u64, entries.iter().map(|(.., d)| d.len() as u64).sum()),
        Op::Put { key, value, .. } => (0, (key.len() + value.len()) as u64),
        Op::Delete { key, .. } => (0, key.len() as u64),
        _ => (0, 0),
    }
}

impl Line {
    pub fn new(replica: u64) -> Self {
        Self { replica, steps: Mutex::default() }
    }

    fn with<T>(&self, n: usize, f: impl FnOnce(&mut Step) -> T) -> T {
        f(&mut self.steps.lock().expect("no other panic")[n])
    }

    /// Notes that the batch of these operations is about to be submitted.
    pub fn call(&self, clock: &Clock, rep: Option<Rep>, shared: Option<Shared>, ops: &[Op]) -> usize {
        // Operations that a later removal ends are not counted.
        let ended = |i: usize, op: &Op| {
            ops[i..].iter().any(|later| matches!(later, Op::Remove { replica } if *replica == op.replica()))
        };
        let given = ops.iter().enumerate().filter(|(i, op)| !ended(*i, op)).map(|(_, op)| given(op));
        let (entries, bytes) = given.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let mut steps = self.steps.lock().expect("no other panic");
        let (call, ret) = (clock.tick(), u64::MAX);
        steps.push(Step { call, ret, lsn: None, outcome: Outcome::Unknown, rep, shared, entries, bytes });
        steps.len() - 1
    }

    pub fn accepted(&self, clock: &Clock, n: usize, lsn: u64) {
        self.with(n, |step| {
            (step.ret, step.lsn) = (clock.tick(), Some(lsn));
            // The outcome may have been told already.
            if step.outcome == Outcome::Unknown {
                step.outcome = Outcome::Accepted;
            }
        });
    }

    pub fn refused(&self, n: usize) {
        self.with(n, |step| {
            assert_eq!(step.outcome, Outcome::Unknown, "refused, and yet told: {step:?}");
            step.outcome = Outcome::Refused;
        });
    }

    pub fn told(&self, n: usize, well: bool) {
        self.with(n, |step| {
            let told = if well { Outcome::Durable } else { Outcome::Lost };
            let before = std::mem::replace(&mut step.outcome, told);
            assert!(before == told || matches!(before, Outcome::Unknown | Outcome::Accepted), "{told:?}: {step:?}");
        });
    }

    /// The steps that were submitted, or may have been.
    pub fn all(&self) -> Vec<Step> {
        let steps = self.steps.lock().expect("no other panic");
        steps.iter().filter(|step| step.outcome != Outcome::Refused).cloned().collect()
    }
}

/// What a read returned.
#[derive(Clone, Debug)]
pub enum Seen {
    Bounds(u64, u64),
    Term(u64, Option<u64>),
    Entry(u64, Option<(u64, Bytes)>),
    /// First index, end, most bytes, and what was found.
    Entries(u64, u64, usize, Option<Vec<(u64, Bytes)>>),
    Key(Vec<u8>, Option<Bytes>),
    Keys(Vec<Bytes>),
    Exists(bool),
}

pub struct Read {
    pub replica: u64,
    pub call: u64,
    pub ret: u64,
    pub seen: Seen,
}

/// The value, or `None` if the entry is not there: any other error is wrong.
pub fn absent<T>(outcome: Result<T, Error>, what: &str) -> Option<T> {
    match outcome {
        Ok(found) => Some(found),
        Err(Error::Compacted { .. } | Error::OutOfRange { .. } | Error::UnknownReplica { .. }) => None,
        Err(error) => panic!("{what}: {error}"),
    }
}

impl Seen {
    /// Whether the replica in this state would have answered so.
    fn is_of(&self, rep: Option<&Rep>) -> bool {
        let blank = Rep::default();
        let (r, exists) = (rep.unwrap_or(&blank), rep.is_some());
        match self {
            Self::Bounds(first, last) => (*first, *last) == (r.first, r.last()),
            Self::Exists(found) => *found == exists,
            Self::Term(index, term) => {
                let known = r.entries.get(index).map(|(term, _)| *term);
                *term == known.or((index.checked_add(1) == Some(r.first)).then_some(r.prev_term))
            }
            Self::Entry(index, found) => found.as_ref() == r.entries.get(index),
            Self::Entries(from, to, most, found) => {
                if from == to {
                    return found.as_ref().is_some_and(Vec::is_empty);
                }
                let Some(found) = found else { return *from < r.first || r.last() < to - 1 };
                let mut there = r.entries.range(from..).map(|(_, e)| e);
                // While the log changes, fewer entries may come than would fit.
                let bytes: usize = found.iter().map(|(_, d)| d.len()).sum();
                // The first entry comes however long it is, and empty ones always fit.
                let fits = bytes <= *most || found.iter().skip(1).all(|(_, d)| d.is_empty());
                *from >= r.first
                    && !found.is_empty()
                    && found.len() as u64 <= to - from
                    && fits
                    && found.iter().all(|e| there.next() == Some(e))
            }
            Self::Key(key, value) => value.as_ref() == r.keys.get(key),
            Self::Keys(keys) => keys.iter().map(|k| &k[..]).eq(r.keys.keys().map(|k| &k[..])),
        }
    }
}

impl Seen {
    /// Whether the read could begin in this state: it first looks whether all entries are there. Those cut off later only end it early.
    fn ends_within(&self, rep: Option<&Rep>) -> bool {
        let last = rep.map_or(0, Rep::last);
        !matches!(self, Self::Entries(from, to, _, Some(_)) if from < to && last < to - 1)
    }
}

/// Every read of the replica must show one state between its call and its return, and no read an earlier state than one that returned
/// before it began.
pub fn check_line(line: &Line, reads: &[Read], what: &str) {
    let steps = line.all();
    let mut reads: Vec<&Read> = reads.iter().filter(|read| read.replica == line.replica).collect();
    reads.sort_unstable_by_key(|read| read.call);
    // When each read returned, and the earliest step that it can have seen: 0 is before the first step.
    let mut seen: Vec<(u64, usize)> = Vec::new();
    for read in reads {
        let written = steps.iter().take_while(|step| step.ret < read.call).count();
        let earlier = seen.iter().filter(|(ret, _)| *ret < read.call).map(|&(_, at)| at).max().unwrap_or(0);
        let begun = steps.iter().take_while(|step| step.call < read.ret).count();
        let rep = |at: usize| at.checked_sub(1).and_then(|i| steps[i].rep.as_ref());
        let at = (written.max(earlier)..=begun).find(|&at| read.seen.is_of(rep(at)));
        let at = at.unwrap_or_else(|| {
            let from = written.max(earlier);
            let reps: Vec<_> = (from..=begun).map(rep).collect();
            panic!("{what}: replica {}: {:?} is of none of {from}..={begun}: {reps:?}", line.replica, read.seen)
        });
        let whole = (written.max(earlier)..=begun).any(|at| read.seen.ends_within(rep(at)));
        assert!(whole, "{what}: replica {}: {:?} was never there", line.replica, read.seen);
        seen.push((read.ret, at));
    }
}

/// Every read of a key that all write must return the last value in the order of the log.
pub fn check_shared(lines: &[Line], reads: &[Read], replica: u64, what: &str) {
    let steps: Vec<Step> = lines.iter().flat_map(Line::all).filter(|step| step.shared.is_some()).collect();
    // By key, when a value was read, and its LSN.
    let mut seen: BTreeMap<u8, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for read in reads.iter().filter(|read| read.replica == replica) {
        let Seen::Key(key, value) = &read.seen else { continue };
        let key = key[0];
        let of_key = || steps.iter().filter(|step| step.shared.is_some_and(|(k, _)| k == key));
        let lsn = match value {
            None => 0,
            Some(value) => {
                let value = u64::from_le_bytes(value[..].try_into().expect("eight bytes"));
                let step = of_key().find(|step| step.shared == Some((key, value)));
                let step = step.unwrap_or_else(|| panic!("{what}: key {key}: {value} was never submitted"));
                assert!(step.call < read.ret, "{what}: {step:?} was read before");
                match step.lsn {
                    Some(lsn) => lsn,
                    None => continue,
                }
            }
        };
        let newer = of_key().find(|step| step.ret < read.call && step.lsn > Some(lsn));
        assert!(newer.is_none(), "{what}: key {key} of {lsn} is read behind {newer:?}");
        seen.entry(key).or_default().push((read.call, read.ret, lsn));
    }
    for (key, seen) in seen {
        for &(call, _, lsn) in &seen {
            let newer = seen.iter().find(|(_, ret, newer)| *ret < call && *newer > lsn);
            assert!(newer.is_none(), "{what}: key {key} of {lsn} is read behind {newer:?}");
        }
    }
}

/// Nothing may be acknowledged behind what is lost.
pub fn check_outcomes(lines: &[Line], what: &str) {
    let steps: Vec<Step> = lines.iter().flat_map(Line::all).collect();
    let of = |outcome| steps.iter().filter(move |step| step.outcome == outcome).filter_map(|step| step.lsn);
    if let (Some(durable), Some(lost)) = (of(Outcome::Durable).max(), of(Outcome::Lost).min()) {
        assert!(durable <= lost, "{what}: {durable} was acknowledged, and {lost} is lost");
    }
}

/// After a crash the log must hold all that was done up to some moment, all that was acknowledged among it, and each line at one of its
/// steps.
pub fn check_crashed(wal: &Wal, lines: &[Line], shared: u64, what: &str) {
    let found = Model::read(wal).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (mut newest, mut missing) = (0, u64::MAX);
    // Two batches may have one LSN, where their payloads lie outside of the frame.
    let mut values: BTreeMap<u8, (u64, Vec<u64>)> = BTreeMap::new();
    for line in lines {
        let steps = line.all();
        let acknowledged = steps.iter().rposition(|step| step.outcome == Outcome::Durable).map_or(0, |at| at + 1);
        let rep = |at: usize| at.checked_sub(1).and_then(|i| steps[i].rep.as_ref());
        let there = found.reps.get(&line.replica);
        // The newest step that it can be: the number of each is in the replica.
        let at = (acknowledged..=steps.len()).rfind(|&at| rep(at) == there);
        let at = at.unwrap_or_else(|| {
            panic!("{what}: replica {} is none of {acknowledged}..={}: {there:?}", line.replica, steps.len())
        });
        newest = newest.max(steps[..at].iter().filter_map(|step| step.lsn).max().unwrap_or(0));
        missing = missing.min(steps[at..].iter().filter_map(|step| step.lsn).min().unwrap_or(u64::MAX));
        for step in &steps[..at] {
            let (Some((key, value)), Some(lsn)) = (step.shared, step.lsn) else { continue };
            let (at, newest) = values.entry(key).or_default();
            if lsn > *at {
                (*at, *newest) = (lsn, Vec::new());
            }
            if lsn == *at {
                newest.push(value);
            }
        }
    }
    assert!(newest <= missing, "{what}: {newest} is there, and {missing} is not");
    let unknown = lines.iter().flat_map(Line::all).any(|step| step.lsn.is_none());
    for (key, (_, newest)) in values.into_iter().filter(|_| !unknown) {
        let there = found.reps.get(&shared).and_then(|r| r.keys.get(&[key][..]));
        let is_there = newest.iter().any(|value| there.is_some_and(|v| v[..] == value.to_le_bytes()));
        assert!(is_there, "{what}: key {key}: {there:?}, and not one of {newest:x?}");
    }
}
