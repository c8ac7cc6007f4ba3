//! A group of segments: what is read of it, and how often.

use super::*;
use crate::disk::sim::SimDisk;
use crate::sync::Arc;
use crate::{Batch, Placement, Wal};

#[test]
fn a_segment_is_read_in_windows_each_once_and_only_where_something_is_asked_for() {
    const SEGMENT: usize = 64 * WINDOW;
    let offset = POOL_OFFSET + SEGMENT as u64;
    let disk = SimDisk::new(offset + SEGMENT as u64);
    let bytes: Vec<u8> = (0..SEGMENT).map(|i| (i / 7 % 251) as u8).collect();
    disk.poke(offset, &bytes);
    let log: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let readings = Arc::clone(&log);
    disk.on_read(move |at, buf| {
        let at = (at - offset) as usize;
        assert!(at.is_multiple_of(WINDOW) && buf.len().is_multiple_of(WINDOW), "{at} {}", buf.len());
        readings.lock().push((at / WINDOW, buf.len() / WINDOW));
        Ok(())
    });
    let mut source = Source { seq: 1, offset, bytes: AlignedBuf::new(), windows: Vec::new(), wanted: 0..0 };
    // Reads from one window and byte to another; answers what was read for it.
    let mut read = |from: (usize, usize), to: (usize, usize)| {
        let range = from.0 * WINDOW + from.1..to.0 * WINDOW + to.1;
        source.load(&disk, &range, SEGMENT).expect("readable");
        let got = source.get(range.clone()).filter(|got| !got.is_empty());
        assert_eq!(got, bytes.get(range).filter(|bytes| !bytes.is_empty()), "{from:?} {to:?}");
        std::mem::take(&mut *log.lock())
    };
    assert_eq!(read((5, 10), (5, 20)), [(5, 1)]);
    assert_eq!(read((5, 0), (6, 0)), [], "to its end it is there");
    assert_eq!(read((6, 0), (6, 1)), [(6, RUN)], "it follows one that was read");
    assert_eq!(read((6, 0), (6 + RUN, 0)), []);
    assert_eq!(read((0, WINDOW - 1), (1, 1)), [(0, 2)], "in two windows");
    assert_eq!(read((3, 0), (3, 1)), [(3, 1)]);
    assert_eq!(read((1, 7), (6, 7)), [(2, 1), (4, 1)], "only what was not read");
    assert_eq!(read((6 + RUN, 0), (63, 0)), [(6 + RUN, 57 - RUN)], "a run, or all that is wanted");
    assert_eq!(read((63, WINDOW - 1), (64, 0)), [(63, 1)]);
    assert_eq!(read((0, 0), (64, 0)), []);
    assert_eq!([read((63, 0), (64, 1)), read((3, 3), (3, 3))].concat(), [], "beyond the segment, or nothing");
}

#[test]
fn a_group_gives_what_lies_in_its_segments_if_it_is_whose_it_should_be() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("committed");
    }
    let engine = &wal.engine;
    let mut group = Group::new(engine.seq.lock().segments.live.iter().take(2), &engine.geo);
    let (seed, segment) = (engine.geo.seed, engine.geo.segment_bytes);
    let (cell, head) = (engine.registry.get(1).expect("there"), engine.head());
    let mut held = 0;
    for index in 1..=60 {
        let loc = cell.lock().places.loc(index).expect("in the journal");
        let (lsn, seq) = (loc.lsn(head), loc.lsn(head) / segment);
        let holds = group.segments.sources.iter().any(|source| source.seq == seq);
        assert_eq!((group.holds(seq), group.holds_entry(loc)), (holds, holds), "{index}");
        let mut get = |replica, term| {
            let id = EntryId { replica, index, term, len: loc.len() };
            group.segments.load(&*disk, lsn, loc.len());
            match group.segments.get(seed, id, lsn) {
                Stored::Good(bytes, crc) => {
                    assert_eq!(crc, crc32c::crc32c(bytes));
                    Some(bytes.to_vec())
                }
                Stored::Bad => None,
                Stored::Elsewhere => {
                    assert!(!holds, "{index}");
                    None
                }
                Stored::Unread => panic!("{index} was read"),
            }
        };
        assert_eq!(get(1, 1), holds.then(|| vec![index as u8; 3000]), "{index}");
        assert_eq!([get(2, 1), get(1, 2)], [None, None], "another's, or an older one");
        held += u64::from(holds);
    }
    assert!(group.len() == 2 && held > 30 && held < 60, "{held}");
}

