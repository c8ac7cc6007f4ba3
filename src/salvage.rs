//! Salvage: copies everything that can still be proved into a fresh log that knows what is missing.

use crate::batch::{AsEntry, Batch, Entry};
use crate::engine::Engine;
use crate::error::{Damage, Error, Lost, Result};
use crate::format::record::OP_BYTES;
use crate::index::MOVING_KEY;
use crate::replica::Replica;
use crate::stats::CutFile;
use crate::wal::Wal;

/// The progress of a salvage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SalvageProgress {
    /// Replicas done.
    pub replicas: u64,
    /// Replicas in all.
    pub total: u64,
}

/// What was saved, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Replicas copied.
    pub replicas: u64,
    /// Entries copied.
    pub entries: u64,
    /// Bytes of payload copied.
    pub bytes: u64,
    /// What is lost of the replicas that are known. The fresh log reports the same, except for entries before those that it holds.
    pub damage: Vec<Damage>,
    /// Frames of the journal that cannot be read, at least this many.
    pub lost_frames: u64,
    /// Frames at the end that were discarded because they cannot be proved. After a power cut there may be some, of batches that were not acknowledged; but
    /// rot at the end of a log that was not closed looks the same.
    pub dropped_frames: u64,
    /// Whether replicas may be missing, or older than they were, without being named.
    pub unnamed: bool,
    /// What the file lost, if it was cut.
    pub cut: Option<CutFile>,
}

impl SalvageReport {
    /// Whether nothing at all was lost: nothing that was acknowledged is missing in the copy, and it answers as the old log did. Also false if frames at the end were
    /// discarded: most often a power cut tore them, but nobody can prove that.
    pub fn is_whole(&self) -> bool {
        self.cut.is_none()
            && self.damage.is_empty()
            && self.lost_frames == 0
            && self.dropped_frames == 0
            && !self.unnamed
    }
}

/// The most payload copied in one batch; less where segments are small.
const BATCH_BYTES: u64 = 1 << 20;
/// A longer gap is not filled: its replica is copied from behind the gap on.
const MAX_GAP: u64 = 1 << 20;

/// How many further entries are read one by one where some could not be read together: a piece with a bad sector is not read anew for each
/// entry.
const ALONE: usize = 255;

/// Stands in for a lost entry that others follow: it is marked as damage and never shown.
struct Gap(u64, u64);

impl AsEntry for Gap {
    fn index(&self) -> u64 {
        self.0
    }
    fn term(&self) -> u64 {
        self.1
    }
    fn data(&self) -> &[u8] {
        &[]
    }
}

/// The next of a replica's entries.
enum Read {
    Some(Vec<Entry>),
    /// Entries are lost up to this index.
    Lost(u64),
}

/// Reads on from `next`; on a bad sector entry by entry, so that it costs only what lies there.
fn read_on(from: &Replica, next: u64, last: u64, budget: usize) -> Result<Read> {
    let together = from.entries_through(next, last, budget);
    match if is_unreadable(&together) { read_alone(from, next, last, budget) } else { together } {
        Ok(some) => Ok(Read::Some(some)),
        Err(Error::Damaged(Damage { lost: Lost::Entries { last: end, .. }, .. })) => {
            Ok(Read::Lost(end.clamp(next, last)))
        }
        Err(Error::Io { .. }) => Ok(Read::Lost(next)),
        Err(error) => Err(error),
    }
}

/// Reads some entries one by one: the first, or why it cannot be read, and what can be read behind it.
fn read_alone(from: &Replica, next: u64, last: u64, budget: usize) -> Result<Vec<Entry>> {
    let first = from.entry(next)?;
    let (mut left, mut some) = (budget.saturating_sub(first.data.len()), vec![first]);
    for index in (next..=last).skip(1).take(ALONE) {
        let Ok(entry) = from.entry(index) else { break };
        let Some(rest) = left.checked_sub(entry.data.len()) else { break };
        left = rest;
        some.push(entry);
    }
    Ok(some)
}

/// What was asked for may lie on a bad sector, or beside one.
fn is_unreadable<T>(read: &Result<T>) -> bool {
    matches!(read, Err(Error::Io { .. }))
}

