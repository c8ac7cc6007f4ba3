//! How large a journal is: what it begins with, what it may grow to, and for what.

use crate::format::superblock::{MAX_JOURNAL_SLABS, Superblock};

/// The journal grows to this size so that the cleaner finds less alive: an opening looks at all of it.
const CYCLE_BYTES: u64 = 256 << 20;
/// It grows to this size while what it carries is more than [`CYCLES_CARRIED`] allows for: an opening takes at most twice as long.
const LONG_CYCLE_BYTES: u64 = 2 * CYCLE_BYTES;
/// How many times what it carries a journal should be: the entries of small replicas, which are carried, mostly die when their replica has
/// written as many again, if they are not moved before. Measured: with three times hardly anything is gained, with seven little more.
const CYCLES_CARRIED: u64 = 5;
/// It grows to this size for what it carries: ten million idle replicas.
const MOST_CARRYING: u64 = 4 << 30;
const _: () = assert!(LONG_CYCLE_BYTES <= MOST_CARRYING, "the default cap lies between them");
/// The fewest segments of a new journal: the cleaner needs two, truncation one, appends some.
pub(super) const MIN_FLOOR: u64 = 6;

/// The cap nearest to `wish` that a file of `slabs` slabs allows: no less than its journal begins with.
pub(super) fn possible_cap(slabs: u64, wish: u64) -> u64 {
    let floor = journal_floor(slabs);
    wish.clamp(floor, MAX_JOURNAL_SLABS as u64).min(slabs.saturating_sub(1)).max(floor)
}

/// Slabs that the journal may grow to if no cap was chosen: half a gibibyte, or what many idle replicas need.
pub(crate) fn default_cap(slabs: u64, segment: u64) -> u64 {
    let capacity = slabs * segment;
    possible_cap(slabs, (capacity / 2).min((capacity / 8).clamp(LONG_CYCLE_BYTES, MOST_CARRYING)) / segment)
}

/// Whether the cap is the default, not chosen.
pub(crate) fn has_default_cap(sb: &Superblock) -> bool {
    u64::from(sb.journal_cap) == default_cap(sb.slab_count.into(), sb.segment_bytes.into())
}

/// Slabs that a journal may have to move less, rather than for want of room: all of a cap that was chosen; of the default, no more than
/// opens quickly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cycle {
    /// Whatever the journal carries.
    pub least: u32,
    most: u32,
    segment: u64,
}

impl Cycle {
    #[cfg(test)]
    pub fn between(least: u32, most: u32, segment: u64) -> Self {
        Self { least, most, segment }
    }

    pub fn new(sb: &Superblock) -> Self {
        let segment = u64::from(sb.segment_bytes);
        // At most the cap, which fits.
        let slabs = |bytes: u64| ((bytes / segment).max(sb.journal_floor.into()) as u32).min(sb.journal_cap);
        let (least, most) = if has_default_cap(sb) {
            (slabs(CYCLE_BYTES), slabs(LONG_CYCLE_BYTES))
        } else {
            (sb.journal_cap, sb.journal_cap)
        };
        Self { least, most, segment }
    }

    /// Slabs while so many bytes are carried.
    pub fn slabs(self, carried: u64) -> u32 {
        let wish = carried.saturating_mul(CYCLES_CARRIED).div_ceil(self.segment);
        // Below the clamp it fits.
        wish.clamp(self.least.into(), self.most.into()) as u32
    }
}

/// Slabs that the journal of a file of `slabs` never gives up: one sixteenth. A quarter of it then has room for the descriptors of a file
/// full of small pieces.
pub(crate) fn journal_floor(slabs: u64) -> u64 {
    (slabs / 16).clamp(MIN_FLOOR, MAX_JOURNAL_SLABS as u64)
}
