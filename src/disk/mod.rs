//! The one door to the operating system.
//!
//! Everything the log knows about storage goes through the [`Disk`] trait: a byte range of a fixed
//! size that can be read anywhere, written in whole blocks, and made durable, either one range at
//! a time or all at once. Two things stand behind it:
//!
//! * [`FileDisk`], a preallocated file with the sync method that is fastest on its device;
//! * [`sim::SimDisk`], a disk in memory that knows exactly what a power cut may do to it, so that
//!   crash safety is proved by tests and not by hope.
//!
//! What the trait promises is deliberately little, because devices promise little: a durable write
//! covers **its own range and nothing else**. On a device with forced unit access such a write does
//! not flush the cache, so a plain write that completed before it may still be lost. Whoever needs
//! both durable makes both durable, or calls [`Disk::flush`] after them.
//!
//! A disk never changes its size. A file that cannot shrink cannot pull pages from under a
//! mapping, and a file that cannot grow needs no metadata commit on the way to an acknowledgement.

use std::{fmt, io, sync::Arc};

mod aligned;
mod bounds;
mod create;
mod cut;
mod error;
mod file;
mod handle;
mod info;
mod lock;
#[allow(unsafe_code)]
mod map;
mod opener;
mod probe;
mod rings;
#[doc(hidden)]
pub mod sim;
mod spare;
mod temporary;
#[cfg(test)]
mod tests;

pub use self::{
    aligned::AlignedBuf,
    error::OpenError,
    file::{FileDisk, OpenMode},
    info::{DiskInfo, ProbeMicros, SyncMethod},
    map::{Advice, Map},
};
pub(crate) use self::{cut::CutDisk, map::View, opener::Opener};

/// The unit of every write: offset, length, and the address of the buffer are multiples of it.
///
/// 4096 is what direct I/O needs on the devices we know, the page size under the mapping, and the
/// physical block below which a device would have to read, modify and write.
pub const BLOCK: usize = 4096;

/// Writers that make something durable while frames are being written. Each does one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writer {
    /// The cleaner, which writes pieces.
    Pieces,
    /// The writer of the superblocks, and of what they name.
    Superblocks,
}

/// A fixed number of bytes that survive: what the log is written to.
///
/// Every method may be called from any number of threads at once. The disk orders nothing: two
/// writes to the same range at the same time leave either, or a mixture. A panic in a write or a flush counts as its failure:
/// the log is poisoned.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The size in bytes. It never changes.
    fn len(&self) -> u64;

    /// How many of these bytes exist: fewer only if a log is salvaged whose file was cut. The missing ones read as zeros.
    fn held(&self) -> u64 {
        self.len()
    }

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset`, which may have any alignment.
    ///
    /// # Errors
    /// `UnexpectedEof` when the range reaches past the end; otherwise what the device says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// How many reads or writes the disk does at once for one caller of [`Disk::read_many`] or [`Disk::write_many`]. If it is 1,
    /// several threads get more out of the disk.
    fn at_once(&self) -> usize {
        1
    }

    /// Fills all of these as [`Disk::read_at`] does, in any order, and at once as far as the system can.
    ///
    /// # Errors
    /// As [`Disk::read_at`]; then any of the buffers may hold anything.
    fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        reads.iter_mut().try_for_each(|(offset, buf)| self.read_at(*offset, buf))
    }

    /// A hint that the range will be read soon; nothing depends on it.
    fn prefetch(&self, _offset: u64, _len: u64) {}

    /// Writes all of `buf`: visible to readers on return, **not** durable.
    ///
    /// # Errors
    /// `InvalidInput` when offset, length or buffer is not aligned to [`BLOCK`], or the range
    /// reaches past the end. After any other error the range may hold anything.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Writes all of these as [`Disk::write_at`] does, in any order, and at once as far as the system can.
    ///
    /// # Errors
    /// As [`Disk::write_at`]; then any of the ranges may hold anything.
    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        writes.iter().try_for_each(|&(offset, buf)| self.write_at(offset, buf))
    }

    /// Writes all of `buf`: durable on return, this range only and no other.
    ///
    /// # Errors
    /// As [`Disk::write_at`]. After a failed durable write nothing may be acknowledged that relies
    /// on it, and trying again proves nothing: the system may have forgotten what failed.
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Makes every write durable that had returned before this was called.
    ///
    /// # Errors
    /// What the device says. A flush that failed is final: a later one that succeeds does not
    /// cover what this one lost.
    fn flush(&self) -> io::Result<()>;

    /// Like [`Disk::flush`], for a writer other than that of frames. If writes go through a cache, the system may report a failed one
    /// only to the first caller that asks. So each writer asks for itself, and none is told that all is well because another got the error.
    ///
    /// # Errors
    /// As [`Disk::flush`].
    fn flush_of(&self, writer: Writer) -> io::Result<()> {
        let _ = writer;
        self.flush()
    }

    /// Like [`Disk::write_durable_at`], for a writer other than that of frames: see [`Disk::flush_of`].
    ///
    /// # Errors
    /// As [`Disk::write_durable_at`].
    fn write_durable_of(&self, writer: Writer, offset: u64, buf: &[u8]) -> io::Result<()> {
        let _ = writer;
        self.write_durable_at(offset, buf)
    }

    /// Checks that the disk still has its size: a file can be cut behind our back. Costs one system call.
    ///
    /// # Errors
    /// `UnexpectedEof` when it is shorter; otherwise what the device says.
    fn check_size(&self) -> io::Result<()> {
        Ok(())
    }

    /// Checks that the next opener will still find the disk: a file can be removed behind our back, and then vanishes with the last process that
    /// has it open. Costs one system call. A file with a second name (a hard link, as some backups make them) still has that name: it is not
    /// noticed when the first is removed, or given to another file.
    ///
    /// # Errors
    /// `NotFound`, with what to do, if it had a name when it was opened and has none now; otherwise what the device says.
    fn check_name(&self) -> io::Result<()> {
        Ok(())
    }

    /// A read-only view of the whole disk, if it has one.
    fn map(&self) -> Option<Arc<Map>>;

    /// How writes are made durable, and why that way.
    fn info(&self) -> DiskInfo;

    /// Gives up the lock, so that somebody else can open the disk; later writes fail.
    ///
    /// Reads go on working. Releasing twice does nothing more. It does not wait for writes of
    /// other threads: the caller has ended them.
    fn release(&self);
}
