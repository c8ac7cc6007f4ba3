//! The report: one self-contained HTML page.

use std::fmt::Write;

use super::plan::Plan;
use super::plot::{self, Plot};
use super::run::Outcome;
use crate::measure::micros;
use crate::size::{count, human};

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub fn html(plan: &Plan, o: &Outcome, place: &str) -> String {
    let mut page = String::with_capacity(256 << 10);
    let title = escape(&plan.words());
    page += &format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>strandlog bench: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    page += &format!(
        "<header><p class=\"kind\">strandlog {} bench</p><h1>{title}</h1><p class=\"place\">{:.1} s in {}</p></header>\n",
        env!("CARGO_PKG_VERSION"),
        o.seconds,
        escape(place)
    );
    cards(&mut page, plan, o);
    page += "<section class=\"plots\">\n";
    for p in [
        plot::latency(o),
        plot::throughput(o, plan.unit()),
        plot::commit_sizes(&o.notes),
        plot::latency_over_time(o),
        plot::sharing(o, plan.unit()),
        plot::space(o),
    ] {
        figure(&mut page, &p);
    }
    page += "</section>\n";
    tables(&mut page, plan, o);
    page += "</main>\n</body>\n</html>\n";
    page
}

/// The most important figures, at the top.
fn cards(page: &mut String, plan: &Plan, o: &Outcome) {
    let user = o.stats.user_bytes as f64 / o.seconds.max(f64::MIN_POSITIVE);
    let frames = o.stats.frames.max(1) as f64;
    let cards = [
        (format!("{} a second", plan.unit()), count(o.per_second() as u64), format!("{} a second", human(user as u64))),
        (
            "commit, p50".into(),
            micros(o.latencies.quantile(0.5)),
            format!("device {}", micros(o.notes.writes.quantile(0.5))),
        ),
        ("commit, p99".into(), micros(o.latencies.quantile(0.99)), format!("longest {}", micros(o.latencies.max()))),
        (
            format!("{} a sync", plan.unit()),
            format!("{:.1}", o.items as f64 / frames),
            format!("{} syncs a second", count((frames / o.seconds.max(f64::MIN_POSITIVE)) as u64)),
        ),
        ("bytes written a byte".into(), format!("{:.2}", o.stats.write_amplification()), "journal and chains".into()),
        (
            "processor an item".into(),
            format!("{:.2} us", o.cpu * 1e6 / o.items.max(1) as f64),
            "all threads together".into(),
        ),
    ];
    page.push_str("<section class=\"cards\">\n");
    for (name, value, note) in cards {
        *page += &format!(
            "<div class=\"card\"><p class=\"name\">{name}</p><p class=\"value\">{value}</p><p class=\"note\">{note}</p></div>\n"
        );
    }
    page.push_str("</section>\n");
}

fn figure(page: &mut String, p: &Plot) {
    let legend = p.legend.iter().fold(String::new(), |mut all, (c, what)| {
        // Writing to a string cannot fail.
        let _ = write!(all, "<span><i style=\"background:rgb({},{},{})\"></i>{what}</span>", c.0, c.1, c.2);
        all
    });
    *page += &format!(
        "<figure><figcaption><b>{}</b> <span class=\"note\">{}</span><span class=\"legend\">{legend}</span></figcaption>\n{}</figure>\n",
        escape(&p.title),
        escape(&p.note),
        p.svg
    );
}

fn tables(page: &mut String, plan: &Plan, o: &Outcome) {
    page.push_str(
        "<section class=\"tables\">\n<table><thead><tr><th></th><th>commit</th><th>device</th></tr></thead><tbody>\n",
    );
    for ((name, commit), (_, device)) in plot::quantiles(&o.latencies).into_iter().zip(plot::quantiles(&o.notes.writes))
    {
        *page += &format!("<tr><th>{name}</th><td>{commit}</td><td>{device}</td></tr>\n");
    }
    page.push_str("</tbody></table>\n<table><tbody>\n");
    let s = &o.stats;
    let rows = [
        ("threads", count(plan.threads)),
        ("replicas", count(plan.replicas)),
        ("size of the log", human(s.capacity)),
        ("durable by", s.disk.map_or_else(String::new, |d| d.to_string())),
        ("journal written", human(s.journal_bytes)),
        ("placed directly", human(s.placed_bytes)),
        ("settled", human(s.settled_bytes)),
        ("carried", human(s.carried_bytes)),
        ("segments freed", count(s.segments_cleaned)),
        ("waits for room", count(s.stalls)),
    ];
    for (name, value) in rows {
        *page += &format!("<tr><th>{name}</th><td>{}</td></tr>\n", escape(&value));
    }
    page.push_str("</tbody></table>\n</section>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_markup_in_them_stay_names() {
        assert_eq!(escape("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
