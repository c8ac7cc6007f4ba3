//! The pool: a bitmap of free chunks, and a count of the pieces in each of the others.

use std::collections::VecDeque;

use roaring::RoaringBitmap;

use super::pins::Pins;
use crate::format::BLOCK_BYTES;
use crate::format::piece::Extent;
use crate::inspect::ChunkUse;

/// Where a replica's next small piece may go: behind its last one, in the same chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub chunk: u32,
    /// The chunk's generation: once it was freed, it is no longer ours.
    pub generation: u32,
    /// First unused block, counted from the pool's start.
    pub block: u32,
}

/// Whose each chunk is, while the log is being opened: replicas are numbered from 0, in whatever order they are asked.
#[derive(Debug)]
pub(crate) struct Owners(Vec<u32>);

impl Owners {
    pub fn get(&self, chunk: u32) -> Option<u32> {
        self.0.get(chunk as usize)?.checked_sub(1)
    }

    /// `true`: it was nobody's.
    pub fn set(&mut self, chunk: u32, owner: u32) -> bool {
        self.0.get_mut(chunk as usize).is_some_and(|slot| std::mem::replace(slot, owner.saturating_add(1)) == 0)
    }
}

/// The chunks that are not the journal's.
#[derive(Debug)]
pub(crate) struct Pool {
    free: RoaringBitmap,
    /// Pieces in each chunk: linked ones, those being written, and those whose unlinking is not durable yet.
    pieces: Vec<u16>,
    /// Grows whenever the chunk is freed.
    generations: Vec<u32>,
    blocks_per_chunk: u32,
    chunks_per_slab: u32,
    /// Next-fit: the search begins where the last one ended, so that neighbours stay neighbours.
    cursor: u32,
    /// Space of unlinked pieces, by the LSN of the record that unlinked them.
    dying: VecDeque<(u64, Vec<Extent>)>,
    /// Chunks without pieces that a reader still pins.
    pinned: Vec<u32>,
}

impl Pool {
    pub fn new(chunks: u32, chunk_bytes: u32, segment_bytes: u32, journal_slabs: &[u32]) -> Self {
        let chunks_per_slab = segment_bytes / chunk_bytes;
        let mut free = RoaringBitmap::new();
        free.insert_range(0..chunks);
        for slab in journal_slabs {
            free.remove_range(slab * chunks_per_slab..(slab + 1) * chunks_per_slab);
        }
        Self {
            free,
            pieces: vec![0; chunks as usize],
            generations: vec![0; chunks as usize],
            blocks_per_chunk: (u64::from(chunk_bytes) / BLOCK_BYTES) as u32,
            chunks_per_slab,
            cursor: 0,
            dying: VecDeque::new(),
            pinned: Vec::new(),
        }
    }

    /// Chunks that may be allocated now.
    pub fn free(&self) -> u64 {
        self.free.len()
    }

    /// Chunks that will be free once something is durable or a reader lets go (an upper bound), in chunks.
    pub fn pending(&self) -> u64 {
        let dying: u64 = self.dying.iter().flat_map(|(_, e)| e).map(|e| u64::from(e.blocks)).sum();
        dying.div_ceil(u64::from(self.blocks_per_chunk)) + self.pinned.len() as u64
    }

    /// Whether anything waits for durability.
    pub fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// Chunks that hold pieces.
    pub fn used(&self) -> u64 {
        self.pieces.iter().filter(|&&n| n > 0).count() as u64
    }

    /// Chunks whose pieces are gone but which a reader pins.
    pub fn pinned(&self) -> u64 {
        self.pinned.len() as u64
    }

    /// What a chunk outside of the journal is used for.
    pub fn used_for(&self, chunk: u32) -> ChunkUse {
        if self.free.contains(chunk) {
            ChunkUse::Free
        } else if self.pinned.contains(&chunk) {
            ChunkUse::Pinned
        } else {
            ChunkUse::Chain
        }
    }

    /// Blocks behind the replica's last piece, in the same chunk.
    pub fn behind(&self, tail: Option<Tail>) -> u32 {
        let Some(t) = tail.filter(|t| self.generations.get(t.chunk as usize) == Some(&t.generation)) else { return 0 };
        ((t.chunk + 1) * self.blocks_per_chunk).saturating_sub(t.block)
    }

    /// As if another piece lay in the chunk that is written on: given back when that is done.
    pub fn keep(&mut self, tail: Option<Tail>) -> Option<Extent> {
        let tail = tail.filter(|t| self.behind(Some(*t)) > 0)?;
        let kept = Extent { block: tail.chunk * self.blocks_per_chunk, blocks: 1 };
        self.count(&[kept]);
        Some(kept)
    }

