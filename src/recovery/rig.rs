//! Logs for tests, and what may befall them.

use super::scan::scan;
use super::{Found, read_superblock};
use crate::disk::Disk;
use crate::disk::sim::{EventKind, SimDisk};
use crate::error::Result;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;
use crate::{Batch, Placement, Wal};

pub(super) const MODES: [RecoveryMode; 3] =
    [RecoveryMode::Strict, RecoveryMode::TolerateTornTail, RecoveryMode::Salvage];

pub(super) fn options() -> Options {
    Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal).background(false)
}

pub(super) fn open(disk: &SimDisk, options: Options) -> Result<Wal> {
    options.open_disk(Arc::new(disk.clone()))
}

pub(super) fn open_arc(disk: &Arc<SimDisk>) -> Wal {
    options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened")
}

/// Six replicas, each in a frame of its own, and a frame of nobody behind them; never closed.
pub(super) fn log() -> SimDisk {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for replica in 1..=6 {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 100])])).expect("committed");
    }
    disk.restart()
}

/// Where each frame lies and ends, in order of the log, and where its table lies.
pub(super) fn frames(disk: &SimDisk) -> Vec<(u64, u64, u64)> {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
    let scan = scan(disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
    let frames = scan.slabs.iter().flat_map(|s| &s.frames);
    frames.map(|f| (f.offset, f.offset + f.header.bytes(), f.offset + f.header.table_range().start as u64)).collect()
}

/// Rots the table of a frame.
pub(super) fn rot(disk: &SimDisk, frame: usize) {
    disk.flip_bit(frames(disk)[frame].2, 0);
}

/// Nothing arrived of the frames behind the first, but what lay in their place is destroyed.
pub(super) fn nothing_but_the_first_frame_arrived(disk: &SimDisk) {
    frames(disk).iter().skip(1).for_each(|frame| disk.poke(frame.0, &[0; 4096]));
}

/// Rots the payload of a frame.
pub(super) fn tear(disk: &SimDisk, frame: usize) {
    disk.flip_bit(frames(disk)[frame].0 + FRAME_HEADER_BYTES as u64 + 6, 0);
}

/// As a writer with other ideas would have sealed the frames: `edit` sees each one's number and header; the links are made good again.
pub(super) fn rewrite(disk: &SimDisk, mut edit: impl FnMut(usize, &mut FrameHeader)) {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
    let scan = scan(disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
    let mut prev: Option<FrameHeader> = None;
    for (n, frame) in scan.slabs.iter().flat_map(|s| &s.frames).enumerate() {
        let mut header = frame.header;
        edit(n, &mut header);
        if let Some(prev) = prev {
            (header.prev_hash, header.prev_prev_hash) = (prev.hash(sb.seed()), prev.prev_hash);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        header.encode(sb.seed(), &mut bytes);
        disk.poke(frame.offset, &bytes);
        prev = Some(header);
    }
}

/// How many writes an opening made.
pub(super) fn writes(disk: &SimDisk, options: Options) -> usize {
    let disk = Arc::new(disk.clone());
    let before = disk.events();
    options.open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
    let events = disk.log().split_off(before as usize);
    events.iter().filter(|e| e.kind != EventKind::Flush).count()
}

/// As an older log would have numbered its frames: this many segments and openings later. None of them may have a payload, whose checksums
/// are bound to its place.
pub(super) fn grown_old(disk: &SimDisk, segments: u64, sessions: u64) {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
    let scan = scan(disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
    let bytes = segments * u64::from(sb.segment_bytes);
    let mut prev: Option<FrameHeader> = None;
    for frame in scan.slabs.iter().flat_map(|s| &s.frames) {
        let mut header = frame.header;
        assert_eq!(header.payload_bytes, 0, "frames of keyed state only");
        (header.lsn, header.cut, header.watermark) = (header.lsn + bytes, header.cut + bytes, header.watermark + bytes);
        (header.tail_seq, header.session) = (header.tail_seq + segments, header.session + sessions);
        let table = frame.table.as_deref().expect("whole");
        header.table_crc = sb.seed().crc(header.lsn, table);
        if let Some(prev) = prev {
            (header.prev_lsn, header.prev_hash, header.prev_prev_hash) =
                (prev.lsn, prev.hash(sb.seed()), prev.prev_hash);
        }
        let mut block = [0; crate::disk::BLOCK];
        disk.read_at(frame.offset, &mut block).expect("readable");
        header.encode(sb.seed(), &mut block);
        header.encode_echo(sb.seed(), &mut block);
        disk.poke(frame.offset, &block);
        prev = Some(header);
    }
}
