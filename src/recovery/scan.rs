//! Scanning: finds every frame in the journal's slabs, whether it counts or not.

use std::collections::HashSet;
use std::io;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::select;
use super::walk::{Cuts, existing, tail_of};
use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::error::{Error, Result, rebuild_all, salvage_it};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LAST_LSN, LAST_SESSION};
use crate::format::superblock::Superblock;
use crate::options::{Progress, RecoveryMode};

/// Of large frames only headers and tables are read, so a read begins this small, ...
const LEAST_WINDOW: usize = 32 << 10;
/// ... and doubles up to this while frames are small and one read follows the other.
const MOST_WINDOW: usize = 1 << 20;
/// Slabs read at once: not a matter of processors, but of keeping a device busy that answers each read in a tenth of a millisecond.
const READERS: usize = 4;
/// Frames of one segment share no block, nor do their tables: of a slab's tables no more is checksummed than this many times its length.
pub(super) const MOST_TABLES: usize = 4;
const _: () = assert!(LEAST_WINDOW >= BLOCK && LEAST_WINDOW.is_multiple_of(BLOCK) && MOST_WINDOW >= LEAST_WINDOW);

/// A frame as it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub header: FrameHeader,
    /// Where it lies in the file.
    pub offset: u64,
    /// Its table, if that is whole.
    pub table: Option<Box<[u8]>>,
}

/// A slab and the newest segment that left frames in it.
#[derive(Debug)]
pub(super) struct SlabScan {
    pub slab: u32,
    pub seq: u64,
    pub frames: Vec<Found>,
}

/// All that was found, in order of segments.
#[derive(Debug)]
pub(super) struct Scan {
    pub slabs: Vec<SlabScan>,
    /// Highest segment number in any header, live or stale.
    pub max_seq: u64,
    /// Highest session in any header.
    pub max_session: u64,
    /// Segments that two slabs claim: a salvage believes neither.
    pub disbelieved: Vec<u64>,
}

impl Scan {
    /// Where the frame at `lsn` lies in the file: for errors.
    pub fn offset_of(&self, lsn: u64) -> u64 {
        let mut frames = self.slabs.iter().flat_map(|s| &s.frames);
        frames.find(|f| f.header.lsn == lsn).map_or(0, |f| f.offset)
    }
}

/// Reads a slab from front to back, and of it only what is asked for.
struct Window<'a> {
    disk: &'a dyn Disk,
    /// Where the slab lies, and how long it is.
    offset: u64,
    len: usize,
    /// What was read last, and where in the slab that begins.
    bytes: &'a mut AlignedBuf,
    start: usize,
    step: usize,
    /// Blocks that cannot be read count as empty.
    salvages: bool,
}

impl<'a> Window<'a> {
    /// `bytes`: the last slab's buffer, to be used again.
    fn new(disk: &'a dyn Disk, (offset, len): (u64, usize), bytes: &'a mut AlignedBuf, salvages: bool) -> Self {
        bytes.clear();
        Self { disk, offset, len, bytes, start: 0, step: LEAST_WINDOW, salvages }
    }

    /// The bytes of a range of the slab.
    fn get(&mut self, range: Range<usize>) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len();
        if range.start < self.start || range.end > end {
            let follows = range.start >= self.start && range.start <= end && end > 0;
            self.step = if follows { (2 * self.step).min(MOST_WINDOW) } else { LEAST_WINDOW };
            // Whole blocks, which are read past the page cache where writes go past it.
            self.start = range.start / BLOCK * BLOCK;
            // With a table, also the header behind it: a large frame then costs one read.
            let wanted = range.end.next_multiple_of(BLOCK) + BLOCK - self.start;
            let len = wanted.max(self.step).min(self.len.saturating_sub(self.start));
            self.bytes.set_len_to_fill(len);
            match self.disk.read_at(self.offset + self.start as u64, self.bytes.as_mut_slice()) {
                Err(_) if self.salvages => self.read_what_can_be(),
                read => read?,
            }
        }
        let from = range.start - self.start;
        let found = self.bytes.as_slice().get(from..from + range.len());
        found.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the slab"))
    }

    /// Reads the window block by block: an unreadable one holds no frame. Whether the newest may be there, the second look tells.
    fn read_what_can_be(&mut self) {
        let start = self.offset + self.start as u64;
        for (at, block) in (0_u64..).step_by(BLOCK).zip(self.bytes.as_mut_slice().chunks_mut(BLOCK)) {
            if let Err(error) = self.disk.read_at(start + at, block) {
                tracing::warn!(target: "strandlog", offset = start + at, %error, "a block of the journal cannot be read");
                block.fill(0);
            }
        }
    }
}

