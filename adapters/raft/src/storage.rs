//! One group's part of the log, as raft reads it.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use strandlog::{Replica, Wal};

use crate::changes::Changes;
use crate::codec::state::Applied;
use crate::codec::{DecodeError, state};
use crate::fetch::{FetchQueue, Fetched, Fetching};
use crate::read::{payload_limit, read_entries};
use crate::{APPLIED, CONF_STATE, Error, HARD_STATE, Result, SnapshotSource};

/// One raft group in a [`Wal`]: the [`Storage`] that its [`RawNode`](raft::RawNode) reads.
///
/// Entries are read from the log each time, without copying where the log can; hard state and
/// configuration are kept here as last written. Writing goes through a
/// [`Batch`](strandlog::Batch): see [`Round`](crate::Round) for the Ready flow, and
/// [`bootstrap`](Self::bootstrap), [`checkpoint`](Self::checkpoint), [`compact`](Self::compact) for the rest.
///
/// Batches must be submitted in the order in which they were written through this value. A group must have only one
/// `GroupStorage`, which belongs to the thread that drives the group. Before the group is opened anew, submit or drop all that was written
/// through the previous one: submitted later, it would take back what the new one promised. And have the queue
/// [forget](crate::PersistQueue::forget) the group: what waits there belongs to the previous one.
pub struct GroupStorage {
    pub(crate) replica: Replica,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
    pub(crate) applied: u64,
    /// Whether a state machine outside the log reported `applied`: then the log need not hold it.
    pub(crate) told: bool,
    /// An applied index that was seen in the log itself, not only in a batch.
    pub(crate) in_log: u64,
    /// The applied index of the newest checkpoint or snapshot, in a batch or in the log.
    pub(crate) put: u64,
    /// Entries after the applied index that change the configuration; as of the applied index it is known.
    pub(crate) changes: Changes,
    pub(crate) limits: Limits,
    pub(crate) fetching: Option<Fetching>,
    pub(crate) source: Option<Box<dyn SnapshotSource>>,
    /// raft asked for a snapshot, and the newest checkpoint did not help.
    pub(crate) wanted: Cell<bool>,
}

/// The log refuses anything larger, and with it the whole batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub entry: u64,
    pub value: u64,
}

impl Limits {
    fn of(wal: &Wal) -> Self {
        Self { entry: wal.max_entry_bytes().min(wal.capacity() / SHARE), value: wal.max_value_bytes() }
    }
}

/// An entry may take at most this fraction (one eighth) of the log's capacity: that much is left in the smallest possible log beside its
/// journal and what is reserved for a large value. The log might never hold a larger one, and would refuse its round for good, with all groups in it.
const SHARE: u64 = 8;

impl GroupStorage {
    /// Opens `group` as the log holds it; blank if the log does not know it. If the group was open before in this process, and what was written
    /// then is not durable yet, that is synced first: raft acknowledges what it finds here, and votes by it.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if the log lost something of this group, or cannot read an entry after the applied index; [`Error::Decode`] if its
    /// state was not written by this crate; [`Error::Inconsistent`] if it contradicts itself. In each case the replica must not
    /// take part: what it promised may be gone.
    pub fn open(wal: &Wal, group: u64) -> Result<Self> {
        let replica = wal.replica(group);
        // raft takes what it finds for durable. An earlier `GroupStorage` of this process may have been dropped before its writes were.
        if !replica.is_durable() {
            wal.sync()?;
        }
        if let Some(damage) = replica.damage().first() {
            let what = damage.to_string();
            return Err(Error::Damaged { group, what });
        }
        let read = |key| replica.get(key).map_err(Error::Log);
        let decode = |what, source| Error::Decode { group, what, source };
        let hard_state = read(HARD_STATE)?
            .map(|bytes| state::decode_hard_state(&bytes).map_err(|e| decode("hard state", e)))
            .transpose()?;
        let conf_state = written_conf_state(&replica)?;
        let applied = read(APPLIED)?
            .map(|bytes| state::decode_applied(&bytes).map_err(|e| decode("applied index", e)))
            .transpose()?
            .map_or(0, |applied| applied.index);
        let (first, last) = replica.bounds();
        let mut storage = GroupStorage {
            hard_state: hard_state.clone().unwrap_or_default(),
            conf_state: conf_state.unwrap_or_default(),
            applied,
            told: false,
            in_log: applied,
            put: applied,
            changes: Changes::unseen(first.max(applied.saturating_add(1))..last.saturating_add(1)),
            limits: Limits::of(wal),
            source: None,
            fetching: None,
            wanted: Cell::new(false),
            replica,
        };
        storage.check(hard_state.is_some())?;
        storage.read_unapplied()?;
        Ok(storage)
    }

