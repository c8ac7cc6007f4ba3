//! The whole log under random schedules: <https://docs.rs/shuttle>.

use std::ops::{Deref, DerefMut};

pub use ::shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub use ::shuttle::thread_local;
use ::shuttle::{rand::Rng, sync};
// The real one: counting references is not what is modelled.
pub use std::sync::Arc;

#[derive(Debug)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, held: Some(self.take()) }
    }
    pub fn lock_awake(&self) -> MutexGuard<'_, T> {
        self.lock()
    }
    fn take(&self) -> sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Knows its lock, so that a wait can be cut short.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    held: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_ref().expect("given up only while waiting")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("given up only while waiting")
    }
}

#[derive(Debug)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let held = guard.held.take().expect("held");
        guard.held = Some(self.0.wait(held).unwrap_or_else(std::sync::PoisonError::into_inner));
        guard
    }
    /// There is no time: the limit passes whenever the dice say so.
    pub fn wait_for<'a, T>(&self, mut guard: MutexGuard<'a, T>, _limit: std::time::Duration) -> MutexGuard<'a, T> {
        drop(guard.held.take());
        for _ in 0..::shuttle::rand::thread_rng().gen_range(1..64) {
            ::shuttle::thread::yield_now();
        }
        guard.held = Some(guard.lock.take());
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
    pub use ::shuttle::thread::{JoinHandle, yield_now};

    /// Starts a named thread.
    pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
        ::shuttle::thread::Builder::new().name(name.into()).spawn(body)
    }

    /// Time does not pass in a model.
    pub fn rest(_: std::time::Duration) {
        yield_now();
    }

    /// Whether it is this thread.
    pub fn is_this(thread: &JoinHandle<()>) -> bool {
        thread.thread().id() == ::shuttle::thread::current().id()
    }
}
