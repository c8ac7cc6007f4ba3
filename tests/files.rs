//! Files that are not as a log leaves them: somebody else's, removed, cut, grown halfway, with holes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use strandlog::disk::{Disk, FileDisk, OpenMode};
use strandlog::{Error, Wal, grow};
use tempfile::TempDir;

/// On a real file system, for a file of this name.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = dir.path().join("test.log");
    (dir, path)
}

/// Bytes, and when they were written last.
fn state(path: &Path) -> (Vec<u8>, SystemTime) {
    let written = fs::metadata(path).and_then(|m| m.modified()).expect("there");
    (fs::read(path).expect("read"), written)
}

/// Even the bytes that it holds must not be written back: they may be older than what its owner writes meanwhile.
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
