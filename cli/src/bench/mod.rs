//! `strandlog bench`: the log on the user's own disk.

mod disk;
mod plan;
mod plot;
mod report;
mod run;
mod work;

use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Bench;
use crate::failure::Result;
use crate::measure::{Latencies, micros};
use crate::output::{Output, Style};
use crate::scratch::{Interrupt, Scratch, file_system};
use crate::size::{count, human};
use crate::{progress, save};
use plan::Plan;
use run::Outcome;

/// How often the figures for `strandlog top` are published.
const PUBLISH: Duration = Duration::from_millis(500);

/// Runs the workload and shows the results.
pub fn run(args: &Bench, out: &mut Output) -> Result<()> {
    let plan = Plan::of(args)?;
    // Check now, not after the measurement.
    args.html.iter().try_for_each(|path| save::check(path, args.force))?;
    let interrupt = Interrupt::new()?;
    let file = Scratch::new(&args.dir, "bench")?;
    let bar = progress::bytes("creating", out.is_json());
    let opened = run::open(&file, &plan, &interrupt, &bar);
    bar.finish_and_clear();
    let (wal, disk) = opened?;
    let figures = file.beside(".stats");
    let publisher = wal.publish_stats(figures.path(), PUBLISH)?;
    if !out.is_json() {
        out.line(format_args!("to watch it: strandlog top {}", file.path().display()))?;
        out.finish()?;
    }
    let bar = progress::live(out.is_json());
    let outcome = run::measure(&wal, &disk, &plan, args.seconds, &interrupt, &bar);
    bar.finish_and_clear();
    drop(publisher);
    let outcome = outcome?;
    wal.close()?;
    let place = place(args);
    // If one of the two cannot be written, the other is there: what was measured is not lost.
    let reported = report(args, &plan, &outcome, &place);
    if out.is_json() {
        out.json(&as_json(&plan, &outcome, &place))?;
        return reported;
    }
    let title = out.styled(Style::Bold, plan.words());
    out.line(format_args!("{title}\n{:.1} s in {place}\n", outcome.seconds))?;
    for (name, value) in facts(&plan, &outcome) {
        out.fact(name, value)?;
    }
    reported?;
    if let Some(path) = &args.html {
        out.line(format_args!("\nreport: {}", path.display()))?;
    }
    Ok(())
}

/// Writes the report, if one is wanted.
fn report(args: &Bench, plan: &Plan, outcome: &Outcome, place: &str) -> Result<()> {
    let Some(path) = &args.html else { return Ok(()) };
    save::save(path, report::html(plan, outcome, place).as_bytes(), args.force)
}

/// Where it was measured: directory, file system, processors.
fn place(args: &Bench) -> String {
    let file_system = file_system(&args.dir).map_or_else(String::new, |fs| format!(", {fs}"));
    let cores = std::thread::available_parallelism().map_or_else(|_| String::new(), |n| format!(", {n} processors"));
    format!("{}{file_system}{cores}", args.dir.display())
}

/// The figures, for people.
fn facts(plan: &Plan, o: &Outcome) -> Vec<(&'static str, String)> {
    let s = &o.stats;
    let frames = s.frames.max(1) as f64;
    let user = s.user_bytes as f64 / o.seconds.max(f64::MIN_POSITIVE);
    let latencies = |l: &Latencies| {
        let of = |q| micros(l.quantile(q));
        format!("p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}", of(0.5), of(0.9), of(0.99), of(0.999), micros(l.max()))
    };
    let per_second = |n: u64| count((n as f64 / o.seconds.max(f64::MIN_POSITIVE)) as u64);
    let written = s.journal_bytes + s.placed_bytes + s.settled_bytes;
    vec![
        (plan.unit(), format!("{} a second, {} a second", count(o.per_second() as u64), human(user as u64))),
        ("commit", latencies(&o.latencies)),
        (
            "frames",
            format!(
                "{} a second, of {:.1} {} and {} each",
                per_second(s.frames),
                o.items as f64 / frames,
                plan.unit(),
                human((o.notes.bytes as f64 / o.notes.frames().max(1) as f64) as u64),
            ),
        ),
        ("device", latencies(&o.notes.writes)),
        ("written", format!("{}, {:.2} bytes a byte given", human(written), s.write_amplification())),
        (
            "cleaner",
            format!(
                "{} segments freed, {} settled, {} carried, {} waits for room",
                count(s.segments_cleaned),
                human(s.settled_bytes),
                human(s.carried_bytes),
                count(s.stalls),
            ),
        ),
        ("processor", format!("{:.2} us an item, all threads together", o.cpu * 1e6 / o.items.max(1) as f64)),
        ("sync", s.disk.map_or_else(String::new, |d| d.to_string())),
    ]
}

fn as_json(plan: &Plan, o: &Outcome, place: &str) -> Value {
    let latencies = |l: &Latencies| {
        let q = |q| l.quantile(q);
        json!({ "count": l.count(), "p50": q(0.5), "p90": q(0.9), "p99": q(0.99), "p999": q(0.999), "max": l.max() })
    };
    let s = &o.stats;
    let sizes: Vec<Value> = o
        .notes
        .sizes
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(class, n)| json!({ "up_to_bytes": disk::class_bytes(class), "frames": n }))
        .collect();
    let samples: Vec<Value> = o
        .samples
        .iter()
        .map(|x| {
            json!({
                "at": x.at, "per_second": x.items as f64 / x.seconds.max(f64::MIN_POSITIVE), "p50_us": x.p50, "p99_us": x.p99,
            })
        })
        .collect();
    json!({
        "workload": plan.words(), "place": place, "seconds": o.seconds, "unit": plan.unit(),
        "threads": plan.threads, "replicas": plan.replicas, "entry_bytes": plan.entry_bytes, "capacity": plan.capacity,
        "per_second": o.per_second(), "items": o.items, "user_bytes": s.user_bytes,
        "commit_us": latencies(&o.latencies), "device_us": latencies(&o.notes.writes),
        "frames": s.frames, "frame_bytes": o.notes.bytes, "frame_sizes": sizes,
        "journal_bytes": s.journal_bytes, "placed_bytes": s.placed_bytes, "settled_bytes": s.settled_bytes,
        "carried_bytes": s.carried_bytes, "segments_cleaned": s.segments_cleaned, "stalls": s.stalls,
        "write_amplification": s.write_amplification(), "cpu_us_per_item": o.cpu * 1e6 / o.items.max(1) as f64,
        "sync": s.disk.map(|d| d.to_string()), "samples": samples,
    })
}
