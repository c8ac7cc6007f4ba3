//! Recovery: superblock and journal tell everything; chains are not read. After a clean close the snapshot tells it faster.

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
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod torn_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod used_up_tests;
mod walk;
#[cfg(all(test, not(any(loom, shuttle))))]
mod walk_tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::engine::{Engine, Geometry, Parts, USED_UP_BYTES, USED_UP_OPENINGS, among_ourselves};
use crate::error::{Damage, Error, Result, rebuild_all, salvage_it};
use crate::format::POOL_OFFSET;
use crate::format::frame::{FrameHeader, LAST_SESSION, USED_UP_LSN};
use crate::format::superblock::{
    LAST_EPOCH, MIN_SEGMENT_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Snapshot, Superblock, SuperblockError,
};
use crate::index::{Cell, MAX_JOURNAL_LEAP, Registry};
use crate::journal::{Class, LiveSegment, RESERVED_SEGMENTS, Resume, SegmentMap, Segments};
use crate::options::{Progress, RecoveryMode, RunOptions};
use crate::snapshot;
use crate::space::{Accounts, Pins, Pool};
use crate::stats::Counters;
use crate::sync::Arc;

/// Whether a disk was ever formatted.
pub(crate) enum Found {
    Blank,
    Log(Box<Superblock>),
}

/// As [`read_superblock`], of a disk that must be a log.
pub(crate) fn superblock_of_log(disk: &dyn Disk, read_only: bool) -> Result<Superblock> {
    match read_superblock(disk, read_only)? {
        Found::Log(superblock) => Ok(*superblock),
        Found::Blank => Err(Error::Corrupt {
            what: "blank superblocks",
            offset: 0,
            hint: "this is no strandlog file: is the path right, and its device mounted? If a log was here, begin no empty one in its place: rebuild its replicas from their peers, as new members",
        }),
    }
}

