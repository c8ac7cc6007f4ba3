//! `strandlog verify`

use serde_json::{Value, json};
use strandlog::{ChunkUse, CutFile, Damage, Lost, VerifyReport, Wal};

use crate::args::Verify;
use crate::failure::Result;
use crate::output::{Output, Style, holes};
use crate::size::{count, human};
use crate::{open, progress};

/// Said of losses that cannot be attributed to a replica.
pub const UNNAMED: &str = "replicas may be missing that nobody can name: compare with what the store knows of";

/// Said of a log that was closed, and whose journal has lost something since.
pub const BY_SNAPSHOT: &str = "it was closed, and its snapshot may know what the journal has lost, but only an opening for writing reads that: before a salvage, open a copy \
of the file; where that opens without damage, so does the log: open it, and scrub it at once, as a crash would lose what rotted";

/// Whether the log has the snapshot of its index that a close leaves.
pub fn has_snapshot(wal: &Wal) -> bool {
    wal.space_map().iter().any(|run| run.used == ChunkUse::Snapshot)
}

/// Reads everything back and says what is wrong. If the log does not open, says why, and what a salvage would find.
pub fn run(args: &Verify, out: &mut Output) -> Result<()> {
    let (wal, refusal) = open::even_if_refused(&args.path, out.is_json())?;
    let bar = progress::replicas("verifying", out.is_json());
    let report = wal.verify(|p| {
        bar.set_length(p.total);
        bar.set_position(p.replicas);
    });
    bar.finish_and_clear();
    let (report, stats) = (report?, wal.stats());
    let refused = refusal.map(|error| error.to_string());
    let verified = Verified {
        path: args.path.display().to_string(),
        ok: refused.is_none() && stats.lost_frames == 0 && report.is_clean(),
        refused,
        lost_frames: stats.lost_frames,
        unnamed: stats.unnamed_losses > 0,
        hole_bytes: stats.disk.map_or(0, |disk| disk.hole_bytes),
        snapshot: has_snapshot(&wal),
        report,
    };
    if !verified.ok {
        out.not_all_is_well();
    }
    if out.is_json() { out.json(&verified.as_json()) } else { verified.show(out) }
}

/// The result for a log.
struct Verified {
    path: String,
    ok: bool,
    /// Why it does not open.
    refused: Option<String>,
    lost_frames: u64,
    /// Replicas may be missing whose names are unknown.
    unnamed: bool,
    /// Not damage, but writes to the log may fail for want of space.
    hole_bytes: u64,
    /// The log was closed, and opens by its snapshot if that is whole.
    snapshot: bool,
    report: VerifyReport,
}

impl Verified {
    fn as_json(&self) -> Value {
        let report = &self.report;
        json!({
            "path": self.path,
            "ok": self.ok,
            "refused": self.refused,
            "replicas": report.replicas,
            "entries": report.entries,
            "bytes": report.bytes,
            "lost_frames": self.lost_frames,
            "rotten_frames": report.rotten_frames,
            "unnamed": self.unnamed,
            "hole_bytes": self.hole_bytes,
            "snapshot": self.snapshot,
            "damage": report.damage.iter().map(as_json).collect::<Vec<_>>(),
            "unreadable": report.unreadable.iter().map(as_json).collect::<Vec<_>>(),
            "structure": report.structure,
            "cut": report.cut.map(cut_as_json),
            "accounting": report.accounting,
        })
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        let report = &self.report;
        let verdict = if self.ok { out.styled(Style::Good, "sound") } else { out.styled(Style::Bad, "DAMAGED") };
        out.line(format_args!(
            "{verdict} {}: {} replicas, {} entries, {} read back",
            self.path,
            count(report.replicas),
            count(report.entries),
            human(report.bytes)
        ))?;
        if let Some(why) = &self.refused {
            out.line(format_args!("  it does not open: {why}"))?;
            out.line(format_args!("  what was read back is what `strandlog salvage` would save"))?;
        }
        if self.snapshot && report.cut.is_none() && (self.refused.is_some() || self.lost_frames > 0) {
            out.line(format_args!("  {BY_SNAPSHOT}"))?;
        }
        if self.unnamed {
            out.line(format_args!("  {UNNAMED}"))?;
        }
        if self.lost_frames > 0 {
            out.line(format_args!("  {} frames of the journal cannot be read", self.lost_frames))?;
        }
        // `rotten_frames` also counts those that the opening could not read.
        if report.rotten_frames > self.lost_frames {
            out.line(format_args!("  {} frames of the journal rotted", report.rotten_frames))?;
        }
        if let Some(holes) = holes(self.hole_bytes) {
            out.line(format_args!("  {holes}"))?;
        }
        for damage in &report.damage {
            out.line(format_args!("  {damage}"))?;
        }
        for Damage { replica, lost } in &report.unreadable {
            let what = match lost {
                Lost::Entries { first, last } => format!("entries {first}..={last}"),
                _ => "a value of its keyed state".to_owned(),
            };
            out.line(format_args!(
                "  replica {replica}: {what} cannot be read: the device fails there, and a salvage takes that for lost"
            ))?;
        }
        for line in &report.structure {
            out.line(format_args!("  {line}; no data is lost"))?;
        }
        for line in &report.accounting {
            out.line(format_args!("  {line}; this is a bug in strandlog, please report it"))?;
        }
        Ok(())
    }
}

/// A file that was cut, for machines.
pub fn cut_as_json(cut: CutFile) -> Value {
    json!({ "file_bytes": cut.file_bytes, "log_bytes": cut.log_bytes })
}

/// Damage, for machines.
pub fn as_json(damage: &Damage) -> Value {
    match damage.lost {
        Lost::Entries { first, last } => json!({ "replica": damage.replica, "entries": [first, last] }),
        Lost::State => json!({ "replica": damage.replica, "state": true }),
        _ => json!({ "replica": damage.replica, "what": damage.to_string() }),
    }
}
