//! A log of any shape, full to the brim: what must always be possible is possible at any time, and in the end all of its space comes back.
//! Random work against a model.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Error, Options, Wal};

use support::model::{Model, Op, batch};
use support::schedule::block_on;
use support::{PLACEMENTS, assert_sound, for_each, payload, seeds, tally};

/// Fault that ends a wait that never would: after this many events the disk fails.
const FOR_EVER: u64 = 300_000;
/// The same for waits without events.
const LIMIT: Duration = Duration::from_secs(60);

/// Of ten ways to submit so many and one are commits.
const COMMITS: u32 = 5;

/// What a log is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    chunk: u32,
    segment: u32,
    slabs: u64,
    cap: u64,
    background: bool,
    replicas: u64,
    /// One fraction for all openings; each draws its own if `None`.
    carry: Option<u8>,
    /// Every number is as long as can be: replicas, indexes, terms.
    far: bool,
}

/// Where indexes and terms begin in a log of long numbers.
const FAR: u64 = u64::MAX - (1 << 40);

impl Shape {
    fn draw(rng: &mut StdRng) -> Self {
        let segment = *pick(rng, &[64 << 10, 64 << 10, 64 << 10, 128 << 10, 256 << 10]);
        let chunk = *pick(rng, &[4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10]);
        let slabs = *pick(rng, &[8, 8, 9, 10, 12, 17, 40, 100]);
        let cap = *pick(rng, &[6, 6, 7, 8, 16, 1000]) * u64::from(segment);
        let background = rng.random_ratio(1, 5);
        let replicas = *pick(rng, &[0, 1, 1, 2, 3, 7, 40, 300, 2000]);
        let carry = rng.random_bool(0.5).then(|| *pick(rng, &[1, 10, 50, 100]));
        Self { chunk, segment, slabs, cap, background, replicas, carry, far: false }
    }

    fn options(self, rng: &mut StdRng) -> Options {
        let options = Wal::options().chunk_size(self.chunk).segment_size(self.segment).journal_cap(self.cap);
        options
            .carry_fraction(self.carry.unwrap_or_else(|| *pick(rng, &[1, 10, 50, 100])))
            .direct_threshold(*pick(rng, &[4 << 10, 8 << 10, 64 << 10]))
            .placement(*pick(rng, &PLACEMENTS))
            .recent_bytes(1 << 20)
            .background(self.background)
    }
}

fn pick<'a, T>(rng: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[rng.random_range(0..of.len())]
}

/// A log at work, and the model of what was written to it.
struct World {
    shape: Shape,
    rng: StdRng,
    disk: Arc<SimDisk>,
    wal: Arc<Wal>,
    /// Others write to the same log.
    shared: bool,
    /// Slices that readers hold, and the bytes that they must have.
    slices: Vec<(strandlog::Bytes, Vec<u8>)>,
    model: Model,
    /// What each state machine that reports holds durably.
    applied: BTreeMap<u64, u64>,
    salt: u64,
    seed: u64,
    told: Vec<String>,
    /// Batches accepted and refused, and openings.
    counts: [u64; 3],
    next_id: u64,
    /// Where the power may fail at any write: how the log stood for sure, and what was submitted since.
    cuts: Option<Since>,
    /// More was carried than the budget of this opening, whose fraction is another: it may have promised what is kept for a large value.
    squeezed: bool,
}

/// Who has what in his state machine.
type Reports = Vec<(u64, u64)>;

/// What a crash may leave: all up to one of these batches.
#[derive(Default)]
struct Since {
    model: Model,
    applied: BTreeMap<u64, u64>,
    batches: Vec<(Vec<Op>, Reports)>,
    /// So many of them are durable.
    durable: usize,
}

/// What a batch that was accepted makes of a log.
fn take_effect(model: &mut Model, applied: &mut BTreeMap<u64, u64>, ops: &[Op], reports: &[(u64, u64)]) {
    model.apply(ops);
    for &(id, index) in reports {
        let now = applied.entry(id).or_default();
        *now = index.max(*now);
    }
    for op in ops {
        match *op {
            Op::Remove { replica } => drop(applied.remove(&replica)),
            Op::Reset { replica, index, .. } => {
                if let Some(now) = applied.get_mut(&replica) {
                    *now = index.min(*now);
                }
            }
            _ => {}
        }
    }
}

impl World {
    fn begin(seed: u64) -> Self {
        Self::begin_as(seed, |shape| shape)
    }

