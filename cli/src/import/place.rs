//! Where an import writes: into the log that is there, or beside the name of a new one. Of half an import some replicas are not there, and would vote
//! as if they never had.

use std::path::{Path, PathBuf};

use strandlog::Wal;

use super::copy::Copied;
use crate::failure::{Failure, Result};
use crate::output::say;
use crate::save;

/// Behind the name of a log until it is whole.
const SUFFIX: &str = ".importing";

/// Where it is written to, and what it is called in the end.
pub struct Place {
    /// The log that is written to.
    pub path: PathBuf,
    /// The name that it is given once it is whole, where it has another until then.
    name: Option<PathBuf>,
    /// It is none of this import's making.
    pub was_there: bool,
}

impl Place {
    /// Where an import to this path is written. What an earlier one left of the same is gone on with.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(Failure::Request(format!("{} is a directory, not a log", path.display())));
        }
        // Also where a link of that name leads nowhere: the name is somebody's.
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

    /// Gives a new log its name: all that was given is in it, and nothing else. Nobody else has it open meanwhile, but to read.
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
