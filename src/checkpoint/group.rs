//! A group: neighbouring segments that are cleaned together, and those of their bytes that were read.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::disk::{AlignedBuf, Disk};
use crate::engine::Geometry;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::{EntryId, POOL_OFFSET, Seed, crc};
use crate::index::Loc;
use crate::journal::LiveSegment;
use crate::sync::{Mutex, helped};

/// A segment is read in windows of this size, and only those in which something is alive: in a segment that is nearly dead these are few.
/// Exactly a block: of larger windows nearly all are wanted where a tenth of the replicas lag.
const WINDOW: usize = crate::disk::BLOCK;
/// At most this many neighbouring windows are read at once: the cleaner is in no hurry, and commits should not find megabytes of reads in
/// front of them at the device.
const RUN: usize = 16;
/// Up to this many windows between two wanted ones are read along with them: another read would take the device as long.
const GAP: usize = 3;
/// Places read at once, if there are enough of them to be worth a thread.
const READERS: usize = 2;
const WORTH_READERS: usize = 8;

/// How much is asked of the device at once: at most this many places, and this many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    places: usize,
    bytes: usize,
}

impl Pace {
    /// For a cleaner that is in no hurry: commits should not find more of its requests in front of theirs.
    pub const GENTLE: Self = Self { places: 4, bytes: 2 * RUN * WINDOW };

    /// As much as the disk takes.
    pub fn hurried(disk: &dyn Disk) -> Self {
        Self { places: disk.at_once(), bytes: usize::MAX }
    }

    /// How many reads of these lengths are asked for at once: at least one.
    fn take(self, lens: impl Iterator<Item = usize>) -> usize {
        let mut left = self.bytes;
        let fits = |len: &usize| left.checked_sub(*len).inspect(|less| left = *less).is_some();
        lens.take(self.places).take_while(fits).count().max(1)
    }
}

/// A segment being cleaned, and those of its bytes that were needed so far.
struct Source {
    seq: u64,
    offset: u64,
    bytes: AlignedBuf,
    windows: Vec<Window>,
    /// All wanted windows are in this range: a replica wants few of a thousand.
    wanted: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Unread,
    /// Something in it is alive.
    Wanted,
    Read,
}

impl Source {
    /// The windows in which the bytes of `range` lie. None if it reaches beyond the segment.
    fn windows(&mut self, range: &Range<usize>, segment_bytes: usize) -> Range<usize> {
        if range.end > segment_bytes || range.is_empty() {
            return 0..0;
        }
        if self.windows.is_empty() {
            self.bytes = AlignedBuf::sparse(segment_bytes);
            self.windows = vec![Window::Unread; segment_bytes.div_ceil(WINDOW)];
        }
        range.start / WINDOW..(range.end - 1) / WINDOW + 1
    }

    /// Reads the bytes in `range` that were not read yet. Nothing if it reaches beyond the segment.
    fn load(&mut self, disk: &dyn Disk, range: &Range<usize>, segment_bytes: usize) -> io::Result<()> {
        let Range { start: mut window, end } = self.windows(range, segment_bytes);
        while window < end {
            if self.windows.get(window).is_none_or(|w| *w == Window::Read) {
                window += 1;
                continue;
            }
            let follows = window.checked_sub(1).is_some_and(|before| self.windows.get(before) == Some(&Window::Read));
            let most = if follows { RUN } else { 1 }.max(end - window);
            let n = self.windows.iter().skip(window).take(most).take_while(|w| **w != Window::Read).count();
            let bytes = window * WINDOW..segment_bytes.min((window + n) * WINDOW);
            let Some(part) = self.bytes.as_mut_slice().get_mut(bytes) else { return Ok(()) };
            disk.read_at(self.offset + (window * WINDOW) as u64, part)?;
            self.windows.iter_mut().skip(window).take(n).for_each(|w| *w = Window::Read);
            window += n;
        }
        Ok(())
    }

    /// Some windows in `to` are wanted.
    fn widen(&mut self, to: &Range<usize>) {
        self.wanted = if self.wanted.is_empty() {
            to.clone()
        } else {
            self.wanted.start.min(to.start)..self.wanted.end.max(to.end)
        };
    }

    /// If only few windows lie between two wanted ones, they are wanted, too.
    fn close_gaps(&mut self) {
        let mut behind = None;
        for i in self.wanted.clone() {
            match self.windows.get(i) {
                Some(Window::Wanted) => {
                    let gap = behind.replace(i + 1).filter(|from| i - from <= GAP);
                    let between = self.windows.iter_mut().take(i).skip(gap.unwrap_or(i));
                    between.for_each(|w| *w = Window::Wanted);
                }
                Some(Window::Unread) => {}
                _ => behind = None,
            }
        }
    }

