//! The superblock's two copies: at every moment one of them is whole.

use crate::disk::{AlignedBuf, Writer};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};

/// A copy that is not what it should be.
pub(crate) struct Amiss {
    /// A or B.
    pub name: &'static str,
    offset: u64,
    pub why: String,
    /// The epoch, if it decodes: it is older than what was written last.
    epoch: Option<u64>,
}

impl Engine {
    /// One copy, durable; then the other: see [`Engine::write_copies`].
    ///
    /// **Never after a failure**: the second write may be what failed, and the first copy the only one left. A caller that waited for the
    /// lock looks again.
    pub(super) fn write_superblock(&self, current: &mut Superblock, next: Superblock) -> Result<()> {
        if let Some(why) = &self.seq.lock().stopped {
            return Err(why.clone());
        }
        self.write_copies(current, next)
    }

    /// A, durable; then B, durable. A bad copy goes first, and one that does not decode before one that does: a power cut while the only
    /// readable one is written would leave neither.
    pub(super) fn write_copies(&self, current: &mut Superblock, mut next: Superblock) -> Result<()> {
        let mut order = Vec::from(SUPERBLOCK_OFFSETS);
        let amiss = self.copies_amiss(Some(current));
        for &Amiss { name, ref why, .. } in &amiss {
            let why = why.clone();
            self.events.say(
                move || tracing::error!(target: "strandlog", name, why, "a superblock is bad: it is written first"),
            );
        }
        order.sort_by_key(|offset| amiss.iter().position(|copy| copy.offset == *offset).unwrap_or(amiss.len()));
        next.epoch += 1;
        let bytes = AlignedBuf::from(next.encode().as_slice());
        for offset in order {
            self.write_copy(offset, &bytes)?;
        }
        *current = next;
        Ok(())
    }

    fn write_copy(&self, offset: u64, bytes: &AlignedBuf) -> Result<()> {
        let written = self.write_durable(Some(Writer::Superblocks), offset, bytes.as_slice());
        written.map_err(|e| self.failed("writing the superblock", &e))
    }

    /// Looks at both copies, and rewrites the bad ones; a whole one is left alone, so that one is whole whatever rots next. Writes nothing
    /// in a log that is read-only. Answers how many were bad.
    pub(crate) fn heal_copies(&self) -> Result<u64> {
        let _tell_after_the_locks = self.hold();
        let current = self.superblock.lock();
        if let Some(why) = &self.seq.lock().stopped {
            return Err(why.clone());
        }
        let amiss = self.copies_amiss((!self.read_only).then_some(&*current));
        for &Amiss { name, offset, ref why, .. } in &amiss {
            let why = why.clone();
            self.events.say(move || tracing::error!(target: "strandlog", name, why, "a superblock is bad"));
            if !self.read_only {
                self.write_copy(offset, &AlignedBuf::from(current.encode().as_slice()))?;
            }
        }
        Ok(amiss.len() as u64)
    }

    /// The bad copies, in the order in which they are rewritten. `current`: what was written last, if they must be equal to it.
    pub(crate) fn copies_amiss(&self, current: Option<&Superblock>) -> Vec<Amiss> {
        let named = ["A", "B"].into_iter().zip(SUPERBLOCK_OFFSETS);
        let mut amiss: Vec<Amiss> =
            named.filter_map(|(name, offset)| self.amiss(name, offset, current).err()).collect();
        // What does not decode before what is only old: that may be all there is.
        amiss.sort_by_key(|copy| copy.epoch);
        amiss
    }

    /// Read twice: a device may answer one read with older bytes.
    fn amiss(&self, name: &'static str, offset: u64, current: Option<&Superblock>) -> Result<(), Amiss> {
        let look = || self.amiss_now(offset, current).map_err(|(epoch, why)| Amiss { name, offset, why, epoch });
        look().or_else(|first| look().map_err(|second| Amiss { epoch: first.epoch.max(second.epoch), ..second }))
    }

