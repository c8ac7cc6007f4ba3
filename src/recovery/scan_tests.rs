//! Scanning: whatever lies in a slab is found, however it lies to the windows in which it is read.

use std::collections::HashSet;
use std::thread::{self, ThreadId};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scan::{Scan, scan};
use crate::disk::BLOCK;
use crate::disk::sim::{EIO, SimDisk};
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LAST_SESSION, MAX_LSN, MAX_SESSION};
use crate::format::superblock::Superblock;
use crate::options::{Options, Progress, RecoveryMode};
use crate::sync::{Arc, Mutex};

const KIB: usize = 1 << 10;
/// Windows grow from 32 KiB to 1 MiB: here they reach it.
const LARGE: usize = 4 << 20;
/// Two of the smallest windows.
const SMALL: usize = 64 * KIB;

/// A frame as [`scan`] tells of it: where it lies, its header, and its table if that is whole.
pub(super) type Seen = (u64, FrameHeader, Option<Vec<u8>>);

/// A disk whose journal is being written by hand.
pub(super) struct Journal {
    pub disk: SimDisk,
    pub sb: Superblock,
}

/// A frame to be written at a block of a slab.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    at: usize,
    blocks: u32,
    payload: usize,
    table: usize,
}

impl Frame {
    /// Of one block.
    pub fn small(at: usize) -> Self {
        Self { at, blocks: 1, payload: 100, table: 50 }
    }

    /// A frame of this many blocks, with nothing behind the first.
    pub fn hollow(at: usize, blocks: u32) -> Self {
        Self { at, blocks, payload: 0, table: 50 }
    }

    /// A frame of this many blocks; the payload takes all that the table does not.
    pub fn full(at: usize, blocks: u32, table: usize) -> Self {
        Self { at, blocks, payload: blocks as usize * BLOCK - FRAME_HEADER_BYTES - table, table }
    }
}

impl Journal {
    pub fn new(segment: usize, slabs: &[u32]) -> Self {
        let capacity = crate::format::POOL_OFFSET + 40 * segment as u64;
        let options = Options::default().chunk_size(16 << 10).segment_size(segment as u32);
        let sb = options.geometry([1; 16], capacity).expect("sound");
        Self { disk: SimDisk::new(capacity), sb: Superblock { journal_slabs: slabs.to_vec(), ..sb } }
    }

    /// Writes a frame of the segment with this number into the slab.
    pub fn put(&self, slab: u32, seq: u64, frame: Frame) -> Seen {
        self.put_at(slab, seq, frame, FrameHeader { session: 1, ..FrameHeader::default() })
    }

    /// The same, with the session and the names in `header`.
    fn put_at(&self, slab: u32, seq: u64, frame: Frame, header: FrameHeader) -> Seen {
        let lsn = seq * u64::from(self.sb.segment_bytes) + (frame.at * BLOCK) as u64;
        self.put_as(slab, frame, FrameHeader { lsn, ..header })
    }

    /// Writes a frame with this number and session.
    pub fn put_as(&self, slab: u32, frame: Frame, header: FrameHeader) -> Seen {
        let (seed, lsn) = (self.sb.seed(), header.lsn);
        // No two tables are the same.
        let table: Vec<u8> = (0..frame.table).map(|i| (lsn / BLOCK as u64 * 7 + i as u64) as u8).collect();
        let header = FrameHeader {
            blocks: frame.blocks,
            payload_bytes: frame.payload as u32,
            table_bytes: frame.table as u32,
            table_crc: seed.crc(lsn, &table),
            ..header
        };
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        header.encode(seed, &mut bytes);
        let offset = self.offset(slab, frame.at);
        self.disk.poke(offset, &bytes);
        self.disk.poke(offset + header.table_range().start as u64, &table);
        (offset, header, Some(table))
    }

    /// Where a block of a slab lies.
    pub fn offset(&self, slab: u32, block: usize) -> u64 {
        self.sb.slab_offset(slab) + (block * BLOCK) as u64
    }

    fn try_scan(&self, mode: RecoveryMode) -> Result<Scan> {
        scan(&self.disk, &self.sb, mode, &mut |_| ())
    }

