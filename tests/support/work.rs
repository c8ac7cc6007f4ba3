//! Generated work: batches over a few replicas that a model can follow.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use strandlog::Bytes;

use super::model::{Model, Op, Rep};
use super::payload;

/// What kind of work to generate.
#[derive(Clone, Debug)]
pub struct Shape {
    pub replicas: Vec<u64>,
    /// The lengths from which those of entries are drawn.
    pub sizes: Vec<usize>,
    /// Beyond this many live bytes in all, batches only truncate, cut and remove.
    pub live_bytes: usize,
    /// One batch in this many is meant to be refused; none if 0.
    pub nonsense: u32,
}

impl Shape {
    /// Every boundary that the small geometry has, and the lengths one byte below and above it.
    pub fn boundaries(chunk: usize, segment: usize, direct: usize) -> Vec<usize> {
        let mut sizes = vec![0, 1, 2, 7, 8, 100, 200, 300, 500, 700, 1000, 2000, 30, 60, 5 * chunk + 17];
        for edge in [4096, chunk, chunk - 72, 2 * chunk - 72, chunk / 8, segment / 2, segment, direct, direct - 4] {
            sizes.extend([edge - 1, edge, edge + 1]);
        }
        sizes
    }
}

#[derive(Clone)]
pub struct Work {
    pub rng: StdRng,
    pub shape: Shape,
    term: u64,
}

