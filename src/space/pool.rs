//! The pool: which chunks are free, and a count of the pieces in each of the others.

use std::collections::VecDeque;

use roaring::RoaringBitmap;
use smallvec::smallvec;

use super::chunk_use::ChunkUse;
use super::free::Free;
use super::pins::Pins;
use crate::format::BLOCK_BYTES;
use crate::format::piece::{Extent, Extents};

/// Where a replica's next small piece may go: behind its last one, in the same chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub chunk: u32,
    /// The chunk's generation: once it was freed, it is no longer ours.
    pub generation: u32,
    /// First unused block, counted from the pool's start.
    pub block: u32,
}

/// The owner of each chunk, while the log is being opened. Replicas are numbered from 0, in any order.
#[derive(Debug)]
pub(crate) struct Owners(Vec<u32>);

impl Owners {
    pub fn get(&self, chunk: u32) -> Option<u32> {
        self.0.get(chunk as usize)?.checked_sub(1)
    }

    /// `true`: it had no owner.
    pub fn set(&mut self, chunk: u32, owner: u32) -> bool {
        self.0.get_mut(chunk as usize).is_some_and(|slot| std::mem::replace(slot, owner.saturating_add(1)) == 0)
    }
}

/// Counts the pieces in each chunk that these extents touch.
pub(crate) fn count_pieces(extents: &[Extent], blocks_per_chunk: u32, counts: &mut [u16]) {
    for chunk in extents.iter().flat_map(|extent| extent.chunks(blocks_per_chunk)) {
        if let Some(count) = counts.get_mut(chunk as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// The chunks that are not the journal's.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Free,
    /// Pieces in each chunk: linked ones, those being written, and those whose unlinking is not durable yet.
    pieces: Vec<u16>,
    /// How many chunks hold pieces.
    used: u64,
    /// Grows whenever the chunk is freed.
    generations: Vec<u32>,
    blocks_per_chunk: u32,
    chunks_per_slab: u32,
    /// Space of unlinked pieces, by the LSN of the record that unlinked them.
    dying: VecDeque<(u64, Vec<Extent>)>,
    /// Chunks without pieces that a reader still pins.
    pinned: Vec<u32>,
    /// Chunks that became free so far.
    freed: u64,
}

impl Pool {
    pub fn new(chunks: u32, chunk_bytes: u32, segment_bytes: u32, journal_slabs: &[u32]) -> Self {
        let chunks_per_slab = segment_bytes / chunk_bytes;
        Self {
            free: Free::new(chunks, chunks_per_slab, journal_slabs),
            pieces: vec![0; chunks as usize],
            used: 0,
            generations: vec![0; chunks as usize],
            blocks_per_chunk: (u64::from(chunk_bytes) / BLOCK_BYTES) as u32,
            chunks_per_slab,
            dying: VecDeque::new(),
            pinned: Vec::new(),
            freed: 0,
        }
    }

    /// Chunks that became free so far: it never becomes less.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Chunks that may be allocated now.
    pub fn free(&self) -> u64 {
        self.free.len()
    }

    /// Chunks that will be free once something is durable or a reader lets go (an upper bound).
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
        self.used
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

    /// Counts another piece in the chunk that is written on, so that it does not become free. To be given back when that is done.
    pub fn keep(&mut self, tail: Option<Tail>) -> Option<Extent> {
        let tail = tail.filter(|t| self.behind(Some(*t)) > 0)?;
        let kept = Extent { block: tail.chunk * self.blocks_per_chunk, blocks: 1 };
        self.count(&[kept]);
        Some(kept)
    }

    /// Allocates room for one piece, in one extent wherever the pool allows it.
    pub fn allocate(&mut self, blocks: u32, tail: &mut Option<Tail>) -> Option<Extents> {
        if self.behind(*tail) >= blocks
            && let Some(t) = tail.as_mut()
        {
            let extent = Extent { block: t.block, blocks };
            t.block += blocks;
            return Some(self.hold(smallvec![extent]));
        }
        let chunks = blocks.div_ceil(self.blocks_per_chunk);
        if u64::from(chunks) > self.free.len() {
            return None;
        }
        let extents = match self.free.take_run(chunks, tail.map(|t| t.chunk + 1)) {
            Some(chunk) => smallvec![Extent { block: chunk * self.blocks_per_chunk, blocks }],
            None => self.scatter(chunks, blocks),
        };
        if let Some(last) = extents.last() {
            let block = last.block + last.blocks;
            let chunk = (block - 1) / self.blocks_per_chunk;
            *tail = self.generations.get(chunk as usize).map(|&generation| Tail { chunk, generation, block });
        }
        Some(self.hold(extents))
    }

    /// Allocates a piece in any free chunks.
    fn scatter(&mut self, chunks: u32, blocks: u32) -> Extents {
        let mut left = blocks;
        let mut extents = Extents::new();
        for chunk in self.free.take_any(chunks) {
            let (block, n) = (chunk * self.blocks_per_chunk, left.min(self.blocks_per_chunk));
            left -= n;
            match extents.last_mut() {
                Some(e) if e.block + e.blocks == block => e.blocks += n,
                _ => extents.push(Extent { block, blocks: n }),
            }
        }
        extents
    }

    /// Free chunks for so many blocks, in as few runs as possible, at most `most`, ascending. **They stay free**: for a caller that writes
    /// when nobody allocates any more.
    pub fn free_runs(&self, blocks: u64, most: usize) -> Option<Vec<Extent>> {
        let per = u64::from(self.blocks_per_chunk);
        let mut left = blocks;
        let mut extents = Vec::new();
        for (first, n) in self.free.runs(blocks.div_ceil(per), most) {
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
    fn hold(&mut self, extents: Extents) -> Extents {
        self.count(&extents);
        extents
    }

    fn count(&mut self, extents: &[Extent]) {
        for chunk in extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            if let Some(n) = self.pieces.get_mut(chunk as usize) {
                self.used += u64::from(*n == 0);
                *n = n.saturating_add(1);
            }
        }
    }

    /// Recovery: takes the chunks of a linked piece for replica number `owner`. `false`, and nothing changes, if one of them belongs to the
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

    /// No chunk has an owner.
    pub fn owners(&self) -> Owners {
        Owners(vec![0; self.pieces.len()])
    }

    /// Recovery: takes the chunks of a piece that is dead already, and frees them once a durable watermark covers `lsn`. Answers what it
    /// took: what is the journal's stays the journal's.
    pub fn hold_dead(&mut self, lsn: u64, mut extents: Extents) -> Extents {
        let ours = |c: u32| self.free.contains(c) || self.pieces.get(c as usize).is_some_and(|&n| n > 0);
        extents.retain(|e| e.chunks(self.blocks_per_chunk).all(ours));
        for chunk in extents.iter().flat_map(|e| e.chunks(self.blocks_per_chunk)) {
            self.free.remove(chunk);
        }
        let extents = self.hold(extents);
        self.unlink(lsn, extents.to_vec());
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

    /// Gives back at once the space of pieces that were never linked.
    pub fn give_back(&mut self, extents: &[Extent], pins: &Pins) {
        for extent in extents {
            self.drop_piece(*extent, pins);
        }
    }

    /// Frees what records at or below `watermark` unlinked. A frame that carries `watermark` must itself be durable: then recovery never
    /// verifies a payload that lay there.
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
            self.used -= u64::from(*n == 1);
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
            self.freed += u64::from(self.free.insert(chunk));
        }
    }

    /// Compares the counts with the pieces that are really linked, chunk by chunk; answers every disagreement. There may be many millions
    /// of chunks, and nothing moves meanwhile: so each is looked at once, and nothing is searched for.
    pub fn audit(&self, mut linked: Vec<u16>, journal_slabs: &[u32]) -> Vec<String> {
        linked.resize(self.pieces.len(), 0);
        self.dying.iter().for_each(|(_, extents)| count_pieces(extents, self.blocks_per_chunk, &mut linked));
        let journal_slabs: RoaringBitmap = journal_slabs.iter().copied().collect();
        let pinned: RoaringBitmap = self.pinned.iter().copied().collect();
        let (mut free, mut pinned) = (self.free.iter().peekable(), pinned.iter().peekable());
        let mut wrong = Vec::new();
        let per_slab = self.chunks_per_slab.max(1) as usize;
        let slabs = self.pieces.chunks(per_slab).zip(linked.chunks(per_slab));
        let mut chunk = 0_u32;
        for (slab, (counts, linked)) in (0_u32..).zip(slabs) {
            let journal = journal_slabs.contains(slab);
            for (&count, &want) in counts.iter().zip(linked) {
                let (free, pinned) = (free.next_if_eq(&chunk).is_some(), pinned.next_if_eq(&chunk).is_some());
                let places = u8::from(free) + u8::from(journal) + u8::from(pinned) + u8::from(count > 0);
                if count != want || places != 1 {
                    wrong.push(format!(
                        "chunk {chunk}: counts {count} pieces, {want} are linked; free: {free}, journal: {journal}, pinned: {pinned}"
                    ));
                }
                chunk += 1;
            }
        }
        wrong
    }

    /// Takes a slab whose chunks are all free, for the journal.
    pub fn take_slab(&mut self) -> Option<u32> {
        self.free.take_slab()
    }

    /// Gives a slab of the journal back.
    pub fn return_slab(&mut self, slab: u32) {
        self.freed += self.free.insert_slab(slab);
    }

    /// Chunks in a slab.
    pub fn chunks_per_slab(&self) -> u32 {
        self.chunks_per_slab
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "pool_tests.rs"]
mod tests;
