//! A replica that holds no chunks is promised none that no admission checked, whatever its metadata grows by.

use std::ops::ControlFlow;

use super::fate::Fate;
use super::group::Group;
use crate::disk::sim::{EIO, EventKind, Fault, SimDisk};
use crate::engine::demand;
use crate::space::Charge;
use crate::sync::Arc;
use crate::{Batch, Error, Options, Placement, Wal};

fn options() -> Options {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    options.journal_cap(40 * (64 << 10)).background(false).recent_bytes(1 << 20)
}

/// A replica for which an opening found no chunks: large, and carried. It has a value of two blocks, and something in its chain.
fn lacking() -> (Arc<SimDisk>, Wal) {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = options().open_disk(disk.clone()).expect("formatted");
    let append = |from, to| {
        for i in from..=to {
            wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
        }
    };
    append(1, 10);
    wal.commit(Batch::new().put(1, b"value", &[1; 8192])).expect("room");
    for i in 1..=60 {
        wal.commit(Batch::new().append(2, &[(i, 1, [9; 3000])]).truncate_prefix(2, i)).expect("room");
    }
    wal.checkpoint().expect("cleaned");
    append(11, 60);
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let (mut s, mut state) = (engine.seq.lock(), cell.lock());
    assert!(!state.places.chain().is_empty() && state.places.journal_bytes() > 100_000);
    let carried = s.accounts.price_carried(demand(&state));
    s.accounts.settle(&mut state.charge, carried);
    drop((s, state));
    (disk, wal)
}

/// Others hold all chunks but `spare`.
fn take_all_but(wal: &Wal, spare: u64) {
    let mut s = wal.engine.seq.lock();
    let chunks = wal.engine.pool.lock().free() - s.accounts.reserved() - spare;
    s.accounts.settle(&mut Charge::default(), Charge { chunks, carried: 0 });
}

/// The first replica is carried, and what is reserved is there.
fn assert_carried(wal: &Wal, what: &str) {
    let s = wal.engine.seq.lock();
    let cell = wal.engine.registry.get(1).expect("there");
    let state = cell.lock();
    assert_eq!(state.charge, s.accounts.price_carried(demand(&state)), "{what}");
    let free = wal.engine.pool.lock().free();
    assert!(s.accounts.reserved() <= free, "{what}: {} are promised, {free} are there", s.accounts.reserved());
}

#[test]
fn who_lacks_chunks_is_promised_none_when_its_chain_rots() {
    let (disk, wal) = lacking();
    take_all_but(&wal, 0);
    assert_carried(&wal, "before");
    let at = {
        let cell = wal.engine.registry.get(1).expect("there");
        let state = cell.lock();
        state.places.chain()[0].desc.extents[0].offset()
    };
    disk.poke(at + 200, &[0xEE; 64]);
    wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
    assert!(!wal.damage().is_empty());
    assert_carried(&wal, "with damage of twenty bytes");
}

/// The value is admitted as one of the old one's length, and lies in one block more.
#[test]
fn who_lacks_chunks_is_promised_none_for_a_value_in_more_extents() {
    let (_disk, wal) = lacking();
    take_all_but(&wal, 3 + wal.engine.value_reserve);
    assert_carried(&wal, "before");
    wal.commit(Batch::new().put(1, b"value", &[2; 8200])).expect("three chunks are there");
    assert_carried(&wal, "with a longer value");
}

/// When three quarters of the budget are spent, a small replica would be priced with a chunk.
#[test]
fn a_small_replica_is_promised_no_chunk_for_a_value_in_more_extents() {
    let wal = options().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let mut batch = Batch::new();
    wal.commit(batch.append(1, &[(1, 1, [7; 300])]).put(1, b"value", &[1; 8192])).expect("room");
    assert_carried(&wal, "as a small one");
    {
        let mut s = wal.engine.seq.lock();
        let carried = s.accounts.budget() - s.accounts.carried() - 100;
        s.accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
    }
    take_all_but(&wal, 3 + wal.engine.value_reserve);
    wal.commit(Batch::new().put(1, b"value", &[2; 8200])).expect("three chunks are there");
    assert_carried(&wal, "with a longer value");
}

/// It holds a chunk, and is admitted as carried with the last byte of the room for small replicas: what a value takes beyond that does not
/// make it take chunks that it was not admitted with.
#[test]
fn who_is_admitted_as_carried_is_carried() {
    let wal = options().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let engine = &wal.engine;
    let entry = |index| [(index, 1, [7; 300])];
    wal.commit(Batch::new().append(1, &entry(1)).put(1, b"value", &[1; 8192])).expect("room");
    let cell = engine.registry.get(1).expect("there");
    let asked = {
        let (mut s, mut state) = (engine.seq.lock(), cell.lock());
        let held = s.accounts.price_in_chunks(demand(&state));
        assert_eq!(held.chunks, 1);
        s.accounts.settle(&mut state.charge, held);
        // For another entry: in a run of the same term at most.
        s.accounts.price_carried(demand(&state)).carried + crate::index::journal_bytes(300) + 12
    };
    {
        let mut s = engine.seq.lock();
        let carried = s.accounts.budget() / 4 * 3 - (s.accounts.carried() - cell.lock().charge.carried) - asked;
        s.accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
    }
    wal.commit(Batch::new().append(1, &entry(2)).put(1, b"value", &[2; 8200])).expect("room");
    assert_carried(&wal, "with a longer value");
}

/// All that was pledged was taken, and is given back: the replica that held it still needs it.
#[test]
fn pieces_that_are_given_back_are_reserved_again() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = options().open_disk(disk.clone()).expect("formatted");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
    }
    let engine = &wal.engine;
    let mut group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
    let cell = engine.registry.get(1).expect("there");
    let before = (cell.lock().charge, engine.pool.lock().free());
    let (moving, fate) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
    assert!(!matches!(fate, Fate::Carry) && moving.entries.len() == 60 && before.0.chunks > 0);
    disk.on_event(|event| (event.kind == EventKind::Flush).then_some(Fault::Error(EIO)));
    let told = engine.settle(vec![moving], &mut group);
    assert!(matches!(told, Err(Error::Poisoned { .. })), "{told:?}");
    assert_eq!((cell.lock().charge, engine.pool.lock().free()), before);
}
