//! Slabs change hands, and superblocks that fail meanwhile.

use super::*;
use crate::disk::Writer;
use crate::disk::sim::{Choice, EIO, Fault, SimDisk};
use crate::format::superblock::SUPERBLOCK_OFFSETS;
use crate::sync::Arc;

/// Notes who makes something durable, and how.
#[derive(Debug)]
struct Noted(SimDisk, crate::sync::Mutex<Vec<&'static str>>);

impl crate::disk::Disk for Noted {
    fn len(&self) -> u64 {
        crate::disk::Disk::len(&self.0)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.1.lock().push("write");
        self.0.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.1.lock().push("durable write");
        self.0.write_durable_at(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.1.lock().push("flush");
        self.0.flush()
    }
    fn flush_of(&self, writer: Writer) -> std::io::Result<()> {
        assert_eq!(writer, Writer::Pieces);
        self.1.lock().push("flush of pieces");
        self.0.flush()
    }
    fn write_durable_of(&self, writer: Writer, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        assert_eq!(writer, Writer::Superblocks);
        self.1.lock().push("durable write of a superblock");
        self.0.write_durable_at(offset, buf)
    }
    fn map(&self) -> Option<Arc<crate::disk::Map>> {
        None
    }
    fn info(&self) -> crate::disk::DiskInfo {
        self.0.info()
    }
    fn release(&self) {}
}

/// The system must not report errors of frames' writes to the writer of superblocks instead.
#[test]
fn superblocks_are_made_durable_apart_from_frames() {
    let disk = Arc::new(Noted(SimDisk::new(8 << 20), Default::default()));
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(1 << 20).background(false);
    let wal = options.open_disk(Arc::clone(&disk) as Arc<dyn crate::disk::Disk>).expect("formatted");
    disk.1.lock().clear();
    assert!(wal.engine.take_slabs(1, 0).expect("written"));
    assert_eq!(*disk.1.lock(), ["durable write of a superblock"; 2]);
}

/// Nor to the cleaner.
#[test]
fn pieces_are_made_durable_apart_from_frames() {
    let disk = Arc::new(Noted(SimDisk::new(8 << 20), Default::default()));
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Journal);
    let wal = options.background(false).open_disk(Arc::clone(&disk) as Arc<dyn crate::disk::Disk>).expect("formatted");
    for index in 1..=30 {
        wal.commit(crate::Batch::new().append(1, &[(index, 1, [7; 9000])])).expect("committed");
    }
    disk.1.lock().clear();
    wal.checkpoint().expect("cleaned");
    let noted = disk.1.lock();
    assert!(noted.contains(&"flush of pieces") && !noted.contains(&"flush"), "{noted:?}");
}

#[test]
fn the_journal_takes_several_slabs_at_a_time_and_no_more_than_its_cap() {
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(20 * (64 << 10));
    let wal = options.background(false).open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let slabs = || wal.stats().journal_segments;
    let mut sizes = vec![slabs()];
    while wal.engine.take_slabs(5, 0).expect("written") {
        sizes.push(slabs());
    }
    let floor = sizes[0];
    assert_eq!(sizes, [floor, floor + 5, floor + 10, 20], "one step is cut short");
    // Frames name the slabs of the next two segments: none of these is given back.
    let named = || {
        let s = wal.engine.seq.lock();
        s.segments.following(s.segments.current())
    };
    let before = named();
    while wal.engine.shrink_journal().expect("written") {}
    assert_eq!((slabs(), named()), (floor, before));
    assert!(before.iter().all(Option::is_some));
}

/// However often it is asked to.
#[test]
fn the_journal_gives_up_no_slab_that_what_it_carries_needs() {
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
    let floor = wal.stats().journal_segments;
    for replica in 1.. {
        wal.commit(crate::Batch::new().append(replica, &[(1, 1, [1; 300])])).expect("room");
        if wal.stats().journal_segments > floor + 6 {
            break;
        }
    }
    while wal.engine.take_slabs(4, 0).expect("written") {}
    wal.checkpoint().expect("cleaned");
    while wal.engine.shrink_journal().expect("written") {}
    let stats = wal.stats();
    assert!(stats.journal_segments > floor, "{stats:#?}");
    assert!(stats.carried_class_bytes <= stats.carried_class_limit, "{stats:#?}");
}

/// If hardly anything stays alive, as many writes let it grow to `least` only.
#[test]
fn the_journal_cycles_through_several_times_what_it_carries() {
    let segments_after = |live: u64| {
        let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let mut wal = options.open_disk(Arc::new(SimDisk::new(64 << 20))).expect("formatted");
        let floor = wal.stats().journal_segments;
        let cycle = crate::options::Cycle::between(floor as u32 + 4, floor as u32 + 40, 64 << 10);
        Arc::get_mut(&mut wal.engine).expect("nobody else's").geo.cycle = cycle;
        for index in 1..=30_u64 {
            for replica in 1..=600 {
                let first = (index + 1).saturating_sub(live).max(1);
                let mut batch = crate::Batch::new();
                batch.append(replica, &[(index, 1, [1; 400])]).truncate_prefix(replica, first);
                wal.commit(&mut batch).expect("room");
            }
        }
        let stats = wal.stats();
        (stats.journal_segments - floor, stats.carried_class_bytes.div_ceil(64 << 10), floor)
    };
    let (little, carried, floor) = segments_after(1);
    assert!(5 * carried <= floor + 4 && little == 4, "{little} segments more for {carried} carried");
    let (more, carried, floor) = segments_after(4);
    let wish = 5 * carried - floor;
    assert!((10..=38).contains(&wish) && 3 * carried < floor, "between the bounds, and no want of room: {carried}");
    assert!(more.abs_diff(wish) <= 5, "{more} segments more for {carried} carried: {wish} were meant");
}

#[test]
fn what_the_journal_took_to_move_less_it_gives_back_before_chunks_are_short() {
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).placement(crate::Placement::Chain);
    let options = options.background(false);
    let mut wal = options.open_disk(Arc::new(SimDisk::new(16 << 20))).expect("formatted");
    let least = wal.stats().journal_segments as u32 + 2;
    Arc::get_mut(&mut wal.engine).expect("nobody else's").geo.cycle =
        crate::options::Cycle::between(least, least + 40, 64 << 10);
    let engine = &wal.engine;
    assert!(engine.take_slabs(12, 0).expect("written"));
    let slabs = || wal.stats().journal_segments as u32;
    let (eighth, mut seen) = (engine.eighths(1), vec![slabs()]);
    for index in 1.. {
        wal.checkpoint().expect("cleaned");
        engine.give_back().expect("written");
        if slabs() != *seen.last().expect("one") {
            seen.push(slabs());
            assert!(engine.unreserved() >= eighth, "{} of {eighth}: {seen:?}", engine.unreserved());
        }
        if slabs() == least {
            break;
        }
        assert!(engine.unreserved() > eighth / 2, "given back by now: {seen:?}");
        wal.commit(crate::Batch::new().append(1, &[(index, 1, vec![1; 32 << 10])])).expect("room");
    }
    assert!(seen.len() > 5, "a slab or two at a time: {seen:?}");
    for index in wal.replica(1).last_index() + 1.. {
        if engine.unreserved() < eighth / 2 {
            break;
        }
        wal.commit(crate::Batch::new().append(1, &[(index, 1, vec![1; 32 << 10])])).expect("room");
    }
    wal.checkpoint().expect("cleaned");
    engine.give_back().expect("written");
    assert_eq!(slabs(), least, "the rest only when an append would be refused");
}

