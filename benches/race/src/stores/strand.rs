//! strandlog.

use std::path::Path;

use strandlog::{Placement, Wal};

use super::{Part, Scratch, Store};

pub struct Strand(pub Wal);

impl Strand {
    pub fn open(dir: &Path, capacity: u64, placement: Placement) -> Self {
        Self(Wal::options().capacity(capacity).placement(placement).open(dir.join("log")).unwrap())
    }
}

impl Store for Strand {
    fn commit(&self, parts: &[Part<'_>], scratch: &mut Scratch) {
        for part in parts {
            let mut index = part.first;
            // Tuples as the API takes them; a few at a time, so that they live on the stack.
            for chunk in part.entries.chunks(8) {
                let mut tuples: [(u64, u64, &[u8]); 8] = [(0, 1, &[]); 8];
                for (slot, data) in tuples.iter_mut().zip(chunk) {
                    *slot = (index, 1, data);
                    index += 1;
                }
                scratch.batch.append(part.replica, &tuples[..chunk.len()]);
            }
            if let Some(first) = part.truncate {
                scratch.batch.truncate_prefix(part.replica, first);
            }
        }
        self.0.commit(&mut scratch.batch).unwrap();
    }

    fn state(&self, replicas: &[u64], value: &[u8], scratch: &mut Scratch) {
        for &replica in replicas {
            scratch.batch.put(replica, b"hs", value);
        }
        self.0.commit(&mut scratch.batch).unwrap();
    }

    fn read(&self, replica: u64, first: u64, last: u64) -> u64 {
        let r = self.0.replica(replica);
        let mut next = first;
        while next <= last {
            next += r.entries(next..last + 1, 1 << 20).unwrap().len() as u64;
        }
        next - first
    }

    fn entry(&self, replica: u64, index: u64) -> usize {
        self.0.replica(replica).entry(index).unwrap().data.len()
    }

    fn term(&self, replica: u64, index: u64) -> Option<u64> {
        self.0.replica(replica).term(index).ok()
    }

    fn close(&self) {
        self.0.close().unwrap();
    }

    fn occupied(&self) -> Option<u64> {
        let s = self.0.stats();
        Some(s.used_chunks * s.chunk_size + (s.journal_segments - s.free_segments) * s.segment_size)
    }

    fn notes(&self) -> String {
        let s = self.0.stats();
        format!(
            "frames {} entries/frame {:.1} journal {} MiB settled {} MiB carried {} MiB segments {}/{} free {} cleaned {} stalls {} recovery {} us, commit {} us of which the device {} us, {}",
            s.frames,
            s.entries as f64 / s.frames.max(1) as f64,
            s.journal_bytes >> 20,
            s.settled_bytes >> 20,
            s.carried_bytes >> 20,
            s.journal_segments,
            s.journal_cap_segments,
            s.free_segments,
            s.segments_cleaned,
            s.stalls,
            s.recovery_micros,
            s.commit_micros.sum_micros() / s.commit_micros.count().max(1),
            s.device_micros.sum_micros() / s.device_micros.count().max(1),
            s.disk.map_or(String::new(), |d| d.to_string()),
        )
    }
}
