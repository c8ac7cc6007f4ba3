//! One store: a log, and pollers that drive its groups as the crate documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::eraftpb::Message;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::{Batch, FullReport, Wal};
use strandlog_raft::{Error, PersistQueue, Round, Written};

use crate::checks::Checks;
use crate::fetches::Fetches;
use crate::group::{Group, Into};
use crate::machine::Files;
use crate::manner::{Manner, Plant};
use crate::network::Envelope;
use crate::rng::Rng;

pub struct Store {
    pub wal: Arc<Wal>,
    pub pollers: Vec<Poller>,
    pub groups: BTreeMap<u64, Group>,
    pub files: Files,
    disk: Arc<SimDisk>,
    /// Groups whose Ready was refused.
    pub refused: Vec<u64>,
    /// Messages that leave when the step is over.
    pub out: Vec<Envelope>,
}

pub struct Poller {
    pub queue: PersistQueue,
    pub round: Round,
    pub fetches: Option<Fetches>,
}

/// The parts of a world that a store's work needs.
pub struct Around<'a> {
    pub manner: &'a Manner,
    pub rng: &'a mut Rng,
    pub checks: &'a mut Checks,
}

impl Store {
    pub fn new(wal: Arc<Wal>, disk: Arc<SimDisk>, files: Files, manner: &Manner) -> Self {
        let poller = |_| {
            let queue = PersistQueue::new(Arc::clone(&wal), || ());
            Poller { round: queue.round(), queue, fetches: manner.fetch.then(Fetches::new) }
        };
        let pollers = (0..manner.pollers).map(poller).collect();
        Self { wal, pollers, groups: BTreeMap::new(), files, disk, refused: Vec::new(), out: Vec::new() }
    }

    pub fn poller_of(&self, group: u64) -> usize {
        (group as usize - 1) % self.pollers.len()
    }

    pub fn insert(&mut self, mut group: Group) {
        let poller = self.poller_of(group.group);
        if let Some(fetches) = &mut self.pollers[poller].fetches {
            fetches.serve(group.node.mut_store());
            fetches.done.retain(|fetched| fetched.group() != group.group);
        }
        self.groups.insert(group.group, group);
    }

    /// Something was done to the node of a group.
    pub fn look(&mut self, group: u64, checks: &mut Checks) {
        let poller = self.poller_of(group);
        if let Some(fetches) = &mut self.pollers[poller].fetches {
            fetches.keep_step();
        }
        if let Some(group) = self.groups.get(&group) {
            checks.look(group.group, &group.node);
        }
    }

    /// One iteration of a poller, with some of its groups or with all.
    pub fn drive(&mut self, poller: usize, all: bool, around: &mut Around<'_>) -> Result<(), Error> {
        let mut groups: Vec<u64> = self.groups.keys().copied().collect();
        groups.retain(|&group| self.poller_of(group) == poller && (all || around.rng.chance(75)));
        for group in groups {
            if self.groups[&group].node.has_ready() {
                self.ready(poller, group, around)?;
                if !all && around.rng.below(150) == 0 && self.groups.contains_key(&group) {
                    // Taken out of the round with everything of it in there.
                    around.checks.figures.reopened += 1;
                    self.refused.push(group);
                    self.forget(poller, group)?;
                }
            }
            let full = self.pollers[poller].round.is_full();
            around.checks.figures.gathered += u64::from(full && around.manner.gathers);
            if !around.manner.gathers && (full || around.rng.chance(10)) {
                self.submit(poller, around)?;
            }
        }
        self.submit(poller, around)
    }

