//! Entries on their way into chains: what fails meanwhile, what is damaged, what others write between.

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{EIO, EventKind, Fault, SimDisk};
use crate::error::Error;
use crate::space::{Demand, Held, Pledge};
use crate::{Batch, Placement, Wal};

const ENTRIES: u64 = 21;

/// Some entries in the journal, each of which makes a piece; and the group in which they lie.
fn log() -> (Arc<SimDisk>, Wal, Moving, Group) {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
    for i in 1..=ENTRIES {
        wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("committed");
    }
    let group = Group::new(wal.engine.seq.lock().segments.live.iter(), &wal.engine.geo);
    let moving = moving(&wal, ENTRIES);
    (disk, wal, moving, group)
}

/// Those of the first replica's entries, up to `last`, that lie in the journal.
fn moving(wal: &Wal, last: u64) -> Moving {
    let cell = wal.engine.registry.get(1).expect("there");
    let (incarnation, entries) = {
        let state = cell.lock();
        let seen = |index| state.places.loc(index).map(|loc| Seen { index, term: 1, loc });
        (state.incarnation, (1..=last).filter_map(seen).collect())
    };
    Moving { cell, incarnation, entries, tail: None }
}

/// As if the cleaner were about to settle what the replica has.
fn pledge(state: &mut ReplicaState) {
    state.pledge = Some(Box::new(Pledge::new(Held::default(), Demand::default(), None)));
}

/// Whatever ends the log, the books are right: the space of pieces that nobody owns is free again.
#[test]
fn a_cleaner_that_fails_leaves_the_books_in_order() {
    let (disk, wal, _, _) = log();
    disk.on_event(|event| (event.kind == EventKind::Flush).then_some(Fault::Error(EIO)));
    let told = wal.checkpoint();
    assert!(matches!(told, Err(Error::Poisoned { .. })), "{told:?}");
    let report = wal.verify(|_| ()).expect("read");
    assert!(report.accounting.is_empty(), "{report:?}");
}

#[test]
fn pieces_that_are_written_when_the_log_has_ended_give_their_space_back() {
    let (_, wal, moving, mut group) = log();
    let engine = &wal.engine;
    pledge(&mut moving.cell.lock());
    let (mut placed, mut short) = (Vec::new(), false);
    engine.pack_and_write(vec![moving], &mut group, &mut placed, &mut short).expect("written");
    engine.stop(&Error::Closed, None);
    for (moving, pieces) in placed {
        assert!(pieces.len() == ENTRIES as usize, "each in a record of its own, or nearly");
        assert!(matches!(engine.link_settled(&moving, pieces), Err(Error::Closed)));
        assert!(moving.cell.lock().pledge.is_none());
    }
    let report = wal.verify(|_| ()).expect("read");
    assert!(report.accounting.is_empty(), "{report:?}");
}

/// One after the other, or several at once: every piece is there, and durable before it is named.
#[test]
fn pieces_are_written_in_a_hurry_and_in_none() {
    for hurried in [false, true] {
        let (disk, wal, moving, mut group) = log();
        group.hurried = hurried;
        let before = disk.events() as usize;
        assert!(wal.engine.settle(vec![moving], &mut group).expect("settled"));
        let events = disk.log().split_off(before);
        let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
        let expected = [vec![EventKind::Write; ENTRIES as usize], vec![EventKind::Flush]].concat();
        assert_eq!(kinds, expected, "hurried {hurried}");
        let after = disk.crash_kept_all();
        for i in 1..=ENTRIES {
            assert_eq!(wal.replica(1).entry(i).expect("settled").data, [i as u8; 3000][..]);
            assert!(wal.engine.registry.get(1).expect("there").lock().places.loc(i).is_none());
        }
        drop(wal);
        let wal = Wal::options().background(false).open_disk(Arc::new(after)).expect("opened");
        assert_eq!(wal.replica(1).last_index(), ENTRIES);
    }
}

