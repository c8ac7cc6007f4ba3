//! Growing: a log that nobody has open gets more room at its end.

use std::path::Path;

use crate::disk::{AlignedBuf, BLOCK, Disk, FileDisk, OpenMode};
use crate::error::{Error, Result};
use crate::format::superblock::{MAX_JOURNAL_SLABS, Superblock};
use crate::format::{BLOCK_BYTES, POOL_OFFSET};
use crate::open::{look, open_error};
use crate::options::{MAX_CAPACITY, Progress, capacity_in, default_cap, has_default_cap, journal_floor, within};
use crate::recovery::{superblock_of_log, write_superblocks};

/// The result of [`grow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grown {
    /// Size of the log before: [`Stats::capacity`](crate::Stats::capacity).
    pub from: u64,
    /// Size of the log now, and of the file.
    pub to: u64,
    /// Size of the file before: more than `from` if an earlier growth was interrupted.
    pub file_from: u64,
    /// Bytes that the log could use before.
    pub usable_from: u64,
    /// Bytes that the log can use now: whole segments.
    pub usable_to: u64,
}

/// Zeros written at a time.
const STEP: usize = 256 * BLOCK;

/// Enlarges the log at `path` to `capacity` bytes. Nobody may have it open; its contents are not touched. It takes as long as writing
/// the difference, because the new part is filled with zeros, as a new file is. If an interrupted growth has left the file longer than
/// `capacity`, the excess is cut off: no superblock ever named it.
///
/// If it is interrupted at any point, the log opens with either the old size or the new one. With the old size, grow it again. With the
/// new size, growth is complete: growing again to the same size is refused, and repairs the superblock's second copy, as any opening does.
///
/// # Errors
/// [`Error::Option`] if `capacity` is not at least a segment more than the log has, or is too large; [`Error::Locked`] while it is
/// open; [`Error::Io`] if there is no space; [`Error::Corrupt`], [`Error::Cut`] and [`Error::Unsupported`] as for an opening.
pub fn grow(path: impl AsRef<Path>, capacity: u64, mut progress: impl FnMut(Progress)) -> Result<Grown> {
    let path = path.as_ref();
    let mode = OpenMode { read_only: false, mapped: false, ..OpenMode::default() };
    let disk = FileDisk::open(path, mode, look).map_err(|e| open_error(path, e))?;
    // After a kill -9 what is read may lie in a volatile cache, and what is written from here on relies on it.
    disk.flush().map_err(|e| Error::io("syncing before growing", e))?;
    let old = superblock_of_log(&disk, false)?;
    let file_from = disk.len();
    let from = capacity_in(file_from, end(&old), old.segment_bytes.into());
    let new = enlarged(&old, capacity).map_err(|error| match error {
        Error::Option { name, given, range } => {
            Error::Option { name, given, range: format!("{range}: the log has {from} bytes now") }
        }
        other => other,
    })?;
    // Whole blocks, and at least a segment above the old end.
    let to = capacity / BLOCK_BYTES * BLOCK_BYTES;
    let resized = if to < file_from { disk.shortened(to) } else { disk.extended(to) };
    let disk = resized.map_err(|e| open_error(path, e))?;
    enlarge(&disk, &old, &new, &mut progress)?;
    Ok(Grown { from, to: disk.len(), file_from, usable_from: end(&old), usable_to: end(&new) })
}

/// Where the last slab ends.
fn end(superblock: &Superblock) -> u64 {
    superblock.slab_offset(superblock.slab_count)
}

