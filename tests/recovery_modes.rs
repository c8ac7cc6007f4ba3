//! What each recovery mode makes of each way in which a log can be less than whole.

mod support;

use std::sync::Arc;

use strandlog::disk::Disk;
use strandlog::disk::sim::{EIO, SimDisk};
use strandlog::format::frame::FrameHeader;
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::format::{BLOCK_BYTES, POOL_OFFSET};
use strandlog::{Batch, Damage, Error, Lost, Placement, RecoveryMode, Wal};

use support::{payload, small};

const MODES: [RecoveryMode; 3] = [RecoveryMode::Strict, RecoveryMode::TolerateTornTail, RecoveryMode::Salvage];

/// The image of a log of eight replicas: each was written by a frame of its own, then four of them by one frame.
fn image(close: bool) -> Vec<u8> {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = support::open(small(Placement::Journal), &disk);
    for replica in 1..=8 {
        let mut batch = Batch::new();
        batch.append(replica, &[(1, 1, payload(replica, 1, 1, 500))]).put(replica, b"hard_state", b"voted");
        wal.commit(batch).expect("committed");
    }
    let mut batch = Batch::new();
    for replica in 1..=4 {
        batch.append(replica, &[(2, 1, payload(replica, 2, 1, 50))]);
    }
    wal.commit(batch).expect("committed");
    if close {
        wal.close().expect("closed");
    }
    drop(wal);
    // The journal is what is looked at here.
    support::without_snapshot(disk.kept_image())
}

