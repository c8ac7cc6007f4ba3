//! The open frame: where submitted batches gather until a writer takes them.

use crate::disk::AlignedBuf;
use crate::format::frame::{ENTRY_CRC_BYTES, FRAME_HEADER_BYTES, FrameHeader, Participants};
use crate::format::piece::Extents;
use crate::format::{BLOCK_BYTES, Seed, crc, round_up_block};
use crate::sync::Arc;

use super::notices::Notices;
use super::recent::FrameMem;
use super::ticket::Ticket;
use super::times::Times;

/// A payload that goes straight to its chain, beside the frame that describes it.
#[derive(Debug)]
pub(crate) struct Placed {
    pub replica: u64,
    pub piece: u64,
    /// Its first index.
    pub first: u64,
    pub extents: Extents,
    pub buf: Arc<AlignedBuf>,
}

/// A frame that still takes batches, or waits to be sealed.
pub(crate) struct OpenFrame {
    pub lsn: u64,
    /// Where it will lie in the file.
    pub offset: u64,
    /// Bytes from here to the segment's end.
    pub room: u64,
    pub buf: AlignedBuf,
    pub table: Vec<u8>,
    /// Its own participants: the next frame lists them.
    pub participants: Vec<u64>,
    /// Its entries' checksums, one after the other: the header's digest covers them all.
    pub crcs: Vec<u8>,
    pub placed: Vec<Placed>,
    pub placed_bytes: u64,
    pub ticket: Arc<Ticket>,
    pub notices: Notices,
    /// How much was put into it: callers' batches, and the log's own moves and records.
    pub batches: u64,
    /// Of these, the callers'.
    pub user_batches: u64,
    pub entries: u64,
    pub user_bytes: u64,
    pub times: Times,
    /// Whether somebody waits for it: a frame of lazy batches alone causes no write.
    pub wanted: bool,
}

impl std::fmt::Debug for OpenFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFrame").field("lsn", &self.lsn).field("batches", &self.batches).finish_non_exhaustive()
    }
}

/// Lists that a frame fills and leaves behind when it is sealed: used again, so that steady use allocates nothing.
#[derive(Default)]
pub(crate) struct Lists {
    table: Vec<u8>,
    participants: Vec<u64>,
    crcs: Vec<u8>,
}

/// Capacity beyond this is not kept.
const KEPT_LIST_BYTES: usize = 256 << 10;

impl Lists {
    fn cleared(mut self) -> Self {
        self.table.clear();
        self.participants.clear();
        self.crcs.clear();
        self.table.shrink_to(KEPT_LIST_BYTES);
        self.participants.shrink_to(KEPT_LIST_BYTES / size_of::<u64>());
        self.crcs.shrink_to(KEPT_LIST_BYTES);
        self
    }
}

/// A frame on its way to the disk.
pub(crate) struct SealedFrame {
    pub header: FrameHeader,
    pub offset: u64,
    /// Bytes from `offset` to the segment's end: **what lies beyond belongs to somebody else**.
    pub room: u64,
    pub mem: Arc<FrameMem>,
    pub placed: Vec<Placed>,
    pub ticket: Arc<Ticket>,
    pub notices: Notices,
    pub batches: u64,
    pub user_batches: u64,
    pub entries: u64,
    pub user_bytes: u64,
    pub times: Times,
    /// The bytes that it counts in the queue.
    pub queued: u64,
}

impl std::fmt::Debug for SealedFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedFrame").field("lsn", &self.header.lsn).finish_non_exhaustive()
    }
}

/// What a frame must know of the log before it when it is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub session: u64,
    pub cut: u64,
    pub prev: Option<FrameHeader>,
    pub watermark: u64,
    pub tail_seq: u64,
    /// The slabs of the two segments that follow the frame's, as far as they are known.
    pub following: [Option<u32>; 2],
}

impl OpenFrame {
    /// Opens a frame of about `bytes`, which lists the `previous` frame's participants in `list_bytes` at most. It has no place yet: see
    /// [`OpenFrame::move_to`].
    pub fn new(bytes: usize, lists: Lists, previous: &mut Vec<u64>, list_bytes: u64) -> Self {
        let Lists { mut table, participants, crcs } = lists;
        Participants::encode(previous, list_bytes, &mut table);
        let mut this = Self {
            lsn: 0,
            offset: 0,
            room: 0,
            buf: AlignedBuf::with_capacity(bytes),
            table,
            participants,
            crcs,
            placed: Vec::new(),
            placed_bytes: 0,
            ticket: Arc::new(Ticket::new()),
            notices: Notices::default(),
            batches: 0,
            user_batches: 0,
            entries: 0,
            user_bytes: 0,
            times: Times::default(),
            wanted: false,
        };
        this.buf.resize(FRAME_HEADER_BYTES);
        this
    }

