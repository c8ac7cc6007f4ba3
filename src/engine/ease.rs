//! The cleaner's ease: as long as there is room, it rests behind each of its reads and writes, so that commits find the device and a processor free.

use std::time::Duration;

use super::Engine;
use crate::sync::{AtomicU32, Ordering, thread};

/// Behind a read or a write the cleaner rests at most this many times as long as that took.
const REST: u32 = 2;
/// The longest rest, however long that took: a device that stalled for a while is no reason to stand still for longer.
const LONGEST: Duration = Duration::from_millis(1);

/// How many threads clean themselves, or wait until another has: for them the cleaner does not rest.
#[derive(Debug, Default)]
pub(crate) struct Hurry(AtomicU32);

/// One of these threads.
#[derive(Debug)]
pub(crate) struct InHurry<'a>(&'a Hurry);

impl Hurry {
    /// Counts this thread for as long as the guard lives.
    pub fn begin(&self) -> InHurry<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        InHurry(self)
    }

    fn is_nobody(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for InHurry<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Rests behind something that took this long, unless anybody waits for the cleaner. Under no lock but `cleaning`.
    pub(crate) fn rest_behind(&self, took: Duration) {
        let rest = self.rest(took);
        if !rest.is_zero() {
            thread::rest(rest);
        }
    }

    fn rest(&self, took: Duration) -> Duration {
        if !self.hurry.is_nobody() || !self.cleaner.lock().relief.is_served() {
            return Duration::ZERO;
        }
        let s = self.seq.lock();
        if s.stopped.is_some() {
            return Duration::ZERO;
        }
        let (part, whole) = s.ease();
        took.saturating_mul(REST).min(LONGEST) * part / whole
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::error::Error;
    use crate::sync::Arc;
    use crate::{Batch, Wal};

    const TOOK: Duration = Duration::from_micros(100);

    fn wal() -> Wal {
        let options = Wal::options().segment_size(64 << 10).journal_cap(32 << 20).background(false);
        options.open_disk(Arc::new(SimDisk::new(128 << 20))).expect("formatted")
    }

    #[test]
    fn it_rests_the_longer_the_more_room_there_is() {
        let wal = wal();
        let rest = |wal: &Wal| wal.engine.rest(TOOK);
        assert_eq!(wal.engine.rest(Duration::from_secs(9)), LONGEST);
        let (mut rests, mut index) = (vec![rest(&wal)], 1);
        while !rests.ends_with(&[Duration::ZERO]) {
            let mut batch = Batch::new();
            batch.append(1, &[(index, 1, [7; 4000])]).truncate_prefix(1, index);
            wal.commit(&mut batch).expect("room");
            index += 1;
            rests.push(rest(&wal));
        }
        assert!(!wal.engine.seq.lock().is_short(), "it rests no more before it hurries");
        assert!(rests.is_sorted_by(|a, b| a >= b), "{rests:?}");
        rests.dedup();
        assert_eq!(rests[0], TOOK * REST);
        assert!(rests.len() > 2, "something in between: {rests:?}");
    }

    #[test]
    fn it_does_not_rest_while_anybody_waits_for_it() {
        let wal = wal();
        let engine = &wal.engine;
        {
            let _one = engine.hurry.begin();
            let two = engine.hurry.begin();
            assert_eq!(engine.rest(TOOK), Duration::ZERO);
            drop(two);
            assert_eq!(engine.rest(TOOK), Duration::ZERO, "one is left");
        }
        assert_eq!(engine.rest(TOOK), TOOK * REST);
        engine.stop(&Error::Closed, None);
        assert_eq!(engine.rest(TOOK), Duration::ZERO, "who ends the log waits for it");
    }
}
