//! One group's part of the log, in openraft's indexes. The storage for both versions of openraft is built on it.
//!
//! openraft counts from 0, the log from 1: an entry lies one *slot* higher than its index says.

mod purging;
mod reading;
mod state;
mod writing;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strandlog::{Batch, Damage, Entry, Life, Lost, Lsn, Replica, Wal};

#[cfg(feature = "v010")]
use crate::appended::Appended;
use crate::codec;
use crate::{Error, Result};
pub(crate) use purging::Purge;
use purging::Waiting;
pub(crate) use reading::plain;

#[derive(Debug)]
pub(crate) struct Group {
    wal: Arc<Wal>,
    replica: Replica,
    /// Room is reserved for all that openraft keeps beside the entries: see [`Group::keep_room`].
    has_room: AtomicBool,
    /// The life of the replica that this value began, or found: a report about it must not count for the next one.
    life: Mutex<Option<Life>>,
    /// Whether a vote was saved since the group was opened.
    has_voted: AtomicBool,
    /// The first index that the waiting purge will leave, or 0 if none waits. Nothing before it is shown to openraft.
    shown_from: AtomicU64,
    /// That purge. Only the group's [`LogStore`](crate::LogStore) writes it.
    waiting: Mutex<Option<Waiting>>,
    /// Appends that are not durable yet, and up to where the log is committed.
    #[cfg(feature = "v010")]
    appended: Appended,
}

/// A submitted batch. `outcome` is completed by its callback, when it is durable.
struct Submitted {
    lsn: Lsn,
    outcome: oneshot::Receiver<strandlog::Result<Lsn>>,
}

impl Group {
    pub fn open(wal: Arc<Wal>, id: u64) -> Result<Self> {
        let replica = wal.replica(id);
        // openraft takes what it finds for durable. An earlier store of this process may have been shut down before its writes were.
        if !replica.is_durable() {
            wal.sync()?;
        }
        // Damage before the first entry can only concern the term of the entry before it. Nobody asks the log for that term: it is in the
        // purge point.
        let first = replica.first_index();
        let counts = |damage: &Damage| !matches!(damage.lost, Lost::Entries { last, .. } if last < first);
        if let Some(damage) = replica.damage().into_iter().find(counts) {
            return Err(Error::Damaged { group: id, what: damage.to_string() });
        }
        let life = Mutex::new(replica.life());
        Ok(Self {
            wal,
            replica,
            life,
            has_room: AtomicBool::new(false),
            has_voted: AtomicBool::new(false),
            shown_from: AtomicU64::new(0),
            waiting: Mutex::new(None),
            #[cfg(feature = "v010")]
            appended: Appended::default(),
        })
    }

    pub fn id(&self) -> u64 {
        self.replica.id()
    }

    /// The indexes of the entries that openraft is to see: those in the log, without those that a waiting purge will drop.
    pub fn held(&self) -> Range<u64> {
        // Read before the log's bounds: it is cleared only once the log has the purge.
        let from = self.shown_from.load(Ordering::Acquire);
        let stored = self.stored();
        stored.start.max(from)..stored.end.max(from)
    }

    /// The indexes of the entries in the log.
    fn stored(&self) -> Range<u64> {
        let (first, last) = self.replica.bounds();
        first.saturating_sub(1)..last
    }

    /// How often the end of this group's log was cut off so far, also by earlier stores: if it changes during a read, the result may mix two logs.
    pub fn cuts(&self) -> u32 {
        self.replica.cuts()
    }

    async fn submit(&self, batch: Batch) -> Result<Submitted> {
        let (told, outcome) = oneshot::channel();
        let lsn = self.wal.submit_with_async(batch, |outcome| drop(told.send(outcome))).await?;
        self.lives();
        Ok(Submitted { lsn, outcome })
    }

    /// To be called after each write: it may have begun a life, and a snapshot over damage another one. Nobody else writes to the group.
    fn lives(&self) {
        if let Some(life) = self.replica.life() {
            *self.life() = Some(life);
        }
    }

    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the callback. Callbacks come in order, so those of earlier appends have run by then. A waiter for the batch's durability
    /// could be woken ahead of them.
    async fn wait(&self, Submitted { lsn, outcome }: Submitted) -> Result<()> {
        // A log without threads is written by the waiter. The callback reports the outcome, too.
        drop(self.wal.wait_durable_async(lsn).await);
        outcome.await.unwrap_or(Err(strandlog::Error::Closed))?;
        Ok(())
    }

    pub fn encode<T: Serialize>(&self, what: &'static str, value: &T) -> Result<Vec<u8>> {
        codec::encode_state(value).map_err(|source| Error::Encode { group: self.id(), what, source })
    }

    pub fn decode<T: DeserializeOwned>(&self, what: &'static str, bytes: &[u8]) -> Result<T> {
        codec::decode(bytes).map_err(|source| Error::Decode { group: self.id(), what, source })
    }

    pub fn decode_all<T: DeserializeOwned>(&self, entries: &[Entry]) -> Result<Vec<T>> {
        entries.iter().map(|entry| self.decode("an entry", &entry.data)).collect()
    }

    fn not_continuous(&self, index: u64) -> Error {
        let Range { start, end } = self.held();
        Error::NotContinuous { group: self.id(), index, first: start, next: end }
    }
}
