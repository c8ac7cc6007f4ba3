//! What becomes of entries, and what is pledged for it, where chunks and room are counted out.

use super::*;
use crate::disk::sim::SimDisk;
use crate::space::Charge;
use crate::{Batch, Placement, Wal};

/// Settled in part, a replica may take more chunks than it has reserved: only out of those that nobody has reserved.
#[test]
fn a_part_is_settled_out_of_what_nobody_reserved_or_not_at_all() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])]).append(2, &[(i, 1, [2; 10])])).expect("committed");
    }
    let engine = &wal.engine;
    let group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    // As if all but `spare` chunks were reserved, and all but `bytes` carried; answers how many of each are pledged to it.
    let alive_in = |id: u64, spare: u64, bytes: Option<u64>| {
        let mut others = Charge::default();
        let before = {
            let mut s = engine.seq.lock();
            let all = engine.pool.lock().free() - engine.value_reserve - s.accounts.reserved();
            let carried = bytes.map_or(0, |bytes| s.accounts.budget() - s.accounts.carried() - bytes);
            s.accounts.settle(&mut others, Charge { chunks: all - spare, carried });
            (s.accounts.reserved(), s.accounts.carried())
        };
        let cell = engine.registry.get(id).expect("there");
        let (moving, fate) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
        let mut s = engine.seq.lock();
        let held = (s.accounts.reserved() - before.0, s.accounts.carried() - before.1);
        let mut state = cell.lock();
        state.places.set_tail(moving.tail);
        engine.redeem(&mut s, &mut state);
        assert_eq!((s.accounts.reserved(), s.accounts.carried()), before, "given back");
        s.accounts.settle(&mut others, Charge::default());
        (moving.entries.len(), fate, held)
    };
    let alive = |id, spare| {
        let (entries, fate, (chunks, _)) = alive_in(id, spare, None);
        (entries, fate, chunks)
    };
    let (part, fate, held) = alive(1, 100);
    assert!(matches!(fate, Fate::Settle) && part < 60 && (1..5).contains(&held), "{part} entries, {held} held");
    assert!(matches!(alive(1, held), (n, Fate::Settle, h) if n == part && h == held), "just enough");
    for spare in [0, held - 1] {
        let (all, fate, held) = alive(1, spare);
        assert!(matches!(fate, Fate::SettleAll) && all == 60, "all of it fits what it has reserved: {all}");
        assert_eq!(held, 0);
    }
    let (_, _, (_, bytes)) = alive_in(1, held, None);
    assert!(bytes > 0, "parts have more descriptors");
    assert!(matches!(alive_in(1, held, Some(bytes)), (n, Fate::Settle, h) if n == part && h == (held, bytes)));
    assert!(matches!(alive_in(1, held, Some(bytes - 1)), (60, Fate::SettleAll, (0, 0))), "no room for these");
    assert!(matches!(alive(2, 100), (_, Fate::Carry, 0)), "not worth a chunk");
}