/// Growing to move less leaves more to the chains than growing for what is carried: the refusal of one says nothing of the other.
#[test]
fn a_journal_refused_growth_for_cycling_may_grow_for_what_it_carries() {
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
    let engine = &wal.engine;
    let spare = || engine.pool.lock().free() - engine.value_reserve;
    let may_grow = || engine.seq.lock().accounts.may_grow(spare());
    assert!(!engine.take_slabs(1, spare()).expect("nothing to write"), "all are to be left");
    assert!(may_grow() && engine.take_slabs(1, 0).expect("written"));
    while engine.take_slabs(1, 0).expect("written") {}
    assert!(!may_grow());
}

#[test]
fn slabs_for_which_no_superblock_could_be_written_are_where_they_were() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = options.open_disk(disk.clone()).expect("formatted");
    let space = || (wal.stats().free_chunks, wal.stats().journal_segments);
    let before = space();
    disk.on_event(|e| (e.offset == SUPERBLOCK_OFFSETS[1] && e.len > 0).then_some(Fault::Error(EIO)));
    wal.engine.take_slabs(2, 0).expect_err("B fails");
    assert_eq!(space(), before);
}

/// The cleaner's B failed; a caller that waited for the lock meanwhile wrote A: then a power cut left neither.
#[test]
fn after_a_superblock_that_failed_the_other_is_left_alone() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let open = |disk| crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false).open_disk(disk);
    let wal = open(disk.clone()).expect("formatted");
    wal.commit(crate::Batch::new().put(1, b"k", b"v")).expect("committed");
    disk.on_event(|e| (e.offset == SUPERBLOCK_OFFSETS[1] && e.len > 0).then_some(Fault::Error(EIO)));
    wal.engine.mark_durable(wal.durable_lsn().get()).expect_err("B fails");
    let events = disk.events();
    let again = wal.engine.mark_durable(wal.durable_lsn().get());
    assert!(matches!(again, Err(crate::Error::Poisoned { .. })), "{again:?}");
    assert_eq!(disk.events(), events, "nothing is written after the failure");
    let wal = open(Arc::new(disk.crash(&mut |sector, _| Choice::Garbage(sector)))).expect("A is whole");
    assert_eq!(wal.replica(1).get(b"k").expect("readable"), Some(b"v"[..].into()));
}

