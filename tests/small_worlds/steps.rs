//! The steps that workloads are made of.

use strandlog::Bytes;

use super::support::model::{Model, Op};
use super::support::payload;

/// What is asked of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Two entries, into the journal.
    Small,
    /// One entry that is placed directly.
    Large,
    /// The last two entries are replaced by one.
    Overwrite,
    /// The older half is truncated.
    Truncate,
    /// The last two entries are cut, and nothing comes in their place.
    Cut,
    Remove,
    Put,
    /// A snapshot is installed, ahead of the log.
    Reset,
    /// Not one replica but both, in one batch: a large entry, a small one, keyed state.
    Both,
}

/// One step of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A batch of its own, made durable.
    Commit(What, u64),
    /// A batch that shares the frame of the next one.
    Submit(What, u64),
    Checkpoint,
    /// The log is closed and opened again.
    Reopen,
    /// The process dies; the power stays.
    Kill,
}

pub const REPLICAS: [u64; 2] = [1, 2];
const WHATS: [What; 8] =
    [What::Small, What::Large, What::Overwrite, What::Truncate, What::Cut, What::Remove, What::Put, What::Reset];

pub fn alphabet() -> impl Iterator<Item = Step> {
    let asked = WHATS.into_iter().flat_map(|what| REPLICAS.map(|replica| (what, replica)));
    let asked = asked.chain([(What::Both, 1)]);
    let batches = asked.flat_map(|(what, replica)| [Step::Commit(what, replica), Step::Submit(what, replica)]);
    batches.chain([Step::Checkpoint, Step::Reopen, Step::Kill])
}

/// Spreads workloads evenly, so that a share of them can be drawn.
pub fn hash(steps: &[Step], seed: u64) -> u64 {
    let mut hash = seed;
    for step in steps {
        let nth = alphabet().position(|s| s == *step).unwrap_or(0) as u64;
        hash = (hash ^ nth).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 29;
    }
    hash
}

/// The operations of the `nth` step; `None` where there is nothing to do them to.
pub fn ops(what: What, replica: u64, nth: u64, model: &Model) -> Option<Vec<Op>> {
    let rep = model.reps.get(&replica);
    let (first, last) = rep.map_or((1, 0), |r| (r.first, r.last()));
    // Terms tell every entry of a world from every other one, so that none can come back unseen.
    let term = 100 + nth;
    let held = last >= first;
    Some(match what {
        What::Small => vec![append(replica, last + 1, term, &[150, 131])],
        What::Large => vec![append(replica, last + 1, term, &[LARGE])],
        What::Overwrite if held => vec![append(replica, last.saturating_sub(1).max(first), term, &[170])],
        What::Truncate if held => vec![Op::Truncate { replica, first: first + (last - first).div_ceil(2).max(1) }],
        What::Cut if held => vec![Op::Cut { replica, from: last.saturating_sub(1).max(first) }],
        What::Remove if rep.is_some() => vec![Op::Remove { replica }],
        What::Put => vec![put(replica, term, 40)],
        What::Reset => vec![Op::Reset { replica, index: last + 10, term }],
        What::Both => {
            let other = model.reps.get(&2).map_or(0, |r| r.last());
            vec![append(1, last + 1, term, &[LARGE]), append(2, other + 1, term, &[90]), put(2, term, 60)]
        }
        _ => return None,
    })
}

/// The least that is placed directly: two blocks.
pub const LARGE: usize = 4096;

pub fn append(replica: u64, from: u64, term: u64, lens: &[usize]) -> Op {
    let entries = (from..).zip(lens).map(|(i, &len)| (i, term, payload(replica, i, term, len))).collect();
    Op::Append { replica, entries }
}

pub fn put(replica: u64, salt: u64, len: usize) -> Op {
    let value: Bytes = payload(replica, salt, 7, len);
    Op::Put { replica, key: b"hard".to_vec(), value }
}
