//! Into how many parts a replay is divided, one thread each.

use super::walk::{Accepted, Walk};
use crate::engine::Geometry;
use crate::format::Reader;
use crate::format::frame::{Participants, participant_bytes};

/// Bytes of records that are worth one more thread, whichever replicas they are of: each part reads all records and replays its share.
const WORTH_A_THREAD: usize = 8 << 20;
/// Bytes that are worth one where most replicas are new: each takes memory that the system has to find, which costs more than its record.
const WORTH_IF_NEW: usize = 1 << 20;
const _: () = assert!(WORTH_IF_NEW < WORTH_A_THREAD);
/// As every part reads all records, more would gain little.
const MOST_PARTS: usize = 4;

/// At most this many frames are looked at, evenly spread, ...
const FRAMES: usize = 256;
/// ... and at this many replicas that they list in all. Less than a quarter of these tell nothing.
const LISTED: usize = 4096;

/// How many parts are best for these frames on this machine.
pub(super) fn parts(geo: &Geometry, walk: &Walk<'_>) -> usize {
    let bytes: usize = walk.accepted.iter().map(|frame| frame.table.len()).sum();
    let worth = match 1 + bytes / WORTH_A_THREAD {
        1 if bytes >= WORTH_IF_NEW && mostly_new(geo, &walk.accepted) => 2,
        worth => worth.min(MOST_PARTS),
    };
    // Asking for the number of processors reads half a dozen files of the system's: a small log opens faster than that.
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    if worth > 1 { worth.min(processors()) } else { 1 }
}

/// Whether most replicas listed in a sample of the frames are listed by only one of them, as they are where there are many thousands.
fn mostly_new(geo: &Geometry, accepted: &[Accepted<'_>]) -> bool {
    let step = accepted.len().div_ceil(FRAMES).max(1);
    let each = LISTED / accepted.len().div_ceil(step).max(1);
    let mut listed: Vec<u64> = Vec::new();
    for frame in accepted.iter().step_by(step) {
        let list = Participants::decode(&mut Reader::new(frame.table), participant_bytes(geo.segment_bytes));
        if let Some(Participants::These(ids)) = list {
            listed.extend(ids.into_iter().take(each));
        }
    }
    let all = listed.len();
    listed.sort_unstable();
    listed.dedup();
    4 * all > LISTED && 4 * listed.len() > 3 * all
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::format::frame::FrameHeader;
    use crate::recovery::tests::superblock;
    use crate::recovery::walk::Before;

    /// Frames of `each` replicas: consecutive ids, going round among `replicas` of them.
    fn spread(frames: u64, each: u64, replicas: u64) -> bool {
        let tables: Vec<Vec<u8>> = (0..frames)
            .map(|n| {
                let (mut table, geo) = (Vec::new(), Geometry::new(&superblock()));
                let mut ids = (n * each..(n + 1) * each).map(|i| 1 + i % replicas).collect();
                Participants::encode(&mut ids, participant_bytes(geo.segment_bytes), &mut table);
                table
            })
            .collect();
        let accepted: Vec<Accepted<'_>> = tables
            .iter()
            .map(|table| Accepted { header: FrameHeader::default(), table, before: Before::Whole, unsettled: false })
            .collect();
        mostly_new(&Geometry::new(&superblock()), &accepted)
    }

    #[test]
    fn new_replicas_are_told_from_those_that_come_again() {
        assert!(spread(100, 1000, 100_000) && spread(2000, 50, 100_000) && spread(20, 4000, 80_000));
        for (frames, each, replicas) in
            [(8000, 500, 1000), (15_000, 32, 1000), (100_000, 1, 1000), (40, 1000, 1000), (0, 0, 1)]
        {
            assert!(!spread(frames, each, replicas), "{frames} frames of {each}, of {replicas} replicas");
        }
    }
}
