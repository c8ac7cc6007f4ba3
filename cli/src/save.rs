//! Writes output files where the user says. An existing file is replaced only if the user says so, and a log never.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use strandlog::format::superblock::{MAGIC, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};

use crate::failure::{Failure, Result};

/// How the first line of an export begins.
pub const EXPORT: &[u8] = br#"{"strandlog":"#;
/// Said of an existing file that could be replaced.
const UNLESS_FORCED: &str = "--force replaces it";

/// Refuses what [`save`] would refuse, for use before the work is done.
pub fn check(path: &Path, force: bool) -> Result<()> {
    refuse_log(path)?;
    if path.is_dir() {
        return Err(Failure::Request(format!("{} is a directory: name a file in it", path.display())));
    }
    if force { refuse_nowhere(path) } else { refuse_existing(path, UNLESS_FORCED) }
}

/// Writes a file; replaces an existing one only with `force`. It has another name until it is whole, and outlives a power cut once this returns.
pub fn save(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    check(path, force)?;
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::AlreadyExists => exists(path, UNLESS_FORCED),
        _ => Failure::Request(format!("writing {}: {e}", path.display())),
    };
    let found = if force { path.metadata().ok() } else { None };
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        // A device or a pipe is written into, not replaced.
        return OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)).map_err(failed);
    }
    // Replace a link's target, not the link.
    let place = if found.is_some() { path.canonicalize().map_err(failed)? } else { path.to_owned() };
    let new = unfinished(&place, ".writing", What::File("a picture or a report"))?;
    create(&new, bytes).map_err(failed)?;
    let named = match found {
        Some(found) => {
            // Keep the permissions, if the file system has any.
            let _ = std::fs::set_permissions(&new, found.permissions());
            std::fs::rename(&new, &place)
        }
        // One may have appeared since the last check.
        None => publish(&new, &place),
    };
    named.map_err(|e| {
        let _ = std::fs::remove_file(&new);
        failed(e)
    })?;
    sync_name(&place)
}

/// Writes a new file, durably, whole or not at all.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // We created it, and half of it is of no use.
        let _ = std::fs::remove_file(path);
    })
}

/// Refuses a dangling link, which `force` can neither follow nor replace.
fn refuse_nowhere(path: &Path) -> Result<()> {
    let leads_nowhere = path.metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    if leads_nowhere && path.symlink_metadata().is_ok() {
        let path = path.display();
        return Err(Failure::Request(format!(
            "{path} is a link that leads nowhere; remove it first: --force replaces what a link leads to"
        )));
    }
    Ok(())
}

/// Refuses any log, under whichever name: no output is worth one, be it the log that is read or another.
fn refuse_log(path: &Path) -> Result<()> {
    match is_log(path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Failure::Request(format!(
            "{} exists already, and is a strandlog file: no output replaces one, with --force neither",
            path.display()
        ))),
        Err(e) => Err(Failure::Request(format!("writing {}: looking what is there: {e}", path.display()))),
    }
}

/// Refuses a standard output that takes nothing: one that is open only for reading, to which Rust writes as if to `/dev/null`; and one that is a log:
/// the shell was told to append to it or to write into it.
pub fn refuse_output() -> Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl};
    if fcntl_getfl(io::stdout()).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY) {
        return Err(Failure::Request(
            "the standard output is open for reading only: nothing can be written to it".into(),
        ));
    }
    // By this name it can be opened for reading, even if standard output is write-only. A system without such a name cannot tell.
    if is_log(Path::new("/proc/self/fd/1")).unwrap_or(false) {
        let why = "the standard output is a strandlog file: no output is written into one";
        return Err(Failure::Request(why.into()));
    }
    Ok(())
}

/// Refuses a copy that would have the name of its own source until it is whole: nobody is told to remove that, and nothing else is taken for it.
/// `suffixes` are those that the copy's name has meanwhile.
pub fn refuse_source(source: &Path, to: &Path, suffixes: &[&str]) -> Result<()> {
    for suffix in suffixes {
        let name = beside(to, suffix)?;
        if is_same(source, &name) {
            let (name, to) = (name.display(), to.display());
            return Err(Failure::Request(format!(
                "{name} is what is read, and {to} would have that name until it is whole: choose another name than {to}"
            )));
        }
    }
    Ok(())
}