    pub fn scan(&self) -> Scan {
        self.try_scan(RecoveryMode::TolerateTornTail).expect("it is scanned")
    }

    /// What a scan reads of the slab: at which offsets, and how much.
    fn readings(&self, slab: u32) -> Vec<(usize, usize)> {
        let readings = Arc::new(Mutex::new(Vec::new()));
        let (log, start) = (Arc::clone(&readings), self.offset(slab, 0));
        let segment = u64::from(self.sb.segment_bytes);
        self.disk.on_read(move |offset, buf| {
            if (start..start + segment).contains(&offset) {
                log.lock().push(((offset - start) as usize, buf.len()));
            }
            Ok(())
        });
        self.scan();
        self.disk.heal_reads();
        let readings = readings.lock();
        readings.clone()
    }
}

/// Slab by slab: its number, its segment's, its frames.
fn seen(scan: &Scan) -> Vec<(u32, u64, Vec<Seen>)> {
    let frames = |s: &super::scan::SlabScan| {
        s.frames.iter().map(|f| (f.offset, f.header, f.table.as_deref().map(<[u8]>::to_vec))).collect()
    };
    scan.slabs.iter().map(|s| (s.slab, s.seq, frames(s))).collect()
}

/// The frames of the only slab.
fn only(scan: &Scan) -> Vec<Seen> {
    seen(scan).pop().map_or_else(Vec::new, |(_, _, frames)| frames)
}

#[test]
fn every_frame_is_found_wherever_it_lies_to_the_windows() {
    for (segment, longest, runs) in [(SMALL, 12, 60), (256 * KIB, 30, 30), (LARGE, 500, 12)] {
        for seed in 0..runs {
            let journal = Journal::new(segment, &[3]);
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut at, mut put) = (0, Vec::new());
            while at < segment / BLOCK {
                let blocks = rng.random_range(1..=longest).min(segment / BLOCK - at);
                let room = blocks * BLOCK - FRAME_HEADER_BYTES;
                // Small tables are the rule; some take all that the payload leaves, across any number of windows.
                let table =
                    if rng.random_bool(0.7) { rng.random_range(0..room.min(600)) } else { rng.random_range(0..=room) };
                let payload = if rng.random_bool(0.5) { room - table } else { rng.random_range(0..=room - table) };
                put.push(journal.put(3, 9, Frame { at, blocks: blocks as u32, payload, table }));
                at += blocks;
            }
            assert_eq!(only(&journal.scan()), put, "segment of {segment}, seed {seed}");
        }
    }
}

#[test]
fn a_table_is_whole_whether_it_ends_at_a_window_or_at_the_slab_or_is_larger_than_all_windows() {
    let last = LARGE / BLOCK - 1;
    for frame in [
        // The first window is 32 KiB long: to its end, a byte across it, and across it from its last byte on.
        Frame::full(0, 8, 5000),
        Frame { at: 0, blocks: 9, payload: 32 * KIB - FRAME_HEADER_BYTES - 100, table: 101 },
        Frame { at: 0, blocks: 9, payload: 32 * KIB - FRAME_HEADER_BYTES - 1, table: 500 },
        Frame { at: 0, blocks: 9, payload: 32 * KIB - FRAME_HEADER_BYTES, table: 500 },
        // Nothing but a table: twice the largest window, and the whole slab.
        Frame::full(5, 512, 512 * BLOCK - FRAME_HEADER_BYTES),
        Frame::full(0, 1024, LARGE - FRAME_HEADER_BYTES),
        // To the slab's last byte.
        Frame::full(last, 1, 77),
        Frame::full(last - 40, 41, 1),
        Frame::full(0, 1024, 1),
    ] {
        let journal = Journal::new(LARGE, &[0]);
        let put = journal.put(0, 1, frame);
        assert_eq!(only(&journal.scan()), [put], "{} blocks at {}", frame.blocks, frame.at);
    }
}

