//! Hands: threads that write a frame while whoever leads it writes the payloads placed beside it.
//!
//! Two writes that do not wait for each other, and one flush behind both, take the device hardly longer than the larger of them alone.
//! Either may be on the disk without the other when power fails: such a frame was never acknowledged, and recovery verifies what lies
//! beside the frames above the watermark.

use std::collections::VecDeque;
use std::io;

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
        disk.write_at(self.offset, self.mem.buf.as_slice())
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
    /// Gives a frame away, if a hand is free to take it. **Whoever gives must [`finish`](Self::finish)**, whatever happens in between.
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

    /// The outcome of a job: written, not durable yet. One that no hand has taken yet is done by the caller: it is never slower than without hands. Nobody
    /// writes it any more when this returns.
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

    /// A hand's life.
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

    /// No more is taken; what was is finished.
    pub fn stop(&self) {
        self.queue.lock().stop = true;
        self.work.notify_all();
    }
}
