//! Which slabs of the journal an opening reads to their end: those in which something may live.
//!
//! Of the others it reads only the first frame. Most of a journal may be empty, or past: where many replicas are idle, where it has just
//! grown, where the log is new. What makes it safe to leave a slab unread:
//!
//! - The newest frame names the tail: no segment before it counts. Segments from there on are read.
//! - It names the slabs of the next two segments, which are read, too: the first frame of one may have rotted, or the only frame of one and the
//!   first of the other. Each opening goes on in these slabs, in this order.
//! - No number between the tail and the newest is missing. If one is, its segment's first frame was lost, and every slab is read.
//! - Where those slabs were not known, every slab is read.
//!
//! The same rules tell in which slabs an older frame may hide a newer one: the scan reads those once more.

use std::cmp::Reverse;
use std::collections::HashSet;

use rustc_hash::FxHashMap;

use super::scan::{Found, Scan};
use super::walk::existing;
use crate::format::frame::FrameHeader;
use crate::format::superblock::Superblock;

/// Where something may live, as the newest whole frame says.
pub(super) struct Living {
    newest: Option<FrameHeader>,
    /// The slabs of the two segments behind it. `None`: not known.
    following: [Option<u32>; 2],
    /// No number between the tail and the newest is missing.
    complete: bool,
}

impl Living {
    pub fn of(sb: &Superblock, scan: &Scan) -> Self {
        let newest = existing(scan).into_iter().filter(|f| f.table.is_some()).max_by_key(|f| f.header.lsn);
        let newest = newest.map(|f| f.header);
        let there: HashSet<u64> = scan.slabs.iter().map(|s| s.seq).collect();
        let segment = u64::from(sb.segment_bytes);
        let slab = |n: u32| n.checked_sub(1).filter(|slab| sb.journal_slabs.contains(slab));
        Self {
            newest,
            following: newest.map_or([None; 2], |f| [f.next, f.after].map(slab)),
            complete: newest.is_some_and(|f| (f.tail_seq..=f.lsn / segment).all(|seq| there.contains(&seq))),
        }
    }

    fn follow_are_known(&self) -> bool {
        self.following.iter().all(Option::is_some)
    }

    fn is_named(&self, slab: u32, seq: Option<u64>) -> bool {
        let tail = self.newest.map_or(0, |f| f.tail_seq);
        self.following.contains(&Some(slab)) || seq.is_some_and(|seq| seq >= tail)
    }

    /// Whether something may live in a slab in which a segment of this number was found.
    pub fn may_live(&self, slab: u32, seq: Option<u64>) -> bool {
        !self.complete || !self.follow_are_known() || self.is_named(slab, seq)
    }
}

/// The slabs to be read besides those already `read`, whose frames are in `scan`; empty: nothing else can live. `firsts`: slabs' first
/// frames.
pub(super) fn more(sb: &Superblock, scan: &Scan, read: &HashSet<u32>, firsts: &FxHashMap<u32, Found>) -> Vec<u32> {
    let segment = u64::from(sb.segment_bytes);
    let seq_of = |slab: &u32| firsts.get(slab).map(|f| f.header.lsn / segment);
    let unread: Vec<u32> = sb.journal_slabs.iter().copied().filter(|slab| !read.contains(slab)).collect();
    let living = Living::of(sb, scan);
    if living.newest.is_none() {
        // Nothing counts so far: on from the newest slab. As many as were read, since all that was found is looked through each time.
        let mut newest: Vec<u32> = unread.iter().copied().filter(|slab| seq_of(slab).is_some()).collect();
        newest.sort_by_key(|slab| Reverse(seq_of(slab)));
        newest.truncate(read.len().max(1));
        return if newest.is_empty() { unread } else { newest };
    }
    if !living.follow_are_known() {
        return unread;
    }
    let more: Vec<u32> = unread.iter().copied().filter(|slab| living.is_named(*slab, seq_of(slab))).collect();
    if more.is_empty() && !living.complete { unread } else { more }
}
