//! Salvage: everything that can still be proved, copied into a fresh log that knows what is missing.

use crate::applied::MOVING_KEY;
use crate::batch::{AsEntry, Batch};
use crate::engine::Engine;
use crate::error::{Damage, Error, Lost, Result};
use crate::format::record::OP_BYTES;
use crate::wal::Wal;

/// How far a salvage has come.
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
    /// What is lost of the replicas that are known. The fresh log says the same.
    pub damage: Vec<Damage>,
    /// Frames of the journal that cannot be read, at least.
    pub lost_frames: u64,
    /// Frames at the end that were not believed.
    pub dropped_frames: u64,
    /// Replicas may be missing that nobody can name.
    pub unnamed: bool,
}

impl SalvageReport {
    /// Whether nothing at all was lost.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.lost_frames == 0 && self.dropped_frames == 0 && !self.unnamed
    }
}

/// Payload copied in one batch, at most; less where segments are small.
const BATCH_BYTES: u64 = 1 << 20;
/// A longer gap is not filled: its replica is copied without entries.
const MAX_GAP: u64 = 1 << 20;

/// Stands for an entry that is lost, where others follow: it is marked as damage and never shown.
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

impl Wal {
    /// Copies everything readable into `to`, a fresh log, and marks there what is lost: reading it answers with the same damage, until
    /// the replica is removed or given a snapshot. Everything is durable on return, and was compared.
    ///
    /// # Errors
    /// [`Error::Contradiction`] where `to` holds a replica already; [`Error::Full`] where it is too small; what either device says.
    pub fn salvage_into(&self, to: &Wal, mut progress: impl FnMut(SalvageProgress)) -> Result<SalvageReport> {
        let ids = self.replicas();
        let stats = self.stats();
        let mut report = SalvageReport {
            lost_frames: stats.lost_frames,
            dropped_frames: stats.dropped_frames,
            unnamed: stats.unnamed_losses > 0,
            ..SalvageReport::default()
        };
        for &id in &ids {
            if to.replica(id).exists() {
                return Err(Error::Contradiction { replica: id, why: "the log to salvage into holds it already" });
            }
            let lost = self.copy_replica(to, id, &mut report)?;
            to.engine.mark_lost(id, &lost)?;
            self.compare(to, id, &lost)?;
            // As it was written down, where it could be: see `compare`.
            let said = to.replica(id).damage();
            report.damage.extend(lost.into_iter().filter(|lost| !said.iter().any(|said| covers(said, lost))));
            report.damage.extend(said);
            report.replicas += 1;
            progress(SalvageProgress { replicas: report.replicas, total: ids.len() as u64 });
        }
        to.sync()?;
        Ok(report)
    }