/// A replica for which an opening found no chunks is carried: what finds some is settled, and the rest goes on being carried. If more is
/// carried than may be, what is kept for large values is taken, too.
#[test]
fn of_what_lacks_chunks_as_much_is_settled_as_finds_some() {
    for over in [true, false] {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
        let options = options.journal_cap(40 * (64 << 10)).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
        let engine = &wal.engine;
        while !over && wal.stats().carried_class_limit < 400_000 {
            engine.grow_for_carried(wal.stats().carried_class_limit).expect("grown");
        }
        for i in 1..=60 {
            wal.commit(Batch::new().append(1, &[(i, i, [1; 3000])])).expect("room");
        }
        let cell = engine.registry.get(1).expect("there");
        let carried = {
            let (mut s, mut state) = (engine.seq.lock(), cell.lock());
            let carried = s.accounts.price_carried(demand(&state));
            s.accounts.settle(&mut state.charge, carried);
            engine.recharge(&mut s, &mut state);
            assert_eq!((state.charge, s.accounts.carried() > s.accounts.budget()), (carried, over));
            carried
        };
        let group = || Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
        let kept = if over { 0 } else { engine.value_reserve };
        // As if others held all but `spare` chunks.
        let mut others = Charge::default();
        let mut alive_in = |spare: u64| {
            {
                let mut s = engine.seq.lock();
                s.accounts.settle(&mut others, Charge::default());
                let chunks = engine.pool.lock().free() - s.accounts.reserved() - kept - spare;
                s.accounts.settle(&mut others, Charge { chunks, carried: 0 });
            }
            engine.alive_in(&group(), Arc::clone(&cell), 0).expect("alive")
        };
        let give_back = |moving: &Moving| {
            let (mut s, mut state) = (engine.seq.lock(), cell.lock());
            state.places.set_tail(moving.tail);
            engine.redeem(&mut s, &mut state);
            state.charge
        };
        let (all, part) = {
            let state = cell.lock();
            let (part, _) = engine.divided(&state, &group());
            (demand(&state).chunks(4096), part)
        };
        let some = part.chunks(4096);
        assert!(some < all / 2 && part.term_runs < 25, "{some} of {all}: {part:?}");
        let (moving, fate) = alive_in(all);
        assert!(matches!(fate, Fate::SettleAll) && moving.entries.len() == 60, "there is room for all of it");
        assert_eq!(cell.lock().charge.chunks, all);
        engine.redeem(&mut engine.seq.lock(), &mut cell.lock());
        engine.seq.lock().accounts.settle(&mut cell.lock().charge, carried);
        for spare in [all - 1, some] {
            let (moving, fate) = alive_in(spare);
            assert!(matches!(fate, Fate::Settle) && moving.entries.len() < 30, "{spare} of {some}");
            let pieces = part.held(4096).pieces * PieceDesc::TYPICAL_BYTES;
            let during = Charge { chunks: some, carried: carried.carried + pieces };
            assert_eq!(cell.lock().charge, during, "it still lies there, and so does what stays");
            assert_eq!(give_back(&moving), carried, "nothing came of it");
        }
        for spare in [0, some - 1] {
            let (_, fate) = alive_in(spare);
            assert!(matches!(fate, Fate::Carry) && cell.lock().pledge.is_none(), "{spare} of {some}");
        }
        // What is appended meanwhile is carried, if there is room for that.
        let (moving, _) = alive_in(some);
        let comes = wal.try_submit(Batch::new().append(1, &[(61, 60, [2; 500])]));
        assert_eq!(comes.is_ok(), !over, "{comes:?}");
        assert_eq!(engine.seq.lock().accounts.reserved() + kept, engine.pool.lock().free());
        assert!(engine.settle(vec![moving], &mut group()).expect("settled"));
        let (s, state) = (engine.seq.lock(), cell.lock());
        let now = demand(&state);
        assert_eq!((state.charge, now.pledged), (s.accounts.price_carried(now), None));
        assert!(now.weight > 0 && state.charge.carried < carried.carried);
        assert!(s.accounts.reserved() + kept <= engine.pool.lock().free());
    }
}

/// If much is carried already, what is not worth a chunk is settled, too: only that, and not all that the replica has in a journal which
/// may be gigabytes long, read here and there while appends wait.
#[test]
fn of_a_large_replica_only_what_lies_in_the_group_is_settled_where_much_is_carried() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    for i in 1..=180 {
        let mut batch = Batch::new();
        if i % 30 == 1 {
            batch.append(1, &[(i / 30 + 1, 1, [1; 800])]);
        }
        wal.commit(batch.append(2, &[(i, 1, [2; 3000])]).truncate_prefix(2, i)).expect("committed");
    }
    let engine = &wal.engine;
    let group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    let alive_in = |carried: u64| {
        let cell = engine.registry.get(1).expect("there");
        let (moving, fate) = engine.alive_in(&group, Arc::clone(&cell), carried).expect("alive");
        let mut s = engine.seq.lock();
        let mut state = cell.lock();
        state.places.set_tail(moving.tail);
        engine.redeem(&mut s, &mut state);
        (moving.entries.len(), fate)
    };
    assert!(matches!(alive_in(0), (1, Fate::Carry)), "one of its six entries, not worth a chunk");
    assert!(matches!(alive_in(1 << 20), (1, Fate::Settle)), "that entry, as there is room");
    // Only while chunks and room for descriptors are plentiful.
    let with = |spare: u64, carried: u64| {
        let mut others = Charge::default();
        let mut s = engine.seq.lock();
        let free = engine.pool.lock().free() - engine.value_reserve - s.accounts.reserved();
        let more = Charge { chunks: free - spare, carried: carried.saturating_sub(s.accounts.carried()) };
        s.accounts.settle(&mut others, more);
        drop(s);
        let found = alive_in(1 << 20);
        engine.seq.lock().accounts.settle(&mut others, Charge::default());
        found
    };
    let (eighth, half) = (u64::from(engine.geo.chunks) / 8, engine.seq.lock().accounts.budget() / 2);
    assert!(matches!(with(eighth, half), (1, Fate::Settle)));
    for (spare, carried) in [(eighth - 1, half), (eighth, half + 1)] {
        let (entries, fate) = with(spare, carried);
        assert!(matches!(fate, Fate::SettleAll) && entries == 6, "all of it, in the fewest pieces: {entries}");
    }
}

