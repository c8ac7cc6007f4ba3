//! Accounts: what must be held back so that the cleaner never waits for what it frees. The proof is in DESIGN.md.

use crate::format::BLOCK_BYTES;
use crate::format::piece::{Extent, MAX_TERM_RUNS, PIECE_HEADER_BYTES, PieceDesc};

/// What one replica holds of the accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Free chunks held for settling its journal-resident entries.
    pub chunks: u64,
    /// Bytes of the journal that are carried for it: metadata, and its entries while it is small.
    pub carried: u64,
}

impl Charge {
    /// How much more it is than `other`, in each field.
    pub fn beyond(self, other: Self) -> Self {
        Self { chunks: self.chunks.saturating_sub(other.chunks), carried: self.carried.saturating_sub(other.carried) }
    }

    fn add(&mut self, more: Self) {
        self.chunks = self.chunks.saturating_add(more.chunks);
        self.carried = self.carried.saturating_add(more.carried);
    }
}

/// What a replica's state asks of the accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Upper bound on the chunk space of its journal-resident entries.
    pub weight: u64,
    /// What these entries take in the journal.
    pub journal_bytes: u64,
    /// What its metadata takes in the journal.
    pub meta_bytes: u64,
    /// Changes of term: thirty-two of them may cost a piece.
    pub term_runs: u64,
    /// Changes of term of what is being settled, if nothing stays in the journal: they are still the replica's afterwards, and are priced
    /// with what was appended meanwhile.
    pub settled_terms: u64,
    /// Runs of indexes that lie in the journal: each begins a piece.
    pub spans: u64,
    /// What its [`Pledge`] holds, if there is one: then the rest of the demand is only what was appended since.
    pub pledged: Option<Held>,
}

/// What is held for entries that are to be settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub chunks: u64,
    /// Upper bound on the pieces that they become: each has a descriptor, which is carried.
    pub pieces: u64,
    /// If there are no chunks for the entries that stay: the journal bytes of these entries and of the pledged ones. They go on being
    /// carried, as is what is appended.
    pub carried: u64,
}

/// What a replica holds while some of its entries are being settled: the chunks for that stay its own, whatever callers do to it meanwhile.
#[derive(Debug)]
pub(crate) struct Pledge {
    /// What the cleaner may still take, and what the entries that it leaves in the journal need.
    pub held: Held,
    /// What was appended since: it reserves chunks of its own.
    pub fresh: Demand,
    /// Holds the chunk that pieces are written to, so that a truncation meanwhile does not free it.
    pub kept: Option<Extent>,
    /// Callers have cut the replica from this index on since the pledge was made: nothing there is what it was.
    pub cut: u64,
}

impl Pledge {
    /// `stays`: what else the replica has in the journal, and all of its changes of term.
    pub fn new(held: Held, stays: Demand, kept: Option<Extent>) -> Self {
        // What is appended adjoins what is being settled, but need not adjoin what stays: then it is one more run, and pays for it.
        let spans = if stays.weight > 0 { 2 } else { 1 };
        let settled_terms = if stays.weight > 0 { 0 } else { stays.term_runs };
        Self { held, fresh: Demand { spans, settled_terms, ..Demand::default() }, kept, cut: u64::MAX }
    }
}

impl Demand {
    /// Chunks in which all its journal-resident entries fit if they are settled at once: see DESIGN.md, "Accounts".
    pub fn chunks(&self, chunk_bytes: u64) -> u64 {
        self.bytes().div_ceil(chunk_bytes)
    }

    /// Chunks, and the pieces in them: two for each chunk (the first may end behind an older piece), one for each run beyond the first, and
    /// one for every `MAX_TERM_RUNS` changes of term.
    pub fn held(&self, chunk_bytes: u64) -> Held {
        let chunks = self.chunks(chunk_bytes);
        if chunks == 0 {
            return Held::default();
        }
        let ends = self.spans.saturating_sub(1) + self.terms() / MAX_TERM_RUNS as u64;
        Held { chunks, pieces: chunks * PIECES_PER_CHUNK + ends, carried: 0 }
    }

