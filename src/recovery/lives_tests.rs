//! A life of a replica whose end is lost with the beginning of the next: nothing of the one is told as the other's.

use super::rig::*;
use crate::disk::sim::SimDisk;
use crate::options::RecoveryMode;
use crate::sync::Arc;
use crate::{Batch, Wal};

/// The vote of replica 1, where these frames are lost: as a salvage shows it, and as it copies it.
fn vote_without(disk: &Arc<SimDisk>, lost: std::ops::Range<usize>) -> [crate::Result<Option<Vec<u8>>>; 2] {
    for frame in &frames(disk)[lost] {
        disk.poke(frame.0, &[0xee; 4096]);
    }
    let wal = open(disk, options().recovery_mode(RecoveryMode::Salvage)).expect("a salvage");
    assert_eq!(wal.replica(1).bounds().1, 6, "of the new life there is something");
    let copy = open_arc(&Arc::new(SimDisk::new(4 << 20)));
    wal.salvage_into(&copy, |_| ()).expect("salvaged");
    [&wal, &copy].map(|wal| wal.replica(1).get(b"vote").map(|vote| vote.map(|vote| vote.to_vec())))
}

fn commit_of_another(wal: &Wal, value: &[u8]) {
    wal.commit(Batch::new().put(9, b"key", value)).expect("room");
}

/// The next record of the new life must not have the very number that the next one of the old life would have.
#[test]
fn a_salvage_takes_no_life_for_the_one_before_it() {
    // Lives of other replicas begin in between, or none do.
    for others in [0, 1, 2, 5] {
        // The life that is lost from sight has so many records more.
        for records in 0..4 {
            let disk = Arc::new(SimDisk::new(4 << 20));
            let wal = open_arc(&disk);
            commit_of_another(&wal, b"first");
            wal.commit(Batch::new().put(1, b"vote", b"old")).expect("room");
            (0..records).for_each(|i| wal.commit(Batch::new().put(1, b"other", &[i])).map(drop).expect("room"));
            let from = frames(&disk).len();
            wal.commit(Batch::new().remove(1)).expect("room");
            (0..others).for_each(|r| wal.commit(Batch::new().append(20 + r, &[(1, 1, b"x")])).map(drop).expect("room"));
            wal.commit(Batch::new().install_snapshot(1, 5, 7)).expect("room");
            commit_of_another(&wal, b"between");
            let to = frames(&disk).len();
            wal.commit(Batch::new().append(1, &[(6, 7, b"new")])).expect("room");
            commit_of_another(&wal, b"behind");
            assert_eq!(wal.replica(1).get(b"vote").expect("sound"), None);
            let told = vote_without(&Arc::new(disk.restart()), from..to);
            assert!(told.iter().all(Result::is_err), "{others} between, {records} more: told as sound: {told:?}");
        }
    }
}

/// What is left of the old life are keys alone: its CORE lay in a segment that was cleaned, and is lost where it was carried to.
#[test]
fn a_salvage_tells_nobody_the_state_of_a_life_that_is_over() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open_arc(&disk);
    let segment = || wal.engine.seq.lock().segments.current();
    wal.commit(Batch::new().put(1, b"other", b"x")).expect("room");
    let first = segment();
    while segment() == first {
        commit_of_another(&wal, &[7; 3000]);
    }
    wal.commit(Batch::new().put(1, b"vote", b"old").durable_applied(1, 1000)).expect("room");
    let from = frames(&disk).len();
    {
        let mut one = wal.engine.cleaning.lock();
        assert!(wal.engine.clean_oldest(segment(), &mut one).expect("cleaned") > 0);
    }
    wal.commit(Batch::new().remove(1)).expect("room");
    commit_of_another(&wal, b"between");
    let to = frames(&disk).len();
    wal.commit(Batch::new().install_snapshot(1, 5, 7).append(1, &[(6, 7, b"new")])).expect("room");
    commit_of_another(&wal, b"behind");
    assert_eq!(wal.replica(1).get(b"vote").expect("sound"), None);
    let told = vote_without(&Arc::new(disk.restart()), from..to);
    assert!(told.iter().all(|vote| matches!(vote, Ok(None) | Err(_))), "told as sound: {told:?}");
}
