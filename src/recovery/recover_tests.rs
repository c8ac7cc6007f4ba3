//! An opening as a whole: what it writes and when, what each mode makes of what is missing, and with what numbers it goes on.

use super::rig::*;
use super::{Found, random_u32, read_superblock};
use crate::Batch;
use crate::disk::Disk;
use crate::disk::sim::{EventKind, SimDisk};
use crate::error::Error;
use crate::format::POOL_OFFSET;
use crate::format::superblock::{SUPERBLOCK_OFFSETS, Superblock};
use crate::journal::RESERVED_SEGMENTS;
use crate::options::{Options, RecoveryMode};
use crate::space::Accounts;
use crate::sync::{Arc, Mutex};

#[test]
fn nothing_is_believed_before_it_was_flushed_and_nothing_is_flushed_by_who_may_only_read() {
    for (read_only, expected) in [(false, ["flush", "journal"].as_slice()), (true, &["journal"])] {
        let (disk, order) = (log(), Arc::new(Mutex::new(Vec::new())));
        let (flushed, read) = (Arc::clone(&order), Arc::clone(&order));
        disk.on_event(move |event| {
            flushed.lock().push(if event.kind == EventKind::Flush { "flush" } else { "write" });
            None
        });
        disk.on_read(move |offset, _| {
            if offset >= POOL_OFFSET {
                read.lock().push("journal");
            }
            Ok(())
        });
        let wal = open(&disk, options().read_only(read_only)).expect("opened");
        let mut order = order.lock().clone();
        order.dedup();
        assert_eq!(order, expected, "read only: {read_only}");
        assert_eq!(wal.stats().recovered_frames, 6);
    }
}

#[test]
fn a_whole_log_opens_in_every_mode_and_nothing_is_written() {
    for mode in MODES {
        let stats = open(&log(), options().recovery_mode(mode)).expect("whole").stats();
        assert_eq!((stats.lost_frames, stats.dropped_frames, stats.unnamed_losses), (0, 0, 0), "{mode:?}");
        assert_eq!(writes(&log(), options().recovery_mode(mode)), 0, "{mode:?}");
    }
}

#[test]
fn each_opening_has_a_session_of_its_own_above_all_before_it() {
    let disk = log();
    let sessions: Vec<u64> = (0..20)
        .map(|_| {
            let wal = open(&disk, options()).expect("opened");
            wal.engine.seq.lock().session
        })
        .collect();
    // The very first session made the log; none of these openings wrote anything.
    assert!(sessions.iter().all(|s| s >> 32 == 2), "{sessions:x?}");
    assert!(sessions.iter().any(|s| s != &sessions[0]), "{sessions:x?}");
    let mut disk = Arc::new(disk);
    for opening in 2..6 {
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        assert_eq!(wal.engine.seq.lock().session >> 32, opening);
        wal.commit(Batch::new().put(1, b"k", b"v")).expect("committed");
        disk = Arc::new(disk.restart());
    }
}

/// It is believed once, by an opening that may write: before anything else, that one lets no superblock name it any more.
#[test]
fn a_snapshot_is_believed_by_the_next_who_writes_and_tolerates_a_torn_end_and_by_nobody_else() {
    let named = |disk: &SimDisk| {
        let Ok(Found::Log(sb)) = read_superblock(disk, true) else { panic!("a log") };
        (sb.epoch, sb.snapshot.is_some())
    };
    for mode in MODES {
        for read_only in [false, true] {
            let disk = Arc::new(log());
            let open = |disk: &Arc<SimDisk>, options: Options| {
                options.open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened")
            };
            open(&disk, options()).close().expect("closed");
            let disk = Arc::new(disk.restart());
            let (epoch, closed) = named(&disk);
            let wal = open(&disk, options().recovery_mode(mode).read_only(read_only));
            let trusted = mode == RecoveryMode::TolerateTornTail && !read_only;
            assert_eq!((closed, wal.stats().opened_by_snapshot), (true, trusted.into()), "{mode:?} {read_only}");
            // A salvage writes nothing, whoever asks for it.
            let writes = !read_only && mode != RecoveryMode::Salvage;
            assert_eq!(named(&disk), (epoch + u64::from(writes), !writes), "{mode:?} {read_only}");
            assert_eq!(wal.replicas(), [1, 2, 3, 4, 5, 6]);
        }
    }
}

