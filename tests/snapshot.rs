//! A log that was closed opens from its snapshot, and stands exactly as its journal says.

mod support;

use strandlog::Placement;
use support::small;

#[test]
fn first() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("wal");
    let open = || small(Placement::Auto).capacity(4 << 20).open(&path).expect("opens");
    let wal = open();
    for i in 1..=100 {
        wal.commit(strandlog::Batch::new().append(i % 7, &[(i / 7 + 1, 1, [7; 300])]).put(i % 7, b"k", b"v")).expect("committed");
    }
    wal.close().expect("closed");
    let again = open();
    assert_eq!(again.stats().opened_by_snapshot, 1);
    support::assert_sound(&again, "again");
}
