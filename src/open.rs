//! Opening a log: its file is found or created, recovered, and its threads are started.

use std::path::Path;

use crate::caught::caught;
use crate::disk::{CutDisk, Disk, FileDisk, OpenError, OpenMode, Opener};
use crate::engine::{Engine, Events, HANDS, Telling, telling};
use crate::error::{Error, Result, is_worth_a_salvage};
use crate::options::{Options, Progress, ReadMode, RecoveryMode};
use crate::recovery::{self, Found, Recovered};
use crate::sync::thread;
use crate::sync::{Arc, Mutex};
use crate::wal::Wal;

impl Options {
    /// Opens the log at `path` and recovers it, or creates it if it does not exist. One process at a time.
    ///
    /// Creation is atomic: the file appears under its name complete, or not at all.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Locked`], [`Error::Corrupt`], [`Error::Cut`], [`Error::Unsupported`], [`Error::Io`]; [`Error::Damaged`] with
    /// [`RecoveryMode::Strict`].
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

    /// As [`open_error`]; a caller that expects a log is also told what it means that there is none.
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
        // Somebody was faster: the file is theirs, or the name is a link that leads nowhere.
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

    /// Opens a log on any [`Disk`]: for tests on the simulated disk, and for stores with a device of their own. The disk must not be shared.
    ///
    /// A disk whose superblocks are blank is formatted. So is one that holds nothing but a part of the first superblock, because formatting was
    /// interrupted.
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
        let wal = Wal { engine, threads: Mutex::new(Vec::new()), opener: Opener::this_process() };
        if self.run.background && !wal.engine.read_only {
            wal.start("strandlog-writer", Engine::run_writer)?;
            wal.start("strandlog-cleaner", Engine::run_cleaner)?;
            wal.start_hands(|| wal.start("strandlog-hand", Engine::run_hand));
        }
        Ok(wal)
    }
}

impl Wal {
    /// Hands only help: if none can be started, one write is made after the other. None is started if the disk takes several writes at
    /// once, as nobody would give them any; nor for writes into the page cache, which are copies that nobody waits for.
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

/// Runs one of the log's threads. If it panics, for instance because the disk does, the log is poisoned: callers that wait for what only
/// this thread does would wait for ever.
fn run(engine: &Engine, body: fn(&Engine)) {
    // A model says by a panic that it does not hold.
    if cfg!(any(loom, shuttle)) {
        return body(engine);
    }
    if caught(|| body(engine)).is_none() {
        engine.poison("a thread of the log panicked".into(), None);
    }
}

/// Whether the file is a log. **Before anything is written to it**: it may be somebody else's, who is writing to it now.
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
            // The error that `look` returned.
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
    use crate::Batch;
    use crate::disk::sim::SimDisk;
    use crate::disk::{DiskInfo, Map};

    /// No file in `/proc` can be mapped, and every one can be read.
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

    /// A disk that does one read or write after the other.
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
