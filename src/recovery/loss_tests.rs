//! Frames that are lost before the end: who is hurt, what is written of it, and when that is settled.

use super::rig::*;
use super::scan_tests::Journal;
use super::{Found, read_superblock, write_superblocks};
use crate::disk::sim::{EIO, SimDisk};
use crate::disk::{BLOCK, Disk};
use crate::error::{Error, Lost};
use crate::format::POOL_OFFSET;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Participants};
use crate::format::superblock::Superblock;
use crate::journal::{Class, RESERVED_SEGMENTS};
use crate::options::RecoveryMode;
use crate::sync::Arc;
use crate::{Batch, Damage, Wal};

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

/// Each costs memory, whether it ever was or not: a list that nobody can have written is not believed.
#[test]
fn a_list_of_more_replicas_than_the_lost_frame_had_room_for_is_refused() {
    // A record takes four bytes at least, of a frame of one block.
    let most = (BLOCK - FRAME_HEADER_BYTES) as u64 / 4;
    for some in [false, true] {
        for (ids, blocks, sound) in [(most, 1, true), (most + 1, 1, false), (0, 2, false)] {
            let case = format!("{ids} ids in {blocks} blocks, more than one may be lost: {some}");
            let disk = log();
            let lost = if some { 2 } else { 3 };
            (lost..4).for_each(|n| rot(&disk, n));
            let at = frames(&disk)[4].0;
            let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("a log") };
            rewrite(&disk, |n, header| {
                if n != 4 {
                    return;
                }
                let mut table = Vec::new();
                Participants::encode(&mut (1000..1000 + ids).collect(), 10_000, &mut table);
                (header.prev_blocks, header.payload_bytes, header.payload_digest) = (blocks, 0, 0);
                header.table_bytes = table.len() as u32;
                header.table_crc = sb.seed().crc(header.lsn, &table);
                disk.poke(at + header.table_range().start as u64, &table);
            });
            match open(&disk, options().recovery_mode(RecoveryMode::Salvage).read_only(true)) {
                Ok(wal) => assert_eq!(wal.stats().replicas > 900, sound, "{case}"),
                Err(why) => panic!("{case}: {why}"),
            }
            match open(&disk, options()) {
                Ok(wal) => assert!(sound && !some && wal.stats().lost_frames == 1, "{case}: {:?}", wal.stats()),
                Err(Error::Corrupt { what, .. }) if !sound => assert_eq!(what, "a list of participants", "{case}"),
                // Neighbours were lost.
                Err(Error::Corrupt { what, .. }) => assert!(some && what.starts_with("neighbouring"), "{case}: {what}"),
                Err(other) => panic!("{case}: {other}"),
            }
        }
    }
}

/// The opening writes several frames, the first as full as a crowd's, before there is a writer thread: nobody waits for one.
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

/// The opening itself waits for what it writes, whatever callback the thread is in just now.
#[test]
fn a_log_with_something_to_say_can_be_opened_in_a_callback_of_another() {
    let disk = log();
    rot(&disk, 2);
    let other = Arc::new(open_arc(&Arc::new(SimDisk::new(2 << 20))));
    let (tell, told) = std::sync::mpsc::channel();
    let this = Arc::downgrade(&other);
    let opens = move |_| {
        let opened = open(&disk, options()).map(|wal| (wal.damage().len(), wal.stats().frames));
        let waits = this.upgrade().map(|wal| wal.commit(Batch::new().put(1, b"l", b"v")));
        tell.send((opened, waits)).expect("heard");
    };
    other.submit_with(Batch::new().put(1, b"k", b"v"), opens).expect("room");
    other.sync().expect("durable");
    let (opened, waits) = told.recv().expect("told");
    assert!(matches!(opened, Ok((1.., 1..))), "{opened:?}");
    assert!(matches!(waits, Some(Err(Error::Busy { .. }))), "it is still in the callback: {waits:?}");
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
    // A CORE that does not tell of the later loss, and lies far behind it: the two are not carried together.
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
    assert!(wal.engine.clean_oldest(u64::MAX, &mut wal.engine.cleaning.lock()).expect("cleaned") > 0);
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

/// Replica 1: entries 1 to 10 of term 1, 8 to 12 of term 2 in a frame that is lost, and 13 to 15 of term 3. Somebody else in a frame of his own.
fn overwritten_and_lost() -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    for (term, indexes) in [(1, 1..=10), (2, 8..=12), (3, 13..=15_u64)] {
        let entries: Vec<_> = indexes.map(|index| (index, term, [term as u8; 100])).collect();
        wal.commit(Batch::new().append(1, &entries)).expect("committed");
    }
    wal.commit(Batch::new().append(2, &[(1, 1, b"somebody else")])).expect("committed");
    let disk = disk.restart();
    rot(&disk, 1);
    Arc::new(disk)
}

