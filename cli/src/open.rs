//! Opening a log to look at it.

use std::path::Path;

use strandlog::{Error, ReadMode, RecoveryMode, Wal};

use crate::failure::{Failure, Result};
use crate::output::say;
use crate::progress;

/// Opens the log for reading only: nothing is written, not even a repair.
///
/// Copied reads: a tool that looks for damage must be told of a media error, not killed by it.
pub fn read_only(path: &Path, quiet: bool) -> Result<Wal> {
    as_far_as_possible(path, RecoveryMode::TolerateTornTail, quiet)
}

/// As [`read_only`], and as far as the mode allows.
pub fn as_far_as_possible(path: &Path, mode: RecoveryMode, quiet: bool) -> Result<Wal> {
    no_directory(path)?;
    attempt(path, mode, quiet).map_err(|error| failure(path, error))
}

/// As [`read_only`]; where that is refused because of damage, or of what cannot be read, as far as a salvage goes, and with the refusal. A file that is
/// not there, or may not be read, a salvage refuses as well, and says why.
pub fn even_if_refused(path: &Path, quiet: bool) -> Result<(Wal, Option<Error>)> {
    no_directory(path)?;
    match attempt(path, RecoveryMode::TolerateTornTail, quiet) {
        Err(refusal @ (Error::Corrupt { .. } | Error::Cut { .. } | Error::Io { .. })) => {
            as_far_as_possible(path, RecoveryMode::Salvage, quiet).map(|wal| (wal, Some(refusal)))
        }
        opened => opened.map(|wal| (wal, None)).map_err(|error| failure(path, error)),
    }
}

/// Says, beside the output, that what is shown is only what stands.
pub fn tell_refusal(path: &Path, refusal: &Error) {
    say(format_args!(
        "{} does not open: {refusal}\nwhat is shown is what `strandlog salvage` would save, and `strandlog verify` says what is lost",
        path.display()
    ));
}

fn no_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Failure::Request(format!("{} is a directory, not a log", path.display())));
    }
    Ok(())
}

fn attempt(path: &Path, mode: RecoveryMode, quiet: bool) -> strandlog::Result<Wal> {
    let bar = progress::bytes("opening", quiet);
    let shown = bar.clone();
    let options = Wal::options().read_only(true).read_mode(ReadMode::Copied).recovery_mode(mode).progress(move |p| {
        shown.set_length(p.total);
        shown.set_position(p.done);
    });
    let wal = options.open(path);
    bar.finish_and_clear();
    wal
}

/// As [`named`]; and says what shows a log that somebody else has open.
fn failure(path: &Path, error: Error) -> Failure {
    match error {
        Error::Locked { .. } => Failure::Request(format!(
            "{error}\n`strandlog top {}` shows a log in use, where the process that has it open publishes its figures",
            path.display()
        )),
        other => named(path, other),
    }
}

/// Names the file where the error does not.
pub fn named(path: &Path, error: Error) -> Failure {
    match error {
        Error::Corrupt { .. } | Error::Cut { .. } | Error::Unsupported { .. } => {
            Failure::Request(format!("{}: {error}", path.display()))
        }
        other => other.into(),
    }
}
