//! One cleaning after the other: what is taken together, read, written down, given back.

use super::*;
use crate::disk::sim::SimDisk;
use crate::journal::RESERVED_SEGMENTS;
use crate::sync::Arc;
use crate::{Batch, Wal};

fn log() -> Wal {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted")
}

fn fill(wal: &Wal, batches: u64) {
    for i in 1..=batches {
        wal.commit(Batch::new().append(1, &[(i, 1, [7; 3000])])).expect("committed");
    }
}

/// All of a group may be alive, and must find a place before any of it is freed.
#[test]
fn as_many_segments_are_cleaned_together_as_there_is_room_for() {
    let wal = log();
    fill(&wal, 60);
    let engine = &wal.engine;
    let taken = |free: usize| {
        // Which slabs they are does not matter here.
        let kept = std::mem::replace(&mut engine.seq.lock().segments.free, (0..free as u32).collect());
        let group = engine.next_group(&|_| true).map(|(group, _)| group.len());
        engine.seq.lock().segments.free = kept;
        group
    };
    assert!(engine.seq.lock().segments.live.len() > 3);
    assert_eq!([0, RESERVED_SEGMENTS, RESERVED_SEGMENTS + 1].map(taken), [Some(1); 3], "one there must be");
    assert_eq!([2, 3].map(|n| taken(RESERVED_SEGMENTS + n)), [Some(2), Some(3)]);
}

/// In a journal of any size, the cleaner gets room for a group, begins before appends wait, and can end.
#[test]
fn appends_leave_room_for_a_group_and_never_what_cleaning_cannot_gain() {
    let wal = log();
    fill(&wal, 1);
    let mut s = wal.engine.seq.lock();
    let live = s.segments.live.len();
    for total in live..600 {
        s.segments.free = (0..(total - live) as u32).collect();
        let (reserved, leaves, low) = (s.reserved(), s.leaves(Class::Grow), s.low_water());
        let gain = total.saturating_sub(reserved + s.accounts.filled());
        let share = if total < 32 { 0 } else { total / 8 };
        assert_eq!(leaves - reserved, (gain / 8).min(share).min(s.together()), "of {total}");
        assert!(low > leaves && low - reserved <= (gain / 2).max(1), "of {total}: {low}, {leaves}, {reserved}");
    }
    assert!(s.leaves(Class::Grow) > s.leaves(Class::Keep) + 60, "what frees does not wait for what gathers");
}

/// Hardly anything is read of a segment that is nearly dead; what is read is right wherever it lies.
#[test]
fn only_what_is_alive_of_a_segment_is_read() {
    let disk = Arc::new(SimDisk::new(32 << 20));
    let options = Wal::options().segment_size(1 << 20).chunk_size(64 << 10).placement(crate::Placement::Journal);
    let wal = options.recent_bytes(1 << 20).background(false).open_disk(disk.clone()).expect("formatted");
    let data = |replica: u64| vec![replica as u8; 3000 + 7001 * replica as usize % 20_000];
    // Two replicas live on whole; the others are truncated by what follows.
    for index in 1..=12 {
        for replica in 1..=100_u64 {
            let first = if replica.is_multiple_of(50) { 1 } else { index };
            wal.commit(Batch::new().append(replica, &[(index, 1, data(replica))]).truncate_prefix(replica, first))
                .expect("committed");
        }
    }
    let alive = |replica: u64| (if replica.is_multiple_of(50) { 1 } else { 12 })..=12;
    let bytes: u64 = (1..=100).flat_map(|r| alive(r).map(move |_| data(r).len() as u64)).sum();
    let before = disk.bytes_read();
    wal.checkpoint().expect("cleaned");
    let read = disk.bytes_read() - before;
    let stats = wal.stats();
    assert!(stats.carried_entries + stats.settled_entries > 0 && read > 0);
    assert!(read < bytes * 3, "{read} bytes read for {bytes} that are alive");
    for replica in 1..=100_u64 {
        for index in alive(replica) {
            assert_eq!(wal.replica(replica).entry(index).expect("alive").data, data(replica));
        }
    }
}

