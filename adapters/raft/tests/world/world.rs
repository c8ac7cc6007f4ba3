//! A world: its stores, what they know of each other, and its steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::eraftpb::{ConfState, MessageType};
use strandlog::disk::Disk;
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Wal};
use strandlog_raft::{Error, GroupStorage};

use crate::checks::{Checks, Figures};
use crate::group::{Group, found};
use crate::machine::{Files, Machine};
use crate::manner::{FETCHED, Manner, Plant};
use crate::network::{Envelope, Network, store_of};
use crate::rng::Rng;
use crate::store::{Around, Store};

/// One life of a replica on a store.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub id: u64,
    /// The newest index as of which a configuration named it.
    pub named: u64,
    /// It is being removed, which may not be durable yet.
    pub leaves: bool,
    /// What it promised may be lost: it is not opened any more.
    pub is_damaged: bool,
    /// It began blank.
    pub is_new: bool,
}

pub struct World {
    pub manner: Manner,
    pub rng: Rng,
    pub checks: Checks,
    pub network: Network,
    pub disks: Vec<Arc<SimDisk>>,
    pub files: Vec<Files>,
    pub stores: Vec<Option<Store>>,
    /// By store and group: what each store knows of its own replica.
    pub lives: Vec<BTreeMap<u64, Life>>,
    /// All replicas that ever existed, by store.
    pub ids: Vec<u64>,
    pub says: bool,
    /// Nothing fails any more.
    pub settles: bool,
    proposals: u64,
}

