//! The state machine: keys and values of all groups in one keyspace of fjall, an LSM tree.
//!
//! fjall's journal cannot be switched off: whatever is inserted goes through it. What is *ingested* does not: sorted data becomes a table
//! at once, written, synced, and added to the keyspace as a whole or not at all. So the state machine keeps a table of its own in memory,
//! and ingests it when it is large. With the values goes, for each group, the index of the last entry that is in them: so a table tells by
//! itself what it holds, and for what the log is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Result;
use crate::command::Command;

/// What fjall's own journal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Journal {
    /// Nothing: the log is the only one there is.
    None,
    /// It is written, and synced only when the state machine is to become durable.
    Lazy,
    /// It is synced with every round: the second write-ahead log of a store that has two.
    Synced,
}

/// Called when all that was written to the tables is durable, before that is reported.
pub type Flushed = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// Groups, and the last index of each that is durable in the tables now.
pub type Reports = Vec<(u64, u64)>;

#[derive(Clone)]
pub struct Settings {
    pub journal: Journal,
    /// From this size on the table in memory is written.
    pub table_bytes: usize,
    pub flushed: Option<Flushed>,
}

type Table = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The first byte of the keys of values, and of the applied indexes.
const VALUE: u8 = b'v';
const APPLIED: u8 = b'a';

fn value_key(group: u64, key: u32) -> Vec<u8> {
    [&[VALUE][..], &group.to_be_bytes(), &key.to_be_bytes()].concat()
}

fn applied_key(group: u64) -> Vec<u8> {
    [&[APPLIED][..], &group.to_be_bytes()].concat()
}

pub struct Machine {
    db: Database,
    keyspace: Keyspace,
    settings: Settings,
    applied: BTreeMap<u64, u64>,
    /// What was applied since the last flush began, and to which groups.
    fresh: Table,
    fresh_bytes: usize,
    touched: BTreeMap<u64, u64>,
    /// What is being written now.
    frozen: Arc<Table>,
    flush: Option<JoinHandle<Result<Reports>>>,
}