/// Whether the copy is what was read. What cannot be read again was intact when it was copied; the copy's own checksum vouches for the
/// rest.
fn is_same<T: PartialEq>(read: Result<T>, copy: Result<T>) -> Result<bool> {
    if is_unreadable(&read) { copy.map(|_| true) } else { Ok(read? == copy?) }
}

/// Begins a copy behind the entry `before`, with its term where that is known.
fn begin_behind(from: &Replica, before: u64, batch: &mut Batch, lost: &mut Vec<Damage>) {
    let term = from.term(before).unwrap_or_else(|_| {
        lost.push(Damage { replica: from.id(), lost: Lost::Entries { first: before, last: before } });
        0
    });
    batch.install_snapshot(from.id(), before, term);
}

impl Wal {
    /// Copies everything readable into `to`, a fresh log, and marks there what is lost: reading it returns the same damage, until
    /// the replica is removed or given a snapshot. On return everything is durable, and was compared. What cannot be read in this log is lost.
    ///
    /// Give `to` an eighth more capacity than this log has: a copy needs room for entries before they are moved to where they take least.
    ///
    /// # Errors
    /// [`Error::Contradiction`] if `to` already holds a replica; errors of [`Wal::commit`] and of reads on `to`, including [`Error::Full`] if
    /// it is too small; [`Error::Damaged`] if the copy differs from the original.
    pub fn salvage_into(&self, to: &Wal, mut progress: impl FnMut(SalvageProgress)) -> Result<SalvageReport> {
        let ids = self.replicas();
        let stats = self.stats();
        let mut report = SalvageReport {
            lost_frames: stats.lost_frames,
            dropped_frames: stats.dropped_frames,
            unnamed: stats.unnamed_losses > 0,
            cut: self.engine.lost_end(),
            ..SalvageReport::default()
        };
        for &id in &ids {
            if to.replica(id).exists() {
                return Err(Error::Contradiction { replica: id, why: "the log to salvage into holds it already" });
            }
            let lost = self.copy_replica(to, id, &mut report)?;
            to.engine.mark_lost(id, &lost)?;
            self.compare(to, id, &lost)?;
            // As the copy recorded it, where it could: see `compare`.
            let (mut lost, mut said) = (lost, to.replica(id).damage());
            lost.retain(|lost| !said.iter().any(|said| covers(said, lost)));
            said.retain(|said| !lost.iter().any(|lost| covers(lost, said)));
            report.damage.extend(lost.into_iter().chain(said));
            report.replicas += 1;
            progress(SalvageProgress { replicas: report.replicas, total: ids.len() as u64 });
        }
        to.sync()?;
        Ok(report)
    }

