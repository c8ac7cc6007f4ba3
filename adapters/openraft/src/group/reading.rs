//! Reads entries: as of one moment, and, to send them for a leader, only from the log that it led.

use std::ops::{Bound, Range, RangeBounds};

use bytes::Bytes;
use strandlog::Entry;

use super::Group;
use crate::{Error, Result, slot};

impl Group {
    /// The last entry.
    pub fn last(&self) -> Result<Option<Bytes>> {
        let held = self.held();
        if held.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.replica.entry(held.end)?.data))
    }

    /// All entries of `wanted` that the log holds, as of one moment.
    pub fn read(&self, wanted: &Range<u64>) -> Result<Vec<Entry>> {
        loop {
            let cuts = self.cuts();
            match self.read_once(wanted) {
                Ok(entries) if self.cuts() == cuts => return Ok(entries),
                // The log was cut off or purged during the read. Each retry means that another task made progress, so this ends.
                Ok(_) => {}
                Err(Error::Log(strandlog::Error::Compacted { .. } | strandlog::Error::OutOfRange { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_once(&self, wanted: &Range<u64>) -> Result<Vec<Entry>> {
        let range = overlap(&self.held(), wanted);
        let mut entries = Vec::new();
        let mut slots = slots(&range);
        while !slots.is_empty() {
            let some = self.replica.entries(slots.clone(), usize::MAX)?;
            let Some(last) = some.last() else { break };
            slots.start = last.index.saturating_add(1);
            if entries.is_empty() {
                entries = some;
            } else {
                entries.extend(some);
            }
        }
        Ok(entries)
    }

    /// The first entries of `wanted` that the log holds: about `bytes` together, and at least one if it holds any.
    pub fn read_some(&self, wanted: &Range<u64>, bytes: usize) -> Result<Vec<Entry>> {
        loop {
            let cuts = self.cuts();
            let range = overlap(&self.held(), wanted);
            match self.replica.entries(slots(&range), bytes) {
                Ok(entries) if self.cuts() == cuts => return Ok(entries),
                Ok(_) => {}
                Err(strandlog::Error::Compacted { .. } | strandlog::Error::OutOfRange { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`read_some`](Self::read_some), for a leader to send: either all entries follow the one before `wanted`, or there are none. `cuts`: how
    /// often the log had been cut off when the leader's reader was made.
    ///
    /// openraft lets a leader's replication go on for a while when another leads, and may purge then what it still reads. It would send what it
    /// finds as following an entry that is no longer the one before it, and a node that has not heard of the other leader would believe it.
    pub fn read_to_send(&self, wanted: &Range<u64>, bytes: usize, cuts: u32) -> Result<Vec<Entry>> {
        let mut read = self.read_some(wanted, bytes)?;
        // A leader cuts nothing off its own log.
        if self.cuts() != cuts || read.first().is_some_and(|first| first.index != slot(wanted.start)) {
            read.clear();
        }
        Ok(read)
    }
}

/// The part of `wanted` that is held.
fn overlap(held: &Range<u64>, wanted: &Range<u64>) -> Range<u64> {
    let start = held.start.max(wanted.start);
    start..held.end.min(wanted.end).max(start)
}

fn slots(range: &Range<u64>) -> Range<u64> {
    range.start.saturating_add(1)..range.end.saturating_add(1)
}

/// Converts openraft's range into a plain one.
pub(crate) fn plain(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out() {
        assert_eq!(plain(&(3..7)), 3..7);
        assert_eq!(plain(&(3..=7)), 3..8);
        assert_eq!(plain(&(..7)), 0..7);
        assert_eq!(plain(&..), 0..u64::MAX);
        assert_eq!(plain(&(Bound::Excluded(u64::MAX), Bound::Included(u64::MAX))), u64::MAX..u64::MAX);
    }

    #[test]
    fn only_what_is_held_is_read() {
        assert_eq!(overlap(&(3..7), &(0..100)), 3..7);
        assert_eq!(overlap(&(3..7), &(4..6)), 4..6);
        assert!(overlap(&(3..7), &(7..9)).is_empty());
        assert!(overlap(&(3..7), &(0..3)).is_empty());
        assert_eq!(slots(&(3..7)), 4..8);
    }
}
