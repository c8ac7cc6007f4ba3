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

/// A shared write-ahead log of any number of replicas, in one file.
///
/// All methods may be called from any number of threads; put it in an `Arc`. Dropping it without [`Wal::close`] stops it like a
/// crash: what was acknowledged is there, what was not may be lost. Dropped in a callback, a sink or a listener, it gives its file up a little
/// later, when what is being written has ended.
///
/// It belongs to the process that opened it. A child that is forked from that, and does not become another program (`exec`), must leave it alone: the
/// threads of the log are not there, and what other threads held is held for ever. It cannot harm the file: its writes are refused, and its end gives
/// nothing up.
#[derive(Debug)]
pub struct Wal {
    pub(crate) engine: Arc<Engine>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) opener: Opener,
}

impl Wal {
    /// The options to open a log with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Applies the batch and waits until it is durable. When nobody else is about, the caller writes the frame itself.
    ///
    /// Takes a `Batch`, or a `&mut Batch`, which is then cleared and can be filled again without allocating.
    ///
    /// # Errors
    /// Everything that [`Wal::submit`] and [`Pending::wait`] may say. After a refusal the batch is as it was.
    pub fn commit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Lsn> {
        self.engine.commit(batch.borrow_mut())
    }

    /// Applies the batch: readable on return, durable when the [`Pending`] says so. Waits while the queue is full.
    ///
    /// # Errors
    /// A batch that is refused changes nothing: [`Error::Gap`], [`Error::Compacted`], [`Error::Contradiction`], [`Error::UnknownReplica`]
    /// (the prefix of one that does not exist), [`Error::EntryTooLarge`], [`Error::ValueTooLarge`], [`Error::BatchTooLarge`], [`Error::Full`];
    /// [`Error::Io`] where the journal has no room, and cannot be cleaned because something alive in it cannot be read; [`Error::Busy`] in a
    /// callback or a listener, where it would have to wait; [`Error::Poisoned`], [`Error::FileLost`], [`Error::Closed`] and [`Error::UsedUp`] when the log
    /// takes no more, and [`Error::ReadOnly`] when it takes none.
    pub fn submit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Pending> {
        self.submit_as(batch.borrow_mut(), Mode::Block)
    }

    /// As [`Wal::submit`], but says [`Error::Busy`] instead of waiting. Nor is anything done for it that takes time: [`Error::Full`] may be said where
    /// [`Wal::submit`] would clean the journal and find room. Where the cleaner goes around and gains nothing, or fails, one of those who come again and
    /// again is told so, each time that it has, as who waits would be: [`Error::Full`], [`Error::Io`]. Without threads
    /// ([`Options::background`](crate::Options::background)) nobody makes room in the meantime but who waits.
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

