//! Copying items into a log; goes on after what an earlier import left in it.

use std::collections::{BTreeMap, BTreeSet};

use strandlog::format::record::OP_BYTES;
use strandlog::{Batch, Bytes, Error, Lost, Replica, Wal};

use crate::failure::{Failure, Result};
use crate::item::{Digest, Head, Item, Sums};

/// The most bytes that one batch takes in the journal. With small segments it is half of what surely fits, as in a salvage: each batch of a replica
/// begins a chunk, so with smaller batches a full log would not fit one that is an eighth larger.
const BATCH_BYTES: u64 = 1 << 20;
/// The most operations in one batch.
const BATCH_ITEMS: usize = 4096;
/// Bytes of payload read back at a time.
const STEP_BYTES: usize = 1 << 20;

/// What was copied.
#[derive(Debug, Default)]
pub struct Copied {
    pub sums: Sums,
    pub bytes: u64,
    /// Entries that were already there, from an earlier import.
    pub there_already: u64,
    /// A digest of each replica, as it was given.
    pub digests: BTreeMap<u64, Digest>,
    /// Replicas that were already there, with keyed state other than given. They are left as they are.
    pub left_alone: BTreeSet<u64>,
}

/// Copies one replica after the other.
pub struct Copier<'a> {
    wal: &'a Wal,
    batch: Batch,
    batch_items: usize,
    most_bytes: u64,
    /// Entries of the current replica that are not yet in the batch.
    run: Vec<(u64, u64, Vec<u8>)>,
    /// An upper bound on what they will take in it: [`OP_BYTES`] each, and the payloads.
    run_bytes: u64,
    now: Option<Now>,
    copied: Copied,
    has_written: bool,
}

/// The replica that is being copied.
struct Now {
    head: Head,
    /// The next index that must come.
    next: Option<u64>,
    /// The last index that the target held before, or `first - 1`.
    there: u64,
    /// Keys that the target held before, and that were not given yet.
    keys_there: BTreeSet<Bytes>,
    /// Its keyed state is not what an earlier import of the same left, so nothing of it is written.
    differs: bool,
    digest: Digest,
}

impl<'a> Copier<'a> {
    pub fn new(wal: &'a Wal) -> Self {
        let most_bytes = BATCH_BYTES.min(wal.max_batch_bytes() / 2);
        Self {
            wal,
            batch: Batch::new(),
            batch_items: 0,
            most_bytes,
            run: Vec::new(),
            run_bytes: 0,
            now: None,
            copied: Copied::default(),
            has_written: false,
        }
    }

