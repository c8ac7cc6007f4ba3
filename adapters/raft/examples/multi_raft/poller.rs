//! The thread that drives many groups: what every multi-raft store needs.
//!
//! Each iteration takes what has arrived, lets time pass, gathers the readies of all groups concerned into
//! one batch, submits it, and goes on. The inbox tells it what has become durable meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use raft::StateRole;
use strandlog::Batch;
use strandlog_raft::{Error, FetchQueue, PersistQueue, Round, Written};

use crate::board::Board;
use crate::group::{CHECKPOINT_EVERY, Group};
use crate::net::{Inbound, Network, Outcome, Proposal};
use crate::outbox::Outbox;
use crate::{Result, STORES};

/// A tenth of the groups ticks every 10 ms: each group ticks every 100 ms, and they do not all send heartbeats at once.
const PHASES: usize = 10;
const PHASE: Duration = Duration::from_millis(10);

/// Inbox items taken before their readies are handled.
const ITEMS_A_ROUND: usize = 256;

/// What a poller thread is given.
pub struct Setup {
    pub store: u64,
    pub lane: u64,
    pub groups: Vec<Group>,
    pub queue: PersistQueue,
    pub fetches: FetchQueue,
    pub inbox: Receiver<Inbound>,
    pub outcomes: Sender<Vec<Outcome>>,
    pub network: Arc<Network>,
    pub board: Arc<Board>,
    pub retain: u64,
    /// The inbox already has a token saying that something of this poller's own is done.
    pub woken: Arc<AtomicBool>,
    /// Stop at once, finishing nothing.
    pub cut: Arc<AtomicBool>,
}

pub struct Poller {
    setup: Setup,
    round: Round,
    outbox: Outbox,
    /// Groups that may have a Ready.
    listed: Vec<usize>,
    /// Groups whose Ready the log refused.
    refused: Vec<usize>,
    /// Proposals taken here but not applied yet.
    proposed: HashSet<u64>,
    answers: Vec<Outcome>,
    phase: usize,
    next_phase: Instant,
    /// Ticks are held back until the other stores are up.
    awake: bool,
    finishing: bool,
}

impl Poller {
    pub fn new(setup: Setup) -> Self {
        let mut poller = Poller {
            outbox: Outbox::new(setup.lane),
            round: setup.queue.round(),
            listed: Vec::new(),
            refused: Vec::new(),
            proposed: HashSet::new(),
            answers: Vec::new(),
            phase: 0,
            next_phase: Instant::now(),
            awake: false,
            finishing: false,
            setup,
        };
        // Committed entries that the checkpoint does not cover must be applied again.
        for slot in 0..poller.setup.groups.len() {
            poller.list(slot);
        }
        poller
    }

    /// Runs until it is told to finish or is cut off.
    pub fn run(mut self) -> Result<()> {
        while !self.finishing {
            self.receive();
            if self.setup.cut.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.pass_time();
            self.persist()?;
            self.hear_of_durable()?;
            self.hear_of_old_entries();
            self.send();
        }
        self.finish()
    }

