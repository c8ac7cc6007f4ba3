//! Everything that a caller may give, at its limits: each pair of indexes at an end of something as a range, byte limits from 0 on, and
//! terms, replicas, keys, values and entries of any length allowed, and one more. It is read at once, after a power cut and after a close.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Bytes, Entry, Error, Options, Placement, Wal};

use support::{PLACEMENTS, assert_sound, open, payload, small};

const MOST_ENTRY: u32 = 20_000;
const REPLICAS: [u64; 4] = [0, 1, u64::MAX - 1, u64::MAX];
const TERMS: [u64; 6] = [0, 1, 127, 1 << 63, u64::MAX - 1, u64::MAX];

fn options(placement: Placement) -> Options {
    small(placement).max_entry_bytes(MOST_ENTRY)
}

/// What a replica holds: its first index, the term before it, the entries behind that, and keys.
#[derive(Clone, Default)]
struct Held {
    first: u64,
    prev_term: u64,
    entries: Vec<(u64, u64, Bytes)>,
    keys: BTreeMap<Vec<u8>, Bytes>,
}

impl Held {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.first - 1, |entry| entry.0)
    }

    /// As the documentation of [`strandlog::Replica::entries`] has it.
    fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, (&'static str, u64)> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.end - 1 > self.last() {
            return Err(("beyond", range.end - 1));
        }
        if range.start < self.first {
            return Err(("before", range.start));
        }
        let mut left = max_bytes;
        let fits = |(n, (_, _, data)): &(usize, &(u64, u64, Bytes))| {
            let fits = data.len() <= left;
            left = if fits { left - data.len() } else { 0 };
            fits || *n == 0
        };
        let wanted = self.entries.iter().filter(|entry| range.contains(&entry.0));
        let found: Vec<_> = wanted.enumerate().take_while(fits).map(|(_, e)| e).collect();
        let exceeds = found.first().is_some_and(|(_, _, data)| data.len() > max_bytes);
        let found = found.into_iter().take(if exceeds { 1 } else { usize::MAX });
        Ok(found.map(|(index, term, data)| Entry { index: *index, term: *term, data: data.clone() }).collect())
    }

    fn term(&self, index: u64) -> Result<u64, (&'static str, u64)> {
        match self.entries.iter().find(|entry| entry.0 == index) {
            Some(entry) => Ok(entry.1),
            None if index == self.first - 1 => Ok(self.prev_term),
            None if index < self.first => Err(("before", index)),
            None => Err(("beyond", index)),
        }
    }

    /// Every index at which something ends, and its neighbours.
    fn edges(&self) -> Vec<u64> {
        let near = |at: u64| [at.wrapping_sub(1), at, at.wrapping_add(1)];
        let middle = self.first.saturating_add(5);
        let mut all: Vec<u64> = [0, self.first, middle, self.last()].into_iter().flat_map(near).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn brief<T>(found: Result<T, Error>) -> Result<T, (&'static str, u64)> {
    found.map_err(|error| match error {
        Error::OutOfRange { index, .. } => ("beyond", index),
        Error::Compacted { index, .. } => ("before", index),
        other => panic!("{other}"),
    })
}

fn compare(wal: &Wal, all: &BTreeMap<u64, Held>, when: &str) {
    assert_eq!(wal.replicas(), all.keys().copied().collect::<Vec<_>>(), "{when}");
    for (&id, held) in all {
        let replica = wal.replica(id);
        assert_eq!(replica.bounds(), (held.first, held.last()), "{when}: {id}");
        let edges = held.edges();
        for &from in &edges {
            assert_eq!(brief(replica.term(from)), held.term(from), "{when}: term {from} of {id}");
            // There is no entry before the first index: its term is known, and nothing else.
            let entry = held.entries.iter().find(|entry| entry.0 == from);
            let found = replica.entry(from);
            match (entry, found) {
                (Some((index, term, data)), Ok(found)) => {
                    assert_eq!((found.index, found.term, &found.data), (*index, *term, data), "{when}: {id}")
                }
                (None, Err(Error::Compacted { .. })) => assert!(from < held.first, "{when}: {from} of {id}"),
                (None, Err(Error::OutOfRange { .. })) => assert!(from > held.last(), "{when}: {from} of {id}"),
                (entry, found) => panic!("{when}: {from} of {id}: {found:?}, not {entry:?}"),
            }
            for (&to, max_bytes) in edges.iter().flat_map(|to| [0, 1, 50, 6000, usize::MAX].map(|max| (to, max))) {
                let (found, want) = (brief(replica.entries(from..to, max_bytes)), held.entries(from..to, max_bytes));
                assert_eq!(found, want, "{when}: {from}..{to} of {id}, {max_bytes} bytes");
                if from <= to {
                    // No half-open range includes the last possible index. So a reading up to there ends before it, and goes on with that
                    // entry alone.
                    let want = match to.checked_add(1) {
                        Some(end) => held.entries(from..end, max_bytes),
                        None if held.last() < to => Err(("beyond", to)),
                        None if from < to => held.entries(from..to, max_bytes),
                        None => Ok(vec![replica.entry(to).expect("there")]),
                    };
                    let found = brief(replica.entries_through(from, to, max_bytes));
                    assert_eq!(found, want, "{when}: {from} to {to} of {id}");
                }
                // Any answer will do: it promises nothing.
                replica.is_in_memory(from..to, max_bytes);
            }
        }
        let keys: BTreeMap<Vec<u8>, Bytes> = replica
            .keys()
            .iter()
            .map(|key| (key.to_vec(), replica.get(key).expect("sound").expect("listed")))
            .collect();
        assert!(keys == held.keys, "{when}: keys of {id}");
    }
}

/// Adds `n` entries of every length and term to the batch, from `first` on.
fn fill(batch: &mut Batch, id: u64, first: u64, n: u64) -> Held {
    let lens = [0, 1, 40, 0, 4096, MOST_ENTRY as usize, 0, 300];
    let prev_term = if first == 1 { 0 } else { u64::MAX };
    let entry = |i: u64| {
        let (index, term) = (first + i, TERMS[(i * TERMS.len() as u64 / n) as usize]);
        (index, term, payload(id, index, term, lens[(i % 8) as usize]))
    };
    let entries: Vec<_> = (0..n).map(entry).collect();
    if first > 1 {
        batch.install_snapshot(id, first - 1, prev_term);
    }
    batch.append(id, &entries);
    Held { first, prev_term, entries, keys: BTreeMap::new() }
}

fn refuses(wal: &Wal, batch: &mut Batch, why: &str) {
    let error = wal.commit(batch).expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn whatever_is_read_at_the_ends_is_what_was_written() {
    for (placement, first) in PLACEMENTS.iter().flat_map(|&p| [1, 1 << 40, u64::MAX - 11].map(|first| (p, first))) {
        let mut disk = Arc::new(SimDisk::new(8 << 20));
        let mut wal = open(options(placement), &disk);
        let value = wal.max_value_bytes() as usize;
        let mut all = BTreeMap::new();
        for id in REPLICAS {
            let mut batch = Batch::new();
            let mut held = fill(&mut batch, id, first, 12);
            for (key, len) in [(0, 0), (1, 1), (255, 4096), (256, 4097)] {
                let (key, data) = (vec![7; key], payload(id, 0, 0, len));
                batch.put(id, &key, &data);
                held.keys.insert(key, data);
            }
            wal.commit(&mut batch).expect("room");
            all.insert(id, held);
        }
        // The largest that is allowed, and one byte more.
        let largest = payload(0, 0, 1, value);
        wal.commit(Batch::new().put(0, &[7; 256], &largest)).expect("room");
        all.get_mut(&0).expect("there").keys.insert(vec![7; 256], largest);
        refuses(&wal, Batch::new().put(0, b"", &vec![1; value + 1]), "a value of");
        refuses(&wal, Batch::new().put(0, &[7; 257], b""), "a key of");
        refuses(&wal, Batch::new().delete(0, &[7; 257]), "a key of");
        let last = all[&0].last();
        let long = [(last, 1, vec![1; MOST_ENTRY as usize + 1])];
        refuses(&wal, Batch::new().append(0, &long), "the limit is 20000");
        refuses(&wal, Batch::new().append(0, &[(u64::MAX, 1, ""), (0, 1, "")]), "not consecutive");
        refuses(&wal, Batch::new().install_snapshot(0, u64::MAX, 1), "last possible index");
        refuses(&wal, Batch::new().truncate_prefix(5, 2), "does not exist");
        if last < u64::MAX {
            refuses(&wal, Batch::new().truncate_prefix(0, u64::MAX), "beyond last_index + 1");
            refuses(&wal, Batch::new().append(0, &[(u64::MAX, 1, "")]), "leaves a gap");
        }
        // None of these changes anything.
        wal.commit(Batch::new().truncate_prefix(0, 0).truncate_suffix(0, u64::MAX).truncate_suffix(9, 1))
            .map(drop)
            .unwrap_or_else(|e| panic!("{e}"));
        if last == u64::MAX {
            // But the last possible entry was cut.
            all.get_mut(&0).expect("there").entries.pop();
        }
        compare(&wal, &all, "at once");
        // The state machine is ahead of the log, so the truncation takes effect at once.
        wal.commit(Batch::new().durable_applied(1, u64::MAX).truncate_prefix(1, all[&1].last())).expect("room");
        let held = all.get_mut(&1).expect("there");
        held.prev_term = held.entries[10].1;
        held.first = held.entries[11].0;
        held.entries.drain(..11);
        for life in 0..6 {
            compare(&wal, &all, &format!("{placement:?} from {first}, life {life}"));
            assert_eq!(wal.replica(1).durable_applied().expect("sound"), Some(u64::MAX));
            assert_sound(&wal, "whole");
            match life % 3 {
                0 => wal.checkpoint().expect("cleaned"),
                1 => wal.close().expect("closed"),
                _ => {}
            }
            drop(wal);
            disk = Arc::new(if life % 3 == 2 { disk.crash_lost_all() } else { disk.restart() });
            wal = open(options(PLACEMENTS[life % 3]), &disk);
        }
    }
}

/// Geometry and all other options at their least and at their most: the log takes what its limits say, and opens again.
#[test]
fn every_option_holds_at_its_bounds() {
    let (small, large) = (64 << 10, 64 << 20);
    let base = || Wal::options().background(false);
    for (chunk, segment, slabs, more) in [
        (4096, small, 8, 0),
        (small, small, 12, 1),
        (4096, small, 8, 4095),
        (4096, small, 9, 4097),
        (4 << 20, large, 8, 0),
    ] {
        let shape = |options: Options| options.chunk_size(chunk as u32).segment_size(segment as u32);
        let capacity = (64 << 10) + slabs * segment + more;
        for most in [false, true] {
            let run = |options: Options| match most {
                true => {
                    options.recent_bytes(64 << 30).queue_bytes(4 << 30).direct_threshold(64 << 20).carry_fraction(100)
                }
                false => options.recent_bytes(1 << 20).queue_bytes(64 << 10).direct_threshold(4096).carry_fraction(1),
            };
            let options = || run(shape(base()));
            let what = format!("{chunk} {segment} {slabs} {more} {most}");
            let mut disk = Arc::new(SimDisk::new(capacity / 4096 * 4096));
            for life in 0..3 {
                let wal = options().open_disk(disk.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
                let value = payload(1, life, 1, wal.max_value_bytes() as usize);
                wal.commit(Batch::new().put(1, b"k", &value)).unwrap_or_else(|e| panic!("{what}: {e}"));
                wal.commit(Batch::new().append(2, &[(life + 1, 1, [7; 3000])]))
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(wal.replica(1).get(b"k").expect("sound"), Some(value), "{what}");
                wal.checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_sound(&wal, &what);
                assert_eq!(wal.replica(2).bounds(), (1, life + 1), "{what}");
                drop(wal);
                disk = Arc::new(disk.crash_lost_all());
            }
            let short = Arc::new(SimDisk::new((64 << 10) + 8 * segment - 4096));
            let refused = options().open_disk(short).map(drop);
            assert!(matches!(refused, Err(Error::Option { name: "capacity", .. })), "{what}: {refused:?}");
        }
    }
    // With a limit of 0 only empty entries are taken.
    let least = |options: Options| options.segment_size(64 << 10).chunk_size(4096);
    let opened = |options: Options| least(options).open_disk(Arc::new(SimDisk::new(4 << 20)));
    let wal = opened(base().max_entry_bytes(0)).expect("opened");
    wal.commit(Batch::new().append(1, &[(1, 1, "")])).expect("nothing");
    refuses(&wal, Batch::new().append(1, &[(2, 1, "x")]), "the limit is 0");
    assert!(matches!(opened(base().max_entry_bytes((64 << 20) + 1)), Err(Error::Option { .. })));
}

/// A log of a quarter of a tebibyte, or with `STRANDLOG_LARGEST=1` the largest that there is: nothing that counts its blocks overflows. The
/// simulated device holds only what was written.
#[test]
fn the_largest_log_is_one() {
    let options = || Wal::options().chunk_size(4 << 20).segment_size(64 << 20).background(false);
    let (capacity, journal) = if support::env("STRANDLOG_LARGEST", 0) > 0 { (8 << 40, 4000) } else { (1 << 38, 255) };
    let mut disk = Arc::new(SimDisk::new(capacity));
    for life in 0..2 {
        let wal = options().open_disk(disk.clone()).expect("opened");
        wal.commit(Batch::new().append(1, &[(life + 1, 1, payload(1, life, 1, 9 << 20))])).expect("room");
        assert_eq!(wal.replica(1).entry(life + 1).expect("there").data, payload(1, life, 1, 9 << 20));
        let s = wal.stats();
        assert_eq!((s.capacity, s.journal_segments, s.journal_cap_segments), (capacity, journal, journal));
        drop(wal);
        disk = Arc::new(disk.restart());
    }
}
