//! The plots of the report, each as SVG.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::disk::{Notes, class_bytes};
use super::run::{Outcome, Sample};
use crate::measure::{Latencies, micros};
use crate::size::{count, human};

/// A plot: its title, a note on its axes, and the drawing.
pub struct Plot {
    pub title: String,
    pub note: String,
    pub svg: String,
    /// Colours, and what each stands for.
    pub legend: Vec<(RGBColor, &'static str)>,
}

const SIZE: (u32, u32) = (640, 320);
const INK: RGBColor = RGBColor(0x4a, 0x54, 0x63);
const RULE: RGBColor = RGBColor(0xe3, 0xe6, 0xeb);
pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
pub const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
pub const GREY: RGBColor = RGBColor(0x9a, 0xa3, 0xaf);
pub const INDIGO: RGBColor = RGBColor(0x2b, 0x34, 0x67);
const LINE: u32 = 2;
/// About how many labels an axis has.
const LABELS: usize = 6;
const FONT: (&str, u32) = ("sans-serif", 13);

type Failed = DrawingAreaErrorKind<std::io::Error>;
type Drawn = Result<(), Failed>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into a string; a failure is said in place of the drawing.
fn svg(draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut out = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        draw(&area).and_then(|()| area.present())
    };
    match drawn {
        Ok(()) => out,
        Err(error) => format!("<p>not drawn: {error}</p>"),
    }
}

/// An axis: its range, the text of its labels, and about how many there are.
struct Axis<'l, R: AsRangedCoord> {
    range: R,
    label: &'l dyn Fn(&R::Value) -> String,
    labels: usize,
}

fn axis<R: AsRangedCoord>(range: R, label: &dyn Fn(&R::Value) -> String) -> Axis<'_, R> {
    Axis { range, label, labels: LABELS }
}

type Plane<'a, 'b, X, Y> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<<X as AsRangedCoord>::CoordDescType, <Y as AsRangedCoord>::CoordDescType>,
>;

/// Axes, labels and lines for both.
fn axes<'a, 'b, X, Y>(area: &'a Area<'b>, x: Axis<'_, X>, y: Axis<'_, Y>) -> Result<Plane<'a, 'b, X, Y>, Failed>
where
    X: AsRangedCoord,
    Y: AsRangedCoord,
    X::CoordDescType: ValueFormatter<X::Value>,
    Y::CoordDescType: ValueFormatter<Y::Value>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(34)
        .y_label_area_size(78)
        .build_cartesian_2d(x.range, y.range)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE)
        .axis_style(RULE)
        .x_labels(x.labels)
        .y_labels(y.labels)
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(FONT.into_font().color(&INK))
        .draw()?;
    Ok(chart)
}

/// A scale on which the tail has room: 1 if one in ten takes longer, 2 if one in a hundred does, 3 for one in a thousand, and so on.
fn nines(share: f64) -> f64 {
    -(1.0 - share.clamp(0.0, 1.0 - 1e-9)).log10()
}

/// Latencies of the commits, and of the device's writes below them.
pub fn latency(o: &Outcome) -> Plot {
    let (commits, writes) = (o.latencies.curve(), o.notes.writes.curve());
    let all = || commits.iter().chain(&writes);
    let low = all().map(|p| p.0).fold(f64::MAX, f64::min).clamp(0.1, 1e6);
    let high = all().map(|p| p.0).fold(low * 10.0, f64::max);
    let top = all().map(|p| nines(p.1)).fold(2.0, f64::max).ceil();
    let drawing = svg(|area| {
        let percent = |v: &f64| match *v {
            v if v < 0.01 => "0 %".to_owned(),
            v => {
                let digits = (v - 2.0).max(0.0).ceil() as usize;
                format!("{:.digits$} %", 100.0 * (1.0 - 10_f64.powf(-v)))
            }
        };
        let mut chart = axes(
            area,
            axis((low..high * 1.2).log_scale(), &|us: &f64| short(*us)),
            // A line for each nine.
            Axis { range: 0.0..top, label: &percent, labels: top as usize + 1 },
        )?;
        for (curve, colour) in [(&writes, GREY), (&commits, BLUE)] {
            let points = curve.iter().map(|&(us, share)| (us, nines(share)));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(LINE)))?;
        }
        Ok(())
    });
    let mut legend = vec![(BLUE, "commit")];
    if !writes.is_empty() {
        legend.push((GREY, "write to the device"));
    }
    Plot { title: "Latency".into(), note: "the share that took no longer, in nines".into(), svg: drawing, legend }
}

