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
/// What to do if nothing opens the file.
macro_rules! rebuild_all {
    () => {
        "rebuild all its replicas from their peers, as new members; no other store's file and no older copy will do"
    };
}
pub(crate) use {rebuild_all, salvage_it};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Cheap to clone, as one failed sync is reported to every waiter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An append would leave a gap: nothing was changed.
    #[error("replica {replica}: entry {index} leaves a gap, the next index is {expected}; nothing was changed")]
    Gap {
        /// The replica.
        replica: u64,
        /// The index that was given.
        index: u64,
        /// The highest index that may come next.
        expected: u64,
    },
    /// The index is below the first that is kept.
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
    /// The index is beyond the last.
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
    /// The batch contradicts itself, or asks for something impossible: nothing was changed.
    #[error("replica {replica}: {why}; nothing was changed")]
    Contradiction {
        /// The replica.
        replica: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// An entry exceeds the limit.
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
    /// A key or a keyed value exceeds the limit: [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES) for a key; for a value [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES),
    /// or half a segment of this log if that is less.
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
    /// The batch is larger than a frame, and too little of it is long runs and large values, which are placed beside the journal; or it is larger than 1 GiB. Split it
    /// ([`Batch::split_off`](crate::Batch::split_off)): a part of at most `limit` [`Batch::log_bytes`](crate::Batch::log_bytes) is never too large.
    #[error("the batch has {bytes} bytes, and {limit} surely fit one: split it by its log_bytes; nothing was changed")]
    BatchTooLarge {
        /// Its [`log_bytes`](crate::Batch::log_bytes); or, of a batch larger than 1 GiB, the bytes of its payloads.
        bytes: u64,
        /// What always fits: [`Wal::max_batch_bytes`](crate::Wal::max_batch_bytes), or 1 GiB.
        limit: u64,
    },
    /// No room: nothing was changed. Truncation, removal and state that does not grow still succeed; values over 4 KiB only one at a time, once the
    /// previous one is durable: see [the guide](crate::guide#a-full-log).
    #[error("{0}")]
    Full(Box<FullReport>),
    /// The call would have to wait, and may not. One of:
    ///
    /// - `try_submit` found no room, or others already waiting for room. Nothing was submitted. A caller that keeps retrying is told when no room can be made.
    /// - A callback, or a listener on one of the log's own threads, would wait for durability, which that very thread brings about. What it tried to commit was not
    ///   submitted; a batch that it tried to wait for is on its way.
    /// - A callback, a sink or a listener tried to close the log, which would wait for it. The log stays open.
    #[error("{}", what_is_busy(*queued, *limit))]
    Busy {
        /// Bytes in the queue. If 0, it is not the queue that is full.
        queued: u64,
        /// Its limit.
        limit: u64,
    },
    /// A write or a sync failed, or one of the log's threads did. Nothing after it is acknowledged; reads are still served. Everything acknowledged is in the
    /// file: check the device, then reopen it.
    #[error(
        "the log is poisoned: {cause}; everything acknowledged is in its file, nothing unacknowledged is promised: look at the device, then open it anew"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// The file was cut, removed or replaced while it was in use. Like [`Error::Poisoned`], and returned by the same calls, but **do not reopen the
    /// file**: what was acknowledged is no longer under its name. Opening would begin an empty log there (except with
    /// [`create(false)`](crate::Options::create)), and replicas that have forgotten their votes would vote again. If the file was removed, the cause
    /// says how to copy it: do that before the log is dropped, and open the copy. If it was cut, salvage it.
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
    /// The file is already open, in this process or another.
    #[error("{} is open in another process, or elsewhere in this one; close it there first, and let go of entries that were read of it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The bytes asked for are damaged; other replicas are not affected. For how to heal the replica see [the guide](crate::guide#damage).
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
    /// The file is shorter than its log: its end was cut off. A salvage reads what is left, unless that is less than a 64th, and takes the rest for
    /// lost. Do not extend the file again: then nothing would tell what is missing.
    #[error("the file is cut: it has {file_bytes} bytes, and its log {log_bytes}; {}", cut_advice(*file_bytes, *log_bytes))]
    Cut {
        /// Length of the file.
        file_bytes: u64,
        /// Length that it must have, by its superblock, at least.
        log_bytes: u64,
    },
    /// The file needs a feature that this version does not know.
    #[error("the file needs {feature}, which this version of strandlog does not know; use a newer one")]
    Unsupported {
        /// Its name.
        feature: String,
    },
    /// An option is out of range.
    #[error("option {name} = {given}: it must be {range}")]
    Option {
        /// The option.
        name: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        range: String,
    },
    /// The operating system reported an error.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: Arc<str>,
        /// What it said.
        source: Arc<io::Error>,
    },
    /// The log has used up its numbers (of journal bytes, or of openings): nothing was changed, and nothing can be written any more. Everything in it stays
    /// readable, by later openings too. [`Wal::salvage_into`](crate::Wal::salvage_into) copies it into a new log, which starts afresh.
    #[error(
        "the log has used up its numbers, after {what}: nothing was changed, and all that it holds is read; copy it into a new one (`strandlog salvage`)"
    )]
    UsedUp {
        /// Which limit was reached.
        what: &'static str,
    },
    /// The log was opened read-only.
    #[error("the log was opened read-only; to write, open it without `read_only`, and not with RecoveryMode::Salvage")]
    ReadOnly,
}

