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
    /// How much more than `other` it is, of each.
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
    /// What they take in the journal.
    pub journal_bytes: u64,
    /// What its metadata takes in the journal.
    pub meta_bytes: u64,
    /// Changes of term: each may cost a piece of its own in thirty-two.
    pub term_runs: u64,
    /// Those of what is being settled, where nothing stays: the replica's still, once that is over, and parting what came then.
    pub settled_terms: u64,
    /// Runs of indexes that lie in the journal: each begins a piece.
    pub spans: u64,
    /// What its [`Pledge`] holds, if there is one: the rest of the demand is what came since.
    pub pledged: Option<Held>,
}

/// What is held for entries that are to be settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub chunks: u64,
    /// Upper bound on the pieces that they become: each has a descriptor, which is carried.
    pub pieces: u64,
    /// Where there are no chunks for what stays: what these and that take in the journal. It goes on being carried, and so is what comes.
    pub carried: u64,
}

/// What a replica holds while some of its entries are being settled: whatever callers do to it meanwhile, the chunks for that stay its own.
#[derive(Debug)]
pub(crate) struct Pledge {
    /// What the cleaner may still take, and what it leaves in the journal needs.
    pub held: Held,
    /// What came since, and finds its place by itself.
    pub fresh: Demand,
    /// Holds the chunk that is written on: truncated meanwhile, it does not become free.
    pub kept: Option<Extent>,
    /// From this index on nothing is what it was when the pledge was made: callers cut it since.
    pub cut: u64,
}

impl Pledge {
    /// `stays`: what the replica has in the journal beside that, and all of its terms.
    pub fn new(held: Held, stays: Demand, kept: Option<Extent>) -> Self {
        // What comes need not adjoin what stays, though it adjoins what goes: then it is a run more, and pays for it.
        let spans = if stays.weight > 0 { 2 } else { 1 };
        let settled_terms = if stays.weight > 0 { 0 } else { stays.term_runs };
        Self { held, fresh: Demand { spans, settled_terms, ..Demand::default() }, kept, cut: u64::MAX }
    }
}

impl Demand {
    /// Chunks in which all that lies in the journal finds its place, settled at once: see DESIGN.md, "Accounts".
    pub fn chunks(&self, chunk_bytes: u64) -> u64 {
        self.bytes().div_ceil(chunk_bytes)
    }

    /// Chunks, and the pieces in them: one in each that is begun, and the one that a chunk ends, too; and one for each run, and for so
    /// many changes of term.
    pub fn held(&self, chunk_bytes: u64) -> Held {
        let chunks = self.chunks(chunk_bytes);
        if chunks == 0 {
            return Held::default();
        }
        let ends = self.spans.saturating_sub(1) + self.terms() / MAX_TERM_RUNS as u64;
        Held { chunks, pieces: chunks * PIECES_PER_CHUNK + ends, carried: 0 }
    }

    /// What of them it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        if self.weight == 0 {
            // Terms of what came to the chain directly, beside a settling: they are the replica's, and once that is over what stayed in the
            // journal pays for all of those.
            return if self.pledged.is_some() { self.term_runs * WEIGHT_PER_TERM } else { 0 };
        }
        self.weight + self.spans.saturating_sub(1) * WEIGHT_PER_END + self.terms() * WEIGHT_PER_TERM
    }

    /// Those that part what lies in the journal, where something does.
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
    /// The bound on what so many slabs carry.
    budget: u64,
    /// Somebody waits for the journal to grow.
    pressed: bool,
    /// Chunks that could be had when it last found no slab to grow by.
    denied: Option<u64>,
    /// What replicas gave up of what they held so far, and what they took.
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
    /// As that, whatever fraction is asked for.
    most_small: u64,
    /// What of a segment that the cleaner fills is lost.
    waste: u64,
    /// For so many bytes carried the cleaner needs a segment more.
    keeps_one: u64,
}

/// Pieces for each chunk that is taken, beside those that end early: the first of them may end behind an older one.
const PIECES_PER_CHUNK: u64 = 2;
/// Small replicas are carried while all that is carried stays below these quarters of the budget. The rest is for metadata, which has
/// no other place: were the budget filled by small replicas, the next key would find the log full.
const SMALL_QUARTERS: u64 = 3;
/// What a piece costs that ends before its chunk is full: what is left of a block, and the header behind it; and as much more as entries
/// pay, as what it fills may be closed by a small one, too.
const WEIGHT_PER_END: u64 = ((BLOCK_BYTES + PIECE_HEADER_BYTES as u64) * 6).div_ceil(5);
/// What a change of term may cost in chunk space: so many of them end a piece.
const WEIGHT_PER_TERM: u64 = WEIGHT_PER_END.div_ceil(MAX_TERM_RUNS as u64);
/// The cleaner asks for room in steps of a segment's sixteenth, and of what cannot be divided: an entry of a small replica, or a key
/// and its value with their records.
const STEPS: u64 = 16;
pub(crate) const MOST_STEP: u64 = 64 << 10;
const LARGEST_KEY: u64 = 4096 + 256 + 128;
/// Frames that the cleaner writes for one segment, beside those that are full: at a segment's end, at the end of the moves, and the
/// one that names the new tail. Each is rounded up to a block.
const FRAMES: u64 = 3;
/// No frame is closed for being full before it has gathered so much.
pub(crate) const FULL_FRAME: u64 = 1 << 19;
/// Segments that all but the cleaner leave free, whatever is carried.
pub(crate) const CLEANER_SLABS: u64 = 2;
/// And appends.
pub(crate) const RESERVED_SLABS: u64 = CLEANER_SLABS + 1;

