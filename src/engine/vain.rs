//! What a relief in vain leaves behind: without it the next one would write everything that the journal carries anew, and find no more.

use super::Engine;
use super::relief::Lack;
use crate::space::Charge;

/// The sums that tell what a relief could find.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    free: u64,
    reserved: u64,
    carried: u64,
    budget: u64,
    /// Chunks that became free so far, whoever had them.
    freed: u64,
    /// What replicas gave up of their charges so far, and what they took.
    let_go: Charge,
    taken: Charge,
    /// Where the log ended.
    here: u64,
}

/// A relief that was in vain: everything that the log held when it began was cleaned.
#[derive(Debug)]
pub(crate) struct Vain {
    /// The sums when it ended.
    then: Sums,
    /// What was taken while it lasted, and it may not have cleaned.
    meanwhile: Charge,
    /// By how much the log grew meanwhile.
    cost: u64,
}

impl Vain {
    fn new(began: &Sums, then: Sums) -> Self {
        let (meanwhile, cost) = (then.taken.beyond(began.taken), then.here.saturating_sub(began.here));
        Self { then, meanwhile, cost }
    }

    /// Whether another relief might find what is lacking. Cleaning gives back at most what was taken since: so there is never more than
    /// there was then plus all that was let go since, however much was taken in its place.
    ///
    /// A slab can be spared if less is carried, or less lies in the journal, and that has more slabs than it must have (`spares`). That is
    /// told from what was let go, too. What these sums do not tell is tried once the log has grown by as much as another relief may write.
    fn may_be_more(&self, now: &Sums, lack: Lack, spares: bool, segment: u64) -> bool {
        let Self { then, meanwhile, cost } = self;
        let gone = now.let_go.beyond(then.let_go);
        let enough = match lack {
            Lack::Chunks(n) => {
                let more = now.freed.saturating_sub(then.freed) + gone.chunks + meanwhile.chunks;
                let shrinks = gone.chunks > 0 || gone.carried >= segment || now.carried < then.carried;
                then.reserved.saturating_add(n) <= then.free.saturating_add(more) || spares && shrinks
            }
            Lack::Carried(bytes) => {
                then.carried.saturating_add(bytes) <= now.budget.saturating_add(gone.carried + meanwhile.carried)
            }
        };
        enough || now.here.saturating_sub(then.here) >= *cost
    }
}

impl Engine {
    pub(super) fn sums(&self) -> Sums {
        let s = self.seq.lock();
        let (free, freed) = {
            let pool = self.pool.lock();
            (pool.free(), pool.freed())
        };
        let (accounts, here) = (&s.accounts, s.open.here());
        let (let_go, taken) = accounts.moved();
        let (reserved, carried, budget) = (accounts.reserved(), accounts.carried(), accounts.budget());
        Sums { free, reserved, carried, budget, freed, let_go, taken, here }
    }

    /// Whether a relief would be in vain, as the last one was. The caller holds `cleaning`.
    pub(super) fn is_in_vain(&self, lack: Lack) -> bool {
        let spares = {
            let superblock = self.superblock.lock();
            superblock.journal_slabs.len() as u64 > u64::from(superblock.journal_floor)
        };
        let now = self.sums();
        let vain = self.vain.lock();
        vain.as_ref().is_some_and(|v| !v.may_be_more(&now, lack, spares, self.geo.segment_bytes))
    }