impl World {
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut rng = Rng::new(seed);
        let manner = Manner::of(&mut rng, plant);
        let stores = manner.stores as usize;
        let mut world = Self {
            network: Network::new(&manner),
            rng,
            checks: Checks::default(),
            disks: (0..stores).map(|_| Arc::new(SimDisk::new(manner.capacity))).collect(),
            files: (0..stores).map(|_| Files::default()).collect(),
            stores: (0..stores).map(|_| None).collect(),
            lives: vec![BTreeMap::new(); stores],
            ids: vec![0; stores],
            settles: false,
            says: std::env::var("STRANDLOG_SAY").is_ok(),
            proposals: 0,
            manner,
        };
        if world.says {
            println!("{:?}", world.manner);
        }
        world.begin();
        world
    }

    /// All groups begin with some of the stores.
    fn begin(&mut self) {
        let many: Vec<u64> = (0..self.manner.groups).map(|_| 1 + self.rng.below(self.manner.stores)).collect();
        for store in 1..=self.manner.stores {
            let (at, mut batch) = (store as usize - 1, Batch::new());
            let wal = self.open(store).expect("a new log opens");
            for (group, &many) in (1..).zip(&many).filter(|(_, many)| **many >= store) {
                let conf_state = ConfState { voters: (1..=many).collect(), ..ConfState::default() };
                let start = Machine { index: 1, term: 1, chain: 0, conf_state };
                self.lives[at]
                    .insert(group, Life { id: store, named: 1, leaves: false, is_damaged: false, is_new: false });
                if !self.manner.in_log() {
                    self.files[at].lock().insert(group, start.clone());
                }
                let mut storage = GroupStorage::open(&wal, group).expect("a blank group opens");
                storage.bootstrap(&mut batch, &start.conf_state, &start.bytes()).expect("a bootstrap");
            }
            wal.commit(&mut batch).expect("a commit");
            drop(wal);
            let disk = self.disks[at].restart();
            self.replace_disk(at, disk);
            self.come_back(store);
        }
    }

    fn open(&self, store: u64) -> strandlog::Result<Wal> {
        let disk = Arc::clone(&self.disks[store as usize - 1]);
        open(disk)
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.says {
            println!("{}", what());
        }
    }

    pub fn live(&mut self) -> Figures {
        for _ in 0..self.manner.steps {
            self.step();
        }
        self.settle();
        self.checks.figures
    }

    fn step(&mut self) {
        let store = 1 + self.rng.below(self.manner.stores);
        if self.stores[store as usize - 1].is_none() {
            if self.rng.chance(15) {
                self.come_back(store);
            }
            return;
        }
        if self.rng.chance(1) {
            let one = 1 + self.rng.below(self.manner.stores);
            self.network.part(one);
        }
        if self.rng.chance(self.manner.crashes) {
            self.plan_a_fault(store);
        }
        let percent = self.rng.below(60);
        self.pass_time(store, percent);
        let many = self.rng.below(12);
        self.deliver(store, many);
        self.clients(store);
        if self.rng.chance(4) {
            self.admin();
        }
        self.attend(store);
        if self.rng.chance(1) {
            self.look_ahead(store);
        }
    }

    /// What a store does with its groups in one step.
    fn attend(&mut self, store: u64) {
        let outcome = self.with(store, |store, around| {
            for poller in 0..store.pollers.len() {
                if around.rng.chance(70) {
                    store.drive(poller, false, around)?;
                }
                if around.rng.chance(50) {
                    store.hear_of_old_entries(poller, around.checks);
                }
            }
            for group in store.groups.keys().copied().collect::<Vec<_>>() {
                if around.rng.chance(20) {
                    store.work(group, around)?;
                }
            }
            if around.rng.chance(45) {
                store.wal.sync().map_err(Error::Log)?;
            }
            for poller in 0..store.pollers.len() {
                if around.rng.chance(60) {
                    store.poll(poller, around.checks)?;
                }
            }
            if around.rng.chance(1) {
                store.wal.checkpoint().map_err(Error::Log)?;
            }
            store.give_up()
        });
        self.go_on(store, outcome);
        if self.rng.chance(1) && self.rng.chance(40) {
            self.starts_anew(store);
        }
    }

    /// Does something with a store that is up, and sends the resulting messages.
    pub fn with<T>(
        &mut self,
        store: u64,
        what: impl FnOnce(&mut Store, &mut Around<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let at = store as usize - 1;
        let Some(mut opened) = self.stores[at].take() else { return Ok(None) };
        let mut around = Around { manner: &self.manner, rng: &mut self.rng, checks: &mut self.checks };
        let outcome = what(&mut opened, &mut around);
        let out = std::mem::take(&mut opened.out);
        self.stores[at] = Some(opened);
        for envelope in out {
            self.say(|| {
                let Envelope { group, message: m } = &envelope;
                let span = m.get_entries().first().zip(m.get_entries().last()).map(|(a, b)| (a.index, b.index));
                let (kind, refused) = (m.get_msg_type(), if m.reject { ", refused" } else { "" });
                let (from, to, snapshot) = (m.from, m.to, m.get_snapshot().get_metadata().index);
                format!(
                    "group {group}: {from} to {to}: {kind:?} term {}, at {} of {}, entries {span:?}, commit {}, snapshot {snapshot}{refused}",
                    m.term, m.index, m.log_term, m.commit
                )
            });
            self.checks.said(envelope.group, &envelope.message);
            self.after_sending(store, envelope.group, envelope.message.to, envelope.message.get_msg_type());
            self.network.send(envelope);
        }
        outcome.map(Some)
    }

    fn after_sending(&mut self, store: u64, group: u64, to: u64, kind: MessageType) {
        let Some(opened) = &mut self.stores[store as usize - 1] else { return };
        let Some(group) = opened.groups.get_mut(&group) else { return };
        if kind == MessageType::MsgSnapshot {
            let fails = self.rng.chance(self.network.lost);
            let status = if fails { raft::SnapshotStatus::Failure } else { raft::SnapshotStatus::Finish };
            group.node.report_snapshot(to, status);
        } else if self.rng.chance(self.network.lost / 4) {
            group.node.report_unreachable(to);
        }
    }

    /// If a store's work ended, the cause is a fault of its disk, or a full log, or it is a bug.
    pub fn ended<T>(&mut self, store: u64, outcome: Result<T, Error>) {
        let disk = &self.disks[store as usize - 1];
        match outcome {
            Ok(_) if !disk.is_cut() => {}
            Ok(_) => self.crash(store),
            Err(_) if disk.is_cut() => self.crash(store),
            Err(Error::Log(error @ strandlog::Error::Full(_))) => {
                self.say(|| format!("store {store}: {error}"));
                self.stop(store);
            }
            Err(error) => {
                let failed = disk.log().iter().any(|event| event.fault.is_some());
                assert!(failed, "store {store} ends for nothing: {error}");
                self.say(|| format!("store {store}: {error}"));
                // The process ends; the power stays.
                self.stop(store);
            }
        }
    }

    /// Groups that were refused something are opened anew.
    pub fn go_on(&mut self, store: u64, outcome: Result<Option<Vec<u64>>, Error>) {
        let refused = outcome.as_ref().ok().cloned().flatten().unwrap_or_default();
        self.ended(store, outcome);
        for group in refused {
            self.say(|| format!("store {store}: group {group} was refused"));
            self.open_group(store, group, true);
        }
    }

    fn plan_a_fault(&mut self, store: u64) {
        let disk = &self.disks[store as usize - 1];
        let fault = if self.rng.chance(85) { Fault::Cut } else { Fault::Error(EIO) };
        disk.fail_at(disk.events() + self.rng.below(6), fault);
    }

    pub fn pass_time(&mut self, store: u64, percent: u64) {
        let Some(opened) = &mut self.stores[store as usize - 1] else { return };
        for group in opened.groups.keys().copied().collect::<Vec<_>>() {
            let Some(one) = opened.groups.get_mut(&group) else { continue };
            for _ in 0..3 {
                if self.rng.chance(percent) && one.may_campaign() {
                    one.node.tick();
                }
            }
            opened.look(group, &mut self.checks);
        }
    }

    pub fn deliver(&mut self, store: u64, many: u64) {
        for _ in 0..many {
            let Some(envelope) = self.network.arrives(store, &mut self.rng) else { continue };
            let Some(opened) = &mut self.stores[store as usize - 1] else { return };
            let of = opened.groups.get_mut(&envelope.group).filter(|group| group.id == envelope.message.to);
            if let Some(group) = of {
                let _ = group.node.step(envelope.message);
                opened.look(envelope.group, &mut self.checks);
            }
        }
    }

    fn clients(&mut self, store: u64) {
        for group in 1..=self.manner.groups {
            let (asks, reads, whim) = (self.rng.chance(40), self.rng.chance(5), self.rng.below(300));
            let (many, forwards, to) = (self.rng.below(5), self.rng.chance(5), self.rng.below(1 << 20));
            let Some(opened) = &mut self.stores[store as usize - 1] else { return };
            let Some(one) = opened.groups.get_mut(&group) else { continue };
            if asks && (one.leads() || forwards) {
                for _ in 0..many {
                    self.proposals += 1;
                    let payload = vec![self.proposals as u8; self.rng.below(self.manner.payload) as usize];
                    if one.node.propose(self.proposals.to_le_bytes().to_vec(), payload).is_ok() {
                        one.proposed.insert(self.proposals);
                    }
                }
            }
            if reads {
                self.proposals += 1;
                self.checks.asks(self.proposals, group);
                one.node.read_index(self.proposals.to_le_bytes().to_vec());
            }
            match whim {
                0 if one.may_campaign() && one.is_voter() => drop(one.node.campaign()),
                1 => drop(one.node.request_snapshot()),
                2 | 3 => {
                    let voters = one.conf_state().voters;
                    voters.get(to as usize % voters.len().max(1)).iter().for_each(|&&to| one.node.transfer_leader(to));
                }
                _ => {}
            }
            opened.look(group, &mut self.checks);
        }
    }

    /// Proposes something whose outcome a client will hear.
    pub fn propose(&mut self, store: u64, group: u64) {
        self.proposals += 1;
        let Some(opened) = &mut self.stores[store as usize - 1] else { return };
        let Some(one) = opened.groups.get_mut(&group) else { return };
        if one.node.propose(self.proposals.to_le_bytes().to_vec(), vec![1]).is_ok() {
            one.proposed.insert(self.proposals);
        }
        opened.look(group, &mut self.checks);
    }

    /// A group is opened anew while its log goes on, as after a Ready that was refused.
    fn starts_anew(&mut self, store: u64) {
        let at = store as usize - 1;
        let groups: Vec<u64> = self.lives[at].keys().copied().collect();
        let Some(group) = self.rng.pick(&groups) else { return };
        self.say(|| format!("store {store}: group {group} is opened anew"));
        let outcome = self.with(store, |store, around| store.take_out(group, around));
        let failed = outcome.is_err();
        self.ended(store, outcome);
        if !failed && self.stores[at].is_some() {
            self.checks.figures.reopened += 1;
            self.open_group(store, group, true);
        }
    }

    /// Cuts the power; chance decides what the medium keeps.
    pub fn crash(&mut self, store: u64) {
        let at = store as usize - 1;
        self.say(|| format!("store {store}: power cut"));
        self.checks.figures.crashes += 1;
        self.stores[at] = None;
        self.network.drop_mail(store);
        let disk = match self.rng.below(4) {
            0 => self.disks[at].crash_lost_all(),
            1 => self.disks[at].crash_kept_all(),
            _ => self.disks[at].crash_seeded(self.rng.next()),
        };
        self.replace_disk(at, disk);
    }

    /// The process ends, and the power stays.
    fn stop(&mut self, store: u64) {
        let at = store as usize - 1;
        self.say(|| format!("store {store}: stopped"));
        self.stores[at] = None;
        self.network.drop_mail(store);
        let disk = self.disks[at].restart();
        self.replace_disk(at, disk);
    }

    fn replace_disk(&mut self, at: usize, disk: SimDisk) {
        if self.manner.planted(Plant::SyncsIgnored) {
            disk.ignore_all_syncs();
        }
        self.disks[at] = Arc::new(disk);
    }

    pub fn come_back(&mut self, store: u64) {
        let at = store as usize - 1;
        self.say(|| format!("store {store}: comes back"));
        self.checks.figures.openings += 1;
        let wal = match self.open(store) {
            Ok(wal) => Arc::new(wal),
            Err(error) => {
                assert!(self.disks[at].is_cut(), "store {store} does not open: {error}");
                return self.crash(store);
            }
        };
        assert_eq!(wal.damage(), [], "store {store}");
        self.stores[at] = Some(Store::new(wal, Arc::clone(&self.disks[at]), self.files[at].clone(), &self.manner));
        for group in self.lives[at].keys().copied().collect::<Vec<_>>() {
            if self.lives[at].get(&group).is_some_and(|life| life.leaves) {
                self.bury(store, group);
            } else if self.manner.rots && !self.settles && self.rng.chance(70) && self.is_spared(store, group) {
                self.say(|| format!("store {store}: group {group} is damaged"));
                self.checks.figures.damaged += 1;
                self.lives[at].entry(group).and_modify(|life| life.is_damaged = true);
            } else {
                self.open_group(store, group, true);
            }
        }
    }

    /// Whether it is open now: not after the power went.
    pub fn open_group(&mut self, store: u64, group: u64, is_past: bool) -> bool {
        let at = store as usize - 1;
        let (Some(opened), Some(life)) = (&mut self.stores[at], self.lives[at].get(&group).copied()) else {
            return false;
        };
        if life.is_damaged {
            return false;
        }
        let forgets = self.manner.planted(Plant::BackBlank) && self.rng.chance(20);
        if forgets {
            let mut batch = Batch::new();
            let _ = opened.wal.commit(batch.remove(group));
            self.files[at].lock().remove(&group);
        }
        let is_new = life.is_new && !self.checks.promised(group, life.id);
        match found(&opened.wal, &self.files[at], &self.manner, group, is_new) {
            Ok((storage, machine, adopted)) => {
                self.checks.figures.adopted += u64::from(adopted);
                if !forgets && !self.manner.planted(Plant::VotesForgotten) {
                    self.checks.found(group, life.id, &storage, &machine, is_past);
                }
                opened.insert(Group::new(life.id, storage, machine, &self.manner));
                opened.look(group, &mut self.checks);
                true
            }
            Err(error) => {
                self.ended(store, Err::<(), _>(error));
                false
            }
        }
    }

    /// What a power cut at this moment would leave.
    fn look_ahead(&mut self, store: u64) {
        let at = store as usize - 1;
        if self.stores[at].is_none() || self.manner.plant.is_some() {
            return;
        }
        self.checks.figures.looked_ahead += 1;
        let seed = self.rng.next();
        let disk =
            if seed.is_multiple_of(2) { self.disks[at].crash_lost_all() } else { self.disks[at].crash_seeded(seed) };
        let wal = open(Arc::new(disk)).unwrap_or_else(|error| panic!("store {store} would not open: {error}"));
        assert_eq!(wal.damage(), [], "store {store}");
        let files = self.files[at].copy();
        for (&group, life) in self.lives[at].iter().filter(|(_, life)| !life.leaves && !life.is_damaged) {
            let is_new = life.is_new && !self.checks.promised(group, life.id);
            let (storage, machine, _) = found(&wal, &files, &self.manner, group, is_new)
                .unwrap_or_else(|error| panic!("store {store} would refuse group {group}: {error}"));
            self.checks.found(group, life.id, &storage, &machine, false);
        }
    }

    /// For humans: how far each group is, and which store has what.
    pub fn ends(&self) -> Vec<(u64, u64)> {
        (1..=self.manner.groups).map(|group| (group, self.checks.end(group))).collect()
    }

    /// The store that leads a group, by the newest term.
    pub fn leader(&self, group: u64) -> Option<u64> {
        let of =
            |store: &Store| store.groups.get(&group).filter(|group| group.leads()).map(|g| (g.node.raft.term, g.id));
        self.stores.iter().flatten().filter_map(of).max().map(|(_, id)| store_of(id))
    }
}

fn open(disk: Arc<SimDisk>) -> strandlog::Result<Wal> {
    // What a lagging replica is sent comes in one Ready, and should fit one batch.
    let segment = if strandlog::disk::Disk::len(&*disk) < FETCHED { 64 << 10 } else { 512 << 10 };
    let options = Wal::options().chunk_size(4096).segment_size(segment).direct_threshold(8 << 10);
    options.recent_bytes(1 << 20).background(false).open_disk(disk as Arc<dyn Disk>)
}