/// Whichever write fails, in its turn or last: the log is given up, nothing is named, and nothing more is written but what was begun with
/// it.
#[test]
fn a_piece_that_cannot_be_written_ends_the_log() {
    for hurried in [false, true] {
        for nth in 0..ENTRIES {
            let (disk, wal, moving, mut group) = log();
            group.hurried = hurried;
            let (before, used) = (disk.events(), wal.engine.pool.lock().used());
            disk.fail_at(before + nth, Fault::Error(EIO));
            let refused = wal.engine.settle(vec![moving], &mut group);
            assert!(matches!(refused, Err(Error::Poisoned { .. })), "write {nth}: {refused:?}");
            let together = if hurried { AT_ONCE } else { GENTLY } as u64;
            let written = disk.events() - before;
            assert!((nth + 1..=nth + together).contains(&written), "write {nth} of {written}");
            assert_eq!(wal.engine.pool.lock().used(), used, "write {nth}: chunks are lost");
            assert!(wal.engine.registry.get(1).expect("there").lock().places.chain().is_empty());
            assert!(matches!(
                wal.commit(Batch::new().append(1, &[(ENTRIES + 1, 1, b"x")])),
                Err(Error::Poisoned { .. })
            ));
        }
    }
}

/// A piece written before the failed flush would be lost, and a flush that succeeds does not bring it back.
#[test]
fn pieces_are_named_by_no_flush_behind_one_that_failed() {
    let (disk, wal, moving, mut group) = log();
    disk.fail_at(disk.events(), Fault::Error(EIO));
    wal.engine.flush(None).expect_err("that of a frame fails");
    let syncs = disk.syncs();
    let refused = wal.engine.settle(vec![moving], &mut group);
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    assert_eq!(disk.syncs(), syncs, "the device was asked again");
    assert!(wal.engine.registry.get(1).expect("there").lock().places.chain().is_empty());
}

/// Found by a scrub while it was being moved, say: the entries behind it in the piece have no other place once their segment is free.
#[test]
fn what_stands_behind_an_entry_that_was_found_damaged_is_moved() {
    let (_, wal, moving, _) = log();
    let cell = Arc::clone(&moving.cell);
    let mut s = wal.engine.seq.lock();
    let mut state = cell.lock();
    assert_eq!(still_standing(&state, &moving.entries), ENTRIES as usize);
    pledge(&mut state);
    for damaged in [4, 1, ENTRIES] {
        wal.engine.forget_damaged(&mut s, 1, &mut state, damaged);
        assert_eq!(still_standing(&state, &moving.entries), ENTRIES as usize, "entry {damaged}");
    }
    drop((s, state));
    wal.commit(Batch::new().truncate_suffix(1, 9)).expect("committed");
    assert_eq!(still_standing(&cell.lock(), &moving.entries), 8, "what was cut does not stand");
}

/// The new entry that was damaged lies in a piece, or lay in the journal, of a later term or of the same.
#[test]
fn what_was_overwritten_does_not_stand_by_the_damage_of_what_is_there_now() {
    const LOST: u64 = 5;
    for (placement, term) in [(Placement::Chain, 1), (Placement::Journal, 2), (Placement::Journal, 1)] {
        let (disk, wal, moving, _) = log();
        wal.sync().expect("durable");
        drop(wal);
        let options = Wal::options().background(false).placement(placement);
        let wal = options.open_disk(Arc::new(disk.crash_lost_all())).expect("opened");
        let cell = wal.engine.registry.get(1).expect("there");
        pledge(&mut cell.lock());
        let again: Vec<_> = (LOST..LOST + 4).map(|i| (i, term, [0xee; 3000])).collect();
        wal.commit(Batch::new().append(1, &again)).expect("committed");
        let mut s = wal.engine.seq.lock();
        let mut state = cell.lock();
        assert_eq!(state.places.chain().is_empty(), placement == Placement::Journal);
        wal.engine.forget_damaged(&mut s, 1, &mut state, LOST);
        assert_eq!(still_standing(&state, &moving.entries), LOST as usize - 1, "{placement:?}");
    }
}

/// The same after a snapshot that goes back behind them.
#[test]
fn what_a_snapshot_took_does_not_stand_by_the_damage_of_what_is_there_now() {
    let (_, wal, moving, _) = log();
    let cell = Arc::clone(&moving.cell);
    pledge(&mut cell.lock());
    let again: Vec<_> = (1..=ENTRIES).map(|i| (i, 1, [0xee; 30])).collect();
    wal.commit(Batch::new().install_snapshot(1, 0, 0).append(1, &again)).expect("committed");
    let (mut s, mut state) = (wal.engine.seq.lock(), cell.lock());
    assert_eq!((state.incarnation, state.first), (moving.incarnation, 1));
    wal.engine.forget_damaged(&mut s, 1, &mut state, 1);
    assert_eq!(still_standing(&state, &moving.entries), 0);
}