#[test]
fn a_table_of_no_bytes_is_read_nowhere() {
    // No writer makes one, but a checksum may say so.
    for at in [0, 3, SMALL / BLOCK - 1] {
        let journal = Journal::new(SMALL, &[39]);
        let put = journal.put(39, 1, Frame::full(at, 1, 0));
        assert_eq!(only(&journal.scan()), [put], "the last one ends where the disk does");
    }
}

#[test]
fn behind_a_frame_whose_table_is_bad_the_search_goes_on_block_by_block() {
    let journal = Journal::new(LARGE, &[0]);
    // Its table lies far behind what the frames in its payload were read with.
    let torn = journal.put(0, 5, Frame::full(2, 600, 300));
    journal.disk.flip_bit(torn.0 + torn.1.table_range().start as u64 + 299, 7);
    let inside = [journal.put(0, 5, Frame::small(3)), journal.put(0, 5, Frame::full(500, 7, 40))];
    let behind = journal.put(0, 5, Frame::small(602));
    let [a, b] = inside;
    assert_eq!(only(&journal.scan()), [(torn.0, torn.1, None), a, b, behind]);
    // And a frame that is whole hides what lies in it: those are bytes of somebody's payload.
    let journal = Journal::new(LARGE, &[0]);
    let whole = journal.put(0, 5, Frame::full(2, 600, 300));
    journal.put(0, 5, Frame::small(3));
    assert_eq!(only(&journal.scan()), [whole]);
}

#[test]
fn windows_double_while_one_reading_follows_the_other() {
    let doubling = [32, 64, 128, 256, 512, 1024, 1024, 1024, 32];
    let mut expected = Vec::new();
    for kib in doubling {
        expected.push((expected.last().map_or(0, |&(at, len)| at + len), kib * KIB));
    }
    let journal = Journal::new(LARGE, &[4, 5]);
    assert_eq!(journal.readings(4), expected);
    assert_eq!(journal.readings(5), expected, "each slab begins anew");
    for at in 0..LARGE / BLOCK {
        journal.put(5, 1, Frame::small(at));
    }
    assert_eq!(journal.readings(5), expected, "small frames are read as they come");
}

#[test]
fn a_window_is_small_again_where_readings_do_not_follow_one_another() {
    let journal = Journal::new(LARGE, &[0]);
    for at in 0..40 {
        journal.put(0, 1, Frame::small(at));
    }
    journal.put(0, 1, Frame { at: 40, blocks: 256, payload: 1000 * KIB, table: 400 });
    let table = (40 + 250) * BLOCK;
    let expected =
        [(0, 32 * KIB), (32 * KIB, 64 * KIB), (96 * KIB, 128 * KIB), (table, 32 * KIB), (table + 32 * KIB, 64 * KIB)];
    assert_eq!(journal.readings(0)[..5], expected);
}

#[test]
fn of_large_frames_nothing_is_read_but_where_headers_and_tables_lie() {
    let journal = Journal::new(LARGE, &[0]);
    for n in 0..4 {
        journal.put(0, 1, Frame { at: 256 * n, blocks: 256, payload: 1000 * KIB, table: 400 });
    }
    // With the table the next header is read, and nothing lies behind the last.
    let table = (1000 * KIB + FRAME_HEADER_BYTES) / BLOCK * BLOCK;
    let lengths = [32, 32, 32, 24].map(|kib| kib * KIB);
    let tables = lengths.into_iter().enumerate().map(|(n, len)| (1024 * KIB * n + table, len));
    let expected: Vec<(usize, usize)> = [(0, 32 * KIB)].into_iter().chain(tables).collect();
    assert_eq!(journal.readings(0), expected);
}

#[test]
fn what_was_read_is_not_read_again() {
    let small = |frames: &[Frame]| {
        let journal = Journal::new(SMALL, &[0]);
        frames.iter().for_each(|&frame| drop(journal.put(0, 1, frame)));
        journal.readings(0)
    };
    let halves = [(0, 32 * KIB), (32 * KIB, 32 * KIB)];
    assert_eq!(small(&[Frame::full(0, 8, 0), Frame::small(8)]), halves);
    assert_eq!(small(&[Frame::full(0, 8, 5000), Frame::small(8)]), halves, "a table to a window's last byte");
    // A window begins where a table of no bytes does, and so does the next header.
    assert_eq!(small(&[Frame::full(0, 9, 0), Frame::small(9)]), [(0, 32 * KIB), (36 * KIB, 28 * KIB)]);
}