    /// If the copy is bad: its epoch, if it decodes, and what is wrong.
    fn amiss_now(&self, offset: u64, current: Option<&Superblock>) -> Result<(), (Option<u64>, String)> {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        if let Err(error) = self.disk.read_at(offset, &mut bytes) {
            return Err((None, error.to_string()));
        }
        match (Superblock::decode(&bytes, self.disk.len()), current) {
            (Err(why), _) => Err((None, format!("{why:?}"))),
            (Ok(copy), Some(current)) if copy != *current => {
                Err((Some(copy.epoch), "its last write was lost".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::ops::ControlFlow;

    use crate::disk::Disk;
    use crate::disk::sim::{Choice, EIO, EventInfo, Fault, SimDisk};
    use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS};
    use crate::options::Options;
    use crate::sync::Arc;
    use crate::{Batch, Wal};

    fn options() -> Options {
        Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(1 << 20).background(false)
    }

    fn log() -> (Arc<SimDisk>, Wal) {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        wal.commit(Batch::new().put(1, b"vote", b"me")).expect("room");
        (disk, wal)
    }

    /// A copy, as the disk has it.
    fn copy(disk: &SimDisk, at: u64) -> Vec<u8> {
        disk.kept_image()[at as usize..][..SUPERBLOCK_BYTES].to_vec()
    }

    /// Whichever copy was hurt while the log was in use, and whichever is being written when the power goes.
    #[test]
    fn the_only_whole_copy_is_written_last() {
        for hurt in SUPERBLOCK_OFFSETS {
            for rots in [true, false] {
                for closes in [false, true] {
                    for cut in SUPERBLOCK_OFFSETS {
                        let case = format!("hurt at {hurt}, rots: {rots}, closes: {closes}, cut at {cut}");
                        let (disk, wal) = log();
                        let grows = || wal.engine.grow_for_carried(wal.stats().carried_class_limit);
                        let older = copy(&disk, 0);
                        grows().expect("written");
                        if rots {
                            disk.flip_bit(hurt + 100, 3);
                        } else {
                            // As if its last write had been lost.
                            disk.poke(hurt, &older);
                        }
                        let slabs = wal.stats().journal_segments;
                        disk.on_event(move |event: &EventInfo| {
                            (event.offset == cut && event.len == SUPERBLOCK_BYTES as u64).then_some(Fault::Cut)
                        });
                        assert!(if closes { wal.close().is_err() } else { grows().is_err() }, "{case}");
                        drop(wal);
                        let torn = disk.crash(&mut |_, _| Choice::Torn { version: 0, at_byte: 256 });
                        let wal = options().open_disk(Arc::new(torn)).unwrap_or_else(|why| panic!("{case}: {why}"));
                        assert!(wal.stats().journal_segments >= slabs, "{case}");
                        assert_eq!(wal.replica(1).get(b"vote").expect("kept"), Some(b"me"[..].into()), "{case}");
                    }
                }
            }
        }
    }

    /// A copy that decodes is all there is, even if it is not what was written last.
    #[test]
    fn a_copy_that_missed_its_last_write_is_left_while_the_other_is_rotten() {
        for stale in SUPERBLOCK_OFFSETS {
            for how in ["grows", "closes", "scrubs"] {
                let case = format!("stale at {stale}, {how}");
                let (disk, wal) = log();
                let grows = || wal.engine.grow_for_carried(wal.stats().carried_class_limit);
                let older = copy(&disk, stale);
                grows().expect("written");
                disk.poke(stale, &older);
                SUPERBLOCK_OFFSETS.iter().filter(|at| **at != stale).for_each(|at| disk.flip_bit(at + 100, 3));
                disk.on_event(|event: &EventInfo| (event.len == SUPERBLOCK_BYTES as u64).then_some(Fault::Cut));
                let failed = match how {
                    "grows" => grows().is_err(),
                    "closes" => wal.close().is_err(),
                    _ => wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).is_err(),
                };
                assert!(failed, "{case}");
                drop(wal);
                let torn = disk.crash(&mut |_, _| Choice::Torn { version: 0, at_byte: 256 });
                let wal = options().open_disk(Arc::new(torn)).unwrap_or_else(|why| panic!("{case}: {why}"));
                assert_eq!(wal.replica(1).get(b"vote").expect("kept"), Some(b"me"[..].into()), "{case}");
            }
        }
    }

    fn scrub(wal: &Wal) -> u64 {
        wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed").bad_superblocks
    }

    /// Hurts the copy at `at`.
    fn hurt(disk: &SimDisk, at: u64, (how, older): (&str, &[u8])) {
        match how {
            "rots" => disk.flip_bit(at + 100, 3),
            "cannot be read" => disk.fail_reads(at + 4096..at + 4097, EIO),
            _ => disk.poke(at, older),
        }
    }

    #[test]
    fn a_scrub_writes_the_bad_copy_anew_and_leaves_the_other_alone() {
        for how in ["rots", "cannot be read", "its last write was lost"] {
            let (disk, wal) = log();
            let older = copy(&disk, 0);
            wal.engine.grow_for_carried(wal.stats().carried_class_limit).expect("written");
            assert_eq!(scrub(&wal), 0);
            for at in SUPERBLOCK_OFFSETS {
                let whole = copy(&disk, at);
                hurt(&disk, at, (how, &older));
                let before = disk.log().len();
                assert_eq!(scrub(&wal), 1, "{how}");
                let written = disk.log().split_off(before);
                let copies = written.iter().filter(|event| event.len == SUPERBLOCK_BYTES as u64);
                assert_eq!(copies.map(|event| event.offset).collect::<Vec<_>>(), [at], "{how}");
                assert!(copy(&disk, at) == whole, "{how}");
                disk.heal_reads();
                assert_eq!(scrub(&wal), 0, "{how}");
            }
            let slabs = wal.stats().journal_segments;
            drop(wal);
            let wal = options().open_disk(Arc::new(disk.crash_lost_all())).expect("both are whole");
            assert_eq!(wal.stats().journal_segments, slabs, "{how}");
        }
    }

    /// Memory still has the right contents.
    #[test]
    fn a_scrub_writes_both_copies_anew_where_both_are_bad() {
        let (disk, wal) = log();
        SUPERBLOCK_OFFSETS.into_iter().for_each(|at| disk.flip_bit(at + 100, 3));
        assert_eq!((scrub(&wal), scrub(&wal)), (2, 0));
        drop(wal);
        options().open_disk(Arc::new(disk.crash_lost_all())).expect("both are whole");
    }

    #[test]
    fn a_log_that_is_read_only_tells_of_a_bad_copy() {
        let (disk, wal) = log();
        drop(wal);
        disk.flip_bit(100, 3);
        let wal = options().read_only(true).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        let before = disk.events();
        assert_eq!((scrub(&wal), scrub(&wal)), (1, 1));
        assert_eq!(disk.events(), before);
    }

    /// Whatever ended the log, even if no sync failed, which by itself would forbid it.
    #[test]
    fn no_copy_is_written_when_the_log_has_ended() {
        let (disk, wal) = log();
        disk.flip_bit(100, 3);
        wal.engine.stop(&crate::Error::Closed, None);
        let before = disk.events();
        let marked = wal.engine.mark_durable(wal.durable_lsn().get());
        assert!(matches!(marked, Err(crate::Error::Closed)), "{marked:?}");
        let healed = wal.engine.heal_copies();
        assert!(matches!(healed, Err(crate::Error::Closed)), "{healed:?}");
        assert_eq!(disk.events(), before);
    }

    /// To a log that is only read, an older copy is what a power cut between the two writes left.
    #[test]
    fn a_verification_tells_of_a_copy_whose_last_write_was_lost() {
        let (disk, wal) = log();
        let older = copy(&disk, 0);
        wal.engine.grow_for_carried(wal.stats().carried_class_limit).expect("written");
        for (name, at) in ["A", "B"].into_iter().zip(SUPERBLOCK_OFFSETS) {
            let newer = copy(&disk, at);
            disk.poke(at, &older);
            let report = wal.verify(|_| ()).expect("read");
            let said = report.structure.join("\n");
            assert!(said.starts_with(&format!("superblock {name} is bad (its last write was lost)")), "{said}");
            assert_eq!(report.structure.len(), 1, "{said}");
            disk.poke(at, &newer);
        }
        disk.poke(0, &older);
        drop(wal);
        let wal = options().read_only(true).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        let report = wal.verify(|_| ()).expect("read");
        assert!(report.is_clean(), "{report:?}");
    }
}
