//! Wipes out what a torn end left behind the place where the log goes on.
//!
//! Two frames were in flight: of the first nothing arrived, of the second, which has one block, only its last sectors. Its end still says
//! that a frame lies there. Once the log has come that far again, over the first one's place, that would be taken for its newest frame with
//! a rotten header: *strict* would refuse a log that lacks nothing. (A frame that still has its header says which session wrote it, and is
//! void.) So it is wiped out before the log goes on.

use std::io;

use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::superblock::Superblock;

/// Bytes read at once.
const STEP: u64 = 64 * BLOCK as u64;

/// Wipes out frames without a header where the log goes on in its newest segment, in `room` bytes from this LSN and offset on, but for the
/// first block, which is the next frame's own. With `fronts` also one where the next segment may begin.
pub(super) fn wipe(
    disk: &dyn Disk,
    sb: &Superblock,
    (end, offset, room): (u64, u64, u64),
    fronts: bool,
) -> io::Result<()> {
    let segment = u64::from(sb.segment_bytes);
    let mut found = Vec::new();
    let mut buf = AlignedBuf::new();
    let mut look = |lsn: u64, offset: u64, len: u64| {
        buf.resize(len as usize);
        // Where nothing can be read, nothing says that a frame was there.
        if disk.read_at(offset, buf.as_mut_slice()).is_err() {
            return;
        }
        for (at, block) in (0..).step_by(BLOCK).zip(buf.as_slice().chunks(BLOCK)) {
            let lsn = lsn.saturating_add(at);
            let header = block.get(..FRAME_HEADER_BYTES);
            let has_header =
                header.is_some_and(|h| FrameHeader::decode(sb.seed(), lsn % segment, segment, h).is_some());
            if !has_header && FrameHeader::is_echoed(sb.seed(), lsn, block) {
                found.push(offset.saturating_add(at));
            }
        }
    };
    let mut at = BLOCK as u64;
    while at < room {
        let len = STEP.min(room - at);
        look(end.saturating_add(at), offset.saturating_add(at), len);
        at += len;
    }
    if fronts {
        let next = (end / segment).saturating_add(1).saturating_mul(segment);
        sb.journal_slabs.iter().for_each(|&slab| look(next, sb.slab_offset(slab), BLOCK as u64));
    }
    if found.is_empty() {
        return Ok(());
    }
    let nothing = AlignedBuf::from([0; BLOCK].as_slice());
    found.into_iter().try_for_each(|offset| disk.write_at(offset, nothing.as_slice()))?;
    disk.flush()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::rig::*;
    use super::super::{Found, read_superblock};
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::format::POOL_OFFSET;
    use crate::format::superblock::SUPERBLOCK_OFFSETS;
    use crate::journal::RESERVED_SEGMENTS;
    use crate::options::RecoveryMode;
    use crate::sync::Arc;
    use crate::{Batch, Wal};

    fn commit(wal: &Wal, replica: u64) {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 100])])).expect("room");
    }

    /// Leaves no more free segments than are kept back, so that the log goes on in that of `place`; that of `also` stays, too.
    fn spare_none(disk: &SimDisk, place: u64, also: u64) {
        let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
        let slab = |offset: u64| ((offset - POOL_OFFSET) >> 16) as u32;
        let mut slabs = vec![slab(place), slab(also)];
        slabs.dedup();
        slabs.extend(sb.journal_slabs.iter().copied().filter(|s| ![slab(place), slab(also)].contains(s)));
        slabs.truncate(1 + RESERVED_SEGMENTS);
        let sb = Superblock { journal_floor: 4, journal_slabs: slabs, ..*sb };
        SUPERBLOCK_OFFSETS.into_iter().for_each(|offset| disk.poke(offset, &sb.encode()));
    }

    /// A log that lost power with two frames in flight: of the first nothing arrived, of the second all but its first sector.
    fn cut_off(wal: &Wal, disk: &SimDisk) -> (Arc<SimDisk>, u64) {
        commit(wal, 2);
        commit(wal, 3);
        let disk = disk.restart();
        let [.., first, second] = frames(&disk)[..] else { panic!("two frames") };
        assert_eq!((first.1 - first.0, second.1 - second.0), (BLOCK as u64, BLOCK as u64));
        spare_none(&disk, first.0, second.0);
        disk.poke(first.0, &[0; BLOCK]);
        disk.poke(second.0, &[0; 512]);
        (Arc::new(disk), first.0)
    }

    /// One more frame where the first of the two was, and the process is killed.
    fn goes_on(disk: &Arc<SimDisk>, mode: RecoveryMode, place: u64) -> SimDisk {
        let wal = options().recovery_mode(mode).open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
        assert_eq!(wal.replicas().len(), 1);
        commit(&wal, 4);
        let killed = disk.restart();
        assert_eq!(frames(&killed).last().map(|frame| frame.0), Some(place), "the log went on elsewhere");
        killed
    }

    fn is_whole_to_all(disk: &SimDisk) {
        for mode in MODES {
            let wal = open(disk, options().recovery_mode(mode)).unwrap_or_else(|e| panic!("{mode:?}: {e}"));
            assert_eq!((wal.stats().dropped_frames, wal.replica(4).exists()), (0, true), "{mode:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_frame_behind_a_lost_one_is_not_taken_for_the_next() {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        commit(&wal, 1);
        let (disk, place) = cut_off(&wal, &disk);
        // Nothing shows that there was more.
        is_whole_to_all(&goes_on(&disk, RecoveryMode::Strict, place));
    }

    #[test]
    fn nor_is_it_where_the_next_segment_began_with_it() {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        while wal.engine.seq.lock().open.room != BLOCK as u64 {
            wal.commit(Batch::new().put(1, b"vote", b"of 1")).expect("room");
        }
        let (disk, place) = cut_off(&wal, &disk);
        let refused = open(&disk, options().recovery_mode(RecoveryMode::Strict));
        assert!(refused.is_err(), "a torn end");
        is_whole_to_all(&goes_on(&disk, RecoveryMode::TolerateTornTail, place));
    }

    /// The seal of the close lies before it.
    #[test]
    fn nor_does_it_make_a_closed_log_one_that_was_torn() {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        commit(&wal, 1);
        let (disk, place) = cut_off(&wal, &disk);
        let strict = || options().recovery_mode(RecoveryMode::Strict);
        let wal = strict().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        wal.close().expect("closed");
        assert_eq!(frames(&disk).last().map(|frame| frame.0), Some(place), "the log went on elsewhere");
        open(&disk.restart(), strict()).expect("closed well");
    }
}
