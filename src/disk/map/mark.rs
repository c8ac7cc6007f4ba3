//! A mark in memory that a forked child does not have.
//!
//! The number of a process would tell the two apart as well, but for a system call each time, and but for a child in another PID namespace, which may
//! have its parent's: in a container both are often the first.

use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::MmapMut;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Less than a page, which is what the system makes of it.
const LEN: usize = 1;

/// A page of the process that made it, which has something in it. In each child that is forked from that the system gives it zeros.
///
/// A child that *shares* its parent's memory (`vfork`, `CLONE_VM`) sees the mark, and is the same process as far as the log goes, as a thread is: it has the same
/// locks, whoever holds them, and the log's threads work for it. After `vfork` it may do nothing but `exec` or end anyway.
#[derive(Debug)]
pub(in crate::disk) struct Mark(MmapMut);

impl Mark {
    /// None where there is no memory, or the system knows no such pages (Linux before 4.14, and what only acts as if it were Linux).
    pub fn new() -> Option<Self> {
        let mut page = MmapMut::map_anon(LEN).ok()?;
        let at = page.as_mut_ptr();
        // SAFETY: the page is this mapping's. The advice changes nothing in this process.
        unsafe { madvise(at.cast(), LEN, Advice::LinuxWipeOnFork) }.ok()?;
        if takes_any_advice() {
            return None;
        }
        *page.first_mut()? = 1;
        Some(Self(page))
    }

    /// As a child finds that of its parent.
    #[cfg(test)]
    pub fn of_a_parent() -> Option<Self> {
        let Self(mut page) = Self::new()?;
        page.fill(0);
        Some(Self(page))
    }

    /// Whether this is the process that made it.
    #[inline]
    pub fn is_here(&self) -> bool {
        // SAFETY: the byte is there as long as the mapping, has no alignment, and is read in no other way: it is written before anybody has the
        // mark, and by the system where no thread runs yet.
        let byte = unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast_mut()) };
        // Relaxed: nothing else is ordered by it. An atomic, as what was read before a fork is not what is there behind it.
        byte.load(Ordering::Relaxed) != 0
    }
}

/// Whether the system says yes to what it does not do: none that does it does so for memory that is shared. (Emulators took all advice for a hint.)
fn takes_any_advice() -> bool {
    // SAFETY: new memory, to which nothing refers.
    let Ok(at) = (unsafe { mmap_anonymous(ptr::null_mut(), LEN, ProtFlags::READ, MapFlags::SHARED) }) else {
        return true;
    };
    // SAFETY: it is this function's. The advice changes nothing in this process.
    let taken = unsafe { madvise(at, LEN, Advice::LinuxWipeOnFork) }.is_ok();
    // SAFETY: as above, and gone before anything could refer to it.
    let _ = unsafe { munmap(at, LEN) };
    taken
}

/// What `f` says in a forked child. It must allocate nothing and take no lock: other threads, which are not there, may have held it.
#[cfg(test)]
pub(in crate::disk) fn in_a_child(f: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child does what `f` does, which is allowed there, and ends without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(false);
        // SAFETY: nobody waits for anything of this process.
        unsafe { libc::_exit(i32::from(!well)) }
    }
    assert!(child > 0, "no child");
    let mut status = 0;
    // SAFETY: it is this thread's child, and nobody else waits for it.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn a_mark_is_where_it_was_made_and_in_no_child() {
        let Some(mark) = Mark::new() else { return eprintln!("no pages that are wiped here") };
        assert!(mark.is_here() && Mark::of_a_parent().is_some_and(|parents| !parents.is_here()));
        std::thread::scope(|scope| assert!(scope.spawn(|| mark.is_here()).join().expect("looked")));
        let told = in_a_child(|| {
            let own = Mark::new();
            let is_here = |mark: &Option<Mark>| mark.as_ref().is_some_and(Mark::is_here);
            !mark.is_here() && is_here(&own) && in_a_child(|| !mark.is_here() && !is_here(&own))
        });
        assert!(told && mark.is_here());
    }

    /// A child that lets go of it takes nothing from its parent.
    #[test]
    fn a_mark_that_a_child_lets_go_of_stays() {
        let Some(mark) = Mark::new() else { return eprintln!("no pages that are wiped here") };
        let mut mark = Some(mark);
        assert!(in_a_child(|| mark.take().is_some()));
        assert!(mark.is_some_and(|mark| mark.is_here()));
    }

    /// The first process of a container, and its child that is the first of another.
    #[test]
    fn a_child_of_the_same_number_in_another_namespace_has_no_mark() {
        // SAFETY: it concerns the children that this process has from now on, and no memory.
        let apart = |also| unsafe { libc::unshare(libc::CLONE_NEWPID | also) } == 0;
        let first = |f: &dyn Fn() -> bool| apart(libc::CLONE_NEWUSER) && in_a_child(|| process::id() == 1 && f());
        if !in_a_child(|| first(&|| apart(0))) {
            return eprintln!("no namespaces for this process");
        }
        let told = in_a_child(|| {
            first(&|| {
                let mark = Mark::new();
                let is_here = || mark.as_ref().is_none_or(Mark::is_here);
                is_here() && apart(0) && in_a_child(|| process::id() == 1 && (mark.is_none() || !is_here()))
            })
        });
        assert!(told, "it takes itself for its parent");
    }
}
