//! Random batches beside settlings, cleanings and openings, while others hold nearly all chunks and most of the budget: every replica has
//! asked for what it is charged, the sums are those of all charges, and what is reserved is free.

use super::fate::Fate;
use super::group::Group;
use super::moving::Moving;
use crate::disk::sim::SimDisk;
use crate::engine::{Engine, demand};
use crate::journal::LiveSegment;
use crate::space::Charge;
use crate::sync::Arc;
use crate::{Batch, Error, Options, Placement, Wal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const REPLICAS: u64 = 5;

fn options(placement: Placement, carry: u8) -> Options {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10).placement(placement);
    options.carry_fraction(carry).journal_cap(16 * (64 << 10)).background(false)
}

#[derive(Clone, Copy, Default)]
struct Counts {
    accepted: u64,
    refused: u64,
    settled: u64,
    opened: u64,
    rotten: u64,
}

struct Run {
    disk: Arc<SimDisk>,
    wal: Wal,
    others: Charge,
    rng: StdRng,
    term: u64,
    told: Vec<String>,
    values: bool,
    /// Metadata grows by what no admission checked: pieces rot, values come to lie in one block more.
    unasked: bool,
    /// Bytes by which it may have grown that way, at most.
    grown: u64,
    carried_before: u64,
    /// Before the opening more may have been reserved than there is beside the reserve.
    over: u64,
    counts: Counts,
}

impl Run {
    fn engine(&self) -> &Engine {
        &self.wal.engine
    }

    fn audit(&mut self, when: &str) {
        let (mut chunks, mut carried) = (self.others.chunks, self.others.carried);
        let engine = &self.wal.engine;
        let s = engine.seq.lock();
        let mut wrong = Vec::new();
        for cell in engine.registry.all() {
            let state = cell.lock();
            (chunks, carried) = (chunks + state.charge.chunks, carried + state.charge.carried);
            let d = demand(&state);
            let (small, large) = (s.accounts.price_carried(d), s.accounts.price_in_chunks(d));
            if state.charge != small && state.charge != large {
                wrong.push(format!(
                    "replica {} is charged {:?}, of {small:?} or {large:?}: {d:?}",
                    cell.id, state.charge
                ));
            }
        }
        let free = engine.pool.lock().free();
        let (reserved, sum) = (s.accounts.reserved(), s.accounts.carried());
        if (reserved, sum) != (chunks, carried) {
            wrong.push(format!("sums {reserved}, {sum}; charged {chunks}, {carried}"));
        }
        let kept = if self.values { 0 } else { engine.value_reserve };
        let over = (reserved + kept).saturating_sub(free);
        if over > self.over {
            wrong.push(format!("{reserved} reserved, {kept} kept, {free} free; over by {over}, before {}", self.over));
        }
        self.over = over;
        if sum > s.accounts.budget() + 300 + self.grown && sum > self.carried_before {
            wrong.push(format!("{sum} carried of {}, before {}", s.accounts.budget(), self.carried_before));
        }
        self.carried_before = sum;
        drop(s);
        if !wrong.is_empty() {
            let n = self.told.len().saturating_sub(120);
            panic!("{when}: {wrong:#?}\n{}", self.told[n..].join("\n"));
        }
    }

