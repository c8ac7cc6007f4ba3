//! Cuts, errors, lies and damage, each where it was planned.

use super::*;

#[test]
fn a_cut_write_leaves_any_part_of_itself_and_nothing_works_after_it() {
    let disk = SimDisk::new(4 * B);
    disk.write_durable_at(0, &blocks(9, 4)).unwrap();
    disk.fail_at(1, Fault::Cut);
    disk.write_durable_at(B, &block(1)).unwrap_err();
    assert!(disk.is_cut());
    assert_eq!(disk.events(), 2);
    disk.read_at(0, &mut [0]).unwrap_err();
    disk.write_at(0, &block(7)).unwrap_err();
    disk.write_durable_at(0, &block(7)).unwrap_err();
    disk.flush().unwrap_err();
    assert_eq!(disk.events(), 2);
    assert_eq!([0, 1].map(|i| block_at(&disk.crash_lost_all(), i)), [9, 9]);
    assert_eq!([0, 1].map(|i| block_at(&disk.crash_kept_all(), i)), [9, 1]);
    let torn = disk.crash(&mut |_, _| Choice::Torn { version: 0, at_byte: 3 });
    assert_eq!([0, 2, 3, 511].map(|i| byte_at(&torn, B + i)), [1, 1, 9, 9]);
}

#[test]
fn a_cut_at_a_sync_means_that_the_sync_did_not_happen() {
    let disk = SimDisk::new(2 * B);
    disk.write_durable_at(0, &block(1)).unwrap();
    disk.write_at(B, &block(2)).unwrap();
    disk.fail_sync_at(1, Fault::Cut);
    disk.flush().unwrap_err();
    assert!(disk.is_cut());
    assert_eq!([0, 1].map(|i| block_at(&disk.crash_lost_all(), i)), [1, 0]);
    assert_eq!([0, 1].map(|i| block_at(&disk.crash_kept_all(), i)), [1, 2]);
}

#[test]
fn a_write_in_flight_at_the_cut_may_survive_the_one_that_was_cut() {
    let disk = SimDisk::new(4 * B);
    disk.fail_at(0, Fault::Cut);
    disk.in_flight_at_cut(1);
    for i in 0..3 {
        disk.write_durable_at(i * B, &block(1 + i as u8)).unwrap_err();
    }
    let after = disk.crash(&mut |sector, _| match sector < SECTORS_PER_BLOCK {
        true => Choice::Durable,
        false => Choice::Version(0),
    });
    assert_eq!([0, 1, 2].map(|i| block_at(&after, i)), [0, 2, 0]);
}

#[test]
fn writes_that_were_begun_together_may_each_survive_without_the_others() {
    let writes = |blocks: &[AlignedBuf; 3], disk: &SimDisk| {
        let all: Vec<(u64, &[u8])> = (0..).map(|i| i * B).zip(blocks.iter().map(|b| &b[..])).collect();
        disk.write_many(&all)
    };
    let blocks = [1, 2, 3].map(block);
    let disk = SimDisk::new(4 * B);
    disk.fail_at(1, Fault::Cut);
    writes(&blocks, &disk).unwrap_err();
    let after = disk.crash(&mut |sector, _| match sector < 2 * SECTORS_PER_BLOCK {
        true => Choice::Durable,
        false => Choice::Version(0),
    });
    assert_eq!([0, 1, 2, 3].map(|i| block_at(&after, i)), [0, 0, 3, 0], "the third was in flight");
    // One write fails by itself: the others are made, and the failure is reported.
    let disk = SimDisk::new(4 * B);
    disk.fail_at(0, Fault::Error(EIO));
    assert_eq!(writes(&blocks, &disk).unwrap_err().raw_os_error(), Some(EIO));
    disk.flush().unwrap();
    assert_eq!([1, 2].map(|i| block_at(&disk.crash_lost_all(), i)), [2, 3]);
}

#[test]
fn a_failed_write_leaves_its_range_in_doubt_even_after_a_flush() {
    for (kind, visible) in [(EventKind::Write, 0), (EventKind::WriteDurable, 1)] {
        let disk = SimDisk::new(2 * B);
        disk.fail_at(0, Fault::Error(EIO));
        let result = match kind {
            EventKind::Write => disk.write_at(0, &block(1)),
            _ => disk.write_durable_at(0, &block(1)),
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(EIO));
        assert_eq!(block_at(&disk, 0), visible, "{kind:?}");
        disk.flush().unwrap();
        assert_eq!(block_at(&disk.crash_lost_all(), 0), 0, "{kind:?}");
        assert_eq!(block_at(&disk.crash_kept_all(), 0), 1, "{kind:?}");
        disk.write_at(0, &block(2)).unwrap();
        disk.flush().unwrap();
        assert_eq!(block_at(&disk.crash_lost_all(), 0), 2, "{kind:?}");
        assert!(disk.sectors_in_doubt().is_empty());
    }
}

#[test]
fn a_flush_after_a_failed_one_does_not_cover_what_that_one_lost() {
    let disk = SimDisk::new(3 * B);
    disk.write_at(0, &block(1)).unwrap();
    disk.fail_sync_at(0, Fault::Error(EIO));
    disk.flush().unwrap_err();
    disk.write_at(B, &block(2)).unwrap();
    disk.flush().unwrap();
    assert_eq!([0, 1].map(|i| block_at(&disk, i)), [1, 2]);
    assert_eq!([0, 1].map(|i| block_at(&disk.crash_lost_all(), i)), [0, 2]);
}

