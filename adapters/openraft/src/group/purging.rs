//! What the state machine holds durably, and how far the front of the log may therefore be purged.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strandlog::Batch;

use super::Group;
use crate::{Error, PURGED, Result, codec, slot};

/// How far a purge may go now.
pub(crate) enum Purge {
    /// As far as openraft asks.
    AsAsked,
    /// The same, but only by openraft's word: it was not reported that the state machine holds it.
    Unreported,
    /// Up to this entry, the last that the state machine was reported to hold durably.
    To(Bytes),
    /// Not at all.
    Nothing,
}

/// A purge that will be carried out before the next append.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    index: u64,
    term: u64,
    /// The purge point as the log will hold it.
    point: Vec<u8>,
}

impl Group {
    /// Reports that the state machine durably holds everything up to `index`. Ignored if the group was removed since, even if it was begun anew.
    pub fn report(&self, index: u64) -> Result<()> {
        let Some(life) = *self.life() else { return Ok(()) };
        Ok(self.wal.durable_applied_in(self.id(), life, slot(index))?)
    }

    /// The same, or that it holds nothing yet, which creates a new group. Nobody else writes to the group meanwhile.
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

    /// If the state machine reports at all, what it was not reported to hold durably stays. The log's own deferral of truncations will not do: it
    /// would drop the entries with the next report, and the purge point, which openraft relies on, would not be where the log begins.
    pub fn may_purge(&self, index: u64) -> Result<Purge> {
        let (first, last) = self.replica.bounds();
        let Some(applied) = self.replica.durable_applied()? else { return Ok(Purge::Unreported) };
        if slot(index) <= applied {
            return Ok(Purge::AsAsked);
        }
        // A purge beyond the end of the log is for a snapshot.
        if slot(index) > last {
            return Ok(Purge::Unreported);
        }
        if applied < first {
            return Ok(Purge::Nothing);
        }
        match self.replica.entry(applied) {
            Ok(entry) => Ok(Purge::To(entry.data)),
            // The log id that the purge point needs is only in the entry itself. A later report will name another entry.
            Err(strandlog::Error::Damaged(_)) => Ok(Purge::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the entries up to `index`, and stores `log_id` as the purge point. Costs no sync: it rides with the next one.
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

    /// As [`purge`](Self::purge), but carried out when the next entries come. Until then openraft already sees the log as purged; the log itself
    /// keeps the entries, in case of a crash before the state machine has them.
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

    /// Carries out the waiting purge in a batch of its own, not in the append's: a full log would refuse both together.
    pub(super) async fn purge_what_waits(&self) -> Result<()> {
        // `purge_to` clears it, once the log has it.
        let waiting = self.waiting().clone();
        let Some(Waiting { index, term, point }) = waiting else { return Ok(()) };
        self.purge_to(index, term, &point).await
    }

    /// The log id up to which the log was purged, or will be by the waiting purge.
    pub fn purge_point<L: DeserializeOwned>(&self) -> Result<Option<L>> {
        match &*self.waiting() {
            Some(waiting) => self.decode_state(&waiting.point),
            None => self.get(PURGED),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index after a purged one; an error if it has no slot.
    fn behind(&self, index: u64) -> Result<u64> {
        index.checked_add(1).filter(|next| next.checked_add(1).is_some()).ok_or_else(|| self.not_continuous(index))
    }

    /// Whether the log was ever purged, and so begins at its purge point.
    pub(super) fn was_purged(&self) -> Result<bool> {
        Ok(self.replica.get(PURGED)?.is_some_and(|bytes| !codec::is_nothing(&bytes)))
    }
}
