//! A preallocated file as a disk.

use super::{
    Disk, DiskInfo, Map, OpenError, ProbeMicros, SyncMethod, View, Writer,
    bounds::{check_read, check_write, not_writable},
    create::{check_limit, reserve, sync},
    handle::{Handles, failed},
    probe,
};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Only read: shares the file with others that only read, and writes nothing, not even a probe.
    pub read_only: bool,
    /// How to make writes durable.
    pub sync: SyncMethod,
    /// Whether to map the file, for reads without a copy.
    pub mapped: bool,
    /// Makes one read or write after the other, even where `io_uring` would take several at once.
    pub without_io_uring: bool,
}

/// A file whose size never changes, locked for as long as it is open.
///
/// All its writes go one way, either past the page cache or through it: mixing the two under a
/// mapping is where coherence dies. Reads and the mapping always go through the page cache, which the
/// system keeps coherent with direct writes once they have returned.
pub struct FileDisk {
    pub(super) path: PathBuf,
    pub(super) handles: Handles,
    len: u64,
    info: DiskInfo,
    map: Option<Arc<Map>>,
    /// What is mapped, until the disk is released.
    view: Mutex<Option<Arc<View>>>,
    writable: AtomicBool,
}

impl FileDisk {
    /// Opens and locks an existing file, and measures how its writes become durable fastest.
    ///
    /// Measuring writes to the file. So `look` is shown the file first, locked and read-only, and says whether it is one of the caller's:
    /// the owner of somebody else's file may be writing to it at this very moment, and the bytes that the probe writes back would replace
    /// newer ones. `look` is not called where the file is opened read-only.
    ///
    /// The caller checks that the file is as long as its own header says before it relies on the
    /// mapping: a page past the end of the file is a signal, not an error.
    ///
    /// # Errors
    /// [`OpenError::Locked`] at once when anybody else has the file open, except that those that
    /// only read share it; [`OpenError::Unsupported`] when the sync method asked for does not work
    /// there (with [`SyncMethod::Auto`] another is taken); what `look` says, in an [`OpenError::Io`]; otherwise what the system says.
    pub fn open(
        path: impl AsRef<Path>,
        mode: OpenMode,
        look: impl FnOnce(&dyn Disk) -> io::Result<()>,
    ) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let access = if mode.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // So as not to wait for the other end, should the path be that of a pipe.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = retry_on_intr(|| fs::open(path, flags, Mode::empty()))
            .map_err(|errno| failed("opening", path)(errno.into()))?;
        let stat = fs::fstat(&file).map_err(|errno| failed("examining", path)(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenError::NotAFile { path: path.into() });
        }
        let mut handles = Handles::lock(file, path, mode.read_only)?;
        // Again, now that nobody else can make it longer.
        let stat = fs::fstat(handles.buffered()).map_err(|errno| failed("examining", path)(errno.into()))?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        if !mode.read_only {
            let seen = Self::unwritten(path, handles, len);
            look(&seen).map_err(failed("opening", path))?;
            handles = seen.handles;
            check_limit(len).map_err(failed("opening", path))?;
            handles.open_again(CWD, path).map_err(failed("opening", path))?;
            sync_name(path)?;
        }
        // Also where it is opened read-only: whoever inspects a copy should know of its holes before it is used.
        let hole_bytes = handles.hole_bytes(len).map_err(failed("examining", path))?;
        let mut disk = Self::assemble(path, handles, len, mode).map_err(|error| for_holes(error, hole_bytes))?;
        disk.info.hole_bytes = hole_bytes;
        if hole_bytes > 0 {
            let path = path.display();
            tracing::warn!(
                target: "strandlog", %path, len, hole_bytes,
                "the file has holes, which take space on the device when they are written: where that is full, commits fail. Close the log \
                 and copy it with `cp --sparse=never`"
            );
        }
        Ok(disk)
    }

    /// The file as a read-only disk, before it is known whose it is.
    pub(super) fn unwritten(path: &Path, handles: Handles, len: u64) -> Self {
        let info = DiskInfo { read_only: true, ..DiskInfo::unprobed(SyncMethod::Auto) };
        let writable = AtomicBool::new(false);
        Self { path: path.into(), handles, len, info, map: None, view: Mutex::new(None), writable }
    }

    /// Makes a disk of a locked file.
    pub(super) fn assemble(path: &Path, mut handles: Handles, len: u64, mode: OpenMode) -> Result<Self, OpenError> {
        let (method, probe) = match mode.read_only {
            true => (mode.sync, ProbeMicros::default()),
            false => probe::choose(&handles, len, mode.sync)
                .map_err(failed("probing", path))?
                .ok_or_else(|| OpenError::Unsupported { path: path.into(), method: mode.sync })?,
        };
        let direct = !mode.read_only && method == SyncMethod::DirectDsync;
        if direct {
            handles.close_apart();
        } else {
            handles.close_direct();
        }
        let io_uring = handles.begin_rings(!mode.without_io_uring);
        if !mode.read_only {
            handles.forget_cached().map_err(failed("syncing before reading", path))?;
        }
        let view = match mode.mapped {
            true => {
                let view = handles.view(len);
                Some(Arc::new(view.map_err(|source| OpenError::Mapping { path: path.into(), source })?))
            }
            false => None,
        };
        let map = view.as_ref().map(|view| Arc::new(Map::new(view)));
        let info = DiskInfo { method, direct, io_uring, read_only: mode.read_only, hole_bytes: 0, probe };
        tracing::debug!(target: "strandlog", path = %path.display(), len, %info, "opened");
        let writable = AtomicBool::new(!mode.read_only);
        Ok(Self { path: path.into(), handles, len, info, map, view: Mutex::new(view), writable })
    }

    /// The same file, longer: beyond its old end it reads as zeros, and must be written before it is relied upon. Not mapped.
    ///
    /// # Errors
    /// `StorageFull` when there is no space, and what the system says; the file is then as long as it was.
    pub(crate) fn extended(mut self, len: u64) -> Result<Self, OpenError> {
        if self.info.read_only || len < self.len || !len.is_multiple_of(super::BLOCK as u64) {
            return Err(failed("extending", &self.path)(io::ErrorKind::InvalidInput.into()));
        }
        let file = self.handles.buffered();
        let longer = check_limit(len)
            .and_then(|()| reserve(file, self.len, len))
            // Where the system cannot reserve space, the file is not longer yet.
            .and_then(|()| Ok(retry_on_intr(|| fs::ftruncate(file, len))?))
            .and_then(|()| sync(file));
        if let Err(error) = longer {
            // Half an extension is no use. If this fails as well, it lies behind the end of the log.
            let _ = retry_on_intr(|| fs::ftruncate(file, self.len));
            return Err(failed("extending", &self.path)(error));
        }
        (self.map, self.view) = (None, Mutex::new(None));
        self.len = len;
        Ok(self)
    }

    /// The same file, shorter: what lay behind belongs to nobody. Not mapped.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn shortened(mut self, len: u64) -> Result<Self, OpenError> {
        if self.info.read_only || len > self.len || !len.is_multiple_of(super::BLOCK as u64) {
            return Err(failed("shortening", &self.path)(io::ErrorKind::InvalidInput.into()));
        }
        // Nothing may stay mapped that the file no longer has.
        (self.map, self.view) = (None, Mutex::new(None));
        let file = self.handles.buffered();
        let shorter = retry_on_intr(|| fs::ftruncate(file, len)).map_err(io::Error::from).and_then(|()| sync(file));
        shorter.map_err(failed("shortening", &self.path))?;
        self.len = len;
        Ok(self)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_writable(&self) -> io::Result<()> {
        // Relaxed: the caller of `release` has ended all writers, which orders more than this could.
        if !self.writable.load(Ordering::Relaxed) {
            return Err(not_writable());
        }
        self.handles.check_opener()
    }

    fn check_write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        check_write(self.len, offset, buf)
    }
}

