//! The read side: a cheap handle on one replica.

use std::ops::Range;

use bytes::Bytes;

use crate::batch::Entry;
use crate::engine::Engine;
use crate::error::{Damage, Error, Result};
use crate::index::{Cell, Life, is_own};
use crate::sync::Arc;

/// A handle to read one replica. Reads see every submitted batch at once, durable or not, and never wait for a disk write.
///
/// One call returns a consistent view: what it returns stood in the log together. Two calls need not agree, as the log may be written between them.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: u64,
    /// Known if the replica was when the handle was made; otherwise it is looked up each time.
    pub(crate) cell: Option<Arc<Cell>>,
}

impl Replica {
    pub(crate) fn cell(&self) -> Option<Arc<Cell>> {
        self.cell.clone().or_else(|| self.engine.registry.get(self.id))
    }

    fn known(&self) -> Result<Arc<Cell>> {
        self.cell().ok_or(Error::UnknownReplica { replica: self.id })
    }

    /// As [`Replica::cell`], but without counting another reference, which would take as long as a call that only touches memory.
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

    /// Whether it was written, and not removed since.
    pub fn exists(&self) -> bool {
        self.with(|c| c.lock().exists).unwrap_or(false)
    }

    /// The first index it holds; 1 if it does not exist. One more than [`Replica::last_index`] if it is empty.
    pub fn first_index(&self) -> u64 {
        self.with(|c| c.lock().first).unwrap_or(1)
    }

    /// The last index it holds; `first_index - 1` if it is empty.
    pub fn last_index(&self) -> u64 {
        self.with(|c| c.lock().last).unwrap_or(0)
    }

    /// The first and the last index, read together.
    pub fn bounds(&self) -> (u64, u64) {
        let bounds = |c: &Cell| {
            let state = c.lock();
            (state.first, state.last)
        };
        self.with(bounds).unwrap_or((1, 0))
    }

    /// How often, since the log was opened, entries of it were dropped that others may have replaced: by an overwriting append, a truncation of the suffix, a
    /// snapshot, or its removal. If the number is the same before and after several reads, all that they returned belongs to one history. Truncating the
    /// prefix does not count. Touches memory only.
    ///
    /// A handle that was made after the replica was written keeps the count when the replica is removed. The count wraps.
    pub fn cuts(&self) -> u32 {
        self.with(|c| c.lock().cuts).unwrap_or(0)
    }

    /// The replica's life: another one after it was removed and begun anew. For
    /// [`Wal::durable_applied_in`](crate::Wal::durable_applied_in). `None` if it does not exist. Touches memory only.
    pub fn life(&self) -> Option<Life> {
        self.with(|c| c.lock().life()).flatten()
    }

    /// Whether everything submitted for it is durable, lazy batches included. What is not becomes durable by
    /// [`Wal::sync`](crate::Wal::sync). Touches memory only.
    ///
    /// For code that takes over a replica from another owner in the same process, who may have been stopped while it waited for durability.
    pub fn is_durable(&self) -> bool {
        self.with(|c| c.lock().listed_frame < self.engine.durable()).unwrap_or(true)
    }

    /// The term of entry `index`, or of `first_index - 1`, which raft asks for after a truncation. Touches memory only.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::OutOfRange`], [`Error::UnknownReplica`]; [`Error::Damaged`] for a damaged entry, and for `first_index - 1` if
    /// a truncation ended right behind a damaged entry: send a snapshot to a follower that needs that term.
    pub fn term(&self, index: u64) -> Result<u64> {
        match self.with(|cell| self.engine.read_term(cell, index)) {
            Some(term) => term,
            // The index before the first entry of a replica that was never written.
            None if index == 0 => Ok(0),
            None => Err(Error::UnknownReplica { replica: self.id }),
        }
    }

    /// The entry at `index`. Its payload is one of three: a zero-copy slice of a mapped chain, which pins the chunk while the payload lives; a slice of the
    /// buffer of a recent frame or piece, which stays in memory as long; or a copy.
    ///
    /// # Errors
    /// As [`Replica::term`]; also [`Error::Damaged`] if the bytes do not match their checksum, and [`Error::Io`] if they cannot be read. Of
    /// `first_index - 1` only the term is known, so its entry is [`Error::Compacted`].
    pub fn entry(&self, index: u64) -> Result<Entry> {
        self.engine.read_entry(&*self.known()?, index)
    }

    /// Entries from the front of `range`, as many as fit into `max_bytes` of payload, but at least one. If the first entry alone exceeds `max_bytes`, it is
    /// returned alone, even if an empty one follows.
    ///
    /// The entries stood in the log together. If entries are overwritten, cut off or truncated during the read, it returns what it has read by then. Ask again
    /// for the rest, which may belong to another history (see [`Replica::cuts`]).
    ///
    /// # Errors
    /// As [`Replica::entry`], for the first entry. An empty range is `Ok` and empty; a range that ends beyond the last index is
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

    /// Like [`Replica::entries`], for the inclusive range `first..=last`, which can include the last possible index, `u64::MAX`. A read up to that
    /// index stops before it, unless it is the only one asked for: ask for it separately.
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

    /// Whether [`Replica::entries`] with the same arguments would be served from the log's own memory, without reading the file. That is also
    /// true of entries that do not exist or are damaged. The answer may change at any moment, and near the byte limit it is an estimate: the lengths of
    /// settled entries are taken for the mean of their piece.
    ///
    /// For threads that must not wait for a disk: let another thread read what is not in memory.
    pub fn is_in_memory(&self, range: Range<u64>, max_bytes: usize) -> bool {
        self.cell().is_none_or(|cell| self.engine.is_in_memory(&cell, range, max_bytes))
    }

    /// The keyed value under `key`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the keyed state may miss an update: such a replica must not vote. [`Error::Io`] if a large value cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.cell().map_or(Ok(None), |cell| self.engine.read_key(&cell, key))
    }

    /// The keys of its keyed state, in no particular order, without those reserved for the log.
    pub fn keys(&self) -> Vec<Bytes> {
        let keys = |c: Arc<Cell>| {
            let state = c.lock();
            let callers = state.keys.iter().filter(|e| !is_own(&e.key));
            callers.map(|e| Bytes::copy_from_slice(&e.key)).collect()
        };
        self.cell().map_or_else(Vec::new, keys)
    }

    /// What is known to be lost of it.
    pub fn damage(&self) -> Vec<Damage> {
        self.cell().map_or_else(Vec::new, |c| c.lock().damage(self.id))
    }
}
