//! From replica id to its cell: sharded, so that readers of different replicas do not meet.

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

    fn shard(&self, id: u64) -> &Shard {
        // Fibonacci hashing: consecutive ids, the usual case, spread over all shards.
        let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        &self.shards[hash as usize % SHARDS]
    }

    pub fn get(&self, id: u64) -> Option<Arc<Cell>> {
        self.shard(id).read().get(&id).cloned()
    }

    pub fn get_or_create(&self, id: u64) -> Arc<Cell> {
        if let Some(cell) = self.get(id) {
            return cell;
        }
        let mut shard = self.shard(id).write();
        let new = || Arc::new(Cell { id, state: Mutex::new(ReplicaState::default()) });
        Arc::clone(shard.entry(id).or_insert_with(new))
    }

    pub fn insert(&self, id: u64, state: ReplicaState) {
        self.shard(id).write().insert(id, Arc::new(Cell { id, state: Mutex::new(state) }));
    }

    /// Every cell, in no order.
    pub fn all(&self) -> Vec<Arc<Cell>> {
        self.shards.iter().flat_map(|s| s.read().values().cloned().collect::<Vec<_>>()).collect()
    }
}
