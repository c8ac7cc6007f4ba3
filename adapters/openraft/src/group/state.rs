//! What openraft keeps beside the entries: a vote, the committed log id, the purge point.

use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;
use strandlog::Batch;

use super::Group;
#[cfg(feature = "v010")]
use crate::slot;
use crate::{COMMITTED, Error, PURGED, Result, VOTE, codec};

impl Group {
    /// Whether a vote was saved since this opening; otherwise the vote is what an earlier one left. Ask before reading the vote.
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

    /// Saves that everything up to `index` is committed. Costs no sync.
    #[cfg(feature = "v010")]
    pub async fn save_committed<L: Serialize>(&self, index: Option<u64>, log_id: Option<&L>) -> Result<()> {
        self.put_lazily(COMMITTED, "the committed log id", log_id).await?;
        self.appended.commit(index.map_or(0, slot));
        Ok(())
    }

    /// Reserves room for a vote, a committed log id and a purge point with the group's first batch, which may still be refused: later a full log
    /// would refuse the very purge that makes room in it. `key`: which of them the batch itself writes, if it is no append.
    pub(super) fn keep_room(&self, batch: &mut Batch, key: Option<&[u8]>) -> Result<()> {
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
        // A batch that rewrites an existing value never needs room: nothing is added to it that could be refused.
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

    /// Sets or clears a value; durable with the next sync of any caller.
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
        self.lives();
        Ok(())
    }

    pub fn get<T: DeserializeOwned>(&self, key: &'static [u8]) -> Result<Option<T>> {
        let Some(bytes) = self.replica.get(key)? else { return Ok(None) };
        self.decode_state(&bytes)
    }

    pub(super) fn decode_state<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<Option<T>> {
        codec::decode_state(bytes).map_err(|source| Error::Decode { group: self.id(), what: "state", source })
    }
}