    /// As [`Wal::submit`], but waits for room without blocking the thread. The batch goes with the future, refused or not: to try again, fill
    /// another. Threads that block for room go first. Among tasks there is no order, so that a batch nearly as large as the queue
    /// may wait for as long as smaller ones come.
    pub fn submit_async(&self, batch: Batch) -> SubmitFuture<'_> {
        SubmitFuture { engine: &self.engine, batch, waits: Waits::default() }
    }

    /// As [`Wal::submit_with`], but waits for room without blocking the thread; resolves when the batch is accepted, not when it is durable. If the future is
    /// dropped before that, or the batch refused, nothing is submitted and `done` is not called; the batch is gone, as with [`Wal::submit_async`].
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

    /// As [`Wal::submit`], and calls `done` once with the outcome: `Ok` when the batch is durable, else why it never will be. Callbacks run one at a time, in the order of the
    /// log.
    ///
    /// They run on the thread that wrote the frame; where the log has ended or failed, on that of whoever ended it or was the last to write. So `done` must be short. What it
    /// submits does not wait for room, and it may neither wait for durability nor close the log: that is [`Error::Busy`]. It may drop the last `Wal`: the log is stopped then,
    /// and another thread gives the file up a little later.
    ///
    /// A thread that waits for a batch may be woken before earlier callbacks of the same frame have run (of other frames, too, where the log has failed): what must come behind a callback is
    /// submitted with one itself.
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

    /// As [`Wal::submit_with`], but says [`Error::Busy`] instead of waiting, and [`Error::Full`] as [`Wal::try_submit`] does.
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

    /// As [`Wal::submit_with`], but `sink` is told that the batch of this `tag` is durable, or why it never will be: for many batches under way, without an allocation for each. Tags are the
    /// caller's; the log does not look at them.
    ///
    /// # Errors
    /// As [`Wal::submit`]; the sink then hears nothing of the tag.
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

    /// Everything submitted at or below this LSN is durable. Never goes back.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.engine.durable())
    }

    /// Blocks until everything at or below `lsn` is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::FileLost`], [`Error::Closed`]; [`Error::Option`] for an LSN that was never given out; [`Error::Busy`] where it would have to
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

    /// As [`Wal::wait_durable`], without blocking the thread.
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

    /// Makes everything submitted so far durable, lazy batches among it.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::FileLost`], [`Error::Closed`], [`Error::ReadOnly`]; [`Error::Busy`] where it would have to wait, in a callback or in a listener on a
    /// thread of the log.
    pub fn sync(&self) -> Result<Lsn> {
        self.engine.writable()?;
        self.engine.sync()
    }

    /// Whether the log still takes batches, and why not: what [`Wal::submit`] would say of any. For whoever has nothing to write, and must
    /// not go on without a log: the failure may be that of another's write. Touches memory only.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::FileLost`], [`Error::Closed`], [`Error::ReadOnly`].
    pub fn check(&self) -> Result<()> {
        self.engine.writable()?;
        self.engine.seq.lock().stopped.clone().map_or(Ok(()), Err)
    }

    /// Size of the log: [`Stats::capacity`](crate::Stats::capacity), without the rest of them.
    pub fn capacity(&self) -> u64 {
        self.engine.capacity()
    }

    /// The largest entry that it takes: [`Options::max_entry_bytes`]. A larger one has its whole batch refused.
    pub fn max_entry_bytes(&self) -> u64 {
        self.engine.run.max_entry_bytes.into()
    }

    /// The largest value of keyed state that it takes: [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), or half of a segment if that is less. A
    /// larger one has its whole batch refused.
    pub fn max_value_bytes(&self) -> u64 {
        self.engine.max_value()
    }

    /// A batch of at most so many [`Batch::log_bytes`] is never too large, whatever is in it. Beyond that it is refused ([`Error::BatchTooLarge`]), unless enough of it
    /// is placed beside the journal: long runs of entries, and large values. It is what fits a segment of the journal. Better submit at a quarter of it: a batch that does
    /// not fit the rest of a segment leaves that rest empty.
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

    /// Figures about the log. Touches memory only.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Reads everything that is kept, the journal's frames and both superblocks among it, and compares it with its checksums. Then checks that every chunk is in exactly one place.
    ///
    /// For that last check the log stands still: nothing is appended, committed or cleaned while every piece and every chunk is looked at
    /// once. It grows with the file and with what that holds, but is done in memory: nothing is read from the device meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] in a callback, or in a listener on a thread of the log; [`Error::Poisoned`], [`Error::FileLost`] or [`Error::Closed`] when the log
    /// ends while something is looked at twice; [`Error::Io`] where the file is shorter than it was. Neither damage nor a bad sector is an error here: they are in
    /// the report.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.engine.verify(progress)
    }

    /// Reads everything that is kept, one replica after the other, at most `bytes_per_second`, while the log is in use; `each` is
    /// told of every replica and may end the scrub. Blocks the calling thread only: no lock is held while the disk is read.
    ///
    /// An entry that cannot be read any more is *quarantined*: recorded as that replica's damage, durably, so that reading answers with it
    /// until the replica is healed, or the entry is overwritten, cut off or truncated. All others are untouched. A large keyed value that rotted is told
    /// by [`Scrubbed::damage`], and once by [`Event::Damaged`](crate::Event::Damaged), and is not recorded: the rest of the state is whole; put it again.
    ///
    /// Before that, both copies of the superblock are read, and the journal's frames, in which hard states, other small values and all metadata lie. Where
    /// one rotted, memory has it right: it is written anew, a frame by cleaning the journal up to there. The answer says so.
    ///
    /// # Errors
    /// [`Error::Option`] for a rate of 0; [`Error::Closed`], [`Error::Poisoned`] or [`Error::FileLost`] when the log ends meanwhile; [`Error::Full`] where what was
    /// found could not be written down, and is known until the log is opened again; [`Error::Busy`] in a callback, or in a listener on a thread of the
    /// log; what the device says. Where it cannot read something of a replica (a bad sector), `each` is not told of that one, and this is answered when all
    /// others were looked at.
    pub fn scrub(
        &self,
        bytes_per_second: u64,
        each: impl FnMut(&Scrubbed) -> ControlFlow<()>,
    ) -> Result<ScrubbedJournal> {
        self.engine.scrub(bytes_per_second, each)
    }

    /// All damage known now. Reading and [`Wal::verify`] may find more.
    pub fn damage(&self) -> Vec<Damage> {
        let mut cells = self.engine.registry.all();
        cells.sort_unstable_by_key(|c| c.id);
        cells.iter().flat_map(|c| c.lock().damage(c.id)).collect()
    }

    /// Cleans every journal segment but the newest now, rather than when space is needed.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::FileLost`], [`Error::Closed`], [`Error::ReadOnly`], or what the device says when it is read; [`Error::Busy`] in a callback, or in a
    /// listener on a thread of the log.
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.writable()?;
        self.engine.clean_all().map(|_| ())
    }

    /// Makes everything durable, seals the log and gives the file up. Reads still work, and are copies; a slice that was
    /// taken of a chain before keeps the file until it is gone. Closing twice does no harm.
    ///
    /// The index is left in the file, where there is room, so that the next opening need not read the journal. If commits keep coming
    /// meanwhile it is not, and the next opening reads the journal.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the last writes failed; [`Error::FileLost`] when the file was cut, or has no name any more; [`Error::Busy`] in a
    /// callback, a sink or a listener, which the log's end would wait for: nothing is ended then; [`Error::Io`] in a process that was forked from the
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

    /// What waits is told that the log is closed, and its threads end as soon as they can.
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
            // It is the parent's, which goes on, and its threads are not here: nobody could wait for them.
            std::mem::forget(std::mem::take(&mut *self.threads.lock()));
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Its end waits for no thread, as none is there, and gives nothing up.
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
