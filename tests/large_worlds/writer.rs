//! A thread that writes, and what it may expect of the log.

use rand::Rng;
use strandlog::disk::sim::SimDisk;
use strandlog::{Bytes, Error, Lsn, Pending, Wal};

use super::support::model::{Model, Op, batch};
use super::support::work::Work;

const COUNT: &[u8] = b"batches";

pub struct Writer {
    /// The replica in which its batches are counted.
    pub counter: u64,
    pub work: Work,
    /// The model of what the last recovery showed: this writer's first `from` batches.
    pub base: Model,
    pub from: u64,
    /// The model after everything submitted.
    pub current: Model,
    pub submitted: Vec<(Option<Lsn>, Vec<Op>)>,
    pub acknowledged: Lsn,
    pub label: String,
}

impl Writer {
    /// Works until the power fails, or for so many steps.
    pub fn write(&mut self, wal: &Wal, disk: &SimDisk, steps: u32) {
        let mut held: Vec<Pending> = Vec::new();
        for _ in 0..steps {
            let outcome = match self.work.rng.random_range(0..1000) {
                0..=11 => wal.checkpoint(),
                12..=60 => self.compare_one(wal, disk),
                61..=250 if !held.is_empty() => {
                    let n = self.work.rng.random_range(0..held.len());
                    self.wait(held.swap_remove(n))
                }
                _ => self.submit(wal, &mut held),
            };
            match outcome {
                Ok(()) => {}
                Err(_) if disk.is_cut() => return,
                Err(error) => panic!("{}: {error}", self.label),
            }
        }
    }

    fn submit(&mut self, wal: &Wal, held: &mut Vec<Pending>) -> Result<(), Error> {
        self.work.next_term();
        let ops = self.work.batch(&self.current);
        match self.submit_ops(wal, held, ops) {
            Err(Error::Full(_)) => {
                let relief = self.work.relief(&self.current);
                self.submit_ops(wal, held, relief)
            }
            Err(Error::BatchTooLarge { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    fn submit_ops(&mut self, wal: &Wal, held: &mut Vec<Pending>, mut ops: Vec<Op>) -> Result<(), Error> {
        ops.retain(|op| op.replica() != self.counter);
        let count = self.from + self.submitted.len() as u64 + 1;
        let value = Bytes::copy_from_slice(&count.to_le_bytes());
        ops.push(Op::Put { replica: self.counter, key: COUNT.to_vec(), value });
        match wal.submit(batch(&ops)) {
            Ok(pending) => {
                self.current.apply(&ops);
                self.submitted.push((Some(pending.lsn()), ops));
                if self.work.rng.random_bool(0.6) {
                    return self.wait(pending);
                }
                held.push(pending);
                Ok(())
            }
            Err(error @ Error::Poisoned { .. }) => {
                // Nobody knows whether it was in the frame.
                self.submitted.push((None, ops));
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn wait(&mut self, pending: Pending) -> Result<(), Error> {
        self.acknowledged = self.acknowledged.max(pending.wait()?);
        Ok(())
    }

    /// Compares one replica: what was submitted can be read at once, whatever the others do.
    fn compare_one(&mut self, wal: &Wal, disk: &SimDisk) -> Result<(), Error> {
        let n = self.work.rng.random_range(0..self.work.shape.replicas.len());
        let replica = self.work.shape.replicas[n];
        let r = wal.replica(replica);
        let Some(want) = self.current.reps.get(&replica) else {
            assert!(!r.exists() || disk.is_cut(), "{}: replica {replica}", self.label);
            return Ok(());
        };
        for (&index, (term, data)) in &want.entries {
            let entry = r.entry(index)?;
            assert!(entry.term == *term && entry.data == *data, "{}: replica {replica} entry {index}", self.label);
        }
        for (key, value) in &want.keys {
            assert_eq!(r.get(key)?.as_ref(), Some(value), "{}: replica {replica} key {key:x?}", self.label);
        }
        Ok(())
    }

    /// How many of its unsettled batches the found log holds.
    pub fn kept(&self, found: &Model) -> usize {
        let value = found.reps.get(&self.counter).and_then(|r| r.keys.get(COUNT));
        let count = value.map_or(0, |v| u64::from_le_bytes(v[..].try_into().expect("eight bytes")));
        let must = self.submitted.iter().take_while(|(lsn, _)| lsn.is_some_and(|l| l <= self.acknowledged)).count();
        let (least, most) = (self.from + must as u64, self.from + self.submitted.len() as u64);
        assert!(
            count >= least,
            "{}: {count} batches of writer {}, {least} were acknowledged",
            self.label,
            self.counter
        );
        assert!(count <= most, "{}: {count} batches of writer {}, {most} were submitted", self.label, self.counter);
        (count - self.from) as usize
    }

    pub fn settle(&mut self, kept: usize) {
        self.submitted.drain(..).take(kept).for_each(|(_, ops)| self.base.apply(&ops));
        self.current = self.base.clone();
        self.from += kept as u64;
        self.acknowledged = Lsn::default();
    }
}