    /// Allocates room for one piece. The extents are one wherever the pool allows it.
    pub fn allocate(&mut self, blocks: u32, tail: &mut Option<Tail>) -> Option<Vec<Extent>> {
        if self.behind(*tail) >= blocks
            && let Some(t) = tail.as_mut()
        {
            let extent = Extent { block: t.block, blocks };
            t.block += blocks;
            return self.hold(vec![extent]);
        }
        let chunks = blocks.div_ceil(self.blocks_per_chunk);
        if u64::from(chunks) > self.free.len() {
            return None;
        }
        let wish = tail.map_or(self.cursor, |t| t.chunk + 1);
        let extents =
            match self.run(chunks, wish).or_else(|| self.run(chunks, self.cursor)).or_else(|| self.run(chunks, 0)) {
                Some(chunk) => {
                    self.free.remove_range(chunk..chunk + chunks);
                    self.cursor = chunk + chunks;
                    vec![Extent { block: chunk * self.blocks_per_chunk, blocks }]
                }
                None => self.scatter(chunks, blocks),
            };
        if let Some(last) = extents.last() {
            let block = last.block + last.blocks;
            let chunk = (block - 1) / self.blocks_per_chunk;
            *tail = self.generations.get(chunk as usize).map(|&generation| Tail { chunk, generation, block });
        }
        self.hold(extents)
    }

    /// The first run of `n` free chunks at or after `from`.
    fn run(&self, n: u32, from: u32) -> Option<u32> {
        let mut start = None;
        let mut next = from;
        for chunk in self.free.range(from..) {
            if start.is_none() || chunk != next {
                start = Some(chunk);
            }
            next = chunk + 1;
            if let Some(s) = start
                && next - s == n
            {
                return Some(s);
            }
        }
        None
    }

    /// Any free chunks: only for a piece longer than every free run.
    fn scatter(&mut self, chunks: u32, blocks: u32) -> Vec<Extent> {
        let picked: Vec<u32> = self.free.iter().take(chunks as usize).collect();
        let mut left = blocks;
        let mut extents: Vec<Extent> = Vec::new();
        for chunk in picked {
            self.free.remove(chunk);
            let (block, n) = (chunk * self.blocks_per_chunk, left.min(self.blocks_per_chunk));
            left -= n;
            match extents.last_mut() {
                Some(e) if e.block + e.blocks == block => e.blocks += n,
                _ => extents.push(Extent { block, blocks: n }),
            }
        }
        extents
    }

    /// Free chunks for so many blocks, in as few runs as there are, and at most `most`, ascending. **They stay free**: for whoever writes
    /// when nobody allocates any more.
    pub fn free_runs(&self, blocks: u64, most: usize) -> Option<Vec<Extent>> {
        let per = u64::from(self.blocks_per_chunk);
        let wanted = blocks.div_ceil(per);
        let mut runs: Vec<(u32, u64)> = Vec::new();
        for chunk in &self.free {
            match runs.last_mut() {
                Some((first, n)) if u64::from(*first) + *n == u64::from(chunk) => *n += 1,
                _ => runs.push((chunk, 1)),
            }
        }
        // The smallest that holds all of it; else the longest there are.
        if let Some(&run) = runs.iter().filter(|(_, n)| *n >= wanted).min_by_key(|&&(first, n)| (n, first)) {
            runs = vec![run];
        } else {
            runs.sort_unstable_by_key(|&(first, n)| (std::cmp::Reverse(n), first));
            runs.truncate(most);
        }
        let mut left = blocks;
        let mut extents = Vec::with_capacity(runs.len());
        for (first, n) in runs {
            let blocks = left.min(n * per);
            left -= blocks;
            if blocks > 0 {
                let block = u32::try_from(u64::from(first) * per).ok()?;
                extents.push(Extent { block, blocks: u32::try_from(blocks).ok()? });
            }
        }
        extents.sort_unstable_by_key(|e| e.block);
        (left == 0).then_some(extents)
    }

    /// Counts a piece in every chunk it touches.
    fn hold(&mut self, extents: Vec<Extent>) -> Option<Vec<Extent>> {
        self.count(&extents);
        Some(extents)
    }