    fn begin_as(seed: u64, change: impl Fn(Shape) -> Shape) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = change(Shape::draw(&mut rng));
        let disk = Arc::new(SimDisk::new((64 << 10) + shape.slabs * u64::from(shape.segment)));
        let wal = shape.options(&mut rng).open_disk(disk.clone()).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        Self::on(seed, shape, rng, disk, Arc::new(wal), 1)
    }

    fn on(seed: u64, shape: Shape, rng: StdRng, disk: Arc<SimDisk>, wal: Arc<Wal>, next_id: u64) -> Self {
        Self {
            shape,
            rng,
            disk,
            wal,
            shared: false,
            slices: Vec::new(),
            model: Model::default(),
            applied: Default::default(),
            salt: 0,
            seed,
            told: Vec::new(),
            counts: [0; 3],
            next_id,
            cuts: None,
            squeezed: false,
        }
    }

    fn fail(&self, why: &str) -> ! {
        let n = self.told.len().saturating_sub(30);
        panic!("seed {}, {:?}: {why}\n{}\n{:#?}", self.seed, self.shape, self.told[n..].join("\n"), self.wal.stats())
    }

    /// Submits in one of many ways. A batch that `must` get in may not be refused.
    fn submit(&mut self, ops: &[Op], reports: &[(u64, u64)], must: bool) -> bool {
        if ops.is_empty() && reports.is_empty() {
            return true;
        }
        let make = |ops: &[Op]| {
            let mut all = Batch::new();
            // Reports come first: a truncation goes only as far as they allow.
            reports.iter().for_each(|&(id, index)| _ = all.durable_applied(id, index));
            let mut rest = batch(ops);
            if reports.is_empty() {
                return rest;
            }
            rest.clear();
            for op in ops {
                match op {
                    Op::Append { replica, entries } => drop(all.append(*replica, entries)),
                    Op::Put { replica, key, value } => drop(all.put(*replica, key, value)),
                    Op::Delete { replica, key } => drop(all.delete(*replica, key)),
                    Op::Truncate { replica, first } => drop(all.truncate_prefix(*replica, *first)),
                    Op::Cut { replica, from } => drop(all.truncate_suffix(*replica, *from)),
                    Op::Reset { replica, index, term } => drop(all.install_snapshot(*replica, *index, *term)),
                    Op::Remove { replica } => drop(all.remove(*replica)),
                };
            }
            all
        };
        let for_ever = self.disk.events() + FOR_EVER;
        if !self.shared {
            self.disk.fail_at(for_ever, Fault::Error(EIO));
        }
        let how = self.rng.random_range(0..10);
        let outcome = match how {
            0..=COMMITS => self.wal.commit(make(ops)).map(drop),
            6 => block_on(async { self.wal.submit_async(make(ops)).await }).map(drop),
            7 => self.wal.submit(make(ops).lazy()).map(drop),
            8 => self.wal.submit(make(ops)).map(drop),
            _ => {
                let begun = Instant::now();
                loop {
                    match self.wal.try_submit(make(ops)) {
                        Err(Error::Busy { .. }) => {
                            if begun.elapsed() > LIMIT {
                                self.fail("busy for ever");
                            }
                            if !self.shape.background {
                                break self.wal.commit(make(ops)).map(drop);
                            }
                            std::thread::yield_now();
                        }
                        // `try_submit` had nothing cleaned for it.
                        Err(Error::Full(_)) => break self.wal.commit(make(ops)).map(drop),
                        other => break other.map(drop),
                    }
                }
            }
        };
        let brief: Vec<String> = ops.iter().take(6).map(|op| format!("{op:?}").chars().take(90).collect()).collect();
        self.told.push(format!(
            "{} ops {brief:?}, reports {:?}, how {how}: {:?}",
            ops.len(),
            reports.iter().take(5).collect::<Vec<_>>(),
            outcome.as_ref().err().map(|e| e.to_string().chars().take(300).collect::<String>())
        ));
        match outcome {
            Ok(()) => {
                take_effect(&mut self.model, &mut self.applied, ops, reports);
                if let Some(since) = &mut self.cuts {
                    since.batches.push((ops.to_vec(), reports.to_vec()));
                    if how <= COMMITS {
                        since.durable = since.batches.len();
                    }
                }
                self.counts[0] += 1;
                true
            }
            Err(e) if self.has_failed(&e) && self.disk.events() < for_ever => {
                let since = self.cuts.as_mut().expect("cut");
                since.batches.push((ops.to_vec(), reports.to_vec()));
                self.recover();
                false
            }
            Err(Error::Full(_)) if !must => {
                self.counts[1] += 1;
                false
            }
            Err(e) => self.fail(&format!("must: {must}: {e}")),
        }
    }

    /// Whether the power failed.
    fn is_cut(&self) -> bool {
        self.cuts.is_some() && self.disk.is_cut()
    }

    /// Whether that is why: or a write or sync failed.
    fn has_failed(&self, why: &Error) -> bool {
        self.is_cut() || self.cuts.is_some() && matches!(why, Error::Poisoned { .. } | Error::Io { .. })
    }

    /// One of the next so many writes and syncs fails, mostly with the power.
    fn arm(&mut self, within: u64) {
        let event = self.disk.events() + self.rng.random_range(0..within);
        let short = Fault::ShortThenError { kept: self.rng.random_range(0..64 << 10), errno: EIO };
        let fault = *pick(&mut self.rng, &[Fault::Cut, Fault::Cut, Fault::Cut, Fault::Error(EIO), short]);
        self.disk.fail_at(event, fault);
    }

    /// From here on it may fail at any of them: this much is there for sure.
    fn begin_cuts(&mut self) {
        self.sync();
        let (model, applied) = (self.model.clone(), self.applied.clone());
        self.cuts = Some(Since { model, applied, ..Since::default() });
    }

    /// All of it is durable, or the power failed.
    fn sync(&mut self) {
        match self.wal.sync() {
            Ok(_) => {
                if let Some(since) = &mut self.cuts {
                    since.durable = since.batches.len();
                }
            }
            Err(e) if self.has_failed(&e) => self.recover(),
            Err(e) => self.fail(&format!("{e}")),
        }
    }

    /// The power is back, and fails again while the log is being opened; what is there then is all up to a batch, and no less than was
    /// durable.
    fn recover(&mut self) {
        self.open_cut(0.7);
    }

    fn open_cut(&mut self, fails: f64) {
        self.slices.clear();
        for attempt in 0.. {
            let disk = Arc::new(match self.rng.random_range(0..5) {
                0 => self.disk.crash_lost_all(),
                1 => self.disk.crash_kept_all(),
                2 if !self.disk.is_cut() => self.disk.restart(),
                _ => self.disk.crash_seeded(self.rng.random()),
            });
            self.disk = disk;
            if attempt < 20 && self.rng.random_bool(fails) {
                let within = *pick(&mut self.rng, &[3, 10, 40]);
                self.arm(within);
            }
            let options = self.shape.options(&mut self.rng);
            match options.open_disk(self.disk.clone()) {
                Ok(wal) => {
                    self.goes_on(wal);
                    break;
                }
                Err(e) if attempt < 20 && self.has_failed(&e) => self.told.push("failed in an opening".into()),
                Err(e) => self.fail(&format!("opening: {e}")),
            }
        }
        self.counts[2] += 1;
        self.told.push("opened behind a cut".into());
        let found = Model::read(&self.wal).unwrap_or_else(|e| self.fail(&format!("behind a cut: {e}")));
        let Since { mut model, mut applied, batches, durable } = self.cuts.take().expect("cut");
        let reports = |applied: &BTreeMap<u64, u64>| {
            found
                .reps
                .keys()
                .all(|id| self.wal.replica(*id).durable_applied().expect("sound") == applied.get(id).copied())
        };
        let mut stands = durable == 0 && found == model && reports(&applied);
        for (i, (ops, reported)) in batches.iter().enumerate() {
            if stands {
                break;
            }
            take_effect(&mut model, &mut applied, ops, reported);
            stands = i + 1 >= durable && found == model && reports(&applied);
        }
        if !stands {
            self.fail(&format!("of {} batches, {durable} durable: {}", batches.len(), model.difference(&found)));
        }
        (self.model, self.applied) = (model.clone(), applied.clone());
        self.cuts = Some(Since { model, applied, ..Since::default() });
        self.check("behind a cut");
    }

    /// With the log that was opened anew.
    fn goes_on(&mut self, wal: Wal) {
        // Without cuts nothing was refused for it so far.
        self.squeezed = self.cuts.is_some() && self.wal.stats().carried_class_bytes > wal.stats().carried_class_limit;
        self.wal = Arc::new(wal);
    }

    /// Closed and opened again, as far as that comes.
    fn close(&mut self) {
        self.let_go_of_slices();
        match self.wal.close() {
            Ok(_) => {
                self.told.push("closed".into());
                let since = self.cuts.as_mut().expect("begun");
                since.durable = since.batches.len();
            }
            Err(e) if self.has_failed(&e) => self.told.push("cut while it was closed".into()),
            Err(e) => self.fail(&format!("closing: {e}")),
        }
        self.recover();
    }

    fn ids(&self) -> Vec<u64> {
        self.model.reps.keys().copied().collect()
    }

    /// The number of a replica that never was.
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        let id = self.next_id - 1;
        // Far apart, too.
        if self.shape.far { id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63 } else { id }
    }

    /// The operations that a replica begins with.
    fn birth(&mut self, id: u64, ops: &mut Vec<Op>) {
        if self.shape.far {
            ops.push(Op::Reset { replica: id, index: FAR, term: FAR });
        }
        ops.push(self.vote(id));
    }

    fn first_index(&self) -> u64 {
        if self.shape.far { FAR + 1 } else { 1 }
    }

    fn term(&self, of: u64) -> u64 {
        if self.shape.far { FAR + of } else { of }
    }

    fn vote(&mut self, id: u64) -> Op {
        self.salt += 1;
        Op::Put { replica: id, key: b"vote".to_vec(), value: payload(id, self.salt, 7, 40) }
    }

    fn append(&mut self, id: u64, len: usize, n: u64) -> Op {
        let next = self.model.reps.get(&id).map_or(self.first_index(), |r| r.last() + 1);
        self.salt += 1;
        let term = self.term(self.salt / 50);
        let same = self.rng.random_bool(0.8);
        let entries = (0..n)
            .map(|i| {
                let term = if same { term } else { term + i };
                (next + i, term, payload(id, next + i, self.salt, len))
            })
            .collect();
        if !same {
            self.salt += n * 50;
        }
        Op::Append { replica: id, entries }
    }

    fn create(&mut self) {
        let mut left = self.shape.replicas;
        while left > 0 {
            let n = self.rng.random_range(1..=50.min(left));
            left -= n;
            let (mut ops, mut reports) = (Vec::new(), Vec::new());
            for _ in 0..n {
                let id = self.fresh_id();
                self.birth(id, &mut ops);
                if self.rng.random_bool(0.3) {
                    ops.push(Op::Put { replica: id, key: b"other".to_vec(), value: payload(id, 0, 8, 300) });
                }
                if self.rng.random_bool(0.1) {
                    ops.push(self.append(id, 200, 1));
                }
                if id.is_multiple_of(3) {
                    reports.push((id, 0));
                }
            }
            if !self.submit(&ops, &reports, false) {
                return;
            }
        }
    }

    /// Appends and puts until nothing more gets in.
    fn fill(&mut self) {
        let lens: &[&[usize]] = &[&[30_000, 3000, 300, 1], &[300, 1], &[5000, 10], &[1], &[3000, 1]];
        let empty: &[&[usize]] = &[&[0], &[1, 0], &[300, 0], &[3000, 0]];
        let lens = *pick(&mut self.rng, if self.shape.far { empty } else { lens });
        let alone = self.shape.far && self.rng.random_bool(0.7);
        let few = self.rng.random_range(1..5);
        for &len in lens {
            let mut refused = 0;
            while refused < 4 {
                let ids = self.ids();
                let fresh = ids.is_empty() || self.rng.random_ratio(1, 12);
                let mut ops = Vec::new();
                let count = if self.rng.random_bool(0.7) { 1 } else { self.rng.random_range(1..6) };
                for _ in 0..count {
                    if fresh {
                        let id = self.fresh_id();
                        self.birth(id, &mut ops);
                        continue;
                    }
                    let id = if self.rng.random_bool(0.6) {
                        ids[self.rng.random_range(0..ids.len().min(few))]
                    } else {
                        ids[self.rng.random_range(0..ids.len())]
                    };
                    if ops.iter().any(|op: &Op| op.replica() == id) {
                        continue;
                    }
                    let n = if len <= 300 { self.rng.random_range(1..80) } else { self.rng.random_range(1..3) };
                    let n = if alone || len == 1 && refused > 2 { 1 } else { n };
                    ops.push(match self.rng.random_range(0..20) {
                        0 => Op::Put {
                            replica: id,
                            key: vec![9, self.rng.random_range(0..20)],
                            value: payload(id, self.salt, 9, self.rng.random_range(0..400)),
                        },
                        1 if len > 300 => {
                            let most = (self.wal.max_value_bytes() as usize).min(20_000);
                            Op::Put { replica: id, key: b"large".to_vec(), value: payload(id, self.salt, 9, most) }
                        }
                        _ => self.append(id, len, n),
                    });
                }
                if self.submit(&ops, &[], false) {
                    refused = 0;
                } else {
                    refused += 1;
                }
            }
        }
    }

    /// Operations of the replica that are never refused.
    fn lets_go(&mut self, id: u64, ops: &mut Vec<Op>, reports: &mut Vec<(u64, u64)>) {
        let Some(rep) = self.model.reps.get(&id) else { return };
        let (first, last) = (rep.first, rep.last());
        let held = rep.entries.len() as u64;
        match self.rng.random_range(0..12) {
            0..=3 => {
                let to =
                    if self.rng.random_bool(0.5) { last + 1 } else { first + self.rng.random_range(0..=held.min(5)) };
                if let Some(&now) = self.applied.get(&id)
                    && now + 1 < to
                {
                    reports.push((id, to - 1));
                }
                ops.push(Op::Truncate { replica: id, first: to });
            }
            4 => ops.push(Op::Cut { replica: id, from: self.rng.random_range(first..=last + 1) }),
            5 => {
                let keys: Vec<_> = rep.keys.keys().filter(|k| *k != b"vote").cloned().collect();
                if !keys.is_empty() {
                    ops.push(Op::Delete { replica: id, key: pick(&mut self.rng, &keys).clone() });
                }
            }
            6 => {
                ops.push(Op::Reset { replica: id, index: last + self.rng.random_range(0..3), term: self.term(1 << 39) })
            }
            7 => {
                if let Some(&now) = self.applied.get(&id) {
                    reports.push((id, now.max(last)));
                }
            }
            8 if self.rng.random_bool(0.3) => {
                ops.push(Op::Remove { replica: id });
                return;
            }
            _ => {}
        }
        if self.rng.random_bool(0.7) && self.model.reps[&id].keys.contains_key(&b"vote"[..]) {
            ops.push(self.vote(id));
        }
    }

    /// Now and then a reader takes a slice of an entry, or lets go of all slices.
    fn hold(&mut self, ids: &[u64]) {
        if self.rng.random_ratio(1, 4) {
            let id = *pick(&mut self.rng, ids);
            let entries = &self.model.reps[&id].entries;
            if let Some((&index, (_, data))) = entries.iter().nth(self.rng.random_range(0..=entries.len())) {
                let found =
                    self.wal.replica(id).entry(index).unwrap_or_else(|e| self.fail(&format!("{id} {index}: {e}")));
                self.slices.push((found.data, data.to_vec()));
            }
        }
        if self.rng.random_ratio(1, 10) {
            self.let_go_of_slices();
        }
    }

    fn let_go_of_slices(&mut self) {
        assert!(self.slices.drain(..).all(|(slice, was)| slice == was), "seed {}: a slice has changed", self.seed);
    }

    fn round(&mut self) {
        let steps = self.rng.random_range(1..60);
        if self.cuts.is_some() {
            let within = *pick(&mut self.rng, &[20, 100, 400]);
            self.arm(within);
        }
        for _ in 0..steps {
            if self.is_cut() {
                self.recover();
            }
            let ids = self.ids();
            if ids.is_empty() {
                return;
            }
            self.hold(&ids);
            let (mut ops, mut reports) = (Vec::new(), Vec::new());
            match self.rng.random_range(0..20) {
                0..=8 => {
                    let n = *pick(&mut self.rng, &[1, 1, 1, 2, 5, 40, 150]);
                    for _ in 0..n {
                        let id = ids[self.rng.random_range(0..ids.len())];
                        if ops.iter().all(|op: &Op| op.replica() != id) && reports.iter().all(|&(of, _)| of != id) {
                            self.lets_go(id, &mut ops, &mut reports);
                        }
                    }
                    self.submit(&ops, &reports, true);
                }
                9..=13 => {
                    let n = *pick(&mut self.rng, &[1, 1, 10, 100, 300]);
                    for _ in 0..n {
                        let id = ids[self.rng.random_range(0..ids.len())];
                        if self.model.reps[&id].keys.contains_key(&b"vote"[..])
                            && ops.iter().all(|op: &Op| op.replica() != id)
                        {
                            ops.push(self.vote(id));
                        }
                    }
                    self.submit(&ops, &[], true);
                }
                14..=16 => {
                    let id = ids[self.rng.random_range(0..ids.len())];
                    let len = *pick(&mut self.rng, &[1, 100, 3000]);
                    let op = self.append(id, len, 1);
                    self.submit(&[op], &[], false);
                }
                17 => {
                    let (id, mut ops) = (self.fresh_id(), Vec::new());
                    self.birth(id, &mut ops);
                    self.submit(&ops, &[], false);
                }
                18 => match self.wal.checkpoint() {
                    Ok(_) => self.told.push("checkpoint".into()),
                    Err(e) if self.has_failed(&e) => self.recover(),
                    Err(e) => self.fail(&format!("checkpoint: {e}")),
                },
                _ => {
                    // A large value of the same length.
                    let of: Vec<u64> =
                        ids.iter().copied().filter(|id| self.model.reps[id].keys.contains_key(&b"large"[..])).collect();
                    if !of.is_empty() {
                        let id = *pick(&mut self.rng, &of);
                        let len = self.model.reps[&id].keys[&b"large"[..]].len();
                        self.salt += 1;
                        self.sync();
                        let op = Op::Put { replica: id, key: b"large".to_vec(), value: payload(id, self.salt, 9, len) };
                        let stats = self.wal.stats();
                        // Where an opening had to carry more, it may have promised what is kept for one.
                        let must =
                            !self.shared && !self.squeezed && stats.carried_class_bytes <= stats.carried_class_limit;
                        self.submit(&[op], &[], must);
                        self.sync();
                    }
                }
            }
        }
    }

    fn check(&mut self, when: &str) {
        let report = self.wal.verify(|_| ()).unwrap_or_else(|e| self.fail(&format!("{when}: {e}")));
        if !report.is_clean() {
            self.fail(&format!("{when}: {report:?}"));
        }
        let found = Model::read(&self.wal).unwrap_or_else(|e| self.fail(&format!("{when}: {e}")));
        if found != self.model {
            self.fail(&format!("{when}: {}", self.model.difference(&found).chars().take(2000).collect::<String>()));
        }
        for (&id, &index) in &self.applied {
            let found = self.wal.replica(id).durable_applied().unwrap_or_else(|e| self.fail(&format!("{e}")));
            if found != Some(index) {
                self.fail(&format!("{when}: replica {id} reports {found:?}, not {index}"));
            }
        }
    }

    fn again(&mut self) {
        self.let_go_of_slices();
        self.sync();
        if self.cuts.is_some() {
            return;
        }
        let how = self.rng.random_range(0..3);
        self.told.push(format!("opened again, {how}"));
        if how == 0 {
            self.wal.close().unwrap_or_else(|e| self.fail(&format!("{e}")));
        }
        let disk = Arc::new(match self.rng.random_range(0..3) {
            0 => self.disk.crash_lost_all(),
            1 => self.disk.crash_kept_all(),
            _ => self.disk.crash_seeded(self.rng.random()),
        });
        let options = self.shape.options(&mut self.rng);
        match options.open_disk(disk.clone()) {
            Ok(wal) => self.goes_on(wal),
            Err(e) => self.fail(&format!("opening: {e}")),
        }
        self.disk = disk;
        self.check("opened again");
        self.counts[2] += 1;
    }

    fn end(&mut self) {
        self.let_go_of_slices();
        let ids = self.ids();
        for some in ids.chunks(100) {
            let ops: Vec<Op> = some.iter().map(|&replica| Op::Remove { replica }).collect();
            self.submit(&ops, &[], true);
        }
        self.wal.sync().unwrap_or_else(|e| self.fail(&format!("{e}")));
        if self.shape.background {
            // By itself, as soon as nothing happens.
            comes_back(&self.wal, &format!("seed {}, {:?}", self.seed, self.shape));
        }
        let id = self.next_id;
        let op = self.vote(id);
        self.submit(&[op], &[], true);
        self.wal.sync().unwrap_or_else(|e| self.fail(&format!("{e}")));
        self.submit(&[Op::Remove { replica: id }], &[], true);
        self.wal.sync().unwrap_or_else(|e| self.fail(&format!("{e}")));
        self.submit(&[Op::Remove { replica: id }], &[], true);
        self.wal.sync().unwrap_or_else(|e| self.fail(&format!("{e}")));
        let op = self.vote(id);
        self.submit(&[op], &[], true);
        self.wal.sync().unwrap_or_else(|e| self.fail(&format!("{e}")));
        comes_back(&self.wal, &format!("seed {}, {:?}", self.seed, self.shape));
        assert_eq!(self.wal.stats().replicas, 1);
        assert_sound(&self.wal, "empty");
        // As good as new.
        let op = self.append(id, 3000, 2);
        self.submit(&[op], &[], true);
    }
}