    /// Copies one replica; answers what of it is lost.
    fn copy_replica(&self, to: &Wal, id: u64, report: &mut SalvageReport) -> Result<Vec<Damage>> {
        let from = self.replica(id);
        let (first, last) = from.bounds();
        let mut lost: Vec<Damage> = Vec::new();
        // Half of what a batch may put into the journal: the other is for what comes with the entries.
        let budget = BATCH_BYTES.min(to.engine.max_inline() / 2);
        let most_entries = (budget / OP_BYTES).max(1) as usize;
        let mut batch = Batch::new();
        batch.install_snapshot(id, first - 1, from.term(first - 1).unwrap_or(0));
        let mut state_lost = from.damage().iter().any(|d| d.lost == Lost::State);
        // In as many batches as it takes: a copy that was cut short is thrown away.
        let mut taken = OP_BYTES;
        for key in from.keys() {
            match from.get(&key) {
                Ok(Some(value)) => {
                    let bytes = OP_BYTES + (key.len() + value.len()) as u64;
                    if !batch.is_empty() && taken + bytes > budget {
                        to.commit(&mut batch)?;
                        taken = 0;
                    }
                    batch.put(id, &key, &value);
                    taken += bytes;
                }
                Ok(None) => {}
                Err(Error::Damaged(_)) => state_lost = true,
                Err(error) => return Err(error),
            }
        }
        // In the middle of a migration: else the log would be taken for another's.
        if let Ok(Some(mark)) = from.get(MOVING_KEY) {
            batch.put_own(id, MOVING_KEY, &mark);
        }
        if let Ok(Some(applied)) = from.durable_applied() {
            batch.durable_applied(id, applied);
        }
        to.commit(&mut batch)?;
        let mut next = first;
        let mut term = 0;
        while next <= last && next >= first {
            match from.entries(next..last.saturating_add(1), budget as usize) {
                Ok(entries) if !entries.is_empty() => {
                    report.entries += entries.len() as u64;
                    report.bytes += entries.iter().map(|e| e.data.len() as u64).sum::<u64>();
                    next = next.saturating_add(entries.len() as u64);
                    term = entries.last().map_or(term, |e| e.term);
                    for run in entries.chunks(most_entries) {
                        batch.append(id, run);
                        to.commit(&mut batch)?;
                    }
                }
                Ok(_) => break,
                Err(Error::Damaged(Damage { lost: Lost::Entries { last: end, .. }, .. })) => {
                    let end = end.clamp(next, last);
                    lost.push(Damage { replica: id, lost: Lost::Entries { first: next, last: end } });
                    if end - next >= MAX_GAP {
                        // Nobody appended so much: the bounds themselves are damage. Nothing of it can be relied upon.
                        batch.remove(id);
                        to.commit(&mut batch)?;
                        batch.install_snapshot(id, last, term);
                        to.commit(&mut batch)?;
                        lost.push(Damage { replica: id, lost: Lost::State });
                        return Ok(lost);
                    }
                    let gap: Vec<Gap> = (next..=end).map(|index| Gap(index, term)).collect();
                    for run in gap.chunks(most_entries) {
                        batch.append(id, run);
                        to.commit(&mut batch)?;
                    }
                    next = end.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
        if state_lost {
            lost.push(Damage { replica: id, lost: Lost::State });
        }
        Ok(lost)
    }

    /// Everything that was not lost is the same in both.
    fn compare(&self, to: &Wal, id: u64, lost: &[Damage]) -> Result<()> {
        let (from, to) = (self.replica(id), to.replica(id));
        let (first, last) = to.bounds();
        let differs = |lost| Error::Damaged(Damage { replica: id, lost });
        let state_lost = lost.iter().any(|d| d.lost == Lost::State);
        if !state_lost {
            for key in from.keys() {
                if from.get(&key)? != to.get(&key)? {
                    return Err(differs(Lost::State));
                }
            }
        }
        if lost.is_empty() && (from.bounds() != to.bounds() || from.term(first - 1)? != to.term(first - 1)?) {
            return Err(differs(Lost::Entries { first, last }));
        }
        // As it was written down: what lies between many ranges is called damaged with them.
        let known = to.damage();
        let gone = |index| {
            known.iter().any(|d| matches!(d.lost, Lost::Entries { first, last } if (first..=last).contains(&index)))
        };
        let mut next = first;
        while next <= last && next >= first {
            if !gone(next) && from.entry(next)? != to.entry(next)? {
                return Err(differs(Lost::Entries { first: next, last: next }));
            }
            next = next.saturating_add(1);
            if next == u64::MAX {
                break;
            }
        }
        Ok(())
    }
}

/// Whether who is told of the one knows of the other.
fn covers(said: &Damage, lost: &Damage) -> bool {
    match (&said.lost, &lost.lost) {
        (Lost::Entries { first, last }, Lost::Entries { first: from, last: to }) => first <= from && to <= last,
        (said, lost) => said == lost,
    }
}

impl Engine {
    /// Writes down what is lost of a replica, durably.
    fn mark_lost(&self, id: u64, lost: &[Damage]) -> Result<()> {
        let Some(cell) = self.registry.get(id).filter(|_| !lost.is_empty()) else { return Ok(()) };
        {
            let _order = self.seq.lock();
            let mut state = cell.lock();
            for damage in lost {
                match damage.lost {
                    Lost::Entries { first, last } if !state.is_empty() => state.add_damage(first, last),
                    Lost::Entries { .. } => {}
                    _ => state.state_suspect = true,
                }
            }
            state.clip_damage();
        }
        self.record_damage_of(&cell)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Placement;
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;

    const LAST: u64 = 60;

    /// More of them than a log writes down one by one.
    #[test]
    fn many_spots_of_one_replica_are_salvaged_around() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options().placement(Placement::Journal).open_disk(disk.clone()).expect("formatted");
        for i in 1..=LAST {
            wal.commit(Batch::new().append(1, &[(i, 1, [i as u8; 3000])])).expect("committed");
        }
        wal.commit(Batch::new().put(2, b"vote", b"2")).expect("committed");
        wal.sync().expect("written");
        let after = Arc::new(disk.crash_lost_all());
        let spots: Vec<u64> = (2..=50).step_by(2).collect();
        for &index in &spots {
            let engine = &wal.engine;
            let loc = engine.registry.get(1).expect("there").lock().places.loc(index).expect("in the journal");
            let lsn = loc.lsn(engine.head());
            let slab = engine.segment_map.read().slab(lsn >> 16).expect("alive");
            after.flip_bit(crate::format::POOL_OFFSET + (u64::from(slab) << 16) + (lsn & 0xffff) + 100, 3);
        }
        drop(wal);
        let wal = options().open_disk(after).expect("opened");
        let to = options().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        assert_eq!(report.replicas, 2);
        assert_eq!(report.damage, to.replica(1).damage(), "each once, as the fresh log says it");
        for &spot in &spots {
            let lost = Damage { replica: 1, lost: Lost::Entries { first: spot, last: spot } };
            assert!(report.damage.iter().any(|told| covers(told, &lost)), "{spot}: {:?}", report.damage);
        }
        for index in 1..=LAST {
            let (old, new) = (wal.replica(1).entry(index), to.replica(1).entry(index));
            assert!(old.is_ok() || new.is_err(), "{index} is lost in one, and not in the other");
            if index > 50 {
                assert_eq!(new.expect("salvaged").data, [index as u8; 3000][..]);
            }
        }
        assert_eq!(to.replica(2).get(b"vote").expect("salvaged").as_deref(), Some(&b"2"[..]));
    }

    fn small() -> crate::Options {
        Wal::options().capacity(4 << 20).segment_size(64 << 10).chunk_size(4096).background(false)
    }

    /// As the log, another of its shape.
    fn salvaged(wal: &Wal) -> Wal {
        let to = small().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        assert!(report.is_whole(), "{report:?}");
        to
    }

    /// Ten times what one batch may put into the journal.
    #[test]
    fn a_replica_of_many_keys_is_salvaged() {
        let wal = small().open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let key = |i: u64| format!("a key of 20 B {i:06}");
        for i in 0..10 {
            let mut batch = Batch::new();
            for i in 30 * i..30 * i + 30 {
                batch.put(1, key(i).as_bytes(), &[i as u8; 100]);
            }
            wal.commit(&mut batch).expect("committed");
        }
        for i in 0..60 {
            wal.commit(Batch::new().put(2, key(i).as_bytes(), &[i as u8; 4000])).expect("committed");
        }
        let to = salvaged(&wal);
        assert_eq!((to.replica(1).keys().len(), to.replica(2).keys().len()), (300, 60));
        assert_eq!(to.replica(1).get(key(299).as_bytes()).expect("salvaged").as_deref(), Some(&[43; 100][..]));
    }

    #[test]
    fn a_replica_of_many_entries_is_salvaged_into_small_segments() {
        let wal = small().open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        for i in 1..=500 {
            wal.commit(Batch::new().append(1, &[(i, i, [i as u8; 3000])])).expect("committed");
        }
        for i in 0..100 {
            let empty: Vec<_> = (50 * i + 1..=50 * i + 50).map(|i| (i, i, [])).collect();
            wal.commit(Batch::new().append(2, &empty)).expect("committed");
        }
        let to = salvaged(&wal);
        assert_eq!((to.replica(1).last_index(), to.replica(2).last_index()), (500, 5000));
    }
}
