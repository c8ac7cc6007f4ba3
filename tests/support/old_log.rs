//! An old log to migrate from, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use strandlog::disk::sim::SimDisk;
use strandlog::migrate::{Change, DualWrite, OldError, OldLog};
use strandlog::{Bytes, Entry, Placement};

use super::{payload, small};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rep {
    /// Index before the first entry, and its term.
    pub before: (u64, u64),
    pub entries: Vec<(u64, Bytes)>,
    pub state: BTreeMap<Bytes, Bytes>,
}

impl Rep {
    pub fn bounds(&self) -> (u64, u64) {
        (self.before.0 + 1, self.before.0 + self.entries.len() as u64)
    }

    pub fn term(&self, index: u64) -> u64 {
        if index == self.before.0 { self.before.1 } else { self.entries[(index - self.before.0 - 1) as usize].0 }
    }
}

pub type World = BTreeMap<u64, Rep>;

pub fn apply(world: &mut World, change: &Change<'_>) {
    match *change {
        Change::Append { replica, entries } => {
            let rep = world.entry(replica).or_default();
            for &(index, term, data) in entries {
                rep.entries.truncate((index - rep.before.0 - 1) as usize);
                rep.entries.push((term, Bytes::copy_from_slice(data)));
            }
        }
        Change::Put { replica, key, value } => {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            world.entry(replica).or_default().state.insert(key, value);
        }
        Change::Delete { replica, key } => {
            if let Some(rep) = world.get_mut(&replica) {
                rep.state.remove(key);
            }
        }
        Change::TruncatePrefix { replica, first_kept } => {
            let Some(rep) = world.get_mut(&replica).filter(|r| r.bounds().0 < first_kept) else { return };
            let n = (first_kept - rep.bounds().0) as usize;
            rep.before = (first_kept - 1, rep.term(first_kept - 1));
            rep.entries.drain(..n);
        }
        Change::TruncateSuffix { replica, from } => {
            if let Some(rep) = world.get_mut(&replica) {
                rep.entries.truncate((from - rep.bounds().0) as usize);
            }
        }
        Change::InstallSnapshot { replica, index, term } => {
            let rep = world.entry(replica).or_default();
            (rep.before, rep.entries) = ((index, term), Vec::new());
        }
        Change::Remove { replica } => drop(world.remove(&replica)),
        ref other => panic!("{other:?} is not known here"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    Never,
    /// Before anything is written.
    Before,
    /// With all of it written.
    After,
    /// Not the next write but the one after it, before anything is written.
    Later,
}

/// An old log in memory, that survives the process: every write is durable.
#[derive(Clone, Debug)]
pub struct Old(Arc<Mutex<(World, Fails)>>);

impl Old {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new((World::new(), Fails::Never))))
    }

    pub fn world(&self) -> World {
        self.0.lock().expect("no other panic").0.clone()
    }

    pub fn fail(&self, how: Fails) {
        self.0.lock().expect("no other panic").1 = how;
    }

    pub fn change(&self, change: &Change<'_>) {
        apply(&mut self.0.lock().expect("no other panic").0, change);
    }

    pub fn rep(&self, replica: u64) -> Option<Rep> {
        self.0.lock().expect("no other panic").0.get(&replica).cloned()
    }
}

impl OldLog for Old {
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), OldError> {
        let mut inner = self.0.lock().expect("no other panic");
        let fails = match std::mem::replace(&mut inner.1, Fails::Never) {
            Fails::Later => {
                inner.1 = Fails::Before;
                Fails::Never
            }
            fails => fails,
        };
        if fails != Fails::Before {
            changes.iter().for_each(|change| apply(&mut inner.0, change));
        }
        if fails == Fails::Never { Ok(()) } else { Err("the old log failed".into()) }
    }
    fn replicas(&self) -> Result<Vec<u64>, OldError> {
        Ok(self.world().into_keys().collect())
    }
    fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, OldError> {
        Ok(self.rep(replica).map(|r| r.bounds()))
    }
    fn term(&self, replica: u64, index: u64) -> Result<u64, OldError> {
        Ok(self.rep(replica).ok_or("no such replica")?.term(index))
    }
    fn entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, OldError> {
        let rep = self.rep(replica).ok_or("no such replica")?;
        // A few at a time: an old log may return fewer than were asked for.
        let entry = |index| {
            let (term, data) = rep.entries[(index - rep.bounds().0) as usize].clone();
            Entry { index, term, data }
        };
        Ok((first..=last.min(first + 2)).map(entry).collect())
    }
    fn state(&self, replica: u64) -> Result<Vec<(Bytes, Bytes)>, OldError> {
        Ok(self.rep(replica).map_or_else(Vec::new, |r| r.state.into_iter().collect()))
    }
}

/// Opens both logs, with a small strandlog on the disk.
pub fn open(old: &Old, disk: &Arc<SimDisk>) -> DualWrite<Old> {
    let wal = super::open(small(Placement::Auto), disk);
    DualWrite::open(old.clone(), wal).expect("the migration goes on")
}

/// A log with a past: replicas 1 to 3, ten entries each, truncated to 4.
pub fn past() -> Old {
    let old = Old::new();
    for replica in 1..=3 {
        let data: Vec<Bytes> = (1..=10).map(|i| payload(replica, i, 1, 100)).collect();
        let entries: Vec<_> = (1..).zip(&data).map(|(i, d)| (i, 1, &d[..])).collect();
        old.change(&Change::Append { replica, entries: &entries });
        old.change(&Change::Put { replica, key: b"hard_state", value: b"term 1" });
        old.change(&Change::TruncatePrefix { replica, first_kept: 4 });
    }
    old
}