/// Each of these entries alone would take a block, until it is truncated.
#[test]
fn what_is_settled_where_much_is_carried_takes_no_more_room_than_it_was_charged() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(64 << 10).placement(Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(64 << 20))).expect("formatted");
    let engine = &wal.engine;
    for _ in 0..40 {
        engine.grow_for_carried(wal.stats().carried_class_limit).expect("grown");
    }
    // An entry of 200 bytes in each segment.
    let (mut index, mut filler, mut at) = (0, 0, 0);
    while index < 150 {
        filler += 1;
        let mut batch = Batch::new();
        if std::mem::replace(&mut at, engine.seq.lock().segments.current()) != at {
            index += 1;
            batch.append(1, &[(index, 1, [1; 200])]);
        }
        wal.commit(batch.append(2, &[(filler, 1, [2; 6000])]).truncate_prefix(2, filler)).expect("room");
    }
    let cell = engine.registry.get(1).expect("there");
    let charged = cell.lock().charge;
    assert!(charged.chunks > 0);
    let mut settled = 0;
    for _ in 0..140 {
        let mut group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
        if let Some((moving, fate)) = engine.alive_in(&group, Arc::clone(&cell), 1 << 20) {
            if matches!(fate, Fate::Carry) {
                break;
            }
            settled += moving.entries.len();
            assert!(engine.settle(vec![moving], &mut group).expect("settled"));
        }
        assert!(engine.clean_group(&mut group).expect("cleaned"));
        engine.seal(crate::journal::Class::Clean).expect("sealed");
    }
    let (pieces, used) = (cell.lock().places.chain().len(), wal.stats().used_chunks);
    assert!(
        settled > 100 && used <= charged.chunks,
        "{settled} settled in {pieces} pieces, {used} chunks: {charged:?}"
    );
}

