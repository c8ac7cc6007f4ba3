//! Salvage: everything that can still be proved, copied into a fresh log that knows what is missing.

use crate::batch::{AsEntry, Batch, Entry};
use crate::engine::Engine;
use crate::error::{Damage, Error, Lost, Result};
use crate::format::record::OP_BYTES;
use crate::index::MOVING_KEY;
use crate::replica::Replica;
use crate::stats::CutFile;
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
    /// What is lost of the replicas that are known. The fresh log says the same, but of entries before those that it holds.
    pub damage: Vec<Damage>,
    /// Frames of the journal that cannot be read, at least.
    pub lost_frames: u64,
    /// Frames at the end that were not believed.
    pub dropped_frames: u64,
    /// Replicas may be missing, or older than they were, that nobody can name.
    pub unnamed: bool,
    /// What the file lost, where it was cut.
    pub cut: Option<CutFile>,
}

impl SalvageReport {
    /// Whether nothing at all was lost.
    pub fn is_whole(&self) -> bool {
        self.cut.is_none()
            && self.damage.is_empty()
            && self.lost_frames == 0
            && self.dropped_frames == 0
            && !self.unnamed
    }
}

/// Payload copied in one batch, at most; less where segments are small.
const BATCH_BYTES: u64 = 1 << 20;
/// A longer gap is not filled: its replica is copied from behind it on.
const MAX_GAP: u64 = 1 << 20;

/// Entries read by themselves where some of them could not be read together: a piece with a bad sector is not read anew for each.
const ALONE: usize = 255;

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

/// What comes next of a replica's entries.
enum Read {
    Some(Vec<Entry>),
    /// Up to here they are lost.
    Lost(u64),
}

/// Reads on from `next`; on a bad sector entry by entry, so that it costs no more than what lies there.
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

/// Some entries, each by itself: the first, or why not, and what can be read behind it.
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

/// It may lie on a bad sector, or beside one.
fn is_unreadable<T>(read: &Result<T>) -> bool {
    matches!(read, Err(Error::Io { .. }))
}

/// Whether the copy is what was read. What cannot be read again was whole when it was copied; the copy's own checksum says the rest.
fn is_same<T: PartialEq>(read: Result<T>, copy: Result<T>) -> Result<bool> {
    if is_unreadable(&read) { copy.map(|_| true) } else { Ok(read? == copy?) }
}

/// Begins a copy behind an entry, with its term where that is known.
fn begin_behind(from: &Replica, before: u64, batch: &mut Batch, lost: &mut Vec<Damage>) {
    let term = from.term(before).unwrap_or_else(|_| {
        lost.push(Damage { replica: from.id(), lost: Lost::Entries { first: before, last: before } });
        0
    });
    batch.install_snapshot(from.id(), before, term);
}

impl Wal {
    /// Copies everything readable into `to`, a fresh log, and marks there what is lost: reading it answers with the same damage, until
    /// the replica is removed or given a snapshot. Everything is durable on return, and was compared.
    ///
    /// # Errors
    /// [`Error::Contradiction`] where `to` holds a replica already; what [`Wal::commit`] and reading say of `to`, [`Error::Full`] among it where
    /// it is too small (give it an eighth more than this one has: a copy asks for the room of entries before they are moved to where
    /// they take least); [`Error::Damaged`] where the two do not compare. What cannot be read of this one is lost.
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
            // As it was written down, where it could be: see `compare`.
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

