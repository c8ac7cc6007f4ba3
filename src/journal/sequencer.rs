//! The sequencer's state, under the lock that gives batches their place in the log.

use std::collections::VecDeque;

use super::frames::{Before, Lists, OpenFrame, SealedFrame};
use super::line::Line;
use super::recent::Recent;
use super::segments::{SegmentMap, Segments};
use super::tasks::Tasks;
use super::{Class, Flights};
use crate::error::Error;
use crate::format::frame::{FrameHeader, LAST_LSN, USED_UP_LSN, participant_bytes};
use crate::format::{BLOCK_BYTES, Seed};
use crate::space::{Accounts, Charge, Demand};
use crate::sync::{Arc, RwLock};

/// A frame that has gathered this much is closed: longer writes would only make the batches in it wait.
pub(crate) const FRAME_TARGET: u64 = 1 << 20;

/// Bytes of journal cleaned together: a replica's entries in neighbouring segments then settle as one piece, and their release costs
/// two frames in all.
const GROUP_BYTES: u64 = 32 << 20;

/// A journal of fewer segments keeps none free for cleaning several together.
const ROOMY_SEGMENTS: usize = 32;

/// Of the free segments between where the cleaner begins and where appends wait, it [rests](Sequencer::ease) in the first of this many
/// parts.
const EASE: usize = 4;

/// All that the sequencer lock guards.
pub(crate) struct Sequencer {
    pub open: OpenFrame,
    /// Full frames that wait for the writer.
    pub closed: VecDeque<OpenFrame>,
    /// Bytes in `closed`, and in the frames in flight.
    pub queued: u64,
    pub segments: Segments,
    pub accounts: Accounts,
    /// How many replicas exist. The registry also knows those that are gone.
    pub replicas: u64,
    /// The last frame that was sealed, here or before the opening.
    pub prev: Option<FrameHeader>,
    pub session: u64,
    pub cut: u64,
    pub in_flight: Flights,
    /// Why nothing is accepted any more.
    pub stopped: Option<Error>,
    /// The writer thread waits for work.
    pub writer_idle: bool,
    /// Callers that wait for room in the queue.
    pub line: Line,
    /// Tasks that wait for room.
    pub room_tasks: Tasks,
    /// Callers' batches that were accepted, except those that took the cleaner's segments.
    pub accepted: u64,
    /// See [`Sequencer::is_stuck`].
    pub stuck: bool,
    /// The segment in which the cleaner was last nudged: once each is enough.
    pub nudged: u64,
    /// Grows with every frame taken: tells the idle watch whether anything happened.
    pub frames_taken: u64,
    /// Whether the newest frame only says that all before it is durable.
    pub is_sealed: bool,
    /// What the last sealed frame left for the next one.
    spare: Lists,
    seed: Seed,
    segment_bytes: u64,
    pool_offset: u64,
}

impl std::fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequencer").field("open", &self.open).finish_non_exhaustive()
    }
}

/// What recovery found, from which the sequencer goes on.
#[derive(Debug)]
pub(crate) struct Resume {
    pub segments: Segments,
    pub accounts: Accounts,
    pub replicas: u64,
    pub prev: Option<FrameHeader>,
    pub prev_participants: Vec<u64>,
    pub session: u64,
    pub cut: u64,
    /// Where to go on in the newest segment if no fresh one could be spared: LSN, file offset, room.
    pub in_place: Option<(u64, u64, u64)>,
}

impl Sequencer {
    /// `in_flight`: how many frames may be written at once.
    pub fn new(mut resume: Resume, seed: Seed, segment_bytes: u64, pool_offset: u64, in_flight: usize) -> Self {
        let mut open =
            OpenFrame::new(0, Lists::default(), &mut resume.prev_participants, participant_bytes(segment_bytes));
        // The frames before this opening say where the next segments lie: an opening looks there, and nowhere else.
        let named = resume.prev.map_or([0; 2], |prev| [prev.after, prev.next]);
        for slab in named.into_iter().filter_map(|slab| slab.checked_sub(1)) {
            resume.segments.open_in(slab);
        }
        if let Some((lsn, offset, room)) = resume.in_place {
            open.move_to(lsn, offset, room);
        }
        Self {
            open,
            closed: VecDeque::new(),
            queued: 0,
            segments: resume.segments,
            accounts: resume.accounts,
            replicas: resume.replicas,
            prev: resume.prev,
            session: resume.session,
            cut: resume.cut,
            in_flight: Flights::new(in_flight),
            stopped: None,
            // There is no writer thread yet: the opening leads its own frames.
            writer_idle: true,
            line: Line::default(),
            room_tasks: Tasks::default(),
            accepted: 0,
            stuck: false,
            nudged: 0,
            frames_taken: 0,
            // An opening alone causes no seal.
            is_sealed: true,
            spare: Lists::default(),
            seed,
            segment_bytes,
            pool_offset,
        }
    }

