//! Looking inside: where the space went, for tools and for the curious. Nothing here is needed to use a log.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use crate::engine::Engine;
use crate::format::piece::{Extent, PieceDesc};
use crate::format::superblock::Superblock;
use crate::index::{ReplicaState, ReplicaUsage, Value};
use crate::replica::Replica;
use crate::space::{ChunkUse, Pool};
use crate::wal::Wal;

/// Neighbouring chunks with the same use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceRun {
    /// Their use.
    pub used: ChunkUse,
    /// How many.
    pub chunks: u64,
}

/// Neighbouring chunks with the same use and owner, and how much in them is alive. A journal segment is always a stretch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stretch {
    /// Their use.
    pub used: ChunkUse,
    /// How many.
    pub chunks: u64,
    /// The replica whose chain they are in; `None` outside chains, and where all pieces are dead but not freed yet.
    pub replica: Option<u64>,
    /// Live bytes in them: entries, keyed values, and what describes them. In chains this is computed as if all entries of a piece
    /// had the same length. The rest is dead, or was never used.
    pub live_bytes: u64,
}

impl Wal {
    /// The file's identity: part of every checksum in it.
    pub fn uuid(&self) -> [u8; 16] {
        self.engine.superblock.lock().uuid
    }

    /// What every chunk is used for, from the front of the file to its end, as runs. The journal neither grows nor shrinks meanwhile. Commits go on,
    /// so each segment's worth of chunks is shown as it was when it was looked at.
    pub fn space_map(&self) -> Vec<SpaceRun> {
        self.engine.space_map()
    }

    /// Like [`Wal::space_map`], with owners and live bytes. Looks at every replica and every chunk, in memory; nothing is appended or committed
    /// meanwhile.
    pub fn layout(&self) -> Vec<Stretch> {
        self.engine.layout()
    }
}

impl Replica {
    /// How much space the replica takes, and where.
    pub fn usage(&self) -> ReplicaUsage {
        self.cell().map_or_else(ReplicaUsage::default, |cell| cell.lock().usage())
    }
}

impl Engine {
    fn space_map(&self) -> Vec<SpaceRun> {
        // Nothing moves between the journal and the chains meanwhile.
        let superblock = self.superblock.lock();
        let journal: RoaringBitmap = superblock.journal_slabs.iter().copied().collect();
        let live: RoaringBitmap = {
            let s = self.seq.lock();
            let leaving = s.segments.leaving.iter().map(|&(_, slab)| slab);
            s.segments.live.iter().map(|segment| segment.slab).chain(leaving).collect()
        };
        let snapshot = self.chunks_of_snapshot(&superblock);
        let mut runs: Vec<SpaceRun> = Vec::new();
        let mut add = |used, chunks| match runs.last_mut() {
            Some(run) if run.used == used => run.chunks += chunks,
            _ => runs.push(SpaceRun { used, chunks }),
        };
        let per_slab = self.pool.lock().chunks_per_slab();
        for (slab, from) in (0_u32..).zip((0..self.geo.chunks).step_by(per_slab.max(1) as usize)) {
            let chunks = from..from.saturating_add(per_slab).min(self.geo.chunks);
            if live.contains(slab) || journal.contains(slab) {
                let used = if live.contains(slab) { ChunkUse::Journal } else { ChunkUse::JournalFree };
                add(used, u64::from(chunks.end - chunks.start));
                continue;
            }
            // A slab at a time: completing a frame takes the pool's lock, too.
            let pool = self.pool.lock();
            chunks.for_each(|chunk| add(used_for(&pool, &snapshot, chunk), 1));
        }
        runs
    }
}

/// A generous estimate of what a record of the journal takes besides its content.
const RECORD_BYTES: u64 = 48;

/// Live bytes: by chunk, with their owner, and by journal segment.
#[derive(Default)]
struct Live {
    chunks: HashMap<u32, (u64, u64)>,
    segments: HashMap<u64, u64>,
}