/// The frame that names the piece may be durable when the CORE that tells of the damage is not.
#[test]
fn what_was_overwritten_while_it_was_settled_does_not_come_back_at_an_opening() {
    const LOST: u64 = 11;
    let (disk, wal, moving, mut group) = log();
    let engine = &wal.engine;
    let cell = Arc::clone(&moving.cell);
    pledge(&mut cell.lock());
    let (mut short, mut written) = (false, Vec::new());
    let packed = engine.place_pieces(&moving, &mut group, &mut short, &mut |piece| written.push(piece));
    let packed = packed.expect("packed");
    engine.write_pieces(&written).expect("written");
    disk.flush().expect("flushed");
    wal.commit(Batch::new().append(1, &[(LOST, 1, [0xee; 3000])])).expect("committed");
    {
        let mut s = engine.seq.lock();
        engine.forget_damaged(&mut s, 1, &mut cell.lock(), LOST);
    }
    assert!(engine.link_settled(&moving, packed).expect("nothing went wrong"));
    wal.sync().expect("durable");
    let after = disk.crash_lost_all();
    let wal = Wal::options().background(false).open_disk(Arc::new(after)).expect("opened");
    assert_eq!(wal.replica(1).last_index(), LOST);
    let newest = wal.replica(1).entry(LOST).expect("the disk has it").data;
    assert_eq!(newest[..4], [0xee; 4], "the entry that was overwritten is back");
}

/// If it were named in the log all the same, it would one day come before the newer piece, when that one's descriptor was carried on behind
/// it: an opening would then take both of them for lost.
#[test]
fn a_piece_that_overlaps_a_newer_one_is_named_nowhere() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(64 << 10).direct_threshold(8 << 10);
    let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
    let engine = &wal.engine;
    let entries = |byte: u8, len: usize| (1..=10).map(|i| (i, 1, vec![byte; len])).collect::<Vec<_>>();
    wal.commit(Batch::new().append(1, &entries(1, 300))).expect("committed");
    let cell = engine.registry.get(1).expect("there");
    let free = engine.pool.lock().free();

    // The cleaner reads them, and writes them to a chunk.
    let moving = moving(&wal, 10);
    let mut group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
    let (mut short, mut written) = (false, Vec::new());
    let packed = engine.place_pieces(&moving, &mut group, &mut short, &mut |piece| written.push(piece));
    let packed = packed.expect("packed");
    engine.write_pieces(&written).expect("written");
    disk.flush().expect("flushed");
    assert_eq!((packed.len(), packed[0].desc.count, short), (1, 10, false));
    assert_eq!(engine.pool.lock().free(), free - 1);

    // Meanwhile they are overwritten in chunks, and the first of the new entries rots.
    wal.commit(Batch::new().append(1, &entries(2, 2000))).expect("committed");
    assert_eq!(cell.lock().places.chain().len(), 1);
    let placed = cell.lock().places.chain()[0].meta_seq;
    {
        let mut s = engine.seq.lock();
        engine.forget_damaged(&mut s, 1, &mut cell.lock(), 1);
    }
    engine.record_damage_of(&cell).expect("durable");
    let mut other = 0;
    while engine.seq.lock().segments.current() == placed {
        other += 1;
        wal.commit(Batch::new().append(2, &[(other, 1, [3; 3000])])).expect("committed");
    }

    let named = engine.seq.lock().open.table.clone();
    assert!(engine.link_settled(&moving, packed).expect("nothing went wrong"));
    assert_eq!(engine.seq.lock().open.table, named, "the log names it");
    assert_eq!(engine.pool.lock().free(), free - 1, "its chunk, and that of the newer one");

    // The newer pieces' descriptor is carried on, behind the place where the older piece would have been linked.
    let mut group = {
        let s = engine.seq.lock();
        Group::new(s.segments.live.iter().take_while(|live| live.seq <= placed), &engine.geo)
    };
    assert!(engine.clean_group(&mut group).expect("cleaned"));
    engine.seal(Class::Clean).expect("sealed");
    assert!(cell.lock().places.chain()[0].meta_seq > placed);
    let after = Arc::new(disk.crash_lost_all());
    let wal = Wal::options().background(false).open_disk(after).expect("opened");
    assert!(matches!(wal.replica(1).entry(1), Err(Error::Damaged(_))));
    for i in 2..=10 {
        assert_eq!(wal.replica(1).entry(i).expect("acknowledged, and whole").data, [2; 2000][..]);
    }
}

