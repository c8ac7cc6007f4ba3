//! Writing damage down, in a CORE: so that it is not forgotten together with what shows it, and that what is appended anew over it is sound
//! at the next opening, too.

use super::relief::Lack;
use super::{Engine, Patience, Sequencer};
use crate::error::{Error, Result};
use crate::format::record::MOST_CORE_BYTES;
use crate::index::Cell;
use crate::journal::Class;

impl Engine {
    /// Writes down the damage of these replicas, durably, as far as there is room. **Never from the cleaner's reserve**, which an opening
    /// could use up: where there is no room, the caller must have seen to it that the cleaner carries the CORE before what shows the loss
    /// is gone.
    pub(crate) fn record_damage<'a>(&self, hurt: impl Iterator<Item = &'a Cell>) -> Result<()> {
        let mut written = false;
        for cell in hurt {
            if !self.write_damage(&mut self.seq.lock(), cell) {
                break;
            }
            written = true;
        }
        if written { self.sync().map(drop) } else { Ok(()) }
    }

    /// Writes down the damage of this replica, durably. If there is no room, it is made: nothing else may tell of the loss.
    pub(crate) fn record_damage_of(&self, cell: &Cell) -> Result<()> {
        self.may_wait()?;
        let _hurry = self.hurry.begin();
        let (mut cleaned, mut patience) = (None, None);
        loop {
            {
                let mut s = self.seq.lock();
                if let Some(why) = &s.stopped {
                    return Err(why.clone());
                }
                if self.write_damage(&mut s, cell) {
                    break;
                }
                let waits = Patience::go_on(patience, self, &s);
                if cleaned == Some(0) || waits.is_over(self, &s, Class::Keep) {
                    return Err(Error::Full(Lack::Carried(MOST_CORE_BYTES).report(self.geo.chunk_bytes)));
                }
                patience = Some(waits);
            }
            cleaned = Some(self.clean_some()?);
        }
        self.sync().map(drop)
    }

    /// `false`: no room.
    fn write_damage(&self, s: &mut Sequencer, cell: &Cell) -> bool {
        if !s.make_room(0, MOST_CORE_BYTES, Class::Keep, &self.segment_map) {
            return false;
        }
        let mut state = cell.lock();
        // If it was removed meanwhile, nothing is damaged any more.
        if state.exists {
            let core = state.core();
            self.write_core(s, cell.id, &mut state, &core);
            s.open.batches += 1;
            drop(state);
            self.submitted(s, true, None, false);
        }
        true
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;
    use crate::{Batch, Damage, Error, Lost, Placement, Wal};

    /// A log whose journal has no room but the cleaner's.
    fn full(disk: &Arc<SimDisk>) -> Wal {
        let options =
            Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal).journal_cap(512 << 10);
        let wal = options.background(false).open_disk(Arc::clone(disk) as _).expect("formatted");
        wal.commit(Batch::new().append(1, &[(1, 1, b"one"), (2, 1, b"two")])).expect("committed");
        for bytes in [1000, 1] {
            while wal.try_submit(Batch::new().put(2, b"key", &[7; 1000][..bytes])).is_ok() {
                wal.sync().expect("durable");
            }
        }
        wal
    }

    #[test]
    fn where_a_loss_must_be_written_room_is_made_for_it() {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = full(&disk);
        let cell = wal.engine.registry.get(1).expect("there");
        cell.lock().add_damage(1, 1);
        wal.engine.record_damage(std::iter::once(&*cell)).expect("tried");
        assert_eq!(wal.stats().segments_cleaned, 0, "what need not be written makes nobody wait");
        let opened = || {
            let options = Wal::options().background(false);
            options.open_disk(Arc::new(disk.restart())).expect("opened").damage()
        };
        assert_eq!(opened(), []);
        wal.engine.record_damage_of(&cell).expect("room was made");
        assert_eq!(opened(), [Damage { replica: 1, lost: Lost::Entries { first: 1, last: 1 } }]);
    }

    #[test]
    fn where_no_room_can_be_made_for_it_that_is_told() {
        let wal = full(&Arc::new(SimDisk::new(2 << 20)));
        // Not even what the cleaner needs, and nothing to clean.
        {
            let mut s = wal.engine.seq.lock();
            s.segments.free.clear();
            let older = s.segments.live.len() - 1;
            s.segments.live.drain(..older);
        }
        let cell = wal.engine.registry.get(1).expect("there");
        cell.lock().add_damage(1, 1);
        let told = wal.engine.record_damage_of(&cell);
        assert!(matches!(told, Err(Error::Full(_))), "{told:?}");
    }
}
