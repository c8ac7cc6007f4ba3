//! Options: what can be chosen, the defaults, and the bounds that hold.

mod journal;

use std::fmt;
use std::time::Duration;

use crate::disk::SyncMethod;
use crate::error::{Error, Result};
use crate::events::Listener;
use crate::format::superblock::{MIN_SEGMENT_BYTES, Superblock};
use crate::format::{BLOCK_BYTES, POOL_OFFSET};
use crate::sync::Arc;

pub(crate) use journal::{Cycle, default_cap, has_default_cap, journal_floor};
use journal::{MIN_FLOOR, possible_cap};

/// Where an entry's payload is written first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Small runs into the journal; runs at or above the direct threshold straight into the replica's chain. If a batch overflows a journal segment,
    /// shorter runs go there too, the longest first, but none below the carry fraction of a chunk.
    #[default]
    Auto,
    /// Everything that fits a frame into the journal. Of a batch that does not fit, runs go into chains as with [`Auto`](Placement::Auto).
    Journal,
    /// All entries straight into the replica's chain: for large entries and few replicas, or where scattered writes are cheap.
    Chain,
}

/// How data that is not in memory is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Zero-copy from a mapping. A media error under a mapping raises SIGBUS, as in any program that maps files. The whole file takes
    /// address space: if that is limited to less (`ulimit -v`), the opening fails.
    #[default]
    Mapped,
    /// Copied by read calls: a media error is returned as an error.
    Copied,
}

/// What an opening does with a log that is not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryMode {
    /// Anything that a clean end would not leave refuses the opening: a torn frame at the end, a damaged replica. For stores that
    /// would rather fetch everything anew than go on with less. A log that was closed opens, and so does one that was killed between writes.
    Strict,
    /// What was being written when the power failed is cut off: it was never acknowledged. Damage is reported per replica, and the other replicas
    /// go on. If the damaged replicas cannot be named, the opening is refused.
    #[default]
    TolerateTornTail,
    /// Read-only, to save what can be saved: opens what the other modes refuse, as far as anything can be proved. What is missing
    /// is in [`Wal::damage`](crate::Wal::damage) and [`Stats`](crate::Stats). Replicas may be missing without being named if
    /// `Stats::unnamed_losses` is not 0. See [`Wal::salvage_into`](crate::Wal::salvage_into).
    Salvage,
}

/// The progress of a long task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: "creating", "recovering" or "growing".
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

type ProgressFn = Box<dyn FnMut(Progress) + Send>;

/// How to open a log. Every option has a default. A value out of bounds is refused, and the error states the range.
///
/// `capacity`, `chunk_size`, `segment_size` and `journal_cap` shape a new file; an existing one keeps its own ([`grow`](crate::grow()) makes
/// it longer).
pub struct Options {
    pub(crate) capacity: u64,
    pub(crate) chunk_size: u32,
    pub(crate) segment_size: Option<u32>,
    pub(crate) journal_cap: Option<u64>,
    pub(crate) run: RunOptions,
    pub(crate) sync_method: SyncMethod,
    pub(crate) read_mode: ReadMode,
    pub(crate) io_uring: bool,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) progress: Option<ProgressFn>,
    pub(crate) listener: Option<Arc<dyn Listener>>,
    pub(crate) slow_commit: Duration,
}

/// The options that apply while the log runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOptions {
    pub placement: Placement,
    pub direct_threshold: u32,
    pub carry_percent: u8,
    pub recent_bytes: usize,
    pub queue_bytes: usize,
    pub max_entry_bytes: u32,
    pub background: bool,
    pub recovery: RecoveryMode,
}

/// Largest entry that may be allowed: 64 MiB.
pub const MAX_ENTRY_BYTES: u32 = 64 << 20;
const _: () = assert!(MAX_ENTRY_BYTES < crate::format::piece::MAX_PIECE_BYTES);
/// Largest keyed value of any log: 1 MiB. In a log whose segments are shorter than 2 MiB (by default, one of less than 128 MiB of capacity) the limit is
/// half a segment.
pub const MAX_VALUE_BYTES: u32 = 1 << 20;
/// Longest key of keyed state.
pub const MAX_KEY_BYTES: u32 = 256;
/// Largest batch, all payloads and values together: 1 GiB.
pub const MAX_BATCH_BYTES: u64 = 1 << 30;