#[test]
fn a_short_write_keeps_whole_sectors_and_fails() {
    for kept in [0, 511, 512, 3 * SECTOR + 7, usize::MAX] {
        let disk = SimDisk::new(B);
        disk.fail_at(0, Fault::ShortThenError { kept, errno: ENOSPC });
        let error = disk.write_durable_at(0, &block(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let written = disk.kept_image().iter().filter(|byte| **byte == 1).count();
        assert_eq!(written, kept.min(BLOCK) / SECTOR * SECTOR);
        assert_eq!(disk.durable_image(), vec![0; BLOCK]);
    }
}

#[test]
fn lost_and_misdirected_writes_claim_success() {
    let disk = SimDisk::new(4 * B);
    disk.fail_at(0, Fault::Lost);
    disk.fail_at(1, Fault::Misdirected { to: 3 * B });
    disk.fail_at(2, Fault::Misdirected { to: 4 * B });
    for i in 0..3 {
        disk.write_durable_at(i * B, &block(1 + i as u8)).unwrap();
    }
    let after = disk.crash_lost_all();
    assert_eq!([0, 1, 2, 3].map(|i| block_at(&after, i)), [0, 0, 0, 2]);
}

#[test]
fn an_ignored_sync_is_one_that_lies() {
    let disk = SimDisk::new(3 * B);
    disk.ignore_sync(1);
    for i in 0..3 {
        disk.write_durable_at(i * B, &block(1)).unwrap();
    }
    assert_eq!([0, 1, 2].map(|i| block_at(&disk.crash_lost_all(), i)), [1, 0, 1]);
    let disk = SimDisk::new(3 * B);
    disk.ignore_all_syncs();
    disk.write_durable_at(0, &block(1)).unwrap();
    disk.flush().unwrap();
    assert_eq!(block_at(&disk, 0), 1);
    assert_eq!(disk.durable_image(), vec![0; 3 * BLOCK]);
}

#[test]
fn hooks_decide_events_and_reads() {
    let disk = SimDisk::new(4 * B);
    disk.on_event(|event| (event.offset == 2 * B).then_some(Fault::Error(EIO)));
    disk.write_at(0, &block(1)).unwrap();
    disk.write_at(2 * B, &block(1)).unwrap_err();
    disk.on_read(|offset, bytes| {
        if offset == 0 {
            bytes[0] ^= 0x80;
        }
        Ok(())
    });
    assert_eq!(byte_at(&disk, 0), 0x81);
    disk.fail_reads(B..B + 1, EIO);
    assert_eq!(disk.read_at(B - 1, &mut [0; 2]).unwrap_err().raw_os_error(), Some(EIO));
    disk.read_at(B - 1, &mut [0]).unwrap();
    disk.read_at(B + 1, &mut [0]).unwrap();
    disk.heal_reads();
    assert_eq!(block_at(&disk, 0), 1);
}

#[test]
fn damage_is_on_the_medium_and_outlives_a_crash() {
    let disk = SimDisk::new(2 * B);
    disk.write_durable_at(0, &block(1)).unwrap();
    disk.flip_bit(5, 3);
    disk.zero_sector(1);
    disk.poke(1030, b"rot");
    disk.swap_sectors(0, 2);
    let image = disk.crash_lost_all().kept_image();
    assert_eq!(image, disk.kept_image());
    assert_eq!(image[2 * SECTOR + 5], 1 ^ 8);
    assert_eq!(image[SECTOR..2 * SECTOR], [0; SECTOR]);
    assert_eq!(&image[6..9], b"rot");
    assert_eq!(SimDisk::from_image(image.clone()).kept_image(), image);
}

#[test]
fn a_flush_covers_what_succeeded_below_a_write_that_failed() {
    let disk = SimDisk::new(B);
    disk.fail_at(1, Fault::Error(EIO));
    disk.write_at(0, &block(1)).unwrap();
    disk.write_at(0, &block(2)).unwrap_err();
    disk.flush().unwrap();
    assert_eq!(block_at(&disk.crash_lost_all(), 0), 1);
    assert_eq!(block_at(&disk.crash_kept_all(), 0), 2);
}

#[test]
fn what_the_next_process_reads_after_a_failure_is_on_the_device() {
    for visible in [true, false] {
        let disk = SimDisk::new(2 * B);
        disk.write_durable_at(0, &block(1)).unwrap();
        disk.fail_at(1, Fault::Error(EIO));
        let write = if visible { SimDisk::write_durable_at } else { SimDisk::write_at };
        write(&disk, 0, &block(2)).unwrap_err();
        let next = disk.restart();
        let seen = block_at(&next, 0);
        assert_eq!(seen, if visible { 2 } else { 1 });
        next.flush().unwrap();
        assert_eq!([next.crash_lost_all(), next.crash_kept_all()].map(|d| block_at(&d, 0)), [seen; 2]);
        // The process that saw the failure can do nothing about it.
        disk.flush().unwrap();
        assert_eq!([disk.crash_lost_all(), disk.crash_kept_all()].map(|d| block_at(&d, 0)), [1, 2]);
    }
}
