//! Which way of making a write durable is the fastest here.
//!
//! The answer differs by device, file system and kernel, so it is measured, with a few writes of one block, in the scratch area of the
//! file's header. The probe writes back the bytes that it found, so a power cut does no harm. The caller has checked before that the file
//! is a log: in somebody else's file, these bytes may have changed meanwhile.

use super::{AlignedBuf, BLOCK, ProbeMicros, SyncMethod, error::unsupported, handle::Handles};
use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

/// The part of the file in which nothing is kept.
pub(super) const SCRATCH: Range<u64> = 32_768..65_536;

/// Writes by each method: enough to tell the method's cost from a disturbance.
const ROUNDS: usize = 6;
/// After this many writes each the choice may already be clear: see [`is_clear`].
const CLEAR: usize = 2;

/// Enough for six rounds on anything but a rotating disk, where one round says as much.
const BUDGET: Duration = Duration::from_millis(60);

/// The methods in order of preference, which reflects costs that a probe of single small writes does not show. Direct writes are not
/// copied, from which large ones gain severalfold; a ranged sync does not wait for what others have written.
const PREFERENCE: [SyncMethod; 3] = [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync];

/// Times the requested method, or all of them, and says which to use; `None` if none works.
pub(super) fn choose(handles: &Handles, len: u64, wanted: SyncMethod) -> io::Result<Option<(SyncMethod, ProbeMicros)>> {
    let mut candidates: Vec<Candidate> = PREFERENCE
        .into_iter()
        .zip(SCRATCH.step_by(BLOCK))
        .filter(|(method, _)| wanted == SyncMethod::Auto || wanted == *method)
        .filter(|(method, _)| *method != SyncMethod::DirectDsync || handles.has_direct())
        .map(|(method, offset)| Candidate { method, offset, taken: Vec::new() })
        .collect();
    if len >= SCRATCH.end {
        race(handles, &mut candidates)?;
    }
    Ok(fastest(&candidates).map(|best| (best.method, figures(&candidates))))
}

/// The method to use; the candidates are in order of preference.
fn fastest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().reduce(|best, candidate| {
        // Another method must be half as fast again: less may be noise, and the preferred one stays.
        if candidate.cost() * 3 < best.cost() * 2 { candidate } else { best }
    })
}

struct Candidate {
    method: SyncMethod,
    /// A block of its own, so that it does not run into pages that another method left in the cache.
    offset: u64,
    taken: Vec<Duration>,
}

impl Candidate {
    fn write(&mut self, handles: &Handles, bytes: &[u8]) -> io::Result<()> {
        let start = Instant::now();
        handles.write_durable(self.method, None, self.offset, bytes)?;
        self.taken.push(start.elapsed());
        Ok(())
    }

    fn cost(&self) -> Duration {
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        // The second best, or the only one. Disturbances make a measurement longer, and on a busy machine they hit most of them, by
        // milliseconds: the median of six would then measure the neighbours.
        taken.get(1).or(taken.first()).copied().unwrap_or_default()
    }
}

/// Lets the methods write in turns, so that what else happens on the machine hits all of them, and removes those that do not work here.
fn race(handles: &Handles, candidates: &mut Vec<Candidate>) -> io::Result<()> {
    let mut scratch = AlignedBuf::new();
    scratch.resize((SCRATCH.end - SCRATCH.start) as usize);
    handles.read(SCRATCH.start, &mut scratch)?;
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        let mut next = 0;
        while let Some(candidate) = candidates.get_mut(next) {
            let at = (candidate.offset - SCRATCH.start) as usize;
            match candidate.write(handles, &scratch[at..at + BLOCK]) {
                Ok(()) => next += 1,
                Err(error) if unsupported(&error) => drop(candidates.remove(next)),
                Err(error) => return Err(error),
            }
        }
        if begin.elapsed() > BUDGET || is_clear(candidates) {
            break;
        }
    }
    Ok(())
}

