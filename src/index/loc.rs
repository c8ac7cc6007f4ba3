//! Where a journal-resident entry lies, in eight bytes.

use std::ops::Range;

/// Bits of LSN that are kept: the journal may span 1 TiB, far beyond its largest size.
const LSN_BITS: u32 = 40;
/// Bits of length.
const LEN_BITS: u32 = 64 - LSN_BITS;
const LSN_MASK: u64 = (1 << LSN_BITS) - 1;

/// The largest entry whose length fits; larger ones are always placed directly.
pub(crate) const MAX_INLINE_ENTRY: u32 = (1 << LEN_BITS) - 1;

/// How far apart two entries may lie: of two that lie farther apart nobody could tell which is behind the other.
const SPAN: u64 = LSN_MASK / 2;
/// How far behind the tail a log may go on after an opening. It fills no more than all slabs from there before the tail moves.
pub(crate) const MAX_JOURNAL_LEAP: u64 = SPAN / 2;
const _: () = assert!(MAX_JOURNAL_LEAP + crate::format::superblock::MAX_JOURNAL_SLABS as u64 * (64 << 20) < SPAN);

// The longest journal (every slab that fits a superblock, of the largest size) must be unambiguous, and so must be which of two in it
// lies behind the other.
const _: () = assert!(crate::format::superblock::MAX_JOURNAL_SLABS as u64 * (64 << 20) < SPAN);

/// The low bits of the LSN at which `crc | payload` begins, and the payload's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loc(u64);

impl Loc {
    pub fn new(lsn: u64, len: u32) -> Self {
        debug_assert!(len <= MAX_INLINE_ENTRY);
        Self((lsn & LSN_MASK) << LEN_BITS | u64::from(len & MAX_INLINE_ENTRY))
    }

    pub fn len(self) -> u32 {
        (self.0 & u64::from(MAX_INLINE_ENTRY)) as u32
    }

    /// The full LSN, given a `head` at or behind it by less than the journal's span.
    pub fn lsn(self, head: u64) -> u64 {
        head - (head.wrapping_sub(self.0 >> LEN_BITS) & LSN_MASK).min(head)
    }

    /// Whether it begins at these LSNs, the first of which is within the journal's span of it.
    pub fn is_in(self, lsns: &Range<u64>) -> bool {
        self.behind(lsns.start) < lsns.end.saturating_sub(lsns.start)
    }

    /// How far behind LSN `from` it begins.
    pub fn behind(self, from: u64) -> u64 {
        (self.0 >> LEN_BITS).wrapping_sub(from) & LSN_MASK
    }

    /// Whether it lies behind another of the same journal.
    pub fn follows(self, other: Self) -> bool {
        self.behind(other.0 >> LEN_BITS) <= SPAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_lsn_comes_back_across_a_wrap() {
        for lsn in [0, 1, 5 << 39, (1 << 40) - 1, 1 << 40, (1 << 50) + 12345] {
            for ahead in [0, 1, 1 << 30, (1 << 40) - 1] {
                let loc = Loc::new(lsn, 77);
                assert_eq!((loc.lsn(lsn + ahead), loc.len()), (lsn, 77));
            }
        }
        assert_eq!(Loc::new(3, MAX_INLINE_ENTRY).len(), MAX_INLINE_ENTRY);
    }

    #[test]
    fn which_of_two_lies_behind_the_other_across_a_wrap() {
        for lsn in [0, 77, (1 << 40) - 100, (1 << 50) - 1] {
            for ahead in [1, 100, 250 << 30] {
                let (one, other) = (Loc::new(lsn, 7), Loc::new(lsn + ahead, 3));
                assert!(other.follows(one) && !one.follows(other), "{lsn} {ahead}");
                assert_eq!(other.behind(lsn), ahead);
            }
        }
    }

    #[test]
    fn a_range_of_lsns_holds_what_begins_in_it_across_a_wrap() {
        for from in [0, 77, (1 << 40) - 100, (1 << 50) - 1] {
            for (lsn, held) in [(from, true), (from + 999, true), (from + 1000, false), (from + (1 << 39), false)] {
                assert_eq!(Loc::new(lsn, MAX_INLINE_ENTRY).is_in(&(from..from + 1000)), held, "{from} {lsn}");
            }
            if let Some(before) = from.checked_sub(1) {
                assert!(!Loc::new(before, 7).is_in(&(from..from + 1000)), "{from}");
            }
            assert!(!Loc::new(from, 7).is_in(&(from..from)));
        }
    }
}
