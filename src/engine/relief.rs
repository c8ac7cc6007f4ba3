//! Relief: an append found no room. What may make room is done step by step, the cheapest first, and no more than is needed.

use super::{Engine, Turn};
use crate::error::{FullReport, Result};

/// What an append lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Chunks that nobody has reserved.
    Chunks(u64),
    /// Bytes of what the journal carries: metadata and small replicas.
    Carried(u64),
}

/// Tasks that found the log full, and wait until something was done about it.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// Requests so far.
    pub asked: u64,
    /// Requests up to here were served.
    pub served: u64,
    /// For served requests up to here everything was tried, and it did not suffice.
    hopeless: u64,
    /// The most that anybody lacks. A lack of 0 is a request as well: where more is reserved than there is.
    chunks: Option<u64>,
    carried: Option<u64>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relieved {
    NotYet,
    /// There was room. Others may have taken it meanwhile.
    Made,
    /// Everything was tried.
    Hopeless,
}

impl Lack {
    pub fn is_metadata(self) -> bool {
        matches!(self, Self::Carried(_))
    }

    /// The report of it for a task.
    pub fn report(self, chunk_bytes: u32) -> Box<FullReport> {
        let (needed, metadata) = match self {
            Self::Chunks(n) => (n.saturating_mul(chunk_bytes.into()), false),
            Self::Carried(bytes) => (bytes, true),
        };
        Box::new(FullReport { needed, metadata, ..FullReport::default() })
    }

    fn of(report: &FullReport, chunk_bytes: u32) -> Self {
        if report.metadata {
            Self::Carried(report.needed)
        } else {
            Self::Chunks(report.needed.div_ceil(chunk_bytes.into()))
        }
    }
}

impl Engine {
    /// Makes room for an append with this lack: what is dead becomes free; the journal gives back slabs that it can spare; it is cleaned,
    /// the oldest segments first, as what is settled needs no reservation any more. `false`: all of that was done, up to where the journal
    /// ended at first, and did not suffice; or nothing was cleaned, as that would be as much in vain as the last time.
    pub(crate) fn make_room_for(&self, lack: Lack) -> Result<bool> {
        if self.has(lack) {
            return Ok(true);
        }
        let _hurry = self.hurry.begin();
        self.release_space()?;
        let began = self.sums();
        // With the segment that is being written now: what is moved leaves it.
        let end = { self.seq.lock().segments.current() + 1 };
        loop {
            let turn = Turn::begin();
            let tell_after_the_lock = self.hold();
            // Others may have made room while this thread waited for the lock.
            let mut one = self.cleaning.lock();
            if self.has(lack) {
                return Ok(true);
            }
            if !lack.is_metadata() && self.spare_slab()? {
                continue;
            }
            if self.is_in_vain(lack) {
                return Ok(false);
            }
            let segments = self.clean_oldest(end, &mut one)?;
            if segments == 0 {
                self.was_in_vain(&began, end);
                return Ok(false);
            }
            self.release_space()?;
            drop(one);
            drop(tell_after_the_lock);
            turn.cleaned(segments);
        }
    }

    /// Gives a slab of the journal back, if there is one to spare.
    fn spare_slab(&self) -> Result<bool> {
        // Readers may have let go of segments since the last frame.
        self.free_unpinned(&mut self.seq.lock());
        self.shrink_journal()
    }

    /// Whether nothing of it is lacking any more.
    fn has(&self, lack: Lack) -> bool {
        let s = self.seq.lock();
        match lack {
            Lack::Chunks(n) => self.pool.lock().free() >= s.accounts.reserved().saturating_add(n),
            Lack::Carried(bytes) => s.accounts.carried().saturating_add(bytes) <= s.accounts.budget(),
        }
    }

    /// Asks the cleaner thread to do for a task what a caller that may block does itself. Returns the number of the request; tasks that
    /// wait for room are woken when it is done.
    pub(crate) fn ask_for_relief(&self, report: &FullReport) -> u64 {
        let mut cleaner = self.cleaner.lock();
        let relief = &mut cleaner.relief;
        match Lack::of(report, self.geo.chunk_bytes) {
            Lack::Chunks(n) => relief.chunks = relief.chunks.max(Some(n)),
            Lack::Carried(bytes) => relief.carried = relief.carried.max(Some(bytes)),
        }
        relief.asked += 1;
        let request = relief.asked;
        self.clean.notify_all();
        request
    }

    /// What became of this request.
    pub(crate) fn relieved(&self, request: u64) -> Relieved {
        let cleaner = self.cleaner.lock();
        match &cleaner.relief {
            relief if relief.served < request => Relieved::NotYet,
            relief if relief.hopeless < request => Relieved::Made,
            _ => Relieved::Hopeless,
        }
    }

