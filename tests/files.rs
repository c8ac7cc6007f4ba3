//! Files that are not as a log leaves them: somebody else's, removed, cut, grown halfway, with holes. How each is refused, opened or
//! reported, without destroying what it still holds.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use strandlog::disk::{Disk, FileDisk, OpenMode};
use strandlog::format::POOL_OFFSET;
use strandlog::{Batch, Error, Wal, grow};
use tempfile::TempDir;

/// A directory on a real file system, and a path in it.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = dir.path().join("test.log");
    (dir, path)
}

/// The file's bytes, and when they were last written.
fn state(path: &Path) -> (Vec<u8>, SystemTime) {
    let written = fs::metadata(path).and_then(|m| m.modified()).expect("there");
    (fs::read(path).expect("read"), written)
}

/// Not even the bytes that it holds may be written back: they may be older than what its owner writes meanwhile.
#[test]
fn nothing_is_written_to_a_file_that_is_no_log() {
    let (_dir, path) = place();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut longer = vec![0; 1 << 20];
    longer[100_000] = 1;
    for bytes in [vec![7; 1 << 20], vec![0; 1 << 20], longer, vec![7; 40_000]] {
        fs::write(&path, &bytes).expect("written");
        File::options().write(true).open(&path).and_then(|f| f.set_modified(long_ago)).expect("dated");
        let before = state(&path);
        let refused = [Wal::options().open(&path).map(drop), grow(&path, 64 << 20, |_| ()).map(drop)];
        for refused in refused {
            assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
        }
        let strange = |_: &dyn Disk| Err(std::io::Error::other("strange"));
        FileDisk::open(&path, OpenMode::default(), strange).expect_err("refused");
        assert!(state(&path) == before, "it was written to");
    }
}

/// Commits until the log ends, and returns why it did. The housekeeper looks ten times a second.
fn commit_until_it_ends(wal: &Wal) -> String {
    for _ in 0..10_000 {
        let next = wal.replica(1).last_index() + 1;
        match wal.commit(Batch::new().append(1, &[(next, 1, b"more")])) {
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(Error::FileLost { cause }) => return cause.to_string(),
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("it goes on and on");
}

/// Nobody would find the file again: what is acknowledged would be gone with the process, and whoever opens the name would begin an empty
/// log.
#[test]
fn a_log_whose_file_was_removed_ends_and_says_how_to_save_it() {
    for replaced in [false, true] {
        let (dir, path) = place();
        let options = || Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
        let wal = options().open(&path).expect("created");
        // Renamed and linked, the file is still the log's.
        let moved = dir.path().join("moved.log");
        fs::rename(&path, &moved).expect("renamed");
        fs::hard_link(&moved, dir.path().join("second.log")).expect("a second name");
        fs::remove_file(&moved).expect("one of two");
        wal.commit(Batch::new().append(1, &[(1, 1, b"kept")])).expect("it has a name");
        // At rest the housekeeper looks at the file, and the log is sealed.
        let begun = wal.stats().frames;
        while wal.stats().frames == begun {
            std::thread::sleep(Duration::from_millis(5));
        }
        wal.check().expect("renamed, it goes on");
        if replaced {
            fs::write(&moved, b"another")
                .and_then(|()| fs::rename(&moved, dir.path().join("second.log")))
                .expect("replaced");
        } else {
            fs::remove_file(dir.path().join("second.log")).expect("removed");
        }
        let cause = commit_until_it_ends(&wal);
        assert!(cause.contains("has no name any more"), "{cause}");
        let said = wal.check().expect_err("it has ended").to_string();
        assert!(said.contains(&cause) && said.ends_with("do not open that anew"), "{said}");
        assert_eq!(wal.replica(1).entry(1).expect("still there").data, b"kept"[..]);
        // Copied as the error says.
        let last = wal.replica(1).last_index();
        let from = cause.split("cp ").nth(1).and_then(|rest| rest.strip_suffix(" NEW")).expect("how to copy it");
        let copy = dir.path().join("copy.log");
        fs::copy(from, &copy).expect("copied");
        let saved = options().open(&copy).expect("the copy opens");
        let durable = saved.replica(1).last_index();
        assert!(durable == last || durable + 1 == last, "{durable} of {last}");
        assert!(saved.verify(|_| ()).expect("verified").is_clean());
    }
}

/// A copy that leaves out zeros: the device may have no room for them when they are written.
#[test]
fn a_copy_with_holes_opens_and_says_what_it_lacks() {
    let (dir, path) = place();
    let wal = Wal::options().capacity(8 << 20).open(&path).expect("created");
    let holes = |wal: &Wal| wal.stats().disk.expect("a disk").hole_bytes;
    assert_eq!(holes(&wal), 0);
    wal.commit(Batch::new().append(1, &[(1, 1, b"kept")])).expect("room");
    wal.close().expect("closed");
    drop(wal);
    let wal = Wal::options().open(&path).expect("opens");
    assert_eq!(holes(&wal), 0, "all of it was written");
    wal.close().expect("closed");
    drop(wal);
    let (bytes, sparse) = (fs::read(&path).expect("read"), dir.path().join("sparse.log"));
    let file = File::create(&sparse).expect("created");
    file.set_len(bytes.len() as u64).expect("a hole");
    for (at, block) in (0..).step_by(4096).zip(bytes.chunks(4096)) {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, at).expect("written");
        }
    }
    file.sync_all().expect("durable");
    if fs::metadata(&sparse).expect("there").blocks() * 512 > 6 << 20 {
        return; // No holes on this file system.
    }
    // A reader is told, too.
    for read_only in [true, false] {
        let wal = Wal::options().read_only(read_only).open(&sparse).expect("opens");
        assert!(holes(&wal) > 6 << 20, "read only: {read_only}, {}", holes(&wal));
    }
    let wal = Wal::options().open(&sparse).expect("opens");
    assert_eq!(wal.replica(1).entry(1).expect("kept").data, b"kept"[..]);
}

