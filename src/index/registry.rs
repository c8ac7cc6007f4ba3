//! From replica id to its cell: sharded, so that readers of different replicas do not meet.

use std::collections::hash_map::Entry;
// Not from `crate::sync`: no ordering depends on it.
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::IdMap;
use super::state::ReplicaState;
use crate::format::SPREAD;
use crate::space::Charge;
use crate::sync::{Arc, Mutex, MutexGuard, RwLock};

const SHARDS: usize = 64;
const _: () = assert!(SHARDS.is_power_of_two());
/// From this many on, replicas are looked for shard by shard: one lock for four of them, which pays for sorting them.
const SORTED: usize = 4 * SHARDS;

/// One replica's index behind its own lock, held only for as long as memory is touched.
#[derive(Debug)]
pub(crate) struct Cell {
    pub id: u64,
    state: Mutex<ReplicaState>,
}

impl Cell {
    pub fn new(id: u64, state: ReplicaState) -> Self {
        Self { id, state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, ReplicaState> {
        self.state.lock()
    }

    /// Whether it says nothing that a new cell would not.
    fn is_gone(&self) -> bool {
        let state = self.lock();
        !state.exists && state.charge == Charge::default() && state.pledge.is_none()
    }
}

type Shard = RwLock<IdMap<Arc<Cell>>>;

/// The memory of a search for cells, kept for the next one, so that steady use allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    /// Positions of the ids that are asked for, by shard.
    order: Vec<usize>,
    /// Where those of each shard begin in `order`, and at last its end.
    begins: Vec<usize>,
    cells: Vec<Option<Arc<Cell>>>,
}

impl Cells {
    /// A counting sort.
    fn sort_by_shard(&mut self, ids: &[u64]) {
        let Self { order, begins, .. } = self;
        begins.clear();
        begins.resize(SHARDS + 1, 0);
        // How many are in all shards up to each; counted down from there, that becomes where its own begin.
        ids.iter().for_each(|&id| begins[Registry::shard_of(id)] += 1);
        let mut sum = 0;
        for begin in begins.iter_mut() {
            sum += *begin;
            *begin = sum;
        }
        order.clear();
        order.resize(ids.len(), 0);
        for (i, &id) in ids.iter().enumerate().rev() {
            let begin = &mut begins[Registry::shard_of(id)];
            *begin -= 1;
            order[*begin] = i;
        }
    }
}

/// All cells asked for by a writer. A removed replica keeps its empty cell until many are gone, and for as long as anybody holds it: **there are
/// never two of one id**.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Shard]>,
    /// How many cells of removed replicas were left when such were last forgotten.
    left: AtomicU64,
}

