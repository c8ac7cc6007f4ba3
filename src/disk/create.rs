//! A file comes into being whole or not at all.
//!
//! It is written under a temporary name beside its own, zeroed, formatted and synced, and only then
//! renamed, never over a file that is there. A process that fails removes the temporary file; one that
//! is killed leaves it, unlocked, and the next creation removes it, unless it is somebody's log.

use super::{
    BLOCK, Disk, FileDisk, OpenError, OpenMode,
    error::unsupported,
    handle::{Handles, failed, same_file, write_zeros},
    temporary::Temporary,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, AtFlags, CWD, FallocateFlags, Mode, OFlags, StatVfs},
    io::{Errno, retry_on_intr},
    process::{Resource, getrlimit},
};
use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

impl FileDisk {
    /// Creates a file of `len` zeros (a multiple of [`BLOCK`]), lets `init` write to it, makes it durable,
    /// gives it its name, and makes that durable too.
    ///
    /// The lock is held from the first byte on and goes over to the disk that is returned: nobody opens
    /// the file in between. `progress` hears how many bytes of how many are zeroed.
    ///
    /// # Errors
    /// [`OpenError::Exists`] when the name is taken, now or in the end; [`OpenError::Locked`] while another
    /// process creates the same file; `StorageFull` when there is no space; what `init` says.
    /// Whatever the error, no file is left behind.
    pub fn create(
        path: impl AsRef<Path>,
        len: u64,
        mode: OpenMode,
        progress: &mut dyn FnMut(u64, u64),
        init: impl FnOnce(&dyn Disk) -> io::Result<()>,
    ) -> Result<Self, OpenError> {
        Self::create_beside(path.as_ref(), len, mode, progress, init, &|_| false)
    }

    /// As [`FileDisk::create`]. If there is a file of the temporary name that nobody writes to, `somebodys` says whether it is somebody's
    /// own: then it is not removed, and the name counts as taken.
    pub(crate) fn create_beside(
        path: &Path,
        len: u64,
        mode: OpenMode,
        progress: &mut dyn FnMut(u64, u64),
        init: impl FnOnce(&dyn Disk) -> io::Result<()>,
        somebodys: &dyn Fn(&dyn Disk) -> bool,
    ) -> Result<Self, OpenError> {
        let fail = |context| failed(context, path);
        if !len.is_multiple_of(BLOCK as u64) || mode.read_only {
            return Err(fail("creating")(io::ErrorKind::InvalidInput.into()));
        }
        check_limit(len).map_err(fail("creating"))?;
        let place = Place::of(path)?;
        if place.is_taken().map_err(fail("examining"))? {
            return Err(OpenError::Exists { path: path.into() });
        }
        let mut handles = place.open_temporary(path, somebodys)?;
        reserve(handles.buffered(), 0, len).map_err(fail("reserving the space of"))?;
        handles.open_again(&place.dir, &place.temporary).map_err(fail("creating"))?;
        write_zeros(&mut handles, len, progress).map_err(fail("zeroing"))?;
        // Synced now, so that the probe does not measure the writing back of all the zeros.
        sync(handles.buffered()).map_err(fail("syncing"))?;
        let mut disk = Self::assemble(path, handles, len, mode)?;
        init(&disk).map_err(fail("initialising"))?;
        sync(disk.handles.buffered()).map_err(fail("syncing"))?;
        if let Some(temporary) = &mut disk.handles.temporary {
            temporary.publish(&place.name).map_err(|errno| Place::not_named(errno, path))?;
        }
        sync(&place.dir).map_err(fail("syncing the directory of"))?;
        if let Some(temporary) = disk.handles.temporary.take() {
            temporary.keep();
        }
        Ok(disk)
    }
}

/// Where a file is to be, and its name until it is there.
struct Place {
    dir: OwnedFd,
    name: PathBuf,
    temporary: PathBuf,
}

