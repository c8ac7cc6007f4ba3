//! A replica while a batch that names it is admitted: as it stands, and as it will.

use super::anew::Anew;
use crate::index::{APPLIED_BYTES, APPLIED_KEY, Cell, ReplicaState, value_cost};
use crate::space::{Charge, Demand};
use crate::sync::Arc;

/// A replica named by the batch, as it will stand after the operations looked at so far.
#[derive(Debug)]
pub(super) struct Touched {
    pub cell: Arc<Cell>,
    pub exists: bool,
    pub first: u64,
    pub last: u64,
    /// Something else than its creation was asked for: removing it now would contradict that.
    pub changed: bool,
    /// What it had is forgotten, and what waited for its state machine.
    pub removed: bool,
    /// Only what waited for its state machine is.
    pub reset: bool,
    /// Its keyed state may miss an update.
    pub suspect: bool,
    /// It begins a new life before the batch says anything of it.
    pub anew: Option<Anew>,
    pub charge: Charge,
    pub demand: Demand,
    /// Of its metadata, what entries of the batch have.
    pub appended_meta: u64,
    pub grows: bool,
    /// Lives that the batch may begin.
    pub lives: u64,
    /// The last entry lies in the journal.
    pub adjoins: bool,
    /// What it truncates, as far as that may be given back (`Engine::give_back_truncated`).
    pub truncated: Option<u64>,
    /// The latest report of the batch.
    pub report: Option<u64>,
    /// Something was reported before it exists, in the batch that may create it. How much is of another life, if it is not nothing: what counts from
    /// its birth on is that it reports.
    pub reports_unborn: bool,
    /// None of the entries that it has now is counted any more.
    pub replaced: bool,
    /// Whether it was admitted as one whose entries are carried; `None` where that was not asked, or some of them are being settled.
    pub admitted: Option<InChunks>,
}

/// Whether a replica holds chunks for its entries. No: they are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InChunks {
    Yes,
    No,
}

impl Touched {
    pub fn new(cell: Arc<Cell>) -> Self {
        Self {
            cell,
            exists: false,
            first: 1,
            last: 0,
            changed: false,
            removed: false,
            reset: false,
            suspect: false,
            anew: None,
            charge: Charge::default(),
            demand: Demand::default(),
            appended_meta: 0,
            grows: false,
            lives: 0,
            adjoins: false,
            truncated: None,
            report: None,
            reports_unborn: false,
            replaced: false,
            admitted: None,
        }
    }

    /// As it stands now.
    pub fn look(&mut self) {
        let s = self.cell.lock();
        (self.exists, self.first, self.last, self.charge) = (s.exists, s.first, s.last, s.charge);
        (self.suspect, self.anew) = (s.state_suspect, None);
        (self.demand, self.appended_meta) = (demand(&s), 0);
        self.adjoins = s.places.spans().last().is_some_and(|span| span.last() == s.last);
        (self.changed, self.removed, self.reset) = (false, false, false);
        (self.grows, self.admitted, self.lives) = (false, None, 0);
        (self.truncated, self.report, self.reports_unborn, self.replaced) = (None, None, false, false);
    }

    /// Admitted as one whose entries are not carried.
    pub fn is_in_chunks(&self) -> bool {
        self.admitted == Some(InChunks::Yes)
    }

    /// The last entry may have gone. Where its run is counted it makes room for another; not where it is being settled, and only what comes
    /// is counted.
    pub fn cut(&mut self) {
        self.adjoins &= self.demand.pledged.is_none();
    }

    /// From this index on entries are kept.
    pub fn truncate(&mut self, first: u64) {
        self.first = self.first.max(first);
        if self.first > self.last {
            self.cut();
        }
    }

    /// An entry of the batch has so much metadata.
    pub fn append_meta(&mut self, bytes: u64) {
        self.demand.meta_bytes += bytes;
        self.appended_meta += bytes;
    }

    /// A snapshot takes all entries: what they cost until now is given back when the batch is applied, terms, runs and descriptors among it. Not while some of
    /// them are being settled.
    pub fn replace_entries(&mut self) {
        if self.demand.pledged.is_none() {
            // Of what it has now only once.
            let had = if self.replaced { 0 } else { self.cell.lock().meta_bytes_of_entries() };
            let gone = had + std::mem::take(&mut self.appended_meta);
            self.demand = Demand { meta_bytes: self.demand.meta_bytes.saturating_sub(gone), ..Demand::default() };
        }
        self.replaced = true;
    }

    pub fn create(&mut self) {
        if !self.exists {
            (self.exists, self.first, self.last) = (true, 1, 0);
            self.demand.meta_bytes += 64;
            self.grows = true;
            self.lives += 1;
            if self.reports_unborn {
                self.report = self.report.max(Some(0));
                self.demand.meta_bytes += value_cost(APPLIED_KEY, APPLIED_BYTES);
            }
        }
    }
}

/// What a replica's state asks of the accounts.
#[inline(always)]
pub(crate) fn demand(state: &ReplicaState) -> Demand {
    let meta_bytes = state.meta_bytes();
    if let Some(pledge) = &state.pledge {
        return Demand { meta_bytes, pledged: Some(pledge.held), ..pledge.fresh };
    }
    Demand {
        weight: state.places.weight(),
        journal_bytes: state.places.journal_bytes(),
        meta_bytes,
        term_runs: state.terms.len() as u64,
        spans: state.places.spans().len() as u64,
        settled_terms: 0,
        pledged: None,
    }
}