/// A journal of fewer slabs is read whole: its slabs are read one after the other in either case.
const SELECTED_FROM: usize = 2 * READERS;

/// Reads the journal once: headers and tables, small frames whole; of slabs in which nothing can live only the first frame.
///
/// A whole frame is stepped over: what lies in it is somebody's payload. **Unless it does not count**: then frames may have been written
/// over it, the first of which was lost, so that the old header still stands. What counts is known only when most is read; slabs in which
/// something may be hidden like this are read once more, block by block there.
pub(super) fn scan(
    disk: &dyn Disk,
    sb: &Superblock,
    mode: RecoveryMode,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scan> {
    scan_to(disk, sb, mode, None, progress)
}

/// As [`scan`], where it is known at which LSN the log seems to end: no frame from there on counts, whole or not.
pub(super) fn scan_to(
    disk: &dyn Disk,
    sb: &Superblock,
    mode: RecoveryMode,
    end: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scan> {
    let (scan, past) = scan_once(disk, sb, mode, (end, true), progress)?;
    // What was left out as past may be live: the frame that said so does not count.
    if tail_of(&existing(&scan)) < past {
        return Ok(scan_once(disk, sb, mode, (end, false), progress)?.0);
    }
    Ok(scan)
}

/// What is known of the log while it is read: which frames do not count.
#[derive(Debug, Default)]
struct Known {
    /// No segment before it counts.
    tail: u64,
    cuts: Cuts,
    end: Option<u64>,
}

impl Known {
    fn past(&self, header: &FrameHeader, segment: u64) -> bool {
        header.lsn / segment < self.tail || self.void(header)
    }

    fn void(&self, header: &FrameHeader) -> bool {
        self.end.is_some_and(|end| header.lsn >= end) || self.cuts.void(header)
    }
}

/// As [`scan`]. With `glance` only the first frame of a slab that is past counts, whether the rest was read or not: the next opening reads
/// other slabs, and must find the same. Also returns the number below which segments were taken for past.
fn scan_once(
    disk: &dyn Disk,
    sb: &Superblock,
    mode: RecoveryMode,
    (end, glance): (Option<u64>, bool),
    progress: &mut dyn FnMut(Progress),
) -> Result<(Scan, u64)> {
    let mut scan = Scan { slabs: Vec::new(), max_seq: 0, max_session: 0, disbelieved: Vec::new() };
    let segment = u64::from(sb.segment_bytes);
    let total = sb.journal_slabs.len() as u64 * segment;
    let mut done = 0;
    let mut firsts: FxHashMap<u32, Found> = FxHashMap::default();
    let mut read: HashSet<u32> = HashSet::new();
    let mut wanted = sb.journal_slabs.clone();
    let (mut tail, mut past) = (0, 0);
    let mut known = Known { end, ..Known::default() };
    // Of slabs that were read once: the lowest segment number of a frame that was stepped over in them.
    let mut over: FxHashMap<u32, u64> = FxHashMap::default();
    // A salvage takes nobody's word, and looks everywhere.
    let salvages = mode == RecoveryMode::Salvage;
    if wanted.len() >= SELECTED_FROM && !salvages {
        each_slab(disk, sb, &wanted, &Part::First, &mut |slab, looked| {
            let looked = looked.map_err(|e| Error::io(format!("reading journal slab {slab}"), e))?;
            firsts.extend(looked.frames.into_iter().next().map(|first| (slab, first)));
            Ok(())
        })?;
        wanted = select::more(sb, &scan, &read, &firsts);
    }
    while !wanted.is_empty() {
        scan.slabs.retain(|s| !wanted.contains(&s.slab));
        each_slab(disk, sb, &wanted, &Part::All { known: &known, salvages }, &mut |slab, looked| {
            let mut looked = looked.map_err(|e| Error::io(format!("reading journal slab {slab}"), e))?;
            if read.contains(&slab) {
                // Two readings of a slab are enough.
                over.remove(&slab);
            } else {
                progress(Progress { what: "recovering", done, total });
                done += segment;
                over.extend(looked.over.map(|seq| (slab, seq)));
            }
            if looked.frames.iter().all(|f| f.header.lsn / segment < tail) {
                looked.frames.retain(|f| f.header.lsn.is_multiple_of(segment));
            }
            scan.take(slab, looked.frames, segment)
        })?;
        scan.slabs.sort_by_key(|s| (s.seq, s.slab));
        read.extend(wanted);
        known = Known { tail: tail_of(&existing(&scan)), cuts: Cuts::of(&scan), end };
        if glance {
            tail = known.tail;
            past = past.max(tail);
        }
        wanted = select::more(sb, &scan, &read, &firsts);
        if wanted.is_empty() {
            wanted = hiding(sb, &scan, &known, &over, salvages);
        }
    }
    firsts.retain(|slab, _| !read.contains(slab));
    for (slab, first) in firsts {
        scan.take(slab, vec![first], segment)?;
    }
    progress(Progress { what: "recovering", done: total, total });
    // Sorted, so that of two slabs that claim one number the same is always called the second.
    scan.slabs.sort_by_key(|s| (s.seq, s.slab));
    // Nothing past counts, so another slab with such a number is no contradiction: a frame may have gone astray to where the journal has
    // grown.
    let tail = tail_of(&existing(&scan));
    scan.slabs.dedup_by(|second, first| second.seq == first.seq && first.seq < tail);
    if let Some(pair) = scan.slabs.windows(2).find(|w| w[0].seq == w[1].seq) {
        if mode == RecoveryMode::Salvage {
            // Neither is believed: their frames count as lost.
            let twice: Vec<u64> = scan.slabs.windows(2).filter(|w| w[0].seq == w[1].seq).map(|w| w[0].seq).collect();
            scan.slabs.retain(|s| !twice.contains(&s.seq));
            scan.disbelieved = twice;
            return Ok((scan, past));
        }
        return Err(Error::Corrupt {
            what: "two slabs claim to be the same journal segment",
            offset: sb.slab_offset(pair[1].slab),
            hint: concat!("a write went astray, or the file was copied while in use: ", salvage_it!()),
        });
    }
    Ok((scan, past))
}

/// Slabs in which something live may be hidden: a whole frame that does not count was stepped over in them.
fn hiding(sb: &Superblock, scan: &Scan, known: &Known, over: &FxHashMap<u32, u64>, all: bool) -> Vec<u32> {
    let slabs: FxHashMap<u32, &SlabScan> = scan.slabs.iter().map(|s| (s.slab, s)).collect();
    let living = select::Living::of(sb, scan);
    let hides = |slab: &u32, lowest: u64| {
        let found = slabs.get(slab);
        let seq = found.map_or(0, |s| s.seq);
        let void = |f: &Found| f.table.is_some() && f.header.bytes() > BLOCK as u64 && known.void(&f.header);
        (all || living.may_live(*slab, Some(seq)))
            && (lowest < seq.max(known.tail) || found.is_some_and(|s| s.frames.iter().any(void)))
    };
    sb.journal_slabs.iter().copied().filter(|slab| over.get(slab).is_some_and(|&lowest| hides(slab, lowest))).collect()
}

impl Scan {
    /// Adds what was found in a slab.
    fn take(&mut self, slab: u32, mut frames: Vec<Found>, segment: u64) -> Result<()> {
        for frame in frames.iter().filter(|f| f.header.session <= LAST_SESSION) {
            self.max_seq = self.max_seq.max(frame.header.lsn / segment);
            self.max_session = self.max_session.max(frame.header.session);
        }
        // A slab holds one segment after another; only the frames of the newest count.
        let seq = frames.iter().map(|f| f.header.lsn / segment).max();
        frames.retain(|f| Some(f.header.lsn / segment) == seq);
        if let Some(beyond) = frames.iter().find(|f| f.header.lsn > LAST_LSN || f.header.session > LAST_SESSION) {
            return Err(Error::Corrupt {
                what: "a frame whose number no log reaches",
                offset: beyond.offset,
                hint: concat!("its checksum holds, so it was made to look like this: ", rebuild_all!()),
            });
        }
        if let Some(seq) = seq {
            self.slabs.push(SlabScan { slab, seq, frames });
        }
        Ok(())
    }
}

/// How much of a slab is read.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    /// The frame at its start, if there is one.
    First,
    All {
        /// Frames that do not count are not stepped over.
        known: &'a Known,
        /// A block that cannot be read holds no frame.
        salvages: bool,
    },
}

/// What was found in a slab.
#[derive(Debug, Default)]
struct Looked {
    frames: Vec<Found>,
    /// The lowest segment number of a frame of more than a block that was stepped over.
    over: Option<u64>,
}

/// Takes a slab and what was found in it, or why it could not be read.
type Take<'a> = &'a mut dyn FnMut(u32, io::Result<Looked>) -> Result<()>;

impl Part<'_> {
    /// The longest read: never more than a slab, as each is read by itself.
    fn window(&self, sb: &Superblock) -> usize {
        let longest = match self {
            Self::First => LEAST_WINDOW,
            Self::All { .. } => MOST_WINDOW,
        };
        longest.min(sb.segment_bytes as usize)
    }
}