#[test]
fn many_slabs_are_read_by_several_threads_and_few_by_the_caller() {
    for (slabs, alone) in [(1, true), (7, true), (8, false), (30, false)] {
        let journal = Journal::new(SMALL, &(0..slabs).collect::<Vec<_>>());
        let threads = Arc::new(Mutex::new(HashSet::<ThreadId>::new()));
        let readers = Arc::clone(&threads);
        journal.disk.on_read(move |_, _| {
            readers.lock().insert(thread::current().id());
            Ok(())
        });
        journal.scan();
        let threads = threads.lock();
        assert_eq!(threads.contains(&thread::current().id()), alone, "{slabs} slabs");
        // Four look where each slab begins, and four read them.
        assert!(threads.len() <= if alone { 1 } else { 8 }, "{slabs} slabs: {}", threads.len());
    }
}

#[test]
fn several_threads_find_what_one_finds() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut slabs: Vec<u32> = (0..40).filter(|_| rng.random_bool(0.7)).collect();
        let journal = Journal::new(SMALL, &slabs);
        let mut put = Vec::new();
        for (n, &slab) in slabs.iter().enumerate() {
            // Some are empty; the numbers come in no order.
            let seq = 1 + (n as u64 * 17) % 41;
            let frames: Vec<Seen> =
                (0..rng.random_range(0..6)).map(|n| journal.put(slab, seq, Frame::small(n * 3))).collect();
            if !frames.is_empty() {
                put.push((slab, seq, frames));
            }
        }
        put.sort_by_key(|s| s.1);
        assert!(slabs.len() >= 16, "seed {seed}: too few for several threads");
        assert_eq!(seen(&journal.scan()), put, "seed {seed}");
        // The same in another order, and then a few at a time.
        slabs.reverse();
        let sb = Superblock { journal_slabs: slabs.clone(), ..journal.sb.clone() };
        let disk = journal.disk.clone();
        assert_eq!(seen(&Journal { disk, sb }.scan()), put, "seed {seed}");
        let few = slabs.chunks(7).flat_map(|few| {
            let sb = Superblock { journal_slabs: few.to_vec(), ..journal.sb.clone() };
            seen(&Journal { disk: journal.disk.clone(), sb }.scan())
        });
        let mut few: Vec<_> = few.collect();
        few.sort_by_key(|s| s.1);
        assert_eq!(few, put, "seed {seed}");
    }
}

#[test]
fn a_slab_that_cannot_be_read_is_named_and_no_scan_but_a_salvage_goes_on_without_it() {
    for slabs in [3_u32, 20] {
        let journal = Journal::new(SMALL, &(0..slabs).collect::<Vec<_>>());
        let put: Vec<Seen> = (0..slabs).map(|slab| journal.put(slab, 1 + u64::from(slab), Frame::small(0))).collect();
        let found = |scan: &Scan| seen(scan).into_iter().flat_map(|(_, _, frames)| frames).collect::<Vec<Seen>>();
        for bad in 0..slabs {
            // The first block of it, the last, and one that only the second window holds.
            for block in [0, 9, 15] {
                let at = journal.offset(bad, block);
                journal.disk.fail_reads(at..at + 1, EIO);
                for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Strict] {
                    // No tail is named here: every slab is read to its end.
                    let error = journal.try_scan(mode).expect_err("one slab cannot be read");
                    let text = error.to_string();
                    assert!(matches!(error, Error::Io { .. }), "{text}");
                    assert!(text.contains(&format!("reading journal slab {bad}:")), "{text}");
                }
                // What is in that block is not there, and all else is.
                let left: Vec<Seen> = put.iter().filter(|f| f.0 != at).cloned().collect();
                assert_eq!(found(&journal.try_scan(RecoveryMode::Salvage).expect("salvaged")), left);
                journal.disk.heal_reads();
            }
        }
        assert_eq!(found(&journal.scan()), put);
    }
}

