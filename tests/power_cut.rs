//! The power fails at every write and every sync of a scripted workload, and during the recoveries that follow. What is left is always a
//! prefix of the batches with everything acknowledged, and goes on working.

mod support;

use std::sync::{Arc, Mutex};

use strandlog::disk::sim::{Choice, EventKind, Fault, SimDisk};
use strandlog::{Batch, Options, Placement, Stats, Wal};

use support::model::{Model, Op, Oracle, batch};
use support::recorder::{Moment, Recorder};
use support::{assert_sound, env, for_each, open, payload, small, tally};

/// A journal that can grow by two segments, and wraps soon.
fn geometry(placement: Placement) -> Options {
    small(placement).journal_cap(8 * (64 << 10))
}

/// What was submitted, and what of it was acknowledged, as the run goes on.
#[derive(Default)]
struct History {
    submitted: Vec<Vec<Op>>,
    /// How many of them are acknowledged, and the state after those.
    acknowledged: usize,
    durable: Arc<Model>,
}

/// One event of the run, and what was promised before it.
struct Cut {
    moment: Moment,
    acknowledged: usize,
    durable: Arc<Model>,
    pending: Vec<Vec<Op>>,
}

impl Cut {
    fn oracle(&self) -> Oracle {
        let mut oracle =
            Oracle { durable: (*self.durable).clone(), current: (*self.durable).clone(), ..Oracle::default() };
        self.pending.iter().for_each(|ops| oracle.submitted(None, ops.clone()));
        oracle
    }
}

/// A log at work, every event of which is remembered.
struct Script {
    wal: Wal,
    oracle: Oracle,
    history: Arc<Mutex<History>>,
    terms: u64,
}

impl Script {
    fn start(options: Options, disk: Arc<SimDisk>, stride: u64, base: Model, cuts: &Arc<Mutex<Vec<Cut>>>) -> Self {
        let history = Arc::new(Mutex::new(History { durable: Arc::new(base.clone()), ..History::default() }));
        let (seen, cuts) = (Arc::clone(&history), Arc::clone(cuts));
        let recorder = Recorder::new(disk, stride, move |moment| {
            let h = seen.lock().expect("no other panic");
            let pending = h.submitted[h.acknowledged..].to_vec();
            let acknowledged = h.acknowledged;
            cuts.lock().expect("no other panic").push(Cut {
                moment,
                acknowledged,
                durable: Arc::clone(&h.durable),
                pending,
            });
        });
        let wal = options.open_disk(Arc::new(recorder)).expect("the log opens");
        let oracle = Oracle { durable: base.clone(), current: base, ..Oracle::default() };
        Self { wal, oracle, history, terms: 10 }
    }

    fn submit(&mut self, ops: Vec<Op>) {
        self.history.lock().expect("alive").submitted.push(ops.clone());
        let pending = self.wal.submit(batch(&ops)).expect("submitted");
        self.oracle.submitted(Some(pending.lsn()), ops);
        self.told();
    }

    fn lazy(&mut self, ops: Vec<Op>) {
        self.history.lock().expect("alive").submitted.push(ops.clone());
        let mut b = batch(&ops);
        b.lazy();
        let pending = self.wal.submit(b).expect("submitted");
        self.oracle.submitted(Some(pending.lsn()), ops);
        self.told();
    }

    fn commit(&mut self, ops: Vec<Op>) {
        self.history.lock().expect("alive").submitted.push(ops.clone());
        let lsn = self.wal.commit(batch(&ops)).expect("committed");
        self.oracle.submitted(Some(lsn), ops);
        self.told();
        assert!(self.oracle.pending.is_empty(), "a commit acknowledges all before it");
    }

    /// Takes from the watermark what is acknowledged.
    fn told(&mut self) {
        let before = self.oracle.pending.len();
        self.oracle.acknowledged(self.wal.durable_lsn());
        let n = before - self.oracle.pending.len();
        if n > 0 {
            let mut h = self.history.lock().expect("alive");
            h.acknowledged += n;
            h.durable = Arc::new(self.oracle.durable.clone());
        }
    }

