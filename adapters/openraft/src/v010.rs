//! Log storage for openraft 0.10.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;
use std::vec;

use futures_util::{Stream, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf};
use openraft::vote::{RaftTerm, RaftVote, leader_id_adv, leader_id_std};
use openraft::{OptionalSend, RaftTypeConfig};
use strandlog::Entry;

use crate::encoded::Encoded;
use crate::group::{Group, Purge, plain};
pub use crate::store::{LogReader, LogStore};
use crate::{COMMITTED, Error, READ_BYTES, Result, VOTE};

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let last_purged_log_id: Option<LogIdOf<C>> = self.group.purge_point()?;
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
        Ok(self.group.vote(vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        let index = committed.as_ref().map(|committed| committed.index);
        Ok(self.group.save_committed(index, committed.as_ref()).await?)
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
            callback.io_completed(outcome.map(drop).map_err(|error| Error::Log(error).into()));
        };
        Ok(self.group.append(entries, done).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        let end = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        Ok(self.group.truncate(end).await?)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        let log_id = match self.group.may_purge(log_id.index)? {
            // openraft 0.10 itself waits until a snapshot is installed.
            Purge::AsAsked | Purge::Unreported => log_id,
            Purge::To(entry) => self.group.decode::<EntryOf<C>>("an entry", &entry)?.log_id(),
            Purge::Nothing => return Ok(()),
        };
        let term = term_of::<C>(&log_id.leader_id);
        Ok(self.group.purge(log_id.index, term, &log_id).await?)
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogReader<C> {
    /// The state machine applies committed entries from this stream, which hands them out only when they are durable in this log. openraft may
    /// know them to be committed by a quorum without this node, and after a crash the state machine would be ahead of its own log.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<C::Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = plain(&range);
        let walk = Walk::new(Arc::clone(&self.group), range);
        stream::try_unfold(walk, |mut walk| async move {
            if walk.read.len() == 0 {
                walk.upto = walk.group.durable_from(walk.next, walk.end).await?;
            }
            Ok(walk.step::<C>()?.map(|entry| (entry, walk)))
        })
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.group.decode_all(&self.group.read(&plain(&range))?)?)
    }

    /// Until a vote is saved, hands out the one that the opening found as not committed: no node comes back as the leader that it was.
    ///
    /// openraft sends a leader's entries when they are submitted. A crash may take from its log what the others have, and by default
    /// (`Config::enable_leader_restore`) it would go on as the leader of the same term, and give their log ids to other entries. Term and
    /// node of the vote stay, so nobody votes twice; a follower saves its leader's vote as committed when it hears from it.
    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        let has_voted = self.group.has_voted();
        let vote: Option<VoteOf<C>> = self.group.get(VOTE)?;
        Ok(vote.map(|vote| match has_voted || !vote.is_committed() {
            true => vote,
            false => VoteOf::<C>::from_leader_id(vote.leader_id().clone(), false),
        }))
    }

    /// Entries that openraft sends to others. None if they would not follow what this reader's leader sent before: openraft then asks again,
    /// until it has heard that another leads.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        Ok(self.group.decode_all(&self.group.read_to_send(&(start..end), READ_BYTES, self.cuts)?)?)
    }
}

/// A stream of entries. Only as many are in memory as one read takes.
///
/// All that it hands out stood in the log together. openraft applies from it while the end of the log may be cut off, so a
/// cut ends it only if it takes something that was handed out.
struct Walk {
    group: Arc<Group>,
    next: u64,
    end: u64,
    /// The index up to which it may read now.
    upto: u64,
    read: vec::IntoIter<Entry>,
    /// The entry that was handed out last.
    last: Option<Entry>,
    /// How often the log had been cut off at the last read.
    cuts: u32,
}

impl Walk {
    fn new(group: Arc<Group>, range: Range<u64>) -> Self {
        let cuts = group.cuts();
        Self {
            group,
            next: range.start,
            end: range.end,
            upto: range.start,
            read: Vec::new().into_iter(),
            last: None,
            cuts,
        }
    }

    fn step<C: RaftTypeConfig>(&mut self) -> Result<Option<C::Entry>> {
        if self.read.len() == 0 {
            self.read = self.read_on()?.into_iter();
        }
        let Some(entry) = self.read.next() else { return Ok(None) };
        // It lies one slot higher than its index.
        self.next = entry.index;
        let decoded = self.group.decode("an entry", &entry.data)?;
        self.last = Some(entry);
        Ok(Some(decoded))
    }

    /// Reads what follows the last entry; an error unless that is still in the log.
    fn read_on(&mut self) -> Result<Vec<Entry>> {
        let changed = || Error::Changed { group: self.group.id(), next: self.next };
        loop {
            let cuts = self.group.cuts();
            if cuts != self.cuts && !self.last_stands()? {
                return Err(changed());
            }
            let read = self.group.read_some(&(self.next..self.upto), READ_BYTES)?;
            // The log may begin after the start of what is asked for, but must not be purged in the middle of it.
            let begins = read.first().map_or_else(|| self.group.held().start, |first| first.index.saturating_sub(1));
            if self.last.is_some() && self.next < self.end && begins > self.next {
                return Err(changed());
            }
            if self.group.cuts() == cuts {
                self.cuts = cuts;
                return Ok(read);
            }
        }
    }

    /// Whether the log still holds the entry that was handed out last, and so all before it. Its bytes contain its log id.
    fn last_stands(&self) -> Result<bool> {
        let Some(last) = &self.last else { return Ok(true) };
        let now = self.group.read_some(&(self.next.saturating_sub(1)..self.next), 0)?;
        Ok(now.first().is_some_and(|now| now.data == last.data))
    }
}

/// The term, for people who inspect the log: how openraft exposes it depends on the kind of leader id. 0 if it is not a number.
///
/// Nothing is decided by it: the entry itself contains its log id.
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