/// Any peer may hold the old entry 12, with an overwritten term: a leader that vouched for that would have followers keep what lies before.
#[test]
fn a_truncation_over_damage_tells_no_term_that_it_does_not_know() {
    let disk = overwritten_and_lost();
    let wal = open_arc(&disk);
    let term_is_unknown = |wal: &Wal, when: &str| {
        assert_eq!(wal.replica(1).bounds().0, 13, "{when}");
        let (told, lost) = (wal.replica(1).term(12), Lost::Entries { first: 12, last: 12 });
        assert!(matches!(&told, Err(Error::Damaged(d)) if d.lost == lost), "{when}: {told:?}");
        assert!(wal.damage().iter().any(|d| d.replica == 1 && d.lost == lost), "{when}: {:?}", wal.damage());
        assert_eq!(wal.replica(1).entry(13).expect("whole").term, 3, "{when}");
        assert_eq!(wal.replica(2).term(1).expect("whole"), 1, "{when}");
    };
    assert!(wal.replica(1).term(12).is_err(), "lost");
    wal.commit(Batch::new().truncate_prefix(1, 13)).expect("committed");
    term_is_unknown(&wal, "at once");
    drop(wal);
    let disk = Arc::new(disk.restart());
    let wal = open_arc(&disk);
    term_is_unknown(&wal, "as the truncation says");
    wal.checkpoint().expect("cleaned");
    drop(wal);
    let disk = Arc::new(disk.restart());
    let wal = open_arc(&disk);
    term_is_unknown(&wal, "as what was carried says");
    wal.close().expect("closed");
    drop(wal);
    let wal = open_arc(&Arc::new(disk.restart()));
    assert_eq!(wal.stats().opened_by_snapshot, 1);
    term_is_unknown(&wal, "as the snapshot says");
    // The next truncation puts a term that is known in its place; so does a snapshot.
    wal.commit(Batch::new().truncate_prefix(1, 14)).expect("committed");
    assert_eq!(wal.replica(1).term(13).expect("known"), 3);
    assert_eq!(wal.damage(), [Damage { replica: 1, lost: Lost::State }]);
}

/// As on a log that was full when the damage was found: no CORE tells of it yet, and the truncation takes what would have shown it.
#[test]
fn a_truncation_over_damage_that_nothing_else_tells_of_says_so_itself() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    let entries: Vec<_> = (1..=4).map(|index| (index, 1, [7; 100])).collect();
    wal.commit(Batch::new().append(1, &entries)).expect("committed");
    wal.engine.registry.get(1).expect("there").lock().add_damage(1, 2);
    wal.commit(Batch::new().truncate_prefix(1, 3)).expect("committed");
    drop(wal);
    let wal = open_arc(&Arc::new(disk.restart()));
    let (told, lost) = (wal.replica(1).term(2), Lost::Entries { first: 2, last: 2 });
    assert!(matches!(&told, Err(Error::Damaged(d)) if d.lost == lost), "{told:?}");
    assert_eq!(wal.replica(1).entry(3).expect("whole").term, 1);
}

/// A durable frame is missed even if it was no replica's: *strict* takes no log that lost something.
#[test]
fn a_lost_frame_that_hurt_nobody_is_refused_by_strict_alone() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    // Frames of nobody between those of replicas: sealed so that the one before it is known to be durable.
    for index in 1..=5 {
        wal.commit(Batch::new().append(7, &[(index, 1, [7; 100])])).expect("committed");
        wal.engine.seal_if_room(Class::Keep).expect("room");
    }
    let disk = disk.restart();
    let all = frames(&disk);
    let mut hurt_nobody = 0;
    for (n, frame) in all.iter().enumerate().take(all.len() - 2) {
        let hurt = disk.restart();
        hurt.flip_bit(frame.2, 0);
        let tolerant = open(&hurt.restart(), options()).expect("opened");
        assert_eq!(tolerant.stats().lost_frames, 1, "frame {n}");
        let strict = open(&hurt.restart(), options().recovery_mode(RecoveryMode::Strict));
        if tolerant.damage().is_empty() {
            hurt_nobody += 1;
            let refused = strict.err();
            assert!(matches!(refused, Some(Error::Corrupt { what, .. }) if what.contains("durable")), "{refused:?}");
        } else {
            assert!(matches!(strict, Err(Error::Damaged(_))), "frame {n}");
        }
    }
    assert!(hurt_nobody > 0);
}

/// One bad sector, wherever it is in the journal: the default mode says that it cannot read, and a salvage opens with all else.
#[test]
fn a_salvage_opens_whichever_block_of_the_journal_cannot_be_read() {
    let disk = log();
    let all = frames(&disk);
    let mut blocks: Vec<u64> = all.iter().map(|f| f.0).collect();
    // Behind the end, and in slabs in which nothing is.
    blocks.extend([
        all[all.len() - 1].1,
        all[all.len() - 1].1 + 4096,
        POOL_OFFSET + (64 << 10),
        POOL_OFFSET + (3 << 16),
    ]);
    for at in blocks {
        let disk = disk.restart();
        disk.fail_reads(at..at + 512, EIO);
        let refused = open(&disk, options().recovery_mode(RecoveryMode::TolerateTornTail));
        assert!(matches!(refused, Err(Error::Io { .. })), "{at}: {:?}", refused.err());
        let wal = open(&disk, options().recovery_mode(RecoveryMode::Salvage)).unwrap_or_else(|e| panic!("{at}: {e}"));
        let hit = all.iter().position(|f| f.0 == at).map(|n| n as u64 + 1);
        for replica in (1..=6).filter(|&id| Some(id) != hit) {
            assert_eq!(wal.replica(replica).entry(1).expect("there").data, [7; 100][..], "{at}, {replica}");
        }
    }
}