/// A sector that went bad under what is dead by now must not keep the segment for ever.
#[test]
fn what_cannot_be_read_and_nobody_needs_is_left_behind() {
    let disk = Arc::new(SimDisk::new(32 << 20));
    let options = Wal::options().segment_size(1 << 20).chunk_size(64 << 10).placement(crate::Placement::Journal);
    let wal = options.recent_bytes(1 << 20).background(false).open_disk(disk.clone()).expect("formatted");
    // Every fifth entry will be dead.
    for index in 1..=100_u64 {
        for replica in 1..=5_u64 {
            wal.commit(Batch::new().append(replica, &[(index, 1, vec![replica as u8; 4000])])).expect("room");
        }
    }
    let engine = &wal.engine;
    let dead = engine.registry.get(5).expect("there").lock().places.loc(10).expect("in the journal");
    let lsn = dead.lsn(engine.head());
    let slab = engine.seq.lock().segments.live.iter().find(|l| l.seq == lsn >> 20).expect("live").slab;
    let offset = crate::format::POOL_OFFSET + u64::from(slab) * (1 << 20) + lsn % (1 << 20);
    wal.commit(Batch::new().truncate_prefix(5, 101)).expect("room");
    let before = wal.stats().settled_entries;
    disk.fail_reads(offset + 500..offset + 3000, crate::disk::sim::EIO);
    wal.checkpoint().expect("cleaned");
    disk.heal_reads();
    assert!(wal.stats().settled_entries > before + 150, "what lies in the segment beside it");
    for (replica, index) in (1..5).flat_map(|r| (1..=100).map(move |i| (r, i))) {
        assert_eq!(wal.replica(replica).entry(index).expect("kept").data, vec![replica as u8; 4000]);
    }
}

/// Whether it is read with its neighbours or by itself: the cleaner is told, and nothing is called damaged that only cannot be read.
#[test]
fn what_cannot_be_read_and_is_needed_stops_the_cleaner_until_it_can() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
    let wal = options.recent_bytes(1 << 20).background(false).open_disk(disk.clone()).expect("formatted");
    fill(&wal, 60);
    let engine = &wal.engine;
    let loc = engine.registry.get(1).expect("there").lock().places.loc(5).expect("in the journal");
    let offset = {
        let s = engine.seq.lock();
        let (lsn, first) = (loc.lsn(engine.head()), s.segments.live.front().expect("a segment"));
        assert_eq!(lsn >> 16, first.seq);
        crate::format::POOL_OFFSET + u64::from(first.slab) * (64 << 10) + lsn % (64 << 10)
    };
    disk.fail_reads(offset + 100..offset + 101, crate::disk::sim::EIO);
    let told = wal.checkpoint();
    assert!(matches!(&told, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(crate::disk::sim::EIO)));
    disk.heal_reads();
    assert_eq!(wal.replica(1).entry(5).expect("not damaged").data, [7; 3000][..]);
    wal.checkpoint().expect("cleaned");
    assert_eq!(wal.replica(1).entry(5).expect("settled").data, [7; 3000][..]);
}

/// Even if the cleaning that found it failed, and the next one cleans other segments.
#[test]
fn damage_that_a_cleaning_found_is_written_down_before_what_shows_it_is_gone() {
    let options = || {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096);
        options.placement(crate::Placement::Journal).recent_bytes(1 << 20).background(false)
    };
    let fill = |wal: &Wal, from: u64| {
        for i in from..from + 12 {
            wal.commit(Batch::new().append(2, &[(i, 1, [7; 6000])]).truncate_prefix(2, i)).expect("room");
        }
    };
    let append = |wal: &Wal, index| wal.commit(Batch::new().append(1, &[(index, 1, [9; 50])])).expect("room");
    let group = |wal: &Wal, n| Group::new(wal.engine.seq.lock().segments.live.iter().take(n), &wal.engine.geo);
    let clean = |wal: &Wal, segments: usize| {
        assert!(wal.engine.clean_group(&mut group(wal, segments)).expect("cleaned"));
        wal.engine.seal(Class::Clean).expect("sealed");
    };
    for fails in [false, true] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = options().open_disk(disk.clone()).expect("formatted");
        append(&wal, 1);
        for (from, index) in [(1, None), (13, None), (25, Some(2)), (37, None)] {
            fill(&wal, from);
            index.map(|index| append(&wal, index));
        }
        // So that nothing of it is in memory any more.
        wal.sync().expect("written");
        let disk = Arc::new(disk.crash_lost_all());
        drop(wal);
        let wal = options().open_disk(disk.clone()).expect("opened");
        let (engine, cell) = (&wal.engine, wal.engine.registry.get(1).expect("there"));
        let segment_of = |loc: crate::index::Loc| loc.lsn(engine.head()) >> 16;
        let loc = cell.lock().places.loc(2).expect("in the journal");
        // Its CORE is further on than the entry, which lies in the segment behind the oldest.
        while engine.seq.lock().segments.tail() + 1 < segment_of(loc) {
            clean(&wal, 1);
        }
        let (core, incarnation) = {
            let state = cell.lock();
            (state.core_seq, state.incarnation)
        };
        let slab = engine.seq.lock().segments.live.get(1).expect("two").slab;
        assert!(core > segment_of(loc), "segment {core} holds the CORE");
        let at = crate::format::POOL_OFFSET + u64::from(slab) * (64 << 10) + loc.lsn(engine.head()) % (64 << 10);
        disk.flip_bit(at + 20, 3);
        if fails {
            let entries = vec![moving::Seen { index: 2, term: 1, loc }];
            let moving = moving::Moving { cell: Arc::clone(&cell), incarnation, entries, tail: None };
            assert!(engine.payloads(&moving, &mut group(&wal, 2)).expect("readable").is_empty());
            // Then something else goes wrong: the damage found is not carried with this group.
        }
        // One segment at a time, or two, until everything that told of the replica is long gone.
        for round in 0..8 {
            clean(&wal, if fails { 1 } else { 2 });
            fill(&wal, 49 + 12 * round);
        }
        let damaged = |wal: &Wal| matches!(wal.replica(1).entry(2), Err(Error::Damaged(_)));
        assert!(damaged(&wal) && wal.replica(1).entry(1).is_ok());
        let after = Arc::new(disk.crash_lost_all());
        drop(wal);
        let wal = options().open_disk(after).expect("opened");
        assert!(damaged(&wal), "fails {fails}: {:?}", wal.replica(1).entry(2));
        assert_eq!(wal.replica(1).entry(1).expect("kept").data, [9; 50][..], "fails {fails}");
    }
}