const ONE: Pace = Pace { places: 1, bytes: usize::MAX };

#[test]
fn so_much_is_read_at_once_and_one_place_at_least() {
    let pace = Pace { places: 4, bytes: 100 };
    let cases: [(&[usize], usize); 6] =
        [(&[10, 20], 2), (&[50, 50, 1], 2), (&[50, 51], 1), (&[101, 1], 1), (&[1; 9], 4), (&[100], 1)];
    for (lens, expected) in cases {
        assert_eq!(pace.take(lens.iter().copied()), expected, "{lens:?}");
    }
}

/// What is wanted is read in runs, with small gaps between; it is there when it is asked for.
#[test]
fn what_is_wanted_is_read_before_it_is_asked_for_and_nothing_else() {
    const SEGMENT: usize = 16 * WINDOW;
    let disk = SimDisk::new(POOL_OFFSET + 2 * SEGMENT as u64);
    let log: Arc<Mutex<Vec<usize>>> = Arc::default();
    let readings = Arc::clone(&log);
    disk.on_read(move |at, buf| {
        let first = (at - POOL_OFFSET) as usize / WINDOW;
        readings.lock().extend(first..first + buf.len() / WINDOW);
        assert!(buf.len() <= RUN * WINDOW);
        Ok(())
    });
    let source = |seq: u64| Source {
        seq,
        offset: POOL_OFFSET + seq * SEGMENT as u64,
        bytes: AlignedBuf::new(),
        windows: Vec::new(),
        wanted: 0..0,
    };
    let segment_bytes = SEGMENT as u64;
    let mut group = Segments {
        sources: vec![source(0), source(1)],
        segment_bytes,
        lsns: 0..2 * segment_bytes,
        wanted: 0,
        hurt: false,
        unread: None,
    };
    let lsn = |window: usize| (window * WINDOW) as u64;
    for window in [1, 2, 3, 4, 5, 6, 9, 15, 16, 20] {
        group.want(lsn(window), 100);
    }
    group.want(lsn(25) - 50, 100);
    group.want(lsn(32) - 50, 100);
    group.want(lsn(32), 100);
    group.read_wanted(&disk, ONE, |_| ());
    let mut read = std::mem::take(&mut *log.lock());
    read.sort_unstable();
    // The gaps between them are of two windows, five, and three; segments begin at 0 and 16.
    let expected: Vec<usize> = (1..=9).chain(15..=25).collect();
    assert_eq!(read, expected, "what reaches beyond the group is none of it");
    for window in [1, 16, 25] {
        group.load(&disk, lsn(window), 100);
    }
    assert!(log.lock().is_empty(), "it is there");
    group.load(&disk, lsn(12), 100);
    assert_eq!(*log.lock(), [12], "what nobody wanted is read when it is asked for");
    group.want(lsn(29), 100);
    disk.fail_reads(POOL_OFFSET + lsn(29)..POOL_OFFSET + lsn(30), crate::disk::sim::EIO);
    log.lock().clear();
    group.want(lsn(10), 100);
    group.read_wanted(&disk, ONE, |_| ());
    let bytes = |group: &Segments, window: usize| {
        let at = window % 16 * WINDOW;
        group.sources[window / 16].get(at..at + 100).is_some()
    };
    assert!(!bytes(&group, 29), "nothing is made of what could not be read");
    let readings = log.lock().len();
    for window in [10, 29, 13] {
        group.want(lsn(window), 100);
        group.read_wanted(&disk, ONE, |_| ());
        group.load(&disk, lsn(window), 100);
    }
    assert_eq!(log.lock().len(), readings, "from then on each entry is read by itself");
    assert!(bytes(&group, 12) && !bytes(&group, 13), "what was read stays");
}
