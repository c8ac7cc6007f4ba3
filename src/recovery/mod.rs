//! Recovery: superblock and journal tell everything; of chains only pieces in doubt are read. After a clean close the snapshot tells it
//! faster.

mod account;
#[cfg(all(test, not(any(loom, shuttle))))]
mod account_tests;
mod again;
#[cfg(all(test, not(any(loom, shuttle))))]
mod again_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod damaged_life_tests;
mod decide;
mod foreign;
#[cfg(all(test, not(any(loom, shuttle))))]
mod lives_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod loss_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod overwritten_tests;
mod parts;
#[cfg(all(test, not(any(loom, shuttle))))]
mod recover_tests;
mod remains;
mod replay;
mod replaying;
#[cfg(all(test, not(any(loom, shuttle))))]
mod rig;
mod scan;
#[cfg(all(test, not(any(loom, shuttle))))]
mod scan_tests;
mod select;
#[cfg(all(test, not(any(loom, shuttle))))]
mod select_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod sound_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod superblock_tests;
mod superblocks;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod torn_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod used_up_tests;
mod walk;
#[cfg(all(test, not(any(loom, shuttle))))]
mod walk_tests;

pub(crate) use superblocks::{
    Found, formatting_was_cut, holds_a_log, read_superblock, superblock_of_log, write_superblocks,
};

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::disk::{AlignedBuf, Disk};
use crate::engine::{Engine, Geometry, Parts, USED_UP_BYTES, USED_UP_OPENINGS, among_ourselves};
use crate::error::{Damage, Error, Result, rebuild_all, salvage_it};
use crate::format::POOL_OFFSET;
use crate::format::frame::{FrameHeader, LAST_SESSION, USED_UP_LSN};
use crate::format::superblock::{Snapshot, Superblock};
use crate::index::{Cell, MAX_JOURNAL_LEAP, Registry};
use crate::journal::{Class, LiveSegment, RESERVED_SEGMENTS, Resume, SegmentMap, Segments};
use crate::options::{Progress, RecoveryMode, RunOptions};
use crate::snapshot;
use crate::space::{Accounts, Pins, Pool};
use crate::stats::Counters;
use crate::sync::Arc;

/// A recovered log, and what recovery found.
pub(crate) struct Recovered {
    pub engine: Engine,
    /// How many replicas there are.
    pub replicas: u64,
    /// All known damage.
    pub damage: Vec<Damage>,
}

/// Brings a log back to life.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    mut superblock: Superblock,
    run: RunOptions,
    (mapped, read_only): (bool, bool),
    progress: &mut dyn FnMut(Progress),
) -> Result<Recovered> {
    let started = Instant::now();
    let _span = tracing::info_span!(target: "strandlog", "recovery", mode = ?run.recovery, read_only).entered();
    if !read_only {
        // After kill -9 the bytes read below may lie in a volatile cache. **Sync before believing.**
        disk.flush().map_err(|e| Error::io("syncing before recovery", e))?;
    }
    let geo = Geometry::new(&superblock);
    let counters = Counters::default();
    // *Strict* asks for the strictest reading, and tools (read-only, salvage) look at the journal itself.
    let trusting = !read_only && run.recovery == RecoveryMode::TolerateTornTail;
    let snapshot = superblock.snapshot.as_ref().filter(|_| trusting);
    let standing = match snapshot.and_then(|s| from_snapshot(&*disk, &geo, &superblock, s)) {
        Some(standing) => {
            counters.opened_by_snapshot.set(1);
            standing
        }
        None => from_journal(&*disk, &geo, &superblock, run.recovery, &counters, progress)?,
    };
    let Standing { registry, cells, mut segments, .. } = standing;
    let session = (standing.session >> 32).saturating_add(1) << 32 | u64::from(random_u32());
    // Once the numbers are used up no opening writes anything: the next one could not read it.
    let used_up = used_up(&segments, geo.segment_bytes, session);
    counters.used_up.set(u64::from(used_up.is_some()));
    // An opening that only reads is told so only when something is written all the same.
    let used_up = used_up.filter(|_| !read_only);
    let read_only = read_only || used_up.is_some();
    let slabs = (superblock.journal_slabs.len() as u64, u64::from(superblock.journal_cap));
    let mut accounts = Accounts::new(geo.chunk_bytes, geo.segment_bytes, run.carry_percent, slabs);
    // All free chunks, also those kept for a large value: what was promised may take these, too.
    let free = (segments.free.len(), standing.pool.free());
    account::charge(&mut accounts, &cells, free, geo.value_reserve());
    let (replicas, damage) = (cells.len() as u64, cells.iter().flat_map(|cell| cell.lock().damage(cell.id)).collect());
    drop(cells);
    let hurt: Vec<Arc<Cell>> = standing.hurt.into_iter().filter_map(|id| registry.get(id)).collect();
    // Their CORE is carried before any segment that shows what they lost is freed, even if there is no room to write it now.
    hurt.iter().for_each(|cell| cell.lock().core_seq = segments.carry_with_oldest(cell.id));
    let in_place = in_place(&geo, &segments, standing.end, RESERVED_SEGMENTS + accounts.cleaning());
    let resume = Resume {
        prev: standing.prev,
        prev_participants: standing.prev_participants,
        session,
        cut: standing.end,
        in_place,
        segments,
        accounts,
        replicas,
    };
    if !read_only && (superblock.snapshot.is_some() || standing.said_by_dropped.is_some()) {
        // **Before anything else is written**, be it a frame or a piece in the snapshot's chunks: the snapshot would be believed once more,
        // and what a torn frame says of those before it is overwritten with it.
        superblock.snapshot = None;
        superblock.durable = superblock.durable.max(standing.said_by_dropped.unwrap_or(0));
        superblock.epoch += 1;
        write_superblocks(&*disk, &superblock).map_err(|e| Error::io("writing down what the log stands on", e))?;
    }
    if let Some(place) = in_place.filter(|_| !read_only) {
        remains::wipe(&*disk, &superblock, place, standing.spoilt)
            .map_err(|e| Error::io("clearing the way for the next frames", e))?;
    }
    AlignedBuf::release_spare();
    let engine = Engine::new(Parts {
        disk,
        mapped,
        superblock,
        run,
        registry,
        pool: standing.pool,
        resume,
        segment_map: standing.map,
        durable: standing.end,
        counters,
        read_only,
        used_up,
    });
    if !read_only {
        among_ourselves(|| say_again(&engine, &hurt, standing.said_by_dropped.is_some(), standing.end))?;
    }
    engine.counters.recovery_micros.set(started.elapsed().as_micros() as u64);
    Ok(Recovered { engine, replicas, damage })
}