#[test]
fn of_a_slabs_lives_the_newest_counts_and_numbers_of_all_are_used_up() {
    let journal = Journal::new(SMALL, &[0, 1]);
    let segment = SMALL as u64;
    let newer = journal.put(0, 6, Frame::small(0));
    let stale = FrameHeader { lsn: 4 * segment + BLOCK as u64, session: 9, ..FrameHeader::default() };
    journal.put_as(0, Frame::small(1), stale);
    let older = journal.put(1, 5, Frame::small(2));
    let scan = journal.scan();
    assert_eq!(seen(&scan), [(1, 5, vec![older.clone()]), (0, 6, vec![newer.clone()])]);
    assert_eq!((scan.max_seq, scan.max_session), (6, 9));
    let offsets = [newer.1.lsn, older.1.lsn, stale.lsn].map(|lsn| scan.offset_of(lsn));
    assert_eq!(offsets, [newer.0, older.0, 0], "what does not count lies nowhere");
    let empty = Journal::new(SMALL, &[0]).scan();
    assert_eq!((empty.max_seq, empty.max_session, empty.slabs.len()), (0, 0, 0));
}

#[test]
fn numbers_that_no_log_reaches_are_refused() {
    let (last_lsn, last_session) = (MAX_LSN - (1 << 56), MAX_SESSION - (1 << 56));
    let at = |block: usize, header: FrameHeader| {
        let journal = Journal::new(SMALL, &[2]);
        let frame = Frame::small(block);
        let (offset, ..) = journal.put_as(2, frame, header);
        journal.try_scan(RecoveryMode::Salvage).map(|scan| only(&scan).len()).map_err(|error| (offset, error))
    };
    let frame = |lsn, session| FrameHeader { lsn, session, ..FrameHeader::default() };
    assert_eq!(at(0, frame(last_lsn, last_session)).expect("the last that counts"), 1);
    for header in [frame(last_lsn + BLOCK as u64, 1), frame(SMALL as u64 + BLOCK as u64, last_session + 1)] {
        let (wanted, error) = at(1, header).expect_err("beyond all");
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == wanted), "{error}");
    }
}

