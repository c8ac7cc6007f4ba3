//! Batches: what a caller wants done, atomically, to any number of replicas.

use bytes::Bytes;

use crate::charge::{Longest, Takes};
use crate::disk::{AlignedBuf, BLOCK};
use crate::error::{Error, Result};
use crate::format::crc;
use crate::index::Life;
use crate::operation::{Meta, Op, Span, What};
use crate::sync::Arc;

mod named;

use named::{Asked, Named};

/// An entry as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index: 1 or more.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its payload. A slice of a chain pins its chunk for as long as it lives. If the log is closed meanwhile, the slice keeps the file locked
    /// ([`Error::Locked`]), because another opener could overwrite what it shows. Copy payloads that you keep for long.
    pub data: Bytes,
}

/// Anything that can be appended: an [`Entry`], a tuple of index, term and bytes, or your raft library's entry type.
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

/// Entries of at least this size are copied only once, into a buffer of their own that is written to the disk as it is.
const BULKY: usize = 32 << 10;
/// A batch keeps up to this much of what removals and withdrawals ended. To be rid of more it copies what still counts, never more than it
/// was given.
const KEPT_BYTES: u64 = 64 << 10;
/// This much is checksummed and then copied while the processor still has it in its cache.
const STEP: usize = 16 << 10;
/// In a batch of up to this many operations, looking through all of them costs less than remembering which replicas they name.
const SHORT: usize = 32;