impl Live {
    /// Adds what a replica holds. Locations are unpacked relative to `head`.
    fn add(&mut self, id: u64, state: &ReplicaState, engine: &Engine, head: u64) {
        let geo = &engine.geo;
        for span in state.places.spans().iter() {
            for loc in span.locs() {
                *self.segments.entry(loc.lsn(head) / geo.segment_bytes).or_default() += u64::from(loc.len());
            }
        }
        for piece in state.places.chain() {
            let below = state.first.saturating_sub(piece.desc.first);
            let live = u64::from(piece.desc.count).saturating_sub(below);
            self.add_piece(id, &piece.desc, live, geo.blocks_per_chunk);
            *self.segments.entry(piece.meta_seq).or_default() += PieceDesc::TYPICAL_BYTES;
        }
        for entry in state.keys.iter() {
            let inline = match &entry.value {
                Value::Inline(value) => value.len() as u64,
                Value::Out(piece) => {
                    self.add_piece(id, &piece.desc, piece.desc.slots.into(), geo.blocks_per_chunk);
                    PieceDesc::TYPICAL_BYTES
                }
            };
            *self.segments.entry(entry.seq).or_default() += RECORD_BYTES + entry.key.len() as u64 + inline;
        }
        *self.segments.entry(state.core_seq).or_default() += RECORD_BYTES;
    }

    /// Spreads the live part of a piece over its chunks.
    fn add_piece(&mut self, id: u64, desc: &PieceDesc, live: u64, blocks_per_chunk: u32) {
        let blocks: u64 = desc.extents.iter().map(|e| u64::from(e.blocks)).sum();
        let bytes = share(desc.bytes.into(), live, desc.slots.into());
        for extent in &desc.extents {
            for chunk in extent.chunks(blocks_per_chunk) {
                let part = share(bytes, overlap(*extent, chunk, blocks_per_chunk), blocks);
                let (owner, sum) = self.chunks.entry(chunk).or_default();
                (*owner, *sum) = (id, *sum + part);
            }
        }
    }
}

/// `whole * part / of`, without overflow.
fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part.min(of)) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(whole)
}

/// Blocks of the extent that lie in the chunk.
fn overlap(extent: Extent, chunk: u32, blocks_per_chunk: u32) -> u64 {
    let (from, to) = (u64::from(extent.block), u64::from(extent.block) + u64::from(extent.blocks));
    let begin = u64::from(chunk) * u64::from(blocks_per_chunk);
    to.min(begin + u64::from(blocks_per_chunk)).saturating_sub(from.max(begin))
}

/// The use of a chunk that is not the journal's.
fn used_for(pool: &Pool, snapshot: &RoaringBitmap, chunk: u32) -> ChunkUse {
    match pool.used_for(chunk) {
        ChunkUse::Free if snapshot.contains(chunk) => ChunkUse::Snapshot,
        used => used,
    }
}

impl Engine {
    fn chunks_of_snapshot(&self, superblock: &Superblock) -> RoaringBitmap {
        let extents = superblock.snapshot.iter().flat_map(|s| &s.extents);
        extents.flat_map(|e| e.chunks(self.geo.blocks_per_chunk)).collect()
    }