/// Whether the preferred method stays even if every other is judged by its best write.
fn is_clear(candidates: &[Candidate]) -> bool {
    let Some((first, others)) = candidates.split_first() else { return false };
    let best = others.iter().flat_map(|other| &other.taken).min();
    first.taken.len() >= CLEAR && best.is_some_and(|best| first.cost() * 2 <= *best * 3)
}

fn figures(candidates: &[Candidate]) -> ProbeMicros {
    let micros = |method| {
        let candidate = candidates.iter().find(|candidate| candidate.method == method)?;
        let timed = !candidate.taken.is_empty();
        timed.then(|| u32::try_from(candidate.cost().as_micros()).unwrap_or(u32::MAX))
    };
    ProbeMicros {
        direct_dsync: micros(SyncMethod::DirectDsync),
        rwf_dsync: micros(SyncMethod::RwfDsync),
        fdatasync: micros(SyncMethod::Fdatasync),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn without_direct(len: u64) -> Handles {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        Handles::lock(file.into(), Path::new("probed"), false).unwrap()
    }

    #[test]
    fn without_direct_writes_another_method_is_found_but_not_passed_off_as_direct() {
        let handles = without_direct(SCRATCH.end);
        let (method, figures) = choose(&handles, SCRATCH.end, SyncMethod::Auto).unwrap().unwrap();
        assert_ne!(method, SyncMethod::DirectDsync);
        assert_eq!(figures.direct_dsync, None);
        assert!(figures.fdatasync.is_some());
        assert_eq!(choose(&handles, SCRATCH.end, SyncMethod::DirectDsync).unwrap(), None);
    }

    #[test]
    fn a_failing_device_is_not_mistaken_for_one_that_lacks_a_method() {
        // Shorter than it is said to be: the read of the scratch area fails.
        let handles = without_direct(SCRATCH.start);
        let error = choose(&handles, SCRATCH.end, SyncMethod::Auto).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_method_that_is_clearly_ahead_is_not_asked_again() {
        let candidate = |method, micros: &[u64]| Candidate {
            method,
            offset: SCRATCH.start,
            taken: micros.iter().copied().map(Duration::from_micros).collect(),
        };
        let clear = |direct: &[u64], ranged: &[u64]| {
            is_clear(&[candidate(SyncMethod::DirectDsync, direct), candidate(SyncMethod::RwfDsync, ranged)])
        };
        assert!(clear(&[150, 90], &[100, 140]), "none of the others is half as fast again");
        assert!(!clear(&[151, 90], &[100, 140]), "one may be");
        assert!(!clear(&[90], &[100]), "one write is an accident");
        assert!(!clear(&[90, 4000], &[100, 140]) && clear(&[90, 4000, 95], &[100, 140]), "it was disturbed: once more");
        assert!(!is_clear(&[candidate(SyncMethod::Fdatasync, &[1, 1])]), "there is nothing to be ahead of");
        assert!(!is_clear(&[]));
    }

    #[test]
    fn the_preferred_method_stays_unless_another_is_clearly_faster() {
        let candidate = |method, micros: &[u64]| Candidate {
            method,
            offset: SCRATCH.start,
            taken: micros.iter().copied().map(Duration::from_micros).collect(),
        };
        for (direct, ranged, chosen) in
            [(100, 67, SyncMethod::DirectDsync), (100, 66, SyncMethod::RwfDsync), (80, 100, SyncMethod::DirectDsync)]
        {
            // On a busy machine most of the six are disturbed.
            let candidates = [
                candidate(SyncMethod::DirectDsync, &[4000, direct, 9000, 4000, direct, 4000]),
                candidate(SyncMethod::RwfDsync, &[ranged]),
            ];
            assert_eq!(fastest(&candidates).map(|best| best.method), Some(chosen));
        }
        assert!(fastest(&[]).is_none());
    }
}
