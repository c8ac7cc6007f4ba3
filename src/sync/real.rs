//! What ships.

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub use std::thread_local;

pub use parking_lot::{MutexGuard, RwLock};
use rustix::thread::futex;

/// A tenth of a millisecond in all if nobody else wants the processor: as long as a device takes for a flush.
const YIELDS: u32 = 300;

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
    /// For a lock that is held about as long as it takes to fall asleep and be woken: gives the processor away for a while before it sleeps.
    pub fn lock_awake(&self) -> MutexGuard<'_, T> {
        for _ in 0..YIELDS {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            std::thread::yield_now();
        }
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

/// Threads of the log itself.
pub mod thread {
    pub use std::thread::{JoinHandle, yield_now};

    /// Starts a named thread.
    pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name.into()).spawn(body)
    }

    /// Leaves the processor to others for a while; background housekeeping only, never on the way to an acknowledgement.
    pub fn rest(time: std::time::Duration) {
        std::thread::sleep(time);
    }

    /// Whether it is this thread.
    pub fn is_this(thread: &JoinHandle<()>) -> bool {
        thread.thread().id() == std::thread::current().id()
    }
}
