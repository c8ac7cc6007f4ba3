//! An opening as a whole: what it writes and when, what each mode makes of what is missing, and with what numbers it goes on.

use super::scan::scan;
use super::{Found, random_u32, read_superblock};
use crate::disk::Disk;
use crate::disk::sim::{EventKind, SimDisk};
use crate::error::{Error, Result};
use crate::format::POOL_OFFSET;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::superblock::{SUPERBLOCK_OFFSETS, Superblock};
use crate::journal::RESERVED_SEGMENTS;
use crate::options::{Options, RecoveryMode};
use crate::space::Accounts;
use crate::sync::{Arc, Mutex};
use crate::{Batch, Damage, Placement, Wal};

const MODES: [RecoveryMode; 3] = [RecoveryMode::Strict, RecoveryMode::TolerateTornTail, RecoveryMode::Salvage];

fn options() -> Options {
    Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal).background(false)
}

fn open(disk: &SimDisk, options: Options) -> Result<Wal> {
    options.open_disk(Arc::new(disk.clone()))
}

fn open_arc(disk: &Arc<SimDisk>) -> Wal {
    options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened")
}

/// Six replicas, each in a frame of its own, and a frame of nobody behind them; never closed.
fn log() -> SimDisk {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for replica in 1..=6 {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 100])])).expect("committed");
    }
    disk.restart()
}

