//! The rings of one file: those that are free, and the outcomes of the requests made with them.

use super::error::{is_unsupported, unsupported};
use super::map::{Outcomes, Ring};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// The rings that nobody is using.
#[derive(Default)]
pub(super) struct Rings {
    free: Mutex<Vec<Ring>>,
    /// There are no rings: not on this system, or not for this process.
    none: AtomicBool,
}

impl Rings {
    pub fn forgo(&self) {
        self.none.store(true, Ordering::Relaxed);
    }

    /// Forgets the free rings without closing them.
    pub fn leave(&mut self) {
        std::mem::forget(std::mem::take(self.free.get_mut()));
    }

    /// Takes back a ring that is no longer used.
    pub fn give_back(&self, ring: Ring) {
        self.free.lock().push(ring);
    }

    /// Whether there are rings, as far as is known.
    pub fn are_there(&self) -> bool {
        !self.none.load(Ordering::Relaxed)
    }

    /// A free ring, or a new one.
    pub fn take(&self) -> Option<Ring> {
        if !self.are_there() {
            return None;
        }
        let free = { self.free.lock().pop() };
        free.map_or_else(Ring::new, Ok).inspect_err(|error| self.refused(error)).ok()
    }

    /// A process that is out of descriptors or memory may have some again later, and other users give theirs back; what the system does not
    /// know, or forbids, it will not allow later, either.
    fn refused(&self, error: &io::Error) {
        tracing::debug!(target: "strandlog", %error, "no io_uring: one read or write after the other");
        if unsupported(error) || error.kind() == io::ErrorKind::PermissionDenied {
            self.forgo();
        }
    }

    /// Runs `f` with a ring, if there is one.
    pub fn with(&self, f: impl FnOnce(Ring) -> (Outcomes, Option<Ring>)) -> Option<Outcomes> {
        let (outcomes, ring) = f(self.take()?);
        match ring {
            Some(ring) => self.give_back(ring),
            None => self.forgo(),
        }
        Some(outcomes)
    }

    /// How many bytes of the `i`th request were done. The rest is to be done without a ring.
    pub fn done(&self, outcomes: Option<&Outcomes>, i: usize) -> io::Result<usize> {
        let Some(&outcome) = outcomes.and_then(|outcomes| outcomes.get(i)) else { return Ok(0) };
        if let Ok(bytes) = usize::try_from(outcome) {
            return Ok(bytes);
        }
        let errno = outcome.saturating_neg();
        if is_unsupported(errno) {
            self.forgo();
            return Ok(0);
        }
        // A failure of the queue, not of the device.
        if [Errno::AGAIN, Errno::INTR, Errno::CANCELED, Errno::NOMEM].iter().any(|e| e.raw_os_error() == errno) {
            return Ok(0);
        }
        Err(io::Error::from_raw_os_error(errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_for_a_moment_is_asked_for_again() {
        let rings = Rings::default();
        let refused = |errno: Errno| {
            rings.refused(&errno.into());
            rings.none.load(Ordering::Relaxed)
        };
        assert!(![Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR].map(refused).contains(&true));
        for errno in [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::OPNOTSUPP] {
            assert!(refused(errno), "{errno}");
            rings.none.store(false, Ordering::Relaxed);
        }
    }
}
