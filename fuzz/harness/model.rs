//! The oracle: what a log must hold, as plainly as it can be said.

use std::collections::{BTreeMap, VecDeque};

use strandlog::Wal;

/// Bytes that can be made again: an entry's payload, or a keyed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    pub term: u64,
    pub len: usize,
    pub salt: u64,
}

impl Stub {
    pub fn bytes(&self) -> Vec<u8> {
        // Every eight bytes differ, so that neither a shift nor a neighbour's bytes go unnoticed.
        let word = |i: u64| (self.salt << 24 ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut bytes: Vec<u8> = (0..self.len.div_ceil(8) as u64).flat_map(word).collect();
        bytes.truncate(self.len);
        bytes
    }
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub first: u64,
    pub prev_term: u64,
    pub entries: VecDeque<Stub>,
    pub keys: BTreeMap<u8, Stub>,
    /// What its state machine reported.
    pub applied: Option<u64>,
    /// The truncation that waits for a report. No crash leaves it.
    pub held: Option<u64>,
}

impl Default for Replica {
    fn default() -> Self {
        Self { first: 1, prev_term: 0, entries: VecDeque::new(), keys: BTreeMap::new(), applied: None, held: None }
    }
}

impl Replica {
    /// The last index; `first - 1` when there is none.
    pub fn last(&self) -> u64 {
        self.first - 1 + self.entries.len() as u64
    }

    /// Appends from `first` on, in place of what stands there and above.
    pub fn append(&mut self, first: u64, entries: impl IntoIterator<Item = Stub>) {
        self.entries.truncate((first - self.first) as usize);
        self.entries.extend(entries);
    }

    /// Drops what stands at `from` and above.
    pub fn cut(&mut self, from: u64) {
        self.entries.truncate((from - self.first) as usize);
    }

    /// Truncates the prefix as asked; what goes beyond the report waits.
    pub fn truncate(&mut self, first: u64) {
        let allowed = self.applied.map_or(u64::MAX, |applied| applied + 1);
        // A truncation that is reached already waits for nothing.
        if first > allowed.max(self.first) {
            self.held = self.held.max(Some(first));
        }
        self.let_go(allowed.min(first));
    }

    /// The state machine holds everything up to `index`; a report of less than an earlier one says nothing.
    pub fn report(&mut self, index: u64) {
        if self.applied.is_some_and(|known| known >= index) {
            return;
        }
        self.applied = Some(index);
        if let Some(held) = self.held {
            self.held = Some(held).filter(|held| *held > index + 1);
            self.let_go(held.min(index + 1).min(self.last() + 1));
        }
    }

    fn let_go(&mut self, first: u64) {
        while self.first < first
            && let Some(gone) = self.entries.pop_front()
        {
            self.first += 1;
            self.prev_term = gone.term;
        }
    }

    pub fn reset(&mut self, index: u64, term: u64) {
        (self.first, self.prev_term) = (index + 1, term);
        (self.applied, self.held) = (self.applied.map(|applied| applied.min(index)), None);
        self.entries.clear();
    }
}

/// All replicas, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model(pub BTreeMap<u64, Replica>);

impl Model {
    /// Whether the log holds exactly this; if not, where it begins to differ.
    pub fn compare(&self, wal: &Wal) -> Result<(), String> {
        let ids: Vec<u64> = self.0.keys().copied().collect();
        same("the replicas", &wal.replicas(), &ids)?;
        for (&id, model) in &self.0 {
            let replica = wal.replica(id);
            same(&format!("replica {id}: bounds"), &replica.bounds(), &(model.first, model.last()))?;
            let prev_term = replica.term(model.first - 1).map_err(|e| e.to_string())?;
            same(&format!("replica {id}: term before the first"), &prev_term, &model.prev_term)?;
            let range = model.first..model.first + model.entries.len() as u64;
            let mut next = range.start;
            while next < range.end {
                let entries = replica.entries(next..range.end, 32 << 10).map_err(|e| e.to_string())?;
                for entry in entries {
                    let stub = model.entries[(next - range.start) as usize];
                    same(&format!("replica {id}: index"), &entry.index, &next)?;
                    same(&format!("replica {id}: term of {next}"), &entry.term, &stub.term)?;
                    if entry.data != stub.bytes() {
                        return Err(format!("replica {id}: bytes of entry {next} differ"));
                    }
                    next += 1;
                }
            }
            let applied = replica.durable_applied().map_err(|e| e.to_string())?;
            same(&format!("replica {id}: the report"), &applied, &model.applied)?;
            same(&format!("replica {id}: keys"), &replica.keys().len(), &model.keys.len())?;
            for (&key, stub) in &model.keys {
                let value = replica.get(&[key]).map_err(|e| e.to_string())?;
                if value.as_deref() != Some(&stub.bytes()[..]) {
                    return Err(format!("replica {id}: value of key {key} differs"));
                }
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}
