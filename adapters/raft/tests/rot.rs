//! An entry that raft reads at its start rots. raft panics if a read fails, with all groups of its thread: so the group is not opened.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;

use raft::eraftpb::Entry;
use strandlog::disk::sim::SimDisk;
use strandlog_raft::{Checkpoint, Error, GroupStorage};
use support::{bootstrapped, commit, conf_state, disk, hard_state, node, open};

const GROUP: u64 = 7;

/// 64 KiB: these entries lie in the group's chunks, which no opening of the log reads.
fn entries() -> Vec<Entry> {
    let data: Vec<u8> = (0..64 << 10).map(|i: u32| (i * 7 % 251) as u8).collect();
    (2..=4).map(|index| Entry { index, term: 1, data: data.clone().into(), ..Entry::default() }).collect()
}

/// Entries 2 to 4, all committed and all but the last applied; the last one rotted.
fn rotten(applied: u64) -> Arc<SimDisk> {
    let disk = disk();
    let wal = open(&disk);
    let mut group = bootstrapped(&wal, GROUP);
    for one in entries() {
        commit(&wal, |batch| group.append(batch, &[one]).unwrap());
    }
    commit(&wal, |batch| group.set_hard_state(batch, &hard_state(1, 1, 4)));
    let members = conf_state(&[1, 2, 3]);
    let checkpoint = Checkpoint { index: applied, term: 1, conf_state: &members, data: b"" };
    commit(&wal, |batch| group.checkpoint(batch, checkpoint)).unwrap();
    wal.close().unwrap();
    let (image, text) = (disk.kept_image(), &entries()[0].data[1000..1064]);
    let at = image.windows(text.len()).rposition(|bytes| bytes == text).expect("the entry");
    let disk = Arc::new(disk.crash_kept_all());
    disk.flip_bit(at as u64, 3);
    disk
}

#[test]
fn a_group_of_which_raft_could_not_read_an_entry_is_not_opened() {
    let mut disk = rotten(1);
    // Damage that a read met is recorded nowhere: each opening looks for itself.
    for _ in 0..3 {
        let wal = open(&disk);
        let refused = GroupStorage::open(&wal, GROUP).map(drop);
        assert!(matches!(refused, Err(Error::Damaged { group: GROUP, .. })), "{refused:?}");
        // The other groups are not affected.
        drop(node(1, bootstrapped(&wal, 8)));
        wal.close().unwrap();
        disk = Arc::new(disk.crash_kept_all());
    }
}

/// No opening reads entries that are already applied, but raft does, for a lagging follower: the scrub records the damage for
/// the next opening.
#[test]
fn nor_one_of_which_a_scrub_has_found_that_it_rotted() {
    let found = rotten(4);
    let wal = open(&found);
    GroupStorage::open(&wal, GROUP).expect("nobody knows yet");
    wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(GroupStorage::open(&wal, GROUP).map(drop), Err(Error::Damaged { .. })));
    wal.close().unwrap();
    let wal = open(&Arc::new(found.crash_kept_all()));
    assert!(matches!(GroupStorage::open(&wal, GROUP).map(drop), Err(Error::Damaged { .. })));
}
