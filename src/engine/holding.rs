//! Which logs' locks a thread may hold: meanwhile it tells nothing of these logs.

use crate::sync::thread_local;

/// Identifies one of the process's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId(pub(super) usize);

/// How many logs' locks a thread may hold at once: a callback of one may work on another. When all places are taken, every log counts as
/// held.
const HELD: usize = 4;

thread_local! {
    /// The logs of which this thread may hold locks: nothing of these is told meanwhile.
    // Not `const`: loom's macro does not know that. It has nothing to drop, so a thread that is ending still has it.
    #[allow(clippy::missing_const_for_thread_local)]
    static HOLDING: std::cell::Cell<[Option<LogId>; HELD]> = std::cell::Cell::new([None; HELD]);
}

/// While this lives the thread tells nothing of the log.
pub(crate) struct Holding(Option<LogId>);

impl Holding {
    pub fn begin(log: LogId) -> Self {
        let mut holding = HOLDING.with(std::cell::Cell::get);
        if is_among(log, &holding) {
            return Self(None);
        }
        if let Some(free) = holding.iter_mut().find(|held| held.is_none()) {
            *free = Some(log);
        }
        HOLDING.with(|h| h.set(holding));
        Self(Some(log))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.0.is_some() {
            HOLDING.with(|h| h.set(h.get().map(|held| held.filter(|_| held != self.0))));
        }
    }
}

/// Whether this thread tells nothing of the log just now.
pub(crate) fn is_holding(log: LogId) -> bool {
    is_among(log, &HOLDING.with(std::cell::Cell::get))
}

fn is_among(log: LogId, holding: &[Option<LogId>; HELD]) -> bool {
    holding.iter().all(Option::is_some) || holding.contains(&Some(log))
}
