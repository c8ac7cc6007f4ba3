//! Hands: threads that write a frame while its leader writes the payloads placed beside it.
//!
//! Two writes that do not wait for each other, and one flush behind both, take the device hardly longer than the larger of them alone.
//! Either may be on the disk without the other when power fails: such a frame was never acknowledged, and recovery verifies what lies
//! beside the frames above the watermark.

use std::collections::VecDeque;
use std::io;

use crate::caught::by_disk;
use crate::disk::Disk;
use crate::format::frame::MAX_IN_FLIGHT;
use crate::journal::{FrameMem, Gate};
use crate::sync::{Arc, Condvar, Mutex};

/// As many as there may be leaders.
pub(crate) const HANDS: usize = MAX_IN_FLIGHT as usize;

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Job {
    offset: u64,
    mem: Arc<FrameMem>,
    gate: Gate,
    failure: Mutex<Option<io::Error>>,
}

impl Job {
    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        by_disk(|| disk.write_at(self.offset, self.mem.buf.as_slice()))
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    /// Hands that rest.
    idle: usize,
    stop: bool,
}

/// The hands of one log.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    queue: Mutex<Queue>,
    work: Condvar,
}

impl Hands {
    /// Gives a frame away, if a hand is free to take it. **The giver must [`finish`](Self::finish)**, whatever happens in between.
    pub fn give(&self, offset: u64, mem: &Arc<FrameMem>) -> Option<Arc<Job>> {
        let mut queue = self.queue.lock();
        if queue.stop || queue.idle <= queue.jobs.len() {
            return None;
        }
        let job = Arc::new(Job { offset, mem: Arc::clone(mem), gate: Gate::default(), failure: Mutex::new(None) });
        queue.jobs.push_back(Arc::clone(&job));
        self.work.notify_one();
        Some(job)
    }

    /// Returns the outcome of a job: written, not durable yet. A job that no hand has taken yet is done by the caller, so it is never
    /// slower than without hands. Nobody writes it any more when this returns.
    pub fn finish(&self, job: &Arc<Job>, disk: &dyn Disk) -> io::Result<()> {
        let mine = {
            let mut queue = self.queue.lock();
            let at = queue.jobs.iter().position(|j| Arc::ptr_eq(j, job));
            at.and_then(|at| queue.jobs.remove(at))
        };
        if mine.is_some() {
            return job.write(disk);
        }
        if job.gate.wait() {
            return Ok(());
        }
        Err(job.failure.lock().take().unwrap_or_else(|| io::ErrorKind::Other.into()))
    }

    /// A hand's life: it writes jobs until it is stopped.
    pub fn run(&self, disk: &dyn Disk) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                let failure = job.write(disk).err();
                let well = failure.is_none();
                *job.failure.lock() = failure;
                job.gate.open(well);
                queue = self.queue.lock();
            } else if queue.stop {
                return;
            } else {
                queue.idle += 1;
                queue = self.work.wait(queue);
                queue.idle -= 1;
            }
        }
    }

    /// No more jobs are accepted; those that were are finished.
    pub fn stop(&self) {
        self.queue.lock().stop = true;
        self.work.notify_all();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::disk::sim::{EIO, Fault, SimDisk};
    use crate::disk::{AlignedBuf, BLOCK};

    fn frame(byte: u8) -> Arc<FrameMem> {
        Arc::new(FrameMem { lsn: 0, buf: AlignedBuf::from([byte; BLOCK].as_slice()) })
    }

    fn holds(disk: &SimDisk, offset: u64, byte: u8) -> bool {
        let mut block = [0; BLOCK];
        disk.read_at(offset, &mut block).expect("readable");
        block == [byte; BLOCK]
    }

    #[test]
    fn no_more_is_given_than_hands_rest_and_who_gave_what_nobody_took_writes_it() {
        let (hands, disk) = (Hands::default(), SimDisk::new(1 << 20));
        assert!(hands.give(0, &frame(1)).is_none(), "there is nobody");
        hands.queue.lock().idle = 2;
        let [a, b] = [(0, 2), (8192, 3)].map(|(offset, byte)| hands.give(offset, &frame(byte)).expect("two rest"));
        assert!(hands.give(0, &frame(4)).is_none(), "as many are waited for as there are");
        hands.finish(&b, &disk).expect("written");
        assert!(holds(&disk, 0, 0) && holds(&disk, 8192, 3), "each its own");
        disk.fail_at(disk.events(), Fault::Error(EIO));
        assert_eq!(hands.finish(&a, &disk).map_err(|e| e.raw_os_error()), Err(Some(EIO)));
        hands.stop();
        assert!(hands.give(0, &frame(5)).is_none(), "stopped");
    }

    #[test]
    fn a_hand_writes_what_it_is_given_tells_how_that_went_and_rests_until_it_is_stopped() {
        let (hands, disk) = (Hands::default(), SimDisk::new(1 << 20));
        thread::scope(|scope| {
            let hand = scope.spawn(|| hands.run(&disk));
            // Bounded, so that a hand that never comes is a failure; nothing depends on how long it takes.
            let becomes = |what: &dyn Fn() -> bool| {
                (0..20_000).any(|_| {
                    let done = what();
                    if !done {
                        thread::sleep(Duration::from_millis(1));
                    }
                    done
                })
            };
            let give = |offset, byte| {
                let rests = becomes(&|| hands.queue.lock().idle == 1);
                let job = hands.give(offset, &frame(byte)).filter(|_| rests)?;
                // Taken: the giver only waits.
                becomes(&|| hands.queue.lock().jobs.is_empty()).then(|| hands.finish(&job, &disk))
            };
            let written = [(4096, 2), (8192, 3)].map(|(offset, byte)| give(offset, byte).map(|r| r.is_ok()));
            disk.fail_at(disk.events(), Fault::Error(EIO));
            let failed = give(0, 4).map(|r| r.map_err(|e| e.raw_os_error()));
            let rests = becomes(&|| hands.queue.lock().idle == 1);
            hands.stop();
            let ended = becomes(&|| hand.is_finished());
            // Whatever happened: it must not wait for ever.
            hands.queue.lock().stop = true;
            hands.work.notify_all();
            assert_eq!((written, failed), ([Some(true); 2], Some(Err(Some(EIO)))));
            assert!(rests && ended && holds(&disk, 4096, 2) && holds(&disk, 8192, 3) && holds(&disk, 0, 0));
        });
    }

    /// Else the giver would wait for ever.
    #[test]
    fn a_disk_that_panics_under_a_hand_is_told_as_a_failure_and_the_hand_lives_on() {
        let (hands, disk) = (Hands::default(), SimDisk::new(1 << 20));
        disk.on_event(|_| panic!("as planned: a bug of the disk's"));
        let (tell, told) = std::sync::mpsc::channel();
        let job = Job { offset: 0, mem: frame(1), gate: Gate::default(), failure: Mutex::new(None) };
        let job = Arc::new(job);
        hands.queue.lock().jobs.push_back(Arc::clone(&job));
        hands.stop();
        let hand = thread::spawn(move || {
            hands.run(&disk);
            // The giver takes it back.
            hands.queue.lock().jobs.push_back(Arc::clone(&job));
            let _ = tell.send(hands.finish(&job, &disk).is_err());
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(true));
        hand.join().expect("no panic");
    }
}
