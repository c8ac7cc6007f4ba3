//! Terms as runs: a log of a million entries and three elections costs three pairs.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::few::Few;
use crate::format::piece::TermRuns;

/// The terms of a range of indexes: `(first index of the run, term)`, ascending; a run ends where the next begins.
///
/// What lies before the first run is unknown; the last run goes on for ever (the owner knows where its log ends).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    runs: Runs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Runs {
    List(Few<(u64, u64)>),
    /// During a replay that names very many runs in any order, each in the midst of others. Boxed: the tree itself is larger than a list.
    #[allow(clippy::box_collection)]
    Tree(Box<BTreeMap<u64, u64>>),
}

// Each of a million replicas has one.
const _: () = assert!(size_of::<Runs>() == size_of::<Few<(u64, u64)>>());

/// At most this many runs are moved for one that is named in the midst of others.
const FEW_MOVED: usize = 64;

impl Default for Runs {
    fn default() -> Self {
        Self::List(Few::None)
    }
}

impl Runs {
    /// All of them. Not to be called before a replay has [settled](Terms::settle) them.
    #[inline]
    fn list(&self) -> &Few<(u64, u64)> {
        match self {
            Self::List(list) => list,
            Self::Tree(_) => {
                debug_assert!(false, "a replay has not ended");
                &Few::None
            }
        }
    }
}

