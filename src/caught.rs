//! Other people's code that panics: callbacks, wakers, listeners, disks. Whoever called it goes on, and takes nobody along.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What it answers; `None` if it panicked.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    // What it panicked with is theirs, too, and may panic when it is dropped, where nobody would catch that.
    catch_unwind(AssertUnwindSafe(call)).map_err(std::mem::forget).ok()
}

/// What the log says of itself. Whoever listens may panic, as one does that writes to what is closed: it was heard or not, and that is all.
pub(crate) fn said(say: impl FnOnce()) {
    let _ = caught(say);
}

/// What a disk answers. One that panics has failed: what it was to do may be done in part, or not at all.
pub(crate) fn by_disk<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // By a panic a model's own device says that the model does not hold.
    if cfg!(any(loom, shuttle)) {
        return call();
    }
    caught(call).unwrap_or_else(|| Err(io::Error::other("the disk panicked")))
}

#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) mod tests {
    /// A panic with this panics once more when it is dropped.
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
