//! Queues shared with the system (`io_uring`): many reads or writes with one system call, all of them at the device at once.
//!
//! Eight writes one after the other put the thread to sleep and wake it eight times; together they cost a fifth of the processor time, and
//! take a device that can do several things at once less than half as long.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ReadWriteFlags};

use super::{DEPTH, Outcomes};

/// Requests that could begin only after waiting are to fail with `EAGAIN`: otherwise the system gives them to a thread of its own, and
/// where a limit lets it start none, they never complete.
const NOW: i32 = ReadWriteFlags::NOWAIT.bits() as i32;

/// The outcome of a request that was not even begun.
const NOT_BEGUN: i32 = -Errno::AGAIN.raw_os_error();

/// A pair of queues: for one thread at a time.
pub(in crate::disk) struct Ring(IoUring);

impl Ring {
    /// # Errors
    /// Where the system has none, or does not let this process have one.
    pub fn new() -> io::Result<Self> {
        // A child process would share the queues, but not the memory that they name.
        Ok(Self(IoUring::builder().dontfork().build(DEPTH as u32)?))
    }

    /// Reads the first [`DEPTH`] of these at once. Returns no ring if it is of no more use.
    pub fn read(mut self, file: &OwnedFd, reads: &mut [(u64, &mut [u8])]) -> (Outcomes, Option<Self>) {
        let fd = Fd(file.as_raw_fd());
        let entries = reads.iter_mut().map(|(offset, buf)| {
            // No buffer is that long; of one that is, the first part is read.
            let len = u32::try_from(buf.len()).unwrap_or(1 << 30);
            opcode::Read::new(fd, buf.as_mut_ptr(), len).offset(*offset).rw_flags(NOW).build()
        });
        // SAFETY: each entry names a buffer that is borrowed mutably, and a file that is borrowed, until `run` has returned; and no more
        // than the buffer's length.
        let (outcomes, sound) = unsafe { self.run(entries) };
        (outcomes, sound.then_some(self))
    }

    /// Writes the first [`DEPTH`] of these at once. Returns no ring if it is of no more use.
    pub fn write(mut self, file: &OwnedFd, writes: &[(u64, &[u8])]) -> (Outcomes, Option<Self>) {
        let fd = Fd(file.as_raw_fd());
        let entries = writes.iter().map(|(offset, buf)| {
            let len = u32::try_from(buf.len()).unwrap_or(1 << 30);
            opcode::Write::new(fd, buf.as_ptr(), len).offset(*offset).rw_flags(NOW).build()
        });
        // SAFETY: as above; the system only reads what is written.
        let (outcomes, sound) = unsafe { self.run(entries) };
        (outcomes, sound.then_some(self))
    }

