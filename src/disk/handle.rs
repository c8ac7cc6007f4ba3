//! The open file: its lock, its descriptors, and the system calls made on them.

use super::lock::Lock;
use super::map::{DEPTH, Outcomes, View};
use super::rings::Rings;
use super::{AlignedBuf, BLOCK, OpenError, Opener, SyncMethod, Writer, error::unsupported, temporary::Temporary};
use parking_lot::Mutex;
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{self, Mode, OFlags},
    io::{Errno, ReadWriteFlags, pread, pwritev2, retry_on_intr},
};
use std::{
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

/// Writers that sync by themselves, apart from the writer of frames.
const WRITERS: usize = 2;

/// The descriptors of one locked file.
pub(super) struct Handles {
    /// The process that may write.
    opener: Opener,
    /// The name to remove when these are dropped, while a file is being created.
    pub(super) temporary: Option<Temporary>,
    /// Whether the file had a name when it was locked. If it had none, nobody could find it anyway, and some file systems do not count
    /// names.
    named: bool,
    /// `None` once it is given up.
    lock: Mutex<Option<Arc<Lock>>>,
    /// For the mapping, the lock, and reads of any alignment; for the writes, too, unless they are direct.
    buffered: Arc<OwnedFd>,
    /// For all writes, if they bypass the page cache, and for reads of whole blocks.
    direct: Option<OwnedFd>,
    /// For the syncs of each [`Writer`] other than the writer of frames, if writes go through the page cache: the system reports a failed
    /// write there to the first that asks, once for each open file.
    apart: Option<[OwnedFd; WRITERS]>,
    /// For several reads or writes at once.
    rings: Rings,
}

impl Handles {
    /// Locks the file: for this process alone, or shared with others that only read.
    pub(super) fn lock(file: OwnedFd, path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let buffered = Arc::new(file);
        let lock = match Lock::take(Arc::clone(&buffered), read_only) {
            Ok(lock) => Mutex::new(Some(Arc::new(lock))),
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: path.into() }),
            Err(errno) => return Err(failed("locking", path)(not_locked(errno))),
        };
        // The log says how much it reads, and asks for more with `prefetch`. What the system reads ahead by itself may be megabytes, for
        // which commits would wait. Only a hint: a refusal does not matter.
        let _ = fs::fadvise(&buffered, 0, None, fs::Advice::Random);
        let named = names(&buffered).map_err(failed("examining", path))? > 0;
        let opener = Opener::this_process();
        Ok(Self { opener, temporary: None, named, lock, buffered, direct: None, apart: None, rings: Rings::default() })
    }

    /// Opens the file once more for direct I/O, if that is supported; and once for each writer that syncs by itself.
    pub(super) fn open_again(&mut self, dir: impl AsFd, name: &Path) -> io::Result<()> {
        let open = |how| -> io::Result<OwnedFd> {
            let flags = how | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let again = retry_on_intr(|| fs::openat(&dir, name, flags, Mode::empty()))?;
            // The name may lead to another file by now; the lock is on the first.
            if !same_file(&self.buffered, &again)? {
                return Err(io::Error::other("the file was replaced while it was being opened"));
            }
            Ok(again)
        };
        self.apart = Some([open(OFlags::empty())?, open(OFlags::empty())?]);
        let direct = match open(OFlags::DIRECT) {
            Ok(direct) => direct,
            Err(error) if unsupported(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        // It is a file, not a pipe, and nobody waits for it; but io_uring takes the flag as a wish not to wait for the device either.
        fs::fcntl_setfl(&direct, fs::fcntl_getfl(&direct)? - OFlags::NONBLOCK)?;
        self.direct = Some(direct);
        Ok(())
    }

    /// Sees whether several reads or writes can be done at once, if that is `wanted`. Otherwise they are done one after the other.
    pub(super) fn begin_rings(&self, wanted: bool) -> bool {
        if !wanted || self.direct.is_none() {
            self.rings.forgo();
        } else if let Some(ring) = self.rings.take() {
            self.rings.give_back(ring);
        } else {
            // For whatever reason: what replaces the rings is kept for as long as the file is open.
            self.rings.forgo();
        }
        self.at_once() > 1
    }

    pub(super) fn close_direct(&mut self) {
        self.direct = None;
    }

    /// Direct writes report their own errors: no descriptors apart are needed.
    pub(super) fn close_apart(&mut self) {
        self.apart = None;
    }

    pub(super) fn buffered(&self) -> &OwnedFd {
        &self.buffered
    }

    pub(super) fn has_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The descriptor that takes writes.
    fn writer(&self) -> &OwnedFd {
        self.direct.as_ref().unwrap_or(&self.buffered)
    }

    /// Starts reading the range into the page cache without waiting for it.
    pub(super) fn prefetch(&self, offset: u64, len: u64) {
        // Only a hint: a refusal does not matter.
        let _ = fs::fadvise(&self.buffered, offset, std::num::NonZeroU64::new(len), fs::Advice::WillNeed);
    }

    /// Fills `buf`: whole blocks from the device, if writes go there, and everything else through the page cache, which stays coherent even
    /// if all writes bypass it.
    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let whole_blocks = is_aligned(offset, buf.len()) && buf.as_ptr().addr().is_multiple_of(BLOCK);
            let file = self.direct.as_ref().filter(|_| whole_blocks).unwrap_or(&self.buffered);
            let count = match retry_on_intr(|| pread(file, &mut *buf, offset)) {
                // Some file systems open a file for direct I/O, but want more than our whole blocks.
                Err(errno) if whole_blocks && unsupported(&errno.into()) => {
                    retry_on_intr(|| pread(&self.buffered, &mut *buf, offset))?
                }
                read => read?,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += count as u64;
            buf = &mut buf[count..];
        }
        Ok(())
    }

    /// How many reads or writes the device gets at once, as far as is known.
    pub(super) fn at_once(&self) -> usize {
        if self.direct.is_some() && self.rings.are_there() { DEPTH } else { 1 }
    }

    /// Fills all of these, in any order: several at once, if they are whole blocks and the system can.
    pub(super) fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        for some in reads.chunks_mut(DEPTH) {
            let whole_blocks =
                some.iter().all(|(at, buf)| is_aligned(*at, buf.len()) && buf.as_ptr().addr().is_multiple_of(BLOCK));
            let outcomes = match &self.direct {
                // A forked child must not use the queues.
                Some(file) if whole_blocks && some.len() > 1 && self.opener.is_here() => {
                    self.rings.with(|ring| ring.read(file, some))
                }
                _ => None,
            };
            self.finish_reads(some, outcomes.as_ref())?;
        }
        Ok(())
    }

    /// Reads what is still missing, unless the reason is one to give up for.
    pub(super) fn finish_reads(&self, reads: &mut [(u64, &mut [u8])], outcomes: Option<&Outcomes>) -> io::Result<()> {
        for (i, (offset, buf)) in reads.iter_mut().enumerate() {
            let done = self.rings.done(outcomes, i)?.min(buf.len());
            self.read(*offset + done as u64, &mut buf[done..])?;
        }
        Ok(())
    }

    /// Whether the file is still as long as it was.
    pub(super) fn check_size(&self, len: u64) -> io::Result<()> {
        let now = u64::try_from(fs::fstat(&self.buffered)?.st_size).unwrap_or(0);
        if now >= len {
            return Ok(());
        }
        let what = format!(
            "the file was cut to {now} of {len} bytes while it was in use: salvage what is left of it (`strandlog salvage`)"
        );
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
    }

    /// About how many bytes of the file are not allocated on the device yet; 0 if nearly none.
    pub(super) fn hole_bytes(&self, len: u64) -> io::Result<u64> {
        let held = u64::try_from(fs::fstat(&self.buffered)?.st_blocks).unwrap_or(0).saturating_mul(512);
        let lacks = len.saturating_sub(held);
        if lacks <= len / 64 {
            return Ok(0);
        }
        // Fewer blocks but no hole: the file system compresses.
        let whole = fs::seek(&self.buffered, fs::SeekFrom::Hole(0)).is_ok_and(|at| at >= len);
        Ok(if whole { 0 } else { lacks })
    }

    /// Whether the file still has a name, if it had one.
    pub(super) fn check_name(&self) -> io::Result<()> {
        if !self.named || names(&self.buffered)? > 0 {
            return Ok(());
        }
        let (process, file) = (std::process::id(), self.buffered.as_raw_fd());
        let what = format!(
            "the file was removed while it was in use, or another was put in its place: it has no name any more. What is acknowledged is lost \
             when this process ends or lets go of the log, unless it is copied before: cp /proc/{process}/fd/{file} NEW"
        );
        Err(io::Error::new(io::ErrorKind::NotFound, what))
    }

    /// Writes whole blocks, without making them durable.
    pub(super) fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        write_all(self.writer(), offset, buf, ReadWriteFlags::empty())
    }

    /// Writes whole blocks, in any order: several at once, if the system can. Not durable.
    pub(super) fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        for some in writes.chunks(DEPTH) {
            let outcomes = match &self.direct {
                Some(file) if some.len() > 1 => self.rings.with(|ring| ring.write(file, some)),
                _ => None,
            };
            self.finish_writes(some, outcomes.as_ref())?;
        }
        Ok(())
    }

    /// Writes what is still missing, unless the reason is one to give up for.
    pub(super) fn finish_writes(&self, writes: &[(u64, &[u8])], outcomes: Option<&Outcomes>) -> io::Result<()> {
        for (i, (offset, buf)) in writes.iter().enumerate() {
            // A block that was written in part is written again as a whole.
            let done = self.rings.done(outcomes, i)?.min(buf.len()) / BLOCK * BLOCK;
            self.write(*offset + done as u64, &buf[done..])?;
        }
        Ok(())
    }

    /// The open file by which a writer syncs: that of frames (`None`), or another.
    fn syncs(&self, writer: Option<Writer>) -> &OwnedFd {
        let apart = match (writer, &self.apart) {
            (Some(Writer::Pieces), Some([pieces, _])) => Some(pieces),
            (Some(Writer::Superblocks), Some([_, superblocks])) => Some(superblocks),
            _ => None,
        };
        apart.unwrap_or(&self.buffered)
    }

    /// Writes whole blocks, and makes them durable.
    pub(super) fn write_durable(
        &self,
        method: SyncMethod,
        writer: Option<Writer>,
        offset: u64,
        buf: &[u8],
    ) -> io::Result<()> {
        let cached = self.syncs(writer);
        match (method, &self.direct) {
            // The flag does for one write what O_DSYNC on the descriptor does for all of them, so one descriptor serves both kinds. (What
            // rustix calls DSYNC is the constant of O_SYNC, which asks for the time stamps of the file as well.)
            (SyncMethod::DirectDsync, Some(direct)) => write_all(direct, offset, buf, ReadWriteFlags::DSYNC),
            (SyncMethod::RwfDsync, _) => write_all(cached, offset, buf, ReadWriteFlags::DSYNC),
            (SyncMethod::Fdatasync, _) => {
                write_all(cached, offset, buf, ReadWriteFlags::empty())?;
                fdatasync(cached)
            }
            (SyncMethod::DirectDsync | SyncMethod::Auto, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes all writes durable, whichever descriptor they went through.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flush_of(None)
    }

    /// The same, for a writer that must be told of every error, whoever else was told of it.
    pub(super) fn flush_of(&self, writer: Option<Writer>) -> io::Result<()> {
        fdatasync(self.syncs(writer))
    }

    /// Makes the system forget what it caches of the file, so that the next reads ask the device.
    ///
    /// After a failed sync the pages stay in the cache, marked clean: read again they look as if they had been written, and no later sync
    /// writes them. (PostgreSQL met this in 2018.) A process that opens a file cannot know what happened to it before.
    pub(super) fn forget_cached(&self) -> io::Result<()> {
        // Only clean pages can be forgotten.
        self.flush()?;
        Ok(fs::fadvise(&self.buffered, 0, None, fs::Advice::DontNeed)?)
    }

    /// Maps the file; the view shares the lock.
    pub(super) fn view(&self, len: u64) -> io::Result<View> {
        let lock = self.lock.lock().clone().ok_or(io::ErrorKind::PermissionDenied)?;
        View::new(&self.buffered, len, lock)
    }

    /// Whether this is the process that opened the file, and not one that was forked from it.
    pub(super) fn check_opener(&self) -> io::Result<()> {
        self.opener.check()
    }

    /// As in a child that was forked from the process that opened the file.
    #[cfg(test)]
    pub(super) fn leave_to_the_parent(&mut self) {
        self.opener = Opener::parent();
        self.lock.get_mut().iter_mut().filter_map(Arc::get_mut).for_each(Lock::leave_to_the_parent);
    }

    /// Gives up this share of the lock.
    pub(super) fn unlock(&self) {
        drop(self.lock.lock().take());
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        if !self.opener.is_here() {
            // The name and the queues are its parent's; where the queues were mapped, something else of the child's may lie.
            self.temporary.take().into_iter().for_each(Temporary::keep);
            self.rings.leave();
        }
        // While the lock is still held: otherwise the next creator's file would be removed instead of ours.
        self.temporary = None;
        self.unlock();
    }
}

/// Some file systems, such as network ones, do not lock files.
fn not_locked(errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    if errno != Errno::NOLCK && !unsupported(&error) {
        return error;
    }
    let what = format!(
        "{error}: its file system locks no files (flock), and two processes might write to it: keep it on one that does"
    );
    io::Error::new(error.kind(), what)
}

/// Zeros `len` bytes from the start of the file by writing them.
///
/// Space that is only allocated makes every first write cost two to seven times as much: the device is told of the write, and then the file
/// system commits that the extent is no longer unwritten.
pub(super) fn write_zeros(handles: &mut Handles, len: u64, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    const STEP: usize = 256 * BLOCK;
    let mut zeros = AlignedBuf::with_capacity(STEP);
    zeros.resize(STEP);
    let mut done = 0;
    while done < len {
        let step = &zeros[..STEP.min(usize::try_from(len - done).unwrap_or(STEP))];
        match handles.write(done, step) {
            Ok(()) => done += step.len() as u64,
            // Some file systems open a file for direct I/O, and refuse the first write.
            Err(error) if handles.has_direct() && unsupported(&error) => handles.close_direct(),
            Err(error) => return Err(error),
        }
        progress(done, len);
    }
    Ok(())
}

fn is_aligned(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK)
}

/// How many names a file has. (The type of the field is not the same on all systems.)
#[allow(clippy::useless_conversion)]
fn names(file: impl AsFd) -> io::Result<u64> {
    Ok(fs::fstat(file)?.st_nlink.into())
}

/// Whether two descriptors refer to the same file.
pub(super) fn same_file(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    let (a, b) = (fs::fstat(a)?, fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Says where an I/O error occurred.
pub(super) fn failed(context: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { context, path: path.into(), source }
}

fn write_all(file: &OwnedFd, mut offset: u64, mut buf: &[u8], flags: ReadWriteFlags) -> io::Result<()> {
    while !buf.is_empty() {
        let count = retry_on_intr(|| pwritev2(file, &[IoSlice::new(buf)], offset, flags))?;
        // A block that was written in part is written again as a whole: direct I/O must start on a block.
        let count = if count < buf.len() { count / BLOCK * BLOCK } else { count };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "not even one block was written"));
        }
        offset += count as u64;
        buf = &buf[count..];
    }
    Ok(())
}

fn fdatasync(file: &OwnedFd) -> io::Result<()> {
    Ok(retry_on_intr(|| fs::fdatasync(file))?)
}