    /// The chunk space that these entries may take, in bytes.
    pub fn bytes(&self) -> u64 {
        if self.weight == 0 {
            // Entries placed in the chain directly during a settling brought these changes of term. They are the replica's: once the
            // settling is over, what stayed in the journal pays for all of them.
            return if self.pledged.is_some() { self.term_runs * WEIGHT_PER_TERM } else { 0 };
        }
        self.weight + self.spans.saturating_sub(1) * WEIGHT_PER_END + self.terms() * WEIGHT_PER_TERM
    }

    /// Changes of term that divide what lies in the journal, if anything does.
    fn terms(&self) -> u64 {
        self.term_runs + self.settled_terms
    }
}

/// The sums over all replicas, and their bounds.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    reserved: u64,
    carried: u64,
    sizes: Sizes,
    /// Slabs that the journal owns, and may own.
    slabs: u64,
    cap: u64,
    /// The most that this number of slabs may carry.
    budget: u64,
    /// Somebody waits for the journal to grow.
    pressed: bool,
    /// Chunks that could be had when the journal last found no slab to grow by.
    denied: Option<u64>,
    /// What all replicas have given up so far of what they held, and what they have taken.
    let_go: Charge,
    taken: Charge,
}

/// What never changes while a log is open.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    segment: u64,
    chunk: u64,
    /// Weight below which a replica is carried rather than settled.
    small: u64,
    /// The same for the largest carry fraction.
    most_small: u64,
    /// What is lost of a segment that the cleaner fills.
    waste: u64,
    /// The cleaner needs one segment more for each so many bytes carried.
    keeps_one: u64,
}

/// Pieces for each chunk that is taken, beside those that end early: the first of the two may end behind an older piece.
const PIECES_PER_CHUNK: u64 = 2;
/// Small replicas are carried while all that is carried stays below these quarters of the budget. The rest is for metadata, which has no
/// other place: if small replicas filled the budget, the next key would find the log full.
const SMALL_QUARTERS: u64 = 3;
/// What a piece costs that ends before its chunk is full: the rest of a block, and the next piece's header; 6/5 of that, as for entries,
/// because a small entry may close the chunk, too.
const WEIGHT_PER_END: u64 = ((BLOCK_BYTES + PIECE_HEADER_BYTES as u64) * 6).div_ceil(5);
/// What a change of term may cost in chunk space: `MAX_TERM_RUNS` of them end a piece.
const WEIGHT_PER_TERM: u64 = WEIGHT_PER_END.div_ceil(MAX_TERM_RUNS as u64);
/// The cleaner asks for room in steps of a sixteenth of a segment, and for what cannot be divided: an entry of a small replica, or a key
/// and its value with their records.
const STEPS: u64 = 16;
pub(crate) const MOST_STEP: u64 = 64 << 10;
const LARGEST_KEY: u64 = 4096 + 256 + 128;
/// Frames that the cleaner writes for one segment, beside the full ones: at a segment's end, at the end of the moves, and the one that
/// names the new tail. Each is rounded up to a block.
const FRAMES: u64 = 3;
/// A frame is not closed as full before it has gathered this much.
pub(crate) const FULL_FRAME: u64 = 1 << 19;
/// Segments that everything but the cleaner leaves free, whatever is carried.
pub(crate) const CLEANER_SLABS: u64 = 2;
/// Segments that appends leave free.
pub(crate) const RESERVED_SLABS: u64 = CLEANER_SLABS + 1;

/// The most that the cleaner asks room for at a time, except for what cannot be divided.
pub(crate) fn step(segment_bytes: u64) -> u64 {
    (segment_bytes / STEPS).min(MOST_STEP)
}

/// Weight below which a replica is carried rather than settled. A quarter of a segment at most: what does not fit a segment's rest
/// wastes it.
pub(crate) fn small_weight(chunk_bytes: u32, segment_bytes: u64, percent: u8) -> u64 {
    (u64::from(chunk_bytes) * u64::from(percent) / 100).min(segment_bytes / 4)
}

/// The part of a budget up to which small replicas are carried.
fn for_small(budget: u64) -> u64 {
    budget / 4 * SMALL_QUARTERS
}

