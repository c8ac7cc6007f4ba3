//! Reads old entries from the disk on another thread: no poller waits for a lagging follower.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use raft::eraftpb::Entry;
use raft::util::limit_size;
use raft::{GetEntriesContext, StorageError};
use strandlog::{Error as LogError, Replica};

use crate::error::{Error, Result};
use crate::read::read_entries;

/// Reads what groups ask for and the log no longer has in memory, on a thread of its own. One for each poller thread.
///
/// Where raft can wait for entries, that is, when it sends them to a follower,
/// [`Storage::entries`](raft::Storage::entries) then answers `LogTemporarilyUnavailable` instead of waiting for the disk, and this
/// queue hands over what was read. If several followers are at the very same place, one of them is served that way, and the others when
/// they next answer a heartbeat:
///
/// ```no_run
/// # fn poller(mut queue: strandlog_raft::FetchQueue, mut nodes: std::collections::HashMap<u64, raft::RawNode<strandlog_raft::GroupStorage>>) {
/// queue.poll(|fetched| {
///     let Some(node) = nodes.get_mut(&fetched.group()) else { return };
///     let context = node.mut_store().accept(fetched);
///     node.on_entries_fetched(context); // what it sends is in its next Ready
/// });
/// # }
/// ```
///
/// What was read for a group whose storage was dropped meanwhile, because it was removed or is opened anew, is dropped.
pub struct FetchQueue {
    jobs: Sender<Job>,
    done: Receiver<Fetched>,
    /// Held by the queue; the thread holds another one. Groups that wait for an answer see from these that both still exist.
    alive: Arc<()>,
    thread: Weak<()>,
}

/// A group's request.
struct Job {
    replica: Replica,
    low: u64,
    high: u64,
    max_size: Option<u64>,
    context: GetEntriesContext,
    asker: Weak<()>,
}

/// Entries that a group asked for, or why there are none.
pub struct Fetched {
    group: u64,
    low: u64,
    context: GetEntriesContext,
    entries: Result<Vec<Entry>>,
    asker: Weak<()>,
}

impl FetchQueue {
    /// Starts the thread, which ends when this queue and all groups that use it are gone. `wake` runs on it whenever something was read, and
    /// must be short: put a token into the poller's inbox, unpark it.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn new(wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, asked) = channel::<Job>();
        let (ready, done) = channel();
        let works = Arc::new(());
        let thread = Arc::downgrade(&works);
        let work = move || {
            let _works = works;
            for Job { replica, low, high, max_size, context, asker } in asked {
                if asker.strong_count() == 0 {
                    continue;
                }
                let entries = read_entries(&replica, low, high, max_size);
                if ready.send(Fetched { group: replica.id(), low, context, entries, asker }).is_err() {
                    return;
                }
                wake();
            }
        };
        thread::Builder::new().name("strandlog-fetch".into()).spawn(work)?;
        Ok(Self { jobs, done, alive: Arc::new(()), thread })
    }

    /// Hands over what has been read since the last call. For each, give it to the group's storage
    /// ([`GroupStorage::accept`](crate::GroupStorage::accept)), *then* call [`RawNode::on_entries_fetched`](raft::RawNode::on_entries_fetched).
    pub fn poll(&mut self, each: impl FnMut(Fetched)) {
        self.done.try_iter().filter(|fetched| fetched.asker.strong_count() > 0).for_each(each);
    }

    pub(crate) fn of_group(&self) -> Fetching {
        let answers = [Arc::downgrade(&self.alive), Weak::clone(&self.thread)];
        Fetching { jobs: self.jobs.clone(), answers, asker: Arc::new(()), state: RefCell::default() }
    }
}

impl fmt::Debug for FetchQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchQueue").finish_non_exhaustive()
    }
}

impl Fetched {
    /// For a group that waits for nothing any more: drops the entries.
    pub(crate) fn unheard(self) -> GetEntriesContext {
        self.context
    }

    /// The group that asked.
    pub fn group(&self) -> u64 {
        self.group
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("group", &self.group)
            .field("low", &self.low)
            .field("entries", &self.entries.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// A group's side of the queue.
pub(crate) struct Fetching {
    jobs: Sender<Job>,
    /// The queue and its thread: if either is gone, no answer comes.
    answers: [Weak<()>; 2],
    /// Dropped with the group's storage: then nobody waits for its answers.
    asker: Arc<()>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The first indexes of the reads under way: none is requested twice.
    under_way: Vec<u64>,
    /// The last read, and its first index; kept until raft asks again, for that or for anything else. Its slices pin chunks.
    there: Option<(u64, Result<Vec<Entry>>)>,
}

impl Fetching {
    /// The entries `low..high`, which the log holds, if they have been read; or else the error that says to wait.
    pub fn entries(
        &self,
        replica: &Replica,
        (low, high): (u64, u64),
        max_size: Option<u64>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if let Some(there) = self.take(replica, low, high, max_size) {
            return Ok(there?);
        }
        if self.answers.iter().any(|one| one.strong_count() == 0) {
            // Better to read here than to wait for ever, also for what was requested before.
            return Ok(read_entries(replica, low, high, max_size)?);
        }
        let mut state = self.state.borrow_mut();
        if !state.under_way.contains(&low) {
            // If the thread ends at this moment, that is seen when raft asks again.
            let asker = Arc::downgrade(&self.asker);
            let _ = self.jobs.send(Job { replica: replica.clone(), low, high, max_size, context, asker });
            state.under_way.push(low);
        }
        Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    /// The entries that were read for this request, if the log still holds them.
    fn take(&self, replica: &Replica, low: u64, high: u64, max_size: Option<u64>) -> Option<Result<Vec<Entry>>> {
        let (_, there) = self.state.borrow_mut().there.take().filter(|(first, _)| *first == low)?;
        let mut entries = match there {
            Ok(entries) => entries,
            // The log has changed since the read: now it holds what is asked for.
            Err(Error::Log(
                LogError::Compacted { .. } | LogError::OutOfRange { .. } | LogError::UnknownReplica { .. },
            )) => {
                return None;
            }
            Err(error) => return Some(Err(error)),
        };
        entries.retain(|entry| entry.index < high);
        limit_size(&mut entries, max_size);
        // They stood in one log together, and by raft's log matching two logs with the same last entry (index and term) are equal up to it.
        let last = entries.last()?;
        (replica.term(last.index).ok()? == last.term).then_some(Ok(entries))
    }

    /// Keeps only what this storage asked for: an earlier storage of the group may have asked for the rest.
    pub fn accept(&self, fetched: Fetched) -> GetEntriesContext {
        let Fetched { low, context, entries, .. } = fetched;
        let mut state = self.state.borrow_mut();
        if let Some(place) = state.under_way.iter().position(|&under_way| under_way == low) {
            state.under_way.swap_remove(place);
            state.there = Some((low, entries));
        }
        context
    }

    /// Drops what was read: raft might never ask for it again.
    pub fn let_go(&self) {
        self.state.borrow_mut().there = None;
    }

    /// Drops what was read, and forgets the reads under way: raft asks anew, if it sends in this term at all.
    pub fn let_all_go(&self) {
        *self.state.borrow_mut() = State::default();
    }
}