/// The frame that carries a value is not the one that brought it: rot of the old piece is that value's, and no reason to end the log before
/// what others have in that frame.
#[test]
fn a_rotten_value_that_is_carried_takes_nobody_elses_acknowledged_entry_along() {
    let options = || {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096);
        options.placement(crate::Placement::Journal).background(false)
    };
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = options().open_disk(disk.clone()).expect("formatted");
    wal.commit(Batch::new().put(1, b"big", &[7; 9000])).expect("room");
    for i in 1..=40 {
        wal.commit(Batch::new().append(2, &[(i, 1, [7; 3000])]).truncate_prefix(2, i)).expect("room");
    }
    let engine = &wal.engine;
    let at = {
        let cell = engine.registry.get(1).expect("there");
        let state = cell.lock();
        let Some(crate::index::Value::Out(piece)) = state.keys.get(b"big") else { panic!("it lies in a piece") };
        piece.desc.extents[0].offset()
    };
    let mut group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    drop(wal.submit(Batch::new().append(3, &[(1, 1, b"acked")]).lazy()).expect("room"));
    let frame = engine.seq.lock().open.lsn;
    assert!(engine.clean_group(&mut group).expect("cleaned"));
    wal.sync().expect("acknowledged");
    let carried_in = engine.registry.get(1).expect("there").lock().listed_frame;
    assert_eq!(carried_in, frame, "the very frame that the entry is in, and no later one says that it is durable");
    let medium = disk.restart();
    let lost = |error: &Error| matches!(error, Error::Damaged(d) if d.lost == crate::Lost::State && d.replica == 1);
    // A bit of it is wrong.
    let rotten = Arc::new(medium.restart());
    rotten.flip_bit(at + 4100, 0);
    let wal = options().open_disk(rotten).expect("opened");
    assert_eq!(wal.replica(3).entry(1).expect("acknowledged").data, b"acked"[..]);
    assert_eq!(wal.stats().dropped_frames, 0);
    let read = wal.replica(1).get(b"big").expect_err("rotten");
    assert!(lost(&read), "{read}");
    assert_eq!(wal.verify(|_| ()).expect("readable").damage.len(), 1);
    let mut scrubbed = Vec::new();
    let scrub = wal.scrub(u64::MAX, |one| {
        scrubbed.extend(one.damage.iter().map(|d| d.replica));
        std::ops::ControlFlow::Continue(())
    });
    scrub.expect("readable");
    assert_eq!(scrubbed, [1]);
    // It cannot be read.
    let unreadable = Arc::new(medium.restart());
    unreadable.fail_reads(at..at + 1, crate::disk::sim::EIO);
    let wal = options().open_disk(unreadable.clone()).expect("opened");
    assert_eq!(wal.replica(3).entry(1).expect("acknowledged").data, b"acked"[..]);
    assert!(matches!(wal.replica(1).get(b"big"), Err(Error::Io { .. })));
    unreadable.heal_reads();
    assert_eq!(wal.replica(1).get(b"big").expect("whole").as_deref(), Some(&[7; 9000][..]));
}

