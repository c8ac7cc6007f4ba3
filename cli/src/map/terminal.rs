//! The map in the terminal: one character per cell.

use super::model::{Cell, Kind, Model};
use super::{name, percent, subtitle};
use crate::failure::Result;
use crate::output::{Output, Style};
use crate::size::{count, human};

/// Width if the terminal does not say its own.
const COLUMNS: u64 = 80;
const LEAST_COLUMNS: u64 = 20;
const MOST_COLUMNS: u64 = 160;
/// The most rows, so that the map and its legend fit a screen.
const ROWS: u64 = 16;
/// Width of the offset in the file, before each row.
const GUTTER: u64 = 12;

/// Hues of the largest replicas, from the 256 colours.
const HUES: [u8; super::model::HOLDERS] = [33, 214, 36, 176, 166, 117, 227, 99];

/// Draws the map and its legend.
pub fn draw(model: &Model, width: Option<u16>, out: &mut Output) -> Result<()> {
    let screen =
        width.map(u64::from).or_else(|| console::Term::stdout().size_checked().map(|(_, columns)| columns.into()));
    let columns = screen.unwrap_or(COLUMNS).saturating_sub(GUTTER + 1).clamp(LEAST_COLUMNS, MOST_COLUMNS);
    let per_cell = model.chunks.div_ceil(columns * ROWS).max(1);
    let title = out.styled(Style::Bold, &model.path);
    out.line(format_args!("{title}\n  {}, {}\n", human(model.capacity), subtitle(model)))?;
    let mut at = 0;
    for row in model.cells(per_cell).chunks(usize::try_from(columns).unwrap_or(usize::MAX)) {
        let offset = out.styled(Style::Dim, format_args!("{:>10}", human(at * model.chunk_bytes)));
        let line: String = row.iter().map(|cell| paint(cell, out)).collect();
        out.line(format_args!("{offset}  {line}"))?;
        at += per_cell * row.len() as u64;
    }
    let each = if per_cell == 1 { "one chunk".into() } else { format!("{} chunks", count(per_cell)) };
    let shades = if out.has_colours() {
        "paler: more of it is dead"
    } else {
        "small letters, `-`: more than half of it is dead"
    };
    let note = out.styled(
        Style::Dim,
        format_args!("each character is {each}, {}; {shades}", human(per_cell * model.chunk_bytes)),
    );
    out.line(format_args!("\n  {note}\n"))?;
    legend(model, out)
}

fn legend(model: &Model, out: &mut Output) -> Result<()> {
    let head = format!("  {:28} {:>12} {:>11} {:>7} {:>7}", "", "chunks", "bytes", "share", "alive");
    let head = out.styled(Style::Dim, head.trim_end());
    out.line(format_args!("{head}"))?;
    for t in &model.totals {
        let mark = paint(&Cell { kind: t.kind, live: 1.0 }, out);
        let bytes = t.chunks * model.chunk_bytes;
        let alive = if t.kind.has_bytes() { percent(t.live_bytes, bytes) } else { String::new() };
        let line = format!(
            "{:26} {:>12} {:>11} {:>7} {alive:>7}",
            name(t.kind, model),
            count(t.chunks),
            human(bytes),
            percent(t.chunks, model.chunks),
        );
        out.line(format_args!("  {mark} {}", line.trim_end()))?;
    }
    Ok(())
}

/// One cell: a coloured block, the fuller the more of it is alive. Without colours, a letter that says whose it is.
fn paint(cell: &Cell, out: &Output) -> String {
    if !out.has_colours() {
        return plain(cell).to_string();
    }
    let block = match cell.live {
        live if live >= 0.75 => '█',
        live if live >= 0.5 => '▓',
        live if live >= 0.25 => '▒',
        _ => '░',
    };
    match cell.kind {
        Kind::Journal => out.styled(Style::Journal, block),
        Kind::JournalFree => out.styled(Style::Journal, '▁'),
        Kind::Holder(rank) => out.styled(Style::Hue(HUES[rank % HUES.len()]), block),
        Kind::Others => out.styled(Style::Hue(248), block),
        Kind::Dying => out.styled(Style::Bad, '░'),
        Kind::Pinned => out.styled(Style::Bad, '▒'),
        Kind::Snapshot => out.styled(Style::Hue(97), '▒'),
        Kind::Free => out.styled(Style::Dim, '·'),
    }
}

fn plain(cell: &Cell) -> char {
    let alive = cell.live >= 0.5;
    match cell.kind {
        Kind::Journal if alive => '#',
        Kind::Journal => '-',
        Kind::JournalFree => '_',
        Kind::Holder(rank) => {
            // There are eight letters, so the cast cannot truncate.
            let letter = b'A' + (rank % HUES.len()) as u8;
            char::from(if alive { letter } else { letter.to_ascii_lowercase() })
        }
        Kind::Others if alive => 'O',
        Kind::Others => 'o',
        Kind::Dying => 'x',
        Kind::Pinned => '!',
        Kind::Snapshot => '+',
        Kind::Free => '.',
    }
}
