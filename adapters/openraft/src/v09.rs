//! Log storage for openraft 0.9 with its feature `storage-v2`.

use std::fmt::Debug;
use std::ops::RangeBounds;

use openraft_09::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft_09::{
    AnyError, LogId, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig, StorageError, StorageIOError, Vote,
};

use crate::encoded::Encoded;
use crate::group::{Purge, plain};
pub use crate::store::{LogReader, LogStore};
use crate::{COMMITTED, Error, READ_BYTES, VOTE};

type NodeId<C> = <C as RaftTypeConfig>::NodeId;
type Stored<C, T> = std::result::Result<T, StorageError<NodeId<C>>>;

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Stored<C, LogState<C>> {
        let last_purged_log_id: Option<LogId<NodeId<C>>> = self.group.purge_point().map_err(reading::<C>)?;
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
        let saved = self.group.vote(vote).await;
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

    /// A purge beyond what is committed here is for a snapshot, and openraft 0.9 purges for it as soon as it has told the state machine to
    /// install it (0.10: when that is done). Until then what the state machine lacks is only in the log, so such a purge waits. The entries
    /// after it come when the leader has heard that the snapshot is installed.
    ///
    /// If the state machine reports, and the log has entries up to the snapshot, nothing is purged for it, not even what was reported: the
    /// previous snapshot, which is still the only one, would not reach to where the log begins. The next purge goes on.
    async fn purge(&mut self, log_id: LogId<NodeId<C>>) -> Stored<C, ()> {
        let committed = self.read_committed().await?;
        let is_ahead = committed.is_none_or(|committed| committed.index < log_id.index);
        let log_id = match self.group.may_purge(log_id.index).map_err(writing::<C>)? {
            Purge::Unreported if is_ahead => {
                let (index, term) = (log_id.index, log_id.leader_id.term);
                return self.group.purge_later(index, term, &log_id).map_err(writing::<C>);
            }
            Purge::AsAsked | Purge::Unreported => log_id,
            Purge::To(_) if is_ahead => return Ok(()),
            Purge::To(bytes) => {
                let entry: C::Entry = self.group.decode("an entry", &bytes).map_err(reading::<C>)?;
                entry.get_log_id().clone()
            }
            Purge::Nothing => return Ok(()),
        };
        self.group.purge(log_id.index, log_id.leader_id.term, &log_id).await.map_err(writing::<C>)
    }
}

/// openraft 0.9 requires the storage itself to be a reader, too.
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
        let entries = self.group.read(&plain(&range)).map_err(reading::<C>)?;
        self.group.decode_all(&entries).map_err(reading::<C>)
    }

    /// Entries that openraft sends to others. None if they would not follow what this reader's leader sent before: openraft then asks again,
    /// until it has heard that another leads.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<C, Vec<C::Entry>> {
        let entries = self.group.read_to_send(&(start..end), READ_BYTES, self.cuts).map_err(reading::<C>)?;
        self.group.decode_all(&entries).map_err(reading::<C>)
    }
}

fn reading<C: RaftTypeConfig>(error: Error) -> StorageError<NodeId<C>> {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn writing<C: RaftTypeConfig>(error: Error) -> StorageError<NodeId<C>> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}
