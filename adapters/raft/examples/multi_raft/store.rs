//! One store: a log, and the poller threads that drive its replicas.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft::eraftpb::ConfState;
use strandlog::{Batch, Wal};
use strandlog_raft::{BOOTSTRAP_INDEX, FetchQueue, GroupStorage, PersistQueue};

use crate::args::Args;
use crate::board::Board;
use crate::group::Group;
use crate::machine::Machine;
use crate::net::{Inbound, Network, Outcome, Outlet};
use crate::poller::{Poller, Setup};
use crate::{Result, STORES};

/// Groups bootstrapped by one batch.
const BOOTSTRAP_BATCH: u64 = 256;

/// What was found when a store was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opened {
    /// Opening the log: recovery, or creation.
    pub log_micros: u64,
    /// Building all groups on it.
    pub groups_micros: u64,
    /// Committed entries after the checkpoints, which are applied again.
    pub reapplied: u64,
    /// Entries in the log.
    pub entries: u64,
}

/// The totals of a log in one life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub entries: u64,
    pub batches: u64,
    pub syncs: u64,
    pub user_bytes: u64,
    pub device_bytes: u64,
}

/// What all stores of a process share.
#[derive(Clone)]
pub struct World {
    pub args: Arc<Args>,
    pub network: Arc<Network>,
    pub board: Arc<Board>,
    pub outcomes: Sender<Vec<Outcome>>,
}

pub struct Store {
    id: u64,
    wal: Arc<Wal>,
    threads: Vec<JoinHandle<()>>,
    cut: Arc<AtomicBool>,
    world: World,
}

/// The file of a store's log.
pub fn path(dir: &Path, store: u64) -> PathBuf {
    dir.join(format!("store-{store}.strandlog"))
}

impl Store {
    /// Opens a store (which creates or recovers its log) and starts its threads.
    pub fn open(world: &World, id: u64) -> Result<(Store, Opened)> {
        let args = &world.args;
        let start = Instant::now();
        // Entries are short-lived here, and cost nothing if they are dropped while still in the journal: so it may have most of the file.
        let capacity = args.capacity();
        let options = Wal::options().capacity(capacity).journal_cap(capacity / 4 * 3);
        let wal = options.open(path(&args.data_dir(), id))?;
        let log = start.elapsed();
        bootstrap(&wal, args.groups)?;
        let start = Instant::now();
        let mut lanes: Vec<Vec<Group>> = (0..args.pollers).map(|_| Vec::new()).collect();
        let mut opened = Opened { log_micros: micros(log), ..Opened::default() };
        for group in 1..=args.groups {
            let replica = Group::open(&wal, group, id)?;
            let storage = replica.node.store();
            opened.reapplied += storage.hard_state().commit - storage.applied();
            opened.entries += storage.replica().last_index() + 1 - storage.replica().first_index();
            world.board.set_applied(id, group, replica.machine.index);
            lanes[world.network.lane(group) as usize].push(replica);
        }
        opened.groups_micros = micros(start.elapsed());
        let mut store =
            Store { id, wal: Arc::new(wal), threads: Vec::new(), cut: Arc::default(), world: world.clone() };
        let mut inboxes = Vec::new();
        for (lane, groups) in (0..).zip(lanes) {
            let (sender, inbox) = channel();
            store.start(lane, groups, &sender, inbox)?;
            inboxes.push(sender);
        }
        world.network.set(id, Outlet::Local(inboxes));
        Ok((store, opened))
    }

    fn start(
        &mut self,
        lane: u64,
        mut groups: Vec<Group>,
        inbox: &Sender<Inbound>,
        receiver: Receiver<Inbound>,
    ) -> Result<()> {
        let World { args, network, board, outcomes } = self.world.clone();
        let woken = Arc::new(AtomicBool::new(false));
        let (pending, sender) = (Arc::clone(&woken), inbox.clone());
        let wake = move || {
            if !pending.swap(true, Ordering::AcqRel) {
                let _ = sender.send(Inbound::Durable);
            }
        };
        let (store, cut) = (self.id, Arc::clone(&self.cut));
        let fetches = FetchQueue::new(wake.clone())?;
        groups.iter_mut().for_each(|group| group.node.mut_store().fetch_with(&fetches));
        let queue = PersistQueue::new(Arc::clone(&self.wal), wake);
        let retain = args.retain;
        let setup = Setup {
            store,
            lane,
            groups,
            queue,
            fetches,
            inbox: receiver,
            outcomes,
            network,
            board: Arc::clone(&board),
            retain,
            woken,
            cut,
        };
        let run = move || {
            if let Err(error) = Poller::new(setup).run() {
                board.fail(format!("store {store}: {error}"));
            }
        };
        self.threads.push(std::thread::Builder::new().name(format!("store-{store}.{lane}")).spawn(run)?);
        Ok(())
    }

    /// Cuts it off: the threads stop where they are, and the log is dropped without being closed.
    pub fn cut(mut self) -> Result<Usage> {
        self.cut.store(true, Ordering::Relaxed);
        self.world.network.set(self.id, Outlet::Down);
        self.join()?;
        self.world.board.depose(self.id);
        Ok(usage(&self.wal))
    }

    /// Ends in order: final checkpoints, everything durable, the log closed.
    pub fn close(mut self) -> Result<Usage> {
        self.world.network.tell(self.id, || Inbound::Finish);
        self.join()?;
        self.world.network.set(self.id, Outlet::Down);
        self.wal.close()?;
        Ok(usage(&self.wal))
    }

    fn join(&mut self) -> Result<()> {
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| format!("a thread of store {} panicked", self.id))?;
        }
        Ok(())
    }

    pub fn has_died(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// Bootstraps the groups in a blank log. All stores start with the same.
fn bootstrap(wal: &Wal, groups: u64) -> Result<()> {
    let conf_state = ConfState { voters: (1..=STORES as u64).collect(), ..ConfState::default() };
    let data = Machine::at(BOOTSTRAP_INDEX, BOOTSTRAP_INDEX).encode();
    let mut batch = Batch::new();
    for group in 1..=groups {
        if !wal.replica(group).exists() {
            GroupStorage::open(wal, group)?.bootstrap(&mut batch, &conf_state, &data)?;
        }
        if group % BOOTSTRAP_BATCH == 0 || group == groups {
            wal.commit(&mut batch)?;
        }
    }
    Ok(())
}

fn usage(wal: &Wal) -> Usage {
    let stats = wal.stats();
    Usage {
        entries: stats.entries,
        batches: stats.batches,
        syncs: stats.frames,
        user_bytes: stats.user_bytes,
        device_bytes: stats.journal_bytes + stats.placed_bytes + stats.settled_bytes,
    }
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Opened {
    pub fn words(&self) -> [u64; 4] {
        [self.log_micros, self.groups_micros, self.reapplied, self.entries]
    }

    pub fn from_words([log_micros, groups_micros, reapplied, entries]: [u64; 4]) -> Self {
        Opened { log_micros, groups_micros, reapplied, entries }
    }
}

impl Usage {
    pub fn words(&self) -> [u64; 5] {
        [self.entries, self.batches, self.syncs, self.user_bytes, self.device_bytes]
    }

    pub fn from_words([entries, batches, syncs, user_bytes, device_bytes]: [u64; 5]) -> Self {
        Usage { entries, batches, syncs, user_bytes, device_bytes }
    }

    pub fn plus(self, other: Usage) -> Usage {
        let mut words = self.words();
        for (word, more) in words.iter_mut().zip(other.words()) {
            *word += more;
        }
        Usage::from_words(words)
    }
}
