//! The map as a picture: SVG, for browsers and documents.

use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Text, Title};

use super::model::{HOLDERS, Kind, Model, Total};
use super::{name, percent, subtitle};
use crate::size::{count, human};

/// The size of the picture, in its units.
const WIDTH: f64 = 1280.0;
const MARGIN: f64 = 48.0;
/// Where the map is in the picture: labels to its left, the legend to its right.
const MAP_LEFT: f64 = MARGIN + 68.0;
const MAP_TOP: f64 = 176.0;
const MAP_WIDTH: f64 = 768.0;
const MAP_HEIGHT: f64 = 720.0;
const LEGEND_LEFT: f64 = MAP_LEFT + MAP_WIDTH + 44.0;
const LEGEND_ROW: f64 = 38.0;
/// More cells than this are too small to see.
const MAX_CELLS: u64 = 16_384;
const MAX_COLUMNS: u64 = 192;
const MAX_CELL_SIDE: f64 = 30.0;
/// Shades between dead and alive: enough to see the difference, few enough that most neighbours look the same and are drawn as one.
const SHADES: f64 = 6.0;

const FONT: &str = "Inter, 'Segoe UI', 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif";
const PAPER: Colour = Colour(0xff, 0xff, 0xff);
const INK: Colour = Colour(0x1c, 0x23, 0x2e);
const PALE_INK: Colour = Colour(0x6b, 0x75, 0x85);
const RULE: Colour = Colour(0xe3, 0xe6, 0xeb);

const JOURNAL: Colour = Colour(0x2b, 0x34, 0x67);
const JOURNAL_DEAD: Colour = Colour(0xa9, 0xb1, 0xd8);
const JOURNAL_FREE: Colour = Colour(0xe0, 0xe4, 0xf6);
const OTHERS: Colour = Colour(0x9a, 0xa3, 0xaf);
const DYING: Colour = Colour(0xe9, 0xc9, 0xc4);
const PINNED: Colour = Colour(0xb4, 0x23, 0x18);
const SNAPSHOT: Colour = Colour(0x7a, 0x5c, 0xa8);
const FREE: Colour = Colour(0xf2, 0xf4, 0xf6);
/// A colour for each of the largest replicas. Most colour-blind people can tell them apart, too.
const HUES: [Colour; HOLDERS] = [
    Colour(0x00, 0x72, 0xb2),
    Colour(0xe6, 0x9f, 0x00),
    Colour(0x00, 0x9e, 0x73),
    Colour(0xd5, 0x5e, 0x00),
    Colour(0xcc, 0x79, 0xa7),
    Colour(0x56, 0xb4, 0xe9),
    Colour(0x8c, 0x6b, 0x3f),
    Colour(0xb5, 0xbd, 0x3c),
];

#[derive(Clone, Copy, PartialEq, Eq)]
struct Colour(u8, u8, u8);

impl Colour {
    fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// Mixes this share of `self` with `other`.
    fn mixed(self, other: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| (f64::from(a) * share + f64::from(b) * (1.0 - share)).round() as u8;
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }
}

fn colour(kind: Kind) -> Colour {
    match kind {
        Kind::Journal => JOURNAL,
        Kind::JournalFree => JOURNAL_FREE,
        Kind::Holder(rank) => HUES[rank % HUES.len()],
        Kind::Others => OTHERS,
        Kind::Dying => DYING,
        Kind::Pinned => PINNED,
        Kind::Snapshot => SNAPSHOT,
        Kind::Free => FREE,
    }
}

/// The hue of the kind, paler the more of it is dead, but never as pale as free chunks.
fn shade(kind: Kind, live: f64) -> Colour {
    const DEAD: f64 = 0.28;
    let dead = if kind == Kind::Journal { JOURNAL_DEAD } else { colour(kind).mixed(PAPER, DEAD) };
    colour(kind).mixed(dead, (live * SHADES).round() / SHADES)
}

/// How the file is cut for the picture.
struct Grid {
    per_cell: u64,
    columns: u64,
    rows: u64,
    side: f64,
}