    /// Submits the entries, and **returns when the system has done with every one of them**, whatever happens. Also returns whether the
    /// ring can be used again: if not, requests that the system did not take are still in it.
    ///
    /// # Safety
    /// What the entries name must stay as it is until this has returned: buffers, borrowed as for an ordinary read or write, and the file.
    unsafe fn run(&mut self, entries: impl Iterator<Item = Entry>) -> (Outcomes, bool) {
        let (mut outcomes, mut given, mut done) = ([NOT_BEGUN; DEPTH], 0, 0);
        {
            let mut queue = self.0.submission();
            for (i, entry) in (0..DEPTH as u64).zip(entries) {
                // SAFETY: see above. The system takes no entry before it is entered, below, and each that it took is waited for.
                if unsafe { queue.push(&entry.user_data(i)) }.is_err() {
                    break;
                }
                given += 1;
            }
        }
        loop {
            for completion in self.0.completion() {
                done += 1;
                if let Some(outcome) = usize::try_from(completion.user_data()).ok().and_then(|i| outcomes.get_mut(i)) {
                    *outcome = completion.result();
                }
            }
            if done == given {
                return (outcomes, true);
            }
            if let Err(error) = self.0.submit_and_wait(given - done)
                && error.kind() != io::ErrorKind::Interrupted
            {
                if done + self.0.submission().len() == given && self.0.completion().is_empty() {
                    tracing::debug!(target: "strandlog", %error, "a queue of reads and writes is given up");
                    return (outcomes, false);
                }
                // Some requests are with the system, and will complete.
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{AlignedBuf, BLOCK};
    use rustix::fs::{Mode, OFlags};
    use std::io::Write;

    /// Where there is none, there is nothing to see: everything is done one after the other.
    fn ring() -> Option<Ring> {
        Ring::new().inspect_err(|error| eprintln!("no io_uring here: {error}")).ok()
    }

    /// A file opened past the page cache, with its name; `None` on a file system that cannot do that.
    fn direct() -> Option<(tempfile::NamedTempFile, OwnedFd)> {
        let mut file =
            tempfile::NamedTempFile::new_in("target").or_else(|_| tempfile::NamedTempFile::new_in(".")).unwrap();
        file.write_all(&[9; 12 * BLOCK * DEPTH]).unwrap();
        file.as_file().sync_all().unwrap();
        let flags = OFlags::RDWR | OFlags::DIRECT;
        let fd = rustix::fs::open(file.path(), flags, Mode::empty());
        fd.inspect_err(|error| eprintln!("no direct I/O here: {error}")).ok().map(|fd| (file, fd))
    }

    #[test]
    fn what_is_given_is_read_and_written_each_in_its_place_and_the_ring_used_again() {
        let (Some(mut ring), Some((file, fd))) = (ring(), direct()) else { return };
        let places = || (0..).step_by(12 * BLOCK);
        for round in 0..50_u8 {
            let blocks: Vec<AlignedBuf> =
                (0..DEPTH).map(|i| AlignedBuf::from([round ^ i as u8].repeat((i + 1) * BLOCK).as_slice())).collect();
            let writes: Vec<(u64, &[u8])> = places().zip(blocks.iter().map(|buf| &buf[..])).collect();
            let (written, again) = ring.write(&fd, &writes);
            let mut read: Vec<AlignedBuf> = (0..DEPTH).map(|_| AlignedBuf::from([0; 11 * BLOCK].as_slice())).collect();
            let mut reads: Vec<(u64, &mut [u8])> = places().zip(read.iter_mut().map(|buf| &mut buf[..])).collect();
            let (outcomes, again) = again.unwrap().read(&fd, &mut reads);
            for (i, (read, block)) in read.iter().zip(&blocks).enumerate() {
                // Otherwise it is to be tried again: the system would have had to wait.
                let (wrote, got) = (written[i] == block.len() as i32, outcomes[i] == 11 * BLOCK as i32);
                assert!(
                    (wrote || written[i] == NOT_BEGUN) && (got || outcomes[i] == NOT_BEGUN),
                    "{written:?} {outcomes:?}"
                );
                if wrote && got {
                    let (head, tail) = read.split_at(block.len());
                    assert!(*head == **block && tail.iter().all(|b| *b == 9), "round {round}, {i}");
                }
            }
            assert!(written.iter().chain(&outcomes).any(|n| *n > 0), "nothing was done at all");
            ring = again.unwrap();
        }
        assert_eq!(file.path().metadata().unwrap().len(), (12 * BLOCK * DEPTH) as u64, "nothing is written behind it");
    }

    #[test]
    fn each_is_told_what_became_of_it_and_beyond_what_is_at_once_nothing_is_begun() {
        let Some(ring) = ring() else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let fd: OwnedFd = file.into();
        let mut bufs = vec![vec![0; 4096]; DEPTH + 1];
        let mut reads: Vec<(u64, &mut [u8])> =
            [0, 4096, 5000, 9000].into_iter().cycle().zip(bufs.iter_mut().map(Vec::as_mut_slice)).collect();
        let (outcomes, ring) = ring.read(&fd, &mut reads);
        assert_eq!(outcomes[..4], [4096, 904, 0, 0]);
        assert!(bufs[DEPTH].iter().all(|b| *b == 0));
        // Opened read-only: each write is refused by itself.
        let read_only: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
        let block = [1; 512];
        let (outcomes, ring) = ring.unwrap().write(&read_only, &[(0, &block), (512, &block)]);
        assert_eq!(outcomes[..2], [-Errno::BADF.raw_os_error(); 2]);
        assert_eq!(outcomes[2..], [NOT_BEGUN; DEPTH - 2]);
        let (outcomes, _) = ring.unwrap().write(&read_only, &[]);
        assert_eq!(outcomes, [NOT_BEGUN; DEPTH]);
    }
}
