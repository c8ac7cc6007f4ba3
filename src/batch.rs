//! Batches: what a caller wants done, atomically, to any number of replicas.

use bytes::Bytes;

use crate::disk::{AlignedBuf, BLOCK};
use crate::error::{Error, Result};
use crate::format::crc;
use crate::sync::Arc;

/// An entry as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index: 1 or more.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its payload. A slice of a chain pins its chunk for as long as it lives, and keeps the file of a log that was closed meanwhile
    /// ([`Error::Locked`](crate::Error::Locked)): whoever opened that could write under it. Copy what is to be kept for long.
    pub data: Bytes,
}

/// Anything that can be appended: an [`Entry`], a tuple of index, term and bytes, or your raft's own entry type.
pub trait AsEntry {
    /// The entry's index: 1 or more.
    fn index(&self) -> u64;
    /// The entry's term.
    fn term(&self) -> u64;
    /// The payload, copied into the batch.
    fn data(&self) -> &[u8];
}

impl AsEntry for Entry {
    fn index(&self) -> u64 {
        self.index
    }
    fn term(&self) -> u64 {
        self.term
    }
    fn data(&self) -> &[u8] {
        &self.data
    }
}

impl<T: AsRef<[u8]>> AsEntry for (u64, u64, T) {
    fn index(&self) -> u64 {
        self.0
    }
    fn term(&self) -> u64 {
        self.1
    }
    fn data(&self) -> &[u8] {
        self.2.as_ref()
    }
}

impl<E: AsEntry + ?Sized> AsEntry for &E {
    fn index(&self) -> u64 {
        (**self).index()
    }
    fn term(&self) -> u64 {
        (**self).term()
    }
    fn data(&self) -> &[u8] {
        (**self).data()
    }
}

/// Entries from this size on are copied once only, into a buffer of their own that is written to the disk as it is.
const BULKY: usize = 32 << 10;
/// So much is checksummed and then copied while the processor still has it.
const STEP: usize = 16 << 10;

/// An entry's place in the batch, and the part of its checksum that needs no lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub term: u64,
    /// Where it begins in the arena; of a bulky entry, which of the buffers is its own.
    pub offset: usize,
    pub len: u32,
    pub payload_crc: u32,
}

/// A range of the batch's arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub offset: usize,
    pub len: usize,
}

/// One thing to do to one replica. Operations on one replica take effect in the order in which they were added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// Entries `metas[from..to]`, the first of them at index `first`.
    Append {
        first: u64,
        from: usize,
        to: usize,
    },
    Put {
        key: Span,
        value: Span,
    },
    Delete {
        key: Span,
    },
    Truncate {
        first: u64,
    },
    /// The entries from `from` on go.
    Cut {
        from: u64,
    },
    Applied {
        index: u64,
    },
    Reset {
        index: u64,
        term: u64,
    },
    Remove,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub replica: u64,
    pub what: What,
}

