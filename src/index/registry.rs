//! From replica id to its cell: sharded, so that readers of different replicas do not meet.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::state::ReplicaState;
use crate::sync::{Arc, Mutex, MutexGuard, RwLock};

const SHARDS: usize = 64;
const _: () = assert!(SHARDS.is_power_of_two());

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
}

type Shard = RwLock<FxHashMap<u64, Arc<Cell>>>;

/// All cells ever asked for by a writer. A removed replica keeps its empty cell until the log is reopened.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Shard]>,
}

impl Registry {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(FxHashMap::default())).collect() }
    }

    /// Fibonacci hashing: consecutive ids, the usual case, spread over all shards.
    pub fn shard_of(id: u64) -> usize {
        (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SHARDS
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

    /// As [`Registry::get_or_create`], for who has it alone; says whether it was created.
    pub fn find_or_create(&mut self, id: u64) -> (&Arc<Cell>, bool) {
        match self.shards[Self::shard_of(id)].get_mut().entry(id) {
            Entry::Occupied(entry) => (entry.into_mut(), false),
            Entry::Vacant(entry) => (entry.insert(Arc::new(Cell::new(id, ReplicaState::default()))), true),
        }
    }

    /// Takes over the cells of another one. What is in a shard of both costs most.
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

    /// Every cell, in no order.
    pub fn all(&self) -> Vec<Arc<Cell>> {
        self.shards.iter().flat_map(|s| s.read().values().cloned().collect::<Vec<_>>()).collect()
    }
}