/// What the log has no numbers left for, if anything.
fn used_up(segments: &Segments, segment_bytes: u64, session: u64) -> Option<&'static str> {
    let what = match (segments.reach(segment_bytes) > USED_UP_LSN, session > LAST_SESSION) {
        (true, _) => USED_UP_BYTES,
        (_, true) => USED_UP_OPENINGS,
        _ => return None,
    };
    tracing::error!(target: "strandlog", "the log has used up its numbers, after {what}: it is opened for reading");
    Some(what)
}

/// What an opening writes before anybody knows of the log: damage that no CORE records yet, and in a frame what only a torn one said.
fn say_again(engine: &Engine, hurt: &[Arc<Cell>], said_by_dropped: bool, end: u64) -> Result<()> {
    engine.record_damage(hurt.iter().map(|cell| &**cell))?;
    // If no frame was written so far, one says how far the log was durable, and which segments are superseded. These become free, and
    // appends could wait for them for ever; if there are none, it takes nothing that the cleaner counts on.
    let leaving = !engine.seq.lock().segments.leaving.is_empty();
    if leaving || said_by_dropped && engine.durable() == end {
        engine.seal_if_room(if leaving { Class::Clean } else { Class::Keep })?;
    }
    Ok(())
}

/// The state of the log from which an opening goes on.
struct Standing {
    registry: Registry,
    /// All cells of the registry.
    cells: Vec<Arc<Cell>>,
    /// Replicas whose damage no CORE records yet. Some may be gone.
    hurt: HashSet<u64>,
    pool: Pool,
    segments: Segments,
    map: SegmentMap,
    /// The last frame, and its participants.
    prev: Option<FrameHeader>,
    prev_participants: Vec<u64>,
    /// See [`walk::Walk::said_by_dropped`].
    said_by_dropped: Option<u64>,
    /// See [`again::Look::met_spoilt`].
    spoilt: bool,
    /// The highest session so far.
    session: u64,
    /// The LSN at which the log ends.
    end: u64,
}

fn new_pool(geo: &Geometry, sb: &Superblock) -> Pool {
    Pool::new(geo.chunks, sb.chunk_bytes, sb.segment_bytes, &sb.journal_slabs)
}

