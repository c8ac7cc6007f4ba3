//! Medians, their spread, and ratios.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::measure::Figures;

/// All figures of a run: rows, stores, rounds, in the order they came.
#[derive(Default, Serialize, Deserialize)]
pub struct Race {
    pub rows: Vec<RowRuns>,
}

#[derive(Serialize, Deserialize)]
pub struct RowRuns {
    pub row: String,
    pub stores: Vec<StoreRuns>,
}

#[derive(Serialize, Deserialize)]
pub struct StoreRuns {
    pub store: String,
    pub rounds: Vec<Figures>,
}

impl Race {
    pub fn add(&mut self, row: &str, store: &str, figures: Figures) {
        let at = self.rows.iter().position(|r| r.row == row).unwrap_or_else(|| {
            self.rows.push(RowRuns { row: row.into(), stores: Vec::new() });
            self.rows.len() - 1
        });
        let stores = &mut self.rows[at].stores;
        let at = stores.iter().position(|s| s.store == store).unwrap_or_else(|| {
            stores.push(StoreRuns { store: store.into(), rounds: Vec::new() });
            stores.len() - 1
        });
        stores[at].rounds.push(figures);
    }

    pub fn table(&self) -> String {
        self.rows.iter().map(|row| row.table()).collect()
    }

    pub fn row_table(&self, name: &str) -> String {
        self.rows.iter().filter(|r| r.row == name).map(RowRuns::table).collect()
    }
}

/// Whether more of this figure is better.
pub fn more_is_better(figure: &str) -> bool {
    figure.contains("per s")
}

impl RowRuns {
    pub fn store(&self, name: &str) -> Option<&StoreRuns> {
        self.stores.iter().find(|s| s.store == name)
    }

    /// The better of raft-engine's two set-ups, by this figure.
    pub fn better_peer(&self, figure: &str) -> Option<&StoreRuns> {
        let sign = if more_is_better(figure) { 1.0 } else { -1.0 };
        let peers = self.stores.iter().filter(|s| s.store.starts_with("raft-engine"));
        peers.filter(|s| s.median(figure).is_some()).max_by(|a, b| {
            (sign * a.median(figure).unwrap_or(0.0)).total_cmp(&(sign * b.median(figure).unwrap_or(0.0)))
        })
    }

    /// How many times better strandlog is than that peer: the median of the rounds' ratios, and their least and greatest.
    pub fn ratio(&self, figure: &str) -> Option<(f64, f64, f64)> {
        let (us, best) = (self.store("strandlog")?, self.better_peer(figure)?);
        let each = us.rounds.iter().zip(&best.rounds).filter_map(|(a, b)| {
            let (a, b) = (a.get(figure)?, b.get(figure)?);
            Some(if more_is_better(figure) { a / b } else { b / a })
        });
        spread(each.filter(|r| r.is_finite()).collect())
    }

    fn table(&self) -> String {
        let mut out = format!("\n{}\n", self.row);
        for store in &self.stores {
            let _ = write!(out, "{:>20}", store.store);
            for name in store.rounds.first().into_iter().flat_map(Figures::names) {
                if let Some((median, low, high)) = store.spread(name) {
                    let _ = write!(out, "  {name} {} [{} {}]", short(median), short(low), short(high));
                }
            }
            out.push('\n');
        }
        let names = self.store("strandlog").and_then(|s| s.rounds.first()).into_iter().flat_map(Figures::names);
        let ratios: Vec<String> = names
            .filter_map(|name| self.ratio(name).map(|(m, l, h)| format!("{name} {m:.2}x [{l:.2} {h:.2}]")))
            .collect();
        if !ratios.is_empty() {
            let _ = writeln!(out, "{:>20}  {}", "better by", ratios.join("  "));
        }
        out
    }
}

impl StoreRuns {
    pub fn median(&self, figure: &str) -> Option<f64> {
        self.spread(figure).map(|(median, _, _)| median)
    }

    fn spread(&self, figure: &str) -> Option<(f64, f64, f64)> {
        spread(self.rounds.iter().filter_map(|r| r.get(figure)).collect())
    }
}

/// Median, least, greatest.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

/// Three digits, and a letter for thousands or millions.
pub fn short(v: f64) -> String {
    match v {
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 1e3 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
