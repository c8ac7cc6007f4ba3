//! Walking: from what was found to what counts. Finds the tail, the watermark and the end, and what is missing between them.

use std::collections::BTreeMap;

use super::decide::{Condition, Decision, decide};
use super::scan::{Found, Scan};
use crate::chain::verify_piece;
use crate::disk::Disk;
use crate::engine::Geometry;
use crate::error::{Error, Result, salvage_it};
use crate::format::frame::{
    ENTRY_CRC_BYTES, FRAME_HEADER_BYTES, FrameHeader, MAX_IN_FLIGHT, Participants, participant_bytes,
};
use crate::format::piece::PieceDesc;
use crate::format::record::{Body, Records};
use crate::format::{EntryId, Reader, Seed, crc};
use crate::options::RecoveryMode;
use crate::space::Pins;
use crate::sync::Arc;

/// What is missing in front of an accepted frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Whole,
    /// Exactly one frame, whose participants this one lists.
    LostOne,
    /// One or more frames; only the last one's participants are known.
    LostSome,
}

/// A frame that counts.
#[derive(Debug)]
pub(super) struct Accepted<'a> {
    pub header: FrameHeader,
    pub table: &'a [u8],
    pub before: Before,
    /// No watermark covers it yet: the next recovery will look at its payload and its pieces again.
    pub unsettled: bool,
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub accepted: Vec<Accepted<'a>>,
    /// At least this many frames are missing below the watermark.
    pub lost: u64,
    /// Frames are missing at the end whose participants nobody lists.
    pub lost_at_end: bool,
    pub dropped: u64,
    /// The LSN at which the log ends.
    pub end: u64,
    /// The log was durable up to here: frames say so, or the superblock.
    pub watermark: u64,
    pub tail_seq: u64,
    /// Segment of the last accepted frame.
    pub last_seq: Option<u64>,
}

impl Walk<'_> {
    /// How far the log is known to have been durable, if no accepted frame says so, nor the superblock (`durable`): that is gone as soon as
    /// the log goes on in place of the frame that does.
    pub fn said_by_dropped(&self, durable: u64) -> Option<u64> {
        let kept = self.accepted.iter().map(|a| a.header.watermark).max().unwrap_or(0).max(durable);
        Some(self.watermark).filter(|&watermark| watermark > kept)
    }

    /// Drops the frames between this one and the one that it follows but for one lost frame, and returns how many. They are a torn end that
    /// comes back, as the lost frame is the only one of the session that cut it off. A torn end is no longer than what may be in flight.
    fn pass_over(&mut self, header: &FrameHeader, seed: Seed) -> u64 {
        let follows = |at: &Accepted<'_>| header.follows_but_one(&at.header, seed);
        // Before the lost frame, and of an earlier session than this frame: a session does not cut off its own.
        let between = |at: &&Accepted<'_>| at.header.lsn < header.prev_lsn && at.header.session < header.session;
        let mut older = self.accepted.iter().rev().take(1 + MAX_IN_FLIGHT as usize).take_while(between);
        let behind = older.position(follows).unwrap_or(0);
        self.accepted.truncate(self.accepted.len() - behind);
        behind as u64
    }

    /// Where in the file the log ends.
    pub fn end_offset(&self, scan: &Scan) -> u64 {
        self.accepted.last().map_or(0, |a| scan.offset_of(a.header.lsn).saturating_add(a.header.bytes()))
    }
}

/// Each session, ascending, with the lowest LSN at which it or a later one cut off the log before it.
#[derive(Debug, Default)]
pub(super) struct Cuts(Vec<(u64, u64)>);

impl Cuts {
    pub fn of(scan: &Scan) -> Self {
        let said: BTreeMap<u64, u64> =
            scan.slabs.iter().flat_map(|s| &s.frames).map(|f| (f.header.session, f.header.cut)).collect();
        let mut cuts: Vec<(u64, u64)> = said.into_iter().collect();
        let mut lowest = u64::MAX;
        for (_, cut) in cuts.iter_mut().rev() {
            lowest = lowest.min(*cut);
            *cut = lowest;
        }
        Self(cuts)
    }

    /// Whether a later session said that this frame does not exist.
    pub fn void(&self, header: &FrameHeader) -> bool {
        let later = self.0.partition_point(|&(session, _)| session <= header.session);
        self.0.get(later).is_some_and(|&(_, cut)| cut <= header.lsn)
    }
}

/// All frames but those that a later session cut off.
pub(super) fn existing(scan: &Scan) -> Vec<&Found> {
    let cuts = Cuts::of(scan);
    scan.slabs.iter().flat_map(|s| &s.frames).filter(|f| !cuts.void(&f.header)).collect()
}