/// A cut file is salvaged if at least one part in so many is left.
const MOST_CUT: u64 = 64;

/// Whether enough of a cut file is left for a salvage to open it: where next to nothing is left, no memory is taken for the size that the
/// file says it had.
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

/// Three callers may be told so: one that finds the queue full, one that asked not to wait for the cleaner, and a callback, whatever it
/// would wait for.
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

/// Why an append found no room, and who could make some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullReport {
    /// Bytes that the batch needs: if chunks are lacking, counted in whole chunks; if the limit on metadata was reached, the bytes it has.
    pub needed: u64,
    /// Bytes in free chunks.
    pub free: u64,
    /// Of these, bytes reserved for moving the journal's contents into chains, and for rewriting a large value. A batch that lacks chunks
    /// needs more than the rest.
    pub reserved: u64,
    /// Bytes in chunks that are dead, but pinned by a reader, or whose truncation is not durable yet.
    pub pending: u64,
    /// Whether the limit on metadata and small replicas was reached, rather than that on chunks.
    pub metadata: bool,
    /// The replicas that hold most, or did a moment ago, with their bytes of entries and keyed state together: truncate or remove these first. If
    /// the limit on metadata was reached, those that contribute most to it, by keys, terms, and all entries of a small replica.
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

/// What was lost, and of which replica. If it names the entry before the first that is held, only that entry's term is lost: see
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
    /// Entries that cannot be read, or that may be older than what was acknowledged.
    ///
    /// The range may include the entry before the first that is held: a truncation over damage left its term unknown, until the next truncation. If it names
    /// that entry alone, the replica lacks nothing else: a follower that needs the term is sent a snapshot.
    Entries {
        /// First index.
        first: u64,
        /// Last index.
        last: u64,
    },
    /// Keyed state that may miss an update, possibly a vote. The replica must not take part in its group until it has been taken out of the configuration, removed, and
    /// added back as a new member. See [the guide](crate::guide#damage).
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
                // A single one may be the entry before the first, of which only the term is missing.
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

    /// A person who reads an error at night must know what to do next.
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

    /// A truncation that ends right behind a rotten entry leaves its term in doubt, and nothing else: that is reported as damage of this
    /// entry.
    #[test]
    fn damage_before_the_first_entry_is_not_told_as_if_entries_were_lost() {
        let said = Damage { replica: 1, lost: Lost::Entries { first: 5, last: 5 } }.to_string();
        assert!(said.contains("5..=5") && said.contains("new member"), "{said}");
        assert!(said.contains("only the term before its first entry is unknown: send followers a snapshot"), "{said}");
        let several = Damage { replica: 1, lost: Lost::Entries { first: 5, last: 6 } }.to_string();
        assert!(several.contains("5..=6") && !several.contains("only the term"), "entries are lost: {several}");
    }

    /// Another store's log holds another member's votes, and an older copy lacks the newest ones.
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