/// Throughput over time.
pub fn throughput(o: &Outcome, unit: &str) -> Plot {
    let points: Vec<(f64, f64)> = o.samples.iter().map(|s| (s.at, rate(s))).collect();
    let drawing = svg(|area| {
        let mut chart = axes(area, axis(time(o), &seconds), axis(up_to(&points), &|v: &f64| count(*v as u64)))?;
        chart.draw_series(
            AreaSeries::new(points.iter().copied(), 0.0, BLUE.mix(0.15)).border_style(BLUE.stroke_width(LINE)),
        )?;
        Ok(())
    });
    Plot { title: format!("Throughput, {unit} a second"), note: "over time".into(), svg: drawing, legend: vec![] }
}

/// Latencies over time.
pub fn latency_over_time(o: &Outcome) -> Plot {
    let of = |pick: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        o.samples.iter().filter(|s| s.items > 0).map(|s| (s.at, pick(s).max(0.1))).collect()
    };
    let (p50, p99) = (of(|s| s.p50), of(|s| s.p99));
    let all = || p50.iter().chain(&p99).map(|p| p.1);
    let low = all().fold(f64::MAX, f64::min).clamp(0.1, 1e6);
    let high = all().fold(low * 10.0, f64::max);
    let drawing = svg(|area| {
        let mut chart =
            axes(area, axis(time(o), &seconds), axis((low * 0.8..high * 1.2).log_scale(), &|us: &f64| short(*us)))?;
        for (points, colour) in [(&p50, BLUE), (&p99, ORANGE)] {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(LINE)))?;
        }
        Ok(())
    });
    Plot {
        title: "Commit latency".into(),
        note: "over time".into(),
        svg: drawing,
        legend: vec![(BLUE, "p50"), (ORANGE, "p99")],
    }
}

/// Sizes of the commits.
pub fn commit_sizes(notes: &Notes) -> Plot {
    let total = notes.frames().max(1) as f64;
    let last = notes.sizes.iter().rposition(|n| *n > 0).unwrap_or(0);
    let bars: Vec<(usize, f64)> =
        notes.sizes.iter().take(last + 1).enumerate().map(|(i, n)| (i, *n as f64 * 100.0 / total)).collect();
    let highest = bars.iter().map(|b| b.1).fold(1.0, f64::max);
    let drawing = svg(|area| {
        let class = |i: &SegmentValue<i32>| match i {
            SegmentValue::CenterOf(i) | SegmentValue::Exact(i) => human(class_bytes(usize::try_from(*i).unwrap_or(0))),
            SegmentValue::Last => String::new(),
        };
        let columns = i32::try_from(bars.len()).unwrap_or(i32::MAX);
        let mut chart = axes(
            area,
            Axis { range: (0..columns.max(4) - 1).into_segmented(), label: &class, labels: bars.len() },
            axis(0.0..highest * 1.08, &|v: &f64| format!("{v:.0} %")),
        )?;
        chart.draw_series(bars.iter().map(|&(i, share)| {
            let i = i32::try_from(i).unwrap_or(i32::MAX - 1);
            let corners = [(SegmentValue::Exact(i), share), (SegmentValue::Exact(i + 1), 0.0)];
            let mut bar = Rectangle::new(corners, INDIGO.filled());
            bar.set_margin(0, 0, 4, 4);
            bar
        }))?;
        Ok(())
    });
    Plot {
        title: "Commit sizes".into(),
        note: "frames by their bytes, up to the size below each bar".into(),
        svg: drawing,
        legend: vec![],
    }
}