impl Grid {
    /// The grid with the largest cells that fit. A segment fills whole rows, or a row holds whole segments, so that all segments look alike.
    fn of(model: &Model) -> Self {
        // A power of two, as is the number of chunks in a segment.
        let per_cell = model.chunks.div_ceil(MAX_CELLS).max(1).next_power_of_two();
        let cells = model.chunks.div_ceil(per_cell).max(1);
        let segment = (model.segment_bytes / model.chunk_bytes.max(1) / per_cell).max(1);
        let grid = |columns: u64| {
            let rows = cells.div_ceil(columns);
            let side = (MAP_WIDTH / columns as f64).min(MAP_HEIGHT / rows as f64).min(MAX_CELL_SIDE);
            Self { per_cell, columns, rows, side }
        };
        let whole = (1..=MAX_COLUMNS / segment).map(|k| k * segment);
        let halves = (0..8).map(|k| segment >> k);
        let fits = whole.chain(halves).filter(|&columns| columns > 0 && columns <= MAX_COLUMNS);
        let best = fits.map(grid).max_by(|a, b| a.side.total_cmp(&b.side));
        best.unwrap_or_else(|| grid(MAX_COLUMNS.min(cells)))
    }

    fn width(&self) -> f64 {
        self.side * self.columns as f64
    }

    fn height(&self) -> f64 {
        self.side * self.rows as f64
    }
}

/// Draws the file.
pub fn draw(model: &Model) -> String {
    let grid = Grid::of(model);
    let legend_height = LEGEND_ROW * (model.totals.len() as f64 + 1.0) + 100.0;
    let height = MAP_TOP + grid.height().max(legend_height) + MARGIN + 14.0;
    let document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", FONT)
        .set("font-size", 14)
        .set("fill", INK.hex())
        .add(rectangle(0.0, 0.0, WIDTH, height, PAPER))
        .add(heading(model))
        .add(share_bar(model))
        .add(map(model, &grid))
        .add(legend(model, &grid));
    document.to_string()
}

fn heading(model: &Model) -> Group {
    let file =
        std::path::Path::new(&model.path).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let facts = format!("{}  ·  {}", model.path, subtitle(model));
    Group::new()
        .add(text(file, MARGIN, 66.0).set("font-size", 30).set("font-weight", 700))
        .add(
            text(human(model.capacity), WIDTH - MARGIN, 66.0)
                .set("font-size", 30)
                .set("font-weight", 300)
                .set("text-anchor", "end"),
        )
        .add(text(shortened(&facts, 150), MARGIN, 92.0).set("fill", PALE_INK.hex()))
}

/// The whole file in one bar.
fn share_bar(model: &Model) -> Group {
    const TOP: f64 = 114.0;
    const HEIGHT: f64 = 26.0;
    /// A part wider than this has room for its share in figures.
    const LABELLED: f64 = 46.0;
    let width = WIDTH - 2.0 * MARGIN;
    let mut group = Group::new();
    let mut x = MARGIN;
    for total in &model.totals {
        let part = width * total.chunks as f64 / model.chunks.max(1) as f64;
        let live = total.live_bytes as f64 / (total.chunks * model.chunk_bytes).max(1) as f64;
        let shown = if total.kind.has_bytes() { live } else { 1.0 };
        let told = Title::new(format!("{}: {}", name(total.kind, model), percent(total.chunks, model.chunks)));
        group = group.add(
            Group::new().add(told).add(rectangle(x, TOP, part, HEIGHT, shade(total.kind, 0.0))).add(rectangle(
                x,
                TOP,
                part * shown,
                HEIGHT,
                shade(total.kind, 1.0),
            )),
        );
        // The label is on the live part if that is wide enough, or else on the dead part beside it.
        let (alive, dark) = (part * shown, total.kind.has_bytes());
        let label =
            if alive > LABELLED { Some((x, dark)) } else { (part - alive > LABELLED).then_some((x + alive, false)) };
        if let Some((at, dark)) = label {
            let ink = if dark { PAPER } else { INK };
            let share = text(percent(total.chunks, model.chunks), at + 9.0, TOP + 18.0).set("fill", ink.hex());
            group = group.add(share.set("font-size", 13).set("font-weight", 600));
        }
        x += part;
        if x < MARGIN + width - 1.0 {
            group = group.add(rectangle(x - 0.75, TOP, 1.5, HEIGHT, PAPER));
        }
    }
    group
}