/// Where each frame lies and ends, in order of the log, and where its table lies.
fn frames(disk: &SimDisk) -> Vec<(u64, u64, u64)> {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
    let scan = scan(disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
    let frames = scan.slabs.iter().flat_map(|s| &s.frames);
    frames.map(|f| (f.offset, f.offset + f.header.bytes(), f.offset + f.header.table_range().start as u64)).collect()
}

/// Rots the table of a frame.
fn rot(disk: &SimDisk, frame: usize) {
    disk.flip_bit(frames(disk)[frame].2, 0);
}

/// Of the frames behind it nothing did but what destroyed those that lay there.
fn nothing_but_the_first_frame_arrived(disk: &SimDisk) {
    frames(disk).iter().skip(1).for_each(|frame| disk.poke(frame.0, &[0; 4096]));
}

/// Rots the payload of a frame.
fn tear(disk: &SimDisk, frame: usize) {
    disk.flip_bit(frames(disk)[frame].0 + FRAME_HEADER_BYTES as u64 + 6, 0);
}

/// As a writer with other ideas would have sealed the frames: `edit` sees each one's number and header; the links are made good again.
fn rewrite(disk: &SimDisk, mut edit: impl FnMut(usize, &mut FrameHeader)) {
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
fn writes(disk: &SimDisk, options: Options) -> usize {
    let disk = Arc::new(disk.clone());
    let before = disk.events();
    options.open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
    let events = disk.log().split_off(before as usize);
    events.iter().filter(|e| e.kind != EventKind::Flush).count()
}

#[test]
fn nothing_is_believed_before_it_was_flushed_and_nothing_is_flushed_by_who_may_only_read() {
    for (read_only, expected) in [(false, ["flush", "journal"].as_slice()), (true, &["journal"])] {
        let (disk, order) = (log(), Arc::new(Mutex::new(Vec::new())));
        let (flushed, read) = (Arc::clone(&order), Arc::clone(&order));
        disk.on_event(move |event| {
            flushed.lock().push(if event.kind == EventKind::Flush { "flush" } else { "write" });
            None
        });
        disk.on_read(move |offset, _| {
            if offset >= POOL_OFFSET {
                read.lock().push("journal");
            }
            Ok(())
        });
        let wal = open(&disk, options().read_only(read_only)).expect("opened");
        let mut order = order.lock().clone();
        order.dedup();
        assert_eq!(order, expected, "read only: {read_only}");
        assert_eq!(wal.stats().recovered_frames, 6);
    }
}

#[test]
fn a_whole_log_opens_in_every_mode_and_nothing_is_written() {
    for mode in MODES {
        let stats = open(&log(), options().recovery_mode(mode)).expect("whole").stats();
        assert_eq!((stats.lost_frames, stats.dropped_frames, stats.unnamed_losses), (0, 0, 0), "{mode:?}");
        assert_eq!(writes(&log(), options().recovery_mode(mode)), 0, "{mode:?}");
    }
}

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

#[test]
fn a_damaged_replica_is_refused_by_strict_alone_which_says_whose() {
    let disk = log();
    rot(&disk, 2);
    for mode in MODES {
        match open(&disk, options().recovery_mode(mode)) {
            Ok(wal) => {
                assert_eq!((mode != RecoveryMode::Strict, wal.stats().lost_frames), (true, 1), "{mode:?}");
                assert!(!wal.damage().is_empty() && wal.damage().iter().all(|d| d.replica == 3), "{mode:?}");
            }
            Err(Error::Damaged(Damage { replica, .. })) => assert_eq!((mode, replica), (RecoveryMode::Strict, 3)),
            Err(other) => panic!("{mode:?}: {other}"),
        }
    }
}

/// Also the first frame of a segment, and its only one: that no other is missing the next frame says.
#[test]
fn a_frame_that_is_lost_anywhere_in_the_log_hurts_its_own_replicas_alone() {
    // Frames of one block and of several, so that segments end with a rest, and without; and frames of which a segment holds one.
    let varied: Vec<usize> = (1..=60).map(|replica| 700 * (replica % 13)).collect();
    for lengths in [varied, vec![40_000; 6]] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open_arc(&disk);
        for (replica, &len) in (1..).zip(&lengths) {
            let pieces: Vec<Vec<u8>> = vec![7; len].chunks(4000).map(<[u8]>::to_vec).collect();
            let entries: Vec<(u64, u64, &[u8])> = (1..).zip(&pieces).map(|(i, p)| (i, 1, p.as_slice())).collect();
            wal.commit(Batch::new().append(replica, &entries).put(replica, b"key", b"value")).expect("committed");
        }
        let all = frames(&disk);
        let firsts = all.iter().filter(|&&(offset, ..)| (offset - POOL_OFFSET).is_multiple_of(64 << 10)).count();
        assert!((3..10).contains(&firsts) && all.len() == lengths.len(), "{firsts} of {}", all.len());
        for (n, &(offset, _, table)) in all.iter().enumerate().take(all.len() - 1) {
            for rotten in [offset, table] {
                let disk = disk.restart();
                disk.flip_bit(rotten, 3);
                let wal = open(&disk, options()).unwrap_or_else(|refused| panic!("frame {n}, {rotten}: {refused}"));
                assert_eq!(wal.stats().lost_frames, 1);
                assert!(wal.damage().iter().all(|d| d.replica == n as u64 + 1), "frame {n}: {:?}", wal.damage());
                assert!(!wal.damage().is_empty());
            }
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

/// The opening writes several frames, the first of them a crowd's, before there is a writer: nobody waits for that.
#[test]
fn an_opening_with_much_to_say_waits_for_no_writer() {
    const EACH: u64 = 3000;
    let disk = Arc::new(SimDisk::new(32 << 20));
    let wal = open_arc(&disk);
    for from in [0, EACH, 2 * EACH] {
        for replica in from..from + EACH {
            drop(wal.submit(Batch::new().append(replica, &[(1, 1, b"lost")])).expect("room"));
        }
        wal.sync().expect("durable");
        wal.commit(Batch::new().append(99_999, &[(from / EACH + 1, 1, b"between")])).expect("committed");
    }
    let all = frames(&disk);
    let disk = disk.restart();
    let lost = all.iter().take(all.len() - 1).step_by(2).map(|frame| disk.flip_bit(frame.2, 0)).count() as u64;
    let (told, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let wal = open(&disk, options().background(true)).expect("opened");
        let _ = told.send(wal.stats());
    });
    let stats = opened.recv_timeout(std::time::Duration::from_secs(60)).expect("it does not hang");
    assert_eq!(stats.lost_frames, lost);
    assert!(stats.frames > 1, "{}", stats.frames);
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
            // Beside the first, and so the last beside the second.
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

/// The oldest segment is gone whole: what is written meanwhile must not say that the log begins behind it, or whoever opens it before all
/// who are hurt have their CORE would miss nothing.
#[test]
fn a_tail_that_is_lost_whole_is_missed_until_the_next_segment_is_cleaned() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    for replica in 1..=4 {
        let entries: Vec<(u64, u64, [u8; 4000])> = (1..=10).map(|i| (i, 1, [7; 4000])).collect();
        wal.commit(Batch::new().append(replica, &entries)).expect("committed");
    }
    let disk = Arc::new(disk.restart());
    disk.flip_bit(frames(&disk)[0].0, 3);
    let wal = open_arc(&disk);
    let damage = wal.damage();
    assert!(damage.iter().all(|d| d.replica == 1) && !damage.is_empty(), "{damage:?}");
    wal.commit(Batch::new().put(2, b"key", b"value")).expect("committed");
    let lost = || {
        let wal = open(&disk.restart(), options()).expect("opened");
        assert_eq!(wal.damage(), damage);
        wal.stats().lost_frames
    };
    assert_eq!(lost(), 1);
    wal.engine.clean_all().expect("cleaned");
    assert_eq!(lost(), 0);
}

#[test]
fn where_nobody_can_say_who_was_hurt_only_a_salvage_goes_on() {
    let disk = log();
    rot(&disk, 2);
    rot(&disk, 3);
    for mode in MODES {
        match open(&disk, options().recovery_mode(mode)) {
            Ok(wal) => assert_eq!((mode, wal.stats().unnamed_losses), (RecoveryMode::Salvage, 1)),
            Err(Error::Corrupt { offset, .. }) => {
                assert_eq!((mode != RecoveryMode::Salvage, offset), (true, POOL_OFFSET), "{mode:?}");
            }
            Err(other) => panic!("{mode:?}: {other}"),
        }
    }
}

#[test]
fn of_a_loss_that_a_new_life_made_meaningless_nothing_is_written() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for index in 1..=2 {
        wal.commit(Batch::new().append(1, &[(index, 1, [7; 100])])).expect("committed");
    }
    // Whatever the lost frame held was of a life that is over.
    wal.commit(Batch::new().remove(1).append(1, &[(1, 1, [7; 100])])).expect("committed");
    wal.commit(Batch::new().append(2, &[(1, 1, [7; 100])])).expect("committed");
    let disk = disk.restart();
    rot(&disk, 1);
    let whole = open(&disk, options()).expect("opened");
    assert_eq!((whole.damage(), whole.stats().lost_frames), (vec![], 1));
    assert_eq!(writes(&disk, options()), 0);
}

#[test]
fn whoever_is_newly_hurt_is_written_at_once_but_not_by_who_may_only_read() {
    let disk = log_that_lost_one();
    assert_eq!(writes(&disk, options()), 1);
    assert_eq!(writes(&disk, options().read_only(true)), 0);
}

/// Loses a frame of replica 1, which holds three entries.
fn log_that_lost_one() -> SimDisk {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for index in 1..=3 {
        wal.commit(Batch::new().append(1, &[(index, 1, [7; 100])])).expect("committed");
        wal.commit(Batch::new().append(2, &[(index, 1, [7; 100])])).expect("committed");
    }
    let disk = disk.restart();
    rot(&disk, 2);
    disk
}

#[test]
fn what_is_written_of_a_loss_is_not_written_again() {
    let disk = Arc::new(log_that_lost_one());
    let damage = {
        let wal = open_arc(&disk);
        wal.damage()
    };
    assert!(!damage.is_empty());
    for opening in 0..5 {
        let disk = disk.restart();
        assert_eq!(writes(&disk, options()), 0, "{opening}");
        assert_eq!(open(&disk, options()).expect("opened").damage(), damage);
    }
}

/// Where there is no room to write it, the cleaner does, before what shows the loss is gone; what it needs for that is left alone.
#[test]
fn a_loss_that_a_full_log_shows_is_written_by_the_cleaner() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = open_arc(&disk);
    for index in 1..=3 {
        wal.commit(Batch::new().append(1, &[(index, 1, [7; 100])])).expect("committed");
    }
    let tail = |wal: &Wal| wal.engine.seq.lock().segments.tail();
    let filling = vec![7; 1000];
    let fill = |bytes: usize| {
        let mut batch = Batch::new();
        batch.put(2, b"key", &filling[..bytes]);
        batch
    };
    while wal.engine.seq.lock().segments.free.len() > RESERVED_SEGMENTS {
        drop(wal.try_submit(&mut fill(1000)).expect("room"));
    }
    // One that does not tell of what is yet to be lost, far behind it: it is not carried together with that.
    let cell = wal.engine.registry.get(1).expect("there");
    wal.engine.record_damage([&*cell].into_iter()).expect("written");
    for value in [1000, 1] {
        while wal.try_submit(&mut fill(value)).is_ok() {
            wal.sync().expect("durable");
        }
    }
    let disk = Arc::new(disk.restart());
    rot(&disk, 1);
    assert_eq!(writes(&disk, options()), 0);
    let disk = Arc::new(disk.restart());
    let wal = open_arc(&disk);
    let (damage, before) = (wal.damage(), tail(&wal));
    assert!(damage.iter().all(|d| d.replica == 1) && damage.len() == 2, "{damage:?}");
    // One segment: that of the lost frame, and not that of the CORE.
    assert!(wal.engine.clean_oldest(u64::MAX, &mut wal.engine.cleaning.lock()).expect("cleaned"));
    assert_eq!(tail(&wal), before + 1);
    let wal = open(&disk.restart(), options()).expect("opened");
    assert_eq!((wal.stats().lost_frames, wal.damage()), (0, damage));
}

#[test]
fn entries_that_were_appended_anew_over_a_loss_are_no_damage_at_the_next_opening() {
    let disk = Arc::new(log_that_lost_one());
    let wal = open_arc(&disk);
    wal.commit(Batch::new().append(1, &[(1, 2, b"healed"), (2, 2, b"healed"), (3, 2, b"healed")])).expect("healed");
    let left = wal.damage();
    assert_eq!(
        left,
        [Damage { replica: 1, lost: crate::Lost::State }],
        "the frame may have held an update of its state"
    );
    let wal = open(&disk.restart(), options()).expect("opened");
    assert_eq!(wal.damage(), left);
    assert_eq!(wal.replica(1).entries(1..4, usize::MAX).expect("readable").len(), 3);
}

#[test]
fn each_opening_has_a_session_of_its_own_above_all_before_it() {
    let disk = log();
    let sessions: Vec<u64> = (0..20)
        .map(|_| {
            let wal = open(&disk, options()).expect("opened");
            wal.engine.seq.lock().session
        })
        .collect();
    // The log was made by the first one of all; none of these wrote anything.
    assert!(sessions.iter().all(|s| s >> 32 == 2), "{sessions:x?}");
    assert!(sessions.iter().any(|s| s != &sessions[0]), "{sessions:x?}");
    let mut disk = Arc::new(disk);
    for opening in 2..6 {
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        assert_eq!(wal.engine.seq.lock().session >> 32, opening);
        wal.commit(Batch::new().put(1, b"k", b"v")).expect("committed");
        disk = Arc::new(disk.restart());
    }
}

/// Once, by who may write: before anything else no superblock names it any more.
#[test]
fn a_snapshot_is_believed_by_the_next_who_writes_and_tolerates_a_torn_end_and_by_nobody_else() {
    let named = |disk: &SimDisk| {
        let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
        (sb.epoch, sb.snapshot.is_some())
    };
    for mode in MODES {
        for read_only in [false, true] {
            let disk = Arc::new(log());
            let open = |disk: &Arc<SimDisk>, options: Options| {
                options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened")
            };
            open(&disk, options()).close().expect("closed");
            let disk = Arc::new(disk.restart());
            let (epoch, closed) = named(&disk);
            let wal = open(&disk, options().recovery_mode(mode).read_only(read_only));
            let trusted = mode == RecoveryMode::TolerateTornTail && !read_only;
            assert_eq!((closed, wal.stats().opened_by_snapshot), (true, trusted.into()), "{mode:?} {read_only}");
            // A salvage writes nothing, whoever asks for it.
            let writes = !read_only && mode != RecoveryMode::Salvage;
            assert_eq!(named(&disk), (epoch + u64::from(writes), !writes), "{mode:?} {read_only}");
            assert_eq!(wal.replicas(), [1, 2, 3, 4, 5, 6]);
        }
    }
}

/// What is carried asks for more segments to be kept: crash after crash must not eat them.
#[test]
fn an_opening_takes_no_fresh_segment_that_cleaning_may_need() {
    for cleaning in [0, 1] {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        for id in 0..45 * cleaning {
            wal.commit(Batch::new().put(id, b"state", &[7; 4000])).expect("committed");
        }
        wal.commit(Batch::new().put(100, b"state", b"v")).expect("committed");
        let (live, free, end) = {
            let s = wal.engine.seq.lock();
            assert_eq!(s.accounts.cleaning() as u64, cleaning);
            let live: Vec<u32> = s.segments.live.iter().map(|l| l.slab).collect();
            (live, s.segments.free.clone(), s.prev.expect("frames").end())
        };
        drop(wal);
        let kept = RESERVED_SEGMENTS + cleaning as usize;
        for (spare, in_place) in [(kept, true), (kept + 1, false)] {
            let disk = disk.crash_lost_all();
            let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("a log") };
            let journal_slabs: Vec<u32> = live.iter().chain(free.iter().take(spare)).copied().collect();
            assert_eq!(journal_slabs.len(), live.len() + spare);
            let sb = Superblock { journal_floor: 4, journal_slabs, ..*sb };
            SUPERBLOCK_OFFSETS.into_iter().for_each(|offset| disk.poke(offset, &sb.encode()));
            let wal = open(&disk, options()).expect("opened");
            let s = wal.engine.seq.lock();
            assert_eq!(s.segments.free.len(), spare);
            assert_eq!(s.open.lsn == end, in_place, "{spare} are free, {kept} are kept");
        }
    }
}

