//! Copies of what can be proved, and what stands in for the rest, at every edge.

use super::*;
use crate::Placement;
use crate::RecoveryMode;
use crate::disk::sim::SimDisk;
use crate::index::Place;
use crate::sync::Arc;

const LAST: u64 = 60;

/// More damaged spots than a log records one by one.
#[test]
fn many_spots_of_one_replica_are_salvaged_around() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options().placement(Placement::Journal).open_disk(disk.clone()).expect("formatted");
    for i in 1..=LAST {
        wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("committed");
    }
    wal.commit(Batch::new().put(2, b"vote", b"2")).expect("committed");
    wal.sync().expect("written");
    let after = Arc::new(disk.crash_lost_all());
    let spots: Vec<u64> = (2..=50).step_by(2).collect();
    for &index in &spots {
        let engine = &wal.engine;
        let loc = engine.registry.get(1).expect("there").lock().places.loc(index).expect("in the journal");
        let lsn = loc.lsn(engine.head());
        let slab = engine.segment_map.read().slab(lsn >> 16).expect("alive");
        after.flip_bit(crate::format::POOL_OFFSET + (u64::from(slab) << 16) + (lsn & 0xffff) + 100, 3);
    }
    drop(wal);
    let wal = options().open_disk(after).expect("opened");
    let to = options().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert_eq!(report.replicas, 2);
    assert_eq!(report.damage, to.replica(1).damage(), "each once, as the fresh log says it");
    for &spot in &spots {
        let lost = Damage { replica: 1, lost: Lost::Entries { first: spot, last: spot } };
        assert!(report.damage.iter().any(|told| covers(told, &lost)), "{spot}: {:?}", report.damage);
    }
    for index in 1..=LAST {
        let (old, new) = (wal.replica(1).entry(index), to.replica(1).entry(index));
        assert!(old.is_ok() || new.is_err(), "{index} is lost in one, and not in the other");
        if index > 50 {
            assert_eq!(new.expect("salvaged").data, [index as u8; 3000][..]);
        }
    }
    assert_eq!(to.replica(2).get(b"vote").expect("salvaged").as_deref(), Some(&b"2"[..]));
}

fn small() -> crate::Options {
    Wal::options().capacity(4 << 20).segment_size(64 << 10).chunk_size(4096).background(false)
}

/// Salvages the whole log into another of the same geometry.
fn salvaged(wal: &Wal) -> Wal {
    let to = small().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert!(report.is_whole(), "{report:?}");
    to
}

/// A torn newest frame looks like a rotten one, and this one was acknowledged. No replica has damage, and none is missing without a name.
#[test]
fn where_the_newest_frame_is_not_believed_nothing_is_called_whole() {
    // A newest frame that follows others in its segment, and one that begins the next.
    for begins_a_segment in [false, true] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = small().open_disk(disk.clone()).expect("formatted");
        let segment = || wal.engine.seq.lock().segments.current();
        // Frames of three blocks: a segment ends before it is full.
        let vote = |vote: u8| {
            let mut batch = Batch::new();
            batch.put(1, b"vote", &[vote; 3000]).put(1, b"one", &[vote; 3500]).put(1, b"two", &[vote; 3500]);
            wal.commit(batch).expect("acknowledged")
        };
        let (mut newest, mut before, mut began) = (1, disk.restart(), 0);
        vote(1);
        while newest == 1 || (segment() > began) != begins_a_segment {
            (before, began) = (disk.restart(), segment());
            newest += 1;
            vote(newest);
        }
        let after = disk.restart();
        let salvage = |killed: SimDisk| {
            let from = small().recovery_mode(RecoveryMode::Salvage).open_disk(Arc::new(killed)).expect("opened");
            let to = small().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
            let report = from.salvage_into(&to, |_| ()).expect("salvaged");
            (report, to.replica(1).get(b"vote").expect("readable").expect("there")[0])
        };
        let (report, vote) = salvage(after.restart());
        assert_eq!((report.is_whole(), vote), (true, newest));
        let (old, new) = (before.kept_image(), after.kept_image());
        let first = (0..new.len()).find(|&at| old[at] != new[at]).expect("written");
        // In its header, where that says what the frame is, where it lies and what it follows, and in its table.
        for at in [0, 4, 9, 20, 33, 60, 124, 130, 3000] {
            let hurt = after.restart();
            hurt.flip_bit((first + at) as u64, 3);
            let strict = small().recovery_mode(RecoveryMode::Strict).open_disk(Arc::new(hurt.restart()));
            assert!(matches!(strict, Err(Error::Corrupt { what, .. }) if what.contains("last frame")), "byte {at}");
            let (report, vote) = salvage(hurt);
            assert_eq!((report.dropped_frames, report.damage.len(), report.unnamed), (1, 0, false), "byte {at}");
            assert_eq!((report.is_whole(), vote), (false, newest - 1), "byte {at}: the other vote is forgotten");
        }
    }
}