/// The superblock of the same log in a larger file.
///
/// The journal's floor grows to that of a new file, and so does its cap where nobody chose one: a larger file has more to carry. A chosen
/// cap stays, as it bounds what an opening has to read, unless the floor is above it.
pub(crate) fn enlarged(old: &Superblock, capacity: u64) -> Result<Superblock> {
    let segment = u64::from(old.segment_bytes);
    let least = end(old).saturating_add(segment);
    within("capacity", capacity, least, MAX_CAPACITY)?;
    let slabs = (capacity - POOL_OFFSET) / segment;
    let chunks = slabs.saturating_mul(u64::from(old.chunks_per_slab()));
    within("capacity", chunks.saturating_mul(u64::from(old.chunk_bytes) / BLOCK_BYTES), 0, u32::MAX.into())?;
    let floor = journal_floor(slabs).max(old.journal_floor.into()) as u32;
    let cap = if has_default_cap(old) { default_cap(slabs, segment) } else { old.journal_cap.into() };
    let mut new = Superblock {
        epoch: old.epoch + 1,
        // No more than there are blocks, which fit 32 bits.
        slab_count: slabs as u32,
        journal_floor: floor,
        journal_cap: cap.max(floor.into()).min(MAX_JOURNAL_SLABS as u64) as u32,
        // It describes the old file: the next opening reads the journal.
        snapshot: None,
        ..old.clone()
    };
    // From the end, as chains fill the pool from the front. All new slabs are free.
    let mut free = (old.slab_count..new.slab_count).rev();
    while (new.journal_slabs.len() as u32) < floor {
        let Some(slab) = free.next() else { break };
        new.journal_slabs.push(slab);
    }
    new.journal_floor = floor.min(new.journal_slabs.len() as u32);
    Ok(new)
}

