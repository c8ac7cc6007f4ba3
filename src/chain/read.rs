//! Reading pieces: zero-copy from the mapping where they lie in one extent, copied where they do not.

use std::io;

use bytes::Bytes;

use crate::disk::{AlignedBuf, Disk, Map, View};
use crate::format::piece::{Extents, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc, PieceHeader, slot};
use crate::format::{EntryId, Seed, crc};
use crate::space::Pins;
use crate::sync::Arc;

/// A hold on a piece that a reader took out of the index: whatever happens to the replica, these bytes stay.
#[derive(Debug)]
pub(crate) struct PieceRef {
    pub replica: u64,
    pub id: u64,
    pub first: u64,
    pub slots: u32,
    pub bytes: u32,
    /// Of a bare piece, the checksum of its entry.
    bare: Option<u32>,
    extents: Extents,
    mem: Option<Arc<AlignedBuf>>,
    pins: Arc<Pins>,
    blocks_per_chunk: u32,
}

impl Drop for PieceRef {
    fn drop(&mut self) {
        for chunk in self.extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            self.pins.unpin(chunk);
        }
    }
}

impl PieceRef {
    /// Pins the piece. The caller holds the cell whose index links it.
    pub fn new(
        replica: u64,
        desc: &PieceDesc,
        mem: Option<&Arc<AlignedBuf>>,
        pins: &Arc<Pins>,
        blocks_per_chunk: u32,
    ) -> Self {
        let extents = desc.extents.clone();
        for chunk in extents.iter().flat_map(|e| e.chunks(blocks_per_chunk)) {
            pins.pin(chunk);
        }
        Self {
            replica,
            id: desc.id,
            first: desc.first,
            slots: desc.slots,
            bytes: desc.bytes,
            bare: desc.bare.then_some(desc.crc),
            extents,
            mem: mem.cloned(),
            pins: Arc::clone(pins),
            blocks_per_chunk,
        }
    }

    /// Forgets what is in memory: the next load reads the disk.
    pub fn without_memory(mut self) -> Self {
        self.mem = None;
        self
    }

    fn payload_start(&self) -> usize {
        PIECE_HEADER_BYTES + self.slots as usize * PIECE_SLOT_BYTES
    }

    /// Copies `buf.len()` bytes from `at` within the piece, across its extents.
    fn copy(&self, disk: &dyn Disk, at: usize, buf: &mut [u8]) -> io::Result<()> {
        let mut skip = at as u64;
        let mut filled = 0;
        for extent in &self.extents {
            if skip >= extent.bytes() {
                skip -= extent.bytes();
                continue;
            }
            let n = (extent.bytes() - skip).min((buf.len() - filled) as u64) as usize;
            let Some(part) = buf.get_mut(filled..filled + n) else { break };
            disk.read_at(extent.offset() + skip, part)?;
            filled += n;
            skip = 0;
        }
        if filled == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The whole piece: by reference where it is in memory or mapped in one extent, else read.
    pub fn load(self, disk: &dyn Disk, map: Option<&Arc<Map>>) -> io::Result<PieceBytes> {
        let len = self.bytes as usize;
        let data = if let Some(mem) = &self.mem {
            Bytes::from_owner(Shared(Arc::clone(mem)))
        } else if let (Some(view), [extent]) = (map.and_then(|map| map.hold()), self.extents.as_slice()) {
            let mapped = Mapped { _piece: None, view, offset: extent.offset(), len };
            if mapped.view.slice(mapped.offset, len).is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (replica, id, first, slots) = (self.replica, self.id, self.first, self.slots);
            let (bytes, bare) = (self.bytes, self.bare);
            let data = Bytes::from_owner(Mapped { _piece: Some(self), ..mapped });
            return Ok(PieceBytes { replica, id, first, slots, bytes, bare, data });
        } else {
            let mut buf = vec![0; len];
            self.copy(disk, 0, &mut buf)?;
            buf.into()
        };
        let (replica, id, first, slots) = (self.replica, self.id, self.first, self.slots);
        Ok(PieceBytes { replica, id, first, slots, bytes: self.bytes, bare: self.bare, data })
    }

    /// One entry without loading the rest, where nothing is mapped: its slot, then its payload.
    pub fn load_one(
        self,
        disk: &dyn Disk,
        map: Option<&Arc<Map>>,
        seed: Seed,
        index: u64,
        term: u64,
    ) -> io::Result<Option<Bytes>> {
        if self.bare.is_some() || self.mem.is_some() || map.is_some() {
            return Ok(self.load(disk, map)?.entry(seed, index, term));
        }
        let Some(i) = index.checked_sub(self.first).filter(|&i| i < u64::from(self.slots)) else { return Ok(None) };
        let i = i as usize;
        let mut slots = [0; 2 * PIECE_SLOT_BYTES];
        let from = PIECE_HEADER_BYTES + i.saturating_sub(1) * PIECE_SLOT_BYTES;
        let n = if i == 0 { PIECE_SLOT_BYTES } else { 2 * PIECE_SLOT_BYTES };
        self.copy(disk, from, &mut slots[..n])?;
        let start = if i == 0 { 0 } else { slot(&slots, 0).map_or(0, |(end, _)| end) };
        let Some((end, crc)) = slot(&slots, usize::from(i > 0)) else { return Ok(None) };
        let room = (self.bytes as usize).saturating_sub(self.payload_start());
        if start > end || end as usize > room {
            return Ok(None);
        }
        let mut payload = vec![0; (end - start) as usize];
        self.copy(disk, self.payload_start() + start as usize, &mut payload)?;
        let id = EntryId { replica: self.replica, index, term, len: end - start };
        Ok((seed.entry_crc(crc::of(&payload), self.id, id) == crc).then(|| payload.into()))
    }
}

impl PieceRef {
    /// Whether header and table lie on the disk as the descriptor says. A bare piece has none.
    pub fn header_holds(&self, disk: &dyn Disk, seed: Seed, crc: u32) -> io::Result<bool> {
        if self.bare.is_some() {
            return Ok(true);
        }
        let mut bytes = vec![0; self.payload_start()];
        self.copy(disk, 0, &mut bytes)?;
        let Some((header, found)) = PieceHeader::decode(seed, &bytes) else { return Ok(false) };
        Ok(found == crc && (header.id, header.replica, header.first) == (self.id, self.replica, self.first))
    }

