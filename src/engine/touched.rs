//! A replica while a batch that names it is admitted: as it stands, and as it will.

use super::anew::Anew;
use crate::index::{APPLIED_BYTES, APPLIED_KEY, Cell, ReplicaState, value_cost};
use crate::space::{Charge, Demand};

/// A replica named by the batch, as it will stand after the operations looked at so far.
#[derive(Debug)]
pub(super) struct Touched {
    pub exists: bool,
    pub first: u64,
    pub last: u64,
    /// Whether anything but its creation was asked for: removing it then would contradict that.
    pub changed: bool,
    /// It was removed: what it had is forgotten, and what waited for its state machine.
    pub removed: bool,
    /// A snapshot was installed: only what waited for its state machine is forgotten.
    pub reset: bool,
    /// Its keyed state may miss an update.
    pub suspect: bool,
    /// The snapshot by which it begins a new life, before anything else of the batch is applied to it.
    pub anew: Option<Anew>,
    pub charge: Charge,
    pub demand: Demand,
    /// How much of the metadata in `demand` belongs to entries of the batch.
    pub appended_meta: u64,
    pub grows: bool,
    /// Lives that the batch may begin.
    pub lives: u64,
    /// Whether the last entry lies in the journal, so that the next one continues its run.
    pub adjoins: bool,
    /// The first index that the batch's truncations leave; taken by `Engine::give_back_truncated`.
    pub truncated: Option<u64>,
    /// The highest report of the batch.
    pub report: Option<u64>,
    /// The batch, which may create it, reports for it before it exists. The index reported is of another life, unless it is 0: what counts
    /// once it is created is only that it reports.
    pub reports_unborn: bool,
    /// Whether none of the entries that it has now is counted any more.
    pub replaced: bool,
    /// Whether it was admitted with chunks, or as one whose entries are carried; `None` where that was not asked, or it takes no chunks
    /// while some of them are being settled.
    pub admitted: Option<InChunks>,
}

/// Whether a replica holds chunks for its entries. No: they are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InChunks {
    Yes,
    No,
}

impl Touched {
    /// The replica as it stands now. All of it is written in one go: this is done for each replica of a batch.
    #[inline(always)]
    pub fn of(s: &ReplicaState) -> Self {
        Self {
            exists: s.exists,
            first: s.first,
            last: s.last,
            changed: false,
            removed: false,
            reset: false,
            suspect: s.state_suspect,
            anew: None,
            charge: s.charge,
            demand: demand(s),
            appended_meta: 0,
            grows: false,
            lives: 0,
            adjoins: s.places.spans().last().is_some_and(|span| span.last() == s.last),
            truncated: None,
            report: None,
            reports_unborn: false,
            replaced: false,
            admitted: None,
        }
    }

    /// Whether it was admitted as one whose entries are not carried.
    pub fn is_in_chunks(&self) -> bool {
        self.admitted == Some(InChunks::Yes)
    }

    /// The last entry may have gone. If its run is counted, it makes room for the next one; not while entries are being settled, when only
    /// new ones are counted.
    pub fn cut(&mut self) {
        self.adjoins &= self.demand.pledged.is_none();
    }

    /// Entries are kept from this index on.
    pub fn truncate(&mut self, first: u64) {
        self.first = self.first.max(first);
        if self.first > self.last {
            self.cut();
        }
    }

    /// Counts the metadata of an entry of the batch.
    pub fn append_meta(&mut self, bytes: u64) {
        self.demand.meta_bytes += bytes;
        self.appended_meta += bytes;
    }

    /// A snapshot takes all entries away: what they cost until now is given back when the batch is applied, with their terms, runs and
    /// descriptors. Not while some of them are being settled.
    pub fn replace_entries(&mut self, cell: &Cell) {
        if self.demand.pledged.is_none() {
            // What it has now is given back only once.
            let had = if self.replaced { 0 } else { cell.lock().meta_bytes_of_entries() };
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
