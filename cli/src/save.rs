//! Files that are written where the user says: none that is there is written over, unless the user says that, too. And a log never is.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use strandlog::format::superblock::{MAGIC, SUPERBLOCK_OFFSETS};

use crate::failure::{Failure, Result};

/// What is said of a file that is there, where it could be replaced.
const UNLESS_FORCED: &str = "--force replaces it";

/// Refuses what [`save`] would refuse, before the work is done.
pub fn check(path: &Path, force: bool) -> Result<()> {
    refuse_log(path)?;
    if force { Ok(()) } else { refuse_existing(path, UNLESS_FORCED) }
}

/// Writes a file, in the place of one that is there only by `force`.
pub fn save(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    refuse_log(path)?;
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::AlreadyExists => exists(path, UNLESS_FORCED),
        _ => Failure::Request(format!("writing {}: {e}", path.display())),
    };
    match path.metadata() {
        Ok(found) if force && found.is_file() => {
            // What a link leads to is replaced, not the link; and only by what is whole.
            let path = path.canonicalize().map_err(failed)?;
            let new = unfinished(&path, ".writing", "a picture or a report")?;
            create(&new, bytes).map_err(failed)?;
            // Who may read it is as before, if the file system knows of that.
            let _ = std::fs::set_permissions(&new, found.permissions());
            std::fs::rename(&new, &path).map_err(|e| {
                let _ = std::fs::remove_file(&new);
                failed(e)
            })
        }
        // A device, a pipe: written into as it is.
        Ok(_) if force => {
            OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)).map_err(failed)
        }
        _ => create(path, bytes).map_err(failed),
    }
}

/// Writes a file that is not there, whole or not at all. It may have come since it was looked for: that is asked, and it is made, in one step.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes).inspect_err(|_| {
        // Ours, and half of it is no use.
        let _ = std::fs::remove_file(path);
    })
}

/// Refuses a log, by whichever name: whether it is the one that is looked into or another, no output is worth it.
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

/// Refuses a standard output that is a log: the shell was told to write behind or into it.
pub fn refuse_log_as_output() -> Result<()> {
    // By this name it can be read, though it was opened for writing only. Where the system has no such name, nothing is known.
    if is_log(Path::new("/proc/self/fd/1")).unwrap_or(false) {
        let why = "the standard output is a strandlog file: no output is written into one";
        return Err(Failure::Request(why.into()));
    }
    Ok(())
}

/// Whether one of the two superblocks begins as it should, which every log has that opens. Follows links.
fn is_log(path: &Path) -> io::Result<bool> {
    match path.metadata() {
        // Of a pipe nothing is read that was meant for others.
        Ok(found) if found.is_file() => {}
        // What is not there is no log, and what cannot be looked at is refused by the writing, in its words.
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

/// Refuses a name that is taken, and says why that matters.
pub fn refuse_existing(path: &Path, why: &str) -> Result<()> {
    // Also a link that leads nowhere: the name is taken.
    if path.symlink_metadata().is_ok() { Err(exists(path, why)) } else { Ok(()) }
}

/// The name that a large file has until it is whole: half of it must not be taken for all. Refused where `what` is under way, or did not end.
pub fn unfinished(path: &Path, suffix: &str, what: &str) -> Result<PathBuf> {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    let name = PathBuf::from(name);
    if name.symlink_metadata().is_ok() {
        let name = name.display();
        return Err(Failure::Request(format!(
            "{name} is left of {what} that did not end, or under way: remove it first"
        )));
    }
    Ok(name)
}

fn exists(path: &Path, why: &str) -> Failure {
    Failure::Request(format!("{} exists already; {why}", path.display()))
}
