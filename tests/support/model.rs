//! The reference model: what a log must hold, kept in maps, and what it must refuse.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use strandlog::{Batch, Bytes, Error, Lsn, Wal};

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    Append { replica: u64, entries: Vec<(u64, u64, Bytes)> },
    Put { replica: u64, key: Vec<u8>, value: Bytes },
    Delete { replica: u64, key: Vec<u8> },
    Truncate { replica: u64, first: u64 },
    Cut { replica: u64, from: u64 },
    Reset { replica: u64, index: u64, term: u64 },
    Remove { replica: u64 },
}

/// Copies the bytes: a slice would keep the file of the log that it was read from.
fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Append { replica, entries } => {
                write!(f, "append({replica}:")?;
                entries.iter().try_for_each(|(i, t, d)| write!(f, " {i}@{t}/{}", d.len()))?;
                write!(f, ")")
            }
            Op::Put { replica, key, value } => write!(f, "put({replica}: {key:x?} {} bytes)", value.len()),
            Op::Delete { replica, key } => write!(f, "delete({replica}: {key:x?})"),
            Op::Truncate { replica, first } => write!(f, "truncate({replica}: {first})"),
            Op::Cut { replica, from } => write!(f, "cut({replica}: {from})"),
            Op::Reset { replica, index, term } => write!(f, "reset({replica}: {index}@{term})"),
            Op::Remove { replica } => write!(f, "remove({replica})"),
        }
    }
}

/// The batch that asks for these operations.
pub fn batch(ops: &[Op]) -> Batch {
    let mut batch = Batch::new();
    for op in ops {
        match op {
            Op::Append { replica, entries } => batch.append(*replica, entries),
            Op::Put { replica, key, value } => batch.put(*replica, key, value),
            Op::Delete { replica, key } => batch.delete(*replica, key),
            Op::Truncate { replica, first } => batch.truncate_prefix(*replica, *first),
            Op::Cut { replica, from } => batch.truncate_suffix(*replica, *from),
            Op::Reset { replica, index, term } => batch.install_snapshot(*replica, *index, *term),
            Op::Remove { replica } => batch.remove(*replica),
        };
    }
    batch
}

/// Why a batch must be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Gap { replica: u64, index: u64, expected: u64 },
    Compacted { replica: u64, index: u64, first_index: u64 },
    Contradiction { replica: u64 },
    Unknown { replica: u64 },
}

impl Refusal {
    /// The refusal that an error stands for, if it is one that depends on the state of replicas.
    pub fn of(error: &Error) -> Option<Self> {
        match *error {
            Error::Gap { replica, index, expected } => Some(Self::Gap { replica, index, expected }),
            Error::Compacted { replica, index, first_index } => Some(Self::Compacted { replica, index, first_index }),
            Error::Contradiction { replica, .. } => Some(Self::Contradiction { replica }),
            Error::UnknownReplica { replica } => Some(Self::Unknown { replica }),
            _ => None,
        }
    }
}

/// One replica. Entries `first..=last`; empty when `entries` is.
#[derive(Clone, PartialEq, Eq)]
pub struct Rep {
    pub first: u64,
    pub prev_term: u64,
    pub entries: BTreeMap<u64, (u64, Bytes)>,
    pub keys: BTreeMap<Vec<u8>, Bytes>,
}

impl Default for Rep {
    fn default() -> Self {
        Self { first: 1, prev_term: 0, entries: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

impl Rep {
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.first - 1, |(&i, _)| i)
    }

    pub fn bytes(&self) -> usize {
        self.entries.values().map(|(_, d)| d.len()).sum::<usize>() + self.keys.values().map(Bytes::len).sum::<usize>()
    }
}

impl fmt::Debug for Rep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..={} after term {};", self.first, self.last(), self.prev_term)?;
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for (&i, &(t, _)) in &self.entries {
            match runs.last_mut() {
                Some(r) if r.2 == t => r.1 = i,
                _ => runs.push((i, i, t)),
            }
        }
        runs.iter().try_for_each(|(a, b, t)| write!(f, " {a}-{b}@{t}"))?;
        self.keys.iter().try_for_each(|(k, v)| write!(f, " {k:x?}={}b", v.len()))?;
        write!(f, "]")
    }
}

/// The position of each replica's last removal.
fn removed(ops: &[Op]) -> BTreeMap<u64, usize> {
    let removals = ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Remove { .. }));
    removals.map(|(i, op)| (op.replica(), i)).collect()
}

/// Whether a later removal ends operation `i`: then it is not looked at, and need not make sense.
fn ends(removed: &BTreeMap<u64, usize>, i: usize, replica: u64) -> bool {
    removed.get(&replica).is_some_and(|&end| i < end)
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    pub reps: BTreeMap<u64, Rep>,
}