    /// Lets others hold all chunks and carried bytes but a few.
    fn squeeze(&mut self) {
        let spare = [0, 0, 1, 2, 5, 20, 100][self.rng.random_range(0..7)];
        let bytes = [0, 30, 100, 500, 5000, 50_000, 200_000][self.rng.random_range(0..7)];
        let mut others = self.others;
        {
            let engine = &self.wal.engine;
            let mut s = engine.seq.lock();
            s.accounts.settle(&mut others, Charge::default());
            let free = engine.pool.lock().free();
            // Keyed values may have taken of what is kept for them.
            let kept = if self.unasked && self.values { 0 } else { engine.value_reserve };
            let chunks = free.saturating_sub(kept + s.accounts.reserved() + spare);
            let top = if self.rng.random_bool(0.5) { s.accounts.budget() } else { s.accounts.budget() / 4 * 3 };
            let carried = top.saturating_sub(s.accounts.carried() + bytes);
            s.accounts.settle(&mut others, Charge { chunks, carried });
            self.carried_before = s.accounts.carried();
        }
        self.others = others;
        self.over = u64::MAX;
        self.told.push(format!("squeeze: {spare} chunks, {bytes} bytes are left"));
        self.audit("squeezed");
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        let mut told = String::new();
        let mut at: std::collections::BTreeMap<u64, (u64, u64)> = std::collections::BTreeMap::new();
        for _ in 0..self.rng.random_range(1..7) {
            let id = self.rng.random_range(1..=REPLICAS);
            let (mut first, mut last) = at.get(&id).copied().unwrap_or_else(|| self.wal.replica(id).bounds());
            match self.rng.random_range(0..100) {
                0..=44 => {
                    let from = if self.rng.random_bool(0.2) && last >= first {
                        self.rng.random_range(first.max(last.saturating_sub(20))..=last)
                    } else {
                        last + 1
                    };
                    let n = [1, 1, 2, 5, 40, 100][self.rng.random_range(0..6)];
                    let most =
                        [5, 30, 100, 400, 1500, 5000, 12_000][self.rng.random_range(0..if n > 5 { 4 } else { 7 })];
                    let terms = self.rng.random_bool(0.3);
                    let entries: Vec<_> = (0..n)
                        .map(|i| {
                            self.term += u64::from(terms);
                            (from + i, self.term, vec![7_u8; self.rng.random_range(0..=most)])
                        })
                        .collect();
                    batch.append(id, &entries);
                    last = from + n - 1;
                    told += &format!(" append({id}: {from}..={last}, {most}, terms {terms})");
                }
                45..=59 => {
                    let to = if last >= first { self.rng.random_range(first..=last + 1) } else { first };
                    batch.truncate_prefix(id, to);
                    first = first.max(to);
                    told += &format!(" truncate({id}: {to})");
                }
                60..=64 => {
                    let from = self.rng.random_range(first..=last + 1);
                    batch.truncate_suffix(id, from);
                    last = last.min(from - 1);
                    told += &format!(" cut({id}: {from})");
                }
                65..=79 => {
                    let len = if self.unasked && self.values && self.rng.random_bool(0.5) {
                        let blocks = self.rng.random_range(2..5);
                        self.grown += 10 * 5;
                        blocks * 4096 + self.rng.random_range(0..160) - 80
                    } else if self.values && self.rng.random_bool(0.3) {
                        self.rng.random_range(4097..30_000)
                    } else {
                        self.rng.random_range(0..300)
                    };
                    let key = [self.rng.random_range(0..4_u8)];
                    batch.put(id, &key, &vec![1; len]);
                    told += &format!(" put({id}: {key:?} {len})");
                }
                80..=82 => {
                    let key = [self.rng.random_range(0..4_u8)];
                    batch.delete(id, &key);
                    told += &format!(" delete({id}: {key:?})");
                }
                83..=91 => {
                    let index = self.rng.random_range(first - 1..=last + 2);
                    batch.durable_applied(id, index);
                    told += &format!(" applied({id}: {index})");
                }
                92..=96 => {
                    let index = self.rng.random_range(first - 1..=last + 3);
                    batch.install_snapshot(id, index, self.term);
                    (first, last) = (index + 1, index);
                    told += &format!(" snapshot({id}: {index})");
                }
                _ => {
                    batch.remove(id);
                    (first, last) = (1, 0);
                    told += &format!(" remove({id})");
                }
            }
            at.insert(id, (first, last));
        }
        self.told.push(format!("batch{told}"));
        batch
    }

