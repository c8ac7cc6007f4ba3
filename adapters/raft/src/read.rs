//! Reads entries from the log, on any thread.

use raft::eraftpb::Entry;
use raft::util::limit_size;
use strandlog::Replica;

use crate::codec::entry;
use crate::error::{Error, Result};

/// The log's limit for a read. An encoded entry is smaller than the form that raft counts: so the log cuts off too little, never too much,
/// and raft's own `limit_size` does the rest.
pub(crate) fn payload_limit(max_size: Option<u64>) -> usize {
    max_size.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
}

/// Entries `[low, high)`: as many as fit `max_size` bytes, and at least one.
pub(crate) fn read_entries(replica: &Replica, low: u64, high: u64, max_size: Option<u64>) -> Result<Vec<Entry>> {
    if low >= high {
        return Ok(Vec::new());
    }
    let stored = replica.entries(low..high, payload_limit(max_size))?;
    let mut entries = Vec::with_capacity(stored.len());
    for one in &stored {
        let decoded = entry::decode(one.index, one.term, &one.data);
        let undecodable = |source| Error::Decode { group: replica.id(), what: "entry", source };
        entries.push(decoded.map_err(undecodable)?);
    }
    limit_size(&mut entries, max_size);
    Ok(entries)
}