    /// Gives an empty frame its place.
    pub fn move_to(&mut self, lsn: u64, offset: u64, room: u64) {
        debug_assert_eq!(self.batches, 0);
        (self.lsn, self.offset, self.room) = (lsn, offset, room);
    }

    /// Whether `payload` and `table` bytes more fit before the segment's end.
    pub fn fits(&self, payload: u64, table: u64) -> bool {
        self.would_fit(payload, table, self.room)
    }

    /// As [`fits`](Self::fits), were there `room` bytes.
    pub fn would_fit(&self, payload: u64, table: u64, room: u64) -> bool {
        round_up_block(self.used() + payload + table) <= room
    }

    /// Header, payload and table so far.
    pub fn used(&self) -> u64 {
        self.buf.len() as u64 + self.table.len() as u64
    }

    /// The bytes that it counts in the queue.
    pub fn queued(&self) -> u64 {
        if self.batches == 0 { 0 } else { self.used() + self.placed_bytes + self.notices.bytes() }
    }

    /// Its length once it is sealed.
    pub fn sealed_bytes(&self) -> u64 {
        round_up_block(self.used())
    }

    /// The LSN of what is appended next.
    pub fn here(&self) -> u64 {
        self.lsn + self.buf.len() as u64
    }

    /// Appends a checksum and its payload; returns the LSN at which they begin.
    pub fn push_entry(&mut self, crc: u32, payload: &[u8]) -> u64 {
        let lsn = self.here();
        let crc = crc.to_le_bytes();
        self.crcs.extend_from_slice(&crc);
        let at = self.buf.len();
        self.buf.set_len_to_fill(at + ENTRY_CRC_BYTES + payload.len());
        let (checksum, body) = self.buf.as_mut_slice()[at..].split_at_mut(ENTRY_CRC_BYTES);
        checksum.copy_from_slice(&crc);
        body.copy_from_slice(payload);
        lsn
    }

    /// Puts table and header in place; from here on nothing changes. Returns its lists for another frame to use.
    pub fn seal(mut self, seed: Seed, before: &Before) -> (SealedFrame, Lists) {
        let [next, after] = before.following.map(|slab| slab.map_or(0, |slab| slab.saturating_add(1)));
        let queued = self.queued();
        let payload_bytes = (self.buf.len() - FRAME_HEADER_BYTES) as u32;
        let table_crc = seed.crc(self.lsn, &self.table);
        let blocks = (self.sealed_bytes() / BLOCK_BYTES) as u32;
        let table_bytes = self.table.len() as u32;
        self.buf.extend_from_slice(&self.table);
        self.buf.pad_to_block();
        let header = FrameHeader {
            lsn: self.lsn,
            session: before.session,
            cut: before.cut,
            blocks,
            prev_blocks: before.prev.map_or(0, |p| p.blocks),
            prev_lsn: before.prev.map_or(0, |p| p.lsn),
            prev_hash: before.prev.map_or(0, |p| p.hash(seed)),
            payload_bytes,
            table_bytes,
            table_crc,
            payload_digest: crc::of(&self.crcs),
            watermark: before.watermark,
            tail_seq: before.tail_seq,
            next,
            after,
            prev_prev_hash: before.prev.map_or(0, |p| p.prev_hash),
        };
        header.encode(seed, self.buf.as_mut_slice());
        header.encode_echo(seed, self.buf.as_mut_slice());
        let sealed = SealedFrame {
            header,
            offset: self.offset,
            room: self.room,
            mem: Arc::new(FrameMem { lsn: self.lsn, buf: self.buf }),
            placed: self.placed,
            ticket: self.ticket,
            notices: self.notices,
            batches: self.batches,
            user_batches: self.user_batches,
            entries: self.entries,
            user_bytes: self.user_bytes,
            times: self.times,
            queued,
        };
        (sealed, Lists { table: self.table, participants: self.participants, crcs: self.crcs }.cleared())
    }
}
