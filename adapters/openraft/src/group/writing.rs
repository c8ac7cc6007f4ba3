//! Appends entries, and cuts them off.

use strandlog::{Batch, Lsn};

use super::Group;
use crate::Result;
use crate::encoded::Encoded;

impl Group {
    /// Appends: readable on return; `done` is called when it is durable, after all that was written before. Entries from the first index on are
    /// overwritten; what was purged is not stored again. While the log has no room it waits, without blocking a thread.
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
            if first > held.end && held.is_empty() && !self.was_purged()? {
                // A log that was never purged may begin anywhere, as long as it is empty.
                batch.install_snapshot(self.id(), first, 0);
            } else if first < held.start || first > held.end {
                return Err(self.not_continuous(first));
            }
            batch.append(self.id(), &slots);
            self.keep_room(&mut batch, None)?;
        }
        let lsn = self.wal.submit_with_async(batch, done).await?;
        self.lives();
        #[cfg(feature = "v010")]
        if let Some(&(first, ..)) = slots.first() {
            self.appended.push(first, lsn, self.wal.durable_lsn());
        }
        #[cfg(not(feature = "v010"))]
        let _ = lsn;
        Ok(())
    }

    /// Cuts off everything from index `end` on; durable on return.
    ///
    /// It waits because openraft may write nothing to this log after it: a snapshot that it installs next is durable elsewhere, and if that is
    /// found beside the old end after a power cut, the node does not start.
    pub async fn truncate(&self, end: u64) -> Result<()> {
        let held = self.held();
        if end >= held.end {
            return Ok(());
        }
        if end < held.start {
            return Err(self.not_continuous(end));
        }
        let mut batch = Batch::new();
        batch.truncate_suffix(self.id(), end.saturating_add(1));
        let cut = self.submit(batch).await?;
        self.wait(cut).await
    }

    /// Up to which index a reader of `next..end` may read now. A reader that asks for committed entries only, as a state machine does, gets only
    /// durable ones; if none of them is durable, it waits for the write under way.
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
}