/// The most that the cleaner asks room for at a time, but for what cannot be divided.
pub(crate) fn step(segment_bytes: u64) -> u64 {
    (segment_bytes / STEPS).min(MOST_STEP)
}

/// Weight below which a replica is carried rather than settled. A quarter of a segment at most: what does not fit a segment's rest
/// wastes it.
pub(crate) fn small_weight(chunk_bytes: u32, segment_bytes: u64, percent: u8) -> u64 {
    (u64::from(chunk_bytes) * u64::from(percent) / 100).min(segment_bytes / 4)
}

/// What of a budget may be spent with small replicas among it.
fn for_small(budget: u64) -> u64 {
    budget / 4 * SMALL_QUARTERS
}

impl Sizes {
    /// What is left of a segment that the cleaner fills.
    fn useful(self) -> u64 {
        self.segment - self.waste
    }

    /// The bound on what a journal of so many slabs carries: half of what is not kept back. So much is cleaned at least for what is
    /// carried on the way.
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
        // No more than half, whatever the geometry: nothing is divided by nought.
        let waste = (step + frames * BLOCK_BYTES).min(segment_bytes / 2);
        // What is carried in three quarters of a segment, of which each takes so much more than it gives.
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
    /// carried, each takes a little more than it gives. Three quarters of such a segment are carried, at least.
    pub fn cleaning(&self) -> usize {
        (self.carried / self.sizes.keeps_one) as usize
    }

    /// Whether the cleaner gets around all that is carried where so many segments are `free`.
    pub fn is_covered(&self, free: usize) -> bool {
        self.covers(self.carried, free)
    }

    fn covers(&self, carried: u64, free: usize) -> bool {
        free as u64 >= CLEANER_SLABS + carried / self.sizes.keeps_one
    }

    /// Segments that what is carried fills once it is cleaned.
    pub fn filled(&self) -> usize {
        self.carried.div_ceil(self.sizes.useful()) as usize
    }

    /// Whether a budget has room for what is carried, and for another segment of it.
    fn suffices(&self, budget: u64) -> bool {
        let budget = for_small(budget);
        self.carried + self.sizes.segment.min(budget / 4) <= budget
    }

    /// Whether the journal had better grow: what is carried may spend the budget before the next segment is full.
    pub fn wants_to_grow(&self) -> bool {
        self.slabs < self.cap && (self.pressed || !self.suffices(self.budget))
    }

    /// Whether a slab less would do for what is carried.
    pub fn may_shrink(&self) -> bool {
        self.suffices(self.sizes.budget(self.slabs.saturating_sub(1)))
    }

    /// Somebody waits for the journal to grow.
    pub fn press(&mut self) {
        self.pressed = true;
    }

    /// Whether the journal may grow for what is carried, where so many chunks could be had.
    pub fn may_grow(&self, chunks: u64) -> bool {
        let slab = self.sizes.segment / self.sizes.chunk;
        self.slabs < self.cap && chunks >= slab && self.denied.is_none_or(|then| chunks >= then + slab)
    }

    /// There was no slab to grow by, with so many chunks that could be had: not asked again before there are more.
    pub fn deny(&mut self, chunks: u64) {
        (self.pressed, self.denied) = (false, Some(chunks));
    }

    /// What `demand` is charged, given what the replica is charged now, and that so many segments are `free`.
    ///
    /// Small replicas are carried while the budget has room; beyond it they reserve chunks like large ones. One that holds chunks is carried
    /// only once the segments that the cleaner needs for it are there: many may become small at once, which nobody is asked for.
    pub fn price(&self, now: Charge, demand: Demand, free: usize) -> Charge {
        // Never as a small one while it is being settled: when all of it is there may be no room for it among these.
        if demand.pledged.is_some() || demand.journal_bytes == 0 {
            return self.price_in_chunks(demand);
        }
        let small = self.price_carried(demand);
        let others = self.carried - now.carried.min(self.carried);
        // One that does not grow stays what it is: nobody asks whether there is a chunk for it. Nor for a large one that found none when
        // the log was opened.
        let stays = now.chunks == 0 && small.carried <= now.carried;
        let covered = now.chunks == 0 || self.covers(others + small.carried, free);
        if stays || self.is_small(demand) && covered && others + small.carried <= for_small(self.budget) {
            return small;
        }
        self.price_in_chunks(demand)
    }

    /// As [`Accounts::price`], where nobody was asked: who holds no chunks takes none, whatever became of what it is carried in. Only metadata
    /// grows unasked, by a few bytes (a value in more extents, a range of damage): those are carried.
    pub fn price_unasked(&self, now: Charge, demand: Demand, free: usize) -> Charge {
        if now.chunks == 0 && demand.pledged.is_none() {
            return self.price_carried(demand);
        }
        self.price(now, demand, free)
    }

    /// What `demand` is charged where all of it is carried.
    pub fn price_carried(&self, demand: Demand) -> Charge {
        Charge { chunks: 0, carried: demand.meta_bytes + demand.journal_bytes }
    }

    /// What `demand` is charged where nothing is carried but metadata.
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

    /// Whether a replica of this demand is carried where there is room for it.
    pub fn is_small(&self, demand: Demand) -> bool {
        demand.weight < self.sizes.small
    }

    /// Whether it is, or would be were more carried: it may have held no chunks before the opening.
    pub fn may_have_been_small(&self, demand: Demand) -> bool {
        demand.weight < self.sizes.most_small
    }

    /// Another budget than the journal's size gives.
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

    /// What replicas gave up of what they held so far, and what they took: neither ever becomes less.
    pub fn moved(&self) -> (Charge, Charge) {
        (self.let_go, self.taken)
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
