//! The most that the operations of a batch take in a frame. A batch counts by it while it is filled (`Batch::log_bytes`), and the engine
//! plans by it when the batch is submitted: with two separate accounts, a batch that counts as small could be refused as too large.

use crate::format::BLOCK_BYTES;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::{MAX_TERM_RUNS, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc};
use crate::format::record::{CORE_BYTES, RECORD_HEAD};
use crate::format::varint;
use crate::index::{APPLIED_BYTES, APPLIED_KEY, INLINE_VALUE_BYTES};
use crate::operation::{Meta, What};

/// A run of one term in a descriptor: the number of entries, and the term.
const TERM_BYTES: u64 = 2 * varint::MAX_BYTES as u64;
/// A descriptor of one extent and one term, in a record of its own.
const DESCRIPTOR: u64 = RECORD_HEAD + PieceDesc::TYPICAL_BYTES + PieceDesc::EXTENT_BYTES + TERM_BYTES;
/// The descriptors of a value that is placed directly.
pub(crate) const VALUE_DESCRIPTORS: u64 = 2 * DESCRIPTOR;
// Such a value is charged its length, which is more.
const _: () = assert!(VALUE_DESCRIPTORS <= INLINE_VALUE_BYTES as u64);

/// What operations take in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Takes {
    /// The most that they take, wherever their entries and values come to lie and whether or not they begin lives.
    pub at_most: u64,
    /// What their entries take if all of them go inline.
    pub payload: u64,
}

impl Takes {
    #[inline]
    pub fn of(what: What, metas: &[Meta]) -> Self {
        let (brings, payload) = match what {
            What::Append { from, to, .. } => {
                let run = Run::of(metas.get(from..to).unwrap_or(&[]));
                // The smallest chunks, of one block, take the most descriptors.
                (run.inline().max(run.descriptors(BLOCK_BYTES)), run.inline_payload())
            }
            What::Put { value, .. } => (value.len as u64, 0),
            _ => (0, 0),
        };
        Self { at_most: CORE_BYTES + records(what) + brings, payload }
    }

    pub fn and(self, other: Self) -> Self {
        Self { at_most: self.at_most + other.at_most, payload: self.payload + other.payload }
    }

    /// Without a part of these.
    pub fn without(self, part: Self) -> Self {
        Self { at_most: self.at_most - part.at_most, payload: self.payload - part.payload }
    }
}

/// The longest that any operation of a batch brings, or brought before another ended it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Longest {
    /// What the entries of one take in a frame.
    pub payload: u64,
    pub key: usize,
    pub value: usize,
}

impl Longest {
    #[inline]
    pub fn see(&mut self, what: What, takes: Takes) {
        self.payload = self.payload.max(takes.payload);
        match what {
            What::Put { key, value } => (self.key, self.value) = (self.key.max(key.len), self.value.max(value.len)),
            What::Delete { key } => self.key = self.key.max(key.len),
            _ => {}
        }
    }
}

/// An operation's records, without the value or the entries that it brings.
pub(crate) fn records(what: What) -> u64 {
    match what {
        // One record for each term: see `Run`.
        What::Append { .. } => 0,
        What::Put { key, .. } | What::Delete { key } => RECORD_HEAD + key.len as u64,
        // `Applied`: with the truncation that it may let go. `Reset`: with the report that it may take back.
        What::Applied { .. } | What::Reset { .. } => 2 * RECORD_HEAD + (APPLIED_KEY.len() + APPLIED_BYTES) as u64,
        What::Truncate { .. } | What::Cut { .. } | What::Remove => RECORD_HEAD,
    }
}

/// The entries of one operation.
pub(crate) struct Run {
    entries: u64,
    payload: u64,
    terms: u64,
}

impl Run {
    #[inline]
    pub fn of(metas: &[Meta]) -> Self {
        // The common case: a batch is filled one entry at a time.
        if let [one] = metas {
            return Self { entries: 1, payload: one.len.into(), terms: 1 };
        }
        Self {
            entries: metas.len() as u64,
            payload: metas.iter().map(|meta| u64::from(meta.len)).sum(),
            terms: 1 + metas.windows(2).filter(|two| two[0].term != two[1].term).count() as u64,
        }
    }

    /// The bytes that the entries take in the journal, with their records.
    #[inline]
    fn inline(&self) -> u64 {
        self.inline_payload() + self.entries * varint::MAX_BYTES_32 as u64 + self.terms * RECORD_HEAD
    }

    /// The same without their records.
    #[inline]
    fn inline_payload(&self) -> u64 {
        self.payload + self.entries * ENTRY_CRC_BYTES as u64
    }

    /// The bytes that the descriptors take if the entries are placed directly, in chunks of `chunk` bytes.
    #[inline]
    pub fn descriptors(&self, chunk: u64) -> u64 {
        let bytes = self.payload + self.entries * PIECE_SLOT_BYTES as u64;
        let pieces = if bytes + PIECE_HEADER_BYTES as u64 <= chunk && self.terms <= MAX_TERM_RUNS as u64 {
            1
        } else {
            // Next-fit: two neighbouring pieces fill at least one chunk.
            2 * bytes.div_ceil(chunk) + 1 + self.terms / MAX_TERM_RUNS as u64
        };
        pieces * DESCRIPTOR + self.terms * TERM_BYTES + bytes / chunk * PieceDesc::EXTENT_BYTES
    }
}
