//! The figures at the end of a run.

use crate::args::Args;
use crate::compare::Verdict;
use crate::scenario::Story;

pub fn print(args: &Args, story: &Story, verdict: &Verdict) {
    let report = &story.report;
    let usage = &story.usage;
    let seconds = story.load_time.as_secs_f64();
    let line = |name: &str, value: String| println!("  {name:<22}{value}");
    println!();
    line(
        "proposals",
        format!(
            "{} answered, {} never (their leader went), {} redirected",
            report.answered, report.unanswered, report.redirected
        ),
    );
    let rate = report.answered as f64 / seconds;
    let volume = rate * f64::from(args.payload) / f64::from(1 << 20);
    let outage = if story.comeback.is_some() { ", the outage included" } else { "" };
    line("throughput", format!("{rate:.0} proposals/s, {volume:.1} MiB/s, over {seconds:.1} s{outage}"));
    let at = |q| report.latency.value_at_quantile(q) as f64 / 1e3;
    line(
        "latency",
        format!(
            "p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.0} (propose to applied by the leader; elections included)",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            report.latency.max() as f64 / 1e3
        ),
    );
    let partial = if story.usage_is_partial { " (without the killed life of store 3)" } else { "" };
    line(
        "logs",
        format!(
            "{} entries in {} batches and {} syncs: {:.1} entries, {:.1} batches a sync{partial}",
            usage.entries,
            usage.batches,
            usage.syncs,
            usage.entries as f64 / usage.syncs.max(1) as f64,
            usage.batches as f64 / usage.syncs.max(1) as f64
        ),
    );
    line(
        "device",
        format!(
            "{:.1} MiB written for {:.1} MiB given: {:.2} bytes a byte{partial}",
            mib(usage.device_bytes),
            mib(usage.user_bytes),
            usage.device_bytes as f64 / usage.user_bytes.max(1) as f64
        ),
    );
    if let Some(back) = &story.comeback {
        line(
            "recovery",
            format!(
                "log opened in {:.1} ms ({} entries), groups in {:.1} ms; {} groups behind caught up in {:.2?}, with {} snapshots",
                back.opened.log_micros as f64 / 1e3,
                back.opened.entries,
                back.opened.groups_micros as f64 / 1e3,
                back.behind,
                back.caught_up,
                back.snapshots
            ),
        );
    }
    line(
        "compared",
        format!(
            "{} groups: applied states ({} proposals) and {} retained entries ({:.1} MiB), on all three stores",
            verdict.groups,
            verdict.applied,
            verdict.entries,
            mib(verdict.bytes)
        ),
    );
    println!();
    for difference in &verdict.named {
        println!("  DIFFERENT  {difference}");
    }
    if report.answered == 0 {
        println!("  NOTHING    was acknowledged, so nothing is proved: no proposal was answered");
    }
    if verdict.differences > 0 {
        println!("  DIFFERENT  in {} places", verdict.differences);
    } else if report.answered > 0 {
        println!("  IDENTICAL  every group agrees on all three stores, and nothing acknowledged is missing");
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
