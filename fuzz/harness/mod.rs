//! What the fuzz targets run. No fuzzer in it, so that a plain `cargo test` can replay their corpora.

pub mod crash;
pub mod decode;
pub mod hostile;
pub mod ops;

mod craft;
mod input;
mod model;
/// The reference model of the project's own tests.
#[path = "../../tests/support/model.rs"]
mod reference;
mod specimen;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::{Options, Wal};

/// Bytes per journal segment: the smallest allowed.
const SEGMENT: u32 = 64 << 10;
/// Bytes per chunk: the smallest allowed.
const CHUNK: u32 = 4 << 10;
/// 14 segments: six for the journal, two more that it may take, six that are always the chains'.
const DISK: u64 = 14 * SEGMENT as u64 + strandlog::format::POOL_OFFSET;

/// The smallest log there is: everything wraps, fills and moves within a few dozen operations.
fn options() -> Options {
    Wal::options()
        .capacity(DISK)
        .chunk_size(CHUNK)
        .segment_size(SEGMENT)
        .journal_cap(8 * u64::from(SEGMENT))
        .recent_bytes(1 << 20)
        .queue_bytes(64 << 10)
        .direct_threshold(6 << 10)
        .background(false)
}

fn open(disk: &Arc<SimDisk>, options: Options) -> strandlog::Result<Wal> {
    options.open_disk(Arc::clone(disk) as Arc<dyn strandlog::disk::Disk>)
}
