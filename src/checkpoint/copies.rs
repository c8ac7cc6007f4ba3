//! The superblock's two copies: one of them is whole at every moment.

use crate::disk::{AlignedBuf, Writer};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};

impl Engine {
    /// One copy, durable; then the other: see [`Engine::write_copies`].
    ///
    /// **Never after a failure**: the second may be what failed, and the first the only one left. Whoever waited for the lock looks again.
    pub(super) fn write_superblock(&self, current: &mut Superblock, next: Superblock) -> Result<()> {
        if let Some(why) = &self.seq.lock().stopped {
            return Err(why.clone());
        }
        self.write_copies(current, next)
    }

    /// A, durable; then B, durable. Where B has rotted meanwhile, or its last write was lost, it goes first: a cut in A would leave neither.
    pub(super) fn write_copies(&self, current: &mut Superblock, mut next: Superblock) -> Result<()> {
        let [a, b] = SUPERBLOCK_OFFSETS;
        let order = match SUPERBLOCK_OFFSETS.map(|offset| self.amiss(offset, Some(current))) {
            [None, Some(why)] => {
                tracing::error!(target: "strandlog", why, "superblock B is bad: it is written first");
                [b, a]
            }
            _ => [a, b],
        };
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

    /// What is wrong with the copy that lies there. `current`: what was written last, if it must be that.
    fn amiss(&self, offset: u64, current: Option<&Superblock>) -> Option<String> {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        if let Err(error) = self.disk.read_at(offset, &mut bytes) {
            return Some(error.to_string());
        }
        match (Superblock::decode(&bytes, self.disk.len()), current) {
            (Err(why), _) => Some(format!("{why:?}")),
            (Ok(copy), Some(current)) if copy != *current => Some("its last write was lost".to_owned()),
            _ => None,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::disk::Disk;
    use crate::disk::sim::{Choice, EventInfo, Fault, SimDisk};
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

    /// Whichever was hurt while the log was in use, and whichever is being written when the power goes.
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
}
