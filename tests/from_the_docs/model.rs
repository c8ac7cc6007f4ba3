//! What a log holds and refuses, as README, the guide and the documentation of the interface say it: nothing here was read off the code.

use std::collections::{BTreeMap, BTreeSet};

use strandlog::{Batch, Bytes, Error};

#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    Append(Vec<(u64, u64, Bytes)>),
    Put(Vec<u8>, Bytes),
    Delete(Vec<u8>),
    Truncate(u64),
    Cut(u64),
    Report(u64),
    Snapshot(u64, u64),
    Remove,
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Append(entries) => {
                let e = |e: &(u64, u64, Bytes)| format!("{}@{}:{}b", e.0, e.1, e.2.len());
                write!(f, "append {:?}", entries.iter().map(e).collect::<Vec<_>>())
            }
            Self::Put(key, value) => write!(f, "put {} {}b", name(key), value.len()),
            Self::Delete(key) => write!(f, "delete {}", name(key)),
            Self::Truncate(first) => write!(f, "truncate to {first}"),
            Self::Cut(from) => write!(f, "cut from {from}"),
            Self::Report(index) => write!(f, "report {index}"),
            Self::Snapshot(index, term) => write!(f, "snapshot {index}@{term}"),
            Self::Remove => write!(f, "remove"),
        }
    }
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(12)]).into_owned()
}

pub type Ops = Vec<(u64, Op)>;

pub fn batch(ops: &Ops) -> Batch {
    let mut batch = Batch::new();
    for (id, op) in ops {
        match op {
            Op::Append(entries) => batch.append(*id, entries),
            Op::Put(key, value) => batch.put(*id, key, value),
            Op::Delete(key) => batch.delete(*id, key),
            Op::Truncate(first) => batch.truncate_prefix(*id, *first),
            Op::Cut(from) => batch.truncate_suffix(*id, *from),
            Op::Report(index) => batch.durable_applied(*id, *index),
            Op::Snapshot(index, term) => batch.install_snapshot(*id, *index, *term),
            Op::Remove => batch.remove(*id),
        };
    }
    batch
}

/// Why a batch is refused, other than for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Gap,
    Compacted,
    Contradiction,
    Unknown,
    TooLarge,
}

impl Refused {
    pub fn of(error: &Error) -> Option<Self> {
        Some(match error {
            Error::Gap { .. } => Self::Gap,
            Error::Compacted { .. } => Self::Compacted,
            Error::Contradiction { .. } => Self::Contradiction,
            Error::UnknownReplica { .. } => Self::Unknown,
            Error::EntryTooLarge { .. } | Error::ValueTooLarge { .. } => Self::TooLarge,
            _ => return None,
        })
    }
}

/// A replica: its entries follow `before`, an index and its term.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rep {
    pub before: (u64, u64),
    pub entries: Vec<(u64, Bytes)>,
    pub keys: BTreeMap<Vec<u8>, Bytes>,
    pub reported: Option<u64>,
    /// The first index that a truncation asked for, while it waits for a report: the process forgets it when it ends.
    pub held: Option<u64>,
}

impl std::fmt::Debug for Rep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|(k, v)| format!("{}={}b", name(k), v.len())).collect();
        let terms: Vec<_> = self.entries.iter().map(|(t, d)| format!("{t}:{}b", d.len())).collect();
        let (first, last) = (self.first(), self.last());
        write!(f, "{first}..={last} after {:?} {terms:?} {keys:?} {:?} {:?}", self.before, self.reported, self.held)
    }
}

impl Rep {
    pub fn first(&self) -> u64 {
        self.before.0 + 1
    }

    pub fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    pub fn term(&self, index: u64) -> u64 {
        if index == self.before.0 { self.before.1 } else { self.entries[(index - self.first()) as usize].0 }
    }

    pub fn bytes(&self) -> u64 {
        let entries = self.entries.iter().map(|(_, d)| d.len());
        (entries.sum::<usize>() + self.keys.values().map(Bytes::len).sum::<usize>()) as u64
    }

    /// The index from which the state machine applies again.
    pub fn reapply_from(&self) -> u64 {
        self.reported.map_or(0, |r| r + 1).clamp(self.first(), self.last() + 1)
    }

    fn truncate(&mut self, first: u64) {
        let first = first.min(self.last() + 1);
        if first > self.first() {
            let before = (first - 1, self.term(first - 1));
            self.entries.drain(..(first - self.first()) as usize);
            self.before = before;
        }
    }

