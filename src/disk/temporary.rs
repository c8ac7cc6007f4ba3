//! A file that has a temporary name until it has its own, or is given up.

use super::error::unsupported;
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, RenameFlags},
    io::Errno,
};
use std::path::{Path, PathBuf};

/// A file that is removed unless it is kept.
pub(super) struct Temporary {
    dir: OwnedFd,
    /// `None`: it is kept.
    name: Option<PathBuf>,
}

impl Temporary {
    pub(super) fn new(dir: OwnedFd, name: PathBuf) -> Self {
        Self { dir, name: Some(name) }
    }

    /// Gives the file its name, unless that is taken.
    pub(super) fn publish(&mut self, to: &Path) -> Result<(), Errno> {
        if let Some(name) = &mut self.name {
            rename_no_replace(&self.dir, name, to)?;
            *name = to.into();
        }
        Ok(())
    }

    pub(super) fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // An error is on its way already, and this one would only hide it.
            let _ = fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

fn rename_no_replace(dir: &OwnedFd, from: &Path, to: &Path) -> Result<(), Errno> {
    match fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        // If the file system has no such rename: a hard link does not replace either.
        Err(errno) if unsupported(&errno.into()) => link_and_unlink(dir, from, to),
        result => result,
    }
}

fn link_and_unlink(dir: &OwnedFd, from: &Path, to: &Path) -> Result<(), Errno> {
    fs::linkat(dir, from, dir, to, AtFlags::empty())?;
    // The file has its name. A second one that stays is removed as stale in time.
    let _ = fs::unlinkat(dir, from, AtFlags::empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_way_to_name_a_file_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        let (from, to) = (Path::new("wal.creating"), Path::new("wal"));
        let opened = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        for name in [rename_no_replace, link_and_unlink] {
            std::fs::write(path("wal"), "theirs").unwrap();
            std::fs::write(path("wal.creating"), "ours").unwrap();
            assert_eq!(name(&opened, from, to), Err(Errno::EXIST));
            assert_eq!(std::fs::read(path("wal")).unwrap(), b"theirs");
            std::fs::remove_file(path("wal")).unwrap();
            name(&opened, from, to).unwrap();
            assert_eq!(std::fs::read(path("wal")).unwrap(), b"ours");
            assert!(!path("wal.creating").exists());
        }
    }
}