    fn checkpoint(&mut self) {
        self.wal.checkpoint().expect("cleaned");
        self.told();
    }

    fn bounds(&self, replica: u64) -> (u64, u64) {
        self.oracle.current.reps.get(&replica).map_or((1, 0), |r| (r.first, r.last()))
    }

    fn grow(&mut self, replica: u64, lens: &[usize]) -> Op {
        self.terms += 1;
        append(replica, self.bounds(replica).1 + 1, self.terms / 8, lens)
    }

    fn keep(&self, replica: u64, entries: u64) -> Op {
        let (first, last) = self.bounds(replica);
        Op::Truncate { replica, first: first.max((last + 1).saturating_sub(entries)) }
    }

    /// Asks the log for everything that it can do, again and again.
    fn run(&mut self, rounds: u64) {
        let put = |replica, key: &[u8], salt, len| Op::Put {
            replica,
            key: key.to_vec(),
            value: payload(replica, salt, 5, len),
        };
        for round in 0..rounds {
            // Group commit: four batches, one frame; one of them lazy.
            let ops = vec![self.grow(1, &[700, 700]), put(1, b"hard", round, 24)];
            self.submit(ops);
            let ops = vec![self.grow(10, &[500 + round as usize]), self.grow(2 + round % 7, &[40])];
            self.submit(ops);
            self.lazy(vec![put(3, b"commit", round, 8)]);
            let ops = vec![self.grow(13, &[7000]), self.grow(14, &[3900]), self.grow(15, &[7900])];
            self.commit(ops);
            self.commit(vec![self.keep(1, 15), self.keep(13, 2), self.keep(14, 5), self.keep(15, 1)]);
            if round % 4 == 1 {
                let ops = vec![self.grow(9, &[6000, 2000, 5000]), self.keep(9, 4)];
                self.submit(ops);
            }
            if round % 5 == 2 {
                // Conflicts: in the journal, and deep in the chain.
                let (first, last) = self.bounds(1);
                let at = first.max(last.saturating_sub(2));
                let (deep_first, deep_last) = self.bounds(10);
                let deep = deep_first + (deep_last - deep_first) * 3 / 4;
                self.terms += 8;
                let term = self.terms / 8;
                self.commit(vec![append(1, at, term, &[33, 900]), append(10, deep, term, &[800; 3])]);
            }
            if round % 5 == 4 {
                // Suffixes with nothing in their place: of the journal, and of a chain.
                let cut = |replica, (first, last): (u64, u64), n| Op::Cut { replica, from: first.max(last - n) };
                self.commit(vec![cut(1, self.bounds(1), 1), cut(14, self.bounds(14), 0)]);
            }
            if round % 6 == 3 {
                self.submit(vec![put(2, b"large", round, 5000 + 487 * round as usize), put(4, b"edge", round, 4096)]);
            }
            if round % 9 == 4 {
                self.submit(vec![Op::Delete { replica: 4, key: b"edge".to_vec() }]);
                let ops = vec![Op::Remove { replica: 11 }, append(11, 1, round, &[300, 9000])];
                self.commit(ops);
            }
            if round % 8 == 5 {
                let index = self.bounds(12).1 + 100;
                let reset = Op::Reset { replica: 12, index, term: round };
                self.submit(vec![reset, append(12, index + 1, round, &[1500, 0, 1])]);
            }
            if round % 10 == 9 {
                self.checkpoint();
            }
            if round % 24 == 23 {
                self.commit(vec![self.keep(10, 10)]);
            }
        }
        let found = Model::read(&self.wal).expect("readable");
        assert!(found == self.oracle.current, "{}", self.oracle.current.difference(&found));
    }
}

/// Runs the script without a cut; returns its figures and every event.
fn rehearse(placement: Placement, rounds: u64, stride: u64) -> (Stats, Vec<Cut>, Arc<SimDisk>) {
    let disk = Arc::new(SimDisk::new(4 << 20));
    drop(open(geometry(placement), &disk));
    let disk = Arc::new(disk.restart());
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let mut script = Script::start(geometry(placement), Arc::clone(&disk), stride, Model::default(), &cuts);
    script.run(rounds);
    let stats = script.wal.stats();
    assert_sound(&script.wal, "rehearsal");
    script.wal.close().expect("closed");
    drop(script);
    let cuts = std::mem::take(&mut *cuts.lock().expect("alive"));
    (stats, cuts, disk)
}

