//! Writers that set keys of their own, one write at a time each, and remember what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use tokio::task::{JoinError, JoinHandle};

use crate::client::Client;
use crate::types::{Put, Versioned};

/// How long a writer goes on asking after the load has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// A key that was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub key: String,
    /// The newest version that was acknowledged; 0 if none was.
    pub acknowledged: u64,
    /// The newest version that was requested.
    pub asked: u64,
}

/// The value of the key in this version: that many bytes, which no other key or version has.
pub fn text(key: &str, version: u64, bytes: usize) -> String {
    let mut text = format!("{key} {version} ").repeat(bytes / (key.len() + 2) + 1);
    text.truncate(bytes);
    text
}

/// Counts and latencies since they were last taken.
pub struct Meter {
    pub acknowledged: AtomicU64,
    micros: Mutex<Histogram<u64>>,
}

impl Meter {
    /// Median, 99th percentile and worst, in microseconds, since the last call.
    pub fn take(&self) -> (u64, u64, u64) {
        let mut micros = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = (micros.value_at_quantile(0.5), micros.value_at_quantile(0.99), micros.max());
        micros.reset();
        taken
    }
}

pub struct Load {
    pub meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<Written>>>,
}

impl Load {
    /// Starts `writers` tasks with `keys` keys each.
    pub fn start(client: &Arc<Client>, writers: u64, keys: u64, bytes: usize) -> Self {
        let histogram = Histogram::new_with_max(LAST_PATIENCE.as_micros() as u64 * 2, 3).expect("within its bounds");
        let meter = Arc::new(Meter { acknowledged: AtomicU64::new(0), micros: Mutex::new(histogram) });
        let stop = Arc::new(AtomicBool::new(false));
        // Above every version of an earlier run over the same logs.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let base = now.as_millis() as u64 * 1000;
        let writers = (0..writers).map(|writer| {
            let (client, meter, stop) = (Arc::clone(client), Arc::clone(&meter), Arc::clone(&stop));
            let written = (0..keys).map(|key| Written { key: format!("w{writer}/k{key}"), acknowledged: 0, asked: 0 });
            let written: Vec<Written> = written.collect();
            tokio::spawn(async move { write(&client, &meter, &stop, written, base, bytes).await })
        });
        let writers = writers.collect();
        Self { meter, stop, writers }
    }

    /// Every writer completes its last write, and returns what it wrote. If one panicked, the whole result is an error.
    pub async fn stop(self) -> Result<Vec<Written>, JoinError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in self.writers {
            all.extend(writer.await?);
        }
        Ok(all)
    }
}

async fn write(
    client: &Client,
    meter: &Meter,
    stop: &AtomicBool,
    mut written: Vec<Written>,
    base: u64,
    bytes: usize,
) -> Vec<Written> {
    let mut version = base;
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        let count = written.len().max(1) as u64;
        let Some(one) = written.get_mut((version % count) as usize) else { break };
        one.asked = version;
        let put = Put { key: one.key.clone(), value: Versioned { version, text: text(&one.key, version, bytes) } };
        let began = Instant::now();
        if client.put(put, began + LAST_PATIENCE).await.is_ok() {
            one.acknowledged = version;
            meter.acknowledged.fetch_add(1, Ordering::Relaxed);
            let mut micros = meter.micros.lock().unwrap_or_else(PoisonError::into_inner);
            micros.saturating_record(began.elapsed().as_micros() as u64);
        }
    }
    written
}
