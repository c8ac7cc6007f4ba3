//! What the pool gives, keeps and holds back.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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

/// A pool, and a model of it.
struct World {
    pool: Pool,
    pins: Pins,
    journal: Vec<u32>,
    /// Each with its owner.
    live: Vec<(usize, Extents)>,
    dying: Vec<(u64, Extents)>,
    kept: Vec<Extent>,
    tails: [Option<Tail>; 3],
    /// Where each tail is while its chunk is not given up: the next block.
    ends: [Option<u32>; 3],
    pinned: Vec<u32>,
    /// Chunks without pieces that were pinned when that was checked.
    waiting: Vec<u32>,
    lsn: u64,
}

const SLABS: u32 = 24;
const PER_SLAB: u32 = 4;
const PER_CHUNK: u32 = 4;

fn chunks_of(extents: &[Extent]) -> impl Iterator<Item = u32> {
    extents.iter().flat_map(|e| e.chunks(PER_CHUNK))
}

impl World {
    fn new() -> Self {
        let journal = vec![0, 5, 23];
        let chunks = SLABS * PER_SLAB;
        Self {
            pool: Pool::new(chunks, PER_CHUNK * 4096, PER_SLAB * PER_CHUNK * 4096, &journal),
            pins: Pins::new(chunks),
            journal,
            live: Vec::new(),
            dying: Vec::new(),
            kept: Vec::new(),
            tails: [None; 3],
            ends: [None; 3],
            pinned: Vec::new(),
            waiting: Vec::new(),
            lsn: 0,
        }
    }

    fn pieces(&self) -> Vec<u16> {
        let mut counts = vec![0; (SLABS * PER_SLAB) as usize];
        let all = self.live.iter().map(|(_, e)| e).chain(self.dying.iter().map(|(_, e)| e));
        all.for_each(|extents| chunks_of(extents).for_each(|c| counts[c as usize] += 1));
        chunks_of(&self.kept).for_each(|c| counts[c as usize] += 1);
        counts
    }

    /// Updates the model for chunks that had pieces before, and have none now.
    fn dropped(&mut self, before: &[u16]) {
        for (chunk, (&was, &is)) in (0..).zip(before.iter().zip(&self.pieces())) {
            if was > 0 && is == 0 {
                self.ends.iter_mut().for_each(|end| *end = end.filter(|end| (end - 1) / PER_CHUNK != chunk));
                if self.pinned.contains(&chunk) {
                    self.waiting.push(chunk);
                }
            }
        }
    }

    fn allocate(&mut self, owner: usize, blocks: u32) {
        let room = self.ends[owner].map_or(0, |end| end.next_multiple_of(PER_CHUNK) - end);
        let free = self.pool.free();
        let given = self.pool.allocate(blocks, &mut self.tails[owner]);
        if blocks <= room {
            let end = self.ends[owner].expect("there is room behind it");
            assert_eq!(given.as_deref(), Some(&[Extent { block: end, blocks }][..]), "it goes on");
        }
        let Some(extents) = given else {
            assert!(
                u64::from(blocks.div_ceil(PER_CHUNK)) > free,
                "{blocks} blocks were refused where {free} chunks are free"
            );
            return;
        };
        assert_eq!(extents.iter().map(|e| e.blocks).sum::<u32>(), blocks);
        self.ends[owner] = extents.last().map(|e| e.block + e.blocks);
        self.live.push((owner, extents));
    }

