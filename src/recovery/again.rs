//! A second look behind the end of the log.
//!
//! A device may answer a reading with what was there before the last write. Below the watermark that shows as damage; at the end it
//! looks as if nothing had been written, and whatever the reading covered would be forgotten without a word. So where the log seems to
//! end, and where its next segment may lie, the blocks that would begin a frame are read once more, each by itself.
//!
//! And a frame behind the end may hide others: an opening cut it off, the log went on in its place, and the first write there was lost, so
//! that the old header still stands. So such a frame is looked into.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use super::scan::{Found, MOST_TABLES, Scan, SlabScan};
use super::select::Living;
use super::walk::Walk;
use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::superblock::Superblock;
use crate::options::RecoveryMode;
use crate::sync::helped;

/// Blocks read at once, as by the scan: an opening must not read them one after the other.
const READERS: usize = 4;
/// Fewer are not worth a thread.
const FEW: usize = 2 * READERS;

/// A look behind the journal's end.
pub(super) struct Look<'a> {
    disk: &'a dyn Disk,
    sb: &'a Superblock,
    scan: &'a Scan,
    /// What the scan saw in a slab.
    seen: FxHashMap<u32, &'a SlabScan>,
    /// Where something newer than that may be.
    living: Living,
    /// Where the log seems to end.
    end: u64,
    tail_seq: u64,
    last_seq: Option<u64>,
    /// What cannot be read counts as absent.
    salvages: bool,
    /// A place where the newest frame may lie could not be read.
    unread: AtomicBool,
    /// The last frame that counts, unless newer ones are known to be lost.
    last: Option<u64>,
    /// The next frame was there, but its header is bad: see [`Look::met_spoilt`].
    spoilt: AtomicBool,
}

impl<'a> Look<'a> {
    /// In a salvage, what cannot be read counts as absent.
    pub fn new(disk: &'a dyn Disk, sb: &'a Superblock, scan: &'a Scan, walk: &Walk<'_>, mode: RecoveryMode) -> Self {
        let seen = scan.slabs.iter().map(|s| (s.slab, s)).collect();
        let salvages = mode == RecoveryMode::Salvage;
        let (end, tail_seq, last_seq) = (walk.end, walk.tail_seq, walk.last_seq);
        let living = Living::of(sb, scan);
        let last = walk.accepted.last().filter(|_| !walk.lost_at_end).map(|a| a.header.lsn);
        let (unread, spoilt) = Default::default();
        Self { disk, sb, scan, seen, living, end, tail_seq, last_seq, salvages, unread, last, spoilt }
    }

    /// Whether there is a frame behind the end that the scan did not see.
    pub fn shows_more(&self) -> Result<bool> {
        let more = self.behind_the_end().and_then(|more| {
            // Segments from the tail to the last are accounted for; the log may have gone on in any other slab.
            let between = |seq: u64| seq >= self.tail_seq && self.last_seq.is_some_and(|last| seq <= last);
            let accounted = |slab: &u32| self.seen.get(slab).is_some_and(|s| between(s.seq));
            let others: Vec<u32> = self.sb.journal_slabs.iter().copied().filter(|slab| !accounted(slab)).collect();
            Ok(more || self.any_begins_anew(&others)?)
        });
        more.map_err(|e| Error::io("reading the journal behind its end", e))
    }

