//! Judges whether the two logs of a migration may say what they say.

use std::collections::BTreeMap;

use strandlog::Bytes;
use strandlog::migrate::DualWrite;

use super::model::{Op, Ops, Rep, World};
use super::old::Old;

/// Whether the copy of a replica says what the old log says, as far back as the copy goes.
pub fn is_same(dual: &DualWrite<Old>, old: &World, id: u64) -> bool {
    let new = dual.new_log().replica(id);
    let Some(rep) = old.0.get(&id) else { return !new.exists() };
    let (first, last) = new.bounds();
    let begin = first.max(rep.first());
    let keys: BTreeMap<Vec<u8>, Bytes> =
        new.keys().into_iter().filter_map(|k| Some((k.to_vec(), new.get(&k).ok()??))).collect();
    last == rep.last()
        && keys == rep.keys
        && new.term(begin - 1).ok() == Some(rep.term(begin - 1))
        && (begin..=last).all(|i| {
            let is = new.entry(i).ok().map(|e| (e.term, e.data));
            is.as_ref() == rep.entries.get((i - rep.first()) as usize)
        })
}

/// A world, and what was truncated on the way to it. A batch that fails may leave what stood behind any of its operations.
#[derive(Clone, Debug)]
pub struct Stand {
    pub world: World,
    /// The newest content of each index of this life, also of what is truncated.
    past: BTreeMap<u64, BTreeMap<u64, (u64, Bytes)>>,
}

impl Stand {
    pub fn new() -> Self {
        Self { world: World::default(), past: BTreeMap::new() }
    }

    /// Goes on to the world that this operation led to.
    pub fn go(&mut self, id: u64, op: &Op, world: World) {
        if matches!(op, Op::Remove | Op::Snapshot(..)) {
            self.past.remove(&id);
        }
        self.past.retain(|id, _| world.0.contains_key(id));
        for (&id, rep) in &world.0 {
            let past = self.past.entry(id).or_default();
            past.split_off(&rep.first());
            past.extend((rep.first()..).zip(rep.entries.iter().cloned()));
        }
        self.world = world;
    }

    /// The stands before the batch and behind each of its operations, in order.
    pub fn through(&self, ops: &Ops) -> Vec<Self> {
        let mut all = vec![self.clone()];
        // Operations that a later removal ends count as never asked for.
        let counts = |&(at, (id, _)): &(usize, &(u64, Op))| {
            !ops[at + 1..].iter().any(|(other, op)| other == id && *op == Op::Remove)
        };
        let ops: Vec<_> = ops.iter().enumerate().filter(counts).map(|(_, op)| op.clone()).collect();
        for n in 1..=ops.len() {
            let mut next = all[n - 1].clone();
            let world = self.world.after(&ops[..n].to_vec()).expect("it makes sense");
            let (id, op) = &ops[n - 1];
            next.go(*id, op, world);
            all.push(next);
        }
        all
    }

    /// Whether a replica may be found like this. One that reports may still hold some of what was to be truncated, never less.
    fn allows(&self, id: u64, found: Option<&Rep>) -> bool {
        let (is, found) = match (self.world.0.get(&id), found) {
            (None, None) => return true,
            (Some(is), Some(found)) => (is, found),
            _ => return false,
        };
        if is.keys != found.keys || is.last() != found.last() || found.first() > is.first() {
            return false;
        }
        if found.first() == is.first() {
            return is.before == found.before && is.entries == found.entries;
        }
        let past = &self.past[&id];
        let same = |(index, entry): (u64, &(u64, Bytes))| past.get(&index) == Some(entry);
        is.reported.is_some()
            && past.get(&found.before.0).is_none_or(|(term, _)| *term == found.before.1)
            && (found.first()..).zip(&found.entries).all(same)
    }
}

/// The stand to go on from. All that was found of either kind, mirrored or switched, must agree with one stand of that kind's.
pub fn settle(old: &[Stand], new: &[Stand], found: &World, kinds: &BTreeMap<u64, bool>) -> Result<Stand, String> {
    let mut next = Stand::new();
    for (kind, may) in [(false, old), (true, new)] {
        let of = |world: &World| world.of(|id| kinds[&id] == kind);
        let ids: Vec<u64> = kinds.iter().filter(|(_, k)| **k == kind).map(|(id, _)| *id).collect();
        let fits: Vec<&Stand> = may.iter().filter(|s| ids.iter().all(|&id| s.allows(id, found.0.get(&id)))).collect();
        let Some(newest) = fits.last() else {
            let differ = may.iter().map(|s| of(&s.world).difference(&of(found)));
            return Err(format!("switched {kind}:{}", differ.collect::<Vec<_>>().join("\n--")));
        };
        for id in ids {
            let Some(rep) = found.0.get(&id) else { continue };
            let known = fits.iter().filter_map(|s| s.world.0.get(&id));
            // What was to be truncated and is still there waits for a report.
            let known = known.map(|is| (is.reported, is.held.max((is.first() > rep.first()).then(|| is.first()))));
            let (reported, held) = known.fold((None, None), |(r, h), (reported, held)| (r.max(reported), h.max(held)));
            next.world.0.insert(id, Rep { reported, held, ..rep.clone() });
            if let Some(past) = newest.past.get(&id) {
                next.past.insert(id, past.clone());
            }
        }
    }
    Ok(next)
}
