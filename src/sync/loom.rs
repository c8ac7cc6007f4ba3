//! Every interleaving of a few steps: <https://docs.rs/loom>.

pub use ::loom::sync::MutexGuard;
pub use ::loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub use ::loom::thread_local;
// The real one: loom's cannot hold a trait object made by `Arc::new`, and counting references is not what is modelled.
pub use std::sync::Arc;

#[derive(Debug)]
pub struct Mutex<T>(::loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(::loom::sync::Mutex::new(value))
    }
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
    pub fn lock_awake(&self) -> MutexGuard<'_, T> {
        self.lock()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[derive(Debug)]
pub struct RwLock<T>(::loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub fn new(value: T) -> Self {
        Self(::loom::sync::RwLock::new(value))
    }
    pub fn read(&self) -> ::loom::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }
    pub fn write(&self) -> ::loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[derive(Debug)]
pub struct Condvar(::loom::sync::Condvar);

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self(::loom::sync::Condvar::new())
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

/// Threads of the log itself.
pub mod thread {
    pub use ::loom::thread::{JoinHandle, yield_now};

    /// Starts a thread.
    pub fn spawn(_name: &str, body: impl FnOnce() + 'static) -> std::io::Result<JoinHandle<()>> {
        Ok(::loom::thread::spawn(body))
    }

    /// Time does not pass in a model.
    pub fn rest(_: std::time::Duration) {
        yield_now();
    }

    /// Whether it is this thread.
    pub fn is_this(thread: &JoinHandle<()>) -> bool {
        thread.thread().id() == ::loom::thread::current().id()
    }
}