/// Zeros, durable; then A, durable; then B, durable.
///
/// Behind the old end may be anything: what an interrupted growth left, or the contents of a file that was once longer.
pub(crate) fn enlarge(
    disk: &dyn Disk,
    old: &Superblock,
    new: &Superblock,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut zeros = AlignedBuf::with_capacity(STEP);
    zeros.resize(STEP);
    let (begin, total) = (end(old), disk.len().saturating_sub(end(old)));
    let mut done = 0;
    while done < total {
        let step = total.saturating_sub(done).min(STEP as u64);
        let part = zeros.get(..step as usize).unwrap_or(&[]);
        disk.write_at(begin + done, part).map_err(|e| Error::io("writing zeros behind the log", e))?;
        done += step;
        progress(Progress { what: "growing", done, total });
    }
    disk.flush().map_err(|e| Error::io("syncing the zeros behind the log", e))?;
    write_superblocks(disk, new).map_err(|e| Error::io("writing the superblock", e))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, SimDisk};
    use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS};
    use crate::recovery::{Found, read_superblock};
    use crate::sync::Arc;
    use crate::{Batch, Options, Wal};

    const OLD: u64 = 2 << 20;
    const NEW: u64 = 8 << 20;

    fn options(capacity: u64) -> Options {
        let options = Wal::options().capacity(capacity).segment_size(64 << 10).chunk_size(4096);
        options.direct_threshold(8 << 10).background(false)
    }

    fn payload(replica: u64, index: u64) -> Vec<u8> {
        format!("replica {replica} entry {index};").repeat(40).into_bytes()
    }

    fn entries(replica: u64, indexes: std::ops::Range<u64>) -> Vec<(u64, u64, Vec<u8>)> {
        indexes.map(|i| (i, 1, payload(replica, i))).collect()
    }

    /// Something in the journal, something in chains, and what was overwritten and truncated.
    fn fill(wal: &Wal) {
        for replica in 1..=5 {
            wal.commit(Batch::new().append(replica, &entries(replica, 1..60)).put(replica, b"vote", b"me"))
                .expect("room");
            wal.commit(Batch::new().append(replica, &entries(replica, 60..64))).expect("room");
        }
        wal.commit(Batch::new().truncate_prefix(2, 30).append(3, &entries(3, 50..58))).expect("room");
    }

    fn check(wal: &Wal) {
        assert!(wal.verify(|_| ()).expect("readable").is_clean());
        for (replica, first, last) in [(1, 1, 63), (2, 30, 63), (3, 1, 57), (4, 1, 63), (5, 1, 63)] {
            let r = wal.replica(replica);
            assert_eq!((r.bounds(), r.get(b"vote").expect("kept").as_deref()), ((first, last), Some(&b"me"[..])));
            for i in first..=last {
                assert_eq!(r.entry(i).expect("kept").data, payload(replica, i));
            }
        }
    }

    /// Appends fit: in the new log, more than the old one had room for.
    fn use_it(wal: &Wal, bytes: u64) {
        let entry = vec![7; 30_000];
        for index in 1..=bytes / 30_000 {
            wal.commit(Batch::new().append(99, &[(index, 1, &entry)])).expect("it fits");
        }
    }

    fn usable(wal: &Wal) -> u64 {
        let s = wal.stats();
        s.chunks * s.chunk_size + s.journal_segments * s.segment_size
    }

    /// The log on a disk that is long enough, with garbage behind its end.
    fn before() -> (SimDisk, Superblock) {
        let disk = SimDisk::new(NEW);
        let superblock = options(OLD).geometry([9; 16], OLD).expect("valid");
        write_superblocks(&disk, &superblock).expect("written");
        for at in (end(&superblock)..NEW).step_by(4096) {
            disk.poke(at, &at.to_le_bytes().repeat(100));
        }
        let disk = Arc::new(disk);
        let wal = options(OLD).open_disk(disk.clone()).expect("a log");
        fill(&wal);
        drop(wal);
        let disk = disk.crash_kept_all();
        let Found::Log(superblock) = read_superblock(&disk, true).expect("read") else { panic!("blank") };
        // At its end, what a longer file of this log may have left: frames of another history than this one.
        let later = Arc::new(disk.restart());
        let wal = options(OLD).open_disk(later.clone()).expect("a log");
        wal.commit(Batch::new().append(1, &entries(1, 10..20))).expect("room");
        drop(wal);
        let (then, now, segment) = (disk.kept_image(), later.kept_image(), superblock.segment_bytes as usize);
        let slab = |&slab: &u32| superblock.slab_offset(slab) as usize;
        let offset =
            superblock.journal_slabs.iter().map(slab).find(|&at| then[at..][..segment] != now[at..][..segment]);
        let offset = offset.expect("something was written");
        let new = enlarged(&superblock, NEW).expect("larger");
        assert_eq!(new.journal_slabs.last().map(|&slab| slab + 1), Some(new.slab_count), "the journal takes the last");
        disk.poke(end(&new) - segment as u64, &now[offset..][..segment]);
        (disk, *superblock)
    }

    fn open(disk: SimDisk) -> Wal {
        options(OLD).open_disk(Arc::new(disk)).expect("it opens")
    }

    /// Both superblocks, where they are whole.
    fn copies(disk: &SimDisk) -> [Option<Superblock>; 2] {
        SUPERBLOCK_OFFSETS.map(|at| {
            let mut bytes = vec![0; SUPERBLOCK_BYTES];
            disk.read_at(at, &mut bytes).expect("read");
            Superblock::decode(&bytes, disk.len()).ok()
        })
    }

    #[test]
    fn the_power_fails_at_every_event_and_the_log_opens_old_or_new() {
        let (disk, old) = before();
        let new = enlarged(&old, NEW).expect("larger");
        let run = |disk: &SimDisk| enlarge(disk, &old, &new, &mut |_| ());
        let whole = disk.clone();
        run(&whole).expect("grown");
        let (first, last) = (disk.events(), whole.events());
        assert!(last - first > 6, "zeros, a sync, A and B");
        let (mut olds, mut news, mut halves) = (0, 0, 0);
        for event in first..=last {
            let cut = disk.clone();
            cut.fail_at(event, Fault::Cut);
            assert_eq!(run(&cut).is_err(), event < last);
            let crashes = [cut.crash_kept_all(), cut.crash_lost_all()].into_iter();
            for (kind, crash) in crashes.chain((0..3).map(|seed| cut.crash_seeded(seed))).enumerate() {
                let wal = open(crash.clone());
                check(&wal);
                let size = usable(&wal) + POOL_OFFSET;
                assert!(size == end(&old) || size == end(&new), "event {event}, crash {kind}: {size}");
                if size == end(&old) {
                    olds += 1
                } else {
                    news += 1
                }
                use_it(&wal, if size == end(&old) { 400 << 10 } else { 3 << 20 });
                check(&wal);
                drop(wal);
                // Once more: it completes, whatever the first growth left.
                let [a, b] = copies(&crash);
                halves += usize::from(a != b);
                let Found::Log(found) = read_superblock(&crash, false).expect("read") else { panic!("blank") };
                if found.slab_count == old.slab_count {
                    enlarge(&crash, &found, &enlarged(&found, NEW).expect("larger"), &mut |_| ()).expect("grown");
                } else {
                    let refused = enlarged(&found, NEW);
                    assert!(matches!(refused, Err(Error::Option { name: "capacity", .. })), "{refused:?}");
                    let whole = Some(*found);
                    assert_eq!(copies(&crash), [whole.clone(), whole], "event {event}, crash {kind}");
                }
                let wal = open(crash);
                check(&wal);
                assert_eq!(usable(&wal) + POOL_OFFSET, end(&new));
                use_it(&wal, 3 << 20);
            }
        }
        assert!(olds > 10 && news > 5 && halves > 1, "{olds} old, {news} new, {halves} with copies that differ");
    }

    /// The file itself: cut anywhere between its old length and its new one before the superblock says so.
    #[test]
    fn a_file_that_is_longer_than_its_log_opens_and_one_that_is_shorter_is_refused() {
        let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("a directory");
        let path = dir.path().join("log");
        let wal = options(OLD).open(&path).expect("created");
        fill(&wal);
        wal.close().expect("closed");
        drop(wal);
        let small = std::fs::read(&path).expect("read");
        for len in [OLD, OLD + 1, OLD + 4096, OLD + 700_000, NEW] {
            for filler in [0, 0xa5] {
                let mut bytes = small.clone();
                bytes.resize(len as usize, filler);
                std::fs::write(&path, &bytes).expect("written");
                let wal = options(OLD).open(&path).expect("opens");
                check(&wal);
                wal.close().expect("closed");
                drop(wal);
                let grown = grow(&path, NEW, |p| assert!(p.done <= p.total)).expect("grown");
                assert_eq!((grown.file_from, grown.to), (len, NEW), "{grown:?}");
                assert_eq!(grown.from, if len < grown.usable_from + (64 << 10) { len } else { grown.usable_from });
                let wal = options(OLD).open(&path).expect("opens");
                check(&wal);
                assert_eq!(usable(&wal) + POOL_OFFSET, grown.usable_to);
                use_it(&wal, 3 << 20);
                wal.close().expect("closed");
                drop(wal);
                assert_eq!(std::fs::metadata(&path).expect("there").len(), NEW);
            }
        }
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.set_len(NEW - (1 << 20)).expect("cut");
        assert!(
            matches!(options(OLD).open(&path), Err(Error::Cut { file_bytes, .. }) if file_bytes == NEW - (1 << 20)),
            "both copies say more than there is"
        );
    }

    /// A growth that was killed; the next one asks for less.
    #[test]
    fn a_growth_that_was_interrupted_is_no_capacity_and_the_next_one_makes_what_it_is_told() {
        let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("a directory");
        let path = dir.path().join("log");
        let wal = options(OLD).open(&path).expect("created");
        assert_eq!((wal.stats().capacity, wal.stats().file_bytes), (OLD, OLD));
        fill(&wal);
        wal.close().expect("closed");
        drop(wal);
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.set_len(2 * NEW).expect("as far as it came");
        let wal = options(OLD).open(&path).expect("opens");
        let (stats, used) = (wal.stats(), usable(&wal) + POOL_OFFSET);
        assert_eq!((stats.capacity, stats.file_bytes), (used, 2 * NEW));
        assert_eq!(wal.capacity(), used, "the same wherever it is asked");
        drop(wal);
        let grown = grow(&path, NEW, |p| assert!(p.done <= p.total && p.total < NEW)).expect("grown");
        assert_eq!((grown.from, grown.file_from, grown.to), (used, 2 * NEW, NEW));
        assert_eq!(std::fs::metadata(&path).expect("there").len(), NEW);
        let wal = options(OLD).open(&path).expect("opens");
        check(&wal);
        assert_eq!((wal.stats().capacity, wal.stats().file_bytes), (NEW, NEW));
        use_it(&wal, 3 << 20);
    }

    #[test]
    fn what_cannot_grow_says_why_and_stays_as_it_is() {
        let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("a directory");
        let path = dir.path().join("log");
        let wal = options(OLD).open(&path).expect("created");
        fill(&wal);
        assert!(matches!(grow(&path, NEW, |_| ()), Err(Error::Locked { .. })));
        wal.close().expect("closed");
        drop(wal);
        let before = std::fs::read(&path).expect("read");
        for capacity in [0, OLD, OLD + 4096, u64::MAX] {
            let refused = grow(&path, capacity, |_| ());
            let Err(Error::Option { name: "capacity", range, .. }) = refused else { panic!("{capacity}: {refused:?}") };
            assert!(range.ends_with(&format!("the log has {OLD} bytes now")), "{capacity}: {range}");
        }
        let mode = OpenMode { read_only: false, mapped: false, ..OpenMode::default() };
        let full = FileDisk::open(&path, mode, look).expect("opens").extended(1 << 60);
        assert!(full.is_err_and(|e| std::io::Error::from(e).kind() == std::io::ErrorKind::StorageFull));
        assert_eq!(std::fs::read(&path).expect("read").len(), before.len(), "it is cut back");
        std::fs::write(dir.path().join("zeros"), vec![0; 1 << 20]).expect("written");
        assert!(matches!(grow(dir.path().join("zeros"), NEW, |_| ()), Err(Error::Corrupt { .. })));
        assert!(matches!(grow(dir.path().join("missing"), NEW, |_| ()), Err(Error::Io { .. })));
    }

    #[test]
    fn the_journal_grows_with_the_file_as_in_a_new_one() {
        let old = Options::default().geometry([1; 16], 1 << 30).expect("valid");
        let new = enlarged(&old, 10 << 30).expect("larger");
        let slabs = u64::from(new.slab_count);
        assert_eq!(u64::from(new.journal_floor), journal_floor(slabs));
        assert_eq!(new.journal_slabs.len() as u32, new.journal_floor);
        assert_eq!(Superblock::decode(&new.encode(), 10 << 30), Ok(new.clone()));
        assert_eq!(new.epoch, old.epoch + 1);
        assert!(has_default_cap(&new) && new.journal_cap > old.journal_cap, "nobody chose it");
        let chosen = Superblock { journal_cap: old.journal_cap - 1, ..old };
        assert_eq!(enlarged(&chosen, 10 << 30).expect("larger").journal_cap, chosen.journal_cap.max(new.journal_floor));
        // So small that its cap was its floor: nobody chose that.
        for slabs in 8..=13 {
            let old = Options::default().geometry([1; 16], POOL_OFFSET + slabs * (4 << 20)).expect("valid");
            let new = enlarged(&old, 10 << 30).expect("larger");
            assert_eq!(u64::from(old.slab_count), slabs);
            assert!(has_default_cap(&old) && new.journal_cap > new.journal_floor, "{slabs} slabs: {new:?}");
        }
        // A little more: the journal has enough as it is.
        let old = Options::default().geometry([1; 16], (1 << 30) + (8 << 20)).expect("valid");
        let little = enlarged(&old, (1 << 30) + (12 << 20)).expect("larger");
        assert_eq!((little.journal_slabs, little.slab_count), (old.journal_slabs, old.slab_count + 1));
    }
}
