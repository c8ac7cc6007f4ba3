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

/// Counters and gauges of a log. Counters start at 0 at each opening.
///
/// They are read in groups while the log is in use, so related figures may be from slightly different moments: subtract them with `saturating_sub`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches of callers made durable.
    pub batches: u64,
    /// Entries made durable.
    pub entries: u64,
    /// Bytes of payloads, keys and values that callers gave and that became durable.
    pub user_bytes: u64,
    /// Frames written (group commits). `entries / frames` is the average number of entries per sync.
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
    /// How often a submit had to wait for the queue or for the cleaner.
    pub stalls: u64,
    /// How long the opening took, in microseconds.
    pub recovery_micros: u64,
    /// Frames replayed at the opening.
    pub recovered_frames: u64,
    /// Durable frames that could not be read at the opening: see [`Wal::damage`](crate::Wal::damage).
    pub lost_frames: u64,
    /// Frames at the end that were dropped at the opening: torn, or behind a torn one, and so never acknowledged. (If the newest frame of a log that was not
    /// closed is unreadable, it may instead have rotted: the two look the same.) After an opening with [`RecoveryMode::Salvage`](crate::RecoveryMode::Salvage), also
    /// frames that cannot be proved.
    pub dropped_frames: u64,
    /// Entries that the cleaner or a scrub found damaged since the opening. All damage known: [`Wal::damage`](crate::Wal::damage).
    pub damaged_entries: u64,
    /// If not 0, replicas may be missing, or older than they were, without being named: frames are lost whose replicas nobody can
    /// name, or may be lost, because the place where the newest frame would lie cannot be read. Always 0 unless opened with
    /// [`RecoveryMode::Salvage`](crate::RecoveryMode::Salvage).
    pub unnamed_losses: u64,
    /// 1 if the opening used the index saved by the last close, and read no frames; otherwise 0.
    pub opened_by_snapshot: u64,
    /// 1 if the log has no number left for what would be written next, and so refuses every batch
    /// ([`Error::UsedUp`](crate::Error::UsedUp)); otherwise 0.
    pub used_up: u64,
    /// Everything at or below this LSN is durable.
    pub durable_lsn: u64,
    /// Replicas that exist.
    pub replicas: u64,
    /// Size of the log, by its superblock: that of the file, unless the file is longer by a segment or more.
    pub capacity: u64,
    /// Size of the file. If it is more than `capacity`, growing it was interrupted: call [`grow`](crate::grow()) again. If it is less, the
    /// file was cut, and only a salvage opens it.
    pub file_bytes: u64,
    /// Bytes per chunk.
    pub chunk_size: u64,
    /// Bytes per journal segment.
    pub segment_size: u64,
    /// Chunks outside the journal.
    pub chunks: u64,
    /// Of these, chunks that are free.
    pub free_chunks: u64,
    /// Chunks that hold pieces, or whose freeing is not durable yet.
    pub used_chunks: u64,
    /// Chunks that would be free, but are pinned by a reader.
    pub pinned_chunks: u64,
    /// Free chunks that appends cannot have: those reserved for moving the journal's contents, and `reserved_for_values`. If `free_chunks` is no more
    /// than this, appends are refused ([`Error::Full`](crate::Error::Full)).
    pub reserved_chunks: u64,
    /// Of `reserved_chunks`, those kept for rewriting a large keyed value: as many as the largest value takes, or, if that is
    /// more, a thirty-second of the log, up to 1 MiB.
    pub reserved_for_values: u64,
    /// Segments of the journal.
    pub journal_segments: u64,
    /// Of these, segments that are free.
    pub free_segments: u64,
    /// The most segments that the journal may grow to.
    pub journal_cap_segments: u64,
    /// Journal bytes of metadata and small replicas, which the cleaner carries forward.
    pub carried_class_bytes: u64,
    /// The limit of `carried_class_bytes`. It grows with the journal, up to `journal_cap_segments` and as long as there are chunks to grow into. Small replicas use at
    /// most three quarters of it, and take chunks beyond that. So what fills the rest is metadata: keys, descriptors, replicas.
    pub carried_class_limit: u64,
    /// Replicas with a truncation that waits for a report of their state machine: see [`Wal::durable_applied`](crate::Wal::durable_applied).
    pub held_truncations: u64,
    /// Bytes of recent frames held in memory.
    pub recent_bytes: u64,
    /// Bytes waiting for the writer; 0 once the log has ended.
    pub queued_bytes: u64,
    /// How long group commits took: from the first batch that somebody waits for until the frame was durable, including waits for room.
    pub commit_micros: Histogram,
    /// How long their writes and syncs took on the device.
    pub device_micros: Histogram,
    /// How writes are made durable, and what the probe found.
    pub disk: Option<DiskInfo>,
}

/// A file that lost its end. The missing part is read as zeros, and so counts as lost.
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
    /// All numeric figures, by the name of their field: for exporters.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        figures!(self:
            batches, entries, user_bytes, frames, journal_bytes, placed_bytes, settled_bytes, settled_entries, carried_bytes,
            carried_entries, segments_cleaned, stalls, recovery_micros, recovered_frames, lost_frames, dropped_frames,
            damaged_entries, unnamed_losses, opened_by_snapshot, used_up, durable_lsn, replicas, capacity, file_bytes, chunk_size, segment_size, chunks, free_chunks,
            used_chunks, pinned_chunks, reserved_chunks, reserved_for_values, journal_segments, free_segments, journal_cap_segments,
            carried_class_bytes, carried_class_limit, held_truncations, recent_bytes, queued_bytes,
        )
    }

    /// Bytes written to the device per byte that callers gave; 0 before the first.
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
        // One field per line, indented once.
        let numbers = fields.lines().filter_map(|l| l.strip_prefix("    ")?.strip_suffix(": 0,"));
        // Lines indented twice are a histogram's.
        let numbers = numbers.filter(|name| !name.starts_with(' '));
        let numbers: Vec<&str> = numbers.collect();
        assert!(numbers.len() > 30, "{fields}");
        assert_eq!(numbers, stats.figures().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
}