    /// Serves requests up to this one: the cleaner thread's part of it.
    pub(super) fn serve_relief(&self, request: u64, lacks: &[Lack]) {
        let mut made = true;
        for &lack in lacks {
            match self.make_room_for(lack) {
                Ok(enough) => made &= enough,
                Err(error) => {
                    // If the log has ended, the task is told by its next attempt.
                    tracing::warn!(target: "strandlog", %error, "making room");
                    made = false;
                }
            }
        }
        let mut cleaner = self.cleaner.lock();
        if !made {
            cleaner.relief.hopeless = request;
        }
        cleaner.relief.served = request;
    }
}

impl Relief {
    /// The newest request that was not served, and what is lacking.
    pub fn take(&mut self) -> Option<(u64, Vec<Lack>)> {
        if self.is_served() {
            return None;
        }
        let lacks = [self.chunks.take().map(Lack::Chunks), self.carried.take().map(Lack::Carried)];
        Some((self.asked, lacks.into_iter().flatten().collect()))
    }

    pub fn is_served(&self) -> bool {
        self.asked == self.served
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::space::Charge;
    use crate::sync::Arc;
    use crate::{Batch, Placement, Wal};

    const SEGMENT: u64 = 64 << 10;

    /// Half a megabyte of ten replicas, none of it dead, in a journal that is above its floor.
    fn log() -> Wal {
        let options = Wal::options().segment_size(SEGMENT as u32).chunk_size(4096).placement(Placement::Journal);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
        for i in 1..=170 {
            wal.commit(Batch::new().append(i % 10, &[(i.div_ceil(10), 1, [7; 3000])]))
                .unwrap_or_else(|e| panic!("{i}: {e}"));
        }
        wal
    }

    fn spare(wal: &Wal) -> u64 {
        // For an append that may also take those left for values.
        let s = wal.stats();
        s.free_chunks.saturating_sub(s.reserved_chunks - s.reserved_for_values)
    }

    #[test]
    fn no_more_is_done_for_an_append_than_it_lacks() {
        let wal = log();
        let before = wal.stats();
        assert!(wal.engine.make_room_for(Lack::Chunks(spare(&wal))).expect("no error"));
        let same = wal.stats();
        assert_eq!(
            (same.settled_bytes, same.journal_segments),
            (before.settled_bytes, before.journal_segments),
            "it was there"
        );
        let mut settled = 0;
        while settled == 0 {
            let (lack, before) = (spare(&wal) + 1, wal.stats());
            assert!(wal.engine.make_room_for(Lack::Chunks(lack)).expect("no error"), "{before:#?}");
            let after = wal.stats();
            assert!(spare(&wal) >= lack);
            settled = after.settled_bytes - before.settled_bytes;
            assert!(before.journal_segments - after.journal_segments <= 1, "one slab is sixteen chunks");
        }
        let left: u64 = wal.engine.registry.all().iter().map(|c| c.lock().places.journal_bytes()).sum();
        assert!(left > 170 * 3000 / 2, "the oldest segments are enough: {left} bytes still lie in the journal");
        // And when more is asked for than there can be, everything is tried.
        assert!(!wal.engine.make_room_for(Lack::Chunks(wal.stats().capacity)).expect("no error"));
        let left: u64 = wal.engine.registry.all().iter().map(|c| c.lock().places.journal_bytes()).sum();
        assert!(left < 2 * SEGMENT, "{left} bytes still lie in the journal");
    }

    /// The last word that a task waits for: without it, it would ask for ever.
    #[test]
    fn a_request_is_served_hopeless_only_where_everything_was_tried_in_vain() {
        let wal = log();
        let engine = &wal.engine;
        let serve = || {
            let (request, lacks) = engine.cleaner.lock().relief.take().expect("asked for");
            engine.serve_relief(request, &lacks);
        };
        let chunk = engine.geo.chunk_bytes;
        let free = engine.pool.lock().free();
        let made = engine.ask_for_relief(&Lack::Chunks(1).report(chunk));
        assert_eq!(engine.relieved(made), Relieved::NotYet);
        serve();
        assert_eq!(engine.relieved(made), Relieved::Made);
        assert!(engine.cleaner.lock().relief.take().is_none(), "nothing is left to do");
        // Of two the larger counts.
        let too_much = engine.ask_for_relief(&Lack::Chunks(2 * free).report(chunk));
        let little = engine.ask_for_relief(&Lack::Chunks(1).report(chunk));
        serve();
        assert_eq!([too_much, little].map(|r| engine.relieved(r)), [Relieved::Hopeless; 2]);
        let metadata = engine.ask_for_relief(&Lack::Carried(1).report(chunk));
        serve();
        assert_eq!(engine.relieved(metadata), Relieved::Made);
        // More is reserved than there is, as after an opening: then even a lack of 0 is one.
        let all = engine.pool.lock().free() + 1;
        engine.seq.lock().accounts.settle(&mut Charge::default(), Charge { chunks: all, carried: 0 });
        let none = engine.ask_for_relief(&Lack::Chunks(0).report(chunk));
        serve();
        assert_eq!(engine.relieved(none), Relieved::Hopeless);
    }
}
