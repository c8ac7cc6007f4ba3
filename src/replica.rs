//! The read side: a cheap handle on one replica.

use std::ops::Range;

use bytes::Bytes;

use crate::batch::Entry;
use crate::engine::Engine;
use crate::error::{Damage, Error, Result};
use crate::index::{Cell, Life, is_own};
use crate::sync::Arc;

/// Reads one replica. Reads see every submitted batch at once, durable or not, and wait for no disk write.
///
/// What one call answers is of one moment: it stood in the log together. What two calls answer need not be: between them the log may be written.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: u64,
    /// Known since the handle was made, or looked up each time until the replica is written.
    pub(crate) cell: Option<Arc<Cell>>,
}

impl Replica {
    pub(crate) fn cell(&self) -> Option<Arc<Cell>> {
        self.cell.clone().or_else(|| self.engine.registry.get(self.id))
    }

    fn known(&self) -> Result<Arc<Cell>> {
        self.cell().ok_or(Error::UnknownReplica { replica: self.id })
    }

    /// As [`Replica::cell`], without counting one reference more: what only touches memory takes no longer than that would.
    fn with<T>(&self, f: impl FnOnce(&Cell) -> T) -> Option<T> {
        match &self.cell {
            Some(cell) => Some(f(cell)),
            None => self.engine.registry.get(self.id).map(|cell| f(&cell)),
        }
    }

    /// The replica's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it was ever written, and not removed since.
    pub fn exists(&self) -> bool {
        self.with(|c| c.lock().exists).unwrap_or(false)
    }

    /// The first index it holds; 1 when it does not exist. Beyond [`Replica::last_index`] when it is empty.
    pub fn first_index(&self) -> u64 {
        self.with(|c| c.lock().first).unwrap_or(1)
    }

    /// The last index it holds; `first_index - 1` when it is empty.
    pub fn last_index(&self) -> u64 {
        self.with(|c| c.lock().last).unwrap_or(0)
    }

    /// First and last index at one moment.
    pub fn bounds(&self) -> (u64, u64) {
        let bounds = |c: &Cell| {
            let state = c.lock();
            (state.first, state.last)
        };
        self.with(bounds).unwrap_or((1, 0))
    }

    /// How often entries of it went that others may have taken the place of, since the log was opened: by an append over them, a cut of the end, a
    /// snapshot, its removal. Whoever finds the number that was there before knows that what he has read since is of one history, and follows what he
    /// had read. A truncation of the front does not count. Touches memory only.
    ///
    /// It outlives the replica for handles that were made when it had been written. It wraps.
    pub fn cuts(&self) -> u32 {
        self.with(|c| c.lock().cuts).unwrap_or(0)
    }

    /// The life that it is in: another one when it was removed and begun anew. For [`Wal::durable_applied_in`](crate::Wal::durable_applied_in). `None` of one
    /// that does not exist. Touches memory only.
    pub fn life(&self) -> Option<Life> {
        self.with(|c| c.lock().life()).flatten()
    }

    /// Whether all that was submitted of it is durable, lazy batches among it. What is not is so after [`Wal::sync`](crate::Wal::sync). Touches memory only.
    ///
    /// For whoever takes over a replica from somebody of the same process who may have been ended while he waited.
    pub fn is_durable(&self) -> bool {
        self.with(|c| c.lock().listed_frame < self.engine.durable()).unwrap_or(true)
    }

    /// The term of entry `index`, or of `first_index - 1`: raft asks for it after a truncation. Touches memory only.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::OutOfRange`], [`Error::UnknownReplica`]; [`Error::Damaged`] of a damaged entry, and of `first_index - 1` where
    /// a truncation ended behind one: to whom that term was to be told, send a snapshot.
    pub fn term(&self, index: u64) -> Result<u64> {
        match self.with(|cell| self.engine.read_term(cell, index)) {
            Some(term) => term,
            // Before the first entry of a log that was never written.
            None if index == 0 => Ok(0),
            None => Err(Error::UnknownReplica { replica: self.id }),
        }
    }

    /// The entry at `index`. Zero-copy from a mapped chain, whose chunk stays pinned while the payload lives; else a copy, or a slice of memory that holds it (the buffer of a recent
    /// frame or piece, which then stays while the payload lives).
    ///
    /// # Errors
    /// As [`Replica::term`]; [`Error::Damaged`] also when the bytes do not match their checksum, and [`Error::Io`] when they cannot be read. Nothing
    /// is known of `first_index - 1` but its term: that is [`Error::Compacted`].
    pub fn entry(&self, index: u64) -> Result<Entry> {
        self.engine.read_entry(&*self.known()?, index)
    }

    /// Entries from the front of `range`, as many as fit `max_bytes` of payload, and one in any case: behind a first one that exceeds them by itself none, not even an empty
    /// one. They stood in the log together. Where entries are overwritten, cut off or truncated while it reads, it answers what it has by then: ask again for the rest, which may be of another history.
    ///
    /// # Errors
    /// As [`Replica::entry`], of the first of them. An empty range is `Ok` and empty; one that ends beyond the last index is
    /// [`Error::OutOfRange`].
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let cell = self.known()?;
        let last_index = cell.lock().last;
        if range.end - 1 > last_index {
            return Err(Error::OutOfRange { replica: self.id, index: range.end - 1, last_index });
        }
        self.engine.read_entries(&cell, range.start, range.end, max_bytes)
    }

    /// As [`Replica::entries`], of those from `first` to `last`, both among them: a range ends before the last possible index. Up to that one it ends
    /// before it, too, unless it is the only one that is asked for: ask on for it.
    ///
    /// # Errors
    /// As [`Replica::entries`].
    pub fn entries_through(&self, first: u64, last: u64, max_bytes: usize) -> Result<Vec<Entry>> {
        match last.checked_add(1) {
            Some(end) => self.entries(first..end, max_bytes),
            None if first < last => {
                let last_index = self.known()?.lock().last;
                if last > last_index {
                    return Err(Error::OutOfRange { replica: self.id, index: last, last_index });
                }
                self.entries(first..last, max_bytes)
            }
            None => self.entry(last).map(|entry| vec![entry]),
        }
    }

    /// Whether [`Replica::entries`] of the same would find everything in the log's own memory, and ask the file for nothing. Entries that
    /// are not held, or are damaged, ask it for nothing either. What holds now need not hold a moment later.
    ///
    /// For those who must not wait for a disk: what is older is better read by another thread.
    pub fn is_in_memory(&self, range: Range<u64>, max_bytes: usize) -> bool {
        self.cell().is_none_or(|cell| self.engine.is_in_memory(&cell, range, max_bytes))
    }

    /// The value of a key of keyed state.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the state may miss an update: such a replica must not vote. [`Error::Io`] where a large value cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.cell().map_or(Ok(None), |cell| self.engine.read_key(&cell, key))
    }

    /// The keys of keyed state, in no order. Not the log's own.
    pub fn keys(&self) -> Vec<Bytes> {
        let keys = |c: Arc<Cell>| {
            let state = c.lock();
            let callers = state.keys.iter().filter(|e| !is_own(&e.key));
            callers.map(|e| Bytes::copy_from_slice(&e.key)).collect()
        };
        self.cell().map_or_else(Vec::new, keys)
    }

    /// What of it is known to be lost.
    pub fn damage(&self) -> Vec<Damage> {
        self.cell().map_or_else(Vec::new, |c| c.lock().damage(self.id))
    }
}