    fn step(&mut self, rng: &mut StdRng) {
        let before = self.pieces();
        match rng.random_range(0..100) {
            0..=39 => self.allocate(rng.random_range(0..3), [1, 1, 2, 3, 4, 5, 9, 30][rng.random_range(0..8)]),
            40..=59 if !self.live.is_empty() => {
                let (_, extents) = self.live.swap_remove(rng.random_range(0..self.live.len()));
                self.lsn += 1;
                self.pool.unlink(self.lsn, extents.to_vec());
                self.dying.push((self.lsn, extents));
            }
            60..=64 if !self.live.is_empty() => {
                let (_, extents) = self.live.swap_remove(rng.random_range(0..self.live.len()));
                self.pool.give_back(&extents, &self.pins);
                self.dropped(&before);
            }
            65..=79 => {
                let watermark = rng.random_range(0..=self.lsn);
                self.pool.release(watermark, &self.pins);
                self.dying.retain(|&(lsn, _)| lsn > watermark);
                self.dropped(&before);
                self.waiting.retain(|chunk| self.pinned.contains(chunk));
            }
            80..=82 => {
                let owner = rng.random_range(0..3);
                let kept = self.pool.keep(self.tails[owner]);
                let open = self.ends[owner].filter(|end| !end.is_multiple_of(PER_CHUNK));
                assert_eq!(kept.map(|e| e.block / PER_CHUNK), open.map(|end| end / PER_CHUNK));
                self.kept.extend(kept);
            }
            83..=86 if !self.kept.is_empty() => {
                let kept = self.kept.swap_remove(0);
                self.pool.give_back(&[kept], &self.pins);
                self.dropped(&before);
            }
            // As a reader does that holds the cell which names the chunk.
            87..=90 if !self.live.is_empty() => {
                let (_, extents) = &self.live[rng.random_range(0..self.live.len())];
                let chunk = chunks_of(extents).next().expect("one");
                self.pins.pin(chunk);
                self.pinned.push(chunk);
            }
            91..=94 if !self.pinned.is_empty() => {
                let chunk = self.pinned.swap_remove(rng.random_range(0..self.pinned.len()));
                self.pins.unpin(chunk);
            }
            95..=96 => {
                let free = self.free();
                let whole = |s: &u32| (s * PER_SLAB..(s + 1) * PER_SLAB).all(|c| free.contains(&c));
                let slab = self.pool.take_slab();
                assert_eq!(slab, (0..SLABS).rev().find(whole));
                self.journal.extend(slab);
            }
            97..=98 if !self.journal.is_empty() => {
                let slab = self.journal.swap_remove(rng.random_range(0..self.journal.len()));
                let freed = self.pool.freed();
                self.pool.return_slab(slab);
                assert_eq!(self.pool.freed(), freed + u64::from(PER_SLAB));
            }
            99 => self.open_again(rng),
            _ => {}
        }
    }

    /// As an opening finds it: what records above a watermark unlinked is held, and nobody reads.
    fn open_again(&mut self, rng: &mut StdRng) {
        let fresh = Self { journal: self.journal.clone(), ..Self::new() };
        let Self { live, dying, .. } = std::mem::replace(self, fresh);
        let journal = &self.journal;
        self.pool = Pool::new(SLABS * PER_SLAB, PER_CHUNK * 4096, PER_SLAB * PER_CHUNK * 4096, journal);
        let mut owners = self.pool.owners();
        for (owner, extents) in &live {
            assert!(self.pool.claim(extents, *owner as u32, &mut owners), "nobody else's");
        }
        for (owner, extents) in &live {
            assert!(!self.pool.claim(extents, *owner as u32 + 1, &mut owners), "another's");
        }
        let watermark = rng.random_range(0..=dying.len());
        self.live = live;
        self.lsn = 1;
        for (_, extents) in dying.into_iter().skip(watermark) {
            assert_eq!(self.pool.hold_dead(1, extents.clone()), extents, "the journal has none of it");
            self.dying.push((1, extents));
        }
    }

    fn free(&self) -> Vec<u32> {
        let counts = self.pieces();
        let is_free =
            |c: &u32| counts[*c as usize] == 0 && !self.waiting.contains(c) && !self.journal.contains(&(c / PER_SLAB));
        (0..SLABS * PER_SLAB).filter(is_free).collect()
    }

    fn check(&self) {
        let free = self.free();
        assert_eq!(self.pool.free.iter().collect::<Vec<_>>(), free);
        assert_eq!(self.pool.free(), free.len() as u64);
        let counts = self.pieces();
        assert_eq!(self.pool.used(), counts.iter().filter(|n| **n > 0).count() as u64);
        assert_eq!(self.pool.pinned(), self.waiting.len() as u64);
        let dying: u32 = self.dying.iter().flat_map(|(_, e)| e).map(|e| e.blocks).sum();
        assert_eq!(self.pool.pending(), u64::from(dying.div_ceil(PER_CHUNK)) + self.waiting.len() as u64);
        let mut linked = vec![0; counts.len()];
        self.live.iter().for_each(|(_, e)| count_pieces(e, PER_CHUNK, &mut linked));
        count_pieces(&self.kept, PER_CHUNK, &mut linked);
        assert_eq!(self.pool.audit(linked, &self.journal), Vec::<String>::new());
        // No block belongs to two pieces, and no chunk to two replicas, whether they live or may still be verified.
        let all = self.live.iter().map(|(_, e)| e).chain(self.dying.iter().map(|(_, e)| e));
        let mut blocks: Vec<u32> = all.flatten().flat_map(|e| e.block..e.block + e.blocks).collect();
        let n = blocks.len();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(n, blocks.len(), "a block was given twice");
        let mut owner = std::collections::HashMap::new();
        for (of, extents) in &self.live {
            assert!(chunks_of(extents).all(|c| owner.insert(c, *of).is_none_or(|other| other == *of)));
        }
    }
}

/// Whatever is allocated, unlinked, given back, kept, pinned, made the journal's, and opened again, in any order.
#[test]
fn every_chunk_is_where_a_plain_list_of_pieces_says() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        for _ in 0..400 {
            world.step(&mut rng);
            world.check();
        }
    }
}