/// A list of changes that become durable together or not at all.
///
/// Payloads are copied and checksummed as they are added, outside all locks. A batch passed to
/// [`commit`](crate::Wal::commit) as `&mut` is cleared on success and keeps its buffers, so that steady use allocates nothing.
///
/// The short entries of a batch and its keyed state must together fit one segment of the journal. So a poller with thousands of groups should submit its
/// batch when [`log_bytes`](Batch::log_bytes) reaches a quarter of [`Wal::max_batch_bytes`](crate::Wal::max_batch_bytes), and go on with
/// the next one. Larger batches are no faster, and beyond [`Wal::max_batch_bytes`](crate::Wal::max_batch_bytes) they may be refused
/// ([`Error::BatchTooLarge`]).
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) metas: Vec<Meta>,
    pub(crate) arena: Vec<u8>,
    /// The payloads of bulky entries, each padded to whole blocks.
    bulk: Vec<Arc<AlignedBuf>>,
    bulk_bytes: u64,
    /// What its operations take in a frame.
    pub(crate) takes: Takes,
    pub(crate) longest: Longest,
    pub(crate) lazy: bool,
    /// What contradicts itself: the replica, and why. The batch is refused for the first of these.
    bad: Vec<(u64, &'static str)>,
    /// Bytes of operations that a removal or withdrawal ended: they are still in the arena and the buffers.
    ended_bytes: u64,
    /// And their entries, which are still in `metas`.
    ended_metas: usize,
    /// Which replicas its operations name. Filled in only by a long batch that removes or withdraws one: it may have ended operations among
    /// the others until it is [settled](Self::settle).
    named: Option<Box<Named>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends entries with consecutive indexes. If the first of them is at or below the replica's last index, everything from there on is overwritten.
    pub fn append<E: AsEntry>(&mut self, replica: u64, entries: &[E]) -> &mut Self {
        let Some(head) = entries.first() else { return self };
        let first = head.index();
        let (from, arena, bulk) = (self.metas.len(), self.arena.len(), (self.bulk.len(), self.bulk_bytes));
        let taken = entries.iter().enumerate().try_for_each(|(i, entry)| self.take(first, i, entry));
        if let Err(why) = taken {
            // Nothing of the run stays: it would count against the rest of the batch.
            self.metas.truncate(from);
            self.arena.truncate(arena);
            self.bulk.truncate(bulk.0);
            self.bulk_bytes = bulk.1;
            self.refuse(replica, why);
            return self;
        }
        self.push(replica, What::Append { first, from, to: self.metas.len() })
    }

    /// Takes entry `i` of a run that begins at index `first`.
    fn take(&mut self, first: u64, i: usize, entry: &impl AsEntry) -> Result<(), &'static str> {
        if first == 0 {
            return Err("index 0 is before the first entry");
        }
        if first.checked_add(i as u64) != Some(entry.index()) {
            return Err("its entries are not consecutive");
        }
        let data = entry.data();
        let len = u32::try_from(data.len()).map_err(|_| "an entry of 4 GiB or more")?;
        let (offset, payload_crc) = if data.len() >= BULKY { self.hold(data) } else { self.copy(data) };
        self.metas.push(Meta { term: entry.term(), offset, len, payload_crc });
        Ok(())
    }

    /// Sets a keyed value: hard state, conf state, applied index, anything small and often overwritten. A value of more than
    /// [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), or more than half a segment of the log, is refused when the batch is submitted
    /// ([`Error::ValueTooLarge`]).
    ///
    /// Keys that begin with a zero byte and `sl.` are reserved for the log, and refused.
    pub fn put(&mut self, replica: u64, key: &[u8], value: &[u8]) -> &mut Self {
        self.check_own(replica, key);
        let key = self.span(key);
        let value = self.span(value);
        self.push(replica, What::Put { key, value })
    }

    /// Deletes a keyed value. Deleting one that does not exist is allowed.
    pub fn delete(&mut self, replica: u64, key: &[u8]) -> &mut Self {
        self.check_own(replica, key);
        let key = self.span(key);
        self.push(replica, What::Delete { key })
    }

    /// Drops every entry below `first_kept`. Costs no sync of its own.
    ///
    /// - `first_kept` is at most `last_index + 1`: beyond that the batch is refused ([`Error::Contradiction`]). If it is at or below the first
    ///   index, nothing changes.
    /// - If the state machine [reports](crate::Wal::durable_applied) what it holds durably, entries beyond the report are kept until a report covers them.
    /// - If the last dropped entry is damaged, the term before `first_kept` is unknown ([`Replica::term`](crate::Replica::term)) until the next truncation.
    /// - A later append or cut below `first_kept` in the same batch is refused ([`Error::Compacted`]), even where the truncation waits for a report
    ///   and the first index is still lower.
    pub fn truncate_prefix(&mut self, replica: u64, first_kept: u64) -> &mut Self {
        self.push(replica, What::Truncate { first: first_kept })
    }

    /// Drops the entry at `from_index` and all entries after it; the next index is then `from_index`. Never refused on a full log. To overwrite a
    /// suffix, append: that needs no truncation (see [`Batch::append`]).
    ///
    /// The suffix is not read, so a damaged suffix is dropped too, together with its damage. Unless raft asked for it, that forgets
    /// entries that were acknowledged: see [the guide](crate::guide#damage).
    ///
    /// If `from_index` is beyond the last index, or the replica does not exist, nothing changes. If it is below the first index, the
    /// batch is refused ([`Error::Compacted`]; [`Error::Contradiction`] for index 0): entries whose prefix was truncated cannot be cut.
    pub fn truncate_suffix(&mut self, replica: u64, from_index: u64) -> &mut Self {
        if from_index == 0 {
            self.refuse(replica, "index 0 is before the first entry");
            return self;
        }
        self.push(replica, What::Cut { from: from_index })
    }

    /// Records that a snapshot at `index` and `term` was installed. Every entry is dropped, the next index is `index + 1`, and
    /// `term(index)` returns `term` (but index 0, where no log has an entry, always has term 0). Creates the replica if it does not exist.
    ///
    /// Keyed state stays. A [report](crate::Wal::durable_applied) beyond `index` is lowered to it, and truncations that wait for a report are forgotten.
    ///
    /// Heals a damaged replica. If its keyed state was suspect, only the keys that the same batch puts, before or after this, are valid again.
    /// [The guide](crate::guide#damage) says when that is right in a raft group.
    pub fn install_snapshot(&mut self, replica: u64, index: u64, term: u64) -> &mut Self {
        self.push(replica, What::Reset { index, term })
    }

    /// Removes the replica with all entries and keyed state. If it is written again later, nothing of this life shows.
    ///
    /// It cancels what the batch asked of the replica before: that is no longer checked, so an entry that is too large does not matter any more. But what
    /// contradicts itself stays refused until it is [withdrawn](Self::withdraw). Operations after the removal begin a new life.
    pub fn remove(&mut self, replica: u64) -> &mut Self {
        self.take_back(replica);
        self.push(replica, What::Remove)
    }

    /// Ends all operations on the replica. Their bytes stay where they are, uncounted, until they are more than those that count: a batch
    /// may end thousands of operations.
    fn take_back(&mut self, replica: u64) {
        let ended = if self.ops.len() <= SHORT && self.named.as_ref().is_none_or(|named| named.is_new()) {
            let Self { ops, metas, .. } = self;
            let gone = ops.extract_if(.., |op| op.replica == replica);
            gone.fold(Asked::default(), |all, op| all.and(Asked::of(&op, metas)))
        } else {
            // They are not looked for among all operations, nor are those behind them moved: many replicas may go, in any order.
            let named = self.named.get_or_insert_default();
            named.look(&self.ops, &self.metas);
            let ended = named.end(replica, self.ops.len());
            if named.ended() > self.ops.len() / 2 {
                self.settle();
            }
            ended
        };
        self.takes = self.takes.without(ended.takes);
        self.ended_bytes += ended.bytes;
        self.ended_metas += ended.metas;
        // An entry without a payload takes room, too: that of its `Meta`.
        let with = |bytes: u64, metas: usize| bytes + (metas * size_of::<Meta>()) as u64;
        let ended = with(self.ended_bytes, self.ended_metas);
        if ended > KEPT_BYTES && ended > with(self.bytes(), self.metas.len().saturating_sub(self.ended_metas)) {
            self.settle();
            let named = self.named.take();
            *self = self.only(|_| true);
            self.named = named;
        }
    }

    /// Removes the ended operations from the list.
    fn settle(&mut self) {
        if let Some(named) = &mut self.named {
            named.settle(&mut self.ops);
        }
    }

    /// Marks the batch lazy: it causes no sync, but is written with the next commit. For updates that may be lost, such as the commit index. Use it with
    /// [`Wal::submit`](crate::Wal::submit), and drop the `Pending`: waiting for the batch, or using [`Wal::commit`](crate::Wal::commit), causes
    /// a sync all the same.
    pub fn lazy(&mut self) -> &mut Self {
        self.lazy = true;
        self
    }

    /// Takes back everything that the batch asks of the replica, including what contradicts itself; the parts of other replicas stay. For a batch of many replicas that is
    /// refused because of one: [`Error::EntryTooLarge`] and similar errors name it.
    pub fn withdraw(&mut self, replica: u64) -> &mut Self {
        self.bad.retain(|&(of, _)| of != replica);
        self.take_back(replica);
        self
    }

    /// Moves everything that is asked of the replicas for which `moves` returns true, including what contradicts itself, into a batch of its own. For a batch that is too large
    /// ([`Error::BatchTooLarge`]) and need not be atomic over all its replicas. The operations of one replica stay together, in order.
    #[must_use = "what was taken out is in the returned batch alone"]
    pub fn split_off(&mut self, moves: impl Fn(u64) -> bool) -> Self {
        let moved = self.only(&moves);
        *self = self.only(|of| !moves(of));
        moved
    }

    /// A new batch of what is asked of these replicas: what goes must not count against the limits of what stays.
    fn only(&self, of: impl Fn(u64) -> bool) -> Self {
        let bad = self.bad.iter().copied().filter(|&(replica, _)| of(replica)).collect();
        let mut kept = Self { lazy: self.lazy, bad, ..Self::default() };
        let named = self.named.as_ref();
        let counts =
            |&(at, op): &(usize, &Op)| of(op.replica) && named.is_none_or(|named| named.counts(at, op.replica));
        for (_, op) in self.ops.iter().enumerate().filter(counts) {
            let what = match op.what {
                What::Append { first, from, to } => {
                    let begin = kept.metas.len();
                    self.metas.get(from..to).unwrap_or(&[]).iter().for_each(|meta| kept.adopt(self, meta));
                    What::Append { first, from: begin, to: kept.metas.len() }
                }
                What::Put { key, value } => {
                    let key = kept.span(self.bytes_of(key));
                    What::Put { key, value: kept.span(self.bytes_of(value)) }
                }
                What::Delete { key } => What::Delete { key: kept.span(self.bytes_of(key)) },
                other => other,
            };
            kept.push(op.replica, what);
        }
        kept
    }

    /// Takes over an entry of another batch.
    fn adopt(&mut self, other: &Self, meta: &Meta) {
        let offset = match other.bulk(meta) {
            Some(buf) => {
                self.bulk.push(Arc::clone(buf));
                self.bulk_bytes += u64::from(meta.len);
                self.bulk.len() - 1
            }
            None => self.span(other.payload(meta)).offset,
        };
        self.metas.push(Meta { offset, ..*meta });
    }

    /// The value that the batch would leave under the key, if it puts one.
    pub fn value(&self, replica: u64, key: &[u8]) -> Option<&[u8]> {
        let counting = self.named.as_ref().map_or(0, |named| named.ended_before(replica));
        // What was added last counts, and is mostly what is asked for.
        for op in self.ops.iter().skip(counting).rev().filter(|op| op.replica == replica) {
            match op.what {
                What::Put { key: of, value } if self.bytes_of(of) == key => return Some(self.bytes_of(value)),
                What::Delete { key: of } if self.bytes_of(of) == key => return None,
                What::Remove => return None,
                _ => {}
            }
        }
        None
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.metas.clear();
        self.arena.clear();
        self.bulk.clear();
        self.bulk_bytes = 0;
        self.takes = Takes::default();
        self.longest = Longest::default();
        self.lazy = false;
        self.bad.clear();
        self.ended_bytes = 0;
        self.ended_metas = 0;
        self.named.iter_mut().for_each(|named| named.clear());
    }

    /// Whether the batch contains no operation.
    pub fn is_empty(&self) -> bool {
        self.ops.len() == self.named.as_ref().map_or(0, |named| named.ended()) && self.bad.is_empty()
    }

    /// An upper bound on the bytes that the batch takes in the log: keys, values and payloads in full, plus some hundred bytes for each operation (its kind, its
    /// replica, and the record that begins a new replica). Maintained as the batch grows, so this call costs nothing.
    ///
    /// It tells those who gather the writes of many replicas when to submit. Up to
    /// [`Wal::max_batch_bytes`](crate::Wal::max_batch_bytes), which is more than half a segment ([`Stats::segment_size`](crate::Stats::segment_size)), a
    /// batch is never [`Error::BatchTooLarge`]. A larger one is refused if too little of it can be placed beside the journal, where long runs of entries
    /// and large values go. To make room for a batch, no run shorter than the carry fraction of a chunk
    /// ([`Options::carry_fraction`](crate::Options::carry_fraction)) is placed there: it would take a chunk of its own.
    pub fn log_bytes(&self) -> u64 {
        self.takes.at_most
    }

    /// Reports the first contradiction. Called before the operations are looked at: after this all of them count.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.settle();
        self.bad.first().map_or(Ok(()), |&(replica, why)| Err(Error::Contradiction { replica, why }))
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

    /// Bytes of the payloads, keys and values that count.
    pub(crate) fn bytes(&self) -> u64 {
        (self.arena.len() as u64 + self.bulk_bytes).saturating_sub(self.ended_bytes)
    }

    /// How many entries count.
    pub(crate) fn entries(&self) -> u64 {
        self.metas.len().saturating_sub(self.ended_metas) as u64
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

    /// A caller's value under a key of the log's own would contradict what the log says.
    fn check_own(&mut self, replica: u64, key: &[u8]) {
        if crate::index::is_own(key) {
            self.refuse(replica, "a key that begins with a zero byte and `sl.` is the log's own");
        }
    }

    /// Sets a key of the log's own.
    pub(crate) fn put_own(&mut self, replica: u64, key: &[u8], value: &[u8]) -> &mut Self {
        let (key, value) = (self.span(key), self.span(value));
        self.push(replica, What::Put { key, value })
    }

    pub(crate) fn report(&mut self, replica: u64, life: Option<Life>, index: u64) -> &mut Self {
        self.push(replica, What::Applied { index, life })
    }

    fn push(&mut self, replica: u64, what: What) -> &mut Self {
        let takes = Takes::of(what, &self.metas);
        self.takes = self.takes.and(takes);
        self.longest.see(what, takes);
        self.ops.push(Op { replica, what });
        self
    }

    fn span(&mut self, bytes: &[u8]) -> Span {
        let offset = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span { offset, len: bytes.len() }
    }

    /// The refusal is reported when the batch is submitted.
    fn refuse(&mut self, replica: u64, why: &'static str) {
        self.bad.push((replica, why));
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
