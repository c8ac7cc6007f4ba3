//! The gate: shut until something has happened, then open for ever.

use crate::sync::{Futex, Ordering};

/// A gate that opens once. Everybody who waits is woken by one system call, and none of them takes a lock afterwards.
#[derive(Debug, Default)]
pub(crate) struct Gate(Futex);

const SHUT: u32 = 0;
const OPEN: u32 = 1;
/// Somebody sleeps: opening must wake.
const SHUT_AWAITED: u32 = 2;

impl Gate {
    pub fn is_open(&self) -> bool {
        self.0.word().load(Ordering::Acquire) == OPEN
    }

    pub fn open(&self) {
        if self.0.word().swap(OPEN, Ordering::AcqRel) == SHUT_AWAITED {
            self.0.wake_all();
        }
    }

    pub fn wait(&self) {
        while !self.is_open() {
            let _ = self.0.word().compare_exchange(SHUT, SHUT_AWAITED, Ordering::AcqRel, Ordering::Acquire);
            // Sleeps only if the state is still what we say.
            self.0.wait(SHUT_AWAITED);
        }
    }
}