impl Work {
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), shape, term: 1 }
    }

    /// Gives all further entries a term that none had before: whatever comes back from earlier is told apart by it.
    pub fn next_term(&mut self) {
        self.term += 1;
    }

    fn size(&mut self) -> usize {
        let size = *self.shape.sizes.choose(&mut self.rng).expect("sizes");
        // Large ones are rare, so that most batches stay small.
        if size > 8192 && self.rng.random_bool(0.7) { self.rng.random_range(0..400) } else { size }
    }

    fn value(&mut self, replica: u64) -> Bytes {
        let size = match self.rng.random_range(0..20) {
            0 => 4095 + self.rng.random_range(0..3),
            1 => self.rng.random_range(4097..20_000),
            _ => self.rng.random_range(0..120),
        };
        let salt = self.rng.random();
        payload(replica, salt, 77, size)
    }

    /// A batch that the model accepts, or (rarely) one that it refuses.
    pub fn batch(&mut self, model: &Model) -> Vec<Op> {
        if self.rng.random_range(0..200) == 0 {
            self.term += 1;
        }
        let live: usize = model.reps.values().map(Rep::bytes).sum();
        if live > self.shape.live_bytes {
            return self.relief(model);
        }
        if self.shape.nonsense > 0 && self.rng.random_range(0..self.shape.nonsense) == 0 {
            return self.nonsense(model);
        }
        // Later operations of one batch see the earlier ones.
        let mut state: BTreeMap<u64, Rep> = BTreeMap::new();
        let mut ops = Vec::new();
        let n = *[1, 1, 1, 2, 3, 5, 9, 14].choose(&mut self.rng).expect("not empty");
        for _ in 0..n {
            let replica = *self.shape.replicas.choose(&mut self.rng).expect("replicas");
            let before = state.get(&replica).or_else(|| model.reps.get(&replica)).cloned();
            let Some(op) = self.op(replica, before.as_ref()) else { continue };
            let mut scratch = Model::default();
            scratch.reps.extend(before.map(|r| (replica, r)));
            scratch.apply(std::slice::from_ref(&op));
            match scratch.reps.remove(&replica) {
                Some(rep) => drop(state.insert(replica, rep)),
                // A removed replica may be written again in the same batch, which is rare.
                None => drop(state.insert(replica, Rep::default())),
            }
            ops.push(op);
        }
        ops
    }

    fn op(&mut self, replica: u64, before: Option<&Rep>) -> Option<Op> {
        let kind = self.rng.random_range(0..100);
        let (first, last) = before.map_or((1, 0), |r| (r.first, r.last()));
        Some(match kind {
            0..=59 => {
                let n = *[1, 1, 1, 2, 3, 5, 8, 20].choose(&mut self.rng).expect("not empty");
                if last == u64::MAX {
                    return Some(self.entries(replica, last, 1));
                }
                let n = n.min(usize::try_from(u64::MAX - last).unwrap_or(usize::MAX));
                self.entries(replica, last + 1, n)
            }
            // Conflict: a suffix is overwritten, near the end or anywhere.
            60..=67 if last >= first => {
                let reach = if self.rng.random_bool(0.5) { 4 } else { u64::MAX };
                let from = self.rng.random_range(first.max(last.saturating_sub(reach))..=last);
                self.term += 1;
                let n = self.rng.random_range(1..6).min(u64::MAX - from + u64::from(from < u64::MAX)).max(1);
                let n = n.min((u64::MAX - from).saturating_add(1));
                self.entries(replica, from, n as usize)
            }
            68..=81 if last >= first => {
                let to = if self.rng.random_bool(0.1) && last < u64::MAX {
                    last + 1
                } else {
                    self.rng.random_range(first..=last)
                };
                Op::Truncate { replica, first: to }
            }
            82..=90 => {
                let key = vec![b'k'; self.rng.random_range(0..4)];
                Op::Put { replica, key, value: self.value(replica) }
            }
            91..=93 => Op::Delete { replica, key: vec![b'k'; self.rng.random_range(0..4)] },
            94..=95 => {
                let index = match self.rng.random_range(0..6) {
                    0 => 0,
                    1 => u64::MAX - self.rng.random_range(1..12),
                    _ => last.saturating_add(self.rng.random_range(0..1000)).min(u64::MAX - 1),
                };
                Op::Reset { replica, index, term: self.term }
            }
            // The cut takes some entries, none or all.
            97..=99 if before.is_some() => {
                let reach = if self.rng.random_bool(0.7) { 4 } else { u64::MAX };
                let least = first.max(last.saturating_sub(reach));
                Op::Cut { replica, from: self.rng.random_range(least..=last.saturating_add(2)) }
            }
            96 if before.is_some() => Op::Remove { replica },
            _ => return None,
        })
    }

    fn entries(&mut self, replica: u64, first: u64, n: usize) -> Op {
        let mut total = 0;
        let mut entries = Vec::new();
        for i in 0..n {
            let index = first + i as u64;
            let len = self.size();
            total += len;
            if self.rng.random_range(0..40) == 0 {
                self.term += 1;
            }
            entries.push((index, self.term, payload(replica, index, self.term, len)));
            if total > 100_000 || index == u64::MAX {
                break;
            }
        }
        Op::Append { replica, entries }
    }

    /// Truncates, cuts or removes the three replicas that hold most.
    pub fn relief(&mut self, model: &Model) -> Vec<Op> {
        let mut reps: Vec<_> = model.reps.iter().collect();
        reps.sort_by_key(|(_, r)| std::cmp::Reverse(r.bytes()));
        let mut ops = Vec::new();
        for (&replica, r) in reps.into_iter().take(3) {
            if r.entries.is_empty() || self.rng.random_range(0..12) == 0 {
                ops.push(Op::Remove { replica });
                continue;
            }
            let (first, last) = (r.first, r.last());
            let mid = first + (last - first) / 2;
            if self.rng.random_range(0..6) == 0 {
                ops.push(Op::Cut { replica, from: self.rng.random_range(first..=mid) });
                continue;
            }
            ops.push(Op::Truncate { replica, first: self.rng.random_range(mid..=last) });
        }
        ops
    }

    fn nonsense(&mut self, model: &Model) -> Vec<Op> {
        let replica = *self.shape.replicas.choose(&mut self.rng).expect("replicas");
        let rep = model.reps.get(&replica).cloned().unwrap_or_default();
        let (first, last) = (rep.first, rep.last());
        let one = |i: u64| vec![(i, 1, payload(replica, i, 1, 10))];
        // A valid operation comes first: it must not take effect either.
        let mut ops = vec![Op::Put { replica: 3, key: b"n".to_vec(), value: payload(3, 0, 0, 20) }];
        let bad = match self.rng.random_range(0..10) {
            0 => Op::Append { replica, entries: one(last.saturating_add(2)) },
            1 => Op::Append { replica, entries: one(first.saturating_sub(1)) },
            2 => Op::Append { replica, entries: one(0) },
            3 => Op::Append { replica, entries: [one(last.saturating_add(1)), one(last.saturating_add(3))].concat() },
            4 => Op::Truncate { replica, first: last.saturating_add(2) },
            5 => Op::Reset { replica, index: u64::MAX, term: 1 },
            7 => Op::Cut { replica, from: first.saturating_sub(1) },
            // The append leaves a gap behind what the same batch cuts.
            8 => {
                ops.push(Op::Cut { replica, from: last.max(first) });
                Op::Append { replica, entries: one(last.saturating_add(1)) }
            }
            6 => {
                ops.push(Op::Put { replica, key: b"x".to_vec(), value: Bytes::new() });
                Op::Remove { replica }
            }
            _ => Op::Append { replica, entries: one(u64::MAX) },
        };
        ops.push(bad);
        ops
    }
}
