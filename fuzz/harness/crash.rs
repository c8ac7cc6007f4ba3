//! `crash_image`: operations and crashes out of the input's bytes, against a small oracle.
//!
//! What must hold: after every crash the log is exactly what it was after *some* batch at or behind the last one acknowledged
//! (so acknowledged bytes survive, batches are whole, and what is lost is a suffix), nothing is called damaged, every
//! checksum and every chunk is in order, and the log goes on working.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Error, Lsn, Placement, Result, Scrubbed, ScrubbedJournal, Wal};

use super::input::Input;
use super::model::{Model, Stub};

/// Around every boundary: block, chunk, direct threshold, more than a chunk.
const SIZES: [usize; 12] = [0, 1, 17, 256, 700, 1500, 3900, 4096, 4097, 6200, 9000, 20_000];
/// Few replicas, so that they meet often; ids at both ends.
const IDS: [u64; 6] = [0, 1, 2, 3, 1 << 40, u64::MAX];

/// From this value on, a truncation's byte cuts the suffix instead.
const CUTS: u64 = 192;
/// From this value on, a deletion's byte is a report of the state machine; its lower bits say of which entry, counted from the last that is
/// gone.
const REPORTS: u8 = 208;

/// This operation removes a replica and leaves the batch open for more. No input of the corpus had it when it was added: it has a value of its own, so
/// that all else is read as before.
const REMOVES: u8 = 0xab;

/// Runs one input.
///
/// # Panics
/// When the log breaks a promise.
pub fn run(bytes: &[u8]) {
    go(bytes, false);
}

/// The same on a disk whose syncs do nothing, until the first crash: the oracle must notice.
///
/// # Panics
/// When it notices.
pub fn run_on_a_lying_disk(bytes: &[u8]) {
    go(bytes, true);
}

/// How many batches were accepted in which a replica was removed and begun anew.
///
/// # Panics
/// When the log breaks a promise.
pub fn lives_begun_with_a_removal(bytes: &[u8]) -> u64 {
    go(bytes, false)
}

fn go(bytes: &[u8], lying: bool) -> u64 {
    let mut input = Input::new(bytes);
    let mut run = Run::new(&mut input);
    if lying {
        run.disk.ignore_all_syncs();
    }
    while !input.is_empty() {
        run.step(&mut input);
    }
    run.end()
}

