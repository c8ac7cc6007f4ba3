//! Reading several entries: a piece at a time, or a run of the journal. They stood in the log together.

use std::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::ahead::Ahead;
use super::read::Source;
use crate::batch::Entry;
use crate::error::{Error, Result};
use crate::format::EntryId;
use crate::format::piece::TermRuns;
use crate::index::{Cell, Loc, Place, ReplicaState};

/// Entries of the journal looked up under one lock.
const LOOKUPS: usize = 256;

impl Engine {
    /// Reads entries of `lo..hi` until `max_bytes` are exceeded; at least one. All of them stood in the log together: the index is looked
    /// at in steps, and a cut between two steps ends the reading.
    pub(crate) fn read_entries(&self, cell: &Cell, lo: u64, hi: u64, max_bytes: usize) -> Result<Vec<Entry>> {
        let ahead = Ahead::default();
        let mut reading = Reading { next: lo, hi, cuts: None, left: Some(max_bytes), out: Vec::new(), ahead };
        while reading.next < hi {
            let before = reading.next;
            match self.read_some(cell, &mut reading) {
                Ok(true) => {}
                Ok(false) => break,
                // What was read before the log changed under us is whole; the caller asks again for the rest.
                Err(_) if !reading.out.is_empty() => break,
                Err(error) => return Err(error),
            }
            if reading.next == before {
                // The entry moved while it was read, or is damaged: the single read tells which.
                let entry = match self.read_entry(cell, before) {
                    Ok(entry) => entry,
                    Err(_) if !reading.out.is_empty() => break,
                    Err(error) => return Err(error),
                };
                // A single entry is consistent in any case.
                let goes_on = reading.goes_on_in(&cell.lock()) || reading.out.is_empty();
                if !goes_on || !reading.push(entry.term, entry.data) {
                    break;
                }
            }
        }
        Ok(reading.out)
    }

    /// Whether all that such a reading would return is in memory. Looks at each entry that it may have to read, and no further.
    pub(crate) fn is_in_memory(&self, cell: &Cell, range: Range<u64>, max_bytes: usize) -> bool {
        let state = cell.lock();
        // Asked for behind the lock: the locations found under it lie below this head.
        let (head, recent) = (self.head(), self.recent.since().min(self.durable()));
        let mut bytes = 0;
        let (mut next, end) = (range.start.max(state.first), range.end.min(state.last.saturating_add(1)));
        while next < end && bytes <= max_bytes {
            let index = next;
            // Damage is told without reading; it may cover all the indexes there are.
            if let Some((_, last)) = state.damage_at(index) {
                next = last.saturating_add(1);
                continue;
            }
            next += 1;
            let (here, len) = match state.places.get(index) {
                None => (true, 0),
                Some(Place::Journal(loc)) => (loc.lsn(head) >= recent, loc.len() as usize),
                // The entries' lengths are in the piece: each counts as their mean.
                Some(Place::Chain(piece)) => {
                    (piece.mem.is_some(), piece.desc.bytes as usize / piece.desc.slots.max(1) as usize)
                }
            };
            if !here {
                return false;
            }
            bytes = bytes.saturating_add(len);
        }
        true
    }

    /// Reads on within one piece, or a run of the journal. `false`: the byte limit is met, or the log was cut meanwhile.
    fn read_some(&self, cell: &Cell, reading: &mut Reading) -> Result<bool> {
        let (next, hi) = (reading.next, reading.hi);
        let mut locs: Vec<(Loc, u64)> = Vec::new();
        let mut terms = TermRuns::new();
        let piece = {
            let state = cell.lock();
            if !reading.goes_on_in(&state) {
                return Ok(false);
            }
            match self.look(cell.id, &state, next)? {
                (_, Source::Chain(piece)) => {
                    let last = (hi - 1).min(state.last).min(piece.first.saturating_add(u64::from(piece.slots) - 1));
                    // Behind the piece's live part another place begins: ask the index where.
                    let live = state.places.get(next).map_or(next, |p| match p {
                        Place::Chain(p) => p.desc.last(),
                        Place::Journal(_) => next,
                    });
                    // A damaged entry may lie in a piece, too: it is reported, and never returned.
                    let damaged = state.damaged.iter().map(|&(first, _)| first).filter(|&first| first > next).min();
                    let n = last.min(live).min(damaged.map_or(u64::MAX, |first| first - 1)) - next + 1;
                    terms = state.terms.runs(next, u32::try_from(n).unwrap_or(u32::MAX));
                    Some(piece)
                }
                (term, Source::Journal(loc)) => {
                    locs.push((loc, term));
                    let mut bytes = loc.len() as usize;
                    for index in next + 1..hi.min(state.last.saturating_add(1)) {
                        let Some(loc) = state.places.loc(index).filter(|_| locs.len() < LOOKUPS) else { break };
                        if state.damage_at(index).is_some() {
                            break;
                        }
                        bytes += loc.len() as usize;
                        locs.push((loc, state.terms.get(index).unwrap_or(0)));
                        if reading.left.is_none_or(|left| bytes > left) {
                            break;
                        }
                    }
                    None
                }
            }
        };
        let failed = |next: u64, e| Error::io(format!("reading replica {} from entry {next}", cell.id), e);
        if let Some(piece) = piece {
            let bytes = piece.load(&*self.disk, self.map.as_ref()).map_err(|e| failed(next, e))?;
            for (n, term) in terms {
                for _ in 0..n {
                    let Some(data) = bytes.entry(self.geo.seed, reading.next, term) else { return Ok(true) };
                    if !reading.push(term, data) {
                        return Ok(false);
                    }
                }
            }
            return Ok(true);
        }
        self.read_ahead(cell, &mut reading.ahead, next, hi);
        let view = self.view();
        for (loc, term) in locs {
            let index = reading.next;
            let id = EntryId { replica: cell.id, index, term, len: loc.len() };
            let read =
                reading.ahead.watch(|| self.read_journal(id, loc, view.as_deref())).map_err(|e| failed(index, e))?;
            self.read_ahead(cell, &mut reading.ahead, index, hi);
            let Some(data) = read else { return Ok(true) };
            if !reading.push(term, data) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A reading of several entries, in progress.
struct Reading {
    next: u64,
    hi: u64,
    /// How often the replica had been cut at the first look.
    cuts: Option<u32>,
    /// Bytes of payload that may still be added. `None` once the first entry took more: then not even an empty one fits.
    left: Option<usize>,
    out: Vec<Entry>,
    ahead: Ahead,
}

impl Reading {
    /// Whether nothing was cut off since the first look, so that what is found now continues what was read.
    fn goes_on_in(&mut self, state: &ReplicaState) -> bool {
        *self.cuts.get_or_insert(state.cuts) == state.cuts
    }

    /// Adds the next entry unless it exceeds the limit; the first always fits.
    fn push(&mut self, term: u64, data: Bytes) -> bool {
        let left = self.left.and_then(|left| left.checked_sub(data.len()));
        if left.is_none() && !self.out.is_empty() {
            return false;
        }
        self.left = left;
        self.out.push(Entry { index: self.next, term, data });
        self.next += 1;
        true
    }
}
