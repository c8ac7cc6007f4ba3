//! `strandlog info`

use serde_json::{Value, json};
use strandlog::{Stats, Wal};

use crate::args::Info;
use crate::failure::Result;
use crate::output::{Output, Style, hex, holes};
use crate::size::{count, human};
use crate::{open, overview, verify};

/// A replica in the list.
struct Row {
    id: u64,
    first: u64,
    last: u64,
    journal: u64,
    chain: u64,
    keys: u64,
    damaged: bool,
}

impl Row {
    fn entries(&self) -> u64 {
        self.last.wrapping_add(1).wrapping_sub(self.first)
    }

    fn bytes(&self) -> u64 {
        self.journal + self.chain
    }
}

/// Shows the log.
pub fn run(args: &Info, out: &mut Output) -> Result<()> {
    let (wal, refusal) = open::even_if_refused(&args.path, out.is_json())?;
    let stats = wal.stats();
    let rows = rows(&wal);
    if refusal.is_some() || stats.lost_frames > 0 || !wal.damage().is_empty() {
        out.not_all_is_well();
    }
    let refused = refusal.map(|error| error.to_string());
    if out.is_json() {
        out.json(&as_json(&wal, &stats, &rows, refused.as_deref(), args))?;
        return Ok(());
    }
    let title = out.styled(Style::Bold, args.path.display());
    out.line(format_args!("{title}"))?;
    if let Some(why) = &refused {
        let why = out.styled(Style::Bad, format_args!("does not open: {why}"));
        out.fact("REFUSED", why)?;
        out.fact("", "what follows is what `strandlog salvage` would save")?;
    }
    facts(&wal, &stats, &rows, out)?;
    damage(&wal, &stats, refused.is_some(), out)?;
    let (cells, legend) = overview::draw(&wal.space_map(), out);
    out.line(format_args!(""))?;
    for row in cells {
        out.line(format_args!("  {row}"))?;
    }
    out.line(format_args!("  {legend}"))?;
    largest(&rows, args.top, out)?;
    Ok(())
}

/// Every replica, the largest first.
fn rows(wal: &Wal) -> Vec<Row> {
    let row = |id| {
        let replica = wal.replica(id);
        let ((first, last), usage) = (replica.bounds(), replica.usage());
        let damaged = !replica.damage().is_empty();
        // The callers' keys only, as everywhere else: the log has keys of its own beside them.
        let keys = replica.keys().len() as u64;
        let journal = usage.journal_bytes + usage.key_bytes;
        Row { id, first, last, journal, chain: usage.chain_bytes, keys, damaged }
    };
    let mut rows: Vec<Row> = wal.replicas().into_iter().map(row).collect();
    rows.sort_by_key(|r| (std::cmp::Reverse(r.bytes()), r.id));
    rows
}

fn facts(wal: &Wal, s: &Stats, rows: &[Row], out: &mut Output) -> Result<()> {
    out.fact("identity", hex(&wal.uuid()))?;
    out.fact(
        "file",
        format_args!("{}, chunks of {}, segments of {}", file_size(s), human(s.chunk_size), human(s.segment_size)),
    )?;
    if let Some(holes) = holes(hole_bytes(s)) {
        let holes = out.styled(Style::Bad, holes);
        out.fact("holes", holes)?;
    }
    out.fact(
        "journal",
        format_args!(
            "{} of {} segments hold something; it may grow to {} ({})",
            s.journal_segments - s.free_segments,
            s.journal_segments,
            s.journal_cap_segments,
            human(s.journal_cap_segments * s.segment_size),
        ),
    )?;
    let used = s.used_chunks + s.pinned_chunks;
    out.fact(
        "chains",
        format_args!(
            "{} of {} chunks in use ({}), {} more held back for what is in the journal, {} for a large value",
            count(used),
            count(s.chunks),
            percent(used, s.chunks),
            count(s.reserved_chunks - s.reserved_for_values),
            count(s.reserved_for_values),
        ),
    )?;
    let metadata = percent(s.carried_class_bytes, s.carried_class_limit);
    out.fact(
        "metadata",
        format_args!("{} with small replicas, {metadata} of the bound", human(s.carried_class_bytes)),
    )?;
    let entries: u64 = rows.iter().map(Row::entries).fold(0, u64::saturating_add);
    let bytes: u64 = rows.iter().map(Row::bytes).sum();
    out.fact("replicas", format_args!("{}, {} entries, {}", count(s.replicas), count(entries), human(bytes)))?;
    out.fact("durable", format_args!("up to LSN {}", s.durable_lsn))?;
    if s.used_up > 0 {
        let what = "no number is left for what would be written next, so nothing more is: `strandlog salvage` copies it into a new one";
        let what = out.styled(Style::Bad, what);
        out.fact("USED UP", what)?;
    }
    out.fact(
        "opened",
        format_args!("in {:.1} ms, {} frames", s.recovery_micros as f64 / 1000.0, count(s.recovered_frames)),
    )
}

