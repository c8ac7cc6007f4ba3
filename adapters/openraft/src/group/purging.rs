//! What the state machine holds durably, and what goes from the front of the log for it.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strandlog::Batch;

use super::Group;
use crate::{Error, PURGED, Result, codec, slot};

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
pub(super) struct Waiting {
    index: u64,
    term: u64,
    /// The purge point as the log will hold it.
    point: Vec<u8>,
}

impl Group {
    /// The state machine holds everything up to `index` durably. Of a group that was removed it is ignored, whoever has begun it anew.
    pub fn report(&self, index: u64) -> Result<()> {
        let Some(life) = *self.life() else { return Ok(()) };
        Ok(self.wal.durable_applied_in(self.id(), life, slot(index))?)
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
        self.lives();
        Ok(())
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
            self.lives();
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
    pub(super) async fn purge_what_waits(&self) -> Result<()> {
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
    pub(super) fn was_purged(&self) -> Result<bool> {
        Ok(self.replica.get(PURGED)?.is_some_and(|bytes| !codec::is_nothing(&bytes)))
    }
}