/// Ten times what one batch may put into the journal.
#[test]
fn a_replica_of_many_keys_is_salvaged() {
    let wal = small().open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    let key = |i: u64| format!("a key of 20 B {i:06}");
    for i in 0..10 {
        let mut batch = Batch::new();
        for i in 30 * i..30 * i + 30 {
            batch.put(1, key(i).as_bytes(), &[i as u8; 100]);
        }
        wal.commit(&mut batch).expect("committed");
    }
    for i in 0..60 {
        wal.commit(Batch::new().put(2, key(i).as_bytes(), &[i as u8; 4000])).expect("committed");
    }
    let to = salvaged(&wal);
    assert_eq!((to.replica(1).keys().len(), to.replica(2).keys().len()), (300, 60));
    assert_eq!(to.replica(1).get(key(299).as_bytes()).expect("salvaged").as_deref(), Some(&[43; 100][..]));
}

#[test]
fn a_replica_of_many_entries_is_salvaged_into_small_segments() {
    let wal = small().open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    for i in 1..=500 {
        wal.commit(Batch::new().append(1, &[(i, i, [i as u8; 3000])])).expect("committed");
    }
    for i in 0..100 {
        let empty: Vec<_> = (50 * i + 1..=50 * i + 50).map(|i| (i, i, [])).collect();
        wal.commit(Batch::new().append(2, &empty)).expect("committed");
    }
    let to = salvaged(&wal);
    assert_eq!((to.replica(1).last_index(), to.replica(2).last_index()), (500, 5000));
}

fn fresh() -> (Arc<SimDisk>, Wal) {
    let disk = Arc::new(SimDisk::new(8 << 20));
    (Arc::clone(&disk), small().open_disk(disk).expect("formatted"))
}

fn lost(replica: u64, first: u64, last: u64) -> Damage {
    Damage { replica, lost: Lost::Entries { first, last } }
}

/// Where the bytes of a replica's entry begin on the disk.
fn place(wal: &Wal, replica: u64, index: u64) -> u64 {
    let engine = &wal.engine;
    let cell = engine.registry.get(replica).expect("there");
    let state = cell.lock();
    match state.places.get(index).expect("held") {
        Place::Journal(loc) => {
            let lsn = loc.lsn(engine.head());
            let slab = engine.segment_map.read().slab(lsn >> 16).expect("alive");
            crate::format::POOL_OFFSET + (u64::from(slab) << 16) + (lsn & 0xffff)
        }
        // Behind header and table, and the entries before it.
        Place::Chain(piece) => piece.desc.extents[0].offset() + 64 + 40 + (index - piece.desc.first) * 1000,
    }
}

