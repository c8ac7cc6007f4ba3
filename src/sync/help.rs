//! Helper threads for a moment: an opening reads from many places at once. The system may have none left, and nothing depends on them.

use std::io;
#[cfg(not(any(loom, shuttle)))]
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread, if the system has one left.
#[cfg(not(any(loom, shuttle)))]
pub fn helper<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().name(name.into()).spawn_scoped(scope, body);
    started.inspect_err(|error| tracing::debug!(target: "strandlog", %error, name, "a thread cannot be started")).ok()
}

/// Runs `own`, and meanwhile `help` on `helpers` other threads, or on fewer. So all of them must take their work from one place, and `own`
/// must end only when none is left there.
#[cfg(not(any(loom, shuttle)))]
pub fn helped<T, E: From<io::Error>>(
    helpers: usize,
    help: impl Fn() -> io::Result<()> + Sync,
    own: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..helpers).map_while(|_| helper(scope, "strandlog-reader", &help)).collect();
        let done = own();
        let ends = started.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked"))));
        // All of them are joined, even if one failed.
        ends.fold(Ok(()), io::Result::and)?;
        done
    })
}

/// In a model every helper would be one more thread to interleave, and they share nothing.
#[cfg(any(loom, shuttle))]
pub fn helped<T, E: From<io::Error>>(
    _helpers: usize,
    _help: impl Fn() -> io::Result<()>,
    own: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    own()
}