    fn receive(&mut self) {
        let patience = if self.listed.is_empty() {
            self.next_phase.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        match self.setup.inbox.recv_timeout(patience) {
            Ok(item) => self.take(item),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
        for _ in 1..ITEMS_A_ROUND {
            match self.setup.inbox.try_recv() {
                Ok(item) => self.take(item),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, item: Inbound) {
        self.awake |= matches!(item, Inbound::Raft(_) | Inbound::Campaign);
        match item {
            Inbound::Raft(batch) => {
                for (group, message) in batch {
                    let slot = self.slot(group);
                    // raft refuses a response from a node that is no member: that needs no handling.
                    let _ = self.setup.groups[slot].node.step(message);
                    self.list(slot);
                }
            }
            Inbound::Propose(proposals) => proposals.into_iter().for_each(|proposal| self.propose(proposal)),
            Inbound::Durable => self.setup.woken.store(false, Ordering::Release),
            Inbound::Campaign => self.campaign(),
            Inbound::Finish => self.finishing = true,
        }
    }

    fn propose(&mut self, Proposal { id, group, payload }: Proposal) {
        let slot = self.slot(group);
        let group = &mut self.setup.groups[slot];
        // A follower would forward it; it is better to tell the client.
        if group.is_leader() && group.node.propose(id.to_le_bytes().to_vec(), payload).is_ok() {
            self.proposed.insert(id);
            self.list(slot);
        } else {
            self.answers.push(Outcome::NotLeader(id));
        }
    }

    /// The first leaders are assigned to the stores; later ones are whoever wins an election.
    fn campaign(&mut self) {
        for slot in 0..self.setup.groups.len() {
            let node = &mut self.setup.groups[slot].node;
            if node.store().group() % STORES as u64 + 1 == self.setup.store {
                let _ = node.campaign();
                self.list(slot);
            }
        }
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        if now < self.next_phase {
            return;
        }
        // After a stall, raft's time does not catch up: better a late election than a thousand at once.
        self.next_phase = now + PHASE;
        if !self.awake {
            return;
        }
        for slot in (self.phase..self.setup.groups.len()).step_by(PHASES) {
            if self.setup.groups[slot].tick() {
                self.list(slot);
            }
        }
        self.phase = (self.phase + 1) % PHASES;
    }

    /// Takes every Ready there is into as few batches as possible: one.
    fn persist(&mut self) -> Result<()> {
        for slot in std::mem::take(&mut self.listed) {
            self.setup.groups[slot].listed = false;
            if self.setup.groups[slot].node.has_ready() {
                self.ready(slot)?;
            }
            if self.round.is_full() {
                self.submit()?;
            }
        }
        self.submit()
    }

    fn ready(&mut self, slot: usize) -> Result<()> {
        let Setup { store, groups, queue, board, retain, .. } = &mut self.setup;
        let (store, group) = (*store, &mut groups[slot]);
        let id = group.node.store().group();
        let mut ready = group.node.ready();
        if let Some(soft) = ready.ss() {
            board.set_leader(id, store, soft.raft_state == StateRole::Leader);
        }
        if !ready.snapshot().is_empty() {
            group.install(ready.snapshot(), ready.number())?;
            board.totals(store).snapshots.fetch_add(1, Ordering::Relaxed);
        }
        let committed = ready.take_committed_entries();
        if let Err(error) = self.round.persist(group.node.mut_store(), ready) {
            // Its node counts on what the log will never have. The other groups go on.
            eprintln!("store {store}: {error}");
            queue.forget(&mut self.round, id);
            self.refused.push(slot);
            return Ok(());
        }
        board.totals(store).applied.fetch_add(committed.len() as u64, Ordering::Relaxed);
        for entry in committed {
            if let Some(proposal) = group.apply(&entry)?
                && self.proposed.remove(&proposal)
            {
                self.answers.push(Outcome::Applied(proposal));
            }
        }
        board.set_applied(store, id, group.machine.index);
        if group.snapshot.is_none() {
            group.checkpoint(&mut self.round, CHECKPOINT_EVERY, *retain)?;
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        loop {
            let Setup { queue, groups, network, .. } = &mut self.setup;
            let outbox = &mut self.outbox;
            let outcome = queue.submit(&mut self.round, |Written { group: id, ready, messages }| {
                let group = &mut groups[network.slot(id)];
                group.node.advance_append_async(ready);
                group.applied();
                // A leader's messages, which need not wait.
                outbox.add(id, messages);
            });
            match outcome {
                // Submits the same round again.
                Err(Error::Log(strandlog::Error::Full(_))) if self.make_room()? => {}
                // No batch takes all that the round has of this group; all others are written.
                Err(error @ Error::TooLarge { group, .. }) => {
                    eprintln!("store {}: {error}", self.setup.store);
                    self.setup.queue.forget(&mut self.round, group);
                    self.refused.push(self.setup.network.slot(group));
                }
                outcome => {
                    outcome?;
                    return self.reopen();
                }
            }
        }
    }

    /// The log is full, and the checkpoints wait in the round: writes them in batches of their own. Returns whether anything was compacted.
    fn make_room(&mut self) -> Result<bool> {
        let Setup { store, groups, queue, .. } = &mut self.setup;
        eprintln!("store {store}: the log is full");
        let mut made = false;
        for group in groups.iter_mut().filter(|group| group.snapshot.is_none()) {
            let (first, mut batch) = (group.node.store().replica().first_index(), Batch::new());
            if group.let_go(&mut batch)? > first {
                made |= queue.wal().commit(&mut batch).is_ok();
            }
        }
        Ok(made)
    }

    /// Groups whose Ready was refused go on from what the log has of them. A new node takes that for durable, so it must be.
    fn reopen(&mut self) -> Result<()> {
        for slot in std::mem::take(&mut self.refused) {
            let Setup { store, groups, queue, fetches, .. } = &mut self.setup;
            queue.flush()?;
            let mut group = Group::open(queue.wal(), groups[slot].node.store().group(), *store)?;
            group.node.mut_store().fetch_with(fetches);
            groups[slot] = group;
            self.list(slot);
        }
        Ok(())
    }

    fn hear_of_durable(&mut self) -> Result<()> {
        let Setup { queue, groups, network, .. } = &mut self.setup;
        let (outbox, listed) = (&mut self.outbox, &mut self.listed);
        queue.poll(|durable| {
            let slot = network.slot(durable.group);
            groups[slot].persisted(durable.number);
            outbox.add(durable.group, durable.messages);
            // What the leader's own durability committed is in its next Ready.
            if !std::mem::replace(&mut groups[slot].listed, true) {
                listed.push(slot);
            }
        })?;
        Ok(())
    }

    /// Entries for lagging followers: raft sends them with its next Ready.
    fn hear_of_old_entries(&mut self) {
        let Setup { fetches, groups, network, .. } = &mut self.setup;
        let listed = &mut self.listed;
        fetches.poll(|fetched| {
            let slot = network.slot(fetched.group());
            let node = &mut groups[slot].node;
            let context = node.mut_store().accept(fetched);
            node.on_entries_fetched(context);
            if !std::mem::replace(&mut groups[slot].listed, true) {
                listed.push(slot);
            }
        });
    }

    fn send(&mut self) {
        let Setup { groups, network, outcomes, .. } = &mut self.setup;
        self.outbox.flush(network, groups);
        if !self.answers.is_empty() {
            let _ = outcomes.send(std::mem::take(&mut self.answers));
        }
    }

    /// Everything is applied and nobody writes: checkpoints the state machines as they are.
    fn finish(mut self) -> Result<()> {
        for slot in 0..self.setup.groups.len() {
            self.setup.groups[slot].checkpoint(&mut self.round, 1, self.setup.retain)?;
            if self.round.is_full() {
                self.submit()?;
            }
        }
        self.submit()?;
        Ok(self.setup.queue.flush()?)
    }

    fn list(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.setup.groups[slot].listed, true) {
            self.listed.push(slot);
        }
    }

    fn slot(&self, group: u64) -> usize {
        self.setup.network.slot(group)
    }
}