impl Model {
    /// What the log must answer to this batch: its operations are checked in order, before any of them takes effect.
    pub fn predict(&self, ops: &[Op]) -> Result<(), Refusal> {
        struct At {
            exists: bool,
            first: u64,
            last: u64,
        }
        for op in ops {
            // What contradicts itself is refused first, whatever the log holds.
            if let Op::Cut { replica, from: 0 } = op {
                return Err(Refusal::Contradiction { replica: *replica });
            }
            if let Op::Append { replica, entries } = op
                && let Some(&(head, ..)) = entries.first()
            {
                let fits = |(n, e): (usize, &(u64, u64, Bytes))| head.checked_add(n as u64) == Some(e.0);
                if head == 0 || !entries.iter().enumerate().all(fits) {
                    return Err(Refusal::Contradiction { replica: *replica });
                }
            }
        }
        let removed = removed(ops);
        let mut at: BTreeMap<u64, At> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            let replica = op.replica();
            if ends(&removed, i, replica) {
                continue;
            }
            let a = at.entry(replica).or_insert_with(|| match self.reps.get(&replica) {
                Some(r) => At { exists: true, first: r.first, last: r.last() },
                None => At { exists: false, first: 1, last: 0 },
            });
            let create = |a: &mut At| {
                if !a.exists {
                    (a.exists, a.first, a.last) = (true, 1, 0);
                }
            };
            match op {
                Op::Append { entries, .. } => {
                    let (Some(&(first, ..)), Some(&(last, ..))) = (entries.first(), entries.last()) else { continue };
                    create(a);
                    if first < a.first {
                        return Err(Refusal::Compacted { replica, index: first, first_index: a.first });
                    }
                    if a.last < u64::MAX && first > a.last + 1 {
                        return Err(Refusal::Gap { replica, index: first, expected: a.last + 1 });
                    }
                    a.last = last;
                }
                Op::Put { .. } => create(a),
                Op::Delete { .. } => {}
                Op::Truncate { first, .. } => {
                    if !a.exists {
                        if *first <= 1 {
                            continue;
                        }
                        return Err(Refusal::Unknown { replica });
                    }
                    if a.last < u64::MAX && *first > a.last + 1 {
                        return Err(Refusal::Contradiction { replica });
                    }
                    a.first = a.first.max(*first);
                }
                Op::Cut { from, .. } => {
                    if !a.exists {
                        continue;
                    }
                    if *from < a.first {
                        return Err(Refusal::Compacted { replica, index: *from, first_index: a.first });
                    }
                    a.last = a.last.min(from - 1);
                }
                Op::Reset { index, .. } => {
                    if *index == u64::MAX {
                        return Err(Refusal::Contradiction { replica });
                    }
                    (a.exists, a.first, a.last) = (true, index + 1, *index);
                }
                Op::Remove { .. } => a.exists = false,
            }
        }
        Ok(())
    }

    /// Applies a batch that was predicted to be accepted.
    pub fn apply(&mut self, ops: &[Op]) {
        let removed = removed(ops);
        for (i, op) in ops.iter().enumerate() {
            let replica = op.replica();
            if ends(&removed, i, replica) {
                continue;
            }
            match op {
                Op::Append { entries, .. } => {
                    let Some(&(first, ..)) = entries.first() else { continue };
                    let r = self.reps.entry(replica).or_default();
                    r.entries.split_off(&first);
                    r.entries.extend(entries.iter().map(|(i, t, d)| (*i, (*t, d.clone()))));
                }
                Op::Put { key, value, .. } => {
                    self.reps.entry(replica).or_default().keys.insert(key.clone(), value.clone());
                }
                Op::Delete { key, .. } => {
                    if let Some(r) = self.reps.get_mut(&replica) {
                        r.keys.remove(key);
                    }
                }
                Op::Truncate { first, .. } => {
                    let Some(r) = self.reps.get_mut(&replica).filter(|r| r.first < *first) else { continue };
                    r.prev_term = r.entries.get(&(first - 1)).expect("it is held").0;
                    r.entries = r.entries.split_off(first);
                    r.first = *first;
                }
                Op::Cut { from, .. } => {
                    if let Some(r) = self.reps.get_mut(&replica) {
                        r.entries.split_off(from);
                    }
                }
                Op::Reset { index, term, .. } => {
                    let r = self.reps.entry(replica).or_default();
                    r.entries.clear();
                    // Index 0 has no term.
                    (r.first, r.prev_term) = (index + 1, if *index == 0 { 0 } else { *term });
                }
                Op::Remove { .. } => {
                    self.reps.remove(&replica);
                }
            }
        }
    }

    /// Everything that the log holds now, read through its public face.
    pub fn read(wal: &Wal) -> Result<Self, Error> {
        let mut model = Self::default();
        for id in wal.replicas() {
            let r = wal.replica(id);
            let (first, last) = r.bounds();
            let mut rep = Rep { first, prev_term: r.term(first - 1)?, ..Rep::default() };
            let mut next = first;
            while next <= last {
                if next == u64::MAX {
                    let e = r.entry(next)?;
                    rep.entries.insert(e.index, (e.term, own(&e.data)));
                    break;
                }
                let entries = r.entries(next..last.saturating_add(1), 100_000)?;
                assert!(!entries.is_empty(), "replica {id}: no entries from {next} of {first}..={last}");
                for e in entries {
                    assert_eq!(e.index, next, "replica {id}");
                    rep.entries.insert(e.index, (e.term, own(&e.data)));
                    next = next.saturating_add(1);
                }
                if next == u64::MAX && last < u64::MAX {
                    break;
                }
            }
            for key in r.keys() {
                let value = r.get(&key)?.expect("a key that is listed has a value");
                rep.keys.insert(key.to_vec(), own(&value));
            }
            model.reps.insert(id, rep);
        }
        Ok(model)
    }

    /// Where the two differ, for people to read.
    pub fn difference(&self, found: &Self) -> String {
        let mut out = String::new();
        let ids: std::collections::BTreeSet<u64> = self.reps.keys().chain(found.reps.keys()).copied().collect();
        for id in ids {
            let (want, got) = (self.reps.get(&id), found.reps.get(&id));
            if want == got {
                continue;
            }
            out += &format!("\n  replica {id}: want {want:?}\n            found {got:?}");
            if let (Some(want), Some(got)) = (want, got) {
                let differs = want.entries.iter().find(|(i, e)| got.entries.get(i).is_some_and(|g| g != *e));
                if let Some((i, _)) = differs {
                    out += &format!("\n            entry {i} differs");
                }
                let key = want.keys.iter().find(|(k, v)| got.keys.get(*k).is_some_and(|g| g != *v));
                if let Some((k, _)) = key {
                    out += &format!("\n            the value of {k:x?} differs");
                }
            }
        }
        out
    }
}

