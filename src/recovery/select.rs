//! Which slabs of the journal an opening reads to their end: those in which something may live.
//!
//! Of the others it looks at the first frame. Most of a journal may be empty, or past: where many replicas are idle, where it has just
//! grown, where the log is new. What makes it safe to leave a slab unread:
//!
//! - The newest frame names the tail: no segment before it counts. Segments from there on are read.
//! - It names the slabs of the next two segments, which are read, too: the first frame of the one may be what rotted, or the only frame of the
//!   one and the first of the other. Each opening goes on in these slabs, in this order.
//! - No number between the tail and the newest is missing. If one is, its segment's first frame was lost, and every slab is read.
//! - Where those slabs were not known, every slab is read.

use std::collections::HashSet;

use rustc_hash::FxHashMap;

use super::scan::{Found, Scan};
use super::walk::existing;
use crate::format::superblock::Superblock;

/// The slabs to be read beside those in `scan`, all of which were `read`; none: nothing else can live. `firsts`: the frames with which slabs
/// begin.
pub(super) fn more(sb: &Superblock, scan: &Scan, read: &HashSet<u32>, firsts: &FxHashMap<u32, Found>) -> Vec<u32> {
    let segment = u64::from(sb.segment_bytes);
    let seq_of = |slab: &u32| firsts.get(slab).map(|f| f.header.lsn / segment);
    let unread: Vec<u32> = sb.journal_slabs.iter().copied().filter(|slab| !read.contains(slab)).collect();
    let newest = existing(scan).into_iter().filter(|f| f.table.is_some()).max_by_key(|f| f.header.lsn);
    let Some(newest) = newest.map(|f| f.header) else {
        // Nothing that counts so far: from the newest on.
        let next = unread.iter().copied().filter(|slab| seq_of(slab).is_some()).max_by_key(seq_of);
        return next.map_or(unread, |slab| vec![slab]);
    };
    let following = [newest.next, newest.after].map(|slab| slab.checked_sub(1));
    if following.iter().any(|slab| slab.is_none_or(|slab| !sb.journal_slabs.contains(&slab))) {
        return unread;
    }
    let may_live =
        |slab: &u32| following.contains(&Some(*slab)) || seq_of(slab).is_some_and(|seq| seq >= newest.tail_seq);
    let more: Vec<u32> = unread.iter().copied().filter(may_live).collect();
    if !more.is_empty() {
        return more;
    }
    let there: HashSet<u64> = scan.slabs.iter().map(|s| s.seq).collect();
    if (newest.tail_seq..=newest.lsn / segment).all(|seq| there.contains(&seq)) { Vec::new() } else { unread }
}
