//! What the fuzzers found, each as a readable test. The inputs themselves are in `fuzz/corpus`, called `found-*`.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LAST_SESSION};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::{Batch, Error, Options, Result, Wal};

const SEGMENT: u64 = 64 << 10;

fn options() -> Options {
    Wal::options().chunk_size(4 << 10).segment_size(SEGMENT as u32).background(false)
}

fn open(disk: &Arc<SimDisk>, options: Options) -> Result<Wal> {
    options.open_disk(Arc::clone(disk) as Arc<dyn strandlog::disk::Disk>)
}

fn disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::new(14 * SEGMENT + strandlog::format::POOL_OFFSET))
}

/// The frame that brought a replica's entries rots; a later one truncates them. The bounds that were left made no sense, and the next
/// opening could not read the record of the damage: one replica took the whole log along.
#[test]
fn a_truncation_behind_a_lost_frame_leaves_a_log_that_opens() {
    let disk = disk();
    let wal = open(&disk, options()).unwrap();
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, "a"), (2, 1, "b")]);
    wal.commit(&mut batch).unwrap();
    let before = disk.events();
    batch.append(2, &[(1, 1, "a"), (2, 1, "b"), (3, 1, "c")]);
    wal.commit(&mut batch).unwrap();
    batch.truncate_prefix(2, 3);
    wal.commit(&mut batch).unwrap();
    wal.close().unwrap();

    let lost = disk.log()[before as usize].offset;
    let disk = Arc::new(disk.restart());
    support::forget_snapshot(&disk);
    disk.zero_sector(lost / 512);
    let wal = open(&disk, options()).unwrap();
    assert!(wal.damage().iter().all(|d| d.replica == 2), "{:?}", wal.damage());
    assert!(!wal.damage().is_empty());
    assert_eq!(wal.replica(1).bounds(), (1, 2));
    let bounds = wal.replica(2).bounds();
    wal.close().unwrap();

    let wal = open(&Arc::new(disk.restart()), options()).unwrap();
    assert_eq!(wal.replica(2).bounds(), bounds);
    assert!(matches!(wal.replica(2).get(b"vote"), Err(Error::Damaged(_))));
    // A snapshot heals.
    batch.install_snapshot(2, 10, 2);
    wal.commit(&mut batch).unwrap();
    assert_eq!(wal.damage(), []);
}

/// Each close writes a frame that says where the log ends. In the end these frames had taken the very segments that the cleaner needs to
/// make room, and nothing could ever be written again.
#[test]
fn a_log_that_is_opened_and_closed_for_ever_goes_on_working() {
    let mut disk = disk();
    for round in 0..300_u64 {
        let wal = open(&disk, options()).unwrap();
        wal.close().unwrap_or_else(|e| panic!("round {round}: {e}"));
        disk = Arc::new(disk.restart());
    }
    let wal = open(&disk, options()).unwrap();
    let mut batch = Batch::new();
    for index in 1..=500 {
        batch.append(1, &[(index, 1, vec![7; 1000])]);
        if index > 10 {
            batch.truncate_prefix(1, index - 10);
        }
        wal.commit(&mut batch).unwrap_or_else(|e| panic!("entry {index}: {e}"));
    }
    assert!(wal.verify(|_| ()).unwrap().is_clean());
}

/// A power cut between the writes of the two superblocks leaves one older than the other. That is no damage, and the next opening ends it.
#[test]
fn a_superblock_left_behind_by_a_power_cut_is_no_damage() {
    let disk = disk();
    drop(open(&disk, options()).unwrap());
    let mut old = vec![0; 16 << 10];
    strandlog::disk::Disk::read_at(&*disk, 0, &mut old).unwrap();
    let mut newer = strandlog::format::superblock::Superblock::decode(&old, 1 << 20).unwrap();
    newer.epoch += 1;
    disk.poke(0, &newer.encode());
    let wal = open(&disk, options().read_only(true)).unwrap();
    assert!(wal.verify(|_| ()).unwrap().is_clean());
    drop(wal);
    let disk = Arc::new(disk.restart());
    drop(open(&disk, options()).unwrap());
    let image = disk.kept_image();
    assert_eq!(image[..16 << 10], image[16 << 10..32 << 10]);
}