    fn layout(&self) -> Vec<Stretch> {
        // Locked in the same order as when the journal is resized: nothing moves meanwhile.
        let superblock = self.superblock.lock();
        let s = self.seq.lock();
        let (mut live, head) = (Live::default(), self.head.load(crate::sync::Ordering::Relaxed));
        for cell in self.registry.all() {
            let state = cell.lock();
            if state.exists {
                live.add(cell.id, &state, self, head);
            }
        }
        let mut journal: HashMap<u32, (ChunkUse, u64)> =
            superblock.journal_slabs.iter().map(|&slab| (slab, (ChunkUse::JournalFree, 0))).collect();
        journal.extend(s.segments.leaving.iter().map(|&(_, slab)| (slab, (ChunkUse::Journal, 0))));
        journal.extend(s.segments.live.iter().map(|segment| {
            let bytes = live.segments.get(&segment.seq).copied().unwrap_or(0);
            (segment.slab, (ChunkUse::Journal, bytes.min(self.geo.segment_bytes)))
        }));
        let snapshot = self.chunks_of_snapshot(&superblock);
        let pool = self.pool.lock();
        let per_slab = pool.chunks_per_slab();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut chunk = 0;
        while chunk < self.geo.chunks {
            if let Some(&(used, live_bytes)) = journal.get(&(chunk / per_slab)) {
                stretches.push(Stretch { used, chunks: per_slab.into(), replica: None, live_bytes });
                chunk += per_slab;
                continue;
            }
            let used = used_for(&pool, &snapshot, chunk);
            let held = live.chunks.get(&chunk).filter(|_| used == ChunkUse::Chain);
            let (replica, live_bytes) = held.map_or((None, 0), |&(id, bytes)| (Some(id), bytes));
            match stretches.last_mut() {
                Some(last) if (last.used, last.replica) == (used, replica) => {
                    last.chunks += 1;
                    last.live_bytes += live_bytes;
                }
                _ => stretches.push(Stretch { used, chunks: 1, replica, live_bytes }),
            }
            chunk += 1;
        }
        stretches
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Batch;
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;

    fn live(stretches: &[Stretch], pick: impl Fn(&Stretch) -> bool) -> u64 {
        stretches.iter().filter(|s| pick(s)).map(|s| s.live_bytes).sum()
    }

    #[test]
    fn the_layout_names_owners_and_what_of_them_is_alive() {
        let options =
            Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let entries = |n: u64| (1..=n).map(|i| (i, 1, vec![i as u8; 1000])).collect::<Vec<_>>();
        let mut batch = Batch::new();
        batch.append(1, &entries(3)).append(2, &entries(40)).append(3, &entries(40));
        wal.commit(&mut batch).expect("committed");
        let layout = wal.layout();
        let same = |a: &[Stretch], b: &[SpaceRun]| {
            a.iter().map(|s| s.chunks).sum::<u64>() == b.iter().map(|r| r.chunks).sum::<u64>()
        };
        assert!(same(&layout, &wal.space_map()), "every chunk is in one stretch");
        for replica in [2, 3] {
            let bytes = live(&layout, |s| s.replica == Some(replica));
            assert_eq!(
                bytes / 100,
                wal.replica(replica).usage().chain_bytes / 100,
                "all of it is alive, but for rounding"
            );
        }
        let in_journal = live(&layout, |s| s.used == ChunkUse::Journal);
        assert!((3000..6000).contains(&in_journal), "{in_journal}: three entries, and descriptors");
        wal.commit(batch.truncate_prefix(2, 31)).expect("committed");
        let left = live(&wal.layout(), |s| s.replica == Some(2));
        assert!((10_000..14_000).contains(&left), "{left}: a quarter, by whole entries");
        // Dead, but not free before a later frame says that this is durable.
        wal.commit(batch.remove(3)).expect("committed");
        let layout = wal.layout();
        assert_eq!(live(&layout, |s| s.replica == Some(3)), 0);
        assert!(layout.iter().any(|s| s.used == ChunkUse::Chain && s.replica.is_none()), "{layout:?}");
        // A close leaves its snapshot in free chunks.
        let used = |layout: &[Stretch], what| layout.iter().filter(|s| s.used == what).map(|s| s.chunks).sum::<u64>();
        assert_eq!(used(&layout, ChunkUse::Snapshot), 0);
        wal.close().expect("closed");
        let (layout, runs) = (wal.layout(), wal.space_map());
        let of_runs: u64 = runs.iter().filter(|r| r.used == ChunkUse::Snapshot).map(|r| r.chunks).sum();
        assert!(of_runs > 0 && same(&layout, &runs), "{runs:?}");
        assert_eq!(used(&layout, ChunkUse::Snapshot), of_runs);
    }
}
