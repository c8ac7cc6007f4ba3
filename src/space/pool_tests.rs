//! What the pool gives, keeps and holds back.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;

thread_local! {
    /// Free runs that were looked at.
    pub static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

/// 64 chunks of 4 blocks; the journal owns the first 16.
fn pool() -> Pool {
    Pool::new(64, 16384, 65536, &[0, 1, 2, 3])
}

#[test]
fn small_pieces_fill_a_chunk_before_another_is_taken() {
    let mut pool = pool();
    let mut tail = None;
    let a = pool.allocate(2, &mut tail).unwrap();
    let b = pool.allocate(2, &mut tail).unwrap();
    let c = pool.allocate(1, &mut tail).unwrap();
    assert_eq!(a[0].block + 2, b[0].block);
    assert_eq!(c[0].block, b[0].block + 2, "the neighbouring chunk continues the chain");
    assert_eq!(pool.free(), 46);
}

#[test]
fn a_freed_tail_chunk_is_not_refilled() {
    let mut pool = pool();
    let pins = Pins::new(64);
    let mut tail = None;
    let a = pool.allocate(1, &mut tail).unwrap();
    pool.unlink(10, a.to_vec());
    pool.release(9, &pins);
    assert_eq!(pool.free(), 47);
    pool.release(10, &pins);
    assert_eq!(pool.free(), 48);
    let old = tail.unwrap();
    let b = pool.allocate(1, &mut tail).unwrap();
    assert_ne!(tail, Some(Tail { block: old.block + 1, ..old }), "{b:?}");
    assert_eq!(b[0].block % 4, 0);
}

#[test]
fn a_chunk_being_written_to_survives_the_death_of_its_older_piece() {
    let mut pool = pool();
    let pins = Pins::new(64);
    let mut tail = None;
    let old = pool.allocate(1, &mut tail).unwrap();
    let new = pool.allocate(1, &mut tail).unwrap();
    pool.unlink(1, old.to_vec());
    pool.release(1, &pins);
    assert_eq!(pool.free(), 47, "the new piece holds the chunk");
    pool.give_back(&new, &pins);
    assert_eq!(pool.free(), 48);
}

#[test]
fn a_pinned_chunk_waits_for_its_reader() {
    let mut pool = pool();
    let pins = Pins::new(64);
    let a = pool.allocate(4, &mut None).unwrap();
    pins.pin(a[0].block / 4);
    pool.unlink(1, a.to_vec());
    pool.release(1, &pins);
    assert_eq!((pool.free(), pool.pinned()), (47, 1));
    pins.unpin(a[0].block / 4);
    pool.release(1, &pins);
    assert_eq!((pool.free(), pool.pinned()), (48, 0));
}

#[test]
fn long_pieces_scatter_only_when_they_must_and_nothing_leaks() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pool = pool();
        let pins = Pins::new(64);
        let mut live: Vec<Extents> = Vec::new();
        let mut tail = None;
        for _ in 0..200 {
            if rng.random_bool(0.6) {
                if let Some(e) = pool.allocate(rng.random_range(1..30), &mut tail) {
                    live.push(e);
                }
            } else if !live.is_empty() {
                let e = live.swap_remove(rng.random_range(0..live.len()));
                pool.unlink(1, e.to_vec());
                pool.release(1, &pins);
            }
            let mut blocks: Vec<u32> = live.iter().flatten().flat_map(|e| e.block..e.block + e.blocks).collect();
            let n = blocks.len();
            blocks.sort_unstable();
            blocks.dedup();
            assert_eq!(n, blocks.len(), "seed {seed}: a block was given twice");
            assert!(blocks.iter().all(|b| (64..256).contains(b)), "seed {seed}: a journal block was given");
            assert_eq!(pool.free() + pool.used(), 48, "seed {seed}: a chunk leaked");
        }
    }
}

fn at(chunk: u32, blocks: u32) -> Extents {
    smallvec![Extent { block: chunk * 4, blocks }]
}

