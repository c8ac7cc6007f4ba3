//! The superblocks: which of two is believed, and what becomes of the other.

use super::rig::{open, options};
use super::{Found, holds_a_log, read_superblock};
use crate::Batch;
use crate::disk::sim::{EIO, EventKind, SimDisk};
use crate::disk::{AlignedBuf, Disk};
use crate::error::Error;
use crate::format::POOL_OFFSET;
use crate::format::piece::Extent;
use crate::format::superblock::{LAST_EPOCH, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Snapshot, Superblock};
use crate::options::{Options, RecoveryMode};
use crate::sync::{Arc, AtomicU64, Ordering};

const SEGMENT: u64 = 64 << 10;
const CAPACITY: u64 = 4 << 20;

fn superblock() -> Superblock {
    Options::default().chunk_size(16 << 10).segment_size(SEGMENT as u32).geometry([1; 16], CAPACITY).expect("sound")
}

/// A disk with these copies of the superblock; `None`: rotten.
fn with_superblocks(epochs: [Option<u64>; 2]) -> SimDisk {
    let disk = SimDisk::new(CAPACITY);
    for (offset, epoch) in SUPERBLOCK_OFFSETS.into_iter().zip(epochs) {
        let sb = Superblock { epoch: epoch.unwrap_or(9), ..superblock() };
        let mut bytes = AlignedBuf::from(sb.encode().as_slice());
        if epoch.is_none() {
            bytes.as_mut_slice()[20] ^= 1;
        }
        disk.write_durable_at(offset, bytes.as_slice()).expect("room");
    }
    disk
}

fn epochs_on(disk: &dyn Disk) -> [Option<u64>; 2] {
    SUPERBLOCK_OFFSETS.map(|offset| {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        disk.read_at(offset, &mut bytes).expect("there");
        Superblock::decode(&bytes, disk.len()).ok().map(|sb| sb.epoch)
    })
}

