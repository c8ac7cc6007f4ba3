//! How to embed the log in a raft of your own, in a hundred lines: what to write when, what to wait for, and what to do after a crash.
//!
//! The raft here has one member a group, so that nothing distracts from the log: what it calls *send* goes nowhere. What matters is the
//! order of things, which is the same in every raft:
//!
//! 1. gather what all groups have to persist into one batch: entries, and term and vote where they changed;
//! 2. submit it, and go on. What was appended is readable at once: a leader sends it while it becomes durable;
//! 3. answer, and count yourself, only when it is durable: the sink is told;
//! 4. apply what is committed; make the state machine durable when *it* likes, and report that with `durable_applied`;
//! 5. truncate what the followers no longer need. The log holds back what the state machine does not hold durably.
//!
//! ```sh
//! cargo run --example own_raft
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, mpsc};

use strandlog::{Batch, Lsn, Sink, Wal};

/// Called by the log's writer: only passes on which groups' writes are durable.
struct Durable(mpsc::Sender<(Vec<u64>, strandlog::Result<Lsn>)>);

impl Sink for Durable {
    fn done(&self, tags: &[u64], outcome: &strandlog::Result<Lsn>) {
        // The receiver is gone when the store shuts down.
        let _ = self.0.send((tags.to_vec(), outcome.clone()));
    }
}

/// One raft group: its volatile state, and a state machine that sums up its entries.
struct Group {
    id: u64,
    term: u64,
    /// Last index that is durable here: what this member acknowledges, or counts for itself.
    matched: u64,
    applied: u64,
    sum: u64,
    /// The state machine's own durable copy: index and sum. A real one has a file or a store for it.
    saved: (u64, u64),
}

impl Group {
    /// After a crash: hard state from the log, the state machine from its copy; what lies behind the copy is applied again.
    fn open(wal: &Wal, id: u64, saved: (u64, u64)) -> Result<Self, Box<dyn Error>> {
        let log = wal.replica(id);
        let hard_state = log.get(b"hard_state")?;
        let term = hard_state.map_or(Ok(0), |bytes| bytes[..].try_into().map(u64::from_le_bytes))?;
        let mut group = Self { id, term, matched: log.last_index(), applied: saved.0, sum: saved.1, saved };
        // The log has all that the state machine lacks: a report may be lost in a crash, but it is never ahead of the copy.
        assert!(log.reapply_from()? <= group.applied + 1, "the state machine lost what the log has let go");
        group.apply(wal)?;
        Ok(group)
    }

    /// A new term: it must be durable before anything is said in it.
    fn campaign(&mut self, batch: &mut Batch) {
        self.term += 1;
        batch.put(self.id, b"hard_state", &self.term.to_le_bytes());
    }

    fn propose(&self, wal: &Wal, batch: &mut Batch, value: u64) {
        let index = wal.replica(self.id).last_index() + 1;
        batch.append(self.id, &[(index, self.term, value.to_le_bytes())]);
    }

    /// Applies what is committed: here, what is durable.
    fn apply(&mut self, wal: &Wal) -> Result<(), Box<dyn Error>> {
        while self.applied < self.matched {
            // A few at a time; entries that followers lack would be read the same way.
            for entry in wal.replica(self.id).entries(self.applied + 1..self.matched + 1, 1 << 20)? {
                self.sum += u64::from_le_bytes(entry.data[..].try_into()?);
                self.applied = entry.index;
            }
        }
        Ok(())
    }
}

const GROUPS: u64 = 100;
const ROUNDS: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("raft.log");
    let options = || Wal::options().capacity(64 << 20);
    let wal = options().open(&path)?;
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for id in 1..=GROUPS {
        groups.insert(id, Group::open(&wal, id, (0, 0))?);
    }
    let (tell, told) = mpsc::channel();
    let sink: Arc<dyn Sink> = Arc::new(Durable(tell));
    let mut batch = Batch::new();
    groups.values_mut().for_each(|group| group.campaign(&mut batch));
    wal.commit(&mut batch)?;
    // From now on nothing that the state machines lack is truncated.
    wal.durable_applied_many(&groups.keys().map(|&id| (id, 0)).collect::<Vec<_>>())?;

    for round in 1..=ROUNDS {
        for group in groups.values() {
            group.propose(&wal, &mut batch, round);
        }
        // One batch for all groups; a store with thousands submits each group when it is ready, with the group as the tag.
        wal.submit_to(&mut batch, &sink, round)?;
        // Here messages with the new entries would leave: these are readable. Then other work, until the sink is told.
        let (_, outcome) = told.recv()?;
        outcome?;
        for group in groups.values_mut() {
            group.matched = wal.replica(group.id).last_index();
            group.apply(&wal)?;
        }
        if round % 20 == 0 {
            // Each state machine saves itself, then reports that; neither the report nor the truncation costs a sync.
            for group in groups.values_mut() {
                group.saved = (group.applied, group.sum);
            }
            let reports: Vec<_> = groups.values().map(|group| (group.id, group.saved.0)).collect();
            wal.durable_applied_many(&reports)?;
        }
        // As if every follower had everything: the log itself knows how far it may truncate.
        for group in groups.values() {
            batch.truncate_prefix(group.id, group.applied + 1);
        }
        drop(wal.submit(batch.lazy())?);
    }
    let kept = wal.replica(1).bounds();
    println!("{GROUPS} groups, {ROUNDS} rounds, {} syncs; group 1 keeps {}..={}", wal.stats().frames, kept.0, kept.1);

    // A crash: no close, and the state machines are as they last saved themselves.
    let saved: Vec<(u64, (u64, u64))> = groups.values().map(|group| (group.id, group.saved)).collect();
    drop(wal);
    let wal = options().open(&path)?;
    for (id, saved) in saved {
        let group = Group::open(&wal, id, saved)?;
        assert_eq!((group.term, group.applied, group.sum), (1, ROUNDS, ROUNDS * (ROUNDS + 1) / 2), "nothing is lost");
    }
    println!(
        "after the crash every sum is right again: {} to {ROUNDS} were applied anew",
        wal.replica(1).reapply_from()?
    );
    wal.close()?;
    Ok(())
}
