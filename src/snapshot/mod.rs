//! The snapshot: the index as the last close wrote it, so that a log that was closed opens without reading its journal.
//!
//! It saves nothing but time. If anything about it is doubtful (a superblock that does not name it, a checksum, a field, a frame that is
//! newer), the journal is read as after a crash. It is believed once: before the next session writes its first frame no superblock names it
//! any more, and its chunks are free.

#[cfg(all(test, not(any(loom, shuttle))))]
mod bounds_tests;
mod codec;
mod decode;
mod encode;
mod load;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod write;

pub(crate) use load::load;

use crate::engine::Geometry;
use crate::format::superblock::Superblock;

/// The longest snapshot that is written or read: as long as the journal that need not be read for it. So an opening takes no more memory than
/// without one.
fn longest(geo: &Geometry, sb: &Superblock) -> u64 {
    sb.journal_slabs.len() as u64 * geo.segment_bytes
}
