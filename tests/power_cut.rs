//! The power fails at every write and every sync of a scripted workload, and during the recoveries that follow.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::{Choice, Fault, SimDisk};
use strandlog::{Batch, Placement};

use support::model::{Model, Op, Oracle, batch};
use support::{assert_sound, open, payload, small};

fn append(replica: u64, from: u64, term: u64, lens: &[usize]) -> Op {
    let entries = (from..).zip(lens).map(|(i, &len)| (i, term, payload(replica, i, term, len))).collect();
    Op::Append { replica, entries }
}

/// The last durable frame brought a piece and, in a later batch, its death. The next recovery verifies that piece again, so the
/// session after the first recovery must not write over it before a newer frame is durable.
#[test]
fn what_the_last_frame_brought_is_not_overwritten_before_a_newer_frame_is_durable() {
    for killer in [append(1, 1, 2, &[20_000]), Op::Remove { replica: 1 }, Op::Reset { replica: 1, index: 9, term: 3 }] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let mut oracle = Oracle::default();
        let wal = open(small(Placement::Auto), &disk);
        for ops in [vec![append(1, 1, 1, &[20_000])], vec![killer], vec![append(2, 1, 1, &[10])]] {
            let pending = wal.submit(batch(&ops)).expect("submitted");
            oracle.submitted(Some(pending.lsn()), ops);
        }
        let lsn = wal.sync().expect("synced");
        assert_eq!(wal.stats().frames, 1, "all of it in one frame");
        oracle.acknowledged(lsn);
        assert!(oracle.pending.is_empty());
        drop(wal);

        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(small(Placement::Auto), &disk);
        let mut b = Batch::new();
        b.append(3, &[(1, 1, payload(3, 1, 1, 100_000))]);
        // Its pieces reach the medium, its frame does not.
        let syncs = disk.syncs();
        disk.fail_sync_at(syncs, Fault::Cut);
        wal.commit(b).expect_err("the power is cut");
        let pool = strandlog::format::POOL_OFFSET / 512;
        let journal = pool..pool + 6 * (64 << 10) / 512;
        let disk = disk.crash(&mut |sector, versions| match journal.contains(&sector) {
            true => Choice::Durable,
            false => Choice::Version(versions - 1),
        });
        let wal = open(small(Placement::Auto), &Arc::new(disk));
        let found = Model::read(&wal).expect("readable");
        oracle.check(&found).unwrap_or_else(|why| panic!("{why}"));
        assert_sound(&wal, "after the second recovery");
    }
}