/// The file has grown, but growing was killed before a superblock named what lies behind the old end.
#[test]
fn a_file_that_is_longer_than_its_log_is_no_capacity() {
    let (_dir, path) = place();
    let options = || Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
    options().open(&path).expect("created").close().expect("closed");
    File::options().write(true).open(&path).and_then(|f| f.set_len(64 << 20)).expect("longer");
    let wal = options().open(&path).expect("opens");
    assert_eq!((wal.stats().capacity, wal.stats().file_bytes), (4 << 20, 64 << 20));
    drop(wal);
    let grown = grow(&path, 8 << 20, |_| ()).expect("grown");
    assert_eq!((grown.from, grown.file_from, grown.to), (4 << 20, 64 << 20, 8 << 20));
    assert_eq!(fs::metadata(&path).expect("there").len(), 8 << 20);
}

/// An opening for writing or reading says what the file lacks; a salvage takes what lay there for lost, and says so.
#[test]
fn of_a_file_that_was_cut_what_is_left_is_saved() {
    let (dir, path) = place();
    // The journal does not grow: it stays at the front.
    let options = || {
        let options = Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
        options.direct_threshold(8 << 10).journal_cap(6 * (64 << 10))
    };
    let wal = options().open(&path).expect("created");
    let large = |index: u64| vec![index as u8; 30_000];
    for index in 1..=80 {
        wal.commit(Batch::new().append(1, &[(index, 1, large(index))]).append(2, &[(index, 1, b"small")]))
            .expect("room");
    }
    wal.close().expect("closed");
    drop(wal);
    let whole = fs::read(&path).expect("read");
    // Chains fill from the front: nothing lay behind the first cut, and some of replica 1 behind the second.
    for (left, all) in [(4 << 20) - (64 << 10), 2 << 20].into_iter().zip([true, false]) {
        fs::write(&path, &whole[..left]).expect("cut");
        let (file_bytes, log_bytes) = (left as u64, 4 << 20);
        for refused in [options().open(&path), options().read_only(true).open(&path)] {
            let refused = refused.expect_err("cut");
            assert!(matches!(refused, Error::Cut { file_bytes: f, log_bytes: l } if (f, l) == (file_bytes, log_bytes)));
            let said = refused.to_string();
            assert!(said.contains("salvage it as it is") && !said.contains("truncate"), "{said}");
        }
        let from = Wal::options().recovery_mode(strandlog::RecoveryMode::Salvage).open(&path).expect("opens");
        let stats = from.stats();
        assert_eq!((stats.capacity, stats.file_bytes, stats.unnamed_losses), (log_bytes, file_bytes, 0));
        let verified = from.verify(|_| ()).expect("verified");
        assert!(verified.cut.is_some_and(|cut| (cut.file_bytes, cut.log_bytes) == (file_bytes, log_bytes)));
        assert!(!verified.is_clean() && verified.damage.is_empty() == all, "{verified:?}");
        let to = options().open(dir.path().join(format!("saved{left}.log"))).expect("created");
        let report = from.salvage_into(&to, |_| ()).expect("salvaged");
        assert!(report.cut == verified.cut && !report.is_whole() && report.damage.is_empty() == all, "{report:?}");
        for index in 1..=80 {
            assert_eq!(to.replica(2).entry(index).expect("in the journal").data, b"small"[..]);
            match to.replica(1).entry(index) {
                Ok(entry) => assert_eq!(entry.data, large(index)),
                Err(error) => assert!(!all && matches!(error, Error::Damaged(_)), "{index}: {error}"),
            }
        }
        assert_eq!(fs::read(&path).expect("read"), whole[..left], "it was written to");
    }
}