/// Whether both names lead to the same file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    matches!((of(one), of(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether one of the two superblocks begins as it should, as in every log that opens. Follows links.
pub fn is_log(path: &Path) -> io::Result<bool> {
    match path.metadata() {
        // Nothing is read from a pipe: it was meant for others.
        Ok(found) if found.is_file() => {}
        // A missing file is no log; if the file cannot be examined, the write fails and says why.
        _ => return Ok(false),
    }
    let file = File::open(path)?;
    let begins = |offset| {
        let mut head = [0; MAGIC.len()];
        match file.read_exact_at(&mut head, offset) {
            Ok(()) => Ok(head == MAGIC),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    };
    let [a, b] = SUPERBLOCK_OFFSETS;
    Ok(begins(a)? || begins(b)?)
}

/// Whether the file begins as an export does.
pub fn is_export(path: &Path) -> bool {
    let mut head = [0; EXPORT.len()];
    // Nothing is read from a pipe: it was meant for others.
    path.is_file() && File::open(path).is_ok_and(|file| file.read_exact_at(&mut head, 0).is_ok() && head == *EXPORT)
}

/// Whether the file is the log with this uuid. Works even if another process has it open.
pub fn is_log_of(path: &Path, uuid: [u8; 16]) -> bool {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let Ok((len, file)) = opened else { return false };
    SUPERBLOCK_OFFSETS.into_iter().any(|offset| {
        let mut block = [0; SUPERBLOCK_BYTES];
        file.read_exact_at(&mut block, offset).is_ok()
            && Superblock::decode(&block, len).is_ok_and(|superblock| superblock.uuid == uuid)
    })
}

/// Gives a whole copy its name, durably: once told of it, the user may remove the original. If naming fails the copy is kept, because it may have taken
/// hours.
pub fn name(unfinished: &Path, path: &Path) -> Result<()> {
    name_unless(unfinished, path, || false)
}

/// As [`name`], unless `has_it` says that the copy has its name already, from another process.
pub fn name_unless(unfinished: &Path, path: &Path, has_it: impl Fn() -> bool) -> Result<()> {
    if let Err(e) = publish(unfinished, path)
        && !has_it()
    {
        let (shown, unfinished) = (path.display(), unfinished.display());
        return Err(Failure::Request(format!(
            "naming {shown}: {e}; the copy is whole, and stays under the name {unfinished}"
        )));
    }
    sync_name(path)
}

/// Makes the name of a whole file durable.
fn sync_name(path: &Path) -> Result<()> {
    let shown = path.display();
    sync_directory_of(path).map_err(|e| {
        Failure::Request(format!(
            "{shown} is there, and whole, but a power cut may take its name: syncing its directory: {e}"
        ))
    })
}

/// Renames a whole file, unless the new name is taken. On success the old name is gone.
fn publish(unfinished: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, unfinished, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // The file system has no such rename; a hard link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(unfinished, path)?;
            let _ = std::fs::remove_file(unfinished);
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// Refuses a name that is taken, and says why that matters.
pub fn refuse_existing(path: &Path, why: &str) -> Result<()> {
    // A dangling link takes the name, too.
    if path.symlink_metadata().is_ok() { Err(exists(path, why)) } else { Ok(()) }
}

/// The name that a large file has until it is whole: half of it must not be taken for the whole.
pub fn beside(path: &Path, suffix: &str) -> Result<PathBuf> {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    let name = PathBuf::from(name);
    if name.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::InvalidFilename) {
        let long = path.file_name().map_or(0, |name| name.len());
        return Err(Failure::Request(format!(
            "{}: a name of {long} bytes is too long here: the file has `{suffix}` behind it until it is whole",
            path.display()
        )));
    }
    Ok(name)
}

/// As [`beside`], but refuses an existing file: `what` is under way, or did not end. A log is left only of what makes one; any other is somebody's.
pub fn unfinished(path: &Path, suffix: &str, what: What) -> Result<PathBuf> {
    let name = beside(path, suffix)?;
    if name.symlink_metadata().is_ok() {
        let (shown, path) = (name.display(), path.display());
        return Err(Failure::Request(match what {
            What::File(_) if is_log(&name).unwrap_or(false) => format!(
                "{shown} is a strandlog file, and {path} would have that name until it is whole: choose another name than {path}"
            ),
            What::File(what) | What::Log(what) => format!(
                "{shown} is left of {what} that did not end, or under way: remove it first (a file of your own: choose another name than {path})"
            ),
        }));
    }
    Ok(name)
}

/// What is made, in words.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A log.
    Log(&'static str),
    /// Anything else.
    File(&'static str),
}

fn exists(path: &Path, why: &str) -> Failure {
    Failure::Request(format!("{} exists already; {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_given_to_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        std::fs::write(path("ours"), "ours").unwrap();
        std::fs::write(path("name"), "theirs").unwrap();
        publish(&path("ours"), &path("name")).unwrap_err();
        assert_eq!(std::fs::read(path("name")).unwrap(), b"theirs");
        assert_eq!(std::fs::read(path("ours")).unwrap(), b"ours");
        std::fs::remove_file(path("name")).unwrap();
        publish(&path("ours"), &path("name")).unwrap();
        assert_eq!(std::fs::read(path("name")).unwrap(), b"ours");
        assert!(!path("ours").exists());
    }

    #[test]
    fn a_copy_that_cannot_be_named_stays_and_it_is_said_where() {
        let dir = tempfile::tempdir().unwrap();
        let (copy, to) = (dir.path().join("saved.salvaging"), dir.path().join("saved"));
        std::fs::write(&copy, "all that could be saved").unwrap();
        std::fs::write(&to, "what came meanwhile").unwrap();
        let refused = name(&copy, &to).unwrap_err().to_string();
        assert!(refused.contains("stays under the name") && refused.contains("saved.salvaging"), "{refused}");
        assert_eq!(std::fs::read(&copy).unwrap(), b"all that could be saved");
        assert_eq!(std::fs::read(&to).unwrap(), b"what came meanwhile");
    }
}