/// Makes the file's name durable: its creator may have been killed before that, and what is acknowledged from now on would be lost with the
/// name.
fn sync_name(path: &Path) -> Result<(), OpenError> {
    let fail = |errno: Errno| failed("syncing the directory of", path)(errno.into());
    match open_directory(path) {
        Ok(dir) => sync(&dir).map_err(failed("syncing the directory of", path)),
        Err(Errno::ACCESS) => {
            let path = path.display();
            tracing::warn!(target: "strandlog", %path, "the directory may not be read: the file's name is not made durable");
            Ok(())
        }
        Err(errno) => Err(fail(errno)),
    }
}

/// The directory that holds the file's name. The path is resolved only if the name itself is a symbolic link: above it there may be
/// directories that may not be entered, and a relative path need not pass them.
fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let real = match fs::readlink(path, Vec::new()) {
        Ok(_) => path.canonicalize().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?,
        Err(_) => path.into(),
    };
    let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    retry_on_intr(|| fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_read(self.len, offset, buf.len())?;
        self.handles.read(offset, buf)
    }

    fn at_once(&self) -> usize {
        self.handles.at_once()
    }

    fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        reads.iter().try_for_each(|(offset, buf)| check_read(self.len, *offset, buf.len()))?;
        self.handles.read_many(reads)
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.handles.prefetch(offset, len);
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, buf)?;
        self.handles.write(offset, buf)
    }

    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        self.check_writable()?;
        writes.iter().try_for_each(|&(offset, buf)| check_write(self.len, offset, buf))?;
        self.handles.write_many(writes)
    }

    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, buf)?;
        self.handles.write_durable(self.info.method, None, offset, buf)
    }

    fn write_durable_of(&self, writer: Writer, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, buf)?;
        self.handles.write_durable(self.info.method, Some(writer), offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.check_writable()?;
        self.handles.flush()
    }

    fn flush_of(&self, writer: Writer) -> io::Result<()> {
        self.check_writable()?;
        self.handles.flush_of(Some(writer))
    }

    fn check_size(&self) -> io::Result<()> {
        self.handles.check_size(self.len)
    }

    fn check_name(&self) -> io::Result<()> {
        self.handles.check_name()
    }

    fn map(&self) -> Option<Arc<Map>> {
        self.map.clone()
    }

    fn info(&self) -> DiskInfo {
        self.info
    }

    fn release(&self) {
        self.writable.store(false, Ordering::Relaxed);
        if let Some(view) = self.view.lock().take() {
            view.release();
        }
        self.handles.unlock();
    }
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDisk")
            .field("path", &self.path)
            .field("len", &self.len)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Adds to "no space" why space is needed at all, as a log never takes any anew.