    /// Does what the newest report allows of the truncation that waits.
    fn let_go(&mut self) {
        if let (Some(reported), Some(held)) = (self.reported, self.held) {
            self.truncate(held.min(reported + 1));
            if self.first() >= held || reported + 1 >= held {
                self.held = None;
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World(pub BTreeMap<u64, Rep>);

impl World {
    /// What the next process finds of it.
    pub fn as_found(&self) -> Self {
        let mut world = self.clone();
        world.0.values_mut().for_each(|rep| rep.held = None);
        world
    }

    pub fn bytes(&self) -> u64 {
        self.0.values().map(Rep::bytes).sum()
    }

    pub fn of(&self, ids: impl Fn(u64) -> bool) -> Self {
        Self(self.0.iter().filter(|(id, _)| ids(**id)).map(|(&id, rep)| (id, rep.clone())).collect())
    }

    /// Where two worlds differ, in a few words.
    pub fn difference(&self, other: &Self) -> String {
        let ids = self.0.keys().chain(other.0.keys()).collect::<BTreeSet<_>>();
        let differ = ids.into_iter().filter(|id| self.0.get(id) != other.0.get(id)).take(3);
        differ.map(|id| format!("\n replica {id}:\n  {:?}\n  {:?}", self.0.get(id), other.0.get(id))).collect()
    }

    /// The world behind the batch; or why it is refused, in which case nothing of it happened.
    pub fn after(&self, ops: &Ops) -> Result<Self, Refused> {
        let mut next = self.clone();
        // The index below which this batch may not write: what its truncations let go, or would if they did not wait.
        let mut floor: BTreeMap<u64, u64> = BTreeMap::new();
        let mut early = BTreeSet::new();
        if ops.iter().any(|(_, op)| contradicts(op)) {
            return Err(Refused::Contradiction);
        }
        for (at, (id, op)) in ops.iter().enumerate() {
            // A removal ends what the batch asked for before it.
            if ops[at + 1..].iter().any(|(other, op)| other == id && *op == Op::Remove) {
                continue;
            }
            // A report before the operation that creates its replica counts as one of 0.
            if matches!(op, Op::Report(_)) && !next.0.contains_key(id) {
                early.insert(*id);
                continue;
            }
            next.step(*id, op, &mut floor)?;
            if let Some(rep) = next.0.get_mut(id)
                && early.remove(id)
            {
                rep.reported = Some(0);
            }
        }
        Ok(next)
    }

    fn step(&mut self, id: u64, op: &Op, floor: &mut BTreeMap<u64, u64>) -> Result<(), Refused> {
        match op {
            Op::Append(entries) => {
                let Some(&(from, ..)) = entries.first() else { return Ok(()) };
                let (first, last) = self.0.get(&id).map_or((1, 0), |rep| (rep.first(), rep.last()));
                if from < first || floor.get(&id).is_some_and(|floor| from < *floor) {
                    return Err(Refused::Compacted);
                }
                if from > last + 1 {
                    return Err(Refused::Gap);
                }
                let rep = self.0.entry(id).or_default();
                rep.entries.truncate((from - first) as usize);
                rep.entries.extend(entries.iter().map(|(_, term, data)| (*term, data.clone())));
            }
            Op::Put(key, value) => {
                self.0.entry(id).or_default().keys.insert(key.clone(), value.clone());
            }
            Op::Delete(key) => {
                if let Some(rep) = self.0.get_mut(&id) {
                    rep.keys.remove(key);
                }
            }
            Op::Truncate(to) => {
                let Some(rep) = self.0.get_mut(&id) else { return Err(Refused::Unknown) };
                if *to > rep.last() + 1 {
                    return Err(Refused::Contradiction);
                }
                floor.entry(id).and_modify(|f| *f = (*f).max(*to)).or_insert(*to);
                match rep.reported {
                    Some(_) if *to <= rep.first() => {}
                    Some(reported) if *to > reported + 1 => {
                        rep.held = rep.held.max(Some(*to));
                        rep.let_go();
                    }
                    _ => rep.truncate(*to),
                }
            }
            Op::Cut(from) => {
                let Some(rep) = self.0.get_mut(&id) else { return Ok(()) };
                if *from < rep.first() || floor.get(&id).is_some_and(|floor| from < floor) {
                    return Err(Refused::Compacted);
                }
                rep.entries.truncate((*from - rep.first()) as usize);
            }
            Op::Report(index) => {
                if let Some(rep) = self.0.get_mut(&id) {
                    rep.reported = rep.reported.max(Some(*index));
                    rep.let_go();
                }
            }
            Op::Snapshot(index, term) => {
                floor.remove(&id);
                let rep = self.0.entry(id).or_default();
                rep.before = (*index, if *index == 0 { 0 } else { *term });
                rep.entries.clear();
                rep.reported = rep.reported.map(|r| r.min(*index));
                rep.held = None;
            }
            Op::Remove => {
                floor.remove(&id);
                self.0.remove(&id);
            }
        }
        Ok(())
    }
}

/// Whether the operation makes no sense whatever the log holds: it is refused even where a removal ends it.
fn contradicts(op: &Op) -> bool {
    match op {
        Op::Append(entries) => {
            entries.first().is_some_and(|e| e.0 == 0) || entries.windows(2).any(|w| w[1].0 != w[0].0 + 1)
        }
        Op::Put(key, _) | Op::Delete(key) => key.starts_with(b"\0sl."),
        Op::Cut(from) => *from == 0,
        _ => false,
    }
}
