//! Every promise of the simulated disk, and every one it must not make.

use super::super::{AlignedBuf, BLOCK};
use super::*;
use std::io::ErrorKind;

mod faults;

const B: u64 = BLOCK as u64;
const SECTORS_PER_BLOCK: u64 = (BLOCK / SECTOR) as u64;

fn block(byte: u8) -> AlignedBuf {
    blocks(byte, 1)
}

fn blocks(byte: u8, count: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::new();
    buf.resize(count * BLOCK);
    buf.fill(byte);
    buf
}

fn byte_at(disk: &SimDisk, offset: u64) -> u8 {
    let mut byte = [0];
    disk.read_at(offset, &mut byte).unwrap();
    byte[0]
}

/// The whole block, which must be of one byte.
fn block_at(disk: &SimDisk, index: u64) -> u8 {
    let mut bytes = vec![0; BLOCK];
    disk.read_at(index * B, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {index} is of several pieces");
    bytes[0]
}

#[test]
fn a_write_is_visible_at_once_and_durable_only_after_a_flush() {
    let disk = SimDisk::new(4 * B);
    disk.write_at(B, &block(1)).unwrap();
    assert_eq!(block_at(&disk, 1), 1);
    assert_eq!(block_at(&disk.crash_lost_all(), 1), 0);
    assert_eq!(block_at(&disk.crash_kept_all(), 1), 1);
    disk.flush().unwrap();
    assert!(disk.sectors_in_doubt().is_empty());
    assert_eq!(block_at(&disk.crash_lost_all(), 1), 1);
}

#[test]
fn a_durable_write_does_not_make_its_neighbour_durable() {
    let disk = SimDisk::new(4 * B);
    disk.write_at(0, &block(1)).unwrap();
    disk.write_at(2 * B, &block(2)).unwrap();
    disk.write_durable_at(B, &block(3)).unwrap();
    let after = disk.crash_lost_all();
    assert_eq!([0, 1, 2].map(|i| block_at(&after, i)), [0, 3, 0]);
    let in_doubt: Vec<u64> = (0..SECTORS_PER_BLOCK).chain(2 * SECTORS_PER_BLOCK..3 * SECTORS_PER_BLOCK).collect();
    assert_eq!(disk.sectors_in_doubt(), in_doubt);
}

#[test]
fn a_durable_write_settles_what_was_in_doubt_below_it_and_no_more() {
    let disk = SimDisk::new(4 * B);
    disk.write_at(0, &blocks(1, 3)).unwrap();
    disk.write_durable_at(B, &block(2)).unwrap();
    let after = disk.crash(&mut |_, versions| {
        assert_eq!(versions, 1);
        Choice::Version(0)
    });
    assert_eq!([0, 1, 2].map(|i| block_at(&after, i)), [1, 2, 1]);
    assert_eq!(block_at(&disk.crash_lost_all(), 0), 0);
}

#[test]
fn versions_of_a_sector_are_kept_in_the_order_they_were_written() {
    let disk = SimDisk::new(4 * B);
    disk.write_durable_at(0, &block(9)).unwrap();
    for byte in 1..=3 {
        disk.write_at(0, &block(byte)).unwrap();
    }
    for (choice, expected) in [
        (Choice::Durable, 9),
        (Choice::Version(0), 1),
        (Choice::Version(1), 2),
        (Choice::Version(2), 3),
        (Choice::Version(99), 3),
    ] {
        let after = disk.crash(&mut |_, versions| {
            assert_eq!(versions, 3);
            choice
        });
        assert_eq!(block_at(&after, 0), expected, "{choice:?}");
    }
}

#[test]
fn every_sector_has_a_fate_of_its_own() {
    let disk = SimDisk::new(4 * B);
    disk.write_at(0, &blocks(1, 2)).unwrap();
    let after = disk.crash(&mut |sector, _| if sector % 2 == 0 { Choice::Version(0) } else { Choice::Durable });
    for sector in 0..2 * SECTORS_PER_BLOCK {
        let at = sector * SECTOR as u64;
        let expected = u8::from(sector % 2 == 0);
        assert_eq!([byte_at(&after, at), byte_at(&after, at + SECTOR as u64 - 1)], [expected; 2]);
    }
}

#[test]
fn a_sector_tears_at_any_byte() {
    let disk = SimDisk::new(B);
    disk.write_durable_at(0, &block(9)).unwrap();
    disk.write_at(0, &block(1)).unwrap();
    disk.write_at(0, &block(2)).unwrap();
    let image = |choice| disk.crash(&mut |_, _| choice).kept_image()[..SECTOR].to_vec();
    for at in [0, 1, 255, 511, 512, 600] {
        let torn = image(Choice::Torn { version: 1, at_byte: at });
        let at = at.min(SECTOR);
        assert_eq!((&torn[..at], &torn[at..]), (&vec![2; at][..], &vec![9; SECTOR - at][..]));
        let spliced = image(Choice::Spliced { head: Some(0), tail: Some(1), at_byte: at });
        assert_eq!((&spliced[..at], &spliced[at..]), (&vec![1; at][..], &vec![2; SECTOR - at][..]));
        let tail = image(Choice::Spliced { head: None, tail: Some(0), at_byte: at });
        assert_eq!((&tail[..at], &tail[at..]), (&vec![9; at][..], &vec![1; SECTOR - at][..]));
    }
    assert_eq!(image(Choice::Garbage(1)), image(Choice::Garbage(1)));
    assert_ne!(image(Choice::Garbage(1)), image(Choice::Garbage(2)));
}

#[test]
fn only_sectors_in_doubt_are_ever_spoilt() {
    let disk = SimDisk::new(8 * B);
    disk.write_durable_at(0, &blocks(1, 8)).unwrap();
    disk.write_at(3 * B, &block(2)).unwrap();
    let in_doubt = disk.sectors_in_doubt();
    assert_eq!(in_doubt, (3 * SECTORS_PER_BLOCK..4 * SECTORS_PER_BLOCK).collect::<Vec<_>>());
    let mut asked = Vec::new();
    disk.crash(&mut |sector, _| {
        asked.push(sector);
        Choice::Garbage(7)
    });
    assert_eq!(asked, in_doubt);
    for seed in 0..500 {
        let image = disk.crash_seeded(seed).kept_image();
        assert!(image[..3 * BLOCK].iter().chain(&image[4 * BLOCK..]).all(|byte| *byte == 1), "seed {seed}");
    }
}

#[test]
fn a_seed_draws_the_same_crash_again_and_seeds_draw_all_kinds() {
    let disk = SimDisk::new(8 * B);
    disk.write_at(0, &blocks(1, 2)).unwrap();
    disk.write_at(2 * B, &blocks(2, 2)).unwrap();
    let (mut all, mut none, mut later_only, mut mixed, mut spoilt) = (0, 0, 0, 0, 0);
    for seed in 0..1000 {
        let image = disk.crash_seeded(seed).kept_image();
        assert_eq!(image, disk.crash_seeded(seed).kept_image());
        let whole = |at: usize, byte| image[at..at + 2 * BLOCK].iter().all(|b| *b == byte);
        match (whole(0, 1), whole(0, 0), whole(2 * BLOCK, 2), whole(2 * BLOCK, 0)) {
            (true, _, true, _) => all += 1,
            (_, true, _, true) => none += 1,
            (_, true, true, _) => later_only += 1,
            _ => mixed += 1,
        }
        spoilt += u32::from(image.iter().any(|byte| *byte > 2));
    }
    for (kind, count) in
        [("all", all), ("none", none), ("later only", later_only), ("mixed", mixed), ("spoilt", spoilt)]
    {
        assert!(count >= 20, "{kind}: {count} of 1000");
    }
}

#[test]
fn a_crash_leaves_the_disk_it_is_asked_of_alone() {
    let disk = SimDisk::new(B);
    disk.write_at(0, &block(1)).unwrap();
    let after = disk.crash_lost_all();
    after.write_durable_at(0, &block(5)).unwrap();
    assert_eq!(block_at(&disk, 0), 1);
    assert_eq!((disk.events(), after.events()), (1, 1));
    assert!(after.sectors_in_doubt().is_empty());
}

#[test]
fn a_process_that_dies_leaves_what_it_wrote_readable_and_in_doubt() {
    let disk = SimDisk::new(2 * B);
    disk.write_at(0, &block(1)).unwrap();
    disk.fail_at(1, Fault::Cut);
    disk.release();
    let next = disk.restart();
    assert_eq!(block_at(&next, 0), 1);
    assert_eq!(block_at(&next.crash_lost_all(), 0), 0);
    next.write_at(B, &block(2)).unwrap();
    next.flush().unwrap();
    assert_eq!([0, 1].map(|i| block_at(&next.crash_lost_all(), i)), [1, 2]);
}

#[test]
fn a_clone_goes_its_own_way() {
    let disk = SimDisk::new(2 * B);
    disk.write_at(0, &block(1)).unwrap();
    let copy = disk.clone();
    disk.flush().unwrap();
    assert_eq!(block_at(&copy.crash_lost_all(), 0), 0);
    copy.write_at(0, &block(2)).unwrap();
    assert_eq!((block_at(&disk, 0), block_at(&copy, 0)), (1, 2));
}

#[test]
fn every_write_and_every_sync_is_an_event_with_a_number() {
    let disk = SimDisk::new(8 * B);
    disk.write_at(B, &blocks(1, 2)).unwrap();
    disk.write_durable_at(4 * B, &block(2)).unwrap();
    disk.write_at(1, &block(3)).unwrap_err();
    disk.fail_at(2, Fault::Lost);
    disk.flush().unwrap();
    let event = |number, kind, offset, len, fault| EventInfo { number, kind, offset, len, fault };
    assert_eq!(
        disk.log(),
        [
            event(0, EventKind::Write, B, 2 * B, None),
            event(1, EventKind::WriteDurable, 4 * B, B, None),
            event(2, EventKind::Flush, 0, 0, Some(Fault::Lost)),
        ]
    );
    assert_eq!((disk.events(), disk.syncs()), (3, 2));
}

#[test]
fn a_released_disk_takes_no_writes_and_still_reads() {
    let disk = SimDisk::new(B);
    disk.release();
    disk.release();
    assert_eq!(disk.write_at(0, &block(1)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(disk.write_durable_at(0, &block(1)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!((block_at(&disk, 0), disk.events()), (0, 0));
}

#[test]
fn ranges_past_the_end_are_refused_as_on_a_real_disk() {
    let disk = SimDisk::from_image(vec![1; BLOCK + 100]);
    assert_eq!(disk.len(), B + 100);
    assert_eq!(byte_at(&disk, B + 99), 1);
    assert_eq!(disk.read_at(B + 100, &mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(disk.write_at(B, &block(1)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let empty = SimDisk::new(0);
    assert!(empty.is_empty());
    empty.flush().unwrap();
}

/// Random histories against the plainest model there is: a list of writes and what syncs covered.
#[test]
fn random_histories_keep_exactly_what_syncs_covered() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(8 * B);
        // Per block: what is surely there, and what has been written since.
        let mut model = vec![(0u8, Vec::new()); 8];
        for byte in 1..60u8 {
            let (at, count) = (rng.random_range(0..8), rng.random_range(1..4));
            let count = usize::min(count, 8 - at);
            match rng.random_range(0..4) {
                0 => {
                    disk.flush().unwrap();
                    for (durable, since) in &mut model {
                        *durable = since.drain(..).next_back().unwrap_or(*durable);
                    }
                }
                1 => {
                    disk.write_durable_at(at as u64 * B, &blocks(byte, count)).unwrap();
                    model[at..at + count].fill((byte, Vec::new()));
                }
                _ => {
                    disk.write_at(at as u64 * B, &blocks(byte, count)).unwrap();
                    model[at..at + count].iter_mut().for_each(|(_, since)| since.push(byte));
                }
            }
        }
        let (lost, kept) = (disk.crash_lost_all(), disk.crash_kept_all());
        let oldest = disk.crash(&mut |_, _| Choice::Version(0));
        for (i, (durable, since)) in model.iter().enumerate() {
            let i = i as u64;
            assert_eq!(block_at(&lost, i), *durable);
            assert_eq!(block_at(&kept, i), *since.last().unwrap_or(durable));
            assert_eq!(block_at(&disk, i), *since.last().unwrap_or(durable));
            assert_eq!(block_at(&oldest, i), *since.first().unwrap_or(durable));
        }
    }
}