const ROUNDS: u64 = 56;

#[test]
fn the_script_takes_every_path_it_is_meant_to_take() {
    for placement in support::PLACEMENTS {
        let (s, cuts, disk) = rehearse(placement, ROUNDS, 1);
        assert_eq!(cuts.len() as u64, disk.events(), "every event is cut");
        let chain = placement == Placement::Chain;
        // When every payload is placed, only descriptors go to the journal.
        let turns = if chain { 1 } else { 2 };
        assert!(s.frames < s.batches, "group commit: {s:#?}");
        assert!(s.segments_cleaned > turns * s.journal_segments, "the journal wraps: {s:#?}");
        assert!(s.durable_lsn / s.segment_size > turns * s.journal_segments, "segments are reused: {s:#?}");
        assert!(s.carried_bytes > 0 && (chain || s.carried_entries > 0), "carry: {s:#?}");
        assert!(chain || s.settled_entries > 0, "settle: {s:#?}");
        assert!(s.placed_bytes > 0, "direct placement: {s:#?}");
        let log = disk.log();
        let superblocks = log.iter().filter(|e| e.offset < 32 << 10 && e.kind == EventKind::WriteDurable).count();
        assert!(chain || superblocks > 0, "the journal grows: {superblocks} writes of a superblock");
        assert!(log.iter().any(|e| e.kind == EventKind::Flush) && log.iter().any(|e| e.kind == EventKind::Write));
        println!("{placement:?}: {} events, {s:#?}", cuts.len());
    }
}

/// Opens what a crash left, holds it against the oracle, works on, loses all that was not synced, and does it once more.
fn recover_and_go_on(disk: SimDisk, oracle: &Oracle, placement: Placement, what: &str) {
    let mut disk = Arc::new(disk);
    let mut state: Option<Model> = None;
    for life in 0..3 {
        let wal =
            geometry(placement).open_disk(disk.clone()).unwrap_or_else(|e| panic!("{what}, life {life}: opening: {e}"));
        let read = |when: &str| {
            Model::read(&wal).unwrap_or_else(|e| panic!("{what}, life {life} {when}: {e}; damage {:?}", wal.damage()))
        };
        let found = read("recovered");
        match &state {
            None => drop(oracle.check(&found).unwrap_or_else(|why| panic!("{what}: {why}\n{:#?}", wal.stats()))),
            Some(state) => assert!(found == *state, "{what}, life {life}:{}", state.difference(&found)),
        }
        assert_sound(&wal, what);
        let mut now = found;
        if life < 2 {
            for (replica, len) in [(10, 500), (9, 9000), (77, 3000)] {
                let next = now.reps.get(&replica).map_or(1, |r| r.last() + 1);
                let put = Op::Put { replica, key: b"hard".to_vec(), value: payload(replica, next, life, 30) };
                let ops = vec![append(replica, next, 1 << 20, &[len, len / 2]), put];
                wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{what}, life {life}: going on: {e}"));
                now.apply(&ops);
            }
            if life == 1 {
                wal.checkpoint().unwrap_or_else(|e| panic!("{what}: cleaning: {e}"));
            }
            let found = read("after more work");
            assert!(found == now, "{what}, life {life}:{}", now.difference(&found));
            assert_sound(&wal, what);
        }
        state = Some(now);
        drop(wal);
        disk = Arc::new(disk.crash_lost_all());
    }
}

/// The ways in which each event is cut.
#[derive(Clone, Copy, Debug)]
enum How {
    LostAll,
    KeptAll,
    Seeded(u64),
    /// The process dies just before the event; the power fails right after the next one has opened the log.
    KilledThenCut(u64),
}

