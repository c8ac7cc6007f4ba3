//! Recovery: superblock and journal tell everything; chains are not read.

mod account;
mod decide;
mod replay;
mod scan;
mod select;
#[cfg(all(test, not(any(loom, shuttle))))]
mod select_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod walk;
#[cfg(all(test, not(any(loom, shuttle))))]
mod walk_tests;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::disk::{AlignedBuf, Disk};
use crate::engine::{Engine, Geometry, Parts};
use crate::error::{Error, Result};
use crate::format::POOL_OFFSET;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock, SuperblockError};
use crate::journal::{LiveSegment, RESERVED_SEGMENTS, Resume, SegmentMap, Segments};
use crate::options::{Progress, RecoveryMode, RunOptions};
use crate::space::{Accounts, Pins, Pool};
use crate::stats::Counters;
use crate::sync::Arc;

/// Whether a disk was ever formatted.
pub(crate) enum Found {
    Blank,
    Log(Box<Superblock>),
}

/// Reads both superblocks and takes the newer valid one; the other is repaired unless nothing may be written.
pub(crate) fn read_superblock(disk: &dyn Disk, read_only: bool) -> Result<Found> {
    if disk.len() < crate::format::POOL_OFFSET {
        return Err(Error::Corrupt {
            what: "a file shorter than any log",
            offset: disk.len(),
            hint: "this is no strandlog file, or all but its beginning is lost",
        });
    }
    let mut best: Option<Superblock> = None;
    let mut epochs: Vec<(u64, Option<u64>)> = Vec::new();
    let mut errors = Vec::new();
    for offset in SUPERBLOCK_OFFSETS {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        disk.read_at(offset, &mut bytes).map_err(|e| Error::io("reading the superblock", e))?;
        let decoded = Superblock::decode(&bytes, disk.len());
        epochs.push((offset, decoded.as_ref().ok().map(|sb| sb.epoch)));
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
    let Some(sb) = best else {
        if errors.iter().all(|e| *e == SuperblockError::Blank) {
            return Ok(Found::Blank);
        }
        let first = errors.into_iter().find(|e| *e != SuperblockError::Blank);
        return Err(superblock_error(first.unwrap_or(SuperblockError::Blank)));
    };
    // Bad, or older: a cut between A and B. Left so, it would be the only one when the next change tears the other, and it
    // does not know every slab of the journal. The good one is not touched, and made durable first.
    let behind: Vec<u64> = epochs.into_iter().filter(|&(_, e)| e != Some(sb.epoch)).map(|(offset, _)| offset).collect();
    if !read_only && !behind.is_empty() {
        tracing::warn!(?errors, "one superblock is bad or behind: repaired from the other");
        disk.flush().map_err(|e| Error::io("syncing before the superblock is repaired", e))?;
        let bytes = AlignedBuf::from(sb.encode().as_slice());
        for offset in behind {
            let written = disk.write_durable_at(offset, bytes.as_slice());
            written.map_err(|e| Error::io("repairing the superblock", e))?;
        }
    }
    Ok(Found::Log(Box::new(sb)))
}

fn superblock_error(error: SuperblockError) -> Error {
    match error {
        SuperblockError::Version(v) => Error::Unsupported { feature: format!("format version {v}") },
        SuperblockError::Features(bits) => Error::Unsupported { feature: format!("feature bits {bits:#x}") },
        SuperblockError::Invalid(why) => Error::Corrupt {
            what: why,
            offset: 0,
            hint: "both superblocks are bad (or this is no strandlog file): nothing in it can be checked without them; restore the file from another store",
        },
        SuperblockError::Blank => {
            Error::Corrupt { what: "blank superblock", offset: 0, hint: "this is no strandlog file" }
        }
    }
}

/// Brings a log back to life.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    superblock: Superblock,
    run: RunOptions,
    (mapped, read_only): (bool, bool),
    progress: &mut dyn FnMut(Progress),
) -> Result<Engine> {
    let started = Instant::now();
    if !read_only {
        // After kill -9 the bytes below may lie in a volatile cache. **Sync before believing.**
        disk.flush().map_err(|e| Error::io("syncing before recovery", e))?;
    }
    let geo = Geometry::new(&superblock);
    let scan = scan::scan(&*disk, &superblock, run.recovery, progress)?;
    let walk = walk::walk(&*disk, &geo, &scan, superblock.durable, run.recovery)?;
    let replayed = replay::replay(&geo, &scan, &walk, run.recovery)?;
    if replayed.unnamed && run.recovery != RecoveryMode::Salvage {
        return Err(Error::Corrupt {
            what: "neighbouring frames of the journal are lost: nobody can say which replicas were in them",
            offset: POOL_OFFSET,
            hint: "to go on would forget such a replica silently: restore the file from another store, or salvage it",
        });
    }

    let counters = Counters::default();
    counters.recovered_frames.set(walk.accepted.len() as u64);
    counters.lost_frames.set(walk.lost);
    counters.dropped_frames.set(walk.dropped);
    counters.unnamed_losses.set(replayed.unnamed.into());
    if run.recovery == RecoveryMode::Strict && walk.dropped > 0 {
        return Err(Error::Corrupt {
            what: "the last frame is cut off or rotten",
            offset: walk.end_offset(&scan),
            hint: "it was not acknowledged if power failed while it was written; recovery_mode(TolerateTornTail) goes on without it",
        });
    }

    let mut pool = Pool::new(geo.chunks, superblock.chunk_bytes, superblock.segment_bytes, &superblock.journal_slabs);
    let slabs = (superblock.journal_slabs.len() as u64, u64::from(superblock.journal_cap));
    let mut accounts = Accounts::new(geo.chunk_bytes, geo.segment_bytes, run.carry_percent, slabs);
    let pins = Arc::new(Pins::new(1));
    let cells = replayed.cells;
    let mut hurt = replayed.newly_hurt;
    hurt.extend(replayed.suspect);
    hurt.extend(account::claim_chunks(&*disk, &geo, &mut pool, &cells, &pins));
    account::hold_unsettled(&geo, &mut pool, &cells, replayed.unsettled, walk.end);
    account::charge(&mut accounts, &cells);
    if run.recovery == RecoveryMode::Strict
        && let Some(damage) = cells.iter().find_map(|cell| cell.lock().damage(cell.id).into_iter().next())
    {
        return Err(Error::Damaged(damage));
    }

    let (segments, segment_map) = segments(&superblock, &scan, &walk, replayed.participants);
    let in_place = in_place(&geo, &segments, &walk, RESERVED_SEGMENTS + accounts.cleaning());
    let resume = Resume {
        prev: walk.accepted.last().map(|f| f.header),
        prev_participants: replayed.last_participants,
        session: (scan.max_session >> 32).wrapping_add(1) << 32 | u64::from(random_u32()),
        cut: walk.end,
        segments,
        accounts,
        in_place,
    };
    drop(cells);
    let hurt: Vec<u64> = hurt.into_iter().filter(|&id| replayed.registry.get(id).is_some()).collect();
    let durable = walk.end;
    let engine = Engine::new(Parts {
        disk,
        mapped,
        superblock,
        run,
        registry: replayed.registry,
        pool,
        resume,
        segment_map,
        durable,
        counters,
        read_only,
    });
    if !read_only {
        engine.record_damage(&hurt)?;
    }
    engine.counters.recovery_micros.set(started.elapsed().as_micros() as u64);
    Ok(engine)
}

