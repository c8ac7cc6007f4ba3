//! Draws the screen of `top`.

use std::path::Path;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Bar, BarChart, BarGroup, Block, BorderType, Cell, LineGauge, Paragraph, Row, Sparkline, Table};

use super::snapshot::{History, Holder, Latencies, Rates, Snapshot, bound};
use crate::measure::micros;
use crate::size::{count, human};

/// What is drawn.
pub struct View<'a> {
    pub log: &'a Path,
    pub history: &'a History,
    /// Why there is nothing new, if that is so.
    pub trouble: Option<String>,
    pub paused: bool,
    pub colours: bool,
}

const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;
const WARN: Color = Color::Yellow;
const MAIN: Color = Color::Cyan;
const SECOND: Color = Color::Blue;
/// From this share on, something is called nearly full.
const NEARLY_FULL: f64 = 0.8;
/// Rows that a screen must have to show latencies, too.
const ROOM_FOR_LATENCIES: u16 = 27;

impl View<'_> {
    fn colour(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn pale(&self) -> Style {
        if self.colours { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    fn block<'b>(&self, title: &'b str) -> Block<'b> {
        let title = Span::styled(format!(" {title} "), Style::new().add_modifier(Modifier::BOLD));
        Block::bordered().border_type(BorderType::Rounded).border_style(self.pale()).title(title)
    }

    /// Draws everything.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        // Only if they are published, and if there is room.
        let latencies = self.history.latencies("commit_micros").filter(|_| frame.area().height >= ROOM_FOR_LATENCIES);
        let (trends, bars) = if latencies.is_some() { (6, 8) } else { (8, 0) };
        let rows = [
            Constraint::Length(2),
            Constraint::Length(trends),
            Constraint::Length(bars),
            Constraint::Length(7),
            Constraint::Min(4),
            Constraint::Length(1),
        ];
        let [head, rates, latency, levels, holders, foot] = Layout::vertical(rows).areas(frame.area());
        self.head(frame, head);
        let Some(now) = self.history.last() else { return };
        self.rates(frame, rates);
        if let Some(latencies) = latencies {
            self.latencies(frame, latency, &latencies);
        }
        self.levels(frame, levels, now);
        self.holders(frame, holders, now);
        self.foot(frame, foot);
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut first = vec![
            Span::styled("strandlog top", bold),
            Span::raw("  "),
            Span::styled(self.log.display().to_string(), self.colour(MAIN)),
        ];
        let second = match (self.history.last(), &self.trouble) {
            (_, Some(trouble)) => Line::styled(trouble.clone(), self.colour(BAD).add_modifier(Modifier::BOLD)),
            (Some(now), None) => {
                first.push(Span::styled(
                    format!("  process {}, {} replicas", now.pid, count(now.get("replicas"))),
                    self.pale(),
                ));
                match (&now.stopped, now.damaged) {
                    (Some(why), _) => Line::styled(why.clone(), self.colour(BAD).add_modifier(Modifier::BOLD)),
                    (None, 0) => Line::from(vec![
                        Span::styled("sound", self.colour(GOOD)),
                        Span::styled(format!("  durable by {}", now.sync), self.pale()),
                    ]),
                    (None, n) => Line::styled(
                        format!("{} replicas are damaged: strandlog verify says more", count(n)),
                        self.colour(BAD),
                    ),
                }
            }
            (None, None) => Line::raw("waiting"),
        };
        frame.render_widget(Paragraph::new(vec![Line::from(first), second]), area);
    }

    /// The rates, now and over the last minutes.
    fn rates(&self, frame: &mut Frame<'_>, area: Rect) {
        let now = self.history.rates().next().unwrap_or_default();
        let quarters = [Constraint::Ratio(1, 4); 4];
        let [entries, commits, sharing, bytes] = Layout::horizontal(quarters).areas(area);
        let whole = |x: f64| count(x as u64);
        self.trend(frame, entries, "entries/s", &whole(now.entries), MAIN, |r| r.entries);
        self.trend(frame, commits, "commits/s (syncs)", &whole(now.frames), SECOND, |r| r.frames);
        self.trend(frame, sharing, "entries a commit", &format!("{:.1}", now.entries_a_frame()), SECOND, |r| {
            // Sparklines take whole numbers.
            r.entries_a_frame() * 10.0
        });
        let given = format!("{}/s, x{:.2} written", human(now.user_bytes as u64), now.amplification());
        self.trend(frame, bytes, "bytes given", &given, MAIN, |r| r.user_bytes);
    }

    fn trend(&self, frame: &mut Frame<'_>, area: Rect, title: &str, value: &str, colour: Color, of: fn(&Rates) -> f64) {
        let block = self.block(title);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let [figure, line] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
        let value = Line::styled(value.to_owned(), self.colour(colour).add_modifier(Modifier::BOLD));
        frame.render_widget(Paragraph::new(value), figure);
        let mut past: Vec<u64> = self.history.rates().take(line.width.into()).map(|r| of(&r) as u64).collect();
        past.resize(line.width.into(), 0);
        past.reverse();
        frame.render_widget(Sparkline::default().data(&past).style(self.colour(colour)), line);
    }

    /// How long commits took in the last seconds; longer ones are further to the right.
    fn latencies(&self, frame: &mut Frame<'_>, area: Rect, commits: &Latencies) {
        const BAR: u16 = 7;
        let below = |l: &Latencies| {
            let part = |share| l.below(share).map_or_else(|| "-".into(), micros);
            format!("p50 < {}, p99 < {}", part(0.5), part(0.99))
        };
        let device =
            self.history.latencies("device_micros").map_or_else(String::new, |l| format!("; device {}", below(&l)));
        let title = format!("commit latency, the last 10 s: {}{device}", below(commits));
        let counts = commits.counts();
        let first = counts.iter().position(|n| *n > 0).unwrap_or(0);
        let last = counts.iter().rposition(|n| *n > 0).unwrap_or(0);
        let label = |i: usize| {
            let end = i + 1 == counts.len();
            let at = micros(bound(if end { i.saturating_sub(1) } else { i })).replace(' ', "");
            if end { format!(">{at}") } else { format!("<{at}") }
        };
        let bar = |i: usize, n: &u64| Bar::default().value(*n).label(Line::from(label(i))).text_value(count(*n));
        let bars: Vec<Bar<'_>> =
            counts.iter().enumerate().skip(first).take(last - first + 1).map(|(i, n)| bar(i, n)).collect();
        let chart = BarChart::default()
            .data(BarGroup::default().bars(&bars))
            .bar_width(BAR)
            .bar_style(self.colour(SECOND))
            .value_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(self.block(&title));
        frame.render_widget(chart, area);
    }

    /// How full everything is, and what the cleaner does about it.
    fn levels(&self, frame: &mut Frame<'_>, area: Rect, now: &Snapshot) {
        let [left, right] = Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).areas(area);
        let block = self.block("levels");
        let inner = block.inner(left);
        frame.render_widget(block, left);
        let rows: [Rect; 5] = Layout::vertical([Constraint::Length(1); 5]).areas(inner);
        let of = |name: &str| now.get(name);
        let (segments, free) = (of("journal_segments"), of("free_segments"));
        let (segment, chunk) = (of("segment_size"), of("chunk_size"));
        let chunks = of("used_chunks").saturating_add(of("pinned_chunks"));
        // Saturating, because the file's figures may be anything.
        let bytes = |n: u64, unit: u64| human(n.saturating_mul(unit));
        let levels = [
            (
                "journal",
                segments.saturating_sub(free),
                segments,
                format!("of {} (at most {})", bytes(segments, segment), bytes(of("journal_cap_segments"), segment)),
                segment,
            ),
            (
                "chains",
                chunks,
                of("chunks"),
                format!("of {}, {} reserved", bytes(of("chunks"), chunk), bytes(of("reserved_chunks"), chunk)),
                chunk,
            ),
            (
                "metadata",
                of("carried_class_bytes"),
                of("carried_class_limit"),
                format!("of {}", human(of("carried_class_limit"))),
                1,
            ),
        ];
        for ((name, part, whole, note, unit), row) in levels.into_iter().zip(rows) {
            self.level(frame, row, name, (part, whole), &format!("{} {note}", bytes(part, unit)));
        }
        let memory = format!("queue     {:>11} waiting for the writer", human(of("queued_bytes")));
        frame.render_widget(Paragraph::new(memory), rows[3]);
        let recent = format!("recent    {:>11} of frames in memory", human(of("recent_bytes")));
        frame.render_widget(Paragraph::new(recent), rows[4]);
        self.cleaner(frame, right, now);
    }

    fn level(&self, frame: &mut Frame<'_>, area: Rect, name: &str, (part, whole): (u64, u64), note: &str) {
        let share = if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) };
        let colour = if share >= NEARLY_FULL { WARN } else { GOOD };
        let [label, bar, words] =
            Layout::horizontal([Constraint::Length(10), Constraint::Min(10), Constraint::Length(46)]).areas(area);
        frame.render_widget(Paragraph::new(name.to_owned()), label);
        let gauge = LineGauge::default()
            .filled_symbol("█")
            .unfilled_symbol("░")
            .ratio(share)
            .label(format!("{:>3.0} %", share * 100.0));
        frame.render_widget(gauge.filled_style(self.colour(colour)).unfilled_style(self.pale()), bar);
        frame.render_widget(Paragraph::new(format!(" {note}")).style(self.pale()), words);
    }

    fn cleaner(&self, frame: &mut Frame<'_>, area: Rect, now: &Snapshot) {
        let rates = self.history.rates().next().unwrap_or_default();
        let stalled = if rates.stalls > 0.0 { self.colour(WARN) } else { Style::new() };
        let pair = |name: &str, value: String| {
            Line::from(vec![Span::styled(format!("{name:<10}"), self.pale()), Span::raw(value)])
        };
        let lines = vec![
            pair("freed", format!("{:.1} segments/s, {} in all", rates.segments, count(now.get("segments_cleaned")))),
            pair("settled", format!("{}/s into chains", human(rates.settled as u64))),
            pair("carried", format!("{}/s within the journal", human(rates.carried as u64))),
            Line::styled(format!("{:<10}{:.1}/s, {} in all", "waits", rates.stalls, count(now.get("stalls"))), stalled),
            pair("durable", format!("LSN {}", now.get("durable_lsn"))),
        ];
        frame.render_widget(Paragraph::new(lines).block(self.block("cleaner")), area);
    }

    /// The replicas that hold most, which are usually those that lag.
    fn holders(&self, frame: &mut Frame<'_>, area: Rect, now: &Snapshot) {
        let head = ["replica", "entries", "first", "last", "journal", "chain", "growth"];
        let cell = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
        let row = |h: &Holder| {
            let growth = self.history.growth(h.replica);
            let (words, style) = match growth {
                Some(g) if g >= 1024.0 => (format!("+{}/s", human(g as u64)), self.colour(WARN)),
                Some(g) if g <= -1024.0 => (format!("-{}/s", human(-g as u64)), self.colour(GOOD)),
                _ => ("steady".into(), self.pale()),
            };
            let figures = [
                h.replica.to_string(),
                count(h.entries()),
                h.first.to_string(),
                h.last.to_string(),
                human(h.journal),
                human(h.chain),
            ];
            Row::new(figures.map(cell).into_iter().chain([cell(words).style(style)]))
        };
        let widths = [
            Constraint::Min(12),
            Constraint::Length(12),
            Constraint::Length(14),
            Constraint::Length(14),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Length(14),
        ];
        let head = Row::new(head.map(|name| cell(name.into()))).style(self.pale());
        let table =
            Table::new(now.holders.iter().map(row), widths).header(head).block(self.block("replicas that hold most"));
        frame.render_widget(table, area);
    }

    fn foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let state = if self.paused { "paused" } else { "live" };
        let line = format!("{state}   space: pause   q: quit");
        frame.render_widget(Paragraph::new(line).style(self.pale()), area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn snapshot(at_ms: u64, entries: u64) -> Snapshot {
        let text = format!(
            r#"{{"format":1,"pid":7,"at_ms":{at_ms},"every_ms":500,"stopped":null,"sync":"direct+dsync (90 us)","damaged_replicas":0,
            "figures":{{"entries":{entries},"frames":{},"user_bytes":{},"journal_bytes":{},"journal_segments":8,"free_segments":2,
            "segment_size":4194304,"journal_cap_segments":16,"chunks":100,"used_chunks":90,"chunk_size":65536,"replicas":1000}},
            "histograms":{{"commit_micros":[0,0,0,0,0,0,0,{},{},0,0,3],"device_micros":[0,0,0,0,0,0,{entries},0,0,0,0,0]}},
            "holders":[{{"replica":77,"first":5,"last":{entries},"journal_bytes":{entries},"chain_bytes":1048576}}]}}"#,
            entries / 10,
            entries * 256,
            entries * 300,
            entries / 2,
            entries / 4
        );
        Snapshot::parse(&text).unwrap()
    }

    fn drawn(view: &View<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_that_matters_is_on_the_screen() {
        let mut history = History::default();
        history.add(snapshot(1_000, 10_000));
        history.add(snapshot(2_000, 110_000));
        let mut view =
            View { log: Path::new("raft.log"), history: &history, trouble: None, paused: false, colours: false };
        let screen = drawn(&view, 130, 32);
        for part in [
            "raft.log",
            "sound",
            "100,000",
            "10,000",
            "10.0",
            "24.4 MiB/s, x1.17",
            "75 %",
            "90 %",
            "77",
            "+97.7 KiB/s",
            "p50 < 128 us, p99 < 256 us; device p50 < 64.0 us",
            "<128us",
            "25,000",
            "1,000 replicas",
        ] {
            assert!(screen.contains(part), "{part}:\n{screen}");
        }
        view.trouble = Some("process 7 is gone".into());
        assert!(drawn(&view, 130, 32).contains("process 7 is gone"));
    }

    #[test]
    fn a_small_screen_or_nothing_to_show_is_no_reason_to_fall_over() {
        let empty = History::default();
        let mut history = History::default();
        history.add(snapshot(1_000, 10));
        let mut strange = History::default();
        let most = u64::MAX;
        let names =
            ["journal_segments", "segment_size", "journal_cap_segments", "chunks", "used_chunks", "pinned_chunks"];
        let figures: Vec<String> = names.iter().map(|name| format!(r#""{name}":{most}"#)).collect();
        let text = format!(
            r#"{{"format":1,"pid":7,"at_ms":{most},"every_ms":{most},"figures":{{{},"chunk_size":{most}}},
            "histograms":{{"commit_micros":[{most},{most}]}},
            "holders":[{{"replica":1,"first":0,"last":{most},"journal_bytes":{most},"chain_bytes":{most}}}]}}"#,
            figures.join(",")
        );
        strange.add(snapshot(1_000, 10));
        strange.add(Snapshot::parse(&text).unwrap());
        for history in [&empty, &history, &strange] {
            let view = View { log: Path::new("x"), history, trouble: None, paused: true, colours: true };
            for (width, height) in [(1, 1), (10, 4), (40, 12), (300, 100)] {
                drawn(&view, width, height);
            }
        }
    }
}
