//! Every bound of a snapshot: it is hostile until it has been compared with everything.

use super::decode::Decoder;
use super::load::{Doubt, decode, load};
use super::longest;
use crate::disk::sim::SimDisk;
use crate::disk::{BLOCK, Disk};
use crate::engine::Geometry;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Snapshot, Superblock};
use crate::index::{ChainPiece, ReplicaState, Value};
use crate::journal::LiveSegment;
use crate::sync::{Arc, Mutex};
use crate::{Batch, Options, Wal};

fn options() -> Options {
    Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10).background(false)
}

/// A closed log that holds something of every kind, its superblock, and its snapshot.
struct Closed {
    disk: Arc<SimDisk>,
    sb: Superblock,
    bytes: Vec<u8>,
}

impl Closed {
    fn make() -> Self {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = options().open_disk(disk.clone()).expect("formatted");
        let commit = |batch: &mut Batch| {
            wal.commit(batch).expect("committed");
        };
        let mut batch = Batch::new();
        commit(batch.append(3, &[(1, 1, [1; 300]), (2, 1, [2; 300]), (3, 2, [3; 300])]).put(3, b"state", b"voted"));
        commit(batch.append(4, &[(1, 1, vec![4; 9000])]).put(4, b"large", &[5; 6000]).append(9, &[(1, 7, b"")]));
        commit(
            batch.append(3, &[(4, 2, vec![6; 10]), (5, 2, vec![7; 200]), (6, 2, vec![8; 30])]).truncate_prefix(3, 2),
        );
        commit(batch.append(5, &[(1, 1, vec![9; 5])]));
        commit(batch.remove(5));
        commit(batch.install_snapshot(70_000, 50, 5).append(70_000, &[(51, 6, [10; 60])]));
        wal.checkpoint().expect("cleaned");
        commit(batch.append(3, &[(7, 2, [11; 44])]).append(4, &[(2, 1, [12; 44]), (3, 1, [13; 44])]));
        // What is known to be lost is in it, too.
        wal.engine.registry.get(9).expect("there").lock().add_damage(1, 1);
        wal.close().expect("closed");
        Self::find(Arc::new(disk.restart()))
    }

    fn find(disk: Arc<SimDisk>) -> Self {
        let image = disk.kept_image();
        let sb = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("whole");
        let at = |offset: u64, len: usize| image[offset as usize..][..len].to_vec();
        let snapshot = sb.snapshot.as_ref().expect("closed");
        let mut bytes: Vec<u8> = snapshot.extents.iter().flat_map(|e| at(e.offset(), e.bytes() as usize)).collect();
        bytes.truncate(snapshot.bytes as usize);
        Self { disk, sb, bytes }
    }

    fn geo(&self) -> Geometry {
        Geometry::new(&self.sb)
    }

    fn named(&self) -> &Snapshot {
        self.sb.snapshot.as_ref().expect("closed")
    }

    /// Whether these bytes are believed as the snapshot; their checksum holds.
    fn believes(&self, bytes: &[u8]) -> Result<(), Doubt> {
        let crc = Snapshot::checksum(self.sb.seed(), self.sb.epoch, bytes);
        let named = Snapshot { crc, bytes: bytes.len() as u64, ..self.named().clone() };
        let loaded = decode(&self.geo(), &self.sb, &named, bytes)?;
        loaded.cells.iter().for_each(|cell| sound(&cell.lock()));
        Ok(())
    }

    /// The disk, with these bytes as its snapshot, and a checksum that holds.
    fn with(&self, bytes: &[u8]) -> Arc<SimDisk> {
        let disk = Arc::new(self.disk.restart());
        let crc = Snapshot::checksum(self.sb.seed(), self.sb.epoch, bytes);
        let named = Snapshot { crc, bytes: bytes.len() as u64, ..self.named().clone() };
        let mut rest = bytes;
        for extent in &named.extents {
            let (part, tail) = rest.split_at(rest.len().min(extent.bytes() as usize));
            disk.poke(extent.offset(), part);
            rest = tail;
        }
        let sb = Superblock { snapshot: Some(named), ..self.sb.clone() };
        SUPERBLOCK_OFFSETS.into_iter().for_each(|offset| disk.poke(offset, &sb.encode()));
        disk
    }
}

