//! A mark in memory that a forked child does not have.
//!
//! The process number would tell the two apart as well, but it takes a system call each time, and a child in another PID namespace may have
//! its parent's: in a container both are often number 1.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::rand::{GetRandomFlags, getrandom};

/// Less than a page: the system rounds it up.
const LEN: usize = size_of::<u64>();

/// The number on a page that every process has for itself: in a forked child the system fills the page with zeros, and whoever asks first
/// there writes another number, drawn at random.
///
/// A child that *shares* its parent's memory (`vfork`, `CLONE_VM`) sees the mark, and for the log is the same process, as a thread is: it
/// has the same locks, whoever holds them, and the log's threads work for it. After `vfork` it may do nothing but `exec` or end anyway.
#[derive(Clone, Copy, Debug)]
pub(in crate::disk) struct Mark {
    page: &'static AtomicU64,
    stood: u64,
}

impl Mark {
    /// `None` where there is no memory, or the system knows no such pages (Linux before 4.14, and systems that only act as if they were
    /// Linux).
    pub fn new() -> Option<Self> {
        let page = page()?;
        if page.load(Ordering::Relaxed) == 0 {
            let mut drawn = [0; LEN];
            getrandom(&mut drawn[..], GetRandomFlags::empty()).ok().filter(|&n| n == LEN)?;
            // The first number stays.
            let _ = page.compare_exchange(0, u64::from_ne_bytes(drawn).max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(Self { page, stood: page.load(Ordering::Relaxed) })
    }

    /// The mark of a parent, as its child finds it.
    #[cfg(test)]
    pub fn of_a_parent() -> Option<Self> {
        Self::new().map(|own| Self { stood: !own.stood, ..own })
    }

    /// Whether this is the process that made it.
    #[inline]
    pub fn is_here(self) -> bool {
        // Relaxed: it orders nothing else. Atomic, because what was read before a fork is not what is there after it.
        self.page.load(Ordering::Relaxed) == self.stood
    }
}

/// The page of this process, for as long as it lives: each of its logs asks for it, and a page for each would take three system calls.
fn page() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<MmapMut>> = OnceLock::new();
    if PAGE.get().is_none() {
        // Not under a lock that others wait for (`get_or_init`): a child forked meanwhile would wait forever.
        let _ = PAGE.set(wiped_page());
    }
    let page = PAGE.get()?.as_ref()?;
    // SAFETY: the page is mapped, readable and writable, until the process ends, as statics are never dropped; it is aligned as pages are
    // and longer than a `u64`, and nobody else accesses it in another way, except for the system, in a child in which no thread runs yet.
    Some(unsafe { AtomicU64::from_ptr(page.as_ptr().cast_mut().cast()) })
}

fn wiped_page() -> Option<MmapMut> {
    let mut page = MmapMut::map_anon(LEN).ok()?;
    let at = page.as_mut_ptr();
    // SAFETY: the page is this mapping's. The advice changes nothing in this process.
    unsafe { madvise(at.cast(), LEN, Advice::LinuxWipeOnFork) }.ok()?;
    (!takes_any_advice()).then_some(page)
}

/// Whether the system accepts advice that it does not follow: no system that wipes pages does so for shared memory. (Emulators took all
/// advice for a hint.)
fn takes_any_advice() -> bool {
    // SAFETY: new memory, to which nothing refers.
    let Ok(at) = (unsafe { mmap_anonymous(ptr::null_mut(), LEN, ProtFlags::READ, MapFlags::SHARED) }) else {
        return true;
    };
    // SAFETY: the memory is this function's. The advice changes nothing in this process.
    let taken = unsafe { madvise(at, LEN, Advice::LinuxWipeOnFork) }.is_ok();
    // SAFETY: as above, and gone before anything could refer to it.
    let _ = unsafe { munmap(at, LEN) };
    taken
}

/// What `f` returns in a forked child. It must allocate nothing and take no lock: another thread, which the child does not have, may have
/// held it.
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
            let is_here = |mark: &Option<Mark>| mark.is_some_and(Mark::is_here);
            !mark.is_here() && is_here(&own) && in_a_child(|| !mark.is_here() && !is_here(&own))
        });
        assert!(told && mark.is_here());
    }

    /// What a child opens is its own, and nothing of that is its parent's.
    #[test]
    fn what_a_child_marks_is_its_own() {
        let Some(mark) = Mark::new() else { return eprintln!("no pages that are wiped here") };
        assert!(in_a_child(
            || Mark::new().is_some_and(|own| own.is_here() && own.stood != mark.stood && !mark.is_here())
        ));
        assert!(mark.is_here() && Mark::new().is_some_and(|again| again.stood == mark.stood));
    }

    /// Process 1 of a namespace, and its child that is process 1 of another.
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
                let is_here = || mark.is_none_or(Mark::is_here);
                is_here() && apart(0) && in_a_child(|| process::id() == 1 && (mark.is_none() || !is_here()))
            })
        });
        assert!(told, "it takes itself for its parent");
    }
}
