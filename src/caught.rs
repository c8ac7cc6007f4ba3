//! Other people's code that panics: callbacks, wakers, listeners, disks. The thread that called it goes on, and nobody else is harmed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the call returns; `None` if it panicked.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    // The panic's payload is theirs, too, and may panic when it is dropped, where nobody would catch that: it is leaked.
    catch_unwind(AssertUnwindSafe(call)).map_err(std::mem::forget).ok()
}

/// Runs `say`, in which the log says something of itself. The listener may panic, as one that writes to something closed does: it was heard
/// or not, and that is all.
pub(crate) fn said(say: impl FnOnce()) {
    let _ = caught(say);
}

/// What a disk answers. A disk that panics has failed: the operation may have been done in part, or not at all.
pub(crate) fn by_disk<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // In a model, the device's panic says that the model does not hold.
    if cfg!(any(loom, shuttle)) {
        return call();
    }
    caught(call).unwrap_or_else(|| Err(io::Error::other("the disk panicked")))
}

#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) mod tests {
    /// A panic with this as its payload panics once more when the payload is dropped.
    pub struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as planned: when it is dropped");
        }
    }

    #[test]
    fn a_panic_that_panics_is_caught_whole() {
        assert_eq!(super::caught(|| 1), Some(1));
        assert!(super::caught(|| std::panic::panic_any(Bomb)).is_none());
    }
}
