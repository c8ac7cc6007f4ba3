//! `strandlog create`

use std::path::Path;

use serde_json::json;
use strandlog::{Error, Wal};

use crate::args::Create;
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, say};
use crate::{progress, save, size};

/// Memory that an open log takes for each chunk, in bytes: see the guide, capacity.
const CHUNK_MEMORY: u64 = 10;
/// A log that will take this much memory is warned about before hours are spent on creating it.
const MUCH_MEMORY: u64 = 2 << 30;

/// Creates the log. The file gets its name only when it is whole. A later failure takes nothing from it; the error then says what is there.
pub fn run(args: &Create, out: &mut Output) -> Result<()> {
    save::refuse_existing(&args.path, "nothing was changed")?;
    tell_memory(args);
    let bar = progress::bytes("writing", out.is_json());
    let shown = bar.clone();
    let mut options = Wal::options().capacity(args.capacity).chunk_size(args.chunk_size).progress(move |p| {
        shown.set_length(p.total);
        shown.set_position(p.done);
    });
    if let Some(bytes) = args.segment_size {
        options = options.segment_size(bytes);
    }
    if let Some(bytes) = args.journal_cap {
        options = options.journal_cap(bytes);
    }
    let wal = options.open(&args.path);
    bar.finish_and_clear();
    let closed = wal.and_then(|wal| wal.close().map(|()| wal.stats()));
    let stats = closed.map_err(|error| with_what_is_there(&args.path, error))?;
    let path = args.path.display().to_string();
    if out.is_json() {
        out.json(&json!({
            "created": path,
            "capacity": stats.capacity,
            "chunk_size": stats.chunk_size,
            "segment_size": stats.segment_size,
            "journal_segments": stats.journal_segments,
            "journal_cap_segments": stats.journal_cap_segments,
            "chunks": stats.chunks,
        }))?;
        return Ok(());
    }
    let done = out.styled(Style::Good, "created");
    out.line(format_args!(
        "{done} {path}: {}, {} chunks of {}, journal of {} (at most {}) segments of {}",
        size::human(stats.capacity),
        size::count(stats.chunks),
        size::human(stats.chunk_size),
        stats.journal_segments,
        stats.journal_cap_segments,
        size::human(stats.segment_size),
    ))?;
    Ok(())
}

/// Warns of a log that will take much memory: its chunk size cannot be changed later.
fn tell_memory(args: &Create) {
    let memory = (args.capacity / u64::from(args.chunk_size.max(1))).saturating_mul(CHUNK_MEMORY);
    if memory >= MUCH_MEMORY {
        say(format_args!(
            "a log of {} in chunks of {} takes {} of memory while it is open, {CHUNK_MEMORY} bytes a chunk: larger ones (--chunk-size) take less",
            size::human(args.capacity),
            size::human(args.chunk_size.into()),
            size::human(memory),
        ));
    }
}

/// The failure, and what is now found under the name.
fn with_what_is_there(path: &Path, error: Error) -> Failure {
    if !path.exists() {
        return error.into();
    }
    let shown = path.display();
    match Wal::options().read_only(true).open(path) {
        Ok(wal) if wal.replicas().is_empty() => Failure::Request(format!(
            "{error}\n{shown} is there all the same: a whole log with nothing in it, which opens; look at the device before it is used"
        )),
        // Another process created it first.
        Ok(_) | Err(Error::Locked { .. }) => error.into(),
        Err(why) => Failure::Request(format!("{error}\n{shown} is there, and does not open ({why}): remove it")),
    }
}