    fn submit(&mut self, pledged: bool) {
        let batch = self.batch();
        let outcome = if pledged || self.rng.random_bool(0.7) {
            self.wal.try_submit(batch).map(drop)
        } else {
            self.wal.commit(batch).map(drop)
        };
        let how = match &outcome {
            Ok(()) => "ok".to_owned(),
            Err(e) => format!("{e}").chars().take(60).collect(),
        };
        self.told.push(format!("   -> {how}"));
        match outcome {
            Ok(()) => self.counts.accepted += 1,
            Err(Error::Full(_)) => self.counts.refused += 1,
            Err(Error::Busy { .. }) => {
                self.wal.sync().expect("written");
                if !pledged {
                    self.wal.engine.clean_some().expect("cleaned");
                }
            }
            Err(
                Error::Gap { .. }
                | Error::Compacted { .. }
                | Error::Contradiction { .. }
                | Error::UnknownReplica { .. },
            ) => {}
            Err(e) => panic!("{e}: {}", self.told.join("\n")),
        }
        self.audit("submitted");
    }

    fn pledge(&mut self) -> Option<(Moving, Vec<LiveSegment>)> {
        self.wal.sync().expect("written");
        let engine = &self.wal.engine;
        let live: Vec<LiveSegment> = {
            let s = engine.seq.lock();
            let n = s.segments.live.len();
            if n < 2 {
                return None;
            }
            let take = self.rng.random_range(1..n);
            s.segments
                .live
                .iter()
                .take(take)
                .map(|l| LiveSegment { seq: l.seq, slab: l.slab, participants: l.participants.clone() })
                .collect()
        };
        let group = Group::new(live.iter(), &engine.geo);
        let id = self.rng.random_range(1..=REPLICAS);
        let cell = engine.registry.get(id)?;
        let much = if self.rng.random_bool(0.5) { 1 << 20 } else { 0 };
        let (moving, fate) = engine.alive_in(&group, cell, much)?;
        let which = match fate {
            Fate::Carry => return None,
            Fate::Settle => "settle",
            Fate::SettleAll => "settle all",
        };
        let more = {
            let state = engine.registry.get(id).expect("there");
            let state = state.lock();
            format!("{:?} {:?} terms {}", state.pledge, state.charge, state.terms.len())
        };
        self.told.push(format!("pledge: {which} {id}, {} entries, {more}", moving.entries.len()));
        self.audit("pledged");
        Some((moving, live))
    }

    /// A piece rots, and a scrub finds it.
    fn rot(&mut self) {
        self.wal.sync().expect("written");
        let id = self.rng.random_range(1..=REPLICAS);
        let Some(cell) = self.engine().registry.get(id) else { return };
        let pieces: Vec<_> = cell.lock().places.chain().iter().map(|piece| piece.desc.clone()).collect();
        if pieces.is_empty() {
            return;
        }
        let piece = &pieces[self.rng.random_range(0..pieces.len())];
        self.disk.poke(piece.extents[0].offset() + 80, &[0xEE; 40]);
        self.counts.rotten += 1;
        self.grown += 20;
        let scrubbed = self.wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).map(drop);
        self.told.push(format!(
            "{id} rots from {}: {:?}",
            piece.first,
            scrubbed.as_ref().err().map(ToString::to_string)
        ));
        self.audit("scrubbed");
    }

    fn verify(&self) {
        let report = self.wal.verify(|_| ()).expect("read");
        // It reports again what rotted.
        let sound = if self.counts.rotten > 0 { report.accounting.is_empty() } else { report.is_clean() };
        assert!(sound, "{report:?}");
    }

    fn reopen(&mut self) {
        let clean = self.rng.random_bool(0.3);
        self.told.push(format!("opened again, closed {clean}"));
        self.wal.sync().expect("written");
        if clean {
            self.wal.close().expect("closed");
        }
        let disk = Arc::new(self.disk.crash_kept_all());
        let placement = [Placement::Auto, Placement::Journal, Placement::Chain][self.rng.random_range(0..3)];
        let carry = [1, 12, 50, 100][self.rng.random_range(0..4)];
        self.wal = options(placement, carry).open_disk(disk.clone()).expect("opened");
        self.disk = disk;
        self.others = Charge::default();
        self.over = 0;
        self.carried_before = u64::MAX;
        self.counts.opened += 1;
        self.verify();
        self.audit("opened");
    }
}

