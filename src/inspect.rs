//! Looking inside: where the space went, for tools and for the curious. Nothing here is needed to use a log.

use crate::engine::Engine;
use crate::index::Value;
use crate::replica::Replica;
use crate::wal::Wal;

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkUse {
    /// For nothing.
    Free,
    /// Part of a journal segment that holds something, or is being written.
    Journal,
    /// Part of a journal segment that may be written anew.
    JournalFree,
    /// In the chain of one replica.
    Chain,
    /// Dead, but a reader still holds it.
    Pinned,
    /// Free, but for the snapshot of the last close, which the next opening for writing makes use of.
    Snapshot,
}

/// Neighbouring chunks of one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceRun {
    /// Their use.
    pub used: ChunkUse,
    /// How many.
    pub chunks: u64,
}

/// What a replica takes, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaUsage {
    /// Bytes of its entries in the journal.
    pub journal_bytes: u64,
    /// Bytes of its pieces in chains, large keyed values among them.
    pub chain_bytes: u64,
    /// How many pieces.
    pub pieces: u64,
    /// How many keys of keyed state.
    pub keys: u64,
}

impl Wal {
    /// The file's identity: part of every checksum in it.
    pub fn uuid(&self) -> [u8; 16] {
        self.engine.superblock.lock().uuid
    }

    /// What every chunk is used for, from the front of the file to its end, as runs.
    pub fn space_map(&self) -> Vec<SpaceRun> {
        self.engine.space_map()
    }
}

impl Replica {
    /// What the replica takes, and where.
    pub fn usage(&self) -> ReplicaUsage {
        let Some(cell) = self.cell() else { return ReplicaUsage::default() };
        let state = cell.lock();
        let values = state.keys.iter().filter_map(|e| match &e.value {
            Value::Out(piece) => Some(&piece.desc),
            Value::Inline(_) => None,
        });
        let pieces: Vec<u64> =
            state.places.chain().iter().map(|p| &p.desc).chain(values).map(|d| u64::from(d.bytes)).collect();
        ReplicaUsage {
            journal_bytes: state.places.journal_bytes(),
            chain_bytes: pieces.iter().sum(),
            pieces: pieces.len() as u64,
            keys: state.keys.len() as u64,
        }
    }
}

impl Engine {
    fn space_map(&self) -> Vec<SpaceRun> {
        // Nothing moves between the journal and the chains while this looks.
        let superblock = self.superblock.lock();
        let live: Vec<u32> = {
            let s = self.seq.lock();
            let leaving = s.segments.leaving.iter().map(|&(_, slab)| slab);
            s.segments.live.iter().map(|segment| segment.slab).chain(leaving).collect()
        };
        let snapshot: roaring::RoaringBitmap = superblock
            .snapshot
            .iter()
            .flat_map(|s| &s.extents)
            .flat_map(|e| e.chunks(self.geo.blocks_per_chunk))
            .collect();
        let pool = self.pool.lock();
        let per_slab = pool.chunks_per_slab();
        let mut runs: Vec<SpaceRun> = Vec::new();
        for chunk in 0..self.geo.chunks {
            let slab = chunk / per_slab;
            let used = if live.contains(&slab) {
                ChunkUse::Journal
            } else if superblock.journal_slabs.contains(&slab) {
                ChunkUse::JournalFree
            } else {
                match pool.used_for(chunk) {
                    ChunkUse::Free if snapshot.contains(chunk) => ChunkUse::Snapshot,
                    used => used,
                }
            };
            match runs.last_mut() {
                Some(run) if run.used == used => run.chunks += 1,
                _ => runs.push(SpaceRun { used, chunks: 1 }),
            }
        }
        runs
    }
}