impl How {
    fn all(seeds: u64) -> Vec<Self> {
        let mut all = vec![Self::LostAll, Self::KeptAll, Self::KilledThenCut(0)];
        let from = env("STRANDLOG_SEED", 0);
        all.extend((from..from + seeds).map(Self::Seeded));
        all
    }
}

fn check(cut: &Cut, how: How, placement: Placement) {
    let what = format!("{placement:?}, event {} {how:?}", cut.moment.event);
    let oracle = cut.oracle();
    let disk = match how {
        How::LostAll => cut.moment.cut.crash_lost_all(),
        How::KeptAll => cut.moment.cut.crash_kept_all(),
        How::Seeded(seed) => cut.moment.cut.crash_seeded(seed << 32 | cut.moment.event),
        How::KilledThenCut(seed) => {
            let disk = Arc::new(cut.moment.before.restart());
            let wal = open(geometry(placement), &disk);
            let seen = Model::read(&wal).unwrap_or_else(|e| panic!("{what}: {e}"));
            oracle.check(&seen).unwrap_or_else(|why| panic!("{what}: {why}"));
            drop(wal);
            // What a recovery has shown is as good as acknowledged.
            let promised = Oracle { durable: seen.clone(), current: seen, ..Oracle::default() };
            return recover_and_go_on(disk.crash_seeded(seed), &promised, placement, &what);
        }
    };
    recover_and_go_on(disk, &oracle, placement, &what);
}

/// `STRANDLOG_CUT_STRIDE=1 STRANDLOG_CUT_SEEDS=20` for everything; `STRANDLOG_SEED` is the first of the seeds.
#[test]
fn a_cut_at_any_event_leaves_a_prefix_with_everything_acknowledged() {
    let stride = env("STRANDLOG_CUT_STRIDE", 1);
    for placement in support::PLACEMENTS {
        let (_, cuts, _) = rehearse(placement, ROUNDS, stride);
        let hows = How::all(env("STRANDLOG_CUT_SEEDS", 3));
        let jobs: Vec<(usize, How)> = (0..cuts.len()).flat_map(|i| hows.iter().map(move |&how| (i, how))).collect();
        for_each(&jobs, |(i, how)| check(&cuts[i], how, placement));
        tally(&[("cuts", cuts.len() as u64), ("images", jobs.len() as u64)]);
    }
}

#[test]
fn a_cut_during_recovery_loses_nothing_either() {
    let stride = env("STRANDLOG_CUT_STRIDE", 11);
    for placement in support::PLACEMENTS {
        let (_, cuts, _) = rehearse(placement, ROUNDS, stride);
        let jobs: Vec<(usize, u64)> = (0..cuts.len()).map(|i| (i, i as u64)).collect();
        for_each(&jobs, |(i, seed)| {
            let what = format!("{placement:?}, event {} seed {seed}", cuts[i].moment.event);
            // The second life begins on what a crash left, and is itself cut at each of its events, opening included.
            let disk = Arc::new(cuts[i].moment.cut.crash_seeded(seed));
            let found = {
                let wal = open(geometry(placement), &Arc::new((*disk).clone()));
                Model::read(&wal).unwrap_or_else(|e| panic!("{what}: {e}"))
            };
            cuts[i].oracle().check(&found).unwrap_or_else(|why| panic!("{what}: {why}"));
            let second = Arc::new(Mutex::new(Vec::new()));
            let mut script = Script::start(geometry(placement), disk, 1, found, &second);
            script.run(1);
            script.checkpoint();
            drop(script);
            let second = std::mem::take(&mut *second.lock().expect("alive"));
            assert!(second.len() >= 3, "{what}: opening and work are events");
            for (n, cut) in second.iter().enumerate() {
                let how = [How::LostAll, How::KeptAll, How::Seeded(seed), How::KilledThenCut(seed)][n % 4];
                check(cut, how, placement);
            }
        });
    }
}