    fn count(&mut self, extents: &[Extent]) {
        for chunk in extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            if let Some(n) = self.pieces.get_mut(chunk as usize) {
                *n = n.saturating_add(1);
            }
        }
    }

    /// Recovery: takes the chunks of a linked piece for the `owner`th replica. `false`, and nothing changes, where one of them belongs to the
    /// journal or to another replica.
    pub fn claim(&mut self, extents: &[Extent], owner: u32, owners: &mut Owners) -> bool {
        let chunks = || extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk));
        let fits = chunks().all(|c| match owners.get(c) {
            Some(other) => other == owner,
            None => self.free.contains(c),
        });
        if !fits {
            return false;
        }
        for chunk in chunks() {
            if owners.set(chunk, owner) {
                self.free.remove(chunk);
            }
        }
        self.count(extents);
        true
    }

    /// Nobody owns any of its chunks.
    pub fn owners(&self) -> Owners {
        Owners(vec![0; self.pieces.len()])
    }

    /// Recovery: takes the chunks of a piece that is dead already, and frees them once a durable watermark covers `lsn`.
    /// Answers what it took: what is the journal's stays the journal's.
    pub fn hold_dead(&mut self, lsn: u64, mut extents: Vec<Extent>) -> Vec<Extent> {
        let ours = |c: u32| self.free.contains(c) || self.pieces.get(c as usize).is_some_and(|&n| n > 0);
        extents.retain(|e| e.chunks(self.blocks_per_chunk).all(ours));
        for chunk in extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            self.free.remove(chunk);
        }
        let extents = self.hold(extents).unwrap_or_default();
        self.unlink(lsn, extents.clone());
        extents
    }

    /// Recovery: the tail behind the replica's last block, if that chunk has room left.
    pub fn tail_behind(&self, last_block: u32) -> Option<Tail> {
        let chunk = last_block / self.blocks_per_chunk;
        let generation = *self.generations.get(chunk as usize)?;
        (last_block + 1 < (chunk + 1) * self.blocks_per_chunk).then_some(Tail {
            chunk,
            generation,
            block: last_block + 1,
        })
    }

    /// The space of pieces unlinked by a record at `lsn`: free once a durable frame's watermark covers it.
    pub fn unlink(&mut self, lsn: u64, extents: Vec<Extent>) {
        if !extents.is_empty() {
            self.dying.push_back((lsn, extents));
        }
    }

    /// Gives back at once what was never linked.
    pub fn give_back(&mut self, extents: &[Extent], pins: &Pins) {
        for extent in extents {
            self.drop_piece(*extent, pins);
        }
    }

    /// Frees what records at or below `watermark` unlinked. `watermark` was carried by a frame that is itself durable: recovery
    /// then never verifies a payload that lay there.
    pub fn release(&mut self, watermark: u64, pins: &Pins) {
        while self.dying.front().is_some_and(|&(lsn, _)| lsn <= watermark) {
            let Some((_, extents)) = self.dying.pop_front() else { break };
            for extent in extents {
                self.drop_piece(extent, pins);
            }
        }
        let pinned = std::mem::take(&mut self.pinned);
        for chunk in pinned {
            self.free_or_keep(chunk, pins);
        }
    }

    fn drop_piece(&mut self, extent: Extent, pins: &Pins) {
        for chunk in extent.chunks(self.blocks_per_chunk) {
            let Some(n) = self.pieces.get_mut(chunk as usize) else { continue };
            *n = n.saturating_sub(1);
            if *n == 0 {
                if let Some(generation) = self.generations.get_mut(chunk as usize) {
                    *generation = generation.wrapping_add(1);
                }
                self.free_or_keep(chunk, pins);
            }
        }
    }

    fn free_or_keep(&mut self, chunk: u32, pins: &Pins) {
        if pins.is_pinned(chunk) {
            self.pinned.push(chunk);
        } else {
            self.free.insert(chunk);
        }
    }

    /// Compares the counts with the pieces that are really linked; answers what does not agree.
    pub fn audit(&self, linked: &std::collections::HashMap<u32, u16>, journal_slabs: &[u32]) -> Vec<String> {
        let mut expected = linked.clone();
        for chunk in self.dying.iter().flat_map(|(_, e)| e).flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            *expected.entry(chunk).or_default() += 1;
        }
        let mut wrong = Vec::new();
        for (chunk, &count) in (0_u32..).zip(&self.pieces) {
            let want = expected.get(&chunk).copied().unwrap_or(0);
            let free = self.free.contains(chunk);
            let journal = journal_slabs.contains(&(chunk / self.chunks_per_slab));
            let pinned = self.pinned.contains(&chunk);
            let places = u8::from(free) + u8::from(journal) + u8::from(pinned) + u8::from(count > 0);
            if count != want || places != 1 {
                wrong.push(format!(
                    "chunk {chunk}: counts {count} pieces, {want} are linked; free: {free}, journal: {journal}, pinned: {pinned}"
                ));
            }
        }
        wrong
    }

    /// Takes a slab whose chunks are all free, for the journal.
    pub fn take_slab(&mut self) -> Option<u32> {
        let per = self.chunks_per_slab;
        let slabs = self.pieces.len() as u32 / per;
        // From the end: chains fill the pool from the front.
        let slab = (0..slabs).rev().find(|s| self.free.range_cardinality(s * per..(s + 1) * per) == u64::from(per))?;
        self.free.remove_range(slab * per..(slab + 1) * per);
        Some(slab)
    }

    /// Gives a slab of the journal back.
    pub fn return_slab(&mut self, slab: u32) {
        self.free.insert_range(slab * self.chunks_per_slab..(slab + 1) * self.chunks_per_slab);
    }

    /// Chunks in a slab.
    pub fn chunks_per_slab(&self) -> u32 {
        self.chunks_per_slab
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
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
        pool.unlink(10, a);
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
        pool.unlink(1, old);
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
        pool.unlink(1, a.clone());
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
            let mut live: Vec<Vec<Extent>> = Vec::new();
            let mut tail = None;
            for _ in 0..200 {
                if rng.random_bool(0.6) {
                    if let Some(e) = pool.allocate(rng.random_range(1..30), &mut tail) {
                        live.push(e);
                    }
                } else if !live.is_empty() {
                    let e = live.swap_remove(rng.random_range(0..live.len()));
                    pool.unlink(1, e);
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

    fn at(chunk: u32, blocks: u32) -> Vec<Extent> {
        vec![Extent { block: chunk * 4, blocks }]
    }

    #[test]
    fn what_waits_is_counted_in_whole_chunks_and_told_apart() {
        let (mut pool, pins) = (pool(), Pins::new(64));
        let (a, b) = (pool.allocate(2, &mut None).unwrap(), pool.allocate(3, &mut None).unwrap());
        let (first, second) = (a[0].block / 4, b[0].block / 4);
        assert_eq!((pool.used(), pool.pending(), pool.has_dying()), (2, 0, false));
        pins.pin(first);
        pool.unlink(5, a);
        assert_eq!((pool.pending(), pool.has_dying()), (1, true));
        pool.unlink(6, b);
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
        assert_eq!(pool.allocate(1, &mut tail), Some(vec![Extent { block: 67, blocks: 1 }]), "exactly what is left");
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
        assert_eq!(pool.allocate(14, &mut tail), Some(extents));
        assert_eq!(tail, Some(Tail { chunk: 40, generation: 1, block: 162 }));
        assert_eq!(pool.allocate(3, &mut tail), None, "two blocks are left there");
        assert_eq!(pool.allocate(2, &mut tail), Some(vec![Extent { block: 162, blocks: 2 }]));
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
        let linked = [(20, 1), (21, 2)].into_iter().collect();
        assert_eq!(pool.audit(&linked, &[0, 1, 2, 3]), Vec::<String>::new());
    }

    #[test]
    fn recovery_holds_dead_pieces_until_a_watermark_covers_them() {
        let (mut pool, pins) = (pool(), Pins::new(64));
        let mut owners = pool.owners();
        assert!(pool.claim(&at(20, 1), 1, &mut owners));
        let held = pool.hold_dead(9, [at(15, 1), at(20, 2), at(30, 5)].concat());
        assert_eq!(held, [at(20, 2), at(30, 5)].concat(), "what is the journal's stays the journal's");
        assert_eq!(pool.free(), 45);
        pool.release(8, &pins);
        assert_eq!(pool.free(), 45);
        pool.release(9, &pins);
        assert_eq!((pool.free(), pool.used()), (47, 1), "the living piece keeps its chunk");
        let nothing: Vec<Extent> = Vec::new();
        assert_eq!(pool.hold_dead(10, at(15, 1)), nothing);
        assert!(!pool.has_dying());
    }

    #[test]
    fn free_runs_are_few_and_stay_free() {
        let (mut pool, pins) = (pool(), Pins::new(64));
        assert_eq!(pool.free_runs(9, 3), Some(at(16, 9)));
        while pool.allocate(4, &mut None).is_some() {}
        assert_eq!(pool.free_runs(1, 3), None);
        for chunk in [20, 21, 22, 30, 32, 33, 40, 63] {
            pool.give_back(&at(chunk, 4), &pins);
        }
        assert_eq!(pool.free_runs(8, 3), Some(at(32, 8)), "the smallest that is large enough");
        assert_eq!(pool.free_runs(12, 3), Some(at(20, 12)));
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
        let linked: std::collections::HashMap<u32, u16> = [(chunk, 1)].into_iter().collect();
        let none = std::collections::HashMap::new();
        assert_eq!(pool.audit(&linked, &journal), Vec::<String>::new());
        assert_eq!(pool.audit(&none, &journal).len(), 1, "counted, and not linked");
        assert_eq!(pool.audit(&linked, &journal[1..]).len(), 4, "nobody's");
        assert_eq!(pool.audit(&linked, &[0, 1, 2, 3, 15]).len(), 4, "free, and the journal's");
        pins.pin(chunk);
        pool.unlink(1, a);
        assert_eq!(pool.audit(&none, &journal), Vec::<String>::new(), "dying counts");
        pool.release(1, &pins);
        assert_eq!(pool.audit(&none, &journal), Vec::<String>::new(), "read, and nothing else");
        pool.free.insert(chunk);
        assert_eq!(pool.audit(&none, &journal).len(), 1, "free, and read");
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
}
