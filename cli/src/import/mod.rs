//! `strandlog import`: copies another log, or an export, into a strandlog file.

mod copy;
#[cfg(feature = "raft-engine")]
mod files;
mod jsonl;
mod place;
#[cfg(feature = "raft-engine")]
mod raft_engine;

use std::path::Path;

use serde_json::json;
use strandlog::{Stats, Wal};

use crate::args::{Import, Source};
use crate::failure::{Failure, Result};
use crate::item::{Item, Shape};
use crate::output::{Output, Style, say};
use crate::size::{count, human};
use crate::{open, progress, save};
use copy::{Copied, Copier};
use place::Place;

/// Something that can be imported: replicas in any order, each a head followed by its keys and then its entries.
pub trait Items {
    /// The shape that a new log should have.
    fn shape(&self) -> Shape;

    /// The next item; `None` at the end.
    fn next(&mut self) -> Result<Option<Item>>;

    /// Bytes done, and bytes in total.
    fn progress(&self) -> (u64, u64);
}

/// Copies, then compares.
pub fn run(args: &Import, out: &mut Output) -> Result<()> {
    let mut items: Box<dyn Items> = match args.from {
        Source::Jsonl => Box::new(jsonl::Lines::open(&args.source, &args.path)?),
        #[cfg(feature = "raft-engine")]
        Source::RaftEngine => Box::new(raft_engine::Groups::open(args)?),
        #[cfg(not(feature = "raft-engine"))]
        Source::RaftEngine => {
            let why = "this build does not read raft-engine: build it with `--features raft-engine`";
            return Err(Failure::Request(why.into()));
        }
    };
    let place = Place::of(&args.path, &args.source)?;
    let wal = target(args, &place, items.shape(), out)?;
    place.opened(&wal)?;
    if place.was_there {
        tell_size(args, &place.path, &wal.stats());
    }
    let bar = progress::bytes("importing", out.is_json());
    let mut copier = Copier::new(&wal);
    let copied = copy(&mut *items, &mut copier, &bar);
    bar.finish_and_clear();
    let copied = copied.map_err(|failure| {
        let has_written = copier.has_written();
        if !has_written && !place.was_there && wal.replicas().is_empty() && save::is_log_of(&place.path, wal.uuid()) {
            // Remove the log that we created, if the file under its name is still ours: a log keeps its size, and the next import may ask for another.
            let _ = std::fs::remove_file(&place.path);
        }
        cut_short(&failure, has_written, &place.path)
    })?;
    wal.close()?;
    drop(wal);
    // Opened read-only, it stays locked until it has its name: nobody else can write to it before.
    let wal = open::for_reading(&place.path, out.is_json()).map_err(|error| place.not_opened(error))?;
    let different = verify(&wal, &copied, out)?;
    let path = if different.is_empty() { place.name(&wal, &copied)? } else { place.path };
    drop(wal);
    report(&path, args, &copied, &different, out)
}

fn copy(items: &mut dyn Items, copier: &mut Copier<'_>, bar: &indicatif::ProgressBar) -> Result<Copied> {
    while let Some(item) = items.next()? {
        copier.add(item)?;
        let (done, total) = items.progress();
        bar.set_length(total);
        bar.set_position(done);
    }
    copier.finish()
}

/// The failure, and what is left of the import.
fn cut_short(failure: &Failure, has_written: bool, path: &Path) -> Failure {
    let rest = if has_written {
        format!("what was imported stays in {}, and importing all of it again goes on there", path.display())
    } else {
        "nothing was written".to_owned()
    };
    Failure::Request(format!("{failure}; {rest}"))
}