    /// Copies one replica; answers what of it is lost.
    fn copy_replica(&self, to: &Wal, id: u64, report: &mut SalvageReport) -> Result<Vec<Damage>> {
        let from = self.replica(id);
        let (first, last) = from.bounds();
        let mut lost: Vec<Damage> = Vec::new();
        // Half of what a batch may put into the journal: the other is for what comes with the entries.
        let budget = BATCH_BYTES.min(to.engine.max_inline() / 2);
        let most_entries = (budget / OP_BYTES).max(1) as usize;
        let mut batch = Batch::new();
        begin_behind(&from, first - 1, &mut batch, &mut lost);
        let mut state_lost = from.damage().iter().any(|d| d.lost == Lost::State);
        // In as many batches as it takes: a copy that was cut short is thrown away.
        for key in from.keys() {
            // What lies on a bad sector is lost like what rotted: all else is to be saved.
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
        // In the middle of a migration: else the log would be taken for another's.
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
                    // What lies before it cannot stay, and what is behind it is all that is left.
                    lost.clear();
                    lost.push(Damage { replica: id, lost: Lost::Entries { first, last: end } });
                    (entries, bytes) = (0, 0);
                    if end == last {
                        // Nobody appended so much: the bounds themselves are damage. Nothing of it can be relied upon.
                        batch.remove(id);
                        to.commit(&mut batch)?;
                        state_lost = true;
                    }
                    let behind = end.checked_add(1);
                    // Nothing can begin behind the last index there is: that one is appended, and lost.
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

    /// Everything that was not lost is the same in both.
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
        // As it was written down: what lies between many ranges is called damaged with them.
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
mod tests {
    use super::*;
    use crate::Placement;
    use crate::RecoveryMode;
    use crate::disk::sim::SimDisk;
    use crate::index::Place;
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

    fn fresh() -> (Arc<SimDisk>, Wal) {
        let disk = Arc::new(SimDisk::new(8 << 20));
        (Arc::clone(&disk), small().open_disk(disk).expect("formatted"))
    }

    fn lost(replica: u64, first: u64, last: u64) -> Damage {
        Damage { replica, lost: Lost::Entries { first, last } }
    }

    /// Where the bytes of a replica's entry begin on the disk.
    fn place(wal: &Wal, replica: u64, index: u64) -> u64 {
        let engine = &wal.engine;
        let cell = engine.registry.get(replica).expect("there");
        let state = cell.lock();
        match state.places.get(index).expect("held") {
            Place::Journal(loc) => {
                let lsn = loc.lsn(engine.head());
                let slab = engine.segment_map.read().slab(lsn >> 16).expect("alive");
                crate::format::POOL_OFFSET + (u64::from(slab) << 16) + (lsn & 0xffff)
            }
            // Behind header and table, and the entries before it.
            Place::Chain(piece) => piece.desc.extents[0].offset() + 64 + 40 + (index - piece.desc.first) * 1000,
        }
    }

    #[test]
    fn what_stands_for_a_lost_entry_has_its_term_where_that_is_known() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = small().placement(Placement::Journal).open_disk(disk.clone()).expect("formatted");
        for (index, term) in (1..=10).map(|i| (i, 1)).chain((11..=15).map(|i| (i, 2))) {
            wal.commit(Batch::new().append(1, &[(index, term, [index as u8; 100])])).expect("committed");
        }
        wal.commit(Batch::new().install_snapshot(2, 4, 3).append(2, &[(5, 3, [5; 100]), (6, 4, [6; 100])]))
            .expect("ok");
        wal.commit(Batch::new().put(3, b"vote", b"2")).expect("committed");
        let after = Arc::new(disk.restart());
        for (replica, index) in [(1, 11), (1, 12), (2, 5)] {
            after.flip_bit(place(&wal, replica, index) + 50, 3);
        }
        drop(wal);
        let wal = small().open_disk(after).expect("opened");
        let (disk, to) = fresh();
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        assert_eq!(report.damage, [lost(1, 11, 12), lost(2, 5, 5)]);
        let term = |id, index| to.engine.registry.get(id).expect("there").lock().terms.get(index);
        assert_eq!([term(1, 10), term(1, 11), term(1, 12), term(2, 5)], [Some(1), Some(2), Some(2), Some(3)]);
        assert_eq!(to.replica(2).term(4).expect("known"), 3);
        // It is told to nobody: an opening takes a guess over a hole for the same, and cannot tell which it is.
        to.commit(Batch::new().truncate_prefix(1, 13)).expect("committed");
        drop(to);
        let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
        assert!(matches!(to.replica(1).term(12), Err(Error::Damaged(_))));
        assert_eq!(to.replica(1).entry(13).expect("salvaged").term, 2);
    }

    #[test]
    fn a_term_that_is_unknown_before_the_first_entry_stays_so() {
        let (_, wal) = fresh();
        let damage = |id, index| wal.engine.registry.get(id).expect("there").lock().add_damage(index, index);
        // One that holds entries, and one that is empty.
        for (id, last) in [(1, 4), (2, 2)] {
            let entries: Vec<_> = (1..=last).map(|i| (i, 1, [7; 100])).collect();
            wal.commit(Batch::new().append(id, &entries)).expect("committed");
            damage(id, 2);
            wal.commit(Batch::new().truncate_prefix(id, 3)).expect("committed");
        }
        let (disk, to) = fresh();
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        assert_eq!((report.damage, report.entries), (vec![lost(1, 2, 2), lost(2, 2, 2)], 2));
        drop(to);
        let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
        for (id, bounds) in [(1, (3, 4)), (2, (3, 2))] {
            assert_eq!(to.replica(id).bounds(), bounds);
            assert!(matches!(to.replica(id).term(2), Err(Error::Damaged(d)) if d == lost(id, 2, 2)), "replica {id}");
        }
    }

    /// Such a one has lost what nobody can fill in. What lies behind it is as good as ever.
    #[test]
    fn behind_a_long_gap_a_copy_begins_anew_and_counts_what_it_has() {
        const FAR: u64 = 2 * MAX_GAP;
        let (_, wal) = fresh();
        let some = |first: u64| [first, first + 1, first + 2].map(|i| (i, 1, [i as u8; 100]));
        let gap = |id: u64, first: u64| {
            let cell = wal.engine.registry.get(id).expect("there");
            let mut state = cell.lock();
            state.last = FAR;
            state.add_damage(first, FAR);
        };
        wal.commit(Batch::new().append(1, &some(1)).put(1, b"vote", b"2")).expect("committed");
        gap(1, 4);
        wal.commit(Batch::new().append(1, &some(FAR + 1))).expect("committed");
        wal.commit(Batch::new().append(2, &some(1)).put(2, b"vote", b"2")).expect("committed");
        gap(2, 4);
        wal.commit(Batch::new().append(3, &some(1))).expect("committed");
        let (disk, to) = fresh();
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        assert_eq!((report.replicas, report.entries, report.bytes), (3, 6, 600));
        let state = Damage { replica: 2, lost: Lost::State };
        assert_eq!(report.damage, [lost(1, 1, FAR), lost(2, 1, FAR), state.clone()]);
        drop(to);
        let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
        assert_eq!([1, 2].map(|id| to.replica(id).bounds()), [(FAR + 1, FAR + 3), (FAR + 1, FAR)]);
        for (index, _, data) in some(FAR + 1) {
            assert_eq!(to.replica(1).entry(index).expect("salvaged").data, data[..]);
        }
        assert_eq!(to.replica(1).get(b"vote").expect("salvaged").as_deref(), Some(&b"2"[..]));
        for id in [1, 2] {
            assert!(matches!(to.replica(id).term(FAR), Err(Error::Damaged(_))), "replica {id}");
        }
        assert!(to.damage().contains(&state));
    }

    /// One bad sector costs what lies there.
    #[test]
    fn what_cannot_be_read_is_damage_and_ends_no_salvage() {
        for placement in [Placement::Journal, Placement::Chain] {
            let disk = Arc::new(SimDisk::new(4 << 20));
            let wal = small().placement(placement).open_disk(disk.clone()).expect("formatted");
            for id in 1..=2 {
                let entries: Vec<_> = (1..=5).map(|i| (i, 1, [i as u8; 1000])).collect();
                wal.commit(Batch::new().append(id, &entries).put(id, b"large", &[id as u8; 9000])).expect("committed");
            }
            wal.close().expect("closed");
            drop(wal);
            let disk = Arc::new(disk.restart());
            let wal = small().open_disk(disk.clone()).expect("opened");
            let value = {
                let cell = wal.engine.registry.get(2).expect("there");
                let state = cell.lock();
                let piece = state.keys.get(b"large").and_then(|value| value.piece()).expect("a piece of its own");
                piece.desc.extents[0].offset() + 5000
            };
            for at in [place(&wal, 1, 3) + 500, value] {
                disk.fail_reads(at..at + 1, crate::disk::sim::EIO);
            }
            let to = fresh().1;
            let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
            let state = Damage { replica: 2, lost: Lost::State };
            assert_eq!((report.damage, report.entries), (vec![lost(1, 3, 3), state], 9), "{placement:?}");
            for (id, index) in (1..=2).flat_map(|id| (1..=5).map(move |index| (id, index))) {
                match to.replica(id).entry(index) {
                    Ok(entry) => assert_eq!(entry.data, [index as u8; 1000][..]),
                    Err(error) => assert!((id, index) == (1, 3) && matches!(error, Error::Damaged(_)), "{error}"),
                }
            }
            assert_eq!(to.replica(1).get(b"large").expect("salvaged").expect("there"), [1; 9000][..]);
        }
    }

    /// Nothing can be begun behind it.
    #[test]
    fn a_replica_that_ends_at_the_last_index_there_is_is_salvaged() {
        let (_, wal) = fresh();
        wal.commit(Batch::new().install_snapshot(1, u64::MAX - 1, 1).append(1, &[(u64::MAX, 1, b"last")]))
            .expect("room");
        wal.commit(Batch::new().append(2, &[(1, 1, b"another")])).expect("room");
        let first = u64::MAX - 2 * MAX_GAP;
        {
            let cell = wal.engine.registry.get(1).expect("there");
            let mut state = cell.lock();
            state.first = first;
            state.add_damage(first, u64::MAX);
        }
        let (disk, to) = fresh();
        let report = wal.salvage_into(&to, |_| ()).expect("salvaged");
        let state = Damage { replica: 1, lost: Lost::State };
        assert_eq!((report.replicas, report.entries), (2, 1));
        assert_eq!(report.damage, [lost(1, first, u64::MAX), state.clone()]);
        drop(to);
        let to = small().open_disk(Arc::new(disk.restart())).expect("opened");
        assert_eq!(to.replica(1).bounds(), (u64::MAX, u64::MAX));
        assert!(matches!(to.replica(1).entry(u64::MAX), Err(Error::Damaged(_))) && to.damage().contains(&state));
        assert_eq!(to.replica(2).entry(1).expect("salvaged").data, b"another"[..]);
    }

    /// What is written at once weighs more than what was settled bit by bit: its like does not hold the copy, an eighth more does.
    #[test]
    fn a_full_log_is_salvaged_into_one_that_is_an_eighth_larger() {
        let options = || Wal::options().background(false);
        let disk = Arc::new(SimDisk::new(64 << 20));
        let wal = options().open_disk(disk.clone()).expect("formatted");
        let mut last = 0;
        loop {
            match wal.commit(Batch::new().append(1, &[(last + 1, 1, vec![last as u8; 5000])])) {
                Ok(_) => last += 1,
                Err(Error::Full(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        wal.close().expect("closed");
        drop(wal);
        let from = options().read_only(true).recovery_mode(RecoveryMode::Salvage);
        let from = from.open_disk(Arc::new(disk.restart())).expect("opened");
        let to = options().open_disk(Arc::new(SimDisk::new(72 << 20))).expect("formatted");
        let report = from.salvage_into(&to, |_| ()).expect("salvaged");
        assert_eq!((report.is_whole(), report.entries), (true, last));
    }
}