/// What is given back belongs to the replica at every moment: pledged, or reserved for what stays in the journal.
#[test]
fn what_a_failed_settling_gives_back_is_nobodys() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.recent_bytes(1 << 20).background(false).open_disk(disk.clone()).expect("formatted");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
        if i % 6 == 0 {
            wal.commit(Batch::new().append(2, &[(i / 6, 1, [2; 3000])])).expect("room");
        }
    }
    for _ in 0..12 {
        wal.engine.grow_for_carried(wal.stats().carried_class_limit).expect("grown");
    }
    // Others hold all the chunks that there are.
    let engine = &wal.engine;
    let balance = || (engine.seq.lock().accounts.reserved(), engine.pool.lock().free());
    {
        let mut s = engine.seq.lock();
        let all = engine.pool.lock().free() - engine.value_reserve - s.accounts.reserved();
        s.accounts.settle(&mut Charge::default(), Charge { chunks: all, carried: 0 });
    }
    let comes = |replica| wal.try_submit(Batch::new().append(replica, &[(1, 1, [3; 3000])]));
    assert!(matches!(comes(999), Err(crate::Error::Full(_))), "no room");
    let mut group = {
        let s = engine.seq.lock();
        Group::new(s.segments.live.iter().take(s.segments.live.len() - 1), &engine.geo)
    };
    let moving: Vec<_> = [1, 2]
        .map(|id| {
            let cell = engine.registry.get(id).expect("there");
            let (moving, fate) = engine.alive_in(&group, cell, 0).expect("alive");
            assert!(!matches!(fate, Fate::Carry));
            moving
        })
        .into();
    let cells: Vec<_> = moving.iter().map(|moving| Arc::clone(&moving.cell)).collect();
    // The last replica's bytes cannot be read.
    let lsn = moving[1].entries[0].loc.lsn(engine.head());
    let offset = {
        let s = engine.seq.lock();
        s.segments.live.iter().find(|l| l.seq == lsn >> 16).map(|l| u64::from(l.slab) * (64 << 10) + lsn % (64 << 10))
    };
    let offset = crate::format::POOL_OFFSET + offset.expect("live");
    disk.fail_reads(offset..offset + 10, crate::disk::sim::EIO);
    assert!(matches!(engine.settle(moving, &mut group), Err(crate::Error::Io { .. })));
    let between = balance();
    assert!(between.0 <= between.1, "reserved, free: {between:?}");
    let came = (1000..1100).filter(|&replica| comes(replica).is_ok()).count();
    for cell in cells {
        let mut s = engine.seq.lock();
        engine.redeem(&mut s, &mut cell.lock());
    }
    let after = balance();
    assert!(after.0 <= after.1 && came == 0, "{between:?}, {after:?}: {came} took what was reserved");
}

/// Entries truncated meanwhile are settled all the same, into chunks that nobody else has got; what is appended finds its own.
#[test]
fn what_is_pledged_stays_so_until_it_is_taken_whatever_becomes_of_the_entries() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
    }
    let engine = &wal.engine;
    let mut group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    let cell = engine.registry.get(1).expect("there");
    let (moving, _) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
    let reserved = || engine.seq.lock().accounts.reserved();
    let pledged = cell.lock().pledge.as_ref().expect("pledged").held.chunks;
    assert!(pledged > 10 && reserved() == pledged, "{pledged}");
    wal.commit(Batch::new().append(1, &[(61, 1, [1; 3000])])).expect("room");
    assert!(reserved() > pledged, "what comes is not theirs");
    wal.commit(Batch::new().truncate_prefix(1, 62)).expect("room");
    let (held, free) = (reserved(), engine.pool.lock().free());
    assert!(held >= pledged, "{held} of {pledged}");
    let mut tail = None;
    let taken = engine.take_pledged(&moving, 1, &mut tail).expect("it was pledged");
    assert_eq!((engine.pool.lock().free(), reserved()), (free - 1, held - 1), "reserved no more, and not free");
    engine.pool.lock().give_back(&taken, &engine.pins);
    assert!(engine.settle(vec![moving], &mut group).expect("settled"));
    assert_eq!((engine.pool.lock().free(), reserved()), (free, 0), "none of it is alive: all is given back");
}

/// Nothing need be left of what is being settled for the next append to continue.
#[test]
fn an_append_beside_what_is_settled_asks_for_all_that_it_is_charged() {
    let entry = |index| [(index, 1, [9; 100])];
    let batches: [&dyn Fn(&mut Batch); 5] = [
        &|b| _ = b.append(1, &entry(1)),
        &|b| _ = b.truncate_suffix(1, 1).append(1, &entry(1)),
        &|b| _ = b.install_snapshot(1, 100, 1).append(1, &entry(101)),
        &|b| _ = b.truncate_prefix(1, 61).append(1, &entry(61)),
        &|b| _ = b.durable_applied(1, 60).append(1, &entry(61)),
    ];
    let log = |case| {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        for i in 1..=60 {
            wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
        }
        if case == 4 {
            wal.commit(Batch::new().durable_applied(1, 0).truncate_prefix(1, 61)).expect("it waits for the report");
        }
        let group = Group::new(wal.engine.seq.lock().segments.live.iter().take(1), &wal.engine.geo);
        let cell = wal.engine.registry.get(1).expect("there");
        drop(wal.engine.alive_in(&group, cell, 0).expect("alive"));
        wal
    };
    for (case, fill) in batches.iter().enumerate() {
        let reserved = |wal: &Wal| wal.stats().reserved_chunks;
        let append = |wal: &Wal| {
            let mut batch = Batch::new();
            fill(&mut batch);
            wal.try_submit(&mut batch).map(drop)
        };
        let asks = {
            let wal = log(case);
            let before = reserved(&wal);
            append(&wal).expect("room");
            reserved(&wal) - before
        };
        assert!(asks > 0);
        for spare in [asks - 1, asks] {
            let wal = log(case);
            {
                let mut s = wal.engine.seq.lock();
                let all = wal.engine.pool.lock().free() - wal.engine.value_reserve - s.accounts.reserved();
                s.accounts.settle(&mut Charge::default(), Charge { chunks: all - spare, carried: 0 });
            }
            assert_eq!(append(&wal).is_ok(), spare == asks, "batch {case}: {spare} of {asks}");
        }
    }
}