    /// Whether a frame behind the end, which was stepped over, hides one of a later session that cut it off. Also `true` where such frames
    /// overlap so much that they are longer than the journal: a scan tells for sure, and reads no more than there is.
    pub fn hides_more(&self) -> Result<bool> {
        let mut left = self.segment().saturating_mul(self.sb.journal_slabs.len() as u64);
        for slab in &self.scan.slabs {
            for frame in slab.frames.iter().filter(|f| f.header.lsn >= self.end && f.table.is_some()) {
                let Some(rest) = left.checked_sub(frame.header.bytes()) else { return Ok(true) };
                left = rest;
                let hides = self.hides(slab.slab, &frame.header);
                if hides.map_err(|e| Error::io("reading a frame behind the journal's end", e))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether a salvage could not read a place where a frame that counts may be.
    pub fn met_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether the next frame was there, but its header rotted or is lost with its sector. A power cut leaves only the latter: a sector is
    /// written or not.
    pub fn met_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// Whether the block at offset `at` in a slab, which is no whole header, was the next frame's: it has two of three things that only
    /// that header says, or the block's end says it once more.
    fn was_next(&self, at: u64, block: &[u8]) -> bool {
        let (Some(last), Some(last_seq)) = (self.last, self.last_seq) else { return false };
        let lsn = if at == 0 { last_seq.saturating_add(1).saturating_mul(self.segment()) } else { self.end };
        let (own, before) = FrameHeader::places_said(block);
        let said = [FrameHeader::looks_like_one(block), own == Some(lsn), before == Some(last)];
        said.into_iter().filter(|&said| said).count() >= 2 || FrameHeader::is_echoed(self.sb.seed(), lsn, block)
    }

    /// Reads from offset `at` in the slab. `false`: it cannot be read, and a salvage goes on without it.
    fn read(&self, slab: u32, at: u64, buf: &mut [u8]) -> io::Result<bool> {
        match self.disk.read_at(self.sb.slab_offset(slab).saturating_add(at), buf) {
            Ok(()) => Ok(true),
            Err(_) if self.salvages => {
                // The log goes on where its newest frame says, and nowhere else.
                if self.living.may_live(slab, self.seen.get(&slab).map(|s| s.seq)) {
                    self.unread.store(true, Ordering::Relaxed);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn segment(&self) -> u64 {
        u64::from(self.sb.segment_bytes)
    }

    /// The frame that begins at offset `at` in the slab, as it is read now.
    fn header(&self, slab: u32, at: u64, buf: &mut AlignedBuf) -> io::Result<Option<FrameHeader>> {
        buf.resize(BLOCK);
        if !self.read(slab, at, buf.as_mut_slice())? {
            return Ok(None);
        }
        let header = self.decode(at, buf.as_slice());
        if header.is_none() && self.was_next(at, buf.as_slice()) {
            self.spoilt.store(true, Ordering::Relaxed);
        }
        Ok(header)
    }

    fn decode(&self, at: u64, block: &[u8]) -> Option<FrameHeader> {
        FrameHeader::decode(self.sb.seed(), at, self.segment(), block.get(..FRAME_HEADER_BYTES)?)
    }

    /// Whether a whole frame lies in this one, of a later session that cut this one off. Also `true` where more tables are said to lie in
    /// it than can: a scan tells for sure, and reads no more than there is.
    fn hides(&self, slab: u32, outer: &FrameHeader) -> io::Result<bool> {
        let at = outer.lsn % self.segment();
        let mut bytes = vec![0; outer.bytes() as usize];
        if !self.read(slab, at, &mut bytes)? {
            return Ok(false);
        }
        let mut unread = bytes.len().saturating_mul(MOST_TABLES);
        for (at, block) in (at..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
            let later = self.decode(at, block).filter(|h| h.session > outer.session && h.cut <= outer.lsn);
            let Some(header) = later else { continue };
            let Some(rest) = unread.checked_sub(header.table_bytes as usize) else { return Ok(true) };
            unread = rest;
            if self.table_holds(slab, at, &header)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the segment in which the log ends goes on, with a frame that was not seen or whose table could not be read.
    fn behind_the_end(&self) -> io::Result<bool> {
        let Some(last) = self.scan.slabs.iter().find(|s| Some(s.seq) == self.last_seq) else { return Ok(false) };
        let (seq, at) = (self.end / self.segment(), self.end % self.segment());
        if seq != last.seq {
            // It is full.
            return Ok(false);
        }
        let Some(header) = self.header(last.slab, at, &mut AlignedBuf::new())?.filter(|h| h.lsn == self.end) else {
            return Ok(false);
        };
        if last.frames.iter().any(|f| f.header == header && f.table.is_some()) {
            return Ok(false);
        }
        self.table_holds(last.slab, at, &header)
    }

    fn table_holds(&self, slab: u32, at: u64, header: &FrameHeader) -> io::Result<bool> {
        let (range, mut table) = (header.table_range(), vec![0; header.table_bytes as usize]);
        let read = self.read(slab, at.saturating_add(range.start as u64), &mut table)?;
        Ok(read && self.sb.seed().crc(header.lsn, &table) == header.table_crc)
    }

    /// Whether the slab begins with a frame that is newer than all that was seen there.
    fn begins_anew(&self, slab: u32, buf: &mut AlignedBuf) -> io::Result<bool> {
        let Some(header) = self.header(slab, 0, buf)? else { return Ok(false) };
        let seq = header.lsn / self.segment();
        let whole = |f: &Found| f.header.lsn == header.lsn && f.table.is_some();
        let known = self.seen.get(&slab).is_some_and(|s| s.seq > seq || s.frames.iter().any(whole));
        Ok(!known && !self.scan.disbelieved.contains(&seq) && self.table_holds(slab, 0, &header)?)
    }

    /// Whether one of these slabs does.
    fn any_begins_anew(&self, slabs: &[u32]) -> io::Result<bool> {
        let (next, any) = (AtomicUsize::new(0), AtomicBool::new(false));
        let look = || {
            let mut buf = AlignedBuf::new();
            while let Some(&slab) = slabs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.begins_anew(slab, &mut buf)? {
                    any.store(true, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        helped(if slabs.len() < FEW { 0 } else { READERS - 1 }, look, look)?;
        Ok(any.into_inner())
    }
}
