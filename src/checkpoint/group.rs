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
/// So many neighbouring windows are read at once, and no more: the cleaner is in no hurry, and commits should not find megabytes of
/// reads in front of them at the device.
const RUN: usize = 4;
const _: () = assert!(WINDOW.is_multiple_of(crate::disk::BLOCK));
/// So many places are read at once, where that is worth a thread.
const READERS: usize = 2;
const WORTH_READERS: usize = 8;

/// A segment being cleaned, and those of its bytes that were needed so far.
struct Source {
    seq: u64,
    offset: u64,
    bytes: AlignedBuf,
    windows: Vec<Window>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Unread,
    /// Something in it is alive.
    Wanted,
    Read,
}

impl Source {
    /// The windows in which the bytes of `range` lie. Nothing where it reaches beyond the segment.
    fn windows(&mut self, range: &Range<usize>, segment_bytes: usize) -> Range<usize> {
        if range.end > segment_bytes || range.is_empty() {
            return 0..0;
        }
        if self.windows.is_empty() {
            self.bytes = AlignedBuf::to_fill(segment_bytes);
            self.windows = vec![Window::Unread; segment_bytes.div_ceil(WINDOW)];
        }
        range.start / WINDOW..(range.end - 1) / WINDOW + 1
    }

    /// The bytes in `range`, read if they were not yet. Nothing where it reaches beyond the segment.
    fn get(&mut self, disk: &dyn Disk, range: Range<usize>, segment_bytes: usize) -> io::Result<Option<&[u8]>> {
        let Range { start: mut window, end } = self.windows(&range, segment_bytes);
        if window == end {
            return Ok(None);
        }
        while window < end {
            if self.windows.get(window).is_none_or(|w| *w == Window::Read) {
                window += 1;
                continue;
            }
            let follows = window.checked_sub(1).is_some_and(|before| self.windows.get(before) == Some(&Window::Read));
            let most = if follows { RUN } else { 1 }.max(end - window);
            let n = self.windows.iter().skip(window).take(most).take_while(|w| **w != Window::Read).count();
            let bytes = window * WINDOW..segment_bytes.min((window + n) * WINDOW);
            let Some(part) = self.bytes.as_mut_slice().get_mut(bytes) else { return Ok(None) };
            disk.read_at(self.offset + (window * WINDOW) as u64, part)?;
            self.windows.iter_mut().skip(window).take(n).for_each(|w| *w = Window::Read);
            window += n;
        }
        Ok(self.bytes.as_slice().get(range))
    }

    /// Where to read what is wanted, and into what.
    fn wanted(&mut self) -> Vec<(u64, &mut [u8])> {
        let mut parts = Vec::new();
        let (mut rest, mut window) = (self.bytes.as_mut_slice(), 0);
        for run in self.windows.chunk_by(|a, b| a == b) {
            let bytes = rest.len().min(run.len() * WINDOW);
            let (these, behind) = rest.split_at_mut(bytes);
            if run.first() == Some(&Window::Wanted) {
                let offsets = (self.offset + (window * WINDOW) as u64..).step_by(RUN * WINDOW);
                parts.extend(offsets.zip(these.chunks_mut(RUN * WINDOW)));
            }
            (rest, window) = (behind, window + run.len());
        }
        parts
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
            this.sources.push(Source { seq: segment.seq, offset, bytes: AlignedBuf::new(), windows: Vec::new() });
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

    /// The payload at `lsn` will be asked for.
    pub fn want(&mut self, lsn: u64, len: u32) {
        let segment_bytes = self.segment_bytes as usize;
        let Some((source, range)) = self.place(lsn, len) else { return };
        let windows = source.windows(&range, segment_bytes);
        let wanted = source.windows.iter_mut().take(windows.end).skip(windows.start);
        wanted.filter(|w| **w == Window::Unread).for_each(|w| *w = Window::Wanted);
    }

    /// Reads what will be asked for, from several places at once: a device takes less for it than for one read after the other. If it
    /// fails, what is asked for is read once more, and says so.
    pub fn read_wanted(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let parts: Vec<_> = self.sources.iter_mut().flat_map(Source::wanted).collect();
        let readers = if parts.len() < WORTH_READERS { 1 } else { READERS };
        let parts = Mutex::new(parts.into_iter());
        let read = || {
            loop {
                let part = { parts.lock().next() };
                let Some((offset, buf)) = part else { return Ok(()) };
                disk.read_at(offset, buf)?;
            }
        };
        helped::<_, io::Error>(readers - 1, read, read)?;
        let windows = self.sources.iter_mut().flat_map(|source| &mut source.windows);
        windows.filter(|w| **w == Window::Wanted).for_each(|w| *w = Window::Read);
        Ok(())
    }

    /// In which segment the payload at `lsn` lies, and where, with its checksum in front of it.
    fn place(&mut self, lsn: u64, len: u32) -> Option<(&mut Source, Range<usize>)> {
        let (seq, at) = (lsn / self.segment_bytes, (lsn % self.segment_bytes) as usize);
        let source = self.sources.iter_mut().find(|s| s.seq == seq)?;
        Some((source, at..at + ENTRY_CRC_BYTES + len as usize))
    }

    /// The checked payload at `lsn` and its plain checksum, if one of the segments holds it.
    pub fn get(&mut self, disk: &dyn Disk, seed: Seed, id: EntryId, lsn: u64) -> io::Result<Option<(&[u8], u32)>> {
        let segment_bytes = self.segment_bytes as usize;
        let Some((source, range)) = self.place(lsn, id.len) else { return Ok(None) };
        let stored = source.get(disk, range, segment_bytes)?;
        let Some((stored, payload)) = stored.and_then(|bytes| bytes.split_at_checked(ENTRY_CRC_BYTES)) else {
            return Ok(None);
        };
        let crc = crc32c::crc32c(payload);
        Ok((stored == seed.entry_crc(crc, lsn, id).to_le_bytes()).then_some((payload, crc)))
    }
}