    /// Bytes that wait for the writer.
    pub fn waiting_bytes(&self) -> u64 {
        self.queued + self.open.queued()
    }

    /// An LSN above every one given out so far: the end of the segment being written.
    pub fn lsn_bound(&self) -> u64 {
        (self.segments.current() + 1) * self.segment_bytes
    }

    /// Where the segment being written begins.
    pub fn segment_start(&self) -> u64 {
        self.segments.current() * self.segment_bytes
    }

    /// Whether there is a frame to write, and one more may be in flight.
    pub fn has_work(&self) -> bool {
        (!self.closed.is_empty() || self.open.wanted) && self.in_flight.may_start()
    }

    /// Makes room for a batch in the open frame: closes a full one, opens the next segment. `false`: no segment can be spared
    /// for this class, the cleaner must free one first.
    pub fn make_room(&mut self, payload: u64, table: u64, class: Class, map: &RwLock<SegmentMap>) -> bool {
        // A segment opened from the reserve belongs to the class for which it was kept: filled by others, it would leave the cleaner
        // without one, and none could ever be freed.
        let leaves = self.leaves(class);
        if self.segments.free.len() < leaves {
            return false;
        }
        let full = self.open.batches > 0 && self.open.used() + payload + table > FRAME_TARGET;
        if !full && self.open.fits(payload, table) {
            return true;
        }
        if self.open.batches > 0 {
            self.close_open();
            if self.open.fits(payload, table) {
                return true;
            }
        }
        // A batch that no segment could hold is refused without opening one.
        if !self.open.would_fit(payload, table, self.segment_bytes) {
            return false;
        }
        self.open_segment(leaves, map) && self.open.fits(payload, table)
    }

    /// Goes on in the next segment, whatever room there is in this one. `false`: none can be spared for this class.
    pub fn leave_segment(&mut self, class: Class, map: &RwLock<SegmentMap>) -> bool {
        let leaves = self.leaves(class);
        if self.segments.free.len() <= leaves {
            return false;
        }
        if self.open.batches > 0 {
            self.close_open();
        }
        self.open_segment(leaves, map)
    }

    /// Whether no batch is accepted any more because the LSNs run out. The cleaner goes on for a long while.
    pub fn is_used_up(&self) -> bool {
        self.segments.reach(self.segment_bytes) > USED_UP_LSN
    }

    /// Opens the next segment and has the open frame, which is empty, begin it.
    fn open_segment(&mut self, leaves: usize, map: &RwLock<SegmentMap>) -> bool {
        if self.segments.reach(self.segment_bytes) > LAST_LSN {
            return false;
        }
        let Some((seq, slab)) = self.segments.open_next(leaves) else { return false };
        map.write().push(seq, slab);
        let offset = self.pool_offset + u64::from(slab) * self.segment_bytes;
        self.open.move_to(seq * self.segment_bytes, offset, self.segment_bytes);
        true
    }

    /// How many segments must stay free after this class has taken one.
    pub fn leaves(&self, class: Class) -> usize {
        match class {
            Class::Grow => self.reserved() + self.headroom(),
            Class::Keep => super::CLEANER_SEGMENTS + self.accounts.cleaning(),
            Class::LetGo => super::CLEANER_SEGMENTS,
            Class::Clean => 0,
        }
    }

    /// Segments that are free, or will be once a frame that names another tail is durable and readers have let go.
    pub fn gained(&self) -> usize {
        self.segments.free.len() + self.segments.leaving.len() + self.segments.freeing.len()
    }

    /// Whether a waiter's patience has ended, and no segment was gained since. A batch that can help then need not wait as long again.
    pub fn is_stuck(&mut self) -> bool {
        self.note_gained();
        self.stuck
    }

    /// Ends being stuck once there is a segment, whichever class may take it.
    pub fn note_gained(&mut self) {
        self.stuck = self.stuck && self.gained() <= self.leaves(Class::Keep);
    }

    /// How many segments, at least, are free once there is room for a batch of this class: one may be opened for it.
    pub fn free_with_room(&self, class: Class) -> usize {
        self.segments.free.len().saturating_sub(1).max(self.leaves(class))
    }

    /// What a replica is charged, with as many free segments as the journal has now.
    pub fn price(&self, now: Charge, demand: Demand) -> Charge {
        self.accounts.price(now, demand, self.segments.free.len())
    }

    /// As [`price`](Self::price), where nobody was asked for chunks.
    pub fn price_unasked(&self, now: Charge, demand: Demand) -> Charge {
        self.accounts.price_unasked(now, demand, self.segments.free.len())
    }

    /// Free segments without which the log could not go on.
    pub fn reserved(&self) -> usize {
        super::RESERVED_SEGMENTS + self.accounts.cleaning()
    }

