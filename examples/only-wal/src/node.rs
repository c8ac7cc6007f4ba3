//! A node: many raft-like groups, one log, one state machine. Each group has one member, so that nothing but the log is in the way.

use std::path::Path;

use rand::rngs::SmallRng;
use rand::seq::index::sample;
use strandlog::{Batch, Wal};

use crate::Result;
use crate::command::Command;
use crate::machine::{Machine, Settings};

/// There are no elections.
const TERM: u64 = 1;
/// So much is read at once when entries are applied again.
const READ_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Shape {
    pub seed: u64,
    pub groups: u64,
    /// Groups that propose in a round, one entry each.
    pub active: usize,
    pub value_bytes: usize,
    pub capacity: u64,
    /// To see that the check finds it: reports what is applied as if it were durable.
    pub lies: bool,
}

pub struct Node {
    pub wal: Wal,
    pub machine: Machine,
    shape: Shape,
    /// Entries that were applied again.
    pub again: u64,
}

impl Node {
    /// Opens both, and applies again what the tables lack: from where the log says, as far as the log goes.
    pub fn open(dir: &Path, shape: Shape, settings: Settings) -> Result<Self> {
        let wal = Wal::options().capacity(shape.capacity).open(dir.join("raft.log"))?;
        let mut machine = Machine::open(&dir.join("tables"), settings)?;
        let mut again = 0;
        let mut durable = Vec::new();
        for id in wal.replicas() {
            let log = wal.replica(id);
            let applied = machine.applied(id);
            durable.push((id, applied));
            // A report may be lost, so the log may say less than the tables hold; it never says more.
            if log.reapply_from()? > applied + 1 {
                let from = log.reapply_from()?;
                return Err(format!("lost: group {id} is to be applied from {from} on, and ends at {applied}").into());
            }
            let end = log.last_index() + 1;
            let mut next = applied + 1;
            while next < end {
                let entries = log.entries(next..end, READ_BYTES)?;
                next += entries.len() as u64;
                again += entries.len() as u64;
                let commands = entries.iter().map(|e| Ok((id, e.index, Command::decode(&e.data)?)));
                machine.apply(commands.collect::<Result<Vec<_>>>()?)?;
            }
        }
        // Once after each opening, and before the first truncation: from now on the log holds what the tables lack.
        wal.durable_applied_many(&durable)?;
        Ok(Self { wal, machine, shape, again })
    }

    /// Some groups propose an entry each: one batch, one sync. Then they apply it. Returns which group got which index.
    pub fn round(&mut self, rng: &mut SmallRng, batch: &mut Batch) -> Result<Vec<(u64, u64)>> {
        let Shape { seed, groups, active, value_bytes, lies, .. } = self.shape;
        let mut proposed = Vec::with_capacity(active);
        let mut said = Vec::with_capacity(active);
        for id in sample(rng, groups as usize, active.min(groups as usize)) {
            let id = id as u64;
            let index = self.machine.applied(id) + 1;
            let command = Command::of(seed, id, index, value_bytes);
            batch.append(id, &[(index, TERM, command.encode())]);
            if index == 1 {
                // With the group's first entry: nothing of it is durable yet, and none of it may be truncated.
                batch.durable_applied(id, 0);
            }
            said.push((id, index));
            proposed.push((id, index, command));
        }
        self.wal.commit(&mut *batch)?;
        self.machine.apply(proposed)?;
        let mut reports = self.machine.flush(false)?;
        if lies {
            reports.clone_from(&said);
        }
        self.truncate(&reports, &said, batch)?;
        Ok(said)
    }

    /// What is durable is reported, and everything applied is given up: the log keeps what is not reported yet. Neither costs a sync.
    fn truncate(&self, reports: &[(u64, u64)], applied: &[(u64, u64)], batch: &mut Batch) -> Result<()> {
        self.wal.durable_applied_many(reports)?;
        for &(id, index) in applied {
            batch.truncate_prefix(id, index + 1);
        }
        drop(self.wal.submit(batch.lazy())?);
        Ok(())
    }

    /// Everything applied becomes durable in the state machine; the log is closed.
    pub fn close(mut self) -> Result<()> {
        let reports = self.machine.flush(true)?;
        self.wal.durable_applied_many(&reports)?;
        self.wal.close()?;
        Ok(())
    }
}
