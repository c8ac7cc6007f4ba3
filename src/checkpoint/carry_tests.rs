//! What is carried: a few at a time, and never beyond its room.

use super::*;
use crate::disk::sim::SimDisk;
use crate::format::piece::{Extents, PieceDesc, TermRuns};
use crate::index::ChainPiece;
use crate::sync::Arc;
use crate::{Batch, Placement, Wal};

const PIECES: u64 = 300;

/// Appends entries, each of which makes a piece.
fn place(wal: &Wal, replica: u64, indexes: std::ops::Range<u64>) {
    let entries: Vec<_> = indexes.map(|i| (i, 1, [i as u8; 3000])).collect();
    wal.commit(Batch::new().append(replica, &entries)).expect("committed");
}

/// A log with `PIECES` pieces.
fn log() -> (Arc<SimDisk>, Wal) {
    let disk = Arc::new(SimDisk::new(16 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
    let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
    for first in (1..=PIECES).step_by(50) {
        place(&wal, 1, first..first + 50);
    }
    assert_eq!(wal.engine.registry.get(1).expect("there").lock().places.chain().len() as u64, PIECES);
    (disk, wal)
}

/// A group of all segments up to now.
fn group(wal: &Wal) -> Group {
    let last = wal.engine.seq.lock().segments.current();
    let mut value = 0_u64;
    while wal.engine.seq.lock().segments.current() == last {
        value += 1;
        wal.commit(Batch::new().put(2, b"key", &[value as u8; 2000])).expect("committed");
    }
    let s = wal.engine.seq.lock();
    Group::new(s.segments.live.iter().take_while(|live| live.seq <= last), &wal.engine.geo)
}

/// How many descriptors still lie in the group.
fn left(cell: &Cell, group: &Group) -> usize {
    cell.lock().places.chain().iter().filter(|p| group.holds(p.meta_seq)).count()
}

/// Behind the end of a segment lies somebody else's. A frame that nobody has put anything into yet may stand there.
#[test]
fn a_step_that_carries_nothing_has_nothing_written_behind_a_segments_end() {
    const BLOCK: u64 = crate::format::BLOCK_BYTES;
    let disk = Arc::new(SimDisk::new(16 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
    let wal = options.queue_bytes(64 << 10).background(false).open_disk(disk.clone()).expect("formatted");
    let (wal, commit) = (Arc::new(wal), |wal: &Wal, batch: &mut Batch| wal.commit(batch).expect("committed"));
    let engine = &wal.engine;
    // Acknowledged, in chunks behind the journal's slabs.
    let entries: Vec<_> = (1..=20).map(|i| (i, 1, [i as u8; 9000])).collect();
    commit(&wal, Batch::new().append(1, &[(1, 1, b"entry")]).append(5, &entries));
    // On to the journal's last slab, until eleven blocks are left of it.
    let last = engine.superblock.lock().journal_slabs.iter().copied().max().expect("some");
    let behind = crate::format::POOL_OFFSET + (u64::from(last) + 1) * (64 << 10);
    let left = || {
        let s = engine.seq.lock();
        (s.open.offset, s.open.room)
    };
    while left() != (behind - 11 * BLOCK, 11 * BLOCK) {
        commit(&wal, Batch::new().put(2, b"small", &[1]));
    }
    let before = disk.kept_image();
    let ((held, is_held), (go, gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let gone = std::sync::Mutex::new(gone);
    disk.on_event(move |event| {
        if event.len == 11 * BLOCK {
            held.send(()).expect("the test waits");
            gone.lock().expect("no panic").recv().expect("the test lets it go");
        }
        None
    });
    let log = Arc::clone(&wal);
    let fills = std::thread::spawn(move || {
        let mut batch = Batch::new();
        (0..11).for_each(|key| _ = batch.put(2, &[key], &[7; 4000]));
        log.commit(&mut batch)
    });
    is_held.recv().expect("a frame that fills the segment");
    assert_eq!(left(), (behind, 0));
    let cell = engine.registry.get(1).expect("there");
    // As if its pieces in the group were behind thousands elsewhere, or what lay there had been rewritten a moment ago.
    let group = Group::new(engine.seq.lock().segments.live.iter().take(0), &engine.geo);
    assert_eq!(engine.carry_some_metadata(&cell, &group, Rest::All).expect("no error"), Carried::UpTo(None));
    go.send(()).expect("it waits");
    fills.join().expect("no panic").expect("committed");
    // As a caller does that finds the queue full.
    engine.lead_one();
    let (at, after) = (behind as usize, disk.kept_image());
    assert!(before[at..at + 4096] == after[at..at + 4096], "written behind the segment");
    commit(&wal, Batch::new().put(2, b"small", &[2]));
    let report = wal.verify(|_| ()).expect("read");
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_step_that_finds_no_room_has_nothing_written_over_the_superblock() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options().open_disk(disk.clone()).expect("formatted");
    wal.commit(Batch::new().append(1, &[(1, 1, b"entry")])).expect("committed");
    let disk = Arc::new(disk.crash_lost_all());
    let wal = options().open_disk(disk.clone()).expect("opened");
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
    engine.seq.lock().segments.free.clear();
    let before = disk.kept_image();
    assert_eq!(engine.carry_some_metadata(&cell, &group, Rest::All).expect("no error"), Carried::NoRoom);
    wal.sync().expect("nothing is to be written");
    assert!(before[..4096] == disk.kept_image()[..4096], "written over the first superblock");
}

/// Should it ever happen: the log ends, and what lies there stays.
#[test]
fn a_frame_without_a_place_is_not_written() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(disk.clone()).expect("formatted");
    wal.commit(Batch::new().append(1, &[(1, 1, b"entry")])).expect("committed");
    {
        let mut s = wal.engine.seq.lock();
        s.open.room = 0;
        s.open.batches = 1;
    }
    let before = disk.kept_image();
    assert!(matches!(wal.sync(), Err(crate::Error::Poisoned { .. })));
    assert!(before == disk.kept_image());
}

/// Should it ever happen: one piece is then damage, and the log opens.
#[test]
fn no_descriptor_is_written_that_no_opening_would_read() {
    const ENTRIES: u64 = 40;
    let disk = Arc::new(SimDisk::new(16 << 20));
    let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
    let wal = options().background(false).open_disk(disk.clone()).expect("formatted");
    let entries: Vec<_> = (1..=ENTRIES).map(|i| (i, 1, [i as u8; 50])).collect();
    wal.commit(Batch::new().append(1, &entries)).expect("committed");
    let cell = wal.engine.registry.get(1).expect("there");
    assert_eq!(cell.lock().places.chain()[0].desc.last(), ENTRIES);
    let mut group = group(&wal);
    (2..=ENTRIES).for_each(|i| cell.lock().terms.set(i, i, i));
    assert!(wal.engine.clean_group(&mut group).expect("cleaned"));
    wal.commit(Batch::new().put(2, b"key", b"value")).expect("committed");
    drop((cell, wal));
    let wal = options().background(false).open_disk(Arc::new(disk.restart())).expect("opened");
    let lost = crate::Lost::Entries { first: MAX_TERM_RUNS as u64 + 1, last: ENTRIES };
    assert_eq!(wal.damage(), [crate::Damage { replica: 1, lost }]);
    assert_eq!(wal.replica(1).term(MAX_TERM_RUNS as u64).expect("named"), MAX_TERM_RUNS as u64);
}

/// A replica may have hundreds of thousands: callers wait for a few only.
#[test]
fn descriptors_are_carried_a_few_at_a_time_whatever_becomes_of_the_replica_between() {
    let (disk, wal) = log();
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let (mut first, mut last) = (1, PIECES);
    for turn in 0..2 {
        let mut group = group(&wal);
        let (mut rest, mut steps) = (Some(Rest::All), 0);
        while let Some(from) = rest {
            let before = left(&cell, &group);
            let Carried::UpTo(next) = engine.carry_some_metadata(&cell, &group, from).expect("no error") else {
                panic!("there is room")
            };
            let carried = before - left(&cell, &group);
            assert!((1..=64).contains(&carried), "turn {turn}: {carried} in step {steps}");
            (rest, steps) = (next, steps + 1);
            match steps {
                // Some of what was carried, and some of what was not, is truncated, and then overwritten.
                1 => {
                    first += 7;
                    wal.commit(Batch::new().truncate_prefix(1, first)).expect("committed");
                }
                2 => {
                    place(&wal, 1, last - 20..last - 9);
                    last -= 10;
                }
                _ => {}
            }
        }
        assert!(steps > 4, "{steps} steps");
        assert_eq!(left(&cell, &group), 0);
        assert!(engine.clean_group(&mut group).expect("cleaned"));
        engine.seal(Class::Clean).expect("sealed");
    }
    let after = Arc::new(disk.crash_lost_all());
    let wal = Wal::options().background(false).open_disk(after).expect("opened");
    assert_eq!((wal.replica(1).first_index(), wal.replica(1).last_index()), (first, last));
    assert!(wal.damage().is_empty(), "{:?}", wal.damage());
    for i in first..=last {
        assert_eq!(wal.replica(1).entry(i).expect("kept").data, [i as u8; 3000][..]);
    }
}

/// Most descriptors may lie elsewhere: they are passed over a few at a time, too.
#[test]
fn few_descriptors_are_looked_at_while_callers_wait() {
    const MANY: u64 = 10_000;
    let (_, wal) = log();
    let engine = &wal.engine;
    wal.commit(Batch::new().append(9, &[(1, 1, b"entry")])).expect("committed");
    let cell = engine.registry.get(9).expect("there");
    let group = group(&wal);
    let oldest = engine.seq.lock().segments.tail();
    for first in 2..MANY {
        let (id, meta_seq) = (first, if first == 9000 { oldest } else { u64::MAX });
        let (terms, extents) = (TermRuns::new(), Extents::new());
        let desc = PieceDesc { id, first, count: 1, slots: 1, bare: false, bytes: 100, crc: 0, terms, extents };
        assert!(cell.lock().places.set_chain(ChainPiece { desc, meta_seq, mem: None }, 4096));
    }
    assert_eq!(left(&cell, &group), 2, "one of these, and that of the entry");
    let (mut rest, mut steps) = (Some(Rest::All), 0);
    while let Some(from) = rest {
        let carried = engine.carry_some_metadata(&cell, &group, from).expect("no error");
        let Carried::UpTo(next) = carried else { panic!("there is room") };
        let state = cell.lock();
        let [from, to] = [Some(from), next].map(|rest| match rest {
            None => u64::MAX,
            Some(Rest::Pieces(index)) => index,
            Some(_) => 0,
        });
        let looked = state.places.pieces_from(from).take_while(|p| p.desc.first < to);
        assert!((1..=MOST_LOOKED_AT).contains(&looked.count()), "from {from} to {next:?}");
        (rest, steps) = (next, steps + 1);
    }
    assert_eq!((left(&cell, &group), steps), (0, 3));
}

#[test]
fn nothing_more_is_carried_of_a_replica_that_was_removed_between() {
    for anew in [false, true] {
        let (_, wal) = log();
        let cell = wal.engine.registry.get(1).expect("there");
        let group = group(&wal);
        let carried = wal.engine.carry_some_metadata(&cell, &group, Rest::All).expect("no error");
        let Carried::UpTo(Some(from @ Rest::Pieces(index))) = carried else { panic!("{carried:?}") };
        wal.commit(Batch::new().remove(1)).expect("committed");
        if anew {
            place(&wal, 1, 1..index + 50);
        }
        let named = wal.engine.seq.lock().open.table.clone();
        let carried = wal.engine.carry_some_metadata(&cell, &group, from).expect("no error");
        assert_eq!(carried, Carried::UpTo(None));
        assert_eq!(wal.engine.seq.lock().open.table, named, "anew: {anew}");
    }
}

/// The name of key number `n`.
fn key(n: u64) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// A replica may have very many keys: callers wait for a few only, and none is left behind, whichever come and go in between.
#[test]
fn keys_are_carried_a_few_at_a_time_whatever_becomes_of_them_between() {
    const KEYS: u64 = 600;
    let disk = Arc::new(SimDisk::new(16 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(disk.clone()).expect("formatted");
    let mut held = std::collections::BTreeMap::new();
    let put = |held: &mut std::collections::BTreeMap<_, _>, n: u64, byte: u8| {
        // Some of them lie in chunks.
        let value = vec![byte; if n.is_multiple_of(50) { 5000 } else { 100 }];
        wal.commit(Batch::new().put(1, &key(n), &value)).expect("room");
        held.insert(n, value);
    };
    (0..KEYS).for_each(|n| put(&mut held, n, 1));
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let mut group = group(&wal);
    let left = |group: &Group| cell.lock().keys.iter().filter(|e| group.holds(e.seq)).count();
    assert_eq!(left(&group) as u64, KEYS);
    let (mut rest, mut steps, mut fresh) = (Some(Rest::All), 0, KEYS);
    while let Some(from) = rest {
        let before = left(&group);
        let carried = engine.carry_some_metadata(&cell, &group, from).expect("no error");
        let Carried::UpTo(next) = carried else { panic!("there is room") };
        assert!(before - left(&group) <= 64, "{} in step {steps}", before - left(&group));
        (rest, steps) = (next, steps + 1);
        let Some(Rest::Keys(below)) = rest else { continue };
        // The next key to be carried is deleted, one that was carried, and one far off; others are added.
        for i in [below - 1, below, 3] {
            let gone = cell.lock().keys.at(i).expect("there").key.to_vec();
            wal.commit(Batch::new().delete(1, &gone)).expect("room");
            held.retain(|&n, _| key(n) != gone);
        }
        let again = *held.keys().next().expect("some");
        put(&mut held, again, 2);
        (fresh..fresh + 2).for_each(|n| put(&mut held, n, 3));
        fresh += 2;
    }
    assert!(steps > 10, "{steps} steps");
    assert_eq!(left(&group), 0);
    assert!(engine.clean_group(&mut group).expect("cleaned"));
    engine.seal(Class::Clean).expect("sealed");
    let after = Arc::new(disk.crash_lost_all());
    let wal = Wal::options().background(false).open_disk(after).expect("opened");
    assert!(wal.damage().is_empty(), "{:?}", wal.damage());
    assert_eq!(wal.replica(1).keys().len(), held.len());
    for (n, value) in held {
        assert!(wal.replica(1).get(&key(n)).expect("sound").as_deref() == Some(&value[..]), "key {n}");
    }
}

/// Most keys may have been rewritten: they are passed over a few at a time, too.
#[test]
fn few_keys_are_looked_at_while_callers_wait() {
    const MANY: u64 = 3 * MOST_LOOKED_AT as u64;
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(16 << 20))).expect("formatted");
    wal.commit(Batch::new().put(1, b"key", b"value")).expect("room");
    let (engine, group) = (&wal.engine, group(&wal));
    let cell = engine.registry.get(1).expect("there");
    let elsewhere = engine.seq.lock().segments.current();
    (1..MANY).for_each(|n| cell.lock().keys.put(&key(n), b"value", elsewhere, &mut Vec::new()));
    let mut rest = Some(Rest::All);
    for below in [MANY - MOST_LOOKED_AT as u64, MANY - 2 * MOST_LOOKED_AT as u64] {
        let carried = engine.carry_some_metadata(&cell, &group, rest.expect("left")).expect("no error");
        rest = Some(Rest::Keys(below as usize));
        assert_eq!(carried, Carried::UpTo(rest));
    }
    let carried = engine.carry_some_metadata(&cell, &group, rest.expect("left")).expect("no error");
    assert_eq!(carried, Carried::UpTo(None));
    assert!(!cell.lock().has_metadata_in(|seq| group.holds(seq)), "the first of all");
}
