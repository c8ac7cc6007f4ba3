//! The journal's frames read back from the disk. What lies in their tables is in memory, too, and is not read from the disk before the next
//! opening that reads the journal: hard states among it, which nothing may lose.

use std::io;

use super::Engine;
use super::read::ATTEMPTS;
use crate::disk::BLOCK;
use crate::format::POOL_OFFSET;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};

/// The frames that rotted.
#[derive(Debug, Default)]
pub(crate) struct Rot {
    /// Frames whose header or table is not what was written, or cannot be read. Behind one with a bad header the rest of its segment is not
    /// looked at; if it is the first of its segment, nor are the segments before.
    pub frames: u64,
    /// The newest segment with such a frame.
    pub newest: Option<u64>,
}

impl Rot {
    fn add(&mut self, segment: u64) {
        self.frames += 1;
        self.newest = self.newest.max(Some(segment));
    }
}

/// How far the frames of a segment reach, and which frame follows the last of them.
struct Reach {
    end: u64,
    next: Option<FrameHeader>,
}

/// A frame as the disk has it.
enum Frame {
    Whole(FrameHeader),
    /// Its header is whole.
    BadTable(FrameHeader),
    BadHeader,
    /// Its segment is free.
    Gone,
}

impl Engine {
    /// Reads header and table of every durable frame in the live segments; `read` is told the bytes of each.
    ///
    /// From the newest segment to the oldest: only the frame that follows says where the last one of a segment ends. An opening may have
    /// given up what lies behind that, and also a whole segment that no frame names as the one before it.
    pub(crate) fn check_frames(&self, mut read: impl FnMut(u64)) -> Rot {
        let mut rot = Rot::default();
        let (segments, end) = {
            let s = self.seq.lock();
            let segments: Vec<u64> = s.segments.live.iter().map(|segment| segment.seq).collect();
            (segments, self.durable())
        };
        let mut reach = Reach { end, next: None };
        for &seq in segments.iter().rev() {
            let start = seq.saturating_mul(self.geo.segment_bytes);
            if reach.end <= start || reach.end - start > self.geo.segment_bytes {
                continue;
            }
            let Some(first) = self.check_segment(seq, &reach, &mut rot, &mut read) else { break };
            reach = Reach { end: first.prev_end(), next: Some(first) };
        }
        rot
    }

    /// Returns the segment's first frame, if its header is whole.
    fn check_segment(&self, seq: u64, reach: &Reach, rot: &mut Rot, read: &mut impl FnMut(u64)) -> Option<FrameHeader> {
        let (mut first, mut last): (_, Option<FrameHeader>) = (None, None);
        let mut at = seq.saturating_mul(self.geo.segment_bytes);
        while at < reach.end {
            let frame = self.check_frame(seq, at, reach.end, last.as_ref());
            let header = match frame {
                Frame::Gone => return None,
                Frame::Whole(header) => header,
                Frame::BadTable(header) => {
                    rot.add(seq);
                    header
                }
                Frame::BadHeader => {
                    rot.add(seq);
                    read(BLOCK as u64);
                    return first;
                }
            };
            read((BLOCK as u64).max(FRAME_HEADER_BYTES as u64 + u64::from(header.table_bytes)));
            first = first.or(Some(header));
            last = Some(header);
            at = header.end();
        }
        // An older frame in the place of the last one would be whole, too.
        if let (Some(next), Some(last)) = (&reach.next, &last)
            && !next.follows(last, self.geo.seed)
        {
            rot.add(seq);
        }
        first
    }

    /// Reads a bad frame again and again: a device may answer one reading with older bytes, of the header and then of the table.
    fn check_frame(&self, seq: u64, lsn: u64, end: u64, before: Option<&FrameHeader>) -> Frame {
        for _ in 1..ATTEMPTS {
            match self.read_frame(seq, lsn, end, before) {
                Ok(Frame::BadHeader | Frame::BadTable(_)) | Err(_) => {}
                Ok(frame) => return frame,
            }
        }
        self.read_frame(seq, lsn, end, before).unwrap_or_else(|error| {
            tracing::warn!(target: "strandlog", lsn, %error, "a frame cannot be read");
            Frame::BadHeader
        })
    }

    /// The segment is pinned for this frame only: freeing it does not wait for a reader that keeps to a pace.
    fn read_frame(&self, seq: u64, lsn: u64, end: u64, before: Option<&FrameHeader>) -> io::Result<Frame> {
        let Some(pinned) = self.pin_segment(seq) else { return Ok(Frame::Gone) };
        let within = lsn % self.geo.segment_bytes;
        let offset = POOL_OFFSET + u64::from(pinned.slab) * self.geo.segment_bytes + within;
        let mut block = vec![0; BLOCK];
        self.disk.read_at(offset, &mut block)?;
        let header = FrameHeader::decode(self.geo.seed, within, self.geo.segment_bytes, &block);
        // An older frame may be whole here, if the last write was lost.
        let fits = |header: &FrameHeader| {
            header.lsn == lsn
                && header.end() <= end
                && before.is_none_or(|before| header.follows(before, self.geo.seed))
        };
        let Some(header) = header.filter(fits) else { return Ok(Frame::BadHeader) };
        let range = header.table_range();
        let far;
        let table = match block.get(range.clone()) {
            Some(table) => table,
            None => {
                let mut bytes = vec![0; range.len()];
                self.disk.read_at(offset + range.start as u64, &mut bytes)?;
                far = bytes;
                &far
            }
        };
        let holds = self.geo.seed.crc(lsn, table) == header.table_crc;
        Ok(if holds { Frame::Whole(header) } else { Frame::BadTable(header) })
    }
}
