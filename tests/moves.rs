//! The log is changed while the cleaner moves entries: the disk calls back in the middle of a move. The change counts, and the cleaner
//! keeps its reserve.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::model::{Model, Op, Oracle, batch};
use support::{assert_sound, open, payload, small};

type Hook = Box<dyn FnMut() + Send>;

/// Calls back before each read: there the cleaner has looked at the index and has not moved anything yet. With `writes`, before each write,
/// too.
struct Between {
    disk: Arc<SimDisk>,
    hook: Mutex<Option<Hook>>,
    writes: bool,
}

impl Between {
    fn new(writes: bool) -> Arc<Self> {
        Arc::new(Self { disk: Arc::new(SimDisk::new(4 << 20)), hook: Mutex::new(None), writes })
    }

    fn call(&self) {
        // Not within a call: the hook itself may read.
        let hook = self.hook.lock().expect("no other panic").take();
        if let Some(mut hook) = hook {
            hook();
            self.set(Some(hook));
        }
    }

    fn set(&self, hook: Option<Hook>) {
        *self.hook.lock().expect("no other panic") = hook;
    }
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Between {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.call();
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.writes {
            self.call();
        }
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.writes {
            self.call();
        }
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        if self.writes {
            self.call();
        }
        self.disk.flush()
    }
}

fn options() -> Options {
    small(Placement::Journal).journal_cap(8 * (64 << 10)).carry_fraction(50).queue_bytes(64 << 20)
}

fn append(replica: u64, from: u64, term: u64, lens: &[usize]) -> Op {
    let entries = (from..).zip(lens).map(|(i, &len)| (i, term, payload(replica, i, term, len))).collect();
    Op::Append { replica, entries }
}

/// Were a move not clipped by what happened since it was read, the old entries would come back: alive, or at the next opening.
#[test]
fn a_move_is_clipped_by_what_happened_while_it_was_read() {
    // How the entries are moved: those of a small replica are carried, those of a large one settled.
    let shapes: [(&str, &[usize]); 2] = [("carried", &[90; 6]), ("settled", &[800; 20])];
    for (how, lens) in shapes {
        let last = lens.len() as u64;
        let meanwhile: Vec<(&str, Vec<Op>)> = vec![
            ("overwritten", vec![append(1, 2, 9, &[50])]),
            ("overwritten whole", vec![append(1, 1, 9, &lens[1..])]),
            ("extended after a conflict", vec![append(1, last - 1, 9, &[70; 9])]),
            ("truncated", vec![Op::Truncate { replica: 1, first: last }]),
            ("truncated to nothing", vec![Op::Truncate { replica: 1, first: last + 1 }]),
            ("cut", vec![Op::Cut { replica: 1, from: last - 1 }]),
            ("cut to nothing", vec![Op::Cut { replica: 1, from: 1 }]),
            ("truncated and cut", vec![Op::Truncate { replica: 1, first: 3 }, Op::Cut { replica: 1, from: 4 }]),
            ("cut and written again", vec![Op::Cut { replica: 1, from: 2 }, append(1, 2, 1, &lens[1..])]),
            ("removed", vec![Op::Remove { replica: 1 }]),
            ("removed and written again", vec![Op::Remove { replica: 1 }, append(1, 1, 1, &lens[2..])]),
            ("reset", vec![Op::Reset { replica: 1, index: 3, term: 7 }, append(1, 4, 8, &[33; 2])]),
        ];
        for (what, ops) in meanwhile {
            let what = format!("{how}, {what}");
            let disk = Between::new(false);
            let wal = Arc::new(options().open_disk(disk.clone()).expect("opened"));
            let mut oracle = Oracle::default();
            let mut commit = |wal: &Wal, ops: Vec<Op>| {
                let lsn = wal.commit(batch(&ops)).expect("committed");
                oracle.submitted(Some(lsn), ops);
                oracle.acknowledged(lsn);
            };
            commit(&wal, vec![append(1, 1, 1, lens), append(2, 1, 1, lens)]);
            // Go on into the next segment, so that the first one can be cleaned.
            for i in 0..12 {
                commit(&wal, vec![append(3, i + 1, 1, &[7000]), Op::Truncate { replica: 3, first: i + 1 }]);
            }
            let (weak, mut script) = (Arc::downgrade(&wal), Some(ops.clone()));
            let (told, heard) = std::sync::mpsc::channel();
            disk.set(Some(Box::new(move || {
                if let (Some(wal), Some(ops)) = (weak.upgrade(), script.take()) {
                    told.send(wal.submit(batch(&ops)).expect("submitted").lsn()).expect("heard");
                }
            })));
            wal.checkpoint().expect("cleaned");
            disk.set(None);
            let lsn = heard.try_recv().unwrap_or_else(|_| panic!("{what}: the cleaner read nothing"));
            oracle.submitted(Some(lsn), ops);
            let moved = wal.stats();
            assert!(if how == "carried" { moved.carried_entries > 0 } else { moved.settled_entries > 0 }, "{moved:#?}");
            let same = |wal: &Wal, when: &str| {
                let found = Model::read(wal).unwrap_or_else(|e| panic!("{what}, {when}: {e}"));
                assert!(found == oracle.current, "{what}, {when}:{}", oracle.current.difference(&found));
                assert_sound(wal, &what);
            };
            same(&wal, "alive");
            wal.sync().expect("synced");
            drop(wal);
            let disk = Arc::new(disk.disk.crash_lost_all());
            let wal = open(options(), &disk);
            same(&wal, "reopened");
            wal.checkpoint().expect("cleaned again");
            same(&wal, "cleaned again");
            drop(wal);
            same(&open(options(), &Arc::new(disk.crash_lost_all())), "reopened again");
        }
    }
}