/// What the engine takes for granted.
fn sound(state: &ReplicaState) {
    assert!(state.exists && state.first > 0 && state.last >= state.first - 1);
    let known = |low, high| state.damaged.iter().any(|&(a, b)| a <= low && high <= b);
    for (low, high) in state.places.holes(state.first, state.last) {
        assert!(known(low, high), "{low}..={high} is nowhere");
    }
    for span in state.places.spans().iter() {
        assert!(span.first() >= state.first && span.last() <= state.last);
        let chain = state.places.chain();
        let apart = |p: &ChainPiece| p.desc.last() < span.first() || p.desc.first > span.last();
        assert!(chain.iter().all(apart), "one index in two places");
    }
}

#[test]
fn what_was_written_is_read_back() {
    let closed = Closed::make();
    let loaded = load(&*closed.disk, &closed.geo(), &closed.sb, closed.named()).expect("believed");
    loaded.cells.iter().for_each(|cell| sound(&cell.lock()));
    let ids: Vec<u64> = loaded.cells.iter().map(|cell| cell.id).collect();
    assert_eq!(ids, [3, 4, 9, 70_000]);
    let cells = [3, 4, 9, 70_000].map(|id| loaded.registry.get(id).expect("there"));
    let [three, four, nine, many] = cells.each_ref().map(|cell| cell.lock());
    assert_eq!((three.first, three.last, three.prev_term), (2, 7, 1));
    assert_eq!(three.terms.iter().collect::<Vec<_>>(), [(2, 1), (3, 2)]);
    assert_eq!((many.first, many.last, many.prev_term), (51, 51, 5));
    assert_eq!(*nine.damaged, [(1, 1)]);
    assert!(four.places.chain().len() == 1 && four.keys.len() == 1);
    let spans = three.places.spans();
    assert_eq!(spans.iter().map(|s| s.locs().len()).sum::<usize>(), 6);
    // A replica with something live in a segment takes part in it, and none does twice.
    for segment in &loaded.segments {
        let mut ids = segment.participants.clone();
        ids.dedup();
        assert_eq!(ids, segment.participants);
    }
    let newest = loaded.segments.back().expect("one at least");
    let segment = closed.geo().segment_bytes;
    assert!(newest.participants.contains(&3) && three.listed_frame / segment == newest.seq);
    assert_eq!(newest.seq, loaded.last.lsn / segment);
}

/// Longer than what is read at once, and its parts are read by several threads.
#[test]
fn a_large_snapshot_is_read_back() {
    let disk = Arc::new(SimDisk::new(32 << 20));
    let options = Wal::options().segment_size(1 << 20).chunk_size(64 << 10).background(false);
    let wal = options.open_disk(disk.clone()).expect("formatted");
    let value = |id: u64| [id as u8, (id >> 8) as u8].repeat(100);
    let mut batch = Batch::new();
    for id in 0..4000 {
        batch.put(id, b"state", &value(id));
        if id % 500 == 499 {
            wal.commit(&mut batch).expect("committed");
        }
    }
    wal.close().expect("closed");
    let closed = Closed::find(Arc::new(disk.restart()));
    assert!(closed.bytes.len() > 800 << 10 && closed.named().extents.len() == 1, "{:?}", closed.named());
    let loaded = load(&*closed.disk, &closed.geo(), &closed.sb, closed.named()).expect("believed");
    assert_eq!(loaded.cells.len(), 4000);
    for cell in &loaded.cells {
        let state = cell.lock();
        assert!(matches!(state.keys.get(b"state"), Some(Value::Inline(v)) if *v == value(cell.id)), "{}", cell.id);
    }
}

#[test]
fn a_session_that_writes_nothing_leaves_a_snapshot_too() {
    let closed = Closed::make();
    let wal = options().open_disk(closed.disk.clone()).expect("opened");
    wal.close().expect("closed");
    let again = Closed::find(Arc::new(closed.disk.restart()));
    assert!(again.sb.epoch > closed.sb.epoch);
    let loaded = load(&*again.disk, &again.geo(), &again.sb, again.named()).expect("believed");
    assert_eq!(loaded.cells.len(), 4);
}