/// The cells, with neighbours that look the same as one rectangle, and the lines between all cells.
fn map(model: &Model, grid: &Grid) -> Group {
    let cells = model.cells(grid.per_cell);
    let mut group = Group::new();
    let columns = usize::try_from(grid.columns).unwrap_or(usize::MAX);
    for (row, cells) in cells.chunks(columns).enumerate() {
        let y = MAP_TOP + row as f64 * grid.side;
        let looks: Vec<(Kind, Colour)> = cells.iter().map(|c| (c.kind, shade(c.kind, c.live))).collect();
        let mut x = MAP_LEFT;
        for run in looks.chunk_by(|a, b| a == b) {
            let width = run.len() as f64 * grid.side;
            let Some(&(kind, colour)) = run.first() else { continue };
            let cells = rectangle(x, y, width, grid.side, colour);
            group =
                if kind == Kind::Free { group.add(cells) } else { group.add(cells.add(Title::new(name(kind, model)))) };
            x += width;
        }
    }
    group.add(lines(grid)).add(offsets(model, grid))
}

fn lines(grid: &Grid) -> Group {
    let width = if grid.side > 10.0 { 1.4 } else { 0.8 };
    let mut group = Group::new().set("stroke", PAPER.hex()).set("stroke-width", width);
    for column in 0..=grid.columns {
        let x = MAP_LEFT + column as f64 * grid.side;
        group = group.add(line(x, MAP_TOP, x, MAP_TOP + grid.height()));
    }
    for row in 0..=grid.rows {
        let y = MAP_TOP + row as f64 * grid.side;
        group = group.add(line(MAP_LEFT, y, MAP_LEFT + grid.width(), y));
    }
    group
}

/// The offsets in the file at which some of the rows begin.
fn offsets(model: &Model, grid: &Grid) -> Group {
    const APART: f64 = 56.0;
    let step = ((APART / grid.side).ceil() as u64).max(1).next_power_of_two();
    let mut group = Group::new().set("fill", PALE_INK.hex()).set("font-size", 12).set("text-anchor", "end");
    for row in (0..grid.rows).step_by(usize::try_from(step).unwrap_or(1)) {
        let y = MAP_TOP + row as f64 * grid.side;
        let at = row * grid.columns * grid.per_cell * model.chunk_bytes;
        group = group.add(text(human(at), MAP_LEFT - 12.0, y + 10.0));
    }
    group
}

fn legend(model: &Model, grid: &Grid) -> Group {
    let right = WIDTH - MARGIN;
    let mut y = MAP_TOP + 8.0;
    let caption = |words: &str, x: f64| {
        text(words, x, MAP_TOP + 10.0).set("fill", PALE_INK.hex()).set("font-size", 12).set("text-anchor", "end")
    };
    let mut group = Group::new().add(caption("share", right - 66.0)).add(caption("alive", right));
    for total in &model.totals {
        y += LEGEND_ROW;
        group = group.add(legend_row(model, total, y, right));
    }
    y += 26.0;
    group = group.add(line(LEGEND_LEFT, y, right, y).set("stroke", RULE.hex()));
    y += 30.0;
    let scale = (0..=SHADES as u32).map(|i| f64::from(i) / SHADES);
    for (i, live) in scale.enumerate() {
        group = group.add(rectangle(LEGEND_LEFT + i as f64 * 22.0, y - 12.0, 20.6, 16.0, shade(Kind::Holder(0), live)));
    }
    group = group.add(
        text("dead to alive", LEGEND_LEFT + 22.0 * (SHADES + 1.0) + 10.0, y)
            .set("fill", PALE_INK.hex())
            .set("font-size", 13),
    );
    y += 30.0;
    let each = if grid.per_cell == 1 { "one chunk".into() } else { format!("{} chunks", count(grid.per_cell)) };
    let note = format!("Each cell is {each}, {}.", human(grid.per_cell * model.chunk_bytes));
    for words in [note.as_str(), "Read like a page: the file begins at the top left."] {
        group = group.add(text(words, LEGEND_LEFT, y).set("fill", PALE_INK.hex()).set("font-size", 13));
        y += 20.0;
    }
    group
}

