//! What the kernel counted: bytes to the device, processor time, memory; and latencies.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Figures by name, in the order they are shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(Vec<(String, f64)>);

impl Figures {
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.into(), value));
        self
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub fn latency(self, h: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        self.with("p50 us", us(h.value_at_quantile(0.5)))
            .with("p99 us", us(h.value_at_quantile(0.99)))
            .with("max us", us(h.max()))
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

pub fn record(h: &mut Histogram<u64>, since: Instant) {
    h.record(since.elapsed().as_nanos() as u64).expect("it grows");
}

/// What the process uses between two moments.
pub struct Meter {
    device: Option<std::path::PathBuf>,
    start: Instant,
    written: u64,
    cpu: f64,
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Meter {
    /// Begins; `dir` must be on the device whose bytes are counted.
    pub fn start(dir: &Path) -> Self {
        let device = device_of(dir);
        let (peak, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (peak.clone(), done.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { written: written(device.as_deref()), cpu: cpu(), start: Instant::now(), device, peak, done }
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Ends; returns the device bytes per user byte, the processor time per item, and the peak of anonymous memory.
    pub fn figures(self, items: f64, user_bytes: f64) -> Figures {
        let cpu = cpu() - self.cpu;
        let written = written(self.device.as_deref()) - self.written;
        self.done.store(true, Ordering::Relaxed);
        self.peak.fetch_max(anonymous(), Ordering::Relaxed);
        Figures::default()
            .with("dev/user", written as f64 / user_bytes.max(1.0))
            .with("cpu us", cpu * 1e6 / items.max(1.0))
            .with("anon MiB", self.peak.load(Ordering::Relaxed) as f64 / f64::from(1 << 20))
    }
}

/// The kernel's statistics of the block device that holds a directory.
fn device_of(dir: &Path) -> Option<std::path::PathBuf> {
    let dev = rustix::fs::stat(dir).ok()?.st_dev;
    let path = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(dev), rustix::fs::minor(dev));
    std::fs::metadata(&path).ok().map(|_| path.into())
}

/// Bytes written to the device; where its counters cannot be read, those that this process caused to be written.
fn written(device: Option<&Path>) -> u64 {
    let of_device = || {
        let stat = std::fs::read_to_string(device?).ok()?;
        Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
    };
    let of_process = || {
        let io = std::fs::read_to_string("/proc/self/io").ok()?;
        io.lines().find_map(|l| l.strip_prefix("write_bytes: "))?.parse().ok()
    };
    of_device().or_else(of_process).unwrap_or(0)
}

/// Drops the caches: the next reads come from the device, but for mapped pages.
pub fn drop_caches() {
    // Without the right to do so, what is called cold is only as cold as it is.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

/// Seconds of processor time, of all threads.
pub fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Anonymous memory of this process, in bytes.
pub fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Bytes that the files under a directory occupy.
pub fn occupied(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => occupied(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