    /// Notes that a relief that began with these sums was in vain, if it cleaned all that there was before segment `end`. One that had no
    /// room to clean tells nothing.
    pub(super) fn was_in_vain(&self, began: &Sums, end: u64) {
        let all = {
            let s = self.seq.lock();
            s.segments.tail() >= end.min(s.segments.current())
        };
        *self.vain.lock() = all.then(|| Vain::new(began, self.sums()));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::engine::relief::Relieved;
    use crate::sync::Arc;
    use crate::{Batch, Error, Wal};

    const IDLE: std::ops::Range<u64> = 1000..6000;

    /// Replica 1 has filled it, beside thousands that are idle. Answers its last index, too.
    fn full() -> (Arc<SimDisk>, Wal, u64) {
        let disk = Arc::new(SimDisk::new(32 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(16 << 10);
        let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
        for replica in IDLE {
            drop(wal.submit(Batch::new().append(replica, &[(1, 1, [7; 200])])).expect("room"));
        }
        wal.sync().expect("written");
        let mut last = 0;
        while append(&wal, last + 1) {
            last += 1;
        }
        (disk, wal, last)
    }

    /// Whether the entry was taken. Else the log is full.
    fn append(wal: &Wal, index: u64) -> bool {
        match wal.commit(Batch::new().append(1, &[(index, 1, [1; 32 << 10])])) {
            Ok(_) => true,
            Err(Error::Full(_)) => false,
            Err(error) => panic!("{index}: {error}"),
        }
    }

    fn written(disk: &SimDisk) -> u64 {
        disk.log().iter().map(|event| event.len).sum()
    }

    #[test]
    fn what_was_cleaned_in_vain_is_not_written_anew_for_each_append_that_is_refused() {
        let (disk, wal, last) = full();
        for attempt in 1..=10 {
            let before = written(&disk);
            assert!(!append(&wal, last + 1));
            let bytes = written(&disk) - before;
            assert!(bytes < 64 << 10, "attempt {attempt} wrote {bytes} bytes");
        }
        // Nor for a task.
        let before = written(&disk);
        let request = wal.engine.ask_for_relief(&Lack::Chunks(wal.stats().free_chunks + 1).report(4096));
        let (taken, lacks) = wal.engine.cleaner.lock().relief.take().expect("asked for");
        wal.engine.serve_relief(taken, &lacks);
        assert_eq!(wal.engine.relieved(request), Relieved::Hopeless);
        assert!(written(&disk) - before < 64 << 10);
        // And then there is room at once.
        wal.commit(Batch::new().truncate_prefix(1, 3)).expect("committed");
        assert!(append(&wal, last + 1) && append(&wal, last + 2));
    }

    /// It lies in the journal, dead, until that is cleaned and can spare a slab.
    #[test]
    fn what_is_let_go_in_the_journal_makes_room_behind_a_relief_in_vain() {
        let (_, wal, last) = full();
        assert!(!append(&wal, last + 1));
        let before = wal.stats();
        for replica in IDLE.step_by(2) {
            drop(wal.submit(Batch::new().remove(replica)).expect("it frees"));
        }
        wal.sync().expect("written");
        assert!(append(&wal, last + 1));
        assert!(wal.stats().journal_segments < before.journal_segments, "{before:#?}");
    }

    /// By a reader alone: nothing is written, and nothing else of the log changes.
    #[test]
    fn what_a_reader_lets_go_makes_room_behind_a_relief_in_vain() {
        let (_, wal, last) = full();
        let engine = &wal.engine;
        let chunks: Vec<u32> = {
            let cell = engine.registry.get(1).expect("there");
            let state = cell.lock();
            let extents = state.places.chain().iter().take(2).flat_map(|piece| piece.desc.extents.clone());
            extents.flat_map(|extent| extent.chunks(1)).collect()
        };
        chunks.iter().for_each(|&chunk| engine.pins.pin(chunk));
        wal.commit(Batch::new().truncate_prefix(1, 3)).expect("committed");
        for _ in 0..3 {
            assert!(!append(&wal, last + 1), "they are held");
        }
        chunks.iter().for_each(|&chunk| engine.pins.unpin(chunk));
        assert!(append(&wal, last + 1));
    }

    fn sums(free: u64, reserved: u64) -> Sums {
        Sums { free, reserved, carried: 100, budget: 1000, ..Sums::default() }
    }

    /// What was let go counts although as much was taken since: cleaning gives that back.
    #[test]
    fn what_is_taken_in_the_place_of_what_was_let_go_may_be_had_by_cleaning() {
        let then = Sums { here: 1000, ..sums(20, 15) };
        let vain = Vain::new(&Sums { here: 500, ..then }, then);
        let may = |now: &Sums, lack| vain.may_be_more(now, lack, false, 1 << 16);
        let chunks = |now: &Sums| [5, 6, 10, 11].map(|n| may(now, Lack::Chunks(n)));
        assert_eq!(chunks(&then), [true, false, false, false], "less than was asked for then");
        let let_go = Charge { chunks: 5, carried: 50 };
        for reserved in [10, 30] {
            let now = Sums { let_go, ..Sums { reserved, ..then } };
            assert_eq!(chunks(&now), [true, true, true, false], "{reserved} reserved");
            assert_eq!([950, 951].map(|n| may(&now, Lack::Carried(n))), [true, false]);
        }
        assert_eq!(chunks(&Sums { freed: 5, ..Sums { free: 3, ..then } }), [true, true, true, false]);
        assert_eq!([900, 901].map(|n| may(&then, Lack::Carried(n))), [true, false]);
        assert!(may(&Sums { budget: 1001, ..then }, Lack::Carried(901)));
        let grown = |here| may(&Sums { here, ..then }, Lack::Chunks(1000));
        assert_eq!([1499, 1500].map(grown), [false, true], "as much as the relief wrote");
    }

    #[test]
    fn what_was_taken_while_the_relief_lasted_may_be_had_by_another() {
        let (began, taken) = (sums(20, 10), Charge { chunks: 5, carried: 50 });
        let then = Sums { taken, here: 1 << 20, ..Sums { reserved: 15, ..began } };
        let vain = Vain::new(&began, then);
        let may = |lack| vain.may_be_more(&then, lack, false, 1 << 16);
        assert_eq!([10, 11].map(|n| may(Lack::Chunks(n))), [true, false]);
        assert_eq!([950, 951].map(|n| may(Lack::Carried(n))), [true, false]);
    }

    /// But for one that has no more than it must have.
    #[test]
    fn a_journal_that_carries_less_may_spare_a_slab() {
        let then = Sums { here: 1 << 20, ..sums(20, 15) };
        let vain = Vain::new(&Sums { here: 0, ..then }, then);
        let may = |now: &Sums| [true, false].map(|spares| vain.may_be_more(now, Lack::Chunks(100), spares, 1 << 16));
        assert_eq!(may(&then), [false, false]);
        assert_eq!(may(&Sums { carried: 99, ..then }), [true, false]);
        let gone = |chunks, carried| Sums { let_go: Charge { chunks, carried }, ..then };
        assert_eq!(may(&gone(1, 0)), [true, false], "it lay in the journal");
        assert_eq!([may(&gone(0, 1 << 15)), may(&gone(0, 1 << 16))], [[false, false], [true, false]]);
    }
}
