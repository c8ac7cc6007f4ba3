//! The state of a log as last acknowledged, and what is reported of it later.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use strandlog::{Damage, Error, Lost, Wal};

/// A replica. An entry within the bounds that is not in `entries` is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    pub first: u64,
    pub last: u64,
    /// The term before the first entry, if known.
    pub before: Option<u64>,
    pub entries: BTreeMap<u64, (u64, Vec<u8>)>,
    pub keys: BTreeMap<Vec<u8>, Vec<u8>>,
    pub applied: Option<u64>,
    /// The keyed state may be incomplete.
    pub suspect: bool,
}

impl Replica {
    pub fn new() -> Self {
        Self { first: 1, before: Some(0), ..Self::default() }
    }

    pub fn truncate(&mut self, first: u64) {
        if first > self.first {
            let before = first - 1;
            self.before = self.entries.get(&before).map(|e| e.0);
            self.entries = self.entries.split_off(&first);
            self.first = first;
        }
    }

    pub fn cut(&mut self, from: u64) {
        self.entries.split_off(&from);
        self.last = from - 1;
    }

    /// Whether nothing of it is known to be lost.
    pub fn is_whole(&self) -> bool {
        let held = self.last.wrapping_sub(self.first).wrapping_add(1);
        self.entries.len() as u64 == held && self.before.is_some() && !self.suspect
    }
}

pub type Log = BTreeMap<u64, Replica>;

/// Everything that was ever acknowledged.
pub type History = HashSet<(u64, u64, u64, Vec<u8>)>;

/// What is reported of a log.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub log: Log,
    /// Replicas of which anything is reported as lost.
    pub hurt: BTreeSet<u64>,
    /// Replicas may be missing, or older than they were.
    pub unnamed: bool,
}

/// Reads all entries and keys of an opened log.
pub fn read(wal: &Wal) -> Told {
    let mut told = Told { unnamed: wal.stats().unnamed_losses > 0, ..Told::default() };
    for id in wal.replicas() {
        let replica = wal.replica(id);
        let (first, last) = replica.bounds();
        let damage = replica.damage();
        let suspect = damage.iter().any(|d| d.lost == Lost::State);
        let mut is = Replica { first, last, before: replica.term(first - 1).ok(), suspect, ..Replica::default() };
        for key in replica.keys() {
            match replica.get(&key) {
                Ok(Some(value)) => drop(is.keys.insert(key.to_vec(), value.to_vec())),
                Ok(None) => panic!("replica {id}: {key:?} is listed, and not there"),
                Err(_) => is.suspect = true,
            }
        }
        is.applied = replica.durable_applied().unwrap_or(None);
        let mut next = Some(first);
        while let Some(at) = next.filter(|&at| at <= last) {
            let end = match replica.entries_through(at, last, 1 << 16) {
                Ok(some) => {
                    let end = some.last().expect("one at least").index;
                    is.entries.extend(some.into_iter().map(|e| (e.index, (e.term, e.data.to_vec()))));
                    end
                }
                Err(Error::Damaged(Damage { lost: Lost::Entries { last: end, .. }, .. })) => end.clamp(at, last),
                Err(Error::Damaged(_)) => at,
                Err(Error::Io { .. }) => {
                    if let Ok(e) = replica.entry(at) {
                        is.entries.insert(at, (e.term, e.data.to_vec()));
                    }
                    at
                }
                Err(error) => panic!("replica {id}, entry {at}: {error}"),
            };
            next = end.checked_add(1);
        }
        if !damage.is_empty() || !is.is_whole() {
            told.hurt.insert(id);
        }
        told.log.insert(id, is);
    }
    told
}

/// Checks that everything reported as sound is as acknowledged, and that every replica not reported as hurt is whole.
pub fn agrees(told: &Told, stood: &Log, history: &History, what: &str) {
    for (&id, is) in &told.log {
        let whole = !told.hurt.contains(&id);
        let Some(was) = stood.get(&id) else {
            assert!(!whole || told.unnamed, "{what}: replica {id} was removed, and is told as whole");
            assert!(is.suspect || told.unnamed, "{what}: replica {id} was removed, and may vote");
            continue;
        };
        for (index, (term, data)) in &is.entries {
            if told.unnamed {
                let once = (id, *index, *term, data.clone());
                assert!(history.contains(&once), "{what}: replica {id}, entry {index} never was");
                continue;
            }
            let there = was.entries.get(index);
            assert!(
                there == Some(&(*term, data.clone())),
                "{what}: replica {id}, entry {index} of term {term} and {} bytes; it was {:?}",
                data.len(),
                there.map(|(term, data)| (term, data.len()))
            );
        }
        if told.unnamed {
            continue;
        }
        if !is.suspect {
            assert!(is.keys == was.keys, "{what}: replica {id}: its keyed state is another");
            assert_eq!(is.applied, was.applied, "{what}: replica {id}: its report");
        }
        if let (Some(term), Some(stood)) = (is.before, was.before)
            && is.first == was.first
        {
            assert_eq!(term, stood, "{what}: replica {id}: the term before the first");
        }
        if whole {
            assert!(
                is == was,
                "{what}: replica {id} is told as whole: {:?} {:?} {:?}, it was {:?} {:?} {:?}",
                (is.first, is.last),
                is.before,
                is.entries.len(),
                (was.first, was.last),
                was.before,
                was.entries.len()
            );
        }
    }
    for id in stood.keys() {
        assert!(told.log.contains_key(id) || told.unnamed, "{what}: replica {id} is gone without a word");
    }
}
