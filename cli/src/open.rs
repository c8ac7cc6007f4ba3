//! Opening a log read-only.

use std::path::Path;

use strandlog::{Error, ReadMode, RecoveryMode, Wal};

use crate::failure::{Failure, Result};
use crate::output::say;
use crate::{progress, save};

/// Opens the log for reading only: nothing is written, not even a repair.
///
/// Reads are copied, not mapped: a tool that looks for damage must get a media error, not be killed by it.
pub fn read_only(path: &Path, quiet: bool) -> Result<Wal> {
    as_far_as_possible(path, RecoveryMode::TolerateTornTail, quiet)
}

/// As [`read_only`], in this recovery mode.
pub fn as_far_as_possible(path: &Path, mode: RecoveryMode, quiet: bool) -> Result<Wal> {
    no_directory(path)?;
    attempt(path, mode, quiet).map_err(|error| failure(path, error))
}

/// As [`read_only`]. If that is refused because of damage or an I/O error, opens the log as a salvage would, and returns the refusal, too. A salvage also
/// refuses a file that does not exist or may not be read, and says why.
pub fn even_if_refused(path: &Path, quiet: bool) -> Result<(Wal, Option<Error>)> {
    no_directory(path)?;
    match attempt(path, RecoveryMode::TolerateTornTail, quiet) {
        Err(refusal @ (Error::Corrupt { .. } | Error::Cut { .. } | Error::Io { .. })) => {
            as_far_as_possible(path, RecoveryMode::Salvage, quiet).map(|wal| (wal, Some(refusal)))
        }
        opened => opened.map(|wal| (wal, None)).map_err(|error| failure(path, error)),
    }
}

/// Says on standard error that only what a salvage would save is shown.
pub fn tell_refusal(path: &Path, refusal: &Error) {
    say(format_args!(
        "{} does not open: {refusal}\nwhat is shown is what `strandlog salvage` would save, and `strandlog verify` says what is lost",
        path.display()
    ));
}

/// As [`read_only`], with the log's own error.
pub fn for_reading(path: &Path, quiet: bool) -> strandlog::Result<Wal> {
    attempt(path, RecoveryMode::TolerateTornTail, quiet)
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

/// As [`named`]. For a log that another process has open, names the command that can show it.
fn failure(path: &Path, error: Error) -> Failure {
    match error {
        Error::Locked { .. } => Failure::Request(format!(
            "{error}\n`strandlog top {}` shows a log in use, where the process that has it open publishes its figures",
            path.display()
        )),
        other => named(path, other),
    }
}

/// Adds the file's name to errors that lack it.
pub fn named(path: &Path, error: Error) -> Failure {
    match error {
        Error::Corrupt { .. } if save::is_export(path) => Failure::Request(format!(
            "{0}: {error}\n{0} is an export of a log: `strandlog import --from jsonl {0} NEW` makes a log of it",
            path.display()
        )),
        Error::Corrupt { .. } | Error::Cut { .. } | Error::Unsupported { .. } => {
            Failure::Request(format!("{}: {error}", path.display()))
        }
        other => other.into(),
    }
}