/// Reads the journal: the whole truth.
fn from_journal(
    disk: &dyn Disk,
    geo: &Geometry,
    superblock: &Superblock,
    mode: RecoveryMode,
    counters: &Counters,
    progress: &mut dyn FnMut(Progress),
) -> Result<Standing> {
    let second;
    let first = scan::scan(disk, superblock, mode, progress)?;
    let mut scan = &first;
    let mut walk = walk::walk(disk, geo, scan, superblock.durable, mode)?;
    let mut look = again::Look::new(disk, superblock, scan, &walk, mode);
    let hidden = look.hides_more()?;
    if hidden || look.shows_more()? {
        tracing::warn!(hidden, end = walk.end, "the end of the journal did not show at first: it is read again");
        second = scan::scan_to(disk, superblock, mode, hidden.then_some(walk.end), progress)?;
        scan = &second;
        walk = walk::walk(disk, geo, scan, superblock.durable, mode)?;
        if mode == RecoveryMode::Salvage {
            // The end is another one now: can what lies behind it be read?
            look = again::Look::new(disk, superblock, scan, &walk, mode);
            look.shows_more()?;
        }
    }
    let unread = look.met_unread();
    // Counts like a frame whose table is torn or rotten: nobody knows whether it was acknowledged.
    walk.dropped += u64::from(look.met_spoilt());
    let replayed = replay::replay(geo, scan, &walk, mode)?;
    if replayed.unnamed && mode != RecoveryMode::Salvage {
        return Err(Error::Corrupt {
            what: "neighbouring frames of the journal are lost: nobody can say which replicas were in them",
            offset: POOL_OFFSET,
            hint: concat!("to go on would forget such a replica silently: ", salvage_it!()),
        });
    }
    tracing::debug!(
        target: "strandlog",
        frames = walk.accepted.len(),
        lost = walk.lost,
        dropped = walk.dropped,
        end = walk.end,
        "the journal is replayed"
    );
    if walk.lost > 0 {
        tracing::error!(target: "strandlog", frames = walk.lost, "frames that were durable cannot be read");
    }
    counters.recovered_frames.set(walk.accepted.len() as u64);
    counters.lost_frames.set(walk.lost);
    counters.dropped_frames.set(walk.dropped);
    // Where a cut file lost a segment of the journal, that may be the newest, of which no other frame tells.
    let slab_end = |&slab: &u32| superblock.slab_offset(slab).saturating_add(superblock.segment_bytes.into());
    let journal_cut = superblock.journal_slabs.iter().map(slab_end).max().is_some_and(|end| end > disk.held());
    // The newest segment may also lie where the log would go on, if that cannot be read.
    counters.unnamed_losses.set((replayed.unnamed || journal_cut || unread).into());
    if mode == RecoveryMode::Strict && walk.dropped > 0 {
        return Err(Error::Corrupt {
            what: "the last frame is cut off or rotten",
            offset: walk.end_offset(scan),
            hint: "it was not acknowledged if power failed while it was written; recovery_mode(TolerateTornTail) goes on without it",
        });
    }
    let mut pool = new_pool(geo, superblock);
    let pins = Arc::new(Pins::new(1));
    let cells = replayed.cells;
    let mut hurt = replayed.newly_hurt;
    if !account::is_bounded(geo, &cells) {
        return Err(Error::Corrupt {
            what: "pieces that take many times the space there is",
            offset: POOL_OFFSET,
            hint: concat!("every checksum holds, so the journal was made to look like this: ", rebuild_all!()),
        });
    }
    hurt.extend(account::claim_chunks(disk, geo, &mut pool, &cells, &pins));
    account::hold_unsettled(geo, &mut pool, &cells, replayed.unsettled, walk.end);
    if mode == RecoveryMode::Strict
        && let Some(damage) = cells.iter().find_map(|cell| cell.lock().damage(cell.id).into_iter().next())
    {
        return Err(Error::Damaged(damage));
    }
    if mode == RecoveryMode::Strict && walk.lost > 0 {
        return Err(Error::Corrupt {
            what: "a frame that was durable cannot be read",
            offset: POOL_OFFSET,
            hint: "the device lost it, though nobody was hurt; recovery_mode(TolerateTornTail) goes on without it",
        });
    }
    let live = live_segments(scan, &walk, replayed.participants);
    let (mut segments, map) = segments(superblock, leaving_segments(scan, &walk), live, scan.max_seq + 1);
    // A salvage appends nothing.
    if mode != RecoveryMode::Salvage
        && segments.next_seq.saturating_sub(segments.tail()).saturating_mul(geo.segment_bytes) > MAX_JOURNAL_LEAP
    {
        return Err(Error::Corrupt {
            what: "a frame whose number is farther from what is alive than a journal reaches",
            offset: POOL_OFFSET,
            hint: "its checksum holds, so it was made to look like this: salvage the log",
        });
    }
    segments.lost_tail = walk.last_seq.map(|_| walk.tail_seq).filter(|&tail| tail < segments.tail());
    Ok(Standing {
        registry: replayed.registry,
        cells,
        hurt,
        pool,
        segments,
        map,
        prev: walk.accepted.last().map(|f| f.header),
        prev_participants: replayed.last_participants,
        said_by_dropped: walk.said_by_dropped(superblock.durable),
        spoilt: look.met_spoilt(),
        session: scan.max_session,
        end: walk.end,
    })
}

