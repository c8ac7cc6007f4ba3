//! Replicas that are gone, and ids that were only ever named: their cells are forgotten. Else a store that draws a new id for each range
//! would hold memory for all that it ever had.

use super::Engine;

/// This many cells of replicas that are gone are kept, or an eighth as many as replicas exist, if that is more: looking for them is worth
/// it when they are many.
const KEPT: u64 = 1024;
const KEPT_SHARE: u64 = 8;

impl Engine {
    /// Forgets the cells of replicas that are gone, if they are many and more than when it was last done: some may be held by handles.
    pub(crate) fn forget_those_gone(&self) {
        let replicas = { self.seq.lock().replicas };
        let kept = KEPT.max(replicas / KEPT_SHARE);
        self.registry.forget_those_gone(replicas, kept);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;
    use crate::{Batch, Error, Wal};

    fn log(background: bool) -> Wal {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(background);
        options.open_disk(Arc::new(SimDisk::new(32 << 20))).expect("formatted")
    }

    fn cells(wal: &Wal) -> u64 {
        wal.engine.registry.all().len() as u64
    }

    /// Whatever named them: a life that ended, something that was refused, or nothing that leaves a trace.
    #[test]
    fn the_cells_of_those_who_are_gone_do_not_stay() {
        let wal = log(false);
        wal.commit(Batch::new().append(1, &[(1, 1, b"entry")])).expect("room");
        for id in 10..4000 {
            match id % 4 {
                0 => drop(wal.commit(Batch::new().append(id, &[(1, 1, b"x")])).expect("room")),
                1 => drop(wal.commit(Batch::new().append(id, &[(7, 1, b"x")])).expect_err("a gap")),
                2 => drop(wal.commit(Batch::new().truncate_suffix(id, 1)).expect("nothing to cut")),
                _ => drop(wal.commit(Batch::new().durable_applied(id, 1)).expect("ignored")),
            }
            if id % 4 == 0 {
                wal.commit(Batch::new().remove(id)).expect("room");
            }
        }
        wal.checkpoint().expect("cleaned");
        assert!(cells(&wal) < KEPT, "{} cells of one replica", cells(&wal));
        assert_eq!(wal.replicas(), [1]);
        wal.commit(Batch::new().append(8, &[(1, 1, b"a new life")])).expect("room");
        assert_eq!(wal.replica(8).entry(1).expect("there").data, b"a new life"[..]);
        assert!(matches!(wal.replica(12).entry(1), Err(Error::UnknownReplica { replica: 12 })));
        assert_eq!(wal.replica(1).entry(1).expect("kept").data, b"entry"[..]);
        assert!(wal.verify(|_| ()).expect("readable").is_clean());
    }

    /// A handle shows the next life of its replica, and would show none were there two cells of it.
    #[test]
    fn who_is_held_by_a_handle_stays() {
        let wal = log(false);
        let handles: Vec<_> = (1..=2 * KEPT)
            .map(|id| {
                wal.commit(Batch::new().append(id, &[(1, 1, b"x")])).expect("room");
                let handle = wal.replica(id);
                wal.commit(Batch::new().remove(id)).expect("room");
                handle
            })
            .collect();
        wal.checkpoint().expect("cleaned");
        assert_eq!(cells(&wal), 2 * KEPT);
        for (id, handle) in (1..).zip(&handles) {
            assert!(!handle.exists());
            wal.commit(Batch::new().append(id, &[(1, 2, b"again")])).expect("room");
            assert_eq!(handle.entry(1).expect("there").data, b"again"[..]);
        }
    }

    /// Also where nothing is cleaned.
    #[test]
    fn an_idle_log_forgets_them() {
        let wal = log(true);
        for few in 0..2 * KEPT / 256 {
            let mut batch = Batch::new();
            (0..256).for_each(|id| _ = batch.truncate_suffix(few * 256 + id, 1));
            wal.commit(&mut batch).expect("nothing to cut");
        }
        let begun = std::time::Instant::now();
        while cells(&wal) >= KEPT {
            assert!(begun.elapsed().as_secs() < 30, "{} cells of no replica", cells(&wal));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// No batch goes to a cell that nobody finds any more.
    #[test]
    fn what_is_written_while_those_gone_are_forgotten_is_found() {
        let wal = Arc::new(log(true));
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let wal = Arc::clone(&wal);
                std::thread::spawn(move || {
                    for round in 0..300 {
                        let id = 10 + writer * 10 + round % 7;
                        drop(wal.submit(Batch::new().append(id, &[(1, 1, round.to_le_bytes())])).expect("room"));
                        let found = wal.replica(id).entry(1).expect("there").data;
                        assert_eq!(found, round.to_le_bytes()[..]);
                        drop(wal.submit(Batch::new().remove(id)).expect("room"));
                    }
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            wal.engine.registry.forget_those_gone(0, 0);
        }
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        // More than the last time may have left.
        for id in 100..150 {
            wal.commit(Batch::new().truncate_suffix(id, 1)).expect("nothing to cut");
        }
        wal.engine.registry.forget_those_gone(0, 0);
        assert_eq!((cells(&wal), wal.replicas().len()), (0, 0));
    }
}