    /// Segments that appends leave free beyond the reserved ones, so that the cleaner can take several together even while appends come
    /// faster than it cleans: in a single one it finds too little of each replica to be worth settling. A small journal has none to give:
    /// cleaned earlier, it would move what is about to die.
    fn headroom(&self) -> usize {
        let total = self.total();
        let share = if total < ROOMY_SEGMENTS { 0 } else { total / 8 };
        share.min(self.gain() / 8).min(self.together())
    }

    /// How many segments are cleaned together at most.
    pub fn together(&self) -> usize {
        (GROUP_BYTES / self.segment_bytes).max(1) as usize
    }

    /// How many segments the journal has.
    fn total(&self) -> usize {
        let segments = &self.segments;
        segments.live.len() + segments.free.len() + segments.leaving.len() + segments.freeing.len()
    }

    /// How many segments beyond the reserved ones can be free once all is cleaned.
    fn gain(&self) -> usize {
        self.total().saturating_sub(self.reserved() + self.accounts.filled())
    }

    /// Free segments below which the cleaner begins: what appends leave, and a sixth of the journal. Where much is carried, at most half of
    /// what cleaning can gain: it must come to an end.
    pub fn low_water(&self) -> usize {
        let headroom = self.headroom();
        self.reserved() + (headroom + self.total() / 6).min(self.gain() / 2).max(headroom + 1)
    }

    /// Whether half of the free segments between where the cleaner begins and where appends wait are gone.
    pub fn is_short(&self) -> bool {
        2 * self.segments.free.len() < self.low_water() + self.leaves(Class::Grow)
    }

    /// How many segments of the first quarter of these are left, and how many it has: one at least.
    pub fn ease(&self) -> (u32, u32) {
        let (low, leaves) = (self.low_water(), self.leaves(Class::Grow));
        let whole = (low.saturating_sub(leaves) / EASE).max(1);
        let there = self.segments.free.len() + self.segments.leaving.len();
        let part = there.saturating_sub(low.saturating_sub(whole)).min(whole);
        (part as u32, whole as u32)
    }

    /// Closes the open frame: it takes no more batches and waits for the writer.
    pub fn close_open(&mut self) {
        let next = self.next_open();
        let mut closed = std::mem::replace(&mut self.open, next);
        closed.wanted = true;
        self.queued += closed.queued();
        self.closed.push_back(closed);
    }

    /// The frame that follows the open one.
    fn next_open(&mut self) -> OpenFrame {
        let len = self.open.sealed_bytes();
        let (lsn, offset, room) = (self.open.lsn + len, self.open.offset + len, self.open.room.saturating_sub(len));
        let mut participants = std::mem::take(&mut self.open.participants);
        let mut next = OpenFrame::new(
            // Frames are mostly about as long as the one before.
            len as usize,
            std::mem::take(&mut self.spare),
            &mut participants,
            participant_bytes(self.segment_bytes),
        );
        self.open.participants = participants;
        // Less than a block counts as no room at all.
        next.move_to(lsn, offset, if room >= BLOCK_BYTES { room } else { 0 });
        next
    }

    /// Takes the oldest waiting frame and seals it, unless as many as allowed are in flight. The watermark is as of now: **at most the
    /// frames in flight lie above it**, and recovery counts on that.
    pub fn take(&mut self, durable: u64, recent: &Recent) -> Option<Box<SealedFrame>> {
        if !self.in_flight.may_start() {
            return None;
        }
        let frame = match self.closed.pop_front() {
            Some(frame) => {
                self.queued -= frame.queued();
                frame
            }
            None if self.open.wanted => {
                let next = self.next_open();
                std::mem::replace(&mut self.open, next)
            }
            None => return None,
        };
        let before = Before {
            session: self.session,
            cut: self.cut,
            prev: self.prev,
            watermark: durable,
            tail_seq: self.segments.named_tail(),
            following: self.segments.following(frame.lsn / self.segment_bytes),
        };
        self.is_sealed = frame.batches == 0 && self.prev.is_none_or(|prev| prev.end() <= durable);
        let (sealed, spare) = frame.seal(self.seed, &before);
        self.spare = spare;
        self.prev = Some(sealed.header);
        self.queued += sealed.queued;
        self.in_flight.start(&sealed);
        self.frames_taken += 1;
        recent.push(Arc::clone(&sealed.mem));
        Some(Box::new(sealed))
    }

    /// Passes the bytes at `lsn` of a frame that is not sealed yet to `f`. An empty entry may lie at the frame's very end.
    pub fn read_unsealed<T>(&self, lsn: u64, len: usize, f: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let frame = self
            .closed
            .iter()
            .chain(std::iter::once(&self.open))
            .find(|o| o.lsn <= lsn && lsn + len as u64 <= o.here())?;
        let start = usize::try_from(lsn - frame.lsn).ok()?;
        frame.buf.as_slice().get(start..start.checked_add(len)?).map(f)
    }
}