/// The newest frame brings a vote, and with it a large entry that lay in what was cut. It was acknowledged: that the entry reads as zeros
/// is no sign of a torn write.
#[test]
fn of_a_cut_file_no_older_vote_is_told_as_sound() {
    let (dir, path) = place();
    let options = || {
        let options = Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
        options.direct_threshold(8 << 10).journal_cap(6 * (64 << 10)).background(false)
    };
    let wal = options().open(&path).expect("created");
    let cut = dir.path().join("cut.log");
    let mut lost = 0;
    for vote in 1..=90_u64 {
        let mut batch = Batch::new();
        batch.append(1, &[(vote, 1, vec![vote as u8; 30_000])]).put(2, b"vote", &vote.to_le_bytes());
        wal.commit(&mut batch).expect("room");
        let whole = fs::read(&path).expect("read");
        for left in [2 << 20, 5 << 19, 3 << 20] {
            fs::write(&cut, &whole[..left]).expect("cut");
            let from = Wal::options().recovery_mode(strandlog::RecoveryMode::Salvage).open(&cut).expect("opens");
            let told = from.replica(2).get(b"vote").expect("readable").expect("put");
            assert_eq!(told, vote.to_le_bytes()[..], "cut to {left}");
            assert_eq!(from.stats().unnamed_losses, 0, "its journal is whole");
            match from.replica(1).entry(vote) {
                Ok(entry) => assert_eq!(entry.data, vec![vote as u8; 30_000]),
                Err(error) => {
                    assert!(matches!(error, Error::Damaged(_)), "{error}");
                    lost += 1;
                }
            }
        }
    }
    assert!(lost > 50, "{lost}");
}