#[test]
fn of_two_superblocks_the_newer_is_believed_and_the_other_repaired() {
    for epochs in [[Some(5), Some(5)], [Some(5), Some(6)], [Some(6), Some(5)], [Some(6), None], [None, Some(6)]] {
        let newest = epochs.into_iter().flatten().max();
        let disk = with_superblocks(epochs);
        let (flushed, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (flushes, writes) = (Arc::clone(&flushed), Arc::clone(&written));
        disk.on_event(move |event| {
            match event.kind {
                EventKind::Flush => flushes.fetch_add(1, Ordering::Relaxed),
                _ => writes.fetch_add(1, Ordering::Relaxed),
            };
            None
        });
        for read_only in [true, false] {
            let Ok(Found::Log(sb)) = read_superblock(&disk, read_only) else { panic!("{epochs:?}") };
            assert_eq!(Some(sb.epoch), newest, "{epochs:?}");
            assert_eq!(epochs_on(&disk), if read_only { epochs } else { [newest; 2] }, "{epochs:?}");
        }
        // The good one is made durable before the other is touched, and neither is touched where both are good.
        let one = u64::from(epochs != [newest; 2]);
        assert_eq!((flushed.load(Ordering::Relaxed), written.load(Ordering::Relaxed)), (one, one), "{epochs:?}");
    }
    assert!(matches!(read_superblock(&with_superblocks([None; 2]), false), Err(Error::Corrupt { .. })));
}

/// A snapshot that one copy alone names was being named, or forgotten, when the power failed.
#[test]
fn a_snapshot_that_one_superblock_does_not_name_is_forgotten_in_both_the_good_one_last() {
    let snapshot = Snapshot { lsn: SEGMENT, bytes: 100, crc: 7, extents: vec![Extent { block: 500, blocks: 1 }] };
    let copies = |a: Option<(u64, bool)>, b: Option<(u64, bool)>| {
        let disk = with_superblocks([a.map(|(epoch, _)| epoch), b.map(|(epoch, _)| epoch)]);
        for (offset, copy) in SUPERBLOCK_OFFSETS.into_iter().zip([a, b]) {
            let Some((epoch, true)) = copy else { continue };
            disk.poke(offset, &Superblock { epoch, snapshot: Some(snapshot.clone()), ..superblock() }.encode());
        }
        disk
    };
    let named = |disk: &SimDisk| match read_superblock(disk, false) {
        Ok(Found::Log(sb)) => (sb.epoch, sb.snapshot),
        other => panic!("no log: {:?}", other.err()),
    };
    let both = copies(Some((5, true)), Some((5, true)));
    let before = both.events();
    assert_eq!((named(&both), both.events()), ((5, Some(snapshot.clone())), before), "as it was closed");
    for (a, b, good) in [
        (Some((5, false)), Some((6, true)), 1),
        (Some((6, true)), Some((5, false)), 0),
        (Some((6, true)), None, 0),
        (None, Some((6, true)), 1),
    ] {
        let disk = copies(a, b);
        assert_eq!(named(&disk), (7, None), "{a:?} {b:?}");
        assert_eq!((epochs_on(&disk), named(&disk)), ([Some(7); 2], (7, None)));
        let writes: Vec<u64> = disk.log().iter().filter(|e| e.len > 0).map(|e| e.offset).collect();
        let order = [SUPERBLOCK_OFFSETS[1 - good], SUPERBLOCK_OFFSETS[good]];
        assert_eq!(writes[writes.len() - 2..], order, "{a:?} {b:?}: until then it is the only one");
    }
    // The newer one names none: the older one's is past.
    let disk = copies(Some((5, true)), Some((6, false)));
    assert_eq!((named(&disk), epochs_on(&disk)), ((6, None), [Some(6); 2]));
}

#[test]
fn numbers_of_superblocks_end_before_they_overflow() {
    let of = |epoch| read_superblock(&with_superblocks([Some(epoch); 2]), false);
    assert!(matches!(of(LAST_EPOCH), Ok(Found::Log(sb)) if sb.epoch == LAST_EPOCH));
    let beyond = of(LAST_EPOCH + 1);
    assert!(matches!(beyond, Err(Error::Corrupt { what, .. }) if what.contains("number")), "{:?}", beyond.err());
}

#[test]
fn a_file_is_blank_or_too_short_or_spoilt() {
    let pool = crate::format::POOL_OFFSET;
    assert!(matches!(read_superblock(&SimDisk::new(pool), false), Ok(Found::Blank)));
    let short = read_superblock(&SimDisk::new(pool - 4096), false);
    assert!(
        matches!(short, Err(Error::Corrupt { what, offset, .. }) if what.contains("shorter") && offset == pool - 4096)
    );
    // One copy blank, the other rotten: this was a log.
    let disk = with_superblocks([None, Some(1)]);
    disk.write_durable_at(SUPERBLOCK_OFFSETS[1], AlignedBuf::from(vec![0; SUPERBLOCK_BYTES].as_slice()).as_slice())
        .expect("room");
    let spoilt = read_superblock(&disk, false);
    assert!(
        matches!(spoilt, Err(Error::Corrupt { what, .. }) if !what.contains("blank")),
        "what is said is of the one that is not blank"
    );
}

/// A sector that cannot be read costs its copy, and no more: the other is whole.
#[test]
fn a_superblock_that_cannot_be_read_is_as_good_as_a_rotten_one() {
    for (bad, good) in [(0, 1), (1, 0)] {
        let disk = with_superblocks([Some(5); 2]);
        let sector = SUPERBLOCK_OFFSETS[bad] + 8192;
        disk.fail_reads(sector..sector + 512, EIO);
        let written = disk.events();
        let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("copy {good} is whole") };
        assert_eq!((sb.epoch, disk.events()), (5, written), "looked at, and nothing else");
        // What makes a device give the sector up is that it is written.
        disk.poke(sector, &[7; 512]);
        let Ok(Found::Log(sb)) = read_superblock(&disk, false) else { panic!("copy {good} is whole") };
        disk.heal_reads();
        assert_eq!((sb.epoch, epochs_on(&disk)), (5, [Some(5); 2]));
    }
}

/// What could not be read may be the only copy of a log. Nobody formats it.
#[test]
fn a_disk_with_a_superblock_that_cannot_be_read_and_no_whole_one_is_an_error_and_not_blank() {
    for bad in SUPERBLOCK_OFFSETS {
        let blank = SimDisk::new(CAPACITY);
        blank.fail_reads(bad..bad + 1, EIO);
        let rotten = with_superblocks([None; 2]);
        rotten.fail_reads(bad..bad + 1, EIO);
        for disk in [blank, rotten] {
            let read = read_superblock(&disk, false);
            assert!(matches!(read, Err(Error::Io { .. })), "{:?}", read.err());
            let opened = Options::default().capacity(CAPACITY).open_disk(Arc::new(disk.clone()));
            assert!(matches!(opened, Err(Error::Io { .. })), "{:?}", opened.err());
            disk.heal_reads();
            assert_eq!(epochs_on(&disk), [None; 2], "nothing was written over it");
        }
    }
}

