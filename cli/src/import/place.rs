//! Where an import writes: into the existing log, or into a new one that has another name until it is whole. In half an import some replicas are
//! missing, and would vote as if they never had.

use std::path::{Path, PathBuf};

use strandlog::Wal;

use super::copy::Copied;
use crate::failure::{Failure, Result};
use crate::output::say;
use crate::save;

/// Suffix of a new log's name until it is whole.
const SUFFIX: &str = ".importing";

/// Where an import writes, and the name of the log in the end.
pub struct Place {
    /// The log that is written to.
    pub path: PathBuf,
    /// The name that a new log is given once it is whole; `None` for an existing log.
    name: Option<PathBuf>,
    /// The file existed before this import.
    pub was_there: bool,
}

impl Place {
    /// Where an import to this path writes. Goes on with what an interrupted import to it left.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(Failure::Request(format!("{} is a directory, not a log", path.display())));
        }
        // Also if it is a dangling link: the name is taken.
        if path.symlink_metadata().is_ok() {
            return Ok(Self { path: path.into(), name: None, was_there: true });
        }
        let unfinished = save::beside(path, SUFFIX)?;
        let was_there = unfinished.symlink_metadata().is_ok();
        if was_there {
            say(format_args!("{} is left of an import that did not end: going on there", unfinished.display()));
        }
        Ok(Self { path: unfinished, name: Some(path.into()), was_there })
    }

    /// Gives a new log its name, if it holds everything that was given and nothing else. Meanwhile nobody else can have it open except for reading.
    pub fn name(self, wal: &Wal, copied: &Copied) -> Result<PathBuf> {
        let Some(name) = self.name else { return Ok(self.path) };
        if let Some(other) = wal.replicas().into_iter().find(|id| !copied.digests.contains_key(id)) {
            let (left, name) = (self.path.display(), name.display());
            return Err(Failure::Request(format!(
                "{left} holds replica {other}, too, which was not given: it is left of an import of something else, and is not named {name}. Remove it, and import again"
            )));
        }
        save::name(&self.path, &name)?;
        Ok(name)
    }
}
