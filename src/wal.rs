//! The log, as its users see it.

use std::borrow::BorrowMut;
use std::ops::ControlFlow;

use crate::batch::Batch;
use crate::disk::Opener;
use crate::engine::{Ending, Engine, Mode, Submitted};
use crate::error::{Damage, Error, Result};
use crate::journal::{Sink, Whom};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::pending::{Pending, SubmitFuture, SubmitWithFuture, Waits};
use crate::replica::Replica;
use crate::scrub::{Scrubbed, ScrubbedJournal};
use crate::stats::Stats;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Mutex};
use crate::verify::{VerifyProgress, VerifyReport};

/// A write-ahead log shared by any number of replicas, in one file.
///
/// All methods may be called from any number of threads; put it in an `Arc`. Dropping it without [`Wal::close`] stops it like a
/// crash: what was acknowledged is kept, what was not may be lost. If it is dropped in a callback, a sink or a listener, it gives up its file a little
/// later, once writes in flight have ended.
///
/// A log belongs to the process that opened it. A forked child that does not `exec` must leave it alone: the log's threads do not exist
/// there, and locks that other threads held are held forever. It cannot harm the file: its writes are refused, and its exit does not give up
/// the file or its lock.
#[derive(Debug)]
pub struct Wal {
    pub(crate) engine: Arc<Engine>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) opener: Opener,
}

impl Wal {
    /// The default options, to open a log with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Applies the batch and waits until it is durable. While few threads commit, the caller writes the frame itself.
    ///
    /// Takes a `Batch`, or a `&mut Batch`, which is then cleared and can be refilled without allocating.
    ///
    /// # Errors
    /// All errors of [`Wal::submit`] and [`Pending::wait`]. A refused batch is left as it was.
    pub fn commit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Lsn> {
        self.engine.commit(batch.borrow_mut())
    }

    /// Applies the batch: it is readable on return, and durable when the [`Pending`] says so. Waits while the queue is full.
    ///
    /// # Errors
    /// A refused batch changes nothing.
    ///
    /// - The batch cannot be applied: [`Error::Gap`], [`Error::Compacted`], [`Error::Contradiction`], [`Error::UnknownReplica`]
    ///   (truncating the prefix of a replica that does not exist), [`Error::EntryTooLarge`], [`Error::ValueTooLarge`], [`Error::BatchTooLarge`].
    /// - There is no room: [`Error::Full`]; or [`Error::Io`], where the journal cannot be cleaned because something alive in it cannot be read.
    /// - It would have to wait, in a callback or a listener: [`Error::Busy`].
    /// - The log takes no more batches: [`Error::Poisoned`], [`Error::FileLost`], [`Error::Closed`], [`Error::UsedUp`]; or takes none:
    ///   [`Error::ReadOnly`].
    pub fn submit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Pending> {
        self.submit_as(batch.borrow_mut(), Mode::Block)
    }

    /// Like [`Wal::submit`], but returns [`Error::Busy`] instead of waiting.
    ///
    /// It does nothing that takes time, so it may return [`Error::Full`] where [`Wal::submit`] would clean the journal and find room. When the
    /// cleaner has gone around in vain, or has failed, one of the callers that keep retrying is told so, as a waiting caller would be, with
    /// [`Error::Full`] or [`Error::Io`]; and one more each time that this happens again. Without threads
    /// ([`Options::background`](crate::Options::background)) only calls that wait make room.
    ///
    /// # Errors
    /// As [`Wal::submit`].
    pub fn try_submit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Pending> {
        self.submit_as(batch.borrow_mut(), Mode::Try)
    }

    fn submit_as(&self, batch: &mut Batch, mode: Mode) -> Result<Pending> {
        let submitted = self.engine.submit(batch, mode, None, false)?;
        batch.clear();
        Ok(Pending::new(&self.engine, submitted))
    }

