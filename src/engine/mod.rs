//! The engine: one log, shared by the handles, the writer and the cleaner.

mod admit;
mod ahead;
mod anew;
mod apply;
mod checks;
mod commit;
#[cfg(all(test, loom))]
mod commit_loom;
#[cfg(all(test, not(any(loom, shuttle))))]
mod commit_tests;
mod damage;
mod ease;
mod ending;
mod events;
mod frames;
mod full;
mod gone;
mod hands;
#[cfg(all(test, loom))]
mod hands_loom;
mod holding;
mod idle;
mod looking;
mod oldest;
mod patience;
#[cfg(all(test, not(loom)))]
mod pin_tests;
mod plan;
mod read;
#[cfg(all(test, loom))]
mod read_loom;
mod reading;
mod relief;
mod reports;
#[cfg(all(test, loom))]
pub(crate) mod rig_loom;
#[cfg(all(test, not(any(loom, shuttle))))]
mod saying_tests;
mod seal;
mod segment;
mod submit;
mod syncs;
mod telling;
mod touched;
mod turn;
mod vain;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool as StdAtomicBool, AtomicU64 as StdAtomicU64};

pub(crate) use checks::Checked;
pub(crate) use commit::parts;
pub(crate) use ending::Ending;
pub(crate) use events::Events;
pub(crate) use hands::HANDS;
pub(crate) use oldest::Oldest;
pub(crate) use patience::{Patience, Polled};
pub(crate) use relief::Relieved;
pub(crate) use submit::{
    Mode, Submitted, Telling, USED_UP_BYTES, USED_UP_OPENINGS, among_ourselves, telling, without_waiting,
};
pub(crate) use touched::demand;
pub(crate) use turn::Turn;

use self::ease::Hurry;
use self::full::Holders;
use self::hands::Hands;
use self::looking::Looked;
use self::relief::Relief;
use self::reports::Held;
use self::syncs::Syncs;
use crate::disk::{Disk, Map, SyncMethod};
use crate::error::{Error, Result};
use crate::format::Seed;
use crate::format::frame::MAX_IN_FLIGHT;
use crate::format::piece::is_bare;
use crate::format::superblock::Superblock;
use crate::index::Registry;
use crate::journal::{Recent, SegmentMap, Sequencer};
use crate::options::RunOptions;
use crate::space::{Pins, Pool};
use crate::stats::Counters;
use crate::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, RwLock};

/// The sizes that never change while the log is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub seed: Seed,
    pub chunk_bytes: u32,
    pub segment_bytes: u64,
    pub blocks_per_chunk: u32,
    /// Blocks in the pool: no extent ends beyond.
    pub pool_blocks: u32,
    pub chunks: u32,
    /// Slabs that the journal may have.
    pub journal_cap: u32,
    /// Slabs that it may have, unless it needs more for what it carries.
    pub cycle: crate::options::Cycle,
}

impl Geometry {
    pub fn new(sb: &Superblock) -> Self {
        let blocks_per_chunk = sb.chunk_bytes / crate::disk::BLOCK as u32;
        Self {
            seed: sb.seed(),
            chunk_bytes: sb.chunk_bytes,
            segment_bytes: u64::from(sb.segment_bytes),
            blocks_per_chunk,
            pool_blocks: sb.chunk_count().saturating_mul(blocks_per_chunk),
            chunks: sb.chunk_count(),
            journal_cap: sb.journal_cap,
            cycle: crate::options::Cycle::new(sb),
        }
    }

    /// Where the last slab ends.
    pub fn end(&self) -> u64 {
        crate::format::POOL_OFFSET + u64::from(self.pool_blocks) * crate::format::BLOCK_BYTES
    }

    /// The largest keyed value.
    pub fn max_value(&self) -> u64 {
        u64::from(crate::options::MAX_VALUE_BYTES).min(self.segment_bytes / 2)
    }

    /// Chunks that all that grows leaves for one large value, the largest allowed, in a log of any size.
    pub fn value_reserve(&self) -> u64 {
        let (chunk, most) = (u64::from(self.chunk_bytes), u64::from(crate::options::MAX_VALUE_BYTES) + 128);
        let largest = self.max_value();
        let needed = if is_bare(largest as usize, self.chunk_bytes) { largest.div_ceil(chunk) } else { 1 };
        most.div_ceil(chunk).min(u64::from(self.chunks) / 32).max(needed)
    }
}

/// What is kept from one completed frame to the next. The thread that holds it completes frames, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    /// Pieces whose bytes are still held in memory for readers: replica, first index, piece, length. Oldest first.
    recent_pieces: std::collections::VecDeque<(u64, u64, u64, u64)>,
    recent_piece_bytes: u64,
}

