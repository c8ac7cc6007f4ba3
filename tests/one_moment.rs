//! Entries that one call reads stood in the log together: the disk calls back in the middle of a read, and the log is changed there.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Placement, Wal};

use support::{PLACEMENTS, payload};

const REPLICA: u64 = 1;
const LAST: u64 = 600;

type Hook = Box<dyn FnOnce() + Send>;

/// A disk that calls back once, after a read.
struct Interrupted {
    disk: Arc<SimDisk>,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Interrupted {
    support::passed_on!(one_at_a_time);
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.disk.read_at(offset, buf);
        let hook = self.hook.lock().expect("no other panic").take();
        hook.into_iter().for_each(|hook| hook());
        read
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

fn append(batch: &mut Batch, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    let entries: Vec<_> = indexes.map(|index| (index, term, payload(REPLICA, index, term, 3000))).collect();
    batch.append(REPLICA, &entries);
}

fn write(wal: &Wal, term: u64, from: u64) {
    for first in (from..=LAST).step_by(20) {
        let mut batch = Batch::new();
        append(&mut batch, term, first..=(first + 19).min(LAST));
        wal.commit(batch).expect("there is room");
    }
}

/// A log whose entries are all of term 1, none of them in memory.
fn old(placement: Placement) -> (Arc<Interrupted>, Arc<Wal>) {
    let options = || {
        let sizes = Wal::options().segment_size(256 << 10).chunk_size(64 << 10).recent_bytes(1 << 20);
        sizes.background(false).placement(placement)
    };
    let disk = Arc::new(SimDisk::new(32 << 20));
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    write(&wal, 1, 1);
    drop(wal);
    let disk = Arc::new(Interrupted { disk: Arc::new(disk.restart()), hook: Mutex::new(None) });
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
    (disk, Arc::new(wal))
}

/// The indexes and terms that a read of everything returns, while `change` happens after the first read from the disk.
fn read(placement: Placement, change: impl FnOnce(&Wal) + Send + 'static) -> Vec<(u64, u64)> {
    let (disk, wal) = old(placement);
    let changed = Arc::clone(&wal);
    *disk.hook.lock().expect("no other panic") = Some(Box::new(move || change(&changed)));
    let entries = wal.replica(REPLICA).entries(1..LAST + 1, usize::MAX).expect("read");
    assert!(disk.hook.lock().expect("no other panic").is_none(), "nothing was read from the disk");
    for entry in &entries {
        assert_eq!(entry.data, payload(REPLICA, entry.index, entry.term, 3000), "entry {}", entry.index);
    }
    entries.into_iter().map(|entry| (entry.index, entry.term)).collect()
}

fn is_the_beginning_of(read: &[(u64, u64)], term_of: impl Fn(u64) -> u64) -> bool {
    let log: Vec<_> = (1..=LAST).map(|index| (index, term_of(index))).collect();
    !read.is_empty() && log.starts_with(read)
}

#[test]
fn a_reading_beside_an_overwriting_answers_the_old_log_or_the_new_one() {
    for placement in PLACEMENTS {
        for from in [2, 10, 200, 550] {
            let read = read(placement, move |wal| write(wal, 2, from));
            let old = is_the_beginning_of(&read, |_| 1);
            let new = is_the_beginning_of(&read, |index| if index < from { 1 } else { 2 });
            assert!(old || new, "{placement:?} from {from}: {read:?}");
        }
    }
}

/// Terms alone do not tell lives apart: the caller may give the same terms again.
#[test]
fn a_reading_answers_entries_of_one_life() {
    for placement in PLACEMENTS {
        let read = read(placement, |wal| {
            let mut batch = Batch::new();
            batch.remove(REPLICA);
            wal.commit(batch).expect("removed");
            write(wal, 1, 1);
        });
        // The payloads of both lives are the same, too: what can be told is how far the read came in the first.
        assert!(is_the_beginning_of(&read, |_| 1) && read.len() < LAST as usize, "{placement:?}: {}", read.len());
    }
}

/// Entries are cut off and written again in the same term.
#[test]
fn a_reading_beside_a_cut_answers_what_stood_before_it() {
    for placement in PLACEMENTS {
        let read = read(placement, |wal| {
            let mut batch = Batch::new();
            batch.truncate_suffix(REPLICA, 2);
            append(&mut batch, 1, 2..=3);
            wal.commit(batch).expect("cut");
            write(wal, 3, 4);
        });
        assert!(is_the_beginning_of(&read, |_| 1), "{placement:?}: {read:?}");
    }
}

/// Entries whose prefix is truncated meanwhile did stand together a moment before.
#[test]
fn a_reading_goes_on_beside_a_truncation_of_the_prefix_and_beside_appends() {
    for placement in PLACEMENTS {
        let read = read(placement, |wal| {
            let mut batch = Batch::new();
            batch.truncate_prefix(REPLICA, 2);
            wal.commit(batch).expect("truncated");
            let mut batch = Batch::new();
            append(&mut batch, 2, LAST + 1..=LAST + 20);
            wal.commit(batch).expect("appended");
        });
        assert!(is_the_beginning_of(&read, |_| 1) && read.len() == LAST as usize, "{placement:?}: {read:?}");
    }
}

/// By this count a caller that reads in several calls sees whether all of them read one log.
#[test]
fn what_goes_from_the_end_is_counted_and_what_follows_or_goes_from_the_front_is_not() {
    let disk = Arc::new(SimDisk::new(8 << 20));
    let wal = Wal::options().chunk_size(4096).segment_size(64 << 10).open_disk(disk as Arc<dyn Disk>).expect("a log");
    let unwritten = wal.replica(REPLICA);
    let entries = |term, indexes| {
        let mut batch = Batch::new();
        append(&mut batch, term, indexes);
        batch
    };
    assert_eq!(unwritten.cuts(), 0);
    wal.commit(entries(1, 1..=6)).expect("there is room");
    let replica = wal.replica(REPLICA);
    let mut anew = Batch::new();
    append(anew.remove(REPLICA), 3, 1..=4);
    let mut cuts = 0;
    for (what, mut batch, more) in [
        ("entries follow", entries(1, 7..=9), 0),
        ("the front goes", std::mem::take(Batch::new().truncate_prefix(REPLICA, 3)), 0),
        ("another's take their place", entries(2, 6..=9), 1),
        ("the end is cut off", std::mem::take(Batch::new().truncate_suffix(REPLICA, 8)), 1),
        ("nothing is, beyond it", std::mem::take(Batch::new().truncate_suffix(REPLICA, 8)), 0),
        ("a snapshot takes their place", std::mem::take(Batch::new().install_snapshot(REPLICA, 7, 2)), 1),
        ("it goes, and another comes", anew, 1),
    ] {
        cuts += more;
        wal.commit(&mut batch).expect("there is room");
        assert_eq!((wal.replica(REPLICA).cuts(), replica.cuts(), unwritten.cuts()), (cuts, cuts, cuts), "{what}");
    }
}