/// What cannot be read is an unnamed loss where it may be the newest there is: where the log goes on, and where one of the next two
/// segments would begin, which the newest frame names. What lies between whole frames the next one names; nothing lies in a segment that
/// was given up, nor in a slab in which the log cannot have gone on.
#[test]
fn what_a_salvage_cannot_read_is_unnamed_only_where_the_log_may_go_on() {
    let disk = log();
    let all = frames(&disk);
    let (first, last) = (&all[0], &all[all.len() - 1]);
    let slab = |n: u64| POOL_OFFSET + (n << 16);
    let unnamed = |disk: &SimDisk, at: u64| {
        let disk = disk.restart();
        disk.fail_reads(at..at + 512, EIO);
        let wal = open(&disk, options().recovery_mode(RecoveryMode::Salvage)).unwrap_or_else(|e| panic!("{at}: {e}"));
        wal.stats().unnamed_losses
    };
    for at in [last.0, last.1, slab(1), slab(2)] {
        assert_eq!(unnamed(&disk, at), 1, "{at}");
    }
    for at in [first.0, all[1].0, all[all.len() - 2].0, slab(1) + 4096, slab(3), slab(5), slab(3) + (60 << 10)] {
        assert_eq!(unnamed(&disk, at), 0, "{at}");
    }
    // The frames do not say where one of the next two segments, or both, would lie: the log may have gone on anywhere.
    for known in [[0, 0], [2, 0], [0, 3]] {
        let disk = disk.restart();
        rewrite(&disk, |_, header| [header.next, header.after] = known);
        for (at, expected) in [(first.0, 0), (last.1, 1), (slab(1), 1), (slab(3), 1), (slab(3) + 4096, 0)] {
            assert_eq!(unnamed(&disk, at), expected, "{known:?}, {at}");
        }
    }
}

/// Each byte of a list may be one more replica. A longer one than any writer lists is no list.
#[test]
fn a_list_of_participants_makes_no_more_replicas_than_a_writer_lists() {
    const SEGMENT: usize = 1 << 20;
    const SLABS: [u32; 4] = [6, 5, 9, 2];
    for (listed, sound) in [(900, true), (200_000, false)] {
        let journal = Journal::new(SEGMENT, &SLABS);
        let seed = journal.sb.seed();
        let put = |at: usize, table: &[u8], header: FrameHeader| {
            let lsn = (3 * SEGMENT + at * BLOCK) as u64;
            let (blocks, table_crc) = ((FRAME_HEADER_BYTES + table.len()).div_ceil(BLOCK) as u32, seed.crc(lsn, table));
            let header = FrameHeader { lsn, session: 1, blocks, table_bytes: table.len() as u32, table_crc, ..header };
            let mut bytes = vec![0; FRAME_HEADER_BYTES];
            header.encode(seed, &mut bytes);
            bytes.extend_from_slice(table);
            journal.disk.poke(journal.offset(SLABS[0], at), &bytes);
            header
        };
        let of_nobody = &[1];
        let first = put(0, of_nobody, FrameHeader { tail_seq: 3, ..FrameHeader::default() });
        let mut table = Vec::new();
        Participants::encode(&mut (0..listed).collect(), u64::MAX, &mut table);
        // The one between is lost.
        let last = put(
            2,
            &table,
            FrameHeader {
                tail_seq: 3,
                prev_lsn: first.end(),
                prev_blocks: 1,
                prev_hash: 5,
                prev_prev_hash: first.hash(seed),
                watermark: first.end() + BLOCK as u64,
                ..FrameHeader::default()
            },
        );
        let sb = Superblock {
            journal_floor: 4,
            journal_cap: 8,
            journal_slabs: SLABS.to_vec(),
            durable: last.end(),
            ..journal.sb.clone()
        };
        write_superblocks(&journal.disk, &sb).expect("written");
        for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage] {
            match open(
                &SimDisk::from_image(journal.disk.kept_image()),
                Wal::options().background(false).recovery_mode(mode),
            ) {
                Ok(wal) => {
                    assert_eq!(wal.replicas().len() as u64, if sound { listed } else { 0 }, "{mode:?}");
                    assert!(sound || mode == RecoveryMode::Salvage);
                }
                Err(Error::Corrupt { what, .. }) => {
                    assert_eq!((sound, mode, what), (false, RecoveryMode::TolerateTornTail, "a list of participants"));
                }
                Err(other) => panic!("{mode:?}: {other}"),
            }
        }
    }
}