#[test]
fn what_stands_for_a_lost_entry_has_its_term_where_that_is_known() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = small().placement(Placement::Journal).open_disk(disk.clone()).expect("formatted");
    for (index, term) in (1..=10).map(|i| (i, 1)).chain((11..=15).map(|i| (i, 2))) {
        wal.commit(Batch::new().append(1, &[(index, term, [index as u8; 100])])).expect("committed");
    }
    wal.commit(Batch::new().install_snapshot(2, 4, 3).append(2, &[(5, 3, [5; 100]), (6, 4, [6; 100])])).expect("ok");
    wal.commit(Batch::new().put(3, b"vote", b"2")).expect("committed");
    let after = Arc::new(disk.restart());
    for (replica, index) in [(1, 11), (1, 12), (2, 5)] {
        after.flip_bit(place(&wal, replica, index) + 50, 3);
    }
    drop(wal);
    let wal = small().open_disk(after).expect("opened");
    let (disk, to) = fresh();
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert_eq!(report.damage, [lost(1, 11, 12), lost(2, 5, 5)]);
    let term = |id, index| to.engine.registry.get(id).expect("there").lock().terms.get(index);
    assert_eq!([term(1, 10), term(1, 11), term(1, 12), term(2, 5)], [Some(1), Some(2), Some(2), Some(3)]);
    assert_eq!(to.replica(2).term(4).expect("known"), 3);
    // That term is told to nobody: an opening cannot tell it from a guess over a hole.
    to.commit(Batch::new().truncate_prefix(1, 13)).expect("committed");
    drop(to);
    let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
    assert!(matches!(to.replica(1).term(12), Err(Error::Damaged(_))));
    assert_eq!(to.replica(1).entry(13).expect("salvaged").term, 2);
}

#[test]
fn a_term_that_is_unknown_before_the_first_entry_stays_so() {
    let (_, wal) = fresh();
    let damage = |id, index| wal.engine.registry.get(id).expect("there").lock().add_damage(index, index);
    // A replica that holds entries, and an empty one.
    for (id, last) in [(1, 4), (2, 2)] {
        let entries: Vec<_> = (1..=last).map(|i| (i, 1, [7; 100])).collect();
        wal.commit(Batch::new().append(id, &entries)).expect("committed");
        damage(id, 2);
        wal.commit(Batch::new().truncate_prefix(id, 3)).expect("committed");
    }
    let (disk, to) = fresh();
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert_eq!((report.damage, report.entries), (vec![lost(1, 2, 2), lost(2, 2, 2)], 2));
    drop(to);
    let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
    for (id, bounds) in [(1, (3, 4)), (2, (3, 2))] {
        assert_eq!(to.replica(id).bounds(), bounds);
        assert!(matches!(to.replica(id).term(2), Err(Error::Damaged(d)) if d == lost(id, 2, 2)), "replica {id}");
    }
}

/// Such a replica has lost what nobody can fill in. What lies behind the gap is as good as ever.
#[test]
fn behind_a_long_gap_a_copy_begins_anew_and_counts_what_it_has() {
    const FAR: u64 = 2 * MAX_GAP;
    let (_, wal) = fresh();
    let some = |first: u64| [first, first + 1, first + 2].map(|i| (i, 1, [i as u8; 100]));
    let gap = |id: u64, first: u64| {
        let cell = wal.engine.registry.get(id).expect("there");
        let mut state = cell.lock();
        state.last = FAR;
        state.add_damage(first, FAR);
    };
    wal.commit(Batch::new().append(1, &some(1)).put(1, b"vote", b"2")).expect("committed");
    gap(1, 4);
    wal.commit(Batch::new().append(1, &some(FAR + 1))).expect("committed");
    wal.commit(Batch::new().append(2, &some(1)).put(2, b"vote", b"2")).expect("committed");
    gap(2, 4);
    wal.commit(Batch::new().append(3, &some(1))).expect("committed");
    let (disk, to) = fresh();
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    assert_eq!((report.replicas, report.entries, report.bytes), (3, 6, 600));
    let state = Damage { replica: 2, lost: Lost::State };
    assert_eq!(report.damage, [lost(1, 1, FAR), lost(2, 1, FAR), state.clone()]);
    drop(to);
    let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
    assert_eq!([1, 2].map(|id| to.replica(id).bounds()), [(FAR + 1, FAR + 3), (FAR + 1, FAR)]);
    for (index, _, data) in some(FAR + 1) {
        assert_eq!(to.replica(1).entry(index).expect("salvaged").data, data[..]);
    }
    assert_eq!(to.replica(1).get(b"vote").expect("salvaged").as_deref(), Some(&b"2"[..]));
    for id in [1, 2] {
        assert!(matches!(to.replica(id).term(FAR), Err(Error::Damaged(_))), "replica {id}");
    }
    assert!(to.damage().contains(&state));
}

