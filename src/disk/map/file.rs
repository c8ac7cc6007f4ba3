//! The read-only view of a file in memory.

use super::super::lock::Lock;
use memmap2::{Mmap, MmapOptions};
use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// How a range of a mapping is about to be read, for the system's read-ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// No particular order: the system decides.
    Normal,
    /// Here and there: reading ahead would be wasted.
    Random,
    /// From front to back: read far ahead, and drop what lies behind.
    Sequential,
    /// Soon: start reading now.
    WillNeed,
}

/// A read-only view of a whole file, for as long as nobody else can have it open.
///
/// Reading takes neither a system call nor a copy. In exchange, a device that cannot read a page raises a signal (`SIGBUS`), not an error;
/// a caller that cannot accept that reads copies instead.
pub struct Map {
    /// Dead once the disk was released and nobody reads any more.
    view: Weak<View>,
    len: u64,
}

/// The mapping, and the lock without which it cannot be trusted.
///
/// A slice promises that its bytes do not change while it lives, and the mapping alone cannot keep that promise: whoever takes a slice must
/// know that nobody writes to its range. The log takes slices only of chunks that are completely written, and keeps these from reuse as
/// long as a slice lives; what may be written meanwhile (the journal) it copies while that is kept from reuse, and checks the copy.
/// **Whoever opens the file next knows nothing of that**: so the file stays locked until the last view is gone, and no view is given out
/// after its release.
pub(crate) struct View {
    // In this order: no page may be mapped any more when the next process opens the file and has the system forget what it holds of it.
    bytes: Mmap,
    _lock: Arc<Lock>,
    /// The disk was released: this view is given to nobody else.
    released: AtomicBool,
}

impl View {
    /// Maps the first `len` bytes of a file that has at least that many.
    pub(in crate::disk) fn new(file: &OwnedFd, len: u64, lock: Arc<Lock>) -> io::Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the file exceeds the address space"))?;
        // SAFETY: a file mapping is sound while (1) its pages exist and (2) no byte changes under a
        // live reference.
        //
        // (1) `len` is the size the file has, and no code here shrinks a file while it is mapped (`FileDisk::shortened` lets go of the
        // mapping first); the advisory lock on it is held by every process that keeps the rules. A foreign process that truncates the file
        // makes reads raise SIGBUS, which ends the process and does not corrupt it.
        //
        // (2) The mapping is read-only and never handed out as `&mut`. References come only from `View::slice`, which is private to the
        // crate, and whose callers must slice only ranges that nothing writes to while the slice lives; chunks are pinned for that purpose.
        // Another opener of the file would know nothing of pins, but there can be none while this is here, as it holds the lock. As with
        // every file mapping, a foreign process that writes to the file in spite of the lock is beyond what a program can exclude.
        let bytes = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Self { bytes, _lock: lock, released: AtomicBool::new(false) })
    }

    /// From now on this view is given to nobody else: otherwise a caller that reads again and again would keep the file forever.
    pub(in crate::disk) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// A range of the file, or nothing if it is not wholly inside.
    ///
    /// The caller knows that nothing writes to the range while the slice lives; see [`View`].
    pub fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

impl Map {
    pub(in crate::disk) fn new(view: &Arc<View>) -> Self {
        Self { view: Arc::downgrade(view), len: view.bytes.len() as u64 }
    }

    /// The size of the view: that of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the view has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The view, which keeps others from opening the file while it is held. `None` once the disk was released: then there are only copies
    /// to be had.
    pub(crate) fn hold(&self) -> Option<Arc<View>> {
        self.view.upgrade().filter(|view| !view.released.load(Ordering::Relaxed))
    }

    /// Says how a range is about to be read. What lies past the end is ignored.
    ///
    /// # Errors
    /// When the system does not take the advice; the range can be read nevertheless.
    pub fn advise(&self, offset: u64, len: usize, advice: Advice) -> io::Result<()> {
        let Some(view) = self.hold() else { return Ok(()) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(view.bytes.len());
        let len = len.min(view.bytes.len() - start);
        if len == 0 {
            return Ok(());
        }
        let advice = match advice {
            Advice::Normal => memmap2::Advice::Normal,
            Advice::Random => memmap2::Advice::Random,
            Advice::Sequential => memmap2::Advice::Sequential,
            Advice::WillNeed => memmap2::Advice::WillNeed,
        };
        view.bytes.advise_range(advice, start, len)
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mapped(bytes: &[u8]) -> Arc<View> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let file = Arc::new(OwnedFd::from(file));
        Arc::new(View::new(&file, bytes.len() as u64, Arc::new(Lock::take(Arc::clone(&file), false).unwrap())).unwrap())
    }

    #[test]
    fn slices_end_where_the_file_ends() {
        let map = mapped(&[7; 10_000]);
        assert_eq!(map.slice(0, 10_000).unwrap(), [7; 10_000]);
        assert_eq!(map.slice(9_999, 1).unwrap(), [7]);
        assert!(map.slice(10_000, 0).unwrap().is_empty());
        for (offset, len) in [(0, 10_001), (9_999, 2), (10_001, 0), (u64::MAX, 1), (1, usize::MAX)] {
            assert_eq!(map.slice(offset, len), None, "{offset}+{len}");
        }
    }

    #[test]
    fn advice_is_taken_for_any_range() {
        let view = mapped(&[7; 10_000]);
        let map = Map::new(&view);
        for advice in [Advice::Normal, Advice::Random, Advice::Sequential, Advice::WillNeed] {
            for (offset, len) in [(0, 10_000), (5_000, 100), (9_999, 1 << 20), (u64::MAX, 1)] {
                map.advise(offset, len, advice).unwrap();
            }
        }
        drop(view);
        assert!(map.hold().is_none());
        map.advise(0, 10_000, Advice::WillNeed).unwrap();
    }

    #[test]
    fn an_empty_file_has_an_empty_view() {
        let view = mapped(&[]);
        let map = Map::new(&view);
        assert!(map.is_empty());
        assert!(view.slice(0, 0).unwrap().is_empty());
        assert_eq!(view.slice(0, 1), None);
        map.advise(0, 10, Advice::WillNeed).unwrap();
    }
}
