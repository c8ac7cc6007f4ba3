//! The futex of the models, where there is no kernel.

use super::{AtomicU32, Condvar, Mutex, Ordering};

/// What the kernel promises, made of what loom can follow: comparing and falling asleep are one step.
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
