//! The second look: what a device did not show at first is noticed, and nothing else is taken for it.

use std::collections::BTreeSet;

use super::again::Look;
use super::scan::{Scan, SlabScan};
use super::scan_tests::{Frame, Journal, Seen};
use super::walk::Walk;
use crate::disk::BLOCK;
use crate::disk::sim::EIO;
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::options::RecoveryMode;
use crate::sync::{Arc, Mutex};

const DEFAULT: RecoveryMode = RecoveryMode::TolerateTornTail;
const SEGMENT: usize = 64 << 10;
/// The slabs of a journal, in no order. In the second of them lies the segment in which the log ends.
const SLABS: [u32; 4] = [6, 5, 9, 2];
const SLAB: u32 = SLABS[1];
/// The last segment, and the tail: not the first there is.
const LAST: u64 = 4;
const TAIL: u64 = 3;
/// Blocks of the last segment that are full: a frame each.
const ENDS_AT: usize = 2;

/// Two live segments, and one that is past.
fn journal() -> Journal {
    let journal = Journal::new(SEGMENT, &SLABS);
    for at in 0..ENDS_AT {
        journal.put(SLAB, LAST, Frame::small(at));
    }
    journal.put(SLABS[0], TAIL, Frame::small(0));
    journal.put(SLABS[2], TAIL - 1, Frame::small(0));
    journal
}

/// A walk that ended at a block of the last segment.
fn ended_at(block: usize, last: u64) -> Walk<'static> {
    let end = last * SEGMENT as u64 + (block * BLOCK) as u64;
    Walk {
        accepted: Vec::new(),
        lost: 0,
        lost_at_end: false,
        dropped: 0,
        end,
        watermark: end,
        tail_seq: TAIL,
        last_seq: Some(end.saturating_sub(1) / SEGMENT as u64),
    }
}

/// Whether there is more than this scan saw.
fn more_than(scan: &Scan, journal: &Journal) -> bool {
    look(scan, journal).expect("readable")
}

fn look(scan: &Scan, journal: &Journal) -> Result<bool> {
    Look::new(&journal.disk, &journal.sb, scan, &ended_at(ENDS_AT, LAST), DEFAULT).shows_more()
}

/// Rot in a frame's table.
fn rot(journal: &Journal, (offset, header, _): &Seen) {
    journal.disk.flip_bit(offset + header.table_range().start as u64, 3);
}

#[test]
fn a_journal_that_was_seen_whole_shows_no_more_and_what_is_accounted_for_is_not_read_again() {
    let journal = journal();
    let scan = journal.scan();
    let read: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let log = Arc::clone(&read);
    journal.disk.on_read(move |offset, _| {
        log.lock().insert(offset);
        Ok(())
    });
    assert!(!more_than(&scan, &journal));
    // Behind the end; into the slab of what is past, and into the empty one, the log may have gone on.
    let places = [(SLAB, ENDS_AT), (SLABS[2], 0), (SLABS[3], 0)].map(|(slab, block)| journal.offset(slab, block));
    assert_eq!(*read.lock(), BTreeSet::from(places));
}

#[test]
fn where_every_slab_is_live_only_the_end_is_looked_at() {
    let journal = Journal::new(SEGMENT, &SLABS[..2]);
    journal.put(SLABS[0], TAIL, Frame::small(0));
    for at in 0..ENDS_AT {
        journal.put(SLAB, LAST, Frame::small(at));
    }
    let scan = journal.scan();
    assert!(!more_than(&scan, &journal));
    journal.put(SLAB, LAST, Frame::small(ENDS_AT));
    assert!(more_than(&scan, &journal));
}