    /// Like [`Wal::submit`], but waits for room without blocking the thread. The future consumes the batch, even if it is refused: to try again, fill
    /// another. Threads that block for room go first. Among tasks there is no order, so a batch nearly as large as the queue
    /// may wait for as long as smaller ones keep coming.
    pub fn submit_async(&self, batch: Batch) -> SubmitFuture<'_> {
        SubmitFuture { engine: &self.engine, batch, waits: Waits::default() }
    }

    /// Like [`Wal::submit_with`], but waits for room without blocking the thread. Resolves when the batch is accepted, not when it is durable. If the future is
    /// dropped before that, or the batch is refused, nothing is submitted and `done` is not called; the batch is gone, as with [`Wal::submit_async`].
    pub fn submit_with_async(
        &self,
        batch: Batch,
        done: impl FnOnce(Result<Lsn>) + Send + 'static,
    ) -> SubmitWithFuture<'_> {
        SubmitWithFuture {
            engine: &self.engine,
            batch,
            whom: Some(Whom::Caller(Box::new(done))),
            waits: Waits::default(),
        }
    }

    /// Like [`Wal::submit`], and calls `done` once with the outcome: `Ok` when the batch is durable, otherwise the reason why it never will be. Callbacks run
    /// one at a time, in log order.
    ///
    /// A callback runs on the thread that wrote the frame, or, if the log has ended or failed, on the thread that ended it or was the last to
    /// write. So `done` must be short. Inside it, a call that would have to wait for room or for durability returns [`Error::Busy`], and so does
    /// closing the log. It may drop the last `Wal`: the log then stops, and another thread gives up the file a little later.
    ///
    /// A thread that waits for a batch may wake before earlier callbacks of the same frame have run (or of other frames, if the log has
    /// failed). Work that must follow a callback needs a callback of its own.
    ///
    /// # Errors
    /// As [`Wal::submit`]; `done` is then not called.
    pub fn submit_with(
        &self,
        mut batch: impl BorrowMut<Batch>,
        done: impl FnOnce(Result<Lsn>) + Send + 'static,
    ) -> Result<Lsn> {
        self.submit_telling(batch.borrow_mut(), Mode::Block, Whom::Caller(Box::new(done)))
    }

    /// Like [`Wal::submit_with`], but returns [`Error::Busy`] instead of waiting, and [`Error::Full`] as [`Wal::try_submit`] does.
    ///
    /// # Errors
    /// As [`Wal::submit`]; `done` is then not called.
    pub fn try_submit_with(
        &self,
        mut batch: impl BorrowMut<Batch>,
        done: impl FnOnce(Result<Lsn>) + Send + 'static,
    ) -> Result<Lsn> {
        self.submit_telling(batch.borrow_mut(), Mode::Try, Whom::Caller(Box::new(done)))
    }

    /// Like [`Wal::submit_with`], but instead of calling back, tells `sink` that the batch with this `tag` is durable, or why it never will be. For many batches
    /// in flight, without an allocation for each. Tags are the caller's; the log does not interpret them.
    ///
    /// # Errors
    /// As [`Wal::submit`]; the sink is then not told of the tag.
    pub fn submit_to(
        &self,
        mut batch: impl BorrowMut<Batch>,
        sink: &std::sync::Arc<dyn Sink>,
        tag: u64,
    ) -> Result<Lsn> {
        self.submit_telling(batch.borrow_mut(), Mode::Block, Whom::Sink(sink, tag))
    }

    fn submit_telling(&self, batch: &mut Batch, mode: Mode, whom: Whom<'_>) -> Result<Lsn> {
        let submitted = self.engine.submit(batch, mode, Some(whom), false)?;
        batch.clear();
        Ok(submitted.lsn)
    }

    /// Everything submitted at or below this LSN is durable. It never decreases.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.engine.durable())
    }

    /// Blocks until everything at or below `lsn` is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::FileLost`] or [`Error::Closed`]; [`Error::Option`] for an LSN that was never given out; [`Error::Busy`] if it would have to
    /// wait, in a callback or in a listener on a thread of the log.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        if self.durable_lsn() >= lsn {
            return Ok(());
        }
        match self.engine.ticket_of(lsn)? {
            Some(ticket) => self.engine.drive(&ticket),
            None => Ok(()),
        }
    }

    /// Like [`Wal::wait_durable`], without blocking the thread.
    ///
    /// # Errors
    /// As [`Wal::wait_durable`].
    pub async fn wait_durable_async(&self, lsn: Lsn) -> Result<()> {
        match self.engine.ticket_of(lsn)? {
            Some(ticket) => {
                let submitted = Submitted { lsn, ticket, writer_busy: false, taken: None };
                Pending::new(&self.engine, submitted).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Makes everything submitted so far durable, including lazy batches.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::FileLost`], [`Error::Closed`] or [`Error::ReadOnly`]; [`Error::Busy`] if it would have to wait, in a callback or in a listener on a
    /// thread of the log.
    pub fn sync(&self) -> Result<Lsn> {
        self.engine.writable()?;
        self.engine.sync()
    }

    /// Whether the log still takes batches, and if not, why: the error that [`Wal::submit`] would return for any batch. For callers that have
    /// nothing to write and must not go on without a log, as another caller's write may have failed. Touches memory only.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::FileLost`], [`Error::Closed`] or [`Error::ReadOnly`].
    pub fn check(&self) -> Result<()> {
        self.engine.writable()?;
        self.engine.seq.lock().stopped.clone().map_or(Ok(()), Err)
    }

    /// The size of the log: [`Stats::capacity`](crate::Stats::capacity) alone.
    pub fn capacity(&self) -> u64 {
        self.engine.capacity()
    }

    /// The largest entry that it accepts: [`Options::max_entry_bytes`]. A larger one causes its whole batch to be refused.
    pub fn max_entry_bytes(&self) -> u64 {
        self.engine.run.max_entry_bytes.into()
    }

    /// The largest keyed value that it accepts: [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), or half a segment if that is less. A
    /// larger one causes its whole batch to be refused.
    pub fn max_value_bytes(&self) -> u64 {
        self.engine.max_value()
    }

    /// The most [`Batch::log_bytes`] with which a batch is never too large, whatever is in it: what fits one segment of the journal. A larger batch is refused
    /// ([`Error::BatchTooLarge`]), unless enough of it is placed beside the journal: long runs of entries, and large values. Better submit at a quarter
    /// of this: a batch that does not fit the rest of a segment leaves that rest empty.
    pub fn max_batch_bytes(&self) -> u64 {
        self.engine.max_inline()
    }

    /// A handle to read a replica with, whether it exists yet or not.
    pub fn replica(&self, id: u64) -> Replica {
        Replica { cell: self.engine.registry.get(id), engine: Arc::clone(&self.engine), id }
    }

    /// The ids of all replicas that exist, ascending.
    pub fn replicas(&self) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.engine.registry.all().into_iter().filter(|c| c.lock().exists).map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Counters and gauges of the log. Touches memory only.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Reads everything that is kept, including the journal's frames and both superblocks, and verifies the checksums. Then checks that every
    /// chunk is in exactly one place.
    ///
    /// During that last check the log stands still: nothing is appended, committed or cleaned while every piece and every chunk is looked at
    /// once. Its duration grows with the file and its contents, but it runs in memory: nothing is read from the device meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] in a callback, or in a listener on a thread of the log; [`Error::Poisoned`], [`Error::FileLost`] or [`Error::Closed`] if the log
    /// ends while something is being checked a second time; [`Error::Io`] if the file is shorter than it was. Damage and bad sectors are not errors here: they are in
    /// the report.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.engine.verify(progress)
    }

    /// Reads everything that is kept, at most `bytes_per_second`, while the log is in use. It goes replica by replica; `each` is
    /// called for every replica, and may end the scrub. Blocks the calling thread only: no lock is held while the disk is read.
    ///
    /// An entry whose bytes have rotted is *quarantined*: recorded durably as that replica's damage, and returned as damage by reads
    /// until the replica is healed, or the entry is overwritten, cut off or truncated. All other entries are untouched. A large keyed value that rotted is
    /// reported in [`Scrubbed::damage`], and once by [`Event::Damaged`](crate::Event::Damaged), but not recorded: the rest of the state is whole; put the value again.
    ///
    /// Before the replicas, it reads both copies of the superblock, and the journal's frames, which hold hard states, other small values and all
    /// metadata. If one of these rotted, it is rewritten from memory, which has it right; a frame, by cleaning the journal up to there. The result says so.
    ///
    /// # Errors
    /// [`Error::Option`] for a rate of 0; [`Error::Closed`], [`Error::Poisoned`] or [`Error::FileLost`] if the log ends meanwhile; [`Error::Full`] if damage that was
    /// found could not be recorded (it is then known only until the next opening); [`Error::Busy`] in a callback, or in a listener on a thread of the
    /// log; and errors of the device. If something of a replica cannot be read (a bad sector), `each` is not called for that replica, and the error is
    /// returned once all others have been looked at.
    pub fn scrub(
        &self,
        bytes_per_second: u64,
        each: impl FnMut(&Scrubbed) -> ControlFlow<()>,
    ) -> Result<ScrubbedJournal> {
        self.engine.scrub(bytes_per_second, each)
    }

    /// All damage known so far. Reads and [`Wal::verify`] may find more.
    pub fn damage(&self) -> Vec<Damage> {
        let mut cells = self.engine.registry.all();
        cells.sort_unstable_by_key(|c| c.id);
        cells.iter().flat_map(|c| c.lock().damage(c.id)).collect()
    }

    /// Cleans every journal segment except the newest now, rather than when space is needed.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::FileLost`], [`Error::Closed`] or [`Error::ReadOnly`]; errors of the device on reading; [`Error::Busy`] in a callback, or in a
    /// listener on a thread of the log.
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.writable()?;
        self.engine.clean_all().map(|_| ())
    }

    /// Makes everything durable, seals the log and gives up the file. Reads still work, and return copies. A slice that was
    /// taken of a chain before keeps the file locked until it is dropped. Closing twice does no harm.
    ///
    /// If there is room, the index is saved in the file, so that the next opening need not read the journal. If commits keep coming
    /// meanwhile it is not saved, and the next opening reads the journal.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the last writes failed; [`Error::FileLost`] if the file was cut, or its name is gone; [`Error::Busy`] in a
    /// callback, a sink or a listener, because closing would wait for it: the log stays open then; [`Error::Io`] in a process that was forked from the
    /// one that opened it.
    pub fn close(&self) -> Result<()> {
        self.opener.check().map_err(|e| Error::io("closing the log", e))?;
        self.engine.may_end()?;
        let outcome = if self.engine.read_only { Ok(()) } else { self.engine.end_well() };
        self.stop().finish();
        match outcome {
            Err(Error::Closed) => Ok(()),
            outcome => outcome,
        }
    }

    /// Tells all who wait that the log is closed; its threads end as soon as they can.
    pub(crate) fn stop(&self) -> Ending {
        self.engine.stop(&Error::Closed, None);
        let threads = std::mem::take(&mut *self.threads.lock());
        Ending { engine: Arc::clone(&self.engine), threads }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if self.opener.is_here() {
            self.stop().finish_or_leave();
        } else {
            // It is the parent's, which goes on. The parent's threads do not exist here: nobody could wait for them.
            std::mem::forget(std::mem::take(&mut *self.threads.lock()));
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Its end waits for no thread, as none exists here, and gives nothing up.
    #[test]
    fn the_log_of_a_forked_child_ends_without_a_word() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let open = || Wal::options().capacity(16 << 20).background(false).open(&path);
        let mut wal = open().expect("created");
        wal.commit(Batch::new().put(1, b"key", b"value")).expect("room");
        let threads = std::thread::spawn(std::thread::park);
        let parents = threads.thread().clone();
        wal.threads.lock().push(threads);
        wal.opener = Opener::parent();
        let error = wal.close().expect_err("it is its parent's");
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("forked"), "{error}");
        let engine = Arc::clone(&wal.engine);
        drop(wal);
        engine.writable().expect("its parent goes on");
        assert!(matches!(open(), Err(Error::Locked { .. })));
        parents.unpark();
        drop(engine);
        drop(open().expect("given up"));
    }
}