impl Sizes {
    /// What the cleaner can fill of a segment.
    fn useful(self) -> u64 {
        self.segment - self.waste
    }

    /// The most that a journal of `slabs` slabs may carry: half of what is not kept back. So a cycle of cleaning frees at least as much as
    /// it carries.
    fn budget(self, slabs: u64) -> u64 {
        // What is carried keeps segments back, too: see `Accounts::cleaning`.
        let each = self.useful() * 3 * self.segment / (6 * self.segment + 4 * self.waste);
        slabs.saturating_sub(RESERVED_SLABS) * each
    }
}

impl Accounts {
    /// `slabs`: those that the journal owns, and those that it may own.
    pub fn new(chunk_bytes: u32, segment_bytes: u64, percent: u8, (slabs, cap): (u64, u64)) -> Self {
        let [small, most_small] = [percent, 100].map(|percent| small_weight(chunk_bytes, segment_bytes, percent));
        let step = step(segment_bytes).max(small).max(LARGEST_KEY);
        let frames = FRAMES + segment_bytes / FULL_FRAME;
        // At most half of a segment, whatever the geometry, so that nothing is divided by zero.
        let waste = (step + frames * BLOCK_BYTES).min(segment_bytes / 2);
        // A segment of which three quarters are carried takes `waste` more than it gives: this much is carried in as many of them as need
        // one segment more.
        let keeps_one = (segment_bytes - waste) * 3 * segment_bytes / (4 * waste);
        let sizes = Sizes { segment: segment_bytes, chunk: chunk_bytes.into(), small, most_small, waste, keeps_one };
        let budget = sizes.budget(slabs);
        let (let_go, taken) = Default::default();
        Self { reserved: 0, carried: 0, sizes, slabs, cap, budget, pressed: false, denied: None, let_go, taken }
    }

    /// Chunks held back in all.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes of metadata and small replicas.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// The bound on [`Accounts::carried`].
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The journal owns another number of slabs.
    pub fn resize(&mut self, slabs: u64) {
        self.slabs = slabs;
        self.budget = self.sizes.budget(slabs);
        (self.pressed, self.denied) = (false, None);
    }

    /// Segments that the cleaner needs beside those that are always kept for it: where one segment after the other is full of what is
    /// carried, each takes a little more than it gives. At least three quarters of such a segment are carried.
    pub fn cleaning(&self) -> usize {
        (self.carried / self.sizes.keeps_one) as usize
    }

    /// Whether the cleaner can go around all that is carried with so many segments `free`.
    pub fn is_covered(&self, free: usize) -> bool {
        self.covers(self.carried, free)
    }

    fn covers(&self, carried: u64, free: usize) -> bool {
        free as u64 >= CLEANER_SLABS + carried / self.sizes.keeps_one
    }

    /// Segments that all that is carried fills once it is cleaned.
    pub fn filled(&self) -> usize {
        self.carried.div_ceil(self.sizes.useful()) as usize
    }

    /// Whether `budget` has room for what is carried and for another segment of it.
    fn suffices(&self, budget: u64) -> bool {
        let budget = for_small(budget);
        self.carried + self.sizes.segment.min(budget / 4) <= budget
    }

    /// Whether the journal should grow: what is carried may spend the budget before the next segment is full.
    pub fn wants_to_grow(&self) -> bool {
        self.slabs < self.cap && (self.pressed || !self.suffices(self.budget))
    }

    /// Whether one slab less would do for what is carried.
    pub fn may_shrink(&self) -> bool {
        self.suffices(self.sizes.budget(self.slabs.saturating_sub(1)))
    }

    /// Somebody waits for the journal to grow.
    pub fn press(&mut self) {
        self.pressed = true;
    }

    /// Whether the journal may grow for what is carried, if so many chunks could be had.
    pub fn may_grow(&self, chunks: u64) -> bool {
        let slab = self.sizes.segment / self.sizes.chunk;
        self.slabs < self.cap && chunks >= slab && self.denied.is_none_or(|then| chunks >= then + slab)
    }