fn hole_bytes(s: &Stats) -> u64 {
    s.disk.map_or(0, |disk| disk.hole_bytes)
}

/// The size of the file, and how much of it the log uses.
fn file_size(s: &Stats) -> String {
    let file = human(s.file_bytes);
    if s.file_bytes > s.capacity {
        let used = human(s.capacity);
        return format!("{file}, of which {used} in use: growing was interrupted; `strandlog grow` again");
    }
    if s.file_bytes < s.capacity {
        return format!("{file} of {}: it is CUT, and the rest is lost", human(s.capacity));
    }
    file
}

fn damage(wal: &Wal, s: &Stats, refused: bool, out: &mut Output) -> Result<()> {
    let damage = wal.damage();
    if s.unnamed_losses > 0 {
        let unnamed = out.styled(Style::Bad, verify::UNNAMED);
        out.fact("lost", unnamed)?;
    }
    if damage.is_empty() && s.lost_frames == 0 && refused {
        let why = if s.file_bytes < s.capacity { "the file is cut" } else { "the log does not open" };
        let unseen = out.styled(Style::Bad, "not looked for");
        return out.fact("damage", format_args!("{unseen}: {why} (verify reads what is left)"));
    }
    if damage.is_empty() && s.lost_frames == 0 {
        let none = out.styled(Style::Good, "none known");
        return out.fact("damage", format_args!("{none} (verify reads everything)"));
    }
    let some = out.styled(Style::Bad, format_args!("{} places, {} frames lost", damage.len(), s.lost_frames));
    out.fact("damage", some)?;
    for d in damage.iter().take(10) {
        out.line(format_args!("              {d}"))?;
    }
    Ok(())
}

fn largest(rows: &[Row], top: usize, out: &mut Output) -> Result<()> {
    if rows.is_empty() || top == 0 {
        return Ok(());
    }
    let head = format!(
        "  {:>20} {:>12} {:>12} {:>12} {:>11} {:>11} {:>5}",
        "replica", "entries", "first", "last", "journal", "chain", "keys"
    );
    let head = out.styled(Style::Dim, head);
    out.line(format_args!("\n{head}"))?;
    for r in rows.iter().take(top) {
        let note = if r.damaged { out.styled(Style::Bad, "  damaged") } else { String::new() };
        out.line(format_args!(
            "  {:>20} {:>12} {:>12} {:>12} {:>11} {:>11} {:>5}{note}",
            r.id,
            count(r.entries()),
            r.first,
            r.last,
            human(r.journal),
            human(r.chain),
            r.keys
        ))?;
    }
    if rows.len() > top {
        let more = out.styled(Style::Dim, format_args!("and {} more", count((rows.len() - top) as u64)));
        out.line(format_args!("  {more:>20}"))?;
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "0%".into() } else { format!("{:.0}%", part as f64 * 100.0 / whole as f64) }
}

fn as_json(wal: &Wal, s: &Stats, rows: &[Row], refused: Option<&str>, args: &Info) -> Value {
    let space: Vec<Value> =
        wal.space_map().iter().map(|r| json!([format!("{:?}", r.used).to_lowercase(), r.chunks])).collect();
    let largest: Vec<Value> = rows
        .iter()
        .take(args.top)
        .map(|r| {
            json!({
                "replica": r.id, "first": r.first, "last": r.last, "entries": r.entries(),
                "journal_bytes": r.journal, "chain_bytes": r.chain, "keys": r.keys, "damaged": r.damaged,
            })
        })
        .collect();
    json!({
        "path": args.path.display().to_string(),
        "refused": refused,
        "cut": (s.file_bytes < s.capacity).then(|| json!({ "file_bytes": s.file_bytes, "log_bytes": s.capacity })),
        "uuid": hex(&wal.uuid()),
        "capacity": s.capacity,
        "file_bytes": s.file_bytes,
        "hole_bytes": hole_bytes(s),
        "chunk_size": s.chunk_size,
        "segment_size": s.segment_size,
        "journal": {
            "segments": s.journal_segments, "free_segments": s.free_segments, "cap_segments": s.journal_cap_segments,
        },
        "chunks": {
            "total": s.chunks, "free": s.free_chunks, "used": s.used_chunks, "pinned": s.pinned_chunks,
            "reserved": s.reserved_chunks, "reserved_for_values": s.reserved_for_values,
        },
        "metadata": { "bytes": s.carried_class_bytes, "limit": s.carried_class_limit },
        "replicas": s.replicas,
        "entries": rows.iter().map(Row::entries).fold(0, u64::saturating_add),
        "durable_lsn": s.durable_lsn,
        "used_up": s.used_up > 0,
        "recovery": {
            "micros": s.recovery_micros, "frames": s.recovered_frames, "lost_frames": s.lost_frames,
            "dropped_frames": s.dropped_frames, "unnamed": s.unnamed_losses > 0,
        },
        "damage": wal.damage().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "space": space,
        "largest": largest,
    })
}