/// The segment before which nothing counts. The newest whole frame names it: all it says of older frames was durable when it was sealed.
pub(super) fn tail_of(existing: &[&Found]) -> u64 {
    existing.iter().rev().find(|f| f.table.is_some()).map_or(0, |f| f.header.tail_seq)
}

/// Decides frame by frame, by the table in [`super::decide`]. `durable`: what the superblock says was durable when it was written.
pub(super) fn walk<'a>(
    disk: &dyn Disk,
    geo: &Geometry,
    scan: &'a Scan,
    durable: u64,
    mode: RecoveryMode,
) -> Result<Walk<'a>> {
    let frames = existing(scan);
    let watermark = frames.iter().map(|f| f.header.watermark).max().unwrap_or(0).max(durable);
    let tail_seq = tail_of(&frames);
    let first_lsn = tail_seq.saturating_mul(geo.segment_bytes);
    let frames: Vec<&Found> = frames.into_iter().filter(|f| f.header.lsn >= first_lsn).collect();
    let mut walk = Walk {
        accepted: Vec::new(),
        lost: 0,
        lost_at_end: false,
        dropped: 0,
        end: 0,
        watermark,
        tail_seq,
        last_seq: None,
    };
    let mut hole = false;
    let mut placed = 0_u64;
    // Counted once: there may be tens of thousands of frames, and as many that cannot be read.
    let mut followers = frames.iter().filter(|f| f.table.is_some()).count();
    for frame in &frames {
        let header = frame.header;
        followers -= usize::from(frame.table.is_some());
        let below = header.lsn < watermark;
        if let Some(table) = frame.table.as_deref().filter(|_| !below) {
            placed = placed.saturating_add(placed_blocks(geo, table));
        }
        let condition = match &frame.table {
            None => Condition::Unreadable,
            // Pieces placed by these frames share no block: frames that name more blocks than there are lie, and reading all of it might
            // never end.
            Some(_) if placed > u64::from(geo.pool_blocks) => Condition::PayloadBad,
            // Twice: a read may have been answered with older bytes.
            Some(table)
                if !below
                    && !payload_holds(disk, geo, frame, table, mode)?
                    && !payload_holds(disk, geo, frame, table, mode)? =>
            {
                Condition::PayloadBad
            }
            Some(_) => Condition::Intact,
        };
        match decide(condition, below, followers) {
            Decision::Apply => {
                let mut before = gap(geo, first_lsn, walk.accepted.last().map(|a| &a.header), &header);
                if before == Before::LostSome {
                    walk.dropped += walk.pass_over(&header, geo.seed);
                    before = gap(geo, first_lsn, walk.accepted.last().map(|a| &a.header), &header);
                }
                let before = if hole && before == Before::Whole { Before::LostSome } else { before };
                if before != Before::Whole && !below && header.prev_end() > watermark {
                    // Its predecessor is missing and was not durable when this frame was sealed: they were in flight together, neither
                    // acknowledged.
                    walk.dropped += 1;
                    continue;
                }
                walk.lost += u64::from(before != Before::Whole);
                hole = false;
                let Some(table) = frame.table.as_deref() else { continue };
                walk.end = header.end();
                walk.last_seq = Some(header.lsn / geo.segment_bytes);
                walk.accepted.push(Accepted { header, table, before, unsettled: !below });
            }
            Decision::Damage => hole = true,
            Decision::EndOfLog => {
                // This frame may be whole but for its table, or whole ones may lie behind it: none of them counts.
                walk.dropped += 1 + followers as u64;
                break;
            }
            // What lies behind cannot be proved to be the log's: it says itself that the missing frame was durable.
            Decision::Refuse if mode == RecoveryMode::Salvage => {
                walk.dropped += 1 + followers as u64;
                walk.lost_at_end = true;
                break;
            }
            Decision::Refuse => {
                return Err(Error::Corrupt {
                    what: "a frame that cannot be read, with more valid ones behind it than may be in flight",
                    offset: frame.offset,
                    hint: concat!("the device lost a write it had confirmed: ", salvage_it!()),
                });
            }
        }
    }
    if walk.end < watermark {
        // Durable frames are missing, and no later one lists who was in them.
        walk.lost += 1;
        walk.lost_at_end = true;
        walk.end = watermark;
    }
    // Without a clean close no watermark reaches into a disbelieved segment at the end, and no frame behind it tells of it.
    let newer = |seq: &u64| *seq >= tail_seq && walk.last_seq.is_none_or(|last| *seq > last);
    if !walk.lost_at_end && scan.disbelieved.iter().any(newer) {
        walk.lost += 1;
        walk.lost_at_end = true;
    }
    Ok(walk)
}

