//! A torn end: where the log ends then, and what only the torn frame said.

use super::rig::*;
use super::scan::{Found as Frame, scan};
use super::{Found, read_superblock};
use crate::disk::sim::{Fault, SimDisk};
use crate::disk::{BLOCK, Disk};
use crate::error::Error;
use crate::format::POOL_OFFSET;
use crate::format::superblock::{SUPERBLOCK_OFFSETS, Superblock};
use crate::journal::{Class, RESERVED_SEGMENTS};
use crate::options::RecoveryMode;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::{Batch, Placement, Wal};

#[test]
fn a_torn_end_is_refused_by_strict_alone_which_says_where() {
    let disk = log();
    let end = frames(&disk)[4].1;
    rot(&disk, 5);
    for mode in MODES {
        match open(&disk, options().recovery_mode(mode)) {
            Ok(wal) => assert_eq!((mode != RecoveryMode::Strict, wal.stats().dropped_frames), (true, 1), "{mode:?}"),
            Err(Error::Corrupt { offset, .. }) => assert_eq!((mode, offset), (RecoveryMode::Strict, end)),
            Err(other) => panic!("{mode:?}: {other}"),
        }
    }
}

/// The newest frame, of one block, has lost the sector in which its header was, and its table: it says at its end that it was there. Where all of the
/// block is lost, nothing does.
#[test]
fn a_newest_frame_that_lost_its_header_s_sector_is_missed_and_one_that_lost_its_block_is_not() {
    for (lost, told) in [(512, true), (BLOCK - 512, true), (BLOCK, false)] {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        for vote in [b"of 1", b"of 2"] {
            wal.commit(Batch::new().put(1, b"vote", vote)).expect("acknowledged");
        }
        let disk = disk.restart();
        let newest = *frames(&disk).last().expect("a frame");
        assert_eq!(newest.1 - newest.0, BLOCK as u64);
        disk.poke(newest.0, &vec![0; lost]);
        for mode in MODES {
            let opened = open(&disk, options().recovery_mode(mode));
            if told && mode == RecoveryMode::Strict {
                assert!(matches!(opened, Err(Error::Corrupt { what, .. }) if what.contains("last frame")), "{lost}");
                continue;
            }
            let wal = opened.expect("opened");
            assert_eq!(wal.stats().dropped_frames, u64::from(told), "{lost} {mode:?}");
            assert_eq!(
                wal.replica(1).get(b"vote").expect("believed").as_deref(),
                Some(&b"of 1"[..]),
                "{lost} {mode:?}"
            );
        }
    }
}

/// Found by a torture run. Only the frame behind it, which is torn, says that the frame was durable. The log goes on in place of that one, the
/// power fails again, and now no frame does: what it placed and cut off again is not looked at, for that space may be another's.
#[test]
fn an_acknowledged_frame_stands_though_what_it_cut_off_is_gone_and_the_one_that_covered_it() {
    let chains = || options().placement(Placement::Chain);
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = chains().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    let large = [7; 4000];
    let cut_off = [(1, 1, large), (2, 1, large), (3, 1, large)];
    wal.commit(Batch::new().append(1, &cut_off).append(1, &[(2, 2, b"anew")])).expect("acknowledged");
    wal.commit(Batch::new().append(2, &[(1, 1, b"in flight")])).expect("committed");
    let disk = Arc::new(disk.restart());
    tear(&disk, 1);
    let wal = chains().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
    assert_eq!(wal.stats().dropped_frames, 1);
    wal.commit(Batch::new().append(3, &cut_off)).expect("committed");
    let disk = disk.restart();
    nothing_but_the_first_frame_arrived(&disk);
    let wal = open(&disk, chains()).expect("opened");
    assert_eq!((wal.stats().dropped_frames, wal.replica(3).exists()), (0, false));
    let found: Vec<(u64, u64)> =
        wal.replica(1).entries(1..3, usize::MAX).expect("readable").iter().map(|e| (e.index, e.term)).collect();
    assert_eq!(found, [(1, 1), (2, 2)]);
}

/// What was known to be durable when the log was opened is so the next time, too: rot in it is damage, and no torn end.
#[test]
fn what_only_a_torn_frame_covers_is_not_torn_itself_when_that_one_is_overwritten() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = open_arc(&disk);
    wal.commit(Batch::new().append(1, &[(1, 1, b"rots")]).append(2, &[(1, 1, b"lasts")])).expect("acknowledged");
    wal.commit(Batch::new().append(3, &[(1, 1, b"in flight")])).expect("committed");
    let disk = Arc::new(disk.restart());
    [0, 1].into_iter().for_each(|frame| tear(&disk, frame));
    assert_eq!(open_arc(&disk).stats().dropped_frames, 1);
    nothing_but_the_first_frame_arrived(&disk);
    let wal = open(&disk.restart(), options()).expect("opened");
    assert_eq!((wal.stats().dropped_frames, wal.stats().recovered_frames), (0, 1));
    assert_eq!(wal.replica(2).entry(1).expect("readable").data, b"lasts"[..]);
    assert!(matches!(wal.replica(1).entry(1), Err(Error::Damaged(_))));
}

