//! A group: neighbouring segments that are cleaned together, and those of their bytes that were read.

use std::io;
use std::ops::Range;

use crate::disk::{AlignedBuf, Disk};
use crate::engine::Geometry;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::{EntryId, POOL_OFFSET, Seed};
use crate::journal::LiveSegment;
use crate::sync::{Mutex, helped};

/// A segment is read in windows of this size, and only those in which something is alive: of a segment that is nearly dead that is a
/// small part.
const WINDOW: usize = 16 << 10;
/// Where the one before was read as well, so many windows are read at once, and no more: the cleaner is in no hurry, and commits should
/// not find megabytes of reads in front of them at the device.
const RUN: usize = 4;
const _: () = assert!(WINDOW.is_multiple_of(crate::disk::BLOCK));
/// Where most of a group is alive, all of it is read before it is moved: in parts of this size, so many at once.
const PART: usize = 64 << 10;
const READERS: usize = 2;
const _: () = assert!(PART.is_multiple_of(WINDOW));
/// Less than this is not worth a thread.
const WORTH_READERS: usize = 4 << 20;

/// A segment being cleaned, and those of its bytes that were needed so far.
struct Source {
    seq: u64,
    offset: u64,
    bytes: AlignedBuf,
    /// The windows that were read.
    read: Vec<bool>,
}

impl Source {
    /// The bytes in `range`, read if they were not yet. Nothing where it reaches beyond the segment.
    fn get(&mut self, disk: &dyn Disk, range: Range<usize>, segment_bytes: usize) -> io::Result<Option<&[u8]>> {
        if self.read.is_empty() {
            self.bytes = AlignedBuf::to_fill(segment_bytes);
            self.read = vec![false; segment_bytes.div_ceil(WINDOW)];
        }
        if range.end > segment_bytes || range.is_empty() {
            return Ok(None);
        }
        let (mut window, last) = (range.start / WINDOW, (range.end - 1) / WINDOW);
        while window <= last {
            if self.read.get(window).copied().unwrap_or(true) {
                window += 1;
                continue;
            }
            let follows = window.checked_sub(1).is_some_and(|before| self.read.get(before) == Some(&true));
            let most = if follows { RUN } else { 1 }.max(last + 1 - window);
            let n = self.read.iter().skip(window).take(most).take_while(|read| !**read).count();
            let bytes = window * WINDOW..segment_bytes.min((window + n) * WINDOW);
            let Some(part) = self.bytes.as_mut_slice().get_mut(bytes) else { return Ok(None) };
            disk.read_at(self.offset + (window * WINDOW) as u64, part)?;
            self.read.iter_mut().skip(window).take(n).for_each(|read| *read = true);
            window += n;
        }
        Ok(self.bytes.as_slice().get(range))
    }
}

/// Neighbouring segments cleaned together.
pub(super) struct Group {
    sources: Vec<Source>,
    pub participants: Vec<u64>,
    segment_bytes: u64,
    /// The LSNs from the first segment's beginning to the last one's end.
    lsns: Range<u64>,
}

impl Group {
    pub fn new<'a>(segments: impl Iterator<Item = &'a LiveSegment>, geo: &Geometry) -> Self {
        let segment_bytes = geo.segment_bytes;
        let mut this = Self { sources: Vec::new(), participants: Vec::new(), segment_bytes, lsns: 0..0 };
        for segment in segments {
            let first = if this.sources.is_empty() { segment.seq * segment_bytes } else { this.lsns.start };
            this.lsns = first..(segment.seq + 1) * segment_bytes;
            let offset = POOL_OFFSET + u64::from(segment.slab) * geo.segment_bytes;
            this.sources.push(Source { seq: segment.seq, offset, bytes: AlignedBuf::new(), read: Vec::new() });
            this.participants.extend_from_slice(&segment.participants);
        }
        this.participants.sort_unstable();
        this.participants.dedup();
        this
    }

    /// How many segments.
    pub fn len(&self) -> u64 {
        self.sources.len() as u64
    }

    /// Whether segment `seq` is one of them: they are neighbours.
    pub fn holds(&self, seq: u64) -> bool {
        let (first, last) = (self.sources.first().map(|s| s.seq), self.sources.last().map(|s| s.seq));
        first.is_some_and(|first| first <= seq) && last.is_some_and(|last| seq <= last)
    }

    /// Whether the byte at `lsn` lies in one of them.
    pub fn holds_lsn(&self, lsn: u64) -> bool {
        self.lsns.contains(&lsn)
    }

    /// Reads all of it, from several places at once: the device takes a third of the time that one read after the other does.
    pub fn read_all(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let segment_bytes = self.segment_bytes as usize;
        if self.sources.len() * segment_bytes < WORTH_READERS {
            return Ok(());
        }
        for source in &mut self.sources {
            source.bytes = AlignedBuf::to_fill(segment_bytes);
            source.read = vec![true; segment_bytes.div_ceil(WINDOW)];
        }
        let parts = self.sources.iter_mut().flat_map(|source| {
            let offsets = (source.offset..).step_by(PART);
            offsets.zip(source.bytes.as_mut_slice().chunks_mut(PART))
        });
        let parts = Mutex::new(parts);
        let work = || {
            loop {
                let part = { parts.lock().next() };
                let Some((offset, buf)) = part else { return Ok(()) };
                disk.read_at(offset, buf)?;
            }
        };
        let done = helped(READERS - 1, work, work);
        if done.is_err() {
            // What is not there is read again, and says so to whom it belongs.
            self.sources.iter_mut().for_each(|source| source.read.clear());
        }
        done
    }

    /// The checked payload at `lsn` and its plain checksum, if one of the segments holds it.
    pub fn get(&mut self, disk: &dyn Disk, seed: Seed, id: EntryId, lsn: u64) -> io::Result<Option<(&[u8], u32)>> {
        let (seq, at) = (lsn / self.segment_bytes, (lsn % self.segment_bytes) as usize);
        let Some(source) = self.sources.iter_mut().find(|s| s.seq == seq) else { return Ok(None) };
        let stored = source.get(disk, at..at + ENTRY_CRC_BYTES + id.len as usize, self.segment_bytes as usize)?;
        let Some((stored, payload)) = stored.and_then(|bytes| bytes.split_at_checked(ENTRY_CRC_BYTES)) else {
            return Ok(None);
        };
        let crc = crc32c::crc32c(payload);
        Ok((stored == seed.entry_crc(crc, lsn, id).to_le_bytes()).then_some((payload, crc)))
    }
}
