//! Logs whose numbers come to an end: of bytes that were written, and of openings. Whatever was acknowledged stays, and is read.

use super::rig::{grown_old, open, options};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::format::frame::{LAST_LSN, LAST_SESSION, USED_UP_LSN};
use crate::journal::Class;
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;
use crate::{Batch, Error, Wal};

const SEGMENT: u64 = 64 << 10;

/// Three replicas that have voted, in a log so many segments and openings old; never closed.
fn old(segments: u64, sessions: u64) -> Arc<SimDisk> {
    let mut disk = Arc::new(SimDisk::new(2 << 20));
    let wal = again(&mut disk, options()).expect("formatted");
    for replica in 1..=3 {
        wal.commit(Batch::new().put(replica, b"vote", b"for 1")).expect("committed");
    }
    let disk = disk.restart();
    grown_old(&disk, segments, sessions << 32);
    Arc::new(disk)
}

/// Once more, whatever became of the process before.
fn again(disk: &mut Arc<SimDisk>, options: Options) -> Result<Wal, Error> {
    *disk = Arc::new(disk.restart());
    options.open_disk(Arc::clone(disk) as Arc<dyn Disk>)
}

fn vote(wal: &Wal, n: u64) -> Result<(), Error> {
    wal.commit(Batch::new().put(1, b"vote", &n.to_le_bytes())).map(drop)
}

fn voted(wal: &Wal) -> Option<u64> {
    let vote = wal.replica(1).get(b"vote").expect("sound")?;
    Some(u64::from_le_bytes(vote[..].try_into().ok()?))
}

/// What such a log still does: it opens, again and again, in any mode and behind a close; all is read, nothing is written; and it is salvaged whole.
fn assert_it_is_read(mut disk: Arc<SimDisk>, newest: Option<u64>) {
    let image = disk.kept_image();
    for mode in super::rig::MODES {
        let wal = again(&mut disk, options().recovery_mode(mode)).unwrap_or_else(|e| panic!("{mode:?}: {e}"));
        assert_eq!((wal.replicas(), voted(&wal)), (vec![1, 2, 3], newest), "{mode:?}");
        assert_eq!(wal.stats().used_up, 1, "who only looks sees it, too: {mode:?}");
        let refused = vote(&wal, 7).expect_err("nothing is written");
        let salvaged = mode == RecoveryMode::Salvage;
        assert!(matches!((&refused, salvaged), (Error::UsedUp { .. }, false) | (Error::ReadOnly, true)), "{refused}");
        assert!(wal.verify(|_| ()).expect("readable").is_clean());
        wal.close().expect("closed");
    }
    assert_eq!(disk.kept_image(), image, "nothing was written");
    let wal = again(&mut disk, options().recovery_mode(RecoveryMode::Salvage)).expect("opened");
    let new = open(&SimDisk::new(2 << 20), options()).expect("formatted");
    let report = wal.salvage_into(&new, |_| ()).expect("salvaged");
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(voted(&new), newest);
    vote(&new, 1).expect("a new log begins with its numbers");
    assert_eq!(new.stats().used_up, 0);
}

#[test]
fn a_log_that_has_written_all_that_can_be_numbered_is_read_and_refuses_by_name() {
    let mut disk = old(USED_UP_LSN / SEGMENT - 5, 0);
    let (mut newest, mut refused) = (None, 0);
    for life in 0..8 {
        let wal = again(&mut disk, options()).unwrap_or_else(|e| panic!("{life}: {e}"));
        for n in 0..20 {
            match wal.commit(Batch::new().put(1, b"vote", &u64::to_le_bytes(n)).put(2, b"other", &[1; 4000])) {
                Ok(_) => newest = Some(n),
                Err(Error::UsedUp { .. }) => refused += 1,
                Err(error) => panic!("{life}: {error}"),
            }
            assert_eq!(voted(&wal), newest, "{life}");
        }
        // Behind the last number, too: some are closed, some are not.
        if life % 3 == 1 {
            wal.close().expect("closed");
        }
    }
    assert!(newest.is_some() && refused > 20, "{refused}");
    assert_it_is_read(disk, newest);
}

/// What no caller asked for is still written: the cleaner's, and whatever a scrub finds.
#[test]
fn a_log_that_refuses_batches_still_cleans() {
    let mut disk = old(USED_UP_LSN / SEGMENT - 3, 0);
    let wal = again(&mut disk, options()).expect("opened");
    assert_eq!(wal.stats().used_up, 0, "not yet");
    assert!((0..1000).any(|_| vote(&wal, 5).is_err()), "it refuses while it is in use, too");
    let asked = wal.engine.check(Batch::new().put(1, b"vote", b"for 2"));
    assert!(matches!(asked, Err(Error::UsedUp { .. })), "who asks before it writes elsewhere is told: {asked:?}");
    assert_eq!(wal.stats().used_up, 1);
    for _ in 0..50 {
        wal.checkpoint().expect("cleaned");
    }
    assert_eq!(voted(&wal), Some(5));
    wal.scrub(u64::MAX, |_| std::ops::ControlFlow::Continue(())).expect("readable");
    wal.close().expect("closed");
    assert!(matches!(vote(&wal, 6), Err(Error::Closed)));
    assert_it_is_read(disk, Some(5));
}

#[test]
fn a_log_that_was_opened_as_often_as_can_be_numbered_is_read_and_refuses_by_name() {
    let mut disk = old(0, (LAST_SESSION >> 32) - 5);
    let (mut newest, mut refused) = (None, 0);
    for life in 0..12 {
        let wal = again(&mut disk, options()).unwrap_or_else(|e| panic!("{life}: {e}"));
        assert_eq!(voted(&wal), newest, "{life}");
        match vote(&wal, life) {
            Ok(()) => newest = Some(life),
            Err(Error::UsedUp { .. }) => refused += 1,
            Err(error) => panic!("{life}: {error}"),
        }
        if life % 3 == 1 {
            wal.close().expect("closed");
        }
    }
    assert!(newest.is_some() && refused > 0, "{newest:?}");
    assert_it_is_read(disk, newest);
}

#[test]
fn a_log_beyond_what_is_left_for_the_cleaner_is_read() {
    let mut disk = old(LAST_LSN / SEGMENT - 2, 0);
    let wal = again(&mut disk, options()).expect("opened");
    assert!(matches!(vote(&wal, 5), Err(Error::UsedUp { .. })));
    drop(wal);
    assert_it_is_read(disk, None);
}

/// Were the cleaner to go on for years.
#[test]
fn no_segment_is_opened_that_ends_behind_the_last_number() {
    let wal = open(&SimDisk::new(2 << 20), options()).expect("formatted");
    let mut s = wal.engine.seq.lock();
    for (next, opens) in [(LAST_LSN / SEGMENT - 1, true), (LAST_LSN / SEGMENT, false), (u64::MAX, false)] {
        s.segments.next_seq = next;
        assert_eq!(s.leave_segment(Class::Clean, &wal.engine.segment_map), opens, "{next}");
    }
}
