//! Verification: reads back from the disk everything that is kept, and compares it with its checksums.

use crate::chain::PieceRef;
use crate::engine::{Checked, Engine};
use crate::error::{Damage, Error, Lost, Result};
use crate::index::{Cell, Value};
use crate::space::count_pieces;
use crate::stats::CutFile;

/// The progress of a verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Replicas done.
    pub replicas: u64,
    /// Replicas in all.
    pub total: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of payload read.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Replicas that exist.
    pub replicas: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of payload read.
    pub bytes: u64,
    /// Damage, known before or found now.
    pub damage: Vec<Damage>,
    /// What the device cannot read: bad sectors under these entries and large keyed values. They may be readable later; a salvage counts them as
    /// lost.
    pub unreadable: Vec<Damage>,
    /// Frames of the journal whose header or table rotted, or cannot be read. They hold hard states, other small values and all metadata. The log's
    /// memory still has these right, but the next crash would lose them: [`Wal::scrub`](crate::Wal::scrub) rewrites them. After a frame with a rotten
    /// header, no further frame of its segment is checked; if it is the first of its segment, no earlier segment is checked either.
    pub rotten_frames: u64,
    /// Rot outside entries and values, which costs no data: in a copy of the superblock (if the log is open for writing, also a copy whose last write was lost), or in the header
    /// of a piece. A power cut while a superblock was being written leaves one bad copy, too: the log opens with the
    /// other, and the next opening for writing, or a [scrub](crate::Wal::scrub), rewrites it.
    pub structure: Vec<String>,
    /// What the file lost, if it was cut. Anything that lay there is reported as damage.
    pub cut: Option<CutFile>,
    /// Chunks that are not in exactly one place. Not empty only if strandlog itself has a bug.
    pub accounting: Vec<String>,
}

impl VerifyReport {
    /// Whether everything is as it should be. False also if a power cut left one bad copy of the superblock, although that costs nothing: see
    /// [`structure`](Self::structure).
    pub fn is_clean(&self) -> bool {
        let Self { damage, unreadable, rotten_frames, structure, cut, accounting, .. } = self;
        let is_all_there = cut.is_none() && damage.is_empty() && unreadable.is_empty();
        is_all_there && *rotten_frames == 0 && structure.is_empty() && accounting.is_empty()
    }
}

/// What was found of one replica, besides what is reported.
#[derive(Default)]
pub(crate) struct CheckedReplica {
    /// The pieces of rotten values.
    pub rotten_values: Vec<u64>,
    /// The first error for which something of it could not be read.
    pub unreadable: Option<Error>,
}

/// A replica that is being checked: the report, what is found besides, and whom to tell the bytes of each read.
struct Check<'a, R> {
    report: &'a mut VerifyReport,
    found: CheckedReplica,
    told: R,
}

impl<R: FnMut(u64)> Check<'_, R> {
    fn read(&mut self, bytes: u64) {
        (self.told)(bytes);
    }

    /// Notes a bad sector: what lies around it is looked at all the same.
    fn cannot_read(&mut self, error: Error) {
        self.found.unreadable.get_or_insert(error);
        self.read(0);
    }
}

/// Adds an entry to the last of the ranges, or as a new range behind them.
fn add_entry(ranges: &mut Vec<Damage>, replica: u64, index: u64) {
    match ranges.last_mut() {
        Some(Damage { replica: r, lost: Lost::Entries { last, .. } })
            if *r == replica && last.checked_add(1) == Some(index) =>
        {
            *last = index;
        }
        _ => ranges.push(Damage { replica, lost: Lost::Entries { first: index, last: index } }),
    }
}

/// What to make of one bad copy.
const ONE_COPY: &str = ": rot, or what a power cut leaves in which it was written; the log opens with the other, and its next opening for writing, or a scrub, writes it anew";

impl Engine {
    pub(crate) fn verify(&self, mut progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        // Not in a callback: the audit waits for the cleaner, which waits for the frame that is being completed.
        self.may_wait()?;
        if !self.read_only && self.seq.lock().stopped.is_none() {
            self.sync()?;
        }
        let mut report = VerifyReport { cut: self.lost_end(), ..VerifyReport::default() };
        let mut cells = self.registry.all();
        cells.retain(|c| c.lock().exists);
        cells.sort_unstable_by_key(|c| c.id);
        let total = cells.len() as u64;
        self.verify_superblocks(&mut report);
        for cell in &cells {
            self.check_replica(cell, &mut report, |_| ())?;
            report.replicas += 1;
            let (replicas, entries, bytes) = (report.replicas, report.entries, report.bytes);
            progress(VerifyProgress { replicas, total, entries, bytes });
        }
        report.rotten_frames = self.check_frames(|_| ()).frames;
        report.accounting = self.audit();
        Ok(report)
    }