pub(super) fn for_holes(error: OpenError, hole_bytes: u64) -> OpenError {
    match error {
        OpenError::Io { context, path, source } if source.kind() == io::ErrorKind::StorageFull => {
            let what = match hole_bytes {
                0 => format!(
                    "{source}; what is written there again takes space anew, as on btrfs and ZFS, and where a snapshot or a copy shares the blocks: \
                     make room"
                ),
                _ => format!(
                    "{source}; {hole_bytes} bytes of the file are holes, which take space when they are written: make a copy with \
                     `cp --sparse=never` where there is room for all of it"
                ),
            };
            OpenError::Io { context, path, source: io::Error::new(io::ErrorKind::StorageFull, what) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::AtFlags;

    /// A path so deep that nobody can say where it is from the root on. It stands for one below a directory that may not be entered, which
    /// would not keep root out.
    #[test]
    fn a_file_is_opened_by_a_path_that_does_not_pass_the_root() {
        let top = tempfile::tempdir().unwrap();
        let name = "d".repeat(250);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut dir = fs::open(top.path(), flags, Mode::empty()).unwrap();
        for _ in 0..20 {
            fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o700)).unwrap();
            dir = fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}/wal", std::os::fd::AsRawFd::as_raw_fd(&dir)));
        let create = |path: &Path| FileDisk::create(path, 1 << 20, OpenMode::default(), &mut |_, _| {}, |_| Ok(()));
        drop(create(&path).unwrap());
        assert!(path.canonicalize().is_err(), "it can be said where it is");
        drop(FileDisk::open(&path, OpenMode::default(), |_| Ok(())).unwrap());
        fs::unlinkat(&dir, "wal", AtFlags::empty()).unwrap();
    }

    /// Otherwise the directory of the link would be synced, not that of the name.
    #[test]
    fn the_directory_of_a_file_is_where_a_link_leads() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir(path("of the log")).unwrap();
        std::fs::write(path("of the log/wal"), "").unwrap();
        std::os::unix::fs::symlink("of the log/wal", path("link")).unwrap();
        let of = |dir: &OwnedFd| fs::fstat(dir).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
        let expected = of(&fs::open(path("of the log"), OFlags::RDONLY, Mode::empty()).unwrap());
        for name in ["link", "of the log/wal"] {
            assert_eq!(of(&open_directory(&path(name)).unwrap()), expected, "{name}");
        }
    }
}
