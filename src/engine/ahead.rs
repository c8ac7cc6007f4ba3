//! Reading ahead: the device is asked for all that a reader wants next of the journal, instead of one page after the other.
//!
//! What lies around an entry there belongs to other replicas. So the system is told not to read around by itself: it may read megabytes for
//! a page, and commits wait behind them.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::Engine;
use crate::disk::{Advice, BLOCK};
use crate::format::POOL_OFFSET;
use crate::index::{Cell, Loc, Place};

/// A reading that takes longer has waited for the device: then what follows is asked for.
const COLD: Duration = Duration::from_micros(15);
/// One in this many readings of entries is timed.
const COLD_SAMPLE: usize = 16;
/// Bytes asked for at a time; the next step is asked for before it is needed. Enough for a device that likes several requests at once, and
/// no more than a commit can wait behind.
const STEP_BYTES: u64 = 128 << 10;
/// No more entries than this at a time, however small: the replica is locked meanwhile.
const STEP_ENTRIES: u64 = 1024;

/// How far a reader has asked ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    cold: bool,
    readings: usize,
    /// What is below this index was asked for.
    asked: u64,
    /// When the reader comes here, it asks for more.
    more_at: u64,
}

impl Ahead {
    /// Reads, and finds out whether that waited for the device.
    pub fn watch<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let timed = !self.cold && self.readings.is_multiple_of(COLD_SAMPLE);
        self.readings += 1;
        if !timed {
            return read();
        }
        let start = Instant::now();
        let read = read();
        self.cold = start.elapsed() > COLD;
        read
    }
}

/// Blocks of the journal, neighbours together.
#[derive(Debug, Default)]
struct Runs(Vec<Range<u64>>);

impl Runs {
    /// Adds what lies at `lsn`; returns how many bytes more that is.
    fn add(&mut self, lsn: u64, len: u64, segment_bytes: u64) -> u64 {
        let block = BLOCK as u64;
        let (start, end) = (lsn / block * block, lsn.saturating_add(len).next_multiple_of(block));
        match self.0.last_mut() {
            // Neighbouring segments are no neighbours in the file.
            Some(last) if last.contains(&start) || (last.end == start && !start.is_multiple_of(segment_bytes)) => {
                let more = end.saturating_sub(last.end);
                last.end += more;
                more
            }
            _ => {
                self.0.push(start..end);
                end - start
            }
        }
    }
}

impl Engine {
    /// Asks for what follows `next`, below `hi`, if the reader waits for the device and is near the end of what was asked for.
    pub(super) fn read_ahead(&self, cell: &Cell, ahead: &mut Ahead, next: u64, hi: u64) {
        while ahead.cold && next >= ahead.more_at && ahead.asked < hi {
            let from = ahead.asked.max(next);
            ahead.more_at = from;
            ahead.asked = self.ask(cell, from, hi);
        }
    }

    /// Asks for entries of the journal from `from` on, below `hi`, a step's bytes of them; returns the first index that it did not look at.
    pub(crate) fn ask(&self, cell: &Cell, from: u64, hi: u64) -> u64 {
        let head = self.head();
        let (mut runs, mut next, mut bytes) = (Runs::default(), from, 0);
        {
            let state = cell.lock();
            let end = hi.min(state.last.saturating_add(1)).min(from.saturating_add(STEP_ENTRIES));
            while next < end && bytes < STEP_BYTES {
                match state.places.get(next) {
                    Some(Place::Journal(loc)) => {
                        bytes += runs.add(loc.lsn(head), entry_bytes(loc), self.geo.segment_bytes);
                        next += 1;
                    }
                    // The pages of a piece lie side by side: the system reads ahead there by itself.
                    Some(Place::Chain(piece)) if next == from => {
                        next = piece.desc.last().saturating_add(1);
                        break;
                    }
                    Some(Place::Chain(_)) => break,
                    // Gone or damaged: the reader is told, and may go on behind it.
                    None => break,
                }
            }
        }
        self.ask_for(&runs);
        if next == from { hi } else { next }
    }

    /// Starts reading entries that are not in memory.
    pub(crate) fn prefetch(&self, locs: impl IntoIterator<Item = Loc>) {
        let (mut runs, head) = (Runs::default(), self.head());
        for loc in locs {
            runs.add(loc.lsn(head), entry_bytes(loc), self.geo.segment_bytes);
        }
        self.ask_for(&runs);
    }

    /// Asks for all of an entry that is mapped at `offset`, if its first byte was not in memory: its pages would be read one by one.
    pub(super) fn ask_if_cold(&self, offset: u64, mapped: &[u8]) {
        let touched = Instant::now();
        let _ = std::hint::black_box(mapped.first().copied());
        if touched.elapsed() > COLD {
            self.disk.prefetch(offset, mapped.len() as u64);
        }
    }

    /// Tells the system what these slabs are from now on: the journal's, or chunks.
    pub(crate) fn expect_reads(&self, slabs: &[u32], journal: bool) {
        let Some(map) = &self.map else { return };
        let advice = if journal { Advice::Random } else { Advice::Normal };
        for neighbours in slabs.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let offset = POOL_OFFSET + neighbours.first().map_or(0, |&slab| u64::from(slab)) * self.geo.segment_bytes;
            let len = neighbours.len() as u64 * self.geo.segment_bytes;
            // Only a hint: it does not matter if it is refused.
            let _ = map.advise(offset, usize::try_from(len).unwrap_or(usize::MAX), advice);
        }
    }

    fn ask_for(&self, runs: &Runs) {
        for run in &runs.0 {
            // All that is newer than a recent frame is in memory, too.
            if self.recent.find(run.start).is_some() {
                continue;
            }
            let (seq, within) = (run.start / self.geo.segment_bytes, run.start % self.geo.segment_bytes);
            if let Some(slab) = { self.segment_map.read().slab(seq) } {
                let offset = POOL_OFFSET + u64::from(slab) * self.geo.segment_bytes + within;
                self.disk.prefetch(offset, run.end - run.start);
            }
        }
    }
}