    /// How long header and table are, where there are any: what [`PieceRef::header_holds`] reads.
    pub fn header_bytes(&self) -> Option<u64> {
        self.bare.is_none().then(|| self.payload_start() as u64)
    }

    /// Where in the file it begins.
    pub fn offset(&self) -> u64 {
        self.extents.first().map_or(0, |e| e.offset())
    }

    /// Whether its bytes are still in memory: they may not be on the disk yet.
    pub fn in_memory(&self) -> bool {
        self.mem.is_some()
    }
}

/// A piece in memory as an owner of `Bytes`.
struct Shared(Arc<AlignedBuf>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// A mapped piece as an owner of `Bytes`: pins its chunks until the last slice is gone, and keeps the file from being anybody else's.
struct Mapped {
    _piece: Option<PieceRef>,
    view: Arc<View>,
    offset: u64,
    len: usize,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // Checked when it was made.
        self.view.slice(self.offset, self.len).unwrap_or(&[])
    }
}

/// The bytes of a piece.
#[derive(Clone, Debug)]
pub(crate) struct PieceBytes {
    replica: u64,
    id: u64,
    first: u64,
    slots: u32,
    bytes: u32,
    bare: Option<u32>,
    data: Bytes,
}

impl PieceBytes {
    /// The payload of `index`, checked; `None` when it does not match its checksum. A slice: nothing is copied.
    pub fn entry(&self, seed: Seed, index: u64, term: u64) -> Option<Bytes> {
        let (range, crc) = self.locate(index)?;
        let payload = self.data.get(range.clone())?;
        // The term of a bare piece is in its descriptor alone: see there.
        let term = if self.bare.is_some() { 0 } else { term };
        let id = EntryId { replica: self.replica, index, term, len: payload.len() as u32 };
        (seed.entry_crc(crc::of(payload), self.id, id) == crc).then(|| self.data.slice(range))
    }

    fn locate(&self, index: u64) -> Option<(std::ops::Range<usize>, u32)> {
        let i = index.checked_sub(self.first).filter(|&i| i < u64::from(self.slots))? as usize;
        if let Some(crc) = self.bare {
            // In memory it is padded.
            return Some((0..self.bytes as usize, crc));
        }
        let table_end = PIECE_HEADER_BYTES + self.slots as usize * PIECE_SLOT_BYTES;
        let table = self.data.get(PIECE_HEADER_BYTES..table_end)?;
        let start = if i == 0 { 0 } else { slot(table, i - 1)?.0 };
        let (end, crc) = slot(table, i)?;
        (start <= end).then_some((table_end + start as usize..table_end + end as usize, crc))
    }
}

/// Checks a piece whole: header, table and every payload. The terms are those of its descriptor.
pub(crate) fn verify_piece(
    disk: &dyn Disk,
    seed: Seed,
    replica: u64,
    desc: &PieceDesc,
    pins: &Arc<Pins>,
) -> io::Result<bool> {
    let piece = PieceRef::new(replica, desc, None, pins, u32::MAX).load(disk, None)?;
    if desc.bare {
        return Ok(piece.entry(seed, desc.first, 0).is_some());
    }
    let Some((header, crc)) = PieceHeader::decode(seed, &piece.data) else { return Ok(false) };
    if crc != desc.crc || header.id != desc.id || header.replica != replica || header.first != desc.first {
        return Ok(false);
    }
    let mut index = desc.first;
    for &(n, term) in &desc.terms {
        for _ in 0..n {
            if piece.entry(seed, index, term).is_none() {
                return Ok(false);
            }
            index = index.wrapping_add(1);
        }
    }
    Ok(true)
}
