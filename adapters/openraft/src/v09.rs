//! Log storage for openraft 0.9 with its feature `storage-v2`.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft_09::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft_09::{
    AnyError, LogId, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig, StorageError, StorageIOError, Vote,
};
use strandlog::{Entry, Wal};

use crate::encoded::Encoded;
use crate::group::{Group, plain};
use crate::{COMMITTED, Error, PURGED, READ_BYTES, Result, VOTE};

type NodeId<C> = <C as RaftTypeConfig>::NodeId;
type Stored<C, T> = std::result::Result<T, StorageError<NodeId<C>>>;

/// One raft group in a [`Wal`]: its [`RaftLogStorage`].
///
/// One group must have one `LogStore`; its readers may be many.
#[derive(Debug)]
pub struct LogStore<C> {
    group: Arc<Group>,
    types: PhantomData<fn() -> C>,
}

/// Reads one group's log beside its [`LogStore`].
#[derive(Debug)]
pub struct LogReader<C> {
    group: Arc<Group>,
    types: PhantomData<fn() -> C>,
}

impl<C> LogStore<C> {
    /// The storage of `group`, as the log holds it: blank when it does not. The group is the replica's id in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when the log lost something of this group, which then must not take part: what it promised may be gone.
    pub fn new(wal: Arc<Wal>, group: u64) -> Result<Self> {
        Ok(Self { group: Arc::new(Group::open(wal, group)?), types: PhantomData })
    }

    /// The group.
    pub fn group(&self) -> u64 {
        self.group.id()
    }

    /// A reader of this group.
    pub fn reader(&self) -> LogReader<C> {
        LogReader { group: Arc::clone(&self.group), types: PhantomData }
    }
}

impl<C> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { group: Arc::clone(&self.group), types: PhantomData }
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Stored<C, LogState<C>> {
        let last_purged_log_id: Option<LogId<NodeId<C>>> = self.group.get(PURGED).map_err(reading::<C>)?;
        let last_log_id = match self.group.last().map_err(reading::<C>)? {
            Some(bytes) => {
                let entry: C::Entry = self.group.decode("an entry", &bytes).map_err(reading::<C>)?;
                Some(entry.get_log_id().clone())
            }
            None => last_purged_log_id.clone(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId<C>>) -> Stored<C, ()> {
        let saved = self.group.put(VOTE, "a vote", vote).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Stored<C, Option<Vote<NodeId<C>>>> {
        self.group.get(VOTE).map_err(|error| StorageIOError::read_vote(AnyError::new(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId<NodeId<C>>>) -> Stored<C, ()> {
        let saved = self.group.put_lazily(COMMITTED, "the committed log id", committed.as_ref()).await;
        saved.map_err(writing::<C>)
    }

    async fn read_committed(&mut self) -> Stored<C, Option<LogId<NodeId<C>>>> {
        self.group.get(COMMITTED).map_err(reading::<C>)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<C, ()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let place = |entry: &C::Entry| {
            let log_id = entry.get_log_id();
            (log_id.index, log_id.leader_id.term)
        };
        let entries = Encoded::of(self.group.id(), entries, place).map_err(writing::<C>)?;
        let done = move |outcome: strandlog::Result<_>| {
            callback.log_io_completed(outcome.map(drop).map_err(|error| Error::Log(error).into()));
        };
        self.group.append(entries, done).await.map_err(writing::<C>)
    }

    async fn truncate(&mut self, log_id: LogId<NodeId<C>>) -> Stored<C, ()> {
        self.group.truncate(log_id.index).await.map_err(writing::<C>)
    }

    async fn purge(&mut self, log_id: LogId<NodeId<C>>) -> Stored<C, ()> {
        self.group.purge(log_id.index, log_id.leader_id.term, &log_id).await.map_err(writing::<C>)
    }
}

/// openraft 0.9 asks the storage itself to be a reader, too.
impl<C: RaftTypeConfig> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Stored<C, Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.reader().try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<C, Vec<C::Entry>> {
        self.reader().limited_get_log_entries(start, end).await
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogReader<C> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Stored<C, Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        decode_all::<C>(&self.group, self.group.read(&plain(&range))).map_err(reading::<C>)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<C, Vec<C::Entry>> {
        decode_all::<C>(&self.group, self.group.read_some(&(start..end), READ_BYTES)).map_err(reading::<C>)
    }
}

fn decode_all<C: RaftTypeConfig>(group: &Group, entries: Result<Vec<Entry>>) -> Result<Vec<C::Entry>> {
    entries?.iter().map(|entry| group.decode("an entry", &entry.data)).collect()
}

fn reading<C: RaftTypeConfig>(error: Error) -> StorageError<NodeId<C>> {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn writing<C: RaftTypeConfig>(error: Error) -> StorageError<NodeId<C>> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}