impl Place {
    fn of(path: &Path) -> Result<Self, OpenError> {
        // `name/` is a directory, or nothing: no file has that name, though its last part would do for one.
        let Some(name) = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes())) else {
            return Err(OpenError::NotAFile { path: path.into() });
        };
        let mut temporary = OsString::from(name);
        temporary.push(".creating");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| fs::openat(CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty()))
            .map_err(|errno| failed("opening the directory of", path)(errno.into()))?;
        Ok(Self { dir, name: name.into(), temporary: temporary.into() })
    }

    fn is_taken(&self) -> io::Result<bool> {
        match fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes and locks the temporary file.
    ///
    /// The name is always the same, so that what a killed process left is found and removed; the lock distinguishes that from the file of a
    /// process still at work.
    fn open_temporary(&self, path: &Path, somebodys: &dyn Fn(&dyn Disk) -> bool) -> Result<Handles, OpenError> {
        let locked = || OpenError::Locked { path: path.into() };
        if let Some(file) = self.open(OFlags::CREATE | OFlags::EXCL, path)? {
            return self.lock_made(file, path);
        }
        self.remove_stale(path, somebodys)?;
        // If it is there again, it belongs to a process that lives.
        let file = self.open(OFlags::CREATE | OFlags::EXCL, path)?.ok_or_else(locked)?;
        self.lock_made(file, path)
    }

    /// Locks the file that was just made. If nobody can lock it, it is removed.
    fn lock_made(&self, file: OwnedFd, path: &Path) -> Result<Handles, OpenError> {
        let locked = || OpenError::Locked { path: path.into() };
        let made = fs::fstat(&file).map_err(|errno| failed("creating", path)(errno.into()))?;
        let outcome = self.lock_temporary(file, path);
        // If another process takes it for stale and holds the lock, it removes it.
        if outcome.as_ref().is_err_and(|error| !matches!(error, OpenError::Locked { .. }))
            && fs::statat(&self.dir, &self.temporary, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|named| (named.st_dev, named.st_ino) == (made.st_dev, made.st_ino))
        {
            // There is an error on its way already.
            let _ = fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
        outcome?.ok_or_else(locked)
    }

    /// Removes what a dead process left, and never truncates it: where a name is given by linking, a
    /// process that died between the link and the removal left a second name of a finished file. One that
    /// has no other name, and is somebody's, stays.
    fn remove_stale(&self, path: &Path, somebodys: &dyn Fn(&dyn Disk) -> bool) -> Result<(), OpenError> {
        let fail = |error| failed("examining", path)(error);
        let Some(file) = self.open(OFlags::empty(), path)? else { return Ok(()) };
        let Some(handles) = self.lock_temporary(file, path)? else { return Ok(()) };
        let stat = fs::fstat(handles.buffered()).map_err(|errno| fail(errno.into()))?;
        let mut found = FileDisk::unwritten(path, handles, u64::try_from(stat.st_size).unwrap_or(0));
        if stat.st_nlink == 1 && somebodys(&found) {
            found.handles.temporary.take().into_iter().for_each(Temporary::keep);
            return Err(OpenError::Exists { path: path.with_file_name(&self.temporary) });
        }
        Ok(())
    }

    /// Opens the file of the temporary name. `None`: it is there and must not be, or it is not there.
    fn open(&self, how: OFlags, path: &Path) -> Result<Option<OwnedFd>, OpenError> {
        let flags = how | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match retry_on_intr(|| fs::openat(&self.dir, &self.temporary, flags, Mode::from_raw_mode(0o666))) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::EXIST) => Ok(None),
            // With `CREATE` it is the directory that takes no file, or is gone.
            Err(Errno::NOENT) if !how.contains(OFlags::CREATE) => Ok(None),
            // The name itself fits: it was looked for.
            Err(Errno::NAMETOOLONG) => {
                let why = "its name is too long: until it is whole the file has `.creating` behind it, 9 bytes";
                Err(failed("creating", path)(io::Error::new(io::ErrorKind::InvalidFilename, why)))
            }
            Err(errno) => Err(failed("creating", path)(errno.into())),
        }
    }

    /// Locks a file that had the temporary name. `None`: it lost the name before it was locked, to a process that finished it or took it
    /// for stale.
    fn lock_temporary(&self, file: OwnedFd, path: &Path) -> Result<Option<Handles>, OpenError> {
        let fail = |error| failed("creating", path)(error);
        let mut handles = Handles::lock(file, path, false)?;
        let Some(named) = self.open(OFlags::empty(), path)? else { return Ok(None) };
        if !same_file(handles.buffered(), named).map_err(fail)? {
            return Ok(None);
        }
        let dir = self.dir.try_clone().map_err(fail)?;
        handles.temporary = Some(Temporary::new(dir, self.temporary.clone()));
        Ok(Some(handles))
    }

    /// Why the file did not get its name.
    fn not_named(errno: Errno, path: &Path) -> OpenError {
        match errno {
            Errno::EXIST => OpenError::Exists { path: path.into() },
            errno => failed("naming", path)(errno.into()),
        }
    }
}

