//! The log to leave: in memory, with faults of its own. It panics when asked for what its contract does not cover: a real one might do
//! anything then.

use std::sync::{Arc, Mutex};

use strandlog::migrate::{Change, OldError, OldLog};
use strandlog::{Bytes, Entry};

use super::model::{Op, Rep, World};

/// A write that fails: this many of its changes are made all the same, `usize::MAX` for all.
#[derive(Clone, Copy, Debug)]
pub enum Fails {
    /// The changes are durable.
    Durable(usize),
    /// A power cut takes them, unless a later write was durable, which then covers them too.
    Loose(usize),
}

#[derive(Debug, Default)]
struct Inner {
    seen: World,
    durable: World,
    /// After so many other writes one fails, like this.
    write_fails: Option<(u32, Fails)>,
    /// After so many other reads one fails.
    read_fails: Option<u32>,
    /// A planned fault has come.
    failed: bool,
    /// Whether the last write was not durable.
    loose: bool,
}

/// A handle to it, which survives the process.
#[derive(Clone, Debug, Default)]
pub struct Old(Arc<Mutex<Inner>>);

impl Old {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().expect("no other panic"))
    }

    pub fn world(&self) -> World {
        self.with(|inner| inner.seen.clone())
    }

    pub fn fail_write(&self, behind: u32, how: Fails) {
        self.with(|inner| inner.write_fails = Some((behind, how)));
    }

    pub fn fail_read(&self, behind: u32) {
        self.with(|inner| inner.read_fails = Some(behind));
    }

    /// Ends all faults. Returns whether any has come.
    pub fn heal(&self) -> bool {
        self.with(|inner| {
            (inner.write_fails, inner.read_fails) = (None, None);
            std::mem::take(&mut inner.failed)
        })
    }

    /// Whether a power cut would take something of it.
    pub fn is_loose(&self) -> bool {
        self.with(|inner| inner.loose)
    }

    /// Cuts the power.
    pub fn cut(&self) {
        self.with(|inner| {
            inner.seen = inner.durable.clone();
            inner.loose = false;
        });
    }

    /// Changes it alone, for a while or behind our back. Returns whether it took the operation.
    pub fn alone(&self, id: u64, op: Op) -> bool {
        self.with(|inner| {
            let Ok(next) = inner.seen.after(&vec![(id, op)]) else { return false };
            inner.seen = next;
            inner.settle();
            true
        })
    }

    fn read<T>(&self, f: impl FnOnce(&World) -> T) -> Result<T, OldError> {
        self.with(|inner| {
            if let Some(behind) = &mut inner.read_fails {
                if *behind == 0 {
                    (inner.read_fails, inner.failed) = (None, true);
                    return Err("a reading failed".into());
                }
                *behind -= 1;
            }
            Ok(f(&inner.seen))
        })
    }
}

impl Inner {
    fn settle(&mut self) {
        (self.durable, self.loose) = (self.seen.clone(), false);
    }

    fn apply(&mut self, change: &Change<'_>) {
        let entries = |entries: &[(u64, u64, &[u8])]| {
            entries.iter().map(|&(i, term, data)| (i, term, Bytes::copy_from_slice(data))).collect()
        };
        let (id, op) = match *change {
            Change::Append { replica, entries: of } => (replica, Op::Append(entries(of))),
            Change::Put { replica, key, value } => (replica, Op::Put(key.to_vec(), Bytes::copy_from_slice(value))),
            Change::Delete { replica, key } => (replica, Op::Delete(key.to_vec())),
            Change::TruncatePrefix { replica, .. } if !self.seen.0.contains_key(&replica) => return,
            Change::TruncatePrefix { replica, first_kept } => (replica, Op::Truncate(first_kept)),
            Change::TruncateSuffix { replica, from } => (replica, Op::Cut(from)),
            Change::InstallSnapshot { replica, index, term } => (replica, Op::Snapshot(index, term)),
            Change::Remove { replica } => (replica, Op::Remove),
            ref other => panic!("{other:?} is not known here"),
        };
        let next = self.seen.after(&vec![(id, op.clone())]);
        self.seen = next.unwrap_or_else(|why| panic!("the old log is asked for {op:?} of {id}: {why:?}"));
    }
}

fn held(world: &World, replica: u64) -> &Rep {
    world.0.get(&replica).unwrap_or_else(|| panic!("the old log is asked of {replica}, which it does not have"))
}

impl OldLog for Old {
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), OldError> {
        self.with(|inner| {
            let fails = match &mut inner.write_fails {
                Some((0, how)) => Some(*how),
                Some((behind, _)) => {
                    *behind -= 1;
                    None
                }
                None => None,
            };
            let (many, how) = match fails {
                Some(how @ (Fails::Durable(n) | Fails::Loose(n))) => (n, Some(how)),
                None => (usize::MAX, None),
            };
            changes.iter().take(many).for_each(|change| inner.apply(change));
            match how {
                Some(Fails::Loose(_)) => inner.loose = true,
                _ => inner.settle(),
            }
            if how.is_none() {
                return Ok(());
            }
            (inner.write_fails, inner.failed) = (None, true);
            Err("a write failed".into())
        })
    }

    fn replicas(&self) -> Result<Vec<u64>, OldError> {
        self.read(|world| world.0.keys().copied().collect())
    }

    fn bounds(&self, replica: u64) -> Result<Option<(u64, u64)>, OldError> {
        self.read(|world| world.0.get(&replica).map(|rep| (rep.first(), rep.last())))
    }

    fn term(&self, replica: u64, index: u64) -> Result<u64, OldError> {
        self.read(|world| {
            let rep = held(world, replica);
            assert!((rep.first() - 1..=rep.last()).contains(&index), "the term of {index} of {replica}: {rep:?}");
            rep.term(index)
        })
    }

    fn entries(&self, replica: u64, first: u64, last: u64) -> Result<Vec<Entry>, OldError> {
        self.read(|world| {
            let rep = held(world, replica);
            let are = rep.first() <= first && first <= last && last <= rep.last();
            assert!(are, "entries {first} to {last} of {replica}: {rep:?}");
            let entry = |index| {
                let (term, data) = rep.entries[(index - rep.first()) as usize].clone();
                Entry { index, term, data }
            };
            // Fewer than were asked for, as it likes.
            (first..=last.min(first + first % 4)).map(entry).collect()
        })
    }

    fn state(&self, replica: u64) -> Result<Vec<(Bytes, Bytes)>, OldError> {
        self.read(|world| {
            let state = world.0.get(&replica).map(|rep| rep.keys.iter());
            state.into_iter().flatten().map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect()
        })
    }
}