#[test]
fn a_log_that_is_in_use_or_not_settled_or_lost_frames_or_is_too_large_has_no_snapshot() {
    let wal = options().open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    wal.commit(Batch::new().append(1, &[(1, 1, [1; 300])])).expect("committed");
    let engine = &wal.engine;
    let superblock = engine.superblock.lock().clone();
    let encoded = |superblock: &Superblock| engine.encode_snapshot(superblock, &mut Vec::new());
    assert_eq!(encoded(&superblock), None, "in use");
    wal.close().expect("closed");
    let last = engine.seq.lock().prev.map(|last| last.lsn);
    let is_encoded = || last.is_some() && encoded(&superblock) == last;
    assert!(is_encoded());
    assert_eq!(encoded(&Superblock { journal_slabs: Vec::new(), ..superblock.clone() }), None, "more than the journal");
    engine.counters.lost_frames.set(1);
    assert_eq!(encoded(&superblock), None, "what is lost may be found");
    engine.counters.lost_frames.set(0);
    engine.seq.lock().open.batches = 1;
    assert_eq!(encoded(&superblock), None, "not all of it was written");
    engine.seq.lock().open.batches = 0;
    assert!(is_encoded());
    let chunk = engine.pool.lock().allocate(1, &mut None).expect("free");
    engine.pool.lock().unlink(u64::MAX, chunk.to_vec());
    assert_eq!(encoded(&superblock), None, "what died may still be wanted");
    engine.pool.lock().release(u64::MAX, &engine.pins);
    assert!(is_encoded());
    // A segment that was opened, and has no frame yet.
    let bytes = || {
        let mut out = Vec::new();
        engine.encode_snapshot(&superblock, &mut out).map(|_| out)
    };
    let before = bytes();
    let seq = engine.seq.lock().segments.next_seq;
    let opened = LiveSegment { seq, slab: superblock.journal_slabs[5], participants: Vec::new() };
    engine.seq.lock().segments.live.push_back(opened);
    assert!(before.is_some() && bytes() == before, "it is none of those that are named");
    engine.seq.lock().segments.live.pop_back();
    let front = engine.seq.lock().segments.live.pop_front().expect("one");
    engine.seq.lock().segments.leaving.push_back((front.seq, front.slab));
    assert_eq!(encoded(&superblock), None, "no frame has named the new tail");
}