impl Machine {
    /// Opens the tables; what they hold is durable on return.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let lazy = settings.journal != Journal::Synced;
        let db = Database::builder(dir).manual_journal_persist(lazy).open()?;
        let options = || {
            KeyspaceCreateOptions::default().max_memtable_size(settings.table_bytes as u64).manual_journal_persist(lazy)
        };
        let keyspace = db.keyspace("groups", options)?;
        let mut applied = BTreeMap::new();
        for item in keyspace.prefix([APPLIED]) {
            let (key, value) = item.into_inner()?;
            let group = key.get(1..).ok_or("a key without a group")?.try_into().map(u64::from_be_bytes)?;
            applied.insert(group, value[..].try_into().map(u64::from_le_bytes)?);
        }
        // What a killed process wrote last may be only in the kernel's cache: it is found now, but a power cut may still take it.
        rustix::fs::syncfs(std::fs::File::open(dir)?)?;
        settings.flushed.as_ref().map_or(Ok(()), |flushed| flushed())?;
        Ok(Self {
            db,
            keyspace,
            settings,
            applied,
            fresh: Table::new(),
            fresh_bytes: 0,
            touched: BTreeMap::new(),
            frozen: Arc::default(),
            flush: None,
        })
    }

    /// The last entry of the group that was applied.
    pub fn applied(&self, group: u64) -> u64 {
        self.applied.get(&group).copied().unwrap_or(0)
    }

    pub fn get(&self, group: u64, key: u32) -> Result<Option<Vec<u8>>> {
        let key = value_key(group, key);
        if let Some(value) = self.fresh.get(&key).or_else(|| self.frozen.get(&key)) {
            return Ok(value.clone());
        }
        Ok(self.keyspace.get(&key)?.map(|value| value.to_vec()))
    }

    /// Applies a round: entries in order for each group, none of them left out, none twice.
    pub fn apply(&mut self, entries: impl IntoIterator<Item = (u64, u64, Command)>) -> Result<()> {
        let mut round = Table::new();
        for (group, index, command) in entries {
            let applied = self.applied.entry(group).or_default();
            if index != *applied + 1 {
                return Err(format!("group {group}: entry {index} was to be applied behind {applied}").into());
            }
            *applied = index;
            self.touched.insert(group, index);
            round.insert(value_key(group, command.key), command.value);
            round.insert(applied_key(group), Some(index.to_le_bytes().to_vec()));
        }
        let size = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        self.fresh_bytes += round.iter().map(size).sum::<usize>();
        if self.settings.journal == Journal::None {
            self.fresh.extend(round);
            return Ok(());
        }
        // The table in memory is fjall's own here, and so is the journal before it.
        let synced = (self.settings.journal == Journal::Synced).then_some(PersistMode::SyncData);
        let mut batch = self.db.batch().durability(synced);
        for (key, value) in round {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        Ok(batch.commit()?)
    }

    /// Begins to make durable what was applied, if that is much by now or `all` is wanted; returns what has become durable since it was
    /// asked last. Waits only if all is wanted.
    pub fn flush(&mut self, all: bool) -> Result<Reports> {
        if self.settings.journal == Journal::Synced {
            return Ok(std::mem::take(&mut self.touched).into_iter().collect());
        }
        let mut reports = self.landed(all)?;
        if self.flush.is_none() && (all || self.fresh_bytes >= self.settings.table_bytes) {
            self.begin();
            if all {
                reports.append(&mut self.landed(true)?);
            }
        }
        Ok(reports)
    }

    fn begin(&mut self) {
        self.frozen = Arc::new(std::mem::take(&mut self.fresh));
        self.fresh_bytes = 0;
        let reports = std::mem::take(&mut self.touched).into_iter().collect();
        let (db, keyspace, table) = (self.db.clone(), self.keyspace.clone(), Arc::clone(&self.frozen));
        let Settings { journal, flushed, .. } = self.settings.clone();
        self.flush = Some(std::thread::spawn(move || {
            if journal == Journal::Lazy {
                db.persist(PersistMode::SyncData)?;
            } else {
                ingest(&keyspace, &table)?;
            }
            flushed.map_or(Ok(()), |flushed| flushed())?;
            Ok(reports)
        }));
    }

    /// What the flush made durable, if it has ended, or once it has if `wait`.
    fn landed(&mut self, wait: bool) -> Result<Reports> {
        let Some(flush) = self.flush.take_if(|flush| wait || flush.is_finished()) else { return Ok(Vec::new()) };
        let reports = flush.join().map_err(|_| "the flush failed")??;
        self.frozen = Arc::default();
        Ok(reports)
    }

    /// Bytes that fjall's own journal takes on the device.
    pub fn journal_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for file in std::fs::read_dir(path_of(&self.keyspace)?)? {
            let file = file?;
            if file.path().extension().is_some_and(|name| name == "jnl") {
                // The file is a hole of 64 MiB until it is written.
                bytes += std::os::unix::fs::MetadataExt::blocks(&file.metadata()?) * 512;
            }
        }
        Ok(bytes)
    }
}

/// The database's directory: its keyspaces lie two levels below.
fn path_of(keyspace: &Keyspace) -> Result<PathBuf> {
    Ok(keyspace.path().ancestors().nth(2).ok_or("a keyspace that lies in no database")?.to_owned())
}

fn ingest(keyspace: &Keyspace, table: &Table) -> Result<()> {
    let mut ingestion = keyspace.start_ingestion()?;
    for (key, value) in table {
        match value {
            Some(value) => ingestion.write(&key[..], &value[..])?,
            None => ingestion.write_tombstone(&key[..])?,
        }
    }
    // Synced, and part of the keyspace, when this returns.
    Ok(ingestion.finish()?)
}