/// Largest file: 8 TiB.
pub(crate) const MAX_CAPACITY: u64 = 8 << 40;
const MIN_SEGMENTS: u64 = 8;
impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 1 << 30,
            chunk_size: 64 << 10,
            segment_size: None,
            journal_cap: None,
            run: RunOptions {
                placement: Placement::Auto,
                direct_threshold: 64 << 10,
                carry_percent: 50,
                recent_bytes: 8 << 20,
                queue_bytes: 16 << 20,
                max_entry_bytes: MAX_ENTRY_BYTES,
                background: true,
                recovery: RecoveryMode::TolerateTornTail,
            },
            sync_method: SyncMethod::Auto,
            read_mode: ReadMode::Mapped,
            io_uring: true,
            create: true,
            read_only: false,
            progress: None,
            listener: None,
            slow_commit: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("capacity", &self.capacity)
            .field("chunk_size", &self.chunk_size)
            .field("segment_size", &self.segment_size)
            .field("journal_cap", &self.journal_cap)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Size of the file in bytes; all of it is filled with zeros at creation. Default 1 GiB; at least 8 segments and 64 KiB (for the
    /// superblocks), at most 8 TiB. An existing log keeps its size, whatever is asked for here: see [`grow`](crate::grow()).
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }
    /// Bytes per chunk, the unit in which replicas take and release space: a power of two, 4 KiB to 4 MiB. Default 64 KiB.
    ///
    /// An open log takes 10 bytes of memory for each of its chunks: 1.3 GiB of the largest log in chunks of 64 KiB, and 20 GiB in chunks of 4 KiB. See
    /// [the guide](crate::guide#capacity-chunks-segments).
    #[must_use]
    pub fn chunk_size(mut self, bytes: u32) -> Self {
        self.chunk_size = bytes;
        self
    }
    /// Bytes per journal segment: a power of two, 64 KiB to 64 MiB, at least one chunk. It limits what one batch may put into
    /// the journal. Default 4 MiB, or less if the capacity is below 256 MiB.
    #[must_use]
    pub fn segment_size(mut self, bytes: u32) -> Self {
        self.segment_size = Some(bytes);
        self
    }
    /// The most bytes that the journal may grow to, and so the most that an opening has to read. Default: an eighth of the
    /// capacity, but at least 512 MiB, at most 4 GiB, and at most half the capacity.
    ///
    /// The cap is never less than what the journal owns from the beginning, which is a sixteenth of the file and at least 6 segments; from 64 GiB of capacity on that
    /// is more than the default's 4 GiB. It is never more than 4,000 segments, whatever is asked for.
    ///
    /// With the default cap, the journal grows to 256 MiB so that less has to be moved, to 512 MiB if the entries of small replicas would otherwise be moved before they
    /// die, and beyond that only for want of room. If a cap was chosen, the journal may use all of it so that less has to be moved.
    #[must_use]
    pub fn journal_cap(mut self, bytes: u64) -> Self {
        self.journal_cap = Some(bytes);
        self
    }
    /// Where payloads are written first. Default [`Placement::Auto`].
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.run.placement = placement;
        self
    }
    /// With [`Placement::Auto`], runs of at least this many bytes go straight into the chain. 4 KiB to 64 MiB, default 64 KiB.
    #[must_use]
    pub fn direct_threshold(mut self, bytes: u32) -> Self {
        self.run.direct_threshold = bytes;
        self
    }
    /// A replica that holds less than this percentage of a chunk in the journal (or less than a quarter of a segment, if that is less) is carried forward
    /// in the journal, instead of being given chunks of its own. 1 to 100, default 50. It may differ from one opening to the next, but if a nearly full log was filled
    /// with another value, nothing may grow until something is truncated.
    #[must_use]
    pub fn carry_fraction(mut self, percent: u8) -> Self {
        self.run.carry_percent = percent;
        self
    }
    /// Memory for recently written frames, from which reads are served. Default 8 MiB; 1 MiB to 64 GiB. Frames in flight
    /// may exceed it, and large payloads, which are placed beside their frames, take up to a quarter more.
    #[must_use]
    pub fn recent_bytes(mut self, bytes: usize) -> Self {
        self.run.recent_bytes = bytes;
        self
    }
    /// Bytes that may wait for the writer before `submit` blocks, including the memory for pending callbacks. Default 16 MiB; 64 KiB to
    /// 4 GiB. A larger batch waits until the queue is empty. Blocked callers are admitted in the order of their arrival.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.run.queue_bytes = bytes;
        self
    }
    /// The largest entry accepted. The default, 64 MiB, is also the maximum.
    #[must_use]
    pub fn max_entry_bytes(mut self, bytes: u32) -> Self {
        self.run.max_entry_bytes = bytes;
        self
    }
    /// How writes are made durable. Default: probe the device at each opening, and choose ([`Stats`](crate::Stats) says what was found).
    #[must_use]
    pub fn sync_method(mut self, method: SyncMethod) -> Self {
        self.sync_method = method;
        self
    }
    /// What to do with a log that is not whole. Default [`RecoveryMode::TolerateTornTail`].
    #[must_use]
    pub fn recovery_mode(mut self, mode: RecoveryMode) -> Self {
        self.run.recovery = mode;
        self.read_only |= mode == RecoveryMode::Salvage;
        self
    }
    /// How data that is not in memory is read. Default [`ReadMode::Mapped`].
    #[must_use]
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Whether several reads or writes are submitted with one system call (`io_uring`), where the system allows it. Default: yes.
    ///
    /// Where it does not, as in many containers, they are done one after the other, or by several threads. Cleaning then takes more
    /// processor time, and nothing else changes. Commits that are one write never use it.
    #[must_use]
    pub fn io_uring(mut self, yes: bool) -> Self {
        self.io_uring = yes;
        self
    }
    /// With `false` the log starts no threads: callers write each frame and clean the journal themselves, so that every run of the
    /// same calls makes the same writes. Lazy batches wait for the next commit. Default `true`.
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.run.background = background;
        self
    }
    /// Whether a missing file is created. Default `true`. Use `false` for a store that was set up before: a wrong path is then an error, not an empty log.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }
    /// Opens read-only: nothing is written, not even a repair. For tools. Default `false`.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only || self.run.recovery == RecoveryMode::Salvage;
        self
    }
    /// Called from time to time while a file is created or recovered.
    #[must_use]
    pub fn progress(mut self, f: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(f));
        self
    }

    /// Receives events of the log. Default: none, which costs one branch per frame.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// A commit slower than this is reported, with the reason, to the listener and as a `tracing` warning. Default 1 second;
    /// zero reports every commit, [`Duration::MAX`] none.
    #[must_use]
    pub fn slow_commit(mut self, limit: Duration) -> Self {
        self.slow_commit = limit;
        self
    }

    /// Refuses what is out of bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let run = &self.run;
        within("chunk_size", u64::from(self.chunk_size), 4 << 10, 4 << 20)?;
        power_of_two("chunk_size", self.chunk_size)?;
        let segment = self.segment_bytes();
        within("segment_size", u64::from(segment), u64::from(self.chunk_size.max(MIN_SEGMENT_BYTES)), 64 << 20)?;
        power_of_two("segment_size", segment)?;
        within("capacity", self.capacity, least_capacity(segment.into()), MAX_CAPACITY)?;
        if let Some(cap) = self.journal_cap {
            within("journal_cap", cap, MIN_FLOOR * u64::from(segment), self.capacity)?;
        }
        within("direct_threshold", run.direct_threshold.into(), 4 << 10, 64 << 20)?;
        within("carry_fraction", run.carry_percent.into(), 1, 100)?;
        within("recent_bytes", run.recent_bytes as u64, 1 << 20, 64 << 30)?;
        within("queue_bytes", run.queue_bytes as u64, 64 << 10, 4 << 30)?;
        within("max_entry_bytes", run.max_entry_bytes.into(), 0, MAX_ENTRY_BYTES.into())
    }

    fn segment_bytes(&self) -> u32 {
        self.segment_size.unwrap_or_else(|| {
            let share = (self.capacity / 64).clamp(256 << 10, 4 << 20).max(u64::from(self.chunk_size));
            // At most 4 MiB: it fits.
            (share / 2 + 1).next_power_of_two() as u32
        })
    }

    /// The superblock of a new file of `capacity` bytes.
    pub(crate) fn geometry(&self, uuid: [u8; 16], capacity: u64) -> Result<Superblock> {
        let segment = u64::from(self.segment_bytes());
        // Blocks are counted in 32 bits.
        within("capacity", capacity, least_capacity(segment), POOL_OFFSET + u64::from(u32::MAX) * BLOCK_BYTES)?;
        let slabs = (capacity - POOL_OFFSET) / segment;
        let floor = journal_floor(slabs);
        let cap = self.journal_cap.map_or(default_cap(slabs, segment), |bytes| possible_cap(slabs, bytes / segment));
        let floor = floor as u32;
        Ok(Superblock {
            durable: 0,
            uuid,
            epoch: 1,
            chunk_bytes: self.chunk_size,
            segment_bytes: segment as u32,
            slab_count: slabs as u32,
            journal_floor: floor,
            journal_cap: cap as u32,
            journal_slabs: (0..floor).collect(),
            snapshot: None,
        })
    }
}

