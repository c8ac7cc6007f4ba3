//! Reading a snapshot back, when the log is opened.

use std::collections::VecDeque;
use std::io;

use super::decode::Decoder;
use super::longest;
use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::engine::Geometry;
use crate::format::frame::FrameHeader;
use crate::format::superblock::{Snapshot, Superblock};
use crate::index::{Cell, Registry};
use crate::journal::LiveSegment;
use crate::sync::{Arc, Mutex, helped};

/// A snapshot is read in parts of this size, ...
const PART: usize = 256 << 10;
/// ... this many at once: a device answers a few as fast as one.
const PART_READERS: usize = 3;
/// This many threads read the first blocks of the slabs meanwhile.
const FRONT_READERS: usize = 3;

/// All that a snapshot says, checked.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub registry: Registry,
    /// All cells of the registry, by their ids.
    pub cells: Vec<Arc<Cell>>,
    /// The live segments, oldest first.
    pub segments: VecDeque<LiveSegment>,
    pub next_seq: u64,
    pub last: FrameHeader,
    pub last_participants: Vec<u64>,
    /// The session that wrote it: the highest there was.
    pub session: u64,
}

/// Reads the snapshot that both superblocks name. `None`, with the reason logged, if anything about it is doubtful: then the journal is
/// read, which needs nobody's word.
pub(crate) fn load(disk: &dyn Disk, geo: &Geometry, sb: &Superblock, snapshot: &Snapshot) -> Option<Loaded> {
    if snapshot.bytes > longest(geo, sb) {
        return None;
    }
    let loaded = read_and_check(disk, geo, sb, snapshot);
    loaded.inspect_err(|doubt| tracing::warn!(%doubt, "the snapshot of the last close is not used")).ok()
}

/// The first blocks of the slabs are many, each of them far from the next: they are read while the snapshot is decoded.
fn read_and_check(disk: &dyn Disk, geo: &Geometry, sb: &Superblock, snapshot: &Snapshot) -> Result<Loaded, Doubt> {
    let (mut bytes, mut fronts) = (AlignedBuf::new(), AlignedBuf::new());
    fronts.resize(sb.journal_slabs.len() * BLOCK);
    let places = sb.journal_slabs.iter().map(|&slab| sb.slab_offset(slab));
    let jobs: Vec<Job<'_>> = places.zip(fronts.as_mut_slice().chunks_mut(BLOCK)).collect();
    let decoded = beside(disk, jobs, || {
        // No longer than the journal.
        bytes.resize((snapshot.bytes as usize).next_multiple_of(BLOCK));
        let mut jobs: Vec<Job<'_>> = Vec::new();
        let mut rest = bytes.as_mut_slice();
        for extent in &snapshot.extents {
            let (part, tail) = rest.split_at_mut(rest.len().min(usize::try_from(extent.bytes()).unwrap_or(usize::MAX)));
            jobs.extend((0..).map(|i| extent.offset() + i * PART as u64).zip(part.chunks_mut(PART)));
            rest = tail;
        }
        read_all(disk, jobs, PART_READERS)?;
        decode(geo, sb, snapshot, bytes.as_slice().get(..snapshot.bytes as usize).unwrap_or_default())
    })?;
    nothing_newer(disk, geo, sb, &decoded, fronts.as_slice())?;
    Ok(decoded)
}

/// Why a snapshot is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Doubt {
    #[error("reading it: {0}")]
    Unread(#[from] io::Error),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it does not fit its superblock")]
    Head,
    #[error("a segment does not begin with its first frame")]
    Front,
    #[error("a frame was written after it")]
    Newer,
    #[error("its last frame is not there")]
    Last,
    #[error("what it says of a replica cannot be")]
    Replica,
    #[error("more follows its end")]
    End,
}