/// What the cleaner is asked for.
#[derive(Debug, Default)]
pub(crate) struct CleanerState {
    /// Somebody waits for a segment.
    pub wanted: bool,
    /// How often it failed, and the last error.
    pub failed: (u64, Option<Error>),
    /// How often it went as far as somebody needed, or once around.
    pub turns: u64,
    /// A caller that does not wait found no segment, and may come again.
    pub polled: Option<Polled>,
    /// Somebody waits for room of any kind.
    pub relief: Relief,
    pub stop: bool,
}

impl CleanerState {
    /// The last error, if it failed since it had failed `before` times. Waiters are told it, and may try again: tried again for them, it
    /// might never end.
    pub fn failed_since(&self, before: u64) -> Result<()> {
        match &self.failed {
            (failures, why) if *failures > before => Err(why.clone().unwrap_or(Error::Closed)),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub disk: Arc<dyn Disk>,
    pub map: Option<Arc<Map>>,
    pub geo: Geometry,
    pub run: RunOptions,
    pub registry: Registry,
    pub pool: Mutex<Pool>,
    pub pins: Arc<Pins>,
    pub seq: Mutex<Sequencer>,
    /// The writer thread waits here, under `seq`.
    pub work: Condvar,
    /// Submitters that wait for room wait here, under `seq`.
    pub room: Condvar,
    pub completion: Mutex<Completion>,
    pub cleaner: Mutex<CleanerState>,
    /// The cleaner thread waits here, under `cleaner`.
    pub clean: Condvar,
    /// One cleaning at a time, and what it remembers. A thread that waits for it is in a [hurry](Hurry).
    pub cleaning: Mutex<Oldest>,
    pub hurry: Hurry,
    looked: Looked,
    /// The last relief that was in vain. Locked under no other lock but `cleaning`.
    vain: Mutex<Option<vain::Vain>>,
    /// The door through which everything is made durable.
    pub syncs: Syncs,
    /// The threads that write a frame while its leader writes what is placed beside it.
    pub hands: Hands,
    /// Held while the superblock is written: a thread that must not wait for the disk may not lock it.
    pub superblock: Mutex<Superblock>,
    pub durable: AtomicU64,
    /// Whether it was ever stopped: then somebody may have to be told.
    ended: StdAtomicBool,
    /// At or above every LSN given out: unpacks locations.
    pub head: AtomicU64,
    pub segment_map: RwLock<SegmentMap>,
    pub recent: Recent,
    next_id: StdAtomicU64,
    /// Batches in the last frame: how many may come back at once.
    last_batches: AtomicU64,
    pub counters: Counters,
    /// Truncations that wait for state machines.
    pub held: Held,
    /// The way to the listener.
    pub events: Events,
    /// Who held most when the log was full. Locked before any cell, and under no other lock.
    holders: Mutex<Holders>,
    /// By replica, the pieces of values already reported as rotten. Locked under no other lock.
    pub rotten_values: Mutex<HashMap<u64, Vec<u64>>>,
    pub read_only: bool,
    /// What has run out, so that this opening is for reading only.
    used_up: Option<&'static str>,
    /// Chunks kept for overwriting large keyed values.
    pub value_reserve: u64,
}

/// What an engine is made of when recovery is done.
pub(crate) struct Parts {
    pub disk: Arc<dyn Disk>,
    pub mapped: bool,
    pub superblock: Superblock,
    pub run: RunOptions,
    pub registry: Registry,
    pub pool: Pool,
    pub resume: crate::journal::Resume,
    pub segment_map: SegmentMap,
    pub durable: u64,
    pub counters: Counters,
    pub read_only: bool,
    pub used_up: Option<&'static str>,
}

impl Engine {
    pub fn new(parts: Parts) -> Self {
        let geo = Geometry::new(&parts.superblock);
        let recent = Recent::new(parts.run.recent_bytes as u64);
        let session = parts.resume.session;
        // Where a sync covers more than its own write, its error may be told to the caller that asks first: then one frame at a time.
        let apart = parts.disk.info().method == SyncMethod::DirectDsync;
        let in_flight = if apart { MAX_IN_FLIGHT as usize } else { 1 };
        let pool_offset = crate::format::POOL_OFFSET;
        let seq = Sequencer::new(parts.resume, geo.seed, geo.segment_bytes, pool_offset, in_flight);
        let map = if parts.mapped { parts.disk.map() } else { None };
        let slabs = parts.superblock.journal_slabs.clone();
        let this = Self {
            map,
            geo,
            run: parts.run,
            registry: parts.registry,
            pool: Mutex::new(parts.pool),
            pins: Arc::new(Pins::new(geo.chunks)),
            work: Condvar::new(),
            room: Condvar::new(),
            completion: Mutex::new(Completion::default()),
            cleaner: Mutex::new(CleanerState::default()),
            clean: Condvar::new(),
            cleaning: Mutex::new(Oldest::default()),
            hurry: Hurry::default(),
            looked: Looked::default(),
            vain: Mutex::new(None),
            syncs: Syncs::new(apart),
            hands: Hands::default(),
            durable: AtomicU64::new(parts.durable),
            ended: StdAtomicBool::new(false),
            head: AtomicU64::new(seq.lsn_bound()),
            segment_map: RwLock::new(parts.segment_map),
            recent,
            // The session's random half is in the high bits, so even a session whose frames were lost has ids of its own. Two openings that
            // draw the same half, one pair in four thousand million, may use an id twice: it then is of another place, replica or index, or
            // names the same bytes.
            next_id: StdAtomicU64::new(session << 32),
            last_batches: AtomicU64::new(0),
            counters: parts.counters,
            held: Held::default(),
            events: Events::default(),
            holders: Mutex::new(Holders::default()),
            rotten_values: Mutex::new(HashMap::new()),
            read_only: parts.read_only,
            used_up: parts.used_up,
            value_reserve: geo.value_reserve(),
            superblock: Mutex::new(parts.superblock),
            disk: parts.disk,
            seq: Mutex::new(seq),
        };
        this.expect_reads(&slabs, true);
        this
    }

    /// A number for a piece id or an incarnation, which this opening never gave out before, nor any other but by chance.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The largest inline part of a batch: payload, checksums, records.
    pub fn max_inline(&self) -> u64 {
        // Participants of the previous frame at their longest, the header, rounding.
        let overhead = crate::format::frame::participant_bytes(self.geo.segment_bytes) + 512 + 4096;
        self.geo.segment_bytes.saturating_sub(overhead)
    }

    /// The largest keyed value.
    pub fn max_value(&self) -> u64 {
        self.geo.max_value()
    }

    /// A replica of at least this weight in the journal is settled rather than carried.
    pub fn small_weight(&self) -> u64 {
        crate::space::small_weight(self.geo.chunk_bytes, self.geo.segment_bytes, self.run.carry_percent)
    }

    /// Size of the log, which the file may exceed.
    pub fn capacity(&self) -> u64 {
        crate::options::capacity_in(self.disk.len(), self.geo.end(), self.geo.segment_bytes)
    }

    pub fn stats(&self) -> crate::stats::Stats {
        let mut stats = crate::stats::Stats::default();
        self.counters.fill(&mut stats);
        stats.durable_lsn = self.durable();
        stats.file_bytes = self.disk.held();
        stats.capacity = self.capacity();
        stats.chunk_size = u64::from(self.geo.chunk_bytes);
        stats.segment_size = self.geo.segment_bytes;
        stats.recent_bytes = self.recent.bytes();
        stats.disk = Some(self.disk.info());
        {
            let s = self.seq.lock();
            stats.replicas = s.replicas;
            // It may come to that while it is in use.
            stats.used_up = stats.used_up.max(u64::from(s.is_used_up()));
            stats.reserved_chunks = s.accounts.reserved();
            stats.carried_class_bytes = s.accounts.carried();
            stats.carried_class_limit = s.accounts.budget();
            stats.free_segments = s.segments.free.len() as u64;
            stats.journal_segments = stats.free_segments
                + (s.segments.live.len() + s.segments.leaving.len() + s.segments.freeing.len()) as u64;
            // In a log that has ended nothing waits, once the frames in flight have landed.
            let ended = s.stopped.is_some() && s.in_flight.is_empty();
            stats.queued_bytes = if ended { 0 } else { s.waiting_bytes() };
        }
        {
            let pool = self.pool.lock();
            stats.free_chunks = pool.free();
            stats.used_chunks = pool.used();
            stats.pinned_chunks = pool.pinned();
            stats.chunks = stats.free_chunks + stats.used_chunks + stats.pinned_chunks;
        }
        stats.reserved_for_values = self.kept_for_values(stats.reserved_chunks, stats.free_chunks);
        stats.reserved_chunks += stats.reserved_for_values;
        stats.commit_micros = self.events.commit_micros.get();
        stats.device_micros = self.events.device_micros.get();
        stats.held_truncations = self.held.len();
        stats.journal_cap_segments = u64::from(self.geo.journal_cap);
        stats
    }

    pub fn writable(&self) -> Result<()> {
        if let Some(what) = self.used_up {
            return Err(Error::UsedUp { what });
        }
        if self.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// What the file lost, if it was cut.
    pub fn lost_end(&self) -> Option<crate::stats::CutFile> {
        let (file_bytes, log_bytes) = (self.disk.held(), self.disk.len());
        (file_bytes < log_bytes).then_some(crate::stats::CutFile { file_bytes, log_bytes })
    }

    /// Wakes the cleaner.
    pub fn want_segments(&self) {
        let mut cleaner = self.cleaner.lock();
        cleaner.wanted = true;
        self.clean.notify_all();
    }
}