/// The tests above must fail on a disk whose syncs do nothing, or they prove nothing.
#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let violated = |disk: &SimDisk, oracle: &Oracle| {
        let disk = Arc::new(disk.crash_lost_all());
        match geometry(Placement::Auto).open_disk(disk) {
            Ok(wal) => Model::read(&wal).map_or(true, |found| oracle.check(&found).is_err()),
            Err(_) => true,
        }
    };
    let run = |plant: &dyn Fn(&SimDisk)| {
        let disk = Arc::new(SimDisk::new(4 << 20));
        drop(open(geometry(Placement::Auto), &disk));
        let disk = Arc::new(disk.restart());
        plant(&disk);
        let cuts = Arc::new(Mutex::new(Vec::new()));
        let mut script = Script::start(geometry(Placement::Auto), Arc::clone(&disk), 1, Model::default(), &cuts);
        script.run(12);
        drop(script);
        let cuts = std::mem::take(&mut *cuts.lock().expect("alive"));
        let red = cuts.iter().filter(|c| violated(&c.moment.cut, &c.oracle())).count();
        (red, cuts, disk.log())
    };
    let (red, cuts, log) = run(&|_| ());
    assert_eq!(red, 0, "of {}", cuts.len());
    // The syncs after which something was acknowledged: each of them carries a promise that some later cut breaks.
    let syncs: Vec<u64> = log.iter().filter(|e| e.kind.is_sync()).map(|e| e.number).collect();
    let promising: Vec<usize> = (0..syncs.len())
        .filter(|&n| {
            let at = syncs[n] as usize;
            cuts.get(at + 1).is_some_and(|after| after.acknowledged > cuts[at].acknowledged)
        })
        .collect();
    assert!(promising.len() > 20, "{promising:?}");
    let (red, cuts, _) = run(&|disk| disk.ignore_all_syncs());
    assert!(red > cuts.len() / 2, "{red} of {}", cuts.len());
    for nth in promising.into_iter().step_by(3) {
        let (red, ..) = run(&|disk| disk.ignore_sync(nth as u64));
        assert!(red > 0, "sync {nth} of {} was ignored, and nothing noticed", syncs.len());
    }
}

fn append(replica: u64, from: u64, term: u64, lens: &[usize]) -> Op {
    let entries = (from..).zip(lens).map(|(i, &len)| (i, term, payload(replica, i, term, len))).collect();
    Op::Append { replica, entries }
}

/// The last durable frame brought a piece and, in a later batch, its death. The next recovery verifies that piece again, so the
/// session after the first recovery must not write over it before a newer frame is durable.
#[test]
fn what_the_last_frame_brought_is_not_overwritten_before_a_newer_frame_is_durable() {
    for killer in [append(1, 1, 2, &[20_000]), Op::Remove { replica: 1 }, Op::Reset { replica: 1, index: 9, term: 3 }] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let mut oracle = Oracle::default();
        let wal = open(geometry(Placement::Auto), &disk);
        for ops in [vec![append(1, 1, 1, &[20_000])], vec![killer], vec![append(2, 1, 1, &[10])]] {
            let pending = wal.submit(batch(&ops)).expect("submitted");
            oracle.submitted(Some(pending.lsn()), ops);
        }
        let lsn = wal.sync().expect("synced");
        assert_eq!(wal.stats().frames, 1, "all of it in one frame");
        oracle.acknowledged(lsn);
        assert!(oracle.pending.is_empty());
        drop(wal);

        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(geometry(Placement::Auto), &disk);
        let mut b = Batch::new();
        b.append(3, &[(1, 1, payload(3, 1, 1, 100_000))]);
        // Its pieces reach the medium, its frame does not.
        let syncs = disk.syncs();
        disk.fail_sync_at(syncs, Fault::Cut);
        wal.commit(b).expect_err("the power is cut");
        let pool = strandlog::format::POOL_OFFSET / 512;
        let journal = pool..pool + 6 * (64 << 10) / 512;
        let disk = disk.crash(&mut |sector, versions| match journal.contains(&sector) {
            true => Choice::Durable,
            false => Choice::Version(versions - 1),
        });
        let wal = open(geometry(Placement::Auto), &Arc::new(disk));
        let found = Model::read(&wal).expect("readable");
        oracle.check(&found).unwrap_or_else(|why| panic!("{why}"));
        assert_sound(&wal, "after the second recovery");
    }
}