/// What stays is divided by their terms once the settling is over, though they lie in chunks.
#[test]
fn terms_of_what_is_placed_beside_a_settling_are_asked_for() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    wal.commit(Batch::new().put(9, b"large", &vec![1; 30_000])).expect("room");
    for i in 1..=60 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
    }
    let engine = &wal.engine;
    let mut group = Group::new(engine.seq.lock().segments.live.iter().take(1), &engine.geo);
    let cell = engine.registry.get(1).expect("there");
    let (moving, fate) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
    assert!(matches!(fate, Fate::Settle));
    // Each of a term of its own, all of them placed directly.
    let entries: Vec<_> = (61..=1260).map(|i| (i, i, [2; 30])).collect();
    // Others hold all that this does not ask for.
    let (mut others, mut spare) = (Charge::default(), 0);
    loop {
        let mut s = engine.seq.lock();
        s.accounts.settle(&mut others, Charge::default());
        let all = engine.pool.lock().free() - engine.value_reserve - s.accounts.reserved();
        s.accounts.settle(&mut others, Charge { chunks: all - spare, carried: 0 });
        drop(s);
        match wal.try_submit(Batch::new().append(1, &entries)) {
            Ok(_) => break,
            Err(crate::Error::Full(_)) => spare += 1,
            Err(e) => panic!("{e}"),
        }
    }
    let held = cell.lock().pledge.as_ref().expect("pledged").fresh.term_runs;
    assert_eq!(held, entries.len() as u64, "and held from then on");
    assert!(engine.settle(vec![moving], &mut group).expect("settled"));
    let (reserved, free) = (engine.seq.lock().accounts.reserved(), engine.pool.lock().free());
    assert!(reserved <= free, "{reserved} are reserved, {free} are free");
}

/// Terms of what was settled are still the replica's: once the settling is over, what was appended meanwhile pays for all of them.
#[test]
fn terms_of_what_was_settled_are_held_for_what_came_meanwhile() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let options = options.journal_cap(16 * (64 << 10)).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    // Each of a term of its own.
    for i in 1..=4800 {
        wal.submit(Batch::new().append(1, &[(i, i, [1; 30])])).map(drop).expect("room");
    }
    // Some segments behind them.
    for i in 1..=40 {
        wal.commit(Batch::new().append(2, &[(i, 1, [2; 6000])]).truncate_prefix(2, i)).expect("room");
    }
    let engine = &wal.engine;
    let cell = engine.registry.get(1).expect("there");
    let mut group = {
        let s = engine.seq.lock();
        Group::new(s.segments.live.iter().take(s.segments.live.len() - 1), &engine.geo)
    };
    let (moving, _) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
    assert_eq!(moving.entries.len(), 4800, "nothing stays");
    // Others hold all that this does not ask for.
    let (mut others, mut spare) = (Charge::default(), 0);
    loop {
        let mut s = engine.seq.lock();
        s.accounts.settle(&mut others, Charge::default());
        let all = engine.pool.lock().free() - engine.value_reserve - s.accounts.reserved();
        s.accounts.settle(&mut others, Charge { chunks: all - spare, carried: 0 });
        drop(s);
        match wal.try_submit(Batch::new().append(1, &[(4801, 4801, [3; 3000])])) {
            Ok(_) => break,
            Err(crate::Error::Full(_)) => spare += 1,
            Err(e) => panic!("{e}"),
        }
    }
    let balance = || (engine.seq.lock().accounts.reserved() + engine.value_reserve, engine.pool.lock().free());
    let before = balance();
    assert!(before.0 <= before.1, "{before:?}");
    assert!(engine.settle(vec![moving], &mut group).expect("settled"));
    let after = balance();
    assert!(after.0 <= after.1, "reserved and kept {}, free {}: {spare} were asked for", after.0, after.1);
}

