//! What entries take: in the journal, and at most in chunks.

use super::loc::Loc;
use crate::format::piece::{PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, is_bare};

/// What an entry takes in the journal besides its payload: checksum, length, its share of a record.
pub(super) const JOURNAL_OVERHEAD: u64 = 24;

/// What an entry takes in the journal.
pub(crate) fn journal_bytes(len: u32) -> u64 {
    u64::from(len) + JOURNAL_OVERHEAD
}

/// Upper bound on the chunk space that an entry takes once packed by next-fit: see DESIGN.md, "Accounts".
///
/// A chunk closed by a small entry is at least seven eighths full, so entries pay a fifth more than their own size (and with it the
/// piece's header), but never more than a chunk; one closed by a large entry wastes less than that one takes, so large entries pay that,
/// too. One that lies bare pays the chunks it fills, and the one that it closes.
pub(crate) fn weight(len: u32, chunk_bytes: u32) -> u64 {
    let (slot, chunk) = (u64::from(len) + PIECE_SLOT_BYTES as u64, u64::from(chunk_bytes));
    if is_bare(len as usize, chunk_bytes) {
        return u64::from(len).next_multiple_of(chunk) + chunk;
    }
    let own = (slot * 6 / 5 + 1).min(chunk);
    if slot >= chunk / 8 { own + slot + PIECE_HEADER_BYTES as u64 } else { own }
}

/// What the journal-resident entries of a replica take.
#[derive(Debug, Default)]
pub(super) struct Resident {
    /// Upper bound on what they take when they are packed into chunks.
    pub weight: u64,
    /// What they take in the journal.
    pub bytes: u64,
}

impl Resident {
    pub fn add(&mut self, loc: Loc, chunk: u32) {
        self.weight += weight(loc.len(), chunk);
        self.bytes += journal_bytes(loc.len());
    }

    /// Takes these off: they are no longer held.
    pub fn let_go(&mut self, locs: &[Loc], chunk: u32) {
        for loc in locs {
            self.weight -= weight(loc.len(), chunk);
            self.bytes -= journal_bytes(loc.len());
        }
    }
}