/// A callback that asks for the superblock must not wait for the very thread that calls it.
#[test]
fn who_is_told_that_a_superblock_failed_may_ask_for_it() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let wal = Arc::new(options.open_disk(disk.clone()).expect("formatted"));
    let (tell, told) = std::sync::mpsc::channel();
    let log = Arc::clone(&wal);
    let done = move |outcome: Result<crate::Lsn>| {
        let space = (log.uuid(), log.space_map().is_empty(), log.layout().is_empty());
        tell.send((outcome, space)).expect("heard");
    };
    wal.submit_with(crate::Batch::new().put(1, b"k", b"v"), done).expect("submitted");
    disk.on_event(|e| (e.offset == SUPERBLOCK_OFFSETS[1] && e.len > 0).then_some(Fault::Error(EIO)));
    let log = Arc::clone(&wal);
    std::thread::spawn(move || log.engine.grow_for_carried(log.stats().carried_class_limit));
    let told = told.recv_timeout(std::time::Duration::from_secs(30)).expect("it does not wait for itself");
    assert!(matches!(told.0, Err(crate::Error::Poisoned { .. })), "{told:?}");
    assert_eq!(told.1, (wal.uuid(), false, false));
}

const SLABS: u32 = 400;

fn open_dense(disk: &Arc<SimDisk>) -> crate::Wal {
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(64 << 10).carry_fraction(50);
    let options = options.journal_cap(u64::from(SLABS) * (64 << 10)).background(false);
    options.open_disk(disk.clone()).expect("it opens")
}

/// Segments full of replicas that reserve a chunk each; then all of them become small at once, while no more is free than the cleaner
/// needed for them before.
fn dense(disk: &Arc<SimDisk>) -> crate::Wal {
    let wal = open_dense(disk);
    while wal.engine.take_slabs(SLABS, 0).expect("written") {}
    assert_eq!(wal.stats().journal_segments, u64::from(SLABS));
    // Its first entry makes each just too large to be carried.
    let lens: Vec<usize> = [29].into_iter().chain([500; 26]).chain([391]).collect();
    for replica in 1..=290_u64 {
        for (n, lens) in (0..).zip(lens.chunks(7)) {
            let entries: Vec<_> =
                (7 * n + 1..).zip(lens).map(|(index, &len)| (index, 1, vec![replica as u8; len])).collect();
            drop(wal.submit(crate::Batch::new().append(replica, &entries)).expect("room"));
        }
    }
    wal.sync().expect("written");
    let (stats, cleaning) = (wal.stats(), wal.engine.seq.lock().accounts.cleaning());
    assert_eq!((stats.reserved_chunks - stats.reserved_for_values, cleaning), (290, 0));
    for n in 0.. {
        if wal.stats().free_segments == 2 {
            break;
        }
        wal.commit(crate::Batch::new().put(1000, b"key", &[n as u8; 4000])).expect("room");
    }
    let mut batch = crate::Batch::new();
    for replica in 1..=290 {
        batch.truncate_prefix(replica, 2);
    }
    wal.commit(&mut batch).expect("nothing grows");
    let stats = wal.stats();
    assert_eq!((stats.free_segments, stats.segments_cleaned), (2, 0));
    wal
}

/// If they were carried, each of these segments would take more than it gives, out of what nobody has kept back.
fn gets_around(wal: &crate::Wal) {
    wal.commit(crate::Batch::new().remove(1)).expect("what frees is never refused");
    wal.checkpoint().expect("it gets around");
    let stats = wal.stats();
    assert!(stats.free_segments > u64::from(SLABS) * 3 / 4 && stats.settled_entries > 0, "{stats:#?}");
    wal.commit(crate::Batch::new().append(2, &[(29, 1, [2; 500])])).expect("room");
    for replica in 2..=290_u64 {
        let data = wal.replica(replica).entry(28).expect("kept").data;
        assert_eq!(data, vec![replica as u8; 391]);
    }
    wal.verify(|_| {}).expect("whole");
}

#[test]
fn what_becomes_small_where_little_is_free_is_settled() {
    gets_around(&dense(&Arc::new(SimDisk::new(64 << 20))));
}

/// Nobody knows any more which of them held chunks, whether the log was closed or not.
#[test]
fn what_became_small_where_little_is_free_is_settled_after_an_opening() {
    for closed in [true, false] {
        let disk = Arc::new(SimDisk::new(64 << 20));
        let wal = dense(&disk);
        if closed {
            wal.close().expect("closed");
        }
        // As the disk of a process that is gone.
        let disk = Arc::new(disk.crash(&mut |_, _| Choice::Durable));
        let wal = open_dense(&disk);
        let s = wal.stats();
        assert!(s.free_segments == 2 && s.reserved_chunks <= s.free_chunks, "{s:#?}");
        assert!(wal.engine.seq.lock().accounts.is_covered(2), "{s:#?}");
        gets_around(&wal);
    }
}
