//! `strandlog map`: the file as a picture.

mod model;
mod picture;
mod terminal;

use serde_json::{Value, json};

use crate::args::Map;
use crate::failure::{Failure, Result};
use crate::output::{Output, Style};
use crate::size::{count, human};
use crate::{open, save};
use model::{Kind, Model};

/// Draws the map into the files asked for, or else on the terminal.
pub fn run(args: &Map, out: &mut Output) -> Result<()> {
    if args.svg.is_some() && args.svg == args.png {
        return Err(Failure::Request("--svg and --png name the same file".into()));
    }
    args.svg.iter().chain(&args.png).try_for_each(|path| save::check(path, args.force))?;
    let (wal, refusal) = open::even_if_refused(&args.path, out.is_json())?;
    if let Some(refusal) = &refusal {
        out.not_all_is_well();
        open::tell_refusal(&args.path, refusal);
    }
    let model = Model::of(&wal, &args.path);
    let mut written = Vec::new();
    if let Some(path) = &args.svg {
        save::save(path, picture::draw(&model).as_bytes(), args.force)?;
        written.push(path);
    }
    if let Some(path) = &args.png {
        save::save(path, &crate::png::render(&picture::draw(&model))?, args.force)?;
        written.push(path);
    }
    if out.is_json() {
        out.json(&as_json(&model))?;
        return Ok(());
    }
    if written.is_empty() {
        terminal::draw(&model, args.width, out)?;
    }
    for path in written {
        let done = out.styled(Style::Good, "drawn");
        out.line(format_args!("{done} {}", path.display()))?;
    }
    Ok(())
}

/// The name of a kind, for people.
fn name(kind: Kind, model: &Model) -> String {
    match kind {
        Kind::Journal => "journal".into(),
        Kind::JournalFree => "journal, free".into(),
        Kind::Holder(rank) => model.holders.get(rank).map_or_else(String::new, |h| format!("replica {}", h.replica)),
        Kind::Others => match model.other_holders {
            1 => "1 other replica".into(),
            n => format!("{} other replicas", count(n)),
        },
        Kind::Dying => "dead, not free yet".into(),
        Kind::Pinned => "dead, held by a reader".into(),
        Kind::Snapshot => "snapshot of the index".into(),
        Kind::Free => "free".into(),
    }
}

/// A share, for people. Only nothing is called 0 %.
fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    match share {
        s if part > 0 && s < 0.1 => "<0.1 %".into(),
        s if s < 10.0 => format!("{s:.1} %"),
        s => format!("{s:.0} %"),
    }
}

/// The file in one line.
fn subtitle(model: &Model) -> String {
    format!(
        "chunks of {}, journal segments of {}, {} replicas",
        human(model.chunk_bytes),
        human(model.segment_bytes),
        count(model.replicas),
    )
}

fn as_json(model: &Model) -> Value {
    let totals: Vec<Value> = model
        .totals
        .iter()
        .map(|t| {
            let replica = match t.kind {
                Kind::Holder(rank) => model.holders.get(rank).map(|h| h.replica),
                _ => None,
            };
            json!({ "kind": t.kind.id(), "replica": replica, "chunks": t.chunks, "live_bytes": t.live_bytes })
        })
        .collect();
    let stretches: Vec<Value> = model
        .stretches
        .iter()
        .map(|s| {
            json!({
                "used": format!("{:?}", s.used).to_lowercase(), "chunks": s.chunks, "replica": s.replica,
                "live_bytes": s.live_bytes,
            })
        })
        .collect();
    json!({
        "path": model.path, "capacity": model.capacity, "chunk_size": model.chunk_bytes,
        "segment_size": model.segment_bytes, "replicas": model.replicas, "totals": totals, "layout": stretches,
    })
}