impl Terms {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.runs = Runs::default();
    }

    /// Turns a tree into the list again: the log is replayed, and no more runs come in any order.
    pub fn settle(&mut self) {
        if let Runs::Tree(tree) = &mut self.runs {
            let mut list = Few::None;
            std::mem::take(tree).into_iter().for_each(|run| list.push(run));
            self.runs = Runs::List(list);
        }
    }

    /// Says that every index from `index` on has `term`.
    #[inline]
    pub fn push(&mut self, index: u64, term: u64) {
        // Mostly it is the term of the newest run.
        match &self.runs {
            Runs::List(list) if list.last().is_some_and(|&(start, newest)| start < index && newest == term) => {}
            _ => self.begin_run(index, term),
        }
    }

    fn begin_run(&mut self, index: u64, term: u64) {
        self.cut_from(index);
        match &mut self.runs {
            Runs::List(list) if list.last().is_none_or(|&(_, t)| t != term) => list.push((index, term)),
            Runs::Tree(tree) if tree.last_key_value().is_none_or(|(_, &t)| t != term) => {
                tree.insert(index, term);
            }
            _ => {}
        }
    }

    /// The term at `index`, if a run covers it.
    pub fn get(&self, index: u64) -> Option<u64> {
        let list = self.runs.list();
        // The newest run first: that is where a leader asks.
        match list.last() {
            Some(&(start, term)) if start <= index => Some(term),
            _ => {
                let i = list.partition_point(|&(start, _)| start <= index);
                list.get(i.checked_sub(1)?).map(|&(_, term)| term)
            }
        }
    }

    /// Forgets the runs that begin at `index` or later.
    pub fn cut_from(&mut self, index: u64) {
        match &mut self.runs {
            Runs::List(list) if list.last().is_some_and(|&(start, _)| start >= index) => {
                list.truncate(list.partition_point(|&(start, _)| start < index));
            }
            Runs::List(_) => {}
            Runs::Tree(tree) => {
                while tree.last_key_value().is_some_and(|(&start, _)| start >= index) {
                    tree.pop_last();
                }
            }
        }
    }

    /// Forgets what lies before `first`.
    pub fn drop_below(&mut self, first: u64) {
        match &mut self.runs {
            Runs::List(list) => {
                let past = list.iter().skip(1).take_while(|&&(start, _)| start <= first).count();
                list.drop_front(past);
                if let Some(front) = list.first_mut() {
                    front.0 = front.0.max(first);
                }
            }
            Runs::Tree(tree) => {
                let mut front = None;
                while tree.first_key_value().is_some_and(|(&start, _)| start <= first) {
                    front = tree.pop_first();
                }
                tree.extend(front.map(|(_, term)| (first, term)));
            }
        }
    }

    /// Sets `lo..=hi` to `term` and leaves the rest as it was: replay meets ranges out of order.
    pub fn set(&mut self, lo: u64, hi: u64, term: u64) {
        let list = match &mut self.runs {
            Runs::Tree(tree) => return set_in(tree, lo, hi, term),
            Runs::List(list) => list,
        };
        if list.last().is_some_and(|&(start, last)| start <= lo && last == term) {
            return;
        }
        let from = list.partition_point(|&(start, _)| start < lo);
        let to = list.partition_point(|&(start, _)| start <= hi);
        if from > FEW_MOVED && list.len() - to > FEW_MOVED {
            let mut tree = list.iter().copied().collect();
            set_in(&mut tree, lo, hi, term);
            self.runs = Runs::Tree(Box::new(tree));
            return;
        }
        let covers = |i: usize| list.get(i.checked_sub(1)?).map(|&(_, term)| term);
        let after = hi.checked_add(1).and_then(|next| {
            let begins = list.get(to).is_some_and(|&(start, _)| start == next);
            Some((next, covers(to + usize::from(begins))?))
        });
        let before = covers(from);
        let with = [Some((lo, term)).filter(|_| before != Some(term)), after.filter(|&(_, behind)| behind != term)];
        // The next run may begin right there, or be of the term that now lasts until then.
        let behind = after.map_or(term, |(_, behind)| behind);
        let goes_on = list.get(to).is_some_and(|&(_, next)| next == behind);
        let with: SmallVec<[_; 2]> = with.into_iter().flatten().collect();
        list.replace(from..to + usize::from(goes_on), &with);
    }

    /// The runs over `first..first + count`, as (entries, term). Indexes that no run covers take the next known term:
    /// they are dead, and only their number matters.
    pub fn runs(&self, first: u64, count: u32) -> TermRuns {
        let mut out = TermRuns::new();
        let mut at = first;
        let mut left = u64::from(count);
        let list = self.runs.list();
        let mut i = list.partition_point(|&(start, _)| start <= first).saturating_sub(1);
        while left > 0 {
            let term = list.get(i).map_or(0, |&(_, term)| term);
            let n = match list.get(i + 1) {
                Some(&(next, _)) => next.saturating_sub(at).min(left),
                None => left,
            };
            if n > 0 {
                out.push((n as u32, term));
            }
            at = at.saturating_add(n);
            left -= n;
            i += 1;
        }
        out
    }

    /// The runs: where each begins, and its term.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.list().iter().copied()
    }

    /// How many runs there are: what they cost.
    pub fn len(&self) -> usize {
        self.runs.list().len()
    }
}