fn run(seed: u64, (values, unasked): (bool, bool), steps: u32) -> Counts {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = options([Placement::Auto, Placement::Journal][seed as usize % 2], 50)
        .open_disk(disk.clone())
        .expect("formatted");
    let mut run = Run {
        disk,
        wal,
        others: Charge::default(),
        rng: StdRng::seed_from_u64(seed),
        term: 1,
        told: vec![format!("seed {seed}")],
        values,
        unasked,
        grown: 0,
        carried_before: 0,
        over: 0,
        counts: Counts::default(),
    };
    let mut pledged: Option<(Moving, Vec<LiveSegment>)> = None;
    for _ in 0..steps {
        match run.rng.random_range(0..100) {
            0..=69 => run.submit(pledged.is_some()),
            70..=77 => run.squeeze(),
            78..=87 => match pledged.take() {
                Some((moving, live)) => {
                    run.wal.sync().expect("written");
                    let mut group = Group::new(live.iter(), &run.engine().geo);
                    let cell = Arc::clone(&moving.cell);
                    let say = |cell: &crate::index::Cell| {
                        let state = cell.lock();
                        format!(
                            "{:?} {:?} {:?} terms {}",
                            state.pledge,
                            state.charge,
                            demand(&state),
                            state.terms.len()
                        )
                    };
                    let before = say(&cell);
                    let all = run.engine().settle(vec![moving], &mut group).expect("settled");
                    run.told.push(format!("{before} -> {}", say(&cell)));
                    run.told.push(format!("settled: {all}"));
                    run.counts.settled += 1;
                    run.audit("settled");
                }
                None => pledged = run.pledge(),
            },
            88..=93 if pledged.is_none() => {
                run.wal.sync().expect("written");
                let cleaned = run.wal.checkpoint();
                run.told.push(format!("checkpoint: {:?}", cleaned.as_ref().err().map(|e| e.to_string())));
                cleaned.expect("cleaned");
                run.audit("cleaned");
            }
            94..=95 if pledged.is_none() => run.reopen(),
            96..=97 if unasked && pledged.is_none() => run.rot(),
            _ => run.wal.sync().map(drop).expect("written"),
        }
    }
    if let Some((moving, live)) = pledged.take() {
        run.wal.sync().expect("written");
        let mut group = Group::new(live.iter(), &run.engine().geo);
        run.engine().settle(vec![moving], &mut group).expect("settled");
    }
    run.verify();
    run.counts
}

/// The seeds to run: `STRANDLOG_SEEDS` of them from `STRANDLOG_SEED`; that one alone, or some from 0, if only one is set.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (from, many) = (number("STRANDLOG_SEED"), number("STRANDLOG_SEEDS"));
    let count = many.unwrap_or(if from.is_some() { 1 } else { count });
    from.unwrap_or(0)..from.unwrap_or(0) + count
}

#[test]
fn whoever_is_charged_asked_for_it() {
    let (mut accepted, mut refused, mut settled, mut opened) = (0, 0, 0, 0);
    for seed in seeds(40) {
        for values in [false, true] {
            let counts = run(seed, (values, false), 600);
            (accepted, refused) = (accepted + counts.accepted, refused + counts.refused);
            (settled, opened) = (settled + counts.settled, opened + counts.opened);
        }
    }
    println!("{accepted} batches accepted, {refused} refused, {settled} settled, {opened} opened");
    assert!(accepted > 0 && settled > 0 && opened > 0);
}

/// Its metadata grows by a few bytes that no admission checked, while others hold all chunks: what is carried goes on being carried.
#[test]
fn whoever_holds_no_chunks_is_promised_none_unasked() {
    let (mut rotten, mut accepted) = (0, 0);
    for seed in seeds(40) {
        for values in [false, true] {
            let counts = run(seed, (values, true), 600);
            (rotten, accepted) = (rotten + counts.rotten, accepted + counts.accepted);
        }
    }
    println!("{rotten} pieces rotted, {accepted} batches accepted");
    assert!(rotten > 0 && accepted > 0);
}
