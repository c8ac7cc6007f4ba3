//! Where a group's log changes its configuration, after the applied index.
//!
//! Raft applies such entries by itself, while the log's configuration stays that of the applied index: a caller that moves that index past
//! a change must give the resulting configuration. Entries are looked at when they are written, and those in the log at the opening.

use std::ops::Range;

use raft::eraftpb::{Entry, EntryType};
use strandlog::Replica;

use crate::error::Result;
use crate::read::read_entries;

/// Bytes of entries that are looked at together.
const SCAN_BYTES: u64 = 1 << 20;

/// The known changes, and the range in which there may be others.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Ascending.
    known: Vec<u64>,
    /// Entries that have not been looked at yet.
    unseen: Range<u64>,
}

impl Changes {
    /// The entries in `unseen` have not been looked at, and there are no others.
    pub fn unseen(unseen: Range<u64>) -> Self {
        Self { known: Vec::new(), unseen }
    }

    /// The entries from `from` on are cut off.
    pub fn cut(&mut self, from: u64) {
        self.known.retain(|&index| index < from);
        self.unseen.end = self.unseen.end.min(from);
    }

    /// These entries are written; they replace all from the first one's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.cut(first.index);
        self.known.extend(entries.iter().filter(|entry| is_change(entry)).map(|entry| entry.index));
    }

    /// The configuration is now known as of `index`; before, it was as of `before`.
    pub fn pass(&mut self, before: u64, index: u64) {
        if index < before {
            // The changes in between were forgotten when they were passed.
            let end = before.saturating_add(1).max(self.unseen.end);
            self.unseen = index.saturating_add(1)..end;
            return;
        }
        self.known.retain(|&change| change > index);
        self.unseen.start = self.unseen.start.max(index.saturating_add(1));
    }

    /// The first change at or below `index`.
    pub fn first(&mut self, replica: &Replica, index: u64) -> Result<Option<u64>> {
        let end = self.unseen.end.min(index.saturating_add(1));
        while self.unseen.start < end {
            let entries = read_entries(replica, self.unseen.start, end, Some(SCAN_BYTES))?;
            let Some(last) = entries.last() else { break };
            for entry in entries.iter().filter(|entry| is_change(entry)) {
                if let Err(place) = self.known.binary_search(&entry.index) {
                    self.known.insert(place, entry.index);
                }
            }
            self.unseen.start = last.index.saturating_add(1);
        }
        Ok(self.known.first().copied().filter(|&change| change <= index))
    }
}

fn is_change(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}
