//! What can go wrong, said so that the caller knows what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Cheap to clone: one failed sync is told to every waiter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An append would leave a hole: nothing was changed.
    #[error("replica {replica}: entry {index} leaves a gap, the next index is {expected}; nothing was changed")]
    Gap {
        /// The replica.
        replica: u64,
        /// The index that was given.
        index: u64,
        /// The index that may come next at most.
        expected: u64,
    },
    /// The index lies before the first that is kept.
    #[error("replica {replica}: index {index} lies before the first that is kept, {first_index}; use a snapshot")]
    Compacted {
        /// The replica.
        replica: u64,
        /// The index that was asked for.
        index: u64,
        /// The first index that is kept.
        first_index: u64,
    },
    /// The index lies behind the last.
    #[error("replica {replica}: index {index} is beyond the last, {last_index}")]
    OutOfRange {
        /// The replica.
        replica: u64,
        /// The index that was asked for.
        index: u64,
        /// The last index.
        last_index: u64,
    },
    /// The replica holds nothing: it was never written, or was removed.
    #[error("replica {replica} does not exist; append to it, or install a snapshot, to create it")]
    UnknownReplica {
        /// The replica.
        replica: u64,
    },
    /// The batch contradicts itself, or names something impossible: nothing was changed.
    #[error("replica {replica}: {why}; nothing was changed")]
    Contradiction {
        /// The replica.
        replica: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// An entry beyond the limit.
    #[error(
        "replica {replica}: entry {index} has {bytes} bytes, the limit is {limit} (option max_entry_bytes); nothing was changed"
    )]
    EntryTooLarge {
        /// The replica.
        replica: u64,
        /// The entry.
        index: u64,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A key or a keyed value beyond the limit: [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES), [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), and for a
    /// value half a segment of this log where that is less.
    #[error(
        "replica {replica}: {what} of {bytes} bytes, the limit is {limit} (a key: 256; a value: 1 MiB, or half a segment of the log if that is less); nothing was changed"
    )]
    ValueTooLarge {
        /// The replica.
        replica: u64,
        /// "key" or "value".
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A batch beyond what one frame holds, where too little of it is long enough to be placed beside the journal; or of more than 1 GiB. Parts of
    /// it of which none counts more [`Batch::log_bytes`](crate::Batch::log_bytes) than the limit are taken.
    #[error("the batch has {bytes} bytes, and {limit} surely fit one; split it by its log_bytes, nothing was changed")]
    BatchTooLarge {
        /// Its [`log_bytes`](crate::Batch::log_bytes); where it is more than 1 GiB, the bytes of its payloads.
        bytes: u64,
        /// So many surely fit: [`Wal::max_batch_bytes`](crate::Wal::max_batch_bytes), or 1 GiB.
        limit: u64,
    },
    /// No room: nothing was changed. Truncation, removal and state that does not grow still succeed; of values over 4 KiB one at a time, once what
    /// was written before is durable: see [the guide](crate::guide#a-full-log).
    #[error("{0}")]
    Full(Box<FullReport>),
    /// `try_submit` would have had to wait, or to overtake who waits for room. Or a callback, or a listener on a thread of the log's own, waits for
    /// durability, which its own thread brings about: what it commits is not submitted then, what it waits for is on its way. Or it closes the
    /// log, whose end would wait for it: that stays open.
    #[error(
        "the queue is full ({queued} of {limit} bytes) or waits for the cleaner; wait for durability, or use submit; in a callback, submit and do not wait"
    )]
    Busy {
        /// Bytes in the queue.
        queued: u64,
        /// The bound.
        limit: u64,
    },
    /// A write or a sync failed, or a thread of the log's. Nothing after it is acknowledged; reads are still served. What was acknowledged is in the
    /// file: opening it anew is right, once the device was looked at.
    #[error(
        "the log is poisoned: {cause}; everything acknowledged is in its file, nothing unacknowledged is promised: open it anew"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// The file was cut, removed or replaced while it was in use: as [`Error::Poisoned`], and told wherever that may be, but **opening it anew is
    /// wrong**. What was acknowledged is no longer under its name, where an opening would begin an empty log (but for
    /// [`create(false)`](crate::Options::create)), and replicas that have forgotten their votes would vote once more. Of a file that was removed the cause
    /// says how to copy it: do that before the log is dropped, and open the copy. One that was cut is salvaged.
    #[error(
        "the log has lost its file: {cause}; nothing more is acknowledged, and its name may lead to an empty log, or to less than was acknowledged: do not open that anew"
    )]
    FileLost {
        /// What became of it, and what to do.
        cause: Arc<str>,
    },
    /// The log was closed or dropped.
    #[error("the log is closed; what was not acknowledged may be lost")]
    Closed,
    /// Somebody else has the file open.
    #[error("{} is open in another process, or elsewhere in this one; close it there first, and let go of entries that were read of it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The bytes asked for are damaged; other replicas are not affected. What it takes to heal the replica: see [the guide](crate::guide#damage).
    #[error("{0}")]
    Damaged(Damage),
    /// The file cannot be opened as it is.
    #[error("{what} at offset {offset}: {hint}")]
    Corrupt {
        /// What is broken.
        what: &'static str,
        /// Where in the file.
        offset: u64,
        /// What to do.
        hint: &'static str,
    },
    /// The file is shorter than its log: its end was cut off. A salvage reads what is left, and takes the rest for lost; not where less than a 64th is
    /// left. To make it as long again helps nobody: of what lay there nothing tells any more that it is missing.
    #[error("the file is cut: it has {file_bytes} bytes, and its log {log_bytes}; {}", cut_advice(*file_bytes, *log_bytes))]
    Cut {
        /// Bytes that the file has.
        file_bytes: u64,
        /// Bytes that its superblock says it has at least.
        log_bytes: u64,
    },
    /// The file needs something that this version does not know.
    #[error("the file needs {feature}, which this version of strandlog does not know; use a newer one")]
    Unsupported {
        /// Its name.
        feature: String,
    },
    /// An option outside its range.
    #[error("option {name} = {given}: it must be {range}")]
    Option {
        /// The option.
        name: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        range: String,
    },
    /// The operating system said no.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: Arc<str>,
        /// What it said.
        source: Arc<io::Error>,
    },
    /// The log was opened read-only.
    #[error("the log was opened read-only")]
    ReadOnly,
}