fn run(seed: u64) -> [u64; 3] {
    run_in(World::begin(seed))
}

fn run_in(mut world: World) -> [u64; 3] {
    world.create();
    world.fill();
    world.check("filled");
    for _ in 0..world.rng.random_range(1..6) {
        world.round();
        if world.rng.random_bool(0.5) {
            world.check("a round");
        }
        if world.rng.random_bool(0.6) {
            world.again();
        }
        if world.rng.random_bool(0.3) {
            world.fill();
        }
    }
    if world.rng.random_bool(0.8) {
        world.end();
    }
    world.counts
}

/// Waits until nothing is taken or promised any more: the cleaner's thread may be about to give something back.
fn comes_back(wal: &Wal, what: &str) {
    let begun = Instant::now();
    loop {
        let s = wal.stats();
        if s.used_chunks + s.pinned_chunks == 0 && s.reserved_chunks <= s.reserved_for_values {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{what}: something is left: {s:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Several threads fill one log, each with replicas of its own; then one thread goes on with all of them.
fn run_beside(seed: u64) -> [u64; 3] {
    let mut rng = StdRng::seed_from_u64(seed);
    let shape = Shape { background: true, ..Shape::draw(&mut rng) };
    let shape = Shape { replicas: shape.replicas.min(300), ..shape };
    let disk = Arc::new(SimDisk::new((64 << 10) + shape.slabs * u64::from(shape.segment)));
    let wal = Arc::new(shape.options(&mut rng).open_disk(disk.clone()).expect("formatted"));
    disk.fail_at(20 * FOR_EVER, Fault::Error(EIO));
    let (mut model, mut applied) = (Model::default(), BTreeMap::new());
    let mut counts = [0; 3];
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..5_u64)
            .map(|n| {
                let (disk, wal) = (Arc::clone(&disk), Arc::clone(&wal));
                scope.spawn(move || {
                    let rng = StdRng::seed_from_u64(seed << 8 | n);
                    let mut world = World::on(seed, shape, rng, disk, wal, n << 32);
                    world.shared = true;
                    world.create();
                    for _ in 0..3 {
                        world.fill();
                        world.round();
                    }
                    world.let_go_of_slices();
                    (world.model, world.applied, world.counts)
                })
            })
            .collect();
        for one in all {
            let (of, reported, n) = one.join().expect("no panic");
            model.reps.extend(of.reps);
            applied.extend(reported);
            (0..3).for_each(|i| counts[i] += n[i]);
        }
    });
    let rng = StdRng::seed_from_u64(seed);
    let mut world = World::on(seed, shape, rng, disk, wal, 1);
    (world.model, world.applied) = (model, applied);
    world.check("together");
    world.again();
    for _ in 0..2 {
        world.round();
        world.again();
    }
    world.end();
    (0..3).for_each(|i| counts[i] += world.counts[i]);
    counts
}

/// A full log in which something rots, before it is opened or after: what lets go of something is never refused, and all space comes back.
fn run_rotten(seed: u64) -> [u64; 3] {
    // And the power fails, too.
    let cuts = seed % 2 == 1;
    let World { shape, mut rng, disk, wal, .. } = {
        let mut world = World::begin_as(seed, |shape| Shape { background: shape.background && !cuts, ..shape });
        world.create();
        world.fill();
        world.let_go_of_slices();
        world
    };
    wal.sync().expect("durable");
    let (mut disk, mut counts) = (Arc::new(disk.crash_kept_all()), [0; 3]);
    drop(wal);
    let len = (64 << 10) + shape.slabs * u64::from(shape.segment);
    let rots = |disk: &SimDisk, rng: &mut StdRng| disk.poke(rng.random_range(64 << 10..len) / 512 * 512, &[0xEE; 512]);
    (0..*pick(&mut rng, &[1, 3, 20, 200])).for_each(|_| rots(&disk, &mut rng));
    // Where nobody can say which replicas were in what is lost, the opening is refused.
    let Ok(mut wal) = shape.options(&mut rng).open_disk(disk.clone()) else { return counts };
    for salt in 0..300 {
        if disk.is_cut() {
            disk = Arc::new(disk.crash_seeded(rng.random()));
            wal = match shape.options(&mut rng).open_disk(disk.clone()) {
                Ok(wal) => wal,
                Err(_) => return counts,
            };
            counts[2] += 1;
        } else if cuts && rng.random_ratio(1, 15) {
            disk.fail_at(disk.events() + rng.random_range(0..60), Fault::Cut);
        }
        let ids = wal.replicas();
        if ids.is_empty() {
            break;
        }
        let id = *pick(&mut rng, &ids);
        let (first, last) = wal.replica(id).bounds();
        let (mut batch, what) = (Batch::new(), rng.random_range(0..20));
        match what {
            0..=5 if wal.replica(id).keys().iter().any(|key| key == &b"vote"[..]) => {
                _ = batch.put(id, b"vote", &payload(id, salt, 7, 40)).truncate_prefix(id, last + 1)
            }
            6..=8 => _ = batch.truncate_prefix(id, rng.random_range(first..=last + 1)),
            9 => _ = batch.truncate_suffix(id, rng.random_range(first..=last + 1)),
            10 => _ = batch.remove(id),
            11 => _ = batch.install_snapshot(id, last + 1, 1 << 41),
            12..=14 => _ = batch.append(id, &[(last + 1, 1 << 41, payload(id, salt, 1, 300))]),
            15 => match wal.checkpoint() {
                Err(e) if !disk.is_cut() => panic!("seed {seed}, {shape:?}: {e}"),
                _ => {}
            },
            16 => match wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())) {
                Err(e) if !disk.is_cut() => panic!("seed {seed}, {shape:?}: {e}"),
                _ => {}
            },
            17 => rots(&disk, &mut rng),
            18 => {
                if wal.sync().is_err() {
                    assert!(disk.is_cut(), "seed {seed}");
                    continue;
                }
                disk = Arc::new(disk.crash_lost_all());
                wal = match shape.options(&mut rng).open_disk(disk.clone()) {
                    Ok(wal) => wal,
                    Err(_) => return counts,
                };
                counts[2] += 1;
            }
            _ => {}
        }
        disk.fail_at(disk.events() + FOR_EVER, Fault::Error(EIO));
        match wal.commit(batch) {
            Ok(_) => counts[0] += 1,
            Err(_) if disk.is_cut() => {}
            Err(Error::Full(_)) if (12..=14).contains(&what) => counts[1] += 1,
            Err(e) => panic!("seed {seed}, {shape:?}, {what}: {e}: {:#?}", wal.stats()),
        }
    }
    if cuts {
        // Without what is still to fail.
        disk = Arc::new(disk.crash_seeded(rng.random()));
        wal = match shape.options(&mut rng).open_disk(disk.clone()) {
            Ok(wal) => wal,
            Err(_) => return counts,
        };
        counts[2] += 1;
    }
    for id in wal.replicas() {
        wal.commit(Batch::new().remove(id)).unwrap_or_else(|e| panic!("seed {seed}, {shape:?}: {e}"));
    }
    for byte in 0..4 {
        wal.commit(Batch::new().put(1, b"vote", &[byte; 40])).unwrap_or_else(|e| panic!("seed {seed}, {shape:?}: {e}"));
    }
    comes_back(&wal, &format!("seed {seed}, {shape:?}"));
    wal.commit(Batch::new().append(1, &[(1, 1, [7; 3000])])).unwrap_or_else(|e| panic!("seed {seed}, {shape:?}: {e}"));
    counts
}

