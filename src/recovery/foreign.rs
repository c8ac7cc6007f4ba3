//! Tells what a file is that is no log, by what is found in it, and only where nothing shows that it ever was one.

use super::superblocks::may_be_a_log;
use crate::disk::{BLOCK, Disk};
use crate::error::Error;
use crate::format::POOL_OFFSET;
use crate::format::superblock::{MAGIC, SUPERBLOCK_OFFSETS};

/// The first bytes of raft-engine's log files.
const RAFT_ENGINE: &[u8] = b"RAFT-LOG-FILE-HEADER-";

macro_rules! is_none {
    ($($more:literal)?) => {
        concat!(
            "this is no strandlog file, and nothing in it shows that it ever was one: is the path right, and its device mounted?", $($more,)?
            " If a log was here, something else was written over it: begin no empty one in its place, rebuild its replicas from their peers, as new members"
        )
    };
}

/// The error for a disk on which neither superblock begins as one; it says what is there instead. `None`: it may be a log all the same.
pub(super) fn error_for(disk: &dyn Disk) -> Option<Error> {
    let head = head_of(disk)?;
    let short = disk.len() < POOL_OFFSET;
    // The beginning of one superblock is enough. A file shorter than both and a frame has nothing else to be told by.
    if SUPERBLOCK_OFFSETS.iter().any(|&at| begins_one(disk, at)) || !short && may_be_a_log(disk) {
        return None;
    }
    let zeros = head.iter().all(|&byte| byte == 0);
    let engine = head.starts_with(RAFT_ENGINE);
    let what = match (short, &head) {
        (true, head) if head.is_empty() => "an empty file, which ends",
        (true, _) if zeros => "zeros, in a file shorter than any log, which ends",
        (true, _) if engine => "a file of raft-engine's, which ends",
        (true, text) if is_text(text) => "a text, shorter than any log, which ends",
        (true, _) => "something else than a log, and shorter than any, which ends",
        (false, _) if zeros => "zeros, where a log has its superblocks,",
        (false, _) if engine => "a file of raft-engine's",
        (false, text) if is_text(text) => "a text",
        (false, _) => "something else than a log",
    };
    let hint = if engine {
        is_none!(" (`strandlog import --from raft-engine` copies the directory that it is in.)")
    } else {
        is_none!()
    };
    let offset = if short { disk.len() } else { 0 };
    Some(Error::Corrupt { what, offset, hint })
}

/// The first block, or what there is of it. `None`: it cannot be read.
fn head_of(disk: &dyn Disk) -> Option<Vec<u8>> {
    let mut head = vec![0; disk.len().min(BLOCK as u64) as usize];
    disk.read_at(0, &mut head).ok().map(|()| head)
}

/// Whether a superblock begins there.
fn begins_one(disk: &dyn Disk, at: u64) -> bool {
    let mut magic = [0; MAGIC.len()];
    at + magic.len() as u64 <= disk.len() && disk.read_at(at, &mut magic).is_ok() && magic == MAGIC
}

fn is_text(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Cut in the midst of a character.
        Err(error) if error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !whole.is_empty() && whole.chars().all(|c| !c.is_control() || c.is_whitespace())
}