/// What the entry takes, its checksum with it.
fn entry_bytes(loc: Loc) -> u64 {
    crate::format::frame::ENTRY_CRC_BYTES as u64 + u64::from(loc.len())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;
    use std::io;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::{Disk, DiskInfo, Map};
    use crate::sync::{Arc, Mutex};
    use crate::{Batch, Placement, Wal};

    #[test]
    fn neighbouring_blocks_are_asked_for_together_but_not_across_segments() {
        let mut runs = Runs::default();
        let added: Vec<u64> =
            [(100, 50), (160, 4000), (4200, 100), (20_000, 100), (32_768, 10), (36_864, 4097), (65_536, 1)]
                .map(|(lsn, len)| runs.add(lsn, len, 65_536))
                .into();
        assert_eq!(added, [4096, 4096, 0, 4096, 4096, 8192, 4096]);
        assert_eq!(runs.0, [0..8192, 16_384..20_480, 32_768..45_056, 65_536..69_632]);
    }

    /// A disk on which every reading takes long; what was asked for beforehand, block by block, and how often.
    #[derive(Debug)]
    struct Slow {
        inner: SimDisk,
        asked: Mutex<Vec<u64>>,
    }

    impl Disk for Slow {
        fn len(&self) -> u64 {
            self.inner.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            std::thread::sleep(2 * COLD);
            self.inner.read_at(offset, buf)
        }
        fn prefetch(&self, offset: u64, len: u64) {
            self.asked.lock().extend((offset..offset + len).step_by(BLOCK));
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.inner.write_at(offset, buf)
        }
        fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.inner.write_durable_at(offset, buf)
        }
        fn flush(&self) -> io::Result<()> {
            self.inner.flush()
        }
        fn map(&self) -> Option<Arc<Map>> {
            None
        }
        fn info(&self) -> DiskInfo {
            self.inner.info()
        }
        fn release(&self) {
            self.inner.release();
        }
    }

    /// Replica 1 has four hundred entries in the journal, in a block each, and nothing of them is in memory.
    fn cold() -> (Arc<Slow>, Wal) {
        let disk = Arc::new(Slow { inner: SimDisk::new(16 << 20), asked: Mutex::default() });
        let options = || Wal::options().background(false).placement(Placement::Journal).segment_size(256 << 10);
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        for index in 1..=400 {
            // Something else between them, and more than a block of it.
            wal.commit(Batch::new().append(1, &[(index, 1, [1; 100])]).append(2, &[(index, 1, [2; 5000])]))
                .expect("committed");
        }
        drop(wal);
        let disk = Arc::new(Slow { inner: disk.inner.restart(), asked: Mutex::default() });
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        (disk, wal)
    }

    /// The blocks in which replica 1 has entries, from this one on.
    fn blocks(wal: &Wal, from: u64) -> BTreeSet<u64> {
        let (cell, head) = (wal.replica(1).cell().expect("there"), wal.engine.head());
        let state = cell.lock();
        let locs =
            (from..=400).filter_map(|index| state.places.loc(index)).map(|loc| (loc.lsn(head), entry_bytes(loc)));
        locs.flat_map(|(lsn, len)| lsn / BLOCK as u64..=(lsn + len - 1) / BLOCK as u64).collect()
    }

    #[test]
    fn who_waits_for_the_device_asks_for_what_follows_and_for_each_block_once() {
        let (disk, wal) = cold();
        let replica = wal.replica(1);
        let blocks = |from| blocks(&wal, from);
        let asked = || std::mem::take(&mut *disk.asked.lock());

        // All of it.
        assert_eq!(replica.entries(1..401, usize::MAX).expect("read").len(), 400);
        let all = asked();
        let distinct: BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "nothing twice");
        assert_eq!(distinct.len(), blocks(1).len(), "and all of it");

        // A few: no more than two steps.
        assert_eq!(replica.entries(1..401, 1).expect("read").len(), 1);
        let few = asked().len() as u64 * BLOCK as u64;
        assert!(few > 0 && few <= 2 * STEP_BYTES + 2 * BLOCK as u64, "{few}");
        assert_eq!(replica.entries(1..2, usize::MAX).expect("read").len(), 1);
        assert!(asked().len() <= 2, "not beyond what is wanted");

        // What is in memory is not asked for.
        for index in 401..=500 {
            wal.commit(Batch::new().append(1, &[(index, 1, [1; 100])])).expect("committed");
        }
        assert_eq!(replica.entries(401..501, usize::MAX).expect("read").len(), 100);
        assert_eq!(asked(), []);
    }

    #[test]
    fn a_check_asks_for_what_lies_before_and_behind_damage() {
        let (disk, wal) = cold();
        let replica = wal.replica(1);
        let cell = replica.cell().expect("there");
        for index in [1, 2, 100, 101, 300, 400] {
            let mut s = wal.engine.seq.lock();
            wal.engine.forget_damaged(&mut s, 1, &mut cell.lock(), index);
        }
        let mut report = crate::verify::VerifyReport::default();
        wal.engine.check_replica(&cell, &mut report, |_| ()).expect("read");
        assert_eq!((report.entries, report.damage.len()), (394, 4), "{report:?}");
        let asked = std::mem::take(&mut *disk.asked.lock());
        assert_eq!(asked.len(), blocks(&wal, 1).len(), "all that is left");
        assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), asked.len(), "and nothing twice");
    }
}
