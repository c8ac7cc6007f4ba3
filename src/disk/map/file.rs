//! The read-only view of a file in memory.

use memmap2::{Mmap, MmapOptions};
use std::{fmt, io, os::fd::OwnedFd};

/// How a range of a mapping is about to be read, for the system's read-ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// No particular order: the system decides.
    Normal,
    /// Here and there: reading ahead would be wasted.
    Random,
    /// From front to back: read ahead far, and drop behind.
    Sequential,
    /// Soon: start reading now.
    WillNeed,
}

/// A read-only view of a whole file.
///
/// Bytes come without a system call and without a copy. In exchange, a device that cannot read a page
/// raises a signal (`SIGBUS`) and not an error; who cannot live with that reads copies instead.
///
/// A slice promises that its bytes do not change while it lives, and the mapping alone cannot keep that
/// promise: whoever takes a slice must know that nobody writes to its range. The log takes slices only
/// of chunks that are completely written, and keeps them from reuse for as long as a slice lives;
/// what may be written meanwhile (the journal) it reads with [`Disk::read_at`](crate::disk::Disk::read_at).
pub struct Map {
    bytes: Mmap,
}

impl Map {
    /// Maps the first `len` bytes of a file that has at least so many.
    pub(in crate::disk) fn new(file: &OwnedFd, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the file exceeds the address space"))?;
        // SAFETY: a file mapping is sound while (1) its pages exist and (2) no byte changes under a
        // live reference.
        //
        // (1) `len` is the size the file has, and it never shrinks: no code here changes the size of
        // a file that has been opened, and the advisory lock on it is held by every process
        // that keeps the rules. A foreign process that truncates the file makes reads raise SIGBUS,
        // which ends the process and does not corrupt it.
        //
        // (2) The mapping is read-only and never handed out as `&mut`. References come only from
        // `Map::slice`, and the documented duty of its callers is to slice only ranges that
        // nothing writes to while the slice lives; in this crate chunks are pinned for that
        // purpose. As with every file mapping, a foreign process that writes to the file in
        // spite of the lock is beyond what a program can exclude.
        let bytes = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Self { bytes })
    }

    /// The size of the view: that of the file.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether the view has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A range of the file, or nothing if it is not wholly inside.
    ///
    /// The caller knows that nothing writes to the range while the slice lives; see [`Map`].
    pub fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }

    /// Says how a range is about to be read. What lies past the end is ignored.
    ///
    /// # Errors
    /// When the system does not take the advice; the range can be read nevertheless.
    pub fn advise(&self, offset: u64, len: usize, advice: Advice) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let len = len.min(self.bytes.len() - start);
        if len == 0 {
            return Ok(());
        }
        let advice = match advice {
            Advice::Normal => memmap2::Advice::Normal,
            Advice::Random => memmap2::Advice::Random,
            Advice::Sequential => memmap2::Advice::Sequential,
            Advice::WillNeed => memmap2::Advice::WillNeed,
        };
        self.bytes.advise_range(advice, start, len)
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

    fn mapped(bytes: &[u8]) -> Map {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Map::new(&file.into(), bytes.len() as u64).unwrap()
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
        let map = mapped(&[7; 10_000]);
        for advice in [Advice::Normal, Advice::Random, Advice::Sequential, Advice::WillNeed] {
            for (offset, len) in [(0, 10_000), (5_000, 100), (9_999, 1 << 20), (u64::MAX, 1)] {
                map.advise(offset, len, advice).unwrap();
            }
        }
    }

    #[test]
    fn an_empty_file_has_an_empty_view() {
        let map = mapped(&[]);
        assert!(map.is_empty());
        assert!(map.slice(0, 0).unwrap().is_empty());
        assert_eq!(map.slice(0, 1), None);
        map.advise(0, 10, Advice::WillNeed).unwrap();
    }
}