/// What is missing between two accepted frames.
fn gap(geo: &Geometry, first_lsn: u64, prev: Option<&FrameHeader>, header: &FrameHeader) -> Before {
    match prev {
        Some(prev) if header.follows(prev, geo.seed) => Before::Whole,
        Some(prev) if header.follows_but_one(prev, geo.seed) => Before::LostOne,
        Some(_) => Before::LostSome,
        // The tail segment begins with a frame at its very start.
        None if header.lsn == first_lsn || header.prev_lsn < first_lsn => Before::Whole,
        None if header.prev_lsn == first_lsn => Before::LostOne,
        None => Before::LostSome,
    }
}

/// Blocks of the pieces that were placed beside a frame.
fn placed_blocks(geo: &Geometry, table: &[u8]) -> u64 {
    let mut reader = Reader::new(table);
    if Participants::decode(&mut reader, participant_bytes(geo.segment_bytes)).is_none() {
        return 0;
    }
    // A malformed record ends this count as it ends the reading of the pieces.
    let blocks = Records::new(reader, geo.pool_blocks).map_while(Result::ok).map(|record| match record.body {
        Body::Placed(pieces) => pieces.iter().map(PieceDesc::blocks).sum(),
        Body::PutOut { piece, .. } => piece.blocks(),
        _ => 0,
    });
    blocks.fold(0, u64::saturating_add)
}

/// Whether everything the frame brings is whole: each payload, their digest, each piece placed beside it. A salvage goes on where that
/// cannot be read: the table is whole, and what it says is newer than all before it. A power cut leaves nothing that the device cannot
/// read, so the frame may have been acknowledged; what it brings is damage when it is read, as below the watermark.
fn payload_holds(disk: &dyn Disk, geo: &Geometry, frame: &Found, table: &[u8], mode: RecoveryMode) -> Result<bool> {
    match payload_is_whole(disk, geo, frame, table) {
        Err(error) if mode == RecoveryMode::Salvage => {
            tracing::warn!(target: "strandlog", %error, "what a frame brings cannot be read");
            Ok(true)
        }
        holds => holds,
    }
}

/// As [`verify_piece`]. What lay in the part that a cut file has lost cannot be read: that it reads as zeros is no sign of a torn write.
fn piece_is_whole(disk: &dyn Disk, geo: &Geometry, replica: u64, piece: &PieceDesc, pins: &Arc<Pins>) -> Result<bool> {
    let io = |e| Error::io(format!("reading a piece of replica {replica}"), e);
    if piece.extents.iter().any(|e| e.offset().saturating_add(e.bytes()) > disk.held()) {
        return Err(io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    verify_piece(disk, geo.seed, replica, piece, pins).map_err(io)
}

fn payload_is_whole(disk: &dyn Disk, geo: &Geometry, frame: &Found, table: &[u8]) -> Result<bool> {
    let header = &frame.header;
    let mut payload = vec![0; header.payload_bytes as usize];
    let io = |e| Error::io(format!("reading frame {}", header.lsn), e);
    disk.read_at(frame.offset + FRAME_HEADER_BYTES as u64, &mut payload).map_err(io)?;
    let mut reader = Reader::new(table);
    if Participants::decode(&mut reader, participant_bytes(geo.segment_bytes)).is_none() {
        return Ok(false);
    }
    let mut rest = Reader::new(&payload);
    let mut lsn = header.lsn + FRAME_HEADER_BYTES as u64;
    let mut digest = 0;
    let pins = Arc::new(Pins::new(1));
    for record in Records::new(reader, geo.pool_blocks) {
        let Ok(record) = record else { return Ok(false) };
        match record.body {
            Body::Append { first, term, lens } | Body::Carried { first, term, lens } => {
                for (i, len) in lens.iter().enumerate() {
                    let id = EntryId { replica: record.replica, index: first.wrapping_add(i as u64), term, len };
                    let Some(crc) = rest.take(ENTRY_CRC_BYTES) else { return Ok(false) };
                    let Some(bytes) = rest.take(len as usize) else { return Ok(false) };
                    if crc != geo.seed.entry_crc(crc::of(bytes), lsn, id).to_le_bytes() {
                        return Ok(false);
                    }
                    digest = crc::append(digest, crc);
                    lsn += (ENTRY_CRC_BYTES + bytes.len()) as u64;
                }
            }
            Body::Placed(pieces) => {
                for piece in &pieces {
                    if !piece_is_whole(disk, geo, record.replica, piece, &pins)? {
                        return Ok(false);
                    }
                }
            }
            // Chunks are not reused before a durable watermark covers what freed them, so every piece named here must be whole. A carried
            // piece is older than the frame, and may have rotted since.
            Body::PutOut { piece, .. } if !piece_is_whole(disk, geo, record.replica, &piece, &pins)? => {
                return Ok(false);
            }
            _ => {}
        }
    }
    Ok(rest.rest().is_empty() && digest == header.payload_digest)
}
