//! Gathering: what is alive in the segment, and its bytes.

use bytes::Bytes;

use crate::disk::Disk;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::{EntryId, POOL_OFFSET, Seed};
use crate::index::{Cell, Loc};
use crate::sync::Arc;

/// Payload gathered before it is written: bounds the cleaner's memory.
const GROUP_BYTES: u64 = 4 << 20;

/// An entry as it was seen: it counts only if it still stands so when it is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub index: u64,
    pub term: u64,
    pub loc: Loc,
}

/// Entries of one replica about to be moved.
#[derive(Debug)]
pub(super) struct Moving {
    pub cell: Arc<Cell>,
    pub incarnation: u64,
    pub entries: Vec<Seen>,
}

/// The segment's bytes, read once, when first needed.
pub(super) struct SegmentSource {
    pub seq: u64,
    base: u64,
    offset: u64,
    len: usize,
    bytes: Option<Vec<u8>>,
}

impl SegmentSource {
    /// The checked payload at `lsn`, if the segment holds it.
    fn get(&mut self, disk: &dyn Disk, seed: Seed, id: EntryId, lsn: u64) -> std::io::Result<Option<&[u8]>> {
        if self.bytes.is_none() {
            let mut bytes = vec![0; self.len];
            disk.read_at(self.offset, &mut bytes)?;
            self.bytes = Some(bytes);
        }
        let Some(at) = lsn.checked_sub(self.base).and_then(|n| usize::try_from(n).ok()) else { return Ok(None) };
        let found = self.bytes.as_ref().and_then(|bytes| {
            let stored = bytes.get(at..)?.get(..ENTRY_CRC_BYTES)?;
            let payload = bytes.get(at + ENTRY_CRC_BYTES..)?.get(..id.len as usize)?;
            let crc = seed.entry_crc(crc32c::crc32c(payload), lsn, id);
            (stored == crc.to_le_bytes()).then_some(payload)
        });
        Ok(found)
    }
}

impl Engine {
    pub(super) fn segment_source(&self, seq: u64, slab: u32) -> SegmentSource {
        SegmentSource {
            seq,
            base: seq * self.geo.segment_bytes,
            offset: POOL_OFFSET + u64::from(slab) * self.geo.segment_bytes,
            len: self.geo.segment_bytes as usize,
            bytes: None,
        }
    }

    /// Settles or carries every entry alive in the segment. `false`: no room.
    pub(super) fn move_entries(&self, seq: u64, participants: &[u64], source: &mut SegmentSource) -> Result<bool> {
        let mut settle: Vec<Moving> = Vec::new();
        let mut bytes = 0;
        for &id in participants {
            let Some(cell) = self.registry.get(id) else { continue };
            let Some((moving, large)) = self.alive_in(seq, cell) else { continue };
            if !large {
                if !self.carry(&moving, source)? {
                    return Ok(false);
                }
                continue;
            }
            bytes += moving.entries.iter().map(|e| u64::from(e.loc.len()) + 8).sum::<u64>();
            settle.push(moving);
            if bytes >= GROUP_BYTES {
                if !self.settle(std::mem::take(&mut settle), source)? {
                    return Ok(false);
                }
                bytes = 0;
            }
        }
        if settle.is_empty() { Ok(true) } else { self.settle(settle, source) }
    }

    /// What of the replica is to be moved: all its durable journal-resident entries where it is large, those in the segment
    /// where it is small. `None`: nothing of it is alive there.
    fn alive_in(&self, seq: u64, cell: Arc<Cell>) -> Option<(Moving, bool)> {
        let head = self.head();
        let durable = self.durable();
        let state = cell.lock();
        let (weight, reserved) = (state.places.weight(), state.charge.chunks > 0);
        let in_segment = |loc: Loc| loc.lsn(head) / self.geo.segment_bytes == seq;
        if !state.exists || !state.places.spans().iter().any(|s| s.locs.iter().any(|&l| in_segment(l))) {
            return None;
        }
        let large = reserved || weight >= self.small_weight();
        let mut entries = Vec::new();
        for span in state.places.spans() {
            for (i, &loc) in span.locs.iter().enumerate() {
                let index = span.first + i as u64;
                if (large && loc.lsn(head) < durable) || in_segment(loc) {
                    entries.push(Seen { index, term: state.terms.get(index).unwrap_or(0), loc });
                }
            }
        }
        let incarnation = state.incarnation;
        drop(state);
        Some((Moving { cell, incarnation, entries }, large))
    }

    /// The checked payload of an entry. `None`: it is gone from the index by now, or it is damaged, which is then recorded.
    pub(super) fn payload(&self, moving: &Moving, seen: Seen, source: &mut SegmentSource) -> Result<Option<Bytes>> {
        let id = EntryId { replica: moving.cell.id, index: seen.index, term: seen.term, len: seen.loc.len() };
        let lsn = seen.loc.lsn(self.head());
        let io = |e| crate::error::Error::io("reading the journal to clean it", e);
        if lsn / self.geo.segment_bytes == source.seq
            && let Some(payload) = source.get(&*self.disk, self.geo.seed, id, lsn).map_err(io)?
        {
            return Ok(Some(Bytes::copy_from_slice(payload)));
        }
        // Again from where readers read: a mismatch is called damage only when it stands.
        if let Some(payload) = self.read_journal(id, seen.loc).map_err(io)? {
            return Ok(Some(payload));
        }
        self.mark_damaged(moving, seen);
        Ok(None)
    }

    /// The entry cannot be read: it is recorded as damage, so that the cleaner goes on and nobody is given wrong bytes.
    fn mark_damaged(&self, moving: &Moving, seen: Seen) {
        let mut s = self.seq.lock();
        let mut state = moving.cell.lock();
        if state.incarnation != moving.incarnation || state.places.loc(seen.index) != Some(seen.loc) {
            return;
        }
        tracing::error!(replica = moving.cell.id, index = seen.index, "a journal entry is damaged");
        state.places.forget_journal(seen.index, seen.index, self.geo.chunk_bytes);
        state.add_damage(seen.index, seen.index);
        // Carried with its metadata: the CORE counts as lying in this segment.
        state.core_seq = s.segments.tail();
        self.recharge(&mut s, &mut state);
    }
}