/// A file that was cut is salvaged where so large a part of it is left.
const MOST_CUT: u64 = 64;

/// Whether so much of a file that was cut is left that a salvage opens it: of one of which next to nothing is no memory is taken for what it says
/// that it was.
pub(crate) fn is_worth_a_salvage(file_bytes: u64, log_bytes: u64) -> bool {
    log_bytes / MOST_CUT <= file_bytes
}

fn cut_advice(file_bytes: u64, log_bytes: u64) -> &'static str {
    if is_worth_a_salvage(file_bytes, log_bytes) {
        "salvage it as it is (`strandlog salvage`, RecoveryMode::Salvage), or restore it from another store; made longer again it would not say what it lost"
    } else {
        "so little is left that nothing can be salvaged: rebuild its replicas from their peers, as new members"
    }
}

impl Error {
    pub(crate) fn io(context: impl Into<Arc<str>>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source: Arc::new(source) }
    }
}

/// Why an append found no room, and what would make some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullReport {
    /// Bytes the batch would need: as it was counted, in whole chunks, where chunks are lacking; what it has, where the bound on metadata was met.
    pub needed: u64,
    /// Bytes in free chunks.
    pub free: u64,
    /// Of these, bytes held back so that what is in the journal can be moved into chains, and a large value written anew. A batch that lacks chunks
    /// needs more than the rest.
    pub reserved: u64,
    /// Bytes in chunks that are dead but pinned by a reader, or whose truncation is not durable yet.
    pub pending: u64,
    /// Whether the bound on metadata and small replicas was met, rather than the bound on chunks.
    pub metadata: bool,
    /// The replicas that hold most, or did a moment ago, and how many bytes: truncate or remove these first.
    pub holders: Vec<(u64, u64)>,
}

impl fmt::Display for FullReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the log is full{}: the batch needs {} bytes, {} are free of which {} are reserved, {} await a reader or a sync; truncate the replicas that hold most:",
            if self.metadata { " of metadata and small replicas" } else { "" },
            self.needed,
            self.free,
            self.reserved,
            self.pending
        )?;
        for (replica, bytes) in &self.holders {
            write!(f, " {replica} ({bytes} bytes)")?;
        }
        write!(f, "; nothing was changed")
    }
}

/// What was lost, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The replica.
    pub replica: u64,
    /// What.
    pub lost: Lost,
}

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Entries that cannot be read, or that may be older than what was acknowledged. May name the one before the first held, too: a
    /// truncation over damage left its term unknown, until the next truncation.
    Entries {
        /// First index.
        first: u64,
        /// Last index.
        last: u64,
    },
    /// Keyed state that may miss an update, a vote among it: the replica must not take part before it was taken out of its group and removed, to
    /// come back as a new member. See [the guide](crate::guide#damage).
    State,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost {
            Lost::Entries { first, last } => write!(
                f,
                "replica {}: entries {first}..={last} are damaged; rebuild it as a new member of its group (take it out of the configuration, then remove it here)",
                self.replica
            ),
            Lost::State => write!(
                f,
                "replica {}: its keyed state may miss an update; it must not vote: rebuild it as a new member of its group (take it out of the configuration, then remove it here)",
                self.replica
            ),
        }
    }
}