/// A torn end was cut off by the only frame of a session, an empty one, which rots: the torn end stands again, with all of its table. The
/// frame behind the lost one says which frame that one followed, so nothing is in doubt.
#[test]
fn a_torn_end_does_not_come_back_where_the_frame_that_cut_it_off_rots() {
    // A second torn end behind that frame says, too, where the first was cut off.
    for torn_twice in [false, true] {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        for replica in 1..=3 {
            wal.commit(Batch::new().append(replica, &[(1, 1, b"entry")])).expect("committed");
        }
        let disk = Arc::new(disk.restart());
        tear(&disk, 2);
        let wal = open_arc(&disk);
        assert_eq!((wal.stats().dropped_frames, wal.stats().frames), (1, 1), "an empty frame says so");
        let session = wal.engine.seq.lock().session;
        if torn_twice {
            wal.commit(Batch::new().append(4, &[(1, 1, b"entry")])).expect("committed");
        }
        let disk = Arc::new(disk.restart());
        if torn_twice {
            tear(&disk, frames(&disk).len() - 1);
        }
        let wal = open_arc(&disk);
        for replica in 5..=7 {
            wal.commit(Batch::new().append(replica, &[(1, 1, b"entry")])).expect("committed");
        }
        let disk = disk.restart();
        assert_eq!(open(&disk, options()).expect("whole").replicas(), [1, 2, 5, 6, 7]);
        let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("a log") };
        let scan = scan(&disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
        let is_empty = |f: &&Frame| f.header.session == session && f.header.payload_bytes == 0;
        let empty = scan.slabs.iter().flat_map(|s| &s.frames).find(is_empty).expect("there");
        disk.flip_bit(empty.offset, 0);
        for mode in MODES {
            match open(&disk, options().recovery_mode(mode)) {
                Ok(wal) => {
                    assert_ne!(mode, RecoveryMode::Strict, "a frame is lost");
                    let stats = wal.stats();
                    assert_eq!((stats.lost_frames, stats.unnamed_losses), (1, 0), "{mode:?} {torn_twice}");
                    assert_eq!((wal.replicas(), wal.damage()), (vec![1, 2, 5, 6, 7], vec![]), "{mode:?} {torn_twice}");
                }
                Err(refused) => assert_eq!(mode, RecoveryMode::Strict, "{torn_twice}: {refused}"),
            }
        }
    }
}

/// A frame says it again, also where the log ends behind what was durable; unless the opening had something to write anyway.
#[test]
fn what_only_a_torn_frame_says_is_said_again_by_the_opening() {
    for in_flight in [false, true] {
        let disk = Arc::new(SimDisk::new(2 << 20));
        let wal = open_arc(&disk);
        for replica in 1..=3 {
            wal.commit(Batch::new().append(replica, &[(1, 1, b"entry")])).expect("committed");
        }
        let (disk, ends) = (Arc::new(disk.restart()), wal.engine.durable());
        rewrite(&disk, |n, header| match n {
            // In flight beside the first; so the last was beside the second.
            1 | 2 if in_flight => header.watermark = header.prev_lsn,
            _ => {}
        });
        tear(&disk, 2);
        let wal = open_arc(&disk);
        assert_eq!((wal.stats().dropped_frames, wal.stats().frames), (1, 1), "{in_flight}");
        let durable = wal.engine.superblock.lock().durable;
        assert!(durable > 0 && durable < ends, "{durable} of {ends}");
        assert_eq!(writes(&disk.restart(), options()), 0, "{in_flight}: it is said");
    }
}

/// The last frame says that segments are superseded, and is torn: until another that says so is durable, their slabs are not written anew.
#[test]
fn segments_that_only_a_torn_frame_gave_up_are_not_free_yet() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    let filling: Vec<u8> = vec![7; 4000];
    while wal.engine.seq.lock().segments.current() < 4 {
        wal.commit(Batch::new().put(1, b"key", &filling)).expect("committed");
    }
    wal.engine.clean_all().expect("cleaned");
    wal.commit(Batch::new().append(1, &[(1, 1, b"in flight")])).expect("committed");
    let disk = disk.restart();
    // As if all but the last had been sealed before the cleaning, and the last were torn.
    let last = frames(&disk).len() - 1;
    let mut tail = 0;
    rewrite(&disk, |n, header| {
        tail = header.tail_seq;
        if n < last {
            header.tail_seq = 1;
        }
    });
    assert!(tail > 1);
    tear(&disk, last);
    let held = |wal: &Wal| {
        let s = wal.engine.seq.lock();
        let slabs: Vec<u32> = s.segments.leaving.iter().map(|&(_, slab)| slab).collect();
        assert!(slabs.iter().all(|slab| !s.segments.free.contains(slab)));
        slabs.len() as u64
    };
    let reader = open(&disk.clone(), options().read_only(true)).expect("opened");
    assert_eq!(held(&reader), tail - 1);
    let before = reader.stats().free_segments;
    let wal = open(&disk, options()).expect("opened");
    // The opening writes a frame that says so, and until then has nobody use them.
    assert_eq!((held(&wal), wal.stats().dropped_frames, wal.stats().frames), (0, 1, 1));
    assert_eq!(wal.stats().free_segments, before + tail - 1);
}

