//! What happens to a simulated disk, and what can be made to go wrong.

use std::{fmt, io, sync::Arc};

/// The error number of a device that could not do it.
pub const EIO: i32 = 5;
/// The error number of a file system without space.
pub const ENOSPC: i32 = 28;

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `write_at`
    Write,
    /// `write_durable_at`: one event that writes and syncs its own range.
    WriteDurable,
    /// `flush`
    Flush,
}

impl EventKind {
    /// Whether it makes something durable.
    pub fn is_sync(self) -> bool {
        self != EventKind::Write
    }
}

/// One write or sync, as the disk saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventInfo {
    /// Its number: the first event of a disk is 0.
    pub number: u64,
    /// What was asked.
    pub kind: EventKind,
    /// Where it was written; 0 for a flush.
    pub offset: u64,
    /// How much was written; 0 for a flush.
    pub len: u64,
    /// What was made to go wrong.
    pub fault: Option<Fault>,
}

/// A way for an event to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut while it runs: a write may have left any part of itself, a sync proves
    /// nothing, and every operation after it fails.
    Cut,
    /// It fails with this error number. A write may have left any part of itself on the medium
    /// (and what a durable write wrote is visible to reads, as when only its sync failed). After
    /// a failed flush, no later flush covers what this one should have.
    Error(i32),
    /// It writes `kept` bytes, rounded down to whole sectors, and then fails with this error
    /// number. A flush just fails.
    ShortThenError {
        /// The bytes that are written.
        kept: usize,
        /// The error number.
        errno: i32,
    },
    /// It claims success and does nothing: a lost write, or a sync that lies.
    Lost,
    /// It claims success and writes somewhere else. A flush does nothing.
    Misdirected {
        /// Where the bytes land; beyond the end they are lost.
        to: u64,
    },
}

/// Asked for each event before it happens; says what goes wrong with it. Must not use the disk.
pub type EventHook = Arc<dyn Fn(&EventInfo) -> Option<Fault> + Send + Sync>;

/// Shown each read, and may change what was read or fail it. Must not use the disk.
pub type ReadHook = Arc<dyn Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync>;

/// Which events are to go wrong, and how.
#[derive(Clone, Default)]
pub(super) struct Plan {
    at_event: Vec<(u64, Fault)>,
    at_sync: Vec<(u64, Fault)>,
    ignored_syncs: Vec<u64>,
    ignore_all_syncs: bool,
    hook: Option<EventHook>,
}

impl Plan {
    pub(super) fn fail_at(&mut self, event: u64, fault: Fault) {
        self.at_event.push((event, fault));
    }

    pub(super) fn fail_sync_at(&mut self, sync: u64, fault: Fault) {
        self.at_sync.push((sync, fault));
    }

    pub(super) fn ignore_sync(&mut self, sync: u64) {
        self.ignored_syncs.push(sync);
    }

    pub(super) fn ignore_all_syncs(&mut self) {
        self.ignore_all_syncs = true;
    }

    pub(super) fn set_hook(&mut self, hook: EventHook) {
        self.hook = Some(hook);
    }

    /// What goes wrong with this event; `sync` is its number among the syncs, if it is one.
    pub(super) fn fault(&self, event: &EventInfo, sync: Option<u64>) -> Option<Fault> {
        let planned =
            |plan: &[(u64, Fault)], number| plan.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        planned(&self.at_event, event.number)
            .or_else(|| sync.and_then(|sync| planned(&self.at_sync, sync)))
            .or_else(|| self.hook.as_ref().and_then(|hook| hook(event)))
    }

    /// Whether this sync claims success and makes nothing durable.
    pub(super) fn ignores(&self, sync: Option<u64>) -> bool {
        sync.is_some_and(|sync| self.ignore_all_syncs || self.ignored_syncs.contains(&sync))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("at_event", &self.at_event)
            .field("at_sync", &self.at_sync)
            .field("ignored_syncs", &self.ignored_syncs)
            .field("ignore_all_syncs", &self.ignore_all_syncs)
            .finish_non_exhaustive()
    }
}