    /// Copies one replica; returns what of it is lost.
    fn copy_replica(&self, to: &Wal, id: u64, report: &mut SalvageReport) -> Result<Vec<Damage>> {
        let from = self.replica(id);
        let (first, last) = from.bounds();
        let mut lost: Vec<Damage> = Vec::new();
        // Half of what a batch may put into the journal: the other half is for what comes with the entries.
        let budget = BATCH_BYTES.min(to.engine.max_inline() / 2);
        let most_entries = (budget / OP_BYTES).max(1) as usize;
        let mut batch = Batch::new();
        begin_behind(&from, first - 1, &mut batch, &mut lost);
        let mut state_lost = from.damage().iter().any(|d| d.lost == Lost::State);
        // In as many batches as it takes: a copy that is interrupted is thrown away.
        for key in from.keys() {
            // What lies on a bad sector is lost like what rotted: everything else is to be saved.
            let first_look = from.get(&key);
            match if is_unreadable(&first_look) { from.get(&key) } else { first_look } {
                Ok(Some(value)) => {
                    batch.put(id, &key, &value);
                    if batch.log_bytes() >= budget {
                        to.commit(&mut batch)?;
                    }
                }
                Ok(None) => {}
                Err(Error::Damaged(_) | Error::Io { .. }) => state_lost = true,
                Err(error) => return Err(error),
            }
        }
        // In the middle of a migration: without its mark the log would be taken for another's.
        if let Ok(Some(mark)) = from.get(MOVING_KEY) {
            batch.put_own(id, MOVING_KEY, &mark);
        }
        if let Ok(Some(applied)) = from.durable_applied() {
            batch.durable_applied(id, applied);
        }
        to.commit(&mut batch)?;
        let (mut next, mut term) = (Some(first), 0);
        let (mut entries, mut bytes) = (0, 0);
        while let Some(at) = next.filter(|&index| index <= last) {
            match read_on(&from, at, last, budget as usize)? {
                Read::Some(some) if some.is_empty() => break,
                Read::Some(some) => {
                    entries += some.len() as u64;
                    bytes += some.iter().map(|e| e.data.len() as u64).sum::<u64>();
                    next = at.checked_add(some.len() as u64);
                    term = some.last().map_or(term, |e| e.term);
                    for run in some.chunks(most_entries) {
                        batch.append(id, run);
                        to.commit(&mut batch)?;
                    }
                }
                Read::Lost(end) if end - at < MAX_GAP => {
                    lost.push(Damage { replica: id, lost: Lost::Entries { first: at, last: end } });
                    let stands_for = |index| {
                        term = from.term(index).unwrap_or(term);
                        Gap(index, term)
                    };
                    let gap: Vec<Gap> = (at..=end).map(stands_for).collect();
                    for run in gap.chunks(most_entries) {
                        batch.append(id, run);
                        to.commit(&mut batch)?;
                    }
                    next = end.checked_add(1);
                }
                Read::Lost(end) => {
                    // What lies before it cannot stay: only what lies behind it is left.
                    lost.clear();
                    lost.push(Damage { replica: id, lost: Lost::Entries { first, last: end } });
                    (entries, bytes) = (0, 0);
                    if end == last {
                        // Nobody appended that much: the bounds themselves are damage, and nothing of the replica can be relied upon.
                        batch.remove(id);
                        to.commit(&mut batch)?;
                        state_lost = true;
                    }
                    let behind = end.checked_add(1);
                    // Nothing can begin behind the last index there is: that entry is appended, as lost.
                    begin_behind(&from, if behind.is_some() { end } else { end - 1 }, &mut batch, &mut lost);
                    if behind.is_none() {
                        batch.append(id, &[Gap(end, term)]);
                    }
                    to.commit(&mut batch)?;
                    next = behind;
                }
            }
        }
        report.entries += entries;
        report.bytes += bytes;
        if state_lost {
            lost.push(Damage { replica: id, lost: Lost::State });
        }
        Ok(lost)
    }

    /// Checks that everything that was not lost is the same in both.
    fn compare(&self, to: &Wal, id: u64, lost: &[Damage]) -> Result<()> {
        let (from, to) = (self.replica(id), to.replica(id));
        let (first, last) = to.bounds();
        let differs = |lost| Error::Damaged(Damage { replica: id, lost });
        let state_lost = lost.iter().any(|d| d.lost == Lost::State);
        if !state_lost {
            for key in from.keys() {
                if !is_same(from.get(&key), to.get(&key))? {
                    return Err(differs(Lost::State));
                }
            }
        }
        if lost.is_empty() && (from.bounds() != to.bounds() || from.term(first - 1)? != to.term(first - 1)?) {
            return Err(differs(Lost::Entries { first, last }));
        }
        // As the copy recorded it: what lies between many ranges is called damaged with them.
        let known = to.damage();
        let gone = |index| {
            known.iter().any(|d| matches!(d.lost, Lost::Entries { first, last } if (first..=last).contains(&index)))
        };
        for index in first..=last {
            if !gone(index) && !is_same(from.entry(index), to.entry(index))? {
                return Err(differs(Lost::Entries { first: index, last: index }));
            }
        }
        Ok(())
    }
}

/// Whether `said` tells all that `lost` does.
fn covers(said: &Damage, lost: &Damage) -> bool {
    match (&said.lost, &lost.lost) {
        (Lost::Entries { first, last }, Lost::Entries { first: from, last: to }) => first <= from && to <= last,
        (said, lost) => said == lost,
    }
}

impl Engine {
    /// Records what is lost of a replica, durably.
    fn mark_lost(&self, id: u64, lost: &[Damage]) -> Result<()> {
        let Some(cell) = self.registry.get(id).filter(|_| !lost.is_empty()) else { return Ok(()) };
        {
            let _order = self.seq.lock();
            let mut state = cell.lock();
            for damage in lost {
                match damage.lost {
                    Lost::Entries { first, last } => state.add_damage(first, last),
                    _ => state.state_suspect = true,
                }
            }
            state.clip_damage();
        }
        self.record_damage_of(&cell)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "salvage_tests.rs"]
mod tests;
