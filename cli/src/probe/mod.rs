//! `strandlog probe`: measures each method of making writes durable, and recommends one.

mod measure;
mod verdict;

use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Probe;
use crate::failure::Result;
use crate::measure::micros;
use crate::output::{Output, Style};
use crate::progress;
use crate::scratch::{Interrupt, file_system};
use crate::size::{count, human};
use measure::{Evidence, Figure, METHODS, Measured, SCATTERED, SIZES};
use verdict::Verdict;

/// Measures, and recommends.
pub fn run(args: &Probe, out: &mut Output) -> Result<()> {
    let stop = Interrupt::new()?;
    let bar = progress::bytes("writing zeros", out.is_json());
    let time = Duration::from_secs_f64(args.seconds);
    let evidence = measure::measure(&args.dir, args.size, time, &stop, &bar);
    bar.finish_and_clear();
    let evidence = evidence?;
    let verdict = verdict::weigh(&evidence);
    let place = file_system(&args.dir);
    if out.is_json() {
        out.json(&as_json(args, place, &evidence, &verdict))?;
        return Ok(());
    }
    let title = out.styled(Style::Bold, args.dir.display());
    let place = place.map_or_else(String::new, |place| format!(", {place}"));
    out.line(format_args!("{title}{place}, a file of {}, {:.0} s\n", human(evidence.bytes), args.seconds))?;
    alone(&evidence, out)?;
    two(&evidence, out)?;
    scattered(&evidence, out)?;
    for words in &verdict.words {
        out.line(format_args!("{words}"))?;
    }
    Ok(())
}

fn head(what: &str, columns: &[String], out: &mut Output) -> Result<()> {
    let columns: String = columns.iter().map(|c| format!("{c:>22}")).collect();
    let head = out.styled(Style::Dim, format_args!("{what:<26}{columns}"));
    out.line(format_args!("{head}"))
}

fn row(name: &str, cells: impl Iterator<Item = String>, out: &mut Output) -> Result<()> {
    let cells: String = cells.map(|c| format!("{c:>22}")).collect();
    out.line(format_args!("{name:<26}{cells}"))
}

fn latency(f: &Figure) -> String {
    format!("{} / {}", micros(f.latencies.quantile(0.5)), micros(f.latencies.quantile(0.99)))
}

fn alone(evidence: &Evidence, out: &mut Output) -> Result<()> {
    let columns: Vec<String> = SIZES.iter().map(|s| human(*s as u64)).collect();
    head("one write, p50 / p99", &columns, out)?;
    for m in &evidence.methods {
        row(&m.method.to_string(), m.alone.iter().map(latency), out)?;
    }
    for missing in METHODS.iter().filter(|method| evidence.methods.iter().all(|m| m.method != **method)) {
        row(&missing.to_string(), std::iter::once("does not work here".to_owned()), out)?;
    }
    out.line(format_args!(""))
}

fn two(evidence: &Evidence, out: &mut Output) -> Result<()> {
    let columns: Vec<String> =
        SIZES.iter().take(measure::SIZES_BY_TWO).map(|s| format!("{} one, two", human(*s as u64))).collect();
    head("writes a second", &columns, out)?;
    for m in &evidence.methods {
        let cells = m
            .alone
            .iter()
            .zip(&m.two)
            .map(|(one, two)| format!("{}, {}", count(one.per_second() as u64), count(two.per_second() as u64)));
        row(&m.method.to_string(), cells, out)?;
    }
    out.line(format_args!(""))
}

fn scattered(evidence: &Evidence, out: &mut Output) -> Result<()> {
    head(&format!("{SCATTERED} blocks, p50 / p99"), &["in one piece".into(), "scattered, one sync".into()], out)?;
    for m in &evidence.methods {
        row(&m.method.to_string(), [&m.together, &m.scattered].into_iter().map(latency), out)?;
    }
    out.line(format_args!(""))
}

fn as_json(args: &Probe, place: Option<String>, evidence: &Evidence, verdict: &Verdict) -> Value {
    let figure = |f: &Figure| {
        json!({
            "p50_us": f.latencies.quantile(0.5), "p99_us": f.latencies.quantile(0.99), "writes": f.latencies.count(),
            "per_second": f.per_second(),
        })
    };
    let sized = |figures: &[Figure]| -> Value {
        SIZES
            .iter()
            .zip(figures)
            .map(|(size, f)| (size.to_string(), figure(f)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let method = |m: &Measured| {
        json!({
            "method": m.method.to_string(), "one": sized(&m.alone), "two": sized(&m.two),
            "scattered": figure(&m.scattered), "contiguous": figure(&m.together),
        })
    };
    json!({
        "dir": args.dir.display().to_string(),
        "file_system": place,
        "scattered_blocks": SCATTERED,
        "methods": evidence.methods.iter().map(method).collect::<Vec<_>>(),
        "chosen_at_open": evidence.chosen.to_string(),
        "recommended": verdict.method.map(|m| m.to_string()),
        "words": verdict.words,
    })
}
