//! `strandlog top`: a log in use, live.

mod draw;
mod snapshot;

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use crate::args::Top;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::scratch::Interrupt;
use draw::View;
use snapshot::{History, Rates, Snapshot, beside, read};

/// How often it looks for new figures, and for a key.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the log until the user quits.
pub fn run(args: &Top, out: &mut Output) -> Result<()> {
    let path = args.stats.clone().unwrap_or_else(|| beside(&args.path));
    // Read before drawing, so that a failure is told instead of an empty screen.
    let first = read(&path)?;
    let interrupt = Interrupt::new()?;
    if out.is_json() {
        return lines(args, &path, &first, &interrupt, out);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::Request("this is no terminal to draw on; --json writes a line for each moment".into()));
    }
    let mut terminal = ratatui::try_init()?;
    let shown = watch(args, &path, first, &interrupt, &mut terminal);
    ratatui::restore();
    shown
}

fn watch(
    args: &Top,
    path: &std::path::Path,
    first: Snapshot,
    interrupt: &Interrupt,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<()> {
    let mut history = History::default();
    history.add(first);
    let (mut paused, mut trouble) = (false, None);
    let colours = std::env::var_os("NO_COLOR").is_none();
    while !interrupt.came() {
        if !paused {
            match read(path) {
                Ok(snapshot) => {
                    trouble = snapshot.stale();
                    history.add(snapshot);
                }
                Err(_) if !path.exists() => trouble = Some("the log was closed, or publishes no more".into()),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        let view = View { log: &args.path, history: &history, trouble: trouble.clone(), paused, colours };
        terminal.draw(|frame| view.draw(frame))?;
        if !event::poll(LOOK)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        match key.code {
            _ if key.kind != KeyEventKind::Press => {}
            KeyCode::Char('q') | KeyCode::Esc => break,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => break,
            KeyCode::Char(' ') => paused = !paused,
            _ => {}
        }
    }
    Ok(())
}

/// Writes a line for each snapshot that is published.
fn lines(args: &Top, path: &std::path::Path, first: &Snapshot, interrupt: &Interrupt, out: &mut Output) -> Result<()> {
    let mut history = History::default();
    history.add(first.clone());
    let mut told = 0;
    let mut last = first.at_ms;
    while told < args.count.unwrap_or(u64::MAX) && !interrupt.came() {
        let now = read(path)?;
        if let Some(why) = now.stale() {
            return Err(Failure::Request(why));
        }
        if now.at_ms == last {
            std::thread::sleep(LOOK);
            continue;
        }
        last = now.at_ms;
        history.add(now.clone());
        let rates = history.rates().next().unwrap_or_default();
        out.json(&as_json(&now, &rates, &history))?;
        out.finish()?;
        told += 1;
    }
    Ok(())
}

fn as_json(now: &Snapshot, r: &Rates, history: &History) -> Value {
    let holders: Vec<Value> = now
        .holders
        .iter()
        .map(|h| {
            json!({
                "replica": h.replica, "first": h.first, "last": h.last, "journal_bytes": h.journal, "chain_bytes": h.chain,
                "growth_per_second": history.growth(h.replica),
            })
        })
        .collect();
    json!({
        "at_ms": now.at_ms, "pid": now.pid, "stopped": now.stopped, "damaged_replicas": now.damaged,
        "per_second": {
            "batches": r.batches, "entries": r.entries, "frames": r.frames, "user_bytes": r.user_bytes, "written_bytes": r.written,
            "settled_bytes": r.settled, "carried_bytes": r.carried, "segments_cleaned": r.segments, "stalls": r.stalls,
        },
        "entries_per_frame": r.entries_a_frame(),
        "write_amplification": r.amplification(),
        "queued_bytes": now.get("queued_bytes"),
        "journal": { "segments": now.get("journal_segments"), "free_segments": now.get("free_segments") },
        "chunks": { "total": now.get("chunks"), "free": now.get("free_chunks"), "used": now.get("used_chunks") },
        "holders": holders,
    })
}