/// Fails early if there is no space for the bytes from `held` to `len`; otherwise asks for all of it at once.
pub(super) fn reserve(file: &OwnedFd, held: u64, len: u64) -> io::Result<()> {
    let space = fs::fstatvfs(file)?;
    let wanted = len.saturating_sub(held);
    if lacks(&space, wanted) {
        return Err(Errno::NOSPC.into());
    }
    match fs::fallocate(file, FallocateFlags::empty(), held, wanted) {
        // A file system without `fallocate` hands out the blocks as the zeros are written. So it is if the call was interrupted: it is not
        // repeated, because some file systems begin anew each time, and under a recurring timer would never end.
        Err(errno) if wanted == 0 || errno == Errno::INTR || unsupported(&errno.into()) => Ok(()),
        result => Ok(result?),
    }
}

/// Whether there is less space than `wanted`. Some file systems in memory have no limit, and report no blocks at all.
fn lacks(space: &StatVfs, wanted: u64) -> bool {
    space.f_blocks > 0 && wanted > space.f_bfree.saturating_mul(space.f_frsize)
}

/// A process that writes beyond its file size limit is killed by a signal: so nothing is begun.
pub(super) fn check_limit(len: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if most < len => {
            let what =
                format!("it has {len} bytes, and this process may write {most} of a file (RLIMIT_FSIZE, `ulimit -f`)");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
        }
        _ => Ok(()),
    }
}

/// Unlike `fdatasync`, this includes the size of the file and the entries of the directory.
pub(super) fn sync(file: impl AsFd) -> io::Result<()> {
    Ok(retry_on_intr(|| fs::fsync(&file))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_knows_no_end_has_room() {
        let mut space = fs::statvfs(".").unwrap();
        (space.f_blocks, space.f_bfree, space.f_frsize) = (10, 2, 4096);
        assert!(lacks(&space, 8193) && !lacks(&space, 8192));
        (space.f_blocks, space.f_bfree) = (0, 0);
        assert!(!lacks(&space, 8193));
    }

    #[test]
    fn a_name_with_something_behind_it_is_none_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["wal/", "wal//", "wal/.", "wal/..", "/"] {
            let path = dir.path().join(name);
            let made = FileDisk::create(&path, 4 * BLOCK as u64, OpenMode::default(), &mut |_, _| {}, |_| Ok(()));
            assert!(matches!(made, Err(OpenError::NotAFile { .. })), "{name}: {made:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_name_of_a_finished_file_is_removed_and_the_file_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        std::fs::write(path("moved away"), "a log").unwrap();
        std::fs::hard_link(path("moved away"), path("wal.creating")).unwrap();
        FileDisk::create(path("wal"), 4 * BLOCK as u64, OpenMode::default(), &mut |_, _| {}, |_| Ok(())).unwrap();
        assert_eq!(std::fs::read(path("moved away")).unwrap(), b"a log");
        assert!(!path("wal.creating").exists());
    }
}
