//! Compares a group's log with raft's own `MemStorage`, in every order in which raft may write: entries in flight, overwritten, replaced by
//! a snapshot; configuration changes; compactions; restarts and power cuts; the group removed, and begun anew under its number.

mod support;

use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::storage::MemStorage;
use raft::{Error as RaftError, GetEntriesContext, Storage, StorageError};
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, Error, GroupStorage};
use support::{conf_state, disk, hard_state, open};

const GROUP: u64 = 7;
/// `STRANDLOG_SEEDS=n` runs more.
const SEEDS: u64 = 60;
const STEPS: u64 = 120;

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Both storages, and what raft and its state machine would know.
struct Life {
    rng: Rng,
    disk: Arc<SimDisk>,
    wal: Wal,
    ours: GroupStorage,
    theirs: MemStorage,
    hard_state: HardState,
    /// As of the newest checkpoint or snapshot.
    kept: Option<Snapshot>,
    applied: u64,
}

fn snapshot(index: u64, term: u64, members: &ConfState) -> Snapshot {
    let mut snapshot = Snapshot { data: format!("at {index}").into(), ..Snapshot::default() };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(members.clone());
    snapshot
}

impl Life {
    fn new(seed: u64) -> Self {
        let disk = disk();
        let wal = open(&disk);
        let ours = GroupStorage::open(&wal, GROUP).unwrap();
        let (theirs, hard_state) = (MemStorage::new(), HardState::default());
        let mut life = Self { rng: Rng(seed), disk, wal, ours, theirs, hard_state, kept: None, applied: 0 };
        life.begin();
        life
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn bounds(&self) -> (u64, u64) {
        (self.ours.first_index().unwrap(), self.ours.last_index().unwrap())
    }

    /// Usually nothing waits for it to be durable.
    fn submit<T>(&mut self, write: impl FnOnce(&mut GroupStorage, &mut Batch) -> T) -> T {
        let mut batch = Batch::new();
        let out = write(&mut self.ours, &mut batch);
        drop(self.wal.submit(&mut batch).unwrap());
        if self.below(4) == 0 {
            self.wal.sync().unwrap();
        }
        out
    }

    /// Installs a snapshot as raft would.
    fn begin(&mut self) {
        let (index, members) = (1 + self.below(20), self.members());
        self.install(snapshot(index, 1, &members));
    }

    fn members(&mut self) -> ConfState {
        let voters: Vec<u64> = (1..=5).filter(|&id| id == 1 || self.below(2) == 0).collect();
        conf_state(&voters)
    }

    fn install(&mut self, snapshot: Snapshot) {
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        let hard_state = hard_state(self.hard_state.term.max(term), 0, index);
        self.submit(|ours, batch| ours.install_snapshot(batch, &snapshot, Some(&hard_state))).unwrap();
        self.theirs.wl().apply_snapshot(snapshot.clone()).unwrap();
        self.theirs.wl().set_hardstate(hard_state.clone());
        (self.hard_state, self.applied, self.kept) = (hard_state, index, Some(snapshot));
    }

    fn append(&mut self) {
        let last = self.bounds().1;
        let from = self.hard_state.commit + 1 + self.below(last + 1 - self.hard_state.commit);
        let mut term = self.hard_state.term;
        if from <= last || self.below(4) == 0 {
            term += 1;
        }
        let entries: Vec<Entry> = (from..=from + self.below(8)).map(|index| self.entry(index, term)).collect();
        let commit = self.hard_state.commit;
        self.set_hard_state(term, commit);
        self.submit(|ours, batch| ours.append(batch, &entries)).unwrap();
        self.theirs.wl().append(&entries).unwrap();
    }

    fn entry(&mut self, index: u64, term: u64) -> Entry {
        let len = [0, 3, 200, 5000][self.below(4) as usize];
        let mut entry = Entry { index, term, data: vec![index as u8; len].into(), ..Entry::default() };
        if self.below(6) == 0 {
            entry.set_entry_type(if self.below(2) == 0 {
                EntryType::EntryConfChange
            } else {
                EntryType::EntryConfChangeV2
            });
            entry.context = "changes".into();
        }
        entry
    }

    fn set_hard_state(&mut self, term: u64, commit: u64) {
        let hard_state = hard_state(term, if term == self.hard_state.term { self.hard_state.vote } else { 3 }, commit);
        self.submit(|ours, batch| ours.set_hard_state(batch, &hard_state));
        self.theirs.wl().set_hardstate(hard_state.clone());
        self.hard_state = hard_state;
    }

    fn commit(&mut self) {
        let (commit, last) = (self.hard_state.commit, self.bounds().1);
        let to = commit + self.below(last + 1 - commit);
        self.set_hard_state(self.hard_state.term, to);
    }

    /// Checkpoints what is committed, and compacts by that in the same batch, or by the previous checkpoint.
    fn checkpoint(&mut self, compacts: bool) {
        let index = self.applied + self.below(self.hard_state.commit + 1 - self.applied);
        let term = self.ours.term(index).unwrap();
        let members = self.members();
        let keeps = snapshot(index, term, &members);
        let wanted = self.below(index + 2);
        let kept = self.submit(|ours, batch| {
            let checkpoint = Checkpoint { index, term, conf_state: &members, data: &keeps.data };
            ours.checkpoint(batch, checkpoint).unwrap();
            if compacts { ours.compact(batch, wanted).unwrap() } else { 0 }
        });
        assert!(!compacts || kept <= index + 1);
        (self.applied, self.kept) = (index, Some(keeps));
        self.theirs.wl().set_conf_state(members);
        self.compacted(kept);
    }

    fn compact(&mut self) {
        let wanted = self.below(self.bounds().1 + 3);
        let kept = self.submit(|ours, batch| ours.compact(batch, wanted)).unwrap();
        assert!(kept <= self.applied + 1, "{kept} of {}", self.applied);
        self.compacted(kept);
    }

    /// `MemStorage` forgets its position when it is compacted to nothing, and the term before its first entry at any compaction.
    fn compacted(&mut self, kept: u64) {
        let (first, last) = (self.theirs.first_index().unwrap(), self.theirs.last_index().unwrap());
        if kept <= first {
            return;
        }
        let before = (kept - 1, self.theirs.term(kept - 1).unwrap());
        let rest = if kept <= last {
            self.theirs.entries(kept, last + 1, None, GetEntriesContext::empty(false)).unwrap()
        } else {
            Vec::new()
        };
        let (state, theirs) = (self.theirs.initial_state().unwrap(), MemStorage::new());
        theirs.wl().apply_snapshot(snapshot(before.0, before.1, &state.conf_state)).unwrap();
        theirs.wl().append(&rest).unwrap();
        theirs.wl().set_hardstate(state.hard_state);
        self.theirs = theirs;
    }

    /// Snapshots that raft would not install, and one that it would.
    fn snapshot(&mut self) {
        let (first, last) = self.bounds();
        let members = self.members();
        let old = snapshot(self.below(first), self.hard_state.term + 1, &members);
        let mut unwritten = Batch::new();
        let refused = self.ours.install_snapshot(&mut unwritten, &old, None);
        assert!(matches!(refused, Err(Error::SnapshotOutOfDate { .. })), "{refused:?}");
        assert!(unwritten.is_empty());
        let refused = self.theirs.wl().apply_snapshot(old);
        assert_eq!(refused, Err(RaftError::Store(StorageError::SnapshotOutOfDate)));
        let index = self.hard_state.commit + 1 + self.below(last + 6 - self.hard_state.commit);
        self.install(snapshot(index, self.hard_state.term + 1, &members));
    }

    fn reopen(&mut self, power_stays: bool) {
        self.wal.sync().unwrap();
        let disk = Arc::new(if power_stays { self.disk.restart() } else { self.disk.crash_lost_all() });
        (self.wal, self.disk) = (open(&disk), disk);
        self.ours = GroupStorage::open(&self.wal, GROUP).unwrap();
    }

    /// On the thread that drives the group: the storage is dropped first.
    fn remove(&mut self) {
        drop(self.wal.submit(Batch::new().remove(GROUP)).unwrap());
        self.ours = GroupStorage::open(&self.wal, GROUP).unwrap();
        (self.theirs, self.hard_state) = (MemStorage::new(), HardState::default());
        (self.kept, self.applied) = (None, 0);
        self.agree();
        if self.below(2) == 0 {
            self.reopen(false);
            self.agree();
        }
        self.begin();
    }

    fn agree(&mut self) {
        let (ours, theirs) = (&self.ours, &self.theirs);
        let (first, last) = self.bounds();
        assert_eq!((Ok(first), Ok(last)), (theirs.first_index(), theirs.last_index()));
        let (is, want) = (ours.initial_state().unwrap(), theirs.initial_state().unwrap());
        assert_eq!((is.hard_state, is.conf_state), (want.hard_state, want.conf_state));
        for index in (first.saturating_sub(4)..last + 4).chain([0, u64::MAX - 1, u64::MAX]) {
            assert_eq!(ours.term(index), theirs.term(index), "term({index}) of [{first}, {last}]");
        }
        self.agree_on_entries((first, last));
        self.agree_on_snapshots();
    }

    fn agree_on_entries(&mut self, (first, last): (u64, u64)) {
        for _ in 0..4 {
            let low = first.saturating_sub(2) + self.below(last + 4 - first.saturating_sub(2));
            let high = low + 1 + self.below(last + 4 - low.min(last + 3));
            let max = [None, Some(0), Some(1), Some(300), Some(6000), Some(u64::MAX)][self.below(6) as usize];
            let what = format!("[{low}, {high}) up to {max:?} of [{first}, {last}]");
            let ours = |low, high, max| self.ours.entries(low, high, max, GetEntriesContext::empty(false));
            let theirs = |low, high, max| self.theirs.entries(low, high, max, GetEntriesContext::empty(false));
            // Where `MemStorage` panics, ours returns that the entries are not there.
            let want = match low >= first && high > last + 1 {
                true => Err(RaftError::Store(StorageError::Unavailable)),
                false if low < first => Err(RaftError::Store(StorageError::Compacted)),
                false => theirs(low, high, max),
            };
            assert_eq!(ours(low, high, max), want, "{what}");
            assert!(ours(low, u64::MAX, max).is_err(), "{what}, and on");
        }
    }

    fn agree_on_snapshots(&mut self) {
        let (asked, to) = (self.below(40), 1 + self.below(6));
        let helps = |kept: &&Snapshot| {
            kept.get_metadata().index >= asked && kept.get_metadata().get_conf_state().voters.contains(&to)
        };
        match self.kept.as_ref().filter(helps) {
            Some(kept) => assert_eq!(self.ours.snapshot(asked, to).as_ref(), Ok(kept)),
            None => assert_eq!(
                self.ours.snapshot(asked, to),
                Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))
            ),
        }
    }
}

#[test]
fn a_group_says_in_all_its_lives_what_rafts_own_storage_does() {
    let seeds = std::env::var("STRANDLOG_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut life = Life::new(seed);
        for _ in 0..STEPS {
            match life.below(20) {
                0..8 => life.append(),
                8..11 => life.commit(),
                11 | 12 => life.checkpoint(true),
                13 => life.checkpoint(false),
                14 | 15 => life.compact(),
                16 | 17 => life.snapshot(),
                18 if life.below(2) == 0 => life.remove(),
                _ => {
                    let power_stays = life.below(2) == 0;
                    life.reopen(power_stays);
                }
            }
            life.agree();
        }
    }
}
