//! What lies side by side is found, and few runs are looked at for it.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;

thread_local! {
    /// How many free runs were looked at.
    pub static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

/// A set of so many chunks, of which those are free that `free` says yes to.
fn free_of(chunks: u32, free: impl Fn(u32) -> bool) -> Free {
    let mut all = Free::new(chunks, 16, &[]);
    (0..chunks).filter(|&chunk| !free(chunk)).for_each(|chunk| all.remove(chunk));
    all
}

/// Before the cursor or behind it, at either end, or across it.
#[test]
fn what_lies_side_by_side_is_found_wherever_it_is() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..20_000 {
        let is_free: Vec<bool> = (0..64).map(|_| rng.random_bool(0.6)).collect();
        let mut free = free_of(64, |chunk| is_free[chunk as usize]);
        free.cursor = rng.random_range(0..=64);
        let n = rng.random_range(1..7);
        let wish = rng.random_range(0..=64);
        let fits = |chunk: &u32| chunk + n <= 64 && (*chunk..chunk + n).all(|c| is_free[c as usize]);
        let behind = (wish..64).find(fits);
        let (cursor, found) = (free.cursor, free.find(n, wish));
        match behind {
            Some(first) => assert_eq!(found, Some(first)),
            None => assert_eq!(found.is_some(), (0..64).any(|c| fits(&c)), "{n} from {wish}, {cursor}: {is_free:?}"),
        }
        assert!(found.is_none_or(|chunk| fits(&chunk)));
    }
}

/// A pool of a terabyte in small chunks: to look at all of it would hold up every batch.
#[test]
fn few_of_many_short_runs_are_looked_at_for_a_long_one() {
    const CHUNKS: u32 = 1 << 20;
    let mut free = free_of(CHUNKS, |chunk| chunk % 2 == 0);
    let mut behind = None;
    for _ in 0..10 {
        let before = LOOKED_AT.get();
        assert_eq!(free.take_run(3, behind), None);
        let scattered = free.take_any(3);
        assert_eq!(scattered.len(), 3);
        behind = scattered.last().map(|chunk| chunk + 1);
        let looked = LOOKED_AT.get() - before;
        assert!(looked <= MOST_RUNS as u64, "{looked} runs");
    }
    // Search by search, a long run is reached, wherever it is.
    let mut free = free_of(CHUNKS, |chunk| chunk % 2 == 0 || (700_000..700_100).contains(&chunk));
    let mut searches = 0..CHUNKS as usize / MOST_RUNS * 4;
    assert!(searches.any(|_| {
        let found = free.take_run(3, None);
        assert!(found.is_some() || free.take_any(3).len() == 3);
        found.is_some()
    }));
}

#[test]
fn slabs_are_taken_whole_and_from_the_end() {
    let mut free = Free::new(64, 4, &[0, 7]);
    assert_eq!((free.take_slab(), free.take_slab()), (Some(15), Some(14)));
    assert_eq!(free.len(), 48);
    // One slab is not free as a whole.
    free.remove(13 * 4 + 2);
    assert_eq!(free.take_slab(), Some(12));
    assert_eq!((free.insert_slab(15), free.len()), (4, 47));
    assert_eq!(free.take_slab(), Some(15));
    assert!(free.insert(13 * 4 + 2) && !free.insert(13 * 4 + 2));
    assert_eq!(free.take_slab(), Some(13));
    assert_eq!((0..16).map_while(|_| free.take_slab()).collect::<Vec<_>>(), [11, 10, 9, 8, 6, 5, 4, 3, 2, 1]);
    assert_eq!((free.len(), free.insert_slab(0), free.take_slab()), (0, 4, Some(0)));
}

/// The bitmap is made of parts of 65,536.
#[test]
fn a_run_goes_on_from_one_part_of_the_bitmap_to_the_next() {
    const CHUNKS: u32 = 3 << 16;
    let mut free = Free::new(CHUNKS, 16, &[]);
    assert_eq!(free.runs(1, 9), [(0, u64::from(CHUNKS))]);
    [7, 1 << 16, 150_000].into_iter().for_each(|chunk| free.remove(chunk));
    let all = [(65_537, 84_463), (8, 65_528), (150_001, 46_607), (0, 7)];
    assert_eq!(free.runs(u64::from(CHUNKS), 9), all, "the longest first");
    assert_eq!(free.runs(u64::from(CHUNKS), 2), all[..2]);
    assert_eq!([7, 8, 65_528, 65_529].map(|n| free.runs(n, 1)), [[all[3]], [all[2]], [all[1]], [all[0]]]);
}