/// Where each frame lies, in the order of the log.
fn frames(image: &[u8]) -> Vec<(usize, FrameHeader)> {
    let superblock = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("valid");
    let segment = u64::from(superblock.segment_bytes);
    let found = (POOL_OFFSET as usize..image.len()).step_by(BLOCK_BYTES as usize).filter_map(|at| {
        let within = (at as u64 - POOL_OFFSET) % segment;
        FrameHeader::decode(superblock.seed(), within, segment, &image[at..]).map(|header| (at, header))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(_, header)| header.lsn);
    found
}

/// Rots the table of a frame, or its first payload.
fn rot(image: &mut [u8], frame: usize, payload: bool) {
    let (at, header) = frames(image)[frame];
    image[if payload { at + 140 } else { at + header.table_range().start + 3 }] ^= 0x10;
}

fn open(image: &[u8], mode: RecoveryMode) -> (Arc<SimDisk>, Result<Wal, Error>) {
    let disk = Arc::new(SimDisk::from_image(image.to_vec()));
    let wal = small(Placement::Journal).recovery_mode(mode).open_disk(Arc::clone(&disk) as Arc<dyn Disk>);
    (disk, wal)
}

/// Asserts that everything of these replicas is there.
fn assert_whole(wal: &Wal, replicas: impl IntoIterator<Item = u64>) {
    for id in replicas {
        let replica = wal.replica(id);
        assert_eq!(replica.last_index(), if id <= 4 { 2 } else { 1 }, "replica {id}");
        assert_eq!(replica.entry(1).expect("whole").data, payload(id, 1, 1, 500));
        assert_eq!(replica.get(b"hard_state").expect("whole").expect("put"), &b"voted"[..]);
    }
}

#[test]
fn a_whole_log_opens_in_every_mode_closed_or_killed() {
    for close in [true, false] {
        for mode in MODES {
            let (_disk, wal) = open(&image(close), mode);
            let wal = wal.unwrap_or_else(|e| panic!("{mode:?}: {e}"));
            assert_whole(&wal, 1..=8);
            assert_eq!(wal.damage(), []);
        }
    }
}

#[test]
fn a_torn_end_is_cut_off_unless_strict() {
    let mut image = image(false);
    rot(&mut image, 8, false);
    for mode in MODES {
        match open(&image, mode).1 {
            Err(Error::Corrupt { what, hint, offset }) => {
                assert_eq!(mode, RecoveryMode::Strict);
                let (at, last) = frames(&image)[7];
                assert_eq!(offset, at as u64 + last.bytes(), "where the log would end");
                assert!(what.contains("cut off") && hint.contains("TolerateTornTail"), "{what}: {hint}");
            }
            wal => {
                let wal = wal.expect("opened");
                assert!(mode != RecoveryMode::Strict && wal.stats().dropped_frames == 1);
                assert!((1..=8).all(|id| wal.replica(id).last_index() == 1), "the last frame was never acknowledged");
                assert_eq!(wal.damage(), []);
            }
        }
    }
}

#[test]
fn a_lost_frame_hurts_whom_it_named_and_strict_refuses_it() {
    let mut image = image(true);
    rot(&mut image, 5, false);
    for mode in MODES {
        match open(&image, mode).1 {
            Err(Error::Damaged(Damage { replica, .. })) => assert_eq!((mode, replica), (RecoveryMode::Strict, 6)),
            wal => {
                let wal = wal.expect("opened");
                assert!(mode != RecoveryMode::Strict);
                assert_whole(&wal, [1, 2, 3, 4, 5, 7, 8]);
                assert!(wal.damage().iter().all(|d| d.replica == 6) && !wal.damage().is_empty());
                assert!(matches!(wal.replica(6).get(b"hard_state"), Err(Error::Damaged(_))));
                assert_eq!((wal.stats().lost_frames, wal.stats().unnamed_losses), (1, 0));
            }
        }
    }
}

#[test]
fn a_rotten_payload_is_found_when_it_is_read_in_every_mode() {
    let mut image = image(true);
    rot(&mut image, 2, true);
    for mode in MODES {
        let wal = open(&image, mode).1.expect("opened");
        let read = wal.replica(3).entry(1);
        let lost = Damage { replica: 3, lost: Lost::Entries { first: 1, last: 1 } };
        assert!(matches!(read, Err(Error::Damaged(ref d)) if *d == lost), "{read:?}");
        assert_whole(&wal, [1, 2, 4, 5, 6, 7, 8]);
    }
}

/// The list of who was in the first lost frame is lost with the second one: only a salvage goes on.
#[test]
fn neighbouring_lost_frames_refuse_the_opening_and_are_salvaged_around() {
    let mut image = image(true);
    rot(&mut image, 5, false);
    rot(&mut image, 6, false);
    for mode in MODES {
        let (disk, wal) = open(&image, mode);
        match wal {
            Err(Error::Corrupt { what, hint, .. }) => {
                assert!(mode != RecoveryMode::Salvage);
                assert!(what.contains("nobody can say") && hint.contains("salvage"), "{what}: {hint}");
            }
            wal => {
                let wal = wal.expect("opened");
                assert_eq!(mode, RecoveryMode::Salvage);
                assert_eq!(wal.stats().unnamed_losses, 1);
                assert_whole(&wal, [8]);
                let refused = wal.commit(Batch::new().append(1, &[(3, 1, b"no")]));
                assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
                salvaged(&wal);
                drop(wal);
                assert!(disk.kept_image() == image, "a salvage writes nothing into the log it reads");
            }
        }
    }
}

/// Only the superblock, where the close wrote it, says that the last frames were durable.
#[test]
fn what_a_close_found_durable_is_never_cut_off_as_a_torn_end() {
    let mut image = image(true);
    let all = frames(&image);
    assert_eq!(all.len(), 10, "nine commits and a seal");
    // Their headers rot, each of which says what was durable before it.
    all[8..].iter().for_each(|&(at, _)| image[at + 40] ^= 0x10);
    for mode in MODES {
        match open(&image, mode).1 {
            Err(Error::Corrupt { what, .. }) => {
                assert!(mode != RecoveryMode::Salvage && what.contains("nobody can say"), "{mode:?}: {what}");
            }
            wal => {
                let wal = wal.unwrap_or_else(|e| panic!("{mode:?}: {e}"));
                assert_eq!(mode, RecoveryMode::Salvage);
                assert_eq!(wal.stats().unnamed_losses, 1);
            }
        }
    }
}

/// A misdirected write put one segment into two slabs: neither can be believed, and only a salvage goes on without them.
#[test]
fn two_slabs_of_one_segment_refuse_the_opening_and_salvage_believes_neither() {
    for close in [true, false] {
        two_slabs_of_one_segment(image(close));
    }
}

fn two_slabs_of_one_segment(mut image: Vec<u8>) {
    let superblock = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("valid");
    let segment = superblock.segment_bytes as usize;
    let place = |slab: u32| POOL_OFFSET as usize + slab as usize * segment;
    let held = (frames(&image)[0].0 - POOL_OFFSET as usize) / segment;
    let other = superblock.journal_slabs.iter().rev().find(|&&slab| slab as usize != held).expect("a free slab");
    let from = place(held as u32);
    image.copy_within(from..from + segment, place(*other));
    for mode in MODES {
        let (disk, wal) = open(&image, mode);
        match wal {
            Err(Error::Corrupt { hint, .. }) => {
                assert!(mode != RecoveryMode::Salvage && hint.contains("salvage"), "{hint}")
            }
            wal => {
                let wal = wal.expect("opened");
                assert_eq!((mode, wal.stats().unnamed_losses), (RecoveryMode::Salvage, 1));
                assert!(wal.replicas().iter().all(|&id| wal.replica(id).entry(1).is_err()), "neither is believed");
                drop(wal);
                assert!(disk.kept_image() == image, "a salvage writes nothing into the log it reads");
            }
        }
    }
}

/// Salvages into a fresh log. That says what the old one could, and of the rest that it is lost.
fn salvaged(wal: &Wal) {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let to = support::open(small(Placement::Journal), &disk);
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert!(!report.is_whole() && report.unnamed);
    assert_eq!(report.replicas, wal.replicas().len() as u64);
    drop(to);
    let to = support::open(small(Placement::Journal), &Arc::new(disk.crash_lost_all()));
    for id in wal.replicas() {
        let (old, new) = (wal.replica(id), to.replica(id));
        assert_eq!(old.bounds(), new.bounds());
        for index in old.first_index()..=old.last_index() {
            match (old.entry(index), new.entry(index)) {
                (Ok(a), Ok(b)) => assert_eq!(a, b),
                (Err(Error::Damaged(_)), Err(Error::Damaged(_))) => {}
                (a, b) => panic!("replica {id} entry {index}: {a:?}, {b:?}"),
            }
        }
        assert_eq!(old.get(b"hard_state").ok(), new.get(b"hard_state").ok(), "replica {id}");
    }
}

/// A record's number tells which life it is of. Nothing else does: the frames that began the second one are lost, with the lists of who was
/// in them.
#[test]
fn a_salvage_does_not_take_the_records_of_two_lives_for_one() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = support::open(small(Placement::Journal), &disk);
    let append = |replica, index, data: &[u8]| {
        wal.commit(Batch::new().append(replica, &[(index, 1, data)])).expect("committed");
    };
    append(1, 1, b"the first life");
    wal.commit(Batch::new().remove(1)).expect("committed");
    append(1, 1, b"the second life");
    append(2, 1, b"somebody else");
    append(1, 2, b"the second life goes on");
    wal.close().expect("closed");
    let mut image = support::without_snapshot(disk.kept_image());
    for frame in 1..=3 {
        rot(&mut image, frame, false);
    }
    let wal = open(&image, RecoveryMode::Salvage).1.expect("opened");
    let read = wal.replica(1).entry(1);
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
}