/// Hands the frames of each slab to `take`, in any order, until that returns an error.
#[cfg(not(any(loom, shuttle)))]
fn each_slab(disk: &dyn Disk, sb: &Superblock, slabs: &[u32], part: &Part<'_>, take: Take<'_>) -> Result<()> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use crate::sync::helper;

    if slabs.len() < 2 * READERS {
        return one_by_one(disk, sb, slabs, part, take);
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (found, receive) = mpsc::sync_channel(READERS);
        let mut readers = 0;
        while readers < READERS {
            let (next, found) = (&next, found.clone());
            let read = move || {
                let mut buf = AlignedBuf::with_capacity(part.window(sb));
                while let Some(&slab) = slabs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Once `take` has returned an error, nobody receives any more.
                    if found.send((slab, frames(disk, sb, slab, part, &mut buf))).is_err() {
                        return;
                    }
                }
            };
            if helper(scope, "strandlog-reader", read).is_none() {
                break;
            }
            readers += 1;
        }
        if readers == 0 {
            return one_by_one(disk, sb, slabs, part, take);
        }
        drop(found);
        receive.into_iter().try_for_each(|(slab, looked)| take(slab, looked))
    })
}

/// In a model every reader would be one more thread to interleave, and they share nothing.
#[cfg(any(loom, shuttle))]
fn each_slab(disk: &dyn Disk, sb: &Superblock, slabs: &[u32], part: &Part<'_>, take: Take<'_>) -> Result<()> {
    one_by_one(disk, sb, slabs, part, take)
}