/// The frame that the power cut off arrived but for a bit, and is longer than all that the next session writes in its place. The first of
/// that is lost: the old header still stands, over what was acknowledged behind it.
#[test]
fn what_was_written_in_place_of_a_torn_frame_is_found_though_the_first_of_it_was_lost() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = open_arc(&disk);
    wal.commit(Batch::new().append(1, &[(1, 1, [7; 100])])).expect("committed");
    let large: Vec<(u64, u64, [u8; 4000])> = (1..=8).map(|index| (index, 1, [7; 4000])).collect();
    wal.commit(Batch::new().append(2, &large)).expect("committed");
    let disk = Arc::new(disk.restart());
    drop(wal);
    tear(&disk, 1);
    let (place, lost) = (frames(&disk)[1].0, AtomicU64::new(0));
    // No more segments are free than are kept back: the log goes on behind its last frame.
    let Ok(Found::Log(sb)) = read_superblock(&*disk, true) else { panic!("a log") };
    let live = ((place - POOL_OFFSET) >> 16) as u32;
    let free = sb.journal_slabs.iter().copied().filter(|&slab| slab != live).take(RESERVED_SEGMENTS);
    let sb = Superblock { journal_floor: 4, journal_slabs: std::iter::once(live).chain(free).collect(), ..*sb };
    SUPERBLOCK_OFFSETS.into_iter().for_each(|offset| disk.poke(offset, &sb.encode()));
    disk.on_event(move |event| {
        (event.offset == place && lost.fetch_add(1, Ordering::Relaxed) == 0).then_some(Fault::Lost)
    });
    let wal = open_arc(&disk);
    for replica in 3..=5 {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 100])])).expect("committed");
    }
    let killed = disk.restart();
    assert!(disk.log().iter().any(|e| e.fault == Some(Fault::Lost)), "the log went on elsewhere");
    let wal = open(&killed, options()).expect("opened");
    assert_eq!((wal.stats().lost_frames, wal.replica(2).exists()), (1, false));
    let held: Vec<u64> = (3..=5).filter(|&id| wal.replica(id).entry(1).is_ok()).collect();
    let hurt: Vec<u64> = wal.damage().iter().map(|damage| damage.replica).collect();
    assert!(held.len() >= 2 && (3..=5).all(|id| held.contains(&id) || hurt.contains(&id)), "{held:?} {hurt:?}");
}

/// All are removed, the last segment is exactly full, and the next one was opened for a batch that did not come yet: without a frame in
/// it nothing would say that there is a log, if the first frame that lies there is torn.
#[test]
fn a_log_of_nobody_opens_whatever_is_torn() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    let mut filled = (1..).map(|term| {
        wal.commit(Batch::new().append(1, &[(1, term, [7; 100])])).expect("room");
        wal.engine.seq.lock().open.room / BLOCK as u64
    });
    assert!(filled.any(|left| left == 1));
    wal.commit(Batch::new().remove(1)).expect("room");
    let engine = &wal.engine;
    let end = {
        let mut s = engine.seq.lock();
        assert!(s.open.room == 0 && s.make_room(0, 0, Class::Clean, &engine.segment_map));
        s.segments.current()
    };
    {
        // As the cleaner does it, but for its last frame: another's batch joins that.
        let mut one = engine.cleaning.lock();
        while engine.leave_next(&|s| s.segments.tail() < end, &mut one).expect("cleaned") > 0 {}
    }
    wal.commit(Batch::new().append(2, &[(1, 1, [9; 20_000])])).expect("room");
    let disk = disk.restart();
    drop(wal);
    let last = *frames(&disk).last().expect("a frame");
    disk.poke(last.0 + 2 * BLOCK as u64, &[0; BLOCK]);
    for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage] {
        let wal = open(&disk, options().recovery_mode(mode)).unwrap_or_else(|refused| panic!("{mode:?}: {refused}"));
        assert_eq!((wal.stats().dropped_frames, wal.replicas().len()), (1, 0), "{mode:?}");
    }
}
