//! The cleaner thread: frees segments when asked, seals the log when nothing happens, and notices a file cut behind our back.

use std::time::Duration;

use super::Engine;

/// How long nothing must happen before the log is sealed. Not on the way to any acknowledgement.
const IDLE: Duration = Duration::from_millis(100);

impl Engine {
    /// Runs until the log is stopped.
    pub(crate) fn run_cleaner(&self) {
        let (mut seen, mut sealed) = (0, 0);
        loop {
            let (wanted, relief) = {
                let mut cleaner = self.cleaner.lock();
                if !cleaner.wanted && cleaner.relief.is_served() && !cleaner.stop {
                    cleaner = self.clean.wait_for(cleaner, IDLE);
                }
                if cleaner.stop {
                    return;
                }
                let relief = cleaner.relief.take();
                (std::mem::take(&mut cleaner.wanted), relief)
            };
            if let Err(error) = self.disk.check_size() {
                // Written on, it would be a file with holes, and a mapping that kills whoever reads it.
                self.poison(format!("looking after the file: {error}"), None);
                return;
            }
            if wanted || relief.is_some() {
                if wanted && let Err(error) = self.clean_some() {
                    tracing::warn!(target: "strandlog", %error, "cleaning the journal");
                    let failed = &mut self.cleaner.lock().failed;
                    *failed = (failed.0 + 1, Some(error));
                }
                if let Some((request, lacks)) = relief {
                    self.serve_relief(request, &lacks);
                }
                // Whoever waits looks again, also where nothing could be freed.
                let wakers = std::mem::take(&mut self.seq.lock().room_wakers);
                self.room.notify_all();
                wakers.into_iter().for_each(std::task::Waker::wake);
                continue;
            }
            self.forget_those_gone();
            let (taken, quiet) = {
                let s = self.seq.lock();
                (s.frames_taken, s.in_flight.is_empty() && s.closed.is_empty() && !s.open.wanted)
            };
            // A seal moves the watermark past the last frame: what rots in it is then damage, not a torn tail.
            if quiet && taken == seen && taken != sealed {
                let _ = self.seal_everything();
                sealed = self.seq.lock().frames_taken;
                seen = sealed;
            } else {
                seen = taken;
            }
        }
    }
}
