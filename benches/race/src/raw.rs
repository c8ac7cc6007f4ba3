//! The limit: a bare loop of durable direct writes.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{ReadWriteFlags, pwritev2};
use strandlog::disk::AlignedBuf;

/// Writes blocks of `bytes` one after the other into a zero-written file.
pub fn durable_writes(dir: &Path, bytes: usize, time: Duration) -> Histogram<u64> {
    let path = dir.join("raw");
    let len = 256 << 20;
    if std::fs::metadata(&path).map(|m| m.len()).unwrap_or(0) != len {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(&path, vec![0; len as usize]).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
    }
    let fd = open(&path, OFlags::WRONLY | OFlags::DIRECT, Mode::empty()).unwrap();
    let mut buf = AlignedBuf::with_capacity(bytes);
    buf.resize(bytes);
    let mut histogram = Histogram::new(3).unwrap();
    let start = Instant::now();
    let mut offset = 0;
    while start.elapsed() < time {
        let t = Instant::now();
        let n = pwritev2(&fd, &[std::io::IoSlice::new(buf.as_slice())], offset, ReadWriteFlags::DSYNC).unwrap();
        assert_eq!(n, bytes);
        histogram.record(t.elapsed().as_nanos() as u64).unwrap();
        offset = (offset + bytes as u64) % (len - bytes as u64);
    }
    histogram
}
