//! Draws a bar for each row: how many times better strandlog is than the better of raft-engine's two set-ups.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Race, RowRuns, short};
use crate::rows;

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const AHEAD: RGBColor = RGBColor(0x1f, 0x7a, 0x5c);
const BEHIND: RGBColor = RGBColor(0xc4, 0x5a, 0x2c);
const LINE: i32 = 30;
const LEFT: i32 = 290;
const WIDTH: i32 = 960;
/// Width of the figures right of the bars: what both reached.
const FIGURES_WIDE: i32 = 230;
const TOP: i32 = 64;
/// The longest bar: a greater ratio ends here, with an arrow, so that the others can be told apart.
const LONGEST: f64 = 16.0;

/// Which figure stands for a row, the preferred one first, and its unit.
const FIGURES: [(&str, &str); 3] = [("per s", "/s"), ("scan per s", "/s"), ("open ms", " ms")];

struct Bar {
    title: String,
    ratio: f64,
    ours: String,
    theirs: String,
}

impl Bar {
    fn all(race: &Race) -> Vec<Self> {
        let of = |row: &RowRuns| {
            let (figure, unit) = FIGURES.into_iter().find(|(figure, _)| row.ratio(figure).is_some())?;
            let (ratio, ..) = row.ratio(figure)?;
            let said = |v: f64| format!("{}{unit}", short(v));
            let ours = said(row.store("strandlog")?.median(figure)?);
            let theirs = said(row.better_peer(figure)?.median(figure)?);
            let title = rows::find(&row.row).map_or_else(|| row.row.clone(), |r| r.title());
            Some(Self { title, ratio, ours, theirs })
        };
        race.rows.iter().filter_map(of).collect()
    }
}

pub fn draw(race: &Race, path: &Path) {
    let bars = Bar::all(race);
    let height = TOP + LINE * bars.len() as i32 + 30;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE).expect("drawn");
    // A logarithmic scale, from a half on.
    let wide = f64::from(WIDTH - LEFT - FIGURES_WIDE);
    let x = |ratio: f64| LEFT + ((ratio.clamp(0.5, LONGEST).log2() + 1.0) / (LONGEST.log2() + 1.0) * wide) as i32;
    let font = |size: i32| ("sans-serif", size).into_font();
    let text = |words: &str, at: (i32, i32), size: i32, h: HPos| {
        let style = font(size).color(&INK).pos(Pos::new(h, VPos::Center));
        root.draw(&Text::new(words.to_owned(), at, style)).expect("drawn");
    };
    text("How many times better than raft-engine, the better of its two set-ups", (16, 22), 17, HPos::Left);
    text("strandlog / raft-engine", (WIDTH - 12, TOP - 18), 13, HPos::Right);
    for power in -1..=LONGEST.log2() as i32 {
        let at = x(2_f64.powi(power));
        let style = if power == 0 { INK.stroke_width(1) } else { FAINT.stroke_width(1) };
        root.draw(&PathElement::new(vec![(at, TOP - 8), (at, height - 24)], style)).expect("drawn");
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { format!("{}x", 1 << power) };
        text(&label, (at, TOP - 18), 13, HPos::Center);
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = TOP + LINE * i as i32 + LINE / 2;
        let (one, end) = (x(1.0), x(bar.ratio));
        let colour = if bar.ratio >= 1.0 { AHEAD } else { BEHIND };
        let (from, to) = (one.min(end), one.max(end).max(one.min(end) + 1));
        root.draw(&Rectangle::new([(from, y - 9), (to, y + 9)], colour.filled())).expect("drawn");
        if bar.ratio > LONGEST {
            root.draw(&Polygon::new(vec![(to, y - 13), (to + 13, y), (to, y + 13)], colour.filled())).expect("drawn");
            let style = font(13).color(&WHITE).pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(format!("{:.0}x", bar.ratio), (to - 6, y), style)).expect("drawn");
        } else {
            text(&format!("{:.2}x", bar.ratio), (to + 8, y), 13, HPos::Left);
        }
        text(&bar.title, (LEFT - 12, y), 14, HPos::Right);
        text(&format!("{} / {}", bar.ours, bar.theirs), (WIDTH - 12, y), 13, HPos::Right);
    }
    root.present().expect("written");
}