/// What is carried asks for more segments to be kept: crash after crash must not eat them.
#[test]
fn an_opening_takes_no_fresh_segment_that_cleaning_may_need() {
    for cleaning in [0, 1] {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
        for id in 0..45 * cleaning {
            wal.commit(Batch::new().put(id, b"state", &[7; 4000])).expect("committed");
        }
        wal.commit(Batch::new().put(100, b"state", b"v")).expect("committed");
        let (live, free, end) = {
            let s = wal.engine.seq.lock();
            assert_eq!(s.accounts.cleaning() as u64, cleaning);
            let live: Vec<u32> = s.segments.live.iter().map(|l| l.slab).collect();
            (live, s.segments.free.clone(), s.prev.expect("frames").end())
        };
        drop(wal);
        let kept = RESERVED_SEGMENTS + cleaning as usize;
        for (spare, in_place) in [(kept, true), (kept + 1, false)] {
            let disk = disk.crash_lost_all();
            let Ok(Found::Log(sb)) = read_superblock(&disk, true) else { panic!("a log") };
            let journal_slabs: Vec<u32> = live.iter().chain(free.iter().take(spare)).copied().collect();
            assert_eq!(journal_slabs.len(), live.len() + spare);
            let sb = Superblock { journal_floor: 4, journal_slabs, ..*sb };
            SUPERBLOCK_OFFSETS.into_iter().for_each(|offset| disk.poke(offset, &sb.encode()));
            let wal = open(&disk, options()).expect("opened");
            let s = wal.engine.seq.lock();
            assert_eq!(s.segments.free.len(), spare);
            assert_eq!(s.open.lsn == end, in_place, "{spare} are free, {kept} are kept");
        }
    }
}

#[test]
fn numbers_drawn_at_random_differ() {
    let mut drawn: Vec<u32> = (0..100).map(|_| random_u32()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 90, "{drawn:?}");
}

#[test]
fn what_may_be_carried_follows_the_slabs_that_the_superblock_names() {
    let wal = open(&log(), options()).expect("opened");
    let sb = wal.engine.superblock.lock().clone();
    let slabs = (sb.journal_slabs.len() as u64, sb.journal_cap.into());
    let accounts = Accounts::new(sb.chunk_bytes, sb.segment_bytes.into(), wal.engine.run.carry_percent, slabs);
    let budget = wal.engine.seq.lock().accounts.budget();
    assert_eq!(budget, accounts.budget());
    assert!(budget > 0 && budget < slabs.0 * u64::from(sb.segment_bytes) / 2);
}

const NO_THREADS: &str = "STRANDLOG_NO_THREADS";

/// The child: where no thread can be started, an opening does everything itself. Not a test of its own.
#[test]
fn child_without_threads() {
    if std::env::var_os(NO_THREADS).is_none() {
        return;
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "this process was to have no threads");
    // Enough slabs that each part of an opening asks for help.
    let disk = Arc::new(SimDisk::new(64 << 20));
    let options = || options().capacity(64 << 20);
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    for replica in 1..=100 {
        wal.commit(Batch::new().append(replica, &[(1, 1, [7; 5000])])).expect("committed");
    }
    let killed = disk.restart();
    wal.close().expect("closed");
    let closed = disk.restart();
    for (disk, by_snapshot) in [(killed, 0), (closed, 1)] {
        let threads = open(&disk, options().background(true));
        assert!(matches!(threads, Err(Error::Io { .. })), "{threads:?}");
        let wal = open(&disk, options()).expect("opened");
        assert_eq!((wal.stats().opened_by_snapshot, wal.replicas().len()), (by_snapshot, 100));
        assert!(wal.verify(|_| ()).expect("read").is_clean());
    }
}

#[test]
fn where_no_thread_can_be_started_an_opening_does_everything_itself() {
    let tests = [
        "recovery::recover_tests::child_without_threads",
        "recovery::tests::a_new_life_keeps_nothing_of_the_one_before",
    ];
    // Not by our file's name: a build that runs meanwhile, as on a busy machine, takes that away.
    let mut child = std::process::Command::new("/proc/self/exe");
    // No system has room for such a stack: every start of a thread fails.
    child.args(tests).arg("--exact").env("RUST_MIN_STACK", (1_u64 << 47).to_string()).env(NO_THREADS, "1");
    let ran = child.output().expect("a child");
    let said = String::from_utf8_lossy(&ran.stdout);
    let well = ran.status.success() && said.contains("2 passed");
    assert!(well, "{}: {said}{}", ran.status, String::from_utf8_lossy(&ran.stderr));
}
