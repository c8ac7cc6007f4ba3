//! One group's part of the log, in openraft's indexes. Both versions of openraft stand on it.
//!
//! openraft counts from 0, the log from 1: an entry lies one *slot* higher than its index says.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_channel::oneshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strandlog::{Batch, Damage, Entry, Lost, Lsn, Replica, Wal};

#[cfg(feature = "v010")]
use crate::appended::Appended;
use crate::codec;
use crate::encoded::Encoded;
use crate::{COMMITTED, Error, PURGED, Result, VOTE, slot};

#[derive(Debug)]
pub(crate) struct Group {
    wal: Arc<Wal>,
    replica: Replica,
    /// How often the log's end was cut off: what was read meanwhile may be of two logs.
    cuts: AtomicU64,
    /// All that openraft keeps beside the entries has its place: see [`Group::keep_room`].
    has_room: AtomicBool,
    /// Whether a vote was saved since the group was opened.
    has_voted: AtomicBool,
    /// The first index that a purge which waits leaves; 0: none waits. Nothing before it is shown.
    shown_from: AtomicU64,
    /// That purge. Only the group's [`LogStore`](crate::LogStore) writes it.
    waiting: Mutex<Option<Waiting>>,
    /// What is not durable yet, and whether it is committed.
    #[cfg(feature = "v010")]
    appended: Appended,
}

/// How far a purge goes now.
pub(crate) enum Purge {
    /// To where openraft says.
    AsAsked,
    /// The same, but nobody reported that the state machine holds it: by openraft's word alone.
    Unreported,
    /// To this entry, the last that the state machine was reported to hold durably.
    To(Bytes),
    /// Nowhere.
    Nothing,
}

/// A purge that is to be carried out before the next append.
#[derive(Clone, Debug)]
struct Waiting {
    index: u64,
    term: u64,
    /// The purge point as the log will hold it.
    point: Vec<u8>,
}

/// A batch whose callback will say that it is durable.
struct Submitted {
    lsn: Lsn,
    outcome: oneshot::Receiver<strandlog::Result<Lsn>>,
}

impl Group {
    pub fn open(wal: Arc<Wal>, id: u64) -> Result<Self> {
        let replica = wal.replica(id);
        // Of the entry before the first only the term can be damaged. Nobody asks the log for it: the purge point says it.
        let first = replica.first_index();
        let counts = |damage: &Damage| !matches!(damage.lost, Lost::Entries { last, .. } if last < first);
        if let Some(damage) = replica.damage().into_iter().find(counts) {
            return Err(Error::Damaged { group: id, what: damage.to_string() });
        }
        Ok(Self {
            wal,
            replica,
            cuts: AtomicU64::new(0),
            has_room: AtomicBool::new(false),
            has_voted: AtomicBool::new(false),
            shown_from: AtomicU64::new(0),
            waiting: Mutex::new(None),
            #[cfg(feature = "v010")]
            appended: Appended::default(),
        })
    }

    pub fn id(&self) -> u64 {
        self.replica.id()
    }

    /// The indexes of the entries it holds, as openraft is to know it: without what a purge that waits takes.
    pub fn held(&self) -> Range<u64> {
        // First, as a purge is over only when the log has it.
        let from = self.shown_from.load(Ordering::Acquire);
        let stored = self.stored();
        stored.start.max(from)..stored.end.max(from)
    }

    /// The indexes of the entries that the log has.
    fn stored(&self) -> Range<u64> {
        let (first, last) = self.replica.bounds();
        first.saturating_sub(1)..last
    }