/// Extended to its old length, a file that lost the end of its journal would open as if nothing had been there: no error may advise that.
#[test]
fn a_file_that_was_cut_is_advised_what_does_not_hide_the_loss() {
    let (dir, path) = place();
    let options = || Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10);
    drop(options().open(&path).expect("created"));
    grow(&path, 8 << 20, |_| ()).expect("grown");
    let wal = options().open(&path).expect("opens");
    let whole = || fs::read(&path).expect("read");
    let (front, cut) = (POOL_OFFSET as usize, dir.path().join("cut.log"));
    let mut behind = 0;
    for vote in 1..=60_u64 {
        wal.commit(Batch::new().put(1, b"vote", &vote.to_le_bytes()).put(100 + vote, b"pad", &[7; 3000]))
            .expect("room");
        wal.commit(Batch::new().remove(100 + vote)).expect("room");
        for left in [6 << 20, front] {
            fs::write(&cut, &whole()[..left]).expect("cut");
            let salvage = || Wal::options().recovery_mode(strandlog::RecoveryMode::Salvage).open(&cut);
            for refused in [options().open(&cut), salvage()].into_iter().flat_map(Result::err) {
                let said = refused.to_string();
                assert!(
                    matches!(refused, Error::Cut { .. }) && !said.contains("truncate") && !said.contains("extend"),
                    "{said}"
                );
                assert_eq!(said.contains("nothing can be salvaged"), left == front, "{said}");
            }
            let Ok(from) = salvage() else { continue };
            let told = from.replica(1).get(b"vote").ok().flatten();
            if told.as_deref() != Some(&vote.to_le_bytes()[..]) {
                behind += 1;
                assert_eq!(from.stats().unnamed_losses, 1, "of {vote} it tells {told:?}");
            }
        }
    }
    assert!(behind > 0, "its journal never lay behind the cut");
}

/// The file goes between two looks of the housekeeper, or there is none: a close that succeeded would leave nothing under the name.
#[test]
fn a_log_whose_file_was_removed_or_cut_is_not_closed_well() {
    for removed in [true, false] {
        let (_dir, path) = place();
        let options = Wal::options().capacity(4 << 20).chunk_size(4096).segment_size(64 << 10).background(false);
        let wal = options.open(&path).expect("created");
        wal.commit(Batch::new().put(1, b"vote", b"me")).expect("room");
        if removed {
            fs::remove_file(&path).expect("removed");
        } else {
            File::options().write(true).open(&path).and_then(|f| f.set_len(2 << 20)).expect("cut");
        }
        for time in ["first", "second"] {
            let closed = wal.close();
            assert!(matches!(closed, Err(Error::FileLost { .. })), "the {time} time: {closed:?}");
        }
        assert!(removed || fs::metadata(&path).expect("there").len() == 2 << 20, "it was written to");
        assert_eq!(wal.replica(1).get(b"vote").expect("readable").expect("put"), b"me"[..]);
    }
    // A file removed after the close is nobody's loss.
    let (_dir, path) = place();
    let wal = Wal::options().capacity(4 << 20).open(&path).expect("created");
    wal.close().expect("closed");
    fs::remove_file(&path).expect("removed");
    wal.close().expect("closed twice is well");
}

/// Its name is the one under which another log is created. What a killed creation leaves there is removed, and nothing else.
#[test]
fn creating_a_log_removes_no_other_log() {
    let (dir, path) = place();
    let options = || Wal::options().capacity(1 << 20).chunk_size(4096).segment_size(64 << 10);
    let other = dir.path().join("test.log.creating");
    let wal = options().open(&other).expect("created");
    wal.commit(Batch::new().put(1, b"vote", b"me")).expect("room");
    for cut in [false, true] {
        if cut {
            File::options().write(true).open(&other).and_then(|f| f.set_len(512 << 10)).expect("cut");
        } else {
            wal.close().expect("closed");
        }
        let (before, created) = (fs::read(&other).expect("there"), options().open(&path));
        let refused = created.expect_err("the name is taken").to_string();
        assert!(refused.contains("test.log.creating exists"), "{refused}");
        assert!(!path.exists() && fs::read(&other).expect("still there") == before);
    }
    drop(wal);
    // Formatted, and killed before it got its name.
    fs::remove_file(&other).expect("removed");
    drop(options().open(&other).expect("created"));
    options().open(&path).expect("created").close().expect("closed");
    assert!(!other.exists());
}
