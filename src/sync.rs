//! The one loom/std switch: code that shares memory imports from here, never from `std::sync` or `parking_lot`.
//!
//! The lock types have one small face under both, so that a loom model runs the very code that ships.

#[cfg(not(loom))]
mod imp {
    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub use std::thread_local;

    pub use parking_lot::{MutexGuard, RwLock};
    use rustix::thread::futex;

    /// A mutual exclusion lock without poisoning.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
    }

    /// A word to sleep on: woken by one system call, however many sleep.
    #[derive(Debug, Default)]
    pub struct Futex(AtomicU32);

    impl Futex {
        pub fn word(&self) -> &AtomicU32 {
            &self.0
        }
        /// Sleeps if the word is still `expected`; may wake for no reason.
        pub fn wait(&self, expected: u32) {
            // Any error (a signal, a change) means: look again.
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, expected, None);
        }
        pub fn wake_all(&self) {
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }

    /// A condition variable; `wait` takes the guard and gives it back.
    #[derive(Debug, Default)]
    pub struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub fn new() -> Self {
            Self(parking_lot::Condvar::new())
        }
        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(&mut guard);
            guard
        }
        /// Waits at most `limit`; background housekeeping only, never on the way to an acknowledgement.
        pub fn wait_for<'a, T>(&self, mut guard: MutexGuard<'a, T>, limit: std::time::Duration) -> MutexGuard<'a, T> {
            self.0.wait_for(&mut guard, limit);
            guard
        }
        pub fn notify_one(&self) {
            self.0.notify_one();
        }
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[cfg(loom)]
mod imp {
    pub use loom::sync::MutexGuard;
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub use loom::thread_local;
    // The real one: loom's cannot hold a trait object made by `Arc::new`, and counting references is not what is modelled.
    pub use std::sync::Arc;

    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    #[derive(Debug)]
    pub struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }
        pub fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }
        pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }

    impl<T: Default> Default for RwLock<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    /// What the kernel promises, with what loom can follow: comparing and falling asleep are one step.
    #[derive(Debug, Default)]
    pub struct Futex {
        word: AtomicU32,
        bucket: Mutex<()>,
        woken: Condvar,
    }

    impl Futex {
        pub fn word(&self) -> &AtomicU32 {
            &self.word
        }
        pub fn wait(&self, expected: u32) {
            let bucket = self.bucket.lock();
            if self.word.load(Ordering::SeqCst) == expected {
                drop(self.woken.wait(bucket));
            }
        }
        pub fn wake_all(&self) {
            let _bucket = self.bucket.lock();
            self.woken.notify_all();
        }
    }

    #[derive(Debug)]
    pub struct Condvar(loom::sync::Condvar);

    impl Default for Condvar {
        fn default() -> Self {
            Self::new()
        }
    }

    impl Condvar {
        pub fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }
        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap()
        }
        pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, _limit: std::time::Duration) -> MutexGuard<'a, T> {
            self.wait(guard)
        }
        pub fn notify_one(&self) {
            self.0.notify_one();
        }
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

pub use imp::*;
