//! Which way of making a write durable is the fastest here.
//!
//! The answer differs by device, file system and kernel, so it is measured, with a few writes of one
//! block, in the scratch area of the file's header. The probe writes back the bytes that it found: a
//! file that turns out not to be ours has not been harmed, and neither has one whose power is cut.

use super::{
    AlignedBuf, BLOCK, ProbeMicros, SyncMethod,
    handle::{Handles, unsupported},
};
use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

/// Where in the file nothing is kept.
pub(super) const SCRATCH: Range<u64> = 32_768..65_536;

/// Writes by each method; the median forgives the first, and one interruption.
const ROUNDS: usize = 6;

/// Enough for six rounds on anything but a rotating disk, where one round says as much.
const BUDGET: Duration = Duration::from_millis(60);

/// The methods, the one to prefer first: the costs that a probe of single small writes does not show.
/// Direct writes are copied by nobody, which large ones gain severalfold from; a ranged sync does not
/// wait for what others have written.
const PREFERENCE: [SyncMethod; 3] = [SyncMethod::DirectDsync, SyncMethod::RwfDsync, SyncMethod::Fdatasync];

/// Times the method asked for, or all of them, and says which to use; nothing if none works.
pub(super) fn choose(handles: &Handles, len: u64, wanted: SyncMethod) -> io::Result<Option<(SyncMethod, ProbeMicros)>> {
    let mut candidates: Vec<Candidate> = PREFERENCE
        .into_iter()
        .filter(|method| wanted == SyncMethod::Auto || wanted == *method)
        .filter(|method| *method != SyncMethod::DirectDsync || handles.has_direct())
        .map(|method| Candidate { method, taken: Vec::with_capacity(ROUNDS) })
        .collect();
    if len >= SCRATCH.end {
        race(handles, &mut candidates)?;
    }
    let mut best: Option<&Candidate> = None;
    for candidate in &candidates {
        // A quarter faster, or it is noise, and the one to prefer stays.
        if best.is_none_or(|best| candidate.median() * 5 < best.median() * 4) {
            best = Some(candidate);
        }
    }
    Ok(best.map(|best| (best.method, figures(&candidates))))
}

struct Candidate {
    method: SyncMethod,
    taken: Vec<Duration>,
}

impl Candidate {
    fn median(&self) -> Duration {
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        taken.get(taken.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

/// Lets the methods write in turns, so that what else happens on the machine hits all of them, each to
/// a block of its own, so that none trips over pages that another left in the cache.
fn race(handles: &Handles, candidates: &mut Vec<Candidate>) -> io::Result<()> {
    let begin = Instant::now();
    let mut block = AlignedBuf::with_capacity(BLOCK);
    block.resize(BLOCK);
    for _ in 0..ROUNDS {
        let mut offset = SCRATCH.start;
        let mut failed = None;
        candidates.retain_mut(|candidate| {
            let result = handles.read(offset, &mut block).and_then(|()| {
                let start = Instant::now();
                handles.write_durable(candidate.method, offset, &block)?;
                candidate.taken.push(start.elapsed());
                Ok(())
            });
            offset += BLOCK as u64;
            match result {
                Err(error) if unsupported(&error) => false,
                Err(error) => {
                    failed = Some(error);
                    false
                }
                Ok(()) => true,
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if begin.elapsed() > BUDGET {
            break;
        }
    }
    Ok(())
}

fn figures(candidates: &[Candidate]) -> ProbeMicros {
    let micros = |method| {
        let candidate = candidates.iter().find(|candidate| candidate.method == method)?;
        let timed = !candidate.taken.is_empty();
        timed.then(|| u32::try_from(candidate.median().as_micros()).unwrap_or(u32::MAX))
    };
    ProbeMicros {
        direct_dsync: micros(SyncMethod::DirectDsync),
        rwf_dsync: micros(SyncMethod::RwfDsync),
        fdatasync: micros(SyncMethod::Fdatasync),
    }
}
