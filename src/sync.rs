//! The one loom/std switch: code that shares memory imports from here, never from `std::sync` or `parking_lot`.
//!
//! The lock types have one small face under both, so that a loom model runs the very code that ships.

#[cfg(not(loom))]
mod imp {
    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }

    /// A gate that opens once. Everybody who waits is woken by one system call, and none of them takes a lock afterwards.
    #[derive(Debug, Default)]
    pub struct Gate(AtomicU32);

    const SHUT: u32 = 0;
    const OPEN: u32 = 1;
    /// Somebody sleeps: opening must wake.
    const SHUT_AWAITED: u32 = 2;

    impl Gate {
        pub fn is_open(&self) -> bool {
            self.0.load(Ordering::Acquire) == OPEN
        }

        pub fn open(&self) {
            if self.0.swap(OPEN, Ordering::AcqRel) == SHUT_AWAITED {
                let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
            }
        }

        pub fn wait(&self) {
            while !self.is_open() {
                let _ = self.0.compare_exchange(SHUT, SHUT_AWAITED, Ordering::AcqRel, Ordering::Acquire);
                // Sleeps only if the state is still what we say; any error (a signal, a change) means: look again.
                let _ = futex::wait(&self.0, futex::Flags::PRIVATE, SHUT_AWAITED, None);
            }
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
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub use loom::sync::{Arc, MutexGuard};

    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
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

    /// The same promise with what loom can follow.
    #[derive(Debug, Default)]
    pub struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        pub fn is_open(&self) -> bool {
            *self.open.lock()
        }
        pub fn open(&self) {
            *self.open.lock() = true;
            self.opened.notify_all();
        }
        pub fn wait(&self) {
            let mut open = self.open.lock();
            while !*open {
                open = self.opened.wait(open);
            }
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
