//! Figures about a log: what it did since it was opened, and how it stands.

use crate::disk::DiskInfo;
use crate::histogram::Histogram;
use crate::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub $name: Counter),* }

        impl Counters {
            pub(crate) fn fill(&self, stats: &mut Stats) { $(stats.$name = self.$name.get();)* }
        }
    };
}

/// A counter that only grows (or is set once); exact order between counters does not matter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters!(
    batches,
    entries,
    user_bytes,
    frames,
    journal_bytes,
    placed_bytes,
    settled_bytes,
    settled_entries,
    carried_bytes,
    carried_entries,
    segments_cleaned,
    stalls,
    recovery_micros,
    recovered_frames,
    lost_frames,
    dropped_frames,
    damaged_entries,
    unnamed_losses,
    opened_by_snapshot,
    used_up,
);

/// Figures about a log. Counters run from the opening.
///
/// They are gathered one group after the other while the log is in use, so two that belong together may be of moments a little apart: subtract them with `saturating_sub`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches made durable: those of callers.
    pub batches: u64,
    /// Entries made durable.
    pub entries: u64,
    /// Bytes of payload, of keys and of their values that callers gave and that became durable.
    pub user_bytes: u64,
    /// Frames written: group commits. `entries / frames` is what one sync carried.
    pub frames: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written straight into chains.
    pub placed_bytes: u64,
    /// Bytes written to chains by the cleaner.
    pub settled_bytes: u64,
    /// Entries moved to chains by the cleaner.
    pub settled_entries: u64,
    /// Bytes of entries and metadata that the cleaner copied forward in the journal (part of `journal_bytes`).
    pub carried_bytes: u64,
    /// Entries copied forward in the journal.
    pub carried_entries: u64,
    /// Journal segments freed.
    pub segments_cleaned: u64,
    /// Times that a submit had to wait for the queue or for the cleaner.
    pub stalls: u64,
    /// How long the opening took, in microseconds.
    pub recovery_micros: u64,
    /// Frames replayed at the opening.
    pub recovered_frames: u64,
    /// Frames that were durable and could not be read at the opening: see [`Wal::damage`](crate::Wal::damage).
    pub lost_frames: u64,
    /// Frames at the end that were dropped at the opening: torn, or behind one that is, and so never acknowledged. Unless what looks torn rotted: of the
    /// newest frame of a log that was not closed nobody can tell. After an opening with [`RecoveryMode::Salvage`](crate::RecoveryMode::Salvage) also
    /// what cannot be proved.
    pub dropped_frames: u64,
    /// Entries that the cleaner or a scrub found damaged since the opening. All damage known: [`Wal::damage`](crate::Wal::damage).
    pub damaged_entries: u64,
    /// Not 0 only after an opening with [`RecoveryMode::Salvage`](crate::RecoveryMode::Salvage): frames are lost of which nobody can say who
    /// was in them, or may be: what lies where the newest would lie cannot be read. So replicas may be missing, or older than they were, without being
    /// named.
    pub unnamed_losses: u64,
    /// 1 where the opening took the index as the last close had left it, and read no frames; else 0.
    pub opened_by_snapshot: u64,
    /// 1 where the log has no number left for what would be written next, and so refuses every batch ([`Error::UsedUp`](crate::Error::UsedUp)); else 0.
    pub used_up: u64,
    /// Everything at or below this LSN is durable.
    pub durable_lsn: u64,
    /// Replicas that exist.
    pub replicas: u64,
    /// Size of the log, as its superblock has it: of the file, unless that is longer by a segment or more.
    pub capacity: u64,
    /// Size of the file. Where it is more than `capacity`, growing it was interrupted: [`grow`](crate::grow()) goes on. Where it is less, the
    /// file was cut, which only a salvage opens.
    pub file_bytes: u64,
    /// Bytes a chunk.
    pub chunk_size: u64,
    /// Bytes a journal segment.
    pub segment_size: u64,
    /// Chunks outside of the journal.
    pub chunks: u64,
    /// Of these, chunks that are free.
    pub free_chunks: u64,
    /// Chunks that hold pieces, or whose freeing is not durable yet.
    pub used_chunks: u64,
    /// Chunks that are free but for a reader's pin.
    pub pinned_chunks: u64,
    /// Free chunks that appends cannot have: those held back for what is in the journal, and `reserved_for_values`. Where `free_chunks` is no more
    /// than that, appends are refused ([`Error::Full`](crate::Error::Full)).
    pub reserved_chunks: u64,
    /// Of `reserved_chunks`, those that are left for a large keyed value that is written anew: what the largest takes, or, where that is
    /// more, a thirty-second of the log, 1 MiB at most.
    pub reserved_for_values: u64,
    /// Segments of the journal.
    pub journal_segments: u64,
    /// Of these, segments that are free.
    pub free_segments: u64,
    /// The most segments that the journal may grow to.
    pub journal_cap_segments: u64,
    /// Journal bytes of metadata and small replicas, and their bound.
    pub carried_class_bytes: u64,
    /// The bound on `carried_class_bytes`. It grows with the journal, up to `journal_cap_segments` and while chunks are left for that; small replicas spend three
    /// quarters of it at most, and take chunks then, so what comes near it is metadata: keys, descriptors, replicas.
    pub carried_class_limit: u64,
    /// Replicas whose truncation waits for their state machine: see [`Wal::durable_applied`](crate::Wal::durable_applied).
    pub held_truncations: u64,
    /// Bytes of recent frames held in memory.
    pub recent_bytes: u64,
    /// Bytes waiting for the writer: none of a log that has ended.
    pub queued_bytes: u64,
    /// How long group commits took, from the first batch that somebody waits for until they were durable, waiting for room included.
    pub commit_micros: Histogram,
    /// How long their writes took on the device.
    pub device_micros: Histogram,
    /// How writes are made durable, and what the probe found.
    pub disk: Option<DiskInfo>,
}

