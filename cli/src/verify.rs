//! `strandlog verify`

use std::process::ExitCode;

use serde_json::json;
use strandlog::{Damage, Lost, VerifyReport};

use crate::args::Verify;
use crate::failure::Result;
use crate::output::{Output, Style};
use crate::size::{count, human};
use crate::{open, progress};

/// Reads everything back; says what is wrong.
pub fn run(args: &Verify, out: &mut Output) -> Result<ExitCode> {
    let wal = open::read_only(&args.path, out.is_json())?;
    let bar = progress::replicas("verifying", out.is_json());
    let report = wal.verify(|p| {
        bar.set_length(p.total);
        bar.set_position(p.replicas);
    });
    bar.finish_and_clear();
    let report = report?;
    let (path, lost_frames) = (args.path.display().to_string(), wal.stats().lost_frames);
    if out.is_json() {
        out.json(&json!({
            "path": path,
            "ok": report.is_clean(),
            "replicas": report.replicas,
            "entries": report.entries,
            "bytes": report.bytes,
            "lost_frames": lost_frames,
            "damage": report.damage.iter().map(as_json).collect::<Vec<_>>(),
            "structure": report.structure,
            "accounting": report.accounting,
        }))?;
    } else {
        show(&path, &report, lost_frames, out)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn show(path: &str, report: &VerifyReport, lost_frames: u64, out: &mut Output) -> Result<()> {
    let verdict = if report.is_clean() { out.styled(Style::Good, "sound") } else { out.styled(Style::Bad, "DAMAGED") };
    out.line(format_args!(
        "{verdict} {path}: {} replicas, {} entries, {} read back",
        count(report.replicas),
        count(report.entries),
        human(report.bytes)
    ))?;
    if lost_frames > 0 {
        out.line(format_args!("  {lost_frames} frames of the journal cannot be read"))?;
    }
    for damage in &report.damage {
        out.line(format_args!("  {damage}"))?;
    }
    for line in &report.structure {
        out.line(format_args!("  {line}; no data is lost"))?;
    }
    for line in &report.accounting {
        out.line(format_args!("  {line}; this is a bug in strandlog, please report it"))?;
    }
    Ok(())
}

/// Damage, for machines.
pub fn as_json(damage: &Damage) -> serde_json::Value {
    match damage.lost {
        Lost::Entries { first, last } => json!({ "replica": damage.replica, "entries": [first, last] }),
        Lost::State => json!({ "replica": damage.replica, "state": true }),
        _ => json!({ "replica": damage.replica, "what": damage.to_string() }),
    }
}