/// How much of the file was in use.
pub fn space(o: &Outcome) -> Plot {
    let journal = |s: &Sample| (s.stats.journal_segments - s.stats.free_segments) * s.stats.segment_size;
    let chains = |s: &Sample| (s.stats.used_chunks + s.stats.pinned_chunks) * s.stats.chunk_size;
    let most = o.samples.iter().map(|s| journal(s) + chains(s)).max().unwrap_or(0);
    // Whole units give round figures on the axis.
    let (unit, name) = if most >= 4 << 30 { (f64::from(1 << 30), "GiB") } else { (f64::from(1 << 20), "MiB") };
    let scaled = |s: &Sample, bytes: u64| (s.at, bytes as f64 / unit);
    let both: Vec<(f64, f64)> = o.samples.iter().map(|s| scaled(s, journal(s) + chains(s))).collect();
    let lower: Vec<(f64, f64)> = o.samples.iter().map(|s| scaled(s, journal(s))).collect();
    let drawing = svg(|area| {
        let mut chart = axes(area, axis(time(o), &seconds), axis(up_to(&both), &|v: &f64| format!("{v} {name}")))?;
        for (points, colour) in [(&both, GREY), (&lower, INDIGO)] {
            let filled = AreaSeries::new(points.iter().copied(), 0.0, colour.mix(0.85));
            chart.draw_series(filled.border_style(colour.stroke_width(1)))?;
        }
        Ok(())
    });
    Plot {
        title: "Space in use".into(),
        note: format!("of {}, over time", human(o.stats.capacity)),
        svg: drawing,
        legend: vec![(INDIGO, "journal"), (GREY, "chains")],
    }
}

/// How much one sync made durable.
pub fn sharing(o: &Outcome, unit: &str) -> Plot {
    let points: Vec<(f64, f64)> = o
        .samples
        .windows(2)
        .filter_map(|pair| {
            let [before, after] = pair else { return None };
            let frames = after.stats.frames.saturating_sub(before.stats.frames);
            (frames > 0).then(|| (after.at, after.items as f64 / frames as f64))
        })
        .collect();
    let drawing = svg(|area| {
        let mut chart = axes(area, axis(time(o), &seconds), axis(up_to(&points), &|v: &f64| format!("{v:.1}")))?;
        chart.draw_series(LineSeries::new(points.iter().copied(), INDIGO.stroke_width(LINE)))?;
        Ok(())
    });
    Plot { title: format!("Group commit, {unit} a sync"), note: "over time".into(), svg: drawing, legend: vec![] }
}

fn rate(s: &Sample) -> f64 {
    s.items as f64 / s.seconds.max(f64::MIN_POSITIVE)
}

fn time(o: &Outcome) -> Range<f64> {
    0.0..o.seconds.max(0.1)
}

fn seconds(s: &f64) -> String {
    format!("{s:.0} s")
}

/// A range from 0 to a little above the highest point.
fn up_to(points: &[(f64, f64)]) -> Range<f64> {
    0.0..points.iter().map(|p| p.1).fold(1.0, f64::max) * 1.1
}

/// Microseconds, short, for the labels of an axis.
fn short(us: f64) -> String {
    if us >= 1e6 {
        format!("{} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{} ms", (us / 1e3).round())
    } else if us >= 1.0 {
        format!("{} us", us.round())
    } else {
        micros(us)
    }
}

/// The quantiles of the report's table.
pub fn quantiles(l: &Latencies) -> Vec<(&'static str, String)> {
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)]
        .into_iter()
        .map(|(name, q)| (name, micros(l.quantile(q))))
        .chain([("longest", micros(l.max()))])
        .collect()
}
