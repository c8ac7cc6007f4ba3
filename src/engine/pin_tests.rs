//! A segment that a reader copies from is not written anew, and one that is written anew is not read.

use super::Engine;
use crate::disk::sim::SimDisk;
use crate::sync::Arc;
use crate::{Batch, Placement, Wal};

fn log() -> Wal {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    options.background(false).open_disk(disk).expect("formatted")
}

/// Goes once through a good part of the journal; leaves nothing behind.
fn churn(wal: &Wal, replica: u64, turns: u64) {
    let mut batch = Batch::new();
    for _ in 0..turns {
        let index = wal.replica(replica).last_index() + 1;
        batch.append(replica, &[(index, 1, [7; 6000])]).truncate_prefix(replica, index);
        wal.commit(&mut batch).expect("committed");
    }
}

impl Engine {
    /// Whether nobody may write there: it is live as this segment, or waits for its readers.
    fn stands(&self, seq: u64, slab: u32) -> bool {
        let s = self.seq.lock();
        let other = s.segments.live.iter().any(|l| l.slab == slab && l.seq != seq);
        !other && !s.segments.free.contains(&slab)
    }
}

#[test]
#[cfg(not(shuttle))]
fn a_segment_is_not_written_anew_while_a_reader_holds_it() {
    let wal = log();
    churn(&wal, 1, 20);
    let engine = &wal.engine;
    let seq = engine.seq.lock().segments.tail();
    let pinned = engine.pin_segment(seq).expect("it is live");
    let slab = pinned.slab;
    churn(&wal, 1, 400);
    assert!(engine.seq.lock().segments.tail() > seq + 10, "the log went on without it");
    assert!(engine.stands(seq, slab), "it waits for its reader");
    assert!(engine.pin_segment(seq).is_none(), "nobody else finds it any more");
    drop(pinned);
    churn(&wal, 1, 400);
    let s = engine.seq.lock();
    assert!(!s.segments.freeing.contains(&slab) && s.segments.freeing.is_empty(), "it was given back");
}

/// A caller that waits for room looks at it itself, as nobody else does: the cleaner has nothing left to clean.
#[test]
#[cfg(not(shuttle))]
fn a_segment_that_its_reader_let_go_is_there_for_who_waits_for_one() {
    let disk = Arc::new(SimDisk::new(2 << 20));
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Journal);
    let wal = options.journal_cap(6 * (64 << 10)).background(false).open_disk(disk).expect("formatted");
    let engine = &wal.engine;
    while engine.seq.lock().segments.live.len() < 3 {
        churn(&wal, 1, 1);
    }
    let oldest = engine.seq.lock().segments.tail();
    let pinned = [oldest, oldest + 1].map(|seq| engine.pin_segment(seq).expect("it is live"));
    wal.checkpoint().expect("cleaned");
    let mut batch = Batch::new();
    for index in wal.replica(1).last_index() + 1.. {
        batch.append(1, &[(index, 1, [7; 6000])]).truncate_prefix(1, index);
        if wal.try_submit(&mut batch).is_err() {
            break;
        }
        wal.sync().expect("written");
    }
    {
        let s = engine.seq.lock();
        let counts = (s.segments.live.len(), s.segments.free.len(), s.segments.freeing.len());
        assert_eq!(counts, (1, 3, 2), "nothing can be cleaned, and no frame is on its way");
    }
    drop(pinned);
    wal.commit(&mut batch).expect("two segments are there");
    assert!(engine.seq.lock().segments.freeing.is_empty());
}

#[test]
#[cfg(shuttle)]
fn schedules_of_a_reader_and_of_those_who_free_segments() {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::None;
    // The reader must be held back between two steps while a whole segment goes: few switches, far apart.
    let scheduler = shuttle::scheduler::PctScheduler::new_from_seed(1, 3, 1500);
    shuttle::Runner::new(scheduler, config).run(|| {
        let wal = Arc::new(log());
        churn(&wal, 1, 150);
        let writer = Arc::clone(&wal);
        let writing = shuttle::thread::spawn(move || churn(&writer, 2, 60));
        for _ in 0..200 {
            let engine = &wal.engine;
            let seq = engine.seq.lock().segments.tail();
            if let Some(pinned) = engine.pin_segment(seq) {
                assert!(engine.stands(seq, pinned.slab), "segment {seq} is held, and written anew");
            }
        }
        writing.join().expect("no panic");
    });
}