#[test]
fn what_waits_is_counted_in_whole_chunks_and_told_apart() {
    let (mut pool, pins) = (pool(), Pins::new(64));
    let (a, b) = (pool.allocate(2, &mut None).unwrap(), pool.allocate(3, &mut None).unwrap());
    let (first, second) = (a[0].block / 4, b[0].block / 4);
    assert_eq!((pool.used(), pool.pending(), pool.has_dying()), (2, 0, false));
    pins.pin(first);
    pool.unlink(5, a.to_vec());
    assert_eq!((pool.pending(), pool.has_dying()), (1, true));
    pool.unlink(6, b.to_vec());
    assert_eq!(pool.pending(), 2, "five blocks");
    pool.release(5, &pins);
    assert_eq!((pool.pending(), pool.pinned(), pool.used()), (2, 1, 1), "three blocks, and one chunk that is read");
    assert_eq!([first, second, 63].map(|c| pool.used_for(c)), [ChunkUse::Pinned, ChunkUse::Chain, ChunkUse::Free]);
    pool.unlink(7, Vec::new());
    pool.release(6, &pins);
    assert_eq!((pool.pending(), pool.has_dying()), (1, false), "nothing is no space");
}

#[test]
fn the_search_goes_on_behind_the_last_piece_and_begins_anew_at_the_end() {
    let mut pool = pool();
    let mut tail = None;
    assert_eq!(pool.allocate(3, &mut tail), Some(at(16, 3)));
    assert_eq!(pool.allocate(1, &mut tail), Some(smallvec![Extent { block: 67, blocks: 1 }]), "exactly what is left");
    assert_eq!(pool.allocate(5, &mut None), Some(at(17, 5)), "another replica's");
    assert_eq!(pool.allocate(1, &mut tail), Some(at(19, 1)), "behind the own one nothing is free");
    assert_eq!(pool.allocate(2, &mut None), Some(at(20, 2)));
    // Only two single chunks, two that are neighbours, and the last.
    let pins = Pins::new(64);
    while pool.allocate(4, &mut None).is_some() {}
    assert_eq!(pool.free(), 0);
    for chunk in [30, 32, 33, 40, 63] {
        pool.give_back(&at(chunk, 4), &pins);
    }
    assert_eq!(pool.allocate(8, &mut None), Some(at(32, 8)), "the only run of two");
    assert_eq!(pool.allocate(1, &mut None), Some(at(40, 1)), "next-fit");
    assert_eq!(pool.allocate(1, &mut None), Some(at(63, 1)));
    assert_eq!(pool.allocate(1, &mut None), Some(at(30, 1)), "around");
    assert_eq!(pool.allocate(1, &mut None), None);
}

#[test]
fn a_piece_longer_than_every_run_takes_what_there_is_in_as_few_extents_as_it_can() {
    let (mut pool, pins) = (pool(), Pins::new(64));
    while pool.allocate(4, &mut None).is_some() {}
    for chunk in [30, 32, 33, 40] {
        pool.give_back(&at(chunk, 4), &pins);
    }
    assert_eq!(pool.allocate(17, &mut None), None, "five chunks");
    let mut tail = None;
    let extents = [at(30, 4), at(32, 8), at(40, 2)].concat();
    assert_eq!(pool.allocate(14, &mut tail), Some(extents.into()));
    assert_eq!(tail, Some(Tail { chunk: 40, generation: 1, block: 162 }));
    assert_eq!(pool.allocate(3, &mut tail), None, "two blocks are left there");
    assert_eq!(pool.allocate(2, &mut tail), Some(smallvec![Extent { block: 162, blocks: 2 }]));
}

