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
    let mut options = OpenOptions::new();
    options.write(true);
    // It may have come since it was checked: asked for and made in one step.
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => exists(path, UNLESS_FORCED),
        _ => Failure::Request(format!("writing {}: {e}", path.display())),
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