/// The record of a move that finds no segment is not squeezed into the frame that is open.
#[test]
fn what_was_settled_without_room_for_the_record_is_given_back() {
    let wal = log();
    fill(&wal, 3);
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let loc = cell.lock().places.loc(1).expect("in the journal");
    let (entries, incarnation) = (vec![moving::Seen { index: 1, term: 1, loc }], cell.lock().incarnation);
    let moving = moving::Moving { cell: Arc::clone(&cell), incarnation, entries, tail: None };
    let mut group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
    let kept = {
        let mut s = engine.seq.lock();
        // Not a byte fits the rest of the segment, and there is no other.
        let at = s.open.lsn;
        s.open.move_to(at, 0, 0);
        std::mem::take(&mut s.segments.free)
    };
    let (used, table) = (engine.pool.lock().used(), engine.seq.lock().open.table.len());
    assert!(!engine.settle(vec![moving], &mut group).expect("no error"), "there was no room");
    assert_eq!((engine.pool.lock().used(), engine.seq.lock().open.table.len()), (used, table));
    assert!(cell.lock().places.loc(1).is_some(), "it stays where it was");
    engine.seq.lock().segments.free = kept;
}

/// A close waits for the group that is being cleaned; the disk is let go behind it.
#[test]
fn no_group_is_begun_in_a_log_that_was_closed() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(disk.clone()).expect("formatted");
    fill(&wal, 60);
    wal.close().expect("closed");
    let events = disk.events();
    let refused = wal.engine.clean_oldest(u64::MAX, &mut Oldest::default());
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert_eq!(disk.events(), events);
}

/// If it were rewritten before that, and the power went, the log would begin with a segment that is not there.
#[test]
fn a_cleaned_segment_is_free_when_a_durable_frame_names_the_next_one_and_not_before() {
    let wal = log();
    for i in 1..=20 {
        wal.commit(Batch::new().append(1, &[(i, 1, [7; 6000])]).truncate_prefix(1, i)).expect("committed");
    }
    let engine = &wal.engine;
    let oldest = engine.seq.lock().segments.live.front().expect("a segment").slab;
    let free = || engine.seq.lock().segments.free.contains(&oldest);
    let mut group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    assert!(
        engine.clean_group(&mut group).expect("cleaned") && !free(),
        "the newest durable frame names it as the tail"
    );
    let before = engine.durable();
    engine.seal(Class::Clean).expect("sealed");
    assert!(engine.durable() > before && free());
}

/// Entries, keys, a CORE and descriptors: none lies before the segment remembered for its replica, and each is found when the cleaner comes
/// there.
#[test]
fn what_is_remembered_is_no_later_than_anything_the_replica_has() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(16 << 20))).expect("formatted");
    let (mut learned, mut left_out) = (0, 0);
    for round in 1..=3000_u64 {
        let mut batch = Batch::new();
        for replica in 1..=4 {
            batch.append(replica, &[(round, 1, vec![replica as u8; 500])]).truncate_prefix(replica, round);
        }
        match round % 97 {
            // It keeps one entry for a while, beside a key.
            7 => drop(batch.append(5, &[(round / 97 + 1, 1, [5; 900])]).put(6, b"k", &round.to_le_bytes())),
            60 => drop(batch.truncate_prefix(5, round / 97 + 2)),
            // It is removed for a while, and then another life begins under its number.
            20 => drop(batch.remove(7)),
            90 => drop(batch.append(7, &[(1, 1, [7; 900])])),
            _ => {}
        }
        wal.commit(&mut batch).expect("room");
        let engine = &wal.engine;
        while engine.seq.lock().segments.live.len() > 8 {
            let mut known = engine.cleaning.lock();
            let mut group = Group::new(engine.seq.lock().segments.live.iter().take(2), &engine.geo);
            let all = group.participants.len();
            engine.leave_out(&mut group, &mut known);
            left_out += all - group.participants.len();
            assert!(engine.clean_group(&mut group).expect("cleaned"));
            known.learn(std::mem::take(&mut group.beyond));
            engine.seal(Class::Clean).expect("sealed");
            for (id, segment) in known.all() {
                let cell = engine.registry.get(id).expect("there");
                let (state, head) = (cell.lock(), engine.head());
                let found = state.oldest_segment(head, 64 << 10).unwrap_or(u64::MAX);
                assert!(segment <= found, "replica {id} in round {round}: {found}, remembered as {segment}");
                learned += 1;
            }
        }
    }
    assert!(learned > 20 && left_out > 10, "{learned} learned, {left_out} left out");
    for replica in 1..=4 {
        assert_eq!(wal.replica(replica).entry(3000).expect("kept").data, vec![replica as u8; 500]);
    }
    assert_eq!(wal.replica(6).get(b"k").expect("readable").as_deref(), Some(&2917_u64.to_le_bytes()[..]));
}