#[test]
fn a_frame_behind_the_end_is_noticed_if_it_is_the_next_one_and_whole() {
    // One that the scan did not see.
    let journal = journal();
    let scan = journal.scan();
    journal.put(SLAB, LAST, Frame::small(ENDS_AT));
    assert!(more_than(&scan, &journal));
    // Seen, and left out by the walk: it is as it was.
    assert!(!more_than(&journal.scan(), &journal));
    // One of an earlier life of the slab.
    let journal = self::journal();
    let scan = journal.scan();
    journal.put(SLAB, 1, Frame::small(ENDS_AT));
    assert!(!more_than(&scan, &journal));
    // Without its table it is no frame that counts.
    rot(&journal, &journal.put(SLAB, LAST, Frame::small(ENDS_AT)));
    assert!(!more_than(&scan, &journal));
    // Its table could not be read at first.
    let scan = journal.scan();
    let [.., last] = &scan.slabs[..] else { panic!("{scan:?}") };
    assert!(last.frames.len() == ENDS_AT + 1 && last.frames[ENDS_AT].table.is_none());
    journal.put(SLAB, LAST, Frame::small(ENDS_AT));
    assert!(more_than(&scan, &journal));
}

#[test]
fn behind_a_segment_that_is_full_only_fronts_are_looked_at() {
    let journal = Journal::new(SEGMENT, &SLABS);
    let blocks = SEGMENT / BLOCK;
    for at in 0..blocks {
        journal.put(SLAB, TAIL, Frame::small(at));
    }
    let scan = journal.scan();
    let full = |journal: &Journal| {
        let walk = ended_at(blocks, TAIL);
        assert_eq!((walk.end / SEGMENT as u64, walk.last_seq), (TAIL + 1, Some(TAIL)));
        Look::new(&journal.disk, &journal.sb, &scan, &walk, DEFAULT).shows_more().expect("readable")
    };
    assert!(!full(&journal));
    journal.put(SLABS[3], TAIL + 1, Frame::small(0));
    assert!(full(&journal));
}

#[test]
fn a_segment_that_begins_where_none_was_seen_is_noticed() {
    for slab in [SLABS[2], SLABS[3]] {
        let journal = journal();
        let scan = journal.scan();
        let put = journal.put(slab, LAST + 1, Frame::small(0));
        assert!(more_than(&scan, &journal), "in slab {slab}");
        rot(&journal, &put);
        assert!(!more_than(&scan, &journal), "in slab {slab}, without its table");
    }
    // Where nothing counts at all it is looked for in every slab.
    let journal = journal();
    let walk = Walk { last_seq: None, ..ended_at(0, 0) };
    let unseen = Scan { slabs: Vec::new(), max_seq: 0, max_session: 0, disbelieved: Vec::new() };
    assert!(Look::new(&journal.disk, &journal.sb, &unseen, &walk, DEFAULT).shows_more().expect("readable"));
    assert!(!Look::new(&journal.disk, &journal.sb, &journal.scan(), &walk, DEFAULT).shows_more().expect("readable"));
}

/// A later frame of the segment was seen, but of its front nothing, or no table.
#[test]
fn a_front_that_could_not_be_read_at_first_is_noticed() {
    let journal = journal();
    journal.put(SLABS[3], LAST + 1, Frame::small(1));
    let scan = journal.scan();
    assert!(!more_than(&scan, &journal), "it is still missing");
    let front = journal.put(SLABS[3], LAST + 1, Frame::small(0));
    assert!(more_than(&scan, &journal));
    rot(&journal, &front);
    let scan = journal.scan();
    let [.., last] = &scan.slabs[..] else { panic!("{scan:?}") };
    assert!(last.frames.len() == 2 && last.frames[0].table.is_none());
    assert!(!more_than(&scan, &journal), "it is still rotten");
    journal.put(SLABS[3], LAST + 1, Frame::small(0));
    assert!(more_than(&scan, &journal));
}

#[test]
fn a_front_older_than_what_was_seen_behind_it_or_of_a_segment_that_is_not_believed_is_nothing_new() {
    let journal = journal();
    journal.put(SLABS[3], LAST + 2, Frame::small(1));
    let mut scan = journal.scan();
    journal.put(SLABS[3], LAST + 1, Frame::small(0));
    assert!(!more_than(&scan, &journal), "the slab lives a later life");
    let [.., last] = &mut scan.slabs[..] else { panic!("{scan:?}") };
    assert_eq!(last.slab, SLABS[3]);
    *last = SlabScan { slab: SLABS[3], seq: TAIL - 1, frames: Vec::new() };
    assert!(more_than(&scan, &journal));
    // Two slabs claimed that number: a salvage has left both out.
    scan.disbelieved = vec![LAST + 1];
    assert!(!more_than(&scan, &journal));
    scan.disbelieved = vec![LAST + 2];
    assert!(more_than(&scan, &journal), "another one's number");
}