#[test]
fn two_slabs_of_one_number_are_refused_and_a_salvage_believes_neither() {
    for slabs in [vec![0, 1, 2, 3, 4, 5], (0..30).rev().collect()] {
        let journal = Journal::new(SMALL, &slabs);
        let claims = [(0, 3), (1, 4), (2, 5), (3, 4), (4, 7), (5, 8)];
        let put: Vec<Seen> = claims.iter().map(|&(slab, seq)| journal.put(slab, seq, Frame::small(0))).collect();
        let refused = journal.try_scan(RecoveryMode::TolerateTornTail).expect_err("two claim to be 4");
        assert!(matches!(refused, Error::Corrupt { offset, .. } if offset == put[3].0), "{refused}");
        let salvaged = journal.try_scan(RecoveryMode::Salvage).expect("salvaged");
        let kept = [0, 2, 4, 5].map(|i: usize| (claims[i].0, claims[i].1, vec![put[i].clone()]));
        assert_eq!(seen(&salvaged), kept);
        assert_eq!((salvaged.disbelieved, salvaged.max_seq), (vec![4], 8));
        // A third that claims it is no better.
        journal.put(4, 8, Frame::small(1));
        let third = journal.try_scan(RecoveryMode::Salvage).expect("salvaged");
        assert_eq!(third.slabs.iter().map(|s| s.slab).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(third.disbelieved, [4, 8]);
    }
}

/// A frame that went astray into space that was free, and into which the journal grew later: found by the fuzzer, which saw a log refused
/// for what was past.
#[test]
fn two_slabs_of_one_number_that_is_past_contradict_nothing() {
    for slabs in [vec![0, 1, 2, 3, 4, 5], (0..30).rev().collect()] {
        for (tail, refused) in [(5, false), (4, true), (0, true)] {
            let journal = Journal::new(SMALL, &slabs);
            for (slab, seq) in [(0, 3), (1, 4), (2, 5), (3, 4)] {
                journal.put(slab, seq, Frame::small(0));
            }
            let newest = FrameHeader { lsn: 6 * SMALL as u64, session: 1, tail_seq: tail, ..FrameHeader::default() };
            journal.put_as(4, Frame::small(0), newest);
            match journal.try_scan(RecoveryMode::TolerateTornTail) {
                Ok(scan) => {
                    assert!(!refused, "{tail}");
                    assert_eq!(scan.slabs.iter().map(|s| s.seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
                    assert_eq!(scan.max_seq, 6);
                }
                Err(error) => assert!(refused && matches!(error, Error::Corrupt { .. }), "{tail}: {error}"),
            }
        }
    }
}

#[test]
fn the_progress_of_a_scan_is_told_slab_by_slab() {
    for (slabs, mode) in [(5, RecoveryMode::Strict), (12, RecoveryMode::Strict), (5, RecoveryMode::Salvage)] {
        let journal = Journal::new(SMALL, &(0..slabs).collect::<Vec<_>>());
        // In a salvage, two that claim one number: it comes to its end all the same.
        let twice = mode == RecoveryMode::Salvage;
        journal.put(0, 7, Frame::small(0));
        journal.put(1, if twice { 7 } else { 8 }, Frame::small(0));
        let mut told = Vec::new();
        let mut progress = |Progress { what, done, total }| told.push((what, done, total));
        scan(&journal.disk, &journal.sb, mode, &mut progress).expect("scanned");
        let total = u64::from(slabs) * SMALL as u64;
        let expected: Vec<_> = (0..=u64::from(slabs)).map(|n| ("recovering", n * SMALL as u64, total)).collect();
        assert_eq!(told, expected, "{slabs} slabs, {mode:?}");
    }
}

/// Openings differ in which slabs they read to their end: of what is past, each must find the same.
#[test]
fn a_slab_that_is_past_shows_its_first_frame_and_no_other() {
    let journal = Journal::new(SMALL, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let put = |slab, seq, block, header| journal.put_at(slab, seq, Frame::small(block), header);
    let past = FrameHeader { session: 1, ..FrameHeader::default() };
    for block in 0..3 {
        put(3, 12, block, past);
    }
    // No log reaches this session, and its frame knows nothing of the segments since.
    put(3, 12, 1, FrameHeader { session: LAST_SESSION + 1, ..past });
    put(4, 13, 0, past);
    // The newest frame names two slabs as those in which the log goes on.
    put(7, 20, 0, FrameHeader { session: 2, tail_seq: 20, next: 4, after: 5, ..past });
    let scan = journal.scan();
    let frames: Vec<_> = scan.slabs.iter().map(|s| (s.slab, s.seq, s.frames.len())).collect();
    assert_eq!(frames, [(3, 12, 1), (4, 13, 1), (7, 20, 1)]);
    assert_eq!(scan.max_session, 2);
}

/// A frame that a later session cut off names no tail. What it called past may be live.
#[test]
fn what_a_frame_that_does_not_exist_called_past_is_found() {
    let journal = Journal::new(SMALL, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let put = |slab, seq, block, header| journal.put_at(slab, seq, Frame::small(block), header);
    let first = FrameHeader { session: 1, ..FrameHeader::default() };
    for block in 0..3 {
        put(3, 12, block, first);
    }
    put(4, 13, 0, first);
    put(7, 20, 0, FrameHeader { tail_seq: 15, next: 4, after: 5, ..first });
    let cut = 19 * SMALL as u64;
    put(6, 19, 0, FrameHeader { session: 2, cut, tail_seq: 12, next: 1, after: 2, ..first });
    let frames: Vec<_> = journal.scan().slabs.iter().map(|s| (s.slab, s.seq, s.frames.len())).collect();
    assert_eq!(frames, [(3, 12, 3), (4, 13, 1), (6, 19, 1), (7, 20, 1)]);
}

/// A frame of an earlier segment, whose header still stands as the first write over it was lost; and a newest frame that names the slab as
/// one in which the log goes on, and a tail behind that segment.
fn hidden_under(old: &[Frame], at: usize, slabs: u32) -> (Journal, Vec<Seen>) {
    let journal = Journal::new(LARGE, &(0..slabs).collect::<Vec<_>>());
    for frame in old {
        journal.put(0, 10, *frame);
    }
    let newest = FrameHeader { session: 1, tail_seq: 38, next: 1, after: 3, ..FrameHeader::default() };
    journal.put_at(1, 39, Frame::small(0), newest);
    let put = (at..at + 50).map(|block| journal.put(0, 40, Frame::small(block))).collect();
    (journal, put)
}

#[test]
fn what_was_written_over_a_large_frame_of_an_earlier_life_is_found_though_the_first_of_it_was_lost() {
    let large = Frame::full(0, 256, 300);
    for slabs in [3, 7, 8, 30] {
        for (old, at) in [
            (vec![large], 1),
            // The lost one was of two blocks, and two headers are left.
            (vec![Frame::small(0), Frame::full(1, 256, 300)], 2),
            (vec![Frame::full(0, 2, 50), Frame::full(2, 256, 300)], 3),
        ] {
            let (journal, put) = hidden_under(&old, at, slabs);
            for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Strict, RecoveryMode::Salvage] {
                let scan = journal.try_scan(mode).expect("scanned");
                let found = seen(&scan).into_iter().find(|s| s.0 == 0).expect("slab 0");
                assert_eq!(found, (0, 40, put.clone()), "{slabs} slabs, {} old frames, {mode:?}", old.len());
            }
        }
        // In the middle of a segment what stands before it tells that it is old.
        let (journal, mut put) = hidden_under(&[Frame::full(5, 256, 300)], 6, slabs);
        put.insert(0, journal.put(0, 40, Frame::full(0, 5, 50)));
        assert_eq!(seen(&journal.scan()).into_iter().find(|s| s.0 == 0).expect("slab 0"), (0, 40, put), "{slabs}");
    }
}

/// The same of a session that was cut off: its frame is of the same segment, and void.
#[test]
fn what_was_written_over_a_frame_that_a_session_cut_off_is_found() {
    for slabs in [3, 8] {
        let journal = Journal::new(LARGE, &(0..slabs).collect::<Vec<_>>());
        let named = FrameHeader { session: 1, tail_seq: 40, next: 2, after: 3, ..FrameHeader::default() };
        let mut put = vec![journal.put_at(0, 40, Frame::small(0), named)];
        let void = journal.put_at(0, 40, Frame::full(1, 100, 300), named);
        let cut = FrameHeader { session: 2, cut: void.1.lsn, ..named };
        put.push(void);
        put.extend((2..20).map(|block| journal.put_at(0, 40, Frame::small(block), cut)));
        // Behind the other's end, so that its session is heard of.
        put.push(journal.put_at(0, 40, Frame::small(101), cut));
        assert_eq!(only(&Journal { disk: journal.disk.clone(), sb: journal.sb.clone() }.scan()), put, "{slabs} slabs");
    }
}

/// Each header in a slab may say that its table reaches to the slab's end: no more is compared than a few times the slab.
#[test]
fn tables_that_lie_over_each_other_are_not_compared_without_end() {
    // All of them together would be terabytes: it would not end.
    let segment = 64 * LARGE;
    let journal = Journal::new(segment, &[0]);
    let blocks = segment / BLOCK;
    for at in 0..blocks {
        let left = blocks - at;
        let header = FrameHeader {
            lsn: (5 * segment + at * BLOCK) as u64,
            session: 1,
            blocks: left as u32,
            table_bytes: (left * BLOCK - FRAME_HEADER_BYTES) as u32,
            ..FrameHeader::default()
        };
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        header.encode(journal.sb.seed(), &mut bytes);
        journal.disk.poke(journal.offset(0, at), &bytes);
    }
    assert_eq!(only(&journal.scan()).len(), blocks);
}
