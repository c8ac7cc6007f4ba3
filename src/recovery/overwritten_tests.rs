//! The frame that overwrote what lies in the chain is lost, and what it brought is not: that was carried before.

use super::rig::{self, open};
use super::scan::scan;
use super::{Found, read_superblock};
use crate::disk::Disk;
use crate::disk::sim::{EIO, SimDisk};
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;
use crate::{Batch, Error, Wal};

/// What cannot be read lies in the midst of this entry.
const UNREADABLE: usize = 9000;

/// Less than `percent` of a chunk is carried.
fn carries(percent: u8) -> Options {
    rig::options().carry_fraction(percent)
}

fn cleaned(wal: &Wal) -> crate::Result<bool> {
    let current = wal.engine.seq.lock().segments.current();
    wal.engine.clean_through(current)
}

fn some_commits(wal: &Wal) {
    for n in 0..3 {
        wal.commit(Batch::new().put(3, b"key", &[n])).expect("room");
    }
}

/// Where the replica's first entry lies on the disk.
fn offset_of_first(wal: &Wal, replica: u64) -> u64 {
    let engine = &wal.engine;
    let loc = engine.registry.get(replica).expect("there").lock().places.loc(1).expect("in the journal");
    let lsn = loc.lsn(engine.head());
    let slab = engine.segment_map.read().slab(lsn / engine.geo.segment_bytes).expect("alive");
    crate::format::POOL_OFFSET + u64::from(slab) * engine.geo.segment_bytes + lsn % engine.geo.segment_bytes
}

/// Replica 1 has a piece, of which all but the first entry was overwritten by one frame. What that brought was carried, and its segment could not
/// be given up, as an entry of replica 2 in it could not be read. Then the frame rots.
fn log() -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = carries(100).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    let entries: Vec<_> = (1..=60).map(|i| (i, 1, vec![1; if i <= 40 { 50 } else { 1000 }])).collect();
    wal.commit(Batch::new().append(1, &entries)).expect("room");
    some_commits(&wal);
    assert!(cleaned(&wal).expect("settled"));
    {
        let cell = wal.engine.registry.get(1).expect("there");
        let state = cell.lock();
        let piece = &state.places.chain()[0].desc;
        assert!(piece.first == 1 && piece.last() >= 40, "{piece:?}");
    }
    // More terms than a piece may have.
    let entries: Vec<_> = (2..=40).map(|i| (i, 100 + i, vec![2; 30])).collect();
    let overwriting = wal.commit(Batch::new().append(1, &entries)).expect("room").get();
    wal.commit(Batch::new().append(2, &[(1, 1, vec![3; UNREADABLE])])).expect("room");
    let bad = offset_of_first(&wal, 2) + UNREADABLE as u64 / 2;
    some_commits(&wal);
    disk.fail_reads(bad..bad + 1000, EIO);
    let hindered = cleaned(&wal);
    assert!(matches!(hindered, Err(Error::Io { .. })), "{hindered:?}");
    some_commits(&wal);
    drop(wal);
    disk.heal_reads();
    let disk = disk.restart();
    let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("a log") };
    let scan = scan(&disk, &sb, RecoveryMode::Strict, &mut |_| ()).expect("scanned");
    let mut frames = scan.slabs.iter().flat_map(|s| &s.frames);
    let frame = frames.find(|f| f.header.lsn < overwriting && overwriting <= f.header.end()).expect("there");
    disk.poke(frame.offset, &[0xee; 4096]);
    Arc::new(disk)
}

/// Only the one whose frame it was is hurt, and every chunk is in one place.
fn opened(disk: &Arc<SimDisk>, options: Options) -> Wal {
    let wal = options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
    assert!(!wal.damage().is_empty() && wal.damage().iter().all(|d| d.replica == 1), "{:?}", wal.damage());
    assert_eq!(wal.replica(2).entry(1).expect("whole").data, vec![3; UNREADABLE]);
    let report = wal.verify(|_| ()).expect("read");
    assert!(report.accounting.is_empty(), "{report:?}");
    wal
}

#[test]
fn what_the_cleaner_writes_of_it_can_be_read_again() {
    for closes in [false, true] {
        let disk = log();
        let wal = opened(&disk, carries(100));
        assert!(cleaned(&wal).expect("cleaned"));
        some_commits(&wal);
        let damage = wal.damage();
        if closes {
            wal.close().expect("closed");
        }
        drop(wal);
        let again = open(&disk.restart(), carries(100)).expect("it opens");
        assert_eq!(again.damage(), damage, "closed: {closes}");
    }
}

/// A piece made of it finds its place: no segment is given up under entries that are still there.
#[test]
fn what_is_left_of_it_in_the_journal_is_settled() {
    let wal = opened(&log(), carries(1));
    assert!(cleaned(&wal).expect("cleaned"));
    let state = wal.engine.registry.get(1).expect("there");
    let state = state.lock();
    let mut next = 1;
    for piece in state.places.chain() {
        assert!(piece.desc.first >= next, "in two places: {:?}", piece.desc);
        next = piece.desc.last() + 1;
    }
    assert!(next > 40, "settled up to {next}");
}