/// By several threads where there are many: each front counts, and one is enough.
#[test]
fn of_many_slabs_every_front_is_looked_at() {
    let slabs: Vec<u32> = (0..23).rev().collect();
    let journal = Journal::new(SEGMENT, &slabs);
    journal.put(22, LAST, Frame::small(0));
    let scan = journal.scan();
    let look = || {
        let walk = ended_at(1, LAST);
        Look::new(&journal.disk, &journal.sb, &scan, &walk, DEFAULT).shows_more()
    };
    assert!(!look().expect("readable"));
    for slab in 0..22 {
        journal.put(slab, LAST + 1, Frame::small(0));
        assert!(look().expect("readable"), "in slab {slab}");
        journal.disk.poke(journal.offset(slab, 0), &[0; BLOCK]);
    }
    // In two parts, of four.
    for slab in [0, 21] {
        journal.put(slab, LAST + 1, Frame::small(0));
    }
    assert!(look().expect("readable"));
    let front = journal.offset(13, 0);
    journal.disk.fail_reads(front..front + 1, EIO);
    assert!(matches!(look(), Err(Error::Io { .. })), "{:?}", look());
}

/// Nothing is known of what cannot be read.
#[test]
fn what_cannot_be_read_the_second_time_is_an_error_and_no_end() {
    let unreadable = |journal: &Journal, scan: &Scan, slab: u32, block: usize| {
        journal.disk.fail_reads(journal.offset(slab, block)..journal.offset(slab, block + 1), EIO);
        let failed = look(scan, journal);
        assert!(matches!(failed, Err(Error::Io { .. })), "block {block} of slab {slab}: {failed:?}");
        journal.disk.heal_reads();
    };
    let journal = journal();
    let scan = journal.scan();
    for (slab, block) in [(SLAB, ENDS_AT), (SLABS[2], 0), (SLABS[3], 0)] {
        unreadable(&journal, &scan, slab, block);
    }
    // A header, and its table in the next block.
    journal.put(SLAB, LAST, Frame::full(ENDS_AT, 2, 50));
    unreadable(&journal, &scan, SLAB, ENDS_AT + 1);
    assert!(more_than(&scan, &journal));
}

/// In a salvage, what cannot be read counts as absent; what can be read is still looked at.
#[test]
fn what_cannot_be_read_hides_nothing_else_from_a_salvage() {
    let journal = journal();
    let scan = journal.scan();
    let front = journal.offset(SLABS[2], 0);
    journal.disk.fail_reads(front..front + 1, EIO);
    let walk = ended_at(ENDS_AT, LAST);
    let more = || {
        let look = Look::new(&journal.disk, &journal.sb, &scan, &walk, RecoveryMode::Salvage);
        (look.shows_more().expect("a salvage"), look.met_unread())
    };
    assert_eq!(more(), (false, true), "nothing was seen, and something may be there");
    journal.put(SLABS[3], LAST + 1, Frame::small(0));
    assert_eq!(more(), (true, true));
    journal.disk.heal_reads();
    assert_eq!(more(), (true, false));
}

