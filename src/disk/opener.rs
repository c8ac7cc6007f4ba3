//! The process that has a file open. A process forked from it has all of that, too, except for the other threads, and must not touch the
//! file: it would overwrite what its parent writes, and the lock that it gave up would be its parent's.

use super::map::Mark;
use std::{io, process};

/// The process in which this was made.
#[derive(Debug)]
pub(crate) struct Opener {
    number: u32,
    /// The mark that its children do not have. Where there are no marks, the number tells.
    mark: Option<Mark>,
}

impl Opener {
    pub fn this_process() -> Self {
        Self { number: number(), mark: Mark::new() }
    }

    /// A process other than this one, as far as anybody can tell: what a child finds of its parent.
    #[cfg(test)]
    pub fn parent() -> Self {
        Self { number: number().wrapping_add(1), mark: Mark::of_a_parent() }
    }

    /// Whether this is still that process. Asked before each write, so it avoids the system call if possible.
    pub fn is_here(&self) -> bool {
        self.mark.map_or_else(|| self.number == number(), Mark::is_here)
    }

    /// # Errors
    /// `PermissionDenied` in a process that was forked from it.
    pub fn check(&self) -> io::Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let what = format!(
            "this process was forked from process {}, which opened the log, and alone may write to it: open a log behind the fork, or leave it alone",
            self.number
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }
}

/// This process's number: a system call.
fn number() -> u32 {
    #[cfg(test)]
    tests::ASKED.with(|asked| asked.set(asked.get() + 1));
    process::id()
}

#[cfg(test)]
mod tests {
    use super::super::map::in_a_child;
    use super::super::{AlignedBuf, BLOCK, Disk, FileDisk, OpenMode, Writer};
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// How often this thread asked for the process's number.
        pub(super) static ASKED: Cell<u64> = const { Cell::new(0) };
    }

    fn is_no_childs(opener: &Opener) {
        assert!(opener.is_here() && opener.check().is_ok());
        assert!(in_a_child(|| !opener.is_here() && Opener::this_process().is_here()));
        assert!(opener.is_here());
    }

    #[test]
    fn a_child_is_not_who_opened_the_file() {
        is_no_childs(&Opener::this_process());
        assert!(!Opener::parent().is_here() && Opener::parent().check().is_err());
    }

    #[test]
    fn nor_is_it_where_the_system_wipes_no_pages() {
        is_no_childs(&Opener { mark: None, ..Opener::this_process() });
        assert!(!Opener { mark: None, ..Opener::parent() }.is_here());
    }

    #[test]
    fn no_write_asks_the_system_who_it_is() {
        if Mark::new().is_none() {
            return eprintln!("no pages that are wiped here");
        }
        let dir = tempfile::tempdir().unwrap();
        let len = 8 * BLOCK as u64;
        let create = |path| FileDisk::create(path, len, OpenMode::default(), &mut |_, _| {}, |_| Ok(()));
        let disk = create(dir.path().join("file")).unwrap();
        let block = AlignedBuf::from([7; BLOCK].as_slice());
        let before = ASKED.get();
        disk.write_at(0, &block).unwrap();
        disk.write_many(&[(0, &block[..]), (BLOCK as u64, &block[..])]).unwrap();
        disk.write_durable_at(0, &block).unwrap();
        disk.write_durable_of(Writer::Superblocks, 0, &block).unwrap();
        disk.flush().unwrap();
        disk.flush_of(Writer::Pieces).unwrap();
        let (mut one, mut another) = (block.clone(), block.clone());
        disk.read_many(&mut [(0, &mut one[..]), (BLOCK as u64, &mut another[..])]).unwrap();
        assert_eq!(ASKED.get(), before);
        drop(disk);
        assert_eq!(ASKED.get(), before, "nor does its end");
    }
}