/// Without a frame behind it, what rots in the last one looks like a torn write, and is dropped without a word.
#[test]
fn a_log_at_rest_is_sealed_and_what_rots_in_it_then_is_damage() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = support::open(small(Placement::Journal).background(true), &disk);
    wal.commit(Batch::new().append(1, &[(1, 1, payload(1, 1, 1, 500))])).expect("committed");
    let started = std::time::Instant::now();
    while frames(&disk.kept_image()).len() < 2 {
        assert!(started.elapsed().as_secs() < 20, "never sealed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut image = disk.kept_image();
    rot(&mut image, 0, true);
    let wal = open(&image, RecoveryMode::TolerateTornTail).1.expect("opened");
    assert_eq!(wal.replica(1).last_index(), 1);
    assert!(matches!(wal.replica(1).entry(1), Err(Error::Damaged(_))));
}

/// A close says in the superblock how far the log reached: the end may rot with the seal behind it, and is missed all the same.
#[test]
fn an_end_that_is_lost_after_a_close_is_missed_even_when_no_frame_tells_of_it() {
    let mut image = image(true);
    let found = frames(&image);
    assert!(found.len() > 9, "a seal lies behind the last frame");
    for (at, _) in found.into_iter().skip(8) {
        // The header rots, too.
        image[at] ^= 0x10;
    }
    for mode in [RecoveryMode::Strict, RecoveryMode::TolerateTornTail] {
        let refused = open(&image, mode).1.expect_err("not in silence");
        assert!(matches!(refused, Error::Corrupt { .. }), "{mode:?}: {refused}");
    }
    assert_eq!(open(&image, RecoveryMode::Salvage).1.expect("opened").stats().unnamed_losses, 1);
}

/// Rewrites every frame as another writer might have: `edit` is given its number, header and table; checksums and links are made good
/// again.
fn rewrite(image: &mut [u8], edit: impl Fn(usize, &mut FrameHeader, &mut [u8])) {
    let seed = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("valid").seed();
    let mut prev: Option<FrameHeader> = None;
    for (n, (at, mut header)) in frames(image).into_iter().enumerate() {
        let table = at + header.table_range().start..at + header.table_range().end;
        edit(n, &mut header, &mut image[table.clone()]);
        header.table_crc = seed.crc(header.lsn, &image[table]);
        if let Some(prev) = prev {
            (header.prev_hash, header.prev_prev_hash) = (prev.hash(seed), prev.prev_hash);
        }
        header.encode(seed, &mut image[at..]);
        prev = Some(header);
    }
}

/// Behind a bad frame lie more whole ones than may be in flight, and none of them says that it was durable: no crash leaves that.
#[test]
fn what_no_crash_can_leave_refuses_the_opening_and_is_salvaged_up_to_there() {
    for payload in [false, true] {
        let mut image = image(false);
        rewrite(&mut image, |_, header, _| header.watermark = 0);
        let whole = open(&image, RecoveryMode::Strict).1.expect("nothing is wrong with it yet");
        assert_whole(&whole, 1..=8);
        drop(whole);
        rot(&mut image, 5, payload);
        for mode in MODES {
            let (disk, wal) = open(&image, mode);
            match wal {
                Err(Error::Corrupt { what, offset, hint }) => {
                    assert!(mode != RecoveryMode::Salvage);
                    assert!(what.contains("more valid ones behind it") && hint.contains("salvage"), "{what}: {hint}");
                    assert_eq!(offset, frames(&image)[5].0 as u64, "it says where");
                    assert!(disk.kept_image() == image, "what is refused is not written to");
                }
                wal => {
                    let wal = wal.expect("opened");
                    assert_eq!(mode, RecoveryMode::Salvage);
                    let stats = wal.stats();
                    assert_eq!((stats.unnamed_losses, stats.dropped_frames), (1, 4), "that frame and three behind it");
                    for id in 1..=5 {
                        // It may have been overwritten behind that frame: what cannot be proved to be the newest is not given out.
                        let (entry, state) = (wal.replica(id).entry(1), wal.replica(id).get(b"hard_state"));
                        assert!(matches!(entry, Err(Error::Damaged(_))), "replica {id}: {entry:?}");
                        assert!(matches!(state, Err(Error::Damaged(_))), "replica {id}: {state:?}");
                        assert_eq!(wal.replica(id).last_index(), 1, "what came before it is known");
                    }
                    assert!((6..=8).all(|id| !wal.replica(id).exists()), "what came behind it cannot be proved");
                    salvaged(&wal);
                }
            }
        }
    }
}

/// Every checksum holds, and the record means nothing to us: a newer writer, or a broken one.
#[test]
fn a_record_that_makes_no_sense_refuses_the_opening_and_salvage_goes_around_its_frame() {
    let mut image = image(true);
    let found = frames(&image);
    // The kind of the first record: behind the list of participants, which is of one replica.
    rewrite(&mut image, |n, header, table| {
        if n == 5 {
            assert_eq!(header.lsn, found[5].1.lsn);
            table[2] = 0x7F;
        }
    });
    for mode in MODES {
        let (disk, wal) = open(&image, mode);
        match wal {
            Err(Error::Corrupt { what, offset, hint }) => {
                assert!(mode != RecoveryMode::Salvage);
                assert!(what.contains("a record") && hint.contains("the version that wrote it"), "{what}: {hint}");
                assert_eq!(offset, found[5].0 as u64);
                assert!(disk.kept_image() == image, "what is refused is not written to");
            }
            wal => {
                let wal = wal.unwrap_or_else(|e| panic!("{mode:?}: {e}"));
                assert_eq!((mode, wal.stats().unnamed_losses), (RecoveryMode::Salvage, 1));
                assert!(!wal.replica(6).exists() || !wal.damage().is_empty(), "replica 6 is not whole");
                // A replica with a record behind that frame shows by its number that it had none in there; replica 5 has no later one.
                for id in 1..=8 {
                    let entry = wal.replica(id).entry(1);
                    match id {
                        5 => assert!(matches!(entry, Err(Error::Damaged(_))), "{entry:?}"),
                        6 => assert!(entry.is_err(), "{entry:?}"),
                        _ => assert_eq!(entry.expect("whole").data, payload(id, 1, 1, 500), "replica {id}"),
                    }
                }
                salvaged(&wal);
            }
        }
    }
}

/// What such a log wrote next could not be read again, so it writes nothing. A frame of a later session is forged, and refused.
#[test]
fn a_log_whose_sessions_are_used_up_is_read_and_nothing_is_written() {
    use strandlog::format::frame::{LAST_SESSION, MAX_SESSION};
    let number = 1 << 32;
    for session in [LAST_SESSION - 2 * number, LAST_SESSION - number, LAST_SESSION, LAST_SESSION + 1, MAX_SESSION] {
        let mut image = image(true);
        rewrite(&mut image, |_, header, _| header.session = session);
        let (disk, wal) = open(&image, RecoveryMode::TolerateTornTail);
        if session > LAST_SESSION {
            assert!(matches!(wal, Err(Error::Corrupt { .. })), "{session}: {wal:?}");
            assert!(disk.kept_image() == image);
            continue;
        }
        let wal = wal.expect("opened");
        assert_whole(&wal, 1..=8);
        let committed = wal.commit(Batch::new().put(1, b"k", b"v"));
        if session < LAST_SESSION - number {
            committed.expect("it goes on");
        } else {
            assert!(matches!(committed, Err(Error::UsedUp { .. })), "{session}: {committed:?}");
            drop(wal);
            assert!(disk.kept_image() == image, "{session}: written to");
        }
    }
}

/// A killed log with votes of replica 2, 1 to 3, and if `beside` a large placed entry of replica 1 beside each; and the offset of the block
/// that `look_for` finds.
fn votes(beside: bool, look_for: impl Fn(&[u8]) -> bool) -> (SimDisk, u64) {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let wal = support::open(small(Placement::Auto).direct_threshold(8 << 10), &disk);
    for vote in 1..=3_u8 {
        let mut batch = Batch::new();
        if beside {
            batch.append(1, &[(vote.into(), 1, [0xA0 + vote; 30_000])]);
        }
        batch.put(2, b"vote", format!("vote is {vote}").as_bytes());
        wal.commit(batch).expect("acknowledged");
    }
    let mut image = vec![0; 2 << 20];
    disk.read_at(0, &mut image).expect("read");
    let at = image.chunks(BLOCK_BYTES as usize).position(look_for).expect("there") as u64 * BLOCK_BYTES;
    (disk.restart(), at)
}

/// Refused by default. When it is salvaged, nothing may say that the copy is whole, nor that an older vote is the newest.
fn no_older_vote_is_told_as_sound(killed: SimDisk, known: bool) {
    let killed = Arc::new(killed);
    let refused = small(Placement::Auto).open_disk(Arc::clone(&killed) as Arc<dyn Disk>);
    assert!(matches!(refused, Err(Error::Io { .. })), "{:?}", refused.err());
    let from = small(Placement::Auto).recovery_mode(RecoveryMode::Salvage).open_disk(killed).expect("opens");
    let to = support::open(small(Placement::Auto), &Arc::new(SimDisk::new(4 << 20)));
    let report = from.salvage_into(&to, |_| ()).expect("salvaged");
    let vote = to.replica(2).get(b"vote").expect("readable").expect("put");
    assert!(!report.is_whole() && report.unnamed != known, "{report:?}");
    assert_eq!(vote, if known { &b"vote is 3"[..] } else { b"vote is 2" });
}

/// A bad sector under the newest frame of a killed log: it looks as if nothing had been written there.
#[test]
fn where_the_newest_frame_is_on_a_bad_sector_a_salvage_tells_no_older_vote_as_sound() {
    let (killed, at) = votes(false, |block| block.windows(9).any(|w| w == b"vote is 3"));
    killed.fail_reads(at..at + 512, EIO);
    no_older_vote_is_told_as_sound(killed, false);
}

/// A power cut leaves no sector unreadable: the frame is no torn one, and who is in it is known.
#[test]
fn where_what_the_newest_frame_placed_is_on_a_bad_sector_a_salvage_tells_its_vote_and_what_is_lost() {
    let (killed, at) = votes(true, |block| block.iter().all(|&byte| byte == 0xA3));
    killed.fail_reads(at..at + 512, EIO);
    no_older_vote_is_told_as_sound(killed, true);
}

/// A frame that was cut off while it was written is no loss, also where the device took none of it: no replica counts as hurt.
#[test]
fn a_salvage_of_a_killed_log_whose_last_frame_is_torn_misses_nobody() {
    for beside in [false, true] {
        let (killed, at) = votes(beside, |block| match beside {
            true => block.iter().all(|&byte| byte == 0xA3),
            false => block.windows(9).any(|w| w == b"vote is 3"),
        });
        killed.poke(at, &[0; 512]);
        let from = small(Placement::Auto).recovery_mode(RecoveryMode::Salvage).open_disk(Arc::new(killed));
        let from = from.expect("opens");
        let stats = from.stats();
        assert_eq!((stats.unnamed_losses, stats.lost_frames, from.damage()), (0, 0, vec![]), "{beside}");
        assert_eq!(from.replica(2).get(b"vote").expect("whole").expect("put"), &b"vote is 2"[..]);
    }
}
