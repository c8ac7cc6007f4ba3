//! The picture: how many times better than the better of raft-engine's two set-ups, a bar a row.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Race, short};

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const AHEAD: RGBColor = RGBColor(0x1f, 0x7a, 0x5c);
const BEHIND: RGBColor = RGBColor(0xc4, 0x5a, 0x2c);
const LINE: i32 = 30;
const LEFT: i32 = 250;
const WIDTH: i32 = 900;
const TOP: i32 = 64;

/// Which figure stands for a row, the best first.
const FIGURES: [&str; 3] = ["per s", "scan per s", "open ms"];

pub fn draw(race: &Race, path: &Path) {
    let bars: Vec<(String, f64, String)> = race
        .rows
        .iter()
        .flat_map(|row| {
            FIGURES.into_iter().filter_map(move |figure| {
                let (ratio, _, _) = row.ratio(figure)?;
                let ours = row.store("strandlog")?.median(figure)?;
                Some((format!("{}: {figure}", row.row), ratio, short(ours)))
            })
        })
        .collect();
    let height = TOP + LINE * bars.len() as i32 + 30;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE).expect("drawn");
    // Logarithmic, from a quarter to what the best bar needs.
    let most = bars.iter().map(|b| b.1).fold(4.0, f64::max).log2().ceil();
    let x = |ratio: f64| LEFT + ((ratio.max(0.25).log2() + 2.0) / (most + 2.0) * f64::from(WIDTH - LEFT - 110)) as i32;
    let font = |size: i32| ("sans-serif", size).into_font();
    let text = |words: &str, at: (i32, i32), size: i32, h: HPos| {
        let style = font(size).color(&INK).pos(Pos::new(h, VPos::Center));
        root.draw(&Text::new(words.to_owned(), at, style)).expect("drawn");
    };
    text("strandlog beside raft-engine (the better of its two set-ups): times better", (16, 22), 17, HPos::Left);
    for power in -2..=most as i32 {
        let at = x(2_f64.powi(power));
        let style = if power == 0 { INK.stroke_width(1) } else { FAINT.stroke_width(1) };
        root.draw(&PathElement::new(vec![(at, TOP - 8), (at, height - 24)], style)).expect("drawn");
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { format!("{}x", 1 << power) };
        text(&label, (at, TOP - 18), 13, HPos::Center);
    }
    for (i, (name, ratio, ours)) in bars.iter().enumerate() {
        let y = TOP + LINE * i as i32 + LINE / 2;
        let (from, to) = if *ratio >= 1.0 { (x(1.0), x(*ratio)) } else { (x(*ratio), x(1.0)) };
        let colour = if *ratio >= 1.0 { AHEAD } else { BEHIND };
        root.draw(&Rectangle::new([(from, y - 9), (to.max(from + 1), y + 9)], colour.filled())).expect("drawn");
        text(name, (LEFT - 12, y), 14, HPos::Right);
        text(&format!("{ratio:.2}x ({ours})"), (to.max(x(1.0)) + 8, y), 13, HPos::Left);
    }
    root.present().expect("written");
}
