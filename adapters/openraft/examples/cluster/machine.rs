//! One shard: a map in memory, and its snapshots in the log beside the group's entries.
//!
//! After a restart the map is the last snapshot, and openraft applies again what was committed after it. A snapshot is in the log
//! before the purge that relies on it, so no second file is needed beside the log.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use strandlog::{Batch, Wal};

use crate::types::{Put, Types, Versioned};

type LogId = LogIdOf<Types>;
type Members = StoredMembershipOf<Types>;
type Meta = SnapshotMetaOf<Types>;
type Snapshot = SnapshotOf<Types, Vec<u8>>;

/// Key of the group's keyed state that holds its last snapshot: at most a mebibyte, or half a segment of the log if that is less. A shard
/// must stay below that.
const SNAPSHOT: &[u8] = b"snapshot";

/// Clones share one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    wal: Arc<Wal>,
    group: u64,
    shard: Arc<Mutex<Shard>>,
    /// The position of the snapshot in the log. Held while one is stored: see [`Machine::store`].
    stored_at: Arc<tokio::sync::Mutex<Option<LogId>>>,
}

/// The whole content of a shard; its encoded form is a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Shard {
    applied: Option<LogId>,
    members: Members,
    pairs: BTreeMap<String, Versioned>,
}

impl Machine {
    pub fn open(wal: Arc<Wal>, group: u64) -> io::Result<Self> {
        let mut machine = Self { wal, group, shard: Arc::default(), stored_at: Arc::default() };
        if let Some(snapshot) = machine.stored()? {
            let shard = decode(&snapshot)?;
            machine.stored_at = Arc::new(tokio::sync::Mutex::new(shard.applied));
            machine.shard = Arc::new(Mutex::new(shard));
        }
        Ok(machine)
    }

    pub fn get(&self, key: &str) -> Option<Versioned> {
        self.shard().pairs.get(key).cloned()
    }

    pub fn pairs(&self) -> Vec<(String, Versioned)> {
        self.shard().pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Up to where entries are applied, and a hash of the result.
    pub fn digest(&self) -> (u64, u64) {
        let shard = self.shard();
        let mut hasher = DefaultHasher::new();
        shard.pairs.hash(&mut hasher);
        (shard.applied.map_or(0, |applied| applied.index), hasher.finish())
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        // A panic in the middle of a change ends the group; it does not matter to readers.
        self.shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stored(&self) -> io::Result<Option<bytes::Bytes>> {
        self.wal.replica(self.group).get(SNAPSHOT).map_err(io::Error::other)
    }

    /// On return this snapshot, or a later one, is durable.
    ///
    /// openraft builds a snapshot while another task may install one: a snapshot of an earlier state may be stored last. In place of the
    /// later one it would lie before the purge point, and nothing could be applied after it after a restart. So this checks before it
    /// stores, and holds the lock meanwhile.
    async fn store(&self, at: Option<LogId>, snapshot: &[u8]) -> io::Result<()> {
        let mut stored_at = self.stored_at.lock().await;
        if at < *stored_at {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(self.group, SNAPSHOT, snapshot);
        let pending = self.wal.submit_async(batch).await.map_err(io::Error::other)?;
        *stored_at = at;
        pending.await.map_err(io::Error::other)?;
        Ok(())
    }
}

fn decode(snapshot: &[u8]) -> io::Result<Shard> {
    postcard::from_bytes(snapshot).map_err(io::Error::other)
}

impl Shard {
    fn meta(&self) -> Meta {
        Meta { last_log_id: self.applied, last_membership: self.members.clone() }
    }

    fn put(&mut self, Put { key, value }: Put) {
        if self.pairs.get(&key).is_none_or(|old| old.version < value.version) {
            self.pairs.insert(key, value);
        }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let shard = self.shard().clone();
        let snapshot = postcard::to_allocvec(&shard).map_err(io::Error::other)?;
        self.store(shard.applied, &snapshot).await?;
        Ok(Snapshot { meta: shard.meta(), snapshot })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Members)> {
        let shard = self.shard();
        Ok((shard.applied, shard.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(one) = entries.next().await {
            let (entry, responder) = one?;
            let mut shard = self.shard();
            shard.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(put) => shard.put(put),
                EntryPayload::Membership(members) => shard.members = Members::new(Some(entry.log_id), members),
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &Meta, snapshot: Vec<u8>) -> io::Result<()> {
        let shard = decode(&snapshot)?;
        self.store(shard.applied, &snapshot).await?;
        *self.shard() = shard;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(snapshot) = self.stored()? else { return Ok(None) };
        let meta = decode(&snapshot)?.meta();
        Ok(Some(Snapshot { meta, snapshot: snapshot.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;

    use super::*;

    /// A builder that was overtaken by an installation stores last.
    #[tokio::test]
    async fn a_snapshot_that_comes_late_does_not_replace_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Arc::new(Wal::options().capacity(16 << 20).open(dir.path().join("log")).unwrap());
        let mut machine = Machine::open(Arc::clone(&wal), 7).unwrap();
        let snapshot = |index| Shard { applied: Some(log_id::<Types>(1, 0, index)), ..Shard::default() };
        let (early, late) = (snapshot(50), snapshot(100));
        machine.install_snapshot(&late.meta(), postcard::to_allocvec(&late).unwrap()).await.unwrap();
        machine.store(early.applied, &postcard::to_allocvec(&early).unwrap()).await.unwrap();
        let kept = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(kept.meta.last_log_id, late.applied);
        // And by a machine that was opened again.
        let mut machine = Machine::open(wal, 7).unwrap();
        assert_eq!(machine.applied_state().await.unwrap().0, late.applied);
        machine.store(early.applied, &postcard::to_allocvec(&early).unwrap()).await.unwrap();
        assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta.last_log_id, late.applied);
    }
}
