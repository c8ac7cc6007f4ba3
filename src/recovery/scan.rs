//! Scanning: every frame that can be found in the journal's slabs, whatever it is worth.

use crate::disk::{BLOCK, Disk};
use crate::error::{Error, Result};
use crate::format::frame::{FrameHeader, MAX_LSN, MAX_SESSION};
use crate::format::superblock::Superblock;
use crate::options::{Progress, RecoveryMode};

/// From here on the numbers are used up: what is written next could not be read again. Millions of years away from an honest log.
const LAST_LSN: u64 = MAX_LSN - (1 << 56);
const LAST_SESSION: u64 = MAX_SESSION - (1 << 56);

/// Slabs asked for ahead of the one being read.
const PREFETCH: usize = 4;

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

/// Reads the journal once, front to back of each slab.
pub(super) fn scan(
    disk: &dyn Disk,
    sb: &Superblock,
    mode: RecoveryMode,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scan> {
    let mut scan = Scan { slabs: Vec::new(), max_seq: 0, max_session: 0, disbelieved: Vec::new() };
    let total = sb.journal_slabs.len() as u64 * u64::from(sb.segment_bytes);
    let mut buf = vec![0; sb.segment_bytes as usize];
    for (i, &slab) in sb.journal_slabs.iter().enumerate() {
        let offset = sb.slab_offset(slab);
        progress(Progress { what: "recovering", done: i as u64 * u64::from(sb.segment_bytes), total });
        // While this slab is parsed, the next ones are on their way.
        let ahead = if i == 0 { 0..PREFETCH } else { PREFETCH - 1..PREFETCH };
        for next in ahead {
            if let Some(&slab) = sb.journal_slabs.get(i + 1 + next) {
                disk.prefetch(sb.slab_offset(slab), u64::from(sb.segment_bytes));
            }
        }
        disk.read_at(offset, &mut buf).map_err(|e| Error::io(format!("reading journal slab {slab}"), e))?;
        let mut frames = frames(sb, offset, &buf);
        if let Some(beyond) = frames.iter().find(|f| f.header.lsn > LAST_LSN || f.header.session > LAST_SESSION) {
            return Err(Error::Corrupt {
                what: "a frame whose number no log reaches",
                offset: beyond.offset,
                hint: "its checksum holds, so it was made to look like this: restore the file from another store",
            });
        }
        for frame in &frames {
            scan.max_seq = scan.max_seq.max(frame.header.lsn / u64::from(sb.segment_bytes));
            scan.max_session = scan.max_session.max(frame.header.session);
        }
        // A slab lives many lives; the frames of the newest are those that count.
        let seq = frames.iter().map(|f| f.header.lsn / u64::from(sb.segment_bytes)).max();
        if let Some(seq) = seq {
            frames.retain(|f| f.header.lsn / u64::from(sb.segment_bytes) == seq);
            scan.slabs.push(SlabScan { slab, seq, frames });
        }
    }
    scan.slabs.sort_by_key(|s| s.seq);
    if let Some(pair) = scan.slabs.windows(2).find(|w| w[0].seq == w[1].seq) {
        if mode == RecoveryMode::Salvage {
            // Neither is believed: their frames count as lost.
            let twice: Vec<u64> = scan.slabs.windows(2).filter(|w| w[0].seq == w[1].seq).map(|w| w[0].seq).collect();
            scan.slabs.retain(|s| !twice.contains(&s.seq));
            scan.disbelieved = twice;
            return Ok(scan);
        }
        return Err(Error::Corrupt {
            what: "two slabs claim to be the same journal segment",
            offset: sb.slab_offset(pair[1].slab),
            hint: "a write went astray, or the file was copied while in use: restore it from another store, or salvage it",
        });
    }
    progress(Progress { what: "recovering", done: total, total });
    Ok(scan)
}

/// The frames in one slab. Behind an unreadable one the search goes on block by block.
fn frames(sb: &Superblock, offset: u64, bytes: &[u8]) -> Vec<Found> {
    let (seed, segment) = (sb.seed(), u64::from(sb.segment_bytes));
    let mut found = Vec::new();
    let mut at = 0_usize;
    while let Some(rest) = bytes.get(at..).filter(|r| r.len() >= BLOCK) {
        let mut step = BLOCK;
        if let Some(header) = FrameHeader::decode(seed, at as u64, segment, rest) {
            let table = rest.get(header.table_range()).filter(|t| seed.crc(header.lsn, t) == header.table_crc);
            if table.is_some() {
                step = header.bytes() as usize;
            }
            found.push(Found { header, offset: offset + at as u64, table: table.map(Into::into) });
        }
        at += step;
    }
    found
}
