//! The verdict: compares what the three files hold after everything was closed, group by group.

use std::path::Path;

use strandlog::{Batch, Wal};
use strandlog_raft::{Checkpoint, GroupStorage};

use crate::args::Plant;
use crate::machine::{Machine, SLOTS};
use crate::store::path;
use crate::{Result, STORES};

/// The number of differences that are listed; further ones are only counted.
const NAMED: usize = 10;

#[derive(Debug, Default)]
pub struct Verdict {
    pub groups: u64,
    /// Entries compared with their counterparts on both other stores.
    pub entries: u64,
    pub bytes: u64,
    /// Proposals that the state machines have applied.
    pub applied: u64,
    pub differences: u64,
    pub named: Vec<String>,
}

impl Verdict {
    fn differ(&mut self, what: String) {
        self.differences += 1;
        if self.named.len() < NAMED {
            self.named.push(what);
        }
    }
}

/// Opens the three logs for reading and compares each group: the entries that all of them retain, up to what
/// is applied, by index, term and bytes; the applied states; and that nothing acknowledged is missing.
pub fn compare(dir: &Path, groups: u64, acknowledged: &[[u32; SLOTS]]) -> Result<Verdict> {
    let mut wals = Vec::new();
    for store in 1..=STORES as u64 {
        wals.push(Wal::options().read_only(true).open(path(dir, store))?);
    }
    let mut verdict = Verdict { groups, ..Verdict::default() };
    for (wal, store) in wals.iter().zip(1..) {
        let expected: Vec<u64> = (1..=groups).collect();
        if wal.replicas() != expected {
            verdict.differ(format!("store {store} does not hold groups 1 to {groups}, neither more nor less"));
        }
    }
    for (group, acknowledged) in (1..=groups).zip(acknowledged) {
        if let Err(error) = compare_group(&wals, group, acknowledged, &mut verdict) {
            verdict.differ(format!("group {group} cannot be read: {error}"));
        }
    }
    Ok(verdict)
}

fn compare_group(wals: &[Wal], group: u64, acknowledged: &[u32; SLOTS], verdict: &mut Verdict) -> Result<()> {
    let mut replicas = Vec::new();
    for wal in wals {
        let storage = GroupStorage::open(wal, group)?;
        let data = storage.checkpoint_data()?.ok_or("no checkpoint")?;
        replicas.push((storage, Machine::decode(&data)?));
    }
    let (first, machine) = &replicas[0];
    for ((_, other), store) in replicas.iter().zip(1..).skip(1) {
        if other != machine {
            let (index, chain) = (machine.index, machine.chain);
            verdict.differ(format!(
                "group {group}: applied state of store 1 (index {index}, chain {chain:016x}) and of store {store} (index {}, chain {:016x})",
                other.index, other.chain
            ));
        }
    }
    for (slot, (has, acknowledged)) in machine.slots.iter().zip(acknowledged).enumerate() {
        if has.count < *acknowledged {
            verdict.differ(format!(
                "group {group}: slot {slot} applied {} proposals, but {acknowledged} were acknowledged",
                has.count
            ));
        }
    }
    verdict.applied += machine.count;
    let low = replicas.iter().map(|(storage, _)| storage.replica().first_index()).max().unwrap_or(1);
    let high = replicas.iter().map(|(_, machine)| machine.index).min().unwrap_or(0) + 1;
    if low >= high {
        return Ok(());
    }
    let expected = first.replica().entries(low..high, usize::MAX)?;
    for ((storage, _), store) in replicas.iter().zip(1..).skip(1) {
        let entries = storage.replica().entries(low..high, usize::MAX)?;
        if entries.len() != expected.len() {
            verdict.differ(format!("group {group}: stores 1 and {store} hold different numbers of entries"));
        }
        for (one, other) in expected.iter().zip(&entries) {
            if (one.index, one.term, &one.data) != (other.index, other.term, &other.data) {
                verdict.differ(format!("group {group}: entry {} of stores 1 and {store}", one.index));
                break;
            }
        }
    }
    verdict.entries += expected.len() as u64;
    verdict.bytes += expected.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
    Ok(())
}

/// A checker that cannot fail checks nothing: corrupts store 2's copy of one group.
pub fn plant(dir: &Path, groups: u64, what: Plant) -> Result<()> {
    let wal = Wal::options().open(path(dir, 2))?;
    let group = groups.div_ceil(2);
    let mut storage = GroupStorage::open(&wal, group)?;
    let mut batch = Batch::new();
    match what {
        Plant::Entry => {
            let last = storage.replica().last_index();
            let mut entries = storage.read_entries(last, last + 1, None)?;
            let entry = entries.first_mut().ok_or("no entry to spoil")?;
            entry.context = Vec::from(*b"spoiled").into();
            storage.append(&mut batch, &entries)?;
        }
        Plant::State => {
            let data = storage.checkpoint_data()?.ok_or("no checkpoint")?;
            let mut machine = Machine::decode(&data)?;
            machine.chain ^= 1;
            let (conf_state, data) = (storage.conf_state().clone(), machine.encode());
            let Machine { index, term, .. } = machine;
            storage.checkpoint(&mut batch, Checkpoint { index, term, conf_state: &conf_state, data: &data })?;
        }
    }
    wal.commit(batch)?;
    Ok(wal.close()?)
}
