//! The log, as its users see it.

use std::borrow::BorrowMut;
use std::ops::ControlFlow;
use std::path::Path;

use crate::batch::Batch;
use crate::caught::caught;
use crate::disk::{CutDisk, Disk, FileDisk, OpenError, OpenMode};
use crate::engine::{Ending, Engine, HANDS, Mode, Submitted, Telling, telling};
use crate::error::{Damage, Error, Result, is_worth_a_salvage};
use crate::events::Events;
use crate::journal::{Sink, Whom};
use crate::lsn::Lsn;
use crate::options::{Options, Progress, ReadMode, RecoveryMode};
use crate::pending::{Pending, SubmitFuture, SubmitWithFuture, Waits};
use crate::recovery::{self, Found, Recovered};
use crate::replica::Replica;
use crate::scrub::{Scrubbed, ScrubbedJournal};
use crate::stats::Stats;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex};
use crate::verify::{VerifyProgress, VerifyReport};

/// A shared write-ahead log of any number of replicas, in one file.
///
/// All methods may be called from any number of threads; put it in an `Arc`. Dropping it without [`Wal::close`] stops it like a
/// crash: what was acknowledged is there, what was not may be lost. Dropped in a callback, a sink or a listener, it gives its file up a little
/// later, when what is being written has ended.
#[derive(Debug)]
pub struct Wal {
    pub(crate) engine: Arc<Engine>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
    /// callback or a listener, where it would have to wait; [`Error::Poisoned`], [`Error::FileLost`] and [`Error::Closed`] when the log takes no more,
    /// and [`Error::ReadOnly`] when it takes none.
    pub fn submit(&self, mut batch: impl BorrowMut<Batch>) -> Result<Pending> {
        self.submit_as(batch.borrow_mut(), Mode::Block)
    }

    /// As [`Wal::submit`], but says [`Error::Busy`] instead of waiting. Nor is anything done for it that takes time: [`Error::Full`] may be said where
    /// [`Wal::submit`] would clean the journal and find room. Without threads ([`Options::background`](crate::Options::background)) nobody makes room
    /// in the meantime but who waits.
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
    /// another. Tasks let those go first who block for room; among themselves they have no order, so that a batch nearly as large as the queue
    /// may wait for as long as smaller ones come.
    pub fn submit_async(&self, batch: Batch) -> SubmitFuture<'_> {
        SubmitFuture { engine: &self.engine, batch, waits: Waits::default() }
    }

    /// As [`Wal::submit_with`], but waits for room without blocking the thread; resolves when the batch was accepted. Where that is
    /// dropped before, or refused, nothing is submitted and `done` is not called; the batch is gone, as with [`Wal::submit_async`].
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

    /// As [`Wal::submit`]; `done` is called once with the outcome, in order of LSN, durable or not, and one at a time: on the thread that wrote
    /// the frame, or, where the log has ended or failed, of whoever ended it or was the last to write. It must be
    /// short, and what it submits does not wait, nor may it wait for durability ([`Error::Busy`]). Who waits for a batch may be woken
    /// before earlier callbacks of the same frame, or of others where the log has failed: what must come behind a callback is submitted with one, too. It may not close the log
    /// ([`Error::Busy`]); it may drop the last `Wal`: the log is stopped then, and another thread gives the file up a little later.
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

    /// As [`Wal::submit_with`], but `sink` is told of `tag`: for many batches under way, without an allocation for each.
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

    /// So many [`Batch::log_bytes`] surely fit a batch, whatever it asks for: beyond that it is [`Error::BatchTooLarge`], unless enough of it
    /// finds its place beside the journal. It is what fits a segment of the journal: a round is better submitted at a quarter of it, as what does
    /// not fit the rest of a segment leaves that empty.
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

    /// Figures about the log.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Reads everything that is kept, the journal's frames and both superblocks among it, and compares it with its checksums; checks that every chunk is in exactly one place.
    ///
    /// That check comes last, and the log stands still for it: nothing is appended, committed or cleaned while every piece and every chunk is looked at
    /// once, in memory. So it takes the longer the larger the file and the more it holds, but nothing is read from the device then.
    ///
    /// # Errors
    /// What the device says; [`Error::Busy`] in a callback, or in a listener on a thread of the log; [`Error::Poisoned`], [`Error::FileLost`] or
    /// [`Error::Closed`] when the log ends while something is looked at twice. Damage is no error here: it is in the report.
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
    /// log; what the device says.
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
    /// taken of a chain before keeps the file until it is gone.
    /// Closing twice is well.
    ///
    /// The index is left in the file, where there is room, so that the next opening need not read the journal. Whoever commits
    /// meanwhile, again and again, only costs the next opening that time.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the last writes failed; [`Error::FileLost`] when the file was cut, or has no name any more; [`Error::Busy`] in a
    /// callback, a sink or a listener, which the log's end would wait for: nothing is ended then.
    pub fn close(&self) -> Result<()> {
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
        self.stop().finish_or_leave();
    }
}