/// What nobody writes nobody reads: an opening takes no more memory than without a snapshot.
#[test]
fn one_longer_than_the_journal_is_not_even_read() {
    let closed = Closed::make();
    let read = Arc::new(Mutex::new(0));
    let log = Arc::clone(&read);
    closed.disk.on_read(move |_, buf| {
        *log.lock() += buf.len() as u64;
        Ok(())
    });
    let load = |bytes| load(&*closed.disk, &closed.geo(), &closed.sb, &Snapshot { bytes, ..closed.named().clone() });
    let longest = longest(&closed.geo(), &closed.sb);
    for (bytes, is_read) in [(longest - 1, true), (longest, true), (longest + 1, false), (u64::MAX, false)] {
        assert!(load(bytes).is_none(), "it is not what the checksum is of");
        assert_eq!(std::mem::take(&mut *read.lock()) > 0, is_read, "{bytes}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let closed = Closed::make();
    assert!(closed.believes(&closed.bytes).is_ok());
    for bit in 0..closed.bytes.len() * 8 {
        let mut bytes = closed.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = decode(&closed.geo(), &closed.sb, closed.named(), &bytes);
        assert!(matches!(refused, Err(Doubt::Checksum)), "bit {bit}");
    }
    let sb = Superblock { epoch: closed.sb.epoch + 1, ..closed.sb.clone() };
    let refused = decode(&closed.geo(), &sb, closed.named(), &closed.bytes);
    assert!(matches!(refused, Err(Doubt::Checksum)), "another epoch's");
}

#[test]
fn one_that_is_cut_short_or_goes_on_is_refused_though_its_checksum_holds() {
    let closed = Closed::make();
    for len in 0..closed.bytes.len() {
        assert!(closed.believes(&closed.bytes[..len]).is_err(), "{len} bytes of {}", closed.bytes.len());
    }
    let longer = [&closed.bytes[..], &[0]].concat();
    assert!(matches!(closed.believes(&longer), Err(Doubt::End)));
}

/// Lies whose checksum holds: refused, or the engine can live with them. Nothing panics, whatever is done to such a log.
#[test]
fn every_byte_may_lie() {
    let closed = Closed::make();
    let mut believed = 0;
    for at in 0..closed.bytes.len() {
        for change in [1, 2, 0x7f, 0x80, 0xff] {
            let mut bytes = closed.bytes.clone();
            bytes[at] ^= change;
            if closed.believes(&bytes).is_err() {
                continue;
            }
            believed += 1;
            let wal = options().open_disk(closed.with(&bytes)).expect("opens");
            for id in wal.replicas() {
                let (first, last) = wal.replica(id).bounds();
                let _ = (wal.replica(id).entries(first..last.saturating_add(1), 1 << 20), wal.replica(id).term(first));
                drop(wal.commit(Batch::new().put(id, b"k", b"v").append(id, &[(last.saturating_add(1), 9, b"more")])));
            }
            wal.checkpoint().expect("cleaned");
            let report = wal.verify(|_| ()).expect("readable");
            assert_eq!(report.accounting, Vec::<String>::new(), "byte {at} ^ {change:#x}");
        }
    }
    assert!(believed > 0, "some lies cannot be told from the truth");
}

/// Numbers that no byte count bears out.
#[test]
fn a_count_without_end_takes_no_memory() {
    let closed = Closed::make();
    let geo = closed.geo();
    // From the last count of the head on: everything of the replicas is replaced.
    let decoder = Decoder::new(&closed.bytes, &geo, &closed.sb, closed.named().lsn).expect("its head");
    let replicas = closed.bytes.len() - decoder.rest();
    let head = &closed.bytes[..replicas - 1];
    assert_eq!(closed.bytes[replicas - 1], 4, "so many replicas");
    let ten = |value: u64| {
        let mut out = Vec::new();
        crate::format::varint::encode(value, &mut out);
        out
    };
    let many = ten(u64::MAX);
    let replica = |first: u64, entries: u64, tail: &[&[u8]]| {
        let fixed = [&ten(7)[..], &[0; 8], &ten(first), &ten(entries), &[0], &[0; 2], &[0], &[0]].concat();
        [&[head, &[1], &fixed][..], tail].concat().concat()
    };
    // No damage, terms, pieces, spans or keys: an empty replica.
    assert!(closed.believes(&replica(1, 0, &[&[0, 0, 0, 0, 0]])).is_ok());
    let gap = (closed.named().lsn % geo.segment_bytes).min(128) * 2;
    let lies: [(&str, Vec<u8>); 10] = [
        ("replicas", [head, &many, &[0; 40]].concat()),
        ("damaged ranges", replica(1, 0, &[&many, &[0; 40]])),
        ("terms", replica(1, 0, &[&[0], &many, &[1; 40]])),
        ("pieces", replica(1, 0, &[&[0, 0], &many, &[0; 40]])),
        ("spans", replica(1, 0, &[&[0, 0, 0], &many, &[0; 40]])),
        (
            "entries of a span",
            replica(1, u64::MAX - 1, &[&[0, 0, 0, 1, 0], &ten(u64::MAX - 1), &ten(4 << 2 | 1), &ten(gap), &[0]]),
        ),
        (
            "entries of a run",
            replica(1, 1 << 40, &[&[0, 0, 0, 1, 0], &ten(1 << 40), &ten(1 << 42 | 1), &ten(gap), &[0]]),
        ),
        ("each of a run", replica(1, 1 << 40, &[&[0, 0, 0, 1, 0], &ten(1 << 40), &ten(1 << 42 | 2), &ten(gap), &[0]])),
        ("keys", replica(1, 0, &[&[0, 0, 0, 0], &many, &[0; 40]])),
        ("a key", replica(1, 0, &[&[0, 0, 0, 0, 1, 0], &many, &[0; 40]])),
    ];
    for (what, bytes) in lies {
        assert!(matches!(closed.believes(&bytes), Err(Doubt::Replica)), "{what}: {:?}", closed.believes(&bytes));
    }
}

/// The same bytes of the journal named again and again: each time they would cost memory anew.
#[test]
fn no_more_entries_than_the_journal_has_bytes() {
    let closed = Closed::make();
    let geo = closed.geo();
    let decoder = Decoder::new(&closed.bytes, &geo, &closed.sb, closed.named().lsn).expect("its head");
    let head = &closed.bytes[..closed.bytes.len() - decoder.rest() - 1];
    let number = |value: u64| {
        let mut out = Vec::new();
        crate::format::varint::encode(value, &mut out);
        out
    };
    // From behind the first header of the oldest live segment to the end of the log, in empty entries.
    let (first, last) = (decoder.head.segments[0].0 * geo.segment_bytes + 128, decoder.head.last.end());
    let each = (last - first).min(geo.segment_bytes - 128) / 4;
    let most = longest(&geo, &closed.sb) / 4;
    let lie = |runs: u64| {
        let mut out = [head, &[1]].concat();
        for part in
            [&number(7)[..], &[0; 8], &number(1), &number(runs * each), &[0], &[0; 2], &[0], &[0], &[0, 0, 0, 1, 0]]
        {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&number(runs * each));
        for run in 0..runs {
            out.extend_from_slice(&number(each << 2));
            // Forward from the front of the segment once, and back each time.
            out.extend_from_slice(&number(if run == 0 { 2 * 128 } else { 2 * 4 * each - 1 }));
        }
        out.push(0);
        closed.believes(&out).is_ok()
    };
    assert!(lie(1) && lie(most / each), "these might be there");
    assert!(!lie(most / each + 1));
}

/// What is compared with the journal: a front, the last frame, what lies behind it.
#[test]
fn a_journal_that_says_otherwise_is_believed() {
    let closed = Closed::make();
    let (geo, lsn) = (closed.geo(), closed.named().lsn);
    let believes = |disk: &SimDisk| load(disk, &geo, &closed.sb, closed.named()).is_some();
    assert!(believes(&closed.disk));
    let loaded = load(&*closed.disk, &geo, &closed.sb, closed.named()).expect("believed");
    let newest = loaded.segments.back().expect("one");
    let last = closed.sb.slab_offset(newest.slab) + lsn % geo.segment_bytes;
    let behind = last + loaded.last.bytes();
    let after = |header: crate::format::frame::FrameHeader, offset: u64| {
        let disk = closed.disk.restart();
        let mut block = vec![0; BLOCK];
        header.encode(geo.seed, &mut block);
        disk.poke(offset, &block);
        disk
    };
    let next = crate::format::frame::FrameHeader { lsn: loaded.last.end(), ..loaded.last };
    let session = |n: i64| next.session.wrapping_add_signed(n << 32);
    assert!(behind < closed.sb.slab_offset(newest.slab) + geo.segment_bytes);
    assert!(!believes(&after(next, behind)), "the same session went on");
    assert!(
        !believes(&after(crate::format::frame::FrameHeader { session: session(1), ..next }, behind)),
        "a later one"
    );
    assert!(believes(&after(crate::format::frame::FrameHeader { session: session(-1), ..next }, behind)), "void");
    // The front of a slab that is free.
    let free = closed.sb.journal_slabs.iter().find(|&&s| loaded.segments.iter().all(|l| l.slab != s));
    let free = closed.sb.slab_offset(*free.expect("one is free"));
    let fresh = crate::format::frame::FrameHeader { lsn: loaded.next_seq * geo.segment_bytes, ..next };
    assert!(!believes(&after(fresh, free)));
    assert!(believes(&after(crate::format::frame::FrameHeader { session: session(-1), ..fresh }, free)));
    // Rot where it looks.
    for (what, at) in [("the last frame", last), ("the front of a live segment", closed.sb.slab_offset(newest.slab))] {
        let disk = closed.disk.restart();
        disk.flip_bit(at + 20, 3);
        assert!(!believes(&disk), "{what}");
    }
    let disk = closed.disk.restart();
    disk.fail_reads(behind..behind + 1, crate::disk::sim::EIO);
    assert!(!believes(&disk), "unreadable");
    assert!(Disk::len(&disk) > 0);
}

/// An opening that believed the snapshot would accept what is committed behind it, and the next one would find that lost.
#[test]
fn a_log_whose_superblocks_say_that_it_was_durable_beyond_its_end_is_refused_at_once() {
    let closed = Closed::make();
    let refused = |durable: u64| {
        let disk = closed.disk.restart();
        let sb = Superblock { durable, ..closed.sb.clone() };
        SUPERBLOCK_OFFSETS.into_iter().for_each(|at| disk.poke(at, &sb.encode()));
        options().open_disk(Arc::new(disk)).err()
    };
    assert!(refused(closed.sb.durable).is_none());
    let why = refused(1 << 40);
    assert!(matches!(why, Some(crate::Error::Corrupt { .. })), "{why:?}");
}
