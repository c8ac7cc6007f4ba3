//! What can go wrong, said so that the caller knows what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What to do with a file that only a salvage opens. Another store's log holds another member's votes, and an older copy has forgotten the newest.
macro_rules! salvage_it {
    () => {
        "salvage it (`strandlog salvage`); what that does not prove, rebuild from its peers, as new members. No other file will do: not another store's, nor an older copy"
    };
}
/// What to do where nothing opens the file.
macro_rules! rebuild_all {
    () => {
        "rebuild all its replicas from their peers, as new members; no other store's file and no older copy will do"
    };
}
pub(crate) use {rebuild_all, salvage_it};

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
    #[error(
        "replica {replica}: index {index} lies before the first that is kept, {first_index}: whoever needs it takes a snapshot, and an append leaves out what was truncated, the entries below {first_index}"
    )]
    Compacted {
        /// The replica.
        replica: u64,
        /// The index that was asked for.
        index: u64,
        /// The first index that is kept.
        first_index: u64,
    },
    /// The index lies behind the last.
    #[error("replica {replica}: index {index} is beyond the last, {last_index}; ask for last_index first")]
    OutOfRange {
        /// The replica.
        replica: u64,
        /// The index that was asked for.
        index: u64,
        /// The last index.
        last_index: u64,
    },
    /// The replica holds nothing: it was never written, or was removed.
    #[error("replica {replica} does not exist; an append, a put or a snapshot creates it")]
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
    /// The batch is larger than a frame, and too little of it consists of long runs and large values, which lie beside the journal; or it is larger than 1 GiB. Split it:
    /// a part of at most `limit` [`Batch::log_bytes`](crate::Batch::log_bytes) is never refused so.
    #[error("the batch has {bytes} bytes, and {limit} surely fit one: split it by its log_bytes; nothing was changed")]
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
    /// What was asked for would have to wait, and may not. One of:
    ///
    /// - `try_submit` found no room, or others who wait for room already. Nothing was submitted. Who comes again and again is told when none can be made.
    /// - A callback, or a listener on a thread of the log's own, would wait for durability, which that very thread brings about. What it wanted to commit was not
    ///   submitted; a batch that it waited for is on its way.
    /// - A callback, a sink or a listener closes the log, whose end would wait for it. The log stays open.
    #[error("{}", what_is_busy(*queued, *limit))]
    Busy {
        /// Bytes in the queue. With none it is not the queue that is full.
        queued: u64,
        /// The bound.
        limit: u64,
    },
    /// A write or a sync failed, or a thread of the log's. Nothing after it is acknowledged; reads are still served. What was acknowledged is in the
    /// file: opening it anew is right, once the device was looked at.
    #[error(
        "the log is poisoned: {cause}; everything acknowledged is in its file, nothing unacknowledged is promised: look at the device, then open it anew"
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
    #[error("the log is closed; what was not acknowledged may be lost: open it again")]
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
    /// The log is so old that it has no number left for what is written next: nothing was changed, and nothing more will be. What it holds is there, and is
    /// read, by later openings too. [`Wal::salvage_into`](crate::Wal::salvage_into) copies it into a new log, which begins anew.
    #[error(
        "the log has used up its numbers, after {what}: nothing was changed, and all that it holds is read; copy it into a new one (`strandlog salvage`)"
    )]
    UsedUp {
        /// After how much: the bound that was met.
        what: &'static str,
    },
    /// The log was opened read-only.
    #[error("the log was opened read-only; to write, open it without `read_only`, and not with RecoveryMode::Salvage")]
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
        "salvage it as it is (`strandlog salvage`, RecoveryMode::Salvage): made longer again it would not say what it lost. What that does not prove, rebuild from its peers, as new members; no other file will do: not another store's, nor an older copy"
    } else {
        concat!("so little is left that nothing can be salvaged: ", rebuild_all!())
    }
}

/// Three may be told so: who finds the queue full, who asked not to wait for the cleaner, and a callback, whatever waits.
fn what_is_busy(queued: u64, limit: u64) -> String {
    let callback = "a callback may not wait, nor close the log: do that on another thread";
    if queued == 0 {
        return format!("{callback}; or the cleaner is at work: wait for durability, or use submit");
    }
    format!(
        "the queue is full ({queued} of {limit} bytes), or the cleaner is at work: wait for durability, or use submit; {callback}"
    )
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
    /// The replicas that hold most, or did a moment ago, and how many bytes, entries and keyed state together: truncate or remove these first. Where
    /// the bound on metadata was met, those of which most counts for that: keys, terms, and all entries of a small replica.
    pub holders: Vec<(u64, u64)>,
}