    fn ready(&mut self, poller: usize, group: u64, around: &mut Around<'_>) -> Result<(), Error> {
        let Around { manner, rng, checks } = around;
        let Some(group) = self.groups.get_mut(&group) else { return Ok(()) };
        let round = &mut self.pollers[poller].round;
        let mut ready = group.node.ready();
        for state in ready.take_read_states() {
            let reading = u64::from_le_bytes(state.request_ctx[..].try_into().expect("a reading"));
            checks.reads(reading, state.index);
        }
        if !ready.snapshot().is_empty() {
            group.install(ready.snapshot(), ready.number(), &self.files, manner, checks);
            if rng.chance(20 * manner.crashes) {
                // In the middle of an installation: in the file, but not in the log.
                self.disk.fail_at(self.disk.events(), Fault::Cut);
            }
        }
        group.waits.extend(ready.take_committed_entries());
        let applies_first = rng.chance(50);
        if applies_first && !manner.late {
            group.apply_all(checks);
        }
        if manner.planted(Plant::SentAtOnce) {
            let messages = ready.persisted_messages().to_vec();
            self.out.extend(messages.into_iter().map(|message| Envelope { group: group.group, message }));
        }
        match round.persist(group.node.mut_store(), ready) {
            // An older snapshot than was asked for: the group starts anew.
            Err(Error::SnapshotOutOfDate { .. }) => {
                checks.figures.outdated += 1;
                let group = group.group;
                self.refused.push(group);
                return self.forget(poller, group);
            }
            persisted => persisted.unwrap_or_else(|error| panic!("a Ready of {} is refused: {error}", group.id)),
        }
        if !manner.late {
            group.apply_all(checks);
        }
        if group.snapshot.is_none() && manner.in_log() {
            let wanted = group.node.store().wants_checkpoint() && group.has_news();
            // Nothing is compacted that raft was not told is applied: it searches there for changes when it stands for election.
            if wanted || (!manner.hoards && rng.chance(15) && group.has_news()) {
                let first = group.node.store().replica().first_index();
                let kept = group.checkpoint(Into::Round(round), manner.retain, manner)?;
                checks.figures.compacted += u64::from(kept > first);
            }
        } else if group.snapshot.is_none() && !manner.hoards && rng.chance(10) {
            let (storage, first) = (group.node.mut_store(), group.machine.index.saturating_sub(manner.retain));
            let before = storage.replica().first_index();
            checks.figures.compacted += u64::from(round.compact(storage, first)? > before);
        }
        Ok(())
    }

    fn submit(&mut self, poller: usize, around: &mut Around<'_>) -> Result<(), Error> {
        let Around { manner, checks, .. } = around;
        loop {
            let Poller { queue, round, .. } = &mut self.pollers[poller];
            let (groups, out) = (&mut self.groups, &mut self.out);
            let mut touched = Vec::new();
            let advance = |Written { group: id, ready, messages }: Written| {
                let Some(group) = groups.get_mut(&id) else { return };
                let number = ready.number();
                group.node.advance_append_async(ready);
                if manner.planted(Plant::PersistedAtOnce) {
                    group.persisted(number);
                }
                group.tell();
                put(out, id, messages);
                touched.push(id);
            };
            match queue.submit(round, advance) {
                Err(Error::Log(strandlog::Error::Full(full))) => {
                    checks.figures.full += 1;
                    if !self.make_room(&full, manner)? {
                        return Err(Error::Log(strandlog::Error::Full(full)));
                    }
                }
                outcome => {
                    touched.iter().for_each(|&group| self.look(group, checks));
                    return outcome;
                }
            }
        }
    }

    /// Checkpoints of the groups that hold most, in batches of their own.
    fn make_room(&mut self, full: &FullReport, manner: &Manner) -> Result<bool, Error> {
        let mut made = false;
        for (group, _) in &full.holders {
            let Some(group) = self.groups.get_mut(group).filter(|group| group.snapshot.is_none()) else { continue };
            let (first, mut batch) = (group.node.store().replica().first_index(), Batch::new());
            let kept = if manner.in_log() {
                group.checkpoint(Into::Batch(&mut batch), 0, manner)?
            } else {
                self.files.lock().insert(group.group, group.machine.clone());
                group.report(&self.wal, &self.files, manner)?;
                let next = group.machine.index + 1;
                group.node.mut_store().compact(&mut batch, next)?
            };
            made |= kept > first && self.wal.commit(&mut batch).is_ok();
        }
        Ok(made)
    }

