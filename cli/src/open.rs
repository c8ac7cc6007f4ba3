//! Opening a log to look at it.

use std::path::Path;

use strandlog::{ReadMode, Wal};

use crate::failure::{Failure, Result};
use crate::progress;

/// Opens the log for reading only: nothing is written, not even a repair.
///
/// Copied reads: a tool that looks for damage must be told of a media error, not killed by it.
pub fn read_only(path: &Path, quiet: bool) -> Result<Wal> {
    if path.is_dir() {
        return Err(Failure::Request(format!("{} is a directory, not a log", path.display())));
    }
    let bar = progress::bytes("opening", quiet);
    let shown = bar.clone();
    let options = Wal::options().read_only(true).read_mode(ReadMode::Copied).progress(move |p| {
        shown.set_length(p.total);
        shown.set_position(p.done);
    });
    let wal = options.open(path);
    bar.finish_and_clear();
    wal.map_err(|error| match error {
        strandlog::Error::Corrupt { .. } | strandlog::Error::Unsupported { .. } => {
            Failure::Request(format!("{}: {error}", path.display()))
        }
        other => other.into(),
    })
}
