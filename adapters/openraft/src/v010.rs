//! Log storage for openraft 0.10.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::vec;

use futures_util::{Stream, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf};
use openraft::vote::{RaftTerm, leader_id_adv, leader_id_std};
use openraft::{OptionalSend, RaftTypeConfig};
use strandlog::Entry;

use crate::encoded::Encoded;
use crate::group::{Group, plain};
pub use crate::store::{LogReader, LogStore};
use crate::{COMMITTED, PURGED, READ_BYTES, Result, VOTE};

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let last_purged_log_id: Option<LogIdOf<C>> = self.group.get(PURGED)?;
        let last_log_id = match self.group.last()? {
            Some(bytes) => Some(self.group.decode::<EntryOf<C>>("an entry", &bytes)?.log_id()),
            None => last_purged_log_id.clone(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        Ok(self.group.put(VOTE, "a vote", vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        Ok(self.group.put_lazily(COMMITTED, "the committed log id", committed.as_ref()).await?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        Ok(self.group.get(COMMITTED)?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let place = |entry: &C::Entry| {
            let (leader, index) = entry.log_id_parts();
            (index, term_of::<C>(leader))
        };
        let entries = Encoded::of(self.group.id(), entries, place)?;
        let done = move |outcome: strandlog::Result<_>| {
            callback.io_completed(outcome.map(drop).map_err(|error| crate::Error::Log(error).into()));
        };
        Ok(self.group.append(entries, done).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        let end = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        Ok(self.group.truncate(end).await?)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        let term = term_of::<C>(&log_id.leader_id);
        Ok(self.group.purge(log_id.index, term, &log_id).await?)
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogReader<C> {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<C::Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = plain(&range);
        let walk =
            Walk { group: Arc::clone(&self.group), next: range.start, end: range.end, read: Vec::new().into_iter() };
        stream::try_unfold(walk, |mut walk| async move { Ok(walk.step::<C>()?.map(|entry| (entry, walk))) })
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.group.decode_all(&self.group.read(&plain(&range))?)?)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        Ok(self.group.get(VOTE)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        Ok(self.group.decode_all(&self.group.read_some(&(start..end), READ_BYTES)?)?)
    }
}

/// A stream of entries: so many in memory as are read at once.
struct Walk {
    group: Arc<Group>,
    next: u64,
    end: u64,
    read: vec::IntoIter<Entry>,
}

impl Walk {
    fn step<C: RaftTypeConfig>(&mut self) -> Result<Option<C::Entry>> {
        if self.read.len() == 0 {
            self.read = self.group.read_some(&(self.next..self.end), READ_BYTES)?.into_iter();
        }
        let Some(entry) = self.read.next() else { return Ok(None) };
        // It lies one slot higher than its index.
        self.next = entry.index;
        self.group.decode("an entry", &entry.data).map(Some)
    }
}

/// The term, for those who look into the log: openraft's own way to say it depends on the kind of leader id. 0 where it has no number.
///
/// Nothing is decided by it: whose entry it is stands in the entry.
fn term_of<C: RaftTypeConfig>(leader: &CommittedLeaderIdOf<C>) -> u64 {
    let leader: &dyn Any = leader;
    if let Some(leader) = leader.downcast_ref::<leader_id_adv::LeaderId<C::Term, C::NodeId>>() {
        return leader.term.as_u64().unwrap_or(0);
    }
    if let Some(leader) = leader.downcast_ref::<leader_id_std::CommittedLeaderId<C::Term>>() {
        return leader.term.as_u64().unwrap_or(0);
    }
    0
}