/// The log went on where it had been cut off, over a frame that was longer, and the first write there was lost.
#[test]
fn what_a_frame_behind_the_end_hides_is_noticed_if_a_later_session_wrote_it() {
    let (end, cut_off) =
        ((LAST * SEGMENT as u64) + (ENDS_AT * BLOCK) as u64, FrameHeader { session: 1, ..FrameHeader::default() });
    let at = |block: usize| LAST * SEGMENT as u64 + (block * BLOCK) as u64;
    for (session, cut, hidden) in [(2, end, true), (2, end - BLOCK as u64, true), (2, end + 1, false), (1, end, false)]
    {
        let journal = journal();
        journal.put_as(SLAB, Frame::full(ENDS_AT, 9, 50), FrameHeader { lsn: at(ENDS_AT), ..cut_off });
        let scan = journal.scan();
        let walk = ended_at(ENDS_AT, LAST);
        let hides = || Look::new(&journal.disk, &journal.sb, &scan, &walk, DEFAULT).hides_more().expect("readable");
        assert!(!hides());
        let header = FrameHeader { lsn: at(ENDS_AT + 1), session, cut, ..FrameHeader::default() };
        let inner = journal.put_as(SLAB, Frame::small(ENDS_AT + 1), header);
        assert_eq!(hides(), hidden, "{session} {cut}");
        rot(&journal, &inner);
        assert!(!hides(), "without its table");
    }
}

/// Each header may say that its table reaches to the segment's end: not all tables are compared.
#[test]
fn more_tables_than_can_lie_in_a_frame_are_left_to_a_scan() {
    let header =
        FrameHeader { session: 1, lsn: LAST * SEGMENT as u64 + (ENDS_AT * BLOCK) as u64, ..FrameHeader::default() };
    let blocks = SEGMENT / BLOCK - ENDS_AT;
    for (each, hides) in [(BLOCK / 2, false), (3 * BLOCK, false), (7 * BLOCK, true)] {
        let journal = journal();
        journal.put_as(SLAB, Frame::full(ENDS_AT, blocks as u32, 50), header);
        let scan = journal.scan();
        for at in ENDS_AT + 1..SEGMENT / BLOCK {
            let lsn = LAST * SEGMENT as u64 + (at * BLOCK) as u64;
            let room = (SEGMENT / BLOCK - at) * BLOCK;
            let table_bytes = each.min(room - FRAME_HEADER_BYTES) as u32;
            let blocks = (room / BLOCK) as u32;
            let inner = FrameHeader { session: 2, lsn, blocks, table_bytes, table_crc: 1, ..header };
            let mut bytes = vec![0; FRAME_HEADER_BYTES];
            inner.encode(journal.sb.seed(), &mut bytes);
            journal.disk.poke(journal.offset(SLAB, at), &bytes);
        }
        let walk = ended_at(ENDS_AT, LAST);
        let look = Look::new(&journal.disk, &journal.sb, &scan, &walk, DEFAULT);
        assert_eq!(look.hides_more().expect("readable"), hides, "tables of {each} bytes");
    }
}

/// Each frame may say that it reaches to the segment's end: not all are read.
#[test]
fn frames_behind_the_end_that_lie_over_each_other_are_left_to_a_scan() {
    let blocks = SEGMENT / BLOCK;
    let whole = (SLABS.len() * SEGMENT) as u64;
    let at = |block: usize| LAST * SEGMENT as u64 + (block * BLOCK) as u64;
    // A session that cut off all that lies behind it.
    let cut = at(ENDS_AT);
    for nested in [false, true] {
        let journal = journal();
        journal.put_as(
            SLAB,
            Frame::small(ENDS_AT),
            FrameHeader { lsn: cut, session: 2, cut, ..FrameHeader::default() },
        );
        for block in ENDS_AT + 1..blocks {
            let frame = Frame::hollow(block, if nested { blocks - block } else { 1 } as u32);
            journal.put_as(SLAB, frame, FrameHeader { lsn: at(block), session: 1, ..FrameHeader::default() });
        }
        let scan = journal.scan();
        let seen = scan.slabs.iter().find(|s| s.slab == SLAB).expect("seen");
        assert_eq!(seen.frames.len(), blocks, "void ones are not stepped over");
        let before = journal.disk.bytes_read();
        let look = Look::new(&journal.disk, &journal.sb, &scan, &ended_at(ENDS_AT + 1, LAST), DEFAULT);
        assert_eq!(look.hides_more().expect("readable"), nested);
        let read = journal.disk.bytes_read() - before;
        assert!(read <= whole, "{read} bytes of {whole}");
    }
}