    /// Copies the next item.
    pub fn add(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Replica(head) => self.begin(head),
            Item::Key { replica, key, value } => self.key(replica, &key, &value),
            Item::Entry { replica, index, term, data } => self.entry(replica, index, term, data),
        }
    }

    /// Commits the rest, after the last item.
    pub fn finish(&mut self) -> Result<Copied> {
        self.end()?;
        self.commit()?;
        Ok(std::mem::take(&mut self.copied))
    }

    /// Whether anything was written, which stays whatever follows.
    pub fn has_written(&self) -> bool {
        self.has_written
    }

    fn begin(&mut self, head: Head) -> Result<()> {
        self.end()?;
        let id = head.replica;
        if head.first == 0 {
            return Err(Failure::Request(format!(
                "replica {id} begins with entry 0; the first that a log can hold is 1"
            )));
        }
        if self.copied.digests.contains_key(&id) {
            return Err(Failure::Request(format!("replica {id} comes twice")));
        }
        let target = self.wal.replica(id);
        let (mut keys_there, mut differs) = (BTreeSet::new(), false);
        let there = if target.exists() {
            let (first, last) = target.bounds();
            let before = target.term(first - 1).ok();
            if (first, before) != (head.first, Some(head.term_before_first)) || last > head.last {
                return Err(Failure::Request(format!(
                    "replica {id} is there with {first}..={last} and was to be {}..={}: no import of this began there; use a fresh log",
                    head.first, head.last
                )));
            }
            keys_there.extend(target.keys());
            // An import writes it together with the replica: if it differs, something else wrote it.
            differs = unless_damaged(target.durable_applied())? != Some(head.applied);
            last
        } else {
            self.batch.install_snapshot(id, head.first - 1, head.term_before_first);
            self.batch_items += 1;
            // In the same batch that creates the replica, so that no truncation overtakes the state machine.
            if let Some(applied) = head.applied {
                self.batch.durable_applied(id, applied);
                self.batch_items += 1;
            }
            head.first - 1
        };
        let mut digest = Digest::default();
        digest.head(&head);
        self.now = Some(Now { head, next: Some(head.first), there, keys_there, differs, digest });
        self.copied.sums.replicas += 1;
        self.commit_if_full()
    }

    /// The current replica, which each key and entry must belong to.
    fn now(&mut self, replica: u64) -> Result<&mut Now> {
        let now = self.now.as_mut().filter(|now| now.head.replica == replica);
        now.ok_or_else(|| Failure::Request(format!("something of replica {replica} comes before it, or after another")))
    }

    /// An import writes keys in the order in which they are given, then the entries. So an import that was cut short left the first keys, with equal
    /// values, and no entry unless it left all keys. Anything else came later, and must not be overwritten: the replica differs.
    fn key(&mut self, replica: u64, key: &[u8], value: &[u8]) -> Result<()> {
        let wal = self.wal;
        let now = self.now(replica)?;
        now.digest.key(key, value);
        let write = if now.keys_there.remove(key) {
            let held = unless_damaged(wal.replica(replica).get(key))?.flatten();
            now.differs |= held.as_deref() != Some(value);
            false
        } else {
            now.differs |= !now.keys_there.is_empty() || now.there >= now.head.first;
            !now.differs
        };
        if write {
            self.batch.put(replica, key, value);
            self.batch_items += 1;
        }
        self.copied.sums.keys += 1;
        self.copied.bytes += value.len() as u64;
        self.commit_if_full()
    }

    fn entry(&mut self, replica: u64, index: u64, term: u64, data: Vec<u8>) -> Result<()> {
        let now = self.now(replica)?;
        if now.next != Some(index) || index > now.head.last {
            let expected = now.next.filter(|&i| i <= now.head.last);
            let expected = expected.map_or_else(|| "no more".to_owned(), |i| i.to_string());
            return Err(Failure::Request(format!("replica {replica}: entry {index} comes, expected was {expected}")));
        }
        now.next = index.checked_add(1);
        now.digest.entry(index, term, &data);
        // All keys were given by now.
        now.differs |= !now.keys_there.is_empty();
        let (there, differs) = (now.there, now.differs);
        self.copied.sums.entries += 1;
        self.copied.bytes += data.len() as u64;
        if index <= there {
            self.copied.there_already += 1;
        }
        if index <= there || differs {
            return Ok(());
        }
        self.batch_items += 1;
        self.run_bytes += OP_BYTES + data.len() as u64;
        self.run.push((index, term, data));
        self.commit_if_full()
    }

    /// Ends the current replica, after its last item.
    fn end(&mut self) -> Result<()> {
        let Some(now) = self.now.take() else { return Ok(()) };
        self.take_run(now.head.replica);
        let id = now.head.replica;
        if now.next.is_some_and(|next| next <= now.head.last) {
            return Err(Failure::Request(format!("replica {id} ends before entry {}", now.head.last)));
        }
        if now.differs || !now.keys_there.is_empty() {
            self.copied.left_alone.insert(id);
        }
        self.copied.digests.insert(id, now.digest);
        Ok(())
    }

    fn commit_if_full(&mut self) -> Result<()> {
        let bytes = self.batch.log_bytes() + self.run_bytes;
        if bytes < self.most_bytes && self.batch_items < BATCH_ITEMS {
            return Ok(());
        }
        self.commit()
    }

    fn take_run(&mut self, replica: u64) {
        self.batch.append(replica, &self.run);
        self.run.clear();
        self.run_bytes = 0;
    }

    fn commit(&mut self) -> Result<()> {
        if let Some(id) = self.now.as_ref().map(|now| now.head.replica) {
            self.take_run(id);
        }
        let some = std::mem::take(&mut self.batch_items) > 0;
        match self.wal.commit(&mut self.batch) {
            Ok(_) => {
                self.has_written |= some;
                Ok(())
            }
            Err(error @ Error::Full(_)) => Err(Failure::Request(format!(
                "{error}\ngive the log more room (strandlog grow, or --capacity for one that is not there yet) and import again"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was read, or `None` if it is damaged.
fn unless_damaged<T>(read: strandlog::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Damaged(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The digest of what a replica of the log holds; `None` if it does not exist or any of it is damaged.
pub fn digest(replica: &Replica) -> Result<Option<Digest>> {
    if !replica.exists() {
        return Ok(None);
    }
    let damaged = |error| match error {
        Error::Damaged(_) => Ok(None),
        other => Err(Failure::from(other)),
    };
    if replica.damage().iter().any(|d| d.lost == Lost::State) {
        return Ok(None);
    }
    let (first, last) = replica.bounds();
    let term_before_first = match replica.term(first - 1) {
        Ok(term) => term,
        Err(error) => return damaged(error),
    };
    let applied = match replica.durable_applied() {
        Ok(applied) => applied,
        Err(error) => return damaged(error),
    };
    let mut digest = Digest::default();
    digest.head(&Head { replica: replica.id(), first, last, term_before_first, applied });
    for key in replica.keys() {
        match replica.get(&key) {
            Ok(Some(value)) => digest.key(&key, &value),
            Ok(None) => {}
            Err(error) => return damaged(error),
        }
    }
    let mut next = Some(first);
    while let Some(from) = next.filter(|&i| i <= last) {
        let some = match replica.entries_through(from, last, STEP_BYTES) {
            Ok(some) => some,
            Err(error) => return damaged(error),
        };
        some.iter().for_each(|e| digest.entry(e.index, e.term, &e.data));
        next = from.checked_add(some.len().max(1) as u64);
    }
    Ok(Some(digest))
}
