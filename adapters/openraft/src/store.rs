//! The storage of a group and its readers. The traits of both versions of openraft are implemented on them.

use std::marker::PhantomData;
use std::sync::Arc;

use strandlog::Wal;

use crate::Result;
use crate::group::Group;

/// One raft group in a [`Wal`]: openraft's `RaftLogStorage`.
///
/// One group must have one `LogStore`; its readers may be many.
#[derive(Debug)]
pub struct LogStore<C> {
    pub(crate) group: Arc<Group>,
    types: PhantomData<fn() -> C>,
}

/// Reads one group's log beside its [`LogStore`].
#[derive(Debug)]
pub struct LogReader<C> {
    pub(crate) group: Arc<Group>,
    /// How often the end of the group's log had been cut off when openraft asked for this reader.
    pub(crate) cuts: u32,
    types: PhantomData<fn() -> C>,
}

impl<C> LogStore<C> {
    /// The storage of `group`, as the log holds it; blank if the log does not know it. The group is the replica's id in the log.
    ///
    /// Everything in it is durable on return: if this process wrote to the group before, and that is not durable yet, it waits for a sync.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`](crate::Error::Damaged) if the log lost something of this group, which then must not take part: what it
    /// promised may be gone. The log's error if that sync fails.
    pub fn new(wal: Arc<Wal>, group: u64) -> Result<Self> {
        Ok(Self { group: Arc::new(Group::open(wal, group)?), types: PhantomData })
    }

    /// The group.
    pub fn group(&self) -> u64 {
        self.group.id()
    }

    /// A reader of this group.
    pub fn reader(&self) -> LogReader<C> {
        LogReader { group: Arc::clone(&self.group), cuts: self.group.cuts(), types: PhantomData }
    }

    /// Reports that the state machine durably holds everything up to openraft's `index`; `None`: nothing yet. Call it once after each opening,
    /// before openraft gets this store; later reports go through a [reader](Self::reader).
    ///
    /// From the first report on the log can be the state machine's only write-ahead log
    /// ([`Wal::durable_applied`](strandlog::Wal::durable_applied)): a purge goes no further than was reported, so that after a crash
    /// openraft can apply again what the state machine lacks. If the log does not know the group yet, `None` creates it. Costs no sync.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`](crate::Error::Lost) for an index of a group that the log does not know: the log lost that group's votes and entries.
    /// The log's error if it refuses the report.
    pub fn durable_applied(&mut self, index: Option<u64>) -> Result<()> {
        self.group.report_first(index)
    }
}

impl<C> LogReader<C> {
    /// Reports that the state machine durably holds everything up to openraft's `index`: see [`LogStore::durable_applied`]. Costs no sync. If the
    /// group was removed since, and maybe begun anew, nothing is reported: the flush belongs to a life that is over.
    ///
    /// # Errors
    ///
    /// The log's error if it refuses the report.
    pub fn durable_applied(&self, index: u64) -> Result<()> {
        self.group.report(index)
    }
}

impl<C> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { group: Arc::clone(&self.group), cuts: self.cuts, types: PhantomData }
    }
}
