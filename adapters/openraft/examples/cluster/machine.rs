//! One shard: a map in memory, and its snapshots in the log beside the group's entries.
//!
//! After a restart the map is the last snapshot, and openraft applies what was committed behind it once more. A snapshot is in the log
//! before the purge that relies on it, so the log needs no second file beside it.

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

/// Key of the group's keyed state that holds its last snapshot: at most a mebibyte, which a shard must stay below.
const SNAPSHOT: &[u8] = b"snapshot";

/// Clones are one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    wal: Arc<Wal>,
    group: u64,
    shard: Arc<Mutex<Shard>>,
}

/// All of a shard; its encoded form is a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Shard {
    applied: Option<LogId>,
    members: Members,
    pairs: BTreeMap<String, Versioned>,
}

impl Machine {
    pub fn open(wal: Arc<Wal>, group: u64) -> io::Result<Self> {
        let machine = Self { wal, group, shard: Arc::default() };
        if let Some(snapshot) = machine.stored()? {
            *machine.shard() = decode(&snapshot)?;
        }
        Ok(machine)
    }

    pub fn get(&self, key: &str) -> Option<Versioned> {
        self.shard().pairs.get(key).cloned()
    }

    pub fn pairs(&self) -> Vec<(String, Versioned)> {
        self.shard().pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Up to where entries are applied, and a hash of what they made.
    pub fn digest(&self) -> (u64, u64) {
        let shard = self.shard();
        let mut hasher = DefaultHasher::new();
        shard.pairs.hash(&mut hasher);
        (shard.applied.map_or(0, |applied| applied.index), hasher.finish())
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        // A panic in the middle of a change ends the group, and no reader minds.
        self.shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stored(&self) -> io::Result<Option<bytes::Bytes>> {
        self.wal.replica(self.group).get(SNAPSHOT).map_err(io::Error::other)
    }

    /// Durable on return.
    async fn store(&self, snapshot: &[u8]) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(self.group, SNAPSHOT, snapshot);
        self.wal.submit_async(batch).await.map_err(io::Error::other)?.await.map_err(io::Error::other)?;
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
        self.store(&snapshot).await?;
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
        self.store(&snapshot).await?;
        *self.shard() = shard;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(snapshot) = self.stored()? else { return Ok(None) };
        let meta = decode(&snapshot)?.meta();
        Ok(Some(Snapshot { meta, snapshot: snapshot.to_vec() }))
    }
}