/// Opens the existing log, or creates one.
fn target(args: &Import, place: &Place, shape: Shape, out: &Output) -> Result<Wal> {
    let bar = progress::bytes("opening", out.is_json());
    let shown = bar.clone();
    let capacity = args.capacity.unwrap_or(shape.capacity);
    // One that was there and is gone now is not made anew: another import named it, or somebody moves logs about.
    let mut options = Wal::options().capacity(capacity).create(!place.was_there).progress(move |p| {
        shown.set_length(p.total);
        shown.set_position(p.done);
    });
    // A size that does not fit becomes one that the log refuses, naming the valid range.
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    if args.capacity.is_none() && shape.chunk_size > 0 {
        options = options.chunk_size(narrow(shape.chunk_size)).segment_size(narrow(shape.segment_size));
        options = options.journal_cap(shape.journal_cap.min(capacity));
    }
    let wal = options.open(&place.path);
    bar.finish_and_clear();
    wal.map_err(|error| place.not_opened(error))
}

/// Says that an existing log keeps its size, if --capacity asks for another.
fn tell_size(args: &Import, path: &Path, stats: &Stats) {
    // A difference of less than a segment is rounding.
    let other = args.capacity.filter(|asked| asked.abs_diff(stats.capacity) >= stats.segment_size);
    if let Some(asked) = other {
        say(format_args!(
            "{} is there, with {}: --capacity {} is for a log that is created; `strandlog grow` makes one longer",
            path.display(),
            human(stats.capacity),
            human(asked)
        ));
    }
}

/// Reads everything back from the disk and compares it with what was given. Returns the replicas that differ.
fn verify(wal: &Wal, copied: &Copied, out: &Output) -> Result<Vec<u64>> {
    let bar = progress::replicas("verifying", out.is_json());
    bar.set_length(copied.digests.len() as u64);
    let mut different = Vec::new();
    for (&id, digest) in &copied.digests {
        if copy::digest(&wal.replica(id))? != Some(*digest) {
            different.push(id);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(different)
}

fn report(path: &Path, args: &Import, copied: &Copied, different: &[u64], out: &mut Output) -> Result<()> {
    let (shown, sums) = (path.display().to_string(), copied.sums);
    if !different.is_empty() {
        out.not_all_is_well();
    }
    if out.is_json() {
        return out.json(&json!({
            "imported": shown, "replicas": sums.replicas, "entries": sums.entries, "keys": sums.keys, "bytes": copied.bytes,
            "entries_there_already": copied.there_already, "verified": different.is_empty(), "different": different,
        }));
    }
    let done = if different.is_empty() {
        out.styled(Style::Good, "imported and compared")
    } else {
        out.styled(Style::Bad, "IMPORTED, AND NOT THE SAME")
    };
    let (replicas, entries, keys) = (count(sums.replicas), count(sums.entries), count(sums.keys));
    out.line(format_args!(
        "{done} {shown}: {replicas} replicas, {entries} entries, {keys} keys, {}",
        human(copied.bytes)
    ))?;
    if copied.there_already > 0 {
        out.line(format_args!("  {} of the entries were there already", count(copied.there_already)))?;
    }
    for replica in different {
        let untouched =
            if copied.left_alone.contains(replica) { " in its keyed state, and nothing of it was written" } else { "" };
        out.line(format_args!(
            "  replica {replica} differs from what was given{untouched}: remove it, or import into a fresh log"
        ))?;
    }
    if path != args.path {
        out.line(format_args!("  so it is not named {}: remove it, to begin anew", args.path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    /// It saw half of an import, which another one finished and named before this one opened it.
    #[test]
    fn what_another_import_took_away_is_not_made_a_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let (log, lines) = (dir.path().join("log"), dir.path().join("lines"));
        let args = ["strandlog", "import", "--from", "jsonl", lines.to_str().unwrap(), log.to_str().unwrap()];
        let Ok(Args { command: Command::Import(args), .. }) = Args::try_parse_from(args) else { panic!("an import") };
        let half = dir.path().join("log.importing");
        std::fs::write(&half, "half").unwrap();
        let place = Place::of(&log, &lines).unwrap();
        std::fs::rename(&half, &log).unwrap();
        let shape = Shape { capacity: 4 << 20, ..Shape::default() };
        let refused = target(&args, &place, shape, &Output::new(true)).unwrap_err().to_string();
        assert!(refused.contains("by another import") && refused.contains("again"), "{refused}");
        assert!(!half.exists());
        assert_eq!(std::fs::read(&log).unwrap(), b"half");
    }
}