/// A file that lost its end: what lay there is read as zeros, and so as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutFile {
    /// Bytes that the file has.
    pub file_bytes: u64,
    /// Bytes that its log had.
    pub log_bytes: u64,
}

impl std::fmt::Display for CutFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the file is cut: it has {} bytes of {}, and the rest is lost", self.file_bytes, self.log_bytes)
    }
}

macro_rules! figures {
    ($self:ident: $($name:ident),* $(,)?) => { vec![$((stringify!($name), $self.$name)),*] };
}

impl Stats {
    /// Every figure that is a number, by the name of its field: for exporters.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        figures!(self:
            batches, entries, user_bytes, frames, journal_bytes, placed_bytes, settled_bytes, settled_entries, carried_bytes,
            carried_entries, segments_cleaned, stalls, recovery_micros, recovered_frames, lost_frames, dropped_frames,
            damaged_entries, unnamed_losses, opened_by_snapshot, used_up, durable_lsn, replicas, capacity, file_bytes, chunk_size, segment_size, chunks, free_chunks,
            used_chunks, pinned_chunks, reserved_chunks, reserved_for_values, journal_segments, free_segments, journal_cap_segments,
            carried_class_bytes, carried_class_limit, held_truncations, recent_bytes, queued_bytes,
        )
    }

    /// Bytes written to the device for each byte that callers gave; 0 before the first.
    pub fn write_amplification(&self) -> f64 {
        let written = self.journal_bytes + self.placed_bytes + self.settled_bytes;
        if self.user_bytes == 0 { 0.0 } else { written as f64 / self.user_bytes as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_among_the_figures() {
        let stats = Stats::default();
        let fields = format!("{stats:#?}");
        // A field a line, indented once.
        let numbers = fields.lines().filter_map(|l| l.strip_prefix("    ")?.strip_suffix(": 0,"));
        // What is indented twice is a histogram's.
        let numbers = numbers.filter(|name| !name.starts_with(' '));
        let numbers: Vec<&str> = numbers.collect();
        assert!(numbers.len() > 30, "{fields}");
        assert_eq!(numbers, stats.figures().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
}