struct Run {
    disk: Arc<SimDisk>,
    wal: Wal,
    carry: u8,
    batch: Batch,
    /// The state of `last` with the batch being filled.
    draft: Model,
    /// What was acknowledged.
    acked: Model,
    /// What was submitted since: each state with the LSN at which it is acknowledged, or `u64::MAX` if it may or may not be.
    pending: Vec<(u64, Model)>,
    /// The open batch asks for something.
    filled: bool,
    /// The replicas that the open batch removes.
    removed: BTreeSet<u64>,
    /// Batches accepted that removed a replica and began it anew.
    begun: u64,
    salt: u64,
    /// A fault is planned: what follows may be refused.
    doomed: bool,
    /// The fault came: what follows must be refused.
    poisoned: bool,
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let disk = Arc::new(SimDisk::new(super::DISK));
        let carry = [1, 12, 50, 100][input.below(4)];
        let wal = open(&disk, carry, input.u8()).expect("a blank disk is formatted");
        Self {
            disk,
            wal,
            carry,
            batch: Batch::new(),
            draft: Model::default(),
            acked: Model::default(),
            pending: Vec::new(),
            filled: false,
            removed: BTreeSet::new(),
            begun: 0,
            salt: 0,
            doomed: false,
            poisoned: false,
        }
    }

    /// The newest state that was submitted.
    fn last(&self) -> &Model {
        self.pending.last().map_or(&self.acked, |(_, m)| m)
    }

    fn stub(&mut self, input: &mut Input<'_>) -> Stub {
        self.salt += 1;
        let pick = input.u8();
        Stub { term: u64::from(pick >> 6), len: SIZES[usize::from(pick & 63) % SIZES.len()], salt: self.salt }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        if op == REMOVES {
            return self.remove_in_batch(IDS[input.below(IDS.len())]);
        }
        let id = IDS[usize::from(op >> 4) % IDS.len()];
        match op & 15 {
            0..=3 => self.append(id, false, input),
            4 => self.append(id, true, input),
            5 => self.truncate(id, input),
            6 => self.put(id, input),
            7 => self.delete(id, input),
            8 => self.reset(id, input),
            9 => self.remove(id),
            10 | 11 => self.commit(),
            12 => self.submit(input.bool()),
            13 => self.plan_fault(input),
            14 => self.housekeeping(op >> 4),
            _ => self.crash(input),
        }
    }

    fn append(&mut self, id: u64, overwrite: bool, input: &mut Input<'_>) {
        let shape = input.u8();
        let n = 1 + u64::from(shape & 7);
        let stubs: Vec<Stub> = (0..n).map(|_| self.stub(input)).collect();
        let replica = self.draft.0.entry(id).or_default();
        let held = replica.entries.len() as u64;
        let first = if overwrite { replica.first + u64::from(shape >> 3).min(held) } else { replica.last() + 1 };
        let entries: Vec<_> = (first..).zip(&stubs).map(|(i, s)| (i, s.term, s.bytes())).collect();
        replica.append(first, stubs);
        self.batch.append(id, &entries);
        self.filled = true;
    }

    fn truncate(&mut self, id: u64, input: &mut Input<'_>) {
        let by = u64::from(input.u8());
        let Some(replica) = self.draft.0.get_mut(&id) else { return };
        let held = replica.entries.len() as u64;
        if by >= CUTS {
            let from = replica.first + (by - CUTS).min(held);
            replica.cut(from);
            self.batch.truncate_suffix(id, from);
        } else {
            let (first, reports) = (replica.first + by.min(held), replica.applied.is_some());
            if reports {
                // Alone: what comes behind it in a batch must make sense even if nothing waits.
                self.submit(by & 1 == 0);
            }
            let Some(replica) = self.draft.0.get_mut(&id).filter(|replica| replica.last() + 1 >= first) else { return };
            replica.truncate(first);
            self.batch.truncate_prefix(id, first);
            self.filled = true;
            if reports {
                self.submit(by & 2 == 0);
            }
        }
        self.filled = true;
    }

    fn put(&mut self, id: u64, input: &mut Input<'_>) {
        let key = input.u8() & 3;
        let stub = Stub { term: 0, ..self.stub(input) };
        self.draft.0.entry(id).or_default().keys.insert(key, stub);
        self.batch.put(id, &[key], &stub.bytes());
        self.filled = true;
    }

    fn delete(&mut self, id: u64, input: &mut Input<'_>) {
        let what = input.u8();
        if what >= REPORTS {
            return self.report(id, what - REPORTS);
        }
        let key = what & 3;
        if let Some(replica) = self.draft.0.get_mut(&id) {
            replica.keys.remove(&key);
        }
        self.batch.delete(id, &[key]);
        self.filled = true;
    }

    /// Alone in its batch: what stands before it there would not see a truncation that it lets go.
    fn report(&mut self, id: u64, what: u8) {
        self.submit(what & 1 == 0);
        if let Some(replica) = self.draft.0.get_mut(&id) {
            let index = replica.first - 1 + u64::from(what >> 2);
            replica.report(index);
            self.batch.durable_applied(id, index);
            self.filled = true;
            self.submit(what & 2 == 0);
        }
    }

    fn reset(&mut self, id: u64, input: &mut Input<'_>) {
        let (ahead, term) = (u64::from(input.u8()), u64::from(input.u8()));
        let replica = self.draft.0.entry(id).or_default();
        let index = replica.last() + ahead;
        // Index 0 has no term.
        let term = if index == 0 { 0 } else { term };
        replica.reset(index, term);
        self.batch.install_snapshot(id, index, term);
        self.filled = true;
    }

    /// Alone in its batch.
    fn remove(&mut self, id: u64) {
        self.commit();
        self.draft.0.remove(&id);
        self.batch.remove(id);
        self.filled = true;
        self.commit();
    }

    /// What the batch asked of the replica before is cancelled, and what it asks after is of a new life.
    fn remove_in_batch(&mut self, id: u64) {
        self.draft.0.remove(&id);
        self.batch.remove(id);
        self.removed.insert(id);
        self.filled = true;
    }

    fn commit(&mut self) {
        if !self.filled {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let outcome = self.wal.commit(batch);
        let acknowledged = outcome.is_ok();
        self.submitted(outcome);
        assert!(!acknowledged || self.pending.is_empty(), "committed, yet the watermark is behind");
    }

    fn submit(&mut self, lazy: bool) {
        if !self.filled {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if lazy {
            batch.lazy();
        }
        let outcome = self.wal.submit(batch).map(|pending| pending.lsn());
        self.submitted(outcome);
    }

    /// The batch was applied as a whole, or not at all.
    fn submitted(&mut self, outcome: Result<Lsn>) {
        self.filled = false;
        let removed = std::mem::take(&mut self.removed);
        match outcome {
            Ok(lsn) => {
                self.begun += u64::from(removed.iter().any(|id| self.draft.0.contains_key(id)));
                self.pending.push((lsn.get(), self.draft.clone()));
            }
            // Refused: nothing of it may be found.
            Err(Error::Poisoned { .. }) if self.poisoned => self.draft = self.last().clone(),
            Err(Error::Poisoned { .. }) if self.doomed => {
                // Refused before it was applied, or applied and not acknowledged: either may be found.
                self.poisoned = true;
                let refused = self.last().clone();
                self.pending.push((u64::MAX, refused));
                self.pending.push((u64::MAX, self.draft.clone()));
            }
            Err(Error::Full(_)) => {
                self.draft = self.last().clone();
                self.make_room();
            }
            Err(Error::Busy { .. } | Error::BatchTooLarge { .. }) => self.draft = self.last().clone(),
            Err(error) => panic!("refused: {error}"),
        }
        self.absorb();
    }

    /// On a full log truncation succeeds.
    fn make_room(&mut self) {
        let longest = self.draft.0.iter_mut().max_by_key(|(_, r)| r.entries.iter().map(|e| e.len).sum::<usize>());
        let Some((&id, replica)) = longest.filter(|(_, r)| !r.entries.is_empty()) else { return };
        let first = replica.last() + 1;
        replica.truncate(first);
        let mut batch = Batch::new();
        batch.truncate_prefix(id, first);
        let outcome = self.wal.commit(batch);
        assert!(!matches!(outcome, Err(Error::Full(_))), "a full log refused a truncation");
        self.submitted(outcome);
    }

    /// Moves what the watermark covers from pending to acknowledged.
    fn absorb(&mut self) {
        let durable = self.wal.durable_lsn().get();
        let n = self.pending.iter().take_while(|(lsn, _)| *lsn <= durable).count();
        if let Some((_, model)) = self.pending.drain(..n).next_back() {
            self.acked = model;
        }
    }

    fn plan_fault(&mut self, input: &mut Input<'_>) {
        let (at, what) = (u64::from(input.u8() & 63), input.u8());
        if self.doomed {
            return;
        }
        let fault = match what & 3 {
            0 | 1 => Fault::Cut,
            2 => Fault::Error(EIO),
            _ => Fault::ShortThenError { kept: usize::from(what) * 64, errno: EIO },
        };
        self.disk.fail_at(self.disk.events() + at, fault);
        self.doomed = true;
    }

    fn housekeeping(&mut self, what: u8) {
        let outcome = match what & 3 {
            0 if what & 4 != 0 => self.scrub(),
            0 => self.wal.checkpoint(),
            1 => self.wal.sync().map(|_| ()),
            2 => {
                // Once poisoned, what the last batch left in memory is anybody's guess.
                let same = if self.poisoned || self.disk.is_cut() { Ok(()) } else { self.last().compare(&self.wal) };
                assert_eq!(same, Ok(()), "read back");
                Ok(())
            }
            _ => self.check_all(),
        };
        self.absorb();
        match outcome {
            Err(Error::Poisoned { .. }) if self.doomed => self.poisoned = true,
            Err(Error::Io { .. }) if self.doomed => {}
            outcome => outcome.expect("nothing is wrong with the disk"),
        }
    }

    fn check_all(&self) -> Result<()> {
        let report = self.wal.verify(|_| ())?;
        // What the disk refused is still in memory, for readers, but not where verify looks.
        assert!(self.doomed || report.is_clean(), "{report:?}");
        Ok(())
    }

    fn scrub(&self) -> Result<()> {
        let sound = |found: &Scrubbed| {
            assert!(self.doomed || found.damage.is_empty() && found.structure.is_empty(), "{found:?}");
            ControlFlow::Continue(())
        };
        let journal = self.wal.scrub(u64::MAX, sound)?;
        assert!(self.doomed || journal == ScrubbedJournal::default(), "{journal:?}");
        Ok(())
    }

    /// The end of a process, in one of several ways; then recovery, which may be cut short, too.
    fn crash(&mut self, input: &mut Input<'_>) {
        let (manner, setup) = (input.u8(), input.u8());
        if manner & 7 == 7 && !self.doomed {
            self.wal.close().expect("nothing is wrong with the disk");
            self.absorb();
            assert!(self.pending.is_empty(), "closed, yet not durable");
        }
        let mut disk = self.ended(manner);
        if manner & 0x30 == 0x30 {
            disk = self.recovery_cut_short(disk, setup, u64::from(manner >> 6), input);
        }
        if manner & 8 != 0 {
            self.look_only(&disk);
        }
        self.disk = Arc::new(disk);
        self.wal = open(&self.disk, self.carry, setup).expect("a crash leaves a log that opens");
        self.survived();
    }

    /// The disk as the next process finds it.
    fn ended(&self, manner: u8) -> SimDisk {
        match manner & 7 {
            0 => self.disk.crash_lost_all(),
            1 => self.disk.crash_kept_all(),
            // Only the process died: nothing is lost, and nothing is sure. Not after a failed sync: what it left in the page
            // cache can be read, and no later sync covers it, so that nothing short of writing it again would make it sure.
            2 | 7 if !self.poisoned && !self.disk.is_cut() => self.disk.restart(),
            _ => self.disk.crash_seeded(u64::from(manner)),
        }
    }

    fn recovery_cut_short(&self, disk: SimDisk, setup: u8, at: u64, input: &mut Input<'_>) -> SimDisk {
        let disk = Arc::new(disk);
        disk.fail_at(disk.events() + at, Fault::Cut);
        // Recovery may end before the cut comes: then that is what survives.
        drop(open(&disk, self.carry, setup));
        disk.crash_seeded(input.u64())
    }

    /// A read-only opening finds the same, and writes nothing.
    fn look_only(&self, disk: &SimDisk) {
        let disk = Arc::new(disk.clone());
        let events = disk.events();
        let wal = super::open(&disk, super::options().read_only(true)).expect("opens for reading");
        self.find(&wal);
        drop(wal);
        assert_eq!(disk.events(), events, "a read-only opening wrote");
    }

    /// The state that was found, of those that may be.
    fn find(&self, wal: &Wal) -> Model {
        assert_eq!(wal.damage(), [], "nothing rotted");
        let states = || std::iter::once(&self.acked).chain(self.pending.iter().map(|(_, m)| m));
        match states().rev().find(|m| m.compare(wal).is_ok()) {
            Some(model) => model.clone(),
            None => {
                let why: Vec<_> = states().map(|m| m.compare(wal)).collect();
                panic!("none of the states that may survive did: {why:#?}\n{:#?}", wal.stats());
            }
        }
    }

    fn survived(&mut self) {
        self.acked = self.find(&self.wal);
        self.acked.0.values_mut().for_each(|replica| replica.held = None);
        self.pending.clear();
        self.draft = self.acked.clone();
        self.batch.clear();
        self.removed.clear();
        (self.filled, self.doomed, self.poisoned) = (false, false, false);
        self.check_all().expect("the disk is whole");
    }

    /// Whatever was done to it, the log goes on.
    fn end(mut self) -> u64 {
        self.disk = Arc::new(self.disk.crash_seeded(self.salt));
        self.wal = open(&self.disk, self.carry, 0).expect("a crash leaves a log that opens");
        self.survived();
        self.draft.0.entry(IDS[0]).or_default();
        self.batch.put(IDS[0], b"\x00", b"");
        self.draft.0.entry(IDS[0]).or_default().keys.insert(0, Stub { term: 0, len: 0, salt: 0 });
        self.filled = true;
        self.commit();
        self.wal.close().expect("nothing is wrong with the disk");
        self.disk = Arc::new(self.disk.restart());
        self.wal = open(&self.disk, self.carry, 0).expect("a closed log opens");
        self.survived();
        self.begun
    }
}

fn open(disk: &Arc<SimDisk>, carry: u8, setup: u8) -> Result<Wal> {
    let placement = [Placement::Auto, Placement::Journal, Placement::Chain][usize::from(setup) % 3];
    super::open(disk, super::options().placement(placement).carry_fraction(carry))
}