/// A list of changes that become durable together or not at all.
///
/// Payloads are copied in, and checksummed, as they are added: outside of every lock. A batch given to
/// [`commit`](crate::Wal::commit) by `&mut` is cleared on success and keeps its buffers, so that steady use allocates nothing.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) metas: Vec<Meta>,
    pub(crate) arena: Vec<u8>,
    /// The payloads of bulky entries, each padded to whole blocks.
    bulk: Vec<Arc<AlignedBuf>>,
    bulk_bytes: u64,
    pub(crate) lazy: bool,
    bad: Option<Error>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends entries of consecutive indexes. An index at or below the replica's last overwrites from there on.
    pub fn append<E: AsEntry>(&mut self, replica: u64, entries: &[E]) -> &mut Self {
        let Some(head) = entries.first() else { return self };
        let first = head.index();
        let from = self.metas.len();
        for (i, entry) in entries.iter().enumerate() {
            if first == 0 || first.checked_add(i as u64) != Some(entry.index()) {
                let why =
                    if first == 0 { "index 0 is before the first entry" } else { "its entries are not consecutive" };
                self.refuse(replica, why);
                return self;
            }
            let data = entry.data();
            let Ok(len) = u32::try_from(data.len()) else {
                self.refuse(replica, "an entry of 4 GiB or more");
                return self;
            };
            let (offset, payload_crc) = if data.len() >= BULKY { self.hold(data) } else { self.copy(data) };
            self.metas.push(Meta { term: entry.term(), offset, len, payload_crc });
        }
        self.push(replica, What::Append { first, from, to: self.metas.len() })
    }

    /// Sets a keyed value: hard state, conf state, applied index, anything small and often overwritten.
    ///
    /// Keys that begin with a zero byte and `sl.` are the log's own, and refused.
    pub fn put(&mut self, replica: u64, key: &[u8], value: &[u8]) -> &mut Self {
        self.check_own(replica, key);
        let key = self.span(key);
        let value = self.span(value);
        self.push(replica, What::Put { key, value })
    }

    /// Deletes a keyed value; one that is not there may be deleted too.
    pub fn delete(&mut self, replica: u64, key: &[u8]) -> &mut Self {
        self.check_own(replica, key);
        let key = self.span(key);
        self.push(replica, What::Delete { key })
    }

    /// Drops every entry below `first_kept`, at most `last_index + 1`. Costs no sync of its own. A `first_kept` that is
    /// already reached changes nothing. Over a damaged entry the term before `first_kept` is unknown ([`Replica::term`](crate::Replica::term)), until
    /// the next truncation. Entries that the state machine is not [reported](crate::Wal::durable_applied) to hold
    /// durably wait, if it reports at all.
    pub fn truncate_prefix(&mut self, replica: u64, first_kept: u64) -> &mut Self {
        self.push(replica, What::Truncate { first: first_kept })
    }

    /// Drops the entry at `from_index` and every one behind it; the next index is then `from_index`. The suffix is not read, so one that
    /// is damaged goes too, and with it that damage. Never refused on a full log. A suffix that is overwritten needs none of this: see
    /// [`Batch::append`].
    ///
    /// Beyond the last index there is nothing to drop, and nothing changes; of a replica that does not exist, too. Below the first index the
    /// batch is refused ([`Error::Compacted`]; [`Error::Contradiction`] for index 0): what the prefix's truncation took cannot be cut.
    pub fn truncate_suffix(&mut self, replica: u64, from_index: u64) -> &mut Self {
        if from_index == 0 {
            self.refuse(replica, "index 0 is before the first entry");
            return self;
        }
        self.push(replica, What::Cut { from: from_index })
    }

    /// A snapshot at `index` and `term` was installed: every entry goes, the next index is `index + 1`, and
    /// `term(index)` answers `term`. Keyed state stays. Creates the replica, and heals a damaged one (state that the
    /// same batch puts is believed again).
    pub fn install_snapshot(&mut self, replica: u64, index: u64, term: u64) -> &mut Self {
        self.push(replica, What::Reset { index, term })
    }

    /// Forgets the replica: entries, keyed state and all. If it is written again later, nothing of this life shows.
    pub fn remove(&mut self, replica: u64) -> &mut Self {
        self.push(replica, What::Remove)
    }

    /// Marks the batch lazy: it causes no sync, but rides with the next one. For updates that may be lost, such as the commit index. For
    /// [`Wal::submit`](crate::Wal::submit), and its `Pending` dropped: who waits for it, by [`Wal::commit`](crate::Wal::commit) too, asks for
    /// a sync all the same.
    pub fn lazy(&mut self) -> &mut Self {
        self.lazy = true;
        self
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.metas.clear();
        self.arena.clear();
        self.bulk.clear();
        self.bulk_bytes = 0;
        self.lazy = false;
        self.bad = None;
    }

    /// Whether the batch asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.bad.is_none()
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.bad.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn bytes_of(&self, span: Span) -> &[u8] {
        self.arena.get(span.offset..span.offset + span.len).unwrap_or(&[])
    }

    pub(crate) fn payload(&self, meta: &Meta) -> &[u8] {
        let len = meta.len as usize;
        match self.bulk(meta) {
            Some(buf) => buf.get(..len).unwrap_or(&[]),
            None => self.bytes_of(Span { offset: meta.offset, len }),
        }
    }

    /// The buffer of a bulky entry.
    pub(crate) fn bulk(&self, meta: &Meta) -> Option<&Arc<AlignedBuf>> {
        if meta.len as usize >= BULKY { self.bulk.get(meta.offset) } else { None }
    }

    /// Payloads, keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.arena.len() as u64 + self.bulk_bytes
    }

    fn copy(&mut self, data: &[u8]) -> (usize, u32) {
        let offset = self.arena.len();
        self.arena.extend_from_slice(data);
        (offset, crc::of(data))
    }

    fn hold(&mut self, data: &[u8]) -> (usize, u32) {
        let mut buf = AlignedBuf::with_capacity(data.len().next_multiple_of(BLOCK));
        let mut crc = 0;
        for part in data.chunks(STEP) {
            crc = crc::append(crc, part);
            buf.extend_from_slice(part);
        }
        buf.pad_to_block();
        self.bulk.push(Arc::new(buf));
        self.bulk_bytes += data.len() as u64;
        (self.bulk.len() - 1, crc)
    }

    /// A key of the log's own would contradict what the log says.
    fn check_own(&mut self, replica: u64, key: &[u8]) {
        if crate::applied::is_own(key) {
            self.refuse(replica, "a key that begins with a zero byte and `sl.` is the log's own");
        }
    }

    /// Sets a key of the log's own.
    pub(crate) fn put_own(&mut self, replica: u64, key: &[u8], value: &[u8]) -> &mut Self {
        let (key, value) = (self.span(key), self.span(value));
        self.push(replica, What::Put { key, value })
    }

    pub(crate) fn report(&mut self, replica: u64, index: u64) -> &mut Self {
        self.push(replica, What::Applied { index })
    }

    fn push(&mut self, replica: u64, what: What) -> &mut Self {
        self.ops.push(Op { replica, what });
        self
    }

    fn span(&mut self, bytes: &[u8]) -> Span {
        let offset = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span { offset, len: bytes.len() }
    }

    /// The first contradiction counts; it is told when the batch is submitted.
    fn refuse(&mut self, replica: u64, why: &'static str) {
        self.bad.get_or_insert(Error::Contradiction { replica, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_skips_an_index_is_refused_when_checked() {
        let mut batch = Batch::new();
        batch.append(1, &[(1, 1, b"a"), (3, 1, b"b")]);
        assert!(matches!(batch.check(), Err(Error::Contradiction { replica: 1, .. })));
        batch.clear();
        assert!(batch.check().is_ok());
        batch.append(1, &[(0, 1, b"a")]);
        assert!(batch.check().is_err());
    }
}
