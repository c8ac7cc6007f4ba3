//! One group's part of the log, in openraft's indexes. Both versions of openraft stand on it.
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
    /// All that openraft keeps beside the entries has its place: see [`Group::keep_room`].
    has_room: AtomicBool,
    /// The life that this one has begun, or found: what is reported of it is not of the next.
    life: Mutex<Option<Life>>,
    /// Whether a vote was saved since the group was opened.
    has_voted: AtomicBool,
    /// The first index that a purge which waits leaves; 0: none waits. Nothing before it is shown.
    shown_from: AtomicU64,
    /// That purge. Only the group's [`LogStore`](crate::LogStore) writes it.
    waiting: Mutex<Option<Waiting>>,
    /// What is not durable yet, and whether it is committed.
    #[cfg(feature = "v010")]
    appended: Appended,
}

/// A batch whose callback will say that it is durable.
struct Submitted {
    lsn: Lsn,
    outcome: oneshot::Receiver<strandlog::Result<Lsn>>,
}

impl Group {
    pub fn open(wal: Arc<Wal>, id: u64) -> Result<Self> {
        let replica = wal.replica(id);
        // openraft takes what it finds for durable. Who had the group before in this process may have been shut down before it was.
        if !replica.is_durable() {
            wal.sync()?;
        }
        // Of the entry before the first only the term can be damaged. Nobody asks the log for it: the purge point says it.
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

    /// The indexes of the entries it holds, as openraft is to know it: without what a purge that waits takes.
    pub fn held(&self) -> Range<u64> {
        // First, as a purge is over only when the log has it.
        let from = self.shown_from.load(Ordering::Acquire);
        let stored = self.stored();
        stored.start.max(from)..stored.end.max(from)
    }

    /// The indexes of the entries that the log has.
    fn stored(&self) -> Range<u64> {
        let (first, last) = self.replica.bounds();
        first.saturating_sub(1)..last
    }

    /// How often the log's end was cut off so far, also by who had this group open before: what was read meanwhile may be of two logs.
    pub fn cuts(&self) -> u32 {
        self.replica.cuts()
    }

    async fn submit(&self, batch: Batch) -> Result<Submitted> {
        let (told, outcome) = oneshot::channel();
        let lsn = self.wal.submit_with_async(batch, |outcome| drop(told.send(outcome))).await?;
        self.lives();
        Ok(Submitted { lsn, outcome })
    }

    /// It was written: nobody else does that. A write may begin a life, and a snapshot over damage another one.
    fn lives(&self) {
        if let Some(life) = self.replica.life() {
            *self.life() = Some(life);
        }
    }

    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the callback. Callbacks come in order: whoever appended before has been told by then. Who waits for the batch itself
    /// may be woken ahead of them.
    async fn wait(&self, Submitted { lsn, outcome }: Submitted) -> Result<()> {
        // A log without threads is written by who waits. How that ends the callback says, too.
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
