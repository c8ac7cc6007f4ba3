//! Files that are written where the user says: none that is there is written over, unless the user says that, too.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// What is said of a file that is there, where it could be replaced.
const UNLESS_FORCED: &str = "--force replaces it";

/// Refuses what [`save`] would refuse, before the work is done.
pub fn check(path: &Path, force: bool) -> Result<()> {
    if force { Ok(()) } else { refuse_existing(path, UNLESS_FORCED) }
}

/// Writes a file, in the place of one that is there only by `force`.
pub fn save(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
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
