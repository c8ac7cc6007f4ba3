//! A turn of the cleaner, as who hears by `tracing` is told of it.

use tracing::field::Empty;
use tracing::span::EnteredSpan;

/// Begun before the cleaner's lock is taken, and over when that is free: whoever hears of it may ask the log.
pub(crate) struct Turn(EnteredSpan);

impl Turn {
    pub fn begin() -> Self {
        Self(tracing::debug_span!(target: "strandlog", "clean", segments = Empty).entered())
    }

    /// Only if anybody hears of it, and there is something to do.
    pub fn begin_if(some: impl FnOnce() -> bool) -> Option<Self> {
        (tracing::enabled!(target: "strandlog", tracing::Level::DEBUG) && some()).then(Self::begin)
    }

    /// So many segments were cleaned in it.
    pub fn cleaned(self, segments: u64) {
        self.0.record("segments", segments);
    }
}
