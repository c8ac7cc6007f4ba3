//! `strandlog salvage`

use std::path::Path;

use serde_json::json;
use strandlog::{Error, RecoveryMode, SalvageReport, Wal};

use crate::args::Salvage;
use crate::failure::{Failure, Result};
use crate::output::{Output, Style};
use crate::save::What;
use crate::size::{count, human, with_spare};
use crate::{open, progress, save, verify};

/// Suffix of the copy's name until it is whole, and while it is created.
const SUFFIXES: [&str; 2] = [".salvaging", ".salvaging.creating"];

/// Copies what can still be proved intact into a fresh log, and says what was lost.
pub fn run(args: &Salvage, out: &mut Output) -> Result<()> {
    save::refuse_existing(&args.to, "a salvage never overwrites")?;
    save::refuse_source(&args.from, &args.to, &SUFFIXES)?;
    // The copy has another name until it is whole: half of one must not be taken for a log.
    let [suffix, _] = SUFFIXES;
    let unfinished = save::unfinished(&args.to, suffix, What::Log("a salvage"))?;
    let from = open::as_far_as_possible(&args.from, RecoveryMode::Salvage, out.is_json())?;
    // A copy needs more room until its entries are moved to where they take least: one of a full log does not fit a log of the same size.
    let capacity = args.capacity.unwrap_or_else(|| with_spare(from.stats().capacity));
    let to = fresh(&from, capacity, &unfinished, out)?;
    let bar = progress::replicas("salvaging", out.is_json());
    let report = from.salvage_into(&to, |p| {
        bar.set_length(p.total);
        bar.set_position(p.replicas);
    });
    bar.finish_and_clear();
    let no_room = |error| match error {
        Error::Full(_) => Failure::Request(format!(
            "what can be saved does not fit a log of {}: give {} more room: --capacity",
            human(capacity),
            args.to.display()
        )),
        other => other.into(),
    };
    let report = report.map_err(no_room).and_then(|report| {
        to.close()?;
        Ok(report)
    });
    drop(to);
    let by_snapshot = verify::has_snapshot(&from);
    let report = report.inspect_err(|_| {
        // Half a copy is of no use.
        let _ = std::fs::remove_file(&unfinished);
    })?;
    save::name(&unfinished, &args.to)?;
    if !report.is_whole() {
        out.not_all_is_well();
    }
    if out.is_json() {
        out.json(&json!({
            "from": args.from.display().to_string(),
            "to": args.to.display().to_string(),
            "whole": report.is_whole(),
            "replicas": report.replicas,
            "entries": report.entries,
            "bytes": report.bytes,
            "lost_frames": report.lost_frames,
            "dropped_frames": report.dropped_frames,
            "unnamed": report.unnamed,
            "cut": report.cut.map(verify::cut_as_json),
            "damage": report.damage.iter().map(verify::as_json).collect::<Vec<_>>(),
            "snapshot": by_snapshot,
        }))
    } else {
        show(args, &report, by_snapshot, out)
    }
}

/// Creates a log with the chunk size, segment size and journal cap of `from`.
fn fresh(from: &Wal, capacity: u64, path: &Path, out: &Output) -> Result<Wal> {
    let stats = from.stats();
    let bar = progress::bytes("creating", out.is_json());
    let shown = bar.clone();
    let segment = stats.segment_size;
    let options = Wal::options()
        .capacity(capacity)
        .chunk_size(u32::try_from(stats.chunk_size).unwrap_or(u32::MAX))
        .segment_size(u32::try_from(segment).unwrap_or(u32::MAX))
        .journal_cap((stats.journal_cap_segments * segment).min(capacity))
        .progress(move |p| {
            shown.set_length(p.total);
            shown.set_position(p.done);
        });
    let wal = options.open(path);
    bar.finish_and_clear();
    Ok(wal?)
}

fn show(args: &Salvage, report: &SalvageReport, by_snapshot: bool, out: &mut Output) -> Result<()> {
    let verdict = if report.is_whole() {
        out.styled(Style::Good, "everything was saved")
    } else {
        out.styled(Style::Bad, "NOT EVERYTHING COULD BE SAVED")
    };
    out.line(format_args!(
        "{verdict}: {} replicas, {} entries, {} copied to {} and compared",
        count(report.replicas),
        count(report.entries),
        human(report.bytes),
        args.to.display()
    ))?;
    if let Some(cut) = report.cut {
        out.line(format_args!("  {cut}"))?;
    }
    for damage in &report.damage {
        out.line(format_args!("  {damage}"))?;
    }
    if report.lost_frames > 0 {
        out.line(format_args!("  {} frames of the journal cannot be read", report.lost_frames))?;
    }
    if report.dropped_frames > 0 {
        out.line(format_args!("  {} frames at the end were not believed", report.dropped_frames))?;
    }
    if report.unnamed {
        out.line(format_args!("  {}", verify::UNNAMED))?;
    }
    if by_snapshot && report.cut.is_none() && (report.unnamed || report.lost_frames > 0) {
        out.line(format_args!("  {}", verify::BY_SNAPSHOT))?;
    }
    if !report.damage.is_empty() {
        out.line(format_args!("  the new log knows what is missing: reading it answers with this damage until a snapshot or a removal heals it"))?;
    }
    Ok(())
}
