//! How long a frame took until now, and what its batches waited for.

use std::time::{Duration, Instant};

/// When a frame was begun, and how long it took until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// When the first batch came for which somebody waits.
    pub begun: Option<Instant>,
    pub device: Duration,
    /// The longest that one of its batches waited before it was in the frame: for the queue, and for the cleaner.
    pub waits: Waits,
}

/// What a batch waited before it had its place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub queue: Duration,
    pub cleaner: Duration,
}

impl Times {
    /// A batch is in the frame.
    pub fn joined(&mut self, waits: Waits) {
        self.waits.queue = self.waits.queue.max(waits.queue);
        self.waits.cleaner = self.waits.cleaner.max(waits.cleaner);
    }
}