fn legend_row(model: &Model, total: &Total, y: f64, right: f64) -> Group {
    let bytes = total.chunks * model.chunk_bytes;
    let mark =
        Circle::new().set("cx", LEGEND_LEFT + 8.0).set("cy", y - 5.0).set("r", 7).set("fill", colour(total.kind).hex());
    let mark = if total.kind == Kind::Free { mark.set("stroke", RULE.hex()) } else { mark };
    let sizes = format!("{} chunks, {}", count(total.chunks), human(bytes));
    let figure = |words: String, x: f64| text(words, x, y).set("text-anchor", "end").set("font-weight", 600);
    let mut group = Group::new()
        .add(mark)
        .add(text(shortened(&name(total.kind, model), 28), LEGEND_LEFT + 26.0, y - 6.0).set("font-weight", 600))
        .add(text(sizes, LEGEND_LEFT + 26.0, y + 10.0).set("font-size", 12).set("fill", PALE_INK.hex()))
        .add(figure(percent(total.chunks, model.chunks), right - 66.0));
    if total.kind.has_bytes() {
        group = group.add(figure(percent(total.live_bytes, bytes), right));
    }
    group
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, fill: Colour) -> Rectangle {
    let (x, y, width, height) = (rounded(x), rounded(y), rounded(width), rounded(height));
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height).set("fill", fill.hex())
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64) -> Line {
    Line::new().set("x1", rounded(x1)).set("y1", rounded(y1)).set("x2", rounded(x2)).set("y2", rounded(y2))
}

fn text(words: impl Into<String>, x: f64, y: f64) -> Text {
    Text::new(words).set("x", rounded(x)).set("y", rounded(y))
}

/// Rounded to hundredths, which are fine enough for the eye, and short.
fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// Cuts off the end of what is too long.
fn shortened(words: &str, most: usize) -> String {
    if words.chars().count() <= most {
        return words.into();
    }
    words.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_fit_the_picture_and_rows_hold_whole_segments() {
        let of = |capacity: u64, chunk: u64, segment: u64| {
            let model = Model {
                path: String::new(),
                capacity,
                chunk_bytes: chunk,
                segment_bytes: segment,
                chunks: capacity / chunk,
                ..Model::default()
            };
            (Grid::of(&model), model)
        };
        for (capacity, chunk, segment) in [
            (4 << 20, 4 << 10, 64 << 10),
            (64 << 20, 64 << 10, 1 << 20),
            (1 << 30, 64 << 10, 4 << 20),
            (10 << 30, 64 << 10, 4 << 20),
            (8 << 40, 4 << 20, 64 << 20),
            (8 << 40, 4 << 10, 64 << 20),
        ] {
            let (grid, model) = of(capacity, chunk, segment);
            let what = format!("{capacity} in {} x {} of {}", grid.columns, grid.rows, grid.side);
            assert!(grid.columns * grid.rows * grid.per_cell >= model.chunks, "{what}");
            assert!(grid.width() <= MAP_WIDTH + 0.1 && grid.height() <= MAP_HEIGHT + 0.1 && grid.side > 2.0, "{what}");
            let segment = (segment / chunk / grid.per_cell).max(1);
            assert!(grid.columns % segment == 0 || segment % grid.columns == 0, "{what}");
        }
    }

    #[test]
    fn a_name_with_markup_in_it_stays_a_name() {
        let model = Model { path: "/logs/<b>&\"x\".log".into(), ..Model::default() };
        let drawn = draw(&model);
        assert!(drawn.contains("&lt;b&gt;&amp;") && !drawn.contains("<b>"), "{drawn}");
    }
}