    /// Refuses what raft would panic about or, worse, believe.
    fn check(&self, has_hard_state: bool) -> Result<()> {
        let (first, last) = (self.replica.first_index(), self.replica.last_index());
        let commit = self.hard_state.commit;
        let what = if last > 0 && !has_hard_state {
            format!("log [{first}, {last}] without a hard state")
        } else if commit > last {
            format!("commit {commit} is beyond the last entry {last}")
        } else if commit.saturating_add(1) < first {
            format!("commit {commit} is before the first entry {first}")
        } else if self.applied > commit {
            format!("applied {} is beyond commit {commit}", self.applied)
        } else {
            return Ok(());
        };
        Err(Error::Inconsistent { group: self.group(), what })
    }

    /// Reads what raft will read: all entries after the applied index, which may also change the configuration. If a read fails in the middle
    /// of its work, raft panics, and takes the other groups of its thread along. The log does not record damage that a read meets, so raft
    /// would panic again after each opening.
    fn read_unapplied(&mut self) -> Result<()> {
        match self.changes.first(&self.replica, self.replica.last_index()) {
            Err(Error::Log(strandlog::Error::Damaged(damage))) => {
                Err(Error::Damaged { group: self.group(), what: damage.to_string() })
            }
            read => read.map(drop),
        }
    }

    /// From now on snapshots come from `source`, not from checkpoints in the log; and the bytes of installed snapshots, of whatever size, go
    /// to the state machine alone: the log stores only their index.
    pub fn with_snapshots(mut self, source: impl SnapshotSource + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The group, which is the replica's id in the log.
    pub fn group(&self) -> u64 {
        self.replica.id()
    }

    /// The reading handle underneath.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Hard state as last written.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Configuration as last written, which is that of [`applied`](Self::applied): it lacks what raft has applied since, so do not make the
    /// next checkpoint with it.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// The index up to which the state machine's own copy is safe: [`compact`](Self::compact) goes no further, and
    /// after a restart applying resumes after it ([`raft::Config::applied`]).
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The state machine's bytes of the newest checkpoint or installed snapshot. `None` if the log was compacted beyond it
    /// ([`set_applied`](Self::set_applied)).
    pub fn checkpoint_data(&self) -> Result<Option<Bytes>> {
        Ok(self.read_applied()?.and_then(|applied| applied.machine).map(|(_, data)| data))
    }

    fn read_applied(&self) -> Result<Option<Applied>> {
        let Some(bytes) = self.replica.get(APPLIED)? else {
            return Ok(None);
        };
        let decoded = state::decode_applied(&bytes);
        decoded.map(Some).map_err(|e| self.undecodable("applied index", e))
    }

    pub(crate) fn undecodable(&self, what: &'static str, source: DecodeError) -> Error {
        Error::Decode { group: self.group(), what, source }
    }

    /// Entries `[low, high)`: as many as fit `max_size` bytes, and at least one.
    pub fn read_entries(&self, low: u64, high: u64, max_size: Option<u64>) -> Result<Vec<Entry>> {
        read_entries(&self.replica, low, high, max_size)
    }

    /// Whether raft asked for a snapshot since the last checkpoint, and the newest checkpoint does not help: it is older than what was asked
    /// for, or its configuration does not name the replica that needs it, which joined later and would ignore it. raft asks again; in a group in
    /// which nobody writes, for ever. So a poller that finds this set checkpoints the group, however little was applied, if its state machine is
    /// further than [`applied`](Self::applied) or has another configuration. (raft may ask for a snapshot at an entry that is not committed
    /// yet: repeating the same checkpoint does not help.) Never set if snapshots come from a [source](Self::with_snapshots).
    pub fn wants_checkpoint(&self) -> bool {
        self.wanted.get()
    }

    /// From now on entries that must come from the disk are read by the queue's thread, where raft can wait for them.
    pub fn fetch_with(&mut self, queue: &FetchQueue) {
        self.fetching = Some(queue.of_group());
    }

    /// Takes what was read for this group. Pass the result to [`RawNode::on_entries_fetched`](raft::RawNode::on_entries_fetched).
    pub fn accept(&mut self, fetched: Fetched) -> GetEntriesContext {
        match &self.fetching {
            Some(fetching) => fetching.accept(fetched),
            None => fetched.unheard(),
        }
    }

    /// Names the entries between the applied index and the log's first, if any: their effects are lost.
    pub(crate) fn gone(&self) -> Option<String> {
        let (next, first) = (self.applied.saturating_add(1), self.replica.first_index());
        (first > next).then(|| format!("entries {next} to {} are gone", first - 1))
    }

    /// A batch was given `index` as the applied index; the log has it as soon as that batch is written.
    pub(crate) fn put_in_batch(&mut self, index: u64) {
        self.changes.pass(self.applied, index);
        (self.applied, self.told, self.put) = (index, false, index);
        self.wanted.set(false);
        self.in_log = self.in_log.min(index);
        self.hard_state.commit = self.hard_state.commit.max(index);
    }

    /// Refuses what the log would: it refuses the whole batch, with the groups that did nothing wrong.
    pub(crate) fn check_value(&self, what: &'static str, index: u64, bytes: usize) -> Result<()> {
        let (bytes, limit) = (bytes as u64, self.limits.value);
        if bytes > limit { Err(Error::TooLarge { group: self.group(), what, index, bytes, limit }) } else { Ok(()) }
    }

    pub(crate) fn encode_conf_state(&self, index: u64, conf_state: &ConfState) -> Result<Vec<u8>> {
        let encoded = state::encode_conf_state(conf_state);
        self.check_value("the configuration", index, encoded.len())?;
        Ok(encoded)
    }

    fn checkpoint_snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // To raft a snapshot of index 0 is none at all, and one older than it asked for does not help.
        let unavailable = || {
            self.wanted.set(true);
            raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        };
        let Some(Applied { index, machine: Some((term, data)) }) = self.read_applied()? else {
            return Err(unavailable());
        };
        if index == 0 || index < request_index {
            return Err(unavailable());
        }
        // `self.conf_state` may be of a later index; in the log the two are always written together.
        let Some(conf_state) = written_conf_state(&self.replica)? else {
            let what = format!("a checkpoint at {index} without a configuration");
            return Err(Error::Inconsistent { group: self.group(), what }.into());
        };
        // A replica ignores a snapshot whose configuration does not name it.
        if !names(&conf_state, to) {
            return Err(unavailable());
        }
        Ok(snapshot_of(index, term, &conf_state, data))
    }
}

