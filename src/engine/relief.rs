//! Relief: an append found no room. What may make some is done step by step, the cheapest first, and no more of it than is needed.

use super::Engine;
use crate::error::{FullReport, Result};

/// What an append lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// So many chunks that nobody has reserved.
    Chunks(u64),
    /// So many bytes of what the journal carries: metadata and small replicas.
    Carried(u64),
}

/// Tasks that found the log full, and wait until something was done about it.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// Requests so far.
    pub asked: u64,
    /// Requests up to here were served.
    pub served: u64,
    /// Of these, up to here: everything was tried, and it did not suffice.
    hopeless: u64,
    /// What is lacking: the most that anybody asks for.
    chunks: u64,
    carried: u64,
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

    /// As a task is told of it.
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
    /// Makes room for an append that lacks so much: what is dead becomes free; the journal gives back slabs that it can spare; it is
    /// cleaned, the oldest segments first, as what is settled needs no reservation any more. `false`: all of that was done, up to
    /// where the journal ended at first, and did not suffice.
    pub(crate) fn make_room_for(&self, lack: Lack) -> Result<bool> {
        if self.has(lack) {
            return Ok(true);
        }
        self.release_space()?;
        let end = { self.seq.lock().segments.current() };
        loop {
            let _tell_after_the_lock = self.events.hold();
            // Whoever waited for the lock finds what was done meanwhile.
            let _one = self.cleaning.lock();
            if self.has(lack) {
                return Ok(true);
            }
            if !lack.is_metadata() && self.shrink_journal()? {
                continue;
            }
            if !self.clean_oldest(end)? {
                return Ok(false);
            }
            self.release_space()?;
        }
    }

    /// Whether it is there.
    fn has(&self, lack: Lack) -> bool {
        let s = self.seq.lock();
        match lack {
            Lack::Chunks(n) => self.pool.lock().free() >= s.accounts.reserved().saturating_add(n),
            Lack::Carried(bytes) => s.accounts.carried().saturating_add(bytes) <= s.accounts.budget(),
        }
    }

    /// Asks the cleaner thread to do for a task what a caller that may block does itself. Answers the number of the request; tasks that
    /// wait for room are woken when it is done.
    pub(crate) fn ask_for_relief(&self, report: &FullReport) -> u64 {
        let mut cleaner = self.cleaner.lock();
        let relief = &mut cleaner.relief;
        match Lack::of(report, self.geo.chunk_bytes) {
            Lack::Chunks(n) => relief.chunks = relief.chunks.max(n),
            Lack::Carried(bytes) => relief.carried = relief.carried.max(bytes),
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

    /// The cleaner thread's part of it.
    pub(super) fn serve_relief(&self, request: u64, lacks: &[Lack]) {
        let mut made = true;
        for &lack in lacks {
            match self.make_room_for(lack) {
                Ok(enough) => made &= enough,
                Err(error) => {
                    // Where the log has ended, who asked is told by the next attempt.
                    tracing::warn!(target: "strandlog", %error, "making room");
                    made = false;
                }
            }
        }
        if !made {
            self.cleaner.lock().relief.hopeless = request;
        }
        self.cleaner.lock().relief.served = request;
    }
}

impl Relief {
    /// The newest request that was not served, and what is lacking.
    pub fn take(&mut self) -> Option<(u64, Vec<Lack>)> {
        if self.is_served() {
            return None;
        }
        let (chunks, carried) = (std::mem::take(&mut self.chunks), std::mem::take(&mut self.carried));
        let lacks = [Lack::Chunks(chunks), Lack::Carried(carried)].into_iter();
        Some((self.asked, lacks.filter(|lack| !matches!(lack, Lack::Chunks(0) | Lack::Carried(0))).collect()))
    }

    pub fn is_served(&self) -> bool {
        self.asked == self.served
    }
}