/// However many segments there are to clean, all are cleaned but the one that is being written.
#[test]
fn a_checkpoint_leaves_nothing_but_the_segment_being_written() {
    for segments in [1, 2, 5, 9] {
        let disk = Arc::new(SimDisk::new(16 << 20));
        let wal = open(small(Placement::Journal), &disk);
        let mut b = Batch::new();
        b.append(1, &[(1, 1, payload(1, 1, 1, 300))]);
        wal.commit(&mut b).expect("committed");
        let used = |wal: &Wal| wal.stats().journal_segments - wal.stats().free_segments;
        let mut next = 1;
        while used(&wal) <= segments {
            b.clear();
            b.append(2, &[(next, 1, payload(2, next, 1, 7000))]).truncate_prefix(2, next);
            wal.commit(&mut b).expect("committed");
            next += 1;
        }
        wal.checkpoint().expect("cleaned");
        // The moves may have opened one more.
        assert!(used(&wal) <= 2, "{segments} segments: {:#?}", wal.stats());
        assert_eq!(wal.stats().segments_cleaned, segments, "{:#?}", wal.stats());
        assert_sound(&wal, "cleaned");
        drop(wal);
        let wal = open(small(Placement::Journal), &Arc::new(disk.crash_lost_all()));
        assert_eq!(wal.replica(1).entry(1).expect("held").data, payload(1, 1, 1, 300));
    }
}

/// The cleaner opens a segment from its reserve to move into. If appends filled it, the cleaner would be left without one, and nobody could
/// ever free any.
#[test]
fn appends_between_the_cleaners_moves_leave_it_its_reserve() {
    for len in [200, 3000, 7000] {
        let disk = Between::new(true);
        let wal = Arc::new(options().open_disk(disk.clone()).expect("opened"));
        let mut b = Batch::new();
        for replica in 1..=40 {
            b.append(replica, &[(1, 1, payload(replica, 1, 1, 300))]);
            wal.commit(&mut b).expect("committed");
        }
        let weak = Arc::downgrade(&wal);
        disk.set(Some(Box::new(move || {
            let Some(wal) = weak.upgrade() else { return };
            let mut b = Batch::new();
            for n in 0..5000 {
                let next = wal.replica(50).last_index() + 1;
                b.clear();
                b.append(50, &[(next, 1, payload(50, next, 1, len))]).truncate_prefix(50, next);
                match wal.try_submit(&mut b) {
                    Ok(pending) => drop(pending),
                    Err(Error::Busy { .. }) => return,
                    Err(error) => panic!("entries of {len}, {n}: {error}"),
                }
            }
            panic!("appends never have to wait");
        })));
        for round in 0..60 {
            wal.checkpoint().unwrap_or_else(|e| panic!("entries of {len}, round {round}: {e}\n{:#?}", wal.stats()));
            assert!(wal.stats().free_segments > 0, "entries of {len}, round {round}");
        }
        disk.set(None);
        assert_sound(&wal, "after sixty rounds");
        let mut b = Batch::new();
        let next = wal.replica(50).last_index() + 1;
        b.append(50, &[(next, 1, b"more")]);
        wal.commit(b).expect("appends go on");
        for replica in 1..=40 {
            assert_eq!(wal.replica(replica).entry(1).expect("held").data, payload(replica, 1, 1, 300));
        }
    }
}