/// Reads both superblocks and takes the newer valid one; the other is repaired unless nothing may be written.
///
/// A snapshot is named by both, or by none: where the copies differ, it is forgotten in both. A copy that cannot be read is as good as a rotten
/// one while the other is whole, and nothing to call a disk blank for.
pub(crate) fn read_superblock(disk: &dyn Disk, read_only: bool) -> Result<Found> {
    if disk.len() < crate::format::POOL_OFFSET {
        return Err(foreign::error_for(disk).unwrap_or(Error::Corrupt {
            what: "a file shorter than any log",
            offset: disk.len(),
            hint: concat!("all but its beginning is lost: ", rebuild_all!()),
        }));
    }
    let mut best: Option<Superblock> = None;
    let mut copies: Vec<(u64, Option<Superblock>)> = Vec::new();
    let mut errors = Vec::new();
    let mut unread = None;
    for offset in SUPERBLOCK_OFFSETS {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        if let Err(error) = disk.read_at(offset, &mut bytes) {
            tracing::warn!(target: "strandlog", offset, %error, "a superblock cannot be read");
            copies.push((offset, None));
            unread = Some(error);
            continue;
        }
        let decoded = Superblock::decode(&bytes, disk.len());
        copies.push((offset, decoded.as_ref().ok().cloned()));
        match decoded {
            Ok(sb) if best.as_ref().is_none_or(|b| b.epoch < sb.epoch) => best = Some(sb),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    // A whole copy of a newer format beside an older one: somebody's upgrade was cut. It is not ours to "repair".
    if let Some(newer) = errors.iter().find(|e| matches!(e, SuperblockError::Version(_) | SuperblockError::Features(_)))
    {
        return Err(superblock_error(newer.clone()));
    }
    let Some(mut sb) = best else {
        if let Some(error) = unread {
            return Err(Error::io("reading the superblock", error));
        }
        if errors.iter().all(|e| *e == SuperblockError::Blank) {
            return Ok(Found::Blank);
        }
        // Where one is whole but for the file's length, that is what ails it.
        let cut = errors
            .iter()
            .filter_map(|e| if let SuperblockError::Cut { log_bytes } = e { Some(*log_bytes) } else { None });
        if let Some(log_bytes) = cut.max() {
            return Err(Error::Cut { file_bytes: disk.held(), log_bytes });
        }
        // Damage there is only of what was a log.
        if errors.iter().all(|e| matches!(e, SuperblockError::Blank | SuperblockError::Foreign))
            && let Some(error) = foreign::error_for(disk)
        {
            return Err(error);
        }
        let first = errors.into_iter().find(|e| *e != SuperblockError::Blank);
        return Err(superblock_error(first.unwrap_or(SuperblockError::Blank)));
    };
    if sb.epoch > LAST_EPOCH {
        return Err(Error::Corrupt {
            what: "a superblock whose number no log reaches",
            offset: 0,
            hint: concat!("its checksum holds, so it was made to look like this: ", rebuild_all!()),
        });
    }
    // Bad, or older: a cut between A and B. Left so, it would be the only one when the next change tears the other, and it
    // does not know every slab of the journal. The good one is not touched, and made durable first.
    let (mut behind, good): (Vec<_>, Vec<_>) = copies.into_iter().partition(|(_, copy)| copy.as_ref() != Some(&sb));
    if !behind.is_empty() && sb.snapshot.take().is_some() {
        // The good one is written last: until then it is the only one.
        sb.epoch += 1;
        behind.extend(good);
    }
    if !read_only && !behind.is_empty() {
        tracing::warn!(target: "strandlog", ?errors, "one superblock is bad or behind: repaired from the other");
        disk.flush().map_err(|e| Error::io("syncing before the superblock is repaired", e))?;
        let bytes = AlignedBuf::from(sb.encode().as_slice());
        for (offset, _) in behind {
            let written = disk.write_durable_at(offset, bytes.as_slice());
            written.map_err(|e| Error::io("repairing the superblock", e))?;
        }
    }
    Ok(Found::Log(Box::new(sb)))
}

/// Whether all there is on a disk is a part of the first superblock ever written to it: whoever formatted it was cut off. B is written behind A, and
/// any frame behind both. `sb`: as which it would be formatted; it says where the first frame would be.
pub(crate) fn formatting_was_cut(disk: &dyn Disk, sb: &Superblock) -> bool {
    let read = |offset: u64, len: usize| {
        let mut bytes = vec![0; len];
        disk.read_at(offset, &mut bytes).ok().map(|()| bytes)
    };
    let is_blank = |offset, len| read(offset, len).is_some_and(|bytes| bytes.iter().all(|&b| b == 0));
    let [a, b] = SUPERBLOCK_OFFSETS;
    read(a, SUPERBLOCK_BYTES).is_some_and(|bytes| Superblock::is_begun(&bytes))
        && is_blank(b, SUPERBLOCK_BYTES)
        && is_blank(POOL_OFFSET, BLOCK)
        && sb.journal_slabs.iter().all(|&slab| is_blank(sb.slab_offset(slab), BLOCK))
}

/// Whether there is a log on a disk that somebody has written to: more than a creation leaves that was cut off before it was named. What cannot
/// be told may be one.
pub(crate) fn holds_a_log(disk: &dyn Disk) -> bool {
    let mut block = vec![0; BLOCK];
    let mut is_blank = |at| disk.read_at(at, &mut block).is_ok_and(|()| block.iter().all(|&byte| byte == 0));
    match read_superblock(disk, true) {
        Ok(Found::Log(sb)) => !sb.journal_slabs.iter().all(|&slab| is_blank(sb.slab_offset(slab))),
        Ok(Found::Blank) => false,
        // Where the slabs are nobody knows, but a frame begins with the first of them, and with all that follow. What a creation leaves that was cut
        // off may be anything but that.
        Err(Error::Corrupt { .. }) => may_be_a_log(disk),
        Err(_) => true,
    }
}

/// Whether a frame may be on a disk of which no superblock tells anything.
fn may_be_a_log(disk: &dyn Disk) -> bool {
    (0..FRONTS).any(|n| may_begin_a_frame(disk, n))
}

/// So many places at which a slab may begin are looked at, where nobody says where they do.
const FRONTS: u64 = 256;

/// Whether a frame may begin at the `n`th of these places. What is there and cannot be read may be one.
fn may_begin_a_frame(disk: &dyn Disk, n: u64) -> bool {
    let at = POOL_OFFSET + n * u64::from(MIN_SEGMENT_BYTES);
    let mut block = vec![0; BLOCK];
    let is_there = at + BLOCK as u64 <= disk.len();
    is_there && disk.read_at(at, &mut block).map_or(true, |()| FrameHeader::looks_like_one(&block))
}

fn superblock_error(error: SuperblockError) -> Error {
    let invalid = |what| Error::Corrupt {
        what,
        offset: 0,
        hint: concat!("both superblocks are bad, and nothing in it can be checked without them: ", rebuild_all!()),
    };
    match error {
        SuperblockError::Version(v) => Error::Unsupported { feature: format!("format version {v}") },
        SuperblockError::Features(bits) => Error::Unsupported { feature: format!("feature bits {bits:#x}") },
        SuperblockError::Invalid(why) => invalid(why),
        SuperblockError::Foreign => invalid("magic"),
        SuperblockError::Cut { log_bytes } => Error::Cut { file_bytes: 0, log_bytes },
        SuperblockError::Blank => {
            Error::Corrupt { what: "blank superblock", offset: 0, hint: "this is no strandlog file" }
        }
    }
}

/// A log that lives again, and what there is to say of it.
pub(crate) struct Recovered {
    pub engine: Engine,
    /// How many there are.
    pub replicas: u64,
    /// All that is known.
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
        // After kill -9 the bytes below may lie in a volatile cache. **Sync before believing.**
        disk.flush().map_err(|e| Error::io("syncing before recovery", e))?;
    }
    let geo = Geometry::new(&superblock);
    let counters = Counters::default();
    // Whoever asks for the strictest reading gets one, and tools look at the journal itself.
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
    // Nothing is written then, by no such opening: the next one could read it no more.
    let used_up = if read_only { None } else { used_up(&segments, geo.segment_bytes, session) };
    let read_only = read_only || used_up.is_some();
    let slabs = (superblock.journal_slabs.len() as u64, u64::from(superblock.journal_cap));
    let mut accounts = Accounts::new(geo.chunk_bytes, geo.segment_bytes, run.carry_percent, slabs);
    // All that are free: what was promised may take of those, too, that are left for a large value.
    let free = (segments.free.len(), standing.pool.free());
    account::charge(&mut accounts, &cells, free, geo.value_reserve());
    let (replicas, damage) = (cells.len() as u64, cells.iter().flat_map(|cell| cell.lock().damage(cell.id)).collect());
    drop(cells);
    let hurt: Vec<Arc<Cell>> = standing.hurt.into_iter().filter_map(|id| registry.get(id)).collect();
    // Carried before any segment that shows what they lost is freed: also if there is no room to write it at once.
    hurt.iter().for_each(|cell| cell.lock().core_seq = segments.carry_with_oldest(cell.id));
    let resume = Resume {
        prev: standing.prev,
        prev_participants: standing.prev_participants,
        session,
        cut: standing.end,
        in_place: in_place(&geo, &segments, standing.end, RESERVED_SEGMENTS + accounts.cleaning()),
        segments,
        accounts,
        replicas,
    };
    if !read_only && (superblock.snapshot.is_some() || standing.said_by_dropped.is_some()) {
        // **Before anything else is written**: a frame, or a piece in its chunks. The snapshot would be believed once more; and what a torn frame
        // says of those before it is overwritten with that frame.
        superblock.snapshot = None;
        superblock.durable = superblock.durable.max(standing.said_by_dropped.unwrap_or(0));
        superblock.epoch += 1;
        write_superblocks(&*disk, &superblock).map_err(|e| Error::io("writing down what the log stands on", e))?;
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

/// What no number is left for, if there is such a thing.
fn used_up(segments: &Segments, segment_bytes: u64, session: u64) -> Option<&'static str> {
    let what = match (segments.reach(segment_bytes) > USED_UP_LSN, session > LAST_SESSION) {
        (true, _) => USED_UP_BYTES,
        (_, true) => USED_UP_OPENINGS,
        _ => return None,
    };
    tracing::error!(target: "strandlog", "the log has used up its numbers, after {what}: it is opened for reading");
    Some(what)
}

/// What an opening writes before anybody knows of the log: losses of which no CORE tells; and what only a torn frame said, if one did, a frame
/// says again.
fn say_again(engine: &Engine, hurt: &[Arc<Cell>], said_by_dropped: bool, end: u64) -> Result<()> {
    engine.record_damage(hurt.iter().map(|cell| &**cell))?;
    // If none was written so far: how far the log was durable, and which segments are superseded. These become free, and appends could wait for
    // them for ever; else it takes nothing that the cleaner counts on.
    let leaving = !engine.seq.lock().segments.leaving.is_empty();
    if leaving || said_by_dropped && engine.durable() == end {
        engine.seal_if_room(if leaving { Class::Clean } else { Class::Keep })?;
    }
    Ok(())
}

/// A, durable; then B, durable.
pub(crate) fn write_superblocks(disk: &dyn Disk, superblock: &Superblock) -> std::io::Result<()> {
    let bytes = AlignedBuf::from(superblock.encode().as_slice());
    SUPERBLOCK_OFFSETS.into_iter().try_for_each(|offset| disk.write_durable_at(offset, bytes.as_slice()))
}

/// How the log stands: what an opening goes on from.
struct Standing {
    registry: Registry,
    /// All that are in it.
    cells: Vec<Arc<Cell>>,
    /// Replicas whose damage no CORE tells of yet. Some may be gone.
    hurt: HashSet<u64>,
    pool: Pool,
    segments: Segments,
    map: SegmentMap,
    /// The last frame, and its participants.
    prev: Option<FrameHeader>,
    prev_participants: Vec<u64>,
    /// See [`walk::Walk::said_by_dropped`].
    said_by_dropped: Option<u64>,
    /// The highest session that there was.
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
            // Whether what lies behind the end can be read: it is another one now.
            look = again::Look::new(disk, superblock, scan, &walk, mode);
            look.shows_more()?;
        }
    }
    let unread = look.met_unread();
    // Torn or rotten, as one whose table is: nobody knows whether it was acknowledged.
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
    // Where the journal lost a segment with the file's end, it may be the newest, of which no other frame tells.
    let slab_end = |&slab: &u32| superblock.slab_offset(slab).saturating_add(superblock.segment_bytes.into());
    let journal_cut = superblock.journal_slabs.iter().map(slab_end).max().is_some_and(|end| end > disk.held());
    // So it may be where the log would go on, if that cannot be read.
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
        session: scan.max_session,
        end: walk.end,
    })
}

/// Reads the snapshot; `None` where that is not to be relied upon.
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
        // Whoever was, a CORE tells of, or will before the segment that shows it is freed.
        hurt: HashSet::new(),
        pool,
        segments,
        map,
        prev: Some(loaded.last),
        prev_participants: loaded.last_participants,
        said_by_dropped: None,
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

/// Segments that only a frame which was dropped says are superseded. That is true, but it is gone as soon as the log goes on in its place:
/// until a frame is durable that says so, the next recovery may look for them.
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