#[test]
fn numbers_drawn_at_random_differ() {
    let mut drawn: Vec<u32> = (0..100).map(|_| random_u32()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 90, "{drawn:?}");
}

#[test]
fn what_may_be_carried_follows_the_slabs_that_the_superblock_names() {
    let wal = open(&log(), options()).expect("opened");
    let sb = wal.engine.superblock.lock().clone();
    let slabs = (sb.journal_slabs.len() as u64, sb.journal_cap.into());
    let accounts = Accounts::new(sb.chunk_bytes, sb.segment_bytes.into(), wal.engine.run.carry_percent, slabs);
    let budget = wal.engine.seq.lock().accounts.budget();
    assert_eq!(budget, accounts.budget());
    assert!(budget > 0 && budget < slabs.0 * u64::from(sb.segment_bytes) / 2);
}

const NO_THREADS: &str = "STRANDLOG_NO_THREADS";

/// The child: where no thread can be started, an opening does everything itself. Not a test of its own.
#[test]
fn child_without_threads() {
    if std::env::var_os(NO_THREADS).is_none() {
        return;
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "this process was to have no threads");
    // Enough slabs that each part of an opening asks for help.
    let disk = Arc::new(SimDisk::new(64 << 20));
    let options = || options().capacity(64 << 20);
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for replica in 1..=100 {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 5000])])).expect("committed");
    }
    let killed = disk.restart();
    wal.close().expect("closed");
    let closed = disk.restart();
    for (disk, by_snapshot) in [(killed, 0), (closed, 1)] {
        let threads = open(&disk, options().background(true));
        assert!(matches!(threads, Err(Error::Io { .. })), "{threads:?}");
        let wal = open(&disk, options()).expect("opened");
        assert_eq!((wal.stats().opened_by_snapshot, wal.replicas().len()), (by_snapshot, 100));
        assert!(wal.verify(|_| ()).expect("read").is_clean());
    }
}

#[test]
fn where_no_thread_can_be_started_an_opening_does_everything_itself() {
    let me = std::env::current_exe().expect("our own name");
    let tests = [
        "recovery::recover_tests::child_without_threads",
        "recovery::tests::a_new_life_keeps_nothing_of_the_one_before",
    ];
    let mut child = std::process::Command::new(me);
    // No system has room for such a stack: every start of a thread fails.
    child.args(tests).arg("--exact").env("RUST_MIN_STACK", (1_u64 << 47).to_string()).env(NO_THREADS, "1");
    let ran = child.output().expect("a child");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("2 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}