/// Which slabs hold live segments, and which are free.
fn segments(
    superblock: &Superblock,
    scan: &scan::Scan,
    walk: &walk::Walk,
    mut participants: HashMap<u64, Vec<u64>>,
) -> (Segments, SegmentMap) {
    let mut segments = Segments { next_seq: scan.max_seq + 1, ..Segments::default() };
    let mut map = SegmentMap::default();
    let mut live: Vec<u32> = Vec::new();
    for slab in &scan.slabs {
        let seg = slab.seq;
        if seg >= walk.tail_seq && Some(seg) <= walk.last_seq {
            live.push(slab.slab);
            map.push(seg, slab.slab);
            let participants = participants.remove(&seg).unwrap_or_default();
            segments.live.push_back(LiveSegment { seq: seg, slab: slab.slab, participants });
        }
    }
    segments.free = superblock.journal_slabs.iter().copied().filter(|s| !live.contains(s)).collect::<VecDeque<_>>();
    (segments, map)
}

/// Where to go on in the newest segment when a fresh one cannot be spared: repeated crashes must not eat the reserve.
///
/// Safe, because the new session says where it cut: whatever an earlier session wrote from there on does not exist.
fn in_place(geo: &Geometry, segments: &Segments, walk: &walk::Walk, reserved: usize) -> Option<(u64, u64, u64)> {
    let last = segments.live.back()?;
    if segments.free.len() > reserved || walk.end / geo.segment_bytes != last.seq {
        return None;
    }
    let within = walk.end % geo.segment_bytes;
    let offset = POOL_OFFSET + u64::from(last.slab) * geo.segment_bytes + within;
    Some((walk.end, offset, geo.segment_bytes - within))
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