fn names(conf_state: &ConfState, id: u64) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, .. } = conf_state;
    [voters, learners, voters_outgoing, learners_next].into_iter().any(|ids| ids.contains(&id))
}

/// The configuration in the log, which is that of the applied index in the log.
fn written_conf_state(replica: &Replica) -> Result<Option<ConfState>> {
    let undecodable = |source| Error::Decode { group: replica.id(), what: "configuration", source };
    let bytes = replica.get(CONF_STATE)?;
    bytes.map(|bytes| state::decode_conf_state(&bytes).map_err(undecodable)).transpose()
}

pub(crate) fn snapshot_of(index: u64, term: u64, conf_state: &ConfState, data: Bytes) -> Snapshot {
    let mut snapshot = Snapshot { data, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(conf_state.clone());
    snapshot
}

impl Storage for GroupStorage {
    /// Refused until a state machine has reported that it holds the entries that are gone: raft would panic.
    fn initial_state(&self) -> raft::Result<RaftState> {
        if let Some(gone) = self.gone() {
            let what = format!("{gone}, and the state machine is at {}", self.applied);
            return Err(Error::Inconsistent { group: self.group(), what }.into());
        }
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_size = max_size.into();
        if let Some(fetching) = self.fetching.as_ref().filter(|_| context.can_async() && low < high) {
            let (first, last) = self.replica.bounds();
            // A request out of bounds is refused at once, below.
            let held = first <= low && high - 1 <= last;
            if held && !self.replica.is_in_memory(low..high, payload_limit(max_size)) {
                return fetching.entries(&self.replica, (low, high), max_size, context);
            }
        }
        match self.read_entries(low, high, max_size) {
            // Whichever end is out of range: after `Compacted` raft can go on, by sending a snapshot, and its own storage says so, too.
            Err(Error::Log(strandlog::Error::OutOfRange { .. } | strandlog::Error::UnknownReplica { .. }))
                if low < self.replica.first_index() =>
            {
                Err(raft::Error::Store(StorageError::Compacted))
            }
            read => Ok(read?),
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.replica.term(index) {
            // A truncation over damage left it unknown. On `Compacted` raft sends a snapshot; on any other error it panics.
            Err(strandlog::Error::Damaged(_)) if index.checked_add(1) == Some(self.replica.first_index()) => {
                Err(raft::Error::Store(raft::StorageError::Compacted))
            }
            term => Ok(term.map_err(Error::Log)?),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.replica.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.replica.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match &self.source {
            Some(source) => source.snapshot(self.group(), request_index, to),
            None => self.checkpoint_snapshot(request_index, to),
        }
    }
}

impl fmt::Debug for GroupStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupStorage")
            .field("group", &self.group())
            .field("first_index", &self.replica.first_index())
            .field("last_index", &self.replica.last_index())
            .field("hard_state", &self.hard_state)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