#[test]
fn recovery_claims_what_is_nobody_elses() {
    let mut pool = pool();
    let mut owners = pool.owners();
    assert!(pool.claim(&at(20, 6), 1, &mut owners));
    assert_eq!((pool.free(), pool.used()), (46, 2));
    assert!(pool.claim(&[Extent { block: 21 * 4 + 2, blocks: 1 }], 1, &mut owners), "its own chunk, another piece");
    assert!(!pool.claim(&at(21, 1), 2, &mut owners), "another's");
    assert!(!pool.claim(&[at(22, 1), at(15, 1)].concat(), 2, &mut owners), "the journal's: none of it");
    assert_eq!(pool.free(), 46, "what was refused changes nothing");
    assert_eq!([19, 20, 21, 22, 64].map(|c| owners.get(c)), [None, Some(1), Some(1), None, None]);
    let mut linked = vec![0; 64];
    (linked[20], linked[21]) = (1, 2);
    assert_eq!(pool.audit(linked, &[0, 1, 2, 3]), Vec::<String>::new());
}

#[test]
fn recovery_holds_dead_pieces_until_a_watermark_covers_them() {
    let (mut pool, pins) = (pool(), Pins::new(64));
    let mut owners = pool.owners();
    assert!(pool.claim(&at(20, 1), 1, &mut owners));
    let held = pool.hold_dead(9, [at(15, 1), at(20, 2), at(30, 5)].concat().into());
    assert_eq!(held.to_vec(), [at(20, 2), at(30, 5)].concat(), "what is the journal's stays the journal's");
    assert_eq!(pool.free(), 45);
    pool.release(8, &pins);
    assert_eq!(pool.free(), 45);
    pool.release(9, &pins);
    assert_eq!((pool.free(), pool.used()), (47, 1), "the living piece keeps its chunk");
    let nothing = Extents::new();
    assert_eq!(pool.hold_dead(10, at(15, 1)), nothing);
    assert!(!pool.has_dying());
}

#[test]
fn free_runs_are_few_and_stay_free() {
    let (mut pool, pins) = (pool(), Pins::new(64));
    assert_eq!(pool.free_runs(9, 3), Some(at(16, 9).to_vec()));
    while pool.allocate(4, &mut None).is_some() {}
    assert_eq!(pool.free_runs(1, 3), None);
    for chunk in [20, 21, 22, 30, 32, 33, 40, 63] {
        pool.give_back(&at(chunk, 4), &pins);
    }
    assert_eq!(pool.free_runs(8, 3), Some(at(32, 8).to_vec()), "the smallest that is large enough");
    assert_eq!(pool.free_runs(12, 3), Some(at(20, 12).to_vec()));
    assert_eq!(pool.free_runs(13, 3), Some([at(20, 12), at(32, 1)].concat()), "the longest, in order");
    assert_eq!(pool.free_runs(24, 3), Some([at(20, 12), at(30, 4), at(32, 8)].concat()));
    assert_eq!([pool.free_runs(25, 3), pool.free_runs(u64::MAX, 3)], [None, None]);
    assert_eq!(pool.free(), 8);
}

#[test]
fn a_tail_is_the_rest_of_a_chunk() {
    let pool = pool();
    assert_eq!(pool.tail_behind(80), Some(Tail { chunk: 20, generation: 0, block: 81 }));
    assert_eq!(pool.tail_behind(82), Some(Tail { chunk: 20, generation: 0, block: 83 }));
    assert_eq!(pool.tail_behind(83), None, "full");
    assert_eq!(pool.tail_behind(64 * 4), None, "beyond the pool");
}