    /// The entry at the end.
    pub fn last(&self) -> Result<Option<Bytes>> {
        let held = self.held();
        if held.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.replica.entry(held.end)?.data))
    }

    /// How often the log's end was cut off so far: what a cut made room for is there only when it was counted.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// All entries of `wanted` that the log holds, as of one moment.
    pub fn read(&self, wanted: &Range<u64>) -> Result<Vec<Entry>> {
        loop {
            let cuts = self.cuts();
            match self.read_once(wanted) {
                Ok(entries) if self.cuts() == cuts => return Ok(entries),
                // Cut off or purged while it was read. Whoever did that got on, so this ends.
                Ok(_) => {}
                Err(Error::Log(strandlog::Error::Compacted { .. } | strandlog::Error::OutOfRange { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_once(&self, wanted: &Range<u64>) -> Result<Vec<Entry>> {
        let range = overlap(&self.held(), wanted);
        let mut entries = Vec::new();
        let mut slots = slots(&range);
        while !slots.is_empty() {
            let some = self.replica.entries(slots.clone(), usize::MAX)?;
            let Some(last) = some.last() else { break };
            slots.start = last.index.saturating_add(1);
            if entries.is_empty() {
                entries = some;
            } else {
                entries.extend(some);
            }
        }
        Ok(entries)
    }

    /// The first entries of `wanted` that the log holds: at least one if it holds any, of about `bytes` together.
    pub fn read_some(&self, wanted: &Range<u64>, bytes: usize) -> Result<Vec<Entry>> {
        loop {
            let cuts = self.cuts();
            let range = overlap(&self.held(), wanted);
            match self.replica.entries(slots(&range), bytes) {
                Ok(entries) if self.cuts() == cuts => return Ok(entries),
                Ok(_) => {}
                Err(strandlog::Error::Compacted { .. } | strandlog::Error::OutOfRange { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What a leader sends, as [`read_some`](Self::read_some): all that it gets follows the entry before `wanted`, or it gets nothing. `cuts`: those that there
    /// had been when its log was known.
    ///
    /// openraft lets a leader's replication go on when another leads, and purges then what it still reads. It would send what it finds behind an entry that
    /// is no longer the one before it, and who has not heard of the other leader would believe it.
    pub fn read_to_send(&self, wanted: &Range<u64>, bytes: usize, cuts: u64) -> Result<Vec<Entry>> {
        let mut read = self.read_some(wanted, bytes)?;
        // A leader cuts nothing off its own log.
        if self.cuts() != cuts || read.first().is_some_and(|first| first.index != slot(wanted.start)) {
            read.clear();
        }
        Ok(read)
    }

    /// Appends: readable on return, `done` when durable, after all that was written before. What lies at and behind the first index is
    /// overwritten; what was purged is not stored again. While the log has no room it waits, and blocks no thread.
    pub async fn append(
        &self,
        entries: Encoded,
        done: impl FnOnce(strandlog::Result<Lsn>) + Send + 'static,
    ) -> Result<()> {
        self.purge_what_waits().await?;
        let held = self.held();
        let mut slots = entries.slots();
        let mut batch = Batch::new();
        if let Some(&(slot, ..)) = slots.first()
            && slot <= held.start
            && self.was_purged()?
        {
            slots.retain(|&(slot, ..)| slot > held.start);
        }
        if let Some(&(slot, ..)) = slots.first() {
            let first = slot - 1;
            if held.contains(&first) {
                // By itself, so that no reader takes the old end for the new one's beginning.
                if let Some(cut) = self.cut(first)? {
                    drop(self.wal.submit_async(cut).await?);
                    self.cuts.fetch_add(1, Ordering::AcqRel);
                }
            } else if first > held.end && held.is_empty() && !self.was_purged()? {
                // A log may begin anywhere, as long as nobody knows what was before it.
                batch.install_snapshot(self.id(), first, 0);
            } else if first != held.end {
                return Err(self.not_continuous(first));
            }
            batch.append(self.id(), &slots);
            self.keep_room(&mut batch, None)?;
        }
        let lsn = self.wal.submit_with_async(batch, done).await?;
        #[cfg(feature = "v010")]
        if let Some(&(first, ..)) = slots.first() {
            self.appended.push(first, lsn, self.wal.durable_lsn());
        }
        #[cfg(not(feature = "v010"))]
        let _ = lsn;
        Ok(())
    }

    /// Everything up to `index` is committed. Costs no sync.
    #[cfg(feature = "v010")]
    pub async fn save_committed<L: Serialize>(&self, index: Option<u64>, log_id: Option<&L>) -> Result<()> {
        self.put_lazily(COMMITTED, "the committed log id", log_id).await?;
        self.appended.commit(index.map_or(0, slot));
        Ok(())
    }

    /// Up to where whoever reads from `next` to `end` may read now. Whoever reads no further than to what is committed, as a state machine does, reads what is
    /// durable: where nothing of it is, it waits for the write that is under way.
    #[cfg(feature = "v010")]
    pub async fn durable_from(&self, next: u64, end: u64) -> Result<u64> {
        let mut durable = self.wal.durable_lsn();
        loop {
            match self.appended.durable_from(next, end, durable) {
                Ok(end) => return Ok(end),
                Err(lsn) => {
                    self.wal.wait_durable_async(lsn).await?;
                    durable = self.wal.durable_lsn().max(lsn);
                }
            }
        }
    }

    /// Cuts off everything from index `end` on; durable on return.
    ///
    /// It waits because openraft puts nothing of its own behind it: a snapshot that it installs next is durable elsewhere, and found
    /// beside the old end after a power cut it would keep the node from starting.
    pub async fn truncate(&self, end: u64) -> Result<()> {
        let Some(batch) = self.cut(end)? else { return Ok(()) };
        let cut = self.submit(batch).await?;
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.wait(cut).await
    }

    /// The batch that cuts off everything from index `end` on, if there is anything.
    fn cut(&self, end: u64) -> Result<Option<Batch>> {
        let held = self.held();
        if end >= held.end {
            return Ok(None);
        }
        if end < held.start {
            return Err(self.not_continuous(end));
        }
        let mut batch = Batch::new();
        batch.truncate_suffix(self.id(), end.saturating_add(1));
        Ok(Some(batch))
    }

    /// What the state machine was not reported to hold durably stays, if it reports at all. Not by the log's own waiting: it would let the
    /// entries go behind the next report, and the purge point, which openraft goes by, would not be where the log begins.
    pub fn may_purge(&self, index: u64) -> Result<Purge> {
        let (first, last) = self.replica.bounds();
        let Some(applied) = self.replica.durable_applied()? else { return Ok(Purge::Unreported) };
        if slot(index) <= applied {
            return Ok(Purge::AsAsked);
        }
        // Beyond the end it is a snapshot's.
        if slot(index) > last {
            return Ok(Purge::Unreported);
        }
        if applied < first {
            return Ok(Purge::Nothing);
        }
        match self.replica.entry(applied) {
            Ok(entry) => Ok(Purge::To(entry.data)),
            // Whose entry it is stands in it alone. A later report is of another.
            Err(strandlog::Error::Damaged(_)) => Ok(Purge::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// The state machine holds everything up to `index` durably.
    pub fn report(&self, index: u64) -> Result<()> {
        Ok(self.wal.durable_applied(self.id(), slot(index))?)
    }

    /// The same, or that it holds nothing yet, also of a group that is new. Nobody else writes meanwhile.
    pub fn report_first(&self, index: Option<u64>) -> Result<()> {
        if let Some(applied) = index.filter(|_| !self.replica.exists()) {
            return Err(Error::Lost { group: self.id(), applied });
        }
        let mut batch = Batch::new();
        self.keep_room(&mut batch, None)?;
        batch.durable_applied(self.id(), index.map_or(0, slot)).lazy();
        drop(self.wal.submit(batch)?);
        Ok(())
    }

    /// Forgets the entries up to `index`, and remembers `log_id` as the point. Costs no sync: it rides with the next one.
    pub async fn purge<L: Serialize>(&self, index: u64, term: u64, log_id: &L) -> Result<()> {
        self.purge_to(index, term, &self.encode("purge point", log_id)?).await
    }

    async fn purge_to(&self, index: u64, term: u64, point: &[u8]) -> Result<()> {
        let stored = self.stored();
        let next = self.behind(index)?;
        if next >= stored.start {
            let mut batch = Batch::new();
            if next <= stored.end {
                batch.truncate_prefix(self.id(), next + 1);
            } else {
                batch.install_snapshot(self.id(), next, term);
            }
            self.keep_room(&mut batch, Some(PURGED))?;
            batch.put(self.id(), PURGED, point).lazy();
            drop(self.wal.submit_async(batch).await?);
        }
        let mut waiting = self.waiting();
        if waiting.as_ref().is_some_and(|waiting| waiting.index <= index) {
            *waiting = None;
            self.shown_from.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// As [`purge`](Self::purge), when the next entries come. Until then openraft is shown what it will find; the log keeps what it has, for
    /// a crash before the state machine has it.
    #[cfg(feature = "v09")]
    pub fn purge_later<L: Serialize>(&self, index: u64, term: u64, log_id: &L) -> Result<()> {
        let next = self.behind(index)?;
        if next < self.held().start {
            return Ok(());
        }
        let point = self.encode("purge point", log_id)?;
        *self.waiting() = Some(Waiting { index, term, point });
        self.shown_from.store(next, Ordering::Release);
        Ok(())
    }

    /// By itself, not in the append's batch: a full log would refuse it together with that.
    async fn purge_what_waits(&self) -> Result<()> {
        // It waits on until the log has it.
        let waiting = self.waiting().clone();
        let Some(Waiting { index, term, point }) = waiting else { return Ok(()) };
        self.purge_to(index, term, &point).await
    }

    /// The log id up to which the log was purged, or will be by a purge that waits.
    pub fn purge_point<L: DeserializeOwned>(&self) -> Result<Option<L>> {
        match &*self.waiting() {
            Some(waiting) => self.decode_state(&waiting.point),
            None => self.get(PURGED),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index behind one that is purged, of which there is a slot.
    fn behind(&self, index: u64) -> Result<u64> {
        index.checked_add(1).filter(|next| next.checked_add(1).is_some()).ok_or_else(|| self.not_continuous(index))
    }

    /// Whether the log begins where it was purged.
    fn was_purged(&self) -> Result<bool> {
        Ok(self.replica.get(PURGED)?.is_some_and(|bytes| !codec::is_nothing(&bytes)))
    }

    /// Whether the vote is of this opening, and not what the one before left. To be asked before the vote is read.
    #[cfg(feature = "v010")]
    pub fn has_voted(&self) -> bool {
        self.has_voted.load(Ordering::Acquire)
    }

    /// Saves a vote; durable on return.
    pub async fn vote<T: Serialize>(&self, vote: &T) -> Result<()> {
        self.put(VOTE, "a vote", vote).await?;
        self.has_voted.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks for the room of a vote, a committed log id and a purge point when the group's first batch does, as it may be refused then:
    /// later a full log would refuse the very purge that makes room in it. `key`: what the batch brings of them itself, if it is no append.
    fn keep_room(&self, batch: &mut Batch, key: Option<&[u8]>) -> Result<()> {
        if self.has_room.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut missing = Vec::new();
        for one in [VOTE, COMMITTED, PURGED] {
            if self.replica.get(one)?.is_none() {
                missing.push(one);
            }
        }
        if missing.is_empty() {
            self.has_room.store(true, Ordering::Relaxed);
        }
        // One that has its place already brings nothing that could be refused.
        if key.is_none_or(|key| missing.contains(&key)) {
            for one in missing.into_iter().filter(|&one| Some(one) != key) {
                batch.put(self.id(), one, &codec::nothing());
            }
        }
        Ok(())
    }

    /// Sets a value; durable on return.
    async fn put<T: Serialize>(&self, key: &'static [u8], what: &'static str, value: &T) -> Result<()> {
        let mut batch = Batch::new();
        self.keep_room(&mut batch, Some(key))?;
        batch.put(self.id(), key, &self.encode(what, value)?);
        let put = self.submit(batch).await?;
        self.wait(put).await
    }

    async fn submit(&self, batch: Batch) -> Result<Submitted> {
        let (told, outcome) = oneshot::channel();
        let lsn = self.wal.submit_with_async(batch, |outcome| drop(told.send(outcome))).await?;
        Ok(Submitted { lsn, outcome })
    }

    /// Waits for the callback. Callbacks come in order: whoever appended before has been told by then. Who waits for the batch itself
    /// may be woken ahead of them.
    async fn wait(&self, Submitted { lsn, outcome }: Submitted) -> Result<()> {
        // A log without threads is written by who waits. How that ends the callback says, too.
        drop(self.wal.wait_durable_async(lsn).await);
        outcome.await.unwrap_or(Err(strandlog::Error::Closed))?;
        Ok(())
    }

    /// Sets a value, or that there is none, with the next sync that somebody asks for.
    pub async fn put_lazily<T: Serialize>(
        &self,
        key: &'static [u8],
        what: &'static str,
        value: Option<&T>,
    ) -> Result<()> {
        let mut batch = Batch::new();
        self.keep_room(&mut batch, Some(key))?;
        match value {
            Some(value) => batch.put(self.id(), key, &self.encode(what, value)?),
            None => batch.put(self.id(), key, &codec::nothing()),
        };
        batch.lazy();
        drop(self.wal.submit_async(batch).await?);
        Ok(())
    }

    pub fn get<T: DeserializeOwned>(&self, key: &'static [u8]) -> Result<Option<T>> {
        let Some(bytes) = self.replica.get(key)? else { return Ok(None) };
        self.decode_state(&bytes)
    }

    fn decode_state<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<Option<T>> {
        codec::decode_state(bytes).map_err(|source| Error::Decode { group: self.id(), what: "state", source })
    }

    pub fn encode<T: Serialize>(&self, what: &'static str, value: &T) -> Result<Vec<u8>> {
        codec::encode_state(value).map_err(|source| Error::Encode { group: self.id(), what, source })
    }

    pub fn decode<T: DeserializeOwned>(&self, what: &'static str, bytes: &[u8]) -> Result<T> {
        codec::decode(bytes).map_err(|source| Error::Decode { group: self.id(), what, source })
    }

    pub fn decode_all<T: DeserializeOwned>(&self, entries: &[Entry]) -> Result<Vec<T>> {
        entries.iter().map(|entry| self.decode("an entry", &entry.data)).collect()
    }

    fn not_continuous(&self, index: u64) -> Error {
        let Range { start, end } = self.held();
        Error::NotContinuous { group: self.id(), index, first: start, next: end }
    }
}

/// The part of `wanted` that is held.
fn overlap(held: &Range<u64>, wanted: &Range<u64>) -> Range<u64> {
    let start = held.start.max(wanted.start);
    start..held.end.min(wanted.end).max(start)
}

fn slots(range: &Range<u64>) -> Range<u64> {
    range.start.saturating_add(1)..range.end.saturating_add(1)
}

/// A range as openraft gives it, with its bounds written out.
pub(crate) fn plain(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out() {
        assert_eq!(plain(&(3..7)), 3..7);
        assert_eq!(plain(&(3..=7)), 3..8);
        assert_eq!(plain(&(..7)), 0..7);
        assert_eq!(plain(&..), 0..u64::MAX);
        assert_eq!(plain(&(Bound::Excluded(u64::MAX), Bound::Included(u64::MAX))), u64::MAX..u64::MAX);
    }

    #[test]
    fn only_what_is_held_is_read() {
        assert_eq!(overlap(&(3..7), &(0..100)), 3..7);
        assert_eq!(overlap(&(3..7), &(4..6)), 4..6);
        assert!(overlap(&(3..7), &(7..9)).is_empty());
        assert!(overlap(&(3..7), &(0..3)).is_empty());
        assert_eq!(slots(&(3..7)), 4..8);
    }
}