fn one_by_one(disk: &dyn Disk, sb: &Superblock, slabs: &[u32], part: &Part<'_>, take: Take<'_>) -> Result<()> {
    let mut buf = AlignedBuf::with_capacity(part.window(sb));
    slabs.iter().try_for_each(|&slab| take(slab, frames(disk, sb, slab, part, &mut buf)))
}

/// The frames in one slab. Behind one that is unreadable, void or past, or older than one before it, the search goes on block by block.
fn frames(disk: &dyn Disk, sb: &Superblock, slab: u32, part: &Part<'_>, buf: &mut AlignedBuf) -> io::Result<Looked> {
    let (seed, segment) = (sb.seed(), u64::from(sb.segment_bytes));
    let place = (sb.slab_offset(slab), sb.segment_bytes as usize);
    let mut slab = Window::new(disk, place, buf, matches!(part, Part::All { salvages: true, .. }));
    let mut looked = Looked::default();
    let (mut at, mut newest) = (0_usize, 0);
    let mut unread = slab.len.saturating_mul(MOST_TABLES);
    while at + BLOCK <= slab.len {
        let mut step = BLOCK;
        if let Some(header) = FrameHeader::decode(seed, at as u64, segment, slab.get(at..at + FRAME_HEADER_BYTES)?) {
            // A frame whose header decodes ends within its slab, and its table within the frame.
            let table: Option<Box<[u8]>> = match unread.checked_sub(header.table_bytes as usize) {
                None => None,
                Some(left) => {
                    unread = left;
                    let table = header.table_range();
                    let table = slab.get(at + table.start..at + table.end)?;
                    (seed.crc(header.lsn, table) == header.table_crc).then(|| table.into())
                }
            };
            let seq = header.lsn / segment;
            newest = seq.max(newest);
            let counts = seq == newest && matches!(part, Part::All { known, .. } if !known.past(&header, segment));
            if table.is_some() && counts {
                step = header.bytes() as usize;
                if step > BLOCK {
                    looked.over.get_or_insert(seq);
                }
            }
            looked.frames.push(Found { header, offset: slab.offset + at as u64, table });
        }
        if matches!(part, Part::First) {
            break;
        }
        at += step;
    }
    Ok(looked)
}
