//! What a real file does: how it is opened, locked, written, mapped and created, and when creation is refused.

use super::*;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const LEN: u64 = 1 << 20;
const METHODS: [SyncMethod; 4] =
    [SyncMethod::Auto, SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync];

fn mode(sync: SyncMethod) -> OpenMode {
    OpenMode { sync, mapped: true, ..OpenMode::default() }
}

const READ_ONLY: OpenMode = OpenMode { read_only: true, sync: SyncMethod::Auto, mapped: true, without_io_uring: false };

/// A directory on a real file system: one in memory knows no direct I/O.
fn directory() -> TempDir {
    tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir_in(".")).unwrap()
}

fn open(path: impl AsRef<Path>, mode: OpenMode) -> Result<FileDisk, OpenError> {
    FileDisk::open(path, mode, |_| Ok(()))
}

fn create(path: &Path, sync: SyncMethod) -> FileDisk {
    FileDisk::create(path, LEN, mode(sync), &mut |_, _| {}, |_| Ok(())).unwrap()
}

fn filled(byte: u8, len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::new();
    buf.resize(len);
    buf.fill(byte);
    buf
}

fn names(dir: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Creates a file or skips a method that the file system under the tests does not know.
fn for_each_method(mut check: impl FnMut(&Path, SyncMethod)) {
    for method in METHODS {
        let dir = directory();
        let path = dir.path().join("wal");
        match FileDisk::create(&path, LEN, mode(method), &mut |_, _| {}, |_| Ok(())) {
            Ok(disk) => drop(disk),
            Err(OpenError::Unsupported { .. }) if method != SyncMethod::Auto => continue,
            Err(error) => panic!("{method}: {error}"),
        }
        check(&path, method);
    }
}

#[test]
fn every_method_writes_reads_and_maps_the_same_bytes() {
    for_each_method(|path, method| {
        let disk = open(path, mode(method)).unwrap();
        let map = disk.map().unwrap();
        assert_eq!((disk.len(), map.len()), (LEN, LEN));
        // Bring the old pages into the cache, so that a write past it has something to invalidate.
        let view = map.hold().unwrap();
        assert!(view.slice(0, LEN as usize).unwrap().iter().all(|byte| *byte == 0));
        disk.write_durable_at(BLOCK as u64, &filled(1, BLOCK)).unwrap();
        disk.write_at(4 * BLOCK as u64, &filled(2, 3 * BLOCK)).unwrap();
        let mut bytes = vec![9; 8 * BLOCK];
        disk.read_at(0, &mut bytes).unwrap();
        assert_eq!(view.slice(0, bytes.len()).unwrap(), bytes);
        let blocks: Vec<u8> = bytes.chunks(BLOCK).map(|block| block[17]).collect();
        assert_eq!(blocks, [0, 1, 0, 0, 2, 2, 2, 0], "{method}");
        disk.flush().unwrap();
        let mut odd = [0; 3];
        disk.read_at(2 * BLOCK as u64 - 1, &mut odd).unwrap();
        assert_eq!(odd, [1, 0, 0]);
        drop(disk);
        assert_eq!(fs::read(path).unwrap()[..bytes.len()], bytes);
    });
}

/// Whether several are done at once or not: the same bytes, in the same places, and the same refusals.
#[test]
fn many_at_once_are_as_one_after_the_other() {
    for_each_method(|path, method| {
        for without_io_uring in [false, true] {
            let disk = open(path, OpenMode { without_io_uring, ..mode(method) }).unwrap();
            // More than are at the device at once, of all lengths, not in order.
            let place = |i: u64| (i * 7 % 20) * 8 * BLOCK as u64;
            let bufs: Vec<AlignedBuf> = (0..20).map(|i| filled(i + 1, (usize::from(i) % 5 + 1) * BLOCK)).collect();
            let writes: Vec<(u64, &[u8])> = (0..).map(place).zip(bufs.iter().map(|buf| &buf[..])).collect();
            disk.write_many(&writes).unwrap();
            let mut read: Vec<AlignedBuf> = bufs.iter().map(|buf| filled(0, buf.len())).collect();
            let mut reads: Vec<(u64, &mut [u8])> =
                (0..).map(place).zip(read.iter_mut().map(|buf| &mut buf[..])).collect();
            disk.read_many(&mut reads).unwrap();
            assert!(read.iter().zip(&bufs).all(|(read, buf)| read[..] == buf[..]), "{method}");
            // Of any alignment.
            let mut odd = [[0; 7]; 10];
            let mut reads: Vec<(u64, &mut [u8])> =
                (0..).map(|i| place(i) + 3).zip(odd.iter_mut().map(|b| &mut b[..])).collect();
            disk.read_many(&mut reads).unwrap();
            assert!((1..).zip(&odd).all(|(i, buf)| *buf == [i; 7]), "{method}");
            // One that is wrong: nothing is done.
            let block = filled(99, BLOCK);
            let refused = disk.write_many(&[(0, &block), (LEN, &block)]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            let (mut here, mut beyond) = (filled(0, BLOCK), filled(0, BLOCK));
            let refused = disk.read_many(&mut [(LEN, &mut beyond[..]), (0, &mut here[..])]).unwrap_err();
            assert_eq!((refused.kind(), here[0]), (ErrorKind::UnexpectedEof, 0));
            disk.read_at(0, &mut here).unwrap();
            assert_eq!(here[0], 1, "{method}");
            assert_eq!(disk.at_once() > 1, disk.info().io_uring);
            assert!(!disk.info().io_uring || (disk.info().direct && !without_io_uring), "{method}");
            disk.release();
            assert_eq!(disk.write_many(&[(0, &block)]).unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    });
}

/// What a queue leaves undone is done without it; what failed is never tried again.
#[test]
fn what_was_not_done_at_once_is_done_and_what_failed_is_told() {
    use rustix::io::Errno;
    let dir = directory();
    let disk = create(&dir.path().join("wal"), SyncMethod::Auto);
    let error = |errno: Errno| -errno.raw_os_error();
    let bufs: Vec<AlignedBuf> = (1..=4).map(|i| filled(i, 3 * BLOCK)).collect();
    let place = |i: usize| (i * 4 * BLOCK) as u64;
    let writes: Vec<(u64, &[u8])> = (0..).map(place).zip(bufs.iter().map(|buf| &buf[..])).collect();
    let mut outcomes = [0; map::DEPTH];
    // Of the first, only as much is there as the queue says: one block, and part of another.
    disk.write_at(0, &bufs[0][..BLOCK]).unwrap();
    outcomes[..4].copy_from_slice(&[BLOCK as i32 + 17, error(Errno::AGAIN), error(Errno::INTR), 0]);
    disk.handles.finish_writes(&writes, Some(&outcomes)).unwrap();
    let mut read: Vec<AlignedBuf> = bufs.iter().map(|_| filled(0, 3 * BLOCK)).collect();
    disk.read_at(0, &mut read[0][..BLOCK + 17]).unwrap();
    let mut reads: Vec<(u64, &mut [u8])> = (0..).map(place).zip(read.iter_mut().map(|buf| &mut buf[..])).collect();
    disk.handles.finish_reads(&mut reads, Some(&outcomes)).unwrap();
    assert!(read.iter().zip(&bufs).all(|(read, buf)| read[..] == buf[..]));
    let at_once = disk.at_once();
    outcomes[1] = error(Errno::IO);
    disk.write_at(place(1), &filled(0, 3 * BLOCK)).unwrap();
    let failed = disk.handles.finish_writes(&writes, Some(&outcomes)).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let mut block = [9; 1];
    disk.read_at(place(1), &mut block).unwrap();
    assert_eq!((block, disk.at_once()), ([0], at_once), "it is not written again");
    // If the system does not know a request, it is not asked again.
    outcomes[1] = error(Errno::INVAL);
    disk.handles.finish_writes(&writes, Some(&outcomes)).unwrap();
    disk.read_at(place(1), &mut block).unwrap();
    assert_eq!((block, disk.at_once()), ([2], 1));
}

#[test]
fn what_was_asked_for_or_found_best_is_said() {
    for_each_method(|path, method| {
        let disk = open(path, mode(method)).unwrap();
        let info = disk.info();
        let figures = [info.probe.direct_dsync, info.probe.rwf_dsync, info.probe.fdatasync];
        assert_eq!(info.direct, info.method == SyncMethod::DirectDsync);
        if method == SyncMethod::Auto {
            assert_ne!(info.method, SyncMethod::Auto);
            assert!(info.probe.fdatasync.is_some(), "works everywhere: {info}");
        } else {
            assert_eq!(info.method, method);
            assert_eq!(figures.iter().flatten().count(), 1);
        }
        assert!(figures.iter().flatten().all(|micros| *micros > 0));
    });
}

/// `look` sees the whole file, locked, and cannot write; a file that is refused is not written to.
#[test]
fn a_file_is_looked_at_before_anything_is_written() {
    let dir = directory();
    let path = dir.path().join("somebody's letters");
    fs::write(&path, vec![7; LEN as usize]).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let refused = FileDisk::open(&path, mode(SyncMethod::Auto), |disk| {
        let mut bytes = vec![0; LEN as usize];
        disk.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert_eq!(disk.write_at(0, &filled(1, BLOCK)).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(matches!(open(&path, READ_ONLY), Err(OpenError::Locked { .. })));
        Err(io::Error::other("not mine"))
    });
    assert!(matches!(refused, Err(OpenError::Io { source, .. }) if source.to_string() == "not mine"));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
    open(&path, mode(SyncMethod::Auto)).unwrap();
}

#[test]
fn the_probe_leaves_the_bytes_of_a_file_as_they_were() {
    let dir = directory();
    let path = dir.path().join("letters");
    let bytes: Vec<u8> = (0..200_003u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let disk = open(&path, mode(SyncMethod::Auto)).unwrap();
    assert!(disk.info().probe.fdatasync.is_some());
    drop(disk);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_file_too_short_to_probe_is_opened_all_the_same() {
    let dir = directory();
    let path = dir.path().join("short");
    for len in [0, 5000] {
        fs::write(&path, vec![1; len]).unwrap();
        let disk = open(&path, mode(SyncMethod::Auto)).unwrap();
        assert_eq!((disk.len(), disk.is_empty()), (len as u64, len == 0));
        assert_eq!(disk.info().probe, ProbeMicros::default());
        assert_eq!(disk.map().unwrap().len(), len as u64);
        assert_eq!(disk.read_at(len as u64, &mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn unaligned_and_outlying_ranges_are_refused_by_every_method() {
    for_each_method(|path, method| {
        let disk = open(path, mode(method)).unwrap();
        let buf = filled(1, 2 * BLOCK);
        for (offset, part) in
            [(1, &buf[..BLOCK]), (0, &buf[..BLOCK - 1]), (0, &buf[1..=BLOCK]), (LEN - BLOCK as u64, &buf[..])]
        {
            for result in [disk.write_at(offset, part), disk.write_durable_at(offset, part)] {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
        assert_eq!(disk.read_at(LEN - 1, &mut [0; 2]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(fs::metadata(path).unwrap().len(), LEN);
    });
}

#[test]
fn a_second_open_fails_at_once_and_readers_share() {
    let dir = directory();
    let path = dir.path().join("wal");
    let locked = |result: Result<FileDisk, OpenError>| match result {
        Err(OpenError::Locked { path: said }) => assert_eq!(said, path),
        other => panic!("{other:?}"),
    };
    let disk = create(&path, SyncMethod::Auto);
    locked(open(&path, mode(SyncMethod::Auto)));
    locked(open(&path, READ_ONLY));
    drop(disk);
    let readers = [(); 2].map(|()| open(&path, READ_ONLY).unwrap());
    locked(open(&path, mode(SyncMethod::Auto)));
    drop(readers);
    open(&path, mode(SyncMethod::Auto)).unwrap();
}

/// The system reports a write that failed in the page cache once for each open file: so each writer has one of its own.
#[test]
fn each_writer_syncs_by_an_open_file_of_its_own_where_writes_are_cached() {
    let dir = directory();
    for method in [SyncMethod::RwfDsync, SyncMethod::Fdatasync, SyncMethod::DirectDsync] {
        let path = dir.path().join(method.to_string());
        let Ok(disk) = FileDisk::create(&path, LEN, mode(method), &mut |_, _| (), |_| Ok(())) else { continue };
        let open_files = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path.canonicalize().unwrap())).count()
        };
        assert_eq!(open_files(), if method == SyncMethod::DirectDsync { 2 } else { 3 }, "{method}");
        for writer in [Writer::Pieces, Writer::Superblocks] {
            disk.write_at(0, &filled(1, BLOCK)).unwrap();
            disk.flush_of(writer).unwrap();
            disk.write_durable_of(writer, 0, &filled(1, BLOCK)).unwrap();
        }
        disk.release();
        assert_eq!(disk.flush_of(Writer::Pieces).unwrap_err().kind(), ErrorKind::PermissionDenied);
        drop(disk);
        assert_eq!(open_files(), 0, "{method}");
    }
}

/// The next opener writes to the file: so nobody may open it while it is still being read, and anybody may afterwards.
#[test]
fn a_view_keeps_the_lock_and_a_mapping_that_nobody_reads_does_not() {
    let dir = directory();
    let path = dir.path().join("wal");
    let disk = create(&path, SyncMethod::Auto);
    let map = disk.map().unwrap();
    let view = map.hold().unwrap();
    disk.release();
    assert!(map.hold().is_none(), "nothing new is read where others may write");
    drop(disk);
    assert!(matches!(open(&path, mode(SyncMethod::Auto)), Err(OpenError::Locked { .. })));
    assert_eq!(view.slice(0, 1).unwrap(), [0]);
    drop(view);
    open(&path, mode(SyncMethod::Auto)).unwrap();
    assert!(map.hold().is_none());
}

#[test]
fn a_released_disk_can_be_opened_by_another_and_takes_no_writes() {
    let dir = directory();
    let path = dir.path().join("wal");
    let first = create(&path, SyncMethod::Auto);
    first.write_durable_at(0, &filled(1, BLOCK)).unwrap();
    first.release();
    first.release();
    let second = open(&path, mode(SyncMethod::Auto)).unwrap();
    for result in [first.write_at(0, &filled(2, BLOCK)), first.write_durable_at(0, &filled(2, BLOCK)), first.flush()] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    let mut byte = [0];
    first.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    // The lock is the second's now: what becomes of the first does not matter.
    first.release();
    drop(first);
    assert!(matches!(open(&path, READ_ONLY), Err(OpenError::Locked { .. })));
    drop(second);
}

#[test]
fn a_read_only_open_writes_nothing() {
    let dir = directory();
    let path = dir.path().join("wal");
    drop(create(&path, SyncMethod::Auto));
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let disk = open(&path, READ_ONLY).unwrap();
    assert!(disk.info().read_only);
    assert_eq!(disk.info().probe, ProbeMicros::default());
    assert_eq!(disk.write_at(0, &filled(1, BLOCK)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(disk.write_durable_at(0, &filled(1, BLOCK)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    disk.flush().unwrap_err();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
}

#[test]
fn what_is_no_file_is_not_opened() {
    let dir = directory();
    assert!(open(dir.path(), mode(SyncMethod::Auto)).is_err());
    assert!(matches!(open(dir.path(), READ_ONLY), Err(OpenError::NotAFile { .. })));
    match open(dir.path().join("missing"), READ_ONLY) {
        Err(OpenError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_created_file_is_zeroed_formatted_and_locked() {
    let dir = directory();
    let path = dir.path().join("wal");
    let len = 3 * LEN + 8 * BLOCK as u64;
    let mut heard = Vec::new();
    let mut progress = |done, total| heard.push((done, total));
    let disk = FileDisk::create(&path, len, mode(SyncMethod::Auto), &mut progress, |disk| {
        assert_eq!(disk.len(), len);
        assert!(names(&dir).iter().all(|name| *name != path), "named before it is formatted");
        disk.write_durable_at(0, &filled(7, BLOCK))
    })
    .unwrap();
    assert_eq!(heard, [1, 2, 3].map(|i| (i * LEN, len)).into_iter().chain([(len, len)]).collect::<Vec<_>>());
    assert_eq!(disk.path(), path);
    assert_eq!(names(&dir), std::slice::from_ref(&path));
    assert!(matches!(open(&path, READ_ONLY), Err(OpenError::Locked { .. })));
    disk.write_durable_at(LEN, &filled(8, BLOCK)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (lead, mark) = (&bytes[..BLOCK], &bytes[LEN as usize..LEN as usize + BLOCK]);
    assert!(lead.iter().all(|byte| *byte == 7) && mark.iter().all(|byte| *byte == 8));
    assert_eq!(bytes.iter().filter(|byte| **byte == 0).count() as u64, len - 2 * BLOCK as u64);
}

#[test]
fn a_creation_that_fails_midway_leaves_no_file() {
    let dir = directory();
    let path = dir.path().join("wal");
    let result = FileDisk::create(&path, LEN, mode(SyncMethod::Auto), &mut |_, _| {}, |disk| {
        disk.write_durable_at(0, &filled(1, BLOCK))?;
        Err(io::Error::from_raw_os_error(sim::ENOSPC))
    });
    match result {
        Err(OpenError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    assert!(names(&dir).is_empty());
}

#[test]
fn a_file_larger_than_the_disk_is_refused_before_it_fills_it() {
    let dir = directory();
    let path = dir.path().join("wal");
    let mut zeroed = 0;
    let mut progress = |done, _| zeroed = done;
    let result = FileDisk::create(&path, 1 << 60, mode(SyncMethod::Auto), &mut progress, |_| Ok(()));
    match result {
        Err(OpenError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    assert_eq!(zeroed, 0);
    assert!(names(&dir).is_empty());
}

#[test]
fn a_name_that_is_taken_stays_taken() {
    let dir = directory();
    let path = dir.path().join("wal");
    let create = |init: &dyn Fn()| {
        FileDisk::create(&path, LEN, mode(SyncMethod::Auto), &mut |_, _| {}, |_| {
            init();
            Ok(())
        })
    };
    // By somebody faster, while we were writing.
    assert!(matches!(create(&|| fs::write(&path, "theirs").unwrap()), Err(OpenError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(names(&dir), std::slice::from_ref(&path));
    // And from the start: then not a byte is written.
    assert!(matches!(create(&|| panic!("initialised")), Err(OpenError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn two_creations_do_not_meet_and_a_dead_one_is_removed() {
    let dir = directory();
    let path = dir.path().join("wal");
    let temporary = dir.path().join("wal.creating");
    fs::write(&temporary, vec![0xdd; 2 * LEN as usize]).unwrap();
    let disk = FileDisk::create(&path, LEN, mode(SyncMethod::Auto), &mut |_, _| {}, |_| {
        let second = FileDisk::create(&path, LEN, mode(SyncMethod::Auto), &mut |_, _| {}, |_| Ok(()));
        assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
        assert!(temporary.exists(), "the second has removed the file of the first");
        Ok(())
    })
    .unwrap();
    drop(disk);
    assert_eq!(fs::read(&path).unwrap(), vec![0; LEN as usize]);
    assert_eq!(names(&dir), [path]);
}

#[test]
fn what_cannot_be_created_says_so() {
    let dir = directory();
    let path = dir.path().join("wal");
    let create = |path: &Path, len, mode| FileDisk::create(path, len, mode, &mut |_, _| {}, |_| Ok(())).unwrap_err();
    let kind = |error: OpenError| io::Error::from(error).kind();
    assert_eq!(kind(create(&path, LEN + 1, mode(SyncMethod::Auto))), ErrorKind::InvalidInput);
    assert_eq!(kind(create(&path, LEN, READ_ONLY)), ErrorKind::InvalidInput);
    assert_eq!(kind(create(Path::new("/"), LEN, mode(SyncMethod::Auto))), ErrorKind::InvalidInput);
    assert_eq!(kind(create(&path.join("x"), LEN, mode(SyncMethod::Auto))), ErrorKind::NotFound);
    // The name fits, the temporary one does not.
    let long = io::Error::from(create(&dir.path().join("x".repeat(247)), LEN, mode(SyncMethod::Auto)));
    assert!(long.kind() == ErrorKind::InvalidFilename && long.to_string().contains("`.creating`"), "{long}");
    assert!(names(&dir).is_empty());
    // A directory that is gone takes no file: nobody else has one there.
    let gone = fs::File::open(dir.path()).unwrap();
    dir.close().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}/wal", std::os::fd::AsRawFd::as_raw_fd(&gone)));
    assert_eq!(kind(create(&path, LEN, mode(SyncMethod::Auto))), ErrorKind::NotFound);
}

#[test]
fn a_file_in_memory_is_a_disk_as_well() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = dir.path().join("wal");
    let disk = create(&path, SyncMethod::Auto);
    disk.write_durable_at(0, &filled(1, BLOCK)).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.map().unwrap().hold().unwrap().slice(0, 1).unwrap(), [1]);
}

#[test]
fn writers_and_readers_of_different_ranges_do_not_disturb_each_other() {
    for_each_method(|path, method| {
        let disk = open(path, mode(method)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let disk = &disk;
                scope.spawn(move || {
                    let offset = u64::from(thread) * 16 * BLOCK as u64;
                    let mut bytes = vec![0; 16 * BLOCK];
                    for round in 1..8 {
                        let value = thread * 16 + round;
                        disk.write_durable_at(offset, &filled(value, bytes.len())).unwrap();
                        disk.read_at(offset, &mut bytes).unwrap();
                        assert!(bytes.iter().all(|byte| *byte == value), "{method}");
                    }
                });
            }
        });
    });
}

/// The log takes no new space: whoever is told that none is left must hear what takes it.
#[test]
fn where_holes_find_no_room_that_is_said() {
    let full =
        || OpenError::Io { context: "probing", path: "log".into(), source: io::Error::from_raw_os_error(sim::ENOSPC) };
    let said = |error: OpenError| (error.to_string().contains("cp --sparse=never"), io::Error::from(error).kind());
    assert_eq!(said(super::file::for_holes(full(), 4096)), (true, ErrorKind::StorageFull));
    assert_eq!(said(super::file::for_holes(full(), 0)), (false, ErrorKind::StorageFull));
    let other = OpenError::Io { context: "probing", path: "log".into(), source: ErrorKind::PermissionDenied.into() };
    assert_eq!(said(super::file::for_holes(other, 4096)), (false, ErrorKind::PermissionDenied));
}

/// A forked child has the same open file, and so the same lock, as has every copy of the descriptor. Its parent goes on.
#[test]
fn a_forked_child_neither_writes_nor_gives_up_the_lock_of_its_parent() {
    for_each_method(|path, method| {
        let mut disk = open(path, OpenMode { sync: method, ..OpenMode::default() }).unwrap();
        let block = filled(1, BLOCK);
        disk.write_durable_at(0, &block).unwrap();
        let parents = disk.handles.buffered().try_clone().unwrap();
        disk.handles.leave_to_the_parent();
        let outcomes = [
            disk.write_at(0, &block),
            disk.write_many(&[(0, &block[..]), (BLOCK as u64, &block[..])]),
            disk.write_durable_at(0, &block),
            disk.write_durable_of(Writer::Superblocks, 0, &block),
            disk.flush(),
            disk.flush_of(Writer::Pieces),
        ];
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert!(error.kind() == ErrorKind::PermissionDenied && error.to_string().contains("forked"), "{error}");
        }
        let mut two = [filled(7, BLOCK), filled(7, BLOCK)];
        let [first, second] = &mut two;
        disk.read_many(&mut [(0, &mut first[..]), (BLOCK as u64, &mut second[..])]).unwrap();
        assert!(two[0][..] == block[..] && two[1].iter().all(|b| *b == 0), "it may read");
        disk.release();
        drop(disk);
        assert!(matches!(open(path, mode(method)), Err(OpenError::Locked { .. })), "{method}: the parent writes");
        drop(parents);
        open(path, mode(method)).unwrap();
    });
}
