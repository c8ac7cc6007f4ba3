//! `strandlog export`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;
use strandlog::{Damage, Error, Lost, Replica, Wal};

use crate::args::Export;
use crate::failure::{Failure, Result};
use crate::item::{FORMAT, Sums, encoded};
use crate::output::{Output, Style, say};
use crate::save::What;
use crate::size::count;
use crate::{open, progress, save};

/// Bytes of payload read at a time.
const STEP_BYTES: usize = 1 << 20;
/// Suffix of a file's name until all lines are in it.
const SUFFIX: &str = ".exporting";

/// What an export wrote, and what it left out.
#[derive(Debug, Default)]
struct Exported {
    sums: Sums,
    /// Number of things that could not be read.
    lost: u64,
    /// How many of them the device failed to read.
    unreadable: u64,
    /// Replicas with a migration mark, which is left out.
    marked: u64,
}

/// Writes the whole log as lines.
pub fn run(args: &Export, out: &mut Output) -> Result<()> {
    args.out.iter().try_for_each(|path| save::refuse_existing(path, "an export never overwrites"))?;
    let wal = open::read_only(&args.path, out.is_json())?;
    let bar = progress::replicas("exporting", out.is_json());
    let exported = match &args.out {
        Some(path) => to_file(&wal, path, &bar, args.skip_unreadable),
        None => export(&wal, out, &bar, args.skip_unreadable),
    };
    bar.finish_and_clear();
    let Exported { sums, lost, unreadable, marked } = exported.map_err(hinted)?;
    if lost > 0 {
        out.not_all_is_well();
    }
    if marked > 0 {
        // On standard error: it belongs neither among the lines nor in the output that a program parses.
        say(format_args!(
            "{} replicas carry marks of a migration (DualWrite), which an export leaves out: with an import of it that cannot go on; \
             `strandlog salvage` makes a copy that has them",
            count(marked)
        ));
    }
    let Some(path) = &args.out else {
        if lost > 0 {
            say(format_args!("{}", what_is_lost(lost, unreadable)));
        }
        return Ok(());
    };
    if out.is_json() {
        return out.json(&json!({
            "exported": path.display().to_string(), "replicas": sums.replicas, "entries": sums.entries, "keys": sums.keys,
            "lost": lost, "unreadable": unreadable, "migration_marks_left_out": marked,
        }));
    }
    let done = if lost == 0 { out.styled(Style::Good, "exported") } else { out.styled(Style::Bad, "EXPORTED IN PART") };
    let (replicas, entries, keys) = (count(sums.replicas), count(sums.entries), count(sums.keys));
    out.line(format_args!("{done} {}: {replicas} replicas, {entries} entries, {keys} keys", path.display()))?;
    if lost > 0 {
        out.line(format_args!("  {}", what_is_lost(lost, unreadable)))?;
    }
    Ok(())
}

fn what_is_lost(lost: u64, unreadable: u64) -> String {
    let device = match unreadable {
        0 => String::new(),
        n => format!(", {n} of them as the device fails there"),
    };
    let things = if lost == 1 { "thing" } else { "things" };
    format!("{lost} {things} could not be read{device}: the lines with `lost` name them")
}

/// Adds to an I/O error that --skip-unreadable helps.
fn hinted(failure: Failure) -> Failure {
    match failure {
        Failure::Log(error @ Error::Io { .. }) => Failure::Request(format!(
            "{error}\nwith --skip-unreadable the export goes on around what cannot be read, and names it"
        )),
        other => other,
    }
}

/// Exports into a file that has another name until it is whole: half an export must not be taken for one.
fn to_file(wal: &Wal, path: &Path, bar: &indicatif::ProgressBar, skip: bool) -> Result<Exported> {
    let unfinished = save::unfinished(path, SUFFIX, What::File("an export"))?;
    let failed = |e: std::io::Error| Failure::Request(format!("writing {}: {e}", path.display()));
    let file = File::create_new(&unfinished).map_err(failed)?;
    let written: Result<Exported> = (|| {
        let mut sink = BufWriter::new(file);
        let done = export(wal, &mut sink, bar, skip).map_err(|failure| match failure {
            // Here an output error is one of this file.
            Failure::Output(e) => failed(e),
            other => other,
        })?;
        let file = sink.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(done)
    })();
    let done = written.inspect_err(|_| {
        // Half an export is of no use.
        let _ = std::fs::remove_file(&unfinished);
    })?;
    save::name(&unfinished, path)?;
    Ok(done)
}

