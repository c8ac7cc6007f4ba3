//! The journal takes slabs and gives them back: the superblocks say so before anybody uses the slab.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Placement, Wal};

use support::{assert_sound, open, payload, small};

type Hook = Box<dyn FnMut() + Send>;

/// Calls back before each write to a superblock.
struct Watched {
    disk: Arc<SimDisk>,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Watched {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if offset < 32 << 10
            && let Some(hook) = self.hook.lock().expect("no other panic").as_mut()
        {
            hook();
        }
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

/// Chunks that are accounted for: free, used, pinned, or the journal's.
fn accounted(wal: &Wal) -> u64 {
    let s = wal.stats();
    s.free_chunks + s.used_chunks + s.pinned_chunks + s.journal_segments * (s.segment_size / s.chunk_size)
}

/// If the slab were the chains' before the superblocks say so, a cut would leave their bytes in the journal; if it were the journal's, an
/// opening would not look for frames there.
#[test]
fn a_slab_on_its_way_is_nobodys_until_both_superblocks_say_whose_it_is() {
    let disk = Arc::new(Watched { disk: Arc::new(SimDisk::new(4 << 20)), hook: Mutex::new(None) });
    let options = || small(Placement::Auto).journal_cap(8 * (64 << 10));
    let wal = Arc::new(options().open_disk(disk.clone()).expect("opened"));
    let all = accounted(&wal);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (weak, told) = (Arc::downgrade(&wal), Arc::clone(&seen));
    *disk.hook.lock().expect("no other panic") = Some(Box::new(move || {
        if let Some(wal) = weak.upgrade() {
            told.lock().expect("no other panic").push(accounted(&wal));
        }
    }));
    let floor = wal.stats().journal_segments;
    let mut b = Batch::new();
    for i in 1..=200 {
        b.clear();
        b.append(1, &[(i, 1, payload(1, i, 1, 7000))]).truncate_prefix(1, i);
        wal.commit(&mut b).expect("committed");
    }
    let grown = wal.stats().journal_segments;
    let writes = seen.lock().expect("no other panic").len() as u64;
    assert!(grown > floor, "it grew");
    assert_eq!(writes, 2 * (grown - floor), "two superblocks for each slab");
    for i in 1.. {
        b.clear();
        match wal.commit(b.append(2, &[(i, 1, payload(2, i, 1, 30_000))])) {
            Ok(_) => assert!(i < 1000, "it never fills"),
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let shrunk = wal.stats().journal_segments;
    assert!(shrunk < grown, "it gave slabs back");
    let seen = seen.lock().expect("no other panic").clone();
    assert_eq!(seen.len() as u64, writes + 2 * (grown - shrunk));
    let slab = wal.stats().segment_size / wal.stats().chunk_size;
    assert!(seen.iter().all(|&chunks| chunks == all - slab), "of {all} chunks, {slab} a slab: {seen:?}");
    assert_eq!(accounted(&wal), all);
    *disk.hook.lock().expect("no other panic") = None;
    assert_sound(&wal, "full");
    drop(wal);
    assert_sound(&open(options(), &Arc::new(disk.disk.crash_lost_all())), "reopened");
}
