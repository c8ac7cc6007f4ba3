//! A mark in memory that a forked child does not have.
//!
//! The number of a process would tell the two apart as well, but for a system call each time, and but for a child in another PID namespace, which may
//! have its parent's: in a container both are often the first.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::rand::{GetRandomFlags, getrandom};

/// Less than a page, which is what the system makes of it.
const LEN: usize = size_of::<u64>();

/// What stands on a page of this process, which has one: in each child that is forked from it the system gives the page zeros, and whoever asks there first
/// writes another number, drawn by chance.
///
/// A child that *shares* its parent's memory (`vfork`, `CLONE_VM`) sees the mark, and is the same process as far as the log goes, as a thread is: it has the same
/// locks, whoever holds them, and the log's threads work for it. After `vfork` it may do nothing but `exec` or end anyway.
#[derive(Clone, Copy, Debug)]
pub(in crate::disk) struct Mark {
    page: &'static AtomicU64,
    stood: u64,
}

impl Mark {
    /// None where there is no memory, or the system knows no such pages (Linux before 4.14, and what only acts as if it were Linux).
    pub fn new() -> Option<Self> {
        let page = page()?;
        if page.load(Ordering::Relaxed) == 0 {
            let mut drawn = [0; LEN];
            getrandom(&mut drawn[..], GetRandomFlags::empty()).ok().filter(|&n| n == LEN)?;
            // Whoever was first stays.
            let _ = page.compare_exchange(0, u64::from_ne_bytes(drawn).max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(Self { page, stood: page.load(Ordering::Relaxed) })
    }

    /// As a child finds that of its parent.
    #[cfg(test)]
    pub fn of_a_parent() -> Option<Self> {
        Self::new().map(|own| Self { stood: !own.stood, ..own })
    }

    /// Whether this is the process that made it.
    #[inline]
    pub fn is_here(self) -> bool {
        // Relaxed: nothing else is ordered by it. An atomic, as what was read before a fork is not what is there behind it.
        self.page.load(Ordering::Relaxed) == self.stood
    }
}

/// The page of this process, for as long as it lives: each of its logs asks for it, and a page each would be three calls of the system.
fn page() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<MmapMut>> = OnceLock::new();
    if PAGE.get().is_none() {
        // Not made while others wait for it: a child that is forked meanwhile would wait for ever.
        let _ = PAGE.set(wiped_page());
    }
    let page = PAGE.get()?.as_ref()?;
    // SAFETY: the page is mapped, readable and writable, until the process ends, as nothing drops a static; it is aligned as pages are, longer than this, and nobody
    // reads or writes it in another way, but the system where no thread runs yet.
    Some(unsafe { AtomicU64::from_ptr(page.as_ptr().cast_mut().cast()) })
}

fn wiped_page() -> Option<MmapMut> {
    let mut page = MmapMut::map_anon(LEN).ok()?;
    let at = page.as_mut_ptr();
    // SAFETY: the page is this mapping's. The advice changes nothing in this process.
    unsafe { madvise(at.cast(), LEN, Advice::LinuxWipeOnFork) }.ok()?;
    (!takes_any_advice()).then_some(page)
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
                let is_here = || mark.is_none_or(Mark::is_here);
                is_here() && apart(0) && in_a_child(|| process::id() == 1 && (mark.is_none() || !is_here()))
            })
        });
        assert!(told, "it takes itself for its parent");
    }
}