    /// Reads everything that one replica holds, as far as the device can; `read` is told the bytes of each read.
    pub(crate) fn check_replica(
        &self,
        cell: &Cell,
        report: &mut VerifyReport,
        read: impl FnMut(u64),
    ) -> Result<CheckedReplica> {
        self.disk.check_size().map_err(|e| Error::io("reading the file", e))?;
        let mut check = Check { report, found: CheckedReplica::default(), told: read };
        self.verify_entries(cell, &mut check)?;
        self.verify_keys(cell, &mut check)?;
        self.verify_headers(cell, &mut check)?;
        Ok(check.found)
    }

    fn verify_entries(&self, cell: &Cell, check: &mut Check<'_, impl FnMut(u64)>) -> Result<()> {
        let replica = cell.id;
        let (first, last) = {
            let state = cell.lock();
            check.report.damage.extend(state.damage(replica));
            (state.first, state.last)
        };
        let (mut next, mut asked) = (Some(first), first);
        while let Some(index) = next.filter(|&i| i <= last) {
            // Known damage need not be read one by one: it may be all the numbers there are.
            let known = cell.lock().damage_at(index);
            if let Some((_, end)) = known {
                next = end.checked_add(1);
                continue;
            }
            if index >= asked {
                asked = self.ask(cell, index, last.saturating_add(1));
            }
            next = index.checked_add(1);
            let checked = match self.check_entry(cell, index) {
                Err(error @ Error::Io { .. }) => {
                    add_entry(&mut check.report.unreadable, replica, index);
                    check.cannot_read(error);
                    continue;
                }
                checked => checked?,
            };
            check.report.entries += u64::from(checked.is_some());
            check.report.bytes += checked.unwrap_or(0);
            check.read(checked.unwrap_or(0));
            if checked.is_none() && self.is_new_damage(cell, index) {
                add_entry(&mut check.report.damage, replica, index);
            }
        }
        Ok(())
    }