    /// The bytes in `range`, if they were read.
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let windows = range.start / WINDOW..range.end.div_ceil(WINDOW);
        let read = self.windows.get(windows)?.iter().all(|w| *w == Window::Read);
        self.bytes.as_slice().get(range).filter(|_| read)
    }

    /// Where to read what is wanted, and the buffers for it.
    fn wanted(&mut self) -> Vec<(u64, &mut [u8])> {
        self.close_gaps();
        let mut parts = Vec::new();
        let Range { start: mut window, end } = self.wanted.clone();
        let bytes = self.bytes.as_mut_slice();
        let (from, to) = (bytes.len().min(window * WINDOW), bytes.len().min(end * WINDOW));
        let mut rest = bytes.get_mut(from..to).unwrap_or_default();
        for run in self.windows.get(window..end).unwrap_or_default().chunk_by(|a, b| a == b) {
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
    /// The replicas that have, or had, something in it: some of them several times before they are [put in order](Group::order).
    pub participants: Vec<u64>,
    /// How many of them the cleaner has come to.
    pub visited: usize,
    /// Those of them whose metadata is to be carried out of it.
    pub with_metadata: Vec<u64>,
    /// Those of them that turned out to have nothing in it, each with a segment before which it has nothing either.
    pub beyond: Vec<(u64, u64)>,
    /// Somebody waits for it, or soon will.
    pub hurried: bool,
    pub segments: Segments,
}

/// What lies in a group's segments.
pub(super) struct Segments {
    sources: Vec<Source>,
    segment_bytes: u64,
    /// The LSNs from the first segment's beginning to the last one's end.
    lsns: Range<u64>,
    /// How many windows are wanted.
    wanted: usize,
    /// A read has failed: from then on only what is needed is read, when it is needed.
    hurt: bool,
    /// The first read that failed: it is reported when the cleaner's lock is free.
    pub unread: Option<(&'static str, io::Error)>,
}

/// What the segments hold of an entry.
pub(super) enum Stored<'a> {
    /// Its checked payload, and the plain checksum of that.
    Good(&'a [u8], u32),
    /// Other bytes than its checksum says.
    Bad,
    /// It lies in one of them, and cannot be read together with what is around it.
    Unread,
    /// It lies in none of them.
    Elsewhere,
}

impl Group {
    pub fn new<'a>(segments: impl Iterator<Item = &'a LiveSegment>, geo: &Geometry) -> Self {
        let segment_bytes = geo.segment_bytes;
        let (mut sources, mut lsns, mut participants) = (Vec::new(), 0..0, Vec::new());
        for segment in segments {
            let first = if sources.is_empty() { segment.seq * segment_bytes } else { lsns.start };
            lsns = first..(segment.seq + 1) * segment_bytes;
            let offset = POOL_OFFSET + u64::from(segment.slab) * geo.segment_bytes;
            sources.push(Source {
                seq: segment.seq,
                offset,
                bytes: AlignedBuf::new(),
                windows: Vec::new(),
                wanted: 0..0,
            });
            participants.extend_from_slice(&segment.participants);
        }
        Self {
            participants,
            visited: 0,
            with_metadata: Vec::new(),
            beyond: Vec::new(),
            hurried: false,
            segments: Segments { sources, segment_bytes, lsns, wanted: 0, hurt: false, unread: None },
        }
    }

    /// Each participant once, in the order of their numbers.
    pub fn order(&mut self) {
        self.participants.sort_unstable();
        self.participants.dedup();
    }

    /// The number of its last segment.
    pub fn last(&self) -> u64 {
        self.segments.sources.last().map_or(0, |s| s.seq)
    }

    /// How many segments.
    pub fn len(&self) -> u64 {
        self.segments.sources.len() as u64
    }

    /// Whether segment `seq` belongs to the group, whose segments are neighbours.
    pub fn holds(&self, seq: u64) -> bool {
        let sources = &self.segments.sources;
        let (first, last) = (sources.first().map(|s| s.seq), sources.last().map(|s| s.seq));
        first.is_some_and(|first| first <= seq) && last.is_some_and(|last| seq <= last)
    }

    /// From the beginning of the first segment to the end of the last.
    pub fn lsns(&self) -> &Range<u64> {
        &self.segments.lsns
    }

    /// Whether the entry lies in one of them.
    pub fn holds_entry(&self, loc: Loc) -> bool {
        loc.is_in(self.lsns())
    }
}

impl Segments {
    /// The payload at `lsn` will be asked for.
    pub fn want(&mut self, lsn: u64, len: u32) {
        let segment_bytes = self.segment_bytes as usize;
        let (seq, range) = self.place(lsn, len);
        let Some(source) = self.sources.iter_mut().find(|s| s.seq == seq && !self.hurt) else { return };
        let windows = source.windows(&range, segment_bytes);
        source.widen(&windows);
        let wanted = source.windows.iter_mut().take(windows.end).skip(windows.start);
        for window in wanted.filter(|w| **w == Window::Unread) {
            *window = Window::Wanted;
            self.wanted += 1;
        }
    }

    /// Reads what will be asked for, several places at once: a device takes less time for that than for one read after the other. A disk
    /// that itself reads several at once is given several. If it fails, what is needed is read when it is needed, and nothing beside it.
    ///
    /// After each request to the disk, `rest` is told how long it took.
    pub fn read_wanted(&mut self, disk: &dyn Disk, pace: Pace, rest: impl FnMut(Duration)) {
        if self.wanted == 0 {
            return;
        }
        let read = self.read_parts(disk, pace, rest);
        let now = if read.is_ok() { Window::Read } else { Window::Unread };
        if let Err(error) = read {
            self.cannot_be_read("reading ahead of the cleaner", error);
        }
        for source in &mut self.sources {
            let Range { start, end } = std::mem::take(&mut source.wanted);
            let windows = source.windows.iter_mut().take(end).skip(start);
            windows.filter(|w| **w == Window::Wanted).for_each(|w| *w = now);
        }
        self.wanted = 0;
    }

    fn read_parts(&mut self, disk: &dyn Disk, pace: Pace, mut rest: impl FnMut(Duration)) -> io::Result<()> {
        let mut parts: Vec<_> = self.sources.iter_mut().flat_map(Source::wanted).collect();
        if parts.len() < WORTH_READERS || disk.at_once() > 1 {
            let mut left = parts.as_mut_slice();
            while !left.is_empty() {
                let (some, later) = left.split_at_mut(pace.take(left.iter().map(|(_, buf)| buf.len())).min(left.len()));
                let began = Instant::now();
                disk.read_many(some)?;
                rest(began.elapsed());
                left = later;
            }
            return Ok(());
        }
        let parts = Mutex::new(parts.into_iter());
        let read = || {
            loop {
                let part = { parts.lock().next() };
                let Some((offset, buf)) = part else { return Ok(()) };
                disk.read_at(offset, buf)?;
            }
        };
        helped::<_, io::Error>(READERS - 1, read, read)
    }

    /// Asks for all that was not read if most of it will be wanted, provided the replicas still to come want as much as the first `visited`
    /// of `all` did: what lies together is read faster.
    pub fn want_all_of_most(&mut self, visited: usize, all: usize) {
        let segment_bytes = self.segment_bytes as usize;
        let windows = self.sources.len() * segment_bytes.div_ceil(WINDOW);
        if 2 * self.wanted * all < windows * visited {
            return;
        }
        for source in &mut self.sources {
            let all = source.windows(&(0..segment_bytes), segment_bytes);
            source.widen(&all);
            source.windows.iter_mut().filter(|w| **w == Window::Unread).for_each(|w| *w = Window::Wanted);
        }
    }

    /// Whether so little is still unread that reading it costs less than finding out what of it will be asked for.
    pub fn is_read(&self) -> bool {
        let most = self.sources.len() * (self.segment_bytes as usize).div_ceil(WINDOW);
        let windows = self.sources.iter().flat_map(|source| &source.windows);
        let read = windows.filter(|w| **w == Window::Read).count();
        read * 4 >= most * 3
    }

    /// Reads the payload at `lsn`, if one of the segments holds it and it was not read yet. If that fails, it stays unread.
    pub fn load(&mut self, disk: &dyn Disk, lsn: u64, len: u32) {
        if self.hurt {
            return;
        }
        let (seq, range) = self.place(lsn, len);
        let Some(source) = self.sources.iter_mut().find(|s| s.seq == seq) else { return };
        if let Err(error) = source.load(disk, &range, self.segment_bytes as usize) {
            self.cannot_be_read("reading for the cleaner", error);
        }
    }

    fn cannot_be_read(&mut self, what: &'static str, error: io::Error) {
        self.hurt = true;
        self.unread.get_or_insert((what, error));
    }

    /// In which segment the payload at `lsn` lies, and where in it, including the checksum in front of it.
    fn place(&self, lsn: u64, len: u32) -> (u64, Range<usize>) {
        let (seq, at) = (lsn / self.segment_bytes, (lsn % self.segment_bytes) as usize);
        (seq, at..at + ENTRY_CRC_BYTES + len as usize)
    }

    /// What was read of the payload at `lsn`.
    pub fn get(&self, seed: Seed, id: EntryId, lsn: u64) -> Stored<'_> {
        let (seq, range) = self.place(lsn, id.len);
        let Some(source) = self.sources.iter().find(|s| s.seq == seq) else { return Stored::Elsewhere };
        let Some(bytes) = source.get(range) else { return Stored::Unread };
        let Some((stored, payload)) = bytes.split_at_checked(ENTRY_CRC_BYTES) else { return Stored::Bad };
        let crc = crc::of(payload);
        if stored == seed.entry_crc(crc, lsn, id).to_le_bytes() { Stored::Good(payload, crc) } else { Stored::Bad }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "group_tests.rs"]
mod tests;
