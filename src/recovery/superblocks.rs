//! Superblocks, as an opening finds them: which of the two counts, whether the other is repaired, and what there is where neither is whole.

use super::foreign;
use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::error::{Error, Result, rebuild_all};
use crate::format::POOL_OFFSET;
use crate::format::frame::FrameHeader;
use crate::format::superblock::{
    LAST_EPOCH, MIN_SEGMENT_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock, SuperblockError,
};

/// Whether a disk was ever formatted.
pub(crate) enum Found {
    Blank,
    Log(Box<Superblock>),
}

/// As [`read_superblock`], for a disk that must be a log.
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
/// A snapshot is named by both, or by none: where the copies differ, it is forgotten in both. A copy that cannot be read counts as rotten
/// while the other is whole, and makes no disk blank.
pub(crate) fn read_superblock(disk: &dyn Disk, read_only: bool) -> Result<Found> {
    if disk.len() < POOL_OFFSET {
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
    // A whole copy of a newer format beside an older one: an upgrade was cut off. It is not ours to "repair".
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
        // One that is whole but for the file's length shows that the file was cut.
        let cut = errors
            .iter()
            .filter_map(|e| if let SuperblockError::Cut { log_bytes } = e { Some(*log_bytes) } else { None });
        if let Some(log_bytes) = cut.max() {
            return Err(Error::Cut { file_bytes: disk.held(), log_bytes });
        }
        // Only what was a log can be damaged.
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
    // Bad, or older after a cut between A and B. Left so, it would be the only one when the next change tears the other, and an older one
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

/// Whether a disk holds nothing but a part of the first superblock ever written to it: its formatting was cut off. B is written behind A,
/// and any frame behind both. `sb`: the superblock that formatting would write; it says where the first frame would be.
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

/// Whether a disk holds a log that was written to: more than a creation leaves that was cut off before the file was named. If in doubt,
/// yes.
pub(crate) fn holds_a_log(disk: &dyn Disk) -> bool {
    let mut block = vec![0; BLOCK];
    let mut is_blank = |at| disk.read_at(at, &mut block).is_ok_and(|()| block.iter().all(|&byte| byte == 0));
    match read_superblock(disk, true) {
        Ok(Found::Log(sb)) => !sb.journal_slabs.iter().all(|&slab| is_blank(sb.slab_offset(slab))),
        Ok(Found::Blank) => false,
        // Nobody knows where the slabs are, but the first of them begins with a frame, as all that follow do. A creation that was cut off
        // may leave anything but that.
        Err(Error::Corrupt { .. }) => may_be_a_log(disk),
        Err(_) => true,
    }
}

/// Whether a frame may lie on a disk whose superblocks tell nothing.
pub(super) fn may_be_a_log(disk: &dyn Disk) -> bool {
    (0..FRONTS).any(|n| may_begin_a_frame(disk, n))
}

/// How many places at which a slab may begin are looked at, if no superblock says where slabs lie.
const FRONTS: u64 = 256;

/// Whether a frame may begin at the `n`th of these places. A block that is there and cannot be read may be one.
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

/// Writes A, durable; then B, durable.
pub(crate) fn write_superblocks(disk: &dyn Disk, superblock: &Superblock) -> std::io::Result<()> {
    let bytes = AlignedBuf::from(superblock.encode().as_slice());
    SUPERBLOCK_OFFSETS.into_iter().try_for_each(|offset| disk.write_durable_at(offset, bytes.as_slice()))
}
