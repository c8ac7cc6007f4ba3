//! The storage of a group and its readers. Both versions of openraft have their traits on them.

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
    /// How often the log's end had been cut off when openraft asked for this reader.
    pub(crate) cuts: u32,
    types: PhantomData<fn() -> C>,
}

impl<C> LogStore<C> {
    /// The storage of `group`, as the log holds it: blank when it does not. The group is the replica's id in the log.
    ///
    /// Everything in it is durable on return: where the group was written before in this process, and that is not, it waits for a sync.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`](crate::Error::Damaged) when the log lost something of this group, which then must not take part: what it
    /// promised may be gone. What the log answers to that sync.
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

    /// The state machine holds everything up to openraft's `index` durably; `None`: nothing yet. To be called once after each opening, before
    /// openraft has this store; later reports come from a [reader](Self::reader).
    ///
    /// From the first report on the log can be the state machine's only write-ahead log
    /// ([`Wal::durable_applied`](strandlog::Wal::durable_applied)): a purge goes no further than was reported, so that after a crash
    /// openraft can apply again what the state machine lacks. A group which the log does not know yet is created with it, if
    /// the state machine holds nothing. Costs no sync.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`](crate::Error::Lost) for an index of a group which the log does not know: it lost more than that. What the log refuses.
    pub fn durable_applied(&mut self, index: Option<u64>) -> Result<()> {
        self.group.report_first(index)
    }
}

impl<C> LogReader<C> {
    /// The state machine holds everything up to openraft's `index` durably: see [`LogStore::durable_applied`]. Costs no sync. A reader of a group that was
    /// removed, and maybe begun anew, reports nothing: the flush that was under way then is of a life that is over.
    ///
    /// # Errors
    ///
    /// What the log refuses.
    pub fn durable_applied(&self, index: u64) -> Result<()> {
        self.group.report(index)
    }
}

impl<C> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { group: Arc::clone(&self.group), cuts: self.cuts, types: PhantomData }
    }
}
