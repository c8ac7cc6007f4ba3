//! A log whose metrics Prometheus can scrape, with nothing but the `metrics` facade and the standard library.
//!
//! In a store the recorder is `metrics-exporter-prometheus`, or whatever it uses already; here it is a hundred lines, so that the
//! example builds in no time. The dashboard for these names is `examples/grafana.json`.
//!
//! ```sh
//! cargo run --release --features metrics --example metrics -- 127.0.0.1:9187 [SECONDS]
//! curl -s http://127.0.0.1:9187/metrics
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use strandlog::metrics::Metrics;
use strandlog::{Batch, Wal};

/// Buckets with a bound: each bound is twice the one before, from a millionth (of a second) to 1,073 (batches).
const BOUNDS: u32 = 31;

/// Values are summed in millionths, as whole numbers.
const SCALE: f64 = 1e6;

#[derive(Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS as usize + 1],
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let scaled = (value * SCALE) as u64;
        let bucket = (u64::BITS - scaled.leading_zeros()).min(BOUNDS) as usize;
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(scaled, Ordering::Relaxed);
    }
}

/// Everything registered, as it will be printed.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    counters: BTreeMap<Key, Arc<AtomicU64>>,
    gauges: BTreeMap<Key, Arc<AtomicU64>>,
    histograms: BTreeMap<Key, Arc<Buckets>>,
    help: BTreeMap<String, (&'static str, String)>,
}

impl Text {
    fn describe(&self, name: KeyName, kind: &'static str, what: SharedString) {
        let mut all = self.0.lock().expect("nobody panics with it");
        all.help.insert(name.as_str().to_owned(), (kind, what.into_owned()));
    }

    fn render(&self) -> String {
        let all = self.0.lock().expect("nobody panics with it");
        let mut out = String::new();
        for (name, (kind, what)) in &all.help {
            let _ = writeln!(out, "# HELP {name} {what}\n# TYPE {name} {kind}");
            for (key, value) in all.counters.iter().filter(|(k, _)| k.name() == name) {
                let _ = writeln!(out, "{name}{{{}}} {}", labels(key), value.load(Ordering::Relaxed));
            }
            for (key, value) in all.gauges.iter().filter(|(k, _)| k.name() == name) {
                let _ = writeln!(out, "{name}{{{}}} {}", labels(key), f64::from_bits(value.load(Ordering::Relaxed)));
            }
            for (key, buckets) in all.histograms.iter().filter(|(k, _)| k.name() == name) {
                let (labels, mut count) = (labels(key), 0);
                for (i, n) in buckets.counts.iter().enumerate() {
                    count += n.load(Ordering::Relaxed);
                    let bound = (1u64 << i) as f64 / SCALE;
                    let bound = if i == BOUNDS as usize { "+Inf".to_owned() } else { bound.to_string() };
                    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
                }
                let sum = buckets.sum.load(Ordering::Relaxed) as f64 / SCALE;
                let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
            }
        }
        out
    }
}

fn labels(key: &Key) -> String {
    key.labels().map(|l| format!("{}=\"{}\"", l.key(), l.value())).collect::<Vec<_>>().join(",")
}

impl Recorder for Text {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(key, "counter", what);
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(key, "gauge", what);
    }
    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(key, "histogram", what);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut all = self.0.lock().expect("nobody panics with it");
        Counter::from_arc(Arc::clone(all.counters.entry(key.clone()).or_default()))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut all = self.0.lock().expect("nobody panics with it");
        Gauge::from_arc(Arc::clone(all.gauges.entry(key.clone()).or_default()))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let mut all = self.0.lock().expect("nobody panics with it");
        metrics::Histogram::from_arc(Arc::clone(all.histograms.entry(key.clone()).or_default()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let seconds: u64 = std::env::args().nth(2).map_or(Ok(2), |s| s.parse())?;

    // The recorder comes before the log: metrics are registered when they are made.
    let text = Text::default();
    metrics::set_global_recorder(text.clone()).map_err(|e| e.to_string())?;
    let scratch = tempfile::tempdir()?;
    let metrics = Arc::new(Metrics::new("raft"));
    let options = Wal::options().capacity(256 << 20).listener(metrics.clone()).slow_commit(Duration::from_millis(20));
    let wal = Arc::new(options.open(scratch.path().join("raft.log"))?);

    let server = TcpListener::bind(&address)?;
    println!("metrics at http://{}/metrics for {seconds} s", server.local_addr()?);
    let shown = (Arc::clone(&wal), text.clone(), Arc::clone(&metrics));
    std::thread::spawn(move || {
        let (wal, text, metrics) = shown;
        for stream in server.incoming().flatten() {
            // Whatever the request is, this is the answer.
            let mut request = BufReader::new(&stream).lines();
            while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            metrics.observe(&wal.stats());
            let body = text.render();
            let _ = write!(
                &stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });

    // Something to see: a thousand replicas, truncated as they go.
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut batch = Batch::new();
    let mut index = 0;
    while Instant::now() < until {
        index += 1;
        for replica in 0..1_000 {
            batch.append(replica, &[(index, 1, [7; 256])]);
        }
        wal.commit(&mut batch)?;
        if index % 20 == 0 {
            for replica in 0..1_000 {
                batch.truncate_prefix(replica, index - 9);
            }
            drop(wal.submit(batch.lazy())?);
        }
    }
    metrics.observe(&wal.stats());
    print!("{}", text.render());
    wal.close()?;
    Ok(())
}