    /// Notes that there was no slab to grow by, with so many chunks that could be had: it is not asked again before there are more.
    pub fn deny(&mut self, chunks: u64) {
        (self.pressed, self.denied) = (false, Some(chunks));
    }

    /// What `demand` is charged, given the replica's charge `now` and so many `free` segments.
    ///
    /// Small replicas are carried while the budget has room; beyond it they reserve chunks like large ones. One that holds chunks is
    /// carried only once the segments that the cleaner needs for it are there: many may become small at once, which no admission checks.
    pub fn price(&self, now: Charge, demand: Demand, free: usize) -> Charge {
        // A replica is never priced as a small one while it is being settled: once all of it counts again, the budget may have no room for
        // it.
        if demand.pledged.is_some() || demand.journal_bytes == 0 {
            return self.price_in_chunks(demand);
        }
        let small = self.price_carried(demand);
        let others = self.carried - now.carried.min(self.carried);
        // A replica that does not grow stays carried: nobody checks whether there is a chunk for it. So does a large one that found none
        // when the log was opened.
        let stays = now.chunks == 0 && small.carried <= now.carried;
        let covered = now.chunks == 0 || self.covers(others + small.carried, free);
        if stays || self.is_small(demand) && covered && others + small.carried <= for_small(self.budget) {
            return small;
        }
        self.price_in_chunks(demand)
    }

    /// As [`Accounts::price`], for a change that no admission checked: a replica that holds no chunks takes none, even if the budget that
    /// carried it is spent since. Only metadata grows unasked, by a few bytes (a value in more extents, a range of damage): these are
    /// carried.
    pub fn price_unasked(&self, now: Charge, demand: Demand, free: usize) -> Charge {
        if now.chunks == 0 && demand.pledged.is_none() {
            return self.price_carried(demand);
        }
        self.price(now, demand, free)
    }

    /// What `demand` is charged if all of it is carried.
    pub fn price_carried(&self, demand: Demand) -> Charge {
        Charge { chunks: 0, carried: demand.meta_bytes + demand.journal_bytes }
    }

    /// What `demand` is charged if nothing but metadata is carried.
    pub fn price_in_chunks(&self, demand: Demand) -> Charge {
        let (pledged, own) = (demand.pledged.unwrap_or_default(), demand.held(self.sizes.chunk));
        if pledged.carried > 0 {
            let journal = pledged.carried + demand.journal_bytes;
            let carried = demand.meta_bytes + pledged.pieces * PieceDesc::TYPICAL_BYTES + journal;
            return Charge { chunks: pledged.chunks, carried };
        }
        let pieces = pledged.pieces + own.pieces;
        Charge { chunks: pledged.chunks + own.chunks, carried: demand.meta_bytes + pieces * PieceDesc::TYPICAL_BYTES }
    }

    /// Whether no small replica had to reserve chunks, whatever the order in which they were priced.
    pub fn has_room_for_small(&self) -> bool {
        self.carried <= for_small(self.budget)
    }

    /// Whether a replica of this demand is carried if there is room for it.
    pub fn is_small(&self, demand: Demand) -> bool {
        demand.weight < self.sizes.small
    }

    /// Whether it is, or would be with a larger carry fraction: then it may have held no chunks before the opening.
    pub fn may_have_been_small(&self, demand: Demand) -> bool {
        demand.weight < self.sizes.most_small
    }

    /// Replaces the budget that the journal's size gives.
    #[cfg(test)]
    pub fn with_budget(mut self, budget: u64) -> Self {
        self.budget = budget;
        self
    }

    /// Replaces what a replica is charged.
    pub fn settle(&mut self, charge: &mut Charge, new: Charge) {
        self.reserved = self.reserved - charge.chunks.min(self.reserved) + new.chunks;
        self.carried = self.carried - charge.carried.min(self.carried) + new.carried;
        self.let_go.add(charge.beyond(new));
        self.taken.add(new.beyond(*charge));
        *charge = new;
    }

    /// What all replicas have given up so far of what they held, and what they have taken: neither ever becomes less.
    pub fn moved(&self) -> (Charge, Charge) {
        (self.let_go, self.taken)
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