/// What a power cut leaves of the very first write of a copy, whichever of its sectors arrived: there was never anything to be restored.
#[test]
fn a_disk_whose_formatting_was_cut_is_formatted_anew() {
    let whole = superblock().encode();
    let parts = [0..300, 0..4096, 0..SUPERBLOCK_BYTES - 512, 512..SUPERBLOCK_BYTES, 8192..SUPERBLOCK_BYTES];
    for part in parts {
        let disk = SimDisk::new(CAPACITY);
        disk.poke(part.start as u64, &whole[part.clone()]);
        assert!(matches!(read_superblock(&disk, true), Err(Error::Corrupt { .. })), "{part:?}");
        // Not by an opening that may not write, or not make a log.
        for options in [options().create(false), options().read_only(true)] {
            assert!(matches!(open(&disk, options), Err(Error::Corrupt { .. })), "{part:?}");
        }
        // Anything else on the disk may be somebody's: the other copy, or a frame.
        for other in [SUPERBLOCK_OFFSETS[1] + 77, POOL_OFFSET, POOL_OFFSET + SEGMENT] {
            let used = disk.restart();
            used.poke(other, &[7]);
            assert!(matches!(open(&used, options()), Err(Error::Corrupt { .. })), "{part:?}, {other}");
        }
        let wal = open(&disk, options()).unwrap_or_else(|why| panic!("{part:?}: {why}"));
        wal.commit(Batch::new().append(1, &[(1, 1, b"first")])).expect("room");
    }
    // A copy that is written anew has its front and its end, whatever arrived.
    let spoilt = with_superblocks([None, None]);
    spoilt.poke(SUPERBLOCK_OFFSETS[1], &vec![0; SUPERBLOCK_BYTES]);
    assert!(matches!(open(&spoilt, options()), Err(Error::Corrupt { .. })));
}

/// Neither a salvage nor another file helps then: the replicas come back from their peers. And where nothing is left, a log may have been: whoever
/// begins an empty one in its place has forgotten all votes.
#[test]
fn who_has_no_superblock_left_is_sent_to_the_peers_and_to_no_other_file() {
    let rotten = with_superblocks([None, None]);
    let too_high = with_superblocks([Some(LAST_EPOCH + 1); 2]);
    for (disk, blank) in [(rotten, false), (too_high, false), (SimDisk::new(CAPACITY), true)] {
        let options = options().read_only(true).recovery_mode(RecoveryMode::Salvage);
        let said = open(&disk, options).map(drop).expect_err("there is none").to_string();
        assert!(said.contains("from their peers, as new members") && !said.contains("`strandlog salvage`"), "{said}");
        assert_eq!(said.contains("begin no empty one"), blank, "{said}");
        assert_eq!(said.contains("no other store's file and no older copy will do"), !blank, "{said}");
    }
}

/// Of a large disk the list of the journal's slabs is longer than a sector: any of them may be what did not arrive.
#[test]
fn a_disk_whose_formatting_lost_a_sector_in_the_middle_is_formatted_anew() {
    const LARGE: u64 = 256 << 20;
    let large = Options::default().chunk_size(16 << 10).segment_size(SEGMENT as u32);
    let whole = large.geometry([1; 16], LARGE).expect("sound").encode();
    let used = whole.chunks(512).filter(|sector| sector.iter().any(|&b| b != 0)).count();
    assert!(used > 3, "{used}");
    for lost in (0..used - 1).chain([SUPERBLOCK_BYTES / 512 - 1]) {
        let disk = SimDisk::new(LARGE);
        disk.poke(0, &whole);
        disk.poke(lost as u64 * 512, &[0; 512]);
        let opened = open(&disk, options());
        assert!(
            opened.is_ok(),
            "sector {lost} did not arrive: {}",
            opened.err().map_or(String::new(), |e| e.to_string())
        );
    }
    // One that arrived, and rotted, is no sign of a cut.
    let disk = SimDisk::new(LARGE);
    disk.poke(0, &whole);
    disk.poke(600, &[0xFF; 3]);
    assert!(matches!(open(&disk, options()), Err(Error::Corrupt { .. })));
}