impl fmt::Display for FullReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.metadata {
            f.write_str("the log is full of metadata and small replicas: truncate or remove the replicas that hold most, or delete keys:")?;
        } else {
            let Self { needed, free, reserved, pending, .. } = self;
            write!(
                f,
                "the log is full: the batch needs {needed} bytes; {free} are free, of which {reserved} are reserved for what is in the journal and for large values, and {pending} more wait for a reader or a sync; truncate or remove the replicas that hold most:"
            )?;
        }
        for (i, (replica, bytes)) in self.holders.iter().enumerate() {
            let before = if i == 0 { "" } else { "," };
            write!(f, "{before} {replica} ({bytes} bytes)")?;
        }
        if self.holders.is_empty() {
            f.write_str(" nobody holds anything")?;
        }
        f.write_str(", or grow the log (`strandlog grow`)")?;
        write!(f, "; nothing was changed")
    }
}

/// What was lost, and whose. Where it is said of the entry before the first that is held, nothing is lost but that one's term: see
/// [`Lost::Entries`].
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
    /// truncation over damage left its term unknown, until the next truncation. That replica lacks nothing else: it sends followers a snapshot where it
    /// would tell that term.
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
            Lost::Entries { first, last } => {
                write!(
                    f,
                    "replica {}: entries {first}..={last} are damaged; rebuild it as a new member of its group (take it out of the configuration, then remove it here)",
                    self.replica
                )?;
                // By itself there may be one of which nothing is missed but the term.
                if first == last {
                    f.write_str(". Where its log begins behind that, only the term before its first entry is unknown: send followers a snapshot")?;
                }
                Ok(())
            }
            Lost::State => write!(
                f,
                "replica {}: its keyed state may miss an update; it must not vote: rebuild it as a new member of its group (take it out of the configuration, then remove it here)",
                self.replica
            ),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Whoever reads an error at night is to know what to do next.
    #[test]
    fn every_error_says_what_to_do_next() {
        let (replica, index) = (7, 5);
        let full = Error::Busy { queued: 10, limit: 20 };
        let in_a_callback = Error::Busy { queued: 0, limit: 20 };
        for (error, next) in [
            (Error::Compacted { replica, index, first_index: 9 }, "leaves out what was truncated, the entries below 9"),
            (Error::Compacted { replica, index, first_index: 9 }, "takes a snapshot"),
            (Error::OutOfRange { replica, index, last_index: 4 }, "ask for last_index"),
            (Error::UnknownReplica { replica }, "an append, a put or a snapshot creates it"),
            (full.clone(), "the queue is full (10 of 20 bytes)"),
            (full, "do that on another thread"),
            (in_a_callback.clone(), "nor close the log: do that on another thread"),
            (Error::Poisoned { cause: "sync failed".into() }, "look at the device, then open it anew"),
            (Error::Closed, "open it again"),
            (Error::ReadOnly, "open it without `read_only`"),
            (Error::UsedUp { what: "so much" }, "copy it into a new one"),
        ] {
            assert!(error.to_string().contains(next), "{next}: {error}");
        }
        assert!(!in_a_callback.to_string().contains("full"), "of a queue in which nothing waits: {in_a_callback}");
    }

    /// A truncation that ends right behind a rotten entry leaves its term in doubt, and nothing else: that is told as damage of this very entry.
    #[test]
    fn damage_before_the_first_entry_is_not_told_as_if_entries_were_lost() {
        let said = Damage { replica: 1, lost: Lost::Entries { first: 5, last: 5 } }.to_string();
        assert!(said.contains("5..=5") && said.contains("new member"), "{said}");
        assert!(said.contains("only the term before its first entry is unknown: send followers a snapshot"), "{said}");
        let several = Damage { replica: 1, lost: Lost::Entries { first: 5, last: 6 } }.to_string();
        assert!(several.contains("5..=6") && !several.contains("only the term"), "entries are lost: {several}");
    }

    /// Another store's log holds another member's votes, and an older copy none of the newest.
    #[test]
    fn who_holds_a_broken_file_is_sent_to_a_salvage_or_to_the_peers_and_to_no_other_file() {
        let left = cut_advice(63, 64).to_owned() + salvage_it!();
        assert_eq!(left.matches("not another store's, nor an older copy").count(), 2, "{left}");
        assert_eq!(left.matches("`strandlog salvage`").count(), 2, "{left}");
        let none = cut_advice(1, 1000).to_owned() + rebuild_all!();
        assert_eq!(
            none.matches("from their peers, as new members; no other store's file and no older copy").count(),
            2
        );
        assert!(!none.contains("`strandlog salvage`"), "it opens nothing: {none}");
    }
}