#[test]
fn an_audit_tells_every_chunk_that_is_not_in_exactly_one_place() {
    let (mut pool, pins) = (pool(), Pins::new(64));
    let journal = [0, 1, 2, 3];
    let a = pool.allocate(4, &mut None).unwrap();
    let chunk = a[0].block / 4;
    let mut linked = vec![0; 64];
    linked[chunk as usize] = 1;
    let none = vec![0; 64];
    assert_eq!(pool.audit(linked.clone(), &journal), Vec::<String>::new());
    assert_eq!(pool.audit(none.clone(), &journal).len(), 1, "counted, and not linked");
    assert_eq!(pool.audit(linked.clone(), &journal[1..]).len(), 4, "nobody's");
    assert_eq!(pool.audit(linked.clone(), &[0, 1, 2, 3, 15]).len(), 4, "free, and the journal's");
    pins.pin(chunk);
    pool.unlink(1, a.to_vec());
    assert_eq!(pool.audit(none.clone(), &journal), Vec::<String>::new(), "dying counts");
    pool.release(1, &pins);
    assert_eq!(pool.audit(none.clone(), &journal), Vec::<String>::new(), "read, and nothing else");
    pool.free.insert(chunk);
    assert_eq!(pool.audit(none.clone(), &journal).len(), 1, "free, and read");
}

#[test]
fn slabs_change_hands_whole_and_from_the_end() {
    let mut pool = pool();
    assert_eq!((pool.take_slab(), pool.take_slab()), (Some(15), Some(14)));
    assert_eq!(pool.free(), 40);
    pool.allocate(1, &mut Some(Tail { chunk: 51, generation: 9, block: 0 })).unwrap();
    assert_eq!(pool.used_for(52), ChunkUse::Chain, "in slab 13");
    assert_eq!(pool.take_slab(), Some(12), "that one is not free as a whole");
    pool.return_slab(15);
    assert_eq!((pool.free(), pool.chunks_per_slab()), (39, 4));
    assert_eq!(pool.take_slab(), Some(15));
}

/// Chunks of a block each, of which those are free that `free` says yes to.
fn pool_of(chunks: u32, free: impl Fn(u32) -> bool) -> Pool {
    let mut pool = Pool::new(chunks, 4096, 65536, &[]);
    (0..chunks).filter(|&chunk| !free(chunk)).for_each(|chunk| assert!(pool.free.remove(chunk)));
    pool
}

/// Before the cursor as well as behind it, at either end, and across it.
#[test]
fn what_lies_side_by_side_is_found_wherever_it_is() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..20_000 {
        let free: Vec<bool> = (0..64).map(|_| rng.random_bool(0.6)).collect();
        let mut pool = pool_of(64, |chunk| free[chunk as usize]);
        pool.cursor = rng.random_range(0..=64);
        let n = rng.random_range(1..7);
        let wish = rng.random_range(0..=64);
        let fits = |chunk: &u32| chunk + n <= 64 && (*chunk..chunk + n).all(|c| free[c as usize]);
        let behind = (wish..64).find(fits);
        let (cursor, found) = (pool.cursor, pool.find(n, wish));
        match behind {
            Some(first) => assert_eq!(found, Some(first)),
            None => assert_eq!(found.is_some(), (0..64).any(|c| fits(&c)), "{n} from {wish}, {cursor}: {free:?}"),
        }
        assert!(found.is_none_or(|chunk| fits(&chunk)));
    }
}

/// A pool of a terabyte in small chunks: to look at all of it would hold up every batch.
#[test]
fn few_of_many_short_runs_are_looked_at_for_a_long_one() {
    const CHUNKS: u32 = 1 << 20;
    let mut pool = pool_of(CHUNKS, |chunk| chunk % 2 == 0);
    let mut tail = None;
    for _ in 0..10 {
        let before = LOOKED_AT.get();
        let extents = pool.allocate(3, &mut tail).expect("room");
        assert_eq!(extents.len(), 3);
        let looked = LOOKED_AT.get() - before;
        assert!(looked <= MOST_RUNS as u64, "{looked} runs");
    }
    // A long one is come to, search by search, wherever it is.
    let mut pool = pool_of(CHUNKS, |chunk| chunk % 2 == 0 || (700_000..700_100).contains(&chunk));
    let mut searches = 0..CHUNKS as usize / MOST_RUNS * 4;
    assert!(searches.any(|_| pool.allocate(3, &mut None).is_some_and(|extents| extents.len() == 1)));
}
