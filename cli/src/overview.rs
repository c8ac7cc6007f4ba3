//! The space map: the whole file in a few rows of cells.

use strandlog::{ChunkUse, SpaceRun};

use crate::output::{Output, Style};

/// Cells per row.
const COLUMNS: u64 = 64;
/// Rows at most.
const ROWS: u64 = 8;

/// A part of the file, drawn as one character.
struct Cell {
    /// How many chunks of each kind it covers.
    counts: [u64; KINDS.len()],
}

/// How each kind is drawn: use, character, style, name in the legend.
const KINDS: [(ChunkUse, char, Option<Style>, &str); 6] = [
    (ChunkUse::Journal, '#', Some(Style::Journal), "journal"),
    (ChunkUse::JournalFree, '+', Some(Style::Journal), "journal, free"),
    (ChunkUse::Chain, '=', Some(Style::Chain), "chains"),
    (ChunkUse::Pinned, '!', Some(Style::Bad), "pinned"),
    (ChunkUse::Snapshot, '-', Some(Style::Dim), "snapshot"),
    (ChunkUse::Free, '.', Some(Style::Dim), "free"),
];

/// The rows of the map, and its legend.
pub fn draw(runs: &[SpaceRun], out: &Output) -> (Vec<String>, String) {
    let total: u64 = runs.iter().map(|r| r.chunks).sum();
    let per_cell = total.div_ceil(COLUMNS * ROWS).max(1);
    let cells = gather(runs, per_cell);
    let rows = cells.chunks(COLUMNS as usize).map(|row| row.iter().map(|cell| paint(cell, out)).collect()).collect();
    let legend: Vec<String> = KINDS
        .iter()
        .filter(|(kind, ..)| runs.iter().any(|r| r.used == *kind))
        .map(|&(_, c, style, name)| format!("{} {name}", styled(c, style, out)))
        .collect();
    let unit = if per_cell == 1 { "a chunk".to_owned() } else { format!("{per_cell} chunks") };
    (rows, format!("{}   (each is {unit})", legend.join("   ")))
}

/// Cuts the runs into cells of equally many chunks.
fn gather(runs: &[SpaceRun], per_cell: u64) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut filled = per_cell;
    for run in runs {
        let mut left = run.chunks;
        while left > 0 {
            if filled == per_cell {
                cells.push(Cell { counts: [0; KINDS.len()] });
                filled = 0;
            }
            let n = left.min(per_cell - filled);
            let kind = KINDS.iter().position(|(kind, ..)| *kind == run.used);
            if let (Some(cell), Some(kind)) = (cells.last_mut(), kind) {
                cell.counts[kind] += n;
            }
            filled += n;
            left -= n;
        }
    }
    cells
}

fn paint(cell: &Cell, out: &Output) -> String {
    // The most frequent kind except free: a cell with a little data must not look free.
    let (_, c, style, _) = KINDS
        .iter()
        .zip(cell.counts)
        .filter(|((kind, ..), n)| *n > 0 && *kind != ChunkUse::Free)
        .max_by_key(|(_, n)| *n)
        .map_or(KINDS[KINDS.len() - 1], |(kind, _)| *kind);
    styled(c, style, out)
}

fn styled(c: char, style: Option<Style>, out: &Output) -> String {
    style.map_or_else(|| c.to_string(), |style| out.styled(style, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_in_one_cell_and_little_data_is_seen() {
        let run = |used, chunks| SpaceRun { used, chunks };
        let runs = [run(ChunkUse::Journal, 3), run(ChunkUse::Free, 10_000), run(ChunkUse::Chain, 1)];
        let cells = gather(&runs, 20);
        assert_eq!(cells.iter().flat_map(|c| c.counts).sum::<u64>(), 10_004);
        assert_eq!(cells.len(), 501);
        let out = Output::new(true);
        let (rows, legend) = draw(&runs, &out);
        assert_eq!(rows.len(), 8);
        assert!(rows[0].starts_with("#."));
        assert!(rows[7].ends_with('='));
        assert!(legend.contains("each is 20 chunks"), "{legend}");
    }
}