impl Op {
    pub fn replica(&self) -> u64 {
        match *self {
            Op::Append { replica, .. }
            | Op::Put { replica, .. }
            | Op::Delete { replica, .. }
            | Op::Truncate { replica, .. }
            | Op::Cut { replica, .. }
            | Op::Reset { replica, .. }
            | Op::Remove { replica } => replica,
        }
    }
}

/// Knows what a crash may leave: the state after some prefix of the batches that includes every acknowledged one.
#[derive(Clone, Default)]
pub struct Oracle {
    /// After everything acknowledged.
    pub durable: Model,
    /// After everything submitted.
    pub current: Model,
    /// Submitted and not acknowledged, in log order.
    pub pending: VecDeque<(Option<Lsn>, Vec<Op>)>,
}

impl Oracle {
    /// The batch was accepted; or, if `lsn` is `None`, it may have been.
    pub fn submitted(&mut self, lsn: Option<Lsn>, ops: Vec<Op>) {
        self.current.apply(&ops);
        self.pending.push_back((lsn, ops));
    }

    /// Everything at or below `lsn` was acknowledged.
    pub fn acknowledged(&mut self, lsn: Lsn) {
        while self.pending.front().is_some_and(|(l, _)| l.is_some_and(|l| l <= lsn)) {
            let (_, ops) = self.pending.pop_front().expect("it is there");
            self.durable.apply(&ops);
        }
    }

    /// Compares what was found after a crash. Returns how many unacknowledged batches survived, or how the promises were broken.
    pub fn check(&self, found: &Model) -> Result<usize, String> {
        let mut state = self.durable.clone();
        if state == *found {
            return Ok(0);
        }
        for (n, (_, ops)) in self.pending.iter().enumerate() {
            state.apply(ops);
            if state == *found {
                return Ok(n + 1);
            }
        }
        let mut told = format!(
            "no prefix of the batches that includes all acknowledged ones ({} more were submitted) explains what was found; \
             against everything acknowledged:{}",
            self.pending.len(),
            self.durable.difference(found)
        );
        if !self.pending.is_empty() {
            told += &format!("\nagainst everything submitted:{}", state.difference(found));
            told += &format!("\nunacknowledged: {:?}", self.pending.iter().map(|(_, ops)| ops).collect::<Vec<_>>());
        }
        Err(told)
    }

    /// What was found is the truth from now on.
    pub fn settle(&mut self, found: Model) {
        self.durable = found.clone();
        self.current = found;
        self.pending.clear();
    }
}