/// A frame of a segment below the tail claims a session that was never reached. An opening that left its slab unread went on; the next one
/// read the slab and believed it, so that all that had been written since did not exist.
#[test]
fn what_a_past_frame_says_of_its_session_is_heard_by_no_opening() {
    // A session of the far future, and one above all that there can be.
    for session in [0xff << 32, LAST_SESSION + 1] {
        let disk = disk();
        let options = || options().journal_cap(8 * SEGMENT);
        let wal = open(&disk, options()).unwrap();
        let write = |wal: &Wal, indexes: std::ops::RangeInclusive<u64>| {
            for index in indexes {
                let mut batch = Batch::new();
                for replica in 1..=2 {
                    batch.append(replica, &[(index, 1, vec![7; 1000])]);
                }
                batch.put(3, b"state", &index.to_le_bytes());
                batch.truncate_prefix(1, index.saturating_sub(10)).truncate_prefix(2, index.saturating_sub(60));
                wal.commit(&mut batch).unwrap();
            }
        };
        write(&wal, 1..=300);
        drop(wal);
        let forged = forge_the_past(&disk, session);
        assert!(forged > 0);

        let mut disk = Arc::new(disk.restart());
        for round in 1..=10 {
            let wal = open(&disk, options()).unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(wal.replica(2).last_index(), 290 + 10 * round);
            assert_eq!(wal.damage(), []);
            write(&wal, 291 + 10 * round..=300 + 10 * round);
            wal.close().unwrap();
            disk = Arc::new(disk.restart());
            support::forget_snapshot(&disk);
        }
    }
}

/// Gives the second frame of each segment below the tail this session, with its checksum made good. Returns how many there are.
fn forge_the_past(disk: &SimDisk, session: u64) -> usize {
    let image = disk.kept_image();
    let sb = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).unwrap();
    assert_eq!(sb.journal_slabs.len(), 8, "fewer are read whole");
    let header = |slab: u32, within: u64| {
        let at = (sb.slab_offset(slab) + within) as usize;
        FrameHeader::decode(sb.seed(), within, SEGMENT, &image[at..]).map(|header| (at, header))
    };
    let firsts = || sb.journal_slabs.iter().filter_map(|&slab| Some((slab, header(slab, 0)?.1)));
    let newest = firsts().max_by_key(|(_, first)| first.lsn).unwrap().1;
    let past = firsts().filter(|(_, first)| first.lsn / SEGMENT < newest.tail_seq);
    let seconds = past.filter_map(|(slab, first)| header(slab, first.bytes()));
    let forged = seconds.map(|(at, second)| {
        let mut bytes = image[at..][..FRAME_HEADER_BYTES].to_vec();
        FrameHeader { session, ..second }.encode(sb.seed(), &mut bytes);
        disk.poke(at as u64, &bytes);
    });
    forged.count()
}

/// The index remembers an entry's place in fewer bits than an LSN has. A forged frame claimed an LSN so far ahead that what was appended
/// from there on seemed to lie before what was there.
#[test]
fn a_number_so_far_ahead_that_places_would_meet_is_no_number_to_go_on_from() {
    let disk = disk();
    let wal = open(&disk, options()).unwrap();
    wal.commit(Batch::new().append(1, &[(1, 1, vec![7; 1000])])).unwrap();
    drop(wal);
    let image = disk.kept_image();
    let sb = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).unwrap();
    let at = |slab: u32| sb.slab_offset(slab) as usize;
    let used = *sb.journal_slabs.iter().find(|&&slab| image[at(slab)] != 0).unwrap();
    let unused = *sb.journal_slabs.iter().rev().find(|&&slab| image[at(slab)] == 0).unwrap();
    let first = FrameHeader::decode(sb.seed(), 0, SEGMENT, &image[at(used)..]).unwrap();
    let mut forged = image[at(used)..][..first.bytes() as usize].to_vec();
    FrameHeader { lsn: 1 << 40, ..first }.encode(sb.seed(), &mut forged);
    disk.poke(at(unused) as u64, &forged);
    let forged = Arc::new(disk.restart());
    let error = open(&forged, options()).expect_err("nothing is appended there");
    assert!(matches!(error, Error::Corrupt { what, .. } if what.contains("farther")), "{error}");
    let wal = open(&forged, options().recovery_mode(strandlog::RecoveryMode::Salvage)).unwrap();
    assert_eq!(wal.replica(1).entry(1).unwrap().data, vec![7; 1000]);
}