/// Size of a log whose last slab ends at `end`, in a file of `file_bytes`: all of the file, unless a segment or more lies behind that end,
/// which no superblock names. An interrupted growth leaves such a file.
pub(crate) fn capacity_in(file_bytes: u64, end: u64, segment: u64) -> u64 {
    if file_bytes.saturating_sub(end) < segment { file_bytes } else { end }
}

/// The least capacity of a new file: its segments, behind the superblocks.
fn least_capacity(segment: u64) -> u64 {
    POOL_OFFSET + MIN_SEGMENTS * segment
}

pub(crate) fn within(name: &'static str, given: u64, low: u64, high: u64) -> Result<()> {
    if (low..=high).contains(&given) {
        return Ok(());
    }
    Err(Error::Option { name, given: given.to_string(), range: format!("from {low} to {high}") })
}

fn power_of_two(name: &'static str, given: u32) -> Result<()> {
    if given.is_power_of_two() {
        return Ok(());
    }
    Err(Error::Option { name, given: given.to_string(), range: "a power of two".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_bounds_and_nonsense_is_refused_with_its_range() {
        Options::default().check().unwrap();
        for (bad, name) in [
            (Options::default().chunk_size(5000), "chunk_size"),
            (Options::default().chunk_size(1 << 30), "chunk_size"),
            (Options::default().capacity(1000), "capacity"),
            (Options::default().segment_size(4096), "segment_size"),
            (Options::default().carry_fraction(0), "carry_fraction"),
            (Options::default().queue_bytes(1), "queue_bytes"),
            (Options::default().direct_threshold(1), "direct_threshold"),
            (Options::default().journal_cap(1), "journal_cap"),
        ] {
            let Err(Error::Option { name: got, range, .. }) = bad.check() else { panic!("{name} was accepted") };
            assert_eq!(got, name);
            assert!(!range.is_empty());
        }
    }

    #[test]
    fn eight_segments_behind_the_superblocks_are_the_least_and_who_has_less_is_told_in_bytes() {
        let segment = 64 << 10;
        let least = 8 * segment + POOL_OFFSET;
        let options = |capacity| Options::default().chunk_size(4096).segment_size(segment as u32).capacity(capacity);
        options(least).check().unwrap();
        assert_eq!(options(least).geometry([1; 16], least).unwrap().slab_count, 8);
        let less = least - 1;
        for refused in [options(less).check(), options(less).geometry([1; 16], less).map(drop)] {
            let Err(Error::Option { name: "capacity", given, range }) = refused else { panic!("{refused:?}") };
            assert_eq!(given, less.to_string());
            assert!(range.starts_with(&format!("from {least} to ")), "{range}");
        }
    }

    #[test]
    fn the_geometry_of_every_capacity_is_a_valid_superblock() {
        for capacity in [3 << 20, 10 << 20, 64 << 20, 1 << 30, 100 << 30, 4 << 40] {
            let options = Options::default().capacity(capacity);
            options.check().unwrap();
            let sb = options.geometry([1; 16], capacity).unwrap();
            assert_eq!(Superblock::decode(&sb.encode(), capacity), Ok(sb));
        }
    }

    #[test]
    fn a_journal_cycles_through_what_opens_quickly_unless_another_cap_was_chosen() {
        const MIB: u64 = 1 << 20;
        let cycle = |capacity: u64, cap: Option<u64>| {
            let options = Options { journal_cap: cap, ..Options::default().capacity(capacity) };
            let sb = options.geometry([1; 16], capacity).unwrap();
            let (cycle, segment) = (Cycle::new(&sb), u64::from(sb.segment_bytes));
            [0, 40 * MIB, 80 * MIB, 90 * MIB, u64::MAX].map(|carried| u64::from(cycle.slabs(carried)) * segment / MIB)
        };
        assert_eq!(cycle(2 << 30, None), [256, 256, 400, 452, 512], "five times what it carries");
        assert_eq!(cycle(600 * MIB, None), [256, 256, 296, 296, 296], "half of the file");
        assert_eq!(cycle(300 * MIB, None), [148; 5], "half of the file");
        assert_eq!(cycle(64 << 30, None), [4092; 5], "the floor: a sixteenth, without the superblocks");
        assert_eq!(cycle(2 << 30, Some(1 << 30)), [1024; 5], "chosen");
        assert_eq!(cycle(2 << 30, Some(200 * MIB)), [200; 5], "chosen");
    }
}
