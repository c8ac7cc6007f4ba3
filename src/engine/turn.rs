//! A turn of the cleaner, as a `tracing` subscriber is told of it.

use tracing::field::Empty;
use tracing::span::EnteredSpan;

/// Begun before the cleaner's lock is taken, and over when that is free: a subscriber may ask the log for something.
pub(crate) struct Turn(EnteredSpan);

impl Turn {
    pub fn begin() -> Self {
        Self(tracing::debug_span!(target: "strandlog", "clean", segments = Empty).entered())
    }

    /// Begins a turn only if a subscriber hears of it, and there is something to do.
    pub fn begin_if(some: impl FnOnce() -> bool) -> Option<Self> {
        (tracing::enabled!(target: "strandlog", tracing::Level::DEBUG) && some()).then(Self::begin)
    }

    /// Ends the turn, in which this many segments were cleaned.
    pub fn cleaned(self, segments: u64) {
        self.0.record("segments", segments);
    }
}