fn export(wal: &Wal, sink: &mut impl Write, bar: &indicatif::ProgressBar, skip: bool) -> Result<Exported> {
    let (stats, ids) = (wal.stats(), wal.replicas());
    bar.set_length(ids.len() as u64);
    writeln!(
        sink,
        r#"{{"strandlog":{FORMAT},"replicas":{},"capacity":{},"chunk_size":{},"segment_size":{},"journal_cap":{}}}"#,
        ids.len(),
        stats.capacity,
        stats.chunk_size,
        stats.segment_size,
        stats.journal_cap_segments * stats.segment_size
    )?;
    let mut done = Exported { lost: stats.unnamed_losses, ..Exported::default() };
    for id in ids {
        let replica = wal.replica(id);
        // If the mark cannot be read, the keyed state is lost, which is said below.
        done.marked += u64::from(replica.migration().is_ok_and(|stage| stage.is_some()));
        head_and_keys(&replica, sink, skip, &mut done)?;
        entries(&replica, sink, skip, &mut done)?;
        done.sums.replicas += 1;
        bar.inc(1);
    }
    let sums = done.sums;
    writeln!(sink, r#"{{"end":true,"replicas":{},"entries":{},"keys":{}}}"#, sums.replicas, sums.entries, sums.keys)?;
    Ok(done)
}

fn head_and_keys(replica: &Replica, sink: &mut impl Write, skip: bool, done: &mut Exported) -> Result<()> {
    let (id, (first, last)) = (replica.id(), replica.bounds());
    let before = match replica.term(first - 1) {
        Ok(term) => Some(term),
        Err(Error::Damaged(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let told = before.unwrap_or(0);
    // Damaged together with the keyed state, which is said below.
    let applied = replica.durable_applied().ok().flatten();
    let applied = applied.map_or_else(String::new, |index| format!(r#","applied":{index}"#));
    writeln!(sink, r#"{{"replica":{id},"first":{first},"last":{last},"term_before_first":{told}{applied}}}"#)?;
    if before.is_none() {
        // Of that entry only the term is exported, and it is lost.
        writeln!(sink, r#"{{"replica":{id},"lost":[{0},{0}]}}"#, first - 1)?;
    }
    let mut keys = replica.keys();
    keys.sort_unstable();
    let (mut state_lost, mut unreadable) = (replica.damage().iter().any(|d| d.lost == Lost::State), false);
    for key in keys {
        match replica.get(&key) {
            Ok(Some(value)) => {
                writeln!(sink, r#"{{"replica":{id},"key":"{}","value":"{}"}}"#, encoded(&key), encoded(&value))?;
                done.sums.keys += 1;
            }
            Ok(None) => {}
            Err(Error::Damaged(_)) => state_lost = true,
            Err(Error::Io { .. }) if skip => {
                done.unreadable += u64::from(!unreadable);
                (state_lost, unreadable) = (true, true);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if state_lost {
        writeln!(sink, r#"{{"replica":{id},"lost":"state"}}"#)?;
    }
    done.lost += u64::from(before.is_none()) + u64::from(state_lost);
    Ok(())
}

/// Exports the entries. With `skip`, goes on around what the device cannot read.
fn entries(replica: &Replica, sink: &mut impl Write, skip: bool, done: &mut Exported) -> Result<()> {
    let (id, (first, last)) = (replica.id(), replica.bounds());
    let mut next = Some(first);
    while let Some(from) = next.filter(|&i| i <= last) {
        let read = match replica.entries_through(from, last, STEP_BYTES) {
            // The bad sector may hold a neighbour that was read together with this entry: try this one alone.
            Err(Error::Io { .. }) if skip => replica.entry(from).map(|entry| vec![entry]),
            read => read,
        };
        match read {
            Ok(some) => {
                for e in &some {
                    let data = encoded(&e.data);
                    writeln!(sink, r#"{{"replica":{id},"index":{},"term":{},"data":"{data}"}}"#, e.index, e.term)?;
                }
                done.sums.entries += some.len() as u64;
                next = from.checked_add(some.len().max(1) as u64);
            }
            Err(Error::Damaged(Damage { lost: what, .. })) => {
                let upto = match what {
                    Lost::Entries { last: upto, .. } => upto.clamp(from, last),
                    _ => from,
                };
                writeln!(sink, r#"{{"replica":{id},"lost":[{from},{upto}]}}"#)?;
                done.lost += 1;
                next = upto.checked_add(1);
            }
            Err(Error::Io { .. }) if skip => {
                writeln!(sink, r#"{{"replica":{id},"lost":[{from},{from}]}}"#)?;
                (done.lost, done.unreadable) = (done.lost + 1, done.unreadable + 1);
                next = from.checked_add(1);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