fn for_all(seeds: &[u64], run: fn(u64) -> [u64; 3]) {
    let sums = Mutex::new([0_u64; 3]);
    for_each(seeds, |seed| {
        let counts = run(seed);
        let mut sums = sums.lock().expect("no panic");
        (0..3).for_each(|i| sums[i] += counts[i]);
    });
    let [accepted, refused, opened] = *sums.lock().expect("no panic");
    tally(&[("accepted", accepted), ("refused", refused), ("opened", opened)]);
    assert!(accepted > 0);
}

/// The power fails at any write of a full log, of its cleaner, of an opening; or that write fails.
fn run_cut(seed: u64) -> [u64; 3] {
    let far = seed % 4 == 3;
    let mut world = World::begin_as(seed, |shape| Shape { background: false, far, ..shape });
    world.create();
    world.fill();
    world.let_go_of_slices();
    world.begin_cuts();
    for _ in 0..world.rng.random_range(2..12) {
        world.round();
        if world.is_cut() {
            world.recover();
        }
        if world.rng.random_bool(0.3) {
            world.close();
        }
        if world.rng.random_bool(0.2) {
            world.fill();
        }
    }
    world.let_go_of_slices();
    // Once more, and from here on no more.
    world.open_cut(0.0);
    world.cuts = None;
    world.again();
    world.end();
    world.counts
}

#[test]
fn what_must_be_possible_is_wherever_the_power_fails_on_a_full_log() {
    for_all(&seeds(0, 16), run_cut);
}

#[test]
fn what_must_be_possible_is_on_a_full_log_of_any_shape() {
    for_all(&seeds(0, 24), run);
}

fn run_far(seed: u64) -> [u64; 3] {
    run_in(World::begin_as(seed, |shape| Shape { far: true, ..shape }))
}

/// With long numbers, what is carried takes more of each segment.
#[test]
fn what_must_be_possible_is_where_every_number_is_long() {
    for_all(&seeds(0, 16), run_far);
}

#[test]
fn what_must_be_possible_is_beside_others_who_fill_the_log() {
    for_all(&seeds(0, 6), run_beside);
}

#[test]
fn what_lets_go_of_something_is_never_refused_where_a_full_log_rots() {
    for_all(&seeds(0, 16), run_rotten);
}