/// What is appended continues what is settled, and is a run of its own when that is gone.
#[test]
fn what_stays_and_what_comes_are_charged_as_the_runs_that_they_become() {
    for len in (0..4000).step_by(100) {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        for i in 1..=60 {
            wal.commit(Batch::new().append(1, &[(i, 1, [1; 3000])])).expect("room");
        }
        let engine = &wal.engine;
        // All segments but the oldest, which stays.
        let mut group = Group::new(engine.seq.lock().segments.live.iter().skip(1), &engine.geo);
        let cell = engine.registry.get(1).expect("there");
        let (_, rest) = engine.divided(&cell.lock(), &group);
        let (moving, fate) = engine.alive_in(&group, Arc::clone(&cell), 0).expect("alive");
        assert!(matches!(fate, Fate::Settle) && rest.weight > 0);
        wal.commit(Batch::new().append(1, &[(61, 1, vec![2; len])])).expect("room");
        let fresh = cell.lock().pledge.as_ref().expect("pledged").fresh.chunks(4096);
        assert!(engine.settle(vec![moving], &mut group).expect("settled"));
        let state = cell.lock();
        assert_eq!((state.places.spans().len(), state.pledge.is_none()), (2, true));
        let (held, charged) = (rest.chunks(4096) + fresh, state.charge.chunks);
        assert!(charged <= held, "{len}: {held} were held for what needs {charged}");
    }
}

/// Entries settled in parts, each behind the one before, take hardly more room than all at once.
#[test]
fn parts_fill_the_chunk_that_the_part_before_began() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(64 << 10).placement(Placement::Journal);
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    for i in 1..=200 {
        wal.commit(Batch::new().append(1, &[(i, 1, [1; 4000])])).expect("committed");
        if i % 10 == 0 {
            wal.checkpoint().expect("cleaned");
        }
    }
    wal.checkpoint().expect("cleaned");
    let cell = wal.engine.registry.get(1).expect("there");
    let (pieces, bytes) = {
        let state = cell.lock();
        (state.places.chain().len() as u64, state.places.chain().iter().map(|p| u64::from(p.desc.bytes)).sum::<u64>())
    };
    let used = wal.stats().used_chunks;
    assert!(pieces >= 20 && bytes > 700_000, "{pieces} pieces, {bytes} bytes");
    assert!(used <= bytes.div_ceil(64 << 10) + 2, "{used} chunks for {bytes} bytes");
    for i in 1..=200 {
        assert_eq!(wal.replica(1).entry(i).expect("kept").data, [1; 4000][..]);
    }
}

/// Many short runs become many pieces, of which each has a descriptor: what they may take is charged before there are any.
#[test]
fn what_is_settled_is_carried_in_no_more_than_it_was_charged() {
    let options = Wal::options().segment_size(64 << 10).chunk_size(64 << 10).direct_threshold(8 << 10);
    let options = options.carry_fraction(1).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(16 << 20))).expect("formatted");
    let carried = || wal.engine.seq.lock().accounts.carried();
    for i in 1..=60 {
        let mut batch = Batch::new();
        batch.append(1, &[(2 * i - 1, 1, [1; 500])]).append(1, &[(2 * i, 1, [2; 9000])]);
        wal.commit(batch).expect("room");
    }
    let charged = carried();
    wal.checkpoint().expect("cleaned");
    let settled = wal.stats().settled_entries;
    assert!(settled > 40 && carried() <= charged, "{settled} settled: {} carried, {charged} charged", carried());
}