/// A piece may still hold the damaged entry: a reader is told, and gets what lies around it.
#[test]
fn a_damaged_entry_in_a_piece_is_told_and_never_shown() {
    let (_, wal, _, mut group) = log();
    wal.commit(Batch::new().remove(1)).expect("committed");
    let entries: Vec<_> = (1..=9).map(|i| (i, 1, [i as u8; 300])).collect();
    wal.commit(Batch::new().append(1, &entries)).expect("committed");
    let cell = wal.engine.registry.get(1).expect("there");
    assert!(wal.engine.settle(vec![moving(&wal, 9)], &mut group).expect("settled"));
    assert_eq!(cell.lock().places.chain().len(), 1);
    cell.lock().add_damage(4, 5);
    let read = |from| wal.replica(1).entries(from..10, usize::MAX);
    let indexes = |from| read(from).expect("readable").iter().map(|e| e.index).collect::<Vec<_>>();
    assert_eq!((indexes(1), indexes(3), indexes(6)), (vec![1, 2, 3], vec![3], vec![6, 7, 8, 9]));
    for lost in [4, 5] {
        assert!(matches!(read(lost), Err(Error::Damaged(_))), "{:?}", read(lost));
    }
}

#[test]
fn what_is_linked_in_portions_is_charged_once() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let options = options.journal_cap(16 << 20).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(64 << 20))).expect("formatted");
    for i in 1..=300 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
    }
    let engine = &wal.engine;
    let mut group = {
        let s = engine.seq.lock();
        Group::new(s.segments.live.iter().take(s.segments.live.len() - 1), &engine.geo)
    };
    let cell = engine.registry.get(1).expect("there");
    let (moving, _) = engine.alive_in(&group, cell, 0).expect("alive");
    let (mut placed, mut short) = (Vec::new(), false);
    engine.pack_and_write(vec![moving], &mut group, &mut placed, &mut short).expect("written");
    let (moving, mut pieces) = placed.pop().expect("one");
    let carried = || engine.seq.lock().accounts.carried();
    let before = carried();
    let mut rest = pieces.split_off(200);
    assert!(engine.link_some(&moving, pieces, &mut rest).expect("linked"));
    // The replica is priced anew in between.
    wal.commit(Batch::new().truncate_prefix(1, 2)).expect("room");
    let between = carried();
    assert!(engine.link_settled(&moving, rest).expect("linked"));
    let after = carried();
    assert!(between <= before, "{before} before, {between} between, {after} after");
}

/// However many pieces there are: all of them at once need not fit a segment.
#[test]
fn more_pieces_than_a_segment_can_name_are_linked() {
    const MANY: u64 = 700;
    let disk = Arc::new(SimDisk::new(64 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.journal_cap(16 << 20).background(false).open_disk(disk.clone()).expect("formatted");
    for i in 1..=MANY {
        wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("room");
    }
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let moving = moving(&wal, MANY);
    assert!(moving.entries.len() * 112 > 64 << 10, "{}", moving.entries.len());
    let mut group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
    let free = || engine.seq.lock().segments.free.len();
    let before = free();
    assert!(engine.settle(vec![moving], &mut group).expect("settled"), "there was room");
    assert!(before - free() <= 2, "{before} segments were free, {} are", free());
    assert!(cell.lock().places.spans().len() == 0 && cell.lock().pledge.is_none());
    // A request that no segment can hold is refused without taking one.
    let before = free();
    let mut s = engine.seq.lock();
    for _ in 0..3 {
        assert!(!s.make_room(0, 64 << 10, Class::Clean, &engine.segment_map));
    }
    drop(s);
    assert_eq!(free(), before);
    for i in 1..=MANY {
        assert_eq!(wal.replica(1).entry(i).expect("settled").data, [i as u8; 3000][..]);
    }
    wal.sync().expect("durable");
    let after = disk.crash_lost_all();
    drop(wal);
    let wal = Wal::options().background(false).open_disk(Arc::new(after)).expect("opened");
    assert!(wal.damage().is_empty());
    assert_eq!(wal.replica(1).entry(MANY).expect("settled").data, [MANY as u8; 3000][..]);
}
