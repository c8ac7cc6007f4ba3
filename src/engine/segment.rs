//! Entries out of the journal: from memory while their frame is recent, else out of their segment, which stays pinned meanwhile.

use std::io;

use bytes::Bytes;

use super::Engine;
use crate::disk::{BLOCK, View};
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::{EntryId, POOL_OFFSET, crc};
use crate::index::Loc;
use crate::sync::Arc;

/// A slice of a frame is handed out only if it is more than one part in this many: small slices must not keep big buffers alive.
const SHARE_PART: usize = 4;

impl Engine {
    /// Reads a journal-resident entry: from memory while its frame is recent, else from its segment.
    ///
    /// `None` when the bytes are not this entry's: its segment was reused, or they rotted.
    pub(crate) fn read_journal(&self, id: EntryId, loc: Loc, view: Option<&View>) -> io::Result<Option<Bytes>> {
        let lsn = loc.lsn(self.head());
        let data = lsn + ENTRY_CRC_BYTES as u64;
        let len = loc.len() as usize;
        // Twice: the frame may be sealed between the look at recent frames and the look at unsealed ones.
        for _ in 0..2 {
            if let Some(frame) = self.recent.find(lsn) {
                let Some(bytes) = frame.slice(data, len) else { return Ok(None) };
                return Ok(Some(if len * SHARE_PART > frame.buf.len() {
                    let start = (data - frame.lsn) as usize;
                    Bytes::from_owner(SharedFrame(frame)).slice(start..start + len)
                } else {
                    Bytes::copy_from_slice(bytes)
                }));
            }
            if lsn < self.durable() {
                break;
            }
            let unsealed = self.seq.lock().read_unsealed(data, len, Bytes::copy_from_slice);
            if unsealed.is_some() {
                return Ok(unsealed);
            }
        }
        self.read_segment(id, lsn, view)
    }

    /// The mapping, held for a few reads. `None` where reads are copies, or the file was given up.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.map.as_ref()?.hold()
    }

    /// Copies an entry out of its segment. The segment stays pinned meanwhile, for microseconds: it is not written anew.
    pub(super) fn read_segment(&self, id: EntryId, lsn: u64, view: Option<&View>) -> io::Result<Option<Bytes>> {
        let (seq, within) = (lsn / self.geo.segment_bytes, lsn % self.geo.segment_bytes);
        let Some(pinned) = self.pin_segment(seq) else { return Ok(None) };
        let offset = POOL_OFFSET + u64::from(pinned.slab) * self.geo.segment_bytes + within;
        let len = ENTRY_CRC_BYTES + id.len as usize;
        if let Some(bytes) = view.and_then(|view| view.slice(offset, len)) {
            if len > BLOCK {
                self.ask_if_cold(offset, bytes);
            }
            // The copy is checked, not the mapping: what is mapped may change.
            let Some((&crc, payload)) = bytes.split_first_chunk() else { return Ok(None) };
            let payload = Bytes::copy_from_slice(payload);
            return Ok(self.is_whole(id, lsn, crc, &payload).then_some(payload));
        }
        self.read_copied(id, lsn, offset)
    }

    /// Reads an entry of the journal from the device, even where it is mapped: if that fails, it is an error and no signal.
    pub(crate) fn read_unmapped(&self, id: EntryId, loc: Loc) -> io::Result<Option<Bytes>> {
        let lsn = loc.lsn(self.head());
        let (seq, within) = (lsn / self.geo.segment_bytes, lsn % self.geo.segment_bytes);
        let Some(pinned) = self.pin_segment(seq) else { return Ok(None) };
        self.read_copied(id, lsn, POOL_OFFSET + u64::from(pinned.slab) * self.geo.segment_bytes + within)
    }

    fn read_copied(&self, id: EntryId, lsn: u64, offset: u64) -> io::Result<Option<Bytes>> {
        let mut buf = vec![0; ENTRY_CRC_BYTES + id.len as usize];
        self.disk.read_at(offset, &mut buf)?;
        Ok(self.checked(id, lsn, &buf).is_some().then(|| Bytes::from(buf).slice(ENTRY_CRC_BYTES..)))
    }

    /// The payload behind its checksum, if that holds.
    fn checked<'a>(&self, id: EntryId, lsn: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&crc, payload) = bytes.split_first_chunk()?;
        self.is_whole(id, lsn, crc, payload).then_some(payload)
    }

    fn is_whole(&self, id: EntryId, lsn: u64, crc: [u8; ENTRY_CRC_BYTES], payload: &[u8]) -> bool {
        crc == self.geo.seed.entry_crc(crc::of(payload), lsn, id).to_le_bytes()
    }

    /// Pins a live segment. First it pins, then it asks whether the segment is live: the thread that frees one takes it off the list first,
    /// then asks for pins.
    pub(super) fn pin_segment(&self, seq: u64) -> Option<PinnedSegment<'_>> {
        let slab = self.segment_map.read().slab(seq)?;
        let chunk = slab * (self.geo.segment_bytes / u64::from(self.geo.chunk_bytes)) as u32;
        self.pins.pin(chunk);
        let pinned = PinnedSegment { pins: &self.pins, chunk, slab };
        (self.segment_map.read().slab(seq) == Some(slab)).then_some(pinned)
    }
}

/// A segment that is not written anew while this lives.
pub(super) struct PinnedSegment<'a> {
    pins: &'a crate::space::Pins,
    chunk: u32,
    pub(super) slab: u32,
}

impl Drop for PinnedSegment<'_> {
    fn drop(&mut self) {
        self.pins.unpin(self.chunk);
    }
}

/// A recent frame as an owner of `Bytes`.
struct SharedFrame(crate::sync::Arc<crate::journal::FrameMem>);

impl AsRef<[u8]> for SharedFrame {
    fn as_ref(&self) -> &[u8] {
        self.0.buf.as_slice()
    }
}