    /// Handles what has become durable.
    pub fn poll(&mut self, poller: usize, checks: &mut Checks) -> Result<(), Error> {
        let (groups, out) = (&mut self.groups, &mut self.out);
        let mut touched = Vec::new();
        self.pollers[poller].queue.poll(|durable| {
            if let Some(group) = groups.get_mut(&durable.group) {
                group.persisted(durable.number);
                put(out, durable.group, durable.messages);
                touched.push(durable.group);
            }
        })?;
        touched.iter().for_each(|&group| self.look(group, checks));
        Ok(())
    }

    /// Handles old entries that were read.
    pub fn hear_of_old_entries(&mut self, poller: usize, checks: &mut Checks) {
        let done = self.pollers[poller].fetches.as_mut().map(|fetches| std::mem::take(&mut fetches.done));
        for fetched in done.into_iter().flatten() {
            let group = fetched.group();
            checks.figures.fetched += 1;
            if let Some(Group { node, .. }) = self.groups.get_mut(&group) {
                let context = node.mut_store().accept(fetched);
                node.on_entries_fetched(context);
            }
            self.look(group, checks);
        }
    }

    /// What state machines do by themselves: apply, make durable, report, and compact.
    pub fn work(&mut self, group: u64, around: &mut Around<'_>) -> Result<(), Error> {
        let Around { manner, rng, checks } = around;
        let Some(one) = self.groups.get_mut(&group) else { return Ok(()) };
        for _ in 0..rng.below(6) {
            one.apply_next(checks);
        }
        one.tell();
        let one = self.groups.get_mut(&group).filter(|one| one.snapshot.is_none());
        let Some(one) = one else { return Ok(()) };
        if !manner.in_log() {
            if rng.chance(50) && one.machine.index > 0 {
                self.files.lock().insert(group, one.machine.clone());
            }
            if rng.chance(50) {
                one.report(&self.wal, &self.files, manner)?;
            }
        }
        if rng.chance(30) && !manner.hoards {
            let (storage, mut batch) = (one.node.mut_store(), Batch::new());
            let (first, kept) = (storage.replica().first_index(), one.machine.index.saturating_sub(manner.retain));
            if storage.compact(&mut batch, kept)? > first {
                checks.figures.compacted += 1;
                match self.wal.submit(batch.lazy()) {
                    // As if it had never been asked for.
                    Err(strandlog::Error::Full(_)) => {}
                    submitted => drop(submitted.map_err(Error::Log)?),
                }
            }
        }
        self.look(group, checks);
        Ok(())
    }

    fn forget(&mut self, poller: usize, group: u64) -> Result<(), Error> {
        let Poller { queue, round, .. } = &mut self.pollers[poller];
        queue.forget(round, group);
        self.groups.remove(&group);
        Ok(())
    }

    /// Groups that were refused may be opened anew.
    pub fn give_up(&mut self) -> Result<Vec<u64>, Error> {
        let refused = std::mem::take(&mut self.refused);
        for &group in &refused {
            let poller = self.poller_of(group);
            self.pollers[poller].queue.flush()?;
        }
        Ok(refused)
    }

    /// The group starts anew from the log, as after a Ready that was refused.
    pub fn take_out(&mut self, group: u64, around: &mut Around<'_>) -> Result<(), Error> {
        let poller = self.poller_of(group);
        self.forget(poller, group)?;
        self.submit(poller, around)?;
        self.pollers[poller].queue.flush()
    }

    /// The group is removed for good. Durable when this returns.
    pub fn remove(&mut self, group: u64, around: &mut Around<'_>) -> Result<(), Error> {
        let poller = self.poller_of(group);
        let Poller { queue, round, .. } = &mut self.pollers[poller];
        queue.remove(round, group);
        self.groups.remove(&group);
        self.submit(poller, around)?;
        self.pollers[poller].queue.flush()?;
        self.files.lock().remove(&group);
        Ok(())
    }
}

fn put(out: &mut Vec<Envelope>, group: u64, messages: Vec<Message>) {
    out.extend(messages.into_iter().map(|message| Envelope { group, message }));
}