/// One bad sector costs what lies there.
#[test]
fn what_cannot_be_read_is_damage_and_ends_no_salvage() {
    for placement in [Placement::Journal, Placement::Chain] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = small().placement(placement).open_disk(disk.clone()).expect("formatted");
        for id in 1..=2 {
            let entries: Vec<_> = (1..=5).map(|i| (i, 1, [i as u8; 1000])).collect();
            wal.commit(Batch::new().append(id, &entries).put(id, b"large", &[id as u8; 9000])).expect("committed");
        }
        wal.close().expect("closed");
        drop(wal);
        let disk = Arc::new(disk.restart());
        let wal = small().open_disk(disk.clone()).expect("opened");
        let value = {
            let cell = wal.engine.registry.get(2).expect("there");
            let state = cell.lock();
            let piece = state.keys.get(b"large").and_then(|value| value.piece()).expect("a piece of its own");
            piece.desc.extents[0].offset() + 5000
        };
        for at in [place(&wal, 1, 3) + 500, value] {
            disk.fail_reads(at..at + 1, crate::disk::sim::EIO);
        }
        let to = fresh().1;
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        let state = Damage { replica: 2, lost: Lost::State };
        assert_eq!((report.damage, report.entries), (vec![lost(1, 3, 3), state], 9), "{placement:?}");
        for (id, index) in (1..=2).flat_map(|id| (1..=5).map(move |index| (id, index))) {
            match to.replica(id).entry(index) {
                Ok(entry) => assert_eq!(entry.data, [index as u8; 1000][..]),
                Err(error) => assert!((id, index) == (1, 3) && matches!(error, Error::Damaged(_)), "{error}"),
            }
        }
        assert_eq!(to.replica(1).get(b"large").expect("salvaged").expect("there"), [1; 9000][..]);
    }
}

/// Nothing can begin behind the last index.
#[test]
fn a_replica_that_ends_at_the_last_index_there_is_is_salvaged() {
    let (_, wal) = fresh();
    wal.commit(Batch::new().install_snapshot(1, u64::MAX - 1, 1).append(1, &[(u64::MAX, 1, b"last")])).expect("room");
    wal.commit(Batch::new().append(2, &[(1, 1, b"another")])).expect("room");
    let first = u64::MAX - 2 * MAX_GAP;
    {
        let cell = wal.engine.registry.get(1).expect("there");
        let mut state = cell.lock();
        state.first = first;
        state.add_damage(first, u64::MAX);
    }
    let (disk, to) = fresh();
    let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
    let state = Damage { replica: 1, lost: Lost::State };
    assert_eq!((report.replicas, report.entries), (2, 1));
    assert_eq!(report.damage, [lost(1, first, u64::MAX), state.clone()]);
    drop(to);
    let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
    assert_eq!(to.replica(1).bounds(), (u64::MAX, u64::MAX));
    assert!(matches!(to.replica(1).entry(u64::MAX), Err(Error::Damaged(_))) && to.damage().contains(&state));
    assert_eq!(to.replica(2).entry(1).expect("salvaged").data, b"another"[..]);
}

/// Entries written at once take more than those settled bit by bit: a log of the same size does not hold the copy, one an eighth larger
/// does.
#[test]
fn a_full_log_is_salvaged_into_one_that_is_an_eighth_larger() {
    let options = || Wal::options().background(false);
    let disk = Arc::new(SimDisk::new(64 << 20));
    let wal = options().open_disk(disk.clone()).expect("formatted");
    let mut last = 0;
    loop {
        match wal.commit(Batch::new().append(1, &[(last + 1, 1, vec![last as u8; 5000])])) {
            Ok(_) => last += 1,
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    wal.close().expect("closed");
    drop(wal);
    let from = options().read_only(true).recovery_mode(RecoveryMode::Salvage);
    let from = from.open_disk(Arc::new(disk.restart())).expect("opened");
    let to = options().open_disk(Arc::new(SimDisk::new(72 << 20))).expect("formatted");
    let report = from.salvage_into(&to, |_| ()).expect("salvaged");
    assert_eq!((report.is_whole(), report.entries), (true, last));
}