    fn verify_keys(&self, cell: &Cell, check: &mut Check<'_, impl FnMut(u64)>) -> Result<()> {
        let replica = cell.id;
        let keys: Vec<Box<[u8]>> = {
            let state = cell.lock();
            let out = state.keys.iter().filter(|e| matches!(e.value, Value::Out(_)));
            out.map(|e| e.key.clone()).collect()
        };
        for key in keys {
            match self.check_value(cell, &key) {
                Ok(Checked::Gone) => {}
                Ok(Checked::Whole { bytes }) => check.read(bytes),
                Ok(Checked::Rotten { id, bytes }) => {
                    check.read(bytes);
                    check.report.damage.push(Damage { replica, lost: Lost::State });
                    check.found.rotten_values.push(id);
                }
                Err(error @ Error::Io { .. }) => {
                    check.report.unreadable.push(Damage { replica, lost: Lost::State });
                    check.cannot_read(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn verify_superblocks(&self, report: &mut VerifyReport) {
        // Holds off a resize of the journal, which writes one copy after the other.
        let current = self.superblock.lock();
        // In a log that is open for reading only, an older copy is what a power cut between the two leaves; the next opening brings it up
        // to date. The end of the log may have left one, too.
        let known = !self.read_only && self.seq.lock().stopped.is_none();
        let amiss = self.copies_amiss(known.then_some(&*current));
        for copy in &amiss {
            let alone = if amiss.len() == 1 { ONE_COPY } else { "" };
            report.structure.push(format!("superblock {} is bad ({}){alone}", copy.name, copy.why));
        }
    }

    /// Checks the header of every piece, and the checksum of its table.
    fn verify_headers(&self, cell: &Cell, check: &mut Check<'_, impl FnMut(u64)>) -> Result<()> {
        let pieces: Vec<(PieceRef, u32)> = {
            let state = cell.lock();
            let values = state.keys.iter().filter_map(|e| e.value.piece());
            let all = state.places.chain().iter().chain(values);
            // Pinned before the lock is released: none of them is reused while it is looked at.
            all.map(|p| (self.piece(cell.id, p), p.desc.crc)).collect()
        };
        for (piece, crc) in pieces {
            let mut holds = piece.header_holds(&*self.disk, self.geo.seed, crc);
            if !matches!(holds, Ok(true)) {
                if piece.in_memory() {
                    if self.seq.lock().stopped.is_some() {
                        // Never written, and never acknowledged.
                        continue;
                    }
                    // Submitted a moment ago: on its way to the disk.
                    self.sync()?;
                }
                // Once more in any case: a device may answer one read with older bytes.
                holds = piece.header_holds(&*self.disk, self.geo.seed, crc);
            }
            let (id, at, first) = (cell.id, piece.offset(), piece.first);
            let amiss =
                |how| format!("replica {id}: the header of the piece at offset {at} {how} (entries from {first} on)");
            match holds {
                Ok(true) => {}
                Ok(false) => check.report.structure.push(amiss("is bad")),
                Err(error) => {
                    check.report.structure.push(amiss("cannot be read"));
                    check.cannot_read(Error::io(format!("reading replica {id} from entry {first}"), error));
                }
            }
            if let Some(bytes) = piece.header_bytes() {
                check.read(bytes);
            }
        }
        Ok(())
    }

    /// Whether the entry is still held, and not yet known to be damaged.
    fn is_new_damage(&self, cell: &Cell, index: u64) -> bool {
        let state = cell.lock();
        state.exists && index >= state.first && index <= state.last && state.damage_at(index).is_none()
    }

    /// Finds the chunks that are not in exactly one place. Nothing moves meanwhile.
    fn audit(&self) -> Vec<String> {
        let _hurry = self.hurry.begin();
        let _still = self.cleaning.lock();
        // Before the sequencer, as when the journal is resized.
        let superblock = self.superblock.lock();
        let _order = self.seq.lock();
        // An array by chunk: a map would take many times as long.
        let mut linked: Vec<u16> = vec![0; self.geo.chunks as usize];
        for cell in self.registry.all() {
            let state = cell.lock();
            let values = state.keys.iter().filter_map(|e| match &e.value {
                Value::Out(piece) => Some(&piece.desc),
                Value::Inline(_) => None,
            });
            for desc in state.places.chain().iter().map(|p| &p.desc).chain(values) {
                count_pieces(&desc.extents, self.geo.blocks_per_chunk, &mut linked);
            }
        }
        self.pool.lock().audit(linked, &superblock.journal_slabs)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::Wal;
    use crate::disk::sim::{EIO, SimDisk};
    use crate::format::superblock::SUPERBLOCK_OFFSETS;
    use crate::sync::Arc;

    #[test]
    fn a_chunk_that_nobody_holds_is_told() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        assert!(wal.verify(|_| ()).expect("verified").is_clean());
        wal.engine.pool.lock().allocate(2, &mut None).expect("room");
        let report = wal.verify(|_| ()).expect("verified");
        assert!(report.accounting.len() == 2 && !report.is_clean(), "{report:?}");
    }

    #[test]
    fn a_superblock_that_cannot_be_read_is_told_and_the_rest_is_read() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = options.open_disk(Arc::clone(&disk) as Arc<dyn crate::disk::Disk>).expect("formatted");
        wal.commit(crate::Batch::new().append(1, &[(1, 1, [7; 100])])).expect("room");
        for (name, at) in ["A", "B"].into_iter().zip(SUPERBLOCK_OFFSETS) {
            disk.fail_reads(at..at + 1, EIO);
            let report = wal.verify(|_| ()).expect("verified");
            let [told] = report.structure.as_slice() else { panic!("{report:?}") };
            assert!(told.starts_with(&format!("superblock {name} is bad")) && report.entries == 1, "{report:?}");
            assert!(told.ends_with("writes it anew"), "what to make of it: {told}");
            disk.heal_reads();
        }
    }

    /// A pace can only be kept over bytes that are told.
    #[test]
    fn all_that_is_read_of_a_replica_is_told() {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let options = Wal::options().segment_size(1 << 20).chunk_size(64 << 10).background(false);
        let wal = options.open_disk(Arc::clone(&disk) as Arc<dyn crate::disk::Disk>).expect("formatted");
        let entries = [(1, 1, vec![7; 300]), (2, 1, vec![7; 200_000])];
        wal.commit(crate::Batch::new().put(1, b"value", &[7; 300_000]).append(1, &entries)).expect("room");
        let cell = wal.engine.registry.get(1).expect("there");
        let (before, mut told) = (disk.bytes_read(), 0);
        wal.engine.check_replica(&cell, &mut super::VerifyReport::default(), |bytes| told += bytes).expect("read");
        let read = disk.bytes_read() - before;
        // All but the checksum before an entry.
        assert!(told + 100 >= read && read > 500_000, "{told} of {read}");
    }
}