impl Options {
    /// Opens the log at `path`: recovers it, or creates it where there is none. One process at a time.
    ///
    /// Creation is atomic: the file appears under its name whole, or not at all.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Locked`], [`Error::Corrupt`], [`Error::Cut`], [`Error::Unsupported`], [`Error::Io`]; [`Error::Damaged`] with
    /// [`RecoveryMode::Strict`](crate::RecoveryMode::Strict).
    pub fn open(mut self, path: impl AsRef<Path>) -> Result<Wal> {
        self.check()?;
        let path = path.as_ref();
        let _span = tracing::info_span!(target: "strandlog", "open", path = %path.display()).entered();
        let mode = OpenMode {
            read_only: self.read_only,
            sync: self.sync_method,
            mapped: self.read_mode == ReadMode::Mapped,
            without_io_uring: !self.io_uring,
        };
        let disk = match FileDisk::open(path, mode, look) {
            Err(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && self.create && !self.read_only =>
            {
                self.create_file(path, mode)?
            }
            opened => opened,
        };
        let disk = disk.map_err(|e| self.open_error(path, e))?;
        self.open_found(Arc::new(disk))
    }

    /// As [`open_error`]; and who says that a log is there is told what it means that none is.
    fn open_error(&self, path: &Path, error: OpenError) -> Error {
        let to_be_there = !self.create && !self.read_only;
        match error {
            OpenError::Io { context, source, .. } if to_be_there && source.kind() == std::io::ErrorKind::NotFound => {
                let what = format!(
                    "{context} {} (is the path right, and its device mounted? With `create(true)` an empty log would begin here)",
                    path.display()
                );
                Error::io(what, source)
            }
            other => open_error(path, other),
        }
    }

    fn create_file(&mut self, path: &Path, mode: OpenMode) -> Result<std::result::Result<FileDisk, OpenError>> {
        let blank = self.superblock(self.capacity)?;
        let mut report = self.progress.take();
        let mut progress = |done, total| {
            if let Some(f) = report.as_mut() {
                f(Progress { what: "creating", done, total });
            }
        };
        let len = self.capacity / crate::format::BLOCK_BYTES * crate::format::BLOCK_BYTES;
        let init = |disk: &dyn Disk| recovery::write_superblocks(disk, &blank);
        let created = FileDisk::create_beside(path, len, mode, &mut progress, init, &recovery::holds_a_log);
        self.progress = report;
        let Err(taken @ OpenError::Exists { .. }) = created else { return Ok(created) };
        // Somebody was faster: it is theirs, or a name that leads nowhere.
        let theirs = FileDisk::open(path, mode, look);
        let nowhere =
            matches!(&theirs, Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound);
        Ok(if nowhere { Err(taken) } else { theirs })
    }

    fn superblock(&self, capacity: u64) -> Result<crate::format::superblock::Superblock> {
        let mut uuid = [0; 16];
        for part in uuid.chunks_exact_mut(4) {
            part.copy_from_slice(&recovery::random_u32().to_le_bytes());
        }
        self.geometry(uuid, capacity)
    }

    /// Opens a log on any [`Disk`]: one whose superblocks are blank is formatted, and so is one that holds nothing but a part of the first of them,
    /// where formatting was cut off. For tests on the simulated disk, and for
    /// stores with a device of their own. The disk must not be shared.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_disk(self, disk: Arc<dyn Disk>) -> Result<Wal> {
        self.check()?;
        if self.create && !self.read_only {
            let as_new = || self.superblock(disk.len());
            let blank = match recovery::read_superblock(&*disk, true) {
                Ok(Found::Blank) => true,
                Err(Error::Corrupt { .. }) if as_new().is_ok_and(|sb| recovery::formatting_was_cut(&*disk, &sb)) => {
                    true
                }
                found => found.map(|_| false)?,
            };
            if blank {
                let written = recovery::write_superblocks(&*disk, &as_new()?);
                written.map_err(|e| Error::io("formatting the disk", e))?;
            }
        }
        self.open_found(disk)
    }

    fn open_found(mut self, mut disk: Arc<dyn Disk>) -> Result<Wal> {
        let superblock = match recovery::superblock_of_log(&*disk, self.read_only) {
            Err(Error::Cut { file_bytes, log_bytes })
                if self.run.recovery == RecoveryMode::Salvage && is_worth_a_salvage(file_bytes, log_bytes) =>
            {
                tracing::error!(target: "strandlog", file_bytes, log_bytes, "the file is cut: its end is taken for lost");
                disk = Arc::new(CutDisk::new(disk, log_bytes));
                recovery::superblock_of_log(&*disk, true)?
            }
            read => read?,
        };
        let mut report = self.progress.take();
        let mut progress = |p| {
            if let Some(f) = report.as_mut() {
                f(p);
            }
        };
        let flags = (self.read_mode == ReadMode::Mapped, self.read_only);
        let Recovered { mut engine, replicas, damage } =
            recovery::recover(disk, superblock, self.run, flags, &mut progress)?;
        engine.events = Events::new(self.listener.take(), Some(self.slow_commit));
        engine.note_recovery(replicas, damage);
        let engine = Arc::new(engine);
        let wal = Wal { engine, threads: Mutex::new(Vec::new()) };
        if self.run.background && !self.read_only {
            wal.start("strandlog-writer", Engine::run_writer)?;
            wal.start("strandlog-cleaner", Engine::run_cleaner)?;
            wal.start_hands(|| wal.start("strandlog-hand", Engine::run_hand));
        }
        Ok(wal)
    }
}