/// Compares the snapshot with its superblock and with itself.
pub(super) fn decode(geo: &Geometry, sb: &Superblock, snapshot: &Snapshot, bytes: &[u8]) -> Result<Loaded, Doubt> {
    if Snapshot::checksum(geo.seed, sb.epoch, bytes) != snapshot.crc {
        return Err(Doubt::Checksum);
    }
    let mut decoder = Decoder::new(bytes, geo, sb, snapshot.lsn).ok_or(Doubt::Head)?;
    let (mut registry, mut cells) = (Registry::new(), Vec::with_capacity(decoder.most()));
    while decoder.left > 0 {
        let (id, state) = decoder.replica().ok_or(Doubt::Replica)?;
        let (cell, _) = registry.find_or_create(id);
        *cell.lock() = state;
        cells.push(Arc::clone(cell));
    }
    if !decoder.is_done() {
        return Err(Doubt::End);
    }
    let Decoder { head, participants, .. } = decoder;
    let segments = head.segments.iter().zip(participants);
    let segments = segments.map(|(&(seq, slab), participants)| LiveSegment { seq, slab, participants }).collect();
    Ok(Loaded {
        registry,
        cells,
        segments,
        next_seq: head.next_seq,
        last: head.last,
        last_participants: head.participants,
        session: head.session,
    })
}

/// Looks where a later session would have written first: at the front of a slab, or behind the last frame. And whether the journal is the
/// one that the snapshot describes. Frames of an earlier session that a later one declared void may lie anywhere.
fn nothing_newer(disk: &dyn Disk, geo: &Geometry, sb: &Superblock, is: &Loaded, fronts: &[u8]) -> Result<(), Doubt> {
    let newer = |h: &FrameHeader| h.session > is.session || (h.session == is.session && h.lsn >= is.last.end());
    let decode = |within, block: &[u8]| FrameHeader::decode(geo.seed, within, geo.segment_bytes, block);
    for (slab, block) in sb.journal_slabs.iter().zip(fronts.chunks(BLOCK)) {
        let front = decode(0, block);
        if front.is_some_and(|h| newer(&h)) {
            return Err(Doubt::Newer);
        }
        let live = is.segments.iter().find(|s| s.slab == *slab).map(|s| s.seq);
        if live.is_some_and(|seq| front.is_none_or(|h| h.lsn / geo.segment_bytes != seq)) {
            return Err(Doubt::Front);
        }
    }
    let slab = is.segments.back().map(|s| s.slab).ok_or(Doubt::Last)?;
    let mut block = AlignedBuf::new();
    block.resize(BLOCK);
    let within = is.last.lsn % geo.segment_bytes;
    disk.read_at(sb.slab_offset(slab) + within, block.as_mut_slice())?;
    if decode(within, block.as_slice()) != Some(is.last) {
        return Err(Doubt::Last);
    }
    let behind = within + is.last.bytes();
    if behind < geo.segment_bytes {
        disk.read_at(sb.slab_offset(slab) + behind, block.as_mut_slice())?;
        if decode(behind, block.as_slice()).is_some_and(|h| newer(&h)) {
            return Err(Doubt::Newer);
        }
    }
    Ok(())
}

/// Where to read, and into what.
type Job<'a> = (u64, &'a mut [u8]);

type Jobs<'a> = Mutex<std::vec::IntoIter<Job<'a>>>;

/// Does jobs until none is left.
fn read_on(disk: &dyn Disk, jobs: &Jobs<'_>) -> io::Result<()> {
    loop {
        let job = { jobs.lock().next() };
        let Some((offset, buf)) = job else { return Ok(()) };
        disk.read_at(offset, buf)?;
    }
}

/// Does the jobs, `readers` at once, this thread's among them.
fn read_all(disk: &dyn Disk, jobs: Vec<Job<'_>>, readers: usize) -> io::Result<()> {
    let helpers = readers.min(jobs.len()).saturating_sub(1);
    let jobs = Mutex::new(jobs.into_iter());
    helped(helpers, || read_on(disk, &jobs), || read_on(disk, &jobs))
}

/// Does the jobs beside something else: both must succeed.
fn beside<T>(disk: &dyn Disk, jobs: Vec<Job<'_>>, main: impl FnOnce() -> Result<T, Doubt>) -> Result<T, Doubt> {
    let helpers = FRONT_READERS.min(jobs.len());
    let jobs = Mutex::new(jobs.into_iter());
    let own = || {
        let done = main()?;
        read_on(disk, &jobs)?;
        Ok(done)
    };
    helped(helpers, || read_on(disk, &jobs), own)
}