/// It may lie under the name that a creation gives its unfinished file: removed, nobody could look into it any more. What a cut-off
/// creation leaves need not be blank, but holds no frame.
#[test]
fn a_log_whose_superblocks_are_both_bad_is_taken_for_a_log() {
    let log = |segment: u64, frames: u64| {
        let disk = Arc::new(SimDisk::new(CAPACITY));
        let options = options().segment_size(segment as u32).chunk_size(4096);
        let wal = options.background(false).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        for i in 1..=frames {
            wal.commit(Batch::new().append(1, &[(i, 1, b"entry")])).expect("room");
        }
        drop(wal);
        disk.restart()
    };
    for segment in [64 << 10, 256 << 10] {
        for (frames, rotten) in [(0, false), (0, true), (1, false), (1, true), (5, true)] {
            let disk = log(segment, frames);
            if rotten {
                SUPERBLOCK_OFFSETS.iter().for_each(|at| disk.poke(at + 40, &[0xEE; 30]));
                assert!(matches!(read_superblock(&disk, true), Err(Error::Corrupt { .. })));
            }
            assert_eq!(holds_a_log(&disk), frames > 0, "{frames} frames, rotten {rotten}");
            let unread = log(segment, frames);
            SUPERBLOCK_OFFSETS.iter().for_each(|at| unread.poke(at + 40, &[0xEE; 30]));
            let first = POOL_OFFSET..POOL_OFFSET + 4096;
            unread.fail_reads(first, crate::disk::sim::EIO);
            assert!(holds_a_log(&unread), "{frames} frames: what cannot be told may be one");
            // The first slab is a chain's by now.
            disk.poke(POOL_OFFSET, &[0x5A; 4096]);
            disk.poke(POOL_OFFSET + 3 * segment, b"SFRM\x02\0\0\0");
            assert!(holds_a_log(&disk), "{frames} frames, rotten {rotten}");
        }
    }
    let cut = SimDisk::new(CAPACITY);
    cut.poke(0, &superblock().encode()[..4096]);
    assert!(!holds_a_log(&cut), "nothing is lost with it");
    cut.poke(POOL_OFFSET, &[0x5A; 1 << 20]);
    assert!(!holds_a_log(&cut), "whatever lay there");
    assert!(!holds_a_log(&SimDisk::new(4096)), "nor with what is shorter than any log");
}

/// Nobody is to look for what never was: neither damage nor what a salvage would save.
#[test]
fn what_is_no_log_is_told_as_that_and_by_what_it_is() {
    let text = "a line of a text, and no log.\n".repeat(5000);
    let noise: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let engine = [b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5".to_vec(), noise.clone()].concat();
    let long: [(&[u8], &str); 4] =
        [(text.as_bytes(), "text"), (&noise, "something else"), (&engine, "raft-engine"), (&[0; 200_000], "blank")];
    let short = long.map(|(bytes, what)| (&bytes[..5000], if what == "blank" { "zeros" } else { what }));
    let cases = long.into_iter().chain(short).chain([(&[][..], "empty")]);
    for (bytes, what) in cases {
        let disk = SimDisk::from_image(bytes.to_vec());
        for mode in [RecoveryMode::Salvage, RecoveryMode::TolerateTornTail] {
            let options = options().read_only(true).recovery_mode(mode);
            let refused = open(&disk, options).map(drop).expect_err("it is none");
            let said = refused.to_string();
            assert!(matches!(refused, Error::Corrupt { .. }), "{said}");
            assert!(said.contains(what) && said.contains("this is no strandlog file"), "{} bytes: {said}", bytes.len());
            assert!(said.contains("is the path right") && said.contains("begin no empty one"), "{said}");
            assert!(!said.contains("salvage") && !said.contains("magic") && !said.contains("bad"), "{said}");
        }
    }
    // What shows that it was a log: one of the copies, or a frame; where less is left than is before the first one, too.
    for at in SUPERBLOCK_OFFSETS {
        let cut = SimDisk::from_image(noise[..40_000].to_vec());
        cut.poke(at, &superblock().encode()[..100]);
        let said = open(&cut, options().read_only(true)).map(drop).expect_err("cut").to_string();
        assert!(said.contains("all but its beginning is lost") && said.contains("from their peers"), "{said}");
    }
    let mut magic = SimDisk::from_image(noise.clone());
    magic.poke(SUPERBLOCK_OFFSETS[1], &superblock().encode()[..100]);
    let frame = SimDisk::from_image(noise.clone());
    frame.poke(POOL_OFFSET + SEGMENT, b"SFRM\x02\0\0\0");
    for disk in [&mut magic, &mut { frame }] {
        let said = open(disk, options().read_only(true)).map(drop).expect_err("nothing opens it").to_string();
        assert!(said.contains("both superblocks are bad") && said.contains("from their peers"), "{said}");
    }
}