/// Reads the snapshot; `None` if it cannot be relied upon.
fn from_snapshot(disk: &dyn Disk, geo: &Geometry, superblock: &Superblock, snapshot: &Snapshot) -> Option<Standing> {
    let loaded = snapshot::load(disk, geo, superblock, snapshot)?;
    let mut pool = new_pool(geo, superblock);
    if !account::is_bounded(geo, &loaded.cells) || !account::claim_all(geo, &mut pool, &loaded.cells) {
        tracing::warn!("the snapshot of the last close gives one chunk to two, or more than there are: it is not used");
        return None;
    }
    let (segments, map) = segments(superblock, VecDeque::new(), loaded.segments, loaded.next_seq);
    Some(Standing {
        registry: loaded.registry,
        cells: loaded.cells,
        // Known damage is in a CORE, or will be before the segment that shows it is freed.
        hurt: HashSet::new(),
        pool,
        segments,
        map,
        prev: Some(loaded.last),
        prev_participants: loaded.last_participants,
        said_by_dropped: None,
        spoilt: false,
        session: loaded.session,
        end: loaded.last.end(),
    })
}

/// The segments that the walk found live, oldest first.
fn live_segments(
    scan: &scan::Scan,
    walk: &walk::Walk<'_>,
    mut participants: HashMap<u64, Vec<u64>>,
) -> VecDeque<LiveSegment> {
    let live = scan.slabs.iter().filter(|slab| slab.seq >= walk.tail_seq && Some(slab.seq) <= walk.last_seq);
    live.map(|slab| LiveSegment {
        seq: slab.seq,
        slab: slab.slab,
        participants: participants.remove(&slab.seq).unwrap_or_default(),
    })
    .collect()
}

/// Segments that only a dropped frame says are superseded. That is true, but the frame is gone as soon as the log goes on in its place:
/// until a durable frame says so again, the next recovery may look for them.
fn leaving_segments(scan: &scan::Scan, walk: &walk::Walk<'_>) -> VecDeque<(u64, u32)> {
    let kept = walk.accepted.last().map_or(walk.tail_seq, |newest| newest.header.tail_seq);
    let leaving = scan.slabs.iter().filter(|slab| (kept..walk.tail_seq).contains(&slab.seq));
    leaving.map(|slab| (slab.seq, slab.slab)).collect()
}

/// Which slabs hold live segments, and which are free.
fn segments(
    superblock: &Superblock,
    leaving: VecDeque<(u64, u32)>,
    live: VecDeque<LiveSegment>,
    next_seq: u64,
) -> (Segments, SegmentMap) {
    let mut map = SegmentMap::default();
    let held = leaving.iter().copied().chain(live.iter().map(|segment| (segment.seq, segment.slab)));
    let mut free: VecDeque<u32> = superblock.journal_slabs.iter().copied().collect();
    held.for_each(|(seq, slab)| {
        map.push(seq, slab);
        free.retain(|&other| other != slab);
    });
    (Segments { live, leaving, free, next_seq, ..Segments::default() }, map)
}

/// Where to go on in the newest segment when a fresh one cannot be spared: repeated crashes must not eat the reserve.
///
/// Safe, because the new session says where it cut: whatever an earlier session wrote from there on does not exist.
fn in_place(geo: &Geometry, segments: &Segments, end: u64, reserved: usize) -> Option<(u64, u64, u64)> {
    let last = segments.live.back()?;
    if segments.free.len() > reserved || end / geo.segment_bytes != last.seq {
        return None;
    }
    let within = end % geo.segment_bytes;
    let offset = POOL_OFFSET + u64::from(last.slab) * geo.segment_bytes + within;
    Some((end, offset, geo.segment_bytes - within))
}

/// Unpredictable enough to tell one opening from another.
pub(crate) fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    if rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) == Ok(4) {
        return u32::from_le_bytes(bytes);
    }
    // No entropy this early in the boot: the clock differs between openings, too.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.subsec_nanos() ^ d.as_secs() as u32)
}
