//! Carrying: what is small goes to the journal's head as it is.

use super::gather::{Moving, Payload, Seen};
use super::group::Group;
use super::settle::{clip, encoded_bound};
use crate::caught::said;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::EntryId;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::MAX_TERM_RUNS;
use crate::format::record::{self, RunKind};
use crate::index::{Cell, Loc, ReplicaState, Value};
use crate::journal::{Class, Sequencer};
use crate::space::step;

/// A record of one entry, at its longest, without payload.
const RECORD_BYTES: u64 = 64;

/// So many pieces are looked at under one hold of the locks, wherever they lie: some tens of microseconds.
const MOST_LOOKED_AT: usize = 4096;

/// What became of a replica's metadata.
#[derive(Debug, PartialEq, Eq)]
enum Carried {
    /// The descriptors of pieces that begin at this index or later are left. `None`: nothing is.
    UpTo(Option<u64>),
    NoRoom,
}

/// What an entry takes beside its record.
fn bytes_of(payload: &Payload<'_>) -> u64 {
    (ENTRY_CRC_BYTES + payload.bytes().len()) as u64
}

impl Engine {
    /// Copies the entries to the open frame, clipped to what still lies where it was read. `false`: no room.
    pub(super) fn carry(&self, moving: &Moving, from: &mut Group) -> Result<bool> {
        // Copied under one hold of the sequencer lock: callers must not wait long.
        let step = step(self.geo.segment_bytes);
        let payloads = self.payloads(moving, from)?;
        let mut rest = payloads.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|(_, payload)| {
                bytes += bytes_of(payload) + RECORD_BYTES;
                bytes <= step
            });
            let (batch, later) = rest.split_at(fit.count().max(1));
            if !self.carry_batch(moving, batch)? {
                return Ok(false);
            }
            rest = later;
        }
        Ok(true)
    }

    fn carry_batch(&self, moving: &Moving, batch: &[(Seen, Payload<'_>)]) -> Result<bool> {
        let payload: u64 = batch.iter().map(|(_, p)| bytes_of(p)).sum();
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        if !s.make_room(payload, batch.len() as u64 * RECORD_BYTES, Class::Clean, &self.segment_map) {
            return Ok(false);
        }
        self.publish_head(&s);
        let mut state = moving.cell.lock();
        if !state.exists || state.incarnation != moving.incarnation {
            return Ok(true);
        }
        let alive: Vec<&(Seen, Payload<'_>)> =
            batch.iter().filter(|(e, _)| e.index >= state.first && state.places.loc(e.index) == Some(e.loc)).collect();
        for run in alive.chunk_by(|(a, _), (b, _)| a.index + 1 == b.index && a.term == b.term) {
            self.carry_run(&mut s, moving.cell.id, &mut state, run);
        }
        s.open.batches += u64::from(!alive.is_empty());
        self.recharge(&mut s, &mut state);
        drop(state);
        self.submitted(&mut s, true, None, false);
        Ok(true)
    }

    fn carry_run(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, run: &[&(Seen, Payload<'_>)]) {
        let Some((head, _)) = run.first() else { return };
        let seq = Self::next_seq(s, id, state);
        let lens = run.iter().map(|(_, p)| p.bytes().len() as u32);
        let place = (head.index, head.term);
        let before = s.open.used();
        record::encode_run(&mut s.open.table, RunKind::Carried, id, seq, place, lens);
        let locs: Vec<Loc> = run
            .iter()
            .map(|(seen, payload)| {
                let len = payload.bytes().len() as u32;
                let entry = EntryId { replica: id, index: seen.index, term: seen.term, len };
                let crc = self.geo.seed.entry_crc(payload.crc, s.open.here(), entry);
                Loc::new(s.open.push_entry(crc, payload.bytes()), len)
            })
            .collect();
        self.counters.carried_entries.add(run.len() as u64);
        self.counters.carried_bytes.add(s.open.used() - before);
        state.places.set_journal(head.index, locs.into_iter(), self.geo.chunk_bytes);
    }

    /// Writes anew every CORE, key and descriptor whose newest record lies in the group: generated from the index under the
    /// lock, never copied, so that an old value cannot overtake a new one. `false`: no room.
    pub(super) fn carry_metadata(&self, group: &Group) -> Result<bool> {
        for &id in &group.with_metadata {
            let Some(cell) = self.registry.get(id) else { continue };
            // It may have written it anew since.
            if !cell.lock().has_metadata_in(|seq| group.holds(seq)) {
                continue;
            }
            let mut rest = Some(0);
            while let Some(from) = rest {
                match self.carry_some_metadata(&cell, group, from)? {
                    Carried::UpTo(index) => rest = index,
                    Carried::NoRoom => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Where `from` is 0, the CORE and the keys; and some of the descriptors from that index on. Under one hold of the locks: callers must
    /// not wait long. What becomes of the replica between two of these is written by whoever does it, behind the group.
    fn carry_some_metadata(&self, cell: &Cell, group: &Group, from: u64) -> Result<Carried> {
        let id = cell.id;
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        let mut state = cell.lock();
        let before = s.open.used();
        let (mut first, at) = (true, s.open.lsn);
        let mut room = |s: &mut Sequencer, table: u64| {
            let ok = s.make_room(0, table, Class::Clean, &self.segment_map);
            // Nothing is put into a frame that may have no place.
            s.open.batches += u64::from(ok && (std::mem::take(&mut first) || s.open.batches == 0));
            ok
        };
        if !state.exists {
            return Ok(Carried::UpTo(None));
        }
        if from == 0 {
            if group.holds(state.core_seq) {
                if !room(&mut s, record::MOST_CORE_BYTES) {
                    return Ok(Carried::NoRoom);
                }
                let core = state.core();
                self.write_core(&mut s, id, &mut state, &core);
            }
            if !self.carry_keys(&mut s, id, &mut state, group, &mut room) {
                return Ok(Carried::NoRoom);
            }
        }
        let carried = self.carry_descriptors(&mut s, id, &mut state, group, from, &mut room);
        if matches!(carried, Carried::NoRoom) {
            return Ok(carried);
        }
        if s.open.lsn == at {
            self.counters.carried_bytes.add(s.open.used().saturating_sub(before));
        }
        drop(state);
        self.submitted(&mut s, true, None, false);
        Ok(carried)
    }

    fn carry_keys(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> bool {
        for i in 0..state.keys.len() {
            let Some(entry) = state.keys.at(i).filter(|e| group.holds(e.seq)) else { continue };
            let bytes = RECORD_BYTES
                + entry.key.len() as u64
                + match &entry.value {
                    Value::Inline(value) => value.len() as u64,
                    Value::Out(piece) => encoded_bound(&piece.desc),
                };
            if !room(s, bytes) {
                return false;
            }
            let record = Self::next_seq(s, id, state);
            let segment = s.segments.current();
            let Some(entry) = state.keys.at(i) else { continue };
            match &entry.value {
                Value::Inline(value) => record::encode_put(&mut s.open.table, id, record, &entry.key, value),
                Value::Out(piece) => record::encode_kept_out(&mut s.open.table, id, record, &entry.key, &piece.desc),
            }
            state.keys.written_in(i, segment);
        }
        true
    }

    /// Those of the pieces that begin at index `from` or later, as many as fit a step; and no more of them are looked at than callers may
    /// wait for.
    fn carry_descriptors(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        from: u64,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> Carried {
        let most = step(self.geo.segment_bytes);
        let (mut bytes, mut descs, mut rest) = (RECORD_BYTES, Vec::new(), None);
        for (looked, piece) in state.places.pieces_from(from).enumerate() {
            if looked == MOST_LOOKED_AT {
                rest = Some(piece.desc.first);
                break;
            }
            if !group.holds(piece.meta_seq) {
                continue;
            }
            let mut desc = piece.desc.clone();
            desc.terms = state.terms.runs(desc.first, desc.count);
            if desc.terms.len() > MAX_TERM_RUNS {
                // Nobody made a piece of so many. No opening would read its record, nor any other of the log: what is not named is damage there.
                said(
                    || tracing::error!(target: "strandlog", replica = id, first = desc.first, "a piece has too many terms"),
                );
                let named: u32 = desc.terms.iter().take(MAX_TERM_RUNS).map(|&(n, _)| n).sum();
                desc = clip(desc, named as usize);
            }
            let with = bytes + encoded_bound(&desc);
            if with > most && !descs.is_empty() {
                rest = Some(desc.first);
                break;
            }
            bytes = with;
            descs.push(desc);
        }
        let Some(last) = descs.last().map(|desc| desc.first) else { return Carried::UpTo(rest) };
        if !room(s, bytes) {
            return Carried::NoRoom;
        }
        let record = Self::next_seq(s, id, state);
        record::encode_pieces(&mut s.open.table, RunKind::Carried, id, record, &descs);
        let segment = s.segments.current();
        let carried = state.places.pieces_from_mut(from).take_while(|p| p.desc.first <= last);
        for piece in carried.filter(|p| group.holds(p.meta_seq)) {
            piece.meta_seq = segment;
        }
        Carried::UpTo(rest)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::format::piece::{Extents, PieceDesc, TermRuns};
    use crate::index::ChainPiece;
    use crate::sync::Arc;
    use crate::{Batch, Placement, Wal};

    const PIECES: u64 = 300;

    /// Each of which makes a piece.
    fn place(wal: &Wal, replica: u64, indexes: std::ops::Range<u64>) {
        let entries: Vec<_> = indexes.map(|i| (i, 1, [i as u8; 3000])).collect();
        wal.commit(Batch::new().append(replica, &entries)).expect("committed");
    }

    /// A log with so many pieces.
    fn log() -> (Arc<SimDisk>, Wal) {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
        let wal = options.background(false).open_disk(disk.clone()).expect("formatted");
        for first in (1..=PIECES).step_by(50) {
            place(&wal, 1, first..first + 50);
        }
        assert_eq!(wal.engine.registry.get(1).expect("there").lock().places.chain().len() as u64, PIECES);
        (disk, wal)
    }

    /// All segments up to now.
    fn group(wal: &Wal) -> Group {
        let last = wal.engine.seq.lock().segments.current();
        let mut value = 0_u64;
        while wal.engine.seq.lock().segments.current() == last {
            value += 1;
            wal.commit(Batch::new().put(2, b"key", &[value as u8; 2000])).expect("committed");
        }
        let s = wal.engine.seq.lock();
        Group::new(s.segments.live.iter().take_while(|live| live.seq <= last), &wal.engine.geo)
    }

    /// What lies in the group, counted.
    fn left(cell: &Cell, group: &Group) -> usize {
        cell.lock().places.chain().iter().filter(|p| group.holds(p.meta_seq)).count()
    }

    /// Behind the end of a segment lies what is somebody else's. A frame that nobody has put anything into yet may stand there.
    #[test]
    fn a_step_that_carries_nothing_has_nothing_written_behind_a_segments_end() {
        const BLOCK: u64 = crate::format::BLOCK_BYTES;
        let disk = Arc::new(SimDisk::new(16 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
        let wal = options.queue_bytes(64 << 10).background(false).open_disk(disk.clone()).expect("formatted");
        let (wal, commit) = (Arc::new(wal), |wal: &Wal, batch: &mut Batch| wal.commit(batch).expect("committed"));
        let engine = &wal.engine;
        // Acknowledged, in chunks behind the journal's slabs.
        let entries: Vec<_> = (1..=20).map(|i| (i, 1, [i as u8; 9000])).collect();
        commit(&wal, Batch::new().append(1, &[(1, 1, b"entry")]).append(5, &entries));
        // On to the journal's last slab, until eleven blocks are left of it.
        let last = engine.superblock.lock().journal_slabs.iter().copied().max().expect("some");
        let behind = crate::format::POOL_OFFSET + (u64::from(last) + 1) * (64 << 10);
        let left = || {
            let s = engine.seq.lock();
            (s.open.offset, s.open.room)
        };
        while left() != (behind - 11 * BLOCK, 11 * BLOCK) {
            commit(&wal, Batch::new().put(2, b"small", &[1]));
        }
        let before = disk.kept_image();
        let ((held, is_held), (go, gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let gone = std::sync::Mutex::new(gone);
        disk.on_event(move |event| {
            if event.len == 11 * BLOCK {
                held.send(()).expect("the test waits");
                gone.lock().expect("no panic").recv().expect("the test lets it go");
            }
            None
        });
        let log = Arc::clone(&wal);
        let fills = std::thread::spawn(move || {
            let mut batch = Batch::new();
            (0..11).for_each(|key| _ = batch.put(2, &[key], &[7; 4000]));
            log.commit(&mut batch)
        });
        is_held.recv().expect("a frame that fills the segment");
        assert_eq!(left(), (behind, 0));
        let cell = engine.registry.get(1).expect("there");
        // As where its pieces in the group are behind thousands elsewhere, or what lay there was written anew a moment ago.
        let group = Group::new(engine.seq.lock().segments.live.iter().take(0), &engine.geo);
        assert_eq!(engine.carry_some_metadata(&cell, &group, 0).expect("no error"), Carried::UpTo(None));
        go.send(()).expect("it waits");
        fills.join().expect("no panic").expect("committed");
        // As whoever finds the queue full.
        engine.lead_one();
        let (at, after) = (behind as usize, disk.kept_image());
        assert!(before[at..at + 4096] == after[at..at + 4096], "written behind the segment");
        commit(&wal, Batch::new().put(2, b"small", &[2]));
        let report = wal.verify(|_| ()).expect("read");
        assert!(report.is_clean(), "{report:?}");
    }

    #[test]
    fn a_step_that_finds_no_room_has_nothing_written_over_the_superblock() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options().open_disk(disk.clone()).expect("formatted");
        wal.commit(Batch::new().append(1, &[(1, 1, b"entry")])).expect("committed");
        let disk = Arc::new(disk.crash_lost_all());
        let wal = options().open_disk(disk.clone()).expect("opened");
        let engine = &wal.engine;
        let cell = engine.registry.get(1).expect("there");
        let group = Group::new(engine.seq.lock().segments.live.iter(), &engine.geo);
        engine.seq.lock().segments.free.clear();
        let before = disk.kept_image();
        assert_eq!(engine.carry_some_metadata(&cell, &group, 0).expect("no error"), Carried::NoRoom);
        wal.sync().expect("nothing is to be written");
        assert!(before[..4096] == disk.kept_image()[..4096], "written over the first superblock");
    }

    /// Should it ever come to that: the log ends, and what lies there stays.
    #[test]
    fn a_frame_without_a_place_is_not_written() {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(disk.clone()).expect("formatted");
        wal.commit(Batch::new().append(1, &[(1, 1, b"entry")])).expect("committed");
        {
            let mut s = wal.engine.seq.lock();
            s.open.room = 0;
            s.open.batches = 1;
        }
        let before = disk.kept_image();
        assert!(matches!(wal.sync(), Err(crate::Error::Poisoned { .. })));
        assert!(before == disk.kept_image());
    }

    /// Should it ever come to that: one piece is damage then, and the log opens.
    #[test]
    fn no_descriptor_is_written_that_no_opening_would_read() {
        const ENTRIES: u64 = 40;
        let disk = Arc::new(SimDisk::new(16 << 20));
        let options = || Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
        let wal = options().background(false).open_disk(disk.clone()).expect("formatted");
        let entries: Vec<_> = (1..=ENTRIES).map(|i| (i, 1, [i as u8; 50])).collect();
        wal.commit(Batch::new().append(1, &entries)).expect("committed");
        let cell = wal.engine.registry.get(1).expect("there");
        assert_eq!(cell.lock().places.chain()[0].desc.last(), ENTRIES);
        let mut group = group(&wal);
        (2..=ENTRIES).for_each(|i| cell.lock().terms.set(i, i, i));
        assert!(wal.engine.clean_group(&mut group).expect("cleaned"));
        wal.commit(Batch::new().put(2, b"key", b"value")).expect("committed");
        drop((cell, wal));
        let wal = options().background(false).open_disk(Arc::new(disk.restart())).expect("opened");
        let lost = crate::Lost::Entries { first: MAX_TERM_RUNS as u64 + 1, last: ENTRIES };
        assert_eq!(wal.damage(), [crate::Damage { replica: 1, lost }]);
        assert_eq!(wal.replica(1).term(MAX_TERM_RUNS as u64).expect("named"), MAX_TERM_RUNS as u64);
    }

    /// A replica may have hundreds of thousands: callers wait for a few.
    #[test]
    fn descriptors_are_carried_a_few_at_a_time_whatever_becomes_of_the_replica_between() {
        let (disk, wal) = log();
        let engine = &wal.engine;
        let cell = engine.registry.get(1).expect("there");
        let (mut first, mut last) = (1, PIECES);
        for turn in 0..2 {
            let mut group = group(&wal);
            let (mut rest, mut steps) = (Some(0), 0);
            while let Some(from) = rest {
                let before = left(&cell, &group);
                let Carried::UpTo(next) = engine.carry_some_metadata(&cell, &group, from).expect("no error") else {
                    panic!("there is room")
                };
                let carried = before - left(&cell, &group);
                assert!((1..=64).contains(&carried), "turn {turn}: {carried} in step {steps}");
                (rest, steps) = (next, steps + 1);
                match steps {
                    // Of what was carried, and of what was not: truncated, and overwritten.
                    1 => {
                        first += 7;
                        wal.commit(Batch::new().truncate_prefix(1, first)).expect("committed");
                    }
                    2 => {
                        place(&wal, 1, last - 20..last - 9);
                        last -= 10;
                    }
                    _ => {}
                }
            }
            assert!(steps > 4, "{steps} steps");
            assert_eq!(left(&cell, &group), 0);
            assert!(engine.clean_group(&mut group).expect("cleaned"));
            engine.seal(Class::Clean).expect("sealed");
        }
        let after = Arc::new(disk.crash_lost_all());
        let wal = Wal::options().background(false).open_disk(after).expect("opened");
        assert_eq!((wal.replica(1).first_index(), wal.replica(1).last_index()), (first, last));
        assert!(wal.damage().is_empty(), "{:?}", wal.damage());
        for i in first..=last {
            assert_eq!(wal.replica(1).entry(i).expect("kept").data, [i as u8; 3000][..]);
        }
    }

    /// Most of them may lie elsewhere: they are passed over a few at a time, too.
    #[test]
    fn few_descriptors_are_looked_at_while_callers_wait() {
        const MANY: u64 = 10_000;
        let (_, wal) = log();
        let engine = &wal.engine;
        wal.commit(Batch::new().append(9, &[(1, 1, b"entry")])).expect("committed");
        let cell = engine.registry.get(9).expect("there");
        let group = group(&wal);
        let oldest = engine.seq.lock().segments.tail();
        for first in 2..MANY {
            let (id, meta_seq) = (first, if first == 9000 { oldest } else { u64::MAX });
            let (terms, extents) = (TermRuns::new(), Extents::new());
            let desc = PieceDesc { id, first, count: 1, slots: 1, bare: false, bytes: 100, crc: 0, terms, extents };
            assert!(cell.lock().places.set_chain(ChainPiece { desc, meta_seq, mem: None }, 4096));
        }
        assert_eq!(left(&cell, &group), 2, "one of these, and that of the entry");
        let (mut rest, mut steps) = (Some(0), 0);
        while let Some(from) = rest {
            let carried = engine.carry_some_metadata(&cell, &group, from).expect("no error");
            let Carried::UpTo(next) = carried else { panic!("there is room") };
            let state = cell.lock();
            let looked = state.places.pieces_from(from).take_while(|p| next.is_none_or(|next| p.desc.first < next));
            assert!((1..=MOST_LOOKED_AT).contains(&looked.count()), "from {from} to {next:?}");
            (rest, steps) = (next, steps + 1);
        }
        assert_eq!((left(&cell, &group), steps), (0, 3));
    }

    #[test]
    fn nothing_more_is_carried_of_a_replica_that_was_removed_between() {
        for anew in [false, true] {
            let (_, wal) = log();
            let cell = wal.engine.registry.get(1).expect("there");
            let group = group(&wal);
            let carried = wal.engine.carry_some_metadata(&cell, &group, 0).expect("no error");
            let Carried::UpTo(Some(from)) = carried else { panic!("{carried:?}") };
            wal.commit(Batch::new().remove(1)).expect("committed");
            if anew {
                place(&wal, 1, 1..from + 50);
            }
            let named = wal.engine.seq.lock().open.table.clone();
            let carried = wal.engine.carry_some_metadata(&cell, &group, from).expect("no error");
            assert_eq!(carried, Carried::UpTo(None));
            assert_eq!(wal.engine.seq.lock().open.table, named, "anew: {anew}");
        }
    }
}