impl Registry {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(IdMap::default())).collect(), left: AtomicU64::new(0) }
    }

    /// Fibonacci hashing: consecutive ids, the usual case, spread over all shards.
    pub fn shard_of(id: u64) -> usize {
        (id.wrapping_mul(SPREAD) >> 58) as usize % SHARDS
    }

    fn shard(&self, id: u64) -> &Shard {
        &self.shards[Self::shard_of(id)]
    }

    pub fn get(&self, id: u64) -> Option<Arc<Cell>> {
        self.shard(id).read().get(&id).cloned()
    }

    pub fn get_or_create(&self, id: u64) -> Arc<Cell> {
        if let Some(cell) = self.get(id) {
            return cell;
        }
        let mut shard = self.shard(id).write();
        Arc::clone(shard.entry(id).or_insert_with(|| Arc::new(Cell::new(id, ReplicaState::default()))))
    }

    /// As [`Registry::get_or_create`] for many at once, in the order of `ids`: where there are several for each shard, it is locked once.
    pub fn get_or_create_all<'a>(
        &self,
        ids: &[u64],
        found: &'a mut Cells,
    ) -> impl Iterator<Item = Arc<Cell>> + use<'a> {
        found.cells.resize(ids.len(), None);
        if ids.len() >= SORTED {
            self.get_by_shard(ids, found);
        }
        let cells = &mut found.cells;
        for (cell, &id) in cells.iter_mut().zip(ids) {
            cell.get_or_insert_with(|| self.get_or_create(id));
        }
        cells.drain(..).flatten()
    }

    /// Finds the cells that exist already.
    fn get_by_shard(&self, ids: &[u64], found: &mut Cells) {
        found.sort_by_shard(ids);
        let Cells { order, begins, cells } = found;
        for (shard, ends) in self.shards.iter().zip(begins.windows(2)) {
            let these = order.get(ends[0]..ends[1]).unwrap_or(&[]);
            if these.is_empty() {
                continue;
            }
            let shard = shard.read();
            for &i in these {
                if let (Some(id), Some(cell)) = (ids.get(i), cells.get_mut(i)) {
                    *cell = shard.get(id).cloned();
                }
            }
        }
    }

    /// As [`Registry::get_or_create`], for a caller that has the registry alone; says whether the cell was created.
    #[inline]
    pub fn find_or_create(&mut self, id: u64) -> (&Arc<Cell>, bool) {
        match self.shards[Self::shard_of(id)].get_mut().entry(id) {
            Entry::Occupied(entry) => (entry.into_mut(), false),
            Entry::Vacant(entry) => (entry.insert(Arc::new(Cell::new(id, ReplicaState::default()))), true),
        }
    }

    /// Takes over the cells of another registry. Shards that hold cells in both cost most.
    #[cfg(not(any(loom, shuttle)))]
    pub fn take(&mut self, other: Self) {
        for (mine, other) in self.shards.iter_mut().zip(other.shards) {
            let (mine, other) = (mine.get_mut(), other.into_inner());
            if mine.is_empty() {
                *mine = other;
            } else {
                mine.extend(other);
            }
        }
    }

    /// Forgets a cell that nobody else can have asked for yet.
    pub fn forget(&mut self, id: u64) {
        self.shards[Self::shard_of(id)].get_mut().remove(&id);
    }

    /// Forgets the cells of removed replicas that nobody holds, if there are more than `kept` more of these than were left the last time.
    /// `replicas`: how many exist.
    pub fn forget_those_gone(&self, replicas: u64, kept: u64) {
        let gone = || (self.shards.iter().map(|s| s.read().len() as u64).sum::<u64>()).saturating_sub(replicas);
        if gone() <= self.left.load(Ordering::Relaxed).saturating_add(kept) {
            return;
        }
        for shard in &self.shards {
            // Looked for without the lock: readers of others must not wait for it.
            let cells: Vec<_> = shard.read().values().cloned().collect();
            let gone: Vec<u64> = cells.into_iter().filter(|cell| cell.is_gone()).map(|cell| cell.id).collect();
            if gone.is_empty() {
                continue;
            }
            let mut shard = shard.write();
            for id in gone {
                // Nobody else holds it, nor can find it meanwhile: so its lock is free, and what it says stands.
                if shard.get(&id).is_some_and(|cell| Arc::strong_count(cell) == 1 && cell.is_gone()) {
                    shard.remove(&id);
                }
            }
            let room = 2 * shard.len();
            shard.shrink_to(room);
        }
        self.left.store(gone(), Ordering::Relaxed);
    }

    /// Every cell, in no order.
    pub fn all(&self) -> Vec<Arc<Cell>> {
        self.shards.iter().flat_map(|s| s.read().values().cloned().collect::<Vec<_>>()).collect()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Few or many, in any order, some of them there already.
    #[test]
    fn many_cells_are_those_of_their_ids_in_their_order() {
        let mut found = Cells::default();
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let registry = Registry::new();
            let mut ids: Vec<u64> = (0..rng.random_range(0..2 * SORTED)).map(|_| rng.random_range(0..2000)).collect();
            ids.sort_unstable();
            ids.dedup();
            for i in (1..ids.len()).rev() {
                ids.swap(i, rng.random_range(0..=i));
            }
            let before: Vec<_> = ids.iter().step_by(3).map(|&id| registry.get_or_create(id)).collect();
            let cells: Vec<_> = registry.get_or_create_all(&ids, &mut found).collect();
            assert_eq!(cells.iter().map(|cell| cell.id).collect::<Vec<_>>(), ids, "seed {seed}");
            for cell in cells.iter().chain(&before) {
                assert!(Arc::ptr_eq(cell, &registry.get(cell.id).expect("made")), "seed {seed}: one cell a replica");
            }
            drop((cells, before));
            assert!(registry.all().iter().all(|cell| Arc::strong_count(cell) == 2), "seed {seed}: none is kept");
        }
    }
}
