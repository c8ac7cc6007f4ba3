//! Resizing: the journal grows while chunks are plentiful, and gives slabs back when they are not.

use crate::engine::Engine;
use crate::error::Result;
use crate::events::Event;
use crate::format::superblock::{SUPERBLOCK_OFFSETS, Superblock};
use crate::journal::RESERVED_SEGMENTS;

impl Engine {
    /// Takes a slab for the journal if it may grow and most of what the chains have left is not needed.
    pub(super) fn grow_journal(&self) -> Result<()> {
        loop {
            let reserved = { self.seq.lock().accounts.reserved() };
            let mut superblock = self.superblock.lock();
            if superblock.journal_slabs.len() as u32 >= superblock.journal_cap {
                return Ok(());
            }
            if { self.seq.lock().segments.free.len() } > { self.seq.lock().low_water() } {
                return Ok(());
            }
            let slab = {
                let mut pool = self.pool.lock();
                let spare = pool.free().saturating_sub(reserved + self.value_reserve);
                let plenty = u64::from(self.geo.chunks / 8) + u64::from(pool.chunks_per_slab());
                if spare < plenty { None } else { pool.take_slab() }
            };
            let Some(slab) = slab else { return Ok(()) };
            let mut next = superblock.clone();
            next.journal_slabs.push(slab);
            let segments = next.journal_slabs.len() as u64;
            if let Err(error) = self.write_superblock(&mut superblock, next) {
                // Nobody writes any more; those who look find it where it was.
                self.pool.lock().return_slab(slab);
                return Err(error);
            }
            tracing::debug!(target: "strandlog", segments, "the journal has grown");
            self.events.later(|| Event::JournalGrown { segments });
            drop(superblock);
            self.seq.lock().segments.free.push_back(slab);
        }
    }

    /// Gives a free slab back to the chains, if the journal is above its floor and can spare one.
    pub(crate) fn shrink_journal(&self) -> Result<bool> {
        let _tell_after_the_locks = self.events.hold();
        let mut superblock = self.superblock.lock();
        if superblock.journal_slabs.len() as u32 <= superblock.journal_floor {
            return Ok(false);
        }
        let slab = {
            let mut s = self.seq.lock();
            if s.segments.free.len() <= RESERVED_SEGMENTS + 1 { None } else { s.segments.free.pop_back() }
        };
        let Some(slab) = slab else { return Ok(false) };
        let mut next = superblock.clone();
        next.journal_slabs.retain(|&s| s != slab);
        let segments = next.journal_slabs.len() as u64;
        self.write_superblock(&mut superblock, next)?;
        tracing::debug!(target: "strandlog", segments, "the journal has shrunk");
        self.events.later(|| Event::JournalShrunk { segments });
        self.pool.lock().return_slab(slab);
        Ok(true)
    }

    /// At close: what is missing below here is from now on known to be lost, whatever becomes of the frames that say so.
    pub(crate) fn mark_durable(&self, durable: u64) -> Result<()> {
        let _tell_after_the_locks = self.events.hold();
        let mut superblock = self.superblock.lock();
        if superblock.durable >= durable {
            return Ok(());
        }
        let next = Superblock { durable, ..superblock.clone() };
        self.write_superblock(&mut superblock, next)
    }

    /// As [`Engine::mark_durable`], of a log that was stopped with nothing left to write: its index goes along.
    pub(crate) fn mark_closed(&self, durable: u64) -> Result<()> {
        let mut superblock = self.superblock.lock();
        let snapshot = self.write_snapshot(&superblock, superblock.epoch + 1)?;
        if superblock.durable >= durable && snapshot.is_none() {
            return Ok(());
        }
        let next = Superblock { durable: superblock.durable.max(durable), snapshot, ..superblock.clone() };
        self.write_copies(&mut superblock, next)
    }

    /// A, durable; then B, durable: one of them is whole at every moment.
    ///
    /// **Never after a failure**: B may be what failed, and A the only one left. Whoever waited for the lock looks again.
    fn write_superblock(&self, current: &mut Superblock, next: Superblock) -> Result<()> {
        if let Some(why) = &self.seq.lock().stopped {
            return Err(why.clone());
        }
        self.write_copies(current, next)
    }

    fn write_copies(&self, current: &mut Superblock, mut next: Superblock) -> Result<()> {
        next.epoch += 1;
        let bytes = crate::disk::AlignedBuf::from(next.encode().as_slice());
        for offset in SUPERBLOCK_OFFSETS {
            self.disk
                .write_durable_at(offset, bytes.as_slice())
                .map_err(|e| self.failed("writing the superblock", &e))?;
        }
        *current = next;
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{Choice, EIO, Fault, SimDisk};
    use crate::sync::Arc;

    /// The cleaner's B failed; who waited for the lock meanwhile wrote A: a cut then left neither.
    #[test]
    fn after_a_superblock_that_failed_the_other_is_left_alone() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let open =
            |disk| crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false).open_disk(disk);
        let wal = open(disk.clone()).expect("formatted");
        wal.commit(crate::Batch::new().put(1, b"k", b"v")).expect("committed");
        disk.on_event(|e| (e.offset == SUPERBLOCK_OFFSETS[1] && e.len > 0).then_some(Fault::Error(EIO)));
        wal.engine.mark_durable(wal.durable_lsn().get()).expect_err("B fails");
        let events = disk.events();
        let again = wal.engine.mark_durable(wal.durable_lsn().get());
        assert!(matches!(again, Err(crate::Error::Poisoned { .. })), "{again:?}");
        assert_eq!(disk.events(), events, "nothing is written after the failure");
        let wal = open(Arc::new(disk.crash(&mut |sector, _| Choice::Garbage(sector)))).expect("A is whole");
        assert_eq!(wal.replica(1).get(b"k").expect("readable"), Some(b"v"[..].into()));
    }
}
