//! Batches drawn at random, most of which make sense for what the log holds.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::Bytes;

use super::model::{Op, Ops, Rep, World};
use super::support::payload;

/// What kind of batches to draw.
#[derive(Clone, Debug)]
pub struct Shape {
    pub ids: Vec<u64>,
    /// Beyond this many live bytes mostly truncations are drawn.
    pub live: u64,
    pub max_value: usize,
    pub max_entry: usize,
    /// One batch in so many makes no sense; none if 0.
    pub nonsense: u32,
}

/// Draws batches, each with a term of its own, so that no two entries are alike.
pub struct Steps {
    pub rng: StdRng,
    pub shape: Shape,
    term: u64,
}

impl Steps {
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), shape, term: 1 }
    }

    /// Begins a life with terms above those of all lives before.
    pub fn begin_life(&mut self, life: u64) {
        self.term = self.term.max(life << 20);
    }

    pub fn draw(&mut self, world: &World) -> Ops {
        self.term += 1;
        let mut ops = Ops::new();
        let full = world.bytes() > self.shape.live;
        let count = [1, 1, 1, 2, 3, 5][self.rng.random_range(0..6)];
        let mut now = world.clone();
        for _ in 0..count {
            let id = self.shape.ids[self.rng.random_range(0..self.shape.ids.len())];
            let op = self.op(id, now.0.get(&id), full);
            // An operation for which the whole batch would be refused is left out.
            ops.push((id, op));
            match world.after(&ops) {
                Ok(next) => now = next,
                Err(_) => drop(ops.pop()),
            }
        }
        if self.shape.nonsense > 0 && self.rng.random_ratio(1, self.shape.nonsense) {
            let bad = self.nonsense(&now);
            ops.push(bad);
        }
        ops
    }

    fn op(&mut self, id: u64, rep: Option<&Rep>, full: bool) -> Op {
        let Some(rep) = rep else {
            return match self.rng.random_range(0..20) {
                0 => Op::Snapshot(self.rng.random_range(0..50), self.term),
                1..=3 => self.put(None),
                4 | 5 => Op::Report(self.rng.random_range(0..5)),
                6 => Op::Remove,
                7 => Op::Delete(b"vote".to_vec()),
                8 => Op::Cut(self.rng.random_range(1..5)),
                _ => self.append(id, 1),
            };
        };
        let (first, last) = (rep.first(), rep.last());
        let any = |rng: &mut StdRng| rng.random_range(first..=last + 1);
        match self.rng.random_range(0..if full { 60 } else { 100 }) {
            0..=3 => Op::Truncate(any(&mut self.rng)),
            4..=7 => Op::Cut(any(&mut self.rng)),
            8..=10 => Op::Snapshot(self.rng.random_range(first - 1..=last + 5), self.term),
            11 | 12 => Op::Remove,
            13 if rep.reported.is_none() => Op::Report(0),
            13..=17 if rep.reported.is_some() => Op::Report(self.rng.random_range(first - 1..=last)),
            18 | 19 => Op::Delete(self.key()),
            20..=40 if full => Op::Truncate(last + 1 - self.rng.random_range(0..2).min(last + 1 - first)),
            41..=50 if full => Op::Report(last),
            20..=35 => self.put(Some(rep)),
            36..=42 => {
                let from = any(&mut self.rng);
                self.append(id, from)
            }
            43..=46 => Op::Truncate((last + 1).saturating_sub(self.rng.random_range(0..20)).max(1)),
            _ => self.append(id, last + 1),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0 => Vec::new(),
            1 => vec![b'k'; 256],
            2 | 3 => b"conf".to_vec(),
            4 => b"snapshot".to_vec(),
            _ => b"vote".to_vec(),
        }
    }

    fn put(&mut self, rep: Option<&Rep>) -> Op {
        let key = self.key();
        let old = rep.and_then(|r| r.keys.get(&key)).map_or(20, Bytes::len);
        let len = match self.rng.random_range(0..12) {
            0 => 0,
            1 => 4095 + self.rng.random_range(0..3),
            2 => self.rng.random_range(0..10_000),
            3 => self.rng.random_range(0..=self.shape.max_value),
            4..=7 => old,
            _ => self.rng.random_range(1..60),
        };
        let salt = self.rng.random::<u32>();
        Op::Put(key, payload(u64::from(salt), 0, self.term, len.min(self.shape.max_value)))
    }

    fn append(&mut self, id: u64, from: u64) -> Op {
        let count = match self.rng.random_range(0..12) {
            0 => self.rng.random_range(5..30),
            n => 1 + n % 4,
        };
        let large = self.rng.random_ratio(1, 12);
        let entry = |i: u64| {
            let len = match self.rng.random_range(0..12) {
                0 => 0,
                1 => 4090 + self.rng.random_range(0..12),
                2 => self.rng.random_range(0..3000),
                3 if large => self.rng.random_range(0..=self.shape.max_entry),
                _ => self.rng.random_range(1..300),
            };
            (i, self.term, payload(id, i, self.term, len.min(self.shape.max_entry)))
        };
        Op::Append((from..from + count).map(entry).collect())
    }

    /// An operation that no log takes in this state.
    fn nonsense(&mut self, world: &World) -> (u64, Op) {
        let at = |rng: &mut StdRng| self.shape.ids[rng.random_range(0..self.shape.ids.len())];
        let id = at(&mut self.rng);
        let rep = world.0.get(&id).cloned().unwrap_or_default();
        let bad = match self.rng.random_range(0..9) {
            0 => Op::Append(vec![(rep.last() + 2, self.term, Bytes::new())]),
            1 => Op::Append(vec![(rep.first() - 1, self.term, Bytes::new())]),
            2 => Op::Append(vec![(0, self.term, Bytes::new())]),
            3 => Op::Append(vec![(rep.last() + 1, self.term, Bytes::new()), (rep.last() + 3, self.term, Bytes::new())]),
            4 => Op::Truncate(rep.last() + 2 + self.rng.random_range(0..3)),
            5 => Op::Cut(rep.first() - 1),
            6 => Op::Put(b"\0sl.mine".to_vec(), Bytes::new()),
            7 => Op::Put(vec![b'x'; 257], Bytes::new()),
            _ => Op::Put(b"vote".to_vec(), Bytes::from(vec![0; self.shape.max_value + 1])),
        };
        (id, bad)
    }

    /// What makes room in a full log: all that may go goes.
    pub fn relief(&mut self, world: &World) -> Ops {
        let of = |(&id, rep): (&u64, &Rep)| {
            let report = rep.reported.is_some().then_some((id, Op::Report(rep.last())));
            report.into_iter().chain([(id, Op::Truncate(rep.last() + 1))])
        };
        world.0.iter().flat_map(of).collect()
    }
}

/// Whether the batch brings something, so that an opening or a full log may refuse it for want of room.
pub fn grows(world: &World, ops: &Ops) -> bool {
    let mut large = 0;
    let mut removed = Vec::new();
    for (id, op) in ops {
        let rep = world.0.get(id).filter(|_| !removed.contains(id));
        match op {
            Op::Append(_) => return true,
            Op::Put(key, value) => {
                let Some(old) = rep.and_then(|r| r.keys.get(key)) else { return true };
                if value.len() > old.len() || old.len() > 4096 && value.len() <= 4096 {
                    return true;
                }
                large += usize::from(value.len() > 4096);
                // Of two puts in one batch the second may be longer than the first.
                if ops.iter().filter(|(other, op)| other == id && matches!(op, Op::Put(k, _) if k == key)).count() > 1
                    || ops.iter().any(|(other, op)| other == id && *op == Op::Delete(key.clone()))
                {
                    return true;
                }
            }
            Op::Report(_) if rep.is_none_or(|r| r.reported.is_none()) => return true,
            Op::Snapshot(..) if rep.is_none() => return true,
            Op::Remove => removed.push(*id),
            _ => {}
        }
    }
    large > 1
}
