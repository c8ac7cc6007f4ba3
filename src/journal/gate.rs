//! The gate: shut until something has happened, then open for ever.

use crate::sync::{Futex, Ordering};

/// A gate that opens once, and says whether all is well behind it. Everybody who waits is woken by one system call, and none of them
/// takes a lock afterwards.
#[derive(Debug, Default)]
pub(crate) struct Gate(Futex);

const SHUT: u32 = 0;
/// Somebody sleeps: opening must wake.
const SHUT_AWAITED: u32 = 1;
const OPEN_WELL: u32 = 2;
const OPEN_ILL: u32 = 3;

impl Gate {
    /// Whether it is open, and all is well; `None` while it is shut.
    pub fn is_open(&self) -> Option<bool> {
        match self.0.word().load(Ordering::Acquire) {
            OPEN_WELL => Some(true),
            OPEN_ILL => Some(false),
            _ => None,
        }
    }

    /// Opens it: by one thread, once.
    pub fn open(&self, well: bool) {
        let open = if well { OPEN_WELL } else { OPEN_ILL };
        if self.0.word().swap(open, Ordering::AcqRel) == SHUT_AWAITED {
            self.0.wake_all();
        }
    }

    /// Waits until it is open; whether all is well.
    pub fn wait(&self) -> bool {
        loop {
            if let Some(well) = self.is_open() {
                return well;
            }
            let _ = self.0.word().compare_exchange(SHUT, SHUT_AWAITED, Ordering::AcqRel, Ordering::Acquire);
            // Sleeps only if the state is still `SHUT_AWAITED`.
            self.0.wait(SHUT_AWAITED);
        }
    }
}
