//! Entries, encoded for a batch.

use serde::Serialize;

use crate::codec::encode_behind;
use crate::{Error, Result};

/// Entries with consecutive indexes, in one buffer: an entry costs no allocation.
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

struct Mark {
    slot: u64,
    term: u64,
    /// Where its bytes end.
    end: usize,
}

impl Encoded {
    /// `place` gives an entry's index and term.
    pub fn of<E: Serialize>(
        group: u64,
        entries: impl IntoIterator<Item = E>,
        place: impl Fn(&E) -> (u64, u64),
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut marks: Vec<Mark> = Vec::new();
        for entry in entries {
            let (index, term) = place(&entry);
            let not_consecutive = || Error::NotConsecutive { group, index };
            // The log counts from 1.
            let slot = index.checked_add(1).ok_or_else(not_consecutive)?;
            if marks.last().is_some_and(|before| before.slot.checked_add(1) != Some(slot)) {
                return Err(not_consecutive());
            }
            bytes = encode_behind(&entry, bytes).map_err(|source| Error::Encode { group, what: "an entry", source })?;
            marks.push(Mark { slot, term, end: bytes.len() });
        }
        Ok(Self { bytes, marks })
    }

    /// Slot, term and bytes of each, as a batch takes them. A slot is at least 1.
    pub fn slots(&self) -> Vec<(u64, u64, &[u8])> {
        let mut start = 0;
        let mut slots = Vec::with_capacity(self.marks.len());
        for mark in &self.marks {
            slots.push((mark.slot, mark.term, self.bytes.get(start..mark.end).unwrap_or_default()));
            start = mark.end;
        }
        slots
    }
}
