//! openraft's own storage suite, in full: each of its cases is a new group in one shared log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use strandlog::Wal;

use crate::machine::Machine;
use crate::support::{Store, Types, options};

struct Groups {
    wal: Arc<Wal>,
    next: AtomicU64,
}

impl StoreBuilder<Types, Store, Machine> for Groups {
    async fn build(&self) -> Result<((), Store, Machine), StorageError<Types>> {
        let group = self.next.fetch_add(1, Ordering::Relaxed);
        let store = Store::new(Arc::clone(&self.wal), group);
        Ok(((), store.expect("the group opens"), Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_with_all_groups_in_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let wal = options().capacity(8 << 20).open(dir.path().join("raft.log")).unwrap();
    let wal = Arc::new(wal);
    let groups = Groups { wal: Arc::clone(&wal), next: AtomicU64::new(1) };
    Suite::test_store(&groups).await.unwrap();

    let groups = groups.next.into_inner() - 1;
    assert!(groups >= 40, "{groups} groups: the suite has shrunk");
    assert!(wal.verify(|_| {}).unwrap().is_clean());
    wal.close().unwrap();
}