/// As [`Terms::set`].
fn set_in(tree: &mut BTreeMap<u64, u64>, lo: u64, hi: u64, term: u64) {
    let after = hi.checked_add(1).and_then(|next| Some((next, *tree.range(..=next).next_back()?.1)));
    let before = tree.range(..lo).next_back().map(|(_, &term)| term);
    while let Some(start) = tree.range(lo..=hi).next().map(|(&start, _)| start) {
        tree.remove(&start);
    }
    // The next run may begin right there, or be of the term that now lasts until then.
    let behind = after.map_or(term, |(_, behind)| behind);
    let next = hi.checked_add(1).and_then(|next| tree.range(next..).next());
    if let Some(start) = next.filter(|&(_, &next)| next == behind).map(|(&start, _)| start) {
        tree.remove(&start);
    }
    if before != Some(term) {
        tree.insert(lo, term);
    }
    if let Some((next, behind)) = after.filter(|&(_, behind)| behind != term) {
        tree.insert(next, behind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn agrees_with_a_plain_array_under_random_sets_pushes_and_cuts() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut plain = vec![None; 60];
            let mut terms = Terms::default();
            for _ in 0..40 {
                let lo = rng.random_range(0..50_usize);
                let hi = rng.random_range(lo..50);
                let term = rng.random_range(1..4);
                if rng.random_bool(0.5) {
                    // Holes are only ever asked about by the owner's own range, so the model fills them as `set` may.
                    if plain.iter().take(hi + 2).skip(lo).any(|t: &Option<u64>| t.is_some())
                        || plain.iter().all(|t| t.is_none())
                    {
                        terms.set(lo as u64, hi as u64, term);
                        plain[lo..=hi].fill(Some(term));
                    }
                } else {
                    terms.push(lo as u64, term);
                    plain[lo..].fill(Some(term));
                }
                for (i, want) in plain.iter().enumerate() {
                    if let Some(want) = want {
                        assert_eq!(terms.get(i as u64), Some(*want), "seed {seed} index {i}: {terms:?}");
                    }
                }
            }
        }
    }

    /// Whether they lie in a list or in a tree, at any time.
    #[test]
    fn a_tree_of_terms_is_as_a_list_of_them() {
        for seed in 0..100 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut tree, mut list) = (Terms::default(), Terms::default());
            for step in 0..400 {
                let (what, lo, term) = (rng.random_range(0..40), rng.random_range(1..900), rng.random_range(1..5));
                let hi = lo + rng.random_range(0..9);
                for terms in [&mut tree, &mut list] {
                    match what {
                        0 => terms.cut_from(lo),
                        1 => terms.drop_below(lo / 4),
                        2..5 => terms.push(lo.max(800), term),
                        5 => terms.set(lo, u64::MAX, term),
                        _ => terms.set(lo, hi, term),
                    }
                }
                list.settle();
                if rng.random_bool(0.1) {
                    tree.settle();
                    assert_eq!(tree, list, "seed {seed}, step {step}");
                    tree.runs = Runs::Tree(Box::new(list.iter().collect()));
                }
            }
        }
    }

    /// From both ends inwards: moved for each, these would not come to an end.
    #[test]
    fn terms_come_to_an_end_in_whatever_order_they_are_named() {
        const N: u64 = 1_000_000;
        let mut terms = Terms::default();
        for i in (1..=N / 2).flat_map(|i| [i, N + 1 - i]) {
            terms.set(i, i, i);
        }
        terms.settle();
        // The first of them goes on behind all others.
        assert!(terms.iter().eq((1..=N).map(|i| (i, i)).chain([(N + 1, 1)])), "{}", terms.len());
    }

    /// Each of them before the last.
    #[test]
    fn terms_named_in_descending_order_are_not_moved_for_each() {
        const N: u64 = 10_000;
        let (mut terms, mut moved, mut lay_at) = (Terms::default(), 0, std::ptr::null());
        for index in (1..=N).rev() {
            terms.set(index, index, index);
            let lies_at = std::ptr::from_ref(terms.runs.list().last().expect("one"));
            moved += u64::from(std::mem::replace(&mut lay_at, lies_at) != lies_at);
        }
        assert!(moved < 100, "{moved} times");
        assert_eq!((terms.len() as u64, terms.get(1), terms.get(N)), (N, Some(1), Some(N)));
    }

    #[test]
    fn runs_cover_a_range_and_prefixes_can_be_dropped() {
        let mut terms = Terms::default();
        terms.push(10, 1);
        terms.push(15, 1);
        terms.push(20, 2);
        assert_eq!(terms.len(), 2);
        assert_eq!(terms.runs(12, 10).as_slice(), [(8, 1), (2, 2)]);
        terms.drop_below(18);
        assert_eq!(terms.get(17), None);
        assert_eq!(terms.runs(16, 6).as_slice(), [(4, 1), (2, 2)]);
        terms.cut_from(20);
        assert_eq!(terms.get(20), Some(1));
    }
}