impl Wal {
    /// Hands are help: where none can be started, one write is made after the other. Where the disk takes several at once, nobody would give
    /// them any; and a write into the page cache is a copy, which nobody waits for.
    fn start_hands(&self, start: impl Fn() -> Result<()>) {
        let disk = &self.engine.disk;
        if !disk.info().direct || disk.at_once() > 1 {
            return;
        }
        for _ in 0..HANDS {
            if let Err(error) = start() {
                tracing::warn!(target: "strandlog", %error, "frames and the payloads beside them are written one after the other");
                return;
            }
        }
    }

    pub(crate) fn start(&self, name: &str, body: fn(&Engine)) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        let thread = thread::spawn(name, move || telling(Telling::Own, || run(&engine, body)));
        self.threads.lock().push(thread.map_err(|e| Error::io("starting a thread", e))?);
        Ok(())
    }
}

/// Runs a thread of the log's. One that panics, as where the disk does, leaves behind what only it does: whoever waits for that would wait for ever.
fn run(engine: &Engine, body: fn(&Engine)) {
    // By a panic a model says that it does not hold.
    if cfg!(any(loom, shuttle)) {
        return body(engine);
    }
    if caught(|| body(engine)).is_none() {
        engine.poison("a thread of the log panicked".into(), None);
    }
}

/// Whether the file is a log. **Before anything is written to it**: it may be somebody else's, who writes to it now.
pub(crate) fn look(disk: &dyn Disk) -> std::io::Result<()> {
    recovery::superblock_of_log(disk, true).map(drop).map_err(std::io::Error::other)
}

pub(crate) fn open_error(path: &Path, error: OpenError) -> Error {
    match error {
        OpenError::Locked { path } => Error::Locked { path },
        OpenError::Mapping { path, source } => {
            Error::io(format!("mapping {} (ReadMode::Copied reads it without)", path.display()), source)
        }
        OpenError::Io { context, source, .. } => match source.downcast() {
            // What was seen when the file was looked at.
            Ok(error) => error,
            Err(source) => Error::io(format!("{context} {}", path.display()), source),
        },
        other => Error::io(format!("opening {}", path.display()), other.into()),
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::{DiskInfo, Map};

    /// No file there maps, and every one can be read.
    #[test]
    fn a_file_that_cannot_be_mapped_is_told_with_the_mode_that_needs_no_mapping() {
        let path = "/proc/self/status";
        let error = Options::default().read_only(true).open(path).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("mapping /proc/self/status (ReadMode::Copied"), "{said}");
        let error = Options::default().read_only(true).read_mode(ReadMode::Copied).open(path).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "that it is no log is another matter: {error}");
    }

    /// One read or write after the other.
    #[derive(Debug)]
    struct Single(SimDisk);

    impl Disk for Single {
        fn len(&self) -> u64 {
            Disk::len(&self.0)
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, buf)
        }
        fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.0.write_durable_at(offset, buf)
        }
        fn flush(&self) -> io::Result<()> {
            self.0.flush()
        }
        fn map(&self) -> Option<Arc<Map>> {
            None
        }
        fn info(&self) -> DiskInfo {
            self.0.info()
        }
        fn release(&self) {
            self.0.release();
        }
    }

    fn open(disk: impl Disk + 'static) -> Wal {
        Wal::options().segment_size(64 << 10).chunk_size(4096).open_disk(Arc::new(disk)).expect("formatted")
    }

    #[test]
    fn a_log_for_which_no_hand_can_be_started_goes_on_without() {
        let asked = Cell::new(0);
        let none = || {
            asked.set(asked.get() + 1);
            Err(Error::io("starting a thread", io::ErrorKind::WouldBlock.into()))
        };
        let wal = open(Single(SimDisk::new(4 << 20)));
        wal.start_hands(none);
        assert_eq!(asked.get(), 1, "it is not asked for again");
        wal.commit(Batch::new().put(1, b"large", &[7; 20_000])).expect("committed");
    }

    #[test]
    fn hands_are_started_only_where_somebody_would_give_them_work() {
        let threads = |wal: Wal| wal.threads.lock().len();
        assert_eq!(threads(open(Single(SimDisk::new(4 << 20)))), 2 + HANDS);
        assert_eq!(threads(open(SimDisk::new(4 << 20))), 2, "it takes several writes at once");
    }
}
