//! Where an import writes: into the existing log, or into a new one that has another name until it is whole. In half an import some replicas are
//! missing, and would vote as if they never had.

use std::path::{Path, PathBuf};

use strandlog::{Error, Wal};

use super::copy::Copied;
use crate::failure::{Failure, Result};
use crate::output::say;
use crate::{open, save};

/// Suffix of a new log's name until it is whole, and while it is created.
const SUFFIXES: [&str; 2] = [".importing", ".importing.creating"];

/// What to do if another process is at the same log.
const AGAIN: &str = "once that has ended, run this one again: it goes on with what is there, and compares";

/// Where an import writes, and the name of the log in the end.
pub struct Place {
    /// The log that is written to.
    pub path: PathBuf,
    /// The name that a new log is given once it is whole; `None` for an existing log.
    name: Option<PathBuf>,
    /// The file existed before this import.
    pub was_there: bool,
}

impl Place {
    /// Where an import to this path writes. Goes on with what an interrupted import to it left.
    pub fn of(path: &Path, source: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(Failure::Request(format!("{} is a directory, not a log", path.display())));
        }
        if save::is_same(source, path) {
            let (source, path) = (source.display(), path.display());
            return Err(Failure::Request(format!(
                "{source} and {path} are the same file: the first is what is imported, the second the log that it is imported into"
            )));
        }
        // Also if it is a dangling link: the name is taken.
        if path.symlink_metadata().is_ok() {
            return Ok(Self { path: path.into(), name: None, was_there: true });
        }
        save::refuse_source(source, path, &SUFFIXES)?;
        let [suffix, _] = SUFFIXES;
        let unfinished = save::beside(path, suffix)?;
        let was_there = unfinished.symlink_metadata().is_ok();
        Ok(Self { path: unfinished, name: Some(path.into()), was_there })
    }

    /// The log is open for writing, as is no other now. Refuses a new one whose name was taken meanwhile: another import into it was faster.
    pub fn opened(&self, wal: &Wal) -> Result<()> {
        let Some(name) = &self.name else { return Ok(()) };
        if name.symlink_metadata().is_ok() {
            if wal.replicas().is_empty() && save::is_log_of(&self.path, wal.uuid()) {
                // Nothing is in it.
                let _ = std::fs::remove_file(&self.path);
            }
            return Err(Failure::Request(format!("{} came meanwhile, from another process: {AGAIN}", name.display())));
        }
        if self.was_there {
            say(format_args!("{} is left of an import that did not end: going on there", self.path.display()));
        }
        Ok(())
    }

    /// Why the log that an import writes to did not open.
    pub fn not_opened(&self, error: Error) -> Failure {
        match (&self.name, error) {
            (Some(name), Error::Locked { .. }) => Failure::Request(format!(
                "{} is in use: another import into {} is under way; {AGAIN}",
                self.path.display(),
                name.display()
            )),
            // It was there when this began.
            (Some(name), _) if name.symlink_metadata().is_ok() => Failure::Request(format!(
                "{} was named {} by another import: {AGAIN}",
                self.path.display(),
                name.display()
            )),
            (_, error) => open::named(&self.path, error),
        }
    }

    /// Gives a new log its name, if it holds everything that was given and nothing else. Meanwhile nobody else can have it open except for reading.
    pub fn name(self, wal: &Wal, copied: &Copied) -> Result<PathBuf> {
        let Some(name) = self.name else { return Ok(self.path) };
        if let Some(other) = wal.replicas().into_iter().find(|id| !copied.digests.contains_key(id)) {
            let (left, name) = (self.path.display(), name.display());
            return Err(Failure::Request(format!(
                "{left} holds replica {other}, too, which was not given: it is left of an import of something else, and is not named {name}. Remove it, and import again"
            )));
        }
        // Another import of the same may have compared it at the same time, and named it first.
        save::name_unless(&self.path, &name, || save::is_log_of(&name, wal.uuid()))?;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandlog::Batch;

    /// A new log that an import wrote, not named yet.
    fn imported(dir: &Path) -> (Place, Copied) {
        let place = Place::of(&dir.join("log"), &dir.join("lines")).unwrap();
        assert!(!place.was_there);
        let wal = Wal::options().capacity(4 << 20).open(&place.path).unwrap();
        place.opened(&wal).unwrap();
        wal.commit(Batch::new().append(7, &[(1, 1, b"entry")])).unwrap();
        wal.close().unwrap();
        (place, Copied { digests: [(7, Default::default())].into(), ..Copied::default() })
    }

    fn entry(path: &Path) -> Vec<u8> {
        open::read_only(path, true).unwrap().replica(7).entry(1).unwrap().data.to_vec()
    }

    /// Between the copying and the comparing nobody has the log open: another import of the same may go on there, and both may compare at once.
    #[test]
    fn two_that_compared_the_same_log_name_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let (first, copied) = imported(dir.path());
        let second = Place::of(&dir.path().join("log"), &dir.path().join("lines")).unwrap();
        assert!(second.was_there);
        let wals = [&first, &second].map(|place| open::read_only(&place.path, true).unwrap());
        let name = dir.path().join("log");
        for (place, wal) in [first, second].into_iter().zip(wals) {
            assert_eq!(place.name(&wal, &copied).unwrap(), name);
            assert_eq!(entry(&name), b"entry");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn another_log_that_has_the_name_is_not_taken_for_the_import() {
        let dir = tempfile::tempdir().unwrap();
        let (place, copied) = imported(dir.path());
        let (name, unfinished) = (dir.path().join("log"), place.path.clone());
        Wal::options().capacity(4 << 20).open(&name).unwrap().close().unwrap();
        let wal = open::read_only(&place.path, true).unwrap();
        let refused = place.name(&wal, &copied).unwrap_err().to_string();
        assert!(refused.contains("stays under the name"), "{refused}");
        assert!(open::read_only(&name, true).unwrap().replicas().is_empty());
        assert_eq!(entry(&unfinished), b"entry");
    }

    /// What another import named since this one looked is neither written to nor made a second time.
    #[test]
    fn what_was_finished_meanwhile_is_left_alone_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let of = || Place::of(&dir.path().join("log"), &dir.path().join("lines")).unwrap();
        let early = of();
        let (place, copied) = imported(dir.path());
        assert!(!early.was_there);
        let wal = open::read_only(&place.path, true).unwrap();
        let name = place.name(&wal, &copied).unwrap();
        drop(wal);
        // One that saw nothing makes a log of its own, and sees its mistake.
        let wal = Wal::options().capacity(4 << 20).open(&early.path).unwrap();
        let refused = early.opened(&wal).unwrap_err().to_string();
        assert!(refused.contains("came meanwhile") && refused.contains("again"), "{refused}");
        assert!(!early.path.exists(), "nothing is left of it");
        assert_eq!(entry(&name), b"entry");
    }

    #[test]
    fn of_two_at_once_one_is_told_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let of = || Place::of(&dir.path().join("log"), &dir.path().join("lines")).unwrap();
        let (first, second) = (of(), of());
        let wal = Wal::options().capacity(4 << 20).open(&first.path).unwrap();
        first.opened(&wal).unwrap();
        let error = Wal::options().capacity(4 << 20).open(&second.path).unwrap_err();
        let refused = second.not_opened(error).to_string();
        assert!(refused.contains("another import") && refused.contains("again"), "{refused}");
        assert!(first.path.exists());
    }
}
